"""Counts: which labels they are, and what of a model makes its outputs rates or log rates."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from marks import covering, wide
from ways import stumble

from deltauq import DeltaMethod, diagnose
from deltauq.errors import InvalidInputError, NumericalError, UnsupportedModelError
from deltauq.likelihoods import Poisson, likelihood_facts, likelihood_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype("float32")
Y = RNG.poisson(np.exp(0.5 + 0.4 * X[:, 0]))
PACKAGES = pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])

pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")


def network(package=keras, activation="exponential", loss="poisson", n_outputs=1):
    l2 = {"kernel_regularizer": package.regularizers.L2(0.05)}
    l2["bias_regularizer"] = package.regularizers.L2(0.05)
    x = package.Input((3,))
    model = package.Model(x, package.layers.Dense(n_outputs, activation=activation, **l2)(x))
    model.set_weights([0.1 * np.ones((3, n_outputs)), np.full(n_outputs, 0.3)])
    if loss is not None:
        model.compile(loss=loss)
    return model


def fit(model, y=Y, curvature="ggn", **options):
    return DeltaMethod(model, curvature, progress=False, **options).fit(X, y)


@covering(
    spelling=["poisson", "function", "object"], package={"keras": keras, "tf_keras": tf_keras}
)
def test_the_compiled_loss_is_read_with_its_rates(package, spelling):
    """With C = 2 outputs an L2 rate beside Keras' mean is C times that beside the sum."""
    losses = package.losses
    loss = {"function": losses.poisson, "object": losses.Poisson()}.get(spelling, spelling)
    dm = fit(network(package, loss=loss, n_outputs=2), np.stack([Y, Y[::-1]], axis=1))
    assert type(dm.fitted_likelihood) is Poisson
    np.testing.assert_allclose(list(dm.l2_rates.values()), 0.1)
    np.testing.assert_allclose(dm._fitted.problem.rates, 0.2)


def test_keras_minimises_the_dispersion_times_the_loss():
    """Up to log y!, which moves no weight: differences of the loss between two rates are equal."""
    y = RNG.poisson(3.0, (6, 4))
    here, there = (tf.constant(RNG.normal(size=(6, 4))) for _ in range(2))
    ours = [np.mean(Poisson().loss(z, tf.constant(y))) for z in (here, there)]
    keras_loss = [float(keras.losses.Poisson()(y, tf.exp(z))) for z in (here, there)]
    np.testing.assert_allclose(
        Poisson().dispersion(4) * (ours[1] - ours[0]), keras_loss[1] - keras_loss[0], rtol=1e-5
    )


def test_log_rates_are_said_to_be_such():
    """The same network with the exponential in its head and without, by name or by object."""
    expected = fit(network()).predict(X)
    for likelihood in ("poisson", Poisson()):
        found = fit(network(activation=None, loss=None), likelihood=likelihood).predict(X)
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5)
        np.testing.assert_allclose(found.std, expected.std, rtol=1e-4)


@pytest.mark.parametrize("package", [keras, wide(tf_keras)], ids=["keras", "tf_keras"])
@pytest.mark.parametrize("likelihood", ["auto", wide("poisson")])
def test_rates_without_an_exponential_are_refused_and_the_remedy_works(package, likelihood):
    """Rates are never taken for log rates, neither read from the loss nor said to be counts."""
    model = network(package, "softplus")
    with stumble("likelihoods/compiled.py:_refuse", "give the logarithms of the rates"):
        fit(model, likelihood=likelihood)
    log = tf.math.log if package is tf_keras else keras.ops.log
    logs = package.Model(model.inputs, log(model.outputs[0]))
    dm = fit(logs, likelihood="poisson")
    np.testing.assert_allclose(dm.predict(X).mean, model(X), rtol=1e-5)
    np.testing.assert_allclose(list(dm.l2_rates.values()), 0.1)
    uncompiled = network(package, "softplus", loss=None)
    with pytest.raises(UnsupportedModelError, match=r"'Softplus'.*'exponential'.*keras\.ops\.log"):
        fit(uncompiled, likelihood="poisson")


