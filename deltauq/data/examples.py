"""Labelled examples: what a batch of them holds, how they are checked, and their sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.data.arrays import as_labels, check_length
from deltauq.data.batch_reader import cut, n_rows_of
from deltauq.data.checksums import N_SUMS, alike, checksum
from deltauq.data.inputs import InputForm
from deltauq.data.weights import (
    Reading,
    Weighting,
    WeightKind,
    Weights,
    example_weights,
    weighting_of,
)
from deltauq.errors import InvalidInputError

__all__ = [
    "Batch",
    "ExampleForm",
    "Facts",
    "Part",
    "known_again",
    "measure",
    "spec_of",
    "weighted_rows",
]


class Batch(NamedTuple):
    """Inputs (a tensor or a nest of tensors `[B, ...]`), labels and weights.

    Counts and importance are `[B]`, or `[B, T]` where an input makes T predictions.

    Attributes:
        x: inputs.
        y: labels.
        count: c, how often an observation was made: N is the sum of these.
        importance: w, the factor on the loss of each time.
    """

    x: Any
    y: tf.Tensor
    count: tf.Tensor
    importance: tf.Tensor

    @property
    def weight(self) -> tf.Tensor:
        """The factor c w of an observation's loss in the sum over all."""
        return self.count * self.importance


class Part(NamedTuple):
    """Arrays of some rows, before it is known what their weights are.

    Attributes:
        x: inputs.
        y: labels.
        weights: of the samples and of their classes.
        n_masked: predictions that a mask takes out.
    """

    x: Any
    y: npt.NDArray[Any]
    weights: Weights
    n_masked: int = 0

    def read_as(self, reading: Reading) -> Batch:
        """With sample weights that are counts, or importance."""
        return Batch(self.x, self.y, *self.weights.read_as(reading))


@dataclass(frozen=True)
class ExampleForm:
    """How what a user gives becomes a `Part`.

    Attributes:
        inputs: the form of x.
        check_labels: checks labels and gives them the likelihood's form.
        class_factors: the weight of every class `[C]`; None where classes have none.
        observed_axes: axes of the labels along which observations lie, see `Likelihood`.
        positions: predictions that an input makes.
        batch_size: rows that the mask is computed of at once, and rows per batch.
        mask: as of `Batches`.
    """

    inputs: InputForm
    check_labels: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    class_factors: npt.NDArray[Any] | None
    observed_axes: int
    positions: int
    batch_size: int
    mask: Callable[[Any], npt.NDArray[np.bool_]] | None

    def part(self, x: Any, y: Any, sample_weight: Any = None, *, first_row: int = 0) -> Part:
        """Checked inputs, labels and weights of some rows.

        Args:
            x: a nest of arrays `[B, ...]`.
            y: labels, as the user has them.
            sample_weight: weights, as the user has them; None for none.
            first_row: as for `check_finite`.

        Raises:
            InvalidInputError: as `Batches`.
        """
        x = self.inputs.checked(x, first_row)
        counted = self._counted(x)
        labels = self.check_labels(as_labels(y, first_row, counted=counted))
        check_length("y", len(labels), n_rows_of(x))
        observed = labels.shape[: self.observed_axes]
        found = example_weights(sample_weight, self.class_factors, labels, observed, first_row)
        found = found if counted is None else found.masked(counted)
        sample, factor = (
            values.astype(self.inputs.dtype) for values in (found.sample, found.factor)
        )
        n_masked = 0 if counted is None else int(np.count_nonzero(~counted))
        return Part(x, labels, found._replace(sample=sample, factor=factor), n_masked)

    def _counted(self, x: Any) -> npt.NDArray[np.bool_] | None:
        """Which predictions are not masked, `[N]` or `[N, T]`; None where there is no mask."""
        if self.mask is None:
            return None
        return np.concatenate([self.mask(batch) for batch in cut(x, self.batch_size)])

    def sums_of(self, batch: Batch) -> npt.NDArray[np.float64]:
        """The checksum of a batch, whatever stands for the labels of what is masked."""
        if self.mask is None:
            return checksum(*batch)
        y, counted = np.asarray(batch.y), np.asarray(batch.weight) > 0
        counted = counted.reshape(*counted.shape, *(1,) * (y.ndim - counted.ndim))
        return checksum(*batch._replace(y=np.where(counted, y, 0)))


@dataclass(frozen=True)
class Facts:
    """What a first pass over the data shows; attributes as of `Batches`, but for the first.

    Attributes:
        reading: what sample weights are.
        sums: None of arrays, of which they are taken when they are asked for.
    """

    reading: Reading
    n_rows: int
    n_weighted: int
    n_masked: int
    n_predictions: int
    n_examples: float
    total_weight: float
    weighting: Weighting
    spec: Batch
    sums: npt.NDArray[np.float64] | None


