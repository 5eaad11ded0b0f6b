"""Data that are read batch by batch, again and again: datasets of TensorFlow and of Keras."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from deltauq.data.arrays import (
    ArrayInputs,
    as_nest,
    column_names,
)
from deltauq.data.frames import columns_named
from deltauq.data.model_inputs import ModelInputs
from deltauq.errors import DeltaUQError, InvalidInputError, what_it_says

__all__ = ["Stream", "as_inputs", "as_source", "next_element"]

_ENDLESS = "the dataset never ends"
_ONE_PASS = "a finite dataset: one pass over the training set"

#: What is known of inputs before there is a model.
_ANY = ModelInputs()

#: Whether shapes of examples' parts, None where not known, are those of single examples.
_Rule = Callable[[Any, int | None], bool]


class Stream:
    """A finite source of batches that can be read again and again.

    Args:
        source: a `tf.data.Dataset`, batched or not, or a `keras.utils.PyDataset` or legacy
            `Sequence`, whose items are batches; `on_epoch_end` is not called.
        taken: what a model says of its inputs: their ranks tell single examples from batches where
            their own shapes do not, and their dtypes keep whole numbers whole.

    Raises:
        InvalidInputError: a source that never ends, or yields ragged or sparse tensors.
    """

    def __init__(self, source: Any, taken: ModelInputs = _ANY) -> None:
        self._source = source
        self._taken = taken
        if isinstance(source, tf.data.Dataset):
            _check_dataset(source)
        elif _length(source) is None:
            raise InvalidInputError(
                _ENDLESS,
                expected=_ONE_PASS,
                received=f"a {type(source).__name__} whose num_batches is None",
                remedy="give its class a __len__: the number of batches of one pass",
            )

    def taken_by(self, taken: ModelInputs) -> Stream:
        """A stream of the same source that knows what the model says of its inputs, if anything."""
        return self if taken.rank is None else Stream(self._source, taken)

    def examples(self, batch_size: int) -> Iterator[tuple[Any, ...]]:
        """Yield batches of examples, `(x, y)` or `(x, y, weight)`.

        Args:
            batch_size: of single examples; batches stay as they are.

        Raises:
            InvalidInputError: other elements than these.
        """
        for element in self._batches(batch_size, _is_example):
            parts = _parts(element)
            _check_parts(parts)
            yield parts

    def nest(self, x: Any) -> Any:
        """Inputs of an element as arrays `[B, ...]`, as the model takes them.

        Raises:
            InvalidInputError: as `as_nest`, or inputs that the model does not take.
        """
        return self._taken.checked(as_nest(x))

    def inputs(self, batch_size: int) -> Iterator[Any]:
        """Batches of inputs alone."""
        for element in self._batches(batch_size, _is_input):
            yield element[0] if isinstance(element, tuple) and len(element) == 1 else element

    def _batches(self, batch_size: int, is_single: _Rule) -> Iterator[Any]:
        if not isinstance(self._source, tf.data.Dataset):
            # By number: iteration need not end, and legacy ones have none.
            yield from (self._source[k] for k in range(_length(self._source) or 0))
            return
        single = is_single(self._shapes(), self._taken.rank)
        yield from self._source.batch(batch_size) if single else self._source

    def _shapes(self) -> Any:
        """Shapes of an element's parts, looked up in the first one where they are not declared."""
        spec = self._source.element_spec
        if any(leaf.shape.rank is None for leaf in tf.nest.flatten(spec)):
            spec = next(iter(self._source), spec)
        return tf.nest.map_structure(lambda leaf: leaf.shape, spec)


def as_source(x: Any, taken: ModelInputs = _ANY) -> Any:
    """A `Stream` of what is read batch by batch; anything else as it is.

    Args:
        x: inputs or a dataset.
        taken: as for `Stream`.
    """
    if isinstance(x, Stream):
        return x.taken_by(taken)
    # Duck typing takes in the Sequence of tf_keras, without importing it.
    kind = type(x)
    legacy = all(hasattr(kind, name) for name in ("__len__", "__getitem__", "on_epoch_end"))
    if legacy or isinstance(x, (tf.data.Dataset, keras.utils.PyDataset)):
        return Stream(x, taken)
    return x


def as_inputs(x: Any, taken: ModelInputs = _ANY) -> Stream | ArrayInputs:
    """A `Stream` of what is read batch by batch; anything else as arrays, which are made once.

    Args:
        x: inputs or a dataset; or what this function made of them.
        taken: as for `Stream`; by its names the columns of a frame are inputs of their own.

    Raises:
        InvalidInputError: as `as_nest` and `columns_named`.
    """
    source = as_source(x, taken)
    if isinstance(source, (Stream, ArrayInputs)):
        return source
    columns = column_names(source)
    if taken.names is not None and columns is not None:
        return ArrayInputs(as_nest(columns_named(source, taken.names)))
    return ArrayInputs(as_nest(source), columns)


