"""Covariances of predictions: beside one matrix product, the published algorithm, and peers."""

from __future__ import annotations

import numpy as np
import pytest
from published import Published
from published_network import lenet, mnist
from setting import beside, ratio

from deltauq import DeltaMethod, Network
from deltauq.likelihoods import Categorical

pytestmark = pytest.mark.filterwarnings("ignore")
L2 = 0.01
PRODUCT = "one product [10 B, P] x [P, K] alone"


@pytest.fixture(scope="module")
def fitted():
    """Fitted on a part of the images: the time to predict does not depend on how many."""
    return {
        rank: DeltaMethod(lenet(), "opg", rank=rank, l2=L2, progress=False).fit(*mnist("train", n))
        for rank, n in ((600, 6_000), (100, 3_000))
    }


@pytest.mark.benchmark(group="prediction: LeNet, 10 x 10 covariances of 2,000 images, K = 600")
def test_floor(benchmark, fitted):
    """On a Jacobian that is already there."""
    x, _ = mnist("test", 2_000)
    jacobian = np.random.default_rng(0).standard_normal((2_000, 93_322), np.float32)
    vectors = fitted[600].eigenpairs.vectors

    def product():
        for _ in range(10):
            jacobian @ vectors

    beside(benchmark, lambda: fitted[600].predict(x), {PRODUCT: product}, rounds=5, warmup=1)
    assert ratio(benchmark, PRODUCT) >= 1 / 1.3


@pytest.mark.benchmark(group="prediction: LeNet, 10 x 10 covariances of 100 images, K = 100")
def test_peers(benchmark, fitted):
    x, _ = mnist("test", 100)
    algorithm = Published(Network(lenet()), Categorical())
    pairs = fitted[100].eigenpairs
    arguments = (pairs.values, pairs.vectors, L2, 3_000)
    rivals = {"published algorithm": lambda: algorithm.predict(x, *arguments)}
    kronecker = laplace_torch_kronecker(x)
    if kronecker:
        rivals["laplace-torch, Kronecker, all layers"] = kronecker
    ours, theirs = beside(benchmark, lambda: fitted[100].predict(x), rivals, rounds=3, warmup=1)
    found = np.einsum("ncc->nc", ours.covariance)
    truth = np.einsum("ncc->nc", theirs["published algorithm"])
    assert np.median(found / truth) == pytest.approx(1, abs=0.3)  # the tails differ
    assert ratio(benchmark, "published algorithm") >= 4
    if kronecker:
        assert ratio(benchmark, "laplace-torch, Kronecker, all layers") >= 20


def laplace_torch_kronecker(x):
    """Its predictive covariances of x on the same weights; None where it is not installed.

    Fitted on 500 images: the time to predict is the same.
    """
    try:
        import laplace
        import torch
    except ImportError:
        return None
    nn = torch.nn
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    keras_weights = iter(lenet().get_weights())
    with torch.no_grad():
        for parameter in model.parameters():
            value = next(keras_weights)
            if value.ndim == 4:
                value = value.transpose(3, 2, 0, 1)
            elif value.shape == (576, 64):  # channels first there, last here
                value = value.reshape(3, 3, 64, 64).transpose(3, 2, 0, 1).reshape(64, 576)
            elif value.ndim == 2:
                value = value.T
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    train, labels = mnist("train", 500)
    images = torch.from_numpy(train).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = lenet()(train).numpy()
        np.testing.assert_allclose(model(images).numpy(), logits, rtol=1e-3, atol=1e-4)
    examples = torch.utils.data.TensorDataset(images, torch.from_numpy(labels))
    loader = torch.utils.data.DataLoader(examples, batch_size=100)
    approximation = laplace.Laplace(
        model,
        "classification",
        subset_of_weights="all",
        hessian_structure="kron",
        prior_precision=L2 * 500,
    )
    approximation.fit(loader)
    test = torch.from_numpy(x).permute(0, 3, 1, 2)

    def predict():
        # Its Jacobians of more inputs at once do not fit in memory.
        for some in torch.split(test, 10):
            approximation._glm_predictive_distribution(some)

    return predict
