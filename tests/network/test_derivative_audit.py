"""Second derivatives of every layer kind are right, or the exact Hessian is refused by name."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from marks import slow, wide, wide_but

from deltauq import DeltaMethod, curvature, diagnose
from deltauq.data import Batches
from deltauq.errors import UnsupportedModelError
from deltauq.likelihoods import Categorical
from deltauq.network import Network
from deltauq.network.derivative_audit import (
    named,
    obstacles_to_second_derivatives,
    refuse_false_gradients,
)
from deltauq.network.replaced_gradients import replaced_gradients

layers = keras.layers
DOUBLE = {"dtype": "float64"}
VECTOR, SEQUENCE, IMAGE = (4,), (3, 4), (6, 6, 4)


class Own(layers.Layer):
    """A layer that calls one function."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, x):
        return self.function(x)


class NormalisedCell(layers.SimpleRNNCell):
    """A recurrent cell with layer normalisation, so that `tf.nn.moments` runs inside a loop."""

    def __init__(self, units, **options):
        super().__init__(units, **options)
        self.normalisation = layers.LayerNormalization(**options)

    def build(self, shape):
        super().build(shape)
        self.normalisation.build((None, self.units))

    def call(self, x, states, training=False):
        output, _ = super().call(x, states)
        output = self.normalisation(output)
        return output, [output]


def attention(x):
    return layers.MultiHeadAttention(2, 3, **DOUBLE)(x, x)


def network_of(middle, shape, dtype="float64", **options):
    """Dense, the layer in question, Dense: parameters stand before and after it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape, dtype=dtype)
    z = middle(layers.Dense(4, dtype=dtype)(inputs))
    z = layers.Dense(3, dtype=dtype)(layers.Flatten(dtype=dtype)(z))
    model = keras.Model(inputs, z)
    rng = np.random.default_rng(1)
    model.set_weights([w + 0.3 * rng.uniform(size=w.shape) for w in model.get_weights()])
    return Network(model, **options)


def rows(network, n=3):
    shape = network.model.inputs[0].shape[1:]
    return np.random.default_rng(2).normal(size=(n, *shape)).astype(network.dtype)


def batches(network, x):
    y = np.arange(len(x)) % 3
    options = {"likelihood": Categorical(), "n_outputs": 3, "dtype": network.dtype}
    return Batches(x, y, None, batch_size=4, **options), y


def eager_gradient(model, x, y):
    """Of the mean cross-entropy at the model's weights, by one tape on the model itself."""
    with tf.GradientTape() as tape:
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=False))
        mean = tf.reduce_mean(loss)
    gradients = tape.gradient(mean, model.trainable_variables)
    return np.concatenate([np.ravel(tf.convert_to_tensor(gradient)) for gradient in gradients])


def central_difference(network, x, y, vector, step=1e-4):
    """(g(w + h v) - g(w - h v)) / 2h, and once more with 2h to cancel the error of order h^2."""
    variables = network.model.trainable_variables
    values = [variable.numpy() for variable in variables]
    pieces = [piece.numpy() for piece in network.unflatten(tf.constant(vector))]

    def slope(h):
        ends = []
        for sign in (1, -1):
            for variable, value, piece in zip(variables, values, pieces, strict=True):
                variable.assign(value + sign * h * piece)
            ends.append(eager_gradient(network.model, x, y))
        return (ends[0] - ends[1]) / (2 * h)

    found = (4 * slope(step) - slope(2 * step)) / 3
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return found


def layer(kind, *arguments, **options):
    return lambda z: getattr(layers, kind)(*arguments, **options, **DOUBLE)(z)


def of(function):
    return lambda z: Own(function, **DOUBLE)(z)


def looked_up(z):
    """Words, of which there are seven, from the first layer's output."""
    words = Own(lambda z: tf.cast(tf.abs(10 * z), tf.int32) % 7, **DOUBLE)(z)
    mean = layers.GlobalAveragePooling1D(**DOUBLE)(layers.Embedding(7, 4, **DOUBLE)(words))
    return layers.Multiply(**DOUBLE)([mean, z])


def log_sum_exp(x):
    return x * tf.reduce_logsumexp(x, axis=-1, keepdims=True)


