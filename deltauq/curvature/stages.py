"""What the stages of taking a curvature apart are for, and what each of them takes.

Seconds are counts of multiplications over the speeds that one core of a usual processor has; only
their ratios are used.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from deltauq.curvature.calibrated_tail import MAX_STEPS, PROBES
from deltauq.curvature.operator import UNIT_COLUMNS, CurvatureOperator
from deltauq.curvature.solver_kinds import solver_of
from deltauq.curvature.solvers import BOUND_BLOCKS, bound_width, oversampling
from deltauq.curvature.speeds import CHOLESKY, COLUMNS, DOUBLE, EIGEN, FORMED, INNER
from deltauq.runtime.stages import Stage

__all__ = [
    "bounding",
    "diagonalising",
    "factoring",
    "forming",
    "looking",
    "multiplying",
    "pair_stages",
    "pass_seconds",
    "reading",
]


def looking(operator: CurvatureOperator, rank: int, known: int = 0) -> Stage:
    """The search for eigenpairs.

    Args:
        operator: the curvature.
        rank: K.
        known: eigenpairs that were found for a smaller rank, and are gone on from.
    """
    kind, n_params = solver_of(operator), operator.shape[0]
    name, why = _LOOKING.format(type(operator).__name__), f"the {rank:,} of which the data say most"
    if kind.passes is None:
        return Stage(name, why)
    passes = kind.passes(operator, rank, operator.data.n_weighted)
    columns = min(rank + oversampling(rank), n_params)
    new = columns - (min(known + oversampling(known), n_params) if known else 0)
    each = pass_seconds(operator, new if kind.products_per_pair is None else 2)
    algebra = 24.0 * n_params * new * columns / DOUBLE
    return Stage(
        name,
        why,
        seconds=passes * each,
        parts=passes * operator.data.n_rows,
        beside=algebra,
        at_most=kind.products_per_pair is not None,
    )


#: How the stages are called.
_LOOKING = "looking for eigenvectors of the {}"
_BOUNDING = "bounding what is left of the {}"


def bounding(operator: CurvatureOperator, rank: int, *, tail: bool) -> Stage:
    """Bounding what eigenpairs leave out of a curvature, and measuring the tail."""
    passes = max(BOUND_BLOCKS, MAX_STEPS if tail else 0)
    columns = bound_width(rank) + (PROBES if tail else 0)
    return Stage(
        _BOUNDING.format(type(operator).__name__),
        f"how much {rank:,} eigenvectors leave out{', and measuring the tail' if tail else ''}",
        seconds=passes * pass_seconds(operator, columns),
        parts=passes * operator.data.n_rows,
        at_most=True,
    )


def forming(operator: CurvatureOperator) -> Stage:
    """Forming the matrix of a curvature."""
    n_params = operator.shape[0]
    passes, columns = 1, n_params
    if not operator.matrix_in_a_pass:
        passes, columns = math.ceil(n_params / UNIT_COLUMNS), min(n_params, UNIT_COLUMNS)
    return Stage(
        f"forming the matrix of the {type(operator).__name__}",
        f"all of its {n_params:,} x {n_params:,} numbers, so that nothing is left out",
        seconds=passes * pass_seconds(operator, columns),
        parts=passes * operator.data.n_rows,
    )


def diagonalising(side: int) -> Stage:
    """Finding all eigenvectors of a matrix `[side, side]`."""
    why = f"all of a matrix [{side:,}, {side:,}] at once, which cannot be told in parts"
    return Stage("taking the matrix apart", why, seconds=float(side) ** 3 / EIGEN)


def factoring(side: int) -> Stage:
    """Factoring a matrix `[side, side]`, and seeing whether its precision is enough."""
    why = f"a matrix [{side:,}, {side:,}], by which standard errors are solved for"
    return Stage("factoring the matrix", why, seconds=float(side) ** 3 / (3 * CHOLESKY))


def reading(n_examples: int, held: float) -> Stage:
    """Forming the rows of the training examples, in one pass over the data.

    Args:
        n_examples: of the data.
        held: numbers that all rows are.
    """
    why = "the gradients that the curvature is made of"
    return Stage("forming rows", why, seconds=held * FORMED, parts=n_examples)


def multiplying(n_rows: int, inner: float, dtype: str) -> Stage:
    """Forming the inner products of all rows.

    Args:
        n_rows: n.
        inner: multiplications of an inner product.
        dtype: precision of the products.
    """
    speed = DOUBLE if dtype == "float64" else INNER
    return Stage(
        f"inner products of rows in {dtype}",
        "all that standard errors take, so that nothing is left out",
        seconds=float(n_rows) ** 2 * inner / speed,
        parts=n_rows * (n_rows + 1) / 2,
        unit="pairs",
    )


def pair_stages(
    operator: CurvatureOperator, ranks: Sequence[int], *, bounds: bool, tail: bool = False
) -> list[Stage]:
    """The stages of finding eigenpairs, of as many ranks as may be tried one after the other.

    Args:
        operator: the curvature.
        ranks: ascending.
        bounds: what is left is bounded.
        tail: it is measured too.
    """
    found: list[Stage] = []
    for known, rank in itertools.pairwise([0, *ranks]):
        stages = [looking(operator, rank, known)]
        stages += [bounding(operator, rank, tail=tail)] if bounds else []
        found += [replace(each, at_most=True) for each in stages] if known else stages
    return found


def pass_seconds(operator: CurvatureOperator, columns: float) -> float:
    """What a pass over the data takes, by a count, that multiplies so many columns."""
    n_outputs = operator.network.count_outputs(operator.data.spec.x)
    each = max(1, operator.rows_per_example(operator.likelihood, n_outputs))
    numbers = float(operator.data.n_rows) * each * operator.shape[0]
    return numbers * (FORMED + 4.0 * columns / COLUMNS)
