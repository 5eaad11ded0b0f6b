"""Data as batches that can be read again and again: the true N, the weights, and every last row."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.data.arrays import as_labels, check_length, column_names
from deltauq.data.checksums import alike as _alike
from deltauq.data.checksums import checksum
from deltauq.data.inputs import check_batch_size, checked_inputs, cut, first_rows
from deltauq.data.training import TrainingData
from deltauq.data.weights import (
    Reading,
    WeightKind,
    Weights,
    class_factors,
    example_weights,
    weighting_of,
)
from deltauq.errors import InvalidInputError, check_choice
from deltauq.likelihoods import Likelihood

__all__ = ["Batch", "Batches", "Part", "spec_of"]


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
    """Arrays of some rows, before it is known what their weights are."""

    x: Any
    y: npt.NDArray[Any]
    weights: Weights

    def read_as(self, reading: Reading) -> Batch:
        """With sample weights that are counts, or importance."""
        return Batch(self.x, self.y, *self.weights.read_as(reading))


class Batches:
    """A fixed training set, re-iterable, with the sums that averages must be divided by.

    Args:
        x: inputs: an array, a pandas frame, or a nest of arrays `[N, ...]`; or a finite dataset
            (`tf.data.Dataset`, batched or not, or `keras.utils.PyDataset`) of `(x, y)` or
            `(x, y, weight)` that yields the same examples in every pass. A dataset is never held
            in memory whole.
        y: labels `[N, ...]`; None when x is a dataset.
        sample_weight: `[N]`, or of every position `[N, T]` where an input makes T predictions, not
            negative; None counts every example once.
        class_weight: class number -> weight; multiplies the importance of that class's examples.
        weights: what sample weights are: "counts" (a weight of 2 is the row twice), "importance"
            (a factor on the row's loss, as the weights of classes are) or "auto": counts where all
            of them are whole numbers.
        mask: which predictions of some inputs count, `[B]` or `[B, T]`, as `OutputMask` says it;
            the others have no weight, whatever theirs is, and any label. None counts all.
        likelihood: checks the labels.
        n_outputs: C, for the check of the labels.
        dtype: what floating inputs and weights are cast to.
        batch_size: rows per batch, at most: larger batches of a dataset are cut, smaller ones stay.

    Attributes:
        n_rows: rows, whatever their weight.
        n_weighted: rows of positive weight.
        n_masked: predictions that the mask takes out.
        n_predictions: of all rows, those taken out left out, whatever their weight.
        n_examples: N, the sum of the counts: of rows of positive weight, where weights are not
            counts.
        total_weight: sum of the weights as they were given, one a row where one a row was given.
        weighting: what the weights were taken for.
        spec: `tf.TensorSpec`s of a batch with a free first axis, for one trace per kernel.
        columns: of a pandas frame, None of other inputs.
        sums: by which the data can be known again, whatever their order.
        on_batch: called with the number of rows after each batch; None or a progress display.

    Raises:
        InvalidInputError: empty data, lengths that differ, labels the likelihood refuses,
            NaN or infinity, negative weights.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        *,
        likelihood: Likelihood,
        n_outputs: int,
        dtype: str,
        batch_size: int = 256,
        weights: WeightKind = "auto",
        mask: Callable[[Any], npt.NDArray[np.bool_]] | None = None,
    ) -> None:
        check_choice("weights", weights, get_args(WeightKind))
        self.mask = mask
        self._dtype = dtype
        self._batch_size = check_batch_size(batch_size)
        self._check_labels: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = lambda labels: (
            likelihood.check_labels(labels, n_outputs)
        )
        self._class_factors = class_factors(class_weight, n_outputs // likelihood.positions)
        self._observed_axes = likelihood.observed_axes
        self.on_batch: Callable[[int], None] | None = None
        self.columns = column_names(x)
        self._stream = TrainingData(x, y, sample_weight, class_weight).stream
        if self._stream is None:
            self._arrays = self._checked(x, y, sample_weight)
        self._sums: npt.NDArray[np.float64] | None = None
        self._measure(weights)
        self.n_predictions = self.n_rows * likelihood.positions - self.n_masked

    def __iter__(self) -> Iterator[Batch]:
        """The batches, in order, the last partial one included.

        Raises:
            InvalidInputError: a dataset that does not yield in this pass what it first yielded.
        """
        sums: Any = 0.0
        for batch in self._batches():
            sums = sums + (self._sums_of(batch) if self._stream is not None else 0.0)
            yield batch
            self.passed(int(batch.y.shape[0]))
        if self._stream is not None and not self.has(sums):
            raise InvalidInputError(
                "the dataset changes from one pass to the next",
                expected="the same examples in every pass; their order does not matter",
                received=f"{sums[0]:.0f} rows after {self.sums[0]:.0f}, or other values in them",
                remedy="take out augmentation and generators that run dry, or cache the dataset",
            )

    @property
    def sums(self) -> npt.NDArray[np.float64]:
        """Checksums of the data by which they can be known again, whatever their order.

        Those of arrays are taken when they are asked for, batch by batch: float64 takes memory.
        """
        if self._sums is None:
            self._sums = np.sum([self._sums_of(batch) for batch in self._batches()], axis=0)
        return self._sums

    def has(self, sums: npt.NDArray[np.float64]) -> bool:
        """Whether sums, of an artifact or of another pass, are those of these data."""
        return _alike(sums, self.sums, whole_labels=self.spec.y.dtype.is_integer)

    def passed(self, n_rows: int) -> None:
        """Tell the progress display of rows that were dealt with, read again or not."""
        if self.on_batch is not None:
            self.on_batch(n_rows)

    def require(self) -> None:
        """`InvalidInputError` where the data are not at hand."""

    def head(self, n: int) -> Any:
        """Arrays of the first rows' inputs, at most n."""
        return first_rows((part.x for part in self._parts()), n)

    def spread(self, n: int) -> Batch:
        """Arrays of n rows of positive weight at even distances, or of all; a pass over the data.

        Not of the first ones: data may come sorted.
        """
        self.require()
        chosen = np.linspace(0, self.n_weighted - 1, min(n, self.n_weighted)).astype(int)
        picked, seen = [], 0
        for part in self._parts():
            weighted = _weighted_rows(part)
            here = weighted[chosen[(chosen >= seen) & (chosen < seen + len(weighted))] - seen]
            picked.append(tf.nest.map_structure(lambda leaf, here=here: leaf[here], part))
            seen += len(weighted)
        return Batch(*tf.nest.map_structure(lambda *leaves: np.concatenate(leaves), *picked))

    def sample(self, n: int, batch_size: int = 64) -> Batches:
        """The rows of `spread` as a training set of their own, with the same weights."""
        x, y, count, importance = self.spread(n)
        some = copy.copy(self)
        some._stream, some._batch_size, some.on_batch, some.mask = None, batch_size, None, None
        some._arrays = Part(x, y, Weights(count, importance))
        some._measure("counts")
        return some

    def _batches(self) -> Iterator[Batch]:
        for part in self._parts():
            for batch in cut(part, self._batch_size):
                yield tf.nest.map_structure(tf.constant, batch)

    def _parts(self) -> Iterator[Batch]:
        """Arrays of all rows, or of one batch of a dataset after the other."""
        for part in self._raw_parts():
            yield part.read_as(self._reading)

    def _raw_parts(self) -> Iterator[Part]:
        if self._stream is None:
            yield self._arrays
            return
        n_rows = 0
        for example in self._stream.examples(self._batch_size):
            part = self._checked(*example, first_row=n_rows)
            yield part
            n_rows += len(part.y)

    def _checked(self, x: Any, y: Any, sample_weight: Any = None, *, first_row: int = 0) -> Part:
        x = checked_inputs(x, self._dtype, first_row)
        counted = self._counted(x)
        labels = self._check_labels(as_labels(y, first_row, counted=counted))
        check_length("y", len(labels), len(tf.nest.flatten(x)[0]))
        observed = labels.shape[: self._observed_axes]
        found = example_weights(sample_weight, self._class_factors, labels, observed, first_row)
        found = found if counted is None else found.masked(counted)
        sample, factor = (values.astype(self._dtype) for values in (found.sample, found.factor))
        return Part(x, labels, found._replace(sample=sample, factor=factor))

    def _counted(self, x: Any) -> npt.NDArray[np.bool_] | None:
        """Which predictions are not masked, `[N]` or `[N, T]`; None where there is no mask."""
        if self.mask is None:
            return None
        return np.concatenate([self.mask(batch) for batch in cut(x, self._batch_size)])

    def _sums_of(self, batch: Batch) -> npt.NDArray[np.float64]:
        """The checksum of a batch, whatever stands for the labels of what is masked."""
        if self.mask is None:
            return checksum(*batch)
        y, counted = np.asarray(batch.y), np.asarray(batch.weight) > 0
        counted = counted.reshape(*counted.shape, *(1,) * (y.ndim - counted.ndim))
        return checksum(*batch._replace(y=np.where(counted, y, 0)))

    def _measure(self, asked: WeightKind) -> None:
        """Rows, N, the spec, and what the weights are, from one pass.

        Whether all are whole shows at the end of it: until then there are sums for either reading.
        """
        readings: tuple[Reading, ...] = get_args(Reading) if asked == "auto" else (asked,)
        n_rows, whole, given = 0, True, False
        n_examples, total_weight = dict.fromkeys(readings, 0.0), 0.0
        sums: dict[Reading, Any] = dict.fromkeys(readings, 0.0)
        spec = None
        self.n_weighted, self.n_masked = 0, 0
        for part in self._raw_parts():
            n_rows += len(part.y)
            counted = self._counted(part.x)
            self.n_masked += 0 if counted is None else int(np.count_nonzero(~counted))
            self.n_weighted += len(_weighted_rows(part.read_as(readings[0])))
            whole, given = whole and part.weights.whole, given or part.weights.given
            for reading in readings:
                batch = part.read_as(reading)
                n_examples[reading] += float(np.sum(batch.count, dtype=np.float64))
                sums[reading] += 0.0 if self._stream is None else self._sums_of(batch)
                spec = spec or spec_of(batch)
            total_weight += part.weights.total
        if spec is None or not 0 < total_weight < np.inf:
            raise InvalidInputError(
                "the data are empty",
                expected="at least one example of positive weight",
                received=f"{n_rows} rows, sum of weights {total_weight:g}",
                remedy="pass training data; a dataset must be finite and re-iterable",
            )
        self._reading: Reading = readings[0] if whole else readings[-1]
        self.n_rows, self.spec = n_rows, spec
        self.n_examples, self.total_weight = n_examples[self._reading], total_weight
        self._sums = None if self._stream is None else sums[self._reading]
        self.weighting = weighting_of(
            self._reading, samples=given, classes=self._class_factors is not None
        )


def _weighted_rows(part: Batch) -> npt.NDArray[np.intp]:
    """Numbers of the rows of which something has a positive weight."""
    return np.flatnonzero(np.any(part.weight.reshape(len(part.weight), -1) > 0, axis=1))


def spec_of(nest: Any) -> Any:
    """`tf.TensorSpec`s of a nest of arrays `[B, ...]`, with the first axis left free."""
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype), nest
    )
