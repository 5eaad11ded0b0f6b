"""How often each example counts, and how important it is: weights that are counts, or are not.

A count c is a row that was seen c times. An importance w is a row seen once whose loss was
multiplied by w. Both enter the cost and its curvature as c w; N is the sum of the counts alone, and
the meat of a sandwich holds c w^2.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from deltauq.data.arrays import as_numbers, check_finite, check_length
from deltauq.errors import InvalidInputError
from deltauq.likelihoods.class_numbers import class_numbers

__all__ = [
    "MEANINGS",
    "Reading",
    "WeightKind",
    "Weighting",
    "Weights",
    "class_factors",
    "example_weights",
    "is_whole",
    "loss_factors",
    "weighting_of",
]

Array = npt.NDArray[Any]

#: What sample weights may be called, and what they are taken for in the end.
WeightKind = Literal["auto", "counts", "importance"]
Reading = Literal["counts", "importance"]

#: What the weights of a training set were taken for; classes' weights are importance always.
Weighting = Literal["none", "counts", "importance", "counts and importance"]

#: What it means that weights were taken for something, and what to do if they are something else.
MEANINGS: dict[str, tuple[str, str]] = {
    "counts": (
        "a weight of 2 is the row twice, and N the sum of the weights",
        "weights='importance' if they are factors on the losses",
    ),
    "importance": (
        "weights are factors on the losses, squared in a sandwich's meat; N is the rows with any",
        "weights='counts' if sample weights say how often a row was seen",
    ),
    "counts and importance": (
        "a sample weight of 2 is the row twice; those of classes are factors on the losses",
        "weights='importance' if sample weights are factors on the losses too",
    ),
}


#: Weights that scikit-learn finds, by the numbers of those classes of which there are any.
_BALANCED = (
    "pass dict(zip(classes, sklearn.utils.class_weight.compute_class_weight('balanced', "
    "classes=classes, y=y))) with classes = np.unique(y)"
)


class Weights(NamedTuple):
    """Weights of some observations, before it is known what those of the samples are.

    Attributes:
        sample: `[N]` or `[N, T]`, float64, ones where none were given.
        factor: of each one's class, of the same shape.
        whole: whether all sample weights are whole numbers; True where none were given.
        given: whether any were.
        shared: by how many observations each is shared: T where `[N]` were given for `[N, T]`.
    """

    sample: Array
    factor: Array
    whole: bool = True
    given: bool = False
    shared: int = 1

    def masked(self, counted: Array) -> Weights:
        """Weights in which observations that are masked count zero; the others have their own."""
        return self._replace(sample=self.sample * counted, shared=1)

    @property
    def as_given(self) -> Array:
        """Sample weights in the shape in which they were given, `[N]` or `[N, T]`."""
        return self.sample if self.shared == 1 else self.sample[:, 0]

    @property
    def total(self) -> float:
        """Sum of the weights, each as often as it was given, times those of the classes."""
        with np.errstate(over="ignore"):  # infinity is refused where sums of all rows are formed
            return float(np.sum(self.sample * self.factor, dtype=np.float64)) / self.shared

    def reading(self, asked: WeightKind) -> Reading:
        """What sample weights are where the user says so, or by their look."""
        if asked == "auto":
            return "counts" if self.whole else "importance"
        return asked

    def read_as(self, reading: Reading) -> tuple[Array, Array]:
        """Counts and importance of every observation, of one shape.

        An observation of importance 0 is none: it counts 0, as if it were left out.
        """
        count, importance = self.sample, self.factor
        if reading == "importance":
            count, importance = np.ones_like(count), count * importance
        return count * (importance > 0), importance


def weighting_of(reading: Reading, *, samples: bool, classes: bool) -> Weighting:
    """What weights were taken for, in words.

    Args:
        reading: of the sample weights.
        samples: whether there are any.
        classes: whether classes have weights.
    """
    if samples and reading == "counts":
        return "counts and importance" if classes else "counts"
    return "importance" if samples or classes else "none"


def is_whole(weight: Array) -> bool:
    """Whether all numbers are whole, up to the last bit of their own dtype.

    So 3.0000001 is 3 in float32 and not whole in float64, and 0.1 * 3 * 10 is whole.
    """
    if weight.dtype.kind != "f":
        return True
    return bool(np.all(np.abs(weight - np.rint(weight)) <= np.spacing(np.abs(weight))))


def example_weights(
    sample_weight: Any,
    factors: Array | None,
    labels: Array,
    observed: tuple[int, ...],
    first_row: int = 0,
) -> Weights:
    """The weights of every observation.

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
    sample, factor, shared = np.ones(observed), np.ones(observed), 1
    if sample_weight is not None:
        given = _checked(sample_weight, observed, first_row)
        shared, sample = sample.size // given.size, np.broadcast_to(given, observed)
    if factors is not None:
        one_a_row = labels.reshape(-1, *labels.shape[len(observed) :])
        factor = factors[_checked_classes(one_a_row, len(factors))].reshape(observed)
    return Weights(
        sample.astype(np.float64),
        factor,
        whole=is_whole(sample),
        given=sample_weight is not None,
        shared=shared,
    )


def loss_factors(sample_weight: Any, n_rows: int, asked: WeightKind) -> Array:
    """What a mean over rows has before each loss where the cost is (1/N) sum_n c_n w_n loss_n.

    Args:
        sample_weight: `[n_rows]`, or None.
        n_rows: of the data.
        asked: what the weights are.

    Returns:
        c w n_rows / N `[n_rows]`.

    Raises:
        InvalidInputError: weights that cannot be used, or are all zero.
    """
    weights = example_weights(sample_weight, None, np.zeros(n_rows), (n_rows,))
    count, importance = weights.read_as(weights.reading(asked))
    if not np.any(count):
        raise InvalidInputError(
            "all weights of sample_weight are zero",
            expected="at least one example of positive weight",
            received=f"{n_rows} zeros",
        )
    return np.asarray(count * importance * n_rows / count.sum())


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
            remedy=_BALANCED
            if isinstance(class_weight, str)
            else "number the classes' weights: dict(enumerate(weights))",
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
            remedy="pass .ravel() of a column"
            if weight.ndim > 1 and weight.size == len(weight)
            else "pass one number for every row of x",
        )
    check_length("sample_weight", len(weight), observed[0])
    check_finite("sample_weight", weight, first_row)
    if np.any(weight < 0):
        raise InvalidInputError(
            "sample_weight is negative",
            expected="weights >= 0",
            received=f"a smallest weight of {weight.min():g}",
        )
    return weight.reshape(len(weight), *(1,) * (len(observed) - 1)) if weight.ndim == 1 else weight


def _checked_classes(labels: Array, n_classes: int) -> Array:
    """The class of each label `[N]`; refused unless they are class numbers or shares of classes."""
    flat = labels.reshape(len(labels), -1)
    numbered = flat.shape[1] == 1 and np.all(np.isin(flat, np.arange(n_classes)))
    shares = np.sum(flat, axis=1, dtype=np.float64)
    shared = labels.shape[1:] == (n_classes,) and np.all(labels >= 0) and np.allclose(shares, 1.0)
    if not (numbered or shared):
        raise InvalidInputError(
            "class_weight needs labels that are classes",
            expected=f"class numbers from 0 to {n_classes - 1}, or one-hot rows [N, {n_classes}]",
            received=f"labels of dtype {labels.dtype}, shape {list(labels.shape)}",
            remedy="pass sample_weight instead",
        )
    return class_numbers(flat)
