"""Several predictions of one input: positions of a sequence, pixels of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from deltauq.errors import InvalidInputError
from deltauq.likelihoods.likelihood import Array, Likelihood

__all__ = ["AtPositions"]


class AtPositions(Likelihood):
    """T predictions of one likelihood for every input, independent given the weights.

    The network's outputs `[B, T, C]` are one row of T C logits here; labels are those of the other
    likelihood at every position, `[N, T, ...]`. Every position is an observation of its own: N is
    their number, or the sum of their weights `[N, T]`.

    Args:
        each: the likelihood at a position.
        shape: of the positions, with T entries in all.
    """

    observed_axes = 2

    def __init__(self, each: Likelihood, shape: tuple[int, ...]) -> None:
        self.each = each
        self.shape = shape
        self.positions = int(np.prod(shape))
        self.convex = each.convex

    @property
    def name(self) -> str:  # type: ignore[override]
        """That of the other likelihood."""
        return self.each.name

    @property
    def outcome(self) -> Any:  # type: ignore[override]
        """That of the other likelihood."""
        return self.each.outcome

    @property
    def link(self) -> Any:  # type: ignore[override]
        """That of the other likelihood."""
        return self.each.link

    @property
    def shift_invariant(self) -> bool:  # type: ignore[override]
        """That of the other likelihood."""
        return self.each.shift_invariant

    def check_labels(self, y: Array, n_outputs: int) -> Array:
        """Labels `[N, T]` or `[N, T, C]` of the other likelihood."""
        y = np.asarray(y)
        if y.shape[1 : 1 + len(self.shape)] != self.shape:
            raise InvalidInputError(
                "y does not hold labels of every position",
                expected=f"shape {['N', *self.shape]} or {['N', *self.shape, 'C']}, as the model's "
                "output has",
                received=f"shape {list(y.shape)}",
            )
        flat = y.reshape(-1, *y.shape[1 + len(self.shape) :])
        checked = self.each.check_labels(flat, n_outputs // self.positions)
        return checked.reshape(len(y), self.positions, *checked.shape[1:])

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Of every position, `[B, T]`."""
        return self._apart(self.each.loss(*self._flat(logits, y)))

    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Of all positions side by side, `[B, T C]`."""
        return tf.reshape(self.each.residual(*self._flat(logits, y)), tf.shape(logits))

    def score_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """One row a position, zero outside of it, `[B, T, T C]`."""
        return tf.linalg.matrix_transpose(
            self._blocks(self.each.residual(*self._flat(logits, y))[:, :, None])
        )

    def hessian_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Those of the positions along the diagonal, `[B, T C, T R]`."""
        return self._blocks(self.each.hessian_factor(*self._flat(logits, y)))

    def check_convex(self, logits: tf.Tensor, y: tf.Tensor) -> None:
        """As the other likelihood, at every position."""
        self.each.check_convex(*self._flat(logits, y))

    def mean(self, logits: tf.Tensor) -> tf.Tensor:
        """Of one position in each row: logits `[B T, C]` -> `[B T, M]`."""
        return self.each.mean(logits)

    def mean_jacobian(self, logits: tf.Tensor) -> tf.Tensor:
        """As `mean`."""
        return self.each.mean_jacobian(logits)

    def log_predictive(self, logits: Array, variance: Array, y: Array) -> Array:
        """As `mean`, with labels `[B, T, ...]`: `[B T]`."""
        return self.each.log_predictive(logits, variance, y.reshape(-1, *y.shape[2:]))

    def dispersion(self, n_outputs: int) -> float:
        """That of the other likelihood: Keras' losses are means over the positions."""
        return self.each.dispersion(n_outputs // self.positions)

    @property
    def needs_noise(self) -> bool:
        """As the other likelihood."""
        return self.each.needs_noise

    def with_noise(self, noise: Array) -> AtPositions:
        """The same with variances `[C]`, those of every position."""
        return AtPositions(self.each.with_noise(noise), self.shape)

    def noise_variance(self) -> Array:
        """That of the other likelihood."""
        return self.each.noise_variance()

    def shown_logits(self, n_outputs: int) -> Array:
        """Of one position."""
        return self.each.shown_logits(n_outputs)

    def n_rows(self, n_outputs: int) -> int:
        """Those of all positions."""
        return self.positions * self.each.n_rows(n_outputs // self.positions)

    def _flat(self, logits: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One position a row."""
        n_outputs = logits.shape[1] // self.positions
        rest = y.shape[2:].as_list()
        return tf.reshape(logits, [-1, n_outputs]), tf.reshape(y, [-1, *rest])

    def _apart(self, values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(values, [-1, self.positions, *values.shape[1:].as_list()])

    def _blocks(self, values: tf.Tensor) -> tf.Tensor:
        """`[B T, C, R]` as the diagonal blocks of `[B, T C, T R]`."""
        rows, columns = values.shape[1:]
        positions = self.positions
        diagonal = tf.eye(positions, dtype=values.dtype)[None, :, None, :, None]
        blocks = diagonal * self._apart(values)[:, :, :, None, :]
        return tf.reshape(blocks, [-1, positions * rows, positions * columns])

    def __repr__(self) -> str:
        return f"AtPositions({self.each!r}, {self.shape})"
