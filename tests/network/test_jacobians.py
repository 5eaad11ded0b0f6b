"""Per-example rows equal plain automatic differentiation of one example at a time."""

from __future__ import annotations

from copy import deepcopy

import keras
import numpy as np
import pytest
import tensorflow as tf
from marks import slow, wide

from deltauq import DeltaMethod
from deltauq.errors import UnsupportedModelError
from deltauq.network import Network
from deltauq.network.graph import traced
from deltauq.network.jacobians import PerExample, Workspace, evaluated, stacked

layers = keras.layers
#: The precision of the models that are built next; the fixture sets it.
PRECISION = {"dtype": "float64"}


def dense_only():
    x = keras.Input((4,), **PRECISION)
    return keras.Model(x, layers.Dense(3, use_bias=False, **PRECISION)(x)), (4,)


def shared():
    x = keras.Input((4,), **PRECISION)
    twice = layers.Dense(4, activation="tanh", **PRECISION)
    z = layers.Add(**PRECISION)([twice(twice(x)), x])
    return keras.Model(x, layers.Dense(3, **PRECISION)(z)), (4,)


def sequence():
    """Dense on [B, T, D]: the batch axis is folded into the product's rows."""
    x = keras.Input((6, 4), **PRECISION)
    z = layers.Dense(5, activation="gelu", **PRECISION)(x)
    z = layers.GlobalAveragePooling1D(**PRECISION)(z)
    return keras.Model(x, layers.Dense(3, **PRECISION)(z)), (6, 4)


def convolution(**options):
    x = keras.Input((7, 6, 2), **PRECISION)
    z = layers.Conv2D(4, (3, 2), activation="tanh", **options, **PRECISION)(x)
    z = layers.Flatten(**PRECISION)(layers.MaxPooling2D(2, padding="same", **PRECISION)(z))
    return keras.Model(x, layers.Dense(3, activation="softmax", **PRECISION)(z)), (7, 6, 2)


def normalised():
    x = keras.Input((5, 5, 2), **PRECISION)
    z = layers.BatchNormalization(**PRECISION)(layers.Conv2D(3, 2, **PRECISION)(x))
    z = layers.LayerNormalization(**PRECISION)(layers.Flatten(**PRECISION)(keras.ops.relu(z)))
    return keras.Model(x, layers.Dense(3, **PRECISION)(z)), (5, 5, 2)


def many_kinds():
    x = keras.Input((8, 3), **PRECISION)
    z = layers.Conv1D(4, 3, activation="tanh", **PRECISION)(x)
    z = layers.LSTM(4, return_sequences=True, **PRECISION)(z)
    z = layers.EinsumDense("bte,ef->btf", (None, 3), bias_axes="f", **PRECISION)(z)
    return keras.Model(x, layers.GlobalMaxPooling1D(**PRECISION)(z)), (8, 3)


class OwnWeights(keras.Model):
    """A subclassed model that owns a scale and multiplies two of its weights."""

    def __init__(self):
        super().__init__(**PRECISION)
        self.head = layers.Dense(3, **PRECISION)

    def build(self, shape):
        self.left = self.add_weight(shape=(4, 2), initializer="normal", name="left")
        self.right = self.add_weight(shape=(2, 5), initializer="normal", name="right")
        self.gain = self.add_weight(shape=(5,), initializer="normal", name="gain")
        self.head.build((None, 5))

    def call(self, x):
        return self.head(keras.ops.tanh(x @ (self.left @ self.right)) * self.gain)


def own_weights():
    model = OwnWeights()
    model(np.zeros((1, 4)))
    return model, (4,)


def sandwich(shape, *between):
    """A model of some layers, then a mean over all positions, then a Dense(3)."""
    x = z = keras.Input(shape, **PRECISION)
    for layer in between:
        z = layer(z)
    z = layers.Flatten(**PRECISION)(z)
    return keras.Model(x, layers.Dense(3, **PRECISION)(z)), shape


def layer(kind, *args, **options):
    return getattr(layers, kind)(*args, activation="tanh", **options, **PRECISION)


def embedded():
    x = keras.Input((6,), dtype="int32")
    z = layers.Embedding(7, 4, **PRECISION)(x)
    z = layers.GlobalAveragePooling1D(**PRECISION)(
        layers.Dense(5, activation="tanh", **PRECISION)(z)
    )
    return keras.Model(x, layers.Dense(3, **PRECISION)(z)), (6,)


