"""Ways out that errors about data name: the data that come by them are those of the arrays."""

from __future__ import annotations

import decimal
import itertools
from functools import cache

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf
from marks import wide
from sklearn.utils.class_weight import compute_class_weight
from ways import stumble

from deltauq import DeltaMethod
from deltauq.data.inputs import align_inputs
from deltauq.errors import InvalidInputError

# Random weights are far from a minimum, and `fit` says so.
pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")

layers = keras.layers
N = 12
RNG = np.random.default_rng(0)
X, Y, W = RNG.normal(size=(N, 4)), np.arange(N) % 3, RNG.uniform(0.5, 2.0, N)
NAMES = ["age", "height", "weight", "dose"]
FRAME = pd.DataFrame(X, columns=NAMES)
BATCH = (tf.TensorSpec([None, 4], tf.float64), tf.TensorSpec([None], tf.int64))


def dense(*middle, inputs=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,), dtype="float64") if inputs is None else inputs
    return keras.Sequential([inputs, *middle, layers.Dense(3, dtype="float64")])


def fit(x, y=None, *weights, model=None, **options):
    options = {"l2": 0.1, "rank": "full", "bounds": False, "progress": False} | options
    return DeltaMethod(model or dense(), "opg", **options).fit(x, y, *weights)


@cache
def fitted(kind="plain"):
    """A method that was fitted to the arrays; `attach` takes these data alone, in any order."""
    weights = {"plain": (), "weighted": (W,), "balanced": (None, BALANCED)}[kind]
    return fit(X, Y, *weights)


#: Weights of the classes of `Y` by their numbers.
BALANCED = {0: 1.0, 1: 2.0, 2: 0.5}


def agrees(*training, kind="plain"):
    """Whether training data are those of the arrays, by the sums that `attach` knows them by."""
    fitted(kind).attach(*training)
    return True


def as_predicted(x):
    """Whether inputs are predicted as the arrays are."""
    return np.allclose(fitted().predict(x).std, fitted().predict(X).std, rtol=1e-12)


def slices(*parts):
    return tf.data.Dataset.from_tensor_slices(parts)


