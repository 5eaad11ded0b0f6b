"""Any usual data: each kind of source gives what its arrays give, and the others are refused."""

from __future__ import annotations

import gc
import itertools
import weakref

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf
from marks import slow, wide, wide_but

from deltauq import DeltaMethod, diagnose
from deltauq.data import Batches
from deltauq.data.inputs import InputBatches
from deltauq.errors import InvalidInputError
from deltauq.likelihoods import Categorical
from deltauq.network import Network
from deltauq.network.probe_rows import probe_rows

# Random weights are far from a minimum, and `fit` says so.
pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")

layers = keras.layers
N, F, C = 23, 4, 3
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, F)), RNG.integers(0, C, N)
W = RNG.uniform(0.2, 2.0, N)
NAMES = ["age", "height", "weight", "dose"]
FRAME = pd.DataFrame(X, columns=NAMES, index=RNG.permutation(N))


def make_model(n_features=F):
    model = keras.Sequential(
        [
            keras.Input((n_features,), dtype="float64"),
            layers.Dense(5, "tanh", dtype="float64"),
            layers.Dense(C, dtype="float64"),
        ]
    )
    rng = np.random.default_rng(1)
    model.set_weights([0.5 * rng.normal(size=w.shape) for w in model.get_weights()])
    return model


MODEL = make_model()


def fit(x, y=None, weight=None, class_weight=None, *, model=MODEL, **options):
    options = {"l2": 0.1, "progress": False, "rank": "full", "batch_size": 6} | options
    return DeltaMethod(model, **options).fit(x, y, weight, class_weight)


def raises(*parts):
    """The error's text holds the parts in this order."""
    return pytest.raises(InvalidInputError, match="(?s)" + ".*".join(parts))


def same(found, expected, x=X, rtol=1e-10):
    """The same N, eigenvalues and standard errors."""
    assert found.n_examples == pytest.approx(expected.n_examples, rel=1e-12)
    scale = expected.eigenpairs.values[0]
    np.testing.assert_allclose(
        found.eigenpairs.values, expected.eigenpairs.values, rtol=rtol, atol=rtol * scale
    )
    np.testing.assert_allclose(found.predict(x).std, expected.predict(x).std, rtol=rtol)


class Arrays(keras.utils.PyDataset):
    """Batches of arrays by number; counts the epochs it was told of."""

    def __init__(self, *arrays, batch_size=5, as_list=False):
        super().__init__()
        self.arrays, self.batch_size, self.as_list = arrays, batch_size, as_list
        self.epochs = 0

    def __len__(self):
        return -(-len(self.arrays[0]) // self.batch_size)

    def __getitem__(self, k):
        rows = slice(k * self.batch_size, (k + 1) * self.batch_size)
        parts = [array[rows] for array in self.arrays]
        if len(parts) == 1:
            return parts[0]
        return parts if self.as_list else tuple(parts)

    def on_epoch_end(self):
        self.epochs += 1


class LegacySequence:
    """What `tf_keras.utils.Sequence` looks like: no base class of Keras 3, iteration never ends."""

    def __init__(self, *arrays):
        self.source = Arrays(*arrays)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, k):
        return self.source[k]

    def __iter__(self):
        while True:
            yield self.source[0]

    def on_epoch_end(self):
        raise AssertionError("no epoch ends")


def uneven(*parts):
    """A dataset whose batches have 1, 2, 3, ... rows."""
    ends = np.minimum(np.cumsum(np.arange(8)), N)

    def generate():
        for start, stop in itertools.pairwise(ends):
            yield tuple(part[start:stop] for part in parts)

    signature = tuple(tf.TensorSpec([None, *p.shape[1:]], p.dtype) for p in parts)
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def undeclared(*parts, batched):
    """A dataset whose specs say nothing of its shapes."""

    def generate():
        yield from zip(*parts, strict=True)

    types = tuple(tf.as_dtype(part.dtype) for part in parts)
    dataset = tf.data.Dataset.from_generator(generate, output_types=types)
    return dataset.batch(4) if batched else dataset


def slices(*parts):
    return tf.data.Dataset.from_tensor_slices(parts)


NULLABLE = FRAME.astype({"age": "Float64"})

