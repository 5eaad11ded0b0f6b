"""The rows of all training examples R `[n, P]`, held in the form in which they are cheapest.

A = R^T R / N is then known to the last digit that rows have, and so is the small G = R R^T `[n, n]`
that has the same eigenvalues. A dense layer's rows are outer products a (x) delta, which are held
as they are: inner products of them take (a . a') (delta . delta') and no rows at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from deltauq.curvature.gram import Gram
from deltauq.errors import MemoryLimitError, NumericalError
from deltauq.network.jacobians import (
    Factor,
    OuterProducts,
    Workspace,
    assemble,
    outer_products,
)
from deltauq.runtime.memory import gib

__all__ = [
    "FormedRows",
    "HeldFactors",
    "HeldRows",
    "RowLayout",
    "TrainingRows",
    "row_layout",
    "row_work",
]

Array = npt.NDArray[Any]

#: Columns of rows that are multiplied at a time, and terms of a sum over rows: sums of more are
#: added up in float64. One float32 product over all of 42,000 columns is 20 times less exact.
_COLUMNS, _TERMS = 8192, 4096

#: Rows and columns of a block of G: large enough for products near the processor's peak.
_BLOCK = 2048

#: Numbers of a block of intermediate products of factors.
_NUMBERS = 2**23


class HeldRows(Protocol):
    """Rows `[n, size]` of some of the parameters, of all training examples."""

    def add_gram(self, total: Array, dtype: Any) -> None:
        """Add R R^T to the lower blocks of a float64 `[n, n]`, products in a precision."""

    def add_product(self, columns: Array, total: Array) -> None:
        """Add R V to a float64 `[n, m]`, V `[P, m]` of all parameters, in V's precision."""

    def add_transposed(self, coefficients: Array, total: Array) -> None:
        """Add R^T Y to the part of these parameters, `[P, m]`, in the precision of Y `[n, m]`."""


