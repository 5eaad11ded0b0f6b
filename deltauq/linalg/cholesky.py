"""Cholesky's factor of a large positive definite matrix, in its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

__all__ = ["factor_positive"]

Array = npt.NDArray[Any]

#: Rows of a block. LAPACK's own `potrf` of OpenBLAS crashes on two threads at 16,000 rows.
_BLOCK = 4096


def factor_positive(matrix: Array) -> Array:
    """Put L with L L^T = A into the lower triangle of A `[n, n]`; what is above is left as it is.

    Args:
        matrix: A, float64, C-contiguous; changed.

    Raises:
        numpy.linalg.LinAlgError: A is not positive definite, or not finite.
    """
    size = len(matrix)
    for start in range(0, size, _BLOCK):
        here = slice(start, min(start + _BLOCK, size))
        block = scipy.linalg.cholesky(matrix[here, here], lower=True, check_finite=False)
        if not np.all(np.isfinite(np.diag(block))):
            raise np.linalg.LinAlgError("the matrix is not finite")
        matrix[here, here] = block
        rest = [slice(k, min(k + _BLOCK, size)) for k in range(here.stop, size, _BLOCK)]
        for below in rest:
            matrix[below, here] = scipy.linalg.solve_triangular(
                block, matrix[below, here].T, lower=True, check_finite=False
            ).T
        for i, below in enumerate(rest):
            for beside in rest[: i + 1]:
                matrix[below, beside] -= matrix[below, here] @ matrix[beside, here].T
    return matrix