TWICE = {
    "layer normalisation": (layer("LayerNormalization"), VECTOR),
    "layer normalisation of images": (layer("LayerNormalization", axis=[1, 2, 3]), IMAGE),
    "layer normalisation, no centre": (layer("LayerNormalization", center=False), VECTOR),
    "layer normalisation, no scale": (layer("LayerNormalization", scale=False), SEQUENCE),
    "layer normalisation, neither": (
        layer("LayerNormalization", center=False, scale=False),
        VECTOR,
    ),
    "rms normalisation": (layer("RMSNormalization"), VECTOR),
    "group normalisation": (layer("GroupNormalization", 2), IMAGE),
    "batch normalisation": (layer("BatchNormalization"), IMAGE),
    "unit normalisation": (layer("UnitNormalization"), VECTOR),
    "spectral normalisation": (
        lambda z: layers.SpectralNormalization(layers.Dense(4, **DOUBLE), **DOUBLE)(z),
        VECTOR,
    ),
    "softsign": (layer("Activation", "softsign"), VECTOR),
    "gelu": (layer("Activation", "gelu"), VECTOR),
    "silu": (layer("Activation", "silu"), VECTOR),
    "elu": (layer("ELU"), VECTOR),
    "prelu": (layer("PReLU", "normal"), VECTOR),
    "embedding": (looked_up, VECTOR),
    "attention": (attention, SEQUENCE),
    "lstm": (layer("LSTM", 3), SEQUENCE),
    "gru": (layer("GRU", 3), SEQUENCE),
    "bidirectional": (
        lambda z: layers.Bidirectional(layers.LSTM(2, **DOUBLE), **DOUBLE)(z),
        SEQUENCE,
    ),
    "max pooling": (layer("MaxPooling2D", 2), IMAGE),
    "average pooling": (layer("AveragePooling2D", 2), IMAGE),
    "separable": (layer("SeparableConv2D", 3, 3), IMAGE),
    "convolution": (layer("Conv2D", 3, 3), IMAGE),
    "transposed": (layer("Conv2DTranspose", 2, 3, strides=2), IMAGE),
    "nearest neighbours": (layer("Resizing", 4, 9, interpolation="nearest"), IMAGE),
    "dropout": (layer("Dropout", 0.5), VECTOR),
    "log-sum-exp, which stops a gradient": (of(log_sum_exp), VECTOR),
    "compiled silu": (of(tf.function(lambda x: tf.nn.silu(x))), VECTOR),
}


#: Rows of `test_layers.py` too.
THERE_TOO = {
    "batch normalisation",
    "spectral normalisation",
    "lstm",
    "gru",
    "bidirectional",
    "max pooling",
    "average pooling",
    "separable",
    "convolution",
    "transposed",
    "nearest neighbours",
}


#: Moments, and an activation, whose gradients are replaced; the others go alike.
TOLD_APART = [
    "layer normalisation",
    "softsign",
]


@pytest.mark.parametrize(
    "name", wide_but(TOLD_APART, [slow(k) if k in THERE_TOO else k for k in TWICE])
)
def test_hessian_products_are_derivatives_of_the_gradient(name):
    network = network_of(*TWICE[name])
    x = rows(network, 5)
    refuse_false_gradients(network, tf.constant(x[:3]))
    assert obstacles_to_second_derivatives(network, tf.constant(x[:3])) == ()
    data, y = batches(network, x)
    vector = np.random.default_rng(3).normal(size=network.n_params)
    found = curvature.Hessian(network, "categorical", data).matvec(vector)
    truth = central_difference(network, x, y, vector)
    np.testing.assert_allclose(found, truth, rtol=1e-6, atol=1e-6 * np.max(np.abs(truth)))


@pytest.mark.filterwarnings("ignore:.*rms_scaling=True.*is deprecated:UserWarning")
def test_the_deprecated_rms_scaling():
    network = network_of(layer("LayerNormalization", rms_scaling=True), VECTOR)
    x = rows(network, 5)
    assert obstacles_to_second_derivatives(network, tf.constant(x)) == ()
    data, y = batches(network, x)
    vector = np.random.default_rng(3).normal(size=network.n_params)
    found = curvature.Hessian(network, "categorical", data).matvec(vector)
    truth = central_difference(network, x, y, vector)
    np.testing.assert_allclose(found, truth, rtol=1e-6, atol=1e-6 * np.max(np.abs(truth)))


def bent(x):
    """A custom gradient, right itself, that hides its own derivative."""

    @tf.custom_gradient
    def tanh(x):
        y = tf.tanh(x)
        return y, lambda upstream: upstream * tf.stop_gradient(1 - y * y)

    return tanh(x)


ONCE = {
    "upsampling": (
        lambda z: layers.UpSampling2D(interpolation="bilinear")(z),
        IMAGE,
        "float32",
        r"ResizeBilinearGrad \(gradients/up_sampling2d\S*/resize",
    ),
    "resizing": (
        lambda z: layers.Resizing(9, 9, interpolation="bilinear")(z),
        IMAGE,
        "float32",
        r"ResizeBilinearGrad \(gradients/resizing\S*/resize",
    ),
    "bicubic resizing": (
        lambda z: layers.Resizing(9, 9, interpolation="bicubic")(z),
        IMAGE,
        "float32",
        "ResizeBicubicGrad",
    ),
    "moments in a loop": (
        lambda z: layers.RNN(NormalisedCell(3, **DOUBLE), **DOUBLE)(z),
        SEQUENCE,
        "float64",
        r"StopGradient \(\S*layer_normalization\S*\) in rnn\S*/while",
    ),
    "custom gradient": (of(bent), VECTOR, "float64", r"IdentityN \(own\S*/IdentityN\)"),
    "recomputed": (
        of(tf.recompute_grad(lambda x: x * tf.tanh(x))),
        VECTOR,
        "float64",
        "IdentityN",
    ),
    "incomplete gamma function": (
        of(lambda x: tf.math.igamma(1 + x * x, tf.constant(1.0, tf.float64))),
        VECTOR,
        "float64",
        "IgammaGradA",
    ),
}


