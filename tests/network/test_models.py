"""Models of every kind work as they are, or are refused with what to do about it."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from marks import slow, wide
from ways import stumble

from deltauq import DeltaMethod, diagnose
from deltauq.curvature import OPG
from deltauq.data.training import TrainingData
from deltauq.delta.settings import Settings
from deltauq.delta.stating import state_problem
from deltauq.errors import InvalidInputError, UnsupportedModelError
from deltauq.network import Network

BOTH = pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])
#: What is read of a model of either package alike, as other tests show on both.
EITHER = pytest.mark.parametrize("package", [keras, wide(tf_keras)], ids=["keras", "tf_keras"])
KERAS_ITSELF = pytest.mark.filterwarnings("ignore:__array__ implementation")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 4)).astype("float32"), RNG.integers(0, 3, 20)


def model(*middle, package=keras, **head):
    head = {"kernel_regularizer": "l2", "bias_regularizer": "l2", "name": "head"} | head
    return package.Sequential([package.Input((4,)), *middle, package.layers.Dense(3, **head)])


def check(m, x=X, y=Y, *, rank=3, **options):
    """All that `fit` checks before it computes."""
    network = Network(m, layers=options.pop("layers", None))
    settings = Settings(rank=rank, **({"batch_size": 4} | options))
    return state_problem(network, TrainingData(x, y), settings)


def logits_of(problem):
    """What the model gives where its variables are replaced by their values."""
    network = problem.network
    params = network.unflatten(network.params)
    return tf.function(lambda x: network.logits(params, x))(tf.constant(X))


def raises(kind, *parts):
    """The error's text holds the parts in this order."""
    return pytest.raises(kind, match="(?s)" + ".*".join(parts))


@pytest.mark.parametrize("package", [keras, wide(tf_keras)], ids=["keras", "tf_keras"])
def test_rates_are_read_from_the_regularizers(package):
    m = model(package=package, kernel_regularizer=package.regularizers.L2(0.25))
    assert set(check(m).rates[:12]) == {0.5}
    assert set(check(m).rates[12:]) == {np.float32(0.02)} if package is tf_keras else {0.02}
    names = [rate.source for rate in diagnose(m, X, Y).rates]
    assert names[0] == f"{package.__name__}.regularizers.L2(l2=0.25)"


def custom(weights):
    return tf.reduce_sum(weights**4)


class Doubled(keras.regularizers.L2):
    def __call__(self, weights):
        return 2 * super().__call__(weights)


class DoubledLegacy(tf_keras.regularizers.L2):
    def __call__(self, weights):
        return 2 * super().__call__(weights)


@pytest.mark.parametrize(
    ("package", "penalty", "name"),
    [
        (keras, "l1", "L1"),
        wide(tf_keras, "l1", "L1"),
        (keras, custom, "function"),
        wide(tf_keras, custom, "function"),
        (keras, Doubled(0.1), "Doubled"),
        wide(tf_keras, DoubledLegacy(0.1), "DoubledLegacy"),
        wide(tf_keras, tf_keras.regularizers.OrthogonalRegularizer(), "OrthogonalRegularizer"),
    ],
)
def test_penalties_without_a_rate(package, penalty, name):
    m = model(package=package, kernel_regularizer=penalty)
    with stumble("network/l2.py:_read", "give the rate to use instead by l2=...") as caught:
        check(m)
    assert f"{name}(" in caught.error.received
    assert set(check(m, l2={"kernel*": 0.5}).rates[:12]) == {0.5}
    np.testing.assert_allclose(check(m, layers="bias*").rates, 0.02)


class Auxiliary(keras.layers.Layer):
    def call(self, x):
        self.add_loss(tf.reduce_mean(x**2))
        return x


class AuxiliaryLegacy(tf_keras.layers.Layer):
    def call(self, x, training=None):
        if training:
            self.add_loss(tf.reduce_mean(x**2))
        return x


def owned_loss():
    m = model(package=tf_keras)
    m.add_loss(lambda: tf.reduce_sum(m.layers[0].kernel))
    m._name = "owner"
    return m


TERMS = {
    "activity": lambda: model(keras.layers.Dense(4, "tanh", activity_regularizer="l2", name="odd")),
    "activity, legacy": lambda: model(
        tf_keras.layers.Dense(4, "tanh", activity_regularizer="l2", name="odd"), package=tf_keras
    ),
    "add_loss": lambda: model(Auxiliary(name="odd")),
    "add_loss, legacy": lambda: model(AuxiliaryLegacy(name="odd"), package=tf_keras),
    "add_loss of the model": owned_loss,
}


