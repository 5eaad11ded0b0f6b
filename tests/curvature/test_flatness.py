"""A loss without curvature is refused where its inverse is asked for; the remedies are right."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import statsmodels.api as sm
import tensorflow as tf
from marks import slow, wide
from ways import stumble

from deltauq import DeltaMethod, diagnose
from deltauq.curvature.flatness import measure_flatness
from deltauq.data import Batches
from deltauq.errors import CurvatureWarning, NotPositiveDefiniteError, NumericalError
from deltauq.evaluation.checks import curvature_of_loss
from deltauq.likelihoods import Binary, Categorical, CustomLoss, Gaussian
from deltauq.network import Network

pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")

layers = keras.layers
N = 400
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 2))
Y = X[:, 0] + RNG.normal(size=N)
DESIGN = sm.add_constant(X)
INVERSES = ("hessian", "ggn", "sandwich")


def linear_model(weights, dtype="float64"):
    """A model without hidden layer; weights `[3]` or `[3, C]`, the constant first."""
    weights = np.asarray(weights, dtype).reshape(3, -1)
    shape = (weights.shape[1],)
    model = keras.Sequential([keras.Input((2,), dtype=dtype), layers.Dense(*shape, dtype=dtype)])
    model.layers[0].set_weights([weights[1:], weights[0]])
    return model


def error_of(z, y):
    return tf.cast(tf.reshape(y, [-1]), z.dtype) - z[:, 0]


def pinball(tau):
    def loss(z, y):
        e = error_of(z, y)
        return tf.maximum(tau * e, (tau - 1) * e)

    return loss


def smoothed(tau, h):
    """The remedy's: tau e + h softplus(-e / h)."""

    def loss(z, y):
        e = error_of(z, y)
        return tau * e + h * tf.nn.softplus(-e / h)

    return loss


def huber(delta):
    def loss(z, y):
        e = tf.abs(error_of(z, y))
        return tf.where(e < delta, e * e / 2, delta * (e - delta / 2))

    return loss


def hinge(z, y):
    return tf.nn.relu(1 - z[:, 0] * (2.0 * tf.cast(tf.reshape(y, [-1]), z.dtype) - 1))


def hinge_of_classes(z, y):
    own = tf.gather(z, y, axis=1, batch_dims=1)
    return tf.reduce_sum(tf.nn.relu(1 + z - own[:, None]), axis=1) - 1


def absolute(z, y):
    return tf.abs(error_of(z, y))


def absolute_by_a_root(z, y):
    """Its second derivative is rounding, not zero."""
    return tf.sqrt(tf.square(error_of(z, y)))


def one_of_two(z, y):
    return tf.square(z[:, 0] - y[:, 0]) + tf.abs(z[:, 1] - y[:, 1])


class Laplace(Gaussian):
    """A likelihood of a user's own, which claims nothing."""

    curved = False

    def loss(self, logits, y):
        return tf.reduce_sum(tf.abs(logits - tf.cast(y, logits.dtype)), axis=1)

    def residual(self, logits, y):
        return tf.sign(logits - tf.cast(y, logits.dtype))

    def hessian_factor(self, logits, y):
        return tf.zeros([tf.shape(logits)[0], 1, 1], logits.dtype)

    def hessian_diagonal(self, logits, y):
        return np.zeros(logits.shape)


NUMBERS = Gaussian(noise=1.0)
CLASSES = (Y > 0).astype(int)
TWO = np.stack([Y, 2 * Y], axis=1)

LINEAR = {
    "pinball": (CustomLoss(pinball(0.9), NUMBERS), Y, 1),
    "absolute": (CustomLoss(absolute, NUMBERS), Y, 1),
    "absolute by a root": (CustomLoss(absolute_by_a_root, NUMBERS), Y, 1),
    "hinge": (CustomLoss(hinge, Binary()), CLASSES, 1),
    "hinge of classes": (CustomLoss(hinge_of_classes, Categorical()), CLASSES, 3),
    "one of two outputs": (CustomLoss(one_of_two, NUMBERS), TWO, 2),
    "a user's own": (Laplace(noise=1.0), Y, 1),
}


def fit(model, curvature, likelihood, y=Y, x=X, weight=None, **options):
    options = {"l2": 1e-6, "rank": "full", "progress": False} | options
    return DeltaMethod(model, curvature, likelihood=likelihood, **options).fit(x, y, weight)


def some_model(n_outputs, dtype="float64"):
    return linear_model(0.3 * np.random.default_rng(1).normal(size=(3, n_outputs)), dtype)


