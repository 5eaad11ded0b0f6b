"""Trained networks whose few eigenpairs leave much open, with other inputs of the same kind."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import sklearn.datasets
import sklearn.neural_network
from datasets import load

from deltauq import DeltaMethod

layers = keras.layers
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Case(NamedTuple):
    """A network, its training data, and inputs that it was not trained on."""

    model: Any
    x: np.ndarray
    y: np.ndarray
    new: np.ndarray


def regularized(rate):
    """Keras' factor is half of the rate."""
    l2 = keras.regularizers.L2(rate / 2)
    return {"kernel_regularizer": l2, "bias_regularizer": l2}


def apart(x, y, n_train, n_new, seed):
    order = np.random.default_rng(seed).permutation(len(x))
    return x[order[:n_train]], y[order[:n_train]], x[order[n_train : n_train + n_new]]


def trained(model, x, y, loss, *, epochs, rate=1e-2):
    steps = epochs * int(np.ceil(len(x) / 128))
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.Adam(schedule), loss)
    model.fit(x, y, epochs=epochs, batch_size=128, verbose=0)
    return model


def small(seed=0):
    """A network of 524 parameters, trained by scikit-learn in a moment."""
    x, y = sklearn.datasets.make_classification(
        550, 8, n_informative=6, n_classes=4, flip_y=0.1, random_state=seed
    )
    x, y, new = apart(x.astype("float32"), y, 250, 300, seed)
    net = sklearn.neural_network.MLPClassifier(
        (40,), activation="tanh", solver="lbfgs", alpha=1e-2 * len(x), max_iter=3000, random_state=0
    ).fit(x, y)
    model = keras.Sequential([layers.Input((8,)), layers.Dense(40, "tanh"), layers.Dense(4)])
    model.compile(loss=CROSS_ENTROPY)
    pairs = zip(net.coefs_, net.intercepts_, strict=True)
    model.set_weights([each for pair in pairs for each in pair])
    return Case(model, x, y, new)


def digits(seed):
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x, y, new = apart((x / 16).astype("float32"), y, 1400, 300, seed)
    keras.utils.set_random_seed(seed)
    l2 = regularized(1e-5)
    model = keras.Sequential(
        [layers.Input((64,)), layers.Dense(32, "tanh", **l2), layers.Dense(10, **l2)]
    )
    return Case(trained(model, x, y, CROSS_ENTROPY, epochs=150), x, y, new)


def convolutions(seed):
    """With batch normalisation; P is about 2,500."""
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x, y, new = apart((x / 16).astype("float32").reshape(-1, 8, 8, 1), y, 1400, 300, seed)
    keras.utils.set_random_seed(seed)
    l2, half = regularized(1e-3), keras.regularizers.L2(5e-4)

    def normalised():
        return layers.BatchNormalization(beta_regularizer=half, gamma_regularizer=half)

    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(8, 3, **l2),
            normalised(),
            layers.Activation("relu"),
            layers.Conv2D(12, 3, **l2),
            normalised(),
            layers.Activation("relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(16, "tanh", **l2),
            layers.Dense(10, **l2),
        ]
    )
    return Case(trained(model, x, y, CROSS_ENTROPY, epochs=40), x, y, new)


def german_credit(seed, rate, *, epochs=60):
    arrays = load("uci_german_credit.npz")
    x = arrays["x_numeric24"].astype(float)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
    x, y, new = apart(x, arrays["y"].astype("int32"), 700, 300, seed)
    keras.utils.set_random_seed(seed)
    l2 = regularized(rate)
    model = keras.Sequential(
        [layers.Input((24,)), layers.Dense(32, "tanh", **l2), layers.Dense(1, **l2)]
    )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    return Case(trained(model, x, y, loss, epochs=epochs), x, y, new)


def friedman(seed):
    x, y = sklearn.datasets.make_friedman1(1300, noise=1.0, random_state=seed)
    y = ((y - y.mean()) / y.std())[:, None].astype("float32")
    x, y, new = apart(x.astype("float32"), y, 1000, 300, seed)
    keras.utils.set_random_seed(seed)
    l2 = regularized(1e-4)
    model = keras.Sequential(
        [
            layers.Input((10,)),
            layers.Dense(40, "tanh", **l2),
            layers.Dense(20, "tanh", **l2),
            layers.Dense(1, **l2),
        ]
    )
    return Case(trained(model, x, y, "mse", epochs=100), x, y, new)


def lenet(seed):
    """Of letters, 800 of them."""
    arrays = load("notmnist_test.npz")
    x = (arrays["x_test"][..., None] / 255).astype("float32")
    x, y, new = apart(x, arrays["y_test"], 800, 100, seed)
    keras.utils.set_random_seed(seed)
    l2 = regularized(1e-4)
    model = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(6, 5, padding="same", activation="relu", **l2),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 5, activation="relu", **l2),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(120, "relu", **l2),
            layers.Dense(84, "relu", **l2),
            layers.Dense(10, **l2),
        ]
    )
    return Case(trained(model, x, y, CROSS_ENTROPY, epochs=25, rate=3e-3), x, y, new)


def fit(case, curvature, rate, rank, *, calibration=None, **options):
    """A fit of few eigenpairs, or of all for the rank "full"."""
    if rank != "full":
        options = {"route": "sketch"} | options
    dm = DeltaMethod(case.model, curvature, l2=rate, rank=rank, progress=False, **options)
    return dm.fit(case.x, case.y, calibration=calibration)


def error(found, truth):
    """Median relative error of standard errors above their 20 % quantile."""
    large = truth >= np.quantile(truth, 0.2)
    return float(np.median(np.abs(found / truth - 1)[large]))


def contains(bounds, values):
    low, high = bounds
    return bool(np.all((low <= values) & (values <= high)))
