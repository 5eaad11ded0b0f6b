"""Files that are written whole or not at all, so that no reader sees half of one."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["written_whole"]


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place beside a file to write to; what is there at the end is moved to the file.

    An older file of that name stays as it is until then, and after an error.

    Args:
        path: the file as it is to be called in the end.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
