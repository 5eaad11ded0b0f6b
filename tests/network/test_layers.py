"""Every layer kind and topology: J, OPG, GGN, covariances and Hessian products are true."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from agreement import OUTCOMES, Found, Matter, assert_close, precision
from marks import slow, wide

from deltauq import DeltaMethod
from deltauq.errors import UnsupportedModelError

layers = keras.layers
WORDS = 5

pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")


def head(z, outcome="logits"):
    """Dense, for the outcome."""
    kind = OUTCOMES[outcome]
    return layers.Dense(kind.n_outputs, activation=kind.link)(z)


def chain(shape, *middle, outcome="logits"):
    """Input, layers, one row an input, Dense."""
    x = z = keras.Input(shape)
    for layer in middle:
        z = layer(z)
    if len(z.shape) > 2:
        z = layers.Flatten()(z)
    return keras.Model(x, head(z, outcome))


# Topologies.


def sequential():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, "tanh"), layers.Dense(3), layers.Activation("softmax")]
    )


def softmax_layer():
    x = keras.Input((4,))
    return keras.Model(x, layers.Softmax()(layers.Dense(3)(layers.Dense(4, "silu")(x))))


def branches():
    x = keras.Input((4,))
    left, right = layers.Dense(3, "tanh")(x), layers.Dense(3, "softplus")(x)
    joined = [
        layers.Add()([left, right]),
        layers.Multiply()([left, right]),
        layers.Subtract()([left, right]),
        layers.Average()([left, right]),
        layers.Dot(axes=1)([left, right]),
    ]
    return keras.Model(x, head(layers.Concatenate()(joined)))


def residual():
    x = z = keras.Input((4,))
    for _ in range(2):
        z = layers.Add()([z, layers.Dense(4)(layers.Activation("gelu")(layers.Dense(4)(z)))])
    return keras.Model(x, head(z))


def two_inputs():
    a, b = keras.Input((3,)), keras.Input((4, 2))
    joined = [layers.Dense(3, "tanh")(a), layers.Flatten()(layers.Conv1D(2, 2)(b))]
    return keras.Model([a, b], head(layers.Concatenate()(joined)))


def named_inputs():
    numbers, words = (
        keras.Input((3,), name="numbers"),
        keras.Input((4,), name="words", dtype="int32"),
    )
    looked_up = layers.GlobalAveragePooling1D()(layers.Embedding(WORDS, 3)(words))
    joined = layers.Concatenate()([layers.Dense(3, "tanh")(numbers), looked_up])
    return keras.Model({"words": words, "numbers": numbers}, head(joined))


def shared():
    left, right = keras.Input((4,)), keras.Input((4,))
    tower = layers.Dense(4, "tanh")
    z = layers.Concatenate()([tower(left), tower(tower(right))])
    return keras.Model([left, right], head(z, "binary"))


def nested():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, "tanh"), layers.Dense(3)])
    a = keras.Input((3,))
    middle = keras.Model(a, layers.Add()([a, layers.Dense(3, "tanh")(a)]))
    x = keras.Input((4,))
    return keras.Model(x, head(middle(inner(x))))


class Subclassed(keras.Model):
    """With a layer in a list, a weight of its own, and an argument `training`."""

    def __init__(self):
        super().__init__()
        self.hidden = [layers.Dense(4, "tanh"), layers.Dense(4, "tanh")]
        self.drop = layers.Dropout(0.5)
        self.last = layers.Dense(3)

    def build(self, shape):
        self.gain = self.add_weight(shape=(4,), initializer="ones", name="gain")
        super().build(shape)

    def call(self, x, training=False):
        z = x
        for layer in self.hidden:
            z = z + self.drop(layer(z), training=training)
        return keras.ops.softmax(self.last(keras.ops.sin(z) * self.gain))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 4)))
    return model


def functional_operations():
    x = keras.Input((4,))
    z = keras.ops.tanh(layers.Dense(4)(x)) * x
    z = keras.ops.logsumexp(keras.ops.reshape(z, (-1, 2, 2)), axis=1) + keras.ops.mean(
        z, axis=1, keepdims=True
    )
    return keras.Model(x, head(z))


# Layers that need a topology of their own.


def attention():
    x = keras.Input((3, 2))
    attended = layers.MultiHeadAttention(2, 2, dropout=0.3)(x, x, use_causal_mask=True)
    z = layers.LayerNormalization()(layers.Add()([x, attended]))
    return keras.Model(x, head(layers.Flatten()(z)))


def masked_attention():
    words = keras.Input((4,), dtype="int32")
    z = layers.Embedding(WORDS, 3, mask_zero=True)(words)
    z = layers.MultiHeadAttention(1, 2)(z, z)
    return keras.Model(words, head(layers.GlobalAveragePooling1D()(z)))


def dot_attention():
    x = keras.Input((4, 2))
    query, value = layers.Dense(3)(x), layers.Dense(3, "tanh")(x)
    z = layers.Concatenate()([layers.Attention()([query, value]), value])
    return keras.Model(x, head(layers.GlobalAveragePooling1D()(z)))


def text(*middle, outcome="binary logit"):
    x = keras.Input((4,), dtype="int32")
    z = layers.Embedding(WORDS, 2, mask_zero=True)(x)
    for layer in middle:
        z = layer(z)
    return keras.Model(x, head(z, outcome))


def adapted():
    normalisation = layers.Normalization()
    normalisation.adapt(np.random.default_rng(0).normal(3, 2, size=(40, 4)))
    return chain((4,), normalisation, layers.Rescaling(0.5, 0.1), layers.Dense(4, "tanh"))


def tagged():
    """One prediction at every position."""
    x = keras.Input((3, 2))
    z = layers.Conv1D(3, 2, padding="same", activation="tanh")(x)
    return keras.Model(x, layers.TimeDistributed(layers.Dense(3, "softmax"))(z))


def segmented():
    """One prediction at every pixel."""
    x = keras.Input((2, 2, 2))
    z = layers.Conv2D(3, 2, padding="same", activation="tanh")(x)
    return keras.Model(x, layers.Conv2D(3, 1)(z))


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        make: of the model.
        outcome: its name.
        dtype: float32 where TensorFlow computes in it alone; agreement is to 1e-3 then.
        positions: axes of the predictions an input.
        twice: it has a second derivative.
        n: examples.
        slow: too slow for `make test`; a variation of what stands there.
    """

    make: Any
    outcome: str = "logits"
    dtype: str = "float64"
    positions: tuple[int, ...] = ()
    twice: bool = True
    n: int = 7
    slow: bool = False


