"""Ways out that errors about models name: the model that comes of them computes the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from ways import stumble

from deltauq.data.training import TrainingData
from deltauq.delta.settings import Settings
from deltauq.delta.stating import state_problem
from deltauq.network import Network
from deltauq.network.adapters import adapt

layers = keras.layers
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 4)).astype("float32"), np.arange(20) % 3


def check(m, x=X, y=Y, *, layers=None, **options):
    """All that `fit` checks before it computes."""
    settings = Settings(**{"l2": 0.1, "rank": 3, "batch_size": 4} | options)
    return state_problem(Network(m, layers=layers), TrainingData(x, y), settings)


def agrees(m, other, rtol=1e-5, **options):
    """Whether a model is taken, and gives the logits of another one, or these numbers."""
    network = check(m, **options).network
    params = network.unflatten(network.params)
    found = tf.function(lambda x: network.logits(params, x))(tf.constant(X))
    expected = other(X) if callable(other) else other
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-6)
    return True


def model(*middle, package=keras, outputs=3, **head):
    package.utils.set_random_seed(0)
    return package.Sequential(
        [package.layers.Input((4,)), *middle, package.layers.Dense(outputs, **head)]
    )


class Module(tf.Module):
    """A linear classifier; `call` may spoil it."""

    def __init__(self, call=lambda self, x: x @ self.w):
        super().__init__()
        self.w = tf.Variable(np.arange(12.0, dtype="float32").reshape(4, 3) / 10)
        self.generator = tf.random.Generator.from_seed(0)
        self._call = call

    def __call__(self, x):
        return self._call(self, x)


# --- the trace ----------------------------------------------------------------------------------

TRACE = "network/adapters/modules.py:TensorFlowAdapter._check_trace"


class Moded(Module):
    """Noise and a counter, in training alone."""

    def __init__(self):
        super().__init__()
        self.calls = tf.Variable(0.0, trainable=False)

    def __call__(self, x, training=False):
        if training:
            self.calls.assign_add(1.0)
            x = x + self.generator.normal(tf.shape(x))
        return x @ self.w


@pytest.mark.wide  # refused: tests/network/test_models.py
def test_random_numbers_in_training_alone():
    plain = Module()
    with stumble(TRACE, "switch off layers that draw random numbers"):
        check(Module(lambda self, x: x @ self.w + self.generator.normal([3])))
    assert agrees(Moded(), plain)

    class Noisy(layers.Layer):
        def call(self, x, training=False):
            return x + (tf.random.normal(tf.shape(x)) if training else 0.0)

    class Dropping(layers.Layer):
        def __init__(self, **options):
            super().__init__()
            self.options, self.dropout = options, layers.Dropout(0.5)

        def call(self, x):
            return self.dropout(x, **self.options)

    with stumble("network/inspection.py:random_error", "dropout called with training=True"):
        check(model(Dropping(training=True)))
    assert agrees(model(Dropping()), model())
    assert agrees(model(Noisy()), model())


class Counting(layers.Layer):
    def __init__(self, always):
        super().__init__()
        self.always = always

    def build(self, shape):
        self.calls = self.add_weight(shape=(), trainable=False, initializer="zeros", name="calls")

    def call(self, x, training=False):
        if training or self.always:
            self.calls.assign(self.calls + 1.0)
        return x


@pytest.mark.wide
def test_variables_that_change_in_training_alone():
    def counting(self, x):
        self.w.assign_add(tf.ones_like(self.w))
        return x @ self.w

    with stumble(TRACE, "update them only when training=True"):
        check(Module(counting))
    assert agrees(Moded(), Module())
    with stumble("network/network.py:Network._check_repeatable", "only when training=True"):
        check(model(Counting(always=True)))
    assert agrees(model(Counting(always=False)), model())


@pytest.mark.wide
def test_variables_that_can_be_replaced():
    words = "make them attributes of the tf.Module"
    elsewhere = tf.Variable(np.ones((4, 3), "float32"))
    with stumble(TRACE, words):
        check(Module(lambda self, x: x @ self.w + x @ elsewhere))
    owner = Module(lambda self, x: x @ self.w + x @ self.other)
    owner.other = elsewhere
    assert agrees(owner, X @ (owner.w + elsewhere))
    compiled = Module()
    before = tf.function(lambda x: x @ compiled.w).get_concrete_function(tf.TensorSpec([None, 4]))
    compiled._call = lambda self, x: before(x)
    with stumble(TRACE, "call Python code"):
        check(compiled)
    compiled._call = lambda self, x: x @ self.w
    assert agrees(compiled, before)
    inner = model()
    around = Module(lambda self, x: inner(x) + 0.0 * x @ self.w)
    with stumble(TRACE, "give a Keras model itself"):
        check(around)
    assert agrees(inner, around)


def test_gradients_that_are_seen():
    module = Module()
    module._call = lambda self, x: tf.recompute_grad(lambda x: x @ self.w)(x)
    site = "network/adapters/modules.py:_not_differentiable"
    with stumble(site, "read the variables by plain operations"):
        check(module)
    assert agrees(Module(), module)


# --- the output ---------------------------------------------------------------------------------


@pytest.mark.wide
def test_outputs_that_are_no_rows():
    site = "network/inspection.py:check_output"
    inputs = keras.Input((4,))
    z = layers.Dense(1)(inputs)
    flat = keras.Model(inputs, layers.Reshape(())(z))
    with stumble(site, "keras.ops.expand_dims(model.outputs[0], -1)"):
        check(flat, y=Y > 0, likelihood="binary")
    wide = keras.Model(flat.inputs, keras.ops.expand_dims(flat.outputs[0], -1))
    assert agrees(wide, flat(X)[:, None], y=Y > 0, likelihood="binary")
    total = keras.Model(inputs, keras.ops.sum(z))
    with stumble(site, "keras.Model(model.inputs, that_output)"):
        check(total, y=Y > 0, likelihood="binary")
    part = keras.Model(total.inputs, z)
    assert agrees(part, flat(X)[:, None], y=Y > 0, likelihood="binary")


class Cast(layers.Layer):
    def call(self, x):
        return keras.ops.cast(x, "float64")


def test_outputs_of_another_precision():
    inputs = keras.Input((4,))
    z = layers.Dense(3)(inputs)
    with stumble("network/inspection.py:check_output", "in every layer, and in Input"):
        check(keras.Model(inputs, Cast(dtype="float32")(z)))
    assert agrees(keras.Model(inputs, z), keras.Model(inputs, z))
    whole = keras.Sequential([keras.Input((4,), dtype="float64"), layers.Dense(3, dtype="float64")])
    whole.set_weights(keras.Model(inputs, z).get_weights())
    assert agrees(whole, keras.Model(inputs, z))


def test_rows_that_do_not_depend_on_each_other():
    class Centring(layers.Layer):
        def call(self, x, training=False):
            return x - keras.ops.mean(x, axis=0, keepdims=True) if self.always or training else x

    centring = Centring()
    centring.always = True
    spoiled = model(centring)
    site = "network/inspection.py:check_rows_independent"
    with stumble(site, "compute nothing over the rows of a batch where training=False"):
        check(spoiled)
    centring.always = False
    assert agrees(spoiled, model())


@pytest.mark.wide
def test_likelihoods_of_another_last_operation():
    """Each of those that are named fits the last operation that it is named for."""
    with stumble("network/interpretation.py:_check_link", "pass likelihood='multilabel'"):
        check(model(activation="sigmoid"), likelihood="categorical")
    yes, counts = np.eye(3)[Y], RNG.poisson(2.0, (20, 3))
    for activation, likelihood, y in (
        ("sigmoid", "multilabel", yes),
        ("softmax", "categorical", Y),
        ("exponential", "poisson", counts),
    ):
        ended = model(activation=activation)
        assert check(ended, y=y, likelihood=likelihood).network.n_params == 15
    one = model(outputs=1, activation="sigmoid")
    assert check(one, y=Y > 0, likelihood="binary").network.n_params == 5


@pytest.mark.wide
def test_outputs_that_are_no_logits():
    site = "network/interpretation.py:_check_link"
    with stumble(site, "end the model in Dense(n_outputs)") as caught:
        check(model(activation="relu"))
    assert "activation='softmax'" in caught.error.remedy
    assert agrees(model(), model())
    ended = model(activation="softmax")
    assert agrees(ended, X @ ended.get_weights()[0])
    rates = model(outputs=1, activation="softplus")
    with stumble(site, "give the logarithms of the rates"):
        check(rates, y=Y, likelihood="poisson")
    logs = keras.Model(rates.inputs, keras.ops.log(rates.outputs[0]))
    assert agrees(logs, np.log(rates(X)), y=Y, likelihood="poisson")


# --- derivatives --------------------------------------------------------------------------------


@pytest.mark.wide
def test_gradients_that_are_derivatives():
    class Stopped(layers.Layer):
        def call(self, x):
            return x + keras.ops.stop_gradient(keras.ops.tanh(x))

    class Plain(layers.Layer):
        def call(self, x):
            return x + keras.ops.tanh(x)

    stopped, plain = (model(layers.Dense(3), middle) for middle in (Stopped(), Plain()))
    plain.set_weights(stopped.get_weights())
    site = "network/derivative_audit.py:_refuse"
    with stumble(site, "take them out of the layers' call"):
        check(stopped, curvature="opg")
    assert agrees(plain, stopped, curvature="opg")
    with stumble(site, "leave the variables behind them out with layers=..."):
        check(stopped, curvature="opg")
    assert check(stopped, layers=stopped.layers[-1].name).network.n_params == 12


class Compiled(layers.Layer):
    """Its call is compiled once and for all, with the weights it saw first."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")
        self.unused = self.add_weight(shape=(2,), name="unused")

    @tf.function
    def call(self, x):
        return tf.tanh(x @ self.kernel)


