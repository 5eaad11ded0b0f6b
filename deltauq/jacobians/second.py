"""Products of the exact second derivative with vectors."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deltauq.likelihoods import Likelihood
from deltauq.network import Network

__all__ = ["hessian_products"]


def hessian_products(
    network: Network,
    likelihood: Likelihood,
    params: tf.Tensor,
    batch: Any,
    vectors: tf.Tensor,
    *,
    rows_at_once: int,
) -> tf.Tensor:
    """Sum over a batch of w_n (d^2 loss_n / d w^2) v_k; inside a `tf.function` only.

    Reverse over reverse: the gradient is formed once and differentiated along every vector. The
    rows are taken a few at a time, so that their activations stay in the processor's cache.

    Args:
        network: the network.
        likelihood: its loss is differentiated.
        params: `[P]`.
        batch: a `Batch`.
        vectors: `[b, P]`, b static.
        rows_at_once: rows that are differentiated together.

    Returns:
        `[b, P]`.
    """
    n_rows = tf.shape(batch.y)[0]

    def step(start: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stop = tf.minimum(start + rows_at_once, n_rows)
        some = tf.nest.map_structure(lambda leaf: leaf[start:stop], batch)
        return stop, total + _products(network, likelihood, params, some, vectors)

    return tf.while_loop(
        lambda start, _: start < n_rows,
        step,
        [tf.constant(0), tf.zeros_like(vectors)],
        parallel_iterations=1,
    )[1]


def _products(
    network: Network, likelihood: Likelihood, params: tf.Tensor, batch: Any, vectors: tf.Tensor
) -> tf.Tensor:
    pieces = [tf.identity(piece) for piece in network.unflatten(params)]
    logits = network.logits(pieces, batch.x)
    cost = tf.reduce_sum(batch.weight * likelihood.loss(logits, batch.y))
    gradient = tf.gradients(cost, pieces, unconnected_gradients="zero")
    products = []
    for vector in tf.unstack(vectors):
        product = tf.gradients(
            gradient, pieces, grad_ys=network.unflatten(vector), unconnected_gradients="zero"
        )
        products.append(tf.concat([tf.reshape(part, [-1]) for part in product], axis=0))
    return tf.stack(products)
