"""The first pass of a sketch over an eighth of the examples: what it costs, and what it keeps."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.datasets
from marks import wide, wide_but

from deltauq import ConvergenceWarning, DeltaClassifier, DeltaMethod
from deltauq.curvature import GGN, OPG, Hessian, MonteCarloGGN, SandwichMeat
from deltauq.curvature.linear_head import LinearHeadGGN
from deltauq.curvature.solvers import make_solver, sketch_passes
from deltauq.data import Batches
from deltauq.data.batch_reader import PassListener
from deltauq.likelihoods import Categorical
from deltauq.network import Network

pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")

N, L2 = 1_600, 1e-3
OPTIONS = {"likelihood": Categorical(), "n_outputs": 10, "dtype": "float64", "batch_size": 64}


@pytest.fixture(scope="module")
def digits():
    """A network trained on digits that are sorted by their labels, and others."""
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x, others, y = x[:N] / 16, x[N:] / 16, y[:N]
    order = np.argsort(y, kind="stable")
    options = {"rank": 1, "bounds": False, "epochs": 10, "max_iter": 30, "progress": False}
    classifier = DeltaClassifier((8,), "tanh", l2=L2, random_state=0, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(x[order], y[order])
    return classifier.model_, x[order], y[order], others


def whole(kind):
    """The same curvature without a share of it, as a user's own may be."""
    return type(f"Whole{kind.__name__}", (kind,), {"sampled": lambda self, share, seed: None})


def operator(kind, digits, heard):
    model, x, y, _ = digits
    network = Network(model)
    data = Batches(x, y, **OPTIONS).with_listener(PassListener(on_batch=heard.append))
    return kind(network, "categorical", data, scale=np.full(network.n_params, L2**-0.5))


def solved(curvature, ranks, seed=0):
    solver = make_solver(curvature, ranks[0], bounds=False, seed=seed, storage=None)
    return [solver.solve(rank) for rank in ranks][-1]


@pytest.mark.parametrize(("kind", "ranks"), [(OPG, [15]), wide(GGN, [90]), wide(GGN, [30, 60, 90])])
def test_of_sorted_data_no_more_is_left_than_a_quarter_more(digits, kind, ranks):
    """Beside two full passes; for a rank that grows, every block of columns has its own eighth."""
    dense = operator(kind, digits, []).to_dense()
    for seed in range(2):
        heard, all_heard = [], []
        found = solved(operator(kind, digits, heard), ranks, seed)
        expected = solved(operator(whole(kind), digits, all_heard), ranks, seed)
        assert found.remainder <= 1.25 * expected.remainder
        # The trace is that of all examples, and A^ <= A, though an eighth chose its space.
        assert found.trace == pytest.approx(np.trace(dense), rel=1e-10)
        rest = dense - (found.vectors * found.values) @ found.vectors.T
        assert np.linalg.eigvalsh(rest)[0] > -1e-12 * found.values[0]
        assert sum(heard) == len(ranks) * (N + N // 8)
        assert sum(all_heard) == len(ranks) * 2 * N


@pytest.mark.parametrize(("curvature", "rank"), [wide("opg", 15), wide("ggn", 60), ("ggn", "auto")])
def test_bounds_contain_the_truth(digits, curvature, rank, monkeypatch):
    model, x, y, others = digits
    options = {"progress": False, "rank_tol": 0.3}
    truth = DeltaMethod(model, curvature, rank="full", **options).fit(x, y).predict(others)
    found = DeltaMethod(model, curvature, rank=rank, **options).fit(x, y).predict(others)
    for (low, high), std in (
        (found.std_bounds, truth.std),
        (found.logit_std_bounds, truth.logit_std),
    ):
        assert np.all(low <= std)
        assert np.all(std <= high)


@pytest.mark.parametrize(("kind", "rank"), [(OPG, 16), wide(GGN, 400)])
def test_too_few_rows_to_span_the_columns_are_no_start(digits, kind, rank):
    """Eight rows a column are asked for: then all examples are read twice, as if none were drawn.

    200 rows of OPG for 26 columns, 1,800 of the GGN for 433.
    """
    heard: list[int] = []
    found = solved(operator(kind, digits, heard), [rank])
    expected = solved(operator(whole(kind), digits, []), [rank])
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert sum(heard) == 2 * N


def test_passes_are_counted_as_what_they_read(digits):
    opg, ggn = (operator(kind, digits, []) for kind in (OPG, GGN))
    assert sketch_passes(opg, 15, N) == sketch_passes(ggn, 90, N) == 1.125
    assert sketch_passes(opg, 16, N) == sketch_passes(operator(whole(OPG), digits, []), 15, N) == 2
    assert sketch_passes(opg, 16, 60_000) == 1.125  # the operator of a sample of those


SCALED = {"opg": OPG, "ggn": GGN, "meat": SandwichMeat, "linear head": LinearHeadGGN}


@pytest.mark.parametrize("name", wide_but(["opg", "linear head"], SCALED))
def test_a_share_of_the_examples_estimates_the_whole(get_case, name):
    """Without bias, weights of examples and classes included: 150 draws, and a share of one."""
    case = get_case("no_hidden")
    weight, classes = np.linspace(0.0, 2.0, len(case.y)), {0: 1.0, 1: 2.0, 2: 0.5}
    data = Batches(case.x, case.y, weight, classes, **OPTIONS | {"n_outputs": 3, "batch_size": 4})
    curvature = SCALED[name](Network(case.model), "categorical", data)
    truth = curvature.to_dense()
    np.testing.assert_allclose(curvature.sampled(1.0, 0).to_dense(), truth, rtol=1e-12, atol=1e-15)
    some = [curvature.sampled(0.4, seed) for seed in range(150)]
    drawn = [each.to_dense() for each in some]
    gap = np.mean(drawn, axis=0) - truth
    assert np.all(np.abs(gap) <= 5 * np.std(drawn, axis=0) / np.sqrt(150) + 1e-15)
    assert some[0].trace() == pytest.approx(np.trace(drawn[0]))
    assert curvature.trace() == pytest.approx(np.trace(truth))


def test_products_that_need_all_examples_have_no_share(get_case):
    """The exact Hessian keeps activations; signs of drawn rows go by the order of the examples."""
    case = get_case("tanh")
    for kind in (Hessian, MonteCarloGGN):
        assert kind(Network(case.model), "categorical", case.batches()).sampled(0.5, 0) is None