class Batches(keras.utils.PyDataset):
    """The arrays in batches of five rows."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = parts

    def __len__(self):
        return -(-N // 5)

    def __getitem__(self, k):
        batch = tuple(part[5 * k : 5 * k + 5] for part in self.parts)
        return batch if len(batch) > 1 else batch[0]


# --- what is no array -------------------------------------------------------------------------


@pytest.mark.wide
def test_numbers_for_text():
    codes = RNG.integers(0, 3, (N, 1))
    vocabulary = ["0", "1", "2"]
    text = [
        layers.StringLookup(vocabulary=vocabulary),
        layers.Embedding(4, 2, dtype="float64"),
        layers.Flatten(dtype="float64"),
    ]
    found = fit(codes.astype(str), Y, model=dense(*text, inputs=keras.Input((1,), dtype="string")))
    with stumble("data/arrays.py:in_dtype", "x.astype(str)"):
        found.predict(codes)
    np.testing.assert_array_equal(
        found.predict(codes.astype(str)).std, found.predict(codes.astype(str).tolist()).std
    )


def test_another_scaling():
    images = RNG.integers(0, 255, (N, 4)).astype("uint8")
    found = fit(images, Y, model=dense(layers.Rescaling(1 / 255, dtype="float64")))
    with stumble("data/arrays.py:in_dtype", "same scaling"):
        found.predict(images / 255)
    back = np.rint(images / 255 * 255)
    np.testing.assert_array_equal(found.predict(back).std, found.predict(images).std)


@pytest.mark.wide  # text inside a model: tests/acceptance/test_lookups.py
def test_text_and_categories():
    """Encoded before, or by layers of the model; arrays in an array are a list of them."""
    colours = np.array(["red", "green", "blue"])[Y][:, None]
    with stumble("data/arrays.py:_as_bytes", "for a model of numbers encode text before"):
        fit(np.concatenate([X[:, :3].astype(object), colours], axis=1), Y)
    with stumble("data/arrays.py:_no_numbers", "encode text and categories before"):
        fit(colours, Y)
    before = np.concatenate([X[:, :3], np.unique(colours, return_inverse=True)[1]], axis=1)
    assert np.all(fit(before, Y).predict(before).std > 0)
    with stumble("data/arrays.py:_no_numbers", "preprocessing layers inside the model"):
        fit(pd.Series(pd.Categorical(colours.ravel())), Y)
    lookup = layers.StringLookup(vocabulary=["blue", "green", "red"], output_mode="one_hot")
    inside = dense(lookup, inputs=keras.Input((1,), dtype="string"))
    assert np.all(fit(colours, Y, model=inside).predict(colours).std > 0)
    nest = np.empty(2, object)
    nest[:] = [X, X]
    with stumble("data/arrays.py:_no_numbers", "a nest of inputs is a list"):
        fit(nest, Y)
    a, b = (keras.Input((4,), dtype="float64") for _ in range(2))
    total = layers.Add(dtype="float64")([a, b])
    both = keras.Model([a, b], layers.Dense(3, dtype="float64")(total))
    assert np.all(fit(list(nest), Y, model=both).predict([X, X]).std > 0)


def test_numbers_that_are_objects():
    exact = np.vectorize(decimal.Decimal, otypes=[object])(X)
    with stumble("data/arrays.py:_no_numbers", "np.asarray(values, dtype=float)"):
        fit(exact, Y)
    assert agrees(np.asarray(exact, dtype=float), Y)


def test_complex_numbers():
    z = X[:, :2] + 1j * X[:, 2:]
    with stumble("data/arrays.py:_no_numbers", "np.stack([z.real, z.imag], -1)"):
        fit(z, Y)
    parts = np.stack([z.real, z.imag], -1)
    flat = dense(layers.Flatten(dtype="float64"), inputs=keras.Input((2, 2), dtype="float64"))
    assert np.all(fit(parts, Y, model=flat).predict(parts).std > 0)


@pytest.mark.wide
def test_weights_that_are_text():
    with stumble("data/arrays.py:_no_numbers", "give a number for every row"):
        fit(X, Y, [str(weight) for weight in W])
    text = [str(weight) for weight in W]
    assert agrees(X, Y, np.asarray(text, dtype=float), kind="weighted")


@pytest.mark.wide
def test_text_with_something_else_beside():
    """What is missing is filled before numbers are made text, which would make "None" of None."""
    frame = pd.DataFrame({"word": ["a", 3.5, None] * 4}, dtype=object)
    lookup = layers.StringLookup(vocabulary=["a", "3.5"], output_mode="one_hot")
    model = dense(lookup, inputs=keras.Input((1,), dtype="string"))
    with stumble("data/arrays.py:_as_bytes", "x.fillna('')"):
        fit(frame, Y, model=model)
    with stumble("data/arrays.py:_as_bytes", "make all of it text"):
        fit(frame.fillna(""), Y, model=model)
    text = frame.fillna("").astype(str)
    assert text["word"].tolist()[:3] == ["a", "3.5", ""]
    assert np.all(fit(text, Y, model=model).predict(text).std > 0)


def test_rows_of_different_lengths():
    rows = [*X.tolist()[:-1], X[-1, :2].tolist()]
    with stumble("data/arrays.py:_as_array", "pad rows of different lengths"):
        fitted().predict(rows)
    padded = keras.utils.pad_sequences(rows, dtype="float64", padding="post")
    np.testing.assert_array_equal(fitted().predict(padded).std[:-1], fitted().predict(X).std[:-1])


def test_a_symbolic_tensor():
    with stumble("data/arrays.py:_as_array", "as a NumPy array"):
        fitted().predict(keras.Input((4,)))
    assert as_predicted(np.asarray(X))


@pytest.mark.wide
def test_ragged_and_sparse_tensors():
    site = "data/arrays.py:refuse_unreadable"
    ragged, sparse, rows = tf.RaggedTensor.from_tensor(X), tf.sparse.from_dense(X), X.copy()
    with stumble(site, ".to_tensor()"):
        fit(ragged, Y)
    assert agrees(ragged.to_tensor(), Y)
    with stumble(site, "tf.sparse.to_dense(...)"):
        fit(sparse, Y)
    assert agrees(tf.sparse.to_dense(sparse), Y)
    with stumble(site, ".toarray()"):
        fit(scipy.sparse.csr_matrix(rows), Y)
    compressed = scipy.sparse.csr_matrix(rows)
    assert agrees(compressed.toarray(), Y)

    def in_batches():
        for k in range(0, N, 5):
            yield compressed[k : k + 5].toarray(), Y[k : k + 5]

    assert agrees(tf.data.Dataset.from_generator(in_batches, output_signature=BATCH))


def batches():
    return zip(np.split(X, 3), np.split(Y, 3), strict=True)


def test_a_generator():
    with stumble("data/arrays.py:refuse_unreadable", "can be read only once"):
        fit(batches())
    assert agrees(*map(np.concatenate, zip(*batches(), strict=True)))
    assert agrees(Batches(X, Y))
    assert agrees(tf.data.Dataset.from_generator(batches, output_signature=BATCH))


class Loader:
    """As torch's looks: an iteration over batches, and no array."""

    def __iter__(self):
        return batches()


