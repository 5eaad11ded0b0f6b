"""A symmetric matrix that is low rank plus a multiple of the identity on everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LowRank"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LowRank:
    """U diag(d) U^T + t (I - U U^T), U `[P, K]` orthonormal.

    Attributes:
        weights: d `[K]`.
        tail: t.
    """

    weights: Array
    tail: float

    def quadratic_form(self, along: Array, gram: Array) -> Array:
        """X (U diag(d) U^T + t (I - U U^T)) X^T from X U and X X^T alone, in float64.

        Args:
            along: X U `[..., C, K]`.
            gram: X X^T `[..., C, C]`.

        Returns:
            `[..., C, C]`, symmetric.
        """
        along = np.asarray(along, np.float64)
        inside = (along * (self.weights - self.tail)) @ np.swapaxes(along, -1, -2)
        result = inside + self.tail * np.asarray(gram, np.float64)
        return (result + np.swapaxes(result, -1, -2)) / 2
