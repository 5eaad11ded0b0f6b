"""Data as batches that can be read again and again: the true N, the weights, and every last row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.errors import InvalidInputError
from deltauq.likelihoods import Likelihood

__all__ = ["Batch", "Batches", "InputBatches", "align_inputs", "first_rows"]


class Batch(NamedTuple):
    """Inputs (a tensor or a nest of tensors `[B, ...]`), labels `[B]` and weights `[B]`."""

    x: Any
    y: tf.Tensor
    weight: tf.Tensor


class InputBatches:
    """Inputs alone, cut into batches of at most `batch_size` rows, the last one included.

    Args:
        x: an array or a nest (list, tuple, dict) of arrays `[N, ...]`, all with the same N.
        dtype: what floating inputs are cast to; integer inputs stay as they are.
        batch_size: rows per batch.

    Attributes:
        n_rows: N.
        on_batch: called with the number of rows after each batch; None or a progress display.

    Raises:
        InvalidInputError: empty, ragged or non-finite inputs, or different numbers of rows.
    """

    def __init__(self, x: Any, *, dtype: str, batch_size: int) -> None:
        self.batch_size = _check_batch_size(batch_size)
        self.x = _inputs(x, dtype)
        self.n_rows = int(tf.nest.flatten(self.x)[0].shape[0])
        self.on_batch: Callable[[int], None] | None = None

    def __iter__(self) -> Iterator[Any]:
        """The batches, in order."""
        for start in range(0, self.n_rows, self.batch_size):
            rows = slice(start, start + self.batch_size)
            yield tf.nest.map_structure(lambda leaf, rows=rows: tf.constant(leaf[rows]), self.x)
            if self.on_batch is not None:
                self.on_batch(min(self.batch_size, self.n_rows - start))


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
        batch_size: rows per batch; a dataset keeps its own.

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
        """The batches, in order, the last partial one included."""
        for batch in self._batches():
            yield batch
            if self.on_batch is not None:
                self.on_batch(int(batch.y.shape[0]))

    def head(self, n: int) -> Any:
        """The inputs of the first rows (at most n, at most one batch), for probes."""
        first = next(self._batches())
        return tf.nest.map_structure(lambda leaf: leaf[:n], first.x)

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
        _check_length("y", len(labels), inputs.n_rows)
        weight = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight)
        return inputs, labels, _weights(weight, inputs.n_rows, self._dtype)

    def _from_element(self, element: Any) -> Batch:
        _check_element(element)
        x = tf.nest.map_structure(
            lambda leaf: tf.constant(_cast(leaf, self._dtype)), _as_list(element[0])
        )
        labels = self._check_labels(element[1].numpy())
        rows = int(tf.nest.flatten(x)[0].shape[0])
        _check_length("y", len(labels), rows)
        weight = element[2].numpy() if len(element) == 3 else np.ones(rows)
        return Batch(x, tf.constant(labels), tf.constant(_weights(weight, rows, self._dtype)))

    def _measure(self) -> tuple[int, float, Batch]:
        n_rows, n_examples, spec = 0, 0.0, None
        for batch in self._batches():
            n_rows += int(batch.y.shape[0])
            n_examples += float(np.sum(batch.weight.numpy(), dtype=np.float64))
            spec = _spec_of(batch) if spec is None else spec
            for leaf in tf.nest.flatten(batch.x) if self._dataset is not None else ():
                _check_finite("x", leaf.numpy())
        if spec is None or n_examples <= 0:
            raise InvalidInputError(
                "the data are empty",
                expected="at least one example of positive weight",
                received=f"{n_rows} rows, sum of weights {n_examples:g}",
                remedy="pass training data; a tf.data.Dataset must be finite and re-iterable",
            )
        return n_rows, n_examples, spec


def first_rows(x: Any, *, dtype: str, n: int) -> Any:
    """The first rows of inputs as tensors, of arrays or of a dataset's first batch; for probes."""
    if isinstance(x, tf.data.Dataset):
        element = next(iter(x), None)
        if element is None:
            raise _empty("no batch")
        _check_element(element)
        x = element[0]
    leaves = [_array(leaf) for leaf in tf.nest.flatten(x)]
    if any(leaf.ndim == 0 for leaf in leaves):
        raise _empty(f"shapes {[list(leaf.shape) for leaf in leaves]}")
    heads = tf.nest.pack_sequence_as(x, [leaf[:n] for leaf in leaves])
    return tf.nest.map_structure(tf.constant, _inputs(heads, dtype))