@pytest.mark.parametrize(
    "make",
    [make if name == "add_loss" else wide(make) for name, make in TERMS.items()],
    ids=TERMS,
)
def test_other_terms_of_the_cost(make):
    m = make()
    m(X[:3])
    losses = [float(term) for term in m.losses]
    with stumble("network/l2.py:refuse_other_terms", "give the L2 rates by l2=...") as caught:
        check(m)
    assert re.search("odd|owner", caught.error.received)
    assert "cost has terms" in diagnose(m, X, Y).findings[-1].what
    assert check(m, l2=0.1).common_rate == 0.1
    assert [float(term) for term in m.losses] == losses  # those of the user's own call


@EITHER
def test_weight_decay_in_place_of_l2(package):
    m = model(package=package, bias_regularizer=None)
    m.compile(package.optimizers.AdamW(weight_decay=0.004))
    with stumble("network/l2.py:refuse_weight_decay", "let l2='tune' choose one") as caught:
        check(m, rank="full")
    assert "AdamW with weight_decay=0.004" in caught.error.received
    assert check(m, l2=0.1).common_rate == 0.1
    assert check(m, l2="tune", curvature="ggn").common_rate > 0
    penalised = model(package=package)
    penalised.compile(package.optimizers.Adam())
    np.testing.assert_allclose(check(penalised).rates, 0.02)
    check(m, layers="kernel*")


@EITHER
def test_weight_constraints(package):
    """One that acts is refused; one with room changes no minimum."""
    check(model(package=package, kernel_constraint=package.constraints.MaxNorm(50.0)))
    m = model(package=package, kernel_constraint=package.constraints.MaxNorm(0.5))
    with stumble("network/requirements.py:check_constraints", "selecting the others") as caught:
        check(m)
    assert "MaxNorm" in caught.error.received
    assert check(m, layers="bias*").network.n_params == 3


@BOTH
@pytest.mark.parametrize("policy", ["mixed_float16", wide("mixed_bfloat16")])
def test_mixed_precision(package, policy):
    m = model(package.layers.Dense(4, name="half", dtype=policy), package=package)
    with stumble("network/requirements.py:check_one_precision", "copy the weights") as caught:
        check(m)
    assert "half" in caught.error.received
    same = model(package.layers.Dense(4, name="half"), package=package)
    same.set_weights(m.get_weights())
    outputs = check(same, l2=0.1).network.model(X)
    np.testing.assert_allclose(outputs, m(X), atol=0.05)  # of the other's precision


@KERAS_ITSELF
@pytest.mark.filterwarnings("ignore:Layer InputLayer")
@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_quantized_weights(mode):
    m = model()
    before = keras.models.clone_model(m)
    before.set_weights(m.get_weights())
    m.quantize(mode)
    with stumble("network/adapters/keras3.py:_refuse_quantized", "before quantize()"):
        check(m)
    np.testing.assert_allclose(check(before).network.model(X), m(X), atol=0.2)


def test_lora_is_a_model_of_its_two_factors():
    """The kernel is frozen; the rows of the factors equal a tape's."""
    m = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    m.layers[0].enable_lora(2)
    for v in m.trainable_variables:
        v.assign(np.random.default_rng(2).normal(size=v.shape))
    problem = check(m, l2=0.1)
    assert [p.path.split("/")[-1] for p in problem.network.parameters] == [
        "bias",
        "lora_kernel_a",
        "lora_kernel_b",
    ]
    with tf.GradientTape() as tape:
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(Y, m(X))
    rows = tape.jacobian(loss, [v.value for v in m.trainable_variables])
    rows = np.concatenate([np.reshape(r, (20, -1)) for r in rows], axis=1)
    opg = OPG(problem.network, "categorical", problem.data).to_dense()
    np.testing.assert_allclose(opg, rows.T @ rows / 20, rtol=1e-4, atol=1e-5)


