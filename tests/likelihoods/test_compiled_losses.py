"""A compiled loss means the same in `tf_keras` and in Keras 3, and a name alone makes no loss."""

from __future__ import annotations

import functools
import re

import keras
import numpy as np
import pytest
import tf_keras
from marks import wide
from ways import stumble

from deltauq import DeltaMethod
from deltauq.errors import UnsupportedModelError

N, A = 30, 0.7
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3))
DESIGN = np.column_stack([X, np.ones(N)])
Y = X @ [1.0, -1.0, 0.5] + RNG.normal(size=N)

# No test but one is about weights at a minimum.
pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")

PACKAGES = pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])


def network(package, loss, params=None):
    """One dense layer with L2(A) on the kernel and the bias."""
    l2 = package.regularizers.L2(A)
    model = package.Sequential(
        [
            package.layers.Input((3,), dtype="float64"),
            package.layers.Dense(1, kernel_regularizer=l2, bias_regularizer=l2, dtype="float64"),
        ]
    )
    model.compile("sgd", loss)
    if params is not None:
        model.set_weights([params[:3, None], params[3:]])
    return model


def fit(model, weight=None, **options):
    return DeltaMethod(model, "ggn", rank="full", progress=False, **options).fit(X, Y, weight)


SUMS = [
    (keras, "sum"),
    wide(tf_keras, "sum"),
    wide(tf_keras, tf_keras.losses.Reduction.SUM),
]


@pytest.mark.parametrize(("package", "reduction"), SUMS)
@pytest.mark.parametrize("counted", [wide(False), True])
def test_a_summed_loss_is_refused_and_the_remedy_is_right(package, reduction, counted):
    """Ridge regression: Keras minimised sum c r^2 + A sum w^2, all rows in one batch."""
    count = np.arange(N) % 3 + 1 if counted else np.ones(N)
    precision = (DESIGN.T * count) @ DESIGN + A * np.eye(4)
    params = np.linalg.solve(precision, DESIGN.T @ (count * Y))
    model = network(package, package.losses.MeanSquaredError(reduction=reduction), params)
    with stumble("delta/rates.py:read_rates", "give l2=...") as caught:
        fit(model, count)
    text = str(caught.error)
    assert "the loss is summed over the batch, so the L2 rate depends on the batch size" in text
    factor = float(re.search(r"lambda is (\S+) a / B here", text)[1])
    assert factor == pytest.approx(2 * N / count.sum())
    dm = fit(model, count, l2=factor * A / N)
    assert dm.stationarity.ratio < 1e-9
    gamma = np.trace((DESIGN.T * count) @ DESIGN @ np.linalg.inv(precision))
    noise = count @ (Y - DESIGN @ params) ** 2 / (count.sum() - gamma)
    truth = noise * np.linalg.inv(precision)
    np.testing.assert_allclose(dm.covariance.to_dense().numpy(), truth, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("reduction", ["auto", wide("sum_over_batch_size")])
def test_the_means_of_tf_keras_are_means(reduction):
    model = network(tf_keras, tf_keras.losses.MeanSquaredError(reduction=reduction))
    np.testing.assert_allclose(list(fit(model).l2_rates.values()), 2 * A)


@PACKAGES
def test_a_loss_that_is_not_reduced_is_refused(package):
    model = network(package, package.losses.MeanSquaredError(reduction="none"))
    with pytest.raises(UnsupportedModelError, match="reduced by 'none', so the cost is not known"):
        fit(model)


@pytest.mark.parametrize("package", [keras, wide(tf_keras)], ids=["keras", "tf_keras"])
@pytest.mark.parametrize(
    "name", ["mse", wide("MSE"), wide("mean_squared_error"), wide("function"), "object"]
)
def test_one_loss_has_many_spellings(package, name):
    losses = package.losses
    loss = {"function": losses.mean_squared_error, "object": losses.MeanSquaredError()}
    model = network(package, loss.get(name, name))
    np.testing.assert_allclose(list(fit(model).l2_rates.values()), 2 * A)


def mse(y, z):
    """Not the mean square, whatever its name is."""
    return 3 * (y - z) ** 2


def own_class(base):
    """A loss class of the user's that is called like Keras' own."""

    def call(self, y, z):
        return 3 * (y - z) ** 2

    return type("MeanSquaredError", (base,), {"call": call, "__module__": __name__})()


@PACKAGES
@pytest.mark.parametrize(
    "kind", ["function", "wrapped function", "lambda", "partial", "class", "subclass"]
)
def test_a_loss_of_the_users_own_is_not_taken_for_that_of_its_name(package, kind):
    known = package.losses.mean_squared_error
    loss = {
        "function": mse,
        "wrapped function": functools.wraps(known)(lambda y, z: 3 * known(y, z)),
        "lambda": lambda y, z: 3 * known(y, z),
        "partial": functools.partial(known),
        "class": own_class(package.losses.Loss),
        "subclass": own_class(package.losses.MeanSquaredError),
    }[kind]
    named = "a lambda as the loss" if kind == "lambda" else "the loss"
    with pytest.raises(UnsupportedModelError, match=rf"compiled with {named}.*likelihood=\.\.\."):
        fit(network(package, loss))


@keras.saving.register_keras_serializable("ours", name="MeanSquaredError")
class Tripled(keras.losses.Loss):
    """Saved under the name of Keras' own."""

    def call(self, y, z):
        return 3 * (y - z) ** 2


@keras.saving.register_keras_serializable("ours", name="mean_squared_error")
def tripled(y, z):
    """A function saved under the name of Keras' own."""
    return 3 * keras.ops.mean((y - z) ** 2, axis=-1)


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("loss", [Tripled(), tripled], ids=["class", "function"])
def test_nor_is_one_out_of_a_file(tmp_path, loss):
    network(keras, loss).save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError, match="compiled with the loss"):
        fit(str(tmp_path / "m.keras"))