SOURCES = {
    "lists": lambda: (X.tolist(), Y.tolist(), W.tolist()),
    "tuples": lambda: (tuple(map(tuple, X)), tuple(Y), tuple(W)),
    "tensors": lambda: (tf.constant(X), tf.constant(Y), tf.constant(W)),
    "variables": lambda: (tf.Variable(X), keras.Variable(Y, dtype="int32"), W),
    "fortran": lambda: (np.asfortranarray(X), Y, W),
    "frame": lambda: (FRAME, pd.Series(Y), pd.Series(W)),
    "nullable frame": lambda: (NULLABLE, pd.array(Y, dtype="Int64"), pd.array(W)),
    "categorical labels": lambda: (X, pd.Categorical(Y), W),
    "index as labels": lambda: (X, pd.Index(Y), W),
    "a column of a frame": lambda: (X, pd.DataFrame({"y": Y, "z": 0})["y"], W),
    "int8 labels": lambda: (X, Y.astype("int8"), W),
    "uint64 labels": lambda: (X, Y.astype("uint64"), W),
    "a range of labels": lambda: (X[:C], range(C), W[:C]),
    "masked array without masks": lambda: (np.ma.masked_array(X), Y, W),
    "batched dataset": lambda: (slices(X, Y, W).batch(4),),
    "static batches": lambda: (slices(X, Y, W).batch(23, drop_remainder=True),),
    "unbatched dataset": lambda: (slices(X, Y, W),),
    "one large batch": lambda: (slices(X, Y, W).batch(100),),
    "uneven batches": lambda: (uneven(X, Y, W),),
    "shapes not declared": lambda: (undeclared(X, Y, W, batched=True),),
    "unbatched, not declared": lambda: (undeclared(X, Y, W, batched=False),),
    "shuffled anew": lambda: (slices(X, Y, W).shuffle(N).batch(4),),
    "PyDataset": lambda: (Arrays(X, Y, W),),
    "PyDataset of lists": lambda: (Arrays(X, Y, W, as_list=True),),
    "PyDataset of frames": lambda: (Arrays(FRAME, pd.Series(Y), pd.Series(W)),),
    "legacy Sequence": lambda: (LegacySequence(X, Y, W),),
}


@pytest.fixture(scope="module")
def expected():
    return fit(X, Y, W)


#: Variations of the others.
VARIATIONS = {
    "tuples",
    "index as labels",
    "a column of a frame",
    "int8 labels",
    "uint64 labels",
    "masked array without masks",
    "static batches",
    "PyDataset of lists",
}


#: One of each way in which sources are read.
OF_EACH_READER = ["frame", "lists", "uneven batches", "PyDataset"]


@pytest.mark.parametrize(
    "kind", wide_but(OF_EACH_READER, [slow(k) if k in VARIATIONS else k for k in SOURCES])
)
def test_every_kind_of_source_gives_what_arrays_give(kind, expected):
    if kind == "a range of labels":
        expected = fit(X[:C], np.arange(C), W[:C])
    same(fit(*SOURCES[kind]()), expected)


