"""How the rows of all training examples are held, and what inner products of them take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from deltauq.errors import MemoryLimitError
from deltauq.network.jacobians import Factor, OuterProducts, outer_products
from deltauq.runtime.memory import gib

__all__ = ["Columns", "RowLayout", "RowWork", "row_layout", "row_work"]

#: Passes over the data, at most, in which rows that do not fit are formed.
_PASSES = 100


class Columns(NamedTuple):
    """Some columns of the rows of a variable.

    Attributes:
        variable: its number.
        place: of the columns among those of the variable.
    """

    variable: int
    place: slice


class RowLayout(NamedTuple):
    """How the rows of each variable are held.

    Attributes:
        as_factors: variables whose rows are held as their factors.
        groups: of the others, the columns that are formed in one pass.
    """

    as_factors: Sequence[int]
    groups: Sequence[Sequence[Columns]]


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

    Where those that are formed do not fit all at once, as many of their columns are as do.

    Args:
        factors: of a batch, variable by variable.
        n_examples: of all the data.
        itemsize: bytes of a number.
        room: bytes that formed rows may take at a time.

    Raises:
        MemoryLimitError: a hundredth of the columns takes more.
    """
    sizes = {
        i: factor.shape[2] for i, factor in enumerate(factors) if _cheaper_products(factor) is None
    }
    as_factors = [i for i in range(len(factors)) if i not in sizes]
    if not sizes:
        return RowLayout(as_factors, [])
    total, column = sum(sizes.values()), n_examples * factors[0].shape[1] * itemsize
    at_once = min(room // column, total)
    if at_once * _PASSES < total:
        raise MemoryLimitError(
            "the rows of the training data do not fit in memory",
            expected=f"room for a hundredth of them at least, {gib(-(-total // _PASSES) * column)}",
            received=f"{gib(room)} for {n_examples:,} examples and {total:,} parameters",
            remedy="pass route='sketch', or a larger memory_limit",
        )
    return RowLayout(as_factors, _groups(sizes, -(-total // -(-total // at_once))))


def _groups(sizes: Mapping[int, int], width: int) -> list[list[Columns]]:
    """Columns of some variables one after the other, in groups of a width."""
    groups: list[list[Columns]] = []
    left = 0
    for i, size in sizes.items():
        start = 0
        while start < size:
            if not left:
                groups.append([])
                left = width
            some = slice(start, min(size, start + left))
            groups[-1].append(Columns(i, some))
            start, left = some.stop, left - (some.stop - start)
    return groups