def _is_example(shapes: Any, rank: int | None) -> bool:
    """Whether `(x, y)` or `(x, y, weight)` of such shapes is one example, not a batch."""
    parts = _parts(shapes)
    _check_parts(parts)
    leaves, x = _flat(parts), _flat(parts[0])
    if any(shape.rank == 0 for shape in leaves):
        return True
    sizes = {shape[0] for shape in leaves}
    if sizes == {None}:  # only batches share an axis of unknown length
        return False
    if rank is not None and (single := _of_rank(x, rank)) is not None:
        return single
    return len(sizes - {None}) > 1


def _is_input(shapes: Any, rank: int | None) -> bool:
    return rank is not None and bool(_of_rank(_flat(shapes), rank))


def _of_rank(shapes: list[tf.TensorShape], rank: int) -> bool | None:
    """Whether inputs of some shapes lack the batch axis; None where they fit neither way."""
    total = sum(shape.rank for shape in shapes)
    return {rank: False, rank - len(shapes): True}.get(total)


def _flat(shapes: Any) -> list[tf.TensorShape]:
    flat: list[tf.TensorShape] = tf.nest.flatten(shapes)
    return flat


def _parts(element: Any) -> Any:
    """An element as a tuple, where it is a list of them as a legacy Sequence may give."""
    return tuple(element) if type(element) is list else element


def _check_parts(parts: Any) -> None:
    if not isinstance(parts, tuple) or len(parts) not in (2, 3):
        raise InvalidInputError(
            "the dataset yields something else than (x, y) or (x, y, weight)",
            expected="a tuple of two or three parts",
            received=type(parts).__name__
            + (f" of {len(parts)}" if isinstance(parts, tuple) else ""),
            remedy="make it yield (inputs, labels): by dataset.map(...), or in the __getitem__ of "
            "a PyDataset",
        )


def _check_dataset(dataset: tf.data.Dataset) -> None:
    if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise InvalidInputError(
            _ENDLESS,
            expected=_ONE_PASS,
            received="a dataset of infinite cardinality",
            remedy="take out .repeat(), or bound it with .take(n)",
        )
    for spec in tf.nest.flatten(dataset.element_spec):
        if not isinstance(spec, tf.TensorSpec):
            raise InvalidInputError(
                "the dataset yields other things than tensors",
                expected="dense tensors",
                received=f"a {type(spec).__name__.removesuffix('Spec')}",
                remedy="make them dense as for training: map x.to_tensor(shape=...) over ragged "
                "tensors, tf.sparse.to_dense(x) over sparse ones",
            )


def next_element(elements: Iterator[Any], n_elements: int, n_rows: int) -> Any:
    """Read the next element of a dataset, None at its end, or say at which one it fails.

    Args:
        elements: of a pass.
        n_elements: how many were read before.
        n_rows: how many rows those had.

    Raises:
        InvalidInputError: whatever the dataset raises, but where it is interrupted or memory runs
            out.
    """
    try:
        return next(elements, None)
    except (DeltaUQError, MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:  # code of the user's own is called, and may raise anything
        raise _failure(
            error, f"batch {n_elements}, from row {n_rows} on (both counted from 0)"
        ) from error


def _failure(error: Exception, where: str) -> InvalidInputError:
    """The error for a dataset that fails while it is read."""
    said = what_it_says(error)
    if said.startswith(("Cannot batch tensor", "Cannot add tensor to the batch")):
        return InvalidInputError(
            "the dataset's single examples make no batch",
            expected="examples of one shape",
            received=said,
            remedy="pad them to one shape, as for training: .padded_batch(256, padded_shapes=...)",
        )
    by_tensorflow = isinstance(error, tf.errors.OpError)
    return InvalidInputError(
        "the dataset fails while it is read",
        expected="a dataset that can be read to its end, in every pass",
        received=f"{'TensorFlow' if by_tensorflow else type(error).__name__} says at {where}: "
        f"{said}",
        remedy="mend the generator or the function that it maps: for _ in dataset: pass fails too"
        if by_tensorflow
        else "mend its __getitem__: dataset[k] of that batch fails too, in that pass",
    )


def _length(source: Any) -> int | None:
    """Batches of a PyDataset or Sequence; None where it is infinite."""
    if isinstance(source, keras.utils.PyDataset):
        count = source.num_batches
        return None if count is None else int(count)
    return len(source)
