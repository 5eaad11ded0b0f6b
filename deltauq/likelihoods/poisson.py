"""The likelihood of counts: whole numbers with a Poisson distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from deltauq.errors import InvalidInputError
from deltauq.likelihoods.class_numbers import are_whole, finite_numbers
from deltauq.likelihoods.likelihood import Array, Likelihood, Outcome
from deltauq.likelihoods.links import Link
from deltauq.likelihoods.lognormal_rates import log_probability

__all__ = ["Poisson"]


class Poisson(Likelihood):
    """Counts: y has the Poisson distribution of rate exp(z_c) in output c, the outputs apart.

    The model ends in an exponential, whose input the log rates z are, or gives the log rates. An
    offset, such as the log of an exposure, is an input of the model that is added to them: it has
    no weight, and so no uncertainty. Labels are counts `[N, C]`, or `[N]` for one output. loss =
    sum_c [exp(z_c) - y_c z_c + log y_c!], residual = exp(z) - y, Hessian diag(exp(z)). The link is
    the canonical one, so that of a network without a hidden layer the exact Hessian is the GGN.

    Keras' "poisson" is the mean over the outputs, a C-th of this, without log y!, which moves no
    weight, and with log(rate + 1e-7) for the log: the same where rates are far above 1e-7.

    The variance of a count is its rate, and no noise is estimated. Counts that vary more than that
    are overdispersed, and standard errors from this likelihood then too small:
    curvature="sandwich" with meat="scores" holds whatever the variance is.

    >>> import tensorflow as tf
    >>> Poisson().residual(tf.constant([[0.0]]), tf.constant([[3.0]])).numpy()
    array([[-2.]], dtype=float32)
    """

    name = "poisson"
    outcome: ClassVar[Outcome] = "counts"
    link: ClassVar[Link | None] = "Exp"
    curved = True

    def check_labels(self, y: Array, n_outputs: int) -> Array:
        """Labels as counts 0, 1, 2, ..., float64 `[N, C]`.

        Raises:
            InvalidInputError: another shape, text, NaN, negative numbers or fractions.
        """
        counts = finite_numbers(np.asarray(y), n_outputs)
        if np.any(counts < 0):
            raise InvalidInputError(
                "y holds negative numbers, which are no counts",
                expected="whole numbers: 0, 1, 2 and so on",
                received=f"{np.count_nonzero(counts < 0)} of {counts.size} below zero, down to "
                f"{np.min(counts):g}",
                remedy="pass the counts themselves, neither standardised nor as logarithms; for "
                "numbers of either sign pass likelihood='gaussian'",
            )
        if not are_whole(counts):
            fractions = counts[counts != np.floor(counts)]
            raise InvalidInputError(
                "y holds fractions, which are no counts",
                expected="whole numbers: 0, 1, 2 and so on",
                received=f"{fractions.size} of {counts.size} that are not whole, such as "
                f"{fractions[0]:g}",
                remedy="where y is a rate, pass the counts, np.rint(y * exposure), and give the "
                "model log(exposure) as an offset: another input, added before the exponential",
            )
        return counts

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Negative log-likelihood in nats, sum_c exp(z_c) - y_c z_c + log y_c!, `[B]`."""
        y = tf.cast(y, logits.dtype)
        each = tf.exp(logits) - y * logits + tf.math.lgamma(y + 1.0)
        return tf.reduce_sum(each, axis=1)

    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Gradient of the loss in the log rates, exp(z) - y, `[B, C]`."""
        return tf.exp(logits) - tf.cast(y, logits.dtype)

    def hessian_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Square root of the loss's second derivative, diag(exp(z / 2)), `[B, C, C]`."""
        return tf.linalg.diag(tf.exp(logits / 2))

    def hessian_diagonal(self, logits: Array, y: tf.Tensor) -> Array:
        """Second derivative of the loss in each log rate, exp(z_c), `[B, C]`, float64."""
        return np.asarray(np.exp(logits.astype(np.float64)))

    def mean(self, logits: tf.Tensor) -> tf.Tensor:
        """Rate of each output, exp(z), which is the mean of its counts, `[B, C]`."""
        return tf.exp(logits)

    def mean_jacobian(self, logits: tf.Tensor) -> tf.Tensor:
        """Derivative of the rates in the log rates, diag(exp(z)), `[B, C, C]`."""
        return tf.linalg.diag(tf.exp(logits))

    def log_predictive(self, logits: Array, variance: Array, y: Array) -> Array:
        """Log probability of the counts in nats, normal log rates integrated out, `[B]`.

        By quadrature; the outputs are taken apart, and summed.
        """
        return np.asarray(np.sum(log_probability(y, logits, variance), axis=1))

    def dispersion(self, n_outputs: int) -> float:
        """Keras' cost over the mean of this loss, 1 / C: Keras takes the mean over the outputs."""
        return 1.0 / n_outputs

    def observation_variance(self, mean: Any) -> Any:
        """Variance of a count around its rate, which is that rate, `[B, C]`."""
        return mean