@pytest.mark.parametrize(
    ("name", "curvature"),
    [
        (name, curvature) if name == "pinball" or curvature == "ggn" else slow(name, curvature)
        for name in LINEAR
        for curvature in INVERSES
    ],
)
def test_a_loss_without_curvature_is_refused_where_its_inverse_is_asked_for(name, curvature):
    likelihood, y, n_outputs = LINEAR[name]
    where = r"output \[1\]" if n_outputs == 2 else r"output \[0\]|the outputs"
    message = rf"no curvature in ({where}).*zero to rounding at every example.*h \* softplus"
    with pytest.raises(NotPositiveDefiniteError, match=message):
        fit(some_model(n_outputs), curvature, likelihood, y)


def test_so_is_a_network_whose_own_second_derivatives_are_not_zero():
    """The exact Hessian is not zero then: it holds the network's curvature, and not the loss's."""
    keras.utils.set_random_seed(0)
    options = {"dtype": "float64"}
    hidden = [layers.Dense(4, "tanh", **options), layers.Dense(1, **options)]
    model = keras.Sequential([keras.Input((2,), **options), *hidden])
    with pytest.raises(NotPositiveDefiniteError, match="no curvature in output"):
        fit(model, "hessian", CustomLoss(pinball(0.5), NUMBERS), l2=0.1)


def test_and_so_are_sequences_and_float32():
    inputs = keras.Input((5, 2), dtype="float32")
    model = keras.Model(inputs, layers.Dense(1)(inputs))
    x = RNG.normal(size=(20, 5, 2)).astype("float32")
    likelihood = CustomLoss(absolute_by_a_root, NUMBERS)
    with pytest.raises(NotPositiveDefiniteError, match="no curvature in output"):
        fit(model, "ggn", likelihood, RNG.normal(size=(20, 5, 1)), x, l2=0.1)


def smoothed_derivatives(e, tau, h):
    """Slope and second derivative in z of tau e + h softplus(-e / h), e = y - z."""
    share = scipy.special.expit(e / h)
    return 1 - tau - share, share * (1 - share) / h


def smoothed_minimum(design, y, tau, h, start):
    """Newton's method, with a step that is never longer than what lowers the cost."""

    def cost(b):
        e = y - design @ b
        return np.sum(tau * e + h * np.logaddexp(0, -e / h))

    return scipy.optimize.minimize(
        cost,
        start,
        jac=lambda b: design.T @ smoothed_derivatives(y - design @ b, tau, h)[0],
        method="BFGS",
    ).x


def dense_sandwich(design, e, tau, h):
    slope, second = smoothed_derivatives(e, tau, h)
    bread = np.linalg.inv((design * second[:, None]).T @ design)
    return bread @ (design * slope[:, None] ** 2).T @ design @ bread


def std_of(design, covariance):
    return np.sqrt(np.einsum("np,pq,nq->n", design, covariance, design))


@pytest.mark.parametrize("tau", [0.5, slow(0.75)])
def test_the_smoothed_loss_with_the_sandwich_is_what_quantreg_gives(tau):
    """What the refusal says to do, with a width that holds three percent of the residuals."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4000, 2))
    y, design = x[:, 0] + rng.normal(size=4000), sm.add_constant(x)
    right = sm.QuantReg(y, design).fit(q=tau)
    with stumble("curvature/flatness.py:refuse_linear_loss", "smooth its kinks"):
        fit(linear_model(right.params), "ggn", CustomLoss(pinball(tau), NUMBERS), y, x)
    h = np.quantile(np.abs(right.resid), 0.03)
    weights = smoothed_minimum(design, y, tau, h, right.params)
    likelihood = CustomLoss(smoothed(tau, h), NUMBERS)
    dm = fit(linear_model(weights), "sandwich", likelihood, y, x, l2=1e-9, meat="scores")
    found = dm.predict(x).std[:, 0]
    dense = std_of(design, dense_sandwich(design, y - design @ weights, tau, h))
    np.testing.assert_allclose(found, dense, rtol=1e-4)
    ratio = np.median(found / std_of(design, right.cov_params()))
    assert 0.85 < ratio < 1.1, ratio


@pytest.mark.wide  # as quantreg gives it: the test before
def test_the_sandwich_of_the_smoothed_loss_is_the_spread_of_its_retrainings():
    """A wide kernel too: the answer is that of the smoothed estimator, whatever the width."""
    tau, h, found, weights = 0.9, 0.3, [], []
    rng = np.random.default_rng(2)
    for _ in range(200):
        y = X[:, 0] + rng.normal(size=N)
        weights.append(smoothed_minimum(DESIGN, y, tau, h, [1.28, 1.0, 0.0]))
        found.append(std_of(DESIGN, dense_sandwich(DESIGN, y - DESIGN @ weights[-1], tau, h)))
    spread = np.std(DESIGN @ np.transpose(weights), axis=1)
    likelihood = CustomLoss(smoothed(tau, h), NUMBERS)
    model = linear_model(weights[-1])
    dm = fit(model, "sandwich", likelihood, y, l2=1e-9, meat="scores")
    np.testing.assert_allclose(dm.predict(X).std[:, 0], found[-1], rtol=1e-4)
    np.testing.assert_allclose(np.median(np.mean(found, axis=0) / spread), 1.0, atol=0.1)


def dense_opg_std(slopes, l2):
    rows = slopes[:, None] * DESIGN
    sigma = np.linalg.inv(rows.T @ rows + N * l2 * np.eye(3))
    return np.sqrt(np.einsum("np,pq,nq->n", DESIGN, sigma, DESIGN))


def test_the_opg_of_a_loss_without_curvature_is_a_number_with_a_warning():
    """It does not know the labels' unit: a thousandfold label has the same standard errors."""
    params = np.asarray(sm.QuantReg(Y, DESIGN).fit(q=0.9).params)
    likelihood = CustomLoss(pinball(0.9), NUMBERS)
    slopes = np.where(DESIGN @ params < Y, 0.9, -0.1)
    for unit in (1, 1000):
        message = r"no curvature at 1 of the training data.*scale one.*'sandwich' is refused.*soft"
        with pytest.warns(CurvatureWarning, match=message):
            dm = fit(linear_model(unit * params), "opg", likelihood, unit * Y)
        truth = dense_opg_std(slopes, 1e-6)
        np.testing.assert_allclose(dm.predict(X).std[:, 0], truth, rtol=1e-8)


