"""A link function is found behind operations that only move its numbers, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deltauq.network.link import end_of

X = np.random.default_rng(0).normal(size=(4, 3, 5))
softmax, sigmoid, exp = tf.nn.softmax, tf.sigmoid, tf.exp


def stacked(x):
    return tf.transpose(tf.stack([softmax(x[:, t]) for t in range(3)]), [1, 0, 2])


FOUND = {
    "itself": (softmax, softmax),
    "identity": (lambda x: tf.identity(softmax(x)), softmax),
    "rows reshaped": (lambda x: tf.reshape(softmax(x), [-1, 5]), softmax),
    "rows stacked": (stacked, softmax),
    "rows joined": (lambda x: tf.concat([softmax(x), softmax(2 * x)], axis=1), softmax),
    "sigmoids joined": (lambda x: tf.concat([sigmoid(x), sigmoid(-x)], axis=-1), sigmoid),
    "exponentials": (lambda x: tf.identity(exp(x)), exp),
    "exponentials joined": (lambda x: tf.concat([exp(x), exp(-x)], axis=-1), exp),
    "sigmoids moved": (lambda x: tf.reshape(tf.transpose(sigmoid(x)), [-1, 2]), sigmoid),
}

NONE = {
    "classes moved": (lambda x: tf.transpose(softmax(x), [0, 2, 1]), "Transpose"),
    "rows cut": (lambda x: tf.reshape(softmax(x), [4, 5, 3]), "Reshape"),
    "rows side by side": (lambda x: tf.concat([softmax(x), softmax(x)], -1), "ConcatV2"),
    "classes stacked last": (lambda x: tf.stack([softmax(x), softmax(-x)], -1), "Pack"),
    "not all linked": (lambda x: tf.concat([sigmoid(x), x + 1], -1), "ConcatV2"),
    "two links": (lambda x: tf.concat([sigmoid(x), softmax(x)], 1), "ConcatV2"),
    "a rate times an exposure": (lambda x: exp(x) * x, "Mul"),
    "no link": (lambda x: tf.reshape(tf.nn.relu(x), [-1, 5]), "Relu"),
    "softmax of another axis": (lambda x: softmax(x, axis=1), "Transpose"),
}


def end(function):
    """In a trace whose first axis is free, with the output and the logits there are."""
    found = []

    @tf.function(input_signature=[tf.TensorSpec([None, 3, 5], tf.float64)])
    def trace(x):
        output = function(x)
        found.append(end_of(output))
        return output, found[-1].logits

    output, logits = trace(X)
    return found[-1], output.numpy(), logits.numpy()


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.quick
def test_logits_stand_where_the_output_stands(name):
    function, link = FOUND[name]
    found, output, logits = end(function)
    assert found.link == found.last == {softmax: "Softmax", sigmoid: "Sigmoid", exp: "Exp"}[link]
    np.testing.assert_allclose(link(logits).numpy(), output, rtol=1e-12)


@pytest.mark.parametrize("name", NONE)
@pytest.mark.quick
def test_nothing_is_undone_that_is_no_link_of_whole_rows(name):
    function, last = NONE[name]
    found, output, logits = end(function)
    assert (found.last, found.link) == (last, None)
    np.testing.assert_array_equal(logits, output)
