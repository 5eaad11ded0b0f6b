"""The posterior, its evidence and the choice of the L2 rate, against dense matrices and SciPy."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import scipy.stats
from marks import wide

from deltauq import DeltaMethod
from deltauq.curvature import CURVATURES
from deltauq.delta import marginal_likelihood
from deltauq.delta.marginal_likelihood import held_out_likelihood, log_marginal_likelihood
from deltauq.errors import (
    ConvergenceWarning,
    InvalidInputError,
    NotPositiveDefiniteError,
    NumericalError,
)
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


@pytest.mark.wide  # in float32, the same: test_draws_and_density below
@pytest.mark.parametrize("l2", [wide(L2), RATES], ids=["one rate", "several rates"])
@pytest.mark.parametrize("rank", [wide(10), "full"])
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


@pytest.mark.wide  # that its root is the dense one: test_draws_and_density
@pytest.mark.parametrize("l2", [wide(L2), RATES], ids=["one rate", "several rates"])
@pytest.mark.parametrize("rank", [10, wide("full")])
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


def dense_covariance(case, dm, curvature, rank):
    """Sigma in float64 from the dense curvatures of `reference.py`, or from the pairs of a fit."""
    rates, n = dm._fitted.problem.rates, case.weight.sum()
    root = np.sqrt(rates)
    unit = {
        kind: getattr(case.truth, kind) / np.outer(root, root) for kind in ("ggn", "opg", "hessian")
    }
    bread = unit["hessian" if curvature == "sandwich" else curvature]
    values, vectors = np.linalg.eigh(bread)
    slices = (vectors / (1.0 + np.maximum(values, 0.0))) @ vectors.T
    if curvature == "sandwich":
        slices = slices @ (unit["opg"] + np.eye(len(rates))) @ slices
    if rank != "full":
        found = dm._fitted.covariance
        u = found.vectors.astype(np.float64)
        outside = np.eye(len(u)) - u @ u.T
        slices = (u * found.spectrum.weights) @ u.T + found.spectrum.tail * outside
    return slices / np.outer(root, root) / n


slow = pytest.mark.slow


@pytest.mark.filterwarnings("ignore:the .* eigenpairs of the")
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=slow)])
@pytest.mark.parametrize("l2", [RATES, pytest.param(L2, marks=slow)], ids=["rates", "rate"])
@pytest.mark.parametrize(
    ("curvature", "rank"),
    [
        ("ggn", "full"),
        wide("sandwich", "full"),
        ("opg", 8),
        wide("hessian", 8),
        *(
            pytest.param(curvature, rank, marks=slow)
            for curvature in ("ggn", "opg", "hessian", "sandwich")
            for rank in ("full", "auto", 8)
        ),
    ],
)
def test_draws_and_density_are_those_of_the_dense_matrix(get_case, curvature, rank, l2, dtype):
    """S S^T is Sigma, a draw is w^ + S times a standard normal one, log_prob is SciPy's."""
    case = get_case("tanh", dtype)
    dm = fit(case, curvature, rank=rank, l2=l2)
    truth = dense_covariance(get_case("tanh"), dm, curvature, "full" if rank == "auto" else rank)
    exact = {"float32": 1e-5, "float64": 1e-11}[dtype]
    spread = np.sqrt(np.diag(truth))
    posterior, weights = dm.posterior(), dm._fitted.problem.network.params.numpy()
    assert posterior.dtype == dtype
    np.testing.assert_array_equal(posterior.mean(), weights)
    for sigma in (posterior.covariance().numpy(), dm.covariance.to_dense().numpy()):
        gap = (sigma - truth) / np.outer(spread, spread)
        assert np.max(np.abs(gap)) < 20 * exact
    root = posterior.scale.to_dense().numpy().astype(np.float64)
    normal = np.linalg.solve(root, (posterior.sample(200, seed=0).numpy() - weights).T)
    assert scipy.stats.kstest(normal.ravel(), "norm").pvalue > 1e-3
    points = (weights + np.linalg.cholesky(truth) @ np.ones(len(weights))).astype(dtype)
    density = scipy.stats.multivariate_normal(weights.astype(np.float64), truth).logpdf(points)
    assert float(posterior.log_prob(points)) == pytest.approx(density, rel=20 * exact)