class Training(keras.layers.Layer):
    """Calls another layer as if the model were training."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return self.inner(x, training=True)


class TrainingLegacy(tf_keras.layers.Layer):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return self.inner(x, training=True)


class Noisy(tf_keras.layers.Layer):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


@pytest.mark.parametrize(
    ("package", "layer", "parts"),
    [
        (
            keras,
            Training(keras.layers.BatchNormalization()),
            ("stateful", "moving_mean", "batch n"),
        ),
        (
            tf_keras,
            TrainingLegacy(tf_keras.layers.BatchNormalization()),
            ("stateful", "moving_mean", "batch n"),
        ),
        (keras, Training(keras.layers.Dropout(0.5)), ("random", "training=False")),
        (tf_keras, TrainingLegacy(tf_keras.layers.Dropout(0.5)), ("random", "training=False")),
        (tf_keras, Noisy(), ("random", "training=False")),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_layers_that_train_in_inference(package, layer, parts):
    m = model(layer, package=package)
    before = [w.copy() for w in m.get_weights()]
    with raises(UnsupportedModelError, *parts):
        check(m)
    for now, then in zip(m.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.wide  # dropout: test_diagnosis.py; recurrent layers: test_the_last_layer
@pytest.mark.parametrize(
    ("kind", "package"),
    [
        ("SimpleRNN", keras),
        wide("SimpleRNN", tf_keras),
        wide("LSTM", keras),
        wide("LSTM", tf_keras),
        slow("GRU", keras),
        slow("GRU", tf_keras),
    ],
)
def test_dropout_in_recurrent_layers_is_off_in_inference(package, kind):
    """Keras 3 draws the masks all the same, and does not use them."""
    layer = getattr(package.layers, kind)(3, dropout=0.5, recurrent_dropout=0.5)
    m = package.Sequential([package.Input((2, 4)), layer, package.layers.Dense(3)])
    check(m, np.stack([X, X], axis=1), l2=0.1)


@EITHER
def test_recurrent_layers_that_keep_their_state(package):
    x = np.stack([X, X], axis=1)[:3]
    m = package.Sequential(
        [
            package.Input(batch_shape=(3, 2, 4)),
            package.layers.SimpleRNN(3, stateful=True),
            package.layers.Dense(3),
        ]
    )
    with raises(UnsupportedModelError, "stateful|one size", "training=False|stateful=True"):
        check(m, x, Y[:3], l2=0.1)


@pytest.mark.parametrize("several", [wide(dict), list])
@pytest.mark.parametrize("package", [keras, wide(tf_keras)], ids=["keras", "tf_keras"])
def test_several_outputs(package, several):
    x = package.Input((4,))
    outputs = [package.layers.Dense(3)(x), package.layers.Dense(2)(x)]
    outputs = dict(zip("ab", outputs, strict=True)) if several is dict else outputs
    m = package.Model(x, outputs)
    with stumble("network/inspection.py:_check_single", "wrap the one output that is wanted"):
        check(m)
    one = check(package.Model(m.inputs, m.outputs[0]), l2=0.1)
    np.testing.assert_allclose(logits_of(one), tf.nest.flatten(m(X))[0], rtol=1e-5)

    its = {"l2": 0.1, "layers": lambda variable: variable.shape[-1] == 3}

    class First(tf.Module):
        def __init__(self):
            super().__init__()
            self.model = m

        def __call__(self, x):
            return tf.nest.flatten(self.model(x))[0]

    if package is tf_keras:  # layers of Keras 3 are no modules in one
        np.testing.assert_allclose(logits_of(check(First(), **its)), logits_of(one), rtol=1e-5)

    class FirstOfKeras(package.Model):
        def __init__(self):
            super().__init__()
            self.model = m

        def call(self, x):
            return tf.nest.flatten(self.model(x))[0]

    wrapper = FirstOfKeras()
    wrapper(X)
    np.testing.assert_allclose(logits_of(check(wrapper, **its)), logits_of(one), rtol=1e-5)


@pytest.mark.parametrize("package", [keras, wide(tf_keras)], ids=["keras", "tf_keras"])
def test_weights_that_are_not_finite(package):
    m = model(package=package)
    m.layers[-1].bias.assign([0, 0, np.nan])
    with stumble("network/requirements.py:check_finite_weights", "a smaller learning rate"):
        check(m)
    again = model(package=package)
    loss = package.losses.SparseCategoricalCrossentropy(from_logits=True)
    again.compile(package.optimizers.SGD(0.01), loss)
    again.fit(X, Y, verbose=0)
    assert np.all(np.isfinite(logits_of(check(again))))


@EITHER
def test_a_model_that_is_not_built(package):
    m = package.Sequential([package.layers.Dense(3)])
    with stumble("network/adapters/__init__.py:_check_built", "call it once on a batch"):
        check(m)
    m(X)
    np.testing.assert_allclose(logits_of(check(m, l2=0.1)), m(X), rtol=1e-5)


def test_ragged_inputs():
    x = tf.ragged.constant([[1.0, 2.0], [3.0]])
    with raises(InvalidInputError, "x is a RaggedTensor", r"to_tensor\(\)"):
        check(model(), x, Y[:2])


@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_weights_of_twice_the_inputs_precision():
    """The model itself rounds its inputs to float32; what it then does is in float64."""
    m = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="float64")])
    x = RNG.normal(size=(20, 4))
    dm = DeltaMethod(m, "ggn", rank="full", l2=1.0, progress=False).fit(x, Y)
    assert dm._fitted.problem.network.dtype == "float64"
    np.testing.assert_allclose(dm.predict(x).logits, m.predict(x, verbose=0), rtol=1e-12)


def lossless(y, p):
    return tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, p))


@KERAS_ITSELF
@pytest.mark.parametrize("suffix", [".keras", wide(".h5")])
@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_a_model_in_a_file(tmp_path, suffix):
    m = model(activation="softmax")
    m.compile("sgd", loss="sparse_categorical_crossentropy")
    path = tmp_path / f"model{suffix}"
    m.save(path)
    options = {"rank": 3, "l2": 0.1, "progress": False}
    truth = DeltaMethod(m, **options).fit(X, Y).predict(X)
    for opened in (path, str(path)):
        found = DeltaMethod(opened, **options).fit(X, Y).predict(X)
        np.testing.assert_array_equal(found.std, truth.std)
    assert diagnose(path, X, Y, l2=0.1).of("loss")[0].level == "ok"


@KERAS_ITSELF
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_model_file_whose_loss_cannot_be_loaded(tmp_path, suffix):
    """Opened without its loss, which must then be given."""
    m = model(activation="softmax")
    m.compile("sgd", loss=lossless)
    path = tmp_path / f"model{suffix}"
    m.save(path)
    with raises(UnsupportedModelError, "compiled with the loss 'lossless'", "likelihood="):
        check(path)
    assert check(path, likelihood="categorical").rates[0] == 0.02


def test_a_model_file_that_cannot_be_opened(tmp_path):
    with raises(InvalidInputError, "the model file does not exist", ".keras or .h5"):
        check(tmp_path / "nothing.keras")
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"nothing")
    with raises(InvalidInputError, "none in which Keras keeps a model", "begins with b'nothing'"):
        check(broken)


@pytest.mark.parametrize(
    ("loss", "activation", "text"),
    [
        ("sparse_categorical_crossentropy", "softmax", None),
        (tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True), None, None),
        (tf_keras.losses.sparse_categorical_crossentropy, "softmax", None),
        ("sparse_categorical_crossentropy", None, "without from_logits=True"),
        wide("mae", None, "compiled with the loss 'mae'"),
        wide(lossless, "softmax", r"compiled with the loss '\S*lossless'"),
        wide(lambda y, p: lossless(y, p), "softmax", "compiled with a lambda as the loss"),
    ],
)
def test_compiled_losses_of_tf_keras(loss, activation, text):
    m = model(package=tf_keras, activation=activation)
    m.compile("sgd", loss=loss)
    if text is None:
        check(m)
        return
    with raises(UnsupportedModelError, text, "likelihood=|train again"):
        check(m)
    check(m, likelihood="categorical")


class Module(tf.Module):
    """A linear classifier that can be spoiled."""

    def __init__(self, call=lambda self, x: x @ self.w):
        super().__init__()
        self.w = tf.Variable(RNG.normal(size=(4, 3)).astype("float32"))
        self.generator = tf.random.Generator.from_seed(0)
        self._call = call

    def __call__(self, x):
        return self._call(self, x)


ELSEWHERE = tf.Variable(np.ones((4, 3), "float32"))


def counting(self, x):
    self.w.assign_add(tf.ones_like(self.w))
    return x @ self.w


@tf.custom_gradient
def hidden(x):
    y = x @ HIDING.w

    def gradient(dy, variables=None):
        return tf.matmul(dy, HIDING.w, transpose_b=True), [tf.matmul(x, dy, transpose_a=True)]

    return y, gradient


HIDING = Module(lambda self, x: hidden(x) + 0.1 * x @ self.w)
COMPILED = Module()
BEFORE = tf.function(lambda x: x @ COMPILED.w).get_concrete_function(tf.TensorSpec([None, 4]))
COMPILED._call = lambda self, x: BEFORE(x)
RECOMPUTED = Module()
RECOMPUTED._call = lambda self, x: tf.recompute_grad(lambda x: x @ self.w)(x)


@pytest.mark.parametrize(
    ("module", "parts"),
    [
        (Module(counting), ("stateful", "'w'", "AssignAdd")),
        (Module(lambda self, x: x @ self.w + self.generator.normal([3])), ("random", "generator")),
        (Module(lambda self, x: x @ self.w + tf.random.normal([3])), ("random in inference",)),
        (Module(lambda self, x: x @ self.w + x @ ELSEWHERE), ("cannot be replaced", "Variable:0")),
        (COMPILED, ("cannot be replaced", "'w'", "SavedModel")),
        (HIDING, ("cannot be differentiated", "tf.custom_gradient")),
        (RECOMPUTED, ("cannot be differentiated", "tf.recompute_grad")),
    ],
    ids=["counting", "generator", "random", "elsewhere", "compiled before", "hidden", "recomputed"],
)
def test_modules_that_are_no_functions_of_their_variables(module, parts):
    before = module.w.numpy()
    with raises(UnsupportedModelError, *parts):
        check(module, l2=0.1)
    np.testing.assert_array_equal(module.w.numpy(), before)


def test_a_module_has_no_l2_of_its_own():
    with raises(InvalidInputError, "no L2 rate", "none for any of them", r"l2=\.\.\."):
        check(Module())
    findings = diagnose(Module(), X, Y, l2=0.1)
    assert not [f for f in findings.findings if f.level == "error"]


def test_modules_that_cannot_be_called():
    class Silent(tf.Module):
        pass

    with raises(UnsupportedModelError, "not one that can be linearised", "Silent", "tf.Module"):
        check(Silent())
    layer = keras.layers.Dense(3)
    with stumble("network/adapters/__init__.py:_refuse", "put a layer into keras.Sequential"):
        check(layer)
    inside = check(keras.Sequential([keras.Input((4,)), layer]), l2=0.1)
    np.testing.assert_allclose(logits_of(inside), layer(X), rtol=1e-5)
    module = Module()
    with stumble("network/adapters/__init__.py:_refuse", "a function into the __call__"):
        check(lambda x: x @ module.w)
    np.testing.assert_allclose(logits_of(check(module, l2=0.1)), X @ module.w, rtol=1e-5)


class Branching(keras.Model):
    """Python's `if` on a tensor: runs eagerly alone."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        z = self.dense(x)
        return z if tf.reduce_sum(tf.abs(z)) > 0 else -z


