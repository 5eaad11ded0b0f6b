"""Keras' mean square over outputs of unequal noise: a pooled estimator, and its covariance."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import statsmodels.api as sm
import tensorflow as tf
from eager import Eager, squares
from marks import slow, wide
from random_regressions import RandomRegression

import deltauq
from deltauq import DeltaMethod
from deltauq.likelihoods import Gaussian

layers = keras.layers
F64 = {"dtype": "float64"}
RNG = np.random.default_rng(23)
N, L2 = 60, 0.02
X = RNG.normal(size=(N, 3))
Y = np.stack(
    [
        np.sin(X[:, 0]) + 0.1 * RNG.normal(size=N),
        4 * np.sin(X[:, 0] + X[:, 1]) + 2 * RNG.normal(size=N),
    ],
    axis=1,
)
NEW = RNG.normal(size=(20, 3))

pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")


def network(x=X, y=Y):
    """Outputs that share a layer, near Keras' own minimum."""
    keras.utils.set_random_seed(0)
    rate = {name: keras.regularizers.L2(L2 / 2) for name in ("kernel_regularizer",)}
    rate["bias_regularizer"] = keras.regularizers.L2(L2 / 2)
    inputs = keras.Input((3,), **F64)
    hidden = layers.Dense(5, activation="tanh", **rate, **F64)(inputs)
    model = keras.Model(inputs, layers.Dense(2, **rate, **F64)(hidden))
    model.compile("sgd", "mse")
    deltauq.diagnose(model, x, y, polish=True).apply_polished()
    return model


@pytest.fixture(scope="module")
def model():
    return network()


def keras_cost(model):
    """As Keras minimises it: the mean square and the regularizers."""
    penalty = sum(float(np.sum(w**2)) for w in model.get_weights())
    return float(np.mean((Y - model(X).numpy()) ** 2)) + L2 / 2 * penalty


def dense(model, curvature, noise, *, meat="opg"):
    """Covariance of the weights in plain NumPy, for known variances `[2]`."""
    eager = Eager(model, X, Y, squares(np.ones(2)), np.ones(N))
    logits, jacobian = eager.jacobian()
    residual, mean = logits - Y, float(np.mean(noise))
    unit = np.eye(jacobian.shape[2])
    rates = L2 / mean  # C = 2: Keras' cost is 2 mean / C times the likelihood's

    def gram(weights):  # sum over outputs of J_c^T J_c weights_nc
        return np.einsum("ncp,ncq,nc->pq", jacobian, jacobian, np.broadcast_to(weights, (N, 2))) / N

    def hessian(weights):
        return _hessian(model, weights)

    def opg(weights):
        scores = np.einsum("ncp,nc->np", jacobian, residual * weights)
        return scores.T @ scores / N

    bread = {
        "ggn": lambda: gram(1 / mean * np.ones(2)),
        "hessian": lambda: hessian(np.ones(2) / mean),
        "sandwich": lambda: hessian(np.ones(2) / mean),
        "opg": lambda: opg(1 / np.sqrt(noise * mean)),
    }[curvature]()
    between = {
        "ggn": lambda: gram(noise / mean**2),
        "hessian": lambda: hessian(noise / mean**2),
        "sandwich": lambda: opg(np.ones(2) / mean),
        "opg": lambda: opg(np.ones(2) / mean),
    }[curvature]()
    share = np.min(noise) / mean  # of L2, which does not vary with the labels
    between = between + (share * rates * unit if meat == "opg" else 0)
    inverse = np.linalg.inv(bread + rates * unit)
    return inverse @ between @ inverse / N, rates * np.trace(inverse), len(unit)


def _hessian(model, weights, step=1e-5):
    """Of the mean of (1/2) sum_c weights_c residual_c^2, by central differences of its gradient."""
    variables = [v.value for v in model.trainable_variables]

    def gradient():
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(weights * (model(X) - Y) ** 2) / (2 * N)
        return np.concatenate([np.ravel(g.numpy()) for g in tape.gradient(value, variables)])

    rows = []
    for variable in variables:
        start = variable.numpy()
        for unit in step * np.eye(start.size).reshape(-1, *start.shape):
            ends = []
            for sign in (1.0, -1.0):
                variable.assign(start + sign * unit)
                ends.append(gradient())
            rows.append((ends[0] - ends[1]) / (2 * step))
        variable.assign(start)
    return (np.array(rows) + np.array(rows).T) / 2


def std_of(model, sigma):
    jacobian = Eager(model, NEW, np.zeros((20, 2)), squares(np.ones(2)), np.ones(20)).jacobian()[1]
    return np.sqrt(np.einsum("ncp,pq,ncq->nc", jacobian, sigma, jacobian))


