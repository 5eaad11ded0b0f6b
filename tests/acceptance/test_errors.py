"""Bad input gets an error that says what, what was expected, what came, what to do."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from marks import covering, wide
from sklearn.model_selection import cross_val_score
from ways import stumble

from deltauq import DeltaClassifier, DeltaMethod, DeltaUncertainty, compare, diagnose
from deltauq.data.inputs import align_inputs
from deltauq.errors import (
    ConvergenceWarning,
    DeltaUQError,
    InvalidInputError,
    NotFittedError,
    NumericalError,
    UnsupportedModelError,
    warn,
    what_it_says,
)

# Random weights are far from a minimum, and `fit` says so.
pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")

layers = keras.layers
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 4)).astype("float32"), RNG.integers(0, 3, 20)

MANY, MANY_Y = np.repeat(X, 50, axis=0), np.repeat(Y, 50)  # which make a step to the minimum count


def model(*extra, outputs=3, **output):
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(outputs, **output), *extra]
    )


def fit(m=None, x=X, y=Y, weight=None, **options):
    options = {"l2": 0.1, "progress": False, "rank": 3} | options
    return DeltaMethod(m or model(), **options).fit(x, y, weight)


@functools.cache
def fitted():
    """Of errors in what is predicted, which leave a fit as it was."""
    return fit()


def hasty():
    return DeltaClassifier(hidden_units=(3,), tol=1e-12, max_iter=1, progress=False)


def compiled():
    trained = model(activation="softmax")
    trained.compile("sgd", "sparse_categorical_crossentropy")
    return trained


def raises(kind, *parts):
    """The error's text holds the parts in this order."""
    return pytest.raises(kind, match="(?s)" + ".*".join(parts))


KERAS = "Exception encountered when calling Dense.call().\n\n\x1b[1mIt is torn\x1b[0m\n\n"
DETECTED = "Graph execution error:\n\nDetected at node Add defined at (most recent call last):\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It is torn", "It is torn"),
        ("", "ValueError"),
        (KERAS + "Arguments received by Dense.call():\n  x=tf.Tensor(...)", "It is torn"),
        (f'Layer "z" {{...}}\n\nException encountered: {KERAS}', "It is torn"),
        ("{{function_node __inference_f}} It is torn [Op:Add] name: ", "It is torn"),
        ("It has [[1, 2]\n [3, 4]]\n", "It has [...]"),
        (DETECTED + "<stack traces unavailable>\nIt is torn\n\t [[{{node Add}}]]", "It is torn"),
        (DETECTED + '  File "/x.py", line 3, in f\n    a + b\n\nIt is\ntorn', "It is torn"),
        (
            "2 root error(s) found.\n  (0) It is torn\n\t [[{{node A}}]]\n  (1) It is torn",
            "It is torn",
        ),
    ],
)
def test_what_an_error_of_tensorflow_says_is_its_message(text, said):
    assert what_it_says(ValueError(text)) == said


def test_an_unbuilt_model():
    unbuilt = keras.Sequential([layers.Dense(3)])
    with raises(InvalidInputError, "not built", "Expected", "Received", "call it once on a batch"):
        fit(unbuilt)


def test_something_that_is_no_model():
    with raises(
        UnsupportedModelError,
        "not one that can be linearised",
        "tf.Module with a call",
        "builtins.function",
    ):
        fit(lambda x: x)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: model(outputs=1), r"nothing says what the model's one output is"),
        (lambda: model(layers.Reshape((3, 1))), r"nothing says.*one output"),
        (lambda: model(layers.Reshape(()), outputs=1), r"not one row of numbers.*\[B, T, C\]"),
        (lambda: model(activation="relu"), r"neither logits nor a link function.*'Relu'"),
        (
            lambda: model(layers.Rescaling(1.0), activation="softmax"),
            r"neither.*whose rows are probabilities",
        ),
    ],
)
def test_an_output_that_is_not_understood(make, text):
    with raises(UnsupportedModelError, text, "What to do"):
        fit(make())


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (Y + 1, r"labels out of range.*from 0 to 2.*from 1 to 3"),
        (Y - 1, r"labels out of range.*from -1 to 1"),
        (Y + 0.5, r"not hold class numbers.*float64"),
        (0.9 * np.eye(3)[Y], r"no distributions over the classes.*sums from 0.9"),
        (np.array(["a"] * 20), r"not hold class numbers.*LabelEncoder"),
        (np.stack([Y, Y], axis=1), r"not hold class numbers.*\[20, 2\]"),
        (Y[:7], r"y has the wrong length.*20 rows.*7 rows"),
        (None, r"y is missing.*fit\(x, y\)"),
    ],
)
def test_labels_that_cannot_be_used(y, text):
    with raises(InvalidInputError, text):
        fit(y=y)


