"""Data as batches that can be read again and again: the true N, the weights, and every last row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.data.arrays import ArrayInputs, column_names
from deltauq.data.batch_reader import (
    BatchReader,
    PassListener,
    check_batch_size,
    cut,
    first_rows,
)
from deltauq.data.checksums import alike as _alike
from deltauq.data.examples import (
    Batch,
    ExampleForm,
    Facts,
    Part,
    known_again,
    measure,
    spec_of,
    weighted_rows,
)
from deltauq.data.inputs import InputForm
from deltauq.data.streams import Stream
from deltauq.data.training import TrainingData
from deltauq.data.weights import Reading, Weighting, WeightKind, Weights, class_factors
from deltauq.errors import check_choice
from deltauq.likelihoods import Likelihood
from deltauq.runtime.faults import Place

__all__ = ["Batch", "Batches", "Part", "spec_of"]


class Batches(BatchReader[Part, Batch]):
    """A fixed training set, re-iterable, with the sums that averages must be divided by.

    Nothing of it can be set; `with_listener` gives the same data that tell of their passes, and
    `sampled` the same data of which a pass gives a share, `apart` some of the rows.

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
        mask: as it was given.
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
        form = ExampleForm(
            InputForm(dtype),
            lambda labels: likelihood.check_labels(labels, n_outputs),
            class_factors(class_weight, n_outputs // likelihood.positions),
            likelihood.observed_axes,
            likelihood.positions,
            check_batch_size(batch_size),
            mask,
        )
        source = form.inputs.source(TrainingData(x, y, sample_weight, class_weight).x)
        rows = source if isinstance(source, Stream) else form.part(source.nest, y, sample_weight)
        self._consist_of(form, rows, column_names(x), PassListener())
        self._facts = measure(self._parts(), weights, form, sums=self.is_stream)

    def _consist_of(
        self,
        form: ExampleForm,
        rows: Stream | Part,
        columns: tuple[Any, ...] | None,
        listener: PassListener,
    ) -> None:
        super().__init__(rows, form.batch_size, listener)
        self._form = form
        self._columns = columns
        self._drawn: _Drawn | None = None

    def __iter__(self) -> Iterator[Batch]:
        """The batches, in order, the last partial one included.

        Raises:
            InvalidInputError: a dataset that does not yield in this pass what it first yielded.
        """
        return self._batches()

    @property
    def mask(self) -> Callable[[Any], npt.NDArray[np.bool_]] | None:
        """Function of inputs that says which of their predictions count; None where all do."""
        return self._form.mask

    @property
    def columns(self) -> tuple[Any, ...] | None:
        """Columns of the pandas frame that x was; None for other inputs."""
        return self._columns

    @property
    def spec(self) -> Batch:
        """`tf.TensorSpec`s of a batch with a free first axis, for one trace per kernel."""
        return self._facts.spec

    @property
    def weighting(self) -> Weighting:
        """What the weights were taken for."""
        return self._facts.weighting

    @property
    def reading(self) -> Reading:
        """What sample weights are read as, if there are any."""
        return self._facts.reading

    @property
    def n_rows(self) -> int:
        """Number of rows, whatever their weight."""
        return self._facts.n_rows

    @property
    def n_weighted(self) -> int:
        """Number of rows that have a positive weight."""
        return self._facts.n_weighted

    @property
    def n_masked(self) -> int:
        """Number of predictions that the mask takes out."""
        return self._facts.n_masked

    @property
    def n_predictions(self) -> int:
        """Number of predictions of all rows that the mask leaves in, whatever their weight."""
        return self._facts.n_predictions

    @property
    def n_examples(self) -> float:
        """Number N of examples, the sum of their counts."""
        return self._facts.n_examples

    @property
    def total_weight(self) -> float:
        """The sum of the weights as they were given."""
        return self._facts.total_weight

    @cached_property
    def sums(self) -> npt.NDArray[np.float64]:
        """Checksums of the data by which they can be known again, whatever their order.

        Those of arrays are taken when they are asked for, batch by batch: float64 takes memory.
        """
        if self._facts.sums is not None:
            return self._facts.sums
        pieces = (piece for part in super()._arrays() for piece in cut(part, self._batch_size))
        return np.asarray(sum(map(self._form.sums_of, pieces)))

    def as_given(self) -> TrainingData | None:
        """The data as arrays, checked, of which the same training set can be made again.

        With `weights` as `reading` says. None of a dataset, which is not held in memory.
        """
        if isinstance(self._rows, Stream):
            return None
        x, y, weights, _ = self._rows
        classes = self._form.class_factors
        return TrainingData(
            ArrayInputs(x, self._columns),
            y,
            weights.as_given if weights.given else None,
            None if classes is None else dict(enumerate(classes.tolist())),
        )

    def has(self, sums: npt.NDArray[np.float64]) -> bool:
        """Whether sums, of an artifact or of another pass, are those of these data."""
        return _alike(sums, self.sums, whole_labels=self.spec.y.dtype.is_integer)

    def head(self, n: int) -> Any:
        """Arrays of the first rows' inputs, at most n."""
        return first_rows((part.x for part in self._parts()), n)

    def spread(self, n: int) -> Batch:
        """Arrays of n rows of positive weight at even distances, or of all; a pass over the data.

        Not of the first ones: data may come sorted.
        """
        chosen = self.spread_numbers(n)
        return _joined([_rows(*found) for found in _numbered(self._of_all(), chosen)])

    def spread_numbers(self, n: int) -> npt.NDArray[np.int64]:
        """Numbers, among the rows of positive weight, of those that `spread` gives."""
        return np.linspace(0, self.n_weighted - 1, min(n, self.n_weighted)).astype(np.int64)

    def apart(self, n: int) -> tuple[Batches, Batches]:
        """All rows but those of `spread`, and those, as training sets like this one.

        N and all else that they say of themselves is of all rows, so that sums over the one and
        over the other are together the sum over all. Those of `spread` are held in memory. Of
        arrays only: a dataset may have another order in the next pass.
        """
        assert not self.is_stream, "callers look before they hold rows out"
        numbers = self.spread_numbers(n)
        others = np.setdiff1d(np.arange(self.n_weighted), numbers, assume_unique=True)
        return self._of_rows(_Drawn(others, 1.0)), self._holding(self.spread(n))

    def pieces(self, n_rows: int) -> Iterator[tuple[Place, Batches]]:
        """Training sets of at most so many rows, of the same N, and where those stand in a pass."""
        number, first_row = 0, 0
        for arrays in self._arrays():
            for piece in map(Batch._make, cut(tuple(arrays), n_rows)):
                yield Place(number, first_row, len(piece.y)), self._holding(piece)
                number, first_row = number + 1, first_row + len(piece.y)

    def _holding(self, rows: Batch) -> Batches:
        """Some rows, held in memory, that say of themselves what all say but for their number."""
        part = Part(rows.x, rows.y, Weights(rows.count, rows.importance))
        form, facts = replace(self._form, mask=None), replace(self._facts, reading="counts")
        return Batches._of(form, part, self._columns, PassListener(), facts)

    def sample(self, n: int, batch_size: int = 64) -> Batches:
        """The rows of `spread` as a training set of their own, with the same weights."""
        x, y, count, importance = self.spread(n)
        form = replace(self._form, batch_size=batch_size, mask=None)
        rows = Part(x, y, Weights(count, importance))
        facts = measure([rows], "counts", form, sums=False)
        return Batches._of(form, rows, self._columns, PassListener(), facts)

    def sampled(self, share: float, seed: Any) -> Batches:
        """Training set like this one, a pass over which gives a random share of the rows for all.

        They are drawn without replacement among those of positive weight, by their numbers in the
        pass, and the same ones in every pass. Each counts for those that are not: its count is
        divided by the share, so that a sum over a pass estimates the sum over all rows without
        bias. N and all else that the data say of themselves is of all rows. A dataset is read to
        its end and checked as in every pass.

        Args:
            share: of the rows, above 0 and at most 1; there is one row at least.
            seed: of the draw, as `numpy.random.default_rng` takes it.
        """
        drawn = self._drawn or _Drawn(np.arange(self.n_weighted), 1.0)
        count = max(1, round(share * len(drawn.numbers)))
        rng = np.random.default_rng(seed)
        places = np.sort(rng.choice(len(drawn.numbers), count, replace=False, shuffle=False))
        each = drawn.each * len(drawn.numbers) / count
        return self._of_rows(_Drawn(drawn.numbers[places], each))

    @property
    def n_given(self) -> int:
        """Number of rows of positive weight that a pass gives: fewer where some were chosen."""
        return self.n_weighted if self._drawn is None else len(self._drawn.numbers)

    def _of_rows(self, drawn: _Drawn) -> Batches:
        made = self._remade(self._batch_size, self._listener)
        made._drawn = drawn
        return made

    def _remade(self, batch_size: int, listener: PassListener) -> Batches:
        form = replace(self._form, batch_size=batch_size)
        made = Batches._of(form, self._rows, self._columns, listener, self._facts)
        made._drawn = self._drawn
        return made

    @classmethod
    def _of(
        cls,
        form: ExampleForm,
        rows: Stream | Part,
        columns: tuple[Any, ...] | None,
        listener: PassListener,
        facts: Facts,
    ) -> Batches:
        """A training set of rows that were checked and measured before."""
        made = cls.__new__(cls)
        made._consist_of(form, rows, columns, listener)
        made._facts = facts
        return made

    def _elements(self, stream: Stream) -> Iterator[tuple[Any, ...]]:
        return stream.examples(self._batch_size)

    def _checked(self, x: Any, *beside: Any, first_row: int) -> Part:
        return self._form.part(x, *beside, first_row=first_row)

    def _as_batch(self, part: Part) -> Batch:
        return part.read_as(self._facts.reading)

    def _arrays(self) -> Iterator[Batch]:
        parts = self._of_all()
        return parts if self._drawn is None else self._of_drawn(parts, self._drawn)

    def _of_all(self) -> Iterator[Batch]:
        """The parts of all rows; those of a dataset are held against what they were."""
        parts = super()._arrays()
        return known_again(parts, self._form, self._facts) if self.is_stream else parts

    def _of_drawn(self, parts: Iterable[Batch], drawn: _Drawn) -> Iterator[Batch]:
        """The rows that were drawn, as many at a time as a batch has, each counted for others."""
        held: list[Batch] = []
        room = self._batch_size
        for part, places in _numbered(parts, drawn.numbers):
            while len(places):
                some, places = places[:room], places[room:]
                held.append(_rows(part, some))
                room -= len(some)
                if not room:
                    yield _counted(_joined(held), drawn.each)
                    held, room = [], self._batch_size
        if held:
            yield _counted(_joined(held), drawn.each)


class _Drawn(NamedTuple):
    """Rows that a pass gives: their numbers, ascending, and how often each counts."""

    numbers: npt.NDArray[np.int64]
    each: float


def _numbered(
    parts: Iterable[Batch], numbers: npt.NDArray[np.int64]
) -> Iterator[tuple[Batch, npt.NDArray[np.intp]]]:
    """Each part, and the places in it of rows that have some numbers among those of weight.

    Args:
        parts: arrays of all rows, one part after the other.
        numbers: ascending; the first row of positive weight is number 0.
    """
    seen = 0
    for part in parts:
        weighted = weighted_rows(part)
        first, last = np.searchsorted(numbers, [seen, seen + len(weighted)])
        yield part, weighted[numbers[first:last] - seen]
        seen += len(weighted)


def _rows(part: Batch, places: npt.NDArray[np.intp]) -> Batch:
    """A copy of some rows of a part."""
    return Batch(*tf.nest.map_structure(lambda leaf: leaf[places], part))


def _joined(parts: list[Batch]) -> Batch:
    """The rows of several parts one after the other."""
    return Batch(*tf.nest.map_structure(lambda *leaves: np.concatenate(leaves), *parts))


def _counted(batch: Batch, each: float) -> Batch:
    """Rows that count so many times as often."""
    if each == 1.0:
        return batch
    return batch._replace(count=batch.count * batch.count.dtype.type(each))
