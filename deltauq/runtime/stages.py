"""The stages of long work: which goes on, how far it is, and how long the rest may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Remaining", "Stage", "Stages"]

#: Share of a stage by which the speed of the stages before it counts beside its own.
_BEFORE = 0.1

#: Units of time in seconds, and up to how many seconds each is used.
_UNITS = ((1, 90, "s"), (60, 5400, "min"), (3600, 172_800, "h"), (86_400, float("inf"), "days"))


@dataclass(frozen=True)
class Stage:
    """A stage of long work: what it is, what it is for, and what it takes.

    Attributes:
        name: a few words, by which it is found among those that are to come.
        why: a few words on what it is for.
        seconds: that a count of its multiplications comes to; only its ratio to those of other
            stages is used. 0 for one that tells nothing of the speed of others.
        parts: what it is told of piece by piece, as examples that are read in all of its passes
            over the data; None where it is not told of, or nobody knows how many there are.
        beside: seconds by the same count of what it does between its parts, in one piece or a few.
        unit: what they are.
        at_most: `seconds` and `parts` are bounds: it ends when enough is known.
    """

    name: str
    why: str
    seconds: float = 0.0
    parts: float | None = None
    beside: float = 0.0
    unit: str = "examples"
    at_most: bool = False


class Remaining(NamedTuple):
    """How long work may take yet.

    Attributes:
        seconds: an estimate.
        at_most: of the longest that it may take, where it may end before.
    """

    seconds: float
    at_most: bool

    def __str__(self) -> str:
        unit, _, name = next(each for each in _UNITS if self.seconds < each[1])
        return f"{'at most ' if self.at_most else ''}about {self.seconds / unit:.0f} {name} left"


class Stages:
    """What stages of work report to while they go on, and whoever shows them asks.

    Times are estimated from what the plan counts for each stage, and from how long what was
    computed so far has taken beside its count. Parts that were known from work that was interrupted
    are done, and say nothing of the speed; nor does the first part of a stage, in which functions
    are compiled.

    Args:
        changed: is called after every report.

    Attributes:
        now: the stage that goes on; None before the first and after the end.
        number: of that stage, from 1.
        to_come: stages that are planned.
    """

    def __init__(self, changed: Callable[[], object] = lambda: None) -> None:
        self.changed = changed
        self.now: Stage | None = None
        self.number = 0
        self.to_come: list[Stage] = []
        self._is_planned = False
        # Seconds of what was computed in stages that are over, and the plan's count for it.
        self._seconds, self._counted = 0.0, 0.0
        self._reset()

    def _reset(self) -> None:
        """Begin to count the parts and the time of a stage that nothing is known of yet."""
        self._parts, self._timed, self._own = 0.0, 0.0, 0.0
        self._is_warm = False
        self._begun = self._last = time.monotonic()

    def plan(self, stages: Sequence[Stage]) -> None:
        """Say which stages are to come after the present one, in their order."""
        self.to_come, self._is_planned = list(stages), True
        self.changed()

    def begin(self, stage: Stage) -> None:
        """End the present stage, and begin another one: planned ones before it are left out.

        It takes the place of the next of its name in the plan.
        """
        self._leave()
        names = [each.name for each in self.to_come]
        if stage.name in names:
            del self.to_come[: names.index(stage.name) + 1]
        self.now, self.number = stage, self.number + 1
        self._reset()
        self.changed()

    def advance(self, parts: float) -> None:
        """Tell of so many parts that were computed since the last report."""
        now = time.monotonic()
        self._parts += parts
        if self._is_warm:
            self._timed += parts
            self._own += now - self._last
        self._is_warm, self._last = True, now
        self.changed()

    def recall(self, parts: float) -> None:
        """Tell of so many parts that are known, and were not computed."""
        self._parts += parts
        self._last = time.monotonic()
        self.changed()

    def end(self) -> None:
        """End the last stage; what was planned beyond it is not needed."""
        self._leave()
        self.to_come = []
        self.changed()

    def _leave(self) -> None:
        """Keep what the present stage says of the speed."""
        if self.now is not None:
            seconds, counted = self._measured(self.now)
            counted += self.now.beside * counted / self.now.seconds if counted > 0 else 0.0
            if self.now.parts is None:  # all of it has been done
                seconds, counted = time.monotonic() - self._begun, self.now.seconds
            if counted > 0:
                self._seconds, self._counted = self._seconds + seconds, self._counted + counted
        self.now = None

    def _measured(self, stage: Stage) -> tuple[float, float]:
        """Seconds of what was computed of the present stage, and the plan's count for it."""
        if not stage.parts or not self._timed:
            return 0.0, 0.0
        return self._own, stage.seconds * self._timed / stage.parts

    @property
    def parts(self) -> float:
        """Parts of the present stage that are done."""
        return self._parts

    @property
    def share(self) -> float | None:
        """Part of the present stage that is done, 1 after the end; None where nobody knows."""
        if self.now is None:
            return 1.0 if self.number else None
        if not self.now.parts:
            return None
        return min(1.0, self._parts / self.now.parts)

    @property
    def place(self) -> str:
        """Number of the present stage among all; empty until there is a plan."""
        if not self._is_planned:
            return ""
        count = self.number + len(self.to_come)
        is_bound = any(stage.at_most for stage in self.to_come)
        return f"{self.number} of {'at most ' if is_bound else ''}{count}"

    @property
    def left(self) -> Remaining | None:
        """How long the present stage and those to come may take; None where nothing tells.

        That is before anything was timed, and where a stage takes more than was planned.
        """
        stage = self.now
        if stage is None or not stage.seconds > 0:
            return None
        own, counted = self._measured(stage)
        if not self._counted + counted > 0:
            return None
        speed = (self._seconds + own) / (self._counted + counted)
        since = time.monotonic()
        if stage.parts is None:
            left = stage.seconds * speed - (since - self._begun)
        else:
            weight = _BEFORE * stage.seconds if self._counted else 0.0
            before = self._seconds / self._counted * weight if self._counted else 0.0
            slow = (own + before) / (counted + weight)
            left = stage.seconds * (1.0 - self._parts / stage.parts) * slow
            left = max(left - (since - self._last), 0.0) if left >= 0 else left
            left += max(stage.beside * speed * (1.0 - self._parts / stage.parts), 0.0)
        if not left >= 0:
            return None
        return Remaining(
            left + speed * sum(each.seconds + each.beside for each in self.to_come),
            any(each.at_most for each in (stage, *self.to_come)),
        )
