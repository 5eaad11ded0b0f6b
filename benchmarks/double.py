"""Standard errors all in float64, without the package: what `exact.py` holds its own against.

The network is a copy of the Keras model in float64, its rows are those of `tf.GradientTape`, and
the algebra is NumPy's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import scipy.linalg
import tensorflow as tf

Array = npt.NDArray[Any]

#: Examples whose derivatives are taken at a time: of more, each takes longer.
BATCH = 8


class Rows:
    """The covariance Sigma of the weights from rows R `[n, P]`, in float64.

    Sigma^-1 = R^T R + N lambda I. For j let alpha = (R R^T + N lambda I)^-1 R j and
    x = j - R^T alpha. Then R x = N lambda alpha and Sigma j = x / (N lambda), so that
    j Sigma j^T = (|x|^2 + N lambda |alpha|^2) / (N lambda): a sum, of which nothing cancels.
    """

    def __init__(self, rows: Array, n_examples: int) -> None:
        self._rows, self._n_examples = rows, n_examples
        self._gram = rows @ rows.T

    def std(self, combinations: Array, l2: float) -> Array:
        """Standard errors `[...]` of combinations j `[..., P]` of the weights."""
        ridge = self._n_examples * l2
        j = combinations.reshape(-1, combinations.shape[-1]).T
        factor = scipy.linalg.cho_factor(self._gram + ridge * np.eye(len(self._gram)))
        alpha = scipy.linalg.cho_solve(factor, self._rows @ j)
        x = j - self._rows.T @ alpha
        variance = (np.sum(x * x, axis=0) + ridge * np.sum(alpha * alpha, axis=0)) / ridge
        return np.sqrt(variance).reshape(combinations.shape[:-1])


@dataclass(frozen=True)
class Problem:
    """A trained network, its examples, and inputs that it was not trained on."""

    model: keras.Model
    x: Array
    y: Array
    new: Array

    @functools.cached_property
    def double(self) -> keras.Model:
        """The same network in float64, by Keras alone."""
        same = [
            type(layer).from_config(layer.get_config() | {"dtype": "float64"})
            for layer in self.model.layers
        ]
        model = keras.Sequential([keras.Input((28, 28, 1), dtype="float64"), *same])
        model.set_weights(self.model.get_weights())
        return model

    @functools.cached_property
    def opg(self) -> Rows:
        """Sigma of the gradients of the examples' losses, in float64."""

        def losses(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)

        return Rows(self._derivatives(losses, self.x, self.y), len(self.x))

    def shown(self, x: Array) -> Array:
        """Derivatives of logits and of probabilities in all weights, `[2, B, C, P]`."""
        logits = self._derivatives(lambda logits: logits, x)
        p = tf.nn.softmax(self.double(x.astype("float64"))).numpy()
        mean = np.einsum("bc,bcp->bp", p, logits)
        return np.stack([logits, p[:, :, None] * (logits - mean[:, None])])

    def _derivatives(self, of_logits: Callable[..., tf.Tensor], x: Array, *y: Array) -> Array:
        """What is made of the logits of every example, derived in all weights, `[n, ..., P]`."""
        weights = self.double.trainable_variables

        @tf.function(reduce_retracing=True)
        def derived(x: tf.Tensor, *y: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                found = of_logits(self.double(x, training=False), *y)
            parts, shape = tape.jacobian(found, weights), tf.concat([tf.shape(found), [-1]], 0)
            return tf.concat([tf.reshape(part, shape) for part in parts], -1)

        batches = [slice(start, start + BATCH) for start in range(0, len(x), BATCH)]
        wide = x.astype("float64")
        return np.concatenate([derived(wide[b], *(part[b] for part in y)) for b in batches])