def row(shape, *middle, outcome="logits", **options):
    """A chain; its layers are made when the model is."""
    return Row(
        lambda: chain(shape, *(layer() for layer in middle), outcome=outcome), outcome, **options
    )


def of(kind, *arguments, **options):
    """A layer that is not made yet."""
    return lambda: getattr(layers, kind)(*arguments, **options)


def inside(kind, layer, **options):
    """A layer around another, not made yet."""
    return lambda: getattr(layers, kind)(layer(), **options)


TANH = of("Activation", "tanh")

ROWS = {
    # Topologies and ends.
    "sequential, activation layer": Row(sequential, "softmax"),
    "softmax layer": Row(softmax_layer, "softmax", slow=True),
    "branches, merged": Row(branches),
    "residual": Row(residual),
    "list of inputs": Row(two_inputs, "soft labels"),
    "dict of inputs": Row(named_inputs, "label smoothing", slow=True),
    "shared layer": Row(shared, "binary"),
    "nested": Row(nested),
    "subclassed": Row(subclassed, "softmax"),
    "operations": Row(functional_operations, slow=True),
    "no hidden layer": row((4,), outcome="label logits"),
    "one logit": row((4,), of("Dense", 4, "tanh"), outcome="binary logit"),
    "sigmoids": row((4,), of("Dense", 4, "tanh"), outcome="labels", slow=True),
    "regression": row((4,), of("Dense", 4, "tanh"), of("Dense", 3, "tanh"), outcome="regression"),
    "sequence of predictions": Row(tagged, "softmax", positions=(3,)),
    "image of predictions": Row(segmented, "logits", positions=(2, 2), slow=True),
    # Dense layers and activations.
    "einsum dense": row(
        (3, 2),
        of("EinsumDense", "btd,tdf->btf", (3, 3), bias_axes="tf", activation="tanh"),
        slow=True,
    ),
    "dense on a sequence": row((3, 2), of("Dense", 3, "mish"), of("GlobalMaxPooling1D")),
    "activations": row(
        (4,),
        of("Dense", 3, "gelu"),
        of("Dense", 3, "softplus"),
        of("Dense", 3, "elu"),
        of("Dense", 3, "sigmoid"),
        of("Dense", 3, "selu"),
    ),
    "activation layers": row(
        (4,),
        of("Dense", 3, "relu"),
        of("Dense", 4),
        of("LeakyReLU", 0.2),
        of("Dense", 4),
        of("PReLU"),
        of("Dense", 3),
        of("ReLU", negative_slope=0.1),
        slow=True,
    ),
    # Convolutions.
    "conv1d": row(
        (6, 2),
        of("Conv1D", 3, 2, padding="causal", activation="tanh"),
        of("Conv1D", 2, 3, dilation_rate=2, activation="silu"),
        slow=True,
    ),
    "conv2d": row(
        (4, 4, 2),
        of("Conv2D", 2, 3, padding="same", activation="tanh"),
        of("Conv2D", 3, 3, strides=2, padding="same"),
        of("GlobalMaxPooling2D"),
    ),
    "conv2d dilated": row(
        (5, 4, 1), of("Conv2D", 2, 2, dilation_rate=2, activation="tanh"), slow=True
    ),
    "conv2d grouped": row((4, 3, 4), of("Conv2D", 4, 2, groups=2, activation="tanh"), n=3),
    "conv3d": row(
        (2, 3, 2, 2),
        of("Conv3D", 2, 2, padding="same", activation="tanh"),
        of("Conv3D", 3, 1),
        of("GlobalAveragePooling3D"),
        slow=True,
    ),
    "depthwise": row((3, 3, 2), of("DepthwiseConv2D", 2, depth_multiplier=2), TANH, slow=True),
    "separable": row((4, 4, 2), of("SeparableConv2D", 3, 3, activation="tanh")),
    "depthwise and separable 1d": row(
        (5, 2),
        of("DepthwiseConv1D", 2),
        TANH,
        of("SeparableConv1D", 3, 2, activation="tanh"),
        slow=True,
    ),
    "transposed": row(
        (2, 2, 2), of("Conv2DTranspose", 2, 2, strides=2, activation="tanh"), of("MaxPooling2D", 2)
    ),
    "transposed 1d": row(
        (3, 2), of("Conv1DTranspose", 2, 3, strides=2, activation="tanh"), slow=True
    ),
    "transposed 3d": row((2, 1, 2, 1), of("Conv3DTranspose", 2, 2, activation="tanh"), slow=True),
    # Pooling, and layers that only move entries.
    "pooling 1d": row(
        (8, 2),
        of("Conv1D", 3, 2, activation="tanh"),
        of("MaxPooling1D", 3, 2),
        of("AveragePooling1D", 2),
        slow=True,
    ),
    "pooling 2d": row(
        (6, 6, 1),
        of("Conv2D", 2, 2, activation="tanh"),
        of("MaxPooling2D", 2, strides=1),
        of("AveragePooling2D", 2, padding="same"),
    ),
    "pooling 3d": row(
        (4, 4, 2, 2),
        of("Conv3D", 2, 1, activation="tanh"),
        of("MaxPooling3D", 2),
        of("AveragePooling3D", (2, 1, 1)),
        dtype="float32",
        slow=True,
    ),
    "padding and cropping": row(
        (3, 3, 2),
        of("ZeroPadding2D", 1),
        of("Conv2D", 2, 2, activation="tanh"),
        of("Cropping2D", ((1, 0), (0, 2))),
        slow=True,
    ),
    "shapes": row(
        (4,),
        of("Dense", 6, "tanh"),
        of("Reshape", (3, 2)),
        of("Permute", (2, 1)),
        of("Conv1D", 2, 2),
        of("Flatten"),
        of("RepeatVector", 2),
        of("Cropping1D", (0, 1)),
        of("ZeroPadding1D", 1),
    ),
    "nearest upsampling and resizing": row(
        (2, 2, 2),
        of("Conv2D", 2, 1, activation="tanh"),
        of("UpSampling2D"),
        of("Conv2D", 2, 3),
        of("Resizing", 3, 3, interpolation="nearest"),
        slow=True,
    ),
    "bilinear upsampling and resizing": row(
        (3, 3, 2),
        of("Conv2D", 2, 2, activation="tanh"),
        of("UpSampling2D", interpolation="bilinear"),
        of("Resizing", 3, 3, interpolation="bilinear"),
        dtype="float32",
        twice=False,
    ),
    # Random in training only, and normalisation.
    "dropout and noise": row(
        (4, 2),
        of("Dropout", 0.5),
        of("Conv1D", 3, 2, activation="tanh"),
        of("SpatialDropout1D", 0.5),
        of("GaussianNoise", 1.0),
        of("GaussianDropout", 0.3),
    ),
    "batch and group normalisation": row(
        (3, 3, 2),
        of("Conv2D", 4, 2),
        of("BatchNormalization"),
        TANH,
        of("GroupNormalization", 2),
        of("Activation", "silu"),
        of("BatchNormalization", scale=False),
    ),
    "layer, rms and unit normalisation": row(
        (4,),
        of("Dense", 4),
        of("LayerNormalization"),
        of("Dense", 3, "tanh"),
        of("RMSNormalization"),
        of("Dense", 4, "tanh"),
        of("UnitNormalization"),
    ),
    "spectral normalisation": row(
        (4,), inside("SpectralNormalization", of("Dense", 4, "tanh")), slow=True
    ),
    "preprocessing": Row(adapted),
    # Sequences.
    "masked embedding": Row(lambda: text(layers.GlobalAveragePooling1D(), outcome="logits")),
    "simple rnn, masking layer": row(
        (4, 2), of("Masking", 0.0), of("SimpleRNN", 3), outcome="binary", slow=True
    ),
    "lstm": Row(lambda: text(layers.LSTM(2)), "binary logit"),
    "lstm twice": Row(
        lambda: text(layers.LSTM(2, return_sequences=True), layers.LSTM(2)),
        "binary logit",
        slow=True,
    ),
    "gru": Row(lambda: text(layers.GRU(2)), "binary logit", slow=True),
    "gru unrolled": Row(lambda: text(layers.GRU(2, unroll=True)), "binary logit", slow=True),
    "gru unmasked": row((3, 2), of("GRU", 2, reset_after=False, return_sequences=True), slow=True),
    "bidirectional": Row(
        lambda: text(layers.Bidirectional(layers.SimpleRNN(1, unroll=True))), "binary logit"
    ),
    "convolutional lstm": row((2, 2, 2, 1), of("ConvLSTM2D", 1, 2), slow=True),
    "time distributed": row(
        (3, 2, 2), inside("TimeDistributed", of("Conv1D", 2, 2, activation="tanh")), slow=True
    ),
    "attention": Row(attention),
    "masked attention": Row(masked_attention, slow=True),
    "dot attention": Row(dot_attention, slow=True),
}


