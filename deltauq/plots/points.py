"""What plots take beside a prediction: columns, names and indices, checked against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError

if TYPE_CHECKING:
    from deltauq.prediction import Estimate

__all__ = [
    "checked_index",
    "counted",
    "output_names",
    "shortened",
]

Array = npt.NDArray[Any]

#: Letters of a class's name in a picture.
_LETTERS = 24


def counted(prediction: Any, *columns: Any) -> tuple[Any, ...]:
    """A prediction without what is masked, and columns `[N, ...]` beside it, or None, likewise.

    A column of another length stays as it is: it may be about the others alone, or is refused.
    """
    kept = ~prediction.masked
    if np.all(kept):
        return prediction, *columns
    arrays = (None if column is None else np.asarray(column) for column in columns)
    some = (
        array if array is None or array.shape[:1] != kept.shape else array[kept] for array in arrays
    )
    return prediction[kept], *some


def output_names(class_names: Sequence[Any] | None, n_outputs: int) -> list[str]:
    """Names of classes, labels or outputs as text; their numbers where no names are given.

    Raises:
        InvalidInputError: another number of names than of outputs.
    """
    names = range(n_outputs) if class_names is None else class_names
    if len(names) != n_outputs:
        raise InvalidInputError(
            "class_names has the wrong length",
            expected=f"{n_outputs} names, one a class",
            received=f"{len(names)}",
        )
    return [str(name) for name in names]


def shortened(name: str) -> str:
    """A name as it fits into a picture; of a long one both ends, which may tell it from others."""
    name = " ".join(name.split())
    if len(name) <= _LETTERS:
        return name
    return f"{name[: _LETTERS // 2].rstrip()}…{name[1 - _LETTERS // 2 :].lstrip()}"


def checked_index(index: int, prediction: Estimate) -> int:
    """The number of an input as a place from 0 to N - 1; a negative one counts from the end.

    Raises:
        InvalidInputError: there is no such input.
    """
    n = len(prediction)
    if not -n <= index < n:
        raise InvalidInputError(
            "index names no input", expected=f"a number from 0 to {n - 1}", received=str(index)
        )
    return int(index) % n
