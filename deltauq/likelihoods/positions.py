"""The likelihood of several predictions an input: positions of a sequence, pixels of an image."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deltauq.errors import InvalidInputError
from deltauq.likelihoods.likelihood import Array, Likelihood
from deltauq.likelihoods.wrapped import Wrapped

__all__ = ["AtPositions"]


class AtPositions(Wrapped):
    """T predictions of one likelihood for every input, independent given the weights.

    The network's outputs `[B, T, C]` are one row of T C logits here; labels are those of the other
    likelihood at every position, `[N, T, ...]`. Every position is an observation of its own: N is
    their number, or the sum of their weights `[N, T]`. What predictions need (`mean`,
    `mean_jacobian`, `shown_logits`) is about one position a row, `[B T, C]`.

    Args:
        inner: the likelihood at a position.
        shape: of the positions, with T entries in all.
    """

    observed_axes = 2

    def __init__(self, inner: Likelihood, shape: tuple[int, ...]) -> None:
        super().__init__(inner)
        self.shape = shape
        self.positions = int(np.prod(shape))

    def check_labels(self, y: Array, n_outputs: int) -> Array:
        """Labels of every position `[N, T]` or `[N, T, C]`, as the likelihood at one takes them.

        Args:
            y: labels in the shape of the positions, or with all positions in one row.
            n_outputs: T C.

        Raises:
            InvalidInputError: labels of another shape, or that the likelihood refuses.
        """
        y = np.asarray(y)
        axes = 1 + len(self.shape)
        if y.shape[1:axes] != self.shape and y.shape[1:2] == (self.positions,):
            y = y.reshape(len(y), *self.shape, *y.shape[2:])  # side by side, as they are returned
        if y.shape[1:axes] != self.shape:
            raise InvalidInputError(
                "y does not hold labels of every position",
                expected=f"shape {['N', *self.shape]} or {['N', *self.shape, 'C']}, as the model's "
                "output has",
                received=f"shape {list(y.shape)}",
            )
        flat = y.reshape(-1, *y.shape[axes:])
        checked = self.inner.check_labels(flat, n_outputs // self.positions)
        return checked.reshape(len(y), self.positions, *checked.shape[1:])

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Negative log-likelihood of every position in nats, `[B, T]`."""
        return self._apart(self.inner.loss(*self._flat(logits, y)))

    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Gradients of the positions' losses in their logits, side by side, `[B, T C]`."""
        return tf.reshape(self.inner.residual(*self._flat(logits, y)), tf.shape(logits))

    def score_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Residuals of every position as a row that is zero at all others, `[B, T, T C]`."""
        scores = self.inner.score_factor(*self._flat(logits, y))
        return tf.linalg.matrix_transpose(self._blocks(tf.linalg.matrix_transpose(scores)))

    @property
    def of_scores(self) -> AtPositions:
        """The likelihood of the scores at one position, at all of these positions."""
        inner = self.inner.of_scores
        return self if inner is self.inner else AtPositions(inner, self.shape)

    @property
    def l2_in_scores(self) -> float:
        """What L2 counts in the scores at one position, as all positions share the noise."""
        return self.inner.l2_in_scores

    def hessian_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Factors of the positions' second derivatives as diagonal blocks, `[B, T C, T R]`."""
        return self._blocks(self.inner.hessian_factor(*self._flat(logits, y)))

    def curvature_and_slope(self, logits: tf.Tensor, y: tf.Tensor) -> tuple[Array, Array]:
        """Size of the curvature and the squared slope, one position a row, `[B T, C]`, float64."""
        return self.inner.curvature_and_slope(*self._flat(logits, y))

    def is_flat(self, curvature: Array, slope: Array, epsilon: float) -> Array:
        """Whether the loss has no curvature, output by output, as at a single position."""
        return self.inner.is_flat(curvature, slope, epsilon)

    def hessian_factor_times(
        self, logits: tf.Tensor, y: tf.Tensor, vectors: tf.Tensor
    ) -> tf.Tensor:
        """Products with the factor position by position, without the zeros between the blocks."""
        n_draws = vectors.shape[2]
        apart = tf.reshape(vectors, [-1, vectors.shape[1] // self.positions, n_draws])
        columns = self.inner.hessian_factor_times(*self._flat(logits, y), apart)
        return tf.reshape(columns, [-1, logits.shape[1], n_draws])

    def check_convex(self, logits: tf.Tensor, y: tf.Tensor) -> None:
        """Refuse a loss that is not convex in the logits of some position."""
        self.inner.check_convex(*self._flat(logits, y))

    def log_predictive(self, logits: Array, variance: Array, y: Array) -> Array:
        """Log-likelihood of the labels `[B, T, ...]` in nats, one position a row, `[B T]`."""
        return self.inner.log_predictive(logits, variance, y.reshape(-1, *y.shape[2:]))

    def dispersion(self, n_outputs: int) -> float:
        """Minimised cost over the mean loss at one position: Keras' losses are means over them."""
        return self.inner.dispersion(n_outputs // self.positions)

    @property
    def at_one_position(self) -> Likelihood:
        """The likelihood at one of the positions, which was given as `inner`."""
        return self.inner

    def with_noise(self, noise: Array) -> AtPositions:
        """Likelihood at the same positions with noise variances `[C]`, which all of them share."""
        return AtPositions(self.inner.with_noise(noise), self.shape)

    def n_rows(self, n_outputs: int) -> int:
        """Columns R of the factors of all positions together."""
        return self.positions * self.inner.n_rows(n_outputs // self.positions)

    def _flat(self, logits: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits `[B T, C]` and labels `[B T, ...]` with one position a row."""
        n_outputs = logits.shape[1] // self.positions
        rest = y.shape[2:].as_list()
        return tf.reshape(logits, [-1, n_outputs]), tf.reshape(y, [-1, *rest])

    def _apart(self, values: tf.Tensor) -> tf.Tensor:
        """Rows of positions `[B T, ...]` brought back to their inputs, `[B, T, ...]`."""
        return tf.reshape(values, [-1, self.positions, *values.shape[1:].as_list()])

    def _blocks(self, values: tf.Tensor) -> tf.Tensor:
        """Matrices of the positions `[B T, C, R]` as the diagonal blocks of `[B, T C, T R]`."""
        rows, columns = values.shape[1:]
        positions = self.positions
        diagonal = tf.eye(positions, dtype=values.dtype)[None, :, None, :, None]
        blocks = diagonal * self._apart(values)[:, :, :, None, :]
        return tf.reshape(blocks, [-1, positions * rows, positions * columns])

    def __repr__(self) -> str:
        return f"AtPositions({self.inner!r}, {self.shape})"
