"""A progress display for long work, shown only when the work lasts longer than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from deltauq.runtime.stages import Stage, Stages

__all__ = ["ProgressDisplay", "progress_bar"]

#: Seconds of work before the display appears.
_PATIENCE = 1.0

#: Seconds of work before the first line in a log, which is twice as long before the next one, and
#: between two of them at most.
_FIRST_LINE, _BETWEEN_LINES = 30.0, 3600.0


#: What a stream raises that is closed, full, or read by nobody: no reason to end the work.
_LOST = (OSError, ValueError)


class ProgressDisplay:
    """What work tells of itself while it is going on.

    On a terminal it is a bar with lines below. Elsewhere, as in a log, it is a line now and then,
    less and less often.

    Args:
        bar: where it is shown.
        description: what is going on.
        total: examples in all; None where that is not known beforehand.
        enabled: False shows nothing.
    """

    def __init__(
        self, bar: _Bar, description: str, total: float | None, *, enabled: bool = True
    ) -> None:
        self._bar, self._enabled, self._is_closed = bar, enabled, False
        self._stages = bar.stages
        self._started = time.monotonic()
        self._next_line, self._shown_stage = self._started + _FIRST_LINE, ""
        self._last_line = self._started
        self._task = bar.add_task(description, total=total, unit="examples")
        if total is not None:
            self._stages.begin(Stage("", "", seconds=1.0, parts=total))
        self._stages.changed = self._show

    def advance(self, steps: float) -> None:
        """Tell of so many examples that were done since the last call."""
        self._stages.advance(steps)

    def describe(self, description: str, why: str = "") -> None:
        """Tell what is going on now, and why, on a line of its own."""
        self._bar.what, self._bar.why = description, why
        self._show()

    def note(self, text: str) -> None:
        """Tell what holds for all that goes on, on a line of its own."""
        self._bar.note = text
        self._show()

    def close(self) -> None:
        """Take the display away, and show nothing whatever the stages are told later."""
        self._stages.changed = lambda: None
        self._is_closed = True
        with suppress(*_LOST):
            self._bar.stop()

    def _show(self) -> None:
        """Bring the display up to date; begin it where the work has lasted a while."""
        if not self._enabled or self._is_closed:
            return
        if self._bar.disable:
            self._log()
            return
        stages, of_stage = self._stages, self._stages.now or Stage("", "")
        ended = 1.0 if stages.share == 1.0 else None  # of a bar that has nothing else to show
        (task,) = self._bar.tasks
        task.total = of_stage.parts or ended  # which `update` would keep where it is None
        late = time.monotonic() - self._started > _PATIENCE
        with suppress(*_LOST):
            self._bar.update(
                self._task,
                description=self._bar.what,
                completed=stages.parts or ended or 0.0,
                unit=of_stage.unit,
            )
            task.finished_time = None  # it is a stage that is over, and the clock goes on
            if late and not self._bar.live.is_started:
                self._bar.start()

    def _log(self) -> None:
        """Write a line, where it is time, or another stage begins and the last line is old."""
        now, bar, stages = time.monotonic(), self._bar, self._stages
        name, is_first = stages.now.name if stages.now else "", self._last_line == self._started
        begins = name != self._shown_stage
        if now < self._next_line and not (begins and now >= self._last_line + _FIRST_LINE):
            return
        if now >= self._next_line:
            passed = now - self._started
            self._next_line = now + min(max(passed, _FIRST_LINE), _BETWEEN_LINES)
        facts = [bar.what, "" if stages.share is None else f"{stages.share:.0%}", bar.of_stages]
        facts += [bar.why, bar.note] if is_first else []
        self._shown_stage, self._last_line = name, now
        line = "; ".join(fact for fact in facts if fact)
        # Not by `rich`, which ends the process where nobody reads the stream any more.
        if sys.stderr is not None:  # as it is in a window without a console
            with suppress(*_LOST):
                print(f"deltauq: {line}", file=sys.stderr, flush=True)


@contextmanager
def progress_bar(
    description: str,
    *,
    total: float | None = None,
    enabled: bool = True,
    stages: Stages | None = None,
) -> Iterator[ProgressDisplay]:
    """Show a progress bar around work that lasts longer than a second; it vanishes at the end.

    Args:
        description: what is going on.
        total: examples in all; None where that is not known beforehand, or is known of stages.
        enabled: False shows nothing. A stream that is no terminal gets few lines.
        stages: what stages of the work report to; None where it has none.
    """
    console = Console(stderr=True)
    stages = stages or Stages()
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} {task.fields[unit]}"),
        TimeElapsedColumn(),
    ]
    on_screen = enabled and (console.is_terminal or console.is_jupyter)
    options = {"console": console, "transient": True, "disable": not on_screen}
    bar = _Bar(*columns, stages=stages, what=description, **options)
    shown = ProgressDisplay(bar, description, total, enabled=enabled)
    try:
        yield shown
    finally:
        shown.close()


class _Bar(Progress):
    """A bar with lines below it.

    Args:
        *columns: of the bar.
        stages: of what goes on.
        what: goes on.
        **options: as `rich` takes them.

    Attributes:
        why: about what goes on now, on a line of its own.
        note: about all of it, likewise.
    """

    def __init__(self, *columns: ProgressColumn, stages: Stages, what: str, **options: Any) -> None:
        self.stages, self.what, self.why, self.note = stages, what, "", ""
        super().__init__(*columns, **options)  # asks for what is to be shown

    @property
    def of_stages(self) -> str:
        """Which stage goes on, what it is for, and how long all of them may take yet."""
        now, left = self.stages.now, self.stages.left
        times = ", ".join(text for text in (self.stages.place, str(left or "")) if text)
        about = (times, now.name, now.why) if now else (times,)
        return ": ".join(text for text in about if text)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar and the lines, as `rich` asks for them."""
        yield from super().get_renderables()
        lines = (self.of_stages, self.why, self.note)
        yield from (Text(line, style="dim") for line in lines if line)
