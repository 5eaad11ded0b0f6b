"""Curvature products in plain JAX, compiled, on the weights of a Keras model of common layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.flatten_util import ravel_pytree

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "linear": lambda z: z}


class PlainJax:
    """Products with the curvature of the mean cross-entropy.

    Args:
        model: a `keras.Sequential` of Dense, Conv2D, MaxPooling2D (2) and Flatten.
    """

    def __init__(self, model):
        weights = [jnp.asarray(w.numpy()) for w in model.trainable_variables]
        self.params, unravel = ravel_pytree(weights)

        def logits(params, x):
            remaining = iter(unravel(params))
            for layer in model.layers:
                if isinstance(layer, keras.layers.Conv2D):
                    x = jax.lax.conv_general_dilated(
                        x,
                        next(remaining),
                        (1, 1),
                        "VALID",
                        dimension_numbers=("NHWC", "HWIO", "NHWC"),
                    )
                    x = ACTIVATIONS[layer.activation.__name__](x + next(remaining))
                elif isinstance(layer, keras.layers.Dense):
                    x = x @ next(remaining) + next(remaining)
                    x = ACTIVATIONS[layer.activation.__name__](x)
                elif isinstance(layer, keras.layers.MaxPooling2D):
                    window = (1, 2, 2, 1)
                    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
                else:
                    x = x.reshape(len(x), -1)
            return x

        def loss(params, x, y):
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits(params, x)), y[:, None], axis=1)
            return -jnp.sum(chosen)

        def hessian_product(params, x, y, v):
            return jax.jvp(lambda p: jax.grad(loss)(p, x, y), (params,), (v,))[1]

        def gradient(params, x, y):
            return jax.grad(loss)(params, x[None], y[None])

        rows = jax.vmap(gradient, in_axes=(None, 0, 0))

        def opg_product(params, x, y, vectors):
            found = rows(params, x, y)
            return found.T @ (found @ vectors)

        self._hessian = jax.jit(jax.vmap(hessian_product, (None, None, None, 1), 1))
        self._opg = jax.jit(opg_product)

    def hessian_matmat(self, x, y, vectors, batch_size=500):
        """Forward over reverse, all vectors at once: the mean Hessian times `[P, b]`."""
        return self._mean(self._hessian, x, y, vectors, batch_size)

    def opg_matmat(self, x, y, vectors, batch_size=200):
        """The mean outer product of per-example gradients times `[P, b]`."""
        return self._mean(self._opg, x, y, vectors, batch_size)

    def _mean(self, product, x, y, vectors, batch_size):
        vectors = jnp.asarray(vectors)
        total = 0.0
        for start in range(0, len(x), batch_size):
            rows = slice(start, start + batch_size)
            total = total + product(self.params, x[rows], y[rows], vectors)
        return np.asarray(total) / len(x)
