"""The rows of one variable in the form in which they are cheapest: all at once, or as factors.

A row is c^T dz/dw for one example and one cotangent c. Three things are asked of the rows of a
batch: the rows themselves, their products with vectors, and their inner products example by
example. An outer product a (x) delta answers the last two without being formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import tensorflow as tf

__all__ = ["Factor", "OuterProducts", "Rows", "Total"]


class Factor(Protocol):
    """Rows `[B, R, size]` of one variable: B examples, R cotangents each."""

    def rows(self) -> tf.Tensor:
        """The rows, `[B, R, size]`."""

    def times(self, vectors: tf.Tensor) -> tf.Tensor:
        """Rows times V `[size, K]`: `[B, R, K]`."""

    def gram(self) -> tf.Tensor:
        """Inner products of an example's rows, `[B, R, R]`."""


@dataclass(frozen=True)
class Rows:
    """Rows that were formed.

    Attributes:
        values: `[B, R, size]`.
    """

    values: tf.Tensor

    @classmethod
    def stacked(cls, formed: Sequence[tf.Tensor]) -> Rows:
        """From one tensor `[B, ...]` a cotangent."""
        size = int(np.prod(formed[0].shape[1:]))
        return cls(tf.stack([tf.reshape(row, [-1, size]) for row in formed], axis=1))

    def rows(self) -> tf.Tensor:
        """The rows themselves."""
        return self.values

    def times(self, vectors: tf.Tensor) -> tf.Tensor:
        """One product for the whole batch."""
        n_rows, size = self.values.shape[1:]
        flat = tf.reshape(self.values, [-1, size]) @ vectors
        return tf.reshape(flat, [-1, n_rows, tf.shape(vectors)[1]])

    def gram(self) -> tf.Tensor:
        """One small product an example."""
        return tf.matmul(self.values, self.values, transpose_b=True)


@dataclass(frozen=True)
class OuterProducts:
    """Row r is sum_t a_t (x) delta_rt, for a variable of shape `[I, O]`.

    Attributes:
        a: `[B, T, I]`; T positions share the variable (pixels of a convolution, steps).
        deltas: R tensors `[B, T, O]`.
    """

    a: tf.Tensor
    deltas: Sequence[tf.Tensor]

    def rows(self) -> tf.Tensor:
        """R small products an example; a plain multiplication where there is one position."""
        return self._rows.values

    @cached_property
    def _rows(self) -> Rows:
        if self.a.shape[1] == 1:
            a = self.a[:, 0, :, None]
            formed = [a * delta for delta in self.deltas]
        else:
            formed = [tf.matmul(self.a, delta, transpose_a=True) for delta in self.deltas]
        return Rows.stacked(formed)

    def times(self, vectors: tf.Tensor) -> tf.Tensor:
        """Sum_t delta_rt^T (a_t^T V) where that is cheaper than rows times V.

        Multiplications for K columns: T I O K + R T O K against R I O K. The factored form is
        bound by memory, so it has to save half of them.
        """
        if not self._few_positions(per_row=0.5):
            return self._rows.times(vectors)
        n_inputs, n_outputs = self.a.shape[-1], self.deltas[0].shape[-1]
        count = tf.shape(vectors)[1]
        wide = tf.reshape(vectors, [n_inputs, n_outputs * count])
        image = tf.reshape(self.a, [-1, n_inputs]) @ wide
        image = tf.reshape(image, [-1, self.a.shape[1] * n_outputs, count])
        flat = [tf.reshape(delta, [-1, self.a.shape[1] * n_outputs]) for delta in self.deltas]
        return tf.matmul(tf.stack(flat, axis=1), image)

    def gram(self) -> tf.Tensor:
        """Sum_ts (a_t . a_s) (delta_rt . delta_qs) where there are few positions."""
        if not self._few_positions(per_row=1.0):
            return self._rows.gram()
        n_rows, positions = len(self.deltas), self.a.shape[1]
        delta = tf.stack(self.deltas, axis=1)
        delta = tf.reshape(delta, [-1, n_rows * positions, delta.shape[-1]])
        a_a = tf.matmul(self.a, self.a, transpose_b=True)
        d_d = tf.matmul(delta, delta, transpose_b=True)
        d_d = tf.reshape(d_d, [-1, n_rows, positions, n_rows, positions])
        return tf.reduce_sum(d_d * a_a[:, None, :, None, :], axis=[2, 4])

    def _few_positions(self, *, per_row: float) -> bool:
        positions = self.a.shape[1]
        return positions is not None and positions <= per_row * len(self.deltas)


@dataclass(frozen=True)
class Total:
    """The sum of several factors of one variable: a shared layer, read more than once.

    Attributes:
        parts: at least one.
    """

    parts: Sequence[Factor]

    def rows(self) -> tf.Tensor:
        """Rows add up."""
        return tf.add_n([part.rows() for part in self.parts])

    def times(self, vectors: tf.Tensor) -> tf.Tensor:
        """So do products."""
        return tf.add_n([part.times(vectors) for part in self.parts])

    def gram(self) -> tf.Tensor:
        """Inner products do not, because of the cross terms."""
        return self.parts[0].gram() if len(self.parts) == 1 else Rows(self.rows()).gram()
