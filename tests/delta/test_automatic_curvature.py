"""`curvature="auto"`: the exact Hessian where nothing of it is left out, elsewhere the OPG."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_methods import X, Y, fit, fitted, network

from deltauq import DeltaMethod
from deltauq.delta.settings import Settings
from deltauq.likelihoods import CustomLoss, Gaussian

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # of Keras, when it saves
]


@pytest.mark.quick
@pytest.mark.parametrize("rank", ["auto", "full"])
def test_it_is_the_exact_hessian_of_a_small_network(rank):
    method = fit(curvature="auto", rank=rank)
    assert method.curvature == "hessian"
    assert method.is_exact
    assert "hessian" in repr(method)
    np.testing.assert_array_equal(method.predict(X).std, fitted("hessian").predict(X).std)


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 5},
        {"rank": "auto", "route": "gram"},
        {"rank": "auto", "route": "sketch"},
        {"rank": 5, "tail": "calibrated"},
    ],
)
def test_it_is_the_opg_where_something_else_is_asked_for(options):
    method = fit(curvature="auto", **options)
    assert method.curvature == "opg"
    np.testing.assert_allclose(
        method.predict(X).std, fit(curvature="opg", **options).predict(X).std, rtol=1e-12
    )


@pytest.mark.parametrize(
    ("rank", "n_params", "expected"),
    [
        ("auto", 3_000, ("hessian", "opg")),
        ("auto", 3_001, ("opg",)),
        ("full", 3_000, ("hessian", "opg")),
        ("full", 30_000, ("opg",)),
        (600, 700, ("opg",)),
    ],
)
def test_it_goes_by_the_number_of_parameters(rank, n_params, expected):
    assert Settings(rank=rank).curvatures(n_params) == expected
    assert Settings("ggn", rank=rank).curvatures(n_params) == ("ggn",)


def test_it_is_the_opg_of_a_network_without_second_derivatives():
    layers = keras.layers
    resized = [layers.Reshape((2, 2, 1)), layers.UpSampling2D(interpolation="bilinear")]
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), *resized, layers.Flatten()])
    model.add(layers.Dense(3))
    assert fit(model, curvature="auto").curvature == "opg"


@pytest.mark.filterwarnings("ignore:the loss has no curvature")
def test_it_is_the_opg_of_a_loss_that_may_be_without_curvature():
    absolute = CustomLoss(lambda z, y: tf.abs(z[:, 0] - tf.reshape(y, [-1])), Gaussian(noise=1.0))
    method = fit(network(n_outputs=1), y=0.5 * Y, curvature="auto", likelihood=absolute)
    assert method.curvature == "opg"


def test_what_was_taken_is_kept_and_what_was_asked_for_counts_again(tmp_path):
    model, path = network(), tmp_path / "m.deltauq"
    method = fit(model, curvature="auto")
    method.save(path)
    loaded = DeltaMethod.load(path)
    assert (loaded.curvature, loaded.settings.curvature) == ("hessian", "auto")
    np.testing.assert_allclose(loaded.predict(X).std, method.predict(X).std, rtol=1e-12)
    method.rank = 5
    assert method.fit(X, Y).curvature == "opg"
    method.curvature = "ggn"
    assert method.fit(X, Y).curvature == "ggn"
