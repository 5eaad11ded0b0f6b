"""Where tall matrices live: in memory, or in files that are mapped into it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError, MemoryLimitError

__all__ = ["Storage"]

Array = npt.NDArray[Any]


class Storage:
    """A source of arrays without values, in memory or in files of a directory.

    A file has no name and vanishes with its array. Its space is taken at once where the system can,
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
        if directory is not None and not Path(directory).is_dir():
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
            MemoryLimitError: the disk is full.
        """
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if self.directory is None or not size:
            return np.empty(shape, dtype)
        with tempfile.TemporaryFile(dir=self.directory) as file:
            self._take(file.fileno(), size)
            return np.asarray(np.memmap(file, dtype, "r+", shape=shape))

    def _take(self, descriptor: int, size: int) -> None:
        """Claim the file's space on the disk, or refuse where there is too little."""
        if size > self.free:
            raise MemoryLimitError(
                f"the eigenvectors do not fit on the disk of {self._argument}",
                expected=f"at most {self.free / 2**30:.2f} GiB, what is free there",
                received=f"{size / 2**30:.2f} GiB for one of several such matrices",
                remedy="ask for a smaller rank, or name a directory on a larger disk",
            )
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.truncate(descriptor, size)
