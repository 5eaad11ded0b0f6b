"""Models whose outputs carry a Keras mask, with data of which the mask leaves a part out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest

layers = keras.layers

N, T, C, WORDS = 7, 5, 3, 6
RATE = 0.02

#: Keras' L2(a) is a * sum w^2, so that lambda = 2 a.
L2: dict[str, Any] = {
    f"{name}_regularizer": keras.regularizers.L2(RATE / 2) for name in ("kernel", "bias")
}
RNN: dict[str, Any] = L2 | {"recurrent_regularizer": keras.regularizers.L2(RATE / 2)}
EMBEDDING: dict[str, Any] = {
    "mask_zero": True,
    "embeddings_regularizer": keras.regularizers.L2(RATE / 2),
}


@dataclass(frozen=True)
class Case:
    """A compiled model, its data, and which of its predictions count `[N, T...]` or `[N]`."""

    model: Any
    x: Any
    y: Any
    valid: Any


def reals(seed=0):
    """Sequences of three numbers a step, zeros after their ends."""
    rng = np.random.default_rng(seed)
    valid = np.arange(T) < rng.integers(1, T + 1, N)[:, None]
    x = rng.normal(size=(N, T, 3)).astype("float32")
    x[~valid] = 0
    return x, valid, rng


def words(seed=0):
    """Sequences of words, zeros after their ends."""
    rng = np.random.default_rng(seed)
    valid = np.arange(T) < rng.integers(1, T + 1, N)[:, None]
    return np.where(valid, rng.integers(1, WORDS, (N, T)), 0).astype("int32"), valid, rng


def finished(model, loss="SparseCategoricalCrossentropy", **options):
    keras.utils.set_random_seed(0)
    for variable in model.trainable_variables:
        variable.assign(0.5 * np.random.default_rng(1).normal(size=variable.shape))
    model.compile(loss=getattr(keras.losses, loss)(**options))
    return model


def masking(**options):
    x, valid, rng = reals()
    stack = [keras.Input((T, 3)), layers.Masking(0.0), layers.Dense(C, "softmax", **L2)]
    return Case(finished(keras.Sequential(stack), **options), x, rng.integers(0, C, (N, T)), valid)


def recurrent(**options):
    x, valid, rng = words()
    z = inputs = keras.Input((None,), dtype="int32")
    z = layers.Embedding(WORDS, 2, **EMBEDDING)(z)
    z = layers.LSTM(2, return_sequences=True, **RNN)(z)
    model = keras.Model(inputs, layers.TimeDistributed(layers.Dense(C, "softmax", **L2))(z))
    return Case(finished(model, **options), x, rng.integers(0, C, (N, T)), valid)


def bidirectional(**options):
    """Yes or no at every step."""
    x, valid, rng = words()
    stack = [
        keras.Input((T,), dtype="int32"),
        layers.Embedding(WORDS, 2, **EMBEDDING),
        layers.Bidirectional(layers.GRU(2, return_sequences=True, **RNN)),
        layers.Dense(1, "sigmoid", **L2),
    ]
    model = finished(keras.Sequential(stack), "BinaryCrossentropy", **options)
    return Case(model, x, rng.integers(0, 2, (N, T, 1)), valid)


def regression(n_outputs=1, **options):
    x, valid, rng = reals()
    stack = [
        keras.Input((T, 3)),
        layers.Masking(0.0),
        layers.Dense(3, "tanh", **L2),
        layers.Dense(n_outputs, **L2),
    ]
    model = finished(keras.Sequential(stack), "MeanSquaredError", **options)
    return Case(model, x, rng.normal(size=(N, T, n_outputs)), valid)


class FirstFeature(layers.Layer):
    """Masks every row, step or pixel whose first feature is negative, with an axis more or not."""

    def __init__(self, keepdims=False, **options):
        super().__init__(**options)
        self.keepdims = keepdims

    def call(self, x):
        return x + 0.0

    def compute_mask(self, x, previous_mask=None):
        return keras.ops.cast(x[..., :1] if self.keepdims else x[..., 0], "float32") > 0


def rows(keepdims=False, **options):
    """One prediction an input, and a mask that takes inputs out."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 3)).astype("float32")
    stack = [keras.Input((3,)), FirstFeature(keepdims), layers.Dense(C, "softmax", **L2)]
    y = rng.integers(0, C, 9)
    return Case(finished(keras.Sequential(stack), **options), x, y, x[:, 0] > 0)


def pixels(**options):
    """Labels of pixels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2, 3, 3)).astype("float32")
    stack = [keras.Input((2, 3, 3)), FirstFeature(), layers.Dense(C, "softmax", **L2)]
    y = rng.integers(0, C, (N, 2, 3))
    return Case(finished(keras.Sequential(stack), **options), x, y, x[..., 0] > 0)


def nested(**options):
    """The mask comes out of a model in the model."""
    x, valid, rng = words()
    inner = keras.Sequential(
        [keras.Input((T,), dtype="int32"), layers.Embedding(WORDS, 3, **EMBEDDING)]
    )
    inputs = keras.Input((T,), dtype="int32")
    model = keras.Model(inputs, layers.Dense(C, "softmax", **L2)(inner(inputs)))
    return Case(finished(model, **options), x, rng.integers(0, C, (N, T)), valid)


class Tagger(keras.Model):
    def __init__(self):
        super().__init__()
        self.look_up = layers.Embedding(WORDS, 3, **EMBEDDING)
        self.last = layers.Dense(C, "softmax", **L2)

    def call(self, x):
        return self.last(self.look_up(x))


def subclassed(**options):
    x, valid, rng = words()
    model = Tagger()
    model(x)
    return Case(finished(model, **options), x, rng.integers(0, C, (N, T)), valid)


def legacy(**options):
    tf_keras = pytest.importorskip("tf_keras")
    x, valid, rng = words()
    a_rate = tf_keras.regularizers.L2(RATE / 2)
    model = tf_keras.Sequential(
        [
            tf_keras.layers.Embedding(
                WORDS, 2, mask_zero=True, input_length=T, embeddings_regularizer=a_rate
            ),
            tf_keras.layers.SimpleRNN(
                2,
                return_sequences=True,
                kernel_regularizer=a_rate,
                recurrent_regularizer=a_rate,
                bias_regularizer=a_rate,
            ),
            tf_keras.layers.Dense(C, "softmax", kernel_regularizer=a_rate, bias_regularizer=a_rate),
        ]
    )
    for variable in model.trainable_variables:
        variable.assign(0.5 * np.random.default_rng(1).normal(size=variable.shape))
    model.compile(loss=tf_keras.losses.SparseCategoricalCrossentropy(**options))
    return Case(model, x, rng.integers(0, C, (N, T)), valid)
