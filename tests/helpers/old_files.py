"""Files of models as Keras 2 wrote them, untrained, by what is odd about each."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tf_keras

layers = tf_keras.layers

X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
Y = np.arange(24) % 2
SEQUENCES = X.reshape(24, 2, 2)

L2 = {"kernel_regularizer": "l2", "bias_regularizer": "l2"}


@dataclass(frozen=True)
class OldFile:
    """A file, the model that it was written from, inputs, and the Keras that is to open it."""

    path: Path
    model: tf_keras.Model
    x: np.ndarray
    opened_by: str


def dense(*first, loss="binary_crossentropy", optimizer="adam", with_input=True):
    """One sigmoid over a hidden layer, after other layers; the same weights every time."""
    start = [layers.Input((4,))] if with_input else []
    hidden = layers.Dense(3, "tanh", **L2)
    model = tf_keras.Sequential([*start, *first, hidden, layers.Dense(1, "sigmoid", **L2)])
    return compiled(model, X, loss, optimizer)


def recurrent(kind=layers.SimpleRNN, **options):
    """A layer with `time_major` in its configuration, which Keras 3 does not know."""
    layer = kind(3, recurrent_regularizer="l2", **L2, **options)
    ends = layers.Input((2, 2)), layers.Dense(1, "sigmoid", **L2)
    return compiled(tf_keras.Sequential([ends[0], layer, ends[1]]), SEQUENCES)


def arithmetic():
    """A functional model with operations that are no layers."""
    x = layers.Input((4,))
    hidden = layers.Dense(4, "tanh", **L2)(x) * 2.0 + x
    return compiled(tf_keras.Model(x, layers.Dense(1, "sigmoid", **L2)(hidden)), X)


def compiled(model, x, loss="binary_crossentropy", optimizer="adam"):
    model(x)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape) * 0.7)
    model.compile(optimizer, loss)
    return model


def saved(model, path):
    """Save a model, although `tf_keras` advises against some of its formats."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are saving your model as an HDF5 file")
        model.save(path)
    return path


#: What is odd: the model, the name of its file, and the Keras that is to open it.
KINDS = {
    "h5, loss as text": (dense, "text.h5", "Keras 3"),
    "h5, loss as an object": (
        lambda: dense(loss=tf_keras.losses.BinaryCrossentropy()),
        "object.h5",
        "Keras 3",
    ),
    "h5 without an InputLayer": (lambda: dense(with_input=False), "bare.h5", "Keras 3"),
    "h5 with a recurrent layer": (recurrent, "recurrent.h5", "tf_keras"),
    "h5 with operations": (arithmetic, "arithmetic.h5", "tf_keras"),
    "HDF5 named .keras": (dense, "inside.h5", "Keras 3"),
    ".keras of tf_keras": (dense, "old.keras", "Keras 3"),
    ".keras of tf_keras without a suffix": (dense, "named.keras", "Keras 3"),
    ".keras of tf_keras with BatchNormalization": (
        lambda: dense(layers.BatchNormalization(gamma_regularizer="l2", beta_regularizer="l2")),
        "normalised.keras",
        "tf_keras",
    ),
    "SavedModel": (dense, "folder", "tf_keras"),
}

#: Files that are renamed after Keras wrote them.
RENAMED = {"inside.h5": "inside.keras", "named.keras": "named"}


def write(folder: Path) -> dict[str, OldFile]:
    """Write a file of every kind."""
    files = {}
    for kind, (make, name, opened_by) in KINDS.items():
        model, path = make(), folder / name
        saved(model, path)
        if name in RENAMED:
            path = Path(shutil.move(path, folder / RENAMED[name]))
        x = SEQUENCES if len(model.input_shape) == 3 else X
        files[kind] = OldFile(path, model, x, opened_by)
    return files
