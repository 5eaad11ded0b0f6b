"""Likelihoods of yes or no: several labels of an input, or one that makes two classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import scipy.special
import tensorflow as tf

from deltauq.errors import InvalidInputError
from deltauq.likelihoods.class_numbers import (
    check_names,
    check_number_of_names,
    check_smoothing,
    numbers_of_names,
    yes_or_no,
)
from deltauq.likelihoods.likelihood import Array, Likelihood, Outcome
from deltauq.likelihoods.links import probit_logits

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
        """Labels as numbers from 0 (no) to 1 (yes), `[N, C]`, int32 or float64."""
        return yes_or_no(np.asarray(y), n_outputs)

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Binary cross-entropy summed over the labels, sum_c softplus(z_c) - y_c z_c, `[B]`."""
        target = self._target(y, logits)
        each = tf.nn.sigmoid_cross_entropy_with_logits(target, logits)
        return tf.reduce_sum(each, axis=1)

    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Gradient of the loss in the logits, sigmoid(z) - y with the labels smoothed, `[B, C]`."""
        return tf.sigmoid(logits) - self._target(y, logits)

    def hessian_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Square root of the loss's second derivative, diag(sqrt(p (1 - p))), `[B, C, C]`."""
        return tf.linalg.diag(tf.sqrt(_spread(logits)))

    def hessian_diagonal(self, logits: Array, y: tf.Tensor) -> Array:
        """Second derivative of the loss in each logit, p_c (1 - p_c), `[B, C]`, float64."""
        wide = logits.astype(np.float64)
        return np.asarray(scipy.special.expit(wide) * scipy.special.expit(-wide))

    def is_flat(self, curvature: Array, slope: Array, epsilon: float) -> Array:
        """Whether a probability is 0 or 1 up to rounding, so that its loss has no curvature."""
        return np.asarray(curvature <= epsilon)

    def mean(self, logits: tf.Tensor) -> tf.Tensor:
        """Probability of each label, sigmoid(z), `[B, C]`."""
        return tf.sigmoid(logits)

    def mean_jacobian(self, logits: tf.Tensor) -> tf.Tensor:
        """Derivative of the probabilities in the logits, diag(p (1 - p)), `[B, C, C]`."""
        return tf.linalg.diag(_spread(logits))

    def log_predictive(self, logits: Array, variance: Array, y: Array) -> Array:
        """Log-likelihood of the labels with normal logits integrated out, in nats, `[B]`.

        E sigmoid(z) is approximated by the sigmoid of `probit_logits`. Labels are summed.
        """
        z = probit_logits(logits, variance)
        target = self._target(tf.constant(y), tf.constant(z)).numpy()
        log_p = target * scipy.special.log_expit(z) + (1 - target) * scipy.special.log_expit(-z)
        return np.asarray(log_p.sum(axis=1))

    def dispersion(self, n_outputs: int) -> float:
        """Keras' cost over the mean of this loss, 1 / C: Keras takes the mean over the labels."""
        return 1.0 / n_outputs

    def _target(self, y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Labels after smoothing, (1 - epsilon) y + epsilon / 2, in the precision of the logits."""
        smoothing = self.label_smoothing
        return (1.0 - smoothing) * tf.cast(y, logits.dtype) + smoothing / 2

    def __repr__(self) -> str:
        smoothing = f"label_smoothing={self.label_smoothing:g}" if self.label_smoothing else ""
        return f"{type(self).__name__}({smoothing})"


class Binary(Bernoulli):
    """One sigmoid for two classes: class 1 has the probability sigmoid(z), class 0 the rest.

    The same model as a softmax over the logits (0, z), which is what predictions show. Labels are
    class numbers 0 and 1 `[N]` or `[N, 1]`, names where `classes` gives their order, or
    probabilities of class 1.

    Args:
        label_smoothing: as of `Bernoulli`.
        classes: names of class 0 and class 1, for labels that are names.
    """

    name = "binary"
    outcome: ClassVar[Outcome] = "classes"

    def __init__(
        self, *, label_smoothing: float = 0.0, classes: Sequence[str] | None = None
    ) -> None:
        super().__init__(label_smoothing=label_smoothing)
        self.classes = check_names(classes)

    def check_labels(self, y: Array, n_outputs: int) -> Array:
        """Labels as numbers from 0 (the first class) to 1 (the second), `[N, 1]`."""
        y = numbers_of_names(np.asarray(y), self.classes, n_classes=2)
        return super().check_labels(y, n_outputs)

    def check_outputs(self, n_outputs: int) -> None:
        """Refuse a model with more than one output, and say which likelihood fits it.

        Raises:
            InvalidInputError: the model has several outputs, or other than two names are given.
        """
        if n_outputs != 1:
            raise InvalidInputError(
                "the likelihood 'binary' needs one output",
                expected="one sigmoid, or its logit",
                received=f"a model with {n_outputs} outputs",
                remedy="pass likelihood='multilabel' for a yes or no in each output, 'categorical' "
                "for one of several classes",
            )
        check_number_of_names(self.classes, 2)

    def mean(self, logits: tf.Tensor) -> tf.Tensor:
        """Probabilities of both classes, (1 - p, p) with p = sigmoid(z), `[B, 2]`."""
        return tf.concat([tf.sigmoid(-logits), tf.sigmoid(logits)], axis=1)

    def mean_jacobian(self, logits: tf.Tensor) -> tf.Tensor:
        """Derivative of both probabilities in the one logit, p (1 - p) (-1, 1)^T, `[B, 2, 1]`."""
        spread = _spread(logits)
        return tf.stack([-spread, spread], axis=1)

    def log_predictive(self, logits: Array, variance: Array, y: Array) -> Array:
        """Log-likelihood of the labels, as for `Bernoulli`, by class 1's logit alone, `[B]`."""
        return super().log_predictive(logits[:, 1:], variance[:, 1:], y)

    def shown_logits(self, n_outputs: int) -> Array:
        """The matrix `[2, 1]` that makes the two shown logits (0, z) from the network's one."""
        return np.array([[0.0], [1.0]])


def _spread(logits: tf.Tensor) -> tf.Tensor:
    """Variance of a yes or no, sigmoid(z) sigmoid(-z), without the cancellation of 1 - p."""
    return tf.sigmoid(logits) * tf.sigmoid(-logits)
