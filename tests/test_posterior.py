"""The posterior, its evidence and the choice of the L2 rate, against dense matrices and SciPy."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import scipy.stats

from deltauq import DeltaMethod
from deltauq.errors import (
    InvalidInputError,
    NotPositiveDefiniteError,
    NumericalError,
    TunedL2Warning,
)
from deltauq.evidence import held_out_likelihood, log_marginal_likelihood
from deltauq.linalg import Eigenpairs

L2 = 0.05
RATES = {"*kernel": L2, "*bias": 4 * L2}

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # tensorflow-probability
]


def fit(case, curvature="ggn", **options):
    options = {"rank": 10, "l2": L2, "weights": "counts", "progress": False} | options
    return DeltaMethod(case.model, curvature, **options).fit(case.x, case.y, case.weight)


@pytest.mark.parametrize("l2", [L2, RATES], ids=["one rate", "several rates"])
@pytest.mark.parametrize("rank", [10, "full"])
def test_its_density_is_scipys(get_case, rank, l2):
    dm = fit(get_case("tanh"), rank=rank, l2=l2)
    posterior = dm.posterior()
    sigma, mean = dm.covariance.to_dense().numpy(), posterior.mean().numpy()
    weights = np.concatenate([w.ravel() for w in get_case("tanh").model.get_weights()])
    np.testing.assert_array_equal(mean, weights)
    points = mean + 0.1 * np.random.default_rng(0).normal(size=(5, len(mean)))
    truth = scipy.stats.multivariate_normal(mean, sigma).logpdf(points)
    np.testing.assert_allclose(posterior.log_prob(points).numpy(), truth, rtol=1e-8)
    found = dm.covariance.log_abs_determinant().numpy()
    assert found == pytest.approx(np.linalg.slogdet(sigma)[1], rel=1e-8)


@pytest.mark.parametrize("l2", [L2, RATES], ids=["one rate", "several rates"])
@pytest.mark.parametrize("rank", [10, "full"])
def test_its_samples_have_the_covariance(get_case, rank, l2):
    """20,000 draws: every entry of the whitened covariance within five standard errors."""
    dm = fit(get_case("tanh"), rank=rank, l2=l2)
    draws, n = dm.posterior().sample(20_000, seed=0).numpy(), 20_000
    sigma = dm.covariance.to_dense().numpy()
    root = np.linalg.inv(np.linalg.cholesky(sigma))
    white = (draws - dm.posterior().mean().numpy()) @ root.T
    assert np.max(np.abs(white.mean(axis=0))) < 5 / np.sqrt(n)
    deviation = white.T @ white / n - np.eye(len(sigma))
    assert np.max(np.abs(deviation)) < 5 * np.sqrt(2 / n)
    assert scipy.stats.kstest(np.ravel(white[:500]), "norm").pvalue > 1e-3


def test_a_singular_covariance_has_no_density(get_case):
    with pytest.raises(NotPositiveDefiniteError, match=r"no density.*tail"):
        fit(get_case("tanh"), tail="none").posterior()


def dense_evidence(case, matrix, rates):
    """Log p(y | x) by Laplace's approximation, every term written out."""
    n = case.weight.sum()
    weights = np.concatenate([w.ravel() for w in case.model.get_weights()])
    p = case.truth.probabilities[np.arange(len(case.y)), case.y]
    log_likelihood = case.weight @ np.log(p)
    precision = n * rates
    log_prior = 0.5 * np.sum(np.log(precision / (2 * np.pi))) - 0.5 * np.sum(precision * weights**2)
    log_determinant = np.linalg.slogdet(n * (matrix + np.diag(rates)))[1]
    return log_likelihood + log_prior + 0.5 * len(rates) * np.log(2 * np.pi) - 0.5 * log_determinant


@pytest.mark.parametrize("l2", [L2, RATES], ids=["one rate", "several rates"])
@pytest.mark.parametrize("curvature", ["opg", "ggn"])
def test_the_evidence_is_the_dense_one_and_bounded_in_low_rank(get_case, curvature, l2):
    case = get_case("tanh")
    full = fit(case, curvature, rank="full", l2=l2)
    truth = dense_evidence(case, getattr(case.truth, curvature), full._fitted.problem.rates)
    found = full.log_marginal_likelihood()
    assert float(found) == pytest.approx(truth, rel=1e-8)
    assert found.low == found.high
    for rank in (3, 8):
        low_rank = fit(case, curvature, rank=rank, l2=l2).log_marginal_likelihood()
        assert low_rank.low <= truth * (1 - 1e-12 * np.sign(truth))
        assert truth <= low_rank.high * (1 + 1e-12 * np.sign(low_rank.high))