@pytest.mark.parametrize("name", [k if k != "moments in a loop" else wide(k) for k in ONCE])
def test_a_wrong_second_derivative_is_found_by_name(name):
    middle, shape, dtype, message = ONCE[name]
    network = network_of(middle, shape, dtype)
    x = tf.constant(rows(network))
    refuse_false_gradients(network, x)
    assert re.search(message, named(obstacles_to_second_derivatives(network, x)))


@pytest.mark.filterwarnings("ignore:the weights are far")
@pytest.mark.parametrize("name", ["upsampling", wide("resizing"), wide("custom gradient")])
def test_only_the_exact_hessian_is_refused_for_it(name):
    middle, shape, dtype, message = ONCE[name]
    network = network_of(middle, shape, dtype)
    x, y = rows(network, 12), np.arange(12) % 3
    options = {"l2": 0.1, "rank": 8, "progress": False}
    with pytest.raises(UnsupportedModelError, match=f"exact Hessian .* wrong.*{message}.*'ggn'"):
        DeltaMethod(network.model, "hessian", **options).fit(x, y)
    for kind in ("opg", "ggn"):
        assert np.all(DeltaMethod(network.model, kind, **options).fit(x, y).predict(x[:2]).std > 0)


@pytest.mark.wide  # it is named by `fit` too: the test before
@pytest.mark.filterwarnings("ignore:the weights are far")
def test_diagnose_names_what_the_exact_hessian_fails_on():
    model = network_of(ONCE["upsampling"][0], IMAGE, "float32").model
    x = np.random.default_rng(0).normal(size=(12, *IMAGE)).astype("float32")
    found = diagnose(model, x, np.arange(12) % 3, l2=0.1)
    (finding,) = [f for f in found.of("curvature") if "cannot be formed" in f.what]
    assert "ResizeBilinearGrad" in finding.what
    assert found.eigenvalues is None
    assert [cost.curvature for cost in found.costs] == ["opg", "ggn"]


@tf.custom_gradient
def reversal(x):
    return tf.identity(x), lambda upstream: -upstream


FALSE = {
    "stopped beside": (lambda x: x + tf.stop_gradient(tf.tanh(x)), "StopGradient"),
    "stopped mean": (
        lambda x: x - tf.stop_gradient(tf.reduce_mean(x, -1, keepdims=True)),
        "StopGradient",
    ),
    "stopped mean of a weighted spread": (
        lambda x: (
            tf.math.squared_difference(x, tf.stop_gradient(tf.reduce_mean(x, -1, keepdims=True)))
            * tf.range(1.0, 5.0, dtype=x.dtype)
        ),
        "StopGradient",
    ),
    "straight through": (lambda x: x + tf.stop_gradient(tf.round(x) - x), "StopGradient"),
    "reversed": (reversal, "IdentityN"),
    "in a compiled function": (
        tf.function(lambda x: x + tf.stop_gradient(tf.tanh(x))),
        r"StopGradient \(StopGradient\) in own\S*/PartitionedCall",
    ),
}


@pytest.mark.parametrize("name", wide_but(["straight through", "stopped beside"], FALSE))
def test_a_gradient_that_is_not_the_derivative_is_refused_for_every_curvature(name):
    function, operation = FALSE[name]
    network = network_of(of(function), VECTOR)
    x, y = rows(network, 12), np.arange(12) % 3
    message = rf"not the derivatives of its output.*dense\S*/kernel.*{operation}.*layers="
    for kind in ("hessian", "opg", "ggn"):
        with pytest.raises(UnsupportedModelError, match=message):
            DeltaMethod(network.model, kind, l2=0.1, progress=False).fit(x, y)
    (finding,) = [f for f in diagnose(network.model, x, y).of("model") if f.level == "error"]
    assert "not the derivatives" in finding.what


def test_variables_that_no_stopped_gradient_stands_behind_may_be_uncertain():
    function, _ = FALSE["stopped beside"]
    network = network_of(of(function), VECTOR, layers=lambda variable: variable.shape[-1] == 3)
    assert [parameter.size for parameter in network.parameters] == [12, 3]  # of the last layer
    refuse_false_gradients(network, tf.constant(rows(network)))
    assert obstacles_to_second_derivatives(network, tf.constant(rows(network))) == ()