def test_a_branch_in_python_is_refused_with_what_to_use():
    m = Branching()
    m(X)
    options = {"l2": 0.1, "likelihood": "categorical"}
    with stumble("network/inspection.py:branching_error", "keras.ops.cond or tf.cond"):
        check(m, **options)
    for condition in (
        lambda flag, z: keras.ops.where(flag, z, -z),
        lambda flag, z: keras.ops.cond(flag, lambda: z, lambda: -z),
        lambda flag, z: tf.cond(flag, lambda: z, lambda: -z),
    ):

        class Compiled(Branching):
            def call(self, x, condition=condition):
                z = self.dense(x)
                return condition(tf.reduce_sum(tf.abs(z)) > 0, z)

        compiled = Compiled()
        compiled(X)
        compiled.set_weights(m.get_weights())
        np.testing.assert_allclose(logits_of(check(compiled, **options)), m(X), rtol=1e-5)


class Calling(keras.Model):
    """Some code after a layer."""

    def __init__(self, code):
        super().__init__()
        self.dense, self.code = keras.layers.Dense(3), code

    def call(self, x):
        return self.code(self.dense(x))


def torn(x):
    raise ValueError("a row is torn")


def of_seven(x):
    return tf.reshape(x, [7, -1])


def by_python(x):
    return tf.reshape(tf.py_function(torn, [x], tf.float32), x.shape)


