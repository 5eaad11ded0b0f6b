"""Eigenpairs at the ends of a symmetric operator's spectrum: block Lanczos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.linalg.orthogonal import orthonormal_basis, project_out

__all__ = ["BlockLanczos", "RitzPairs"]

Array = npt.NDArray[Any]

#: Steps from a fresh random block that must bring no larger eigenvalue to light.
_CHECK_STEPS = 4


@dataclass(frozen=True)
class RitzPairs:
    """Approximate eigenpairs from a Krylov space, values descending.

    Attributes:
        values: Ritz values theta `[K]`.
        vectors: orthonormal Ritz vectors `[P, K]`.
        residual_norms: ||A u - theta u|| `[K]`; an eigenvalue lies that close to theta.
        smallest: the smallest Ritz value. The smallest eigenvalue is not above it, and some
            eigenvalue lies within `smallest_residual` of it.
        smallest_residual: the residual norm of that pair.
    """

    values: Array
    vectors: Array
    residual_norms: Array
    smallest: float
    smallest_residual: float


class BlockLanczos:
    """A growing Krylov basis Q of a symmetric operator, and the Ritz pairs it holds.

    The basis is reorthogonalised in full, twice, so that no ghost eigenvalues appear, and the
    projected matrix T = Q^T A Q is kept in full. With A Q = Q T + W S E^T (W orthonormal, E the
    last block of columns) the residual norm of a Ritz pair (theta, Q v) is ||S E^T v||, which
    costs no product (Golub and Van Loan, Matrix Computations, 10.3).

    Args:
        matmat: V `[P, b]` -> A V `[P, b]`.
        size: P.
        block: columns a product.
        dtype: of the basis; T is float64.
        seed: of the random start.

    Attributes:
        products: products of A with one vector so far.
    """

    def __init__(
        self,
        matmat: Callable[[Array], Array],
        size: int,
        *,
        block: int = 4,
        dtype: Any = np.float64,
        seed: int = 0,
    ) -> None:
        self._matmat = matmat
        self._size = size
        self._block = block
        self._rng = np.random.default_rng(seed)
        start = self._rng.standard_normal((size, min(block, size)))
        self._storage: Array = np.zeros((size, 0), dtype, order="F")
        self._projected = np.zeros((0, 0))
        self._next = orthonormal_basis(start)
        self._coupling = np.zeros((0, 0))
        self.products = 0

    def converge(self, rank: int, tolerance: float, max_columns: int) -> tuple[RitzPairs, bool]:
        """Extend the basis until the K largest pairs have residuals within the tolerance.

        Small residuals do not show that the pairs are the largest: a Krylov space of block b holds
        at most b copies of an equal eigenvalue. So a fresh random block joins the basis then, and
        the pairs count as the largest once a few more steps from it bring no larger ones to light.

        Args:
            rank: K.
            tolerance: on each residual norm.
            max_columns: of the basis, the limit of the effort.

        Returns:
            The pairs, and whether all of them met the tolerance and stood the check.
        """
        met = self._reach(rank, tolerance, max_columns)
        while met and self.products < self._size:
            before = self._ritz()[0][-rank:]
            self._join_fresh_block()
            for _ in range(_CHECK_STEPS):
                self._extend()
            met = self._reach(rank, tolerance, max_columns)
            if met and np.max(self._ritz()[0][-rank:] - before) <= tolerance:
                break
            met = met and self.products < max_columns
        return self.pairs(rank), met

    def _reach(self, rank: int, tolerance: float, max_columns: int) -> bool:
        """Extend until the residuals of the K largest pairs are small, or the limit."""
        check_at = rank
        while True:
            last = self.products >= min(self._size, max_columns)
            if last or self.products >= min(check_at, self._size):
                residuals = self._ritz()[2][-rank:]
                met = len(residuals) == min(rank, self._size) and np.all(residuals <= tolerance)
                if met or last:
                    return bool(met)
                check_at = self.products + max(self._next.shape[1], self.products // 8)
            self._extend()

    def _join_fresh_block(self) -> None:
        """Widen the next block by random columns, orthogonal to everything so far."""
        taken = self.products + self._next.shape[1]
        count = min(self._block, self._size - taken)
        known = np.hstack([self._basis, self._next])
        fresh = self._rng.standard_normal((self._size, count)).astype(known.dtype)
        fresh = orthonormal_basis(project_out(known, orthonormal_basis(project_out(known, fresh))))
        self._next = np.hstack([self._next, fresh])
        self._coupling = np.vstack([self._coupling, np.zeros((count, self._coupling.shape[1]))])

    def pairs(self, rank: int) -> RitzPairs:
        """The K largest Ritz pairs of the present basis, and its smallest Ritz value."""
        theta, v, residuals = self._ritz()
        top = np.arange(len(theta))[::-1][:rank]
        return RitzPairs(
            values=theta[top],
            vectors=self._basis @ v[:, top].astype(self._storage.dtype),
            residual_norms=residuals[top],
            smallest=float(theta[0]),
            smallest_residual=float(residuals[0]),
        )

    def _ritz(self) -> tuple[Array, Array, Array]:
        """Ritz values (ascending), their vectors in the basis, and residual norms."""
        theta, v = np.linalg.eigh((self._projected + self._projected.T) / 2)
        return theta, v, np.linalg.norm(self._coupling @ v[len(v) - self._last_width :], axis=0)

    @property
    def _basis(self) -> Array:
        return self._storage[:, : self.products]

    def _extend(self) -> None:
        done, width = self.products, self._next.shape[1]
        if not width:
            return
        self._reserve(done + width)
        self._storage[:, done : done + width] = self._next
        self.products, self._last_width = done + width, width
        basis = self._basis
        image = np.asarray(self._matmat(basis[:, done:]), basis.dtype)
        coefficients = basis.T @ image
        projected = np.zeros((self.products, self.products))
        projected[:done, :done] = self._projected
        projected[:, done:] = coefficients
        projected[done:, :] = coefficients.T
        self._projected = projected
        rest = project_out(basis, image - basis @ coefficients)
        following = orthonormal_basis(rest)[:, : self._size - self.products]
        self._coupling = following.T @ rest
        self._next = orthonormal_basis(project_out(basis, following))

    def _reserve(self, columns: int) -> None:
        if columns > self._storage.shape[1]:
            grown = np.zeros(
                (self._size, max(columns, 2 * self.products)), self._storage.dtype, order="F"
            )
            grown[:, : self.products] = self._basis
            self._storage = grown
