"""Files of named arrays that prove whole: safetensors with a SHA-256 of themselves in the header.

Any reader of that format opens them. The checksum is of the whole file (taken with zeros in its own
place), so that a changed, truncated or foreign file is told before anything of it is used.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from deltauq.runtime.whole_files import written_whole

__all__ = ["Seal", "header_of", "read_into", "seal_of", "write_sealed"]

Arrays = dict[str, npt.NDArray[Any]]

#: What stands before the checksum in the header, and in the checksum's place while it is taken.
_KEY, _BLANK = b'"deltauq.sha256":"', b"0" * 64

#: Bytes that are hashed, and copied from a file to an array, at a time.
_CHUNK = 2**24


class Seal(NamedTuple):
    """The checksum that a file holds of itself, and the one that is found."""

    stored: str
    found: str

    @property
    def holds(self) -> bool:
        """Whether the file is as it was written."""
        return self.stored == self.found


def write_sealed(
    path: Path, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write arrays and text beside a file's place, sealed, then move them there.

    Args:
        path: the file, in a folder that is there.
        arrays: by name.
        metadata: text by name.

    Raises:
        WriteError: the disk is full, or the place cannot be written to.
    """
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    size = sum(map(len, metadata.values())) + sum(array.nbytes for array in whole.values())
    with written_whole(path, size=size) as beside:
        try:
            safetensors.numpy.save_file(
                whole, beside, {**metadata, "deltauq.sha256": _BLANK.decode()}
            )
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error
        with beside.open("rb+") as file:
            place = _checksum_place(file.read(_header_end(file)))
            assert place is not None, "it was just written"
            digest = _digest(file, place)
            file.seek(place)
            file.write(digest)


def seal_of(path: Path) -> Seal | None:
    """Read a file to its end and take its checksum; None where it holds none of itself."""
    with path.open("rb") as file:
        place = _checksum_place(file.read(_header_end(file)))
        if place is None:
            return None
        file.seek(place)
        stored = file.read(len(_BLANK)).decode("ascii", "replace")
        return Seal(stored, _digest(file, place).decode())


def header_of(path: Path) -> bytes:
    """Header of a file that `write_sealed` wrote, whole or not; nothing of another file."""
    if not os.path.isfile(path):
        return b""
    with path.open("rb") as file:
        head: bytes = file.read(_header_end(file))
    return b"" if _checksum_place(head) is None else head


def read_into(content: Any, name: str, out: npt.NDArray[Any]) -> None:
    """Copy an array of an open file to where it is wanted, some of its rows at a time.

    Args:
        content: as `safetensors.safe_open` gives it.
        name: of the array.
        out: an array of its shape, with one axis at least.
    """
    stored = content.get_slice(name)
    step = max(1, _CHUNK * len(out) // max(1, out.nbytes))
    for start in range(0, len(out), step):
        rows = slice(start, min(start + step, len(out)))
        out[rows] = stored[rows]


def _header_end(file: Any) -> int:
    """Bytes of the length and the header that follows it; within the file, whatever it says."""
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    file.seek(0)
    return min(8 + length, size)


def _checksum_place(head: bytes) -> int | None:
    """Where the checksum stands; None where there is none."""
    found = head.find(_KEY)
    start = found + len(_KEY)
    return None if found < 0 or len(head) < start + len(_BLANK) else start


def _digest(file: Any, place: int) -> bytes:
    """SHA-256 of the file with zeros in the checksum's place, in hexadecimal."""
    file.seek(0)
    digest = hashlib.sha256(file.read(place))
    digest.update(_BLANK)
    file.seek(place + len(_BLANK))
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest().encode()
