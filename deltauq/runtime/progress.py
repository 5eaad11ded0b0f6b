"""A progress display for long work, shown only when the work lasts longer than a second."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["ProgressDisplay", "progress_bar"]

#: Seconds of work before the display appears.
_PATIENCE = 1.0


class ProgressDisplay:
    """What work tells of itself while it is going on.

    Args:
        bar: where it is shown.
        description: what is going on.
        total: examples in all; None where that is not known beforehand.
    """

    def __init__(self, bar: _Bar, description: str, total: float | None) -> None:
        self._bar = bar
        self._task = bar.add_task(description, total=total)
        self._started = time.monotonic()

    def advance(self, steps: float) -> None:
        """Tell of so many examples that were done since the last call."""
        self._bar.advance(self._task, steps)
        self._show_if_late()

    def describe(self, description: str, why: str = "") -> None:
        """Tell what is going on now, and why, on a line of its own."""
        self._bar.why = why
        self._bar.update(self._task, description=description)
        self._show_if_late()

    def note(self, text: str) -> None:
        """Tell what holds for all that goes on, on a line of its own."""
        self._bar.note = text
        self._show_if_late()

    def _show_if_late(self) -> None:
        """Begin to show work that has lasted a while."""
        late = time.monotonic() - self._started > _PATIENCE
        if late and not self._bar.disable and not self._bar.live.is_started:
            self._bar.start()


@contextmanager
def progress_bar(
    description: str, *, total: float | None = None, enabled: bool = True
) -> Iterator[ProgressDisplay]:
    """Show a progress bar around work that lasts longer than a second; it vanishes at the end.

    Args:
        description: what is going on.
        total: examples in all; None where that is not known beforehand.
        enabled: False shows nothing; nor does a stream that is no terminal.
    """
    console = Console(stderr=True)
    enabled = enabled and (console.is_terminal or console.is_jupyter)
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} examples"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    bar = _Bar(*columns, console=console, transient=True, disable=not enabled)
    try:
        yield ProgressDisplay(bar, description, total)
    finally:
        bar.stop()


class _Bar(Progress):
    """A bar with lines below it.

    Attributes:
        why: the first of them, if there is any, about what goes on now.
        note: the second, about all of it.
    """

    why = ""
    note = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar and the lines, as `rich` asks for them."""
        yield from super().get_renderables()
        yield from (Text(line, style="dim") for line in (self.why, self.note) if line)