class ItemEffects(keras.layers.Layer):
    """Looks up one number for each item, and a matrix: tables of one axis and of three."""

    def build(self, shape):
        self.one = self.add_weight(shape=(7,), initializer="normal", name="one")
        self.three = self.add_weight(shape=(7, 2, 3), initializer="normal", name="three")
        self.columns = self.add_weight(shape=(3, 7), initializer="normal", name="columns")

    def call(self, items):
        found = tf.reduce_sum(tf.gather(self.three, items), [1, 2])
        found += tf.reduce_mean(tf.gather(self.one, items), axis=1, keepdims=True)
        return found + tf.transpose(tf.gather(self.columns, items[:, 0], axis=1))


def item_effects():
    x = keras.Input((6,), dtype="int32")
    return keras.Model(x, ItemEffects(**PRECISION)(x)), (6,)


def attention():
    x = keras.Input((5, 4), **PRECISION)
    z = layers.MultiHeadAttention(2, 3, **PRECISION)(x, x)
    z = layers.LayerNormalization(**PRECISION)(layers.Add(**PRECISION)([z, x]))
    return keras.Model(x, layers.Dense(3, **PRECISION)(layers.Flatten(**PRECISION)(z))), (5, 4)


def normalisation(kind, shape=(4, 4, 6), **options):
    return sandwich(
        shape,
        layer("Conv2D", 6, 2),
        getattr(layers, kind)(**options, **PRECISION),
        layer("Conv2D", 4, 2),
    )


#: model -> number of variables that no rule covers.
CASES = {
    "dense": (dense_only, 0),
    "shared": (shared, 0),
    "shared convolution": (
        lambda: (lambda conv: sandwich((5, 5, 2), conv, conv))(
            layer("Conv2D", 2, 3, padding="same")
        ),
        0,
    ),
    "sequence": (sequence, 0),
    "conv1d causal": (lambda: sandwich((9, 2), layer("Conv1D", 4, 3, padding="causal")), 0),
    "conv1d stride": (lambda: sandwich((9, 2), layer("Conv1D", 4, 3, strides=2)), 0),
    "conv1d dilated": (lambda: sandwich((9, 2), layer("Conv1D", 4, 3, dilation_rate=2)), 0),
    "conv2d valid": (convolution, 0),
    "conv2d same stride": (lambda: convolution(strides=2, padding="same"), 0),
    "conv2d dilated": (lambda: convolution(dilation_rate=2), 0),
    "conv2d dilated same": (lambda: convolution(dilation_rate=(2, 1), padding="same"), 0),
    "conv2d groups": (lambda: convolution(groups=2), 0),
    "conv2d groups stride same": (lambda: convolution(groups=2, strides=2, padding="same"), 0),
    "conv1d groups": (lambda: sandwich((9, 4), layer("Conv1D", 6, 3, groups=2)), 0),
    "conv3d": (lambda: sandwich((4, 5, 3, 2), layer("Conv3D", 3, (2, 3, 2), padding="same")), 0),
    "conv3d stride": (lambda: sandwich((4, 5, 3, 2), layer("Conv3D", 3, 2, strides=2)), 0),
    "depthwise": (
        lambda: sandwich((7, 6, 3), layer("DepthwiseConv2D", (3, 2), depth_multiplier=2)),
        0,
    ),
    "depthwise stride same": (
        lambda: sandwich((7, 6, 3), layer("DepthwiseConv2D", 3, strides=2, padding="same")),
        0,
    ),
    "depthwise dilated": (
        lambda: sandwich((7, 6, 3), layer("DepthwiseConv2D", 2, dilation_rate=2)),
        0,
    ),
    "separable": (
        lambda: sandwich((7, 6, 3), layer("SeparableConv2D", 4, 3, depth_multiplier=2)),
        0,
    ),
    "separable1d": (lambda: sandwich((9, 3), layer("SeparableConv1D", 4, 3)), 0),
    "transposed": (lambda: sandwich((4, 3, 2), layer("Conv2DTranspose", 3, (3, 2))), 0),
    "transposed stride same": (
        lambda: sandwich((4, 3, 2), layer("Conv2DTranspose", 3, 3, strides=2, padding="same")),
        0,
    ),
    "batch normalisation": (lambda: normalisation("BatchNormalization"), 0),
    "batch normalisation, no centre": (
        lambda: normalisation("BatchNormalization", center=False),
        0,
    ),
    "layer normalisation": (lambda: normalisation("LayerNormalization"), 0),
    "group normalisation": (lambda: normalisation("GroupNormalization", groups=3), 0),
    "embedding": (embedded, 0),
    "look-ups that are no embeddings": (item_effects, 3),
    "attention": (attention, 0),
    "einsum": (
        lambda: sandwich((4, 6), layer("EinsumDense", "btd,tdf->btf", (4, 3), bias_axes="tf")),
        0,
    ),
    "prelu": (lambda: sandwich((4, 6), layers.PReLU(shared_axes=(1,), **PRECISION)), 0),
    "no rule": (many_kinds, 3),
    "own weights": (own_weights, 2),
}


