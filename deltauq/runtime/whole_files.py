"""Files and folders that are written whole or not at all, so that nobody reads half of one."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deltauq.errors import WriteError

__all__ = [
    "folder_written_whole",
    "left_behind",
    "shown_bytes",
    "shown_room",
    "temporary_folder",
    "written_whole",
]

#: What the system says where there is no room: on the disk, in a quota, for a file of that size.
#: None is what a library says that does not tell.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None}

#: How the names of temporary folders end; letters of a file's name that they begin with, as names
#: have a greatest length.
_TEMPORARY, _LETTERS = ".tmp", 40


@contextmanager
def written_whole(path: Path, *, size: int | None = None) -> Iterator[Path]:
    """A place beside a file to write to; what is there at the end takes the file's place.

    It is on the disk before it does: an older file of that name is whole until then, and stays
    after an error. What was written so far is removed then.

    Args:
        path: the file as it is to be called in the end. Where it is a link, what that leads to is
            written.
        size: bytes that the file will have, for the error; None where that is not known.

    Raises:
        WriteError: the system refuses anything of it, inside of the `with` too.
    """
    goal = Path(os.path.realpath(path))
    with _refused(path, size):
        if goal.exists() and not goal.is_file():
            raise IsADirectoryError(errno.EISDIR, "what stands there is no file")
        with _folder_beside(goal) as folder:
            beside = folder / goal.name
            beside.touch()
            mode = (goal if goal.exists() else beside).stat().st_mode
            yield beside
            _to_disk(beside)
            beside.chmod(mode)  # some libraries make files that their owner alone may read
            beside.replace(goal)
            _to_disk(goal.parent)


@contextmanager
def folder_written_whole(path: Path, *, size: int | None = None) -> Iterator[Path]:
    """A place beside a folder to make it at; at the end it is moved to where the folder is to be.

    Args:
        path: the folder as it is to be called in the end; there is none as yet.
        size: bytes that it will take, for the error; None where that is not known.

    Raises:
        WriteError: the system refuses anything of it, inside of the `with` too.
    """
    with _refused(path, size), _folder_beside(path) as above:
        beside = above / path.name
        yield beside
        for each in (*beside.rglob("*"), beside):
            _to_disk(each)
        beside.rename(path)
        _to_disk(path.parent)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for files that others read and write by their names; in the end it is gone.

    Raises:
        WriteError: there is no room in it, or no place for it.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        raise WriteError(
            "a temporary file could not be written",
            expected=f"room in {tempfile.tempdir or 'the folder for temporary files'}",
            received=error.received if isinstance(error, WriteError) else _said(error),
            remedy="make room there, or set the environment variable TMPDIR to a folder on a "
            "larger disk, and start again",
        ) from error


def left_behind(path: Path, stems: str) -> bool:
    """Whether a folder is one in which a file was being written when a kill came.

    Args:
        path: of the folder, or of anything else.
        stems: what the names of such files match without their suffixes, as a regular expression.
    """
    name = rf"\.(?:{stems})\.\w+{re.escape(_TEMPORARY)}"
    return path.is_dir() and re.fullmatch(name, path.name) is not None


@contextmanager
def _folder_beside(goal: Path) -> Iterator[Path]:
    """A folder beside a goal, for it and whatever a library writes on the way to it; then gone."""
    prefix = f".{goal.stem[:_LETTERS]}."
    with tempfile.TemporaryDirectory(_TEMPORARY, prefix, dir=goal.parent) as folder:
        yield Path(folder)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, have arrived on the disk."""
    if not path.is_dir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        return
    with suppress(OSError):  # not every system has that for folders
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _refused(path: Path, size: int | None) -> Iterator[None]:
    """Say of what the system refuses what could not be written where, and what to do."""
    folder = path.absolute().parent
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise WriteError(
                f"{path} could not be written",
                expected=f"room for {'the whole of it' if size is None else shown_bytes(size)} in "
                f"{folder}",
                received=f"{_said(error)}; {shown_room(folder)}",
                remedy="make room there, or name a place on a larger disk; what stood there before "
                "is as it was",
            ) from error
        raise WriteError(
            f"{path} could not be written",
            expected="the name of a file, in a folder that can be written to",
            received=_said(error),
            remedy="name another place, or change who may write there",
        ) from error


def _said(error: OSError) -> str:
    """What the system or a library says of an error, without the name of a temporary file."""
    return error.strerror or str(error) or type(error).__name__


def shown_bytes(n_bytes: int) -> str:
    """A number of bytes as text for messages about files, such as "600 bytes" or "1.5 MiB"."""
    return f"{n_bytes / 2**20:,.1f} MiB" if n_bytes >= 2**20 else f"{n_bytes:,} bytes"


def shown_room(folder: Path) -> str:
    """How much room the disk of a folder has, in words, as far as the system tells."""
    try:
        return f"{shown_bytes(shutil.disk_usage(folder).free)} are free there"
    except OSError:
        return "how much is free there is not known"
