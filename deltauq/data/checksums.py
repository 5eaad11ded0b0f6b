"""Sums by which a training set is known again, whatever the order of its rows."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

__all__ = ["COUNTS", "N_SUMS", "alike", "checksum"]

Array = npt.NDArray[np.float64]

#: What `checksum` sums; the first artifacts hold six of them, later ones seven.
N_SUMS = 13

#: The place of the sum of the counts, which an artifact of format 1 does not have.
COUNTS = 6

#: Relative difference of sums that the rounding of how inputs are prepared explains.
_ROUNDING = 1e-6


def checksum(x: Any, y: Any, count: Any, importance: Any) -> Array:
    """Sums over a batch that depend on which row has which label and weight, not on the order.

    None of them cancels, so that their rounding is small beside them. The first is the number of
    rows; the second, of class numbers, is a whole number too, exact as such. The seventh is about
    the counts alone: counts and importance of one product are different data. The last six are
    made of a signed number u for every row, in which each entry of the inputs has a weight of its
    own, and of one for its label, l: with u+ and u- the positive and the negative part, the sums of
    u+, u+ l+, u+ l-, u-, u- l+ and u- l-. They tell columns in another order, another sign, and
    labels beside the wrong rows, which in sums of squares drown in the size of the inputs.

    Args:
        x: inputs, a nest of arrays `[B, ...]` of numbers, or of text as bytes.
        y: labels `[B, ...]`.
        count: of every observation, `[B]` or `[B, T]`.
        importance: of the same shape.

    Returns:
        `[13]`, to be added up over batches.
    """
    leaves = [_as_floats(leaf).reshape(len(leaf), -1) for leaf in tf.nest.flatten(x)]
    weight = np.asarray(count, np.float64) * np.asarray(importance, np.float64)
    label, weight, count = _one_number(y), _one_number(weight), _one_number(count)
    rows = np.sum([np.sum(np.abs(leaf), axis=1) for leaf in leaves], axis=0)
    signed = np.sum([(k + 1) * leaf @ _uneven(leaf.shape[1]) for k, leaf in enumerate(leaves)], 0)
    labels = np.stack([np.ones_like(label), *_parts(label)], axis=1)
    return np.array(
        [
            len(label),
            np.sum(np.abs(label)),
            np.sum(rows),
            np.sum((rows + label) ** 2),
            np.sum((rows + 1) * weight),
            sum(np.sum(leaf**2) for leaf in leaves),
            np.sum((rows + 1) * count),
            *np.ravel(np.stack(_parts(signed)) @ labels),
        ]
    )


def alike(sums: Array, others: Array, *, whole_labels: bool = False) -> bool:
    """Whether sums are those of the same data: counts exactly, others up to rounding.

    Args:
        sums: of `checksum`, or the first of them.
        others: the same of the other data; what both have is compared.
        whole_labels: labels are whole numbers, whose sum is exact too.
    """
    count, exact = min(len(sums), len(others)), 2 if whole_labels else 1
    tolerance = _ROUNDING * _sizes(others)[:count]
    near = np.abs(sums[:count] - others[:count]) <= tolerance
    return bool(np.array_equal(sums[:exact], others[:exact]) and np.all(near))


def _sizes(sums: Array) -> Array:
    """What the rounding of each sum is small beside: of parts, all parts together."""
    sizes = np.abs(sums)
    if len(sums) == N_SUMS:
        of_parts = sizes[7:].reshape(2, 3)
        of_parts[:, 0], of_parts[:, 1:] = of_parts[:, 0].sum(), of_parts[:, 1:].sum()
    return sizes


def _as_floats(leaf: Any) -> Array:
    """Numbers as they are; of text, numbers in [0, 1) that differ where it differs."""
    values = np.asarray(leaf)
    if values.dtype.kind != "O":
        return np.asarray(values, np.float64)
    numbers = [zlib.crc32(text) / 2**32 for text in values.ravel()]
    return np.array(numbers, np.float64).reshape(values.shape)


def _one_number(values: Any) -> Array:
    """Of each row, one that tells one-hot labels, or weights of positions, apart, `[B]`."""
    wide = np.asarray(values, np.float64).reshape(len(values), -1)
    return np.asarray(wide @ np.arange(1.0, wide.shape[1] + 1))


def _uneven(count: int) -> Array:
    """Numbers in [1, 2), no two alike: 1 + the fractional part of k times the golden ratio."""
    return 1.0 + np.arange(count) * ((np.sqrt(5.0) - 1.0) / 2.0) % 1.0


def _parts(values: Array) -> tuple[Array, Array]:
    """The positive and the negative part, neither of them below zero."""
    return np.maximum(values, 0.0), np.maximum(-values, 0.0)