def test_a_loader():
    loader = Loader()
    with stumble("data/arrays.py:refuse_unreadable", "DataLoader"):
        fit(loader)
    assert agrees(*map(np.concatenate, zip(*loader, strict=True)))

    class Wrapped(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, k):
            return next(itertools.islice(iter(loader), k, None))

    assert agrees(Wrapped())
    assert agrees(tf.data.Dataset.from_generator(lambda: loader, output_signature=BATCH))


def test_labels_in_a_dataset_of_their_own():
    """Datasets are taken as x alone: the way out must not send back to them."""
    with stumble("data/arrays.py:refuse_unreadable", "one row for every row of x"):
        fit(X, tf.data.Dataset.from_tensor_slices(Y))
    assert agrees(X, list(tf.data.Dataset.from_tensor_slices(Y)))
    with stumble("data/arrays.py:refuse_unreadable", "one row for every row of x"):
        fitted().predict_mean(X, groups=(label for label in Y))
    assert len(fitted().predict_mean(X, groups=list(Y)).groups) == 3


@pytest.mark.wide
def test_datasets_in_a_list_of_inputs():
    a, b = (keras.Input((2,), dtype="float64") for _ in range(2))
    joined = layers.Concatenate(dtype="float64")([a, b])
    model = keras.Model([a, b], layers.Dense(3, dtype="float64")(joined))
    parts = [tf.data.Dataset.from_tensor_slices(X[:, k : k + 2]) for k in (0, 2)]
    with stumble("data/arrays.py:refuse_unreadable", "one dataset that yields all inputs"):
        fit(parts, Y, model=model)
    inputs, labels = tf.data.Dataset.zip(*parts), tf.data.Dataset.from_tensor_slices(Y)
    one = tf.data.Dataset.zip(inputs, labels).batch(5)
    arrays = fit([X[:, :2], X[:, 2:]], Y, model=model)
    arrays.attach(one)
    assert np.all(arrays.predict(inputs.batch(5)).std > 0)


# --- values that are missing --------------------------------------------------------------------

HOLES = np.where(np.arange(N) == 7, np.nan, X.T).T
WHOLE = np.arange(N) != 7


@cache
def fitted_to_whole():
    return fit(X[WHOLE], Y[WHOLE])


@pytest.mark.wide
def test_rows_that_hold_nan():
    with stumble("data/arrays.py:check_finite", "impute or drop those rows"):
        fit(HOLES, Y)
    fitted_to_whole().attach(HOLES[WHOLE], Y[WHOLE])
    imputed = np.where(np.isnan(HOLES), np.nanmean(HOLES, axis=0), HOLES)
    assert np.all(fitted().predict(imputed).std > 0)


def test_columns_with_missing_values():
    frame = pd.DataFrame(HOLES, columns=NAMES).astype("Float64")
    with stumble("data/frames.py:from_frame", "impute or drop those rows"):
        fit(frame, Y)
    fitted_to_whole().attach(frame.dropna(), Y[frame.notna().all(axis=1)])
    assert np.all(fitted().predict(frame.fillna(frame.mean())).std > 0)


def test_labels_that_are_missing():
    labels = pd.Series(Y, dtype="Int64").where(WHOLE)
    with stumble("data/arrays.py:as_labels", "drop those rows of x and y"):
        fit(X, labels)
    fitted_to_whole().attach(X[labels.notna()], labels.dropna())


# --- frames -------------------------------------------------------------------------------------


