"""Inputs: checked, cast, cut into batches, and compared with those of training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.data.arrays import (
    ArrayInputs,
    cast_floats,
    check_finite,
    check_length,
    column_names,
    empty_error,
    in_dtype,
)
from deltauq.data.batch_reader import BatchReader, PassListener, check_batch_size, n_rows_of
from deltauq.data.model_inputs import ModelInputs
from deltauq.data.streams import Stream, as_inputs
from deltauq.errors import InvalidInputError

__all__ = ["InputBatches", "InputForm", "align_inputs", "checked_inputs"]

#: Row shapes of one number.
_ONE: set[tuple[int, ...]] = {(), (1,)}


@dataclass(frozen=True)
class InputForm:
    """What inputs are brought into, and must be like.

    Attributes:
        dtype: what floats are cast to; integers and text stay as they are.
        spec: `tf.TensorSpec`s of the training inputs, which these must be like; None takes any.
        columns: the training frame's columns, which a frame must have in this order; None takes
            any.
    """

    dtype: str
    spec: Any = None
    columns: tuple[Any, ...] | None = None

    def source(self, x: Any) -> Stream | ArrayInputs:
        """Inputs as a user gives them as a dataset, or as arrays that are not checked yet.

        Raises:
            InvalidInputError: a frame with other columns, or what cannot be read as numbers.
        """
        _check_columns(column_names(x), self.columns)
        rank = None if self.spec is None else sum(s.shape.rank for s in tf.nest.flatten(self.spec))
        names = tuple(self.spec) if isinstance(self.spec, Mapping) else None
        return as_inputs(x, ModelInputs(rank, names))

    def checked(self, nest: Any, first_row: int = 0) -> Any:
        """A nest of arrays in this form.

        Args:
            nest: arrays `[B, ...]`.
            first_row: as for `check_finite`.

        Raises:
            InvalidInputError: as `align_inputs` and `checked_inputs`.
        """
        aligned = nest if self.spec is None else align_inputs(nest, self.spec)
        return checked_inputs(aligned, self.dtype, first_row)


class InputBatches(BatchReader[Any, Any]):
    """Inputs alone, cut into even batches of at most `batch_size` rows.

    Args:
        x: an array or a nest (list, tuple, dict) of arrays `[N, ...]`, all with the same N, a
            pandas frame, or a dataset that yields such inputs.
        dtype: what floating inputs are cast to; integer inputs stay as they are.
        batch_size: rows per batch, at most; a small remainder would be slow for its size.
        spec: `tf.TensorSpec`s of the training inputs, which these must be like; None leaves them.
        columns: the training frame's columns, which a frame must have in this order; or None.

    Attributes:
        source: checked arrays, or the `Stream` of a dataset.
        n_rows: N; None of a dataset, whose rows are not counted before they are read.

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
        self._form = InputForm(dtype, spec, columns)
        source = self._form.source(x)
        rows = source if isinstance(source, Stream) else self._form.checked(source.nest)
        super().__init__(rows, check_batch_size(batch_size), PassListener())

    def __iter__(self) -> Iterator[Any]:
        """The batches, in order, the last partial one included."""
        n_batches = 0
        for batch in self._batches():
            n_batches += 1
            yield batch
        if not n_batches:
            raise empty_error("no batch")

    @property
    def source(self) -> Stream | ArrayInputs:
        """The inputs that are read: a dataset as a stream, anything else as checked arrays."""
        return self._rows if isinstance(self._rows, Stream) else ArrayInputs(self._rows)

    @property
    def n_rows(self) -> int | None:
        """Number N of rows; None of a dataset, which is not counted before it is read."""
        return None if isinstance(self._rows, Stream) else n_rows_of(self._rows)

    def with_batch_size(self, batch_size: int) -> InputBatches:
        """Batches of the same inputs, of at most so many rows; nothing is copied."""
        return self._remade(check_batch_size(batch_size), self._listener)

    def first(self) -> Any:
        """Arrays of all rows; of a dataset, of its first batch."""
        part = next(self._parts(), None)
        if part is None:
            raise empty_error("no batch")
        return part

    def _remade(self, batch_size: int, listener: PassListener) -> InputBatches:
        made = InputBatches.__new__(InputBatches)
        made._form = self._form
        BatchReader.__init__(made, self._rows, batch_size, listener)
        return made

    def _elements(self, stream: Stream) -> Iterator[tuple[Any, ...]]:
        for element in stream.inputs(self._batch_size):
            if self._form.spec is not None:
                _refuse_labels(element, self._form.spec)
            yield (element,)

    def _checked(self, x: Any, *beside: Any, first_row: int) -> Any:
        return self._form.checked(x, first_row)

    def _as_batch(self, part: Any) -> Any:
        return part


def align_inputs(x: Any, spec: Any) -> Any:
    """Inputs in the dtypes of the training data, or `InvalidInputError` where they do not fit it.

    Structure and row shapes must be the same, and integer inputs must stay what they are.

    Args:
        x: a nest of arrays `[B, ...]`.
        spec: `tf.TensorSpec`s of the training inputs.
    """
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
            remedy="take the labels off: dataset.map(lambda x, y: x), or .map(lambda x, y, w: x); "
            "of a PyDataset, return x alone from __getitem__",
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
            remedy=_to_columns(list(received or ()), list(expected or ())),
        )


def _to_columns(received: list[Any], expected: list[Any]) -> str:
    missing = [column for column in expected if column not in received]
    if not missing:
        return f"take them as in training: x[{expected}]"
    if len(received) == len(expected):
        return (
            "prepare the columns as for training; if only their names differ, "
            "x.rename(columns={...})"
        )
    return f"prepare the columns as for training: {missing} are not there"


def _align(leaf: npt.NDArray[Any], like: tf.TensorSpec) -> npt.NDArray[Any]:
    return in_dtype(leaf, like.dtype).reshape(-1, *like.shape[1:])


def checked_inputs(x: Any, dtype: str, first_row: int = 0) -> Any:
    """Inputs with one number of rows, floats cast, all finite.

    Args:
        x: a nest of arrays `[B, ...]`, as `as_nest` makes it.
        dtype: of floats.
        first_row: as for `check_finite`.

    Raises:
        InvalidInputError: empty, ragged or non-finite inputs.
    """
    x = tf.nest.map_structure(lambda leaf: cast_floats(leaf, dtype), x)
    leaves = tf.nest.flatten(x)
    if not leaves or any(leaf.ndim == 0 or leaf.shape[0] == 0 for leaf in leaves):
        raise empty_error(f"shapes {[list(leaf.shape) for leaf in leaves]}")
    for leaf in leaves:
        check_length("an input of x", leaf.shape[0], leaves[0].shape[0])
        if leaf.dtype.kind != "O":
            check_finite("x", leaf, first_row)
    return x