#: Code of a user's own that fails, in graphs and in Python, and what happened.
FAILING = {
    "raised in a graph": (tf.function(torn), "ValueError: a row is torn."),
    "a shape": (of_seven, "Only one input size may be -1|Input to reshape is a tensor with"),
    "a shape in a graph": (tf.function(of_seven), "evenly divisible by 7 but is 9 with"),
    "python": (by_python, "ValueError: a row is torn."),
    "python in a graph": (tf.function(by_python), "ValueError: a row is torn."),
}


@pytest.mark.parametrize("kind", FAILING)
def test_what_a_model_says_is_told_without_tracebacks(kind):
    """TensorFlow writes those of the code that made a graph, or that a graph called."""
    code, said = FAILING[kind]
    m = Calling(lambda x: x)
    m(X)
    m.code = code
    with raises(
        InvalidInputError, "cannot be called on x", f"the model says: [^\n]*({said})"
    ) as info:
        check(m, l2=0.1, likelihood="categorical")
    for word in ("File", "line", "traceback", "Traceback", "node", "most recent", "[Op"):
        assert word not in info.value.received
    assert len(info.value.received) < 500


def test_only_what_parameters_have_a_part_in_has_kinks():
    """A maximum of the data themselves has none in the parameters."""
    x = keras.Input((6, 2))
    before = keras.layers.Flatten()(keras.layers.MaxPooling1D(2)(x))
    smooth = keras.Model(x, keras.layers.Dense(3)(before))
    kinked = keras.Model(x, keras.layers.Dense(3)(keras.layers.Dense(3, "relu")(before)))
    rows = np.random.default_rng(0).normal(size=(3, 6, 2)).astype("float32")
    assert Network(smooth).inspect(rows).kinks == ()
    assert Network(kinked).inspect(rows).kinks == ("Relu",)


