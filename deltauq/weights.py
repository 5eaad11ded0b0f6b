"""What each example counts: its own weight times that of its class."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.arrays import as_numbers, check_finite, check_length
from deltauq.errors import InvalidInputError

__all__ = ["class_factors", "example_weights"]

Array = npt.NDArray[Any]


def example_weights(
    sample_weight: Any,
    factors: Array | None,
    labels: Array,
    observed: tuple[int, ...],
    first_row: int = 0,
) -> Array:
    """The weight of every observation, `[N]` or `[N, T]`, float64.

    Args:
        sample_weight: `[N]` or of that shape, finite and not negative; None counts every
            observation once.
        factors: of the classes, as `class_factors` gives them; None leaves classes alone.
        labels: `[N, ...]` as the likelihood takes them.
        observed: (N,), or (N, T) where an input makes T predictions.
        first_row: as for `check_finite`.

    Raises:
        InvalidInputError: weights or labels of another kind.
    """
    weight = np.ones(observed)
    if sample_weight is not None:
        weight = _checked(sample_weight, observed, first_row)
    if factors is None:
        return weight
    one_a_row = labels.reshape(-1, *labels.shape[len(observed) :])
    return weight * factors[_class_numbers(one_a_row, len(factors))].reshape(observed)


def class_factors(class_weight: Any, n_outputs: int) -> Array | None:
    """The weight of every class `[C]` from a dict of some of them, the others one.

    Args:
        class_weight: class number -> weight, as Keras' `fit` takes it; or None.
        n_outputs: the model's outputs; one output means two classes.

    Raises:
        InvalidInputError: no dict, a class there is not, or weights that are negative or not
            finite.
    """
    if class_weight is None:
        return None
    if not isinstance(class_weight, Mapping):
        raise InvalidInputError(
            "class_weight is not a dict",
            expected="{class number: weight}, as Keras' fit takes it",
            received=repr(class_weight),
            remedy='for "balanced" ones, number what '
            "sklearn.utils.class_weight.compute_class_weight gives: dict(enumerate(weights))",
        )
    factors = np.ones(max(n_outputs, 2))
    for number, weight in class_weight.items():
        whole = isinstance(number, numbers.Integral) and not isinstance(number, bool)
        if not whole or not 0 <= number < len(factors):
            raise InvalidInputError(
                "class_weight names a class that does not exist",
                expected=f"class numbers from 0 to {len(factors) - 1}",
                received=repr(number),
            )
        if not isinstance(weight, numbers.Real) or not 0 <= float(weight) < np.inf:
            raise InvalidInputError(
                "class_weight holds a weight that cannot be used",
                expected="finite numbers >= 0",
                received=f"{weight!r} for class {number}",
            )
        factors[int(number)] = float(weight)
    return factors


def _checked(sample_weight: Any, observed: tuple[int, ...], first_row: int) -> Array:
    weight = as_numbers(sample_weight, "sample_weight")
    if weight.ndim > 1 and len(observed) > 1:
        weight = weight.reshape(len(weight), -1)
    if weight.ndim == 0 or (weight.ndim > 1 and weight.shape[1:] != observed[1:]):
        raise InvalidInputError(
            "sample_weight is not a vector",
            expected=" or ".join(str(list(observed[:k])) for k in range(1, 1 + len(observed))),
            received=f"shape {list(weight.shape)}",
            remedy="pass .ravel() of a column",
        )
    check_length("sample_weight", len(weight), observed[0])
    check_finite("sample_weight", weight, first_row)
    if np.any(weight < 0):
        raise InvalidInputError(
            "sample_weight is negative",
            expected="weights >= 0",
            received=f"a smallest weight of {weight.min():g}",
        )
    weight = (
        weight.reshape(len(weight), *(1,) * (len(observed) - 1)) if weight.ndim == 1 else weight
    )
    return np.broadcast_to(weight.astype(np.float64), observed)


def _class_numbers(labels: Array, n_classes: int) -> Array:
    """Class numbers `[N]`: the labels themselves, or the largest entry of one-hot rows."""
    flat = labels.reshape(len(labels), -1)
    if flat.shape[1] == 1 and np.all(np.isin(flat, np.arange(n_classes))):
        return flat[:, 0].astype(np.intp)
    shares = np.sum(flat, axis=1, dtype=np.float64)
    if labels.shape[1:] == (n_classes,) and np.all(labels >= 0) and np.allclose(shares, 1.0):
        return np.argmax(labels, axis=1)
    raise InvalidInputError(
        "class_weight needs labels that are classes",
        expected=f"class numbers from 0 to {n_classes - 1}, or one-hot rows [N, {n_classes}]",
        received=f"labels of dtype {labels.dtype}, shape {list(labels.shape)}",
        remedy="pass sample_weight instead",
    )