@pytest.mark.wide
def test_columns_of_text():
    """Dummies for them, or without them."""
    frame = FRAME.assign(city=np.array(["Oslo", "Bergen"])[Y % 2], born=pd.Timestamp("2000-01-01"))
    with stumble("data/frames.py:from_frame", "pandas.get_dummies(x, columns=[...])"):
        fit(frame, Y)
    dummies = pd.get_dummies(frame, columns=["city", "born"])
    assert dummies.shape == (N, 7)
    wide = dense(inputs=keras.Input((7,), dtype="float64"))
    assert np.all(fit(dummies, Y, model=wide).predict(dummies).std > 0)
    assert agrees(frame.drop(columns=["city", "born"]), Y)


def test_columns_whose_numbers_are_objects():
    """Dummies of them would be another model."""
    frame = FRAME.astype({"dose": object})
    with stumble("data/frames.py:from_frame", "say that they are numbers") as caught:
        fit(frame, Y)
    assert "x.astype({'dose': 'float'})" in caught.error.remedy
    assert agrees(frame.astype({"dose": "float"}), Y)


@cache
def by_name():
    inputs = {name: keras.Input((1,), name=name, dtype="float64") for name in ("a", "b")}
    joined = layers.Concatenate(dtype="float64")(list(inputs.values()))
    keras.utils.set_random_seed(0)
    return keras.Model(inputs, layers.Dense(3, dtype="float64")(joined))


@pytest.mark.wide
def test_columns_that_are_the_inputs_of_a_model():
    right = pd.DataFrame(X[:, :2], columns=["a", "b"])
    found = fit(right, Y, model=by_name())
    with stumble("data/frames.py:columns_named", "x.rename(columns={...})"):
        found.predict(right.rename(columns={"b": "c"}))
    with stumble("data/frames.py:columns_named", "leave out what is no input") as caught:
        found.predict(right.assign(c=0.0))
    assert "x[['a', 'b']]" in caught.error.remedy
    with stumble("data/frames.py:columns_named", "x.assign(...)"):
        found.predict(right[["a"]])
    for mended in (
        right.rename(columns={"b": "c"}).rename(columns={"c": "b"}),
        right.assign(c=0.0)[["a", "b"]],
        right[["a"]].assign(b=right["b"]),
    ):
        np.testing.assert_array_equal(found.predict(mended).std, found.predict(right).std)


def test_columns_of_another_order_or_name():
    site = "data/inputs.py:_check_columns"
    found = fit(FRAME, Y)
    for other in (FRAME[NAMES[::-1]], FRAME.assign(id=0)):
        with stumble(site, "take them as in training") as caught:
            found.predict(other)
        assert f"x[{NAMES}]" in caught.error.remedy
        np.testing.assert_array_equal(found.predict(other[NAMES]).std, found.predict(FRAME).std)
    renamed = FRAME.rename(columns={"dose": "Dose"})
    with stumble(site, "x.rename(columns={...})"):
        found.predict(renamed)
    back = renamed.rename(columns={"Dose": "dose"})
    np.testing.assert_array_equal(found.predict(back).std, found.predict(FRAME).std)
    with stumble(site, "are not there"):
        found.predict(FRAME[NAMES[:3]])
    again = FRAME[NAMES[:3]].assign(dose=FRAME["dose"])
    np.testing.assert_array_equal(found.predict(again).std, found.predict(FRAME).std)


# --- inputs of another shape --------------------------------------------------------------------

IMAGES = tf.TensorSpec([None, 4, 4, 1], tf.float64)
IMAGE = RNG.normal(size=(5, 4, 4, 1))


def test_inputs_of_another_shape():
    site = "data/inputs.py:align_inputs"
    with stumble(site, "x[None]"):
        fitted().predict(X[0])
    np.testing.assert_allclose(fitted().predict(X[0][None]).std, fitted().predict(X).std[:1])
    with stumble(site, "x.reshape(") as caught:
        fitted().predict(X.reshape(-1, 2, 2))
    assert "x.reshape(-1, 4)" in caught.error.remedy
    assert as_predicted(X.reshape(-1, 2, 2).reshape(-1, 4))
    with stumble(site, "x[..., None]"):
        align_inputs(IMAGE[..., 0], IMAGES)
    np.testing.assert_array_equal(align_inputs(IMAGE[..., 0][..., None], IMAGES), IMAGE)
    with stumble(site, "prepare the inputs as for training"):
        fitted().predict(np.c_[X, Y])
    assert as_predicted(np.c_[X, Y][:, :4])


