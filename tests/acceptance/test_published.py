"""The published LeNet of arXiv 1912.00832 on all 60,000 training images of MNIST."""

from __future__ import annotations

import numpy as np
import published_network
import pytest
from published_network import LAMBDA

from deltauq import DeltaMethod

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lenet():
    return published_network.lenet(regularized=True)


@pytest.fixture(scope="module")
def mnist():
    parts = {part: published_network.mnist(part) for part in ("train", "test")}
    images, labels = ({part: parts[part][place] for part in parts} for place in (0, 1))
    return images, labels


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
