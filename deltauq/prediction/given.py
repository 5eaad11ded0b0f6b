"""What users give beside a prediction, labels and numbers of inputs, read and held against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.data.arrays import as_labels
from deltauq.errors import InvalidInputError

__all__ = ["chosen_inputs", "refuse_unless", "truth_of"]

Array = npt.NDArray[Any]


def truth_of(y: Any, masked: Array) -> Array:
    """Labels as finite numbers, in the shape that they have.

    Args:
        y: an array, tensor, pandas object or list of numbers.
        masked: predictions that the mask on the model's output takes out `[N]`, whose labels may be
            anything.

    Raises:
        InvalidInputError: text, or numbers that are not finite.
    """
    truth = as_labels(y, counted=~masked)
    if truth.dtype.kind not in "fiub":
        raise InvalidInputError(
            "y does not hold numbers",
            expected="labels as the likelihood numbers them, one row an input",
            received=f"dtype {truth.dtype}",
        )
    return truth


def refuse_unless(fits: bool, expected: str, truth: Array) -> None:
    """Refuse labels that do not fit the prediction.

    Args:
        fits: whether they do.
        expected: labels that would, in words.
        truth: the labels.

    Raises:
        InvalidInputError: they do not.
    """
    if not fits:
        least = f", from {np.min(truth):g} on" if truth.size else ""
        raise InvalidInputError(
            "y does not fit the prediction",
            expected=f"{expected}, one row an input",
            received=f"shape {list(truth.shape)}{least}",
        )


def chosen_inputs(rows: Any, n_inputs: int) -> Array:
    """Numbers of some inputs, or a mask of them, as an array.

    Args:
        rows: whole numbers, a negative one counts from the end; or a truth for every input `[N]`.
        n_inputs: N.

    Raises:
        InvalidInputError: something else.
        IndexError: a number beyond the inputs, by which Python knows that there are no more.
    """
    found = np.atleast_1d(as_labels(rows, name="rows"))
    if found.dtype.kind == "b" and found.shape == (n_inputs,):
        return found
    if not found.size:
        return np.arange(0)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise InvalidInputError(
            "rows choose no inputs",
            expected=f"whole numbers, a slice, or a mask [{n_inputs}]",
            received=f"dtype {found.dtype}, shape {list(found.shape)}",
        )
    if np.max(found) >= n_inputs or np.min(found) < -n_inputs:
        raise IndexError(f"{np.max(found)} is beyond the {n_inputs} inputs")
    return found