def test_an_operation_without_a_gradient_is_refused():
    def middle(z):
        return layers.Resizing(9, 9, interpolation="area")(z)

    network = network_of(middle, IMAGE, "float32")
    with pytest.raises(UnsupportedModelError, match=r"without a gradient: ResizeArea \(resizing"):
        refuse_false_gradients(network, tf.constant(rows(network)))


@pytest.mark.wide  # custom gradients: the tests of wrong second derivatives
def test_a_custom_gradient_of_what_has_none_is_believed_once():
    """The first derivative is all that is given."""

    @tf.custom_gradient
    def area(x):
        resized = tf.image.resize(x, (3, 3), "area")
        return resized, lambda upstream: tf.repeat(tf.repeat(upstream, 2, 1), 2, 2) / 4

    network = network_of(lambda z: Own(area)(z), IMAGE, "float32")
    x = tf.constant(rows(network))
    refuse_false_gradients(network, x)
    (found,) = obstacles_to_second_derivatives(network, x)
    assert found.startswith("IdentityN (own")


def first_and_second(function, x, vector):
    @tf.function(autograph=False)
    def both(x):
        gradient = tf.gradients(function(x), x)[0]
        (second,) = tf.gradients(gradient, x, grad_ys=vector, unconnected_gradients="zero")
        return gradient, second

    return [value.numpy() for value in both(x)]


@pytest.mark.parametrize("axes", [wide([1]), [1, 2], wide([0, 2]), wide(-1)])
@pytest.mark.parametrize("keepdims", [wide(False), True])
def test_moments_are_differentiated_twice(rng, axes, keepdims):
    """The first derivative stays what it was to the bit, the second is that of the formula."""
    x, v = (tf.constant(rng.normal(size=(3, 4, 5))) for _ in range(2))

    def value(x, moments):
        mean, variance = moments(x)
        return tf.reduce_sum(mean**3 / tf.sqrt(variance))

    def mended(x):
        with replaced_gradients():
            return value(x, lambda x: tf.nn.moments(x, axes, keepdims=keepdims))

    def plain(x):
        return value(x, lambda x: tf.nn.moments(x, axes, keepdims=keepdims))

    def formula(x):
        mean = tf.reduce_mean(x, axes, keepdims=True)
        variance = tf.reduce_mean((x - mean) ** 2, axes, keepdims=keepdims)
        return value(x, lambda _: (tf.reshape(mean, variance.shape), variance))

    found, kept, truth = (first_and_second(f, x, v) for f in (mended, plain, formula))
    np.testing.assert_array_equal(found[0], kept[0])
    np.testing.assert_allclose(found[0], truth[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(found[1], truth[1], rtol=1e-10, atol=1e-11)
    assert np.max(np.abs(kept[1] - truth[1])) > 1e-3 * np.max(np.abs(truth[1]))


def test_layers_of_tf_keras_are_differentiated_twice(rng):
    tf_keras = pytest.importorskip("tf_keras")
    normalise = tf_keras.layers.LayerNormalization(axis=[1, 2], dtype="float64")
    x, v = (tf.constant(rng.normal(size=(3, 4, 5))) for _ in range(2))
    normalise(x)

    def traced(x):
        with replaced_gradients():
            return tf.reduce_sum(normalise(x) ** 3)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(normalise(x) ** 3)
        return tape.gradient(value, x).numpy()

    _, second = first_and_second(traced, x, v)
    truth = (gradient(x + 1e-5 * v) - gradient(x - 1e-5 * v)) / 2e-5
    np.testing.assert_allclose(second, truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, m: x * m,
        lambda x, m: tf.math.squared_difference(x, m) * tf.range(1.0, 5.0, dtype=x.dtype),
        lambda x, m: tf.reduce_mean(tf.math.squared_difference(x, m), 0),
        lambda x, m: tf.reduce_mean(tf.math.squared_difference(x, m), 1) + m[:, 0],
        lambda x, m: tf.reduce_mean(tf.math.squared_difference(2 * x, m), 1),
    ],
    ids=["product", "weighted", "other axes", "used elsewhere", "another tensor"],
)
def test_a_stopped_mean_stays_stopped(rng, function):
    """What looks like the moments' mean but is not keeps its first and second derivatives."""
    x, v = (tf.constant(rng.normal(size=(3, 4))) for _ in range(2))

    def plain(x):
        return tf.reduce_sum(function(x, tf.stop_gradient(tf.reduce_mean(x, 1, keepdims=True))))

    def traced(x):
        with replaced_gradients():
            return plain(x)

    pairs = zip(first_and_second(traced, x, v), first_and_second(plain, x, v), strict=True)
    for found, kept in pairs:
        np.testing.assert_array_equal(found, kept)