def fit(model, curvature, **options):
    options = {"rank": "full", "progress": False, "batch_size": 16} | options
    return DeltaMethod(model, curvature, **options).fit(X, Y)


@pytest.mark.parametrize(
    ("curvature", "meat"),
    [
        ("ggn", "opg"),
        wide("opg", "opg"),
        wide("hessian", "opg"),
        wide("sandwich", "opg"),
        wide("sandwich", "scores"),
    ],
)
def test_the_covariance_is_that_of_the_pooled_estimator(model, curvature, meat):
    """Slices from the pooled cost, each output's own noise between them."""
    noise = np.array([0.02, 5.0])
    sigma, *_ = dense(model, curvature, noise, meat=meat)
    dm = fit(
        model,
        curvature,
        meat=meat,
        likelihood=Gaussian(noise, pooled=True),
        negative_curvature="keep",
    )
    found = dm.predict(NEW)
    np.testing.assert_allclose(found.std, std_of(model, sigma), rtol=1e-5)
    np.testing.assert_allclose(found.noise[0], noise)
    assert found.certified
    # The weights are at the minimum of the cost that Keras minimised.
    assert dm.stationarity.is_minimum


def test_the_noise_is_read_from_plain_mse(model):
    """Each output's residuals over N - gamma / C; equal scores are not taken for unequal ones."""
    residual = Y - model(X).numpy()
    first = np.mean(residual**2, axis=0)
    _, held, n_params = dense(model, "ggn", first)
    noise = first * N / (N - (n_params - held) / 2)
    dm = fit(model, "ggn")
    np.testing.assert_allclose(dm.fitted_likelihood.noise, noise, rtol=1e-9)
    assert dm.fitted_likelihood.pooled
    np.testing.assert_allclose(
        dm.predict(NEW).std, std_of(model, dense(model, "ggn", noise)[0]), rtol=1e-8
    )
    np.testing.assert_allclose(dm.predict(NEW).noise[0], noise)


# The numbers themselves, of any noise: the tests before.
@pytest.mark.parametrize(
    ("rank", "curvature"),
    [
        wide("full", "ggn"),
        wide("full", "opg"),
        slow("full", "hessian"),
        wide(20, "ggn"),
        wide(20, "opg"),
        slow(20, "hessian"),
    ],
)
def test_outputs_of_equal_noise_have_the_numbers_of_the_inverse(model, curvature, rank):
    """To rounding, and in the limit."""
    # The tail of a sandwich is not measured, which that of an inverse would be.
    options = {"rank": rank, "negative_curvature": "project", "tail": "midpoint"}
    inverse = fit(model, curvature, likelihood=Gaussian([0.7, 0.7]), **options).predict(NEW)
    pooled = fit(model, curvature, likelihood=Gaussian([0.7, 0.7], pooled=True), **options)
    np.testing.assert_array_equal(pooled.predict(NEW).std, inverse.std)
    nearly = fit(model, curvature, likelihood=Gaussian([0.7, 0.7 + 1e-9], pooled=True), **options)
    np.testing.assert_allclose(nearly.predict(NEW).std, inverse.std, rtol=1e-6)


