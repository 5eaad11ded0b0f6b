"""A network of counts without a hidden layer is a Poisson regression: statsmodels is the truth.

The weights are statsmodels' own, at the maximum of the likelihood; the log of an exposure is an
input of the network that is added before the exponential.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import pytest
import statsmodels.api as sm
import tensorflow as tf
from marks import wide

import deltauq
from deltauq import DeltaMethod
from deltauq.prediction import CountPrediction

F64 = {"dtype": "float64"}
N = 150
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3))
DESIGN = sm.add_constant(X)
EXPOSURE = RNG.uniform(0.2, 5.0, N)
#: Of the second kind of count twice as much per exposure; both vary more than Poisson counts do.
RATES = EXPOSURE[:, None] * np.exp(DESIGN @ np.c_[[0.3, 0.5, -0.3, 0.1], [1.0, -0.2, 0.4, 0.0]])
Y = RNG.poisson(RATES * RNG.gamma(4.0, 0.25, (N, 2)))


@dataclass(frozen=True)
class Glm:
    """Poisson regressions of one or two kinds of counts, and the network that holds them."""

    truths: list[object]
    model: keras.Model
    y: np.ndarray

    @property
    def x(self):
        return [X, np.log(EXPOSURE)[:, None]]

    def fit(self, curvature, **options):
        options = {"rank": "full", "l2": 0.0, "progress": False} | options
        return DeltaMethod(self.model, curvature, **options).fit(self.x, self.y)

    def covariances(self, dm):
        """Of each kind's coefficients, the intercept first, as statsmodels orders them."""
        c = len(self.truths)
        whole = dm.covariance.to_dense().numpy()
        for k in range(c):
            places = [3 * c + k, *(c * np.arange(3) + k)]
            yield whole[np.ix_(places, places)]


def regression(c, cov_type="nonrobust"):
    truths = [
        sm.GLM(Y[:, k], DESIGN, family=sm.families.Poisson(), exposure=EXPOSURE).fit(
            tol=1e-14, tol_criterion="params", cov_type=cov_type
        )
        for k in range(c)
    ]
    x, offset = keras.Input((3,), **F64), keras.Input((1,), **F64)
    log_rate = keras.layers.Dense(c, **F64)(x) + offset
    model = keras.Model([x, offset], keras.layers.Activation("exponential", **F64)(log_rate))
    params = np.stack([truth.params for truth in truths], axis=1)
    model.set_weights([params[1:], params[0]])
    model.compile(loss="poisson")
    return Glm(truths, model, Y[:, :c])


@pytest.fixture(scope="module", params=[1, 2], ids=["one kind", "two kinds"])
def glm(request):
    return regression(request.param)


@pytest.fixture(scope="module")
def one():
    return regression(1)


@pytest.fixture(scope="module")
def fitted(one):
    return one.fit("ggn")


@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
def test_covariances_and_standard_errors_are_those_of_the_glm(glm, curvature):
    """The exact Hessian and the GGN alike, as the link is canonical; and the intervals of rates."""
    dm = glm.fit(curvature)
    assert dm.stationarity.ratio < 1e-9
    prediction = dm.predict(glm.x)
    assert isinstance(prediction, CountPrediction)
    lower, upper = prediction.interval(0.9)
    for k, (truth, found) in enumerate(zip(glm.truths, glm.covariances(dm), strict=True)):
        np.testing.assert_allclose(found, truth.cov_params(), rtol=1e-6)
        frame = truth.get_prediction(DESIGN, exposure=EXPOSURE).summary_frame(alpha=0.1)
        np.testing.assert_allclose(prediction.mean[:, k], frame["mean"], rtol=1e-6)
        np.testing.assert_allclose(prediction.std[:, k], frame["mean_se"], rtol=1e-6)
        np.testing.assert_allclose(lower[:, k], frame["mean_ci_lower"], rtol=1e-6)
        np.testing.assert_allclose(upper[:, k], frame["mean_ci_upper"], rtol=1e-6)


@pytest.mark.parametrize(
    "glm", [1, wide(2)], ids=["one kind", "two kinds"], indirect=True, scope="module"
)
def test_opg_is_the_sum_of_the_scores_outer_products(glm):
    for truth, found in zip(glm.truths, glm.covariances(glm.fit("opg")), strict=True):
        scores = truth.model.score_obs(truth.params)
        if len(glm.truths) == 1:  # the scores of two kinds go together in OPG
            np.testing.assert_allclose(found, np.linalg.inv(scores.T @ scores), rtol=1e-6)
    both = [truth.model.score_obs(truth.params) for truth in glm.truths]
    truth = np.linalg.inv(np.hstack(both).T @ np.hstack(both))[:4, :4]
    np.testing.assert_allclose(next(glm.covariances(glm.fit("opg"))), truth, rtol=1e-6)


