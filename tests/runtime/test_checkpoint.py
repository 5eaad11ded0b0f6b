"""A checkpoint gives back the results of steps, each for its own input, or none at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from full_disk import full_disk

from deltauq.errors import CheckpointWarning, InvalidInputError, WriteError
from deltauq.runtime import one_at_a_time
from deltauq.runtime.checkpoint import Checkpoint
from deltauq.runtime.manifest import Work
from deltauq.runtime.one_at_a_time import LOCK, DirectoryLock
from deltauq.runtime.steps import Steps
from deltauq.runtime.whole_files import written_whole

WORK = Work({"weights": "abc", "L2 rates": [0.1, 0.2], "rank": "5"}, {"threads": 2})
N = 6


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Every step is written when it is done."""
    monkeypatch.setattr(Checkpoint, "interval", 0.0)


class Interrupted(BaseException):
    """Like Ctrl-C, which pytest takes for itself."""


def work(steps, *, until=N, start=1.0, size=3):
    """Steps that depend on one another; the last result, and how many were computed."""
    value, computed = np.full((size, 2), start), []
    for number in range(until):
        result, beside = np.empty_like(value), np.empty(1)

        def compute(number=number, value=value, result=result, beside=beside):
            computed.append(number)
            np.multiply(value, 1.1 + number, out=result)
            beside[0] = number

        steps.kept("a step", (value,), (result, beside), compute)
        assert beside[0] == number
        value = result
    if until < N:
        raise Interrupted
    return value, len(computed)


def begun(folder, what=WORK, **options):
    return Checkpoint(folder).begin(what, **options)


def interrupted(folder, until, **options):
    with pytest.raises(Interrupted), begun(folder) as steps:
        work(steps, until=until, **options)


def resumed(folder, what=WORK, **options):
    with begun(folder, what) as steps:
        return work(steps, **options)


EXPECTED, _ = work(Steps())


@pytest.mark.quick
@pytest.mark.parametrize("until", [0, 1, 4])
@pytest.mark.parametrize("interval", [0.0, 1e9])
def test_only_what_is_missing_is_computed(tmp_path, monkeypatch, until, interval):
    """In one file a step, or all in one that an interruption flushes."""
    monkeypatch.setattr(Checkpoint, "interval", interval)
    interrupted(tmp_path, until)
    n_files = len(list(tmp_path.iterdir())) - 1
    assert n_files == (until if interval == 0.0 else min(until, 1))
    found, n_computed = resumed(tmp_path)
    np.testing.assert_array_equal(found, EXPECTED)
    assert n_computed == N - until
    assert not list(tmp_path.iterdir())


def test_steps_are_written_where_they_took_long_or_are_large(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint, "interval", 1e9)
    monkeypatch.setattr(Checkpoint, "buffer_bytes", 3 * (6 * 8 + 8))
    with begun(tmp_path) as steps:
        work(steps)
        names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "fit.safetensors",
        LOCK,
        "steps-000000.safetensors",
        "steps-000001.safetensors",
    ]


def test_what_is_buffered_does_not_change_with_the_array_of_the_caller(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint, "interval", 1e9)
    out = np.zeros(2)

    def interrupted_later():
        with begun(tmp_path) as steps:
            steps.kept("ones", (), (out,), lambda: out.fill(1.0))
            out[:] = 7.0
            raise Interrupted

    with pytest.raises(Interrupted):
        interrupted_later()
    again = np.zeros(2)
    with begun(tmp_path) as steps:
        steps.kept("ones", (), (again,), lambda: pytest.fail("it is known"))
    np.testing.assert_array_equal(again, np.ones(2))


