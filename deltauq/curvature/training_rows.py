"""The rows of all training examples R `[n, P]`, held in the form in which they are cheapest.

A = R^T R / N is then known to the last digit that rows have, and so is the small G = R R^T `[n, n]`
that has the same eigenvalues. A dense layer's rows are outer products a (x) delta, which are held
as they are: inner products of them take (a . a') (delta . delta') and no rows at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature.gram import Gram
from deltauq.curvature.held_rows import FormedRows, HeldFactors, HeldRows, slices
from deltauq.curvature.row_layout import Columns, row_layout, row_work
from deltauq.curvature.stages import multiplying, reading
from deltauq.data.batches import Batches
from deltauq.errors import InvalidInputError, NumericalError
from deltauq.network.jacobians import Factor, Workspace, outer_products
from deltauq.runtime.stages import Stage
from deltauq.runtime.threads import side_by_side

__all__ = ["TrainingRows"]

Array = npt.NDArray[Any]

#: Rows of a diagonal block of G that is made symmetric at a time.
_BLOCK = 512

#: Rows of G, at most, that are formed in one step.
_STRIPE = 2048

#: How far marks of an example may differ from pass to pass, beside the largest of all.
_SAME = 1e-4


class TrainingRows:
    """The rows of all training examples, as products with them are wanted.

    What fits in memory is held after the first pass over the data; of more, some columns at a time
    are formed again in a pass whenever they are needed.

    Args:
        operator: whose rows they are; its scale is in them.
        room: bytes that formed rows may take at a time.

    Attributes:
        n_rows: n.
        passes: over the data so far.

    Raises:
        MemoryLimitError: there is not even room for a hundredth of the rows.
        InvalidInputError: in a pass, a dataset in another order where the rows do not fit at once.
    """

    def __init__(self, operator: Gram, room: int) -> None:
        self._operator = operator
        factors = next(operator.row_factors())
        self._n_examples, self._each = operator.data.n_rows, factors[0].shape[1]
        itemsize = np.dtype(operator.network.dtype).itemsize
        self._work = row_work(factors, self._n_examples)
        self._reading = reading(self._n_examples, self._work.held)
        self._layout = row_layout(factors, self._n_examples, itemsize, room)
        self._marks: Array | None = None
        # What is held from the first pass on, and what passes are still to copy and to form.
        self._held: list[HeldRows] = []
        self._to_copy = self._layout.as_factors
        self._to_form = self._layout.groups or [[]]
        self.n_rows = self._n_examples * self._each
        self.passes = 0

    @property
    def n_params(self) -> int:
        """Number P of columns of the rows."""
        return int(self._operator.shape[0])

    @property
    def data(self) -> Batches:
        """The examples whose rows they are, in the order of the rows."""
        return self._operator.data

    @property
    def dtype(self) -> str:
        """Precision of the rows."""
        return self._operator.network.dtype

    def stages(self, dtype: str) -> list[Stage]:
        """The stages of `gram` as it stands, one after the other."""
        held, each = int(bool(self._held)), self._multiplying(dtype)
        return [each] * held + [self._reading, each] * len(self._to_form)

    def _multiplying(self, dtype: str) -> Stage:
        groups = int(bool(self._held)) + len(self._to_form)
        return multiplying(self.n_rows, self._work.inner / groups, dtype)

    def gram(self, dtype: Any) -> Array:
        """Form G = R R^T `[n, n]`, float64, symmetric to the bit.

        Args:
            dtype: precision of the products, whose sums are float64.

        Raises:
            NumericalError: a row is not finite.
        """
        total, multiplies = np.zeros((self.n_rows, self.n_rows)), self._multiplying(dtype)
        probe = np.random.default_rng(0).standard_normal((self.n_params, 1)).astype(self.dtype)
        stages = self.data.listener.stages
        for number, held in enumerate(self._together(lambda: stages.begin(self._reading))):
            stages.begin(multiplies)
            image = np.zeros((self.n_rows, 1))
            for part in held:
                part.add_product(probe, image)
            self._add_gram(total, dtype, held, f"part {number}", image)
        for here in slices(len(total), _BLOCK):
            below = np.tril(total[here, here])
            total[here, here] = below + np.tril(below, -1).T
            total[: here.start, here] = total[here, : here.start].T
        finite = np.isfinite(np.diag(total))
        if not np.all(finite):
            raise NumericalError(
                "the rows of the training data are not finite",
                expected="gradients of the logits and of the loss that are finite, and squares of "
                "them that the model's precision holds",
                received=f"{np.count_nonzero(~finite)} that are not; first at row "
                f"{np.argmin(finite) // self._each} of the data (counted from 0)",
                remedy="scale the inputs or the labels, or build the model in float64",
            )
        return total

    def _add_gram(
        self, total: Array, dtype: Any, held: Sequence[HeldRows], what: str, image: Array
    ) -> None:
        """Add inner products of rows of some columns, in steps that are told by an image of them.

        The image is another one where the rows come in another order, or from another processor.
        """
        step, stages = max(1, _STRIPE // self._each) * self._each, self.data.listener.stages
        for here in slices(len(total), step):

            def add_up(here: slice = here) -> None:
                for part in held:
                    part.add_gram(total, dtype, here)

            name = f"inner products in {dtype}, {what}, rows from {here.start}"
            rows = total[here, : here.stop]
            is_new = self._operator.steps.kept(name, (image,), (rows,), add_up)
            tell = stages.advance if is_new else stages.recall
            tell(len(rows) * (here.start + (len(rows) + 1) / 2))

    def product(self, columns: Array) -> Array:
        """Multiply columns V `[P, m]` by R, in their precision and summed in float64, `[n, m]`."""
        total = np.zeros((self.n_rows, columns.shape[1]))
        for part in self._parts():
            part.add_product(columns, total)
        return total

    def transposed(self, coefficients: Array) -> Array:
        """Multiply Y `[n, m]` by R^T, in its precision and summed in float64, `[P, m]`."""
        total = np.zeros((self.n_params, coefficients.shape[1]))
        for part in self._parts():
            part.add_transposed(coefficients, total)
        return total

    def _parts(self) -> Iterator[HeldRows]:
        """Rows of some columns after the other; formed ones hold until the next are asked for."""
        for held in self._together():
            yield from held

    def _together(
        self, before_a_pass: Callable[[], object] = lambda: None
    ) -> Iterator[Sequence[HeldRows]]:
        """Rows of some columns after the other, all that are in memory at a time together."""
        memory = Workspace(self.dtype)
        if self._held:
            yield self._held
        for group in self._to_form:
            before_a_pass()
            copied, formed = self._read(self._to_copy, group, memory)
            self._held, self._to_copy = [*self._held, *copied], []
            if len(self._layout.groups) <= 1:  # they all fit
                self._held, self._to_form = [*self._held, *formed], []
            yield [*copied, *formed]

    def _read(
        self, as_factors: Sequence[int], group: Sequence[Columns], memory: Workspace
    ) -> tuple[list[HeldFactors], list[FormedRows]]:
        """The rows of some columns from a pass over the data, as factors and as they are formed."""
        places = [self._place(some.variable, some.place) for some in group]
        widths = [place.stop - place.start for place in places]
        matrix = memory.take(self._n_examples, self._each, sum(widths))
        held: list[HeldFactors] = []
        marks: list[Array] = []
        stop = 0
        for factors in self._operator.row_factors():
            start, stop = stop, stop + factors[0].shape[0]
            if not held:
                held = [self._empty(factors[i], self._place(i)) for i in as_factors]
            for into, i in zip(held, as_factors, strict=True):
                self._copy(factors[i], into, slice(start, stop))
            if group:
                here = matrix[start:stop]
                parts = np.split(here, np.cumsum(widths)[:-1], axis=2)
                side_by_side(partial(_form, factors), group, parts)
                self._rescale(here, places)
            if self._may_be_shuffled:
                marks.append(_mark(factors))
        if marks:
            self._check_order(np.concatenate(marks))
        self.passes += 1
        flat = matrix.reshape(self.n_rows, -1)
        return held, [FormedRows(flat, places)] if group else []

    @property
    def _may_be_shuffled(self) -> bool:
        """Whether rows that belong together come from passes that may have them in any order."""
        return self._operator.data.is_stream and len(self._layout.groups) > 1

    def _check_order(self, marks: Array) -> None:
        """Refuse a pass whose examples are not in the order of the first one."""
        if self._marks is None or not np.all(np.isfinite(self._marks)):  # as `gram` will say
            self._marks = marks
        elif not np.all(np.abs(marks - self._marks) <= _SAME * np.max(np.abs(self._marks))):
            raise InvalidInputError(
                "the dataset yields its examples in another order in every pass",
                expected="one order: the rows do not fit in memory at once, and are formed some "
                "columns at a time",
                received=f"{len(marks):,} examples in another order than in the first pass",
                remedy="leave .shuffle(...) out of the dataset, or pass route='sketch'",
            )

    def _place(self, i: int, some: slice = slice(None)) -> slice:
        """Where some columns of a variable are among all parameters."""
        parameter = self._operator.network.parameters[i]
        start, stop, _ = some.indices(parameter.stop - parameter.start)
        return slice(parameter.start + start, parameter.start + stop)

    def _empty(self, factor: Factor, place: slice) -> HeldFactors:
        """Memory for the factors of all examples."""
        products = outer_products(factor)
        assert products is not None
        _, positions, n_outputs = products.deltas[0].shape
        a = np.empty((self._n_examples, *products.a.shape[1:]), products.a.dtype)
        shape = (self._n_examples, self._each, positions, n_outputs)
        return HeldFactors(a, np.empty(shape, a.dtype), place)

    def _copy(self, factor: Factor, into: HeldFactors, some: slice) -> None:
        """The factors of some examples, the scale of the variable put to one of them."""
        products = outer_products(factor)
        assert products is not None
        into.a[some] = products.a
        rate = self._operator.uneven_scale
        for r, delta in enumerate(products.deltas):
            unit = 1.0 if rate is None else rate[into.place.start]
            np.multiply(delta, unit, out=into.delta[some, r])

    def _rescale(self, rows: Array, places: Sequence[slice]) -> None:
        """Multiply rows of variables side by side by the operator's scale."""
        scale = self._operator.uneven_scale
        if scale is not None:
            rows *= np.concatenate([scale[place] for place in places])


def _mark(factors: Sequence[Factor]) -> Array:
    """A number for each example of a batch, of its rows of the smallest variable, `[B]`."""
    smallest = min(factors, key=lambda factor: factor.shape[2])
    rows = np.empty(smallest.shape)
    smallest.rows(rows)
    flat = rows.reshape(len(rows), -1)
    return np.asarray(flat @ np.arange(1.0, flat.shape[1] + 1))


def _form(factors: Sequence[Factor], some: Columns, out: Array) -> None:
    """Write some columns of the rows of a variable into `[B, R, columns]`."""
    factor = factors[some.variable]
    if factor.shape[2] == out.shape[2]:
        factor.rows(out)
    else:
        rows = np.empty(factor.shape, out.dtype)
        factor.rows(rows)
        out[:] = rows[:, :, some.place]
