"""From a curvature operator to its leading eigenpairs: which solver, how many, how good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from beartype import beartype
from jaxtyping import Float, jaxtyped

from deltauq.curvature import CurvatureOperator
from deltauq.errors import InvalidInputError
from deltauq.linalg import BlockLanczos, Ends, NystromSketch, Storage

__all__ = [
    "Eigenpairs",
    "Rank",
    "automatic_eigenpairs",
    "basis_columns",
    "check_rank",
    "eigenpairs",
    "is_dense",
]

Array = npt.NDArray[Any]
Rank = int | Literal["auto", "full"]

#: Largest P for which [P, P] matrices are formed (three of them in float64: 10 GB at 20,000).
DENSE_LIMIT = 20_000

#: P up to which `rank="auto"` takes the dense path at once: seconds, and nothing is left out.
AUTO_DENSE_LIMIT = 3_000

#: Largest rank that `rank="auto"` tries for the exact Hessian, whose pairs cost a pass each.
AUTO_LANCZOS_RANK = 256

#: Residuals of accepted Hessian pairs: sqrt(2) ||R||_F stays below this share of the L2 rate.
RESIDUAL_SHARE = 0.1


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class Eigenpairs:
    """Leading eigenpairs of a mean data curvature A `[P, P]`, values descending.

    Attributes:
        values: mu `[K]`; in the prior's metric (dimensionless), or times the L2 rate where all
            parameters have one rate: then they are A's own.
        vectors: orthonormal columns `[P, K]`.
        residual_norms: ||A u - mu u|| `[K]`, in the unit of the values; of OPG and GGN an upper
            bound of it, from what is left of the trace.
        trace: of A, exact; None where it was not computed.
        smallest: the smallest eigenvalue found; None where the curvature has no negative ones.
        products: products of A with one vector that were spent.
        converged: every residual met the solver's rule.
    """

    values: Float[np.ndarray, " K"]
    vectors: Float[np.ndarray, "P K"]
    residual_norms: Float[np.ndarray, " K"]
    trace: float | None
    smallest: float | None
    products: int
    converged: bool

    @property
    def rank(self) -> int:
        """K."""
        return len(self.values)

    @property
    def n_params(self) -> int:
        """P."""
        return int(self.vectors.shape[0])

    @property
    def remainder(self) -> float | None:
        """trace(A) - sum(mu): a certain bound on what a semidefinite A has left; or None."""
        return None if self.trace is None else max(0.0, self.trace - float(self.values.sum()))

    def rescaled(self, unit: float) -> Eigenpairs:
        """The same pairs with all values times a number > 0."""
        return Eigenpairs(
            values=self.values * unit,
            vectors=self.vectors,
            residual_norms=self.residual_norms * unit,
            trace=None if self.trace is None else self.trace * unit,
            smallest=None if self.smallest is None else self.smallest * unit,
            products=self.products,
            converged=self.converged,
        )


def check_rank(rank: Any, n_params: int) -> Rank:
    """A usable rank, or `InvalidInputError`."""
    if rank == "full" and n_params > DENSE_LIMIT:
        raise InvalidInputError(
            "rank='full' needs matrices that are too large",
            expected=f"at most {DENSE_LIMIT:,} parameters",
            received=f"P = {n_params:,}: three [P, P] matrices of "
            f"{8 * n_params**2 / 2**30:.0f} GiB each",
            remedy="pass a number as rank, rank='auto', or fewer layers with layers=...",
        )
    if rank in ("auto", "full"):
        return rank
    if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)) or rank < 1:
        raise InvalidInputError(
            "rank is not understood",
            expected="a whole number >= 1, 'auto' or 'full'",
            received=repr(rank),
        )
    if rank > n_params:
        raise InvalidInputError(
            "rank is larger than the number of parameters",
            expected=f"at most P = {n_params:,}",
            received=f"{rank:,}",
            remedy="pass rank='full' to keep all eigenpairs",
        )
    return int(rank)


def eigenpairs(
    operator: CurvatureOperator,
    rank: int | Literal["full"],
    *,
    ends: Ends = "largest",
    seed: int = 0,
    storage: Storage | None = None,
) -> Eigenpairs:
    """The K leading eigenpairs of a curvature (all of them for "full").

    "full" forms A and diagonalises it in float64. Otherwise a semidefinite operator is sketched
    (Nystrom, two passes over the data), and the exact Hessian goes through block Lanczos until the
    residuals of the K pairs meet sqrt(2) ||R||_F <= 0.1 in the operator's scale (where the prior's
    metric was entered: 0.1 lambda). Pairs beyond that rule are left out, the innermost first, and
    `converged` is False.

    Args:
        operator: the curvature, usually in the prior's metric.
        rank: K, or "full".
        ends: of the exact Hessian's spectrum, the "largest" K, the "smallest", or half of K from
            "both" ends.
        seed: of the random start.
        storage: where vectors of length P live; None for memory ("full" is always in memory).

    Raises:
        InvalidInputError: another end than the largest of a semidefinite curvature.
    """
    if rank == "full":
        return _dense(operator)
    if ends != "largest" and operator.positive_semidefinite:
        raise InvalidInputError(
            f"ends={ends!r} needs a solver that semidefinite curvatures do not have",
            expected="ends='largest' for OPG and GGN, whose smallest eigenvalues are zero",
            received=type(operator).__name__,
        )
    return _solver(operator, seed, storage, ends)(rank)


def automatic_eigenpairs(
    operator: CurvatureOperator,
    is_enough: Callable[[Eigenpairs], bool],
    *,
    max_bytes: int = 2**31,
    seed: int = 0,
    storage: Storage | None = None,
) -> tuple[Eigenpairs, bool]:
    """Eigenpairs at the first of the ranks 64, 128, 256, ... that is enough.

    What was computed for one rank is kept for the next. Few parameters (P <= 3,000, or a rank near
    P) take the dense path.

    Args:
        operator: the curvature.
        is_enough: judges the pairs.
        max_bytes: room for vectors, the limit of the rank.
        seed: of the random start.
        storage: where vectors of length P live; None for memory.

    Returns:
        The last pairs, and whether they were enough.
    """
    size = operator.shape[0]
    if is_dense("auto", size):
        return _dense(operator), True
    solve = _solver(operator, seed, storage)
    itemsize = np.dtype(operator.network.dtype).itemsize
    affordable = max_bytes // (3 * size * itemsize)
    if not operator.positive_semidefinite:
        affordable = min(affordable, AUTO_LANCZOS_RANK)
    limit = min(size, max(64, affordable))
    rank = min(64, limit)
    while True:
        pairs = solve(rank)
        if is_enough(pairs):
            return pairs, True
        if rank >= limit or not pairs.converged:
            return pairs, False
        rank = min(2 * rank, limit)


def is_dense(rank: Rank, n_params: int) -> bool:
    """Whether a `[P, P]` matrix is formed."""
    return rank == "full" or (rank == "auto" and n_params <= AUTO_DENSE_LIMIT)


def basis_columns(operator: type[CurvatureOperator], rank: Rank, n_params: int) -> int:
    """Vectors of length P, at most, that a solver holds at once; "auto" at its first rank."""
    if is_dense(rank, n_params):
        return 6 * n_params  # three matrices in float64
    count = 64 if rank == "auto" else int(rank)
    if operator.positive_semidefinite:
        return min(3 * (count + _oversampling(count)), 3 * n_params)
    return min(_krylov_limit(count), n_params) + 2 * count


def _oversampling(rank: int) -> int:
    return max(10, rank // 12)


def _krylov_limit(rank: int) -> int:
    return 6 * rank + 120


def _dense(operator: CurvatureOperator) -> Eigenpairs:
    matrix = operator.to_dense()
    values, vectors = np.linalg.eigh(matrix)
    values, vectors = values[::-1], np.ascontiguousarray(vectors[:, ::-1])
    residuals = np.linalg.norm(matrix @ vectors - vectors * values, axis=0)
    semidefinite = operator.positive_semidefinite
    return Eigenpairs(
        values=np.maximum(values, 0.0) if semidefinite else values.copy(),
        vectors=vectors,
        residual_norms=residuals,
        trace=float(np.trace(matrix)),
        smallest=None if semidefinite else float(values[-1]),
        products=len(matrix),
        converged=True,
    )


def _solver(
    operator: CurvatureOperator, seed: int, storage: Storage | None, ends: Ends = "largest"
) -> Callable[[int], Eigenpairs]:
    """A function rank -> pairs that keeps what it has computed between calls."""
    options = {"dtype": operator.network.dtype, "seed": seed, "storage": storage}
    if operator.positive_semidefinite:
        return _nystrom_solver(operator, options)
    return _lanczos_solver(operator, ends, options)


def _nystrom_solver(
    operator: CurvatureOperator, options: dict[str, Any]
) -> Callable[[int], Eigenpairs]:
    sketch = NystromSketch(operator.matmat, operator.shape[0], passes=2, **options)

    def solve(rank: int) -> Eigenpairs:
        sketch.grow(rank + _oversampling(rank))
        trace = operator.trace()
        values, vectors, reach = sketch.eigenpairs(rank)
        left_out = max(0.0, trace - float(values.sum()))
        return Eigenpairs(
            values=values[:rank],
            vectors=vectors,
            residual_norms=left_out * reach,
            trace=trace,
            smallest=None,
            products=sketch.products,
            converged=True,
        )

    return solve


def _lanczos_solver(
    operator: CurvatureOperator, ends: Ends, options: dict[str, Any]
) -> Callable[[int], Eigenpairs]:
    krylov = BlockLanczos(operator.matmat, operator.shape[0], ends=ends, **options)

    def solve(rank: int) -> Eigenpairs:
        tolerance = RESIDUAL_SHARE / np.sqrt(2.0)
        pairs, converged = krylov.converge(rank, tolerance, max_columns=_krylov_limit(rank))
        inward = _from_the_ends(len(pairs.values), ends)
        epsilon = np.sqrt(2.0 * np.cumsum(pairs.residual_norms[inward] ** 2))
        kept = np.sort(inward[epsilon <= RESIDUAL_SHARE])
        return Eigenpairs(
            values=pairs.values[kept],
            vectors=pairs.vectors if len(kept) == rank else pairs.vectors[:, kept],
            residual_norms=pairs.residual_norms[kept],
            trace=None,
            smallest=pairs.smallest,
            products=krylov.products,
            converged=converged and len(kept) == rank,
        )

    return solve


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