def spread(model, rng):
    """Weights of a trained model's kind: no zeros and ones, moving statistics included."""
    for variable in model.variables:
        value = variable.numpy()
        if "variance" in variable.path and not variable.trainable:
            variable.assign(rng.uniform(0.5, 1.5, value.shape))
        elif variable.trainable or "moving" in variable.path:
            variable.assign(value + 0.4 * rng.normal(size=value.shape))


def inputs_of(model, rng, case):
    def draw(tensor):
        shape = (case.n, *tensor.shape[1:])
        if "int" in tensor.dtype:
            words = rng.integers(0, WORDS, shape)
            words[:, 0] = rng.integers(1, WORDS, case.n)  # some word is never masked
            return words
        return rng.normal(size=shape).astype(case.dtype)

    if isinstance(model, Subclassed):
        return rng.normal(size=(case.n, 4))
    if any(isinstance(layer, layers.Masking) for layer in model.layers):
        x = draw(model.inputs[0])
        x[::2, 2:] = 0.0
        return x
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(draw, inputs)


def matter_of(name):
    case = ROWS[name]
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(1)
    with precision(case.dtype):
        model = case.make()
    spread(model, rng)
    assert model.count_params() < 160
    x, outcome = inputs_of(model, rng, case), OUTCOMES[case.outcome]
    observed = (case.n, *case.positions)
    y = outcome.draw(rng, int(np.prod(observed)))
    y = y.reshape(*observed, *y.shape[1:])
    return Matter(model, x, y, rng.uniform(0.3, 2, observed), outcome)


