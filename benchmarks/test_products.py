"""Curvature products and predictions beside the matrix products that cannot be avoided.

Run with `make bench`. Times are noisy: compare within one run.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from deltauq import Batches, DeltaMethod, Network, curvature
from deltauq.likelihoods import Categorical

N, K = 2_000, 100


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 784)).astype("float32"), rng.integers(0, 10, N)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((784,)), layers.Dense(64, "tanh"), layers.Dense(32, "tanh"), layers.Dense(10)]
    )
    data = Batches(x, y, likelihood=Categorical(), n_outputs=10, dtype="float32", batch_size=500)
    return model, Network(model), data, x, y


@pytest.mark.benchmark(group="one pass of K vectors")
@pytest.mark.parametrize("kind", ["OPG", "GGN", "Hessian"])
def test_product(benchmark, problem, kind):
    _, network, data, _, _ = problem
    operator = getattr(curvature, kind)(network, "categorical", data)
    vectors = np.random.default_rng(1).normal(size=(network.n_params, K))
    benchmark.pedantic(operator.matmat, (vectors,), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="one pass of K vectors")
def test_floor_two_gemms_of_opg(benchmark, problem):
    rng = np.random.default_rng(1)
    n_params = problem[1].n_params
    rows = rng.normal(size=(500, n_params)).astype("float32")
    vectors = rng.normal(size=(n_params, K)).astype("float32")

    def gemms():
        for _ in range(N // 500):
            rows.T @ (rows @ vectors)

    benchmark.pedantic(gemms, rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="prediction of 200 inputs")
@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_prediction(benchmark, problem):
    model, _, _, x, y = problem
    dm = DeltaMethod(model, "opg", rank=K, l2=1e-2, progress=False).fit(x, y)
    benchmark.pedantic(dm.predict, (x[:200],), rounds=3, warmup_rounds=1)
