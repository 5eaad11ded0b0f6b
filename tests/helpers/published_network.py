"""The LeNet of arXiv 1912.00832 with its published weights, and the images it learnt from."""

from __future__ import annotations

import keras
import numpy as np
from datasets import load

#: The L2 rate that it was trained with.
LAMBDA = 0.01


def mnist(part, n=None):
    """The first n images `[n, 28, 28, 1]` of a part, scaled to [0, 1], and their labels."""
    arrays = load("mnist.npz")
    return (
        arrays[f"x_{part}"][:n, ..., None] / np.float32(255),
        arrays[f"y_{part}"][:n].astype(int),
    )


def untrained(last=None, **options):
    """The architecture: options of every layer with weights, and the activation of the last one."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu", **options),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu", **options),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu", **options),
            layers.Flatten(),
            layers.Dense(64, activation="relu", **options),
            layers.Dense(10, activation=last, **options),
        ]
    )


def lenet(*, regularized=False):
    """The network, P = 93,322; `regularized` states its L2 rate in its layers."""
    rate = keras.regularizers.L2(LAMBDA / 2)
    l2 = {"kernel_regularizer": rate, "bias_regularizer": rate} if regularized else {}
    model = untrained(**l2)
    weights = load("nilsen_mnist_lenet.npz")
    names = ("conv1", "conv2", "conv3", "dense", "out")
    model.set_weights([weights[f"{n}_{part}"] for n in names for part in ("kernel", "bias")])
    return model
