"""Data as batches that can be read again and again: the true N, the weights, and every last row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.arrays import as_labels, check_length, column_names
from deltauq.errors import InvalidInputError
from deltauq.inputs import check_batch_size, checked_inputs, cut, first_rows
from deltauq.likelihoods import Likelihood
from deltauq.streams import Stream, as_source
from deltauq.weights import class_factors, example_weights

__all__ = ["Batch", "Batches", "DataRecord", "spec_of"]


class Batch(NamedTuple):
    """Inputs (a tensor or a nest of tensors `[B, ...]`), labels and weights.

    Weights are `[B]`, or `[B, T]` where an input makes T predictions.
    """

    x: Any
    y: tf.Tensor
    weight: tf.Tensor


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
        class_weight: class number -> weight; multiplies the weights of that class's examples.
        likelihood: checks the labels.
        n_outputs: C, for the check of the labels.
        dtype: what floating inputs and weights are cast to.
        batch_size: rows per batch, at most: larger batches of a dataset are cut, smaller ones stay.
        mask: which predictions of some inputs count, `[B]` or `[B, T]`, as `OutputMask` says it;
            the others have no weight, whatever theirs is, and any label. None counts all.

    Attributes:
        n_rows: rows, whatever their weight.
        n_weighted: rows of positive weight.
        n_masked: predictions that the mask takes out.
        n_predictions: of all rows, those taken out left out, whatever their weight.
        n_examples: N, the sum of the weights (the number of rows without weights).
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
        mask: Callable[[Any], npt.NDArray[np.bool_]] | None = None,
    ) -> None:
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
        source = as_source(x)
        self._stream: Stream | None = source if isinstance(source, Stream) else None
        _check_beside(self._stream, y, sample_weight)
        if self._stream is None:
            self._arrays = self._checked(x, y, sample_weight)
        self.n_weighted, self.n_masked = 0, 0
        self.n_rows, self.n_examples, self.spec = self._measure()
        self.n_predictions = self.n_rows * likelihood.positions - self.n_masked

    def __iter__(self) -> Iterator[Batch]:
        """The batches, in order, the last partial one included.

        Raises:
            InvalidInputError: a dataset that does not yield in this pass what it first yielded.
        """
        sums = np.zeros(_N_SUMS)
        for batch in self._batches():
            sums += self._sums_of(batch) if self._stream is not None else 0.0
            yield batch
            self.passed(int(batch.y.shape[0]))
        if self._stream is not None and not _alike(sums, self.sums):
            raise InvalidInputError(
                "the dataset changes from one pass to the next",
                expected="the same examples in every pass; their order does not matter",
                received=f"{sums[0]:.0f} rows after {self.sums[0]:.0f}, or other values in them",
                remedy="take out augmentation and generators that run dry, or cache the dataset",
            )

    @cached_property
    def sums(self) -> npt.NDArray[np.float64]:
        """Of arrays, taken when they are asked for, batch by batch: float64 takes memory."""
        return np.sum([self._sums_of(batch) for batch in self._batches()], axis=0)

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
        chosen = np.linspace(0, self.n_weighted - 1, min(n, self.n_weighted)).astype(int)
        picked, seen = [], 0
        for part in self._parts():
            weighted = _weighted_rows(part)
            here = weighted[chosen[(chosen >= seen) & (chosen < seen + len(weighted))] - seen]
            picked.append(tf.nest.map_structure(lambda leaf, here=here: leaf[here], part))
            seen += len(weighted)
        return Batch(*tf.nest.map_structure(lambda *leaves: np.concatenate(leaves), *picked))

    def _batches(self) -> Iterator[Batch]:
        for part in self._parts():
            for batch in cut(part, self._batch_size):
                yield tf.nest.map_structure(tf.constant, batch)

    def _parts(self) -> Iterator[Batch]:
        """Arrays of all rows, or of one batch of a dataset after the other."""
        if self._stream is None:
            yield self._arrays
            return
        n_rows = 0
        for example in self._stream.examples(self._batch_size):
            part = self._checked(*example, first_row=n_rows)
            yield part
            n_rows += len(part.y)

    def _checked(self, x: Any, y: Any, sample_weight: Any = None, *, first_row: int = 0) -> Batch:
        x = checked_inputs(x, self._dtype, first_row)
        counted = self._counted(x)
        labels = self._check_labels(as_labels(y, first_row, counted=counted))
        check_length("y", len(labels), len(tf.nest.flatten(x)[0]))
        observed = labels.shape[: self._observed_axes]
        weight = example_weights(sample_weight, self._class_factors, labels, observed, first_row)
        weight = weight if counted is None else weight * counted
        return Batch(x, labels, weight.astype(self._dtype))

    def _counted(self, x: Any) -> npt.NDArray[np.bool_] | None:
        """Which predictions are not masked, `[N]` or `[N, T]`; None where there is no mask."""
        if self.mask is None:
            return None
        return np.concatenate([self.mask(batch) for batch in cut(x, self._batch_size)])

    def _sums_of(self, batch: Batch) -> npt.NDArray[np.float64]:
        """The checksum of a batch, whatever stands for the labels of what is masked."""
        if self.mask is None:
            return _checksum(batch)
        y, counted = np.asarray(batch.y), np.asarray(batch.weight) > 0
        counted = counted.reshape(*counted.shape, *(1,) * (y.ndim - counted.ndim))
        return _checksum(batch._replace(y=np.where(counted, y, 0)))

    def _measure(self) -> tuple[int, float, Batch]:
        """Rows, N and the spec, from one pass."""
        n_rows, n_examples, spec, sums = 0, 0.0, None, np.zeros(_N_SUMS)
        for part in self._parts():
            n_rows += len(part.y)
            counted = self._counted(part.x)
            self.n_masked += 0 if counted is None else int(np.count_nonzero(~counted))
            self.n_weighted += len(_weighted_rows(part))
            n_examples += float(np.sum(part.weight, dtype=np.float64))
            spec = spec_of(part) if spec is None else spec
            sums += self._sums_of(part) if self._stream is not None else 0.0
        if self._stream is not None:
            self.sums = sums
        if spec is None or not 0 < n_examples < np.inf:
            raise InvalidInputError(
                "the data are empty",
                expected="at least one example of positive weight",
                received=f"{n_rows} rows, sum of weights {n_examples:g}",
                remedy="pass training data; a dataset must be finite and re-iterable",
            )
        return n_rows, n_examples, spec


class DataRecord(Batches):
    """What is remembered of a training set that is not at hand: every attempt to read it raises.

    Args:
        n_rows: as the attribute of `Batches`, and so the others.
        n_examples: N.
        spec: of a batch.
        columns: of a frame.
        sums: by which the data can be known again.
    """

    def __init__(
        self,
        *,
        n_rows: int,
        n_examples: float,
        spec: Batch,
        columns: tuple[Any, ...] | None,
        sums: npt.NDArray[np.float64],
    ) -> None:
        self.n_rows = n_rows
        self.n_examples = n_examples
        self.spec = spec
        self.columns = columns
        self.sums = sums
        self.on_batch: Callable[[int], None] | None = None

    def check_same(self, data: Batches) -> None:
        """`InvalidInputError` unless these are the data that are remembered, in any order."""
        if not _alike(data.sums, self.sums):
            raise InvalidInputError(
                "these are not the training data of the artifact",
                expected=f"its {self.n_rows} examples, in any order, prepared as they were then",
                received=f"{data.n_rows} examples"
                + (", other values in them" if data.n_rows == self.n_rows else ""),
                remedy="pass x, y and the weights that fit was called with",
            )

    def _parts(self) -> Iterator[Batch]:
        self.require()
        return iter(())

    def require(self) -> None:
        """They are not."""
        raise InvalidInputError(
            "this needs the training data, and an artifact holds none",
            expected="the data that fit was called with",
            received="a method loaded from a file",
            remedy="give them back with attach(x, y); or pass inputs of your own where there is an "
            "argument for them",
        )


def _weighted_rows(part: Batch) -> npt.NDArray[np.intp]:
    """Numbers of the rows of which something has a positive weight."""
    return np.flatnonzero(np.any(part.weight.reshape(len(part.weight), -1) > 0, axis=1))


#: What `_checksum` sums.
_N_SUMS = 6


def _checksum(batch: Batch) -> npt.NDArray[np.float64]:
    """Sums over a batch that depend on which row has which label and weight, not on the order.

    None of them cancels, so that their rounding is small beside them.
    """
    leaves = [np.asarray(leaf, np.float64) for leaf in tf.nest.flatten(batch.x)]
    label, weight = _one_number(batch.y), _one_number(batch.weight)
    rows = sum(np.sum(np.abs(leaf).reshape(len(leaf), -1), axis=1) for leaf in leaves)
    return np.array(
        [
            len(label),
            np.sum(np.abs(label)),
            np.sum(rows),
            np.sum((rows + label) ** 2),
            np.sum((rows + 1) * weight),
            sum(np.sum(leaf**2) for leaf in leaves),
        ]
    )


def _one_number(values: Any) -> npt.NDArray[np.float64]:
    """Of each row, one that tells one-hot labels, or weights of positions, apart, `[B]`."""
    wide = np.asarray(values, np.float64).reshape(len(values), -1)
    return np.asarray(wide @ np.arange(1.0, wide.shape[1] + 1))


def _alike(sums: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> bool:
    return bool(np.allclose(sums, others, rtol=1e-6, atol=1e-6))


def spec_of(nest: Any) -> Any:
    """`tf.TensorSpec`s of a nest of arrays `[B, ...]`, with the first axis left free."""
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype), nest
    )


def _check_beside(stream: Stream | None, y: Any, sample_weight: Any) -> None:
    """`InvalidInputError` unless labels come with arrays, and only with arrays."""
    if stream is None and y is None:
        raise InvalidInputError(
            "y is missing",
            expected="labels [N] beside the inputs x",
            received="y=None",
            remedy="pass fit(x, y), or one tf.data.Dataset of (x, y)",
        )
    if stream is not None and (y is not None or sample_weight is not None):
        raise InvalidInputError(
            "y and sample_weight came beside a dataset",
            expected="one tf.data.Dataset or PyDataset of (x, y) or (x, y, weight)",
            received="a dataset as x, and labels or weights of their own",
            remedy="put the labels and the weights into the dataset",
        )
