"""Orthonormal bases of tall matrices, and products of tall matrices in pieces.

Tall matrices `[P, m]` may be float32: products among them are summed in float64 and read block by
block, so that no float64 copy of a whole one is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

__all__ = [
    "add_gram_product",
    "blocks",
    "combine",
    "inner_products",
    "orthonormal_basis",
    "project_out",
    "row_products",
    "split",
]

Array = npt.NDArray[Any]

#: Rows of a tall matrix that are brought to float64 at a time.
_BLOCK = 8192

#: Columns that are projected one by one.
_FEW = 4

#: Singular values under this share of the largest drown in the rounding of Y^T Y.
_RESOLVED = 1e-7


def add_gram_product(rows: Array, vectors: Array, total: Array) -> None:
    """Add R^T (R V) to a running total, in place and in one precision, by two BLAS calls.

    Args:
        rows: R `[n, P]`, C-contiguous.
        vectors: V `[P, m]`, C-contiguous.
        total: `[P, m]`, C-contiguous; changed.
    """
    gemm = scipy.linalg.get_blas_funcs("gemm", (rows, vectors, total))
    image = gemm(1.0, vectors.T, rows.T)  # (R V)^T: BLAS reads C order as the transpose
    gemm(1.0, image, rows.T, beta=1.0, c=total.T, trans_b=True, overwrite_c=True)


def inner_products(x: Array, y: Array) -> Array:
    """Products X^T Y summed in float64, of `[P, m]` and `[P, n]` in any precision: `[m, n]`."""
    total = np.zeros((x.shape[1], y.shape[1]))
    for rows in blocks(len(x)):
        left = x[rows].astype(np.float64)
        total += left.T @ (left if x is y else y[rows].astype(np.float64))
    return total


def row_products(x: Array, y: Array) -> Array:
    """Products X_b Y_b^T summed in float64, of `[B, m, P]` and `[B, n, P]`: `[B, m, n]`."""
    total = np.zeros((len(x), x.shape[1], y.shape[1]))
    for some in blocks(x.shape[2]):
        left = x[:, :, some].astype(np.float64)
        right = left if x is y else y[:, :, some].astype(np.float64)
        total += left @ np.swapaxes(right, 1, 2)
    return total


def combine(x: Array, coefficients: Array, out: Array | None = None) -> Array:
    """Linear combinations X C of tall columns, summed in float64 and returned in X's precision.

    Args:
        x: `[P, m]`.
        coefficients: C `[m, n]`.
        out: where to put the result `[P, n]`; may be X itself where n <= m.
    """
    if out is None:
        out = np.empty((len(x), coefficients.shape[1]), x.dtype)
    for rows in blocks(len(x)):
        out[rows, : coefficients.shape[1]] = x[rows].astype(np.float64) @ coefficients
    return out


def orthonormal_basis(y: Array, *, overwrite: bool = False) -> Array:
    """Orthonormal columns that span those of a tall matrix, `[P, m] -> [P, m]`.

    Two rounds, so that the second removes what the first lost (as CholeskyQR2, Yamamoto et al.
    2015): first Q = Y Z S^-1 from the eigenvectors of Y^T Y = Z S^2 Z^T, then Cholesky. The columns
    are then Y's left singular vectors, the largest first: columns of one size do not lose the
    small ones in the rounding of a later product. Where Y is too ill-conditioned for it (above
    about 1e7), Householder QR, which is slower and never fails.

    Args:
        y: `[P, m]`, m <= P, float32 or float64.
        overwrite: put the result where Y is.

    Returns:
        `[P, m]` in Y's precision, orthonormal to its rounding even where Y is rank-deficient.
    """
    if not y.shape[1]:
        return y
    # Columns of unit length first: their lengths, which may differ by decades, then cost no digits.
    gram = inner_products(y, y)
    norms = np.sqrt(np.diag(gram))
    norms = np.where(norms > 0, norms, 1.0)
    squares, z = np.linalg.eigh(gram / norms[:, None] / norms)
    if squares[0] < _RESOLVED**2 * squares[-1] or not squares[-1] > 0:
        return _householder(y, y if overwrite else None)
    root = (z / np.sqrt(squares) / norms[:, None])[:, ::-1]
    q = combine(y, root, out=y if overwrite else None)
    # Q^T Q = L L^T is nearly the identity now, so that Q L^-T is orthonormal to rounding.
    try:
        factor = np.linalg.cholesky(inner_products(q, q))
    except np.linalg.LinAlgError:
        return _householder(q, q)
    return combine(q, np.linalg.inv(factor).T, out=q)


def project_out(q: Array, y: Array, *, overwrite: bool = False) -> Array:
    """What tall columns have outside a basis, (I - Q Q^T) Y, projected twice.

    Once would leave a remainder where Y lies nearly inside Q's span.

    Args:
        q: orthonormal columns `[P, m]`.
        y: `[P, n]`, in Q's precision.
        overwrite: put the result where Y is.
    """
    return split(q, y, overwrite=overwrite)[1]


def split(q: Array, y: Array, *, rounds: int = 2, overwrite: bool = False) -> tuple[Array, Array]:
    """Take tall columns apart, Y = Q C + R with R orthogonal to Q's orthonormal columns.

    Args:
        q: `[P, m]`.
        y: `[P, n]`, in Q's precision.
        rounds: of the projection; a second one removes what the first left.
        overwrite: put R where Y is.

    Returns:
        C `[m, n]`, summed in float64, and R `[P, n]`.
    """
    rest = y if overwrite else y.copy()
    inside = np.zeros((q.shape[1], y.shape[1]))
    # BLAS reads Q for a few columns at half the speed of memory; for one at all of it, and Q's
    # rows are then in the cache for the next.
    width = 1 if y.shape[1] <= _FEW else y.shape[1]
    columns = [slice(start, start + width) for start in range(0, y.shape[1], width)]
    for _ in range(rounds):
        found = np.zeros_like(inside)
        for rows in blocks(len(rest)):
            for some in columns:
                found[:, some] += q[rows].T @ rest[rows, some]
        lowered = found.astype(rest.dtype).T
        for rows in blocks(len(rest)):
            for some in columns:
                # Transposed: BLAS writes a wide result in half the time of a tall one.
                rest[rows, some] -= (lowered[some] @ q[rows].T).T
        inside += found
    return inside, rest


def blocks(size: int) -> Iterator[slice]:
    """Slices that go through the `size` rows of a tall matrix, a few thousand rows each."""
    return (slice(start, start + _BLOCK) for start in range(0, size, _BLOCK))


def _householder(y: Array, out: Array | None) -> Array:
    """Orthonormal columns by Householder QR in float64, returned in Y's precision."""
    q: Array = scipy.linalg.qr(np.asarray(y, dtype=np.float64), mode="economic")[0]
    if out is None:
        return q.astype(y.dtype)
    out[:] = q
    return out