@pytest.fixture(scope="module", params=["float64", slow("float32")])
def dtype(request):
    PRECISION["dtype"] = request.param
    yield request.param
    PRECISION["dtype"] = "float64"


#: More of the rules that others of `CASES` and test_layers.py show, and of rows without a rule, of
#: which `own weights` is one.
MORE = {
    "no rule",
    "attention",
    "look-ups that are no embeddings",
    "conv1d causal",
    "conv2d same stride",
    "conv2d dilated",
    "conv2d groups",
    "conv3d",
    "shared convolution",
    "batch normalisation, no centre",
    "conv1d groups",
    "conv2d groups stride same",
    "depthwise stride same",
    "conv1d dilated",
    "conv1d stride",
    "conv2d dilated same",
    "conv3d stride",
    "depthwise",
    "embedding",
    "group normalisation",
    "separable1d",
    "transposed stride same",
    "depthwise dilated",
}


@pytest.fixture(scope="module", params=[wide(name) if name in MORE else name for name in CASES])
def case(request, dtype):
    make, n_mapped = CASES[request.param]
    model, shape = make()
    rng = np.random.default_rng(3)
    model.set_weights([w + 0.3 * rng.uniform(size=w.shape) for w in model.get_weights()])
    integers = shape == (6,)  # of the embedding
    x = rng.integers(0, 7, (5, *shape)) if integers else rng.normal(size=(5, *shape)).astype(dtype)
    return model, x, n_mapped


def single_jacobians(network, x):
    """Logits differentiated in the parameters, one example at a time, by a tape."""

    @tf.function(autograph=False)
    def one(example):
        params = tf.identity(network.params)
        with tf.GradientTape() as tape:
            tape.watch(params)
            logits = network.logits(network.unflatten(params), example)
        return tape.jacobian(logits, params, experimental_use_pfor=False)[0]

    return np.stack([one(tf.constant(x[n : n + 1])).numpy() for n in range(len(x))])


def test_rows_equal_automatic_differentiation(case):
    """To 1e-10 in float64 and 1e-5 in float32; so do products with vectors and inner products."""
    model, x, n_mapped = case
    network = Network(model)
    per_example = PerExample(network, tf.constant(x[:3]))
    assert len(per_example.mapped) == n_mapped, per_example.mapped
    rng = np.random.default_rng(4)
    cotangents = rng.normal(size=(5, 4, 3))
    vectors = rng.normal(size=(network.n_params, 2))

    def rows_of_batch(params, x):
        c = tf.constant(cotangents, network.dtype)
        return per_example.factors(params, x, lambda _: c)[0]

    spec = [
        tf.TensorSpec([network.n_params], network.dtype),
        tf.TensorSpec([None, *x.shape[1:]], x.dtype),  # as the package compiles it
    ]
    compiled = tf.function(rows_of_batch, input_signature=spec, autograph=False)
    factors = evaluated(compiled(network.params, tf.constant(x)))
    workspace = Workspace(network.dtype)
    pieces = [vectors[p.start : p.stop].astype(network.dtype) for p in network.parameters]
    contracted = [f.contract(v, workspace) for f, v in zip(factors, pieces, strict=True)]
    found = (stacked(factors), *(sum(part) for part in zip(*contracted, strict=True)))
    rows = cotangents @ single_jacobians(network, x)
    tolerance = 1e-10 if network.dtype == "float64" else 1e-5
    for value, truth in zip(found, (rows, rows @ vectors, rows @ rows.swapaxes(1, 2)), strict=True):
        scale = np.max(np.abs(truth))
        np.testing.assert_allclose(value, truth, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("make", [shared, wide(many_kinds)])  # by rules, and example by example
def test_however_many_rows_there_are_the_model_is_differentiated_once(monkeypatch, make):
    model, shape = make()
    network, x = Network(model), tf.random.normal((3, *shape), dtype=PRECISION["dtype"])
    per_example, calls, gradients = PerExample(network, x), [], tf.gradients
    monkeypatch.setattr(tf, "gradients", lambda *a, **k: calls.append(a) or gradients(*a, **k))

    def count(n_rows):
        calls.clear()
        c = tf.ones((3, n_rows, 3), network.dtype)
        traced(lambda params, x: per_example.factors(params, x, lambda _: c)[0], network.params, x)
        return len(calls)

    assert count(1) == count(7) > 0


@pytest.mark.wide  # batches of any size: tests/curvature/test_operators.py
def test_tracing_changes_nothing_of_what_was_proven():
    """Whether a trace knows the number of examples or not, and whatever it is."""
    model, shape = many_kinds()
    network, rng = Network(model), np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(5, *shape)), PRECISION["dtype"])
    per_example = PerExample(network, x[:3])
    proven, mapped = deepcopy(per_example._folds), per_example.mapped
    for spec in (x, x[:1], tf.TensorSpec([None, *shape], x.dtype)):
        traced(
            lambda params, x: per_example.factors(params, x, lambda z: tf.ones_like(z)[:, None])[0],
            network.params,
            spec,
        )
        assert per_example._folds == proven
        assert per_example.mapped == mapped


