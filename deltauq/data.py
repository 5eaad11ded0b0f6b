"""Data as batches that can be read again and again: the true N, the weights, and every last row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.errors import InvalidInputError
from deltauq.inputs import (
    InputBatches,
    as_list,
    as_numbers,
    cast_floats,
    check_finite,
    check_length,
    checked_inputs,
    empty_error,
    made_different,
)
from deltauq.likelihoods import Likelihood

__all__ = ["Batch", "Batches", "probe_rows"]


class Batch(NamedTuple):
    """Inputs (a tensor or a nest of tensors `[B, ...]`), labels `[B]` and weights `[B]`."""

    x: Any
    y: tf.Tensor
    weight: tf.Tensor


class Batches:
    """A fixed training set, re-iterable, with the sums that averages must be divided by.

    Args:
        x: inputs: an array or a nest of arrays `[N, ...]`, or a batched, finite `tf.data.Dataset`
            of `(x, y)` or `(x, y, weight)` that yields the same examples in every pass.
        y: labels `[N]`; None when x is a dataset.
        sample_weight: `[N]`, not negative; None counts every example once.
        likelihood: checks the labels.
        n_outputs: C, for the check of the labels.
        dtype: what floating inputs and weights are cast to.
        batch_size: rows per batch, at most; a dataset keeps its own.

    Attributes:
        n_rows: rows, whatever their weight.
        n_examples: N, the sum of the weights (the number of rows without weights).
        spec: `tf.TensorSpec`s of a batch with a free first axis, for one trace per kernel.
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
        *,
        likelihood: Likelihood,
        n_outputs: int,
        dtype: str,
        batch_size: int = 256,
    ) -> None:
        self._dtype = dtype
        self._check_labels: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = lambda labels: (
            likelihood.check_labels(labels, n_outputs)
        )
        self.on_batch: Callable[[int], None] | None = None
        if isinstance(x, tf.data.Dataset):
            _check_finite_dataset(x)
            if y is not None or sample_weight is not None:
                raise InvalidInputError(
                    "y and sample_weight came beside a dataset",
                    expected="one tf.data.Dataset of (x, y) or (x, y, weight)",
                    received="a dataset as x, and labels or weights of their own",
                    remedy="put the labels and the weights into the dataset",
                )
            self._dataset: tf.data.Dataset | None = x
        else:
            self._dataset = None
            self._arrays = self._from_arrays(x, y, sample_weight, batch_size)
        self.n_rows, self.n_examples, self.spec = self._measure()

    def __iter__(self) -> Iterator[Batch]:
        """The batches, in order, the last partial one included.

        Raises:
            InvalidInputError: a dataset that does not yield in this pass what it first yielded.
        """
        sums = np.zeros(5)
        for batch in self._batches():
            sums += _checksum(batch) if self._dataset is not None else 0.0
            yield batch
            self.passed(int(batch.y.shape[0]))
        if self._dataset is not None and not np.allclose(sums, self._sums, rtol=1e-6, atol=1e-6):
            raise InvalidInputError(
                "the dataset changes from one pass to the next",
                expected="the same examples in every pass; their order does not matter",
                received=f"{sums[0]:.0f} rows after {self._sums[0]:.0f}, or other values in them",
                remedy="take out augmentation and generators that run dry, or cache the dataset",
            )

    def passed(self, n_rows: int) -> None:
        """Tell the progress display of rows that were dealt with, read again or not."""
        if self.on_batch is not None:
            self.on_batch(n_rows)

    def head(self, n: int) -> Any:
        """The inputs of the first rows, at most n and at most one batch."""
        first = next(self._batches())
        return tf.nest.map_structure(lambda leaf: leaf[:n], first.x)

    def probe(self, n: int = 3) -> Any:
        """Different rows like the first ones, as `probe_rows` makes them."""
        return probe_rows(self.head(n), dtype=self._dtype, n=n)

    def _batches(self) -> Iterator[Batch]:
        if self._dataset is not None:
            for element in self._dataset:
                yield self._from_element(element)
            return
        inputs, y, weight = self._arrays
        start = 0
        for x in inputs:
            stop = min(start + inputs.batch_size, inputs.n_rows)
            yield Batch(x, tf.constant(y[start:stop]), tf.constant(weight[start:stop]))
            start = stop

    def _from_arrays(
        self, x: Any, y: Any, sample_weight: Any, batch_size: int
    ) -> tuple[InputBatches, npt.NDArray[Any], npt.NDArray[Any]]:
        inputs = InputBatches(x, dtype=self._dtype, batch_size=batch_size)
        if y is None:
            raise InvalidInputError(
                "y is missing",
                expected="labels [N] beside the inputs x",
                received="y=None",
                remedy="pass fit(x, y), or one tf.data.Dataset of (x, y)",
            )
        labels = self._check_labels(np.asarray(y))
        check_length("y", len(labels), inputs.n_rows)
        weight = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight)
        return inputs, labels, _weights(weight, inputs.n_rows, self._dtype)

    def _from_element(self, element: Any) -> Batch:
        _check_element(element)
        x = tf.nest.map_structure(
            lambda leaf: tf.constant(cast_floats(leaf, self._dtype)), as_list(element[0])
        )
        labels = self._check_labels(element[1].numpy())
        rows = int(tf.nest.flatten(x)[0].shape[0])
        check_length("y", len(labels), rows)
        weight = element[2].numpy() if len(element) == 3 else np.ones(rows)
        return Batch(x, tf.constant(labels), tf.constant(_weights(weight, rows, self._dtype)))

    def _measure(self) -> tuple[int, float, Batch]:
        """Rows, N and the spec: known beforehand of arrays, from one pass over a dataset."""
        if self._dataset is None:
            inputs, _, weight = self._arrays
            n_rows, n_examples = inputs.n_rows, float(np.sum(weight, dtype=np.float64))
            spec = _spec_of(next(self._batches()))
        else:
            n_rows, n_examples, spec = 0, 0.0, None
            self._sums = np.zeros(5)
            for batch in self._batches():
                n_rows += int(batch.y.shape[0])
                n_examples += float(np.sum(batch.weight.numpy(), dtype=np.float64))
                spec = _spec_of(batch) if spec is None else spec
                self._sums += _checksum(batch)
                for leaf in tf.nest.flatten(batch.x):
                    check_finite("x", leaf.numpy())
        if spec is None or n_examples <= 0:
            raise InvalidInputError(
                "the data are empty",
                expected="at least one example of positive weight",
                received=f"{n_rows} rows, sum of weights {n_examples:g}",
                remedy="pass training data; a tf.data.Dataset must be finite and re-iterable",
            )
        return n_rows, n_examples, spec