class Traced(Compiled):
    def call(self, x):
        return tf.tanh(x @ self.kernel)


@pytest.mark.wide
def test_variables_that_the_output_depends_on():
    site = "network/jacobians/per_example.py:_refuse_cut_off"
    compiled, traced = (model(middle) for middle in (Compiled(name="a"), Traced(name="a")))
    with stumble(site, "remove @tf.function and stop_gradient"):
        check(compiled, curvature="opg")
    with stumble(site, "leave variables that are not used out with layers=..."):
        check(traced, curvature="opg")
    assert agrees(traced, compiled, curvature="opg", layers=lambda v: "unused" not in v.path)


def test_layers_that_have_variables():
    frozen = model()
    frozen.trainable = False
    site = "network/parameters.py:select"
    with stumble(site, "set layer.trainable = True"):
        check(frozen)
    for layer in frozen.layers:
        layer.trainable = True
    frozen.trainable = True
    assert agrees(frozen, model())
    with stumble(site, "select other layers"):
        check(model(), layers=lambda v: False)
    assert agrees(model(), model(), layers=lambda v: "kernel" in v.path)


# --- files --------------------------------------------------------------------------------------


@pytest.mark.wide
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras', where it saves
@pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_code_in_a_file(tmp_path, package):
    class Doubling(package.layers.Layer):
        def call(self, x):
            return 2 * x

    path = tmp_path / "m.keras"
    for middle, options in (
        (package.layers.Lambda(lambda x: 2 * x), {"safe_mode": False}),
        (Doubling(), {"custom_objects": {"Doubling": Doubling}}),
    ):
        saved = model(middle, package=package)
        saved.save(path)
        with stumble("network/adapters/files.py:_open", "custom_objects=... for code") as caught:
            adapt(path)
        assert f"by {package.__name__}.saving.load_model" in caught.error.remedy
        assert agrees(package.saving.load_model(path, **options), saved)
