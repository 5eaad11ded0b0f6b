"""Rows on which models are probed lie in the model's domain, and prove what is believed of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from marks import slow, wide
from ways import stumble

from deltauq import DeltaMethod, diagnose
from deltauq.errors import InvalidInputError, UnsupportedModelError
from deltauq.network import Network
from deltauq.network.derivative_audit import refuse_false_gradients
from deltauq.network.jacobians import PerExample
from deltauq.network.probe_rows import POOL, probe_rows, row_gradient

pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")

layers = keras.layers
N, F, C, L2 = 40, 4, 3, 0.1
RNG = np.random.default_rng(0)
POSITIVE = np.exp(RNG.normal(0, 2, size=(N, F)))
Y = RNG.integers(0, C, N)


@keras.saving.register_keras_serializable("test_probing")
class Own(layers.Layer):
    """A layer that calls one of `FUNCTIONS`."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, x):
        return FUNCTIONS[self.function](x)

    def get_config(self):
        return super().get_config() | {"function": self.function}


@tf.custom_gradient
def root(x):
    """Sqrt whose slope at zero is zero, not infinite."""
    y = tf.sqrt(x)
    return y, lambda upstream: tf.where(x > 0, upstream / (2 * y), tf.zeros_like(x))


FUNCTIONS = {
    "log": tf.math.log,
    "sqrt": tf.sqrt,
    "division": lambda x: x / tf.sqrt(x[:, :1]),
    "log1p": tf.math.log1p,
    "arccos": tf.acos,
    "half": lambda x: 0.5 * x + 0.5 * tf.stop_gradient(x),
    "root": root,
    "root of the positive part": lambda x: tf.sqrt(tf.nn.relu(x)),
    "root away from zero": lambda x: tf.sqrt(tf.nn.relu(x) + 1e-6),
    "norm of nothing": lambda x: x + tf.norm(0 * x, axis=-1, keepdims=True),
}


def positive_dense(dtype):
    """A layer whose outputs are positive on positive inputs."""
    kernel = tf.constant(np.eye(F) + 0.05, dtype)
    options = {"use_bias": False, "trainable": False, "dtype": dtype}
    return layers.Dense(F, kernel_initializer=lambda *_, **__: kernel, **options)


def normalised(dtype):
    layer = layers.Normalization(dtype=dtype)
    layer.adapt(np.log(POSITIVE))
    return [Own("log", dtype=dtype), layer]


#: Layers that are defined on the data and not around them, and the data.
DOMAINS = {
    "log": (lambda dtype: [Own("log", dtype=dtype)], POSITIVE),
    "sqrt": (lambda dtype: [Own("sqrt", dtype=dtype)], POSITIVE),
    "division": (lambda dtype: [Own("division", dtype=dtype)], POSITIVE),
    "log1p": (lambda dtype: [Own("log1p", dtype=dtype)], POSITIVE - 1),
    "arccos": (lambda dtype: [Own("arccos", dtype=dtype)], np.tanh(np.log(POSITIVE))),
    "log of a dense layer": (
        lambda dtype: [positive_dense(dtype), Own("log", dtype=dtype)],
        POSITIVE * 1e-3 ** (np.arange(N) % 2)[:, None],
    ),
    "normalised log": (normalised, POSITIVE),
}


