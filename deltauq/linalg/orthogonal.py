"""Orthonormal bases of tall matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

__all__ = ["orthonormal_basis", "project_out"]

Array = npt.NDArray[Any]


def orthonormal_basis(y: Array) -> Array:
    """Orthonormal columns that span those of a tall matrix, `[P, m] -> [P, m]`.

    CholeskyQR2 in float64: Y = Q R with R from the Cholesky factor of Y^T Y, twice, so that the
    second round removes what the first lost (Yamamoto et al. 2015). Where Y is too ill-conditioned
    for it (above about 1e7), Householder QR, which is slower and never fails.

    Args:
        y: `[P, m]`, m <= P.

    Returns:
        float64 `[P, m]`, orthonormal to rounding even where Y is rank-deficient.
    """
    q = np.asarray(y, dtype=np.float64)
    norms = np.linalg.norm(q, axis=0)
    q = q / np.where(norms > 0, norms, 1.0)
    for _ in range(2):
        try:
            factor = np.linalg.cholesky(q.T @ q)
        except np.linalg.LinAlgError:
            return _householder(y)
        if np.min(np.diag(factor), initial=1.0) < 1e-7:
            return _householder(y)
        q = scipy.linalg.solve_triangular(factor, q.T, lower=True, check_finite=False).T
    return np.ascontiguousarray(q)


def project_out(q: Array, y: Array) -> Array:
    """(I - Q Q^T) Y, twice: once leaves a remainder when Y lies nearly inside Q's span."""
    for _ in range(2):
        y = y - q @ (q.T @ y)
    return y


def _householder(y: Array) -> Array:
    q: Array = scipy.linalg.qr(np.asarray(y, dtype=np.float64), mode="economic")[0]
    return q
