"""Where tall matrices live: in memory, or in files that are mapped into it."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError, MemoryLimitError, check_path
from deltauq.runtime.whole_files import shown_bytes, shown_room

__all__ = ["Storage"]

Array = npt.NDArray[Any]

#: What is said where the file system cannot take space without writing to it.
_NO_SUCH_THING = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}

#: Bytes that are written at a time where space is taken so.
_ZEROS = bytes(2**20)


class Storage:
    """A source of arrays without values, in memory or in files of a directory.

    A file has no name and vanishes with its array. All its space is taken before it is mapped,
    because a disk that fills up under a mapped file kills the process.

    Args:
        directory: for the files; None for memory.
        argument: what the caller calls the directory, for messages.

    Raises:
        InvalidInputError: there is no such directory.
    """

    def __init__(self, directory: str | Path | None = None, *, argument: str = "directory") -> None:
        self.directory = directory
        self._argument = argument
        if directory is not None and not os.path.isdir(check_path(argument, directory)):
            raise InvalidInputError(
                f"{argument} is not a directory",
                expected="an existing directory on a disk with room for the eigenvectors",
                received=repr(str(directory)),
                remedy="create it, or pass None to keep the eigenvectors in memory",
            )

    @property
    def free(self) -> int:
        """Bytes that are free on the disk of the directory, which must have been given."""
        return shutil.disk_usage(str(self.directory)).free

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array in C order whose values are not set, in memory or in a file of its own.

        Args:
            shape: of the array.
            dtype: of its entries.

        Raises:
            MemoryLimitError: the disk has too little room, or refuses the file.
        """
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if self.directory is None or not size:
            return np.empty(shape, dtype)
        try:
            if size > self.free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with tempfile.TemporaryFile(dir=self.directory) as file:
                _take(file, size)
                return np.asarray(np.memmap(file, dtype, "r+", shape=shape))
        except OSError as error:
            raise MemoryLimitError(
                f"the eigenvectors do not fit on the disk of {self._argument}",
                expected=f"room for {shown_bytes(size)} in {self.directory}, one of several such "
                "matrices",
                received=f"{error.strerror or error}; {shown_room(Path(self.directory))}",
                remedy="ask for a smaller rank, or name a directory on a larger disk",
            ) from error


def _take(file: IO[bytes], size: int) -> None:
    """Claim a file's space on the disk: at once, or by writing zeros where that cannot be."""
    if hasattr(os, "posix_fallocate"):  # neither macOS nor Windows has it
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in _NO_SUCH_THING:
                raise
    for start in range(0, size, len(_ZEROS)):
        file.write(_ZEROS[: size - start])
    file.flush()
