"""Inputs: checked, cast, cut into batches, and compared with those of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.data.arrays import (
    as_nest,
    cast_floats,
    check_finite,
    check_length,
    column_names,
    empty_error,
)
from deltauq.data.streams import Stream, as_source
from deltauq.errors import InvalidInputError, check_count

__all__ = [
    "InputBatches",
    "align_inputs",
    "check_batch_size",
    "checked_inputs",
    "cut",
    "first_rows",
]

#: Row shapes of one number.
_ONE: set[tuple[int, ...]] = {(), (1,)}


class InputBatches:
    """Inputs alone, cut into even batches of at most `batch_size` rows.

    Args:
        x: an array or a nest (list, tuple, dict) of arrays `[N, ...]`, all with the same N, a
            pandas frame, or a dataset that yields such inputs.
        dtype: what floating inputs are cast to; integer inputs stay as they are.
        batch_size: rows per batch, at most; a small remainder would be slow for its size. It may be
            set again before the batches are read.
        spec: `tf.TensorSpec`s of the training inputs, which these must be like; None leaves them.
        columns: the training frame's columns, which a frame must have in this order; or None.

    Attributes:
        source: checked arrays, or the `Stream` of a dataset.
        n_rows: N; of a dataset None, until it was read to its end.
        on_batch: called with the number of rows after each batch; None or a progress display.
        on_fetch: called before rows are fetched, which may take long.
        on_fetched: called when there are some, and when there are no more.
        on_rows: called with the number of rows so far before they are cut into batches, to refuse
            too many; or None.

    Raises:
        InvalidInputError: empty, ragged or non-finite inputs, different numbers of rows, or inputs
            that are unlike those of training.
    """

    def __init__(
        self,
        x: Any,
        *,
        dtype: str,
        batch_size: int,
        spec: Any = None,
        columns: tuple[Any, ...] | None = None,
    ) -> None:
        self._dtype = dtype
        self._spec = spec
        self.batch_size = check_batch_size(batch_size)
        self.on_batch: Callable[[int], None] | None = None
        self.on_fetch: Callable[[], None] = _nothing
        self.on_fetched: Callable[[], None] = _nothing
        self.n_rows: int | None = None
        self.on_rows: Callable[[int], None] | None = None
        rank = None if spec is None else sum(leaf.shape.rank for leaf in tf.nest.flatten(spec))
        self.source = as_source(x, rank=rank)
        if not isinstance(self.source, Stream):
            _check_columns(column_names(x), columns)
            self.source = self._checked(x)
            self.n_rows = _n_rows(self.source)

    def __iter__(self) -> Iterator[Any]:
        """The batches, in order, the last partial one included."""
        n_rows = 0
        self.on_fetch()
        for part in self._parts():
            if self.on_rows is not None:
                self.on_rows(n_rows + _n_rows(part))
            for batch in cut(part, self.batch_size):
                tensors = tf.nest.map_structure(tf.constant, batch)
                self.on_fetched()
                yield tensors
                self.on_fetch()
                n_rows += _n_rows(batch)
                if self.on_batch is not None:
                    self.on_batch(_n_rows(batch))
        self.on_fetched()
        if not n_rows:
            raise empty_error("no batch")
        self.n_rows = n_rows

    def first(self) -> Any:
        """Arrays of all rows; of a dataset, of its first batch."""
        part = next(self._parts(), None)
        if part is None:
            raise empty_error("no batch")
        return part

    def _parts(self) -> Iterator[Any]:
        if not isinstance(self.source, Stream):
            yield self.source
            return
        n_rows = 0
        for element in self.source.inputs(self.batch_size):
            if self._spec is not None:
                _refuse_labels(element, self._spec)
            part = self._checked(element, n_rows)
            yield part
            n_rows += _n_rows(part)

    def _checked(self, x: Any, first_row: int = 0) -> Any:
        x = x if self._spec is None else align_inputs(x, self._spec)
        return checked_inputs(x, self._dtype, first_row)


def cut(nest: Any, batch_size: int) -> Iterator[Any]:
    """Even pieces of at most so many rows of a nest of arrays `[N, ...]`."""
    n_rows = _n_rows(nest)
    size = math.ceil(n_rows / math.ceil(n_rows / batch_size))
    for start in range(0, n_rows, size):
        rows = slice(start, start + size)
        yield tf.nest.map_structure(lambda leaf, rows=rows: leaf[rows], nest)


def first_rows(parts: Iterable[Any], n: int) -> Any:
    """Arrays of the first rows of some batches, at most n, as far as they have one shape.

    Args:
        parts: nests of arrays `[B, ...]`, one batch after the other, read no further than needed.
        n: rows.

    Raises:
        InvalidInputError: no batch.
    """
    taken: list[Any] = []
    for part in parts:
        if taken and _row_shapes(part) != _row_shapes(taken[0]):  # padded to another length
            break
        taken.append(part)
        if sum(map(_n_rows, taken)) >= n:
            break
    if not taken:
        raise empty_error("no batch")
    return tf.nest.map_structure(lambda *leaves: np.concatenate(leaves)[:n], *taken)


def _row_shapes(nest: Any) -> list[tuple[int, ...]]:
    return [leaf.shape[1:] for leaf in tf.nest.flatten(nest)]


def align_inputs(x: Any, spec: Any) -> Any:
    """Inputs in the dtypes of the training data, or `InvalidInputError` where they do not fit it.

    Structure and row shapes must be the same, and integer inputs must stay what they are.
    """
    x = as_nest(x)
    expected = tf.nest.map_structure(lambda leaf: ["N", *leaf.shape[1:]], spec)
    if not _same_rows(x, spec):
        raise InvalidInputError(
            "x has another shape than the training data",
            expected=f"arrays of shape {expected}",
            received=f"shape {tf.nest.map_structure(lambda leaf: list(leaf.shape), x)}",
            remedy=_reshaping(x, spec),
        )
    return tf.nest.map_structure(_align, x, spec)


def _same_rows(x: Any, spec: Any) -> bool:
    """Whether structure and row shapes are those of the specs; Keras takes `[N]` as `[N, 1]`."""
    try:
        tf.nest.assert_same_structure(x, spec)
    except (TypeError, ValueError):
        return False
    rows = zip(tf.nest.flatten(x), tf.nest.flatten(spec), strict=True)
    return all(
        leaf.ndim > 0
        and (leaf.shape[1:] == like.shape[1:] or {leaf.shape[1:], tuple(like.shape[1:])} == _ONE)
        for leaf, like in rows
    )


def _reshaping(x: Any, spec: Any) -> str:
    """How one array of another shape might be brought to the one of training."""
    fallback = "prepare the inputs as for training"
    if not (isinstance(x, np.ndarray) and isinstance(spec, tf.TensorSpec)):
        return fallback
    row = tuple(spec.shape[1:])
    if x.shape == row:
        return "one single input still needs the leading axis: x[None]"
    if (*x.shape[1:], 1) == row:
        return "the axis of channels is missing: x[..., None]"
    same_order = 1 in (x.ndim - 1, len(row)) or _beside_ones(x.shape[1:]) == _beside_ones(row)
    if same_order and None not in row and math.prod(x.shape[1:]) == math.prod(row):
        return f"if only the axes differ, x.reshape({', '.join(map(str, (-1, *row)))})"
    return fallback


def _beside_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)


def _refuse_labels(element: Any, spec: Any) -> None:
    """`InvalidInputError` where a dataset yields labels beside the inputs."""
    if not isinstance(element, tuple) or len(element) not in (2, 3):
        return
    try:
        tf.nest.assert_same_structure(list(element), spec)
    except (TypeError, ValueError):
        raise InvalidInputError(
            "the dataset yields labels beside the inputs",
            expected="a dataset of inputs alone",
            received=f"tuples of {len(element)}",
            remedy="take the labels off: dataset.map(lambda x, y: x), or .map(lambda x, y, w: x)",
        ) from None


def _check_columns(received: tuple[Any, ...] | None, expected: tuple[Any, ...] | None) -> None:
    """`InvalidInputError` where two frames name their columns and do not agree."""
    named = all(
        columns is not None and all(isinstance(column, str) for column in columns)
        for columns in (received, expected)
    )
    if named and received != expected:
        raise InvalidInputError(
            "x has other columns than the training data",
            expected=f"columns {list(expected or ())}, in this order",
            received=f"columns {list(received or ())}",
            remedy="pass x[columns] with the columns of training",
        )


def _align(leaf: npt.NDArray[Any], like: tf.TensorSpec) -> npt.NDArray[Any]:
    with np.errstate(invalid="ignore"):
        aligned = leaf.astype(like.dtype.as_numpy_dtype).reshape(-1, *like.shape[1:])
    if aligned.dtype.kind != "f" and not np.array_equal(aligned.ravel(), leaf.ravel()):
        raise InvalidInputError(
            "x does not fit the training data",
            expected=f"whole numbers that {aligned.dtype} holds, as in training",
            received=f"{leaf.dtype} from {leaf.min():g} to {leaf.max():g}",
            remedy="prepare the inputs as for training (same scaling, same dtype)",
        )
    return aligned


def checked_inputs(x: Any, dtype: str, first_row: int = 0) -> Any:
    """Inputs as arrays with one number of rows, floats cast, all finite.

    Args:
        x: an array or a nest of arrays `[B, ...]`.
        dtype: of floats.
        first_row: as for `check_finite`.

    Raises:
        InvalidInputError: empty, ragged or non-finite inputs.
    """
    x = tf.nest.map_structure(lambda leaf: cast_floats(leaf, dtype), as_nest(x))
    leaves = tf.nest.flatten(x)
    if not leaves or any(leaf.ndim == 0 or leaf.shape[0] == 0 for leaf in leaves):
        raise empty_error(f"shapes {[list(leaf.shape) for leaf in leaves]}")
    for leaf in leaves:
        check_length("an input of x", leaf.shape[0], leaves[0].shape[0])
        check_finite("x", leaf, first_row)
    return x


def check_batch_size(batch_size: Any) -> int:
    """A positive whole number, or `InvalidInputError`."""
    or_else = ", or None to choose it from the model's size"
    return check_count("batch_size", batch_size, or_else=or_else)


def _n_rows(nest: Any) -> int:
    return int(tf.nest.flatten(nest)[0].shape[0])


def _nothing() -> None:
    """Stand in for `on_fetch` and `on_fetched` where nobody asks to be told."""