INPUTS = {
    "list": lambda: X.tolist(),
    "tensor": lambda: tf.constant(X),
    "frame": lambda: FRAME,
    "batched dataset": lambda: tf.data.Dataset.from_tensor_slices(X).batch(4),
    "unbatched dataset": lambda: tf.data.Dataset.from_tensor_slices(X),
    "one large batch": lambda: tf.data.Dataset.from_tensors(X),
    "tuples of one": lambda: slices(X).batch(4),
    "shapes not declared": lambda: undeclared(X, batched=True),
    "unbatched, not declared": lambda: undeclared(X, batched=False),
    "PyDataset": lambda: Arrays(X),
    "legacy Sequence": lambda: LegacySequence(X),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_every_kind_of_input_is_predicted_like_arrays(kind, expected):
    found, truth = expected.predict(INPUTS[kind]()), expected.predict(X)
    np.testing.assert_allclose(found.std, truth.std, rtol=1e-10)
    np.testing.assert_allclose(found.probabilities, truth.probabilities, rtol=1e-12)


def test_the_other_methods_take_datasets_too(expected):
    dataset = tf.data.Dataset.from_tensor_slices(X[:5])
    np.testing.assert_allclose(
        expected.predict_joint(dataset.batch(2)).covariance,
        expected.predict_joint(X[:5]).covariance,
        atol=1e-15,
    )
    low = fit(X, Y, W, curvature="ggn", rank=5)
    np.testing.assert_allclose(low.refine(dataset).std, low.refine(X[:5]).std, rtol=1e-6)
    assert len(low.rank_curve(dataset.batch(5)).ranks) == len(low.rank_curve(X[:5]).ranks)


@pytest.mark.wide  # other methods on datasets: the test after
def test_l2_is_tuned_on_a_dataset_as_on_arrays(get_case):
    case = get_case("tanh")
    data = (case.x, case.y, case.weight)
    factors = [
        fit(*data, model=case.model, curvature="ggn").tune_l2(*held_out).factor
        for held_out in (data, (slices(*data),))
    ]
    assert factors[0] == pytest.approx(factors[1], rel=1e-6)


def several(names):
    inputs = {name: keras.Input((n,), name=name, dtype="float64") for name, n in names.items()}
    joined = layers.Concatenate(dtype="float64")(list(inputs.values()))
    return keras.Model(inputs, layers.Dense(C, dtype="float64")(joined))


@pytest.mark.wide  # a dict of columns: tests/cli/test_columns.py; lists: the kinds of input
def test_several_named_inputs():
    """A dict of a frame, a Series and arrays, and datasets of dicts, batched or not."""
    model = several({"age": 1, "rest": 3})
    arrays = {"age": X[:, :1], "rest": X[:, 1:]}
    truth = fit(arrays, Y, model=model)
    dataset = slices(arrays, Y)
    for x, y in (
        ({"rest": FRAME[NAMES[1:]], "age": FRAME["age"]}, Y),
        ({"age": X[:, :1].tolist(), "rest": tf.constant(X[:, 1:])}, Y),
        (dataset.batch(4), None),
        (dataset, None),
    ):
        same(fit(x, y, model=model), truth, arrays)
    series = {"age": FRAME["age"], "rest": FRAME[NAMES[1:]]}
    alone = dataset.map(lambda x, y: x)
    for inputs in (series, alone, alone.batch(4)):
        np.testing.assert_allclose(truth.predict(inputs).std, truth.predict(arrays).std, rtol=1e-10)


def test_inputs_as_pairs_are_no_labels():
    """Of a model with two inputs a dataset of pairs holds inputs; of pairs of pairs, labels."""
    a, b = keras.Input((1,), dtype="float64"), keras.Input((3,), dtype="float64")
    joined = layers.Concatenate(dtype="float64")([a, b])
    model = keras.Model([a, b], layers.Dense(C, dtype="float64")(joined))
    arrays = [X[:, :1], X[:, 1:]]
    dm = fit(arrays, Y, model=model)
    pairs = slices(*arrays)
    for inputs in (pairs, pairs.batch(5), tuple(arrays)):
        np.testing.assert_allclose(dm.predict(inputs).std, dm.predict(arrays).std, rtol=1e-10)
    with raises("labels beside the inputs", r"lambda x, y: x"):
        dm.predict(slices(tuple(arrays), Y).batch(5))


@pytest.mark.parametrize("batched", [wide(True), False])
def test_single_examples_are_told_from_batches_by_the_models_rank(batched):
    """One feature and one column of labels: [1] and [1] may be either."""

    class Column(Categorical):
        def check_labels(self, y, n_outputs):
            return super().check_labels(y.ravel(), n_outputs)

    model, x = make_model(1), X[:, :1]
    truth = fit(x, Y, model=model)
    dataset = slices(x, Y[:, None])
    if batched:
        dataset = dataset.batch(1, drop_remainder=True)
    same(fit(dataset, model=model, likelihood=Column()), truth, x)


@pytest.mark.parametrize(
    ("dtypes", "kind"),
    [
        ({"age": "int8", "dose": "bool"}, "int8"),
        ({"age": "Int64", "dose": "boolean"}, "int64"),
        ({"age": "float32", "dose": "Float64"}, "float64"),
        ({"age": "bool", "dose": "bool"}, "bool"),
        ({"age": "uint8", "dose": pd.SparseDtype("int64")}, "int64"),
    ],
)
def test_columns_of_frames_keep_their_numbers(dtypes, kind):
    frame = pd.DataFrame({"age": [0, 1, 1], "dose": [1, 0, 1]}).astype(dtypes)
    batch = next(iter(InputBatches(frame, dtype="float64", batch_size=3))).numpy()
    assert batch.dtype == kind
    np.testing.assert_array_equal(batch, [[0, 1], [1, 0], [1, 1]])


def test_a_frame_must_have_the_columns_of_training():
    dm = fit(FRAME, Y)
    assert len(dm.predict(X)) == N
    with raises("other columns than the training data", "'age', 'height'", "'dose', 'weight'"):
        dm.predict(FRAME[NAMES[::-1]])


class TextLabels(Categorical):
    """Names of classes; stands for a likelihood that takes them."""

    def check_labels(self, y, n_outputs):
        assert y.dtype.kind == "U"
        return super().check_labels(np.searchsorted(["a", "b", "c"], y), n_outputs)


@pytest.mark.parametrize(
    "make",
    [
        wide(np.asarray),
        wide(list),
        wide(tf.constant),
        wide(pd.Series),
        pd.Categorical,
        wide(lambda y: pd.Series(y, dtype="category")),
        wide(lambda y: pd.Series(y, dtype=object)),
        None,
    ],
    ids=["array", "list", "tensor", "Series", "Categorical", "category", "object", "dataset"],
)
def test_text_labels_reach_the_likelihood_as_text(make, expected):
    names = np.array(["a", "b", "c"])[Y]
    data = (slices(X, names, W).batch(4),) if make is None else (X, make(names), W)
    same(fit(*data, likelihood=TextLabels()), expected)


class FloatRows(Categorical):
    """Rows of probabilities `[N, C]`; stands for a likelihood of float labels."""

    def check_labels(self, y, n_outputs):
        return np.asarray(y, np.float64)

    def loss(self, logits, y):
        return tf.nn.softmax_cross_entropy_with_logits(labels=y, logits=logits)

    def residual(self, logits, y):
        return tf.nn.softmax(logits) - y


ONE_HOT = np.eye(C)[Y]


@pytest.fixture(scope="module")
def class_weighted():
    return fit(X, Y, class_weight={0: 2.0, 2: 0.5})


@pytest.mark.parametrize(
    "source",
    [
        lambda: (X, ONE_HOT),
        wide(lambda: (X, ONE_HOT.tolist())),
        wide(lambda: (X, pd.get_dummies(pd.Series(Y)))),
        lambda: (slices(X, ONE_HOT).batch(5),),
        wide(lambda: (slices(X, ONE_HOT),)),
        wide(lambda: (Arrays(X, ONE_HOT),)),
    ],
    ids=["array", "lists", "frame", "batched", "unbatched", "PyDataset"],
)
def test_rows_of_labels_go_through_whole(source, class_weighted):
    found = fit(*source(), class_weight={0: 2.0, 2: 0.5}, likelihood=FloatRows())
    same(found, class_weighted)


def test_labels_that_change_places_are_noticed():
    """The sums of rows of one-hot labels and of weights stay; which row they belong to does not."""
    generator = tf.random.Generator.from_seed(0)

    def rolled(x, y):
        return x, tf.roll(y, generator.uniform([], 1, N, tf.int32), axis=0)

    dataset = slices(X, ONE_HOT).batch(N).map(rolled)
    with raises("changes from one pass to the next"):
        fit(dataset, likelihood=FloatRows())


BY_CLASS = W * np.array([0.0, 2.5, 1.0])[Y]


@pytest.fixture(scope="module")
def weighted_by_class():
    return fit(X, Y, BY_CLASS)


@pytest.mark.parametrize(
    ("source", "class_weight"),
    [
        (lambda: (X, Y, W), {0: 0.0, 1: 2.5}),
        (lambda: (slices(X, Y, W),), {0: 0.0, 1: 2.5}),
        wide(lambda: (Arrays(X, Y, W),), {np.int64(0): 0, 1: np.float32(2.5)}),
    ],
    ids=["arrays", "dataset", "PyDataset"],
)
def test_class_weights_are_sample_weights(source, class_weight, weighted_by_class):
    found, at_once = fit(*source(), class_weight=class_weight), len(source()) == 3
    same(found, weighted_by_class, rtol=1e-14) if at_once else same(found, weighted_by_class)


@pytest.mark.wide  # of weights: test_a_row_of_no_weight_is_no_row
def test_a_class_weight_of_zero_drops_its_rows(weighted_by_class):
    kept = Y != 0
    same(weighted_by_class, fit(X[kept], Y[kept], BY_CLASS[kept]))


def test_diagnose_takes_class_weights():
    none = diagnose(MODEL, X, Y, class_weight={0: 0.0}, l2=0.1).of("classes")
    assert "no example of class 0" in none[0].what


@pytest.mark.wide  # of the curvature: tests/curvature/test_operators.py
def test_whole_weights_are_repeated_rows():
    counts = RNG.integers(0, 4, N)
    repeated = fit(np.repeat(X, counts, axis=0), np.repeat(Y, counts))
    same(fit(X, Y, counts), repeated)


@pytest.mark.parametrize(
    ("class_weight", "text"),
    [
        ("balanced", r"class_weight is not a dict.*'balanced'.*compute_class_weight"),
        ({3: 1.0}, "names a class that does not exist.*from 0 to 2.*3"),
        ({-1: 1.0}, "does not exist.*-1"),
        ({"a": 1.0}, "does not exist.*'a'"),
        ({True: 1.0}, "does not exist.*True"),
        ({0: -1.0}, "cannot be used.*finite numbers >= 0.*-1.0 for class 0"),
        ({0: np.nan}, "cannot be used.*nan for class 0"),
        ({0: np.inf}, "cannot be used.*inf for class 0"),
        ({0: "1"}, "cannot be used.*'1' for class 0"),
        ({0: 0.0, 1: 0.0, 2: 0.0}, "data are empty.*sum of weights 0"),
    ],
)
def test_class_weights_that_cannot_be_used(class_weight, text):
    with raises(text):
        fit(X, Y, class_weight=class_weight)


def test_class_weights_need_classes():
    soft = ONE_HOT + 0.5
    with raises("class_weight needs labels that are classes", r"\[23, 3\]", "sample_weight"):
        fit(X, soft, class_weight={0: 2.0}, likelihood=FloatRows())


HOLES = FRAME.astype({"age": "Float64"})
HOLES.iloc[3, 0] = pd.NA
CITIES = FRAME.assign(city="Oslo", born=pd.Timestamp("2000-01-01"))


class DataLoader:
    """What torch's looks like: a length and an iteration, and no array."""

    def __len__(self):
        return 2

    def __iter__(self):
        return iter([(X, Y)])


class Endless(Arrays):
    num_batches = None


def ragged():
    return tf.ragged.constant([[1.0, 2.0], [3.0]])


REFUSED = {
    "generator": (lambda: (x for x in X), r"x is a generator.*only once.*from_generator"),
    "iterator": (lambda: iter(X), r"x is a .*iterator.*only once"),
    "loader": (DataLoader, r"x is a DataLoader.*PyDataset"),
    "set": (lambda: {1, 2}, r"x is a set.*other iterable"),
    "csr": (lambda: scipy.sparse.csr_matrix(X), r"x is a csr_matrix.*\.toarray\(\)"),
    "sparse tensor": (lambda: tf.sparse.from_dense(X), r"x is a SparseTensor.*to_dense"),
    "ragged tensor": (ragged, r"x is a RaggedTensor.*\.to_tensor\(\)"),
    "ragged list": (lambda: [[1.0, 2.0], [3.0]], r"x cannot be read as an array.*pad rows"),
    "text columns": (
        lambda: CITIES,
        r"columns that do not hold numbers.*'city' \(str\), 'born' \(datetime64.*get_dummies",
    ),
    "categories": (lambda: FRAME.astype({"dose": "category"}), r"'dose' \(category\)"),
    "object column": (lambda: FRAME.astype({"dose": object}), r"'dose' \(object\)"),
    "category": (lambda: pd.Series(pd.Categorical(Y)), "x does not hold numbers.*category"),
    "missing": (lambda: HOLES, r"x holds missing values.*1 missing values in columns 'age'"),
    "masked": (lambda: np.ma.masked_greater(X, 1.0), "x holds NaN"),
    "dict of text": (lambda: {"a": ["u"], "b": X}, "x does not hold numbers.*'u'|another shape"),
    "text with a hole": (lambda: [["u", None]] * N, "something else beside text.*None in row 0"),
    "complex": (lambda: X + 1j, "x does not hold numbers.*complex128"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_inputs_that_are_refused(kind, expected):
    make, text = REFUSED[kind]
    with raises(text):
        fit(make(), Y)
    with raises(text):
        expected.predict(make())


def failing():
    yield np.ones(3), 0
    raise ValueError("row 1 is torn")


DATASETS = {
    "ragged": (
        lambda: tf.data.Dataset.from_tensors((ragged(), [0, 1])),
        r"other things than tensors.*RaggedTensor.*to_tensor",
    ),
    "sparse": (
        lambda: tf.data.Dataset.from_tensors((tf.sparse.from_dense(X), Y)),
        r"other things than tensors.*SparseTensor.*to_dense",
    ),
    "no two shapes alike": (
        lambda: tf.data.Dataset.from_generator(
            lambda: ((np.ones(n), 0) for n in (3, 4)),
            output_signature=(tf.TensorSpec([None]), tf.TensorSpec([], tf.int32)),
        ),
        r"single examples make no batch.*shape.*padded_batch",
    ),
    "a generator that fails": (
        lambda: tf.data.Dataset.from_generator(
            failing, output_signature=(tf.TensorSpec([3]), tf.TensorSpec([], tf.int32))
        ),
        r"fails while it is read.*says.*: ValueError: row 1 is torn\. What to do",
    ),
    "endless": (lambda: Endless(X, Y), "never ends.*num_batches is None"),
    "inputs alone": (lambda: Arrays(X), r"something else than \(x, y\).*ndarray"),
    "empty": (lambda: Arrays(X[:0], Y[:0]), "empty"),
    "missing label": (
        lambda: slices(X, np.where(Y[0] == Y, np.nan, Y)).batch(4),
        "y holds NaN or infinity",
    ),
    "NaN": (lambda: Arrays(np.where(X > 1, np.nan, X), Y), "x holds NaN"),
    "lengths": (lambda: Arrays(X, Y[:-1], batch_size=N), "y has the wrong length.*23.*22"),
    "ragged PyDataset": (
        lambda: Ragged(X, Y),
        r"x is a RaggedTensor.*to_tensor",
    ),
    "augmented": (lambda: Augmented(X, Y), "changes from one pass to the next"),
}


class Ragged(Arrays):
    def __getitem__(self, k):
        x, y = super().__getitem__(k)
        return tf.RaggedTensor.from_tensor(x), y


class Augmented(Arrays):
    rng = np.random.default_rng(0)

    def __getitem__(self, k):
        x, y = super().__getitem__(k)
        return x + self.rng.normal(size=x.shape), y


@pytest.mark.parametrize("kind", DATASETS)
def test_datasets_that_are_refused(kind):
    make, text = DATASETS[kind]
    with raises(text):
        fit(make())


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (np.where(Y == 1, np.nan, Y), "y holds NaN or infinity"),
        (pd.Series(np.where(Y == 1, np.nan, Y)), "y holds missing values"),
        (pd.array([None, *Y[1:]], dtype="Int64"), "y holds missing values.*1 of 23"),
        (pd.Categorical([None, *Y[1:]]), "y holds missing values"),
        ((label for label in Y), "y is a generator"),
        ({"out": Y}, r"y is a dict.*'out'"),
        (scipy.sparse.csr_matrix(ONE_HOT), r"y is a csr_matrix.*\.toarray\(\)"),
    ],
)
def test_labels_that_are_refused(y, text):
    with raises(text):
        fit(X, y)


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (["a"] * N, "sample_weight does not hold numbers"),
        (W[:, None], r"sample_weight is not a vector.*\[23, 1\]"),
        (np.where(W > 1, np.nan, W), "sample_weight holds NaN"),
        (pd.array([None, *W[1:]], dtype="Float64"), "sample_weight holds NaN"),
    ],
)
def test_weights_that_are_refused(weight, text):
    with raises(text):
        fit(X, Y, weight)


