"""Covariances of predictions: beside one matrix product, the published algorithm, and peers."""

from __future__ import annotations

import numpy as np
import pytest
from published import Published
from setting import lenet, mnist, once

from deltauq import DeltaMethod, Network
from deltauq.likelihoods import Categorical

pytestmark = pytest.mark.filterwarnings("ignore")
L2 = 0.01
FLOOR = "prediction: LeNet, 10 x 10 covariances of 2,000 images, K = 600"
PEERS = "prediction: LeNet, 10 x 10 covariances of 100 images, K = 100"


@pytest.fixture(scope="module")
def fitted():
    """Fitted on a part of the images: the time to predict does not depend on how many."""
    return {
        rank: DeltaMethod(lenet(), "opg", rank=rank, l2=L2, progress=False).fit(*mnist("train", n))
        for rank, n in ((600, 6_000), (100, 3_000))
    }


@pytest.mark.benchmark(group=FLOOR)
def test_floor_one_product(benchmark):
    """[10 B, P] x [P, K] for as many images, on a Jacobian that is already there."""
    rng = np.random.default_rng(0)
    jacobian = rng.standard_normal((2_000, 93_322), np.float32)
    vectors = rng.standard_normal((93_322, 600), np.float32)

    def product():
        for _ in range(10):
            jacobian @ vectors

    once(benchmark, product, rounds=3)


@pytest.mark.benchmark(group=FLOOR)
def test_deltauq_k600(benchmark, fitted):
    x, _ = mnist("test", 2_000)
    once(benchmark, fitted[600].predict, x, rounds=3, warmup=1)


@pytest.mark.benchmark(group=PEERS)
def test_published(benchmark, fitted):
    x, _ = mnist("test", 100)
    algorithm = Published(Network(lenet()), Categorical())
    pairs = fitted[100].eigenpairs
    arguments = (pairs.values, pairs.vectors, L2, 3_000)
    covariance = once(benchmark, algorithm.predict, x, *arguments, rounds=3, warmup=1)
    found = np.einsum("ncc->nc", fitted[100].predict(x).covariance)
    truth = np.einsum("ncc->nc", covariance)
    assert np.median(found / truth) == pytest.approx(1, abs=0.3)  # the tails differ


@pytest.mark.benchmark(group=PEERS)
def test_deltauq_k100(benchmark, fitted):
    x, _ = mnist("test", 100)
    once(benchmark, fitted[100].predict, x, rounds=5, warmup=1)


@pytest.mark.benchmark(group=PEERS)
def test_laplace_torch_kronecker(benchmark):
    """All layers, Kronecker factors, fitted on 500 images: the time to predict is the same."""
    torch = pytest.importorskip("torch")
    laplace = pytest.importorskip("laplace")
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
    x, y = (torch.from_numpy(part) for part in mnist("train", 500))
    images = x.permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = lenet()(x.numpy()).numpy()
        np.testing.assert_allclose(model(images).numpy(), logits, rtol=1e-3, atol=1e-4)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, y), batch_size=100)
    approximation = laplace.Laplace(
        model,
        "classification",
        subset_of_weights="all",
        hessian_structure="kron",
        prior_precision=L2 * 500,
    )
    approximation.fit(loader)
    test = torch.from_numpy(mnist("test", 100)[0]).permute(0, 3, 1, 2)

    def predict():
        for start in range(0, 100, 10):  # its Jacobians of more inputs do not fit in memory
            approximation._glm_predictive_distribution(test[start : start + 10])

    once(benchmark, predict)