def model_of(first, *middle, dtype="float64"):
    """Some layers, Dense, some more, Dense, with fixed weights."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((F,), dtype=dtype),
            *first(dtype),
            layers.Dense(5, "tanh", dtype=dtype),
            *(Own(name, dtype=dtype) for name in middle),
            layers.Dense(C, "softmax", dtype=dtype),
        ]
    )
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(0.5 * rng.normal(size=weight.shape))
    return model


def dense_std(model, x, l2=L2):
    """Standard errors of the probabilities by the dense GGN, from tapes on the model itself."""
    with tf.GradientTape() as tape:
        p = model(x, training=False)
    parts = tape.jacobian(p, model.trainable_variables)
    slopes = np.concatenate([np.reshape(part, (N, C, -1)) for part in parts], axis=2).astype(float)
    p = p.numpy().astype(float)
    # S = diag(p) - p p^T; dp/dw = S dz/dw, and S^+ = diag(1/p) on what S reaches.
    precision = np.einsum("ncp,nc,ncq->pq", slopes, 1 / p, slopes)
    precision += N * l2 * np.eye(len(precision))
    return np.sqrt(np.einsum("ncp,pq,ncq->nc", slopes, np.linalg.inv(precision), slopes))


def fit(model, x, y=None, curvature="ggn", **options):
    options = {"l2": L2, "rank": "full", "progress": False} | options
    return DeltaMethod(model, curvature, **options).fit(x, y)


def mapped(dm):
    return dm._fitted.problem.per_example.mapped


def dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(1)


@pytest.mark.parametrize("name", DOMAINS)
def test_noise_leaves_these_domains_and_the_probe_does_not(name):
    first, x = DOMAINS[name]
    model = model_of(first)
    noisy = x[:3] + 0.1 * np.std(x[:3]) * np.random.default_rng(0).normal(size=(3, F))
    assert not np.all(np.isfinite(model(noisy)))
    network = Network(model)
    for source in (x, dataset(x, Y)):
        probe = probe_rows(network, source)
        assert np.all(np.isfinite(model(probe)))
        assert len(np.unique(probe, axis=0)) == len(probe) == 3


#: A domain around, behind a layer and behind statistics; the others vary what these prove.
KINDS = ["log", "log of a dense layer", "normalised log"]
EVERY = [name if name in KINDS else slow(name) for name in DOMAINS]
#: The one of them that every way through a domain passes.
FIRST = [wide(name) if name in KINDS[1:] else name for name in EVERY]


@pytest.mark.parametrize("dtype", ["float64", slow("float32")])
@pytest.mark.parametrize("name", FIRST)
def test_standard_errors_inside_a_domain_are_the_dense_ones_on_the_fast_path(name, dtype):
    first, x = DOMAINS[name]
    model = model_of(first, dtype=dtype)
    dm = fit(model, x, Y)
    assert mapped(dm) == []
    tolerance = 1e-6 if dtype == "float64" else 1e-2
    np.testing.assert_allclose(dm.predict(x).std, dense_std(model, x), rtol=tolerance)


@pytest.mark.parametrize("curvature", ["ggn", slow("opg"), slow("hessian"), slow("sandwich")])
@pytest.mark.parametrize("name", EVERY)
def test_a_stopped_gradient_is_refused_inside_a_domain(name, curvature):
    first, x = DOMAINS[name]
    model = model_of(first, "half")
    with pytest.raises(UnsupportedModelError, match=STOPPED):
        fit(model, x, Y, curvature)


STOPPED = "not the derivatives of its output.*StopGradient"


def test_a_stopped_gradient_inside_a_domain_is_refused_of_datasets_and_found_by_diagnose():
    first, x = DOMAINS["sqrt"]
    model = model_of(first, "half")
    with pytest.raises(UnsupportedModelError, match=STOPPED):
        fit(model, dataset(x, Y))
    (finding,) = [f for f in diagnose(model, x, Y, l2=L2).findings if f.level == "error"]
    assert "not the derivatives of its output" in finding.what


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")
def test_a_loaded_method_predicts_on_the_fast_path_too(tmp_path):
    first, x = DOMAINS["log"]
    dm = fit(model_of(first), x, Y)
    dm.save(tmp_path / "log.deltauq")
    again = DeltaMethod.load(tmp_path / "log.deltauq")
    assert mapped(again) == []
    np.testing.assert_array_equal(again.predict(x).std, dm.predict(x).std)


@pytest.mark.wide  # of one input: the tests before
def test_integers_and_several_inputs_are_probed_inside_the_model_s_domain():
    """Rolled integers leave a vocabulary, and noise a log's domain: the model fails or is NaN."""
    options = {"dtype": "float64"}
    words = keras.Input((2,), dtype="int32", name="words")
    size = keras.Input((F,), name="size", **options)
    small = layers.Embedding(3, 2, **options)(words[:, 0])
    large = layers.Embedding(50, 2, **options)(words[:, 1])
    parts = [small, large, Own("log", **options)(size)]
    z = layers.Dense(C, "softmax", **options)(layers.Concatenate(**options)(parts))
    model = keras.Model({"words": words, "size": size}, z)
    ids = np.stack([np.arange(N) % 3, 49 - np.arange(N)], axis=1).astype("int32")
    x = {"words": ids, "size": POSITIVE}
    with pytest.raises(tf.errors.InvalidArgumentError):
        model({"words": ids[:, ::-1], "size": POSITIVE})
    dm = fit(model, x, Y)
    assert mapped(dm) == []
    np.testing.assert_allclose(dm.predict(x).std, dense_std(model, x), rtol=1e-6)


class Switch(layers.Layer):
    """One of two kernels, by the sign of the first input: the other has no derivative there."""

    def build(self, shape):
        self.kernels = [
            self.add_weight(shape=(shape[-1], C), initializer="normal", name=f"kernel{k}")
            for k in range(2)
        ]

    def call(self, x):
        here = keras.ops.cast(x[:, :1] > 0, x.dtype)
        return (here * x) @ self.kernels[0] + ((1 - here) * x) @ self.kernels[1]


