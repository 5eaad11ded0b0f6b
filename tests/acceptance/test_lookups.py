"""Lookups and text inside a model: it is the model behind them, fed with what they make."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from marks import slow, wide, wide_but

from deltauq import DeltaMethod, diagnose
from deltauq.errors import InvalidInputError
from deltauq.report import Study

layers = keras.layers
N = 40
RNG = np.random.default_rng(0)
WORDS = ["red", "blue", "grün"]
NAMES = RNG.choice([*WORDS, "unheard of"], (N, 2))
TEXTS = RNG.choice(["red blue", "Blue, blue!", "grün", "red grün blue", ""], (N, 1))
NUMBERS = RNG.choice([10, 20, 30, 40], (N, 2))
Y = RNG.integers(0, 3, N)

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # Keras saves a model
]

#: Name -> the layer that looks up, what it is given, and whether class numbers come out.
LOOKUPS = {
    "integer lookup": (
        lambda kind: kind.IntegerLookup(vocabulary=[10, 20, 30], output_mode="multi_hot"),
        NUMBERS,
        False,
    ),
    "string lookup": (
        lambda kind: kind.StringLookup(vocabulary=WORDS, output_mode="multi_hot"),
        NAMES,
        False,
    ),
    "string lookup, embedded": (lambda kind: kind.StringLookup(vocabulary=WORDS), NAMES, True),
    "text vectorization": (
        lambda kind: kind.TextVectorization(vocabulary=WORDS, output_sequence_length=3),
        TEXTS,
        True,
    ),
    "hashing": (lambda kind: kind.Hashing(4), NUMBERS, True),
}


def models(name, package=keras):
    """A model that looks up inside, and the one behind the lookup, with the same weights."""
    make, x, embedded = LOOKUPS[name]
    kind = package.layers
    package.utils.set_random_seed(0)
    dtype = "string" if x.dtype.kind == "U" else "int64"
    inputs = package.Input(x.shape[1:], dtype=dtype, name="words")
    looked_up = make(kind)(inputs)
    behind = [kind.Embedding(6, 2), kind.Flatten()] if embedded else []
    behind += [kind.Dense(3, "softmax")]
    numbers = package.Input(looked_up.shape[1:], dtype=looked_up.dtype)
    pair = []
    for z in (looked_up, numbers):
        end = z
        for layer in behind:
            end = layer(end)
        pair.append(package.Model(inputs if z is looked_up else numbers, end))
    return x, *pair, package.Model(inputs, looked_up)


def fit(model, x, **options):
    return DeltaMethod(model, "ggn", l2=0.1, progress=False, **options).fit(x, Y)


@pytest.fixture(scope="module")
def named():
    """A fit of a model that takes names."""
    _, model, *_ = models("string lookup, embedded")
    return fit(model, NAMES)


@pytest.mark.parametrize("package", ["keras", slow("tf_keras")])
@pytest.mark.parametrize("name", wide_but(["string lookup"], LOOKUPS))
def test_a_lookup_inside_is_the_same_as_one_before(name, package):
    package = pytest.importorskip(package)
    x, model, behind, lookup = models(name, package)
    numbers = np.asarray(lookup(tf.constant(x)))
    one, other = fit(model, x).predict(x[:9]), fit(behind, numbers).predict(numbers[:9])
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-6)
    np.testing.assert_allclose(one.std, other.std, rtol=1e-5)


@pytest.mark.parametrize(
    ("curvature", "package"),
    [
        pytest.param("opg", "keras", marks=pytest.mark.quick),
        wide("hessian", "keras"),
        wide("sandwich", "tf_keras"),
    ],
)
def test_every_curvature_takes_text(curvature, package):
    x, model, behind, lookup = models("text vectorization", pytest.importorskip(package))
    numbers = np.asarray(lookup(tf.constant(x)))
    one, other = (
        DeltaMethod(which, curvature, l2=0.1, progress=False).fit(given, Y).predict(given[:9])
        for which, given in ((model, x), (behind, numbers))
    )
    np.testing.assert_allclose(one.std, other.std, rtol=1e-4)


KINDS = {
    "list": lambda x: x.tolist(),
    "objects": lambda x: x.astype(object),
    "tensor": tf.constant,
    "bytes": lambda x: np.char.encode(x),
    "frame": pd.DataFrame,
    "dataset": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(7),
}


@pytest.mark.parametrize("kind", KINDS)
def test_text_of_every_kind_is_predicted_alike(kind, named):
    expected, found = named.predict(NAMES), named.predict(KINDS[kind](NAMES))
    np.testing.assert_allclose(found.std, expected.std, rtol=1e-6)


@pytest.mark.wide  # it is predicted alike: the test before
def test_a_dataset_of_text_is_fitted_alike(named):
    data = tf.data.Dataset.from_tensor_slices((NAMES, Y)).batch(7)
    found = DeltaMethod(named.model, "ggn", l2=0.1, progress=False).fit(data)
    np.testing.assert_allclose(found.predict(NAMES).std, named.predict(NAMES).std, rtol=1e-5)


@pytest.mark.parametrize("batched", [True, wide(False)])
def test_identities_of_a_dataset_stay_whole(batched):
    """Beyond 2^24 float32 has not got every whole number: an identity would meet another row."""
    ids = 2**24 + 1 + 2 * np.arange(6)
    inputs = keras.Input((1,), dtype="int64")
    z = layers.Embedding(8, 3)(layers.IntegerLookup(vocabulary=ids)(inputs))
    model = keras.Model(inputs, layers.Softmax()(layers.Flatten()(z)))
    x = RNG.choice(ids, (N, 1))
    expected = fit(model, x)
    data = tf.data.Dataset.from_tensor_slices((x.astype(float), Y))
    found = DeltaMethod(model, "ggn", l2=0.1, progress=False).fit(
        data.batch(7) if batched else data
    )
    assert found.input_spec.dtype == tf.int64
    np.testing.assert_allclose(found.predict(x).std, expected.predict(x).std, rtol=1e-5)
    numbers = tf.data.Dataset.from_tensor_slices(x.astype(float)).batch(7)
    np.testing.assert_allclose(found.predict(numbers).std, expected.predict(x).std, rtol=1e-5)
    halves = tf.data.Dataset.from_tensors((x + 0.5, Y))
    with pytest.raises(InvalidInputError, match="whole numbers that int64 holds"):
        DeltaMethod(model, "ggn", l2=0.1, progress=False).fit(halves)


def test_text_is_saved_and_known_again(named, tmp_path):
    named.save(tmp_path / "m.deltauq")
    loaded = DeltaMethod.load(tmp_path / "m.deltauq", named.model)
    np.testing.assert_array_equal(loaded.predict(NAMES).std, named.predict(NAMES).std)
    assert loaded.input_spec.dtype == tf.string
    order = np.random.default_rng(1).permutation(N)
    loaded.attach(NAMES[order], Y[order])
    with pytest.raises(InvalidInputError, match="not the training data"):
        loaded.attach(np.roll(NAMES, 1, axis=0), Y)
    with pytest.raises(InvalidInputError, match="not the training data"):
        loaded.attach(NAMES[:, ::-1], Y)


@pytest.mark.wide  # inputs of words and numbers: tests/delta/files/test_saved_model.py
def test_text_is_served(named, tmp_path):
    """The SavedModel holds the model's tables, those in a list of a subclass among them."""

    class Around(keras.Model):
        def __init__(self, inner):
            super().__init__()
            self.held = [inner]

        def call(self, x):
            return self.held[0](x)

    around = Around(named.model)
    around(tf.constant(NAMES))
    for name, method in (("plain", named), ("held", fit(around, NAMES))):
        method.export(tmp_path / name)
        served = tf.saved_model.load(tmp_path / name).signatures["serving_default"]
        found = served(x=tf.constant(NAMES))
        np.testing.assert_allclose(found["std"], named.predict(NAMES).std, rtol=1e-5)