# --- datasets -----------------------------------------------------------------------------------


@pytest.mark.wide  # refused: tests/acceptance/test_errors.py
def test_a_dataset_that_changes():
    """One that is kept after its augmentation stays what it was in the first pass."""
    noise = tf.random.Generator.from_seed(0)  # goes on from pass to pass, whatever was seeded

    def noisy(x, y):
        return x + noise.normal([4], dtype=tf.float64), y

    with stumble("data/examples.py:_changed", "or cache the dataset"):
        fit(slices(X, Y).map(noisy).batch(5))
    kept = slices(X, Y).map(noisy).cache().batch(5)
    arrays = [np.concatenate(part) for part in zip(*kept.as_numpy_iterator(), strict=True)]
    fit(*arrays).attach(kept)
    with stumble("data/examples.py:_changed", "take out augmentation"):
        fit(slices(X, Y).map(noisy).batch(5))
    assert agrees(slices(X, Y).batch(5))


def test_a_dataset_that_can_be_read_once():
    read = batches()
    with stumble("data/examples.py:measure", "finite and re-iterable"):
        fit(tf.data.Dataset.from_generator(lambda: read, output_signature=BATCH))
    assert agrees(tf.data.Dataset.from_generator(batches, output_signature=BATCH))


@pytest.mark.parametrize("weights", [(np.zeros(N),), (None, dict.fromkeys(range(3), 0.0))])
def test_weights_of_zero(weights):
    with stumble("data/examples.py:measure", "a positive weight"):
        fit(X, Y, *weights)
    assert agrees(X, Y, np.ones(N))


@pytest.mark.wide
def test_weights_whose_sum_overflows():
    huge = W * 5e307
    with stumble("data/examples.py:measure", "divide the weights by the largest"):
        fit(X, Y, huge)
    np.testing.assert_allclose(
        fit(X, Y, huge / huge.max()).predict(X).std, fit(X, Y, W / W.max()).predict(X).std
    )


SEQUENCES = [
    RNG.normal(size=(n, 2)).astype("float32") for n in (3, 4, 5, 6, 2, 3, 7, 1, 4, 5, 6, 3)
]
PADDED = keras.utils.pad_sequences(SEQUENCES, dtype="float32", padding="post")


def of_sequences():
    keras.utils.set_random_seed(0)
    mean = layers.GlobalAveragePooling1D()
    return keras.Sequential([keras.Input((None, 2)), layers.Masking(), mean, layers.Dense(3)])


@pytest.mark.wide  # of datasets of rows: the tests around it
def test_examples_of_different_lengths():
    """To one length in all batches: batches of different lengths are the same user's next error."""
    single = tf.data.Dataset.from_generator(
        lambda: zip(SEQUENCES, Y, strict=True),
        output_signature=(tf.TensorSpec([None, 2]), tf.TensorSpec([], tf.int64)),
    )
    with stumble("data/streams.py:_failure", ".padded_batch(256, padded_shapes=...)"):
        fit(single, model=of_sequences())
    with stumble("data/examples.py:_check_alike", "pad all of them to one shape"):
        fit(single.padded_batch(5), model=of_sequences())
    padded = single.padded_batch(5, padded_shapes=([7, 2], []))
    expected = fit(PADDED, Y, model=of_sequences())
    expected.attach(padded)
    found = fit(padded, model=of_sequences()).predict(padded.map(lambda x, y: x))
    np.testing.assert_allclose(found.std, expected.predict(PADDED).std, rtol=1e-4)


def test_datasets_that_fail_while_they_are_read():
    """The mended function serves; the one that fails does so without deltauq too."""

    def read_by(function):
        def through_python(x, y):
            made = tf.py_function(function, [x], tf.float64)
            return tf.ensure_shape(made, x.shape), y

        return slices(X, Y).map(through_python).batch(4)

    def torn(x):
        raise OSError("row 3 is torn")

    failing = read_by(torn)
    with stumble("data/streams.py:_failure", "mend the generator or the function"):
        fit(failing)
    with pytest.raises(tf.errors.OpError, match="row 3 is torn"):
        list(failing)
    assert agrees(read_by(lambda x: x))


