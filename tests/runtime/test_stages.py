"""The stages of long work: how long they may take yet, by what was seen of their speed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from deltauq.runtime import stages as module
from deltauq.runtime.stages import Remaining, Stage, Stages

SPEED = 3.0  # seconds for each that the plan counts
FIRST = Stage("first", "one", seconds=10.0, parts=100)
BOUND = Stage("bound", "two", seconds=20.0, parts=200, at_most=True)
LAST = Stage("last", "three", seconds=2.0)


class Clock(SimpleNamespace):
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


def work(stages, clock, parts, step=10, speed=SPEED):
    """Some parts of the present stage at the speed that the plan was counted for."""
    each = stages.now.seconds / stages.now.parts * speed
    for _ in range(0, parts, step):
        clock.now += step * each
        stages.advance(step)


def begun(*plan):
    found = Stages()
    found.begin(Stage("the cost", "before all", parts=50))
    found.plan(plan)
    return found


@pytest.mark.quick
def test_the_time_over_all_stages_at_a_speed_that_stays(clock):
    stages = begun(FIRST, BOUND, LAST)
    work(stages, clock, 50)
    assert stages.left is None  # a pass of another kind tells nothing
    assert stages.place == "1 of at most 4"
    stages.begin(FIRST)
    clock.now += 1000.0  # compiling
    stages.advance(10)
    assert stages.left is None
    work(stages, clock, 20)
    assert stages.left == pytest.approx((SPEED * (7 + 20 + 2), True))
    work(stages, clock, 70)
    assert (stages.share, stages.place) == (1.0, "2 of at most 4")
    stages.begin(BOUND)
    assert stages.left == pytest.approx((SPEED * 22, True))
    work(stages, clock, 50)
    assert stages.left == pytest.approx((SPEED * (15 + 2), True))
    assert stages.share == 0.25
    stages.begin(LAST)  # enough was found
    assert stages.left == pytest.approx((SPEED * 2, False))
    clock.now += SPEED
    assert stages.left == pytest.approx((SPEED * 1, False))
    clock.now += 2 * SPEED
    assert stages.left is None  # it takes longer than was planned, nobody knows how long
    stages.end()
    assert (stages.share, stages.left, stages.place) == (1.0, None, "4 of 4")


def test_a_stage_soon_goes_by_its_own_speed(clock):
    stages = begun(FIRST, BOUND)
    stages.begin(FIRST)
    work(stages, clock, 100)
    stages.begin(BOUND)
    work(stages, clock, 110, speed=10 * SPEED)
    # A tenth of the stage counts at the speed before, half of it, which was timed, at its own.
    assert stages.left.seconds == pytest.approx(9 * SPEED * (10 * 10 + 2) / 12)


def test_parts_that_are_known_from_before_do_not_spoil_the_speed(clock):
    stages = begun(FIRST, LAST)
    stages.begin(FIRST)
    for _ in range(5):
        clock.now += 0.01
        stages.recall(10)
    assert stages.share == 0.5
    assert stages.left is None  # nothing was computed
    work(stages, clock, 20)
    assert stages.left == pytest.approx((SPEED * (3 + 2), False))
    stages.recall(20)
    assert stages.left == pytest.approx((SPEED * (1 + 2), False))


def test_between_two_reports_time_goes_on(clock):
    stages = begun(FIRST)
    stages.begin(FIRST)
    work(stages, clock, 50)
    clock.now += SPEED
    assert stages.left.seconds == pytest.approx(SPEED * 4)
    clock.now += 100.0
    assert stages.left.seconds == 0.0


def test_more_parts_than_were_planned_leave_no_number(clock):
    stages = begun(FIRST, BOUND)
    stages.begin(FIRST)
    work(stages, clock, 110)
    assert stages.left is None
    assert stages.share == 1.0


def test_planned_stages_that_are_not_needed_are_left_out(clock):
    stages = begun(FIRST, BOUND, FIRST, BOUND, LAST)
    stages.begin(FIRST)
    stages.begin(FIRST)
    assert stages.to_come == [BOUND, LAST]
    stages.begin(Stage("unplanned", ""))
    assert stages.to_come == [BOUND, LAST]
    stages.begin(LAST)
    assert not stages.to_come


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(12.4, "12 s"), (200, "3 min"), (7200, "2 h"), (1e6, "12 days"), (1e300, "days")],
)
def test_times_in_words(seconds, words):
    assert str(Remaining(seconds, False)).startswith("about ")
    assert str(Remaining(seconds, True)).startswith("at most about ")
    assert f"{words} left" in str(Remaining(seconds, False))


def test_what_is_between_parts_counts_for_the_rest_and_not_for_their_speed(clock):
    between = Stage("between", "one", seconds=10.0, parts=100, beside=20.0)
    stages = begun(between, LAST)
    stages.begin(between)
    work(stages, clock, 50)
    assert stages.left == pytest.approx((SPEED * (5 + 10 + 2), False))
    clock.now += SPEED * 20.0
    work(stages, clock, 50)
    stages.begin(LAST)
    assert stages.left.seconds == pytest.approx(SPEED * 2, rel=0.1)
