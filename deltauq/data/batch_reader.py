"""What all data share that are read in batches, pass after pass: one loop, and who hears of it."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

import numpy as np
import tensorflow as tf

from deltauq.data.arrays import empty_error
from deltauq.data.streams import Stream, next_element
from deltauq.errors import check_count
from deltauq.runtime.faults import Place
from deltauq.runtime.stages import Stages

__all__ = ["BatchReader", "PassListener", "check_batch_size", "cut", "first_rows", "n_rows_of"]

PartT = TypeVar("PartT")
BatchT = TypeVar("BatchT")


def _ignore(*told: Any) -> None:
    """Stand in for a listener's functions where nobody asks to be told."""
    del told


@dataclass(frozen=True)
class PassListener:
    """Functions that are called while data are read; the default ones do nothing.

    Attributes:
        on_fetch: called before rows are fetched, which may take long.
        on_fetched: called when there are some, and when there are no more.
        on_rows: called with the number of rows so far, those included that are about to be cut
            into batches, to refuse too many.
        on_given: called with the place of each batch before it is dealt with, and with None at the
            end of a pass.
        on_batch: called with the number of rows of each batch when it was dealt with, as a progress
            display wants to know.
        on_step: called by work that takes long over one batch with what is going on, and why.
        stages: what the stages of work that takes several passes report to.
    """

    on_fetch: Callable[[], None] = _ignore
    on_fetched: Callable[[], None] = _ignore
    on_rows: Callable[[int], None] = _ignore
    on_given: Callable[[Place | None], None] = _ignore
    on_batch: Callable[[int], None] = _ignore
    on_step: Callable[[str, str], None] = _ignore
    stages: Stages = field(default_factory=Stages, compare=False)


class BatchReader(abc.ABC, Generic[PartT, BatchT]):
    """Rows that are read in batches, as often as wanted; it never changes.

    Arrays were made and checked before, once and for all. Of a dataset, which is not held in
    memory, the elements of every pass are, each once.

    Args:
        rows: checked arrays of all rows; or a dataset.
        batch_size: rows per batch, at most.
        listener: is told of every pass.
    """

    def __init__(self, rows: Stream | PartT, batch_size: int, listener: PassListener) -> None:
        self._rows = rows
        self._batch_size = batch_size
        self._listener = listener

    @abc.abstractmethod
    def _elements(self, stream: Stream) -> Iterator[tuple[Any, ...]]:
        """What a dataset yields: inputs, and what stands beside them."""

    @abc.abstractmethod
    def _checked(self, x: Any, *beside: Any, first_row: int) -> PartT:
        """An element whose inputs are a nest of arrays, checked; its number of the first row."""

    @abc.abstractmethod
    def _as_batch(self, part: PartT) -> BatchT:
        """Arrays that can be cut into batches."""

    @abc.abstractmethod
    def _remade(self, batch_size: int, listener: PassListener) -> Self:
        """A reader of the same rows with another batch size and another listener."""

    def with_listener(self, listener: PassListener) -> Self:
        """A reader of the same rows whose passes another listener hears of; nothing is copied."""
        return self._remade(self._batch_size, listener)

    @property
    def batch_size(self) -> int:
        """Number of rows per batch, at most."""
        return self._batch_size

    @property
    def listener(self) -> PassListener:
        """Who is told of every pass."""
        return self._listener

    @property
    def is_stream(self) -> bool:
        """The rows are those of a dataset, which is read again in every pass."""
        return isinstance(self._rows, Stream)

    def _parts(self) -> Iterator[PartT]:
        """Checked arrays of all rows, or of one element of a dataset after the other."""
        if not isinstance(self._rows, Stream):
            yield self._rows
            return
        n_elements, n_rows = 0, 0
        elements = self._elements(self._rows)
        while (element := next_element(elements, n_elements, n_rows)) is not None:
            x, *beside = element
            nest = self._rows.nest(x)
            yield self._checked(nest, *beside, first_row=n_rows)
            n_elements += 1
            n_rows += n_rows_of(nest)

    def _arrays(self) -> Iterator[BatchT]:
        """Arrays that are about to be cut into batches, one part after the other."""
        return map(self._as_batch, self._parts())

    def _batches(self) -> Iterator[BatchT]:
        """Tensors of one batch after the other, in order, the last partial one included."""
        listener, n_batches, n_rows = self._listener, 0, 0
        listener.on_fetch()
        for arrays in self._arrays():
            listener.on_rows(n_rows + n_rows_of(arrays))
            for batch in cut(arrays, self._batch_size):
                tensors = tf.nest.map_structure(tf.constant, batch)
                listener.on_fetched()
                place = Place(n_batches, n_rows, n_rows_of(batch))
                listener.on_given(place)
                yield tensors
                listener.on_given(None)
                listener.on_fetch()
                n_batches += 1
                n_rows += place.n_rows
                listener.on_batch(place.n_rows)
        listener.on_fetched()


def cut(nest: Any, batch_size: int) -> Iterator[Any]:
    """Even pieces of at most so many rows of a nest of arrays `[N, ...]`."""
    n_rows = n_rows_of(nest)
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
        if sum(map(n_rows_of, taken)) >= n:
            break
    if not taken:
        raise empty_error("no batch")
    return tf.nest.map_structure(lambda *leaves: np.concatenate(leaves)[:n], *taken)


def n_rows_of(nest: Any) -> int:
    """The length of the first axis of the first leaf of a nest of arrays or tensors."""
    return int(tf.nest.flatten(nest)[0].shape[0])


def check_batch_size(batch_size: Any) -> int:
    """A positive whole number, or `InvalidInputError`."""
    or_else = ", or None to choose it from the model's size"
    return check_count("batch_size", batch_size, or_else=or_else)


def _row_shapes(nest: Any) -> list[tuple[int, ...]]:
    return [leaf.shape[1:] for leaf in tf.nest.flatten(nest)]