class Torn(Batches):
    """A batch of it cannot be read in the second pass."""

    passes = 0

    def __getitem__(self, k):
        self.passes += k == 0
        if k == 1 and self.passes > 1:
            raise OSError("row 5 is torn")
        return super().__getitem__(k)


def test_datasets_of_python_that_fail_while_they_are_read():
    torn = Torn(X, Y)
    with stumble("data/streams.py:_failure", "mend its __getitem__") as caught:
        fit(torn)
    assert "OSError says at batch 1, from row" in caught.error.received
    with pytest.raises(OSError, match="row 5 is torn"):
        torn[1]
    assert agrees(Batches(X, Y))


@pytest.mark.wide
def test_datasets_of_tensors_that_are_not_dense():
    site = "data/streams.py:_check_dataset"
    rows = tf.ragged.constant([s.tolist() for s in SEQUENCES], ragged_rank=1)
    ragged = slices(rows, Y).batch(5)
    with stumble(site, "x.to_tensor(shape=...)"):
        fit(ragged, model=of_sequences())
    made = ragged.map(lambda x, y: (x.to_tensor(shape=[None, 7, 2]), y))
    fit(PADDED, Y, model=of_sequences()).attach(made)
    sparse = slices(tf.sparse.from_dense(X), Y).batch(5)
    with stumble(site, "tf.sparse.to_dense(x)"):
        fit(sparse)
    assert agrees(sparse.map(lambda x, y: (tf.sparse.to_dense(x), y)))


@pytest.mark.wide
def test_datasets_that_never_end():
    with stumble("data/streams.py:Stream.__init__", "its class a __len__"):
        fit(type("Endless", (Batches,), {"num_batches": None})(X, Y))
    assert agrees(Batches(X, Y))
    endless = slices(X, Y).batch(4).repeat()
    with stumble("data/streams.py:_check_dataset", "take out .repeat(), or bound it with .take(n)"):
        fit(endless)
    assert agrees(slices(X, Y).batch(4))
    assert agrees(endless.take(3))


class Pairs(Batches):
    """As a dict, which is not what Keras takes either."""

    def __getitem__(self, k):
        return dict(zip("xy", super().__getitem__(k), strict=True))


@pytest.mark.wide
def test_datasets_of_something_else_than_pairs():
    dicts = slices(X, Y).map(lambda x, y: {"x": x, "y": y}).batch(5)
    with stumble("data/streams.py:_check_parts", "dataset.map(...)"):
        fit(dicts)
    assert agrees(dicts.map(lambda d: (d["x"], d["y"])))
    with stumble("data/streams.py:_check_parts", "in the __getitem__ of a PyDataset"):
        fit(Pairs(X, Y))
    assert agrees(Batches(X, Y))


def test_labels_beside_inputs():
    site = "data/inputs.py:_refuse_labels"
    with stumble(site, "dataset.map(lambda x, y: x)"):
        fitted().predict(slices(X, Y).batch(5))
    assert as_predicted(slices(X, Y).batch(5).map(lambda x, y: x))
    with stumble(site, ".map(lambda x, y, w: x)"):
        fitted().predict(slices(X, Y, W).batch(5))
    assert as_predicted(slices(X, Y, W).batch(5).map(lambda x, y, w: x))
    with stumble(site, "return x alone from __getitem__"):
        fitted().predict(Batches(X, Y))
    assert as_predicted(Batches(X))


@pytest.mark.wide
def test_data_that_come_in_no_possible_way():
    site = "data/training.py:TrainingData.__post_init__"
    with stumble(site, "pass fit(x, y)"):
        fit(X)
    assert agrees(X, Y)
    assert agrees(slices(X, Y))
    with stumble(site, "put the labels and the weights into the dataset"):
        fit(tf.data.Dataset.from_tensor_slices(X), Y, W)
    inside = tf.data.Dataset.zip(*map(tf.data.Dataset.from_tensor_slices, (X, Y, W)))
    assert agrees(inside, kind="weighted")


# --- labels, weights and groups -----------------------------------------------------------------