def test_the_sandwich_of_overdispersed_counts_is_huber_and_whites():
    robust = regression(1, "HC0")
    (found,) = robust.covariances(robust.fit("sandwich", meat="scores"))
    truth = np.asarray(robust.truths[0].cov_params())
    np.testing.assert_allclose(found, truth, rtol=1e-6)
    (narrow,) = robust.covariances(robust.fit("ggn"))
    assert np.all(np.diag(found) > 1.2 * np.diag(narrow))


def test_the_log_likelihood_holds_the_factorials(one):
    """Beside statsmodels' `llf`; and a new count's, with the log rate's error integrated out."""
    dm = one.fit("ggn")
    assert -N * dm.stationarity.cost == pytest.approx(one.truths[0].llf, rel=1e-9)
    evidence = one.fit("ggn", l2=0.1).log_marginal_likelihood()
    assert evidence.value < one.truths[0].llf


@pytest.mark.wide  # its quantiles: tests/likelihoods/test_lognormal_rates.py
@pytest.mark.filterwarnings("ignore:distutils Version")
def test_a_new_count_is_one_of_the_mixture(one, fitted):
    """Intervals hold what they promise of counts from the fit's own posterior; Monte Carlo."""
    rng = np.random.default_rng(1)
    some = [part[:20] for part in one.x]
    prediction = fitted.predict(some)
    draws = prediction.distribution().sample(4000, seed=1).numpy()
    counts = rng.poisson(np.exp(draws))
    lower, upper = prediction.interval(0.9, of="observation")
    held = np.mean((counts >= lower) & (counts <= upper), axis=0)
    assert np.all(held > 0.9 - 0.02)
    assert np.all(np.mean((counts > lower) & (counts < upper), axis=0) < 0.9 + 0.02)
    np.testing.assert_allclose(prediction.observation_std, np.std(counts, axis=0), rtol=0.1)
    split = prediction.variance_split()
    np.testing.assert_allclose(split.aleatoric, prediction.mean)
    np.testing.assert_allclose(split.total, prediction.observation_std**2)


def test_tables_plots_means_and_pairs_are_those_of_the_rates(one, fitted):
    prediction = fitted.predict(one.x)
    frame = prediction.to_frame()
    assert np.all(frame["mean_ci_lower"] > 0)
    np.testing.assert_array_equal(frame["obs_ci_upper"], np.floor(frame["obs_ci_upper"]))
    joint = fitted.predict_joint([part[:5] for part in one.x])
    np.testing.assert_allclose(np.diag(joint.covariance[:, 0, :, 0]), prediction.std[:5, 0] ** 2)
    total = fitted.predict_mean(one.x, weights=np.ones(N))
    sigma = np.asarray(one.truths[0].cov_params())
    slope = prediction.mean[:, 0] @ DESIGN
    np.testing.assert_allclose(total.std.ravel()[0], np.sqrt(slope @ sigma @ slope), rtol=1e-6)
    axes = deltauq.plots.mean_against_error(prediction, one.y)
    band = deltauq.plots.regression_band(prediction, X[:, 0], one.y)
    for drawn in (axes, band):
        drawn.figure.clear()


@pytest.mark.wide  # each on classes: in tests/curvature and tests/delta
@pytest.mark.filterwarnings("ignore:distutils Version")
@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_a_fit_in_low_rank_is_bounded_refined_tuned_and_drawn_from():
    """What DeltaMethod has for a likelihood without noise works for this one."""
    x = keras.Input((3,), **F64)
    hidden = keras.layers.Dense(4, activation="tanh", **F64)(x)
    model = keras.Model(x, keras.layers.Dense(1, activation="exponential", **F64)(hidden))
    model.compile(loss="poisson")

    def fit(rank):
        return DeltaMethod(model, "ggn", rank=rank, l2=0.1, progress=False).fit(X, Y[:, 0])

    dm, exact = fit(3), fit("full").predict(X).std
    low, high = dm.predict(X).std_bounds
    assert np.all((low <= exact) & (exact <= high))
    np.testing.assert_allclose(dm.refine(X[:4], rtol=0.01).std, exact[:4], rtol=0.01)
    assert dm.posterior().sample(2, seed=0).shape == (2, 21)
    for labels in ((X, Y[:, 0]), ()):
        assert np.isfinite(fit(3).tune_l2(*labels).factor)


@pytest.mark.wide  # served: tests/delta/files/test_saved_model.py
def test_an_export_serves_the_rates_and_their_intervals(one, fitted, tmp_path):
    fitted.export(tmp_path / "served", level=0.9)
    serve = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    served = serve(x_0=tf.constant(X), x_1=tf.constant(one.x[1]))
    prediction = fitted.predict(one.x)
    lower, upper = prediction.interval(0.9)
    np.testing.assert_allclose(served["lower"], lower, rtol=1e-6)
    np.testing.assert_allclose(served["upper"], upper, rtol=1e-6)
    np.testing.assert_allclose(served["observation_std"], prediction.observation_std, rtol=1e-6)
