"""Yes or no: several labels of an input, or one, which makes two classes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import scipy.special
import tensorflow as tf

from deltauq.errors import InvalidInputError
from deltauq.likelihoods.class_numbers import check_smoothing, yes_or_no
from deltauq.likelihoods.likelihood import Array, Likelihood, Outcome

__all__ = ["Bernoulli", "Binary"]


class Bernoulli(Likelihood):
    """C sigmoids with binary cross-entropy: each label is there or not, whatever the others.

    Labels y `[N, C]` lie in [0, 1]. With p = sigmoid(z): loss = -sum_c [y_c log p_c +
    (1 - y_c) log(1 - p_c)], residual = p - y, Hessian diag(p (1 - p)). Keras' loss is the mean over
    the labels, a C-th of this.

    Args:
        label_smoothing: epsilon: y is drawn towards one half, (1 - epsilon) y + epsilon / 2, as
            Keras' loss does.
    """

    name = "multilabel"
    outcome: ClassVar[Outcome] = "labels"
    link = "Sigmoid"
    curved = True

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = check_smoothing(label_smoothing)

    def check_labels(self, y: Array, n_outputs: int) -> Array:
        """Numbers from 0 to 1, `[N, C]`."""
        return yes_or_no(np.asarray(y), n_outputs)

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Sum_c softplus(z_c) - y_c z_c, `[B]`."""
        target = self._target(y, logits)
        each = tf.nn.sigmoid_cross_entropy_with_logits(target, logits)
        return tf.reduce_sum(each, axis=1)

    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """P - y, `[B, C]`."""
        return tf.sigmoid(logits) - self._target(y, logits)

    def hessian_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """diag(sqrt(p (1 - p))), `[B, C, C]`."""
        return tf.linalg.diag(tf.sqrt(_spread(logits)))

    def hessian_diagonal(self, logits: Array, y: tf.Tensor) -> Array:
        """Second derivative of the loss in each logit, p_c (1 - p_c), `[B, C]`."""
        wide = logits.astype(np.float64)
        return np.asarray(scipy.special.expit(wide) * scipy.special.expit(-wide))

    def is_flat(self, curvature: Array, slope: Array, epsilon: float) -> Array:
        """Where a probability is zero or one to rounding."""
        return np.asarray(curvature <= epsilon)

    def mean(self, logits: tf.Tensor) -> tf.Tensor:
        """sigmoid(z), `[B, C]`."""
        return tf.sigmoid(logits)

    def mean_jacobian(self, logits: tf.Tensor) -> tf.Tensor:
        """diag(p (1 - p)), `[B, C, C]`."""
        return tf.linalg.diag(_spread(logits))

    def log_predictive(self, logits: Array, variance: Array, y: Array) -> Array:
        """E sigmoid(z) is approximated by sigmoid(z / sqrt(1 + (pi / 8) Var z)) (Gibbs 1997)."""
        z = logits / np.sqrt(1.0 + np.pi / 8 * variance)
        target = self._target(tf.constant(y), tf.constant(z)).numpy()
        log_p = target * scipy.special.log_expit(z) + (1 - target) * scipy.special.log_expit(-z)
        return np.asarray(log_p.sum(axis=1))

    def dispersion(self, n_outputs: int) -> float:
        """1 / C: Keras' loss is the mean over the labels."""
        return 1.0 / n_outputs

    def _target(self, y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        smoothing = self.label_smoothing
        return (1.0 - smoothing) * tf.cast(y, logits.dtype) + smoothing / 2

    def __repr__(self) -> str:
        smoothing = f"label_smoothing={self.label_smoothing:g}" if self.label_smoothing else ""
        return f"{type(self).__name__}({smoothing})"


class Binary(Bernoulli):
    """One sigmoid for two classes: class 1 has the probability sigmoid(z), class 0 the rest.

    The same model as a softmax over the logits (0, z), which is what predictions show. Labels are
    class numbers 0 and 1 `[N]` or `[N, 1]`, or probabilities of class 1.
    """

    name = "binary"
    outcome: ClassVar[Outcome] = "classes"

    def check_outputs(self, n_outputs: int) -> None:
        """One."""
        if n_outputs != 1:
            raise InvalidInputError(
                "the likelihood 'binary' needs one output",
                expected="one sigmoid, or its logit",
                received=f"a model with {n_outputs} outputs",
                remedy="pass likelihood='multilabel' for a yes or no in each output, 'categorical' "
                "for one of several classes",
            )

    def mean(self, logits: tf.Tensor) -> tf.Tensor:
        """(1 - p, p), `[B, 2]`."""
        return tf.concat([tf.sigmoid(-logits), tf.sigmoid(logits)], axis=1)

    def mean_jacobian(self, logits: tf.Tensor) -> tf.Tensor:
        """P (1 - p) times (-1, 1)^T, `[B, 2, 1]`."""
        spread = _spread(logits)
        return tf.stack([-spread, spread], axis=1)

    def log_predictive(self, logits: Array, variance: Array, y: Array) -> Array:
        """Of class 1's logit."""
        return super().log_predictive(logits[:, 1:], variance[:, 1:], y)

    def shown_logits(self, n_outputs: int) -> Array:
        """(0, z)."""
        return np.array([[0.0], [1.0]])


def _spread(logits: tf.Tensor) -> tf.Tensor:
    """P (1 - p), without the cancellation of 1 - p."""
    return tf.sigmoid(logits) * tf.sigmoid(-logits)
