"""A likelihood of a few lines is fitted, predicted, tabulated, drawn and told, as a GLM says."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from matplotlib import pyplot
from ways import stumble

import deltauq
from deltauq import DeltaMethod
from deltauq.likelihoods import CustomLoss, Likelihood, Poisson
from deltauq.prediction import PREDICTIONS
from deltauq.report import Study
from deltauq.report.page import STORIES

L2 = 0.05


class Waiting(Likelihood):
    """Exponentially distributed times; the model ends in the exponential that gives their means."""

    name = "waiting"
    outcome = "quantities"
    link = "Exp"
    curved = True

    def check_labels(self, y, n_outputs):
        return np.reshape(y, (-1, n_outputs)).astype(float)

    def loss(self, logits, y):
        return tf.reduce_sum(logits + tf.cast(y, logits.dtype) * tf.exp(-logits), axis=1)

    def residual(self, logits, y):
        return 1.0 - tf.cast(y, logits.dtype) * tf.exp(-logits)

    def hessian_factor(self, logits, y):
        return tf.linalg.diag(tf.sqrt(tf.cast(y, logits.dtype) * tf.exp(-logits)))

    def mean(self, logits):
        return tf.exp(logits)

    def mean_jacobian(self, logits):
        return tf.linalg.diag(tf.exp(logits))

    def observation_variance(self, mean):
        return mean**2

    def log_predictive(self, logits, variance, y):
        mean = np.exp(logits + variance / 2)
        return np.sum(scipy.stats.expon.logpdf(y, scale=mean), axis=1)


@pytest.fixture(scope="module")
def glm():
    """A network without a hidden layer at its minimum, and the design of the regression."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 2))
    design = np.c_[x, np.ones(60)]
    y = rng.exponential(np.exp(design @ [0.6, -0.4, 0.8]))
    w = np.zeros(3)
    for _ in range(50):  # Newton's method
        ratio = y * np.exp(-design @ w)
        curvature = (design * ratio[:, None]).T @ design / 60 + L2 * np.eye(3)
        w -= np.linalg.solve(curvature, design.T @ (1 - ratio) / 60 + L2 * w)
    head = keras.layers.Dense(1, activation="exponential", dtype="float64")
    model = keras.Sequential([keras.Input((2,), dtype="float64"), head])
    model.set_weights([w[:2, None], w[2:]])
    return model, x, y, design, np.linalg.inv(curvature) / 60


@pytest.fixture(scope="module")
def fitted(glm):
    model, x, y, *_ = glm
    return DeltaMethod(model, "ggn", likelihood=Waiting(), l2=L2, progress=False).fit(x, y)


def test_standard_errors_are_those_of_the_glm(glm, fitted):
    model, x, y, design, sigma = glm
    prediction = fitted.predict(x)
    mean = np.exp(design @ np.r_[tuple(w.ravel() for w in model.get_weights())])
    std = mean * np.sqrt(np.einsum("ni,ij,nj->n", design, sigma, design))
    assert fitted.stationarity.ratio < 1e-8
    np.testing.assert_allclose(prediction.mean[:, 0], mean, rtol=1e-10)
    np.testing.assert_allclose(prediction.std[:, 0], std, rtol=1e-8)
    np.testing.assert_allclose(prediction.observation_std[:, 0] ** 2, std**2 + mean**2, rtol=1e-8)
    exact = DeltaMethod(model, "hessian", likelihood=Waiting(), l2=L2, progress=False).fit(x, y)
    np.testing.assert_allclose(exact.predict(x).std[:, 0], std, rtol=1e-8)


def test_it_has_the_table_the_plot_and_the_story_of_its_outcome(glm, fitted):
    _, x, y, *_ = glm
    prediction = fitted.predict(x)
    assert isinstance(prediction, PREDICTIONS["quantities"])
    assert list(prediction.to_frame())[:2] == ["mean", "mean_se"]
    axes = deltauq.plots.mean_against_error(prediction, y)
    assert axes.get_xlabel() == "predicted number"
    pyplot.close(axes.figure)
    page = Study.of(fitted, x, y).to_html()
    assert STORIES["quantities"].lead in page


@pytest.mark.wide  # it is fitted, predicted and saved: the tests beside
def test_it_is_exported_and_diagnosed(glm, fitted, tmp_path):
    model, x, y, *_ = glm
    fitted.export(tmp_path / "served", level=0.9)
    serve = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    served, prediction = serve(x=tf.constant(x)), fitted.predict(x)
    lower, upper = prediction.interval(0.9, of="observation")
    np.testing.assert_allclose(served["observation_lower"], lower, rtol=1e-6)
    np.testing.assert_allclose(served["observation_upper"], upper, rtol=1e-6)
    diagnosis = deltauq.diagnose(model, x, y, likelihood=Waiting(), l2=L2)
    assert not [finding for finding in diagnosis.findings if finding.level == "error"]


def test_an_outcome_that_has_no_form_of_predictions_is_refused_before_a_fit(glm, fitted):
    class Durations(Waiting):
        outcome = "durations"

    with stumble("likelihoods/compiled.py:resolve_likelihood", "take the one whose means"):
        DeltaMethod(glm[0], "ggn", likelihood=Durations(), l2=L2).fit(*glm[1:3])
    Durations.outcome = "quantities"
    found = DeltaMethod(glm[0], "ggn", likelihood=Durations(), l2=L2, progress=False).fit(*glm[1:3])
    np.testing.assert_array_equal(found.predict(glm[1]).std, fitted.predict(glm[1]).std)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras, where it saves
def test_it_is_saved_as_a_loss_of_the_users_own(glm, fitted, tmp_path):
    """Its means are exponentials, as those of counts are."""
    model, x, y, *_ = glm
    with stumble("likelihoods/serialization.py:likelihood_facts", "CustomLoss(yours.loss, like)"):
        fitted.save(tmp_path / "m")
    kind = CustomLoss(Waiting().loss, Poisson())
    own = DeltaMethod(model, "hessian", likelihood=kind, l2=L2, progress=False).fit(x, np.rint(y))
    own.save(tmp_path / "m")
    loaded = DeltaMethod.load(tmp_path / "m")
    np.testing.assert_allclose(loaded.predict(x).std, own.predict(x).std, rtol=1e-10)
    with stumble("likelihoods/serialization.py:_LostLoss.check_labels", "fit again with"):
        loaded.attach(x, np.rint(y))
    loaded.likelihood = kind
    again = loaded.fit(x, np.rint(y))
    np.testing.assert_allclose(again.predict(x).std, own.predict(x).std, rtol=1e-10)


def test_every_outcome_has_a_form_of_predictions_and_a_story():
    assert set(PREDICTIONS) == set(STORIES) == {"classes", "labels", "quantities", "counts"}
    for outcome, kind in PREDICTIONS.items():
        assert kind.outcome == STORIES[outcome].outcome == outcome
