"""A row rule is one registered function; where it is wrong, the rows are right all the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltauq import Network
from deltauq.network.jacobians import PerExample, Rows, evaluated, register_rule, stacked
from deltauq.network.jacobians.rules import RULES


class Scaled(keras.layers.Layer):
    """y = x / w, entry by entry: an operation without a rule."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), initializer="ones", name="w")

    def call(self, x):
        return tf.realdiv(x, self.w)


@pytest.fixture
def network(rng):
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="float64"),
            Scaled(dtype="float64"),
            keras.layers.Dense(2, dtype="float64"),
        ]
    )
    model.set_weights([rng.uniform(1, 2, leaf.shape) for leaf in model.get_weights()])
    return Network(model)


@pytest.fixture(params=[1.0, 2.0], ids=["right", "wrong"])
def factor(request):
    """What the new rule's rows are multiplied by."""
    assert "RealDiv" not in RULES

    @register_rule("RealDiv", operands={1: 0})
    def rows(tap, deltas):
        return Rows([-request.param * tap.data / tap.parameter**2 * delta for delta in deltas])

    yield request.param
    del RULES["RealDiv"]


def rows_of(network, x):
    per_example = PerExample(network, x)

    @tf.function(autograph=False)
    def factors(params, x):
        return per_example.factors(params, x, lambda z: tf.ones_like(z)[:, None, :])[0]

    return stacked(evaluated(factors(network.params, x)))[:, 0], per_example.mapped


def test_a_rule_is_used_where_it_is_right_and_set_aside_where_it_is_wrong(rng, network, factor):
    x = tf.constant(rng.normal(size=(5, 3)))
    found, mapped = rows_of(network, x)
    assert len(mapped) == (0 if factor == 1.0 else 1)
    w, kernel, _ = (v.numpy() for v in network.model.weights)
    np.testing.assert_allclose(found[:, :3], -x.numpy() / w**2 * kernel.sum(axis=1), rtol=1e-12)


def test_without_the_rule_the_variable_is_differentiated_example_by_example(rng, network):
    _, mapped = rows_of(network, tf.constant(rng.normal(size=(5, 3))))
    assert len(mapped) == 1
