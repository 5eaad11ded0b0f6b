"""Inputs as arrays: checked, cast, cut into batches, and compared with those of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.errors import InvalidInputError

__all__ = [
    "InputBatches",
    "align_inputs",
    "as_list",
    "as_numbers",
    "cast_floats",
    "check_batch_size",
    "check_finite",
    "check_length",
    "checked_inputs",
    "empty_error",
    "made_different",
]


class InputBatches:
    """Inputs alone, cut into even batches of at most `batch_size` rows.

    Args:
        x: an array or a nest (list, tuple, dict) of arrays `[N, ...]`, all with the same N.
        dtype: what floating inputs are cast to; integer inputs stay as they are.
        batch_size: rows per batch, at most; a small remainder would be slow for its size.

    Attributes:
        n_rows: N.
        batch_size: rows of every batch but perhaps the last.
        on_batch: called with the number of rows after each batch; None or a progress display.

    Raises:
        InvalidInputError: empty, ragged or non-finite inputs, or different numbers of rows.
    """

    def __init__(self, x: Any, *, dtype: str, batch_size: int) -> None:
        self.x = checked_inputs(x, dtype)
        self.n_rows = int(tf.nest.flatten(self.x)[0].shape[0])
        n_batches = math.ceil(self.n_rows / check_batch_size(batch_size))
        self.batch_size = math.ceil(self.n_rows / n_batches)
        self.on_batch: Callable[[int], None] | None = None

    def __iter__(self) -> Iterator[Any]:
        """The batches, in order."""
        for start in range(0, self.n_rows, self.batch_size):
            rows = slice(start, start + self.batch_size)
            yield tf.nest.map_structure(lambda leaf, rows=rows: tf.constant(leaf[rows]), self.x)
            if self.on_batch is not None:
                self.on_batch(min(self.batch_size, self.n_rows - start))


def align_inputs(x: Any, spec: Any) -> Any:
    """Inputs in the dtypes of the training data, or `InvalidInputError` where they do not fit it.

    Structure and row shapes must be the same, and integer inputs must stay what they are.
    """
    expected = tf.nest.map_structure(lambda leaf: ["N", *leaf.shape[1:]], spec)
    x = as_list(x)
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
    array = as_numbers(leaf)
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


def checked_inputs(x: Any, dtype: str) -> Any:
    """Inputs as arrays with one number of rows, floats cast, all finite."""
    x = as_list(x)
    leaves = [cast_floats(as_numbers(leaf), dtype) for leaf in tf.nest.flatten(x)]
    if not leaves or any(leaf.ndim == 0 or leaf.shape[0] == 0 for leaf in leaves):
        raise empty_error(f"shapes {[list(leaf.shape) for leaf in leaves]}")
    for leaf in leaves:
        check_length("an input of x", leaf.shape[0], leaves[0].shape[0])
        check_finite("x", leaf)
    return tf.nest.pack_sequence_as(x, leaves)


def made_different(leaf: npt.NDArray[Any], n: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    """The rows of an input repeated up to n and made different from one another."""
    rows = leaf[np.arange(n) % len(leaf)]
    if rows.dtype.kind == "f":
        spread = float(np.std(rows)) or 1.0
        return (rows + 0.1 * spread * rng.standard_normal(rows.shape)).astype(rows.dtype)
    if rows.ndim > 1:
        return np.stack([np.roll(row, k, axis=0) for k, row in enumerate(rows)])
    return rows


def as_list(x: Any) -> Any:
    """Several inputs as a list, as Keras takes them; datasets make tuples of them."""
    return list(x) if isinstance(x, tuple) else x


def as_numbers(leaf: Any) -> npt.NDArray[Any]:
    """An array of numbers, or `InvalidInputError`."""
    if isinstance(leaf, tf.RaggedTensor):
        raise InvalidInputError(
            "x is ragged",
            expected="rows of one shape",
            received=f"a RaggedTensor of shape {list(leaf.shape)}",
            remedy="pad the rows with x.to_tensor(), and mask the padding in the model",
        )
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


def cast_floats(leaf: Any, dtype: str) -> npt.NDArray[Any]:
    """Floats in a dtype; integers as they are."""
    array = np.asarray(leaf)
    return array.astype(dtype, copy=False) if array.dtype.kind == "f" else array


def check_batch_size(batch_size: int) -> int:
    """A positive whole number, or `InvalidInputError`."""
    if isinstance(batch_size, bool) or int(batch_size) != batch_size or batch_size < 1:
        raise InvalidInputError(
            "batch_size is not a positive whole number",
            expected="an integer >= 1, or None to choose it from the model's size",
            received=repr(batch_size),
        )
    return int(batch_size)


def empty_error(received: str) -> InvalidInputError:
    """The error for data without a row."""
    return InvalidInputError(
        "x is empty",
        expected="at least one row: arrays [N, ...] with N >= 1, or a dataset that yields a batch",
        received=received,
    )


def check_length(name: str, received: int, expected: int) -> None:
    """`InvalidInputError` unless there are as many rows as x has."""
    if received != expected:
        raise InvalidInputError(
            f"{name} has the wrong length",
            expected=f"{expected} rows, as many as x has",
            received=f"{received} rows",
        )


def check_finite(name: str, array: npt.NDArray[Any]) -> None:
    """`InvalidInputError` where an array holds NaN or infinity."""
    bad = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise InvalidInputError(
            f"{name} holds NaN or infinity",
            expected="finite numbers",
            received=f"{bad} of {np.size(array)} values are not finite",
            remedy="impute or drop those rows before; deltauq never drops any",
        )
