"""Dense truth about any model: eager differentiation of the user's own model, one input at a time.

Nothing of the package is used: the model is called as a user calls it, with its own variables, and
the rest is NumPy. Second derivatives of the network are central differences of first ones, because
a second tape through the same layers would repeat the errors of TensorFlow's gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf


def probabilities_to_logits(p):
    """Log probabilities: the logits of a softmax up to a shift, which no probability sees."""
    return tf.math.log(p)


def shares_to_logits(p):
    """The log odds: the logits of sigmoids."""
    return tf.math.log(p) - tf.math.log1p(-p)


def cross_entropy(z, y):
    """Of a class number or of a distribution over the classes, for one input."""
    log_p = z - tf.reduce_logsumexp(z)
    target = tf.one_hot(y, z.shape[0], dtype=z.dtype) if y.ndim == 0 else tf.constant(y, z.dtype)
    return -tf.reduce_sum(target * log_p)


def binary_cross_entropy(z, y):
    """Summed over the labels of one input."""
    return tf.reduce_sum(tf.math.softplus(z) - tf.constant(np.reshape(y, z.shape), z.dtype) * z)


def squares(noise):
    """The negative log-likelihood of a regression, without its constant."""
    return lambda z, y: 0.5 * tf.reduce_sum((z - np.reshape(y, z.shape)) ** 2 / noise)


def poisson_loss(z, y):
    """The negative log-likelihood of counts, without its constant."""
    return tf.reduce_sum(tf.exp(z) - tf.constant(np.reshape(y, z.shape), z.dtype) * z)


def softmax_mean(z):
    """Softmax."""
    e = np.exp(z - z.max())
    return e / e.sum()


def sigmoid_mean(z):
    """Logistic function."""
    return 1 / (1 + np.exp(-z))


def two_classes(z):
    """Of one logit."""
    p = sigmoid_mean(z)
    return np.concatenate([1 - p, p])


@dataclass(frozen=True)
class Eager:
    """A model with data, differentiated densely.

    Attributes:
        model: called as `model(x)`.
        x: inputs, an array or a list of arrays `[N, ...]`.
        y: labels `[N, ...]`.
        loss: of one input's logits and label.
        weight: `[N]`.
        to_logits: of the model's output.
        variables: those that are uncertain.
    """

    model: Any
    x: Any
    y: Any
    loss: Callable[..., tf.Tensor]
    weight: np.ndarray
    to_logits: Callable[..., tf.Tensor] = tf.identity
    variables: Any = None
    n_examples: float | None = None

    @property
    def _n(self):
        """What sums over the data are divided by; the sum of the weights, where they are counts."""
        return self.weight.sum() if self.n_examples is None else self.n_examples

    def _variables(self):
        chosen = self.model.trainable_variables if self.variables is None else self.variables
        return [getattr(v, "value", v) for v in chosen]

    def _inputs(self, n):
        return tf.nest.map_structure(lambda leaf: tf.constant(leaf[n : n + 1]), self.x)

    def _logits(self, n):
        return self.to_logits(self.model(self._inputs(n)))[0]

    def jacobian(self):
        """Logits `[N, C]` and J `[N, C, P]`."""
        logits, rows = [], []
        for n in range(len(self.y)):
            with tf.GradientTape(persistent=True) as tape:
                z = self._logits(n)
                entries = tf.unstack(tf.reshape(z, [-1]))
            row = [_flat(tape.gradient(e, self._variables()), self._variables()) for e in entries]
            logits.append(z.numpy().ravel())
            rows.append(row)
        return np.array(logits), np.array(rows)

    def gradients(self):
        """Of every input's loss, `[N, P]`."""
        found, variables = [], self._variables()
        for n in range(len(self.y)):
            with tf.GradientTape() as tape:
                loss = self.loss(self._logits(n), self.y[n])
            found.append(_flat(tape.gradient(loss, variables), variables))
        return np.array(found)

    def gradient(self):
        """Of the mean loss, `[P]`, from one call of the model on all inputs."""
        return _flat(self._gradient_parts(), self._variables()) / self._n

    def _gradient_parts(self):
        """Of the summed loss, variable by variable."""
        with tf.GradientTape() as tape:
            logits = self.to_logits(self.model(tf.nest.map_structure(tf.constant, self.x)))
            losses = [self.loss(z, y) for z, y in zip(tf.unstack(logits), self.y, strict=True)]
            total = tf.reduce_sum(self.weight * tf.cast(tf.stack(losses), tf.float64))
        return tape.gradient(total, self._variables())

    def opg(self, gradients=None):
        """`[P, P]`, from what `gradients` gives."""
        g = self.gradients() if gradients is None else gradients
        return (self.weight[:, None] * g).T @ g / self._n

    def meat(self, importance, gradients):
        """`[P, P]` of a sandwich: the square of each of `gradients` as it stands in the cost."""
        return ((self.weight * importance)[:, None] * gradients).T @ gradients / self._n

    def ggn(self, linearised=None):
        """`[P, P]`, from what `jacobian` gives."""
        logits, jacobian = linearised or self.jacobian()
        total = 0.0
        for n, (z, j) in enumerate(zip(logits, jacobian, strict=True)):
            point = tf.Variable(z)
            with tf.GradientTape(persistent=True) as outer:
                with tf.GradientTape() as inner:
                    loss = self.loss(point, self.y[n])
                slope = inner.gradient(loss, point)
            bend = outer.jacobian(slope, point, experimental_use_pfor=False).numpy()
            total = total + self.weight[n] * j.T @ bend @ j
        return total / self._n

    def hessian(self, step=1e-5):
        """The exact Hessian `[P, P]`; so many gradients that compiling theirs is worth while."""
        gradient = tf.function(lambda: self._gradient_parts(), autograph=False)

        def compiled():
            return _flat(gradient(), self._variables()) / self._n

        size = sum(int(np.prod(v.shape)) for v in self._variables())
        return np.stack([self.hessian_times(e, step, compiled) for e in np.eye(size)])

    def hessian_times(self, vector, step=1e-5, gradient=None):
        """The exact Hessian's product with a vector, by central differences of the gradient."""
        gradient = gradient or self.gradient
        variables = self._variables()
        start = [v.numpy() for v in variables]
        sizes = np.cumsum([v.size for v in start])[:-1]
        parts = [p.reshape(v.shape) for p, v in zip(np.split(vector, sizes), start, strict=True)]
        ends = []
        for sign in (1.0, -1.0):
            for variable, value, part in zip(variables, start, parts, strict=True):
                variable.assign(value + sign * step * part)
            ends.append(gradient())
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        return (ends[0] - ends[1]) / (2 * step)


