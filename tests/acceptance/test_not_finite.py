"""What is NaN is refused or warned of: checks believe only what they can show."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from marks import wide
from ways import stumble

from deltauq import DeltaMethod
from deltauq.curvature.cost import Stationarity
from deltauq.curvature.parameter_covariance import ParameterCovariance, dense_covariance
from deltauq.errors import NotPositiveDefiniteError, NumericalError
from deltauq.evaluation.checks import extremes
from deltauq.likelihoods import CustomLoss
from deltauq.linalg import Eigenpairs, LowRank
from deltauq.prediction.linearization import _cancels

NAN = float("nan")
layers = keras.layers
PAIRS = Eigenpairs(
    values=np.array([2.0, 1.0]),
    vectors=np.eye(3)[:, :2],
    residual_norms=np.zeros(2),
    trace=3.5,
    smallest=0.1,
    products=2,
    converged=True,
)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("values", np.array([2.0, NAN]), "finite values.*1 of 2"),
        ("residual_norms", np.array([np.inf, 0.0]), "finite residual norms"),
        ("trace", NAN, "finite trace"),
        ("smallest", NAN, "smallest eigenvalue"),
    ],
)
def test_eigenpairs_are_finite(field, value, message):
    """max(0, NaN) is 0 in Python: a trace of NaN would leave nothing out, and be certain of it."""
    with pytest.raises(NumericalError, match=message):
        replace(PAIRS, **{field: value})


@pytest.mark.parametrize("where", ["spectrum", "tail", "bounds"])
def test_a_covariance_is_finite(where):
    good, bad = LowRank(np.ones(2), 1.0), LowRank(np.array([1.0, NAN]), 1.0)
    spectrum = {"spectrum": bad, "tail": LowRank(np.ones(2), NAN)}.get(where, good)
    bounds = (good, bad) if where == "bounds" else None
    with pytest.raises(NumericalError, match=r"covariance is not finite.*scale the inputs"):
        ParameterCovariance(np.eye(3)[:, :2], spectrum, np.ones(3), 10.0, bounds)


def test_a_precision_that_is_not_finite_is_not_positive_definite(monkeypatch):
    full = replace(PAIRS, values=np.ones(3), vectors=np.eye(3), residual_norms=np.zeros(3))
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: (np.full(3, NAN), np.eye(3)))
    with pytest.raises(NotPositiveDefiniteError, match="not positive definite"):
        dense_covariance(
            full, np.zeros(3, bool), np.ones(3), 10.0, negative_curvature="keep", epsilon=1e-16
        )


def test_weights_are_far_from_a_minimum_where_the_distance_is_not_known():
    found = Stationarity(1.0, 1.0, 1.0, 1.0, 1.0, shift=NAN)
    assert found.is_far
    assert not found.is_near
    assert not replace(found, shift=0.5).is_far


def test_eigenvalues_that_are_not_numbers_are_not_ok():
    for ends in ((NAN, NAN), (NAN, 1.0), (0.0, 0.0), (-1.0, 0.0)):
        findings = list(extremes(ends, np.array([0.1]), "float32", ()))
        assert "ok" not in {finding.level for finding in findings}
    (finding,) = extremes((0.0, 1.0), np.array([0.1]), "float32", ())
    assert finding.level == "ok"


def test_what_cancels_to_nan_is_formed_again():
    class Shown:
        back = slope = np.ones((2, 1, 1))

    gram, rest = np.ones((2, 1, 1)), np.array([[[0.5]], [[NAN]]])
    assert _cancels(gram, rest, Shown, 1e-7).tolist() == [False, True]


N = 30
X = np.random.default_rng(0).normal(size=(N, 3)).astype("float32")
Y = np.arange(N) % 2


def model_of(*middle, dtype="float32"):
    keras.utils.set_random_seed(0)
    dense = layers.Dense(2, dtype=dtype)
    return keras.Sequential([keras.Input((3,), dtype=dtype), *middle, dense])


def fit(curvature, likelihood, model=None, x=X, **options):
    options = {"l2": 0.1, "rank": "full", "progress": False} | options
    model = model_of() if model is None else model
    return DeltaMethod(model, curvature, likelihood=likelihood, **options).fit(x, Y)


OPERATOR = "curvature/operator.py:CurvatureOperator._check_finite"


def steep(z, y):
    """Its slopes are numbers of float32; their squares are not."""
    return 1e22 * tf.reduce_sum(tf.square(z), axis=1)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:the loss has a slope and no curvature")
@pytest.mark.parametrize("rank", ["full", wide(4)])
def test_slopes_whose_squares_overflow_are_refused(rank):
    with stumble(OPERATOR, "or build the model in float64") as caught:
        fit("opg", CustomLoss(steep), rank=rank)
    assert "OPG" in caught.error.received
    found = fit("opg", CustomLoss(steep), model_of(dtype="float64"), rank=rank)
    assert np.all(np.isfinite(found.predict(X).std))


class Power(layers.Layer):
    """|h|^1.5: at zero the slope is zero, and the second derivative infinite."""

    def call(self, h):
        return tf.pow(tf.abs(h), 1.5)


class RoundedPower(layers.Layer):
    """The same away from zero, and smooth there."""

    def call(self, h):
        return tf.pow(tf.square(h) + 1e-3, 0.75)


@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
@pytest.mark.parametrize("rank", ["full", wide(4)])
def test_an_infinite_second_derivative_is_refused_by_the_hessian(rank):
    """One blank example is enough."""
    x = X.copy()
    x[20] = 0.0
    model = model_of(layers.Dense(3, use_bias=False), Power())
    with stumble(OPERATOR, "roots away from zero") as caught:
        fit("hessian", "categorical", model, x, rank=rank)
    assert "products of the Hessian" in caught.error.received
    model = model_of(layers.Dense(3, use_bias=False), RoundedPower())
    assert np.all(fit("hessian", "categorical", model, x, rank=rank).predict(X).std > 0)


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_predictions_at_infinite_derivatives_are_refused():
    """sqrt(0) is a number, and its derivative with respect to what is under the root is none."""

    class Root(layers.Layer):
        def call(self, x):
            return tf.sqrt(tf.abs(x))

    dense = layers.Dense(3, kernel_initializer="identity", use_bias=False)
    dm = fit("ggn", "categorical", model_of(dense, Root()))
    assert np.all(np.isfinite(dm.predict(X).std))
    for ask in (dm.predict, dm.predict_joint):
        with stumble(
            "prediction/linearization.py:refuse_not_finite", "inputs unlike those of training"
        ):
            ask(np.zeros((2, 3), "float32"))
    tiny = {"likelihood": "categorical", "model": model_of()}
    with stumble("prediction/linearization.py:refuse_not_finite", "and for an l2 near zero"):
        fit("ggn", l2=1e-36, x=100 * X, **tiny)
    assert np.all(np.isfinite(fit("ggn", l2=1e-3, **tiny).predict(X).std))
