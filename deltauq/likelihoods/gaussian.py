"""The likelihood of a regression: numbers with normal noise."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deltauq.errors import InvalidInputError
from deltauq.likelihoods.class_numbers import finite_numbers
from deltauq.likelihoods.likelihood import Array, Likelihood

__all__ = ["Gaussian"]


class Gaussian(Likelihood):
    """Regression: y = z + normal noise of variance s_c in output c, the outputs apart.

    Labels are numbers `[N, C]`, or `[N]` for one output. The weights minimise the mean of loss =
    (1/2) sum_c [(z_c - y_c)^2 / v_c + log(2 pi v_c)], with residual (z - y) / v and Hessian
    diag(1 / v). Keras' "mse" is the mean square over the outputs, whatever their noise: all v_c are
    then the mean of the variances, and it is 2 v / C times this ("pooled"). Weights that were
    trained to count each output by its noise have v = s.

    Where v is not s the covariance of the weights is a sandwich: see `of_scores`.

    Args:
        noise: the variances s, `[C]` or one number; None estimates them from the residuals of the
            training data: their sum of squares over N - gamma / C, where gamma is the number of
            parameters that the data determine (all of them without L2).
        pooled: the weights minimise the plain mean square; None where the noise is estimated, as
            Keras' loss is that, and not where it is given.
    """

    name = "gaussian"
    outcome = "quantities"
    link = None
    curved = True

    def __init__(
        self,
        noise: float | Sequence[float] | Array | None = None,
        *,
        pooled: bool | None = None,
    ) -> None:
        self.noise: Array | None = None
        self.pooled = noise is None if pooled is None else pooled
        if noise is not None:
            self.noise = _variances(noise)
        self._cost_variance = self.noise
        if self.noise is not None and self.pooled:
            self._cost_variance = np.full_like(self.noise, np.mean(self.noise))

    def check_outputs(self, n_outputs: int) -> None:
        """Refuse variances that are neither one number nor one for every output of the model."""
        if self.noise is not None and len(self.noise) not in (1, n_outputs):
            raise InvalidInputError(
                "noise has the wrong length",
                expected=f"one variance, or {n_outputs}, as many as the model has outputs",
                received=f"{len(self.noise)}",
            )

    def check_labels(self, y: Array, n_outputs: int) -> Array:
        """Labels as finite numbers, float64 `[N, C]`."""
        return finite_numbers(np.asarray(y), n_outputs)

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Negative log density in nats, `[B]`.

        (1/2) sum_c [(z_c - y_c)^2 / v_c + log(2 pi v_c)], v the variances the cost divides by.
        """
        variance = self._variance(logits)
        squares = tf.square(logits - tf.cast(y, logits.dtype)) / variance
        return 0.5 * tf.reduce_sum(squares + tf.math.log(2 * np.pi * variance), axis=1)

    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Gradient of the loss in the outputs, (z - y) / v, `[B, C]`."""
        return (logits - tf.cast(y, logits.dtype)) / self._variance(logits)

    def hessian_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Square root of the loss's second derivative, diag(v^-1/2), `[B, C, C]`."""
        return tf.linalg.diag(tf.ones_like(logits) * tf.math.rsqrt(self._variance(logits)))

    def score_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Rows (z - y) / sqrt(s v), `[B, 1, C]`, with which OPG estimates the GGN.

        Their mean square is diag(1 / v). The residuals (z - y) / v themselves would give
        diag(s / v^2) instead.
        """
        spread = tf.constant(np.sqrt(self.noise_variance() * self._known_variance()), logits.dtype)
        return ((logits - tf.cast(y, logits.dtype)) / spread)[:, None, :]

    @property
    def of_scores(self) -> Gaussian:
        """The regression of variance v^2 / s, whose curvature is the covariance of the scores.

        The scores are J^T (z - y) / v, of covariance J^T diag(s / v^2) J. The `score_factor` of the
        regression returned is the residuals (z - y) / v.
        """
        variance, noise = self._known_variance(), self.noise_variance()
        if np.all(variance == noise):
            return self
        other = Gaussian(noise, pooled=self.pooled)
        other._cost_variance = variance**2 / noise
        return other

    def hessian_diagonal(self, logits: Array, y: tf.Tensor) -> Array:
        """Second derivative of the loss in each output, 1 / v_c (v: the cost's), `[B, C]`."""
        return np.broadcast_to(1.0 / self._known_variance(), logits.shape)

    @property
    def l2_in_scores(self) -> float:
        """The smallest s / v over the outputs, which is 1 where the noise is equal.

        L2 does not vary with the labels. Counted in full it would drown the scores of outputs whose
        noise is far below the mean that the cost divides by.
        """
        return float(np.min(self.noise_variance() / self._known_variance()))

    def mean(self, logits: tf.Tensor) -> tf.Tensor:
        """The outputs themselves, which are the means of the labels, `[B, C]`."""
        return tf.identity(logits)

    def mean_jacobian(self, logits: tf.Tensor) -> tf.Tensor:
        """The identity for every example, `[B, C, C]`, as the means are the outputs."""
        return tf.eye(logits.shape[1], batch_shape=[tf.shape(logits)[0]], dtype=logits.dtype)

    def log_predictive(self, logits: Array, variance: Array, y: Array) -> Array:
        """Log density of the labels in nats, variances of output and noise together, `[B]`."""
        total = variance + self.noise_variance()
        return np.asarray(-0.5 * np.sum((y - logits) ** 2 / total + np.log(2 * np.pi * total), 1))

    def dispersion(self, n_outputs: int) -> float:
        """Keras' cost over the mean of this loss, 2 s / C with s the mean variance of the noise.

        Keras' loss is the mean square over the outputs.
        """
        return 2.0 * float(np.mean(self.noise_variance())) / n_outputs

    @property
    def needs_noise(self) -> bool:
        """Whether the noise was left out, so that a fit has to estimate it first."""
        return self.noise is None

    @property
    def scaled_by_noise(self) -> bool:
        """Always True: the loss divides by the noise, so twice the noise halves its squares."""
        return True

    def with_noise(self, noise: Array) -> Gaussian:
        """A regression like this one with the variances `[C]` for its noise."""
        return Gaussian(noise, pooled=self.pooled)

    def noise_variance(self) -> Array:
        """The variances s of the noise `[C]`, or `[1]` where one holds for all outputs.

        Raises:
            InvalidInputError: the noise is still to be estimated.
        """
        if self.noise is None:
            raise InvalidInputError(
                "the noise of a regression is not known yet",
                expected="Gaussian(noise=...), or DeltaMethod, which estimates it in fit",
                received="Gaussian()",
            )
        return self.noise

    def _known_variance(self) -> Array:
        """The variances v `[C]` by which the cost divides, once the noise is known."""
        self.noise_variance()
        assert self._cost_variance is not None
        return self._cost_variance

    def _variance(self, logits: tf.Tensor) -> tf.Tensor:
        """The variances v by which the cost divides, in the precision of the logits."""
        return tf.constant(self._known_variance(), logits.dtype)

    def __repr__(self) -> str:
        if self.noise is None:
            return "Gaussian()" if self.pooled else "Gaussian(pooled=False)"
        pooled = ", pooled=True" if self.pooled and len(self.noise) > 1 else ""
        return f"Gaussian(noise={self.noise.tolist()}{pooled})"


def _variances(noise: Any) -> Array:
    """Check that variances are positive numbers, and give them as an array, float64."""
    try:
        given = np.atleast_1d(np.asarray(noise))
    except (ValueError, TypeError):  # rows of different lengths
        given = np.empty(0)
    is_whole = given.dtype.kind in "fiu" and not np.ma.is_masked(noise)
    values = given.astype(np.float64) if is_whole else np.empty(0)
    if not values.size or values.ndim != 1 or not np.all(np.isfinite(values) & (values > 0)):
        raise InvalidInputError(
            "noise is not a variance",
            expected="positive numbers, one for every output, or None to estimate them",
            received=reprlib.repr(noise),
        )
    return values
