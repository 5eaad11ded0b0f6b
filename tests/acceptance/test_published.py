"""The published LeNet of arXiv 1912.00832 on all 60,000 training images of MNIST."""

from __future__ import annotations

import datasets
import keras
import numpy as np
import pytest

from deltauq import DeltaMethod

pytestmark = pytest.mark.slow

LAMBDA = 0.01


@pytest.fixture(scope="module")
def lenet():
    layers, rate = keras.layers, keras.regularizers.L2(LAMBDA / 2)
    l2 = {"kernel_regularizer": rate, "bias_regularizer": rate}
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu", **l2),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu", **l2),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu", **l2),
            layers.Flatten(),
            layers.Dense(64, activation="relu", **l2),
            layers.Dense(10, **l2),
        ]
    )
    weights = datasets.load("nilsen_mnist_lenet.npz")
    names = ("conv1", "conv2", "conv3", "dense", "out")
    model.set_weights([weights[f"{n}_{part}"] for n in names for part in ("kernel", "bias")])
    return model


@pytest.fixture(scope="module")
def mnist():
    arrays = datasets.load("mnist.npz")
    images = {part: arrays[f"x_{part}"][..., None] / np.float32(255) for part in ("train", "test")}
    return images, {part: arrays[f"y_{part}"].astype(int) for part in ("train", "test")}


def test_opg_and_accuracy(lenet, mnist):
    x, y = mnist
    dm = DeltaMethod(lenet, "opg", rank=50).fit(x["train"], y["train"])
    published = [21.9284, 18.0325, 11.3121, 9.7306, 7.8729, 7.5341]
    np.testing.assert_allclose(dm.eigenpairs.values[:6] + LAMBDA, published, rtol=1e-3)
    assert dm.eigenpairs.trace == pytest.approx(111.3367, rel=1e-4)
    assert dm.stationarity.cost == pytest.approx(0.258392, rel=1e-4)
    assert dm.stationarity.gradient_norm == pytest.approx(0.016249, rel=1e-3)
    assert dm.stationarity.data_norm == pytest.approx(0.061155, rel=1e-3)
    prediction = dm.predict(x["test"])
    assert np.mean(prediction.labels == y["test"]) == pytest.approx(0.9811, abs=1e-9)
    wrong = prediction.labels != y["test"]
    assert np.median(prediction.score[wrong]) > np.median(prediction.score[~wrong])


def test_exact_hessian(lenet, mnist):
    x, y = mnist
    dm = DeltaMethod(lenet, "hessian", rank=1).fit(x["train"], y["train"])
    assert dm.eigenpairs.values[0] + LAMBDA == pytest.approx(39.0920, rel=1e-3)
    # The residual bounds the distance to a true eigenvalue.
    assert dm.eigenpairs.residual_norms[0] < 1e-3