def align_inputs(x: Any, spec: Any) -> Any:
    """Inputs in the dtypes of the training data, or `InvalidInputError` where they do not fit it.

    Structure and row shapes must be the same, and integer inputs must stay what they are.
    """
    expected = tf.nest.map_structure(lambda leaf: ["N", *leaf.shape[1:]], spec)
    x = _as_list(x)
    received = tf.nest.map_structure(lambda leaf: list(np.shape(leaf)), x)
    try:
        tf.nest.assert_same_structure(x, spec)
        rows = zip(tf.nest.flatten(x), tf.nest.flatten(spec), strict=True)
        same = all(np.shape(leaf)[1:] == tuple(like.shape[1:]) for leaf, like in rows)
    except (TypeError, ValueError):
        same = False
    if not same:
        raise InvalidInputError(
            "x has another shape than the training data",
            expected=f"arrays of shape {expected}",
            received=f"shape {received}",
            remedy="one single input still needs the leading axis: x[None]",
        )
    return tf.nest.map_structure(_align, x, spec)


def _align(leaf: Any, like: tf.TensorSpec) -> npt.NDArray[Any]:
    array = _array(leaf)
    with np.errstate(invalid="ignore"):
        aligned = array.astype(like.dtype.as_numpy_dtype)
    if aligned.dtype.kind != "f" and not np.array_equal(aligned, array):
        raise InvalidInputError(
            "x does not fit the training data",
            expected=f"whole numbers that {aligned.dtype} holds, as in training",
            received=f"{array.dtype} from {array.min():g} to {array.max():g}",
            remedy="prepare the inputs as for training (same scaling, same dtype)",
        )
    return aligned


def _spec_of(nest: Any) -> Any:
    """`tf.TensorSpec`s of a nest of tensors `[B, ...]`, with the first axis left free."""
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype), nest
    )


def _check_batch_size(batch_size: int) -> int:
    """A positive whole number, or `InvalidInputError`."""
    if isinstance(batch_size, bool) or int(batch_size) != batch_size or batch_size < 1:
        raise InvalidInputError(
            "batch_size is not a positive whole number",
            expected="an integer >= 1, or None to choose it from the model's size",
            received=repr(batch_size),
        )
    return int(batch_size)


def _inputs(x: Any, dtype: str) -> Any:
    x = _as_list(x)
    leaves = [_cast(_array(leaf), dtype) for leaf in tf.nest.flatten(x)]
    if not leaves or any(leaf.ndim == 0 or leaf.shape[0] == 0 for leaf in leaves):
        raise _empty(f"shapes {[list(leaf.shape) for leaf in leaves]}")
    for leaf in leaves:
        _check_length("an input of x", leaf.shape[0], leaves[0].shape[0])
        _check_finite("x", leaf)
    return tf.nest.pack_sequence_as(x, leaves)


def _as_list(x: Any) -> Any:
    """Several inputs as a list, as Keras takes them; datasets make tuples of them."""
    return list(x) if isinstance(x, tuple) else x


def _empty(received: str) -> InvalidInputError:
    return InvalidInputError(
        "x is empty",
        expected="at least one row: arrays [N, ...] with N >= 1, or a dataset that yields a batch",
        received=received,
    )


def _array(leaf: Any) -> npt.NDArray[Any]:
    array = leaf.numpy() if tf.is_tensor(leaf) else np.asarray(leaf)
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(
            "x does not hold numbers",
            expected="float, integer or boolean arrays",
            received=f"dtype {array.dtype}",
            remedy="encode text and categories before, or with preprocessing layers on numbers; "
            "a nest of inputs is a list, tuple or dict of arrays",
        )
    return array


def _cast(leaf: Any, dtype: str) -> npt.NDArray[Any]:
    array = np.asarray(leaf)
    return array.astype(dtype, copy=False) if array.dtype.kind == "f" else array


def _weights(weight: npt.NDArray[Any], n_rows: int, dtype: str) -> npt.NDArray[Any]:
    if weight.ndim != 1 or weight.dtype.kind not in "fiub":
        raise InvalidInputError(
            "sample_weight is not a vector of numbers",
            expected=f"shape [{n_rows}]",
            received=f"dtype {weight.dtype}, shape {list(weight.shape)}",
        )
    _check_length("sample_weight", len(weight), n_rows)
    _check_finite("sample_weight", weight)
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


def _check_length(name: str, received: int, expected: int) -> None:
    if received != expected:
        raise InvalidInputError(
            f"{name} has the wrong length",
            expected=f"{expected} rows, as many as x has",
            received=f"{received} rows",
        )


def _check_finite(name: str, array: npt.NDArray[Any]) -> None:
    bad = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise InvalidInputError(
            f"{name} holds NaN or infinity",
            expected="finite numbers",
            received=f"{bad} of {np.size(array)} values are not finite",
            remedy="impute or drop those rows before; deltauq never drops any",
        )