def test_predicting_datasets_that_are_refused(expected):
    with raises("labels beside the inputs", r"dataset.map\(lambda x, y: x\)"):
        expected.predict(slices(X, Y).batch(4))
    with raises("labels beside the inputs", "tuples of 3"):
        expected.predict(Arrays(X, Y, W))
    with raises("another shape than the training data"):
        expected.predict(tf.data.Dataset.from_tensor_slices(X[:, :3]).batch(4))
    with raises("never ends"):
        expected.predict(tf.data.Dataset.from_tensor_slices(X).repeat())
    with raises("x is empty", "no batch"):
        expected.predict(tf.data.Dataset.from_tensor_slices(X[:0]).batch(4))


def test_an_epoch_does_not_end():
    source = Arrays(X, Y)
    fit(source)
    assert source.epochs == 0


class Watched(Arrays):
    """Counts how many of the batches it gave out are still held."""

    alive = most = 0

    def __len__(self):
        return 200

    def __getitem__(self, k):
        x = np.full((10, F), float(k))
        self.alive += 1
        weakref.finalize(x, self._gone)
        self.most = max(self.most, self.alive)
        return x if not self.arrays[1:] else (x, Y[:10])

    def _gone(self):
        self.alive -= 1


def test_a_pydataset_is_never_held_whole():
    training, inputs = Watched(X, Y), Watched(X)
    options = {"likelihood": Categorical(), "n_outputs": C, "dtype": "float64"}
    gc.collect()
    data = Batches(training, **options, batch_size=4)
    assert data.n_rows == 2_000
    assert sum(len(batch.y) for batch in data) == 2_000
    batches = InputBatches(inputs, dtype="float64", batch_size=4)
    assert sum(len(x) for x in batches) == 2_000
    assert max(training.most, inputs.most) <= 4


