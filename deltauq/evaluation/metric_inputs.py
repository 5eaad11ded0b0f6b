"""What figures of merit are made of, checked: numbers, and what came true."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.data.arrays import as_labels, as_numbers, check_finite
from deltauq.errors import InvalidInputError
from deltauq.likelihoods.class_numbers import check_class_numbers

__all__ = ["numbers", "numbers_and_truths", "probabilities_and_classes"]

Array = npt.NDArray[Any]

#: How far the sum of an input's probabilities may lie from one, which float32 does.
_ROUNDING = 1e-4


def numbers(name: str, values: Any) -> Array:
    """Take an array of finite numbers as float64; NaN, infinity and text are refused by name."""
    found = as_numbers(values, name).astype(np.float64)
    check_finite(name, found)
    return found


def numbers_and_truths(name: str, first: Array, other: str, second: Array) -> tuple[Array, Array]:
    """Finite numbers `[N]`, and which of as many N > 0 are so, as 0 and 1."""
    a, b = as_numbers(first, name).astype(np.float64), numbers(other, second)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise InvalidInputError(
            f"{name} and {other} do not fit each other",
            expected="two arrays of one shape [N], N > 0",
            received=f"{list(a.shape)} and {list(b.shape)}",
        )
    if name == "score":
        _refuse_nan(a)
    check_finite(name, a)
    if not np.all((b == 0) | (b == 1)):
        raise InvalidInputError(
            f"{other} does not say yes or no",
            expected="True or False, or 1 or 0, for every one",
            received=f"values from {b.min():g} to {b.max():g}",
        )
    return a, b


def _refuse_nan(score: Array) -> None:
    unknown = int(np.count_nonzero(np.isnan(score)))
    if unknown:
        raise InvalidInputError(
            "score holds NaN",
            expected="a number for every input",
            received=f"{unknown} of {len(score)} that are NaN",
            remedy="masked predictions have no score: pass prediction.unmasked.score, and of "
            "everything beside it the rows ~prediction.masked",
        )


def probabilities_and_classes(probabilities: Array, y: Array) -> tuple[Array, Array]:
    """Probabilities `[N, C]` whose rows sum to one, and as many class numbers `[N]`."""
    p, labels = numbers("probabilities", probabilities), as_labels(y)
    fits = p.ndim == 2 and len(p) and p.shape[1] >= 2 and labels.shape == p.shape[:1]
    if not fits:
        raise InvalidInputError(
            "probabilities and y do not fit each other",
            expected="probabilities [N, C] with N > 0 and C >= 2, and class numbers [N]",
            received=f"{list(p.shape)} and {list(labels.shape)}",
        )
    off = float(np.max(np.abs(p.sum(axis=1) - 1)))
    if not (off <= _ROUNDING and np.all((p >= 0) & (p <= 1))):
        raise InvalidInputError(
            "probabilities holds other rows than of probabilities",
            expected="numbers from 0 to 1, which sum to one in every row",
            received=f"values from {p.min():g} to {p.max():g}, sums up to {off:.3g} off",
        )
    check_class_numbers(labels, p.shape[1])
    return p, labels.astype(np.int64)
