"""A file is written whole or not at all: after an error the old one is there, and nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from full_disk import full_disk

from deltauq.errors import WriteError
from deltauq.runtime.whole_files import folder_written_whole, temporary_folder, written_whole


def everything_in(folder):
    """Content of all files by their names."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "report.html"
    path.write_bytes(b"old")
    return path


@pytest.mark.quick
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
@pytest.mark.parametrize("writing", [written_whole, folder_written_whole])
def test_an_error_half_way_leaves_what_was_there_and_nothing_else(old, writing, error):
    path = old if writing is written_whole else old.with_name("exported")

    def write():
        with writing(path) as beside:
            half = beside if writing is written_whole else beside / "half"
            half.parent.mkdir(exist_ok=True)
            half.write_bytes(b"half of")
            beside.with_name(".tmp1a2b3c").write_bytes(b"as some libraries write first")
            raise error

    with pytest.raises(error):
        write()
    assert everything_in(old.parent) == {"report.html": b"old"}


def write(path, content, **options):
    with written_whole(path, **options) as beside:
        beside.write_bytes(content)


@pytest.mark.parametrize("size", [None, 5 * 2**20])
def test_a_full_disk_is_told_with_the_room_that_is_needed(old, size):
    said = "" if size is None else "5.0 MiB "
    match = rf"report.html could not be written.*room for .*{said}.*File too large.*free there"
    with pytest.raises(OSError, match=match) as caught, full_disk(100):
        write(old, bytes(101), size=size)
    assert isinstance(caught.value, WriteError)
    assert ".tmp" not in str(caught.value)  # a name that nobody has given
    assert everything_in(old.parent) == {"report.html": b"old"}
    with full_disk(101):
        write(old, bytes(101), size=size)
    assert everything_in(old.parent) == {"report.html": bytes(101)}


def test_a_full_disk_leaves_no_part_of_a_folder(tmp_path):
    goal = tmp_path / "exported"

    def export():
        with folder_written_whole(goal) as beside:
            (beside / "variables").mkdir(parents=True)
            (beside / "first").write_bytes(b"1")
            (beside / "variables" / "second").write_bytes(bytes(101))

    with pytest.raises(WriteError, match="exported could not be written"), full_disk(100):
        export()
    assert not list(tmp_path.iterdir())
    with full_disk(101):
        export()
    assert everything_in(goal) == {"first": b"1", "variables/second": bytes(101)}
    assert list(tmp_path.iterdir()) == [goal]


def test_what_is_written_is_on_the_disk_before_the_old_file_goes(old, monkeypatch):
    """And the new name is there before anyone is told that it is written."""
    on_disk, fsync = [], os.fsync

    def noted(descriptor):
        fsync(descriptor)
        on_disk.append((Path(f"/proc/self/fd/{descriptor}").resolve(), old.read_bytes()))

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("only Linux says which file a descriptor is of")
    monkeypatch.setattr(os, "fsync", noted)
    with written_whole(old) as beside:
        beside.write_bytes(b"new")
    assert on_disk == [(beside, b"old"), (old.parent, b"new")]
    assert everything_in(old.parent) == {"report.html": b"new"}


def test_every_file_of_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda each: synced.append(goal.exists()) or fsync(each))
    goal = tmp_path / "exported"
    with folder_written_whole(goal) as beside:
        (beside / "inner").mkdir(parents=True)
        (beside / "inner" / "file").write_bytes(b"1")
    assert synced == [False] * 3 + [True]  # the file, two folders; the folder with the new name


@pytest.mark.parametrize("mode", [0o640, 0o444, None])
def test_the_mode_is_that_of_the_older_file_or_of_any_new_one(tmp_path, mode):
    path, ordinary = tmp_path / "file", tmp_path / "ordinary"
    ordinary.touch()
    if mode is not None:
        path.touch()
        path.chmod(mode)
    with written_whole(path) as beside:
        beside.unlink()
        beside.touch(0o600)  # as some libraries make their files
    expected = stat.S_IMODE(ordinary.stat().st_mode) if mode is None else mode
    assert stat.S_IMODE(path.stat().st_mode) == expected


def test_a_link_is_followed(old, tmp_path):
    link = tmp_path / "elsewhere" / "link.html"
    link.parent.mkdir()
    link.symlink_to(old)
    with written_whole(link) as beside:
        assert beside.parent.parent == old.parent  # on the disk where it is to be
        beside.write_bytes(b"new")
    assert link.is_symlink()
    assert old.read_bytes() == b"new"


def test_libraries_that_go_by_the_suffix_find_it_and_long_names_can_be_written(tmp_path):
    path = tmp_path / ("n" * 250 + ".html")
    with written_whole(path) as beside:
        assert beside.suffix == ".html"
        beside.write_bytes(b"1")
    assert everything_in(tmp_path) == {path.name: b"1"}


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path, kind):
    """Of /dev/null, which the administrator could replace, nobody would be glad."""
    path = tmp_path / "special"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(WriteError, match=r"special could not.*the name of a file.*is no file"):
        write(path, b"nothing is to be written")
    assert list(tmp_path.iterdir()) == [path]
    assert not path.is_file()


def test_a_temporary_folder_without_room_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def write_there(writing):
        with full_disk(), temporary_folder() as folder:
            writing(folder / "model.keras", b"1")

    for writing in (Path.write_bytes, write):
        with pytest.raises(WriteError, match=rf"temporary file.*{tmp_path}.*too large.*TMPDIR"):
            write_there(writing)
        assert not list(tmp_path.iterdir())