@pytest.mark.wide  # fitted and predicted: the tests before
def test_text_is_diagnosed_and_reported(named):
    found = diagnose(named.model, NAMES, Y, l2=0.1)
    assert "error" not in {each.level for each in found.findings}
    assert "<html" in Study.of(named, NAMES, Y).to_html()


REFUSED = {
    "numbers": (np.ones((3, 2)), "x does not hold text.*float64.*astype"),
    "nothing": (np.array([["red", None]]), r"something else beside text.*None in row 0.*fillna"),
    "other shape": (np.array([["red"] * 3]), "another shape"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_text_is_refused(kind, named):
    x, message = REFUSED[kind]
    with pytest.raises(InvalidInputError, match=message):
        named.predict(x)


@pytest.mark.parametrize("x", [NAMES, pd.DataFrame(NAMES)], ids=["array", "frame"])
def test_a_model_of_numbers_takes_no_text(x):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, "softmax")])
    with pytest.raises(InvalidInputError, match=r"x does not hold numbers.*text, such as '"):
        fit(model, x)
    fitted = fit(model, np.ones((N, 2)))
    with pytest.raises(InvalidInputError, match=r"x does not hold numbers.*text, such as '"):
        fitted.predict(x)


def test_a_lookup_behind_an_uncertain_variable_is_refused():
    """It cuts the derivative off, which no dtype shows."""
    x = keras.Input((2,))
    z = keras.ops.cast(layers.Dense(2)(x), "int64")
    z = layers.Embedding(6, 2)(layers.Hashing(4)(z))
    model = keras.Model(x, layers.Dense(3)(layers.Flatten()(z)))
    with pytest.raises(Exception, match=r"dense.*kernel|differentia"):
        fit(model, np.random.default_rng(0).normal(size=(N, 2)))
