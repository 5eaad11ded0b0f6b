"""What plots take beside a prediction: columns, names and indices, checked against it."""

from __future__ import annotations

import numbers
import reprlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError, as_list, is_number

if TYPE_CHECKING:
    from deltauq.prediction import Estimate

__all__ = [
    "checked_index",
    "counted",
    "output_names",
    "refuse_other",
    "shortened",
]

Array = npt.NDArray[Any]

#: Letters of a class's name in a picture.
_LETTERS = 24


def counted(prediction: Any, *columns: Any) -> tuple[Any, ...]:
    """A prediction without what is masked, and columns `[N, ...]` beside it, or None, likewise.

    A column of another length stays as it is: it may be about the others alone, or is refused.

    Raises:
        InvalidInputError: what is no prediction.
    """
    refuse_other("prediction", prediction, "masked", "logits")
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
    if class_names is None:
        return [str(number) for number in range(n_outputs)]
    names = as_list(class_names) if hasattr(class_names, "__len__") else None
    if names is None or len(names) != n_outputs:
        raise InvalidInputError(
            "class_names has the wrong length",
            expected=f"{n_outputs} names, one a class",
            received=reprlib.repr(class_names) if names is None else f"{len(names)}",
        )
    return [str(name) for name in names]


def refuse_other(argument: str, value: Any, *attributes: str) -> None:
    """Refuse a value that is no object of the package's with some attributes.

    Raises:
        InvalidInputError: it lacks one of them.
    """
    if isinstance(value, type) or not all(hasattr(value, name) for name in attributes):
        raise InvalidInputError(
            f"{argument} is something else than what is drawn here",
            expected=f"an object of deltauq that has {' and '.join(attributes)}",
            received=f"a {type(value).__name__}: {reprlib.repr(value)}",
        )


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
    is_whole = is_number(index) and isinstance(index, numbers.Integral)
    if not is_whole or not -n <= index < n:
        raise InvalidInputError(
            "index names no input",
            expected=f"a number from 0 to {n - 1}",
            received=reprlib.repr(index),
        )
    return int(index) % n
