"""The progress display: late, in two lines, and gone at the end."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from deltauq.runtime import progress


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