@pytest.mark.parametrize("seconds", [0.0, 10.0])
def test_large_results_are_kept_where_computing_them_takes_longer(tmp_path, monkeypatch, seconds):
    """The others are computed again, and what comes after them is known all the same."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(Checkpoint, "buffer_bytes", 8 * 10)
    computed = []

    def large_and_small(steps, *, stop):
        large, small = np.zeros(20), np.zeros(2)

        def compute(out, value):
            computed.append(value)
            clock[0] += seconds
            out.fill(value)

        steps.kept("large", (), (large,), lambda: compute(large, 2.0))
        steps.kept("small", (large,), (small,), lambda: compute(small, 3.0))
        np.testing.assert_array_equal(large, 2.0)
        np.testing.assert_array_equal(small, 3.0)
        if stop:
            raise Interrupted

    def once():
        with begun(tmp_path) as steps:
            large_and_small(steps, stop=True)

    with pytest.raises(Interrupted):
        once()
    with begun(tmp_path) as steps:
        large_and_small(steps, stop=False)
    assert computed == ([2.0, 3.0] if seconds else [2.0, 3.0, 2.0])


@pytest.mark.parametrize("n_files", range(1, 5))
@pytest.mark.parametrize("how", ["torn", "a bit", "gone", "empty", "another's"])
def test_a_file_that_does_not_hold_ends_the_record(tmp_path, n_files, how):
    """What comes after is dropped, with a warning, and computed again."""
    interrupted(tmp_path, 4)
    path = tmp_path / f"steps-{n_files - 1:06d}.safetensors"
    content = path.read_bytes()
    flipped = bytes([content[-1] ^ 1])
    last = n_files == 4
    if how == "gone":
        path.unlink()
    elif how == "another's":
        path.write_bytes((tmp_path / "fit.safetensors").read_bytes())
    else:
        path.write_bytes({"torn": content[:-9], "a bit": content[:-1] + flipped}.get(how, b""))
    if how == "gone" and last:  # then it is a record that ends there
        found, n_computed = resumed(tmp_path)
    else:
        with pytest.warns(CheckpointWarning, match="damaged, or one before it is missing.*anew"):
            found, n_computed = resumed(tmp_path)
    np.testing.assert_array_equal(found, EXPECTED)
    assert n_computed == N - n_files + 1


def test_a_manifest_that_does_not_hold_leaves_nothing(tmp_path):
    interrupted(tmp_path, 4)
    (tmp_path / "fit.safetensors").write_bytes(b"half")
    with pytest.warns(CheckpointWarning, match=r"fit.safetensors is damaged or missing.*anew"):
        found, n_computed = resumed(tmp_path)
    np.testing.assert_array_equal(found, EXPECTED)
    assert n_computed == N


@pytest.mark.parametrize("interval", [0.0, 1e9])
def test_no_result_is_used_for_another_input(tmp_path, monkeypatch, interval):
    """In the middle of a file too; what was right before stays."""
    monkeypatch.setattr(Checkpoint, "interval", interval)
    interrupted(tmp_path, 4)
    value, others = np.ones((3, 2)), []

    def turned(steps, until):
        """The same two steps, and then others."""
        now = value
        for number in range(until):
            result, beside = np.empty_like(now), np.zeros(1)

            def compute(number=number, now=now, result=result, beside=beside):
                others.append(number)
                np.multiply(now, 1.1 + number, out=result)
                beside[0] = number

            given = now if number < 2 else now + 1e-9
            steps.kept("a step", (given,), (result, beside), compute)
            now = result
        if until < N:
            raise Interrupted

    def broken_off():
        with begun(tmp_path) as steps:
            turned(steps, 3)

    with (
        pytest.warns(CheckpointWarning, match="other numbers came before"),
        pytest.raises(Interrupted),
    ):
        broken_off()
    assert others == [2]
    with begun(tmp_path) as steps:
        turned(steps, N)
    assert others == [2, 3, 4, 5]


def test_steps_are_told_apart_by_name_and_form(tmp_path):
    out, other = np.empty(2), np.empty(2, np.float32)
    for what, into in (("b", out), ("a", other)):

        def one(into=out, what="a"):
            with begun(tmp_path) as steps:
                steps.kept(what, (), (into,), lambda: into.fill(1.0))
                raise Interrupted

        with pytest.raises(Interrupted):
            one()
        with pytest.warns(CheckpointWarning, match="other numbers"), pytest.raises(Interrupted):
            one(into, what)
        shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ({"weights": "other"}, "weights abc.*weights other"),
        ({"L2 rates": [0.1, 0.3]}, r"L2 rates \[0.1, 0.2\].*L2 rates \[0.1, 0.3\]"),
        ({"L2 rates": [0.1]}, "L2 rates"),
        ({"rank": "6"}, "rank 5.*rank 6"),
        ({"new": 1}, "new None.*new 1"),
    ],
)
def test_other_work_is_refused_by_what_differs(tmp_path, identity, said):
    interrupted(tmp_path, 2)
    other = Work(WORK.identity | identity, WORK.surroundings)
    with pytest.raises(InvalidInputError, match=f"of another fit.*{said}.*another directory"):
        begun(tmp_path, other)
    assert resumed(tmp_path)[1] == N - 2


def test_other_surroundings_are_told(tmp_path):
    """And rounding of the numbers that work is known by is none."""
    interrupted(tmp_path, 2)
    near = {"L2 rates": [0.1, 0.2 * (1 + 1e-9)]}
    other = Work(WORK.identity | near, {"threads": 4})
    with pytest.warns(CheckpointWarning, match=r"threads 4; it was begun with threads 2\).*last"):
        assert resumed(tmp_path, other)[1] == N - 2


def test_files_of_others_are_refused_and_left(tmp_path):
    for name in ("thesis.tex", ".fit.abcd1234.tmp"):  # the second is no folder, as ours are
        (tmp_path / name).write_text("years")
    others = r"holds other files.*\.fit\.abcd1234\.tmp, thesis\.tex.*this fit alone"
    with pytest.raises(InvalidInputError, match=others):
        Checkpoint(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years"
    with pytest.raises(InvalidInputError, match="not a directory"):
        Checkpoint(tmp_path / "thesis.tex")
    with pytest.raises(WriteError, match="cannot be made"):
        Checkpoint(tmp_path / "thesis.tex" / "inside")


@pytest.mark.parametrize("name", ["fit", "steps-000002"])
def test_what_a_killed_process_left_half_written_is_removed(tmp_path, name):
    """With what the library that writes files had beside them: safetensors has its own."""
    folder, killed = tmp_path / "whole", tmp_path / "killed"
    interrupted(folder, 2)
    with written_whole(folder / f"{name}.safetensors") as beside:
        beside.with_name(".tmp1a2b3c").write_bytes(b"half")
        shutil.copytree(folder, killed)
    assert any(path.is_dir() for path in killed.iterdir())
    assert resumed(killed)[1] == N - 2
    assert not list(killed.iterdir())


@pytest.mark.parametrize("interval", [0.0, 1e9])
def test_a_full_disk_leaves_the_record_whole(tmp_path, monkeypatch, interval):
    interrupted(tmp_path, 2)
    monkeypatch.setattr(Checkpoint, "interval", interval)
    monkeypatch.setattr(Checkpoint, "buffer_bytes", 100)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    match = r"steps-000002.*could not be written.*make room"
    with pytest.raises(WriteError, match=match), full_disk(100):
        resumed(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    found, n_computed = resumed(tmp_path)
    np.testing.assert_array_equal(found, EXPECTED)
    assert n_computed == N - 2


def test_an_interruption_says_how_to_go_on(tmp_path):
    told = []
    with pytest.raises(Interrupted) as caught, begun(tmp_path, tell=told.append) as steps:
        work(steps, until=2)
    size = sum(path.stat().st_size for path in tmp_path.glob("steps*"))
    assert len(told) == 2
    assert re.fullmatch(
        rf"checkpoint: {size} bytes in {tmp_path}; after an interruption the same call goes on "
        "from there",
        told[-1],
    )
    assert caught.value.__notes__ == [
        f"checkpoint: {size} bytes in {tmp_path}, and the same call goes on from there."
    ]


def test_results_of_many_sizes_come_back_where_they_belong(tmp_path):
    """Also into part of an array, and where there are none."""
    whole, empty = np.zeros((5, 6)), np.zeros((4, 0))

    def once(fill):
        with begun(tmp_path) as steps:
            steps.kept("part", (), (whole[1:4, :2], empty), lambda: whole[1:4, :2].fill(fill))
            raise Interrupted

    with pytest.raises(Interrupted):
        once(3.0)
    whole[:] = 0.0
    with pytest.raises(Interrupted):
        once(5.0)
    assert whole.sum() == 3.0 * 6
    assert np.all(whole[1:4, :2] == 3.0)


def test_a_directory_is_made_where_it_is_missing_and_stays(tmp_path):
    folder = tmp_path / "of" / "mine"
    assert resumed(folder)[1] == N
    assert os.listdir(folder) == []


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print(flush=True)
time.sleep(60)
"""


