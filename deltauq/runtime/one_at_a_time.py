"""A directory that one process uses at a time, by a lock that ends with the process."""

from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from deltauq.errors import CheckpointWarning, InvalidInputError, WriteError, warn

__all__ = ["LOCK", "DirectoryLock"]

#: The file that is locked; what it holds is for people.
LOCK = "in-use.lock"

#: What systems say of a lock that somebody else has, and of places where files cannot be locked.
_TAKEN = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        file.seek(2**20)  # far from the text: others could not read what is locked
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class DirectoryLock:
    """A lock on a directory: the system's own on a file in there, which a kill gives back too.

    Args:
        directory: exists.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK
        self._file: IO[bytes] | None = None

    def take(self) -> None:
        """Take the lock, or refuse.

        Raises:
            InvalidInputError: somebody else has it.
            WriteError: the file cannot be made.
        """
        while self._file is None:
            try:
                file = self._path.open("a+b", buffering=0)  # nothing is left to write at the end
            except OSError as error:
                raise WriteError(
                    "the directory of the checkpoint cannot be written to",
                    expected="a place that can be written to",
                    received=f"{self._path.parent}: {error.strerror}",
                    remedy="name another place, or change who may write there",
                ) from error
            if self._is_taken(file):
                raise self._in_use(file)
            if self._is_there(file):  # and was not removed by its last owner before it was locked
                self._file = file
            else:
                file.close()
        with suppress(OSError):  # on a full disk nobody is named
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} of {socket.gethostname()}\n".encode())

    def give_back(self) -> None:
        """Remove the file and end the lock, where it was taken."""
        file, self._file = self._file, None
        if file is None:
            return
        if sys.platform == "win32":  # no file is removed there while it is open
            file.close()
        with suppress(OSError):  # a file that stays is no lock
            self._path.unlink(missing_ok=True)
        file.close()

    def _is_taken(self, file: IO[bytes]) -> bool:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _TAKEN:
                return True
            if error.errno not in _NO_LOCKS:
                file.close()
                raise
            warn(
                f"files in {self._path.parent} cannot be locked: see that no other process uses "
                "this checkpoint at the same time.",
                CheckpointWarning,
            )
        return False

    def _is_there(self, file: IO[bytes]) -> bool:
        """Whether an open file is the one that has its name."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def _in_use(self, file: IO[bytes]) -> InvalidInputError:
        with file:
            file.seek(0)
            owner = file.read().decode(errors="replace").strip()
        return InvalidInputError(
            "another fit is using the directory of the checkpoint",
            expected="a directory that one fit at a time goes on from",
            received=f"{self._path.parent}, which {owner or 'another process'} has locked",
            remedy="wait for that fit to end, or stop it and what it started; or name another "
            "directory for this one",
        )
