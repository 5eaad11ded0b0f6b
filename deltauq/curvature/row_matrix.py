"""R^T R `[P, P]` of the rows of a batch, of which those of dense layers need not be formed.

All R rows of an example share what a dense layer reads, a `[I]`. The block of two such layers, with
rows a (x) delta_r and b (x) eta_r, is sum_n (a_n b_n^T) (x) S_n, where S_n = sum_r delta_nr
eta_nr^T: I J + R multiplications an example for each of the O Q products of deltas, and R I J by
rows. Rows that are formed are such with a = 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deltauq.curvature.batch_rows import Run, runs
from deltauq.curvature.held_rows import slices
from deltauq.network.jacobians import Factor, OuterProducts, outer_products, stacked

__all__ = ["add_matrix", "matrix_work", "saves_matrix"]

Array = npt.NDArray[Any]

#: Rows an example from which on a matrix takes much less work by what they share.
_LEAST_ROWS = 3

#: Numbers of intermediate arrays.
_NUMBERS = 2**23


class _Part(NamedTuple):
    """Rows of some parameters, row r of an example being a (x) delta_r, in float64.

    Attributes:
        a: `[B, I]`.
        delta: `[B, R, O]`.
        place: of the parameters among all.
    """

    a: Array
    delta: Array
    place: slice


def saves_matrix(factors: Sequence[Factor]) -> bool:
    """Whether R^T R of the rows of a batch takes less work where some are not formed."""
    return any(_shared(factor) is not None for factor in factors)


def matrix_work(factors: Sequence[Factor]) -> int:
    """Multiplications for each example of R^T R, from the factors of a batch."""
    n_rows = factors[0].shape[1]
    sizes = [
        (1 if run.products is None else run.products.a.shape[2], run.place.stop - run.place.start)
        for run in runs(factors, None, _shared)
    ]
    found = 0
    for n_inputs, size in sizes:
        for others, other in sizes:
            shared = n_inputs * others
            deltas = size * other // shared
            found += n_rows * deltas + (size * other if shared > 1 else 0)
    return found


def add_matrix(factors: Sequence[Factor], scale: Array | None, total: Array) -> None:
    """Add R^T R of a batch to a float64 total `[P, P]`, of which what is below the diagonal counts.

    Args:
        factors: of the batch, variable by variable.
        scale: `[P]`, by which rows are multiplied; None for one.
        total: is added to; of blocks of variables, those below the diagonal and on it.
    """
    for parts in _parts(factors, scale):
        for k, left in enumerate(parts):
            for right in parts[: k + 1]:
                _add_block(left, right, total[left.place, right.place])


def _parts(factors: Sequence[Factor], scale: Array | None) -> Iterator[list[_Part]]:
    """The rows of some examples of a batch at a time, in float64."""
    n_examples, n_rows, _ = factors[0].shape
    held = [_held(run, scale) for run in runs(factors, scale, _shared)]
    step = max(1, _NUMBERS // (n_rows * sum(delta.shape[2] for _, delta, _ in held)))
    for some in slices(n_examples, step):
        yield [
            _Part(a[some].astype(np.float64), delta[some].astype(np.float64), place)
            for a, delta, place in held
        ]


def _held(run: Run, scale: Array | None) -> _Part:
    """The rows of a run in the network's precision."""
    if run.products is not None:
        a, delta = run.products.a[:, 0], np.stack(run.products.deltas, axis=1)[:, :, 0]
        return _Part(a, delta if scale is None else delta * scale[run.place.start], run.place)
    rows = stacked(run.factors)
    if scale is not None:
        rows *= scale[run.place]
    return _Part(np.ones((len(rows), 1), rows.dtype), rows, run.place)


def _add_block(left: _Part, right: _Part, total: Array) -> None:
    """Add the block of two parts to a total `[I O, J Q]`."""
    (n_examples, _, n_outputs), others = left.delta.shape, right.delta.shape[2]
    n_inputs, read_by_other = left.a.shape[1], right.a.shape[1]
    if n_inputs * read_by_other == 1:
        total += left.delta.reshape(-1, n_outputs).T @ right.delta.reshape(-1, others)
        return
    blocks = np.reshape(total, (n_inputs, n_outputs, read_by_other, others), copy=False)
    turned = np.swapaxes(left.delta, 1, 2)
    for here in slices(n_outputs, max(1, _NUMBERS // (n_examples * others))):
        deltas = (turned[:, here] @ right.delta).reshape(n_examples, -1)
        for some in slices(n_inputs, max(1, _NUMBERS // (read_by_other * deltas.shape[1]))):
            read = left.a[:, some, None] * right.a[:, None]
            found = read.reshape(n_examples, -1).T @ deltas
            found = found.reshape(-1, read_by_other, here.stop - here.start, others)
            blocks[some, here] += np.swapaxes(found, 1, 2)


def _shared(factor: Factor) -> OuterProducts | None:
    """The factors of a dense layer's rows, where there are enough of them an example."""
    products = outer_products(factor)
    if products is None or products.a.shape[1] > 1 or len(products.deltas) < _LEAST_ROWS:
        return None
    return products
