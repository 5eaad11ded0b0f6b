"""Small symmetric matrices that grow with a Krylov basis."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["bordered"]

Array = npt.NDArray[Any]


def bordered(matrix: Array, columns: Array) -> Array:
    """Symmetric matrices grown by b last columns, and by the same numbers as last rows.

    Args:
        matrix: `[..., k, k]`.
        columns: `[..., k + b, b]`; their last b rows are made symmetric.
    """
    done, total = matrix.shape[-1], columns.shape[-2]
    result = np.zeros((*matrix.shape[:-2], total, total))
    result[..., :done, :done] = matrix
    result[..., :, done:] += columns / 2
    result[..., done:, :] += np.swapaxes(columns, -1, -2) / 2
    result[..., :done, done:] = columns[..., :done, :]
    result[..., done:, :done] = np.swapaxes(columns[..., :done, :], -1, -2)
    return result