@pytest.mark.parametrize(
    ("rank", "vectors_dtype"),
    [
        (8, None),
        wide("full", "float16"),
        pytest.param("full", None, marks=slow),
        pytest.param(8, "float16", marks=slow),
    ],
)
def test_a_loaded_posterior_is_the_one_that_was_saved(get_case, tmp_path, rank, vectors_dtype):
    """Rounded eigenvectors move the density by what `save` says at most."""
    case = get_case("tanh", "float32")
    dm = fit(case, rank=rank)
    dm.save(tmp_path / "a.deltauq", vectors_dtype=vectors_dtype)
    loaded = DeltaMethod.load(tmp_path / "a.deltauq", case.model).posterior()
    draws, exact = dm.posterior().sample(4, seed=[0, 1]), 1e-5 if vectors_dtype is None else 0.02
    np.testing.assert_allclose(loaded.log_prob(draws), dm.posterior().log_prob(draws), rtol=exact)
    spread = draws - dm.posterior().mean()
    again = loaded.sample(4, seed=[0, 1]) - loaded.mean()
    np.testing.assert_allclose(again, spread, rtol=0, atol=10 * exact * np.abs(spread).max())


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


@pytest.mark.parametrize("l2", [L2, wide(RATES)], ids=["one rate", "several rates"])
@pytest.mark.parametrize("curvature", [wide("opg"), "ggn"])
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
@pytest.mark.quick
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
        known=SimpleNamespace(pairs=pairs, noise=None),
        problem=SimpleNamespace(
            rates=np.ones(pairs.n_params),
            data=SimpleNamespace(n_examples=40.0),
            network=SimpleNamespace(n_params=pairs.n_params),
        ),
        stationarity=SimpleNamespace(cost=0.7),
        settings=SimpleNamespace(kind=CURVATURES["ggn"]),
    )
    truth = -40.0 * 0.7 - np.log1p(np.r_[values, rest]).sum() / 2
    found = log_marginal_likelihood(fitted)
    assert found.low == pytest.approx(truth)
    assert found.value == found.low
    assert found.high == pytest.approx(-40.0 * 0.7 - np.log1p(values).sum() / 2)


@pytest.mark.filterwarnings("ignore:the exact Hessian shows no minimum")
def test_a_trace_that_is_not_known_leaves_no_evidence(get_case):
    with pytest.raises(InvalidInputError, match="needs the trace"):
        fit(get_case("tanh"), "hessian", rank=5).log_marginal_likelihood()


@pytest.mark.wide  # that of a curvature of ones own: test_registry.py
def test_the_sandwich_has_no_evidence(get_case):
    with pytest.raises(InvalidInputError, match="sandwich"):
        fit(get_case("tanh"), "sandwich", rank="full").log_marginal_likelihood()


def test_tuning_finds_the_maximum_of_the_evidence_and_keeps_the_eigenpairs(get_case):
    case = get_case("tanh")
    dm = fit(case, rank="full")
    tuned = dm.tune_l2()
    factors = np.geomspace(0.01, 100, 1201)
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
    # A tail that was measured is known at its own rate, and carried over to others.
    dm, held_out = fit(case, tail="midpoint"), list(case.batches())
    of_others = held_out_likelihood(dm._fitted, held_out, np.array([0.2]))
    other = fit(case, l2=0.2 * L2, tail="midpoint")._fitted
    assert of_others[0] == pytest.approx(held_out_likelihood(other, held_out, np.ones(1))[0], 1e-3)
    tuned = dm.tune_l2(case.x, case.y, case.weight)
    assert tuned.criterion == "held-out likelihood"
    assert tuned.values.max() < 0
    assert tuned.rate == pytest.approx(L2 * tuned.factors[np.argmax(tuned.values)], rel=0.2)
    assert "nats an observation more" in tuned.note
    assert tuned.origin.startswith("chosen after training by the held-out likelihood of held-out")


def test_held_out_labels_that_want_no_variance_are_said_to(get_case):
    """Labels that the network is right about: variance moves probabilities towards one half."""
    case = get_case("tanh")
    match = r"no maximum.*less epistemic variance.*1e\+08 times.*keep the rate.*tune_l2\(\)"
    dm = fit(case)
    with pytest.raises(NumericalError, match=match):
        dm.tune_l2(case.x, case.truth.probabilities.argmax(axis=1))
    assert dm.tune_l2().criterion == "marginal likelihood"  # the way out


@pytest.mark.parametrize("l2", [wide(L2), RATES], ids=["one rate", "several rates"])
def test_a_choice_says_where_it_comes_from(get_case, l2):
    dm = fit(get_case("tanh"), rank="full", l2=l2)
    tuned = dm.tune_l2()
    unit = 1.0 if l2 is RATES else L2
    tried = "factors on all rates" if l2 is RATES else "rates"
    assert tuned.origin == (
        "chosen after training by the marginal likelihood of the training data, among 161 "
        f"{tried} from {1e-8 * unit:.2g} to {1e8 * unit:.2g}"
    )
    assert tuned.origin in dm.caveats[-1].text


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


