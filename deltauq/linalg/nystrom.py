"""Leading eigenpairs of a positive semidefinite operator from few passes, by the Nystrom method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.linalg.orthogonal import (
    blocks,
    combine,
    inner_products,
    orthonormal_basis,
    project_out,
)
from deltauq.linalg.storage import Storage
from deltauq.runtime.steps import Steps

__all__ = ["NystromSketch"]

Array = npt.NDArray[Any]

#: Puts the product of an operator with its first argument into the second.
Multiply = Callable[[Array, Array], Any]

#: Rows of Q and Y, about, by which a step is told from one with another sketch.
_TOLD_BY = 4096


class NystromSketch:
    """A growing sketch Y = A Q of a positive semidefinite operator, Q orthonormal.

    The approximation A^ = Y (Q^T Y)^+ Y^T never exceeds A in the semidefinite order, converged or
    not (Tropp, Yurtsever, Udell, Cevher 2017, "Fixed-rank approximation of a positive-semidefinite
    matrix from streaming data"). Columns can be added later; what was computed is kept.

    Args:
        matmat: V `[P, m]`, out `[P, m]` -> None; puts A V there. One call is one pass over what A
            is made of. Y comes from it, whatever Q was found with.
        size: P.
        passes: calls of `matmat` for every block of columns; two give leading eigenvalues to about
            1e-3 where one gives 1e-1.
        dtype: of Q, Y and the products. Directions that drown in its rounding are left out, since
            they would make A^ exceed A.
        seed: of the random start.
        storage: where Q, Y and the eigenvectors live.
        fresh: random columns that are multiplied by A in the first block's last pass but stay out
            of the sketch, of which they are independent.
        steps: of which the linear algebra is some; None computes them.

    Attributes:
        products: products of A with one vector so far, those of an estimate of A not counted.
        fresh: Z and A Z, `[P, fresh]` each.
    """

    def __init__(
        self,
        matmat: Multiply,
        size: int,
        *,
        passes: int = 2,
        dtype: Any = np.float64,
        seed: int = 0,
        storage: Storage | None = None,
        fresh: int = 0,
        steps: Steps | None = None,
    ) -> None:
        self._storage = storage or Storage()
        self._steps = steps or Steps()
        self._matmat = matmat
        self._size = size
        self._n_fresh = fresh
        self._passes = passes
        self._dtype = np.dtype(dtype)
        self._rng = np.random.default_rng(seed)
        self._q: Array = np.zeros((size, 0), dtype)
        self._y: Array = np.zeros((size, 0), dtype)
        self.products = 0
        self.fresh: tuple[Array, Array] = (self._q, self._y)

    @classmethod
    def along(
        cls, matmat: Multiply, columns: Array, dtype: Any, storage: Storage | None = None
    ) -> NystromSketch:
        """Sketch an operator along columns that are given, by one call of `matmat`.

        Args:
            matmat: as for the class.
            columns: `[P, m]`, almost orthonormal.
            dtype: of Q, Y and the products.
            storage: as for the class.
        """
        sketch = cls(matmat, len(columns), passes=1, dtype=dtype, storage=storage)
        q = sketch._storage.empty(columns.shape, sketch._dtype)
        q[:] = columns
        sketch._q = orthonormal_basis(q, overwrite=True)
        sketch._y = sketch._multiply(sketch._q)
        return sketch

    @property
    def columns(self) -> int:
        """Number of columns of the sketch so far, an upper limit of its rank."""
        return int(self._q.shape[1])

    def grow(self, columns: int, search: Multiply | None = None) -> None:
        """Sketch further columns until there are as many as asked for, at most P.

        Costs `passes` calls of `matmat` with the columns that are new.

        Args:
            columns: how many the sketch should have in all; fewer than it has change nothing.
            search: takes the place of `matmat` in all passes but the last. An estimate of A will
                do there, as they only choose Q: A^ stays below A for any.
        """
        count = min(columns, self._size) - self.columns
        if count <= 0:
            return
        # Subspace iteration from a random start (Halko, Martinsson, Tropp 2011, SIAM Review 53):
        # a basis between two products, without which every column would turn to the first vector.
        block = self._random(count)
        for _ in range(self._passes - 1):
            block = self._new_directions(block)
            block = self._multiply(block) if search is None else self._image(search, block)
        block = self._new_directions(block)
        if not self.columns:
            block = self._beside(block, self._random(self._n_fresh))
        image = self._multiply(block)
        if not self.columns:
            self.fresh = block[:, count:].copy(), image[:, count:].copy()
        self._y = self._beside(self._y, image[:, :count])
        self._q = self._beside(self._q, block[:, :count])

    def plus(self, matmat: Multiply) -> NystromSketch:
        """The sketch of A + B with the same Q, where B is semidefinite too.

        Args:
            matmat: as for A, of B.
        """
        both = copy.copy(self)
        both._y = self._image(matmat, self._q)
        both._y += self._y
        return both

    def forget(self) -> None:
        """Give back the memory of Q and Y, where neither eigenpairs nor columns are to follow."""
        self._q = self._y = np.zeros((self._size, 0), self._dtype)

    def eigenpairs(self, rank: int) -> tuple[Array, Array, Array]:
        """Leading eigenpairs of A^, and how far its eigenvectors reach out of Q.

        Since A^ Q = A Q, a pair (s, u) of A^ has the residual A u - s u = (A - A^)(u - Q Q^T u),
        of norm at most ||A - A^|| ||u - Q Q^T u||, and trace(A) - trace(A^) bounds the first.

        Args:
            rank: K at most; fewer where A^ has a smaller rank in the working precision.

        Returns:
            All values of A^, descending, float64; vectors `[P, K]` of the K largest and their
            ||u - Q Q^T u|| `[K]`.
        """
        epsilon = np.finfo(self._dtype).eps
        # A^ = B B^T with B = Y (Q^T Y)^-1/2 (Tropp et al. 2017), the root from eigenvalues in place
        # of a shifted Cholesky factor: what drowns in rounding drops out, and no shift is to be
        # paid back.
        core, squares = self._cores()
        theta, v = np.linalg.eigh((core + core.T) / 2)
        floor = 10 * np.sqrt(self.columns) * epsilon * max(float(theta[-1]), 0.0)
        keep = theta > floor
        half = v[:, keep] / np.sqrt(theta[keep])
        # The eigenvalues of B B^T are those of the small B^T B, and u = B w / sqrt(s).
        s, w = np.linalg.eigh(half.T @ squares @ half)
        order = np.argsort(s)[::-1]
        order = order[s[order] > floor]
        top = order[:rank]
        out = self._storage.empty((self._size, len(top)), self._dtype)
        vectors = combine(self._y, half @ (w[:, top] / np.sqrt(s[top])), out=out)
        # ||u - Q Q^T u||^2 = 1 - ||Q^T u||^2, no nearer to zero than rounding can tell.
        inside = np.empty(len(top))

        def project() -> None:
            inside[:] = np.sum(inner_products(self._q, vectors) ** 2, axis=0)

        self._steps.kept("vectors along the sketch", (self._some(vectors),), (inside,), project)
        return s[order], vectors, np.sqrt(np.maximum(1.0 - inside, epsilon))

    def _cores(self) -> tuple[Array, Array]:
        """The small matrices Q^T Y and Y^T Y that eigenpairs are made of."""
        core, squares = np.empty((2, self.columns, self.columns))

        def multiply() -> None:
            core[:] = inner_products(self._q, self._y)
            squares[:] = inner_products(self._y, self._y)

        told_by = self._some(self._q), self._some(self._y)
        self._steps.kept("inner products of the sketch", told_by, (core, squares), multiply)
        return core, squares

    def _some(self, columns: Array) -> Array:
        """Some rows of tall columns, from all over them."""
        return columns[:: max(1, self._size // _TOLD_BY)]

    def _random(self, count: int) -> Array:
        """Standard normal columns `[P, count]`, drawn in float32 block by block to save memory."""
        block = self._storage.empty((self._size, count), self._dtype)
        for rows in blocks(self._size):
            some = block[rows]
            some[:] = self._rng.standard_normal(some.shape, np.float32)
        return block

    def _new_directions(self, block: Array) -> Array:
        """An orthonormal basis of the block outside Q, in the block's place."""

        def turn() -> None:
            for _ in range(2 if self.columns else 1):
                if self.columns:
                    project_out(self._q, block, overwrite=True)
                orthonormal_basis(block, overwrite=True)

        self._steps.kept(f"directions beside {self.columns} others", (block,), (block,), turn)
        return block

    def _multiply(self, block: Array) -> Array:
        """A times a block `[P, m]`, counted as m products."""
        self.products += block.shape[1]
        return self._image(self._matmat, block)

    def _image(self, matmat: Multiply, block: Array) -> Array:
        image = self._storage.empty(block.shape, self._dtype)
        matmat(block, image)
        return image

    def _beside(self, left: Array, right: Array) -> Array:
        """Two blocks of columns side by side, without a copy where one of them has none."""
        if not left.shape[1] or not right.shape[1]:
            return right if right.shape[1] else left
        shape = (self._size, left.shape[1] + right.shape[1])
        return np.concatenate([left, right], axis=1, out=self._storage.empty(shape, self._dtype))
