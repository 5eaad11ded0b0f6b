"""From a curvature operator to its leading eigenpairs: which solver, how many, how good."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deltauq.curvature.calibrated_tail import TailInputs
from deltauq.curvature.operator import CurvatureOperator
from deltauq.curvature.solver_kinds import solver_of
from deltauq.curvature.solvers import bound_columns, make_solver, solver_columns, tail_columns
from deltauq.curvature.stages import bounding, diagonalising, forming, looking
from deltauq.errors import InvalidInputError, check_count
from deltauq.linalg import Eigenpairs, Ends, NormBound, Storage
from deltauq.runtime.stages import Stage, Stages

__all__ = [
    "Rank",
    "automatic_eigenpairs",
    "automatic_ranks",
    "basis_columns",
    "certificate_columns",
    "check_rank",
    "check_rank_alone",
    "eigenpairs",
    "is_dense",
    "own_unit",
    "pairs_of_matrix",
    "resolving",
]

Array = npt.NDArray[Any]
Rank = int | Literal["auto", "full"]

#: Largest P for which [P, P] matrices are formed (three of them in float64: 10 GB at 20,000).
DENSE_LIMIT = 20_000

#: P up to which a dense curvature is diagonalised; beyond, Cholesky's factor takes a twentieth of
#: the time, and gives everything but the eigenpairs.
EIGEN_LIMIT = 6_000

#: P up to which `rank="auto"` takes the dense path at once: seconds, and nothing is left out.
AUTO_DENSE_LIMIT = 3_000

#: The first rank that `rank="auto"` tries.
_AUTO_START = 64


def own_unit(pairs: Eigenpairs) -> float:
    """The L2 rate of the metric that the operator is in already."""
    del pairs
    return 1.0


def check_rank_alone(rank: Any) -> Rank:
    """Check that a rank is "auto", "full" or a whole number above 0, whatever the model.

    Raises:
        InvalidInputError: it is none of these.
    """
    if isinstance(rank, str) and rank in ("auto", "full"):
        return "auto" if rank == "auto" else "full"
    return check_count("rank", rank, or_else=", 'auto' or 'full'")


def check_rank(rank: Any, n_params: int) -> Rank:
    """Check that a rank can be used: "auto", "full", or a number up to P.

    Args:
        rank: as the user gave it.
        n_params: P.

    Raises:
        InvalidInputError: it is none of these.
    """
    rank = check_rank_alone(rank)
    if not isinstance(rank, str) and rank > n_params:
        raise InvalidInputError(
            "rank is larger than the number of parameters",
            expected=f"at most P = {n_params:,}",
            received=f"{rank:,}",
            remedy="pass rank='full' to keep all eigenpairs",
        )
    return rank


def eigenpairs(
    operator: CurvatureOperator,
    rank: int | Literal["full"],
    *,
    ends: Ends = "largest",
    bounds: bool = False,
    unit: Callable[[Eigenpairs], float] = own_unit,
    seed: int = 0,
    storage: Storage | None = None,
    tail: TailInputs | None = None,
    stages: Stages | None = None,
) -> Eigenpairs:
    """Compute the K leading eigenpairs of a curvature (all of them for "full").

    "full" forms A and diagonalises it in float64. Otherwise a semidefinite operator is sketched
    (Nystrom, two passes over the data, the first of them over a random eighth of the examples where
    that is enough for K), and the exact Hessian goes through block Lanczos until the residuals of
    the K pairs meet sqrt(2) ||R||_F <= 0.1 in the operator's scale (where the prior's metric was
    entered: 0.1 lambda). Pairs beyond that rule are left out, the innermost first, and `converged`
    is False.

    Args:
        operator: the curvature, usually in the prior's metric.
        rank: K, or "full".
        ends: of the exact Hessian's spectrum, the "largest" K, the "smallest", or "both": three
            fifths of K from the top, and the residuals of all meet 0.1 (1 + the smallest mu).
        bounds: compute `left_out` too; takes up to five more passes over the data. It is about the
            largest pairs only.
        unit: the L2 rate that the pairs will be used at, in those of the operator's metric; one,
            unless it is chosen by the pairs.
        seed: of the random start.
        storage: where vectors of length P live; None for memory ("full" is always in memory).
        tail: inputs to measure the tail on, with the bounds; None for none.
        stages: are told what goes on; None for nobody.

    Raises:
        InvalidInputError: another end than the largest of a semidefinite curvature.
    """
    if rank == "full":
        _begin(stages, forming, operator)
        matrix = operator.to_dense()
        _begin(stages, diagonalising, len(matrix))
        return pairs_of_matrix(matrix, semidefinite=operator.positive_semidefinite)
    if ends != "largest" and not solver_of(operator).finds_low_end:
        raise InvalidInputError(
            f"ends={ends!r} needs a solver that semidefinite curvatures do not have",
            expected="ends='largest' for OPG and GGN, whose smallest eigenvalues are zero",
            received=type(operator).__name__,
        )
    solver = make_solver(
        operator, rank, bounds=bounds, seed=seed, storage=storage, ends=ends, tail=tail
    )
    _begin(stages, looking, operator, rank)
    pairs = solver.solve(rank)
    if not bounds:
        return pairs
    _begin(stages, bounding, operator, rank, tail=tail is not None)
    return solver.certified(pairs, unit=unit(pairs))


def automatic_eigenpairs(
    operator: CurvatureOperator,
    is_enough: Callable[[Eigenpairs], bool],
    *,
    ends: Ends = "largest",
    bounds: bool = False,
    max_bytes: int = 2**31,
    unit: Callable[[Eigenpairs], float] = own_unit,
    seed: int = 0,
    storage: Storage | None = None,
    tail: TailInputs | None = None,
    stages: Stages | None = None,
) -> tuple[Eigenpairs, str | None]:
    """Compute eigenpairs at the first of the ranks 64, 128, 256, ... that is enough.

    What was computed for one rank is kept for the next.

    Args:
        operator: the curvature.
        is_enough: judges the pairs; with bounds also without, before passes are spent on them.
        ends: as in `eigenpairs`.
        bounds: compute `left_out` too.
        max_bytes: room for vectors, the limit of the rank.
        unit: as of `eigenpairs`.
        seed: of the random start.
        storage: where vectors of length P live; None for memory.
        tail: as of `eigenpairs`.
        stages: likewise.

    Returns:
        The last pairs, and why there are no more of them, with what to do: None where they were
        enough.
    """
    ranks = automatic_ranks(operator, max_bytes)
    solver = make_solver(
        operator, ranks[0], bounds=bounds, seed=seed, storage=storage, ends=ends, tail=tail
    )
    for step, (known, rank) in enumerate(itertools.pairwise([0, *ranks]), 1):
        _begin(stages, looking, operator, rank, known)
        pairs = solver.solve(rank)
        # Fewer pairs than columns were sketched for: more columns would drown in rounding too.
        last = rank == ranks[-1] or not pairs.converged or pairs.rank < rank
        enough = is_enough(pairs)
        if bounds and (enough or last):
            _begin(stages, bounding, operator, rank, tail=tail is not None)
            pairs = solver.certified(pairs, step, unit(pairs))
            enough = is_enough(pairs)
        if enough or last:
            break
    return pairs, None if enough else _why_no_more(operator, pairs, rank, storage)


def _begin(stages: Stages | None, make: Callable[..., Stage], *given: Any, **options: Any) -> None:
    """Begin a stage, where anybody is told of it."""
    if stages is not None:
        stages.begin(make(*given, **options))


def automatic_ranks(operator: CurvatureOperator, max_bytes: int) -> list[int]:
    """The ranks that are tried one after the other, until there is no room for more vectors.

    Args:
        operator: the curvature.
        max_bytes: room for vectors.
    """
    size = operator.shape[0]
    affordable = max_bytes // (3 * size * np.dtype(operator.network.dtype).itemsize)
    largest = solver_of(operator).largest_automatic_rank
    if largest is not None:
        affordable = min(affordable, largest)
    limit = min(size, max(_AUTO_START, affordable))
    ranks = [min(_AUTO_START, limit)]
    while ranks[-1] < limit:
        ranks.append(min(2 * ranks[-1], limit))
    return ranks


def _why_no_more(
    operator: CurvatureOperator, pairs: Eigenpairs, rank: int, storage: Storage | None
) -> str:
    """What stopped the rank from growing, and what lets it grow."""
    if not pairs.converged:
        return "the next ones do not converge; curvature='ggn' has those that do"
    if pairs.rank < rank:
        dtype = operator.network.dtype
        return (
            f"the next ones drown in the rounding of {dtype}; {resolving(dtype)} has more, "
            "a larger rank has not"
        )
    largest = solver_of(operator).largest_automatic_rank
    if largest is not None and rank >= largest:
        return (
            "an exact Hessian takes more than a pass a pair; a larger rank as a number goes on, "
            "curvature='ggn' is faster"
        )
    if storage is not None and storage.directory is not None:
        return "vectors_dir has no room for more; a larger disk or fewer layers have"
    return (
        "the memory that is free holds no more; a larger memory_limit, vectors_dir=... on a disk, "
        "or fewer layers make room"
    )


def resolving(dtype: str) -> str:
    """Advice on what tells more eigenpairs from the rounding of a model's precision."""
    return "a larger l2" if dtype == "float64" else "a model in float64 or a larger l2"