@pytest.mark.parametrize("scale", [wide(1.0), 3.0])
def test_the_opg_is_right_where_the_loss_is_the_likelihood(scale):
    """Labels with Laplace noise of scale b have a median of standard error b (X^T X)^-1/2."""
    y = X[:, 0] + scipy.stats.laplace.rvs(size=N, random_state=3, scale=scale)
    model = linear_model(sm.QuantReg(y, DESIGN).fit(q=0.5).params)
    with pytest.warns(CurvatureWarning, match="Laplace noise of scale one"):
        dm = fit(model, "opg", CustomLoss(absolute, NUMBERS), y)
    truth = scale * std_of(DESIGN, np.linalg.inv(DESIGN.T @ DESIGN))
    np.testing.assert_allclose(dm.predict(X).std[:, 0] / truth, 1.0 / scale, rtol=0.01)


def huber_model(delta, y):
    """The minimum, from the slopes clip(e, -delta, delta)."""
    start = np.linalg.lstsq(DESIGN, y, rcond=None)[0]
    found = scipy.optimize.root(
        lambda b: DESIGN.T @ np.clip(y - DESIGN @ b, -delta, delta), start, method="lm"
    )
    return linear_model(found.x)


def words(model, y, likelihood, weight=None):
    """What `diagnose` would say of the loss's curvature."""
    network = Network(model).without_link()
    options = {"n_outputs": 1, "dtype": network.dtype, "likelihood": likelihood}
    found = measure_flatness(network, likelihood, Batches(X, y, weight, **options))
    return list(curvature_of_loss(found, likelihood))


@pytest.mark.parametrize("curvature", ["ggn", wide("opg")])
def test_a_loss_that_is_flat_at_part_of_the_data_is_warned_of_where_it_matters(curvature):
    """Huber's in another unit; the factor in the warning is the one between the two answers."""
    y, likelihood = 5 * Y, CustomLoss(huber(1.0), NUMBERS)
    model = huber_model(1.0, y)
    share = np.mean(np.abs(y - model.predict(X, verbose=0)[:, 0]) >= 1.0)
    with pytest.warns(CurvatureWarning) as caught:
        std = fit(model, curvature, likelihood, y).predict(X).std
    sandwich = fit(model, "sandwich", likelihood, y, meat="scores").predict(X).std
    (text,) = [str(warning.message) for warning in caught]
    assert f"a slope and no curvature at {share:.2g} of" in text
    factor = float(text.split("standard errors about ")[1].split(" times")[0])
    np.testing.assert_allclose(factor, np.median(sandwich / std), rtol=0.1)
    assert factor > 2
    (finding,) = words(model, y, likelihood)
    assert finding.level == "warning"
    assert f"no curvature at {share:.2g} of the data" in finding.what


@pytest.mark.wide  # many of them are a warning: the test before
def test_a_few_outliers_of_a_robust_loss_are_a_note_with_their_share():
    likelihood = CustomLoss(huber(1.345), NUMBERS)
    model = huber_model(1.345, Y)
    share = np.mean(np.abs(Y - model.predict(X, verbose=0)[:, 0]) >= 1.345)
    assert 0.1 < share < 0.25
    fit(model, "ggn", likelihood)  # warnings are errors
    found = diagnose(model, X, Y, l2=1e-6, likelihood=likelihood)
    texts = {f.what: f.level for f in found.of("curvature")}
    (text,) = [text for text in texts if "no curvature" in text]
    assert texts[text] == "note"
    assert f"at {share:.2g} of the data" in text


