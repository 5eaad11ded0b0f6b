"""The progress display: late, in a few lines, and gone at the end; in a log a line now and then."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from deltauq.runtime import progress
from deltauq.runtime import stages as stages_module
from deltauq.runtime.stages import Stage, Stages


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal of 60 columns is sent."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=60)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    return file


def test_work_that_lasts_is_shown_with_what_it_is_and_why(terminal, monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", -1.0)
    why = "exact: the inner products of its n = 4,000 rows are formed, of P = 42,122 parameters"
    with progress.progress_bar("opg: the cost", total=100) as shown:
        shown.advance(40)
        assert "opg: the cost" in terminal.getvalue()
        shown.describe("opg by gram", why)
        shown.advance(20)
        shown._bar.refresh()
        later = " ".join(terminal.getvalue().split("opg by gram")[-1].split())
    assert "60 examples" in later
    assert "the inner products of its n = 4,000 rows are formed" in later  # in full, on two lines
    assert "42,122 parameters" in later


def test_a_note_stays_while_what_goes_on_changes(terminal, monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", -1.0)
    with progress.progress_bar("opg: the cost", total=100) as shown:
        shown.note("checkpoint: 5 bytes in here")
        shown.describe("opg by gram", "as asked")
        shown._bar.refresh()
        later = terminal.getvalue().split("opg by gram")[-1]
    assert later.index("as asked") < later.index("checkpoint: 5 bytes in here")


@pytest.mark.parametrize("enabled", [True, False])
def test_short_work_and_work_without_a_display_show_nothing(terminal, monkeypatch, enabled):
    if not enabled:
        monkeypatch.setattr(progress, "_PATIENCE", -1.0)
    with progress.progress_bar("predicting", enabled=enabled) as shown:
        shown.describe("predicting by pairs", "there are many")
        shown.advance(5)
    assert terminal.getvalue() == ""


STAGES = [
    Stage("looking", "for what is there", seconds=10.0, parts=100),
    Stage("bounding", "what is left", seconds=5.0, parts=50, at_most=True),
]


def test_stages_are_shown_with_what_they_are_for_and_the_time_over_all(terminal, monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", -1.0)
    stages = Stages()
    with progress.progress_bar("opg", stages=stages) as shown:
        stages.begin(Stage("the cost", "before all", parts=10))
        shown.describe("opg by sketch", "as asked")
        stages.plan(STAGES)
        stages.begin(STAGES[0])
        for _ in range(5):
            shown.advance(10)
        shown._bar.refresh()
        later = " ".join(terminal.getvalue().split())
        assert re.search(r"opg by sketch .* 50%\S* 50 examples", later)
        told = r"2 of at most 3, at most about 0 s left: looking: for what.*there.*as asked"
        assert re.search(told, later)
        stages.begin(STAGES[1])
        shown._bar.refresh()
        assert "bounding: what is left" in terminal.getvalue()
        (task,) = shown._bar.tasks
        shown.advance(50)
        assert (task.percentage, task.finished) == (100, False)  # of a stage: the clock goes on
        stages.begin(Stage("solving", "all at once", seconds=1.0))
        assert task.total is None  # nobody knows how far it is
        stages.end()
        assert task.percentage == 100
    sent = terminal.getvalue()
    stages.begin(STAGES[0])  # what lives on after the work shows nothing
    shown.advance(1)
    assert terminal.getvalue() == sent


@pytest.fixture
def log(monkeypatch):
    """What a file is sent in place of a terminal, and a clock."""
    file, clock = io.StringIO(), SimpleNamespace(now=0.0)
    console = Console(file=file, width=60)
    clock.monotonic = lambda: clock.now
    for module in (progress, stages_module):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=file))
    return file, clock


@pytest.mark.parametrize("enabled", [True, False])
def test_a_log_gets_few_lines(log, enabled):
    file, clock = log
    stages = Stages()
    with progress.progress_bar("opg", stages=stages, enabled=enabled) as shown:
        shown.describe("opg by sketch", "as asked")
        shown.note("checkpoint: 5 bytes in here")
        stages.plan(STAGES)
        for stage in STAGES:
            stages.begin(stage)
            for _ in range(int(stage.parts)):
                clock.now += 60.0
                shown.advance(1)
        stages.end()
    lines = file.getvalue().splitlines()
    if not enabled:
        assert lines == []
        return
    assert lines[0] == (
        "deltauq: opg by sketch; 1%; 1 of at most 2: looking: for what is there; as asked; "
        "checkpoint: 5 bytes in here"
    )
    assert "1 of at most 2, at most about 2 h left: looking: for what is there" in lines[1]
    assert (
        "deltauq: opg by sketch; 0%; 2 of 2, at most about 50 min left: bounding: what"
        in file.getvalue()
    )
    assert 6 <= len(lines) <= 12  # of two and a half hours
    assert all(line.startswith("deltauq: ") for line in lines)


def test_many_short_stages_get_few_lines_in_a_log(log):
    file, clock = log
    stages = Stages()
    with progress.progress_bar("opg", stages=stages) as shown:
        for number in range(200):
            stages.begin(Stage(f"stage {number}", "one of many", parts=10))
            clock.now += 4.0
            shown.advance(10)
    assert 10 <= len(file.getvalue().splitlines()) <= 800 / 30 + 1


class Gone(io.StringIO):
    """A stream that nobody reads any more."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Gone(), closed(), None], ids=["gone", "closed", "none"])
def test_a_log_that_nobody_reads_ends_no_work(log, monkeypatch, capsys, stream):
    _, clock = log
    monkeypatch.setattr(progress.sys, "stderr", stream)  # the module's own
    stages, done = Stages(), 0
    with progress.progress_bar("opg", stages=stages) as shown:
        stages.begin(STAGES[0])
        for _ in range(100):
            clock.now += 60.0
            shown.advance(1)
            done += 1
    assert done == 100
    assert capsys.readouterr() == ("", "")


def test_short_work_leaves_no_line_in_a_log(log):
    file, clock = log
    stages = Stages()
    with progress.progress_bar("opg", stages=stages) as shown:
        for stage in STAGES:
            stages.begin(stage)
            clock.now += 14.0
            shown.advance(1)
        stages.end()
    assert file.getvalue() == ""
