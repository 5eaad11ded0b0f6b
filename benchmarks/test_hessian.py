"""The exact Hessian: eigenpairs beside ARPACK, products beside plain reverse over reverse."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from published import Published
from setting import lenet, mlp, mnist, once, operator

from deltauq import DeltaMethod, Network
from deltauq.curvature import Hessian
from deltauq.eigen import eigenpairs
from deltauq.likelihoods import Categorical

CASES = {"LeNet": (2_000, 50, 1e-2), "MLP 784-256-128-10": (10_000, 100, 1e-3)}
GROUP = "exact Hessian eigenpairs: {}, N = {:,}, K = {}"


@pytest.fixture(scope="module", params=CASES)
def case(request):
    n, rank, l2 = CASES[request.param]
    x, y = mnist("train", n)
    if request.param == "LeNet":
        model = lenet()
    else:
        x = x.reshape(n, -1)
        model = mlp(x, y, l2=l2)
    return GROUP.format(request.param, n, rank), model, x, y, rank, l2


@pytest.fixture(scope="module")
def converged():
    """What ARPACK found, for the comparison of standard errors: group -> eigenpairs."""
    return {}


def test_published(benchmark, case, converged):
    benchmark.group, model, x, y, rank, _ = case
    algorithm = Published(Network(model), Categorical())
    vector = tf.zeros([algorithm.network.n_params])
    algorithm._product(tf.constant(x[:500]), tf.constant(y[:500]), vector)  # compile
    values, vectors, products = once(benchmark, algorithm.hessian_eigenpairs, x, y, rank)
    benchmark.extra_info["products"] = products
    converged[benchmark.group] = values, vectors


@pytest.mark.filterwarnings("ignore")
def test_deltauq(benchmark, case, converged):
    benchmark.group, model, x, y, rank, l2 = case
    hessian = operator(Hessian, model, x, y, l2=l2, batch_size=2_048)
    hessian.matmat(np.zeros((hessian.shape[0], 4), np.float32))  # compile
    pairs = once(benchmark, eigenpairs, hessian, rank)
    benchmark.extra_info["products"] = pairs.products
    assert pairs.converged
    if benchmark.group in converged:
        deviation = median_standard_errors(
            model, x, y, l2, pairs.rescaled(l2), converged[benchmark.group]
        )
        benchmark.extra_info["median standard error against ARPACK's"] = deviation
        assert deviation < 1e-3


def median_standard_errors(model, x, y, l2, pairs, truth):
    """Relative difference of the medians from two sets of eigenpairs with one tail."""
    rows = DeltaMethod(model, "opg", rank=10, l2=l2, progress=False).fit(x[:500], y[:500])
    _, jacobian = rows._fitted.problem.linearization.jacobian(tf.constant(x[:64]))
    jacobian = jacobian * np.sqrt(l2)
    medians = []
    for values, vectors in ((pairs.values, pairs.vectors), truth):
        along = jacobian @ vectors
        tail = (1 / l2 + 1 / (l2 + truth[0][-1])) / 2
        rest = np.sum(jacobian**2, axis=2) - np.sum(along**2, axis=2)
        variance = np.sum(along**2 / (values + l2), axis=2) + tail * rest
        medians.append(np.median(np.sqrt(variance)))
    return abs(medians[0] / medians[1] - 1)


PRODUCTS = "Hessian products of 8 vectors: {}"


@pytest.mark.parametrize("way", ["plain", "deltauq"])
def test_products(benchmark, case, way):
    name, model, x, y, _, l2 = case
    benchmark.group = PRODUCTS.format(name.split(": ")[1].split(",")[0])
    x, y = x[:2_000], y[:2_000]
    vectors = np.random.default_rng(0).standard_normal((Network(model).n_params, 8), np.float32)
    if way == "deltauq":
        hessian = operator(Hessian, model, x, y, l2=l2, batch_size=2_048)
        once(benchmark, hessian.matmat, vectors, rounds=5, warmup=1)
        return
    product = Published(Network(model), Categorical())._product

    def one_by_one():
        for vector in vectors.T:
            for start in range(0, len(x), 500):
                rows = slice(start, start + 500)
                product(tf.constant(x[rows]), tf.constant(y[rows]), tf.constant(vector)).numpy()

    once(benchmark, one_by_one, rounds=5, warmup=1)
