"""The matrix R^T R `[P, P]`, for which the rows of dense layers need not be formed.

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

#: Multiplications of matrix products in the time of one that is done by itself.
_ALONE = 128

#: Examples, and numbers of intermediate arrays, at most at a time: of fewer examples, all of the
#: matrix would be read and written for little work.
_EXAMPLES, _NUMBERS = 512, 2**23

#: Columns of formed rows that are multiplied at a time.
_COLUMNS = 4096


class _Part(NamedTuple):
    """Rows of some parameters, row r of an example being a (x) delta_r.

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


def add_matrix(row_factors: Iterator[Sequence[Factor]], scale: Array | None, total: Array) -> None:
    """Add R^T R of all batches to a float64 total `[P, P]`; what is below the diagonal counts.

    Args:
        row_factors: of one batch after the other, variable by variable.
        scale: `[P]`, by which rows are multiplied; None for one.
        total: is added to; of blocks of variables, those below the diagonal and on it.
    """
    for parts in _gathered(row_factors, scale):
        for k, left in enumerate(parts):
            for right in parts[: k + 1]:
                _add_block(left, right, total[left.place, right.place])


def _gathered(
    row_factors: Iterator[Sequence[Factor]], scale: Array | None
) -> Iterator[list[_Part]]:
    """The rows of some examples at a time, of several batches or of a piece of one."""
    waiting: list[list[_Part]] = []
    for factors in row_factors:
        held = [_held(run, scale) for run in runs(factors, scale, _shared)]
        numbers = sum(part.delta[0].size for part in held)
        step = int(np.clip(_NUMBERS // numbers, 1, _EXAMPLES))
        for some in slices(len(held[0].a), step):
            piece = [_Part(part.a[some], part.delta[some], part.place) for part in held]
            if waiting and sum(len(each[0].a) for each in [*waiting, piece]) > step:
                yield _joined(waiting)
                waiting = []
            waiting.append(piece)
    yield _joined(waiting)


def _joined(pieces: list[list[_Part]]) -> list[_Part]:
    """The rows of several pieces, one after the other, in float64."""
    return [
        _Part(
            np.concatenate([part.a for part in parts], dtype=np.float64),
            np.concatenate([part.delta for part in parts], dtype=np.float64),
            parts[0].place,
        )
        for parts in zip(*pieces, strict=True)
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
    """Add the block of two parts to a total `[I O, J Q]`; of one with itself, its lower half."""
    (n_examples, n_inputs), n_outputs = left.a.shape, left.delta.shape[2]
    read_by_other, others = right.a.shape[1], right.delta.shape[2]
    if n_inputs * read_by_other == 1:
        rows, columns = (each.delta.reshape(-1, each.delta.shape[2]) for each in (left, right))
        for here in slices(n_outputs, _COLUMNS):
            there = slice(here.stop if left is right else others)
            total[here, there] += rows[:, here].T @ columns[:, there]
        return
    blocks = np.reshape(total, (n_inputs, n_outputs, read_by_other, others), copy=False)
    turned = np.swapaxes(left.delta, 1, 2)
    add = _add_weighted if n_outputs * others < n_inputs else _add_paired
    for here in slices(n_outputs, max(1, _NUMBERS // (n_examples * others))):
        add(left.a, right.a, turned[:, here] @ right.delta, blocks[:, here])


def _add_paired(a: Array, b: Array, deltas: Array, total: Array) -> None:
    """Add sum_n a b deltas to `[I, O, J, Q]`: all pairs of inputs, times all those of deltas."""
    n_examples, n_outputs, others = deltas.shape
    flat = deltas.reshape(n_examples, -1)
    for some in slices(a.shape[1], max(1, _NUMBERS // (b.shape[1] * max(flat.shape)))):
        pairs = (a[:, some, None] * b[:, None]).reshape(n_examples, -1)
        found = (pairs.T @ flat).reshape(-1, b.shape[1], n_outputs, others)
        total[some] += np.swapaxes(found, 1, 2)


def _add_weighted(a: Array, b: Array, deltas: Array, total: Array) -> None:
    """Add sum_n a b deltas to `[I, O, J, Q]`: one layer's inputs, times the other's by deltas."""
    n_examples, n_outputs, others = deltas.shape
    for some in slices(b.shape[1], max(1, _NUMBERS // (n_examples * others))):
        for o in range(n_outputs):
            weighted = b[:, some, None] * deltas[:, None, o]
            found = a.T @ weighted.reshape(n_examples, -1)
            total[:, o, some] += found.reshape(len(found), -1, others)


def _shared(factor: Factor) -> OuterProducts | None:
    """The factors of a dense layer's rows, where a matrix takes much less work by them."""
    products = outer_products(factor)
    if products is None or products.a.shape[1] > 1:
        return None
    n_rows, n_inputs, n_outputs = (
        len(products.deltas),
        products.a.shape[2],
        products.deltas[0].shape[2],
    )
    saved = (n_rows - 1) * max(n_outputs**2, n_inputs)
    shares = n_inputs > 1 and n_rows >= _LEAST_ROWS and saved >= _ALONE
    return products if shares else None
