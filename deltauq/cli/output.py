"""Files that commands write, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from deltauq.errors import InvalidInputError
from deltauq.runtime.whole_files import written_whole

__all__ = ["check_output", "write_whole"]


def check_output(path: Path, *suffixes: str) -> Path:
    """Check that a file can be written, before the work rather than after it.

    Args:
        path: of the file, which is returned.
        *suffixes: that its name may have; none for any.

    Raises:
        InvalidInputError: another kind of file, or no such directory.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise InvalidInputError(
            "--output names a file of another kind",
            expected=f"a name that ends with {' or '.join(suffixes)}",
            received=path.name,
        )
    if path.is_dir() or not path.parent.is_dir():
        raise InvalidInputError(
            "--output cannot be written",
            expected="a file in an existing directory",
            received=str(path),
            remedy="create the directory first, or name another"
            if not path.is_dir()
            else "name a file in it",
        )
    return path


def write_whole(path: Path, text: str) -> None:
    """Write text to a file, beside its place first, so that it is there whole or not at all."""
    content = text.encode()
    with written_whole(path, size=len(content)) as beside:
        beside.write_bytes(content)