def covariances(curvature, rates, n_examples, jacobian, logits, mean):
    """Dense covariances of the logits `[N, C, C]` and of their means `[N, M, M]`.

    Args:
        curvature: A `[P, P]`.
        rates: lambda, `[P]` or one.
        n_examples: N.
        jacobian: `[N, C, P]`.
        logits: `[N, C]`.
        mean: of one input's logits; differentiated by central differences.
    """
    sigma = np.linalg.inv(curvature + np.diag(np.broadcast_to(rates, len(curvature)))) / n_examples
    of_logits = jacobian @ sigma @ np.swapaxes(jacobian, 1, 2)
    slopes = np.array([_slope(mean, z) for z in logits])
    return of_logits, slopes @ of_logits @ np.swapaxes(slopes, 1, 2)


def _slope(mean, z, step=1e-6):
    columns = [(mean(z + step * e) - mean(z - step * e)) / (2 * step) for e in np.eye(len(z))]
    return np.stack(columns, axis=1)


def _flat(gradients, variables):
    parts = []
    for gradient, variable in zip(gradients, variables, strict=True):
        if gradient is None:
            parts.append(np.zeros(int(np.prod(variable.shape))))
        else:
            parts.append(np.ravel(tf.convert_to_tensor(gradient).numpy()))
    return np.concatenate(parts)
