"""Numbers with normal noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from deltauq.errors import InvalidInputError
from deltauq.likelihoods.likelihood import Array, Likelihood

__all__ = ["Gaussian"]


class Gaussian(Likelihood):
    """Regression: y = z + normal noise of variance s_c in output c, the outputs apart.

    Labels are numbers `[N, C]`, or `[N]` for one output. loss = (1/2) sum_c [(z_c - y_c)^2 / s_c +
    log(2 pi s_c)], residual (z - y) / s, Hessian diag(1 / s). Keras' "mse" is the mean square over
    the outputs: 2 s / C times this, with s the mean of the variances.

    Args:
        noise: the variances s, `[C]` or one number; None estimates them from the residuals of the
            training data: their sum of squares over N - gamma / C, where gamma is the number of
            parameters that the data determine (all of them without L2).
    """

    name = "gaussian"
    outcome = "quantities"
    link = None
    curved = True

    def __init__(self, noise: float | Sequence[float] | Array | None = None) -> None:
        self.noise: Array | None = None
        if noise is not None:
            self.noise = np.atleast_1d(np.asarray(noise, np.float64))
            if self.noise.ndim != 1 or not np.all(np.isfinite(self.noise) & (self.noise > 0)):
                raise InvalidInputError(
                    "noise is not a variance",
                    expected="positive numbers, one for every output, or None to estimate them",
                    received=repr(noise),
                )

    def check_outputs(self, n_outputs: int) -> None:
        """One variance, or one for every output."""
        if self.noise is not None and len(self.noise) not in (1, n_outputs):
            raise InvalidInputError(
                "noise has the wrong length",
                expected=f"one variance, or {n_outputs}, as many as the model has outputs",
                received=f"{len(self.noise)}",
            )

    def check_labels(self, y: Array, n_outputs: int) -> Array:
        """Finite numbers as float64 `[N, C]`."""
        y = np.asarray(y)
        wide = y[:, None] if y.ndim == 1 and n_outputs == 1 else y
        if wide.ndim != 2 or wide.shape[1] != n_outputs or wide.dtype.kind not in "fiub":
            shape = "[N] or [N, 1]" if n_outputs == 1 else f"[N, {n_outputs}]"
            raise InvalidInputError(
                "y does not hold the numbers that the model predicts",
                expected=f"numbers of shape {shape}, as the model has {n_outputs} "
                f"{'output' if n_outputs == 1 else 'outputs'}",
                received=f"dtype {y.dtype}, shape {list(y.shape)}",
            )
        if not np.all(np.isfinite(wide)):
            raise InvalidInputError(
                "y holds NaN or infinity",
                expected="finite numbers",
                received=f"{np.count_nonzero(~np.isfinite(wide))} of {wide.size} are not finite",
                remedy="impute or drop those rows before; deltauq never drops any",
            )
        return wide.astype(np.float64)

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """(1/2) sum_c [(z_c - y_c)^2 / s_c + log(2 pi s_c)], `[B]`."""
        noise = self._noise(logits)
        squares = tf.square(logits - tf.cast(y, logits.dtype)) / noise
        return 0.5 * tf.reduce_sum(squares + tf.math.log(2 * np.pi * noise), axis=1)

    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """(z - y) / s, `[B, C]`."""
        return (logits - tf.cast(y, logits.dtype)) / self._noise(logits)

    def hessian_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """diag(s^-1/2), `[B, C, C]`."""
        return tf.linalg.diag(tf.ones_like(logits) * tf.math.rsqrt(self._noise(logits)))

    def hessian_diagonal(self, logits: Array, y: tf.Tensor) -> Array:
        """1 / s."""
        return np.broadcast_to(1.0 / self.noise_variance(), logits.shape)

    def mean(self, logits: tf.Tensor) -> tf.Tensor:
        """The outputs themselves."""
        return tf.identity(logits)

    def mean_jacobian(self, logits: tf.Tensor) -> tf.Tensor:
        """The identity, `[B, C, C]`."""
        return tf.eye(logits.shape[1], batch_shape=[tf.shape(logits)[0]], dtype=logits.dtype)

    def log_predictive(self, logits: Array, variance: Array, y: Array) -> Array:
        """Normal, its variance that of the output and of the noise together."""
        total = variance + self.noise_variance()
        return np.asarray(-0.5 * np.sum((y - logits) ** 2 / total + np.log(2 * np.pi * total), 1))

    def dispersion(self, n_outputs: int) -> float:
        """2 s / C with s the mean variance: Keras' loss is the mean square."""
        return 2.0 * float(np.mean(self.noise_variance())) / n_outputs

    @property
    def needs_noise(self) -> bool:
        """It was not given."""
        return self.noise is None

    @property
    def scaled_by_noise(self) -> bool:
        """It is."""
        return True

    def with_noise(self, noise: Array) -> Gaussian:
        """The same with the variances `[C]`."""
        return Gaussian(noise)

    def noise_variance(self) -> Array:
        """S `[C]`, or one for all outputs."""
        if self.noise is None:
            raise InvalidInputError(
                "the noise of a regression is not known yet",
                expected="Gaussian(noise=...), or DeltaMethod, which estimates it in fit",
                received="Gaussian()",
            )
        return self.noise

    def _noise(self, logits: tf.Tensor) -> tf.Tensor:
        return tf.constant(self.noise_variance(), logits.dtype)

    def __repr__(self) -> str:
        return "Gaussian()" if self.noise is None else f"Gaussian(noise={self.noise.tolist()})"