def measure(parts: Iterable[Part], asked: WeightKind, form: ExampleForm, *, sums: bool) -> Facts:
    """Rows, N, the spec, and what the weights are, from one pass.

    Whether all are whole shows at the end of it: until then there are sums for either reading.

    Args:
        parts: all rows.
        asked: what sample weights are, as the user has it.
        form: of the parts.
        sums: whether checksums are taken.

    Raises:
        InvalidInputError: no row of positive weight.
    """
    readings: tuple[Reading, ...] = get_args(Reading) if asked == "auto" else (asked,)
    n_rows, n_weighted, n_masked, whole, given = 0, 0, 0, True, False
    n_examples, total_weight = dict.fromkeys(readings, 0.0), 0.0
    checksums: dict[Reading, Any] = dict.fromkeys(readings, 0.0)
    spec = None
    for part in parts:
        n_rows += len(part.y)
        n_masked += part.n_masked
        n_weighted += len(weighted_rows(part.read_as(readings[0])))
        whole, given = whole and part.weights.whole, given or part.weights.given
        for reading in readings:
            batch = part.read_as(reading)
            with np.errstate(over="ignore"):  # which the total weight shows
                n_examples[reading] += float(np.sum(batch.count, dtype=np.float64))
            checksums[reading] += form.sums_of(batch) if sums else 0.0
            spec = spec or spec_of(batch)
            _check_alike(spec_of(batch), spec, n_rows - len(part.y))
        total_weight += part.weights.total
    if spec is None or not 0 < total_weight < np.inf:
        raise InvalidInputError(
            "the data are empty" if total_weight == 0 else "the weights are too large",
            expected="at least one example of positive weight, and a finite sum of weights",
            received=f"{n_rows} rows, sum of weights {total_weight:g}",
            remedy=_to_examples(n_rows, total_weight),
        )
    reading = readings[0] if whole else readings[-1]
    return Facts(
        reading,
        n_rows,
        n_weighted,
        n_masked,
        n_rows * form.positions - n_masked,
        n_examples[reading],
        total_weight,
        weighting_of(reading, samples=given, classes=form.class_factors is not None),
        spec,
        checksums[reading] if sums else None,
    )


def known_again(parts: Iterable[Batch], form: ExampleForm, facts: Facts) -> Iterator[Batch]:
    """Parts of a dataset in a further pass, refused once they show not to be what they were.

    Raises:
        InvalidInputError: other rows, more of them or fewer, or rows of another shape.
    """
    sums, n_rows = np.zeros(N_SUMS), 0
    for part in parts:
        _check_alike(spec_of(part), facts.spec, n_rows)
        n_rows += len(part.y)
        if n_rows > facts.n_rows:  # there may be no room for them
            raise _changed(f"{n_rows} rows or more after {facts.n_rows}")
        sums += form.sums_of(part)
        yield part
    first = facts.sums
    assert first is not None, "sums of arrays are taken when they are asked for"
    if not alike(sums, first, whole_labels=facts.spec.y.dtype.is_integer):
        raise _changed(f"{n_rows} rows after {facts.n_rows}, or other values in them")


def _changed(received: str) -> InvalidInputError:
    return InvalidInputError(
        "the dataset changes from one pass to the next",
        expected="the same examples in every pass; their order does not matter",
        received=received,
        remedy="take out augmentation and generators that run dry, or cache the dataset",
    )


def _check_alike(received: Batch, expected: Batch, first_row: int) -> None:
    """Refuse a batch whose rows are of another shape or dtype than those of the first one."""
    if received != expected:
        raise InvalidInputError(
            "the batches of the dataset do not have rows of one shape and dtype",
            expected=f"inputs and labels as in the first batch: {_shown(expected)}",
            received=f"{_shown(received)} from row {first_row} on (counted from 0)",
            remedy="pad all of them to one shape, .padded_batch(256, padded_shapes=...), and give "
            "them one dtype",
        )


def _shown(spec: Batch) -> str:
    leaves = tf.nest.flatten((spec.x, spec.y))
    return ", ".join(f"{leaf.dtype.name} {['B', *leaf.shape[1:]]}" for leaf in leaves)


def _to_examples(n_rows: int, total_weight: float) -> str:
    """What to do where no row is left, none counts, or they count too much."""
    if not n_rows:
        return "pass training data; a dataset must be finite and re-iterable"
    if total_weight:
        return "divide the weights by the largest of them"
    return "give examples that are not masked a positive weight, in sample_weight and class_weight"


def weighted_rows(part: Batch) -> npt.NDArray[np.intp]:
    """Numbers of the rows of which something has a positive weight."""
    return np.flatnonzero(np.any(part.weight.reshape(len(part.weight), -1) > 0, axis=1))


def spec_of(nest: Any) -> Any:
    """`tf.TensorSpec`s of a nest of arrays `[B, ...]`, with the first axis left free."""
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype), nest
    )