@pytest.mark.parametrize("bad", [np.nan, wide(np.inf), wide(-np.inf)])
def test_non_finite_inputs(bad):
    x = X.copy()
    x[13:, 2] = bad
    with raises(InvalidInputError, f"x holds NaN or infinity.*{bad} in row 13,", "never drops any"):
        fit(x=x)
    with raises(InvalidInputError, "x holds NaN or infinity.*in row 13,"):
        fitted().predict(x)


class InSevens(keras.utils.PyDataset):
    """Batches of 7, 7 and 6 rows."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = parts

    def __len__(self):
        return 3

    def __getitem__(self, k):
        return tuple(part[7 * k : 7 * k + 7] for part in self.parts)


def rows(*parts):
    return tf.data.Dataset.from_tensor_slices(parts)


@covering(
    name=["x", "y", "sample_weight"],
    make={"py": InSevens, "examples": rows, "tf": lambda *parts: rows(*parts).batch(3)},
)
def test_the_row_of_a_dataset_is_counted_over_its_batches(make, name):
    parts = {"x": X.copy(), "y": np.float32(Y), "sample_weight": np.ones(20, "float32")}
    parts[name][16] = np.nan
    with raises(InvalidInputError, f"{name} holds NaN or infinity.*nan in row 16,"):
        fit(x=make(*parts.values()), y=None, batch_size=5)
    if name == "x":
        with raises(InvalidInputError, "x holds NaN or infinity.*nan in row 16,"):
            fit().predict(make(parts["x"]))


def test_non_finite_weights_of_the_model():
    m = model()
    m.layers[0].bias.assign([0, 0, np.nan, 0, 0])
    with raises(UnsupportedModelError, r"dense\S*/bias' hold NaN", "1 of 5", "training diverged"):
        fit(m)


def test_outputs_that_overflow():
    """Weights and inputs are finite, and their product overflows."""
    m = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    m.set_weights([np.full((4, 3), 3e38, "float32"), np.zeros(3, "float32")])
    with raises(InvalidInputError, "output is not finite on the data", "48 of 48", "overflow"):
        fit(m, x=np.abs(X) + 2)


def test_a_non_finite_loss():
    """Outputs overflow at a row behind those that the model is probed with."""
    m = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    m.set_weights([np.full((4, 3), 1e37, "float32"), np.zeros(3, "float32")])
    x = np.clip(X, -1, 1)
    x[-1] = 100.0
    with stumble("curvature/cost.py:Cost.measure", "unscaled inputs"):
        fit(m, x=x)
    x[-1] /= 100.0
    assert np.isfinite(fit(m, x=x).stationarity.cost)


@pytest.mark.parametrize(
    ("x", "y"),
    [(X[:0], Y[:0]), (tf.data.Dataset.from_tensor_slices((X[:0], Y[:0])).batch(3), None)],
    ids=["arrays", "dataset"],
)
def test_empty_data(x, y):
    with raises(InvalidInputError, "empty", "Expected", "Received"):
        fit(x=x, y=y)


def test_weights_that_cannot_be_used():
    with raises(InvalidInputError, "sample_weight has the wrong length", "20 rows", "3 rows"):
        fit(weight=np.ones(3))
    with raises(InvalidInputError, "sample_weight is negative", "-1"):
        fit(weight=-np.ones(20))
    with raises(InvalidInputError, "data are empty", "sum of weights 0"):
        fit(weight=np.zeros(20))


def test_datasets_that_cannot_be_used():
    single = tf.data.Dataset.from_tensor_slices((X, Y))
    with raises(InvalidInputError, "y and sample_weight came beside a dataset"):
        fit(x=single.batch(4))
    with raises(InvalidInputError, "something else than"):
        fit(x=tf.data.Dataset.from_tensor_slices(X).batch(4), y=None)


def test_datasets_that_do_not_end_or_do_not_stay_the_same():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    with raises(InvalidInputError, "never ends", r"take out .repeat\(\)"):
        fit(x=dataset.repeat().batch(4), y=None)
    noise = tf.random.Generator.from_seed(0)  # goes on from pass to pass, whatever was seeded
    noisy = dataset.map(lambda x, y: (x + noise.normal(tf.shape(x)), y))
    with raises(InvalidInputError, "changes from one pass to the next", "augmentation"):
        fit(x=noisy.batch(4), y=None)
    m = model()
    shuffled = fit(m, x=dataset.shuffle(20).batch(4), y=None, rank="full")
    ordered = fit(m, rank="full")
    np.testing.assert_allclose(shuffled.predict(X).std, ordered.predict(X).std, rtol=1e-3)


@pytest.mark.wide  # refused and named: test_derivative_audit.py
def test_an_exact_hessian_that_would_be_wrong():
    resized = [layers.Reshape((2, 2, 1)), layers.UpSampling2D(interpolation="bilinear")]
    m = keras.Sequential([keras.Input((4,)), layers.Dense(4), *resized, layers.Flatten()])
    m.add(layers.Dense(3))
    with stumble("delta/stating.py:_refuse_obstacles", "use curvature='ggn' or 'opg'") as caught:
        fit(m, curvature="hessian")
    assert "ResizeBilinearGrad" in caught.error.received
    for curvature in ("ggn", "opg"):
        assert np.all(fit(m, curvature=curvature).predict(X).std > 0)


@pytest.mark.wide  # their second derivatives: tests/network/test_derivative_audit.py
@pytest.mark.parametrize(
    "layer",
    [
        layers.LayerNormalization(),
        layers.GroupNormalization(1),
        layers.Activation("softsign"),
    ],
    ids=["layer", "group", "softsign"],
)
def test_normalisation_and_softsign_take_every_curvature(layer):
    m = keras.Sequential([keras.Input((4,)), layers.Dense(6), layer, layers.Dense(3)])
    for curvature in ("hessian", "ggn"):
        assert np.all(fit(m, curvature=curvature).predict(X).std > 0)


def test_a_gradient_that_is_not_the_derivative():
    class Stopped(layers.Layer):
        def call(self, x):
            return x + keras.ops.stop_gradient(keras.ops.tanh(x))

    m = keras.Sequential([keras.Input((4,)), layers.Dense(6), Stopped(), layers.Dense(3)])
    for curvature in ("hessian", "opg", "ggn"):
        with raises(
            UnsupportedModelError,
            "not the derivatives of its output",
            r"StopGradient \(stopped",
            "layers=",
        ):
            fit(m, curvature=curvature)


def test_a_variable_without_l2():
    with raises(InvalidInputError, "the model has no L2 rate", "l2='tune'", "rank='full'"):
        fit(l2="auto")
    with raises(InvalidInputError, "some variables", "dense", "bias", r"l2=\.\.\.", "layers="):
        fit(l2={"kernel": 0.1})


@pytest.mark.parametrize(
    ("rank", "text"),
    [
        (44, r"larger than the number of parameters.*P = 43.*44.*rank='full'"),
        (0, "whole number >= 1.*0"),
        (2.5, "whole number >= 1.*2.5"),
        ("all", "whole number >= 1.*'all'"),
    ],
)
def test_a_rank_that_cannot_be(rank, text):
    with raises(InvalidInputError, text):
        fit(rank=rank)


def test_a_dense_path_that_would_not_fit():
    wide = keras.Sequential([keras.Input((300,)), layers.Dense(100), layers.Dense(3)])
    data = {"x": RNG.normal(size=(3, 300)).astype("float32"), "y": Y[:3]}
    with stumble("delta/exact.py:_forced", ", or 'auto'") as caught:
        fit(wide, rank="full", route="dense", **data)
    assert "at most 20,000 parameters" in caught.error.received
    full = fit(wide, rank="full", **data)
    assert full.route == "gram"
    some, every = (dm.predict(data["x"]) for dm in (fit(wide, rank=6, **data), full))
    np.testing.assert_allclose(some.std, every.std, rtol=1e-3)  # two rows an example, in float32
    last = fit(wide, rank="full", layers="last", **data)
    assert last.eigenpairs.rank == 303


class RandomLayer(layers.Layer):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


class CountingLayer(layers.Layer):
    def build(self, shape):
        self.calls = self.add_weight(shape=(), trainable=False, initializer="zeros", name="calls")

    def call(self, x):
        self.calls.assign(self.calls + 1.0)
        return x


class BatchCentring(layers.Layer):
    def call(self, x):
        return x - keras.ops.mean(x, axis=0, keepdims=True)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (RandomLayer, "random in inference mode.*training=False"),
        (CountingLayer, "stateful.*changed variables.*calls"),
        (BatchCentring, "depends on the others in its batch.*inference mode"),
    ],
)
def test_layers_that_are_no_functions_of_one_input(layer, text):
    with raises(UnsupportedModelError, text):
        fit(model(layer()))


@pytest.mark.parametrize("what", ["eigenpairs", "covariance", "stationarity", "fit_seconds"])
def test_results_before_fit(what):
    dm = DeltaMethod(model())
    with raises(NotFittedError, what, "fit was not called"):
        getattr(dm, what)
    with raises(NotFittedError, "predict needs the curvature"):
        dm.predict(X)


def test_a_failed_fit_leaves_nothing_behind():
    dm = fit()
    with pytest.raises(InvalidInputError):
        dm.fit(X, Y + 7)
    with pytest.raises(NotFittedError):
        dm.predict(X)


@pytest.mark.parametrize(
    ("x", "remedy"),
    [
        (X[0], r"x\[None\]"),
        (X.reshape(-1, 2, 2), r"x\.reshape\(-1, 4\)"),
        (X[:, :3], "as for training"),
        ([X, X], "as for training"),
    ],
    ids=["no batch axis", "another layout", "columns", "inputs"],
)
def test_predicting_inputs_of_another_shape(x, remedy):
    with raises(InvalidInputError, "another shape than the training data", r"'N', 4", remedy):
        fitted().predict(x)


def test_a_message_of_keras_is_told_without_the_numbers_of_the_batch():
    with raises(InvalidInputError, "cannot be called on x", r"for input \[\.\.\.\] with") as caught:
        fit(x=np.ones((20, 8, 8, 1)))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((8, 8, 3), r"x\[None\]"),
        ((5, 192), r"x\.reshape\(-1, 8, 8, 3\)"),
        ((5, 8, 1, 8, 3), r"x\.reshape\(-1, 8, 8, 3\)"),
        ((5, 3, 8, 8), "prepare the inputs as for training"),  # a reshape would mix the channels
        ((5, 8, 8, 1), "prepare the inputs as for training"),
        ((192,), "prepare the inputs as for training"),
    ],
)
def test_only_what_would_work_is_advised_for_images(shape, remedy):
    images = tf.TensorSpec([None, 8, 8, 3])
    with raises(InvalidInputError, "another shape", f"What to do: .*{remedy}"):
        align_inputs(np.zeros(shape), images)


def test_images_without_channels_get_that_axis_named():
    images = tf.TensorSpec([None, 8, 8, 1])
    with raises(InvalidInputError, "another shape", r"x\[\.\.\., None\]"):
        align_inputs(np.zeros((3, 8, 8)), images)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"curvature": "fisher"}, r"curvature='fisher' is not known.*hessian.*opg.*ggn"),
        ({"curvature": "GGN"}, r"curvature='GGN' is not known.*write curvature='ggn'"),
        ({"meat": "score"}, r"meat='score' is not known.*write meat='scores'"),
        ({"tail": "mean"}, "tail='mean' is not known.*midpoint"),
        ({"negative_curvature": "drop"}, "negative_curvature='drop'.*project"),
        ({"likelihood": "cauchy"}, "likelihood 'cauchy' is not known.*categorical"),
        ({"l2": -1.0}, r"L2 rate is not a finite number >= 0.*-1"),
        ({"l2": "tuned"}, "l2='tuned' is not understood"),
        ({"l2": {"gamma": 1.0}}, "pattern 'gamma'.*matches no variable.*dense"),
        ({"layers": ["block_7"]}, "pattern 'block_7'.*matches no trainable variable.*dense"),
        ({"layers": [1]}, "pattern 1, which matches no trainable variable"),
        ({"likelihood": None}, "likelihood None is not known"),
        ({"layers": lambda v: False}, "no variable is left to be uncertain"),
        ({"batch_size": 0}, "batch_size is not a whole number >= 1.*or None"),
        ({"curvature": "hessian", "tail": "trace"}, "tail='trace' needs a trace.*opg.*ggn"),
    ],
)
def test_options_that_cannot_be_used(options, text):
    with raises(InvalidInputError, text):
        fit(**options)


OPTIONS = [
    "curvature",
    "rank",
    "l2",
    "likelihood",
    "layers",
    "tail",
    "rank_tol",
    "negative_curvature",
    "meat",
    "batch_size",
    "memory_limit",
    "seed",
]
NO_OPTIONS = {"array": np.arange(3.0), "list": [0.5, np.nan], "-1": -1, "object": object()}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", NO_OPTIONS.values(), ids=NO_OPTIONS)
def test_whatever_an_option_is_its_name_is_in_the_error(name, value):
    with raises(InvalidInputError, "L2" if name == "l2" else name):
        fit(**{name: value})


CALLS = {
    "polish": lambda value: diagnose(model(), X, Y, polish=value),
    "rank": lambda value: diagnose(model(), X, Y, rank=value),
    "curvatures": lambda value: compare(model(), X, Y, X, curvatures=value),
    "sample_weight": lambda value: fit(weight=value),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("value", [-1, "ggn", object()], ids=["-1", "text", "object"])
def test_so_it_is_in_those_of_other_arguments(name, value):
    with raises(InvalidInputError, name):
        CALLS[name](value)


@pytest.mark.parametrize("name", ["curvature", "tail", "negative_curvature", "meat"])
def test_choices_are_checked_before_hours_are_spent(name):
    with raises(InvalidInputError, f"{name}='other' is not known"):
        DeltaMethod(model(), **{name: "other"})


@pytest.mark.parametrize(
    "fitting",
    [
        lambda: fit(x=MANY, y=MANY_Y),
        wide(lambda: hasty().fit(X, Y)),
        wide(lambda: cross_val_score(hasty(), X, Y, cv=2)),
        lambda: compiled().fit(X, Y, verbose=0, callbacks=[DeltaUncertainty(MANY, MANY_Y, l2=0.1)]),
    ],
    ids=["DeltaMethod", "DeltaClassifier", "scikit-learn", "callback"],
)
def test_a_warning_names_the_line_that_called(fitting):
    with pytest.warns(ConvergenceWarning) as caught:
        fitting()
    assert {warning.filename for warning in caught} == {__file__}


def test_a_package_of_the_user_may_have_a_name_that_begins_like_ours():
    code = "def call(warn):\n    warn('here', ConvergenceWarning)"
    namespace = {"__name__": "deltauq_study", "ConvergenceWarning": ConvergenceWarning}
    exec(compile(code, "/home/deltauq/study.py", "exec"), namespace)
    with pytest.warns(ConvergenceWarning) as caught:
        namespace["call"](warn)
    assert (caught[0].filename, caught[0].lineno) == ("/home/deltauq/study.py", 2)


@pytest.mark.parametrize(
    ("penalty", "name"),
    [
        ("l1", "L1"),
        (keras.regularizers.L1L2(0.1, 0.1), "L1L2"),
        (keras.regularizers.OrthogonalRegularizer(), "OrthogonalRegularizer"),
    ],
)
def test_penalties_without_a_rate(penalty, name):
    m = keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_regularizer=penalty)])
    with raises(UnsupportedModelError, "not an L2 penalty", name, r"l2=\.\.\."):
        fit(m, l2="auto")


@pytest.mark.parametrize(
    ("loss", "activation", "text"),
    [
        ("mae", None, "compiled with the loss 'mae'"),
        ("sparse_categorical_crossentropy", None, "without from_logits=True.*train again"),
        (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "softmax",
            "from_logits=True.*gives softmax probabilities",
        ),
        wide(
            keras.losses.SparseCategoricalCrossentropy(ignore_class=0),
            "softmax",
            "ignores class 0",
        ),
    ],
)
def test_losses_that_are_not_the_likelihood(loss, activation, text):
    m = model(activation=activation)
    m.compile(loss=loss)
    with raises(UnsupportedModelError, text, "likelihood=|train again"):
        fit(m)
    assert len(fit(m, likelihood="categorical").predict(X)) == 20


def test_a_weighted_loss():
    m = model(activation="softmax")
    m.compile(loss="sparse_categorical_crossentropy", loss_weights=[0.1])
    with raises(UnsupportedModelError, r"loss_weights=\[0.1\]", r"likelihood=\.\.\."):
        fit(m)


def test_mixed_precision():
    m = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, dtype="mixed_float16", name="half"), layers.Dense(3)]
    )
    with raises(UnsupportedModelError, "mixes precisions", "half", "float16"):
        fit(m)


def test_inputs_that_the_model_does_not_take():
    with raises(InvalidInputError, "cannot be called on x", r"\[3, 7\]", "incompatible"):
        fit(x=np.ones((20, 7), "float32"))


def test_inputs_that_are_no_numbers():
    with raises(InvalidInputError, "x does not hold numbers", "text, such as 'a'"):
        fit(x=np.array([["a"] * 4] * 20))


@pytest.mark.wide  # labels that cannot be used: the tests of fit
def test_comparisons_that_cannot_be_made():
    for curvatures in (("opg",), ("opg", "opg"), ("opg", "fisher")):
        with raises(InvalidInputError, "cannot be compared", "two or more different names"):
            compare(model(), X, Y, X, curvatures=curvatures)
    with raises(InvalidInputError, "not hold class numbers", "LabelEncoder"):
        compare(model(), X, Y, X, np.array(["a"] * 20), l2=1.0, progress=False)
    with raises(InvalidInputError, "y_eval has the wrong shape", "20 predictions", "labels of 3"):
        compare(model(), X, Y, X, Y[:3], curvatures=("opg", "ggn"), l2=1.0, progress=False)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"hidden_units": 8}, "hidden_units cannot be used.*a tuple of widths.*hidden_units=8"),
        ({"hidden_units": (8, 0)}, "hidden_units is not a whole number >= 1.*Received: 0"),
        ({"batch_size": 0}, "batch_size is not a whole number >= 1"),
        ({"max_iter": 0}, "max_iter is not a whole number >= 1"),
        ({"epochs": -1}, "epochs is not a whole number >= 0"),
        ({"tol": -1.0}, "tol cannot be used"),
        ({"l2": "auto"}, "l2 cannot be used.*a finite number >= 0"),
        ({"dtype": "float16"}, "dtype='float16' is not known"),
    ],
)
def test_settings_a_classifier_cannot_train_with(options, text):
    with raises(InvalidInputError, text):
        DeltaClassifier(progress=False, **options).fit(X, Y)


def test_several_inputs_must_keep_their_structure():
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    m = keras.Model({"a": a, "b": b}, layers.Dense(3)(layers.Concatenate()([a, b])))
    x = {"a": X[:, :2], "b": X[:, 2:]}
    dm = fit(m, x=x)
    assert len(dm.predict(x)) == 20
    for wrong in ([X[:, :2], X[:, 2:]], {"a": X[:, :2], "c": X[:, 2:]}, X):
        with raises(InvalidInputError, "another shape than the training data", "'a'", "'b'"):
            dm.predict(wrong)


def test_predicting_inputs_of_another_scale():
    """A model of whole-numbered images given fractions: most likely another scaling."""
    images = RNG.integers(0, 255, (20, 4)).astype("uint8")
    m = keras.Sequential([keras.Input((4,)), layers.Rescaling(1 / 255), layers.Dense(3)])
    dm = fit(m, x=images)
    expected = dm.predict(images).std
    np.testing.assert_array_equal(dm.predict(images.astype("int64")).std, expected)
    np.testing.assert_array_equal(dm.predict(images.astype("float64")).std, expected)
    for wrong in (images / 255, images.astype(int) - 300):
        with raises(InvalidInputError, "does not fit the training data", "uint8", "same scaling"):
            dm.predict(wrong)


def test_a_classifier_of_one_class():
    with raises(InvalidInputError, "one class only", "two classes or more"):
        DeltaClassifier(progress=False).fit(X, np.zeros(20, int))


def test_every_error_is_one_kind():
    for kind in (InvalidInputError, UnsupportedModelError, NotFittedError, NumericalError):
        assert issubclass(kind, DeltaUQError)
    assert str(DeltaUQError("a", expected="b.", received="c", remedy="d")) == (
        "a. Expected: b. Received: c. What to do: d."
    )