@pytest.mark.parametrize("spread", [True, False])
def test_the_bounds_of_the_evidence_are_attained(spread):
    """The lower where what is left of the trace is spread evenly, the upper where nothing is."""
    values, rest = np.array([50.0, 4.0]), np.full(6, 0.8 if spread else 0.0)
    pairs = Eigenpairs(
        values=values,
        vectors=np.eye(8)[:, :2],
        residual_norms=np.zeros(2),
        trace=float(values.sum() + rest.sum()),
        smallest=None,
        products=0,
        converged=True,
    )
    fitted = SimpleNamespace(
        pairs=pairs,
        covariance=SimpleNamespace(noise=None),
        problem=SimpleNamespace(data=SimpleNamespace(n_examples=40.0)),
        stationarity=SimpleNamespace(cost=0.7),
        settings=SimpleNamespace(curvature="ggn"),
    )
    truth = -40.0 * 0.7 - np.log1p(np.r_[values, rest]).sum() / 2
    found = log_marginal_likelihood(fitted)
    assert found.low == pytest.approx(truth)
    assert found.value == found.low
    assert found.high == pytest.approx(-40.0 * 0.7 - np.log1p(values).sum() / 2)


def test_what_has_no_evidence_is_refused(get_case):
    with pytest.raises(InvalidInputError, match="needs the trace"):
        fit(get_case("tanh"), "hessian", rank=5).log_marginal_likelihood()
    with pytest.raises(InvalidInputError, match="sandwich"):
        fit(get_case("tanh"), "sandwich", rank="full").log_marginal_likelihood()


def test_tuning_finds_the_maximum_of_the_evidence_and_keeps_the_eigenpairs(get_case):
    case = get_case("tanh")
    dm = fit(case, rank="full")
    tuned = dm.tune_l2()
    factors = np.geomspace(0.01, 100, 4001)
    values = [dense_evidence(case, case.truth.ggn, np.full(64, L2 * f)) for f in factors]
    assert tuned.rate == pytest.approx(L2 * factors[np.argmax(values)], rel=0.01)
    assert "trained with another" in tuned.note
    some = slice(65, 100, 6)
    curve = [dense_evidence(case, case.truth.ggn, np.full(64, L2 * f)) for f in tuned.factors[some]]
    np.testing.assert_allclose(tuned.values[some], curve, rtol=1e-8)
    assert float(dm.log_marginal_likelihood()) == pytest.approx(np.max(values), rel=1e-5)
    again = fit(case, rank="full", l2=tuned.rate)
    np.testing.assert_allclose(dm.predict(case.x).std, again.predict(case.x).std, rtol=1e-8)
    np.testing.assert_allclose(dm.eigenpairs.values, again.eigenpairs.values, atol=1e-12)
    assert dm.stationarity.l2_norm == pytest.approx(again.stationarity.l2_norm)


def test_tuning_by_held_out_likelihood(get_case):
    case = get_case("tanh")
    dm, held_out = fit(case), list(case.batches())
    of_others = held_out_likelihood(dm._fitted, held_out, np.array([0.2]))
    other = fit(case, l2=0.2 * L2)._fitted
    assert of_others[0] == pytest.approx(held_out_likelihood(other, held_out, np.ones(1))[0], 1e-3)
    tuned = dm.tune_l2(case.x, case.y, case.weight)
    assert tuned.criterion == "held-out likelihood"
    assert tuned.values.max() < 0
    assert tuned.rate == pytest.approx(L2 * tuned.factors[np.argmax(tuned.values)], rel=0.2)
    with pytest.raises(NumericalError, match="no maximum"):  # labels the network is right about
        dm.tune_l2(case.x, case.truth.probabilities.argmax(axis=1))


def test_tuning_needs_l2_on_every_variable():
    """The dense path takes a variable without L2 that the data determine."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    model = keras.Sequential(
        [
            keras.Input((2,), dtype="float64"),
            keras.layers.Dense(1, use_bias=False, dtype="float64", name="free"),
            keras.layers.Dense(2, dtype="float64", name="held"),
        ]
    )
    l2 = {"free*": 0.0, "held*": 1e-2}
    dm = DeltaMethod(model, "opg", rank="full", l2=l2, progress=False).fit(x, y)
    with pytest.raises(InvalidInputError, match="some are zero"):
        dm.tune_l2()


def test_l2_tune_answers_in_one_line_and_says_what_it_did():
    """A model without any L2: the same as giving the rate, and a warning in words."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5))
    y = (x @ rng.normal(size=(5, 3)) + rng.gumbel(size=(300, 3))).argmax(axis=1)
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="float64"),
            keras.layers.Dense(6, "tanh", dtype="float64"),
            keras.layers.Dense(3, dtype="float64"),
        ]
    )
    keras.utils.set_random_seed(0)
    model.set_weights([0.5 * rng.normal(size=w.shape) for w in model.get_weights()])
    with pytest.warns(TunedL2Warning, match="trained with another"):
        dm = DeltaMethod(model, "ggn", l2="tune", rank="full", progress=False).fit(x, y)
    rate = dm._fitted.problem.common_rate
    given = DeltaMethod(model, "ggn", l2=rate, rank="full", progress=False).fit(x, y)
    np.testing.assert_allclose(dm.predict(x).std, given.predict(x).std, rtol=1e-6)
    values = [
        float(
            DeltaMethod(model, "ggn", l2=rate * f, rank="full", progress=False)
            .fit(x, y)
            .log_marginal_likelihood()
        )
        for f in (0.9, 1.0, 1.1)
    ]
    assert np.argmax(values) == 1