class FormedRows(NamedTuple):
    """Rows that were formed, of variables side by side.

    Attributes:
        matrix: `[n, size]`.
        places: of the variables among all parameters, in the order of the columns.
    """

    matrix: Array
    places: Sequence[slice]

    def add_gram(self, total: Array, dtype: Any) -> None:
        """Add products of blocks of rows, summed over blocks of columns in float64."""
        wider = np.dtype(dtype).itemsize // self.matrix.itemsize
        for columns in _slices(self.matrix.shape[1], _COLUMNS // wider):
            block = self.matrix[:, columns].astype(dtype, copy=False)
            for here in _slices(len(total), _BLOCK):
                for there in _slices(here.stop, _BLOCK):
                    total[here, there] += block[here] @ block[there].T

    def add_product(self, columns: Array, total: Array) -> None:
        """Add products with blocks of columns."""
        chosen = np.concatenate([columns[place] for place in self.places])
        for some in _slices(self.matrix.shape[1], _COLUMNS):
            for rows in _slices(len(total), _TERMS):
                block = self.matrix[rows, some].astype(columns.dtype, copy=False)
                total[rows] += block @ chosen[some]

    def add_transposed(self, coefficients: Array, total: Array) -> None:
        """Add products with blocks of rows."""
        start = 0
        for place in self.places:
            for some in _slices(place.stop - place.start, _COLUMNS):
                here = total[place.start + some.start : place.start + some.stop]
                for rows in _slices(len(coefficients), _TERMS):
                    block = self.matrix[rows, start + some.start : start + some.stop]
                    here += block.T.astype(coefficients.dtype, copy=False) @ coefficients[rows]
            start += place.stop - place.start


class HeldFactors(NamedTuple):
    """Rows of a variable `[I, O]` as their factors, row r of an example sum_t a_t (x) delta_rt.

    Attributes:
        a: `[N, T, I]`.
        delta: `[N, R, T, O]`.
        place: of the variable among all parameters.
    """

    a: Array
    delta: Array
    place: slice

    def add_gram(self, total: Array, dtype: Any) -> None:
        """Add sum_ts (a_t . a'_s) (delta_t . delta'_s) for blocks of examples."""
        n_examples, n_rows, positions, _ = self.delta.shape
        step = max(1, min(_BLOCK // n_rows, int(_NUMBERS**0.5) // (n_rows * positions)))
        for here in _slices(n_examples, step):
            a, delta = self._flat(here, dtype)
            for there in _slices(here.stop, step):
                b, eta = self._flat(there, dtype)
                of_data = (a @ b.T).reshape(-1, positions, len(b) // positions, positions)
                of_cotangents = (delta @ eta.T).reshape(
                    of_data.shape[0], n_rows, positions, of_data.shape[2], n_rows, positions
                )
                if positions == 1:
                    block = of_cotangents[:, :, 0, :, :, 0] * of_data[:, None, 0, :, None, 0]
                else:
                    block = np.einsum("itjs,irtjqs->irjq", of_data, of_cotangents)
                place = (_times(here, n_rows), _times(there, n_rows))
                total[place] += block.reshape(block.shape[0] * n_rows, -1)

    def _flat(self, some: slice, dtype: Any) -> tuple[Array, Array]:
        """The factors of some examples, `[B T, I]` and `[B R T, O]`."""
        a, delta = self.a[some], self.delta[some]
        flat = (a.reshape(-1, a.shape[-1]), delta.reshape(-1, delta.shape[-1]))
        return flat[0].astype(dtype, copy=False), flat[1].astype(dtype, copy=False)

    def add_product(self, columns: Array, total: Array) -> None:
        """Add sum_t delta_rt^T (a_t^T V), some examples at a time."""
        n_inputs, n_rows = self.a.shape[2], self.delta.shape[1]
        wide = columns[self.place].reshape(n_inputs, -1)
        for some in self._chunks(wide.shape[1]):
            a, delta = self._flat(some, columns.dtype)
            n_examples = some.stop - some.start
            image = (a @ wide).reshape(n_examples, -1, columns.shape[1])
            found = delta.reshape(n_examples, n_rows, -1) @ image
            total[_times(some, n_rows)] += found.reshape(-1, columns.shape[1])

    def add_transposed(self, coefficients: Array, total: Array) -> None:
        """Add sum_t a_t (x) (sum_r y_r delta_rt), some examples at a time."""
        n_rows, width = self.delta.shape[1], coefficients.shape[1]
        here = total[self.place].reshape(self.a.shape[2], -1)
        for some in self._chunks(self.delta.shape[3] * width):
            a, delta = self._flat(some, coefficients.dtype)
            n_examples = some.stop - some.start
            y = coefficients[_times(some, n_rows)].reshape(n_examples, n_rows, width)
            of_cotangents = np.swapaxes(delta.reshape(n_examples, n_rows, -1), 1, 2) @ y
            here += a.T @ of_cotangents.reshape(len(a), -1)

    def _chunks(self, width: int) -> Iterator[slice]:
        """Slices of examples whose intermediate products `[B, T, width]` stay small."""
        step = max(1, _NUMBERS // (self.a.shape[1] * width))
        return _slices(len(self.a), min(step, max(1, _TERMS // self.a.shape[1])))


class RowLayout(NamedTuple):
    """How the rows of each variable are held.

    Attributes:
        as_factors: variables whose rows are held as their factors.
        groups: of the others, those whose rows are formed in one pass.
    """

    as_factors: Sequence[int]
    groups: Sequence[Sequence[int]]


class RowWork(NamedTuple):
    """What inner products of rows take.

    Attributes:
        n_rows: n.
        inner: multiplications of an inner product of two.
        held: numbers that all rows are, formed or as their factors.
    """

    n_rows: int
    inner: int
    held: int


def row_work(factors: Sequence[Factor], n_examples: int) -> RowWork:
    """What inner products of all rows take, from the factors of a batch."""
    each, inner, held = factors[0].shape[1], 0, 0
    for factor in factors:
        products = _cheaper_products(factor)
        if products is None:
            inner += factor.shape[2]
            held += each * factor.shape[2]
        else:
            positions, n_inputs = products.a.shape[1:]
            n_outputs = products.deltas[0].shape[2]
            inner += positions**2 * (n_inputs + n_outputs)
            held += positions * (n_inputs + each * n_outputs)
    return RowWork(n_examples * each, inner, n_examples * held)


def _cheaper_products(factor: Factor) -> OuterProducts | None:
    """Rows as outer products, where inner products of them take fewer multiplications so.

    That is T^2 (I + O) by their factors, and I O without them.
    """
    products = outer_products(factor)
    if products is None:
        return None
    positions, n_inputs = products.a.shape[1:]
    n_outputs = products.deltas[0].shape[2]
    cheaper = positions**2 * (n_inputs + n_outputs) < n_inputs * n_outputs
    return products if cheaper else None


def row_layout(factors: Sequence[Factor], n_examples: int, itemsize: int, room: int) -> RowLayout:
    """Choose how the rows of each variable are held.

    Args:
        factors: of a batch, variable by variable.
        n_examples: of all the data.
        itemsize: bytes of a number.
        room: bytes that formed rows may take at a time.

    Raises:
        MemoryLimitError: the rows of one variable take more.
    """
    as_factors: list[int] = []
    groups: list[list[int]] = []
    left = 0
    for i, factor in enumerate(factors):
        if _cheaper_products(factor) is not None:
            as_factors.append(i)
            continue
        size = n_examples * factor.shape[1] * factor.shape[2] * itemsize
        if size > room:
            raise MemoryLimitError(
                "the rows of one variable do not fit in memory",
                expected=f"at most {gib(room)}, what the limit or the machine leaves for them",
                received=f"{gib(size)} for {n_examples:,} examples and {factor.shape[2]:,} "
                "parameters",
                remedy="pass route='sketch', or a larger memory_limit",
            )
        if not groups or size > left:
            groups.append([])
            left = room
        groups[-1].append(i)
        left -= size
    return RowLayout(as_factors, groups)


class TrainingRows:
    """The rows of all training examples, as products with them are wanted.

    What fits in memory is held after the first pass over the data; of more, the rows of some
    variables at a time are formed again in a pass whenever they are needed.

    Args:
        operator: whose rows they are; its scale is in them.
        room: bytes that formed rows may take at a time.

    Attributes:
        n_rows: n.
        passes: over the data so far.

    Raises:
        MemoryLimitError: the rows of one variable take more than there is room for.
    """

    def __init__(self, operator: Gram, room: int) -> None:
        self._operator = operator
        factors = next(operator.row_factors())
        self._each = factors[0].shape[1]
        self._n_examples = operator.data.n_rows
        itemsize = np.dtype(operator.network.dtype).itemsize
        self._layout = row_layout(factors, self._n_examples, itemsize, room)
        self._factors: list[HeldFactors] | None = None
        self._formed: FormedRows | None = None
        self._workspace = Workspace(operator.network.dtype)
        self.n_rows = self._n_examples * self._each
        self.passes = 0

    @property
    def n_params(self) -> int:
        """Number P of columns."""
        return int(self._operator.shape[0])

    @property
    def dtype(self) -> str:
        """Precision of the rows."""
        return self._operator.network.dtype

    def gram(self, dtype: Any) -> Array:
        """Form G = R R^T `[n, n]`, float64, symmetric to the bit.

        Args:
            dtype: precision of the products, whose sums are float64.

        Raises:
            NumericalError: a row is not finite.
        """
        total: Array | None = None
        for part in self._parts():
            total = np.zeros((self.n_rows, self.n_rows)) if total is None else total
            part.add_gram(total, dtype)
        assert total is not None
        for here in _slices(len(total), _BLOCK):
            below = np.tril(total[here, here])
            total[here, here] = below + np.tril(below, -1).T
            total[: here.start, here] = total[here, : here.start].T
        if not np.all(np.isfinite(np.diag(total))):
            raise NumericalError(
                "the rows of the training data are not finite",
                expected="gradients of the logits and of the loss that are finite, and squares of "
                "them that the model's precision holds",
                received=f"{np.count_nonzero(~np.isfinite(np.diag(total)))} rows that are not",
                remedy="scale the inputs or the labels, or build the model in float64",
            )
        return total

    def product(self, columns: Array) -> Array:
        """R V `[n, m]` of columns `[P, m]`, in their precision and summed in float64."""
        total: Array | None = None
        for part in self._parts():
            total = np.zeros((self.n_rows, columns.shape[1])) if total is None else total
            part.add_product(columns, total)
        assert total is not None
        return total

    def transposed(self, coefficients: Array) -> Array:
        """R^T Y `[P, m]` of coefficients `[n, m]`, in their precision and summed in float64."""
        total = np.zeros((self.n_params, coefficients.shape[1]))
        for part in self._parts():
            part.add_transposed(coefficients, total)
        return total

    def _parts(self) -> Iterator[HeldRows]:
        """Rows of some variables after the other, each good until the next are asked for."""
        first, *others = self._layout.groups or [[]]
        formed = self._formed
        if self._factors is None:
            self._factors, formed = self._read(self._layout.as_factors, first)
        elif formed is None and first:
            _, formed = self._read([], first)
        if not others:
            self._formed = formed
        yield from self._factors
        if formed is not None:
            yield formed
        for group in others:
            _, formed = self._read([], group)
            assert formed is not None
            yield formed

    def _read(
        self, as_factors: Sequence[int], group: Sequence[int]
    ) -> tuple[list[HeldFactors], FormedRows | None]:
        """The rows of some variables from a pass over the data."""
        places = [self._place(i) for i in group]
        size = sum(place.stop - place.start for place in places)
        matrix = self._workspace.take(self._n_examples, self._each, size)
        held: list[HeldFactors] = []
        stop = 0
        for factors in self._operator.row_factors():
            start, stop = stop, stop + factors[0].shape[0]
            if not held:
                held = [self._empty(factors[i], self._place(i)) for i in as_factors]
            for into, i in zip(held, as_factors, strict=True):
                self._copy(factors[i], into, slice(start, stop))
            if group:
                assemble([factors[i] for i in group], matrix[start:stop])
                self._rescale(matrix[start:stop], places)
        self.passes += 1
        flat = matrix.reshape(self.n_rows, size)
        return held, FormedRows(flat, places) if group else None

    def _place(self, i: int) -> slice:
        parameter = self._operator.network.parameters[i]
        return slice(parameter.start, parameter.stop)

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


def _slices(size: int, step: int) -> Iterator[slice]:
    """Slices of at most `step` that go through `size` places."""
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _times(some: slice, count: int) -> slice:
    """A slice of examples as one of their rows, `count` each."""
    return slice(some.start * count, some.stop * count)
