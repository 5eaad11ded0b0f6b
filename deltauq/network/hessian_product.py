"""Products of the exact second derivative of the data cost with vectors."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deltauq.likelihoods import Likelihood
from deltauq.network.graph import Staged
from deltauq.network.network import Network

__all__ = ["hessian_product"]


def hessian_product(network: Network, likelihood: Likelihood, spec: Any) -> Staged:
    """Compile the sum over a batch of weight_n (d^2 loss_n / d w^2) v, in two stages.

    Here w are the parameters, and weight_n is what example n counts. Of params `[P]`, batch and v
    `[P]` it gives `[P]`. Reverse over reverse: the gradient is formed once and differentiated along
    the vector. The forward pass and the first backward pass do not depend on the vector: they are
    the first stage, which serves any number of products.

    Args:
        network: the network.
        likelihood: its loss is differentiated.
        spec: `tf.TensorSpec`s of a `Batch`.
    """

    def product(params: tf.Tensor, batch: Any, vector: tf.Tensor) -> tf.Tensor:
        pieces = network.unflatten(params)
        logits = network.logits(pieces, batch.x)
        losses = likelihood.loss(logits, batch.y)
        first = tf.gradients(losses, pieces, grad_ys=batch.weight, unconnected_gradients="zero")
        gradient = [tf.convert_to_tensor(part) for part in first]  # of a lookup, single rows
        product = tf.gradients(
            gradient, pieces, grad_ys=network.unflatten(vector), unconnected_gradients="zero"
        )
        return tf.concat([tf.reshape(part, [-1]) for part in product], axis=0)

    flat = tf.TensorSpec([network.n_params], network.dtype)
    return Staged(product, flat, spec, flat)
