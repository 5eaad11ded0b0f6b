"""The rows of all training examples R `[n, P]`, held in the form in which they are cheapest.

A = R^T R / N is then known to the last digit that rows have, and so is the small G = R R^T `[n, n]`
that has the same eigenvalues. A dense layer's rows are outer products a (x) delta, which are held
as they are: inner products of them take (a . a') (delta . delta') and no rows at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deltauq.curvature.gram import Gram
from deltauq.curvature.held_rows import FormedRows, HeldFactors, HeldRows, slices
from deltauq.errors import MemoryLimitError, NumericalError
from deltauq.network.jacobians import Factor, OuterProducts, assemble, outer_products
from deltauq.runtime.memory import gib

__all__ = ["RowLayout", "RowWork", "TrainingRows", "row_layout", "row_work"]

Array = npt.NDArray[Any]

#: Rows of a diagonal block of G that is made symmetric at a time.
_BLOCK = 2048


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

    Where those that are formed do not fit all at once, two groups of them are in memory while one
    gives way to the next.

    Args:
        factors: of a batch, variable by variable.
        n_examples: of all the data.
        itemsize: bytes of a number.
        room: bytes that formed rows may take at a time.

    Raises:
        MemoryLimitError: the rows of one variable take more.
    """
    sizes = {
        i: n_examples * factor.shape[1] * factor.shape[2] * itemsize
        for i, factor in enumerate(factors)
        if _cheaper_products(factor) is None
    }
    as_factors = [i for i in range(len(factors)) if i not in sizes]
    if sum(sizes.values()) <= room:
        return RowLayout(as_factors, [list(sizes)] if sizes else [])
    groups: list[list[int]] = []
    left = 0
    for i, size in sizes.items():
        if 2 * size > room:
            raise MemoryLimitError(
                "the rows of one variable do not fit in memory",
                expected=f"at most {gib(room // 2)}, half of what the limit or the machine leaves",
                received=f"{gib(size)} for {n_examples:,} examples and {factors[i].shape[2]:,} "
                "parameters",
                remedy="pass route='sketch', or a larger memory_limit",
            )
        if size > left:
            groups.append([])
            left = room // 2
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
        self.n_rows = self._n_examples * self._each
        self.passes = 0

    @property
    def n_params(self) -> int:
        """Number P of columns of the rows."""
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
        for here in slices(len(total), _BLOCK):
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
        """Multiply columns V `[P, m]` by R, in their precision and summed in float64, `[n, m]`."""
        total: Array | None = None
        for part in self._parts():
            total = np.zeros((self.n_rows, columns.shape[1])) if total is None else total
            part.add_product(columns, total)
        assert total is not None
        return total

    def transposed(self, coefficients: Array) -> Array:
        """Multiply Y `[n, m]` by R^T, in its precision and summed in float64, `[P, m]`."""
        total = np.zeros((self.n_params, coefficients.shape[1]))
        for part in self._parts():
            part.add_transposed(coefficients, total)
        return total

    def _parts(self) -> Iterator[HeldRows]:
        """Rows of some variables after the other."""
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
        matrix = np.empty((self._n_examples, self._each, size), self.dtype)
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
