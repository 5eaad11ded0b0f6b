"""The file of an artifact: named arrays and facts, written whole or not at all.

A safetensors file, which any reader of that format opens. Its header carries the facts as JSON, the
version of their layout, and a SHA-256 of the whole file (taken with zeros in its own place), so
that a changed, truncated or foreign file is refused before anything of it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from deltauq.errors import ArtifactError
from deltauq.runtime.whole_files import written_whole

__all__ = ["FORMAT", "is_artifact", "read", "write"]

Arrays = dict[str, npt.NDArray[Any]]

#: The newest layout of facts and arrays that is known here; a reader refuses newer ones.
FORMAT = 3

#: What stands before the checksum in the header, and in the checksum's place while it is taken.
_KEY, _BLANK = b'"deltauq.sha256":"', b"0" * 64

#: Bytes that are hashed at a time.
_CHUNK = 2**24


def write(
    path: Path,
    arrays: Mapping[str, npt.NDArray[Any]],
    facts: Mapping[str, Any],
    *,
    layout: int | None = None,
) -> None:
    """Write an artifact beside its place, then move it there: an old file stays whole until then.

    Args:
        path: the file.
        arrays: by name.
        facts: what JSON can hold, NumPy's numbers and arrays among it.
        layout: of them, the oldest whose readers know all that is in the file; None for `FORMAT`.

    Raises:
        ArtifactError: there is no such directory.
        WriteError: the disk is full, or the place cannot be written to.
    """
    if not path.parent.is_dir():
        raise ArtifactError(
            "the directory of the artifact does not exist",
            expected="an existing directory",
            received=str(path.parent),
            remedy="create it first, or name a file in one that exists",
        )
    metadata = {
        "deltauq.format": str(layout or FORMAT),
        "deltauq.facts": json.dumps(facts, default=_plain),
        "deltauq.sha256": _BLANK.decode(),
    }
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    size = len(metadata["deltauq.facts"]) + sum(array.nbytes for array in whole.values())
    with written_whole(path, size=size) as beside:
        try:
            safetensors.numpy.save_file(whole, beside, metadata)
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error
        with beside.open("rb+") as file:
            place = _checksum_place(file.read(_header_end(file)))
            if place is None:
                raise ArtifactError("the checksum has no place in the header")
            digest = _digest(file, place)
            file.seek(place)
            file.write(digest)


def read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read the arrays and the facts of an artifact, once it has proven whole.

    Raises:
        ArtifactError: no such file, no artifact, a damaged one, or one of a newer layout.
    """
    if not os.path.isfile(path):  # which takes names that are too long for one of none
        raise ArtifactError(
            "the artifact does not exist",
            expected="the path of a file that save wrote",
            received=str(path),
        )
    with path.open("rb") as file:
        place = _checksum_place(file.read(_header_end(file)))
        if place is None:
            raise ArtifactError(
                "this is no artifact of deltauq, or its beginning is damaged",
                expected="a file that save wrote",
                received=path.name,
            )
        file.seek(place)
        stored, found = file.read(len(_BLANK)), _digest(file, place)
    if stored != found:
        raise ArtifactError(
            "the artifact is damaged: its checksum does not match its content",
            expected=f"SHA-256 {stored.decode('ascii', 'replace')}",
            received=f"SHA-256 {found.decode()} of {path.name}, {path.stat().st_size:,} bytes",
            remedy="copy it again from where it was written; nothing of it was used",
        )
    with safetensors.safe_open(path, framework="numpy") as content:
        metadata = content.metadata()
        _check_format(metadata["deltauq.format"])
        arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    return arrays, json.loads(metadata["deltauq.facts"])


def is_artifact(path: Path) -> bool:
    """Whether a file begins as one that `write` wrote; whether it is whole, `read` finds out."""
    if not os.path.isfile(path):
        return False
    with path.open("rb") as file:
        return _checksum_place(file.read(_header_end(file))) is not None


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no fact")


def _check_format(version: str) -> None:
    if int(version) > FORMAT:
        raise ArtifactError(
            "the artifact was written by a newer deltauq",
            expected=f"format {FORMAT} or older",
            received=f"format {version}",
            remedy="upgrade deltauq from where it was installed: the checkout, or with pip",
        )


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
