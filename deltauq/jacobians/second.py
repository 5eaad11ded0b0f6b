"""Products of the exact second derivative with vectors."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deltauq.likelihoods import Likelihood
from deltauq.network import Network

__all__ = ["hessian_products"]


def hessian_products(
    network: Network, likelihood: Likelihood, params: tf.Tensor, batch: Any, vectors: tf.Tensor
) -> tf.Tensor:
    """Sum over a batch of w_n (d^2 loss_n / d w^2) V; inside a `tf.function` only.

    Reverse over reverse: the gradient is formed once and differentiated along every column.

    Args:
        network: the network.
        likelihood: its loss is differentiated.
        params: `[P]`.
        batch: a `Batch`.
        vectors: V `[P, b]`, b static.

    Returns:
        `[P, b]`.
    """
    params = tf.identity(params)
    logits = network.logits(network.unflatten(params), batch.x)
    cost = tf.reduce_sum(batch.weight * likelihood.loss(logits, batch.y))
    gradient = tf.gradients(cost, params)[0]
    columns = tf.unstack(vectors, axis=1)
    return tf.stack([tf.gradients(gradient, params, grad_ys=v)[0] for v in columns], axis=1)
