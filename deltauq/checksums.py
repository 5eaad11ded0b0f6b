"""Sums by which a training set is known again, whatever the order of its examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

__all__ = ["BESIDE_COUNTS", "alike", "checksum"]

Sums = npt.NDArray[np.float64]

#: Sums but for the last, which an artifact of format 1 does not have.
BESIDE_COUNTS = 6


def checksum(x: Any, y: Any, count: Any, importance: Any) -> Sums:
    """Sums over a batch that depend on which row has which label and weight, not on the order.

    None of them cancels, so that their rounding is small beside them. The last is about the counts
    alone: counts and importance of one product are different data.

    Args:
        x: inputs, a nest of arrays `[B, ...]`.
        y: labels `[B, ...]`.
        count: of every observation, `[B]` or `[B, T]`.
        importance: of the same shape.
    """
    leaves = [np.asarray(leaf, np.float64) for leaf in tf.nest.flatten(x)]
    weight = np.asarray(count, np.float64) * np.asarray(importance, np.float64)
    label, weight, count = _one_number(y), _one_number(weight), _one_number(count)
    rows = sum(np.sum(np.abs(leaf).reshape(len(leaf), -1), axis=1) for leaf in leaves)
    return np.array(
        [
            len(label),
            np.sum(np.abs(label)),
            np.sum(rows),
            np.sum((rows + label) ** 2),
            np.sum((rows + 1) * weight),
            sum(np.sum(leaf**2) for leaf in leaves),
            np.sum((rows + 1) * count),
        ]
    )


def alike(sums: npt.ArrayLike, others: npt.ArrayLike) -> bool:
    """Equal but for the rounding of another order."""
    return bool(np.allclose(sums, others, rtol=1e-6, atol=1e-6))


def _one_number(values: Any) -> Sums:
    """Of each row, one that tells one-hot labels, or weights of positions, apart, `[B]`."""
    wide = np.asarray(values, np.float64).reshape(len(values), -1)
    return np.asarray(wide @ np.arange(1.0, wide.shape[1] + 1))