class Compiled(layers.Layer):
    """Its call is compiled once and for all, with the weights it saw first."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 5), initializer="normal", name="kernel")

    @tf.function
    def call(self, x):
        return tf.tanh(x @ self.kernel)


def test_weights_that_cannot_be_reached_are_refused_by_name():
    inputs = keras.Input((4,), **PRECISION)
    compiled = keras.Model(inputs, layers.Dense(3, **PRECISION)(Compiled(**PRECISION)(inputs)))
    x, y = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 3
    for curvature in ("hessian", "opg", "ggn"):
        with pytest.raises(UnsupportedModelError, match=r"compiled\S*/kernel.*remove @tf.function"):
            DeltaMethod(compiled, curvature, l2=0.1, progress=False).fit(x, y)


@pytest.mark.wide  # of several rows: the test after this one
@pytest.mark.filterwarnings("ignore:the weights are far")
@pytest.mark.parametrize("blank", [False, True])
def test_a_probe_of_one_or_of_blank_rows_still_finds_a_wrong_rule(blank):
    """A dilated convolution folds space into the batch; its rule must not pass for right."""
    model, shape = convolution(dilation_rate=2)
    x, y = np.random.default_rng(0).normal(size=(12, *shape)), np.arange(12) % 3
    x[:3] *= not blank
    # All that 12 examples have: of two nearly equal pairs, rounding would choose which is kept.
    options = {"l2": 0.1, "rank": len(x), "progress": False}
    single = tf.data.Dataset.from_tensor_slices((x, y)).batch(1)
    found = DeltaMethod(model, "opg", **options).fit(single).predict(x).logit_covariance
    jacobians = single_jacobians(Network(model), x)
    sigma = DeltaMethod(model, "opg", **options).fit(x, y).covariance.to_dense().numpy()
    truth = jacobians @ sigma @ np.swapaxes(jacobians, 1, 2)
    np.testing.assert_allclose(found, truth, rtol=1e-6, atol=1e-9)


def test_a_wrong_rule_is_found_and_replaced(monkeypatch):
    """A batch axis folded time-major breaks the product's rule; the check on a probe sees it."""

    class TimeMajor(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(4, 3), initializer="normal", name="kernel")

        def call(self, x):
            steps = keras.ops.reshape(keras.ops.transpose(x, (1, 0, 2)), (-1, 4))
            folded = keras.ops.tanh(steps @ self.kernel)
            return keras.ops.mean(keras.ops.reshape(folded, (6, -1, 3)), axis=0)

    inputs = keras.Input((6, 4), **PRECISION)
    network = Network(keras.Model(inputs, TimeMajor(**PRECISION)(inputs)))
    x = np.random.default_rng(0).normal(size=(5, 6, 4))
    per_example = PerExample(network, tf.constant(x[:3]))
    assert len(per_example.mapped) == 1
    identity = tf.eye(3, batch_shape=[5], dtype=tf.float64)
    factors = tf.function(lambda p, x: per_example.factors(p, x, lambda _: identity)[0])(
        network.params, tf.constant(x)
    )
    rows = stacked(evaluated(factors))
    np.testing.assert_allclose(rows, single_jacobians(network, x), rtol=1e-10, atol=1e-12)
