"""The rows of one batch of examples, of which those of dense layers need not be formed.

All R rows of an example share what a dense layer reads, a `[I]`: products of a (x) delta_r with a
vector take I O + R O multiplications by these factors, and R I O by rows, which would also have to
be written and read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deltauq.curvature.held_rows import FormedRows, HeldFactors, HeldRows
from deltauq.network.jacobians import Factor, OuterProducts, Workspace, assemble, outer_products

__all__ = ["BatchRows", "Run", "batch_rows", "runs", "saves_products"]

Array = npt.NDArray[Any]


def saves_products(factors: Sequence[Factor]) -> bool:
    """Whether products with the rows of a batch take less work where some are not formed."""
    return any(_unformed(factor) is not None for factor in factors)


class BatchRows(NamedTuple):
    """The rows of a batch, of all parameters.

    Attributes:
        n_examples: B.
        n_rows: of all of them.
        parts: the rows of some parameters each.
    """

    n_examples: int
    n_rows: int
    parts: Sequence[HeldRows]

    def add_gram_product(self, vectors: Array, total: Array) -> None:
        """Add R^T (R V) to a total `[P, m]` in the precision of V."""
        image = np.zeros((self.n_rows, vectors.shape[1]), vectors.dtype)
        for part in self.parts:
            part.add_product(vectors, image)
        for part in self.parts:
            part.add_transposed(image, total)

    def squares(self) -> float:
        """Sum of the squares of all entries."""
        return sum(part.squares() for part in self.parts)

    @property
    def n_bytes(self) -> int:
        """Bytes of memory that all parts take together."""
        return sum(part.n_bytes for part in self.parts)


def batch_rows(factors: Sequence[Factor], scale: Array | None, memory: Workspace) -> BatchRows:
    """The rows of a batch; those that are formed, in one piece where variables are neighbours.

    Args:
        factors: of the batch, variable by variable.
        scale: `[P]`, by which rows are multiplied; None for one. The rows of a variable in which it
            is not one number are formed.
        memory: where rows are formed; they hold until it is used again.
    """
    n_examples, n_rows, _ = factors[0].shape
    found = runs(factors, scale, _unformed)
    formed = [run for run in found if run.products is None]
    sizes = [n_examples * n_rows * (run.place.stop - run.place.start) for run in formed]
    pieces = np.split(memory.take(sum(sizes)), np.cumsum(sizes))
    held: list[HeldRows] = []
    for run, piece in zip(formed, pieces, strict=False):  # the last piece is empty
        rows = piece.reshape(n_examples, n_rows, -1)
        assemble(run.factors, rows)
        if scale is not None:
            rows *= scale[run.place]
        held.append(FormedRows(rows.reshape(n_examples * n_rows, -1), [run.place]))
    for run in found:
        if run.products is not None:
            delta = np.stack(run.products.deltas, axis=1)
            if scale is not None:
                delta *= scale[run.place.start]
            held.append(HeldFactors(run.products.a, delta, run.place))
    return BatchRows(n_examples, n_examples * n_rows, held)


class Run(NamedTuple):
    """Neighbouring variables whose rows are formed, or a single one whose rows are not.

    Attributes:
        factors: of the variables.
        place: of them among all parameters.
        products: of the single one.
    """

    factors: list[Factor]
    place: slice
    products: OuterProducts | None = None


def runs(
    factors: Sequence[Factor],
    scale: Array | None,
    unformed: Callable[[Factor], OuterProducts | None],
) -> list[Run]:
    """Divide variables into those whose rows are formed, with their neighbours, and others.

    Args:
        factors: of a batch, variable by variable.
        scale: `[P]`, by which rows are multiplied; None for one. The rows of a variable in which it
            is not one number are formed.
        unformed: gives the outer products that the rows of a variable are left as; None for none.
    """
    stops = np.cumsum([factor.shape[2] for factor in factors])
    found: list[Run] = []
    for factor, stop in zip(factors, stops, strict=True):
        place = slice(int(stop) - factor.shape[2], int(stop))
        products = unformed(factor)
        if scale is not None and np.any(scale[place] != scale[place.start]):
            products = None
        if products is None and found and found[-1].products is None:
            before = found.pop()
            found.append(Run([*before.factors, factor], slice(before.place.start, place.stop)))
        else:
            found.append(Run([factor], place, products))
    return found


def _unformed(factor: Factor) -> OuterProducts | None:
    """The factors of a variable's rows, where products with vectors take less work by them."""
    products = outer_products(factor)
    return products if products is not None and products.saves_products else None
