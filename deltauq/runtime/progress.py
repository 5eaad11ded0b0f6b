"""A progress display for long work, shown only when the work lasts longer than a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["progress_bar"]

#: Seconds of work before the display appears.
_PATIENCE = 1.0


@contextmanager
def progress_bar(
    description: str, *, total: float | None = None, enabled: bool = True
) -> Iterator[Callable[[float], None]]:
    """Show a progress bar around work that lasts longer than a second; it vanishes at the end.

    Yields a function that takes the number of examples done since its last call.

    Args:
        description: what is going on.
        total: examples in all; None where that is not known beforehand.
        enabled: False shows nothing; nor does a stream that is no terminal.
    """
    console = Console(stderr=True)
    enabled = enabled and (console.is_terminal or console.is_jupyter)
    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} examples"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not enabled,
    )
    task = display.add_task(description, total=total)
    started = time.monotonic()

    def advance(steps: float) -> None:
        display.advance(task, steps)
        if enabled and not display.live.is_started and time.monotonic() - started > _PATIENCE:
            display.start()

    try:
        yield advance
    finally:
        display.stop()
