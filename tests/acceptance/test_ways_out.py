"""Ways out that errors name for models as people train them: each is taken, and it is right."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from marks import covering, wide
from sklearn.base import BaseEstimator
from ways import stumble

from deltauq import DeltaMethod
from deltauq.errors import (
    NotPositiveDefiniteError,
    UnsupportedModelError,
)
from deltauq.likelihoods import Gaussian

layers = keras.layers
N, RATE = 40, 0.1
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype("float32")
SEQUENCES = RNG.normal(size=(N, 5, 2)).astype("float32")
Y = RNG.integers(0, 3, N)

pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")


def fit(model, x=X, y=Y, **options):
    weights = {"sample_weight": options.pop("sample_weight", None)}
    return DeltaMethod(model, "ggn", l2=RATE, progress=False, **options).fit(x, y, **weights)


def compiled(*middle, loss, shape=(4,), **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), *middle])
    model.compile("sgd", loss, **options)
    return model


def cost_of(fitted):
    """The cost that a fit saw, as Keras has it: without the penalty of its L2 rate."""
    squares = sum(float(np.sum(np.square(v))) for v in fitted.model.trainable_weights)
    to_keras = fitted.fitted_likelihood.dispersion(fitted.n_outputs)
    return fitted.stationarity.cost * to_keras - RATE / 2 * squares


#: Loss -> labels, and the activation that it is of.
LOSSES = {
    "sparse_categorical_crossentropy": (Y, "softmax", "sigmoid"),
    "categorical_crossentropy": (np.eye(3)[Y], "softmax", "sigmoid"),
    "binary_crossentropy": (np.eye(3)[Y], "sigmoid", "softmax"),
}


@covering(loss=list(LOSSES), package={"keras": keras, "tf_keras": tf_keras})
def test_a_loss_of_another_end(loss, package):
    """Keras takes what stands before the last activation: the cost is that of the other end."""
    labels, wanted, other = LOSSES[loss]
    package.utils.set_random_seed(0)
    end = package.layers.Dense(3, other)
    model = package.Sequential([package.layers.Input((4,)), end])
    model.compile("sgd", loss)
    minimised = model.evaluate(X, labels, verbose=0)
    with stumble("likelihoods/compiled.py:_refuse", "model.layers[-1].activation") as caught:
        fit(model, y=labels)
    assert f"keras.activations.{wanted} " in caught.error.remedy
    model.layers[-1].activation = getattr(package.activations, wanted)
    model.compile("sgd", loss)
    found = fit(model, y=labels)
    assert cost_of(found) == pytest.approx(minimised, rel=1e-5)
    np.testing.assert_allclose(found.predict(X).mean, model.predict(X, verbose=0), rtol=1e-5)


@pytest.mark.parametrize("sparse", [True, wide(False)])
def test_sigmoids_that_keras_divides_by_their_sum(sparse):
    """Sigmoids that are not Keras' own: it keeps no input of them. The rebuilt end has the cost."""
    name = "sparse_categorical_crossentropy" if sparse else "categorical_crossentropy"
    labels = Y if sparse else np.eye(3)[Y]
    model = compiled(layers.Dense(3, tf.math.sigmoid), loss=name)
    with stumble("likelihoods/compiled.py:_refuse", "divides the sigmoids"):
        fit(model, y=labels)
    rebuilt = keras.Model(model.inputs, keras.ops.softmax(keras.ops.log(model.outputs[0])))
    found = fit(rebuilt, y=labels, likelihood="categorical")
    assert cost_of(found) == pytest.approx(model.evaluate(X, labels, verbose=0), rel=1e-5)


