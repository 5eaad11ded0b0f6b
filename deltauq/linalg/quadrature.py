"""Bounds of X f(T) X^T from few products with a symmetric T, for many blocks X of rows at once.

Block Lanczos on every X gives a small matrix T_k; quadrature rules turn it into bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.linalg.passes import Asking, alone
from deltauq.linalg.projected import bordered

__all__ = ["Krylov", "MatrixForms", "bound_matrix_forms", "bounding_matrix_forms", "gauss_radau"]

Array = npt.NDArray[Any]


#: Share of the largest pivot under which a row is mostly rounding.
_LOST = 1e-3


@dataclass(frozen=True)
class MatrixForms:
    """Bounds, in the semidefinite order, of a form X f(T) X^T for each block X of rows.

    Attributes:
        low: lower bounds `[B, C, C]`.
        high: upper bounds `[B, C, C]`.
        steps: products with T that each block took `[B]`.
        enough: whether the bounds were close enough `[B]`.
    """

    low: Array
    high: Array
    steps: Array
    enough: Array


@dataclass(frozen=True)
class Krylov:
    """Block Lanczos from b blocks X = L Q_1 of rows: Q of k blocks, and T_k = Q T Q^T.

    Attributes:
        numbers: which of the blocks X these are `[b]`.
        first: L `[b, C, C]`.
        projected: T_k `[b, k C, k C]`.
        coupling: B `[b, C, C]`, of the next block to the last one.
        basis: Q_1, ..., Q_k, `[b, C, P]` each.
    """

    numbers: Array
    first: Array
    projected: Array
    coupling: Array
    basis: list[Array]

    def apply(self, function: Callable[[Array], Array], *, drop: int = 0) -> Array:
        """Coefficients C `[b, C, k C]` with X f(T) nearly C Q, from all steps but the last ones.

        Without a step T counts as zero, and X f(T) as f(0) X; before that, as zero.

        Args:
            function: f, of eigenvalues.
            drop: how many of the last steps are left out.
        """
        width = self.first.shape[1]
        size = self.projected.shape[1]
        if drop * width > size:
            return np.zeros((len(self.first), width, size))
        projected = self.projected.copy()
        used = size - drop * width
        projected[:, used:], projected[:, :, used:] = 0.0, 0.0
        # X f(T) is nearly L E_1^T f(T_k) Q, with f(T_k) from its eigenpairs.
        values, vectors = np.linalg.eigh(projected)
        start = self.first @ vectors[:, :width]
        return np.asarray((start * function(values)[:, None]) @ np.swapaxes(vectors, 1, 2))

    def combine(self, coefficients: Array) -> Array:
        """Rows in the full space of coefficients in the basis: C Q.

        Args:
            coefficients: C `[..., b, C, k C]`.

        Returns:
            `[..., b, C, P]`.
        """
        parts = np.split(coefficients.astype(self.basis[0].dtype), len(self.basis), axis=-1)
        total = parts[0] @ self.basis[0]
        for part, block in zip(parts[1:], self.basis[1:], strict=True):
            total += part @ block
        return np.asarray(total)


def bound_matrix_forms(
    matmat: Callable[[Array], Array],
    rows: Array,
    rule: Callable[[Krylov], tuple[Array, Array]],
    *,
    is_enough: Callable[[Array, Array, Array], Array],
    max_steps: int,
) -> MatrixForms:
    """Bound a form X f(T) X^T for several blocks X, each until its bounds are close enough.

    Args:
        matmat: V `[P, m]` -> T V.
        rows: the blocks X, `[B, C, P]`, with (max_steps + 1) C <= P.
        rule: what it bounds them by, such as `gauss_radau`; `[b, C, C]` twice.
        is_enough: bounds `[b, C, C]` of some blocks, and their numbers `[b]` -> whether each is.
        max_steps: products with T, at most.
    """
    iteration = bounding_matrix_forms(rows, rule, is_enough=is_enough, max_steps=max_steps)
    return alone(matmat, iteration)


def bounding_matrix_forms(
    rows: Array,
    rule: Callable[[Krylov], tuple[Array, Array]],
    *,
    is_enough: Callable[[Array, Array, Array], Array],
    max_steps: int,
) -> Asking[MatrixForms]:
    """Bound forms as `bound_matrix_forms`, asking for products with T as `passes` has them."""
    count, width, _ = rows.shape
    low, high = np.zeros((2, count, width, width))
    steps, enough = np.zeros(count, int), np.zeros(count, bool)
    active = np.arange(count)
    first, following = _orthonormal(rows)
    basis: list[Array] = []
    projected = np.zeros((count, 0, 0))
    for step in range(1, max_steps + 1):
        # One step for all blocks that are not close enough yet: they share a product with T.
        basis.append(following)
        image = (yield _columns(following)).T.reshape(following.shape)
        coefficients, image = _split(basis, image)
        projected = bordered(projected, coefficients)
        left, following = _following(basis, image)
        lower, upper = rule(Krylov(active, first, projected, np.swapaxes(left, 1, 2), basis))
        low[active], high[active], steps[active] = lower, upper, step
        enough[active] = is_enough(lower, upper, active)
        going = ~enough[active]
        if not np.any(going):
            break
        if np.all(going):
            continue
        active, first, following = active[going], first[going], following[going]
        for k, block in enumerate(basis):  # one by one: all of them twice may not fit
            basis[k] = block[going]
        del block
        projected = projected[going]
    return MatrixForms(low, high, steps, enough)


def gauss_radau(krylov: Krylov, node: float) -> tuple[Array, Array]:
    """Bounds of X T^-1 X^T, `[b, C, C]` each, where T is positive definite.

    With W = [T_k^-1]_k1 L^T, the inverse of T in blocks says

        X T^-1 X^T = L [T_k^-1]_11 L^T + W^T B^T S^-1 B W,

    where S is the Schur complement of T_k in T. The first term alone is Gauss quadrature, a lower
    bound. T - a I >= 0 gives S >= a I + B ([(T_k - a I)^-1]_kk - [T_k^-1]_kk) B^T, and so
    Gauss-Radau quadrature with the node a, an upper bound (Golub and Meurant 2010, Matrices,
    Moments and Quadrature, chapter 6).

    Args:
        krylov: of T.
        node: a, below every eigenvalue of T and above zero.
    """
    first, projected, coupling = krylov.first, krylov.projected, krylov.coupling
    width = first.shape[1]
    # First and last block columns of T_k^-1 by one solve: [.]_11, [.]_k1 and [.]_kk.
    ends = np.zeros((projected.shape[1], 2 * width))
    ends[:width, :width] = ends[-width:, width:] = np.eye(width)
    inverse = np.linalg.solve(projected, ends)
    low = first @ inverse[:, :width, :width] @ np.swapaxes(first, 1, 2)  # Gauss
    # Gauss-Radau: the least Schur complement that T - a I >= 0 allows.
    shifted = projected - node * np.eye(projected.shape[1])
    from_node = np.linalg.solve(shifted, ends[:, width:])
    gain = from_node[:, -width:] - inverse[:, -width:, width:]
    schur = node * np.eye(width) + coupling @ gain @ np.swapaxes(coupling, 1, 2)
    out = coupling @ inverse[:, -width:, :width] @ np.swapaxes(first, 1, 2)
    high = low + np.swapaxes(out, 1, 2) @ np.linalg.solve(_symmetric(schur), out)
    return _symmetric(low), _symmetric(high)


def _orthonormal(rows: Array) -> tuple[Array, Array]:
    """X = L Q with orthonormal rows of Q, for each block: L `[B, C, C]` and Q `[B, C, P]`."""
    q, r = np.linalg.qr(np.swapaxes(rows, 1, 2))
    return np.swapaxes(r, 1, 2).astype(np.float64), np.ascontiguousarray(np.swapaxes(q, 1, 2))


def _following(basis: list[Array], image: Array) -> tuple[Array, Array]:
    """L and Q as from `_orthonormal`, Q orthogonal to the basis even where X is rank-deficient."""
    left, following = _orthonormal(image)
    pivots = np.abs(np.einsum("bcc->bc", left))
    if np.any(pivots < _LOST * np.max(pivots)):
        change, following = _orthonormal(_split(basis, following)[1])
        left = left @ change
    return left, following


def _columns(blocks: Array) -> Array:
    """The rows of all blocks as columns."""
    return np.ascontiguousarray(blocks.reshape(-1, blocks.shape[2]).T)


def _split(basis: list[Array], image: Array) -> tuple[Array, Array]:
    """Coefficients of the image in the basis, `[B, k C, C]`, and what is outside it."""
    totals = [np.zeros((len(image), image.shape[1], image.shape[1])) for _ in basis]
    for _ in range(2):  # twice: the second round removes what rounding left in the first
        for block, total in zip(basis, totals, strict=True):
            inside = block @ np.swapaxes(image, 1, 2)
            image = image - np.swapaxes(inside, 1, 2) @ block
            total += inside
    return np.concatenate(totals, axis=1), image


def _symmetric(matrices: Array) -> Array:
    """The symmetric part of each of some matrices."""
    return (matrices + np.swapaxes(matrices, 1, 2)) / 2
