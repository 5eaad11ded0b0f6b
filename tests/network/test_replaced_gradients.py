"""Replaced gradients equal TensorFlow's own, once and twice differentiated."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from marks import covering

from deltauq.network.replaced_gradients import replaced_gradients


def derivatives(pool, x, g, v):
    """Gradient of sum(g * pool(x)^3) and its derivative along v, in one graph."""

    @tf.function(autograph=False)
    def both(x):
        value = tf.reduce_sum(g * pool(x) ** 3)
        gradient = tf.gradients(value, x)[0]
        return gradient, tf.gradients(gradient, x, grad_ys=v)[0]

    return [part.numpy() for part in both(x)]


@covering(
    shape=[(6, 6), (7, 5)],
    steps={"2-2": (2, 2), "3-3": (3, 3), "3-2": (3, 2), "size3-stride3": ((2, 1), (2, 1))},
    padding=["VALID", "SAME"],
)
def test_max_pooling(rng, shape, steps, padding):
    size, stride = steps
    x = tf.constant(rng.normal(size=(4, *shape, 3)))

    def plain(x):
        return tf.nn.max_pool2d(x, size, stride, padding)

    def fast(x):
        with replaced_gradients():
            return plain(x)

    g, v = rng.normal(size=plain(x).shape), tf.constant(rng.normal(size=x.shape))
    for found, truth in zip(derivatives(fast, x, g, v), derivatives(plain, x, g, v), strict=True):
        np.testing.assert_allclose(found, truth, atol=1e-12)
        assert np.any(truth)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize(("window", "stride"), [(3, 1), (4, 1), (3, 2)])
def test_convolution(rng, padding, window, stride):
    """In the images and in the kernel, which is what the parameters' second derivative mixes."""
    x = tf.constant(rng.normal(size=(3, 7, 8, 4)))
    kernel = tf.constant(rng.normal(size=(window, 3, 4, 6)))
    joined = tf.concat([tf.reshape(x, [-1]), tf.reshape(kernel, [-1])], axis=0)

    def plain(both):
        images, weights = tf.split(both, [tf.size(x), tf.size(kernel)])
        images, weights = tf.reshape(images, x.shape), tf.reshape(weights, kernel.shape)
        return tf.nn.conv2d(images, weights, stride, padding)

    def fast(both):
        with replaced_gradients():
            return plain(both)

    g, v = rng.normal(size=plain(joined).shape), tf.constant(rng.normal(size=joined.shape))
    pairs = zip(derivatives(fast, joined, g, v), derivatives(plain, joined, g, v), strict=True)
    for found, truth in pairs:
        np.testing.assert_allclose(found, truth, rtol=1e-10, atol=1e-9)


def test_of_equal_entries_one_gets_the_gradient():
    x = tf.ones([1, 4, 4, 2])

    def pool(x):
        with replaced_gradients():
            return tf.nn.max_pool2d(x, 2, 2, "VALID")

    gradient, _ = derivatives(pool, x, tf.ones([1, 2, 2, 2]), x)
    assert gradient.sum() == pytest.approx(3 * 8)


@pytest.mark.parametrize("function", [tf.tanh, tf.sigmoid])
def test_entrywise_functions(rng, function):
    x = tf.constant(rng.normal(size=(4, 3)))

    def fast(x):
        with replaced_gradients():
            return function(x)

    g, v = rng.normal(size=x.shape), tf.constant(rng.normal(size=x.shape))
    for found, truth in zip(
        derivatives(fast, x, g, v), derivatives(function, x, g, v), strict=True
    ):
        np.testing.assert_allclose(found, truth, rtol=1e-12)
        assert np.any(truth)
