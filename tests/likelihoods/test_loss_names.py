"""What messages call losses: their names and settings, and never bytecode or an address."""

from __future__ import annotations

import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from marks import wide

from deltauq import DeltaMethod, diagnose
from deltauq.errors import UnsupportedModelError
from deltauq.likelihoods import CustomLoss
from deltauq.likelihoods.loss_names import function_in_words, loss_in_words

X = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
Y = np.arange(20) % 3
#: Base64 of bytecode, as Keras writes it, and addresses in memory.
UNREADABLE = re.compile(r"[A-Za-z0-9+/]{40}|0x[0-9a-f]{6}|<lambda>|__lambda__")


def focal(z, y):
    log_p = tf.gather(tf.nn.log_softmax(z), tf.cast(tf.reshape(y, [-1]), tf.int32), batch_dims=1)
    return -((1 - tf.exp(log_p)) ** 2) * log_p


def network(package=keras, loss=None):
    x = package.Input((3,))
    head = package.layers.Dense(3, kernel_regularizer="l2", bias_regularizer="l2")
    model = package.Model(x, head(x))
    if loss is not None:
        model.compile(loss=loss)
    return model


def test_losses_are_named_as_keras_stores_them():
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    written = keras.saving.serialize_keras_object(sparse)
    assert "SparseCategoricalCrossentropy(" in loss_in_words(written)
    assert "from_logits=True" in loss_in_words(written)
    assert loss_in_words("mae") == "'mae'"
    assert loss_in_words({"class_name": "function", "config": "mine.f"}) == "'mine.f'"
    for config in ({"value": "4wEAAAA" * 20}, "mine.test.<locals>.<lambda>"):
        kind = "__lambda__" if isinstance(config, dict) else "function"
        written = {"class_name": kind, "config": config}
        assert loss_in_words(written) == "a lambda"
        several = loss_in_words({"a": "mse", "b": [written, written]})
        assert several == "{'a': 'mse', 'b': [a lambda, a lambda]}"
        wrapper = {"class_name": "LossFunctionWrapper", "config": {"fn": written, "name": "own"}}
        assert loss_in_words(wrapper) == "LossFunctionWrapper(fn=a lambda)"


def test_functions_have_their_names():
    assert function_in_words(focal) == "focal"
    assert function_in_words(lambda z, y: focal(z, y)) == "a lambda"
    assert function_in_words(functools.partial(focal)) == "partial"
    assert repr(CustomLoss(lambda z, y: focal(z, y))) == "CustomLoss(a lambda, like=Categorical())"


@pytest.mark.parametrize("package", [keras, wide(tf_keras)], ids=["keras", "tf_keras"])
@pytest.mark.parametrize("own", ["function", wide("lambda")])
def test_the_error_for_an_unknown_loss_leads_to_a_loss_of_ones_own(package, own):
    def mine(y, z):
        return focal(z, y)

    model = network(package, mine if own == "function" else lambda y, z: focal(z, y))
    with pytest.raises(UnsupportedModelError) as caught:
        DeltaMethod(model, "opg", progress=False).fit(X, Y)
    text = str(caught.value)
    assert not UNREADABLE.search(text)
    assert ("a lambda as the loss" if own == "lambda" else "mine'") in text
    assert "pass CustomLoss(f, like) of deltauq.likelihoods" in text
    assert "A loss of my own" in text
    (finding,) = (f for f in diagnose(model, X, Y).findings if f.level == "error")
    assert not UNREADABLE.search(f"{finding.what} {finding.remedy}")


@pytest.mark.wide  # names that are shown: the tests beside
@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_nor_is_the_bytecode_of_a_file_shown(tmp_path):
    network(loss=lambda y, z: focal(z, y)).save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError, match="compiled with a lambda as the loss") as caught:
        DeltaMethod(str(tmp_path / "m.keras"), "opg", progress=False).fit(X, Y)
    assert not UNREADABLE.search(str(caught.value))
    dm = DeltaMethod(str(tmp_path / "m.keras"), "opg", likelihood=CustomLoss(focal), progress=False)
    assert len(dm.fit(X, Y).predict(X)) == 20


@pytest.mark.wide  # so does the error: the test before
def test_a_diagnosis_calls_a_given_lambda_one():
    found = diagnose(network(), X, Y, likelihood=lambda z, y: focal(z, y))
    (loss,) = found.of("loss")
    assert loss.what.startswith("as given: a lambda; understood as CustomLoss(a lambda")
    assert not UNREADABLE.search(loss.what)
