"""Leading eigenpairs of a positive semidefinite operator from few passes: the Nystrom method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.linalg.orthogonal import orthonormal_basis, project_out

__all__ = ["NystromSketch"]

Array = npt.NDArray[Any]


class NystromSketch:
    """A growing sketch Y = A Q of a positive semidefinite operator, Q orthonormal.

    The approximation A^ = Y (Q^T Y)^+ Y^T never exceeds A in the semidefinite order, converged or
    not (Tropp, Yurtsever, Udell, Cevher 2017, "Fixed-rank approximation of a positive-semidefinite
    matrix from streaming data"). Columns can be added later; what was computed is kept.

    Args:
        matmat: V `[P, m]` -> A V `[P, m]`. One call is one pass over the data.
        size: P.
        passes: calls of `matmat` for every block of columns; two give leading eigenvalues to about
            1e-3 where one gives 1e-1.
        epsilon: relative rounding of `matmat`; directions that drown in it are left out, since
            they would make A^ exceed A.
        seed: of the random start.
    """

    def __init__(
        self,
        matmat: Callable[[Array], Array],
        size: int,
        *,
        passes: int = 2,
        epsilon: float = 2.3e-16,
        seed: int = 0,
    ) -> None:
        self._matmat = matmat
        self._size = size
        self._passes = passes
        self._epsilon = epsilon
        self._rng = np.random.default_rng(seed)
        self._q = np.zeros((size, 0))
        self._y = np.zeros((size, 0))
        self.products = 0

    @property
    def columns(self) -> int:
        """Columns of the sketch, an upper limit of its rank."""
        return int(self._q.shape[1])

    def grow(self, columns: int) -> None:
        """Sketch more columns until there are so many (at most P)."""
        count = min(columns, self._size) - self.columns
        if count <= 0:
            return
        block = self._rng.standard_normal((self._size, count))
        for _ in range(self._passes - 1):
            block = self._multiply(self._new_directions(block))
        directions = self._new_directions(block)
        self._y = np.hstack([self._y, self._multiply(directions)])
        self._q = np.hstack([self._q, directions])

    def eigenpairs(self, rank: int) -> tuple[Array, Array]:
        """Leading eigenvalues `[K]` (descending) and vectors `[P, K]` of A^, float64.

        K is `rank`, or fewer where A^ has a smaller rank in the working precision.
        """
        core = self._q.T @ self._y
        theta, v = np.linalg.eigh((core + core.T) / 2)
        floor = 10 * np.sqrt(self.columns) * self._epsilon * max(float(theta[-1]), 0.0)
        keep = theta > floor
        half = self._y @ (v[:, keep] / np.sqrt(theta[keep]))
        s, w = np.linalg.eigh(half.T @ half)
        order = np.argsort(s)[::-1][:rank]
        order = order[s[order] > floor]
        return s[order], half @ (w[:, order] / np.sqrt(s[order]))

    def _new_directions(self, block: Array) -> Array:
        basis = orthonormal_basis(project_out(self._q, block))
        if self.columns:
            basis = orthonormal_basis(project_out(self._q, basis))
        return basis

    def _multiply(self, block: Array) -> Array:
        self.products += block.shape[1]
        return self._matmat(block)
