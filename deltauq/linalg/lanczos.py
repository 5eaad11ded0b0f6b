"""Eigenpairs at the ends of a symmetric operator's spectrum, by block Lanczos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deltauq.linalg.orthogonal import inner_products, orthonormal_basis, project_out, split
from deltauq.linalg.storage import Storage

__all__ = ["CHECK_STEPS", "BlockLanczos", "Ends", "RitzPairs"]

Array = npt.NDArray[Any]
Ends = Literal["largest", "smallest", "both"]

#: Relative difference under which eigenvalues may be copies of one.
_EQUAL = 1e-3

#: Share of A times a block that may be left of a direction before it is projected once more.
_LOST = 1e-3

#: Steps from a fresh random vector that must bring no larger eigenvalue to light.
CHECK_STEPS = 4


@dataclass(frozen=True)
class RitzPairs:
    """Approximate eigenpairs from a Krylov space, values descending, as `BlockLanczos` gives them.

    Attributes:
        values: Ritz values theta `[K]`, of the ends that were asked for.
        vectors: orthonormal Ritz vectors `[P, K]`.
        residual_norms: ||A u - theta u|| `[K]`; an eigenvalue lies that close to theta.
        smallest: the smallest Ritz value. The smallest eigenvalue is not above it, and some
            eigenvalue lies within `smallest_residual` of it.
        smallest_residual: the residual norm of that pair.
        n_lowest: how many of the pairs, the last ones, belong to the low end of the spectrum.
    """

    values: Array
    vectors: Array
    residual_norms: Array
    smallest: float
    smallest_residual: float
    n_lowest: int


class BlockLanczos:
    """A growing Krylov basis Q of a symmetric operator A, and the Ritz pairs that it holds.

    The basis is reorthogonalised in full, twice, so that no ghost eigenvalues appear, and the
    projected matrix T = Q^T A Q is kept in full. With A Q = Q T + W S E^T (W orthonormal, E the
    last block of columns) the residual norm of a Ritz pair (theta, Q v) is ||S E^T v||, which
    costs no product (Golub and Van Loan, Matrix Computations, 10.3).

    Args:
        matmat: V `[P, b]` -> A V `[P, b]`.
        size: P.
        block: columns b of one product.
        ends: which eigenvalues count: the largest, the smallest, or both. Of K pairs of both, three
            fifths come from the top.
        dtype: of the basis; T is float64.
        seed: of the random start.
        start: first block `[P, b]` in place of a random one.
        storage: where the basis and the vectors live.

    Attributes:
        products: products of A with one vector so far, those of the check included.
    """

    def __init__(
        self,
        matmat: Callable[[Array], Array],
        size: int,
        *,
        block: int = 2,
        ends: Ends = "largest",
        dtype: Any = np.float64,
        seed: int = 0,
        start: Array | None = None,
        storage: Storage | None = None,
    ) -> None:
        self._storage = storage or Storage()
        self._matmat = matmat
        self._size = size
        self._block = block
        self._ends = ends
        self._rng = np.random.default_rng(seed)
        self._memory: Array = np.zeros((size, 0), dtype, order="F")
        self._projected = np.zeros((0, 0))
        first = self._random(min(block, size)) if start is None else start
        self._next = orthonormal_basis(first)
        self._starts = first.shape[1]
        self._coupling = np.zeros((0, 0))
        self._columns = 0
        self._last_width = 0
        self.products = 0

    def converge(self, rank: int, tolerance: float, max_columns: int) -> tuple[RitzPairs, bool]:
        """Extend the basis until the K outermost pairs R = A U - U Theta have ||R||_F <= tolerance.

        Small residuals do not show that the pairs are the outermost: a Krylov space that grew from
        b random columns holds at most b copies of an equal eigenvalue. So where b of the pairs are
        equal, a few steps from a fresh random vector, on what A leaves outside the pairs, must
        bring none further out to light; otherwise a fresh block joins the basis. (To miss an
        eigenvalue otherwise, all b columns would have to be nearly orthogonal to its vector.)

        Args:
            rank: K.
            tolerance: on the Frobenius norm of the residuals.
            max_columns: of the basis, the limit of the effort.

        Returns:
            The pairs, and whether they met the tolerance and stood the check.
        """
        met = self._reach(rank, tolerance, max_columns)
        pairs = self.pairs(rank)
        while met and self._may_hide_copies(pairs, tolerance) and self._hides(pairs, tolerance):
            met = self._columns < max_columns
            if met:
                self._join_fresh_block()
                for _ in range(CHECK_STEPS):
                    self._extend()
                met = self._reach(rank, tolerance, max_columns)
                pairs = self.pairs(rank)
        return pairs, met

    def _reach(self, rank: int, tolerance: float, max_columns: int) -> bool:
        """Extend the basis until the K outermost residuals are small, or say that it is full."""
        limit = min(self._size, max_columns)
        self._reserve(min(limit, 3 * rank))  # mostly enough; a column not used costs nothing
        while self._columns < min(rank, limit):
            self._extend()
        while True:
            theta, _, residuals = self._ritz()
            residuals = residuals[self._outermost(len(theta), rank)]
            if len(residuals) == min(rank, self._size) and np.linalg.norm(residuals) <= tolerance:
                return True
            if self._columns >= limit:
                return False
            # The small eigenproblem grows with the basis; the products should stay what costs.
            for _ in range(1 + self._columns // 256):
                if self._columns < limit:
                    self._extend()

    def _may_hide_copies(self, pairs: RitzPairs, tolerance: float) -> bool:
        """Whether as many pairs are equal as the basis could hold copies of one eigenvalue."""
        if self._columns >= self._size:
            return False
        values = pairs.values
        # Descending values: theta_k - theta_k+b-1 is how far b neighbours lie apart.
        spread = values[: len(values) - self._starts + 1] - values[self._starts - 1 :]
        equal = np.maximum(tolerance, _EQUAL * np.abs(values[self._starts - 1 :]))
        return bool(np.any(spread <= equal))

    def _hides(self, pairs: RitzPairs, tolerance: float) -> bool:
        """Whether (I - U U^T) A (I - U U^T) reaches beyond the pairs, by a fresh random vector."""
        vectors = pairs.vectors

        def outside(block: Array) -> Array:
            inside = project_out(vectors, block)
            self.products += block.shape[1]
            return project_out(vectors, self._matmat(inside).astype(block.dtype, copy=False))

        start = project_out(vectors, self._random(1))
        chain = BlockLanczos(outside, self._size, dtype=self._memory.dtype, start=start)
        while chain._columns < min(CHECK_STEPS, self._size - vectors.shape[1]):
            chain._extend()
        found = chain._ritz()[0]
        inner_low, inner_high = np.split(pairs.values[::-1], [pairs.n_lowest])
        below = pairs.n_lowest > 0 and not found[0] >= inner_low[-1] - tolerance
        above = len(inner_high) > 0 and not found[-1] <= inner_high[0] + tolerance
        return bool(below or above)

    def _join_fresh_block(self) -> None:
        """Widen the next block by random columns, orthogonal to everything so far."""
        taken = self._columns + self._next.shape[1]
        count = min(self._block, self._size - taken)
        known = np.hstack([self._basis, self._next])
        fresh = orthonormal_basis(project_out(known, self._random(count)))
        fresh = orthonormal_basis(project_out(known, fresh))
        self._next = np.hstack([self._next, fresh])
        self._starts += count
        self._coupling = np.vstack([self._coupling, np.zeros((count, self._coupling.shape[1]))])

    def pairs(self, rank: int) -> RitzPairs:
        """The K outermost Ritz pairs of the basis as it is now, whether or not they have converged.

        Args:
            rank: K; fewer pairs come back where the basis has fewer columns.
        """
        theta, v, residuals = self._ritz()
        top = self._outermost(len(theta), rank)
        out = self._storage.empty((self._size, len(top)), self._memory.dtype)
        return RitzPairs(
            values=theta[top],
            vectors=np.matmul(self._basis, v[:, top].astype(self._memory.dtype), out=out),
            residual_norms=residuals[top],
            smallest=float(theta[0]),
            smallest_residual=float(residuals[0]),
            n_lowest=self._counts(len(top))[0],
        )

    def _counts(self, rank: int) -> tuple[int, int]:
        """How many of K pairs belong to the low end of the spectrum, and how many to the high."""
        low = {"largest": 0, "smallest": rank, "both": 2 * rank // 5}[self._ends]
        return low, rank - low

    def _outermost(self, count: int, rank: int) -> Array:
        """Indices of the K outermost among `count` ascending values, the largest first."""
        low, high = self._counts(min(rank, count))
        places = np.arange(count)
        return np.concatenate([places[:low], places[count - high :]])[::-1]

    def _ritz(self) -> tuple[Array, Array, Array]:
        """Ritz values (ascending), their vectors in the basis, and residual norms ||S E^T v||."""
        # A Q v - theta Q v = W S E^T v: only the last block of the small vector v is left over.
        theta, v = np.linalg.eigh((self._projected + self._projected.T) / 2)
        return theta, v, np.linalg.norm(self._coupling @ v[len(v) - self._last_width :], axis=0)

    @property
    def _basis(self) -> Array:
        """The filled columns Q `[P, k]` of the memory that is reserved for the basis."""
        return self._memory[:, : self._columns]

    def _random(self, count: int) -> Array:
        """Standard normal columns `[P, count]` in the precision of the basis."""
        return self._rng.standard_normal((self._size, count)).astype(self._memory.dtype)

    def _extend(self) -> None:
        """Take the next block into the basis, multiply it by A, and find the block after it."""
        done, width = self._columns, self._next.shape[1]
        if not width:
            return
        self._reserve(done + width)
        self._memory[:, done : done + width] = self._next
        near = done - self._last_width
        self._columns, self._last_width = done + width, width
        self.products += width
        basis = self._basis
        image = np.asarray(self._matmat(self._next), basis.dtype)
        # The three-term recurrence first: the basis, which is what costs, then has to be read
        # only once more to remove the rounding.
        local, rest = split(basis[:, near:], image)
        coefficients, rest = split(basis, rest, rounds=1, overwrite=True)
        removed = np.linalg.norm(coefficients)
        coefficients[near:] += local
        following = orthonormal_basis(rest)[:, : self._size - self._columns]
        self._coupling = inner_products(following, rest)
        left = np.linalg.svd(self._coupling, compute_uv=False)
        # Where the Krylov space is exhausted, what is left is rounding and the recurrence does not
        # hold: one round takes out as much as it leaves, and errors of the basis would grow.
        if np.min(left, initial=np.inf) < max(_LOST * np.linalg.norm(image), removed):
            following = orthonormal_basis(project_out(basis, following))
        self._next = following
        # T grows by Q^T A of the new block as columns and, A being symmetric, as rows.
        projected = np.zeros((self._columns, self._columns))
        projected[:done, :done] = self._projected
        projected[:, done:] = coefficients
        projected[done:, :] = coefficients.T
        self._projected = projected

    def _reserve(self, columns: int) -> None:
        """Make room for so many columns, at least doubling it so that copies stay rare."""
        if columns > self._memory.shape[1]:
            shape = (max(columns, 2 * self._columns), self._size)
            grown = self._storage.empty(shape, self._memory.dtype).T
            grown[:, : self._columns] = self._basis
            self._memory = grown