def test_an_ignored_class():
    """Weights of zero have the cost that Keras minimised, which is the mean of the others."""
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=2)
    model = compiled(layers.Dense(3, "softmax"), loss=loss)
    with stumble("likelihoods/compiled.py:_refuse", "ignored labels are those of weight zero"):
        fit(model)
    options = {"likelihood": "categorical", "sample_weight": Y != 2}
    found = fit(model, y=np.where(Y == 2, 0, Y), **options)
    assert cost_of(found) == pytest.approx(model.evaluate(X, Y, batch_size=N, verbose=0), rel=1e-5)
    without = fit(model, X[Y != 2], Y[Y != 2], likelihood="categorical")
    np.testing.assert_allclose(found.predict(X).std, without.predict(X).std, rtol=1e-5)


@pytest.mark.parametrize("positions", [(), wide((5,))], ids=["rows", "positions"])
def test_rows_of_labels_that_are_all_zero(positions):
    """Of weight zero, in training too, they leave a minimum with the rate times rows / kept."""
    x, rate = (SEQUENCES, 0.01) if positions else (X, 0.01)
    y = np.eye(3)[RNG.integers(0, 3, (N, *positions))]
    y[: N // 4] = 0
    penalty = {"kernel_regularizer": keras.regularizers.L2(rate), "use_bias": False}
    end = layers.Dense(3, "softmax", **penalty)
    model = compiled(end, loss="categorical_crossentropy", shape=x.shape[1:])
    cost = model.evaluate(x, y, verbose=0, batch_size=N)
    with stumble("likelihoods/categorical.py:_no_class", "fit(x, y, sample_weight=keep)") as met:
        DeltaMethod(model, "ggn", progress=False).fit(x, y)
    assert f"{y.size // 12} of {y.size // 3} rows" in met.error.received
    assert "1.33333 here" in met.error.remedy

    keep = y.any(axis=-1)
    model.compile(keras.optimizers.Adam(0.2), "categorical_crossentropy")
    for _ in range(150):
        model.train_on_batch(x, y, sample_weight=keep.astype(float))
    minimised = model.evaluate(x, y, verbose=0, batch_size=N)
    assert minimised < cost
    y[~keep, 0] = 1
    read = DeltaMethod(model, "ggn", progress=False).fit(x, y, sample_weight=keep)
    assert read.n_examples == keep.sum()
    assert read.stationarity.ratio < 0.01
    assert read.stationarity.cost == pytest.approx(minimised * 4 / 3, rel=1e-5)
    given = {"l2": 2 * rate * 4 / 3, "progress": False}
    std = DeltaMethod(model, "ggn", **given).fit(x, y, sample_weight=keep).predict(x).std
    np.testing.assert_allclose(std, read.predict(x).std, rtol=1e-6)


def test_tensorflow_pulls_at_rows_of_labels_that_are_all_zero():
    """Why leaving them out after a training with them is no way out: its minimum is another."""
    with tf.GradientTape() as tape:
        tape.watch(logits := tf.constant([[1.0, 0.0, -1.0]]))
        loss = keras.losses.categorical_crossentropy(tf.zeros((1, 3)), logits, from_logits=True)
    assert float(loss[0]) == 0
    np.testing.assert_allclose(tape.gradient(loss, logits), tf.nn.softmax(logits), rtol=1e-6)


def linear(x, y, dtype):
    """The least-squares line of each output."""
    model = keras.Sequential(
        [keras.Input(x.shape[1:], dtype=dtype), layers.Dense(y.shape[1], dtype=dtype)]
    )
    design = np.c_[x.astype(float), np.ones(len(x))]
    coefficients = np.linalg.lstsq(design, y)[0]
    model.set_weights([coefficients[:-1], coefficients[-1]])
    leverage = np.sum(design * np.linalg.solve(design.T @ design, design.T).T, axis=1)
    return model, np.sqrt(leverage)[:, None]


@pytest.mark.wide  # their noise: tests/delta/test_unequal_noise.py
def test_outputs_of_very_different_units():
    """Their curvatures lie further apart than float32 resolves: each way out gives OLS' errors."""
    units = np.array([0.01, 1.0, 50.0])
    y = (X @ RNG.normal(size=(4, 3)) + 0.1 * RNG.normal(size=(N, 3))) * units
    options = {"l2": 0.0, "rank": "full", "progress": False}

    def std(y, dtype, noise):
        model, root = linear(X, y, dtype)
        found = DeltaMethod(model, "ggn", likelihood=Gaussian(noise**2), **options).fit(X, y)
        np.testing.assert_allclose(found.predict(X).std, root * noise, rtol=1e-3)

    ways = r"y / y\.std\(axis=0\); or build the model with dtype='float64'.*set_weights"
    with pytest.raises(NotPositiveDefiniteError, match=ways):
        std(y, "float32", 0.1 * units)
    spread = y.std(axis=0)
    std(y / spread, "float32", 0.1 * units / spread)
    std(y, "float64", 0.1 * units)


def test_logits_after_a_relu():
    """The loss says that they are logits, so that the last operation does not matter."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = compiled(layers.Dense(3, "relu"), loss=loss)
    assert cost_of(fit(model)) == pytest.approx(
        model.evaluate(X, Y, batch_size=N, verbose=0), rel=1e-5
    )
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError, match="'Relu'"):
        fit(model, likelihood="categorical")


@pytest.mark.parametrize("activation", ["tanh", None])
def test_outputs_that_the_loss_took_for_probabilities(activation):
    model = compiled(layers.Dense(1, activation), loss="binary_crossentropy")
    with stumble("likelihoods/compiled.py:_refuse", "cut the outputs off"):
        fit(model, y=Y > 0)
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    if activation is None:
        fit(model, y=Y > 0)


@pytest.mark.parametrize(
    "held", [lambda loss: [loss], wide(lambda loss: {"z": loss})], ids=["list", "name"]
)
def test_one_loss_in_a_list_or_by_name(held):
    loss = "sparse_categorical_crossentropy"
    one, other = (
        fit(compiled(layers.Dense(3, "softmax", name="z"), loss=each))
        for each in (loss, held(loss))
    )
    np.testing.assert_array_equal(one.predict(X).std, other.predict(X).std)


def test_a_loss_of_ones_own_in_a_list_is_not_keras_of_that_name():
    def mean_squared_error(y, z):
        return 3 * keras.losses.mean_squared_error(y, z)

    model = compiled(layers.Dense(1), loss=[mean_squared_error])
    with pytest.raises(UnsupportedModelError, match=r"mean_squared_error.*CustomLoss"):
        fit(model, y=Y.astype(float))


def test_a_wrapper_around_a_model():
    class Wrapper(BaseEstimator):
        def __init__(self, model):
            self.model_ = model

    wrapper = Wrapper(compiled(layers.Dense(3, "softmax"), loss="sparse_categorical_crossentropy"))
    with stumble("network/adapters/__init__.py:_refuse", "the model that it wraps") as caught:
        fit(wrapper)
    assert "attribute 'model_'" in caught.error.remedy
    fit(wrapper.model_)


@pytest.mark.wide  # that it is refused: tests/network/test_models.py
def test_a_stateful_model():
    def built(inputs, **options):
        z = layers.LSTM(3, **options)(inputs)
        return keras.Model(inputs, layers.Dense(3, "softmax")(z))

    old = built(keras.Input(batch_shape=(10, 5, 2)), stateful=True)
    with stumble("network/inspection.py:batch_size_error", "new.set_weights(old.get_weights())"):
        fit(old, SEQUENCES)
    new = built(keras.Input((5, 2)))
    new.set_weights(old.get_weights())
    found = fit(new, SEQUENCES).predict(SEQUENCES[:10])
    np.testing.assert_allclose(found.mean, old.predict(SEQUENCES[:10], verbose=0), rtol=1e-5)


def test_a_fixed_batch_without_states():
    """Only its inputs say so, and Keras does not insist."""
    inputs = keras.Input(batch_shape=(10, 4))
    model = keras.Model(inputs, layers.Dense(3, "softmax")(inputs))
    assert fit(model).predict(X[:7]).std.shape == (7, 3)