def probe_rows(x: Any, *, dtype: str, n: int) -> Any:
    """Rows like the first ones of the data, all different, as tensors: to probe a model with.

    The first rows of arrays, or of a dataset's first batch, repeated up to n. Floating inputs get
    a tenth of their own spread as seeded noise, integer ones are rolled along their second axis,
    so that no two rows are alike and no input is blank.
    """
    if isinstance(x, tf.data.Dataset):
        _check_finite_dataset(x)
        element = next(iter(x), None)
        if element is None:
            raise empty_error("no batch")
        _check_element(element)
        x = element[0]
    heads = tf.nest.map_structure(lambda leaf: as_numbers(leaf)[:n], as_list(x))
    if any(leaf.ndim == 0 for leaf in tf.nest.flatten(heads)):
        raise empty_error(f"shapes {[list(np.shape(leaf)) for leaf in tf.nest.flatten(x)]}")
    rng = np.random.default_rng(0)
    rows = tf.nest.map_structure(
        lambda leaf: made_different(leaf, n, rng), checked_inputs(heads, dtype)
    )
    return tf.nest.map_structure(tf.constant, rows)


def _checksum(batch: Batch) -> npt.NDArray[np.float64]:
    """Sums over a batch that do not depend on its order."""
    leaves = [leaf.numpy().astype(np.float64) for leaf in tf.nest.flatten(batch.x)]
    return np.array(
        [
            len(batch.y),
            np.sum(batch.y.numpy(), dtype=np.float64),
            np.sum(batch.weight.numpy(), dtype=np.float64),
            sum(np.sum(np.abs(leaf)) for leaf in leaves),
            sum(np.sum(leaf**2) for leaf in leaves),
        ]
    )


def _check_finite_dataset(dataset: tf.data.Dataset) -> None:
    if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise InvalidInputError(
            "the dataset never ends",
            expected="a finite tf.data.Dataset: one pass over the training set",
            received="a dataset of infinite cardinality",
            remedy="take out .repeat(), or bound it with .take(n)",
        )


def _spec_of(nest: Any) -> Any:
    """`tf.TensorSpec`s of a nest of tensors `[B, ...]`, with the first axis left free."""
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype), nest
    )


def _weights(weight: npt.NDArray[Any], n_rows: int, dtype: str) -> npt.NDArray[Any]:
    if weight.ndim != 1 or weight.dtype.kind not in "fiub":
        raise InvalidInputError(
            "sample_weight is not a vector of numbers",
            expected=f"shape [{n_rows}]",
            received=f"dtype {weight.dtype}, shape {list(weight.shape)}",
        )
    check_length("sample_weight", len(weight), n_rows)
    check_finite("sample_weight", weight)
    if np.any(weight < 0):
        raise InvalidInputError(
            "sample_weight is negative",
            expected="weights >= 0",
            received=f"a smallest weight of {weight.min():g}",
        )
    return weight.astype(dtype)


def _check_element(element: Any) -> None:
    """`InvalidInputError` unless a dataset's element is a batch of examples and labels."""
    if not isinstance(element, tuple) or len(element) not in (2, 3):
        raise InvalidInputError(
            "the dataset yields something else than (x, y) or (x, y, weight)",
            expected="a tuple of two or three parts",
            received=type(element).__name__
            + (f" of {len(element)}" if isinstance(element, tuple) else ""),
            remedy="map the dataset to (inputs, labels)",
        )
    if element[1].shape.rank == 0:
        raise InvalidInputError(
            "the dataset yields single examples",
            expected="batches: labels of shape [B]",
            received="labels of shape []",
            remedy="call .batch(256) on the dataset",
        )
