"""The networks that estimators train: dense ones, by Adam until L-BFGS takes over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.likelihoods import Likelihood
from deltauq.network.graph import Compiled

__all__ = ["build_mlp", "train_adam"]

Array = npt.NDArray[Any]


def build_mlp(
    n_features: int,
    n_outputs: int,
    *,
    hidden_units: tuple[int, ...],
    activation: str,
    l2: float,
    dtype: str,
    seed: int,
) -> keras.Sequential:
    """A dense network with outputs `[B, C]` and the rate `l2` on every kernel and bias.

    The regularizers hold l2 / 2, because Keras' L2(a) is a * sum w^2.
    """
    widths = [*hidden_units, n_outputs]
    seeds = np.random.SeedSequence(seed).generate_state(len(widths))
    layers: list[keras.layers.Layer] = [keras.Input((n_features,), dtype=dtype)]
    for k, (width, layer_seed) in enumerate(zip(widths, seeds, strict=True)):
        layers.append(
            keras.layers.Dense(
                width,
                activation=activation if k < len(hidden_units) else None,
                kernel_initializer=keras.initializers.GlorotUniform(seed=int(layer_seed)),
                kernel_regularizer=keras.regularizers.L2(l2 / 2),
                bias_regularizer=keras.regularizers.L2(l2 / 2),
                dtype=dtype,
                name=f"hidden_{k}" if k < len(hidden_units) else "logits",
            )
        )
    return keras.Sequential(layers)


def train_adam(
    model: keras.Model,
    likelihood: Likelihood,
    x: Array,
    y: Array,
    factors: Array,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    on_epoch: Callable[[float], None],
) -> None:
    """Train a model by Adam on the likelihood's mean loss plus the model's regularizers.

    The mean is over rows, their losses times the factors `[N]`, which `weights.loss_factors` makes
    such that the cost is the one `Cost` has. Seeds are local: no global random state is touched.
    The loop is our own because `keras.Model.fit` cannot add a float32 loss to float64
    regularizers.
    """
    if epochs == 0:
        return
    optimizer = keras.optimizers.Adam(learning_rate)
    optimizer.build(model.trainable_variables)
    # Places are shuffled, not rows: a shuffled row is three tensors, many times what it holds.
    rows = tuple(tf.constant(part) for part in (x, y, factors))
    places = tf.data.Dataset.range(len(x)).shuffle(len(x), seed=seed).batch(batch_size)
    data = places.map(lambda some: tuple(tf.gather(part, some) for part in rows))

    def step(batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> None:
        inputs, labels, weights = batch
        with tf.GradientTape() as tape:
            losses = likelihood.loss(model(inputs, training=True), labels)
            cost = tf.reduce_mean(tf.cast(weights, losses.dtype) * losses)
            cost += tf.add_n(model.losses)
        gradients = tape.gradient(cost, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    compiled = Compiled(step, data.element_spec)
    for _ in range(epochs):
        for batch in data:
            compiled(batch)
        on_epoch(len(x))
