"""Every way out that an error of the package names is gone by a test, or cannot be gone here."""

from __future__ import annotations

import ast

import pytest
from ways import TESTS, called, calls, found, rows, ways

#: Site and words of a remedy -> why no test can follow it on the machine that runs the tests.
OUTSIDE: dict[tuple[str, str], str] = {}


def covered():
    return {found(row.site, row.words) for row in rows() if row.runs} | {
        found(*key) for key in OUTSIDE
    }


@pytest.mark.quick
@pytest.mark.parametrize("room", sorted({way.room for way in ways()}))
def test_every_way_is_gone(room):
    missing = [str(way) for way in ways() if way.room == room and way not in covered()]
    assert not missing, "no test follows:\n" + "\n".join(missing)


def test_every_remedy_can_be_read():
    """One that comes from another module, or is computed, would pass for any."""
    assert not [str(way) for way in ways() if not way.is_known]


def test_rows_name_a_way_and_are_run():
    for row in rows():
        found(row.site, row.words)
        assert row.runs, f"{row.test} is not a test of every day"


def test_after_stumbling_every_test_goes_on():
    """The error alone is not the way out of it."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
                stumbles = [called(call) for call, _ in calls(ast.Module([function.body[-1]], []))]
                alone = isinstance(function.body[-1], ast.With) and "stumble" in stumbles
                assert not alone, f"{path.name}::{function.name} ends where it stumbles"


def test_what_no_test_can_follow_is_gone_by_none():
    gone = {found(row.site, row.words) for row in rows()}
    assert not [key for key in OUTSIDE if found(*key) in gone]