@pytest.mark.wide  # nor is a PyDataset: the test of one
def test_a_dataset_is_never_held_whole():
    """Its pipeline runs ahead by a few batches at most, whatever it holds."""
    passed, ahead = [0], []

    def row(k):
        ahead.append(int(k) - passed[0])
        return np.full(F, float(k)), np.int64(0)

    def as_row(k):
        x, y = tf.numpy_function(row, [k], (tf.float64, tf.int64))
        return tf.ensure_shape(x, [F]), tf.ensure_shape(y, [])

    dataset = tf.data.Dataset.range(2_000).map(as_row)
    data = Batches(dataset, likelihood=Categorical(), n_outputs=C, dtype="float64", batch_size=10)
    ahead.clear()
    for batch in data:
        passed[0] += len(batch.y)
    assert len(ahead) == 2_000
    # How many batches wait is up to TensorFlow and to the machine's load: two or three, not 200.
    assert max(ahead) <= 100


@pytest.mark.parametrize("source", [(X, Y), (slices(X, Y),), (slices(X, Y).batch(4),)])
@pytest.mark.parametrize(("n", "rows"), [(1, [0]), (4, [0, 7, 14, 22]), (99, range(N))])
def test_some_rows_are_taken_from_all_over_the_data(source, n, rows):
    data = Batches(*source, likelihood=Categorical(), n_outputs=C, dtype="float64", batch_size=6)
    some = data.spread(n)
    np.testing.assert_array_equal(some.x, X[list(rows)])
    np.testing.assert_array_equal(some.y, Y[list(rows)])
    assert len(some.weight) == len(rows)


def test_batches_of_a_dataset_are_cut_to_what_fits():
    data = Batches(
        slices(X, Y).batch(N), likelihood=Categorical(), n_outputs=C, dtype="float64", batch_size=6
    )
    assert [len(batch.y) for batch in data] == [6, 6, 6, 5]
    np.testing.assert_array_equal(np.concatenate([b.x for b in data]), X)


def test_probes_of_datasets_are_those_of_their_arrays():
    probes = [
        probe_rows(Network(MODEL), source)
        for source in (X, FRAME, slices(X, Y), slices(X, Y).batch(4), Arrays(X, Y))
    ]
    for probe in probes[1:]:
        np.testing.assert_array_equal(probe, probes[0])
