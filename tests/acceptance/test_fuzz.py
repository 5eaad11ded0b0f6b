"""Random small models, data and options agree with the dense truth, and nothing crashes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import keras
import numpy as np
import pytest
from agreement import OUTCOMES, Found, Matter, assert_close, precision
from hypothesis import note
from many_seeds import try_seeds
from random_regressions import random_regression

from deltauq.errors import NotPositiveDefiniteError

layers = keras.layers
WORDS = 5

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    # What Keras says of a nested model, behind which there is no mask any more.
    pytest.mark.filterwarnings("ignore:.*does not support masking"),
]

#: Relative to the largest entry: first derivatives, covariances of predictions.
TOLERANCE = {"float64": (1e-8, 1e-8), "float32": (2e-4, 1e-3)}

SMOOTH = ("tanh", "softplus", "gelu", "silu", "sigmoid", "elu", "linear")
ACTIVATIONS = (*SMOOTH, "relu", "leaky_relu")


def attention(z, units, activation):
    return layers.MultiHeadAttention(1, units)(z, z)


def recurrent(kind, **options):
    """With the whole sequence for output."""
    return lambda z, units, _: getattr(layers, kind)(units, return_sequences=True, **options)(z)


def activated(kind, *arguments, **options):
    """Units and an activation, and what else such a layer takes."""
    return lambda z, units, activation: getattr(layers, kind)(
        units, *arguments, activation=activation, **options
    )(z)


def each_channel(kind, *arguments, **options):
    """A layer without units."""
    return lambda z, units, activation: layers.Activation(activation)(
        getattr(layers, kind)(*arguments, **options)(z)
    )


class Log(layers.Layer):
    """Of what is positive only: rows with noise may leave its domain."""

    def __init__(self):
        super().__init__()
        self.supports_masking = True

    def call(self, x):
        return keras.ops.log(x)


def log_of_softplus(z, units, activation):
    """A logarithm inside, of numbers that may come near zero."""
    return Log()(layers.Activation("softplus")(layers.Dense(units)(z)))


def moved(kind, *arguments, **options):
    """A layer without units and without an activation."""
    return lambda z, units, activation: getattr(layers, kind)(*arguments, **options)(z)


ANYWHERE = {
    "dense": activated("Dense"),
    "batch normalisation": each_channel("BatchNormalization"),
    "layer normalisation": each_channel("LayerNormalization"),
    "rms normalisation": each_channel("RMSNormalization"),
    "prelu": moved("PReLU"),
    "dropout": moved("Dropout", 0.5),
    "log of softplus": log_of_softplus,
}
SEQUENCES = ANYWHERE | {
    "conv1d": activated("Conv1D", 2, padding="causal"),
    "strided conv1d": activated("Conv1D", 2, strides=2, padding="same"),
    "separable conv1d": activated("SeparableConv1D", 2, padding="same"),
    "max pooling 1d": moved("MaxPooling1D", 2, padding="same"),
    "attention": attention,
}
IMAGES = ANYWHERE | {
    "conv2d": activated("Conv2D", 2),
    "same conv2d": activated("Conv2D", 3, padding="same"),
    "strided conv2d": activated("Conv2D", 3, strides=2, padding="same"),
    "dilated conv2d": activated("Conv2D", 2, padding="same", dilation_rate=2),
    "transposed conv2d": activated("Conv2DTranspose", 2),
    "separable conv2d": activated("SeparableConv2D", 2, padding="same"),
    "depthwise conv2d": each_channel("DepthwiseConv2D", 2, padding="same"),
    "group normalisation": each_channel("GroupNormalization", 1),
    "max pooling 2d": moved("MaxPooling2D", 2, padding="same"),
    "average pooling 2d": moved("AveragePooling2D", 2, padding="same"),
    "upsampling 2d": moved("UpSampling2D", 2),
}
#: TensorFlow traces them slowly: one in a model at most, before the other layers.
RECURRENT = {"unrolled rnn": recurrent("SimpleRNN", unroll=True)}
LOOPS = {kind: recurrent(kind) for kind in ("SimpleRNN", "LSTM", "GRU")}

#: Inputs of each kind: their shape, and the layers that follow.
KINDS = {
    "vector": ((3,), ANYWHERE),
    "sequence": ((3, 2), SEQUENCES),
    "words": ((3,), SEQUENCES),
    "image": ((3, 3, 2), IMAGES),
}
#: Layers through which no mask passes.
UNMASKED = {"conv1d", "strided conv1d", "separable conv1d", "max pooling 1d", "rms normalisation"}
#: Outcomes whose labels are class numbers.
NUMBERED = {"logits", "softmax", "label smoothing", "binary", "binary logit"}
KINKED = {"max pooling 1d", "max pooling 2d", "prelu"}


@dataclass(frozen=True)
class Spec:
    """A model, its data and the options."""

    kind: str
    blocks: list[tuple[str, int, str]]
    topology: str
    pooled: bool
    outcome: str
    everywhere: bool
    masked: bool
    positive: bool
    rank: int | None
    dtype: str
    l2: str
    free_bias: bool
    weights: str
    counts: bool
    class_weight: bool
    n: int
    batch_size: int
    seed: int
    layers: dict = field(repr=False)

    @property
    def smooth(self):
        """It has second derivatives everywhere."""
        return not any(name in KINKED or act not in SMOOTH for name, _, act in self.blocks)

    @property
    def has_no_covariance(self):
        """A softmax does not see all its biases move alike, and no L2 holds them."""
        return self.free_bias and OUTCOMES[self.outcome].contrasts


def random_spec(seed, loops):
    """Any; from one number, because hypothesis repeats parts of what it draws one by one."""
    rng = np.random.default_rng(seed)

    def one_of(options):
        options = list(options)
        return options[rng.integers(len(options))]

    def block(chosen):
        return one_of(chosen), int(rng.integers(1, 4)), one_of(ACTIVATIONS)

    kind = one_of(KINDS)
    chosen = KINDS[kind][1]
    blocks = [block(chosen) for _ in range(rng.integers(3))]
    everywhere = kind in ("sequence", "words") and bool(rng.random() < 0.3)
    if kind in ("sequence", "words") and not everywhere and rng.random() < 0.3:
        chosen = chosen | RECURRENT | (LOOPS if loops else {})
        blocks.insert(0, block(sorted(chosen.keys() - KINDS[kind][1].keys())))
    n = int(rng.integers(3, 8))
    topology = one_of(["plain", "residual", "branches", "shared", "nested"])
    outcome = one_of(["logits", "softmax"] if everywhere else OUTCOMES)
    many_features = kind == "image" and topology != "plain"
    pooled = many_features or bool(rng.random() < 0.5)
    can_mask = kind == "words" or (kind == "sequence" and (everywhere or pooled))
    masked = can_mask and not UNMASKED & {name for name, *_ in blocks}
    return Spec(
        kind=kind,
        blocks=blocks,
        topology=topology,
        pooled=pooled,
        outcome=outcome,
        everywhere=everywhere,
        masked=masked,
        positive=kind != "words" and bool(rng.random() < 0.2),
        rank=[None, int(rng.integers(1, 8))][int(rng.random() < 0.25)],
        dtype=one_of(["float64", "float64", "float32"]),
        l2=one_of(["one", "given", "regularizers"]),
        free_bias=rng.random() < 0.1,
        weights=one_of(["none", "some", "a zero"]),
        counts=bool(rng.random() < 0.5),
        class_weight=outcome in NUMBERED and bool(rng.random() < 0.3),
        n=n,
        batch_size=int(rng.integers(1, n + 2)),
        seed=int(rng.integers(2**16)),
        layers=chosen,
    )


def combined(z, topology):
    """Two Dense layers, combined."""
    width = z.shape[-1]
    first, second = layers.Dense(width, "tanh"), layers.Dense(width)
    if topology == "residual":
        return layers.Add()([z, second(first(z))])
    if topology == "branches":
        return layers.Concatenate()([layers.Multiply()([first(z), second(z)]), z])
    if topology == "shared":
        return first(first(z))
    if topology == "nested":
        inner = keras.Sequential([keras.Input(z.shape[1:]), first, second])
        return inner(z)
    return z


def build(spec, dtype):
    with precision(dtype):
        shape, outcome = KINDS[spec.kind][0], OUTCOMES[spec.outcome]
        x = z = keras.Input(shape, dtype="int32" if spec.kind == "words" else dtype)
        if spec.positive:
            z = Log()(z)
        if spec.kind == "words":
            z = layers.Embedding(WORDS, 2, mask_zero=spec.masked)(z)
        elif spec.masked:
            z = layers.Masking(0.0)(z)
        for name, units, activation in spec.blocks:
            z = spec.layers[name](z, units, activation)
        if not spec.everywhere:
            if spec.kind == "words" or (spec.pooled and spec.kind == "sequence"):
                z = layers.GlobalAveragePooling1D()(z)
            elif spec.pooled and spec.kind == "image":
                z = layers.GlobalAveragePooling2D()(z)
            else:
                z = layers.Flatten()(z)
        z = combined(z, spec.topology)
        return keras.Model(x, layers.Dense(outcome.n_outputs, activation=outcome.link)(z))


def spread(model, rng):
    for variable in model.variables:
        value = variable.numpy()
        if "moving_variance" in variable.path:
            variable.assign(rng.uniform(0.5, 1.5, value.shape))
        elif variable.trainable or "moving_mean" in variable.path:
            variable.assign(value + 0.3 * rng.normal(size=value.shape))


def rates_of(spec, model, rng, rows_per_example):
    """`l2` as the user gives it, and the rate of every parameter."""
    variables = model.trainable_variables
    rates = (
        np.full(len(variables), 0.3) if spec.l2 == "one" else rng.uniform(0.1, 1, len(variables))
    )
    if spec.l2 == "one" and not spec.free_bias:
        return 0.3, 0.3
    if spec.free_bias:
        rates[-1] = 0.0
    sizes = [int(np.prod(v.shape)) for v in variables]
    if spec.l2 != "regularizers":
        return dict(zip([v.path for v in variables], rates, strict=True)), np.repeat(rates, sizes)
    for variable, rate in zip(variables, rates, strict=True):
        variable.regularizer = keras.regularizers.L2(rate / 2)
    return "auto", np.repeat(rates, sizes) * rows_per_example


def matter_of(spec):
    keras.utils.set_random_seed(spec.seed)
    rng = np.random.default_rng(spec.seed)
    model, twin = build(spec, spec.dtype), None
    spread(model, rng)
    if spec.dtype == "float32":
        twin = build(spec, "float64")
        twin.set_weights(model.get_weights())
    shape = (spec.n, *KINDS[spec.kind][0])
    if spec.kind == "words":
        x = rng.integers(0, WORDS, shape)
        x[:, 0] = rng.integers(1, WORDS, spec.n)
    else:
        x = rng.normal(size=shape).astype(spec.dtype)
        if spec.masked:
            x[::2, -1] = 0.0
        x = np.exp(x) if spec.positive else x
    observed = (spec.n, *model.output_shape[1:-1])
    mask = getattr(model(x), "_keras_mask", None) if spec.everywhere else None
    valid = np.ones(observed, bool) if mask is None else np.array(mask)
    weight = np.ones(observed) if spec.weights == "none" else rng.uniform(0.3, 2, observed)
    if spec.weights == "a zero":
        weight[0] = 0.0
    outcome = OUTCOMES[spec.outcome]
    y = outcome.draw(rng, int(np.prod(observed)))
    matter = Matter(
        model,
        x,
        y.reshape(*observed, *y.shape[1:]),
        weight,
        outcome,
        batch_size=spec.batch_size,
        twin=twin,
        weights="counts" if spec.counts else "importance",
        class_weight={0: 0.4, 1: 2.5} if spec.class_weight else None,
        valid=valid,
    )
    # Keras divides the weighted sum of the losses by what the mask leaves, our cost by N.
    l2, rates = rates_of(spec, model, rng, valid.sum() / matter.n_examples)
    return replace(matter, l2=l2, rates=rates)


def compare(spec):
    """Whether there was a covariance to compare."""
    matter = matter_of(spec)
    if spec.has_no_covariance:
        with pytest.raises(NotPositiveDefiniteError):
            matter.fit()
        return False
    first, covariance = TOLERANCE[spec.dtype]
    found, truth = Found(matter, matter.fit()), matter.truth
    assert_close(found.curvature, truth.ggn, first)
    assert_close(found.operator("OPG").to_dense(), truth.opg, first)
    assert_close(found.operator("SandwichMeat").to_dense(), truth.meat, first)
    assert_close(found.prediction.covariance, truth.covariance, covariance)
    if spec.dtype == "float64" and spec.smooth:
        vector = np.random.default_rng(spec.seed).normal(size=len(truth.ggn))
        product = found.operator("Hessian").matvec(vector)
        assert_close(product, truth.hessian_times_beside_kinks(vector), 1e-6)
    if spec.rank and spec.rank < len(truth.ggn) and not spec.free_bias:
        check_bounds(spec, matter, truth)
    return True


def check_bounds(spec, matter, truth):
    """What some eigenpairs give lies between its bounds, and so does what all of them give."""
    kind = ("ggn", "opg")[spec.seed % 2]
    prediction = matter.fit(kind, rank=spec.rank).predict(matter.x)
    assert prediction.certified
    low, high = prediction.std_bounds
    of_all = truth.covariance_from(truth.ggn if kind == "ggn" else truth.opg)
    std = np.sqrt(np.einsum("ncc->nc", of_all))
    rounding = TOLERANCE[spec.dtype][1] * std.max()
    for between in (std, prediction.std):
        assert np.all(low - rounding <= between)
        assert np.all(between <= high + rounding)


def run(examples, loops):
    """Errors are failures, but where no covariance exists; and such models are rare.

    Every eighth is a regression whose noise is estimated, most of those in low rank.
    """
    compared = []

    def check(seed):
        keras.backend.clear_session()
        if seed % 8 == 0:
            regression = random_regression(np.random.default_rng(seed))
            note(regression)
            compared.append(regression.compare())
            return
        spec = random_spec(seed, loops)
        note(spec)
        compared.append(compare(spec))

    try_seeds(examples, check)
    assert len(compared) >= examples
    assert np.mean(compared) > 0.85


def test_a_few_random_models_agree_with_the_dense_truth():
    run(2, loops=False)


@pytest.mark.wide
def test_random_models_agree_with_the_dense_truth():
    run(40, loops=False)


@pytest.mark.slow
def test_many_random_models_agree_with_the_dense_truth():
    run(300, loops=True)