@pytest.mark.parametrize("curvature", ["ggn", wide("hessian")])
def test_linear_networks_give_least_squares_output_by_output(curvature):
    """Noise 1 to 10,000: as statsmodels fits each column alone."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 3))
    y = x @ rng.normal(size=(3, 2)) + rng.normal(size=(50, 2)) * [0.1, 10.0]
    design = sm.add_constant(x)
    solution = np.linalg.lstsq(design, y, rcond=None)[0]
    model = keras.Sequential([keras.Input((3,), **F64), layers.Dense(2, **F64)])
    model.set_weights([solution[1:], solution[0]])
    model.compile(loss="mse")
    dm = DeltaMethod(model, curvature, rank="full", progress=False).fit(x, y)
    found = dm.predict(x)
    for c in range(2):
        truth = sm.OLS(y[:, c], design).fit()
        errors = truth.get_prediction(design)
        np.testing.assert_allclose(dm.fitted_likelihood.noise[c], truth.scale, rtol=1e-9)
        np.testing.assert_allclose(found.std[:, c], errors.se_mean, rtol=1e-8)
        np.testing.assert_allclose(found.observation_std[:, c], errors.se_obs, rtol=1e-8)


@pytest.mark.wide  # low rank: of equal noise, above
@pytest.mark.parametrize("curvature", ["ggn", slow("opg")])
def test_low_rank_and_unequal_noise_go_together(model, curvature):
    """Noise, covariance and bounds approach the dense ones; the bounds are an estimate."""
    full = fit(model, curvature).predict(NEW)
    dm = fit(model, curvature, rank=29)
    found = dm.predict(NEW)
    low, high = found.std_bounds
    assert not found.certified
    assert np.mean((low <= full.std) & (full.std <= high)) > 0.95
    np.testing.assert_allclose(found.std, full.std, rtol=0.25)
    assert np.all((found.noise_bounds[0] <= full.noise) & (full.noise <= found.noise_bounds[1]))


@pytest.mark.wide  # one of the random regressions of test_fuzz.py
def test_an_automatic_rank_warns_of_no_number_that_nobody_asked_for():
    """In float32 the meat has fewer pairs than the bread: no warning, and the right numbers."""
    regression = RandomRegression(
        units=55,
        n_outputs=2,
        n=77,
        weights="none",
        rate=0.00225,
        rank="auto",
        curvature="ggn",
        dtype="float32",
        seed=10553,
    )
    assert regression.compare()


@pytest.mark.wide  # polished to a minimum: tests/evaluation/test_diagnosis.py
def test_polishing_never_raises_what_keras_minimised(model):
    before, weights = keras_cost(model), model.get_weights()
    moved = [w + 0.05 * np.random.default_rng(0).normal(size=w.shape) for w in weights]
    model.set_weights(moved)
    assert keras_cost(model) > before + 1e-3
    deltauq.diagnose(model, X, Y, polish=True).apply_polished()
    assert keras_cost(model) <= before + 1e-6
    model.set_weights(weights)


@pytest.mark.slow
def test_a_sandwich_that_is_tuned_on_held_out_data_stays_one(model):
    """The rate that was chosen gives what a fit at that rate gives, for every sandwich."""
    for curvature, options in (("sandwich", {}), ("ggn", {})):
        noise = Gaussian([0.02, 5.0], pooled=True)
        dm = fit(model, curvature, likelihood=noise, l2=0.1, **options)
        tuned = dm.tune_l2(NEW, np.stack([np.sin(NEW[:, 0]), np.cos(NEW[:, 1])], axis=1))
        again = fit(model, curvature, likelihood=noise, l2=tuned.rate, **options)
        np.testing.assert_allclose(dm.predict(NEW).std, again.predict(NEW).std, rtol=1e-6)


@pytest.mark.wide  # regressions are saved: tests/delta/files/test_fits.py
def test_a_pooled_fit_is_saved_with_its_likelihood(model, tmp_path):
    dm = fit(model, "ggn", rank=20)
    dm.save(tmp_path / "fit.delta", with_model=False)
    back = DeltaMethod.load(tmp_path / "fit.delta", model)
    assert repr(back.fitted_likelihood) == repr(dm.fitted_likelihood)
    assert "pooled=True" in repr(dm.fitted_likelihood)
    np.testing.assert_allclose(back.predict(NEW).std, dm.predict(NEW).std, rtol=1e-12)
    refined = dm.refine(NEW[:2], rtol=0.5)
    assert not refined.certified
    np.testing.assert_allclose(refined.std, fit(model, "ggn").predict(NEW[:2]).std, rtol=0.05)


@pytest.mark.slow
def test_standard_errors_are_the_spread_of_retrainings(model):
    """Retrained on new noise from the same minimum: 60 times, to a tenth."""
    import scipy.optimize

    dm = fit(model, "ggn")
    std, noise = dm.predict(NEW).std, dm.fitted_likelihood.noise
    weights, mean, rng = model.get_weights(), model(X).numpy(), np.random.default_rng(0)
    variables, y = [v.value for v in model.trainable_variables], tf.Variable(Y)
    start = np.concatenate([w.ravel() for w in weights])

    def put(flat):
        parts = np.split(flat, np.cumsum([w.size for w in weights])[:-1])
        model.set_weights([p.reshape(w.shape) for p, w in zip(parts, weights, strict=True)])

    @tf.function(autograph=False)
    def gradient():
        with tf.GradientTape() as tape:
            penalty = tf.add_n([tf.reduce_sum(v**2) for v in variables])
            value = tf.reduce_mean((y - model(X)) ** 2) + L2 / 2 * penalty
        parts = tape.gradient(value, variables)
        return value, tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0)

    def cost(flat):
        put(flat)
        value, slope = gradient()
        return float(value), slope.numpy()

    found = []
    for _ in range(60):
        y.assign(mean + rng.normal(size=Y.shape) * np.sqrt(noise))
        put(scipy.optimize.minimize(cost, start, jac=True, method="L-BFGS-B").x)
        found.append(model(NEW).numpy())
    model.set_weights(weights)
    ratio = np.median(std / np.std(found, axis=0, ddof=1), axis=0)
    assert np.all((ratio > 0.8) & (ratio < 1.25))
