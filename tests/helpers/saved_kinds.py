"""A small fit of every kind of prediction and curvature, to be saved, loaded and served."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from deltauq import DeltaMethod
from deltauq.likelihoods import Categorical

layers = keras.layers
X = np.random.default_rng(5).normal(size=(40, 4)).astype("float32")
CLASSES = np.random.default_rng(6).integers(0, 3, 40)
L2 = {
    "kernel_regularizer": "l2",
    "bias_regularizer": "l2",
    "kernel_initializer": keras.initializers.GlorotUniform(seed=3),
}


def build(*middle, units=3, inputs=None, loss="sparse_categorical_crossentropy", **head):
    entry = keras.Input((4,)) if inputs is None else inputs
    model = keras.Sequential([entry, *middle, layers.Dense(units, **(L2 | head))])
    model.compile(loss=loss)
    return model


def hidden(units=5):
    return layers.Dense(units, activation="tanh", **L2)


def softmax(**options):
    model = build(hidden(), activation="softmax")
    return model, X, CLASSES, {"curvature": "ggn", "rank": 8} | options


def binary_without_l2():
    model = build(units=1, activation="sigmoid", loss="binary_crossentropy")
    return model, X, CLASSES % 2, {"curvature": "ggn", "rank": "full", "l2": 0.0}


def several_labels():
    model = build(hidden(), activation="sigmoid", loss="binary_crossentropy")
    labels = np.random.default_rng(7).integers(0, 2, (40, 3))
    return model, X, labels, {"curvature": "opg", "rank": 8}


def regression():
    model = build(hidden(), units=2, loss="mse")
    return model, X, np.random.default_rng(7).normal(size=(40, 2)), {"curvature": "ggn", "rank": 8}


def counts():
    model = build(hidden(), units=2, activation="exponential", loss="poisson")
    return model, X, np.random.default_rng(7).poisson(2.0, (40, 2)), {"curvature": "ggn", "rank": 8}


def positions():
    inputs = keras.Input((5, 2))
    model = build(layers.LSTM(3, return_sequences=True, **L2), inputs=inputs, activation="softmax")
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(20, 5, 2)).astype("float32"), rng.integers(0, 3, (20, 5))
    return model, x, y, {"curvature": "opg", "rank": 8, "l2": 0.1}


def words_and_numbers():
    keras.utils.set_random_seed(3)
    words, numbers = (
        keras.Input((6,), dtype="int32", name="words"),
        keras.Input((4,), name="numbers"),
    )
    pooled = layers.GlobalAveragePooling1D()(layers.Embedding(9, 3)(words))
    output = layers.Dense(3, name="head")(layers.Concatenate()([pooled, numbers]))
    model = keras.Model({"words": words, "numbers": numbers}, output)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rows = np.random.default_rng(7).integers(0, 9, (40, 6))
    x = {"words": rows.astype("int32"), "numbers": X}
    options = {"curvature": "ggn", "rank": 8, "l2": {"embeddings": 0.1, "head": 0.02}}
    return model, x, CLASSES, options


def batch_norm():
    model = build(hidden(), layers.BatchNormalization(), layers.Dropout(0.5), activation="softmax")
    model(X, training=True)
    options = {"curvature": "opg", "rank": 8, "l2": 0.1, "layers": ["batch_normalization*"]}
    return model, X, CLASSES, options


CASES = {
    "softmax": softmax,
    "sandwich": lambda: softmax(curvature="sandwich"),
    "hessian": lambda: softmax(curvature="hessian", negative_curvature="keep", l2=1.0),
    "no bounds": lambda: softmax(bounds=False, tail="none"),
    "smoothed": lambda: softmax(
        likelihood=Categorical(label_smoothing=0.1, classes=("a", "b", "c"))
    ),
    "binary without L2": binary_without_l2,
    "several labels": several_labels,
    "regression": regression,
    "counts": counts,
    "positions": positions,
    "words and numbers": words_and_numbers,
    "batch norm": batch_norm,
}

FIELDS = ("logits", "mean", "covariance", "logit_covariance", "std_limits", "logit_std_limits")


def same(prediction, other):
    assert type(prediction) is type(other)
    assert prediction.certified == other.certified
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(prediction, name), getattr(other, name), name)


def fit(case, **options):
    model, x, y, own = case() if callable(case) else case
    return DeltaMethod(model, progress=False, **(own | options)).fit(x, y), x, y


def first(x, n=7):
    return tf.nest.map_structure(lambda leaf: leaf[:n], x)
