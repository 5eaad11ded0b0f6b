"""Eigenpairs at the ends of a symmetric operator's spectrum: block Lanczos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.linalg.orthogonal import orthonormal_basis, project_out

__all__ = ["RitzPairs", "lanczos"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RitzPairs:
    """Approximate eigenpairs from a Krylov space, values descending.

    Attributes:
        values: Ritz values theta `[K]`.
        vectors: orthonormal Ritz vectors `[P, K]`.
        residual_norms: ||A u - theta u|| `[K]`; an eigenvalue lies that close to theta.
        smallest: the smallest Ritz value; the smallest eigenvalue is not above it, and one lies
            within `smallest_residual` of it.
        smallest_residual: the residual norm of that pair.
        products: products of A with one vector that were spent.
        converged: all residuals met the tolerance.
    """

    values: Array
    vectors: Array
    residual_norms: Array
    smallest: float
    smallest_residual: float
    products: int
    converged: bool


def lanczos(
    matmat: Callable[[Array], Array],
    size: int,
    rank: int,
    *,
    tolerance: float,
    block: int = 4,
    max_columns: int | None = None,
    dtype: Any = np.float64,
    seed: int = 0,
) -> RitzPairs:
    """The K largest eigenvalues and their vectors, by block Lanczos.

    The Krylov basis Q is reorthogonalised in full, twice, so that no ghost eigenvalues appear, and
    the projected matrix T = Q^T A Q is kept in full. With A Q = Q T + W S E^T (W orthonormal, E the
    last block of columns) the residual of a Ritz pair is ||S E^T v||: it costs no product.

    Args:
        matmat: V `[P, b]` -> A V `[P, b]`.
        size: P.
        rank: K.
        tolerance: on the residual norm of each of the K pairs.
        block: columns a product.
        max_columns: of the basis; by default 6 K + 120. The basis is what takes memory.
        dtype: of the basis; T is float64.
        seed: of the random start.

    Returns:
        The pairs, converged or not.
    """
    limit = min(size, max_columns or 6 * rank + 120)
    basis = np.zeros((size, limit + block), dtype, order="F")
    start = np.random.default_rng(seed).standard_normal((size, min(block, size)))
    basis[:, : start.shape[1]] = orthonormal_basis(start)
    projected = np.zeros((limit + block, limit + block))
    done, filled, check_at = 0, start.shape[1], rank
    while True:
        image = np.asarray(matmat(basis[:, done:filled]), np.float64)
        coefficients = np.asarray(basis[:, :filled].T @ image.astype(dtype), np.float64)
        projected[:filled, done:filled] = coefficients
        projected[done:filled, :filled] = coefficients.T
        done = filled
        rest = project_out(basis[:, :filled], image - basis[:, :filled] @ coefficients)
        following = orthonormal_basis(rest)[:, : size - filled]
        step = following.T @ rest
        last = filled >= limit
        if filled >= check_at or last:
            pairs = _ritz(basis[:, :filled], projected[:filled, :filled], step, rank, tolerance)
            if pairs.converged or last:
                return pairs
            check_at = filled + max(block, filled // 8)
        following = orthonormal_basis(project_out(basis[:, :filled], following))
        basis[:, filled : filled + following.shape[1]] = following
        filled += following.shape[1]


def _ritz(basis: Array, projected: Array, step: Array, rank: int, tolerance: float) -> RitzPairs:
    theta, v = np.linalg.eigh((projected + projected.T) / 2)
    last = v[len(v) - step.shape[1] :]
    residual = np.linalg.norm(step @ last, axis=0)
    top = np.arange(len(theta))[::-1][:rank]
    enough = len(top) == rank or not step.size
    return RitzPairs(
        values=theta[top],
        vectors=basis @ v[:, top].astype(basis.dtype),
        residual_norms=residual[top],
        smallest=float(theta[0]),
        smallest_residual=float(residual[0]),
        products=basis.shape[1],
        converged=bool(enough and np.all(residual[top] <= tolerance)),
    )