def test_rows_are_added_until_every_variable_has_a_derivative_twice():
    """The first three rows, noise or not, reach one of the kernels only."""
    inputs = keras.Input((F,), dtype="float64")
    network = Network(keras.Model(inputs, Switch(dtype="float64")(inputs)))
    x = RNG.normal(size=(N, F))
    x[:, 0] = np.where(np.arange(N) < 5, 3.0, -3.0)
    probe = probe_rows(network, x)
    assert [int(np.sum(sign * probe[:, 0] > 0)) for sign in (1, -1)] == [2, 2]
    assert PerExample(network, probe).mapped == []
    assert PerExample(network, tf.constant(x[:3])).mapped == [network.parameters[1].path]
    # One proof is not enough: three rows of the first kernel, and one of the second.
    assert PerExample(network, tf.constant(x[2:6])).mapped == [network.parameters[1].path]


def test_one_trace_of_a_row_says_what_a_probe_is_and_proves_its_rules():
    """Also what stands in the forward pass; a network with other logits has one of its own."""
    network = Network(model_of(lambda dtype: []))
    probe = probe_rows(network, np.log(POSITIVE))
    (kept,) = network.row_gradients.values()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deltauq.network.network.read_trace", None)  # would be called
        assert network.inspect(probe).link == "Softmax"
    assert PerExample(network, probe).mapped == []
    assert row_gradient(network, probe) is kept
    other = network.without_link()
    PerExample(other, probe)
    (outputs, _), (logits, _) = (
        row_gradient(each, probe)(each.params, probe[:1]) for each in (other, network)
    )
    np.testing.assert_allclose(outputs, tf.nn.softmax(logits), rtol=1e-12)


@pytest.mark.wide  # the slow path: test_jacobians.py
def test_a_variable_without_any_derivative_goes_to_the_slow_path_and_does_no_harm():
    first, x = DOMAINS["log"]
    model = model_of(first)
    model.layers[-1].kernel.assign(np.zeros((5, C)))  # nothing reaches the layer before
    dm = fit(model, x, Y)
    assert len(mapped(dm)) == 2
    np.testing.assert_allclose(dm.predict(x).std, dense_std(model, x), rtol=1e-6)


def test_blank_first_rows_are_made_telling_by_noise_where_noise_is_allowed():
    model = model_of(lambda dtype: [])
    x = np.log(POSITIVE)
    x[:POOL] = 0.0
    probe = probe_rows(Network(model), x)
    assert len(np.unique(probe, axis=0)) == 3
    assert PerExample(Network(model), probe).mapped == []


def test_a_model_that_is_not_finite_on_the_data_is_refused():
    model = model_of(DOMAINS["log"][0])
    message = (
        r"output is not finite on the data.*Received: 48 of 48 outputs of the first 16 rows.*"
        "prepare x as for training; look for a log"
    )
    for curvature in ("ggn", "hessian"):
        with pytest.raises(InvalidInputError, match=message):
            fit(model, -POSITIVE, Y, curvature)
    (finding,) = [f for f in diagnose(model, -POSITIVE, Y, l2=L2).findings if f.level == "error"]
    assert "48 of 48 outputs" in finding.what
    with stumble("network/probe_rows.py:_refuse_if_not_finite", "prepare x as for training"):
        fit(model, -POSITIVE, Y)
    np.testing.assert_allclose(
        fit(model, POSITIVE, Y).predict(POSITIVE).std, dense_std(model, POSITIVE), rtol=1e-5
    )


@pytest.mark.wide  # refused, where predictions are asked for: tests/acceptance/test_not_finite.py
def test_infinite_derivatives_are_refused_and_both_remedies_work():
    """The root of a unit that is off has no finite derivative: TensorFlow gives NaN."""
    x = np.log(POSITIVE)
    model = model_of(lambda dtype: [], "root of the positive part")
    with stumble("network/probe_rows.py:_refuse_if_not_finite", "sqrt(x + 1e-6)") as caught:
        fit(model, x, Y)
    assert "/kernel" in caught.error.received
    last = fit(model, x, Y, layers=[model.layers[-1].name])
    frozen = model_of(lambda dtype: [], "root of the positive part")
    frozen.layers[0].trainable = False
    np.testing.assert_allclose(last.predict(x).std, dense_std(frozen, x), rtol=1e-6)
    away = model_of(lambda dtype: [], "root away from zero")
    np.testing.assert_allclose(fit(away, x, Y).predict(x).std, dense_std(away, x), rtol=1e-5)


@pytest.mark.parametrize("beside", [(), ("half",)])
def test_a_custom_gradient_where_the_own_is_not_finite_hides_no_stopped_one(beside):
    """Lifting all is not comparable there; lifting what is stopped is."""
    model = model_of(lambda dtype: [layers.Dense(F, "relu", dtype=dtype)], *beside)
    inputs = keras.Input((F,), dtype="float64")
    z = Own("root", dtype="float64")(model.layers[0](inputs))
    for layer in model.layers[1:]:
        z = layer(z)
    network, x = Network(keras.Model(inputs, z)), np.log(POSITIVE)
    probe = probe_rows(network, x)
    if beside:
        with pytest.raises(UnsupportedModelError, match="StopGradient"):
            refuse_false_gradients(network, probe)
    else:
        refuse_false_gradients(network, probe)