def is_dense(rank: Rank, n_params: int) -> bool:
    """Whether a rank, or "auto" at this P, means that a `[P, P]` matrix is formed."""
    return rank == "full" or (rank == "auto" and n_params <= AUTO_DENSE_LIMIT)


def basis_columns(operator: type[CurvatureOperator], rank: Rank, n_params: int) -> int:
    """Number of vectors of length P, at most, that a solver holds; "auto" at its first rank.

    Args:
        operator: the class of the curvature.
        rank: K, "auto" or "full".
        n_params: P.
    """
    if is_dense(rank, n_params):
        return 6 * n_params  # three matrices in float64
    return solver_columns(operator, _first(rank), n_params)


def certificate_columns(rank: Rank, n_params: int, *, tail: bool = False) -> int:
    """Number of vectors of length P, at most, that a bound on what is left out takes beside them.

    Args:
        rank: K, "auto" or "full".
        n_params: P.
        tail: the tail is measured too.
    """
    if is_dense(rank, n_params):
        return 0
    return bound_columns(_first(rank)) + (tail_columns(_first(rank)) if tail else 0)


def _first(rank: Rank) -> int:
    """The first rank that is tried, which is the rank itself where it is a number."""
    return _AUTO_START if isinstance(rank, str) else rank


def pairs_of_matrix(matrix: Array, *, semidefinite: bool) -> Eigenpairs:
    """All eigenpairs of a symmetric matrix by diagonalising it in float64.

    Args:
        matrix: `[P, P]`.
        semidefinite: no eigenvalue is negative, but for rounding.
    """
    values, vectors = np.linalg.eigh(matrix)
    values, vectors = values[::-1], np.ascontiguousarray(vectors[:, ::-1])
    residuals = np.linalg.norm(matrix @ vectors - vectors * values, axis=0)
    return Eigenpairs(
        values=np.maximum(values, 0.0) if semidefinite else values.copy(),
        vectors=vectors,
        residual_norms=residuals,
        trace=float(np.trace(matrix)),
        smallest=None if semidefinite else float(values[-1]),
        products=len(matrix),
        converged=True,
        left_out=NormBound(0.0, 0.0, 0.0, 0),
    )
