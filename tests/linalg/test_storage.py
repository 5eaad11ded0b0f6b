"""Matrices in files have all their room before they are mapped, and leave nothing behind."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from full_disk import full_disk

from deltauq.errors import MemoryLimitError
from deltauq.linalg import Storage
from deltauq.linalg.storage import _take

SIZE = 3 * 2**20 + 5


def no_such_thing(number):
    """What a file system does that has no room to give at once."""

    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.fixture(params=["at once", "never", errno.EOPNOTSUPP, errno.EINVAL])
def taking(request, monkeypatch):
    """Systems by how they give room."""
    if request.param == "never":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    elif request.param != "at once":
        monkeypatch.setattr(os, "posix_fallocate", no_such_thing(request.param), raising=False)


def test_a_file_has_its_room_on_the_disk_before_anything_is_put_there(taking, tmp_path):
    """A sparse one has none, and the process dies where the disk fills up meanwhile."""
    with (tmp_path / "file").open("wb+") as file:
        os.truncate(file.fileno(), SIZE)
        assert os.fstat(file.fileno()).st_blocks * 512 < SIZE  # else nothing is shown here
        _take(file, SIZE)
        found = os.fstat(file.fileno())
    assert found.st_size == SIZE
    assert found.st_blocks * 512 >= SIZE
    assert not np.any(np.fromfile(tmp_path / "file", np.uint8))


@pytest.mark.quick
def test_a_matrix_in_a_file_is_like_one_in_memory(taking, tmp_path, rng):
    values = rng.normal(size=(70, 3))
    array = Storage(tmp_path).empty(values.shape, np.float64)
    array[:] = values
    np.testing.assert_array_equal(array, values)
    assert array.flags.c_contiguous
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("room", [0, 2**20])  # of three
def test_a_disk_that_is_full_is_refused_with_what_is_needed(taking, tmp_path, room):
    match = rf"room for 3\.0 MiB in {tmp_path}.*File too large.*free there.*larger disk"
    with pytest.raises(MemoryLimitError, match=match), full_disk(room):
        Storage(tmp_path).empty((SIZE,), np.uint8)
    assert not list(tmp_path.iterdir())


def test_a_directory_that_has_gone_is_refused(tmp_path):
    directory = tmp_path / "vectors"
    directory.mkdir()
    storage = Storage(directory, argument="place")
    directory.rmdir()
    with pytest.raises(MemoryLimitError, match=r"disk of place.*No such file or directory"):
        storage.empty((5, 5), np.float64)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch, error):
    def interrupt(*arguments):
        raise error

    monkeypatch.setattr(os, "posix_fallocate", interrupt, raising=False)
    with pytest.raises(error):
        Storage(tmp_path).empty((5, 5), np.float64)
    assert not list(tmp_path.iterdir())
