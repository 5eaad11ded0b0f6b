"""OPG eigenpairs: beside the matrix products alone, and beside the published algorithm."""

from __future__ import annotations

import numpy as np
import pytest
from published import Published
from setting import lenet, mnist, once, operator

from deltauq import Network
from deltauq.curvature import OPG
from deltauq.eigen import eigenpairs
from deltauq.likelihoods import Categorical
from deltauq.linalg import add_gram_product

L2 = 0.01
WHOLE = "OPG eigenpairs: LeNet, 60,000 images, K = 600"
SMALL = "OPG eigenpairs: LeNet, 3,000 images, K = 100"


@pytest.mark.benchmark(group=WHOLE)
def test_floor_products_alone(benchmark):
    """The two products of every block of rows in both passes, on rows that are already there."""
    rng, size, columns = np.random.default_rng(0), 93_322, 650
    rows = rng.standard_normal((1_438, size), np.float32)
    vectors = rng.standard_normal((size, columns), np.float32)

    def two_passes():
        total = np.zeros_like(vectors)
        for _ in range(2 * 60_000 // len(rows)):
            add_gram_product(rows, vectors, total)

    once(benchmark, two_passes)


@pytest.mark.benchmark(group=WHOLE)
def test_deltauq_whole(benchmark):
    curvature = operator(OPG, lenet(), *mnist("train", 60_000), l2=L2, batch_size=128)
    pairs = once(benchmark, eigenpairs, curvature, 600).rescaled(L2)
    published = [21.9284, 18.0325, 11.3121, 9.7306, 7.8729, 7.5341]
    np.testing.assert_allclose(pairs.values[:6] + L2, published, rtol=1e-4)
    assert pairs.values.sum() >= 110.805
    benchmark.extra_info["share of the trace"] = pairs.values.sum() / pairs.trace


@pytest.mark.benchmark(group=SMALL)
def test_published(benchmark):
    x, y = mnist("train", 3_000)
    algorithm = Published(Network(lenet()), Categorical())
    algorithm._gradients(x[:200], y[:200])  # compile
    once(benchmark, algorithm.opg_eigenpairs, x, y, 100)


@pytest.mark.benchmark(group=SMALL)
def test_deltauq(benchmark):
    curvature = operator(OPG, lenet(), *mnist("train", 3_000), l2=L2, batch_size=128)
    curvature.matmat(np.zeros((93_322, 1), np.float32))  # compile
    once(benchmark, eigenpairs, curvature, 100, rounds=3)