def test_shares_are_those_of_the_weights():
    weight = (np.abs(Y - X[:, 0]) < 1.0).astype(float)
    model = linear_model([0.0, 1.0, 0.0])
    assert words(model, Y, CustomLoss(huber(1.0), NUMBERS), weight) == []


@pytest.mark.parametrize("name", ["pinball", slow("hinge")])
def test_diagnose_says_that_a_loss_has_no_curvature(name):
    likelihood, y, n_outputs = LINEAR[name]
    found = diagnose(some_model(n_outputs), X, y, l2=0.01, likelihood=likelihood)
    warned = [f for f in found.of("curvature") if f.level == "warning"]
    assert "no curvature in the outputs" in warned[0].what
    assert "softplus" in warned[0].remedy
    assert not found.ok


def test_a_separable_problem_at_saturation_is_the_prior_and_says_so():
    """Probabilities of 0 and 1 to rounding: refused would be a sound model; silence, its answer."""
    y = (X[:, 0] > 0).astype(int)
    x = X + 3 * np.sign(X)
    model = linear_model([[0.0, 0.0], [0.0, 30.0], [0.0, 0.0]])
    with pytest.warns(Warning, match="say next to nothing"):
        dm = fit(model, "ggn", "categorical", y, x, l2=1e-3)
    (said,) = [caveat.text for caveat in dm.caveats if caveat.subject == "data"]
    assert "those that L2 alone gives" in said
    design = sm.add_constant(x)
    prior = np.sqrt(np.sum(design**2, axis=1) / (N * 1e-3))
    np.testing.assert_allclose(dm.predict(x).logit_std, prior[:, None] * np.ones(2), rtol=1e-6)
    (finding,) = [
        f
        for f in diagnose(model, x, y, l2=1e-3, likelihood="categorical").of("curvature")
        if f.level == "warning"
    ]
    assert "flat at all of the data" in finding.what


def test_margins_that_every_example_keeps_leave_the_prior_too():
    y = (X[:, 0] > 0).astype(int)
    x = X + 3 * np.sign(X)
    model = linear_model([0.0, 1.0, 0.0])
    with pytest.warns(CurvatureWarning, match="a margin that every example keeps"):
        fit(model, "opg", CustomLoss(hinge, Binary()), y, x, l2=1e-3)


def exponential(z, y):
    return tf.exp(z[:, 0] * (1.0 - 2.0 * tf.cast(tf.reshape(y, [-1]), z.dtype)))


def poisson(z, y):
    return tf.exp(z[:, 0]) - tf.cast(tf.reshape(y, [-1]), z.dtype) * z[:, 0]


def power(z, y):
    return tf.pow(tf.abs(error_of(z, y)), 1.5)


@pytest.mark.parametrize("curvature", ["ggn", slow("hessian"), "opg"])
@pytest.mark.parametrize(
    ("loss", "weights", "like"),
    [
        (exponential, [0.0, 100.0, 0.0], Binary()),
        (poisson, [100.0, 0.0, 0.0], NUMBERS),
        (power, [0.0, 1.0, 0.0], NUMBERS),
    ],
)
def test_derivatives_that_overflow_are_an_error_and_never_nan(loss, weights, like, curvature):
    y = X[:, 0].astype("float32") if like is NUMBERS else CLASSES
    model, x = linear_model(weights, "float32"), X.astype("float32")
    message = r"derivatives in the outputs are not finite.*at \d+ of \d+ examples.*overflowing"
    with pytest.raises(NumericalError, match=message):
        fit(model, curvature, CustomLoss(loss, like), np.abs(y) if loss is poisson else y, x)
    if loss is poisson and curvature == "ggn":
        found = diagnose(model, x, np.abs(y), l2=0.1, likelihood=CustomLoss(loss, like))
        assert [f for f in found.findings if f.level == "error" and "not finite" in f.what]


@pytest.mark.wide  # its derivatives: tests/likelihoods/test_likelihoods.py
def test_a_smooth_loss_of_ones_own_is_no_news():
    def logistic(z, y):
        return tf.nn.softplus(z[:, 0]) - tf.cast(tf.reshape(y, [-1]), z.dtype) * z[:, 0]

    model = some_model(1)
    own = fit(model, "sandwich", CustomLoss(logistic, Binary()), CLASSES).predict(X).std
    given = fit(model, "sandwich", "binary", CLASSES).predict(X).std
    np.testing.assert_allclose(own, given, rtol=1e-8)