def test_an_exponential_that_nothing_is_said_of_is_refused():
    model = network(loss=None)
    with stumble("likelihoods/compiled.py:_by_link", "say likelihood='poisson' for counts"):
        fit(model)
    assert type(fit(model, likelihood="poisson").fitted_likelihood) is Poisson
    normal = fit(model, likelihood="gaussian")  # the output itself, its exponential included
    np.testing.assert_allclose(normal.predict(X).mean, model(X), rtol=1e-6)
    with pytest.raises(UnsupportedModelError, match=r"logits, or a sigmoid.*an exponential"):
        fit(model, Y > 1, likelihood="binary")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda y: y - 1.0, r"negative.*counts.*0, 1, 2.*down to -1.*likelihood='gaussian'"),
        (lambda y: y / 2, r"fractions.*such as 0\.5.*np\.rint\(y \* exposure\).*offset"),
        (lambda y: np.where(np.arange(len(y)) == 3, np.nan, y), "NaN or infinity"),
        (lambda y: y.astype(str), "does not hold the numbers"),
        (lambda y: np.stack([y, y], axis=1), r"shape \[N\] or \[N, 1\]"),
    ],
)
def test_labels_that_are_no_counts_are_refused(change, text):
    with pytest.raises(InvalidInputError, match=text):
        fit(network(), change(Y.astype(float)))


@pytest.mark.wide  # the offset itself: tests/acceptance/test_counts.py
def test_the_remedy_for_rates_is_an_offset():
    """Counts over exposures: the counts themselves, and the log of the exposure as an input."""
    exposure = RNG.uniform(1.0, 4.0, 40)
    rate = RNG.poisson(exposure) / exposure
    x, offset = keras.Input((3,)), keras.Input((1,))
    head = keras.layers.Dense(1, kernel_regularizer="l2", bias_regularizer="l2")
    model = keras.Model([x, offset], keras.ops.exp(head(x) + offset))
    model.compile(loss="poisson")
    inputs = [X, np.log(exposure)[:, None].astype("float32")]
    dm = DeltaMethod(model, "ggn", progress=False)
    with stumble("likelihoods/poisson.py:Poisson.check_labels", "np.rint(y * exposure)"):
        dm.fit(inputs, rate)
    dm.fit(inputs, np.rint(rate * exposure))
    double = [inputs[0], inputs[1] + np.float32(np.log(2))]
    prediction, twice = dm.predict(inputs), dm.predict(double)
    np.testing.assert_allclose(twice.mean, 2 * prediction.mean, rtol=1e-5)
    np.testing.assert_allclose(twice.logit_std, prediction.logit_std, rtol=1e-5)


@pytest.mark.parametrize("curvature", ["ggn", "opg"])
def test_rates_that_overflow_are_an_error_and_never_nan(curvature):
    model = network()
    model.set_weights([np.array([[100.0], [0.0], [0.0]]), np.zeros(1)])
    with pytest.raises(NumericalError, match="not finite"):
        fit(model, curvature=curvature)


@pytest.mark.wide  # the refusal names it: the tests before
def test_a_diagnosis_names_the_exponential_and_no_classes():
    found = diagnose(network(), X, Y)
    assert not [finding for finding in found.findings if finding.level == "error"]
    (loss,) = found.of("loss")
    assert "Poisson() on the input of the last exponential" in loss.what
    assert not found.of("classes")


def test_it_is_written_as_plain_facts():
    facts = likelihood_facts(Poisson())
    assert facts == {"kind": "Poisson"}
    assert type(likelihood_of(facts)) is Poisson


def test_padding_is_left_out_of_counts_in_time():
    steps, rates = RNG.normal(size=(12, 4, 2)), np.zeros((12, 4, 1))
    steps[6:, 2:] = 0.0
    y = RNG.poisson(1.0, (12, 4, 1)).astype(float)
    y[6:, 2:] = np.nan
    model = keras.Sequential(
        [
            keras.Input((4, 2), dtype="float64"),
            keras.layers.Masking(dtype="float64"),
            keras.layers.Dense(1, "exponential", dtype="float64"),
        ]
    )
    model.compile(loss="poisson")
    dm = DeltaMethod(model, "ggn", rank="full", progress=False, l2=0.1).fit(steps, y)
    assert dm.n_examples == 36
    prediction = dm.predict(steps)
    assert prediction.mean.shape == (rates.size, 1)
    assert len(prediction.to_frame()) == 36
