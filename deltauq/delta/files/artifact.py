"""The file of an artifact: named arrays and facts, written whole or not at all.

A sealed file (`deltauq.runtime.sealed_files`) whose header carries the facts as JSON, and the
version of their layout.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors

from deltauq.errors import ArtifactError
from deltauq.runtime.sealed_files import header_of, seal_of, write_sealed

__all__ = ["FORMAT", "is_artifact", "read", "write"]

Arrays = dict[str, npt.NDArray[Any]]

#: The newest layout of facts and arrays that is known here; a reader refuses newer ones.
FORMAT = 3

#: The name of the layout's version in the header.
_LAYOUT = "deltauq.format"


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
        _LAYOUT: str(layout or FORMAT),
        "deltauq.facts": json.dumps(facts, default=_plain),
    }
    write_sealed(path, arrays, metadata)


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
    seal = seal_of(path)
    if seal is None or _LAYOUT.encode() not in header_of(path):
        raise ArtifactError(
            "this is no artifact of deltauq, or its beginning is damaged",
            expected="a file that save wrote",
            received=path.name,
        )
    if not seal.holds:
        raise ArtifactError(
            "the artifact is damaged: its checksum does not match its content",
            expected=f"SHA-256 {seal.stored}",
            received=f"SHA-256 {seal.found} of {path.name}, {path.stat().st_size:,} bytes",
            remedy="copy it again from where it was written; nothing of it was used",
        )
    with safetensors.safe_open(path, framework="numpy") as content:
        metadata = content.metadata()
        _check_format(metadata[_LAYOUT])
        arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    return arrays, json.loads(metadata["deltauq.facts"])


def is_artifact(path: Path) -> bool:
    """Whether a file begins as one that `write` wrote; whether it is whole, `read` finds out."""
    return _LAYOUT.encode() in header_of(path)


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