def tied(package):
    """A language model whose outputs have the embedding's weights, as published ones do."""

    class Tied(package.Model):
        def __init__(self):
            super().__init__()
            self.table = package.layers.Embedding(7, 4, name="table")
            self.norm = package.layers.LayerNormalization(name="norm")

        def call(self, tokens):
            rows = self.norm(self.table(tokens))
            table = tf.convert_to_tensor(self.table.embeddings)
            return tf.nn.softmax(tf.matmul(rows, table, transpose_b=True))

    m = Tied()
    m(TOKENS)
    return m


TOKENS = RNG.integers(0, 7, (20, 5)).astype("int32")


@EITHER
def test_a_last_layer_that_does_not_make_the_outputs_is_refused(package):
    """Both ways out are taken: each names the variables that it says."""
    m = tied(package)
    with stumble("network/requirements.py:check_last_layer", "say which: layers=") as met:
        Network(m, layers="last").inspect(TOKENS)
    paths = [v.path for v in Network(m).adapter.trainable]
    table, norm = paths[:1], paths[1:]
    for chosen in (table, norm):
        assert f"layers={chosen}" in met.error.remedy
        network = Network(m, layers=chosen)
        network.inspect(TOKENS)
        assert [p.path for p in network.parameters] == chosen


def test_a_head_that_was_made_first_is_not_the_last_layer():
    class Subclass(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(3, name="head")
            self.body = keras.layers.Dense(4, "tanh", name="body")

        def build(self, shape):
            self.body.build(shape)
            self.head.build((None, 4))

        def call(self, x):
            return self.head(self.body(x))

    m = Subclass()
    m.build((None, 4))
    with raises(UnsupportedModelError, "last variables.*body/kernel.*made by.*head/bias"):
        Network(m, layers="last").inspect(X)


@pytest.mark.parametrize("end", ["softmax", wide(None)])
@pytest.mark.parametrize(
    ("shape", "middle"),
    [
        ((4,), []),
        ((None, 4), [keras.layers.LSTM(3, return_sequences=True), keras.layers.Dense(3)]),
        ((None, 4), [keras.layers.GRU(3)]),
        ((5, 4), [keras.layers.MultiHeadAttention]),
        ((4,), [keras.layers.Dense(3), keras.layers.BatchNormalization()]),
    ],
    ids=["dense", "positions", "recurrent", "attention", "normalised"],
)
def test_the_last_layer_makes_the_outputs(shape, middle, end):
    x = z = keras.Input(shape)
    for layer in middle or [keras.layers.Dense(3, use_bias=False)]:
        attends = layer is keras.layers.MultiHeadAttention
        z = layer(1, 2)(z, z) if attends else layer(z)
    m = keras.Model(x, keras.layers.Activation(end)(z) if end else z)
    Network(m, layers="last").inspect(RNG.normal(size=(4, *(n or 5 for n in shape))).astype("f4"))