def test_labels_in_a_dict():
    labels = {"out": Y}
    with stumble("data/arrays.py:as_labels", "pass y[name]"):
        fit(X, labels)
    assert agrees(X, labels["out"])


@pytest.mark.wide
@pytest.mark.parametrize("classes", [(0, 1, 2), wide((0, 2))], ids=["all", "without one"])
def test_balanced_classes(classes):
    """Numbers of classes, some of which there may be none of, and not their places in a list."""
    rows = np.isin(Y, classes)
    x, y = X[rows], Y[rows]
    with stumble("data/weights.py:class_factors", "with classes = np.unique(y)"):
        fit(x, y, None, "balanced")
    present = np.unique(y)
    balanced = compute_class_weight("balanced", classes=present, y=y)
    found = fit(x, y, None, dict(zip(present, balanced, strict=True)), weights="importance")
    each = balanced[np.searchsorted(present, y)]
    one_by_one = fit(x, y, each, weights="importance")
    np.testing.assert_allclose(found.predict(X).std, one_by_one.predict(X).std, rtol=1e-12)


def test_weights_of_classes_in_a_list():
    with stumble("data/weights.py:class_factors", "dict(enumerate(weights))"):
        fit(X, Y, None, [1.0, 2.0, 0.5])
    assert agrees(X, Y, None, dict(enumerate([1.0, 2.0, 0.5])), kind="balanced")


@pytest.mark.wide
def test_weights_of_another_shape():
    with stumble("data/weights.py:_checked", ".ravel() of a column"):
        fit(X, Y, W[:, None])
    assert agrees(X, Y, W[:, None].ravel(), kind="weighted")
    for wrong in (2.0, np.ones((N, 3))):
        with stumble("data/weights.py:_checked", "one number for every row"):
            fit(X, Y, wrong)
    assert agrees(X, Y, np.broadcast_to(W, N), kind="weighted")


@pytest.mark.wide
def test_weights_of_classes_without_classes():
    with stumble("data/weights.py:_checked_classes", "pass sample_weight instead"):
        fit(X, X[:, :3], None, {0: 2.0}, likelihood="gaussian")
    found = fit(X, X[:, :3], np.where(X[:, 0] > 0, 2.0, 1.0), likelihood="gaussian")
    assert np.all(found.predict(X).std > 0)


@pytest.mark.wide
def test_data_of_another_fit():
    method, counts = fit(X, Y, Y + 1), Y + 1
    with stumble("data/record.py:DataRecord.check_same", "that fit was called with"):
        method.attach(X[::2], Y[::2], counts[::2])
    with stumble("data/record.py:DataRecord.check_same", "sample_weight and class_weight"):
        method.attach(X, Y, None, {0: 1, 1: 2, 2: 3})
    method.attach(X[::-1], Y[::-1], counts[::-1])


def test_groups_of_dates():
    dates = np.datetime64("2020-01-01") + Y
    with stumble("data/grouping.py:group_inputs", "np.asarray(groups).astype(str)"):
        fitted().predict_mean(X, groups=dates)
    named = fitted().predict_mean(X, groups=np.asarray(dates).astype(str))
    numbered = fitted().predict_mean(X, groups=Y)
    assert list(named.groups) == ["2020-01-01", "2020-01-02", "2020-01-03"]
    np.testing.assert_array_equal(named.std, numbered.std)


def test_what_no_way_leads_to_is_refused_still():
    """The check of these rows: `attach` takes no other data."""
    with pytest.raises(InvalidInputError, match="not the training data"):
        agrees(X[::-1], Y)


def test_more_inputs_than_the_model_has():
    """Keras takes the first, and leaves the others without a word."""
    with stumble("data/model_inputs.py:ModelInputs.checked", "or one array x[0] for a single one"):
        fit([X, X], Y)
    assert agrees([X, X][0], Y)
    two = [keras.Input((2,), dtype="float64", name=name) for name in "ab"]
    model = keras.Model(
        two, layers.Dense(3, dtype="float64")(layers.Concatenate(dtype="float64")(two))
    )
    with stumble("data/model_inputs.py:ModelInputs.checked", "pass a list of one array for each"):
        fit([X[:, :2], X[:, 2:], X], Y, model=model)
    assert np.all(fit([X[:, :2], X[:, 2:]], Y, model=model).predict([X[:, :2], X[:, 2:]]).std > 0)