def test_a_lock_ends_with_the_process_that_had_it(tmp_path):
    """Killed, it leaves the file, and nobody is kept out by that."""
    interrupted(tmp_path, 2)
    command = [sys.executable, "-c", HOLD, tmp_path / LOCK]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        owner.stdout.readline()
        with pytest.raises(InvalidInputError, match="another fit is using the directory"):
            begun(tmp_path)
        owner.kill()
    assert (tmp_path / LOCK).exists()
    found, n_computed = resumed(tmp_path)
    np.testing.assert_array_equal(found, EXPECTED)
    assert n_computed == N - 2
    assert not list(tmp_path.iterdir())


def test_who_has_the_lock_is_named_and_keeps_it(tmp_path):
    with begun(tmp_path):
        for _ in range(2):
            with pytest.raises(InvalidInputError, match=f"process {os.getpid()} of "):
                begun(tmp_path)
    with pytest.raises(InvalidInputError, match="another fit"), begun(tmp_path):
        begun(tmp_path, WORK._replace(identity={}))
    assert LOCK not in os.listdir(tmp_path)


def test_a_full_disk_holds_a_lock_without_a_name(tmp_path):
    """And gives it back: what could not be written is not tried again at the end."""
    owner, other = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    with full_disk():
        owner.take()
        with pytest.raises(InvalidInputError, match="another process has locked"):
            other.take()
        owner.give_back()
        other.take()
    other.give_back()
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch):
    def refused(file):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(one_at_a_time, "_lock", refused)
    with pytest.warns(CheckpointWarning, match="cannot be locked"), begun(tmp_path) as steps:
        np.testing.assert_array_equal(work(steps)[0], EXPECTED)


def test_what_stays_is_marked_where_it_is_recorded_and_nowhere_else(tmp_path):
    scale = np.arange(5.0)
    assert Steps().mark(scale) is scale
    with begun(tmp_path) as steps:
        assert steps.mark(scale).nbytes == 32
        assert steps.mark(scale).tobytes() != steps.mark(scale + 1e-12).tobytes()
