"""The solvers behind `eigenpairs`: Nystrom for OPG and GGN, Lanczos for the exact Hessian."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature.calibrated_tail import MAX_STEPS, PROBES, TailInputs, measuring_tail
from deltauq.curvature.operator import CurvatureOperator
from deltauq.curvature.solver_kinds import Solver, register_solver, solver_of
from deltauq.curvature.tails import tail_interval
from deltauq.linalg import (
    Asking,
    BlockLanczos,
    Eigenpairs,
    Ends,
    MeasuredTail,
    NormBound,
    NystromSketch,
    RitzPairs,
    Storage,
    bounding_largest_eigenvalue,
    combine,
    inner_products,
    mapped,
    project_out,
    together,
)
from deltauq.linalg.lanczos import CHECK_STEPS

__all__ = [
    "BOUND_BLOCKS",
    "FAILURE",
    "PASSES",
    "RESIDUAL_SHARE",
    "SAMPLED_SHARE",
    "bound_columns",
    "bound_width",
    "make_solver",
    "oversampling",
    "sketch_passes",
    "solver_columns",
    "tail_columns",
]

Array = npt.NDArray[Any]

#: Passes over the data of a Nystrom sketch.
PASSES = 2

#: Share of the examples that every pass of a sketch but the last reads.
SAMPLED_SHARE = 1 / 8

#: Rows that those examples must have for every column of the sketch. What is left of the trace was
#: about 1.2 times what two full passes leave at 8 rows a column, 1.4 times at 4, 1.6 times at 2.
_ROWS_PER_COLUMN = 8

#: Residuals of accepted Hessian pairs: sqrt(2) ||R||_F stays below this share of the L2 rate.
RESIDUAL_SHARE = 0.1

#: The smallest mu + 1, in units of L2, that pairs of the low end are made accurate for.
_RESOLVED = 1e-6

#: Chance, over the random start, that more is left out than any of the bounds of a fit says.
FAILURE = 1e-6

#: Products with a block of vectors, at most, that the bound on what is left out may take.
BOUND_BLOCKS = 6

#: Relative width of a standard error that a better bound must be able to win.
_WIDTH_WON = 0.01


def make_solver(
    operator: CurvatureOperator,
    rank: int,
    *,
    bounds: bool,
    seed: int,
    storage: Storage | None,
    ends: Ends = "largest",
    tail: TailInputs | None = None,
) -> Solver:
    """Choose the solver of a curvature: a sketch if it is semidefinite, otherwise Lanczos.

    Args:
        operator: the curvature.
        rank: K of the first call.
        bounds: whether `certified` will be called.
        seed: of the random start.
        storage: where vectors of length P live; None for memory.
        ends: of the spectrum, where the solver finds more than the largest.
        tail: what the tail is to be measured on, where the solver does that; None for nothing.
    """
    kind = solver_of(operator)
    measuring = {"tail": tail} if kind.measures_tail else {}
    return kind.make(
        operator,
        ends=ends,
        fresh=min(bound_width(rank), operator.shape[0]) if bounds else 0,
        dtype=operator.network.dtype,
        seed=seed,
        storage=storage,
        **measuring,
    )


def solver_columns(operator: type[CurvatureOperator], rank: int, n_params: int) -> int:
    """Number of vectors of length P, at most, that a solver holds at once."""
    return solver_of(operator).columns(rank, n_params)


def bound_columns(rank: int) -> int:
    """Number of vectors of length P, at most, that bounding what is left out takes beside."""
    # The basis; Z and A Z, twice in a sketch that holds them; three blocks on the way to the next.
    return (BOUND_BLOCKS + 7) * bound_width(rank)


def tail_columns(rank: int) -> int:
    """Number of vectors of length P, at most, that measuring the tail takes beside a sketch."""
    # The image without the inputs that are held out, and its own eigenvectors; the bases of all
    # probes, and what is on the way to the next step.
    return 2 * rank + oversampling(rank) + (MAX_STEPS + 6) * PROBES


def sketch_passes(operator: CurvatureOperator, rank: int, n_examples: float) -> float:
    """Passes over the data of a sketch for some rank, that of a share of them as that share.

    Args:
        operator: the curvature, of these data or of others.
        rank: K.
        n_examples: rows of positive weight in the data.
    """
    some = operator.sampled(SAMPLED_SHARE, 0)
    columns = min(rank + oversampling(rank), operator.shape[0])
    sampled = some is not None and _can_span(some, columns, n_examples)
    return 1 + (PASSES - 1) * (SAMPLED_SHARE if sampled else 1)


def _can_span(operator: CurvatureOperator, columns: int, n_examples: float) -> bool:
    """Whether the sampled share of so many examples has rows enough for the columns of a sketch."""
    n_outputs = operator.network.count_outputs(operator.data.spec.x)
    each = max(1, operator.rows_per_example(operator.likelihood, n_outputs))
    return SAMPLED_SHARE * n_examples * each >= _ROWS_PER_COLUMN * columns


class _Nystrom:
    """Solver of a semidefinite operator: two passes, and a certain lower approximation.

    The first pass only turns a random block towards the leading eigenvectors, for which an eighth
    of the examples will do: they are drawn, since data may come sorted, and anew for every block.
    """

    def __init__(
        self,
        operator: CurvatureOperator,
        *,
        seed: int,
        tail: TailInputs | None = None,
        **options: Any,
    ) -> None:
        self._operator: CurvatureOperator = operator
        self._held_out: CurvatureOperator | None = None
        self._seed = seed
        self._tail = tail
        if tail is not None and tail.held_out is not None:
            # Q and the tail must know nothing of the inputs that it is measured on.
            self._operator, self._held_out = operator.apart(*tail.held_out)
        matmat, size = self._operator.matmat, operator.shape[0]
        options |= {"passes": PASSES, "seed": seed, "steps": operator.steps}
        self._sketch = NystromSketch(matmat, size, **options)
        self._reach: Array = np.zeros(0)

    def solve(self, rank: int) -> Eigenpairs:
        columns = min(rank + oversampling(rank), self._operator.shape[0])
        some = self._operator.sampled(SAMPLED_SHARE, [self._seed, 2, columns])
        if some is not None and not _can_span(some, columns, some.data.n_weighted):
            some = None
        self._sketch.grow(columns, None if some is None else some.matmat)
        trace, whole = self._operator.trace(), self._sketch
        if self._held_out is not None:
            whole = whole.plus(self._held_out.matmat)
            trace += self._held_out.trace()
        values, vectors, self._reach = whole.eigenpairs(rank)
        # ||A u - s u|| <= ||A - A^|| ||u - Q Q^T u||, the norm of a semidefinite rest its trace.
        left_out = max(0.0, trace - float(values.sum()))
        return Eigenpairs(
            values=values[:rank],
            vectors=vectors,
            residual_norms=left_out * self._reach,
            trace=trace,
            smallest=None,
            products=self._sketch.products,
            converged=True,
        )

    def certified(
        self, pairs: Eigenpairs, step: int | None = None, unit: float = 1.0
    ) -> Eigenpairs:
        measuring = self._measuring(pairs, unit)
        left, (start, image) = partial(self._left, pairs), self._sketch.fresh
        if step is None:  # no other rank follows
            self._sketch.forget()
        bounding = _bounding_left_out(pairs, start, left(start, image), step, unit)
        bounding = mapped(bounding, lambda vectors: vectors, left)
        # Both ask for products with A: they share their passes over the data.
        left_out, *measured = together(self._operator.matmat, bounding, *measuring)
        tail: MeasuredTail | None = measured[0] if measured else None
        spent = left_out.products - start.shape[1] + (PROBES * tail.steps if tail else 0)
        return replace(
            pairs,
            left_out=left_out,
            residual_norms=left_out.bound * self._reach,
            products=pairs.products + spent,
            tail=tail,
        )

    def _left(self, pairs: Eigenpairs, vectors: Array, image: Array) -> Array:
        """E V for E = A - U diag(mu) U^T, from a product without the examples held out."""
        if self._held_out is not None:
            image = image + self._held_out.matmat(vectors)
        inside = pairs.values[:, None] * inner_products(pairs.vectors, vectors)
        return image - combine(pairs.vectors, inside)

    def _measuring(self, pairs: Eigenpairs, unit: float) -> list[Asking[MeasuredTail | None]]:
        """The iteration that measures the tail, where there is one that could be seen."""
        least, _ = tail_interval(pairs.rescaled(1.0 / unit))
        if self._tail is None or not least < (1.0 - _WIDTH_WON) ** 2:
            return []
        values, vectors = pairs.values, pairs.vectors
        if self._held_out is not None:
            values, vectors, _ = self._sketch.eigenpairs(pairs.rank)
            values = values[: pairs.rank]
        return [measuring_tail(self._tail, vectors, values, rate=unit, least=least)]


class _Lanczos:
    """Solver of the exact Hessian: pairs with small residuals, from either end."""

    def __init__(
        self,
        operator: CurvatureOperator,
        ends: Ends,
        *,
        fresh: int,
        dtype: Any,
        seed: int,
        storage: Storage | None,
    ) -> None:
        self._operator = operator
        self._ends = ends
        self._fresh = fresh
        self._rng = np.random.default_rng([seed, 1])
        self._krylov = BlockLanczos(
            operator.matmat,
            operator.shape[0],
            ends=ends,
            dtype=dtype,
            seed=seed,
            storage=storage,
        )

    def solve(self, rank: int) -> Eigenpairs:
        pairs, converged, share = self._converge(rank)
        # sqrt(2) ||R||_F bounds what the pairs may be wrong by, as in the bounds of the covariance.
        inward = _from_the_ends(len(pairs.values), self._ends)
        epsilon = np.sqrt(2.0 * np.cumsum(pairs.residual_norms[inward] ** 2))
        kept = np.sort(inward[epsilon <= share])
        return Eigenpairs(
            values=pairs.values[kept],
            vectors=pairs.vectors if len(kept) == rank else pairs.vectors[:, kept],
            residual_norms=pairs.residual_norms[kept],
            trace=None,
            smallest=pairs.smallest,
            products=self._krylov.products,
            converged=converged and len(kept) == rank,
            n_lowest=int(np.count_nonzero(kept >= len(pairs.values) - pairs.n_lowest)),
        )

    def _converge(self, rank: int) -> tuple[RitzPairs, bool, float]:
        """Pairs, whether they converged, and the share of the smallest mu + 1 they had to meet.

        The pairs of the low end are there for an inverse, which is most sensitive to them.
        """
        share = RESIDUAL_SHARE
        while True:
            pairs, converged = self._krylov.converge(
                rank, share / np.sqrt(2.0), max_columns=_krylov_limit(rank)
            )
            asked = RESIDUAL_SHARE * float(np.clip(1.0 + pairs.smallest, _RESOLVED, 1.0))
            if self._ends != "both" or share <= asked or not converged:
                return pairs, converged, share
            share = max(asked, share / 100)

    def certified(
        self, pairs: Eigenpairs, step: int | None = None, unit: float = 1.0
    ) -> Eigenpairs:
        if self._ends != "largest":
            return pairs

        def outside(vectors: Array) -> Array:
            inside = project_out(pairs.vectors, vectors)
            image = self._operator.matmat(inside)
            return project_out(pairs.vectors, image.astype(inside.dtype, copy=False))

        shape = (self._operator.shape[0], self._fresh)
        start = self._rng.standard_normal(shape).astype(pairs.vectors.dtype)
        bounding = _bounding_left_out(pairs, start, outside(start), step, unit)
        left_out: NormBound = together(outside, bounding)[0]
        return replace(pairs, left_out=left_out, products=pairs.products + left_out.products)


def oversampling(rank: int) -> int:
    """Columns of a sketch beyond the rank that is asked for."""
    return max(10, rank // 12)


def _krylov_limit(rank: int) -> int:
    """Columns of a Krylov basis, at most, for a rank."""
    return 6 * rank + 120


def bound_width(rank: int) -> int:
    """Columns of a block that bounds what is left out: few beside the eigenvectors."""
    return int(np.clip(rank // 8, 4, 16))


def _bounding_left_out(
    pairs: Eigenpairs, start: Array, image: Array, step: int | None, unit: float
) -> Asking[NormBound]:
    """Bound what the pairs leave of A; a trace that is known bounds it with certainty."""
    largest = float(np.max(np.abs(pairs.values), initial=0.0))
    rounding = float(np.finfo(pairs.vectors.dtype).eps) * largest
    found = yield from bounding_largest_eigenvalue(
        start,
        image,
        failure=FAILURE if step is None else FAILURE / 2**step,
        max_blocks=BOUND_BLOCKS,
        rounding=rounding,
        limit=np.inf if pairs.remainder is None else pairs.remainder + rounding,
        is_enough=lambda at_least, bound: _is_tight(at_least / unit, bound / unit),
    )
    return replace(found, failure=FAILURE) if found.failure else found


def _is_tight(at_least: float, bound: float) -> bool:
    """Whether a better bound could change standard errors by a percent at most."""
    widest = 1.0 / np.sqrt(1.0 + at_least) - 1.0 / np.sqrt(1.0 + bound)
    return bool(widest <= _WIDTH_WON)


def _from_the_ends(count: int, ends: Ends) -> Array:
    """Places of descending values, the outermost first."""
    from_top = np.arange(count)
    from_bottom = from_top[::-1]
    distance = {
        "largest": from_top,
        "smallest": from_bottom,
        "both": np.minimum(from_top, from_bottom),
    }[ends]
    return np.argsort(distance, kind="stable")


def _sketch_columns(rank: int, n_params: int) -> int:
    """The sketch, its image and the eigenvectors, or the next block while it is made."""
    return 3 * min(rank + oversampling(rank), n_params)


def _krylov_columns(rank: int, n_params: int) -> int:
    """The Krylov basis, and the pairs that are taken from it."""
    return min(_krylov_limit(rank), n_params) + 2 * rank


@register_solver("nystrom", columns=_sketch_columns, passes=sketch_passes, measures_tail=True)
def _nystrom(operator: CurvatureOperator, *, ends: Ends, **options: Any) -> Solver:
    del ends  # a sketch finds the largest alone
    return _Nystrom(operator, **options)


@register_solver(
    "lanczos",
    columns=_krylov_columns,
    passes=lambda operator, rank, _: min(_krylov_limit(rank), operator.shape[0]) / 2 + CHECK_STEPS,
    finds_low_end=True,
    largest_automatic_rank=256,  # pairs cost a pass each
    products_per_pair=2.5,
)
def _lanczos(operator: CurvatureOperator, *, ends: Ends, **options: Any) -> Solver:
    return _Lanczos(operator, ends, **options)