#: Rows of `make test`. The rules of other layers, and a model's own weights, are proven there by
#: test_jacobians.py, masks by tests/delta/test_masked_curvature.py, outcomes by
#: tests/acceptance/test_outcomes.py, second derivatives by test_derivative_audit.py and
#: test_operators.py.
SHOWN = {
    "no hidden layer",
    "conv2d",
}


def marked(name):
    if ROWS[name].slow:
        return slow(name)
    return name if name in SHOWN else wide(name)


@pytest.fixture(scope="module", params=map(marked, ROWS))
def case(request):
    """A row of the table, its truth and what the package makes of it; each computed once."""
    matter = matter_of(request.param)
    return ROWS[request.param], matter.truth, Found(matter, matter.fit())


def tolerance(case, double):
    return double if case.dtype == "float64" else 1e-3


def test_first_derivatives(case):
    """Logits, J, OPG, GGN and the covariance of the predictions."""
    kind, truth, found = case
    close = tolerance(kind, 1e-8)
    contrasts = found.matter.contrasts
    for ours, theirs in zip(found.logits_and_jacobian, truth.logits_and_jacobian, strict=True):
        assert_close(contrasts(ours), contrasts(theirs), close)
    assert_close(found.operator("OPG").to_dense(), truth.opg, close)
    assert_close(found.curvature, truth.ggn, close)
    assert_close(found.prediction.covariance, truth.covariance, close)


def test_hessian_products(case):
    """Central differences of the eager gradient; or the exact Hessian is refused by name."""
    kind, truth, found = case
    if not kind.twice:
        options = {"rank": "full", "l2": 0.2, "progress": False}
        matter = found.matter
        with pytest.raises(UnsupportedModelError, match=r"exact Hessian.*ResizeBilinearGrad"):
            DeltaMethod(matter.model, "hessian", **options).fit(matter.x, matter.y)
        return
    operator = found.operator("Hessian")
    vectors = np.random.default_rng(2).normal(size=(operator.shape[0], 2))
    products = operator.matmat(vectors)
    step = 1e-4 if kind.dtype == "float64" else 1e-3
    theirs = np.stack([truth.hessian_times(v, step) for v in vectors.T], axis=1)
    assert_close(products, theirs, tolerance(kind, 1e-6))