@pytest.mark.wide  # l2="tune" and what is said: tests/delta/test_caveats.py
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
    with pytest.warns(ConvergenceWarning, match="was chosen after training by the marginal"):
        dm = DeltaMethod(model, "ggn", l2="tune", rank="full", progress=False).fit(x, y)
    assert "trained with another" in dm.caveats[-1].text
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


@pytest.fixture
def bent(get_case):
    """A fit whose curvature has one slightly negative eigenvalue, -0.002, that is kept."""
    dm = fit(get_case("tanh"), rank="full")
    fitted = dm._fitted
    values = np.r_[fitted.prior_pairs.values[:-1], -0.002 / L2]
    pairs = replace(fitted.prior_pairs, values=values, smallest=values[-1])
    settings = replace(fitted.settings, curvature="hessian", negative_curvature="keep")
    dm._fitted = replace(fitted.with_pairs(pairs, fitted.covariance), settings=settings)
    return dm


def test_tuning_beside_kept_negative_curvature_takes_the_peak_and_says_what_it_left_out(
    get_case, bent
):
    """Under -mu_min there is no evidence, just above it grows without bound: neither is taken."""
    case, pairs = get_case("tanh"), bent.eigenpairs
    matrix = (pairs.vectors * pairs.values) @ pairs.vectors.T
    assert float(bent.log_marginal_likelihood()) == pytest.approx(
        dense_evidence(case, matrix, np.full(64, L2)), rel=1e-9
    )
    rates = 0.002 * np.geomspace(1 + 1e-6, 1e3, 1001)
    truth = np.array([dense_evidence(case, matrix, np.full(64, rate)) for rate in rates])
    peaks = 1 + np.flatnonzero((truth[1:-1] > truth[:-2]) & (truth[1:-1] > truth[2:]))
    assert len(peaks) == 1
    assert truth[0] > truth[1]  # the pole
    tuned = bent.tune_l2()
    assert tuned.rate == pytest.approx(rates[peaks[0]], rel=0.02)
    assert np.all(np.isfinite(tuned.values))
    assert 0.002 < L2 * tuned.factors[0] < 1.3 * 0.002
    assert f"Factors under {tuned.factors[0]:.2g} were left out" in tuned.note


def test_a_held_out_likelihood_that_wants_less_than_has_a_covariance_is_refused(get_case, bent):
    """It is largest at the least factor with a covariance: not NaN, and no error of another fit."""
    case = get_case("tanh")
    with pytest.raises(NumericalError, match=r"held-out.*under which there is no covariance"):
        bent.tune_l2(case.x, case.y, case.weight)


@pytest.mark.wide  # the pole is left out: the test before
def test_an_evidence_that_only_rises_towards_its_pole_is_refused(get_case):
    """Whatever rate the search starts from, one without a covariance (0.05) too."""
    case = get_case("tanh")
    assert np.linalg.eigvalsh(case.truth.hessian)[0] < -L2
    options = {"rank": "full", "negative_curvature": "keep"}
    match = r"no maximum.*under which there is no covariance.*'project'"
    with pytest.raises(NumericalError, match=match):
        fit(case, "hessian", l2=1.0, **options).tune_l2()
    with pytest.raises(NumericalError, match=match):
        fit(case, "hessian", l2="tune", **options)
    with pytest.raises(NotPositiveDefiniteError):
        fit(case, "hessian", l2=L2, **options)


def test_a_criterion_that_is_not_finite_is_refused(get_case, monkeypatch):
    dm = fit(get_case("tanh"))
    nothing = lambda fitted, factors: np.full(len(factors), np.nan)  # noqa: E731
    monkeypatch.setattr(marginal_likelihood, "_evidence", nothing)
    with pytest.raises(NumericalError, match=r"likelihood is not finite.*161 of 161"):
        dm.tune_l2()


def test_a_prior_without_normalisation_has_no_evidence():
    """A flat prior on some parameters leaves the evidence open by any factor."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2)), rng.integers(0, 2, 60)
    model = keras.Sequential(
        [keras.Input((2,), dtype="float64"), keras.layers.Dense(1, dtype="float64")]
    )
    options = {"likelihood": "binary", "rank": "full", "progress": False}
    dm = DeltaMethod(model, "ggn", l2={"*kernel": 0.1, "*bias": 0.0}, **options).fit(x, y)
    with pytest.raises(InvalidInputError, match=r"prior for every parameter.*1 parameters"):
        dm.log_marginal_likelihood()
