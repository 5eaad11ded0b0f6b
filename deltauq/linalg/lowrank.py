"""A symmetric matrix that is low rank plus a multiple of the identity on everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LowRank", "quadratic_diagonals", "relative_width", "root_diagonal"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LowRank:
    """A symmetric matrix U W U^T + t (I - U U^T), without its orthonormal columns U `[P, K]`.

    Attributes:
        weights: W `[K, K]`, symmetric, or its diagonal `[K]` where it has no more.
        tail: t, the eigenvalue of every direction outside U.
    """

    weights: Array
    tail: float

    def times(self, factor: float) -> LowRank:
        """The matrix multiplied by a number, with the same U."""
        return LowRank(self.weights * factor, self.tail * factor)

    @property
    def largest(self) -> float:
        """The largest eigenvalue, the tail's included; the tail itself where K is 0."""
        inside = self.weights if self.weights.ndim == 1 else np.linalg.eigvalsh(self.weights)
        return float(np.max(inside, initial=self.tail))

    def quadratic_form(self, along: Array, rest: Array) -> Array:
        """Quadratic form X (U W U^T + t (I - U U^T)) X^T in float64, as a sum of its two parts.

        The part outside U comes as its own Gram matrix: formed as the difference of X X^T and
        (X U)(X U)^T it would cancel where X lies nearly inside U.

        Args:
            along: X U `[..., C, K]`.
            rest: R R^T with R = X - X U U^T, `[..., C, C]`.

        Returns:
            `[..., C, C]`, symmetric.
        """
        # X U W U^T X^T + t R R^T, then the mean with its transpose: symmetric to the bit.
        along = np.asarray(along, np.float64)
        weighted = along * self.weights if self.weights.ndim == 1 else along @ self.weights
        result = weighted @ np.swapaxes(along, -1, -2)
        result += self.tail * np.asarray(rest, np.float64)
        result = result + np.swapaxes(result, -1, -2)
        result /= 2
        return np.asarray(result)


def quadratic_diagonals(matrices: Sequence[LowRank], along: Array, rest: Array) -> Array:
    """Diagonals of quadratic forms X (U W U^T + t (I - U U^T)) X^T, for many W and t and one U.

    Where all W are diagonal this is one product with a `[K, n]` matrix, whatever n.

    Args:
        matrices: n of them.
        along: X U `[..., C, K]`.
        rest: diagonal of R R^T with R = X - X U U^T, `[..., C]`.

    Returns:
        `[n, ..., C]`, float64.
    """
    along, rest = np.asarray(along, np.float64), np.asarray(rest, np.float64)
    outside = np.multiply.outer([matrix.tail for matrix in matrices], rest)
    if all(matrix.weights.ndim == 1 for matrix in matrices):
        weights = np.stack([matrix.weights for matrix in matrices], axis=1)
        return np.asarray(outside + np.moveaxis(np.square(along) @ weights, -1, 0))
    for total, matrix in zip(outside, matrices, strict=True):
        weighted = along * matrix.weights if matrix.weights.ndim == 1 else along @ matrix.weights
        total += np.einsum("...k,...k->...", weighted, along)
    return np.asarray(outside)


def root_diagonal(covariance: Array) -> Array:
    """Standard errors `[N, C]` of covariances `[N, C, C]`; a variance below zero counts as zero."""
    return np.asarray(np.sqrt(np.maximum(np.einsum("ncc->nc", covariance), 0.0)))


def relative_width(low: Array, high: Array) -> Array:
    """Width of an interval relative to its upper end, (high - low) / high, elementwise.

    It is 0 where both ends are 0, and 1 where the upper end is infinite.
    """
    return np.asarray(np.where(high > 0, 1.0 - low / np.where(high > 0, high, 1.0), 0.0))
