"""Ways out that errors about labels and losses name: the cost is the one that was minimised."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.preprocessing import LabelEncoder, MultiLabelBinarizer
from ways import stumble

from deltauq import DeltaMethod
from deltauq.likelihoods import (
    Bernoulli,
    Binary,
    Categorical,
    CustomLoss,
    Gaussian,
    Poisson,
    resolve_likelihood,
)

# Random weights are far from a minimum, and `fit` says so.
pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")

N = 12
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype("float32")
Y = np.arange(N) % 3
WORDS = np.array(["bird", "cat", "dog"])


def dense(n_outputs=3, activation=None, loss=None, **options):
    keras.utils.set_random_seed(0)
    head = keras.layers.Dense(n_outputs, activation)
    model = keras.Sequential([keras.Input((4,)), head])
    if loss is not None:
        model.compile("sgd", loss, **options)
    return model


def fit(model, y=Y, curvature="opg", **options):
    options = {"l2": 0.1, "rank": "full", "bounds": False, "progress": False} | options
    return DeltaMethod(model, curvature, **options).fit(X, y)


def cost_of(found):
    """The mean loss that a fit saw, as Keras has it: without the penalty of its L2 rate."""
    squares = sum(float(np.sum(np.square(v))) for v in found.model.trainable_weights)
    to_keras = found.fitted_likelihood.dispersion(found.n_outputs)
    return found.stationarity.cost * to_keras - 0.05 * squares


@pytest.mark.wide  # refused: tests/acceptance/test_outcomes.py
def test_likelihoods_of_another_number_of_outputs():
    with stumble("likelihoods/bernoulli.py:Binary.check_outputs", "'multilabel' for a yes or no"):
        fit(dense(), likelihood="binary")
    assert fit(dense(), np.eye(3)[Y], likelihood="multilabel").predict(X).mean.shape == (N, 3)
    by_name = fit(dense(), likelihood="categorical").predict(X)
    np.testing.assert_allclose(by_name.mean.sum(axis=1), 1.0, rtol=1e-5)
    site = "likelihoods/categorical.py:Categorical.check_outputs"
    with stumble(site, "pass likelihood='binary'"):
        fit(dense(1), Y > 0, likelihood="categorical")
    expected = fit(dense(1), Y > 0, likelihood="binary").predict(X)

    def own(z, y):
        return tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(y, z.dtype), z)[:, 0]

    with stumble(site, "or a loss of your own as CustomLoss(f, "):
        fit(dense(1), Y > 0, likelihood=CustomLoss(own))
    found = fit(dense(1), Y > 0, likelihood=CustomLoss(own, Binary())).predict(X)
    np.testing.assert_allclose(found.std, expected.std, rtol=1e-5)


@pytest.mark.wide
def test_rows_that_are_no_distributions():
    site = "likelihoods/categorical.py:_distributions"
    shares = np.eye(3)[Y] + 0.2
    with stumble(site, "y / y.sum(axis=1, keepdims=True)"):
        Categorical().check_labels(shares, 3)
    divided = Categorical().check_labels(shares / shares.sum(axis=1, keepdims=True), 3)
    np.testing.assert_allclose(divided.sum(axis=1), 1.0)
    several = np.maximum(np.eye(3)[Y], np.eye(3)[Y - 1])
    with stumble(site, "use likelihood='multilabel'"):
        fit(dense(), several)
    assert fit(dense(), several, likelihood="multilabel").predict(X).mean.shape == (N, 3)


def test_labels_that_are_no_class_numbers():
    """In the order of the outputs, which names have no more than in the alphabet."""
    with stumble("likelihoods/class_numbers.py:check_class_numbers", "number the classes from 0"):
        Categorical().check_labels(Y + 1, 3)
    np.testing.assert_array_equal(Categorical().check_labels(Y + 1 - 1, 3), Y)
    site = "likelihoods/class_numbers.py:_no_class_numbers"
    with stumble(site, "Categorical(classes=[...])"):
        Categorical().check_labels(WORDS[Y], 3)
    named = Categorical(classes=["dog", "cat", "bird"]).check_labels(WORDS[Y], 3)
    np.testing.assert_array_equal(named, 2 - Y)
    encoded = LabelEncoder().fit_transform(WORDS[Y])
    np.testing.assert_array_equal(Categorical().check_labels(encoded, 3), Y)
    with stumble(site, "for quantities"):
        fit(dense(), Y + 0.5)
    with stumble(site, "the one column that holds class numbers"):
        Categorical().check_labels(np.stack([Y, Y], axis=1), 3)
    np.testing.assert_array_equal(Categorical().check_labels(np.stack([Y, Y], axis=1)[:, 0], 3), Y)
    targets = np.stack([Y + 0.5] * 3, axis=1)
    np.testing.assert_array_equal(Gaussian().check_labels(targets, 3), targets)


def test_labels_that_are_no_yes_or_no():
    site = "likelihoods/class_numbers.py:yes_or_no"
    yes = (Y > 0).astype(int)
    names = ["no", "yes"]
    with stumble(site, "Binary(classes=[...])"):
        Binary().check_labels(np.array(names)[yes], 1)
    named = Binary(classes=names).check_labels(np.array(names)[yes], 1)
    np.testing.assert_array_equal(named[:, 0], yes)
    with stumble(site, "sklearn.preprocessing.MultiLabelBinarizer"):
        Bernoulli().check_labels(WORDS[Y], 3)
    columns = MultiLabelBinarizer().fit_transform([[word] for word in WORDS[Y]])
    np.testing.assert_array_equal(Bernoulli().check_labels(columns, 3), np.eye(3)[Y])
    with stumble(site, "pass the second column"):
        Binary().check_labels(np.eye(2)[yes], 1)
    np.testing.assert_array_equal(Binary().check_labels(np.eye(2)[yes][:, 1], 1)[:, 0], yes)
    with stumble(site, "np.eye("):
        Bernoulli().check_labels(Y, 3)
    np.testing.assert_array_equal(Bernoulli().check_labels(np.eye(3)[Y], 3), np.eye(3)[Y])
    with stumble(site, "map labels such as -1 and 1"):
        Binary().check_labels(2 * yes - 1, 1)
    np.testing.assert_array_equal(Binary().check_labels((2 * yes - 1 + 1) // 2, 1)[:, 0], yes)


def test_numbers_that_are_not_finite():
    holes = np.where(Y == 1, np.nan, Y)
    with stumble("likelihoods/class_numbers.py:finite_numbers", "impute or drop those rows"):
        Gaussian().check_labels(holes, 1)
    assert len(Gaussian().check_labels(holes[np.isfinite(holes)], 1)) == 8


@pytest.mark.wide
def test_numbers_that_are_no_counts():
    counts = RNG.poisson(3.0, N)
    standardised = (counts - counts.mean()) / counts.std()
    with stumble("likelihoods/poisson.py:Poisson.check_labels", "pass the counts themselves"):
        fit(dense(1, "exponential", "poisson"), standardised)
    np.testing.assert_array_equal(Poisson().check_labels(counts, 1)[:, 0], counts)
    found = fit(dense(1, "exponential", "poisson"), standardised, likelihood="gaussian")
    np.testing.assert_allclose(found.predict(X).mean, found.model(X), rtol=1e-5)


@pytest.mark.wide
def test_one_output_of_which_nothing_is_known():
    with stumble("likelihoods/compiled.py:_by_link", "say likelihood='binary'"):
        fit(dense(1), Y > 0)
    logit = dense(1)(X).numpy()
    p = fit(dense(1), Y > 0, likelihood="binary").predict(X).mean[:, 1]
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-logit[:, 0])), rtol=1e-5)
    for name, mean in (("gaussian", logit), ("poisson", np.exp(logit))):
        found = fit(dense(1), Y, likelihood=name).predict(X)
        np.testing.assert_allclose(found.mean, mean, rtol=1e-5)


CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy


@pytest.mark.wide
@pytest.mark.filterwarnings('ignore:"`sparse_categorical_crossentropy` received')
@pytest.mark.parametrize(
    ("loss", "factor"), [("sparse_categorical_crossentropy", 0.1), (CROSS_ENTROPY(True), 1.0)]
)
def test_weights_that_were_trained_to_a_known_likelihood_all_the_same(loss, factor):
    """A factor of the loss; and a softmax that Keras takes off itself, whatever it was told."""
    model = dense(3, "softmax", loss, loss_weights=[factor])
    with stumble("likelihoods/compiled.py:_refuse", "trained to a likelihood that is known here"):
        fit(model)
    said = fit(model, likelihood="categorical")
    minimised = model.evaluate(X, Y, batch_size=N, verbose=0)
    assert factor * cost_of(said) == pytest.approx(minimised, rel=1e-5)


def brier(z, y):
    return tf.reduce_mean((tf.nn.softmax(z) - tf.one_hot(y, 3)) ** 2, axis=1)


def cross_entropy_of_each(z, y):
    p = tf.nn.softmax(z)
    return keras.losses.binary_crossentropy(tf.one_hot(y, 3), p)


@pytest.mark.wide
@pytest.mark.parametrize(
    ("loss", "activation", "own"),
    [("mse", "softmax", brier), ("binary_crossentropy", tf.nn.softmax, cross_entropy_of_each)],
)
def test_losses_that_are_written_as_functions(loss, activation, own):
    """Squares of a softmax; and a loss for sigmoids of one, whose logits Keras does not keep."""
    model = dense(3, activation, loss)
    with stumble("likelihoods/compiled.py:_refuse", "CustomLoss(f, like)"):
        fit(model, np.eye(3)[Y])
    found = fit(model, likelihood=CustomLoss(own, Categorical()))
    minimised = model.evaluate(X, np.eye(3)[Y], batch_size=N, verbose=0)
    assert cost_of(found) == pytest.approx(minimised, rel=1e-5)


Z = tf.constant(RNG.normal(size=(N, 3)))


def test_losses_that_do_not_give_one_number_an_example():
    def each(z, y):
        return tf.nn.softplus(z)

    def first(z, y):
        return tf.nn.softplus(z[:, 0])

    site = "likelihoods/custom.py:CustomLoss.loss"
    with stumble(site, "without a mean over the batch"):
        CustomLoss(lambda z, y: tf.reduce_mean(first(z, y))).loss(Z, Y)
    np.testing.assert_allclose(CustomLoss(first).loss(Z, Y), np.log1p(np.exp(Z[:, 0])))
    with stumble(site, "tf.reduce_sum(values, axis=1)"):
        CustomLoss(each).loss(Z, Y)
    added = CustomLoss(lambda z, y: tf.reduce_sum(each(z, y), axis=1)).loss(Z, Y)
    np.testing.assert_allclose(added, np.log1p(np.exp(Z)).sum(axis=1))
    with stumble(site, "tf.cast(values, logits.dtype)"):
        CustomLoss(lambda z, y: tf.cast(added, tf.float32)).loss(Z, Y)
    assert CustomLoss(lambda z, y: tf.cast(added, z.dtype)).loss(Z, Y).dtype == tf.float64


@pytest.mark.wide  # refused: tests/acceptance/test_outcomes.py
def test_a_loss_that_is_not_convex():
    def focal(z, y):
        log_p = tf.gather(tf.nn.log_softmax(z), y, batch_dims=1)
        return -((1 - tf.exp(log_p)) ** 2) * log_p

    model = dense()
    model.set_weights([4 * weight for weight in model.get_weights()])
    with stumble("likelihoods/custom.py:CustomLoss.check_convex", "curvature='hessian' or 'opg'"):
        fit(model, curvature="ggn", likelihood=focal)
    assert resolve_likelihood(focal, n_outputs=3).function is focal
    for curvature in ("hessian", "opg"):
        found = fit(model, curvature=curvature, likelihood=focal, l2=1.0)
        assert np.all(found.predict(X).std > 0)


def test_names_of_classes_that_are_no_texts():
    model, words = dense(), WORDS[Y]
    for kind in (Categorical, Binary):
        with stumble("likelihoods/class_numbers.py:check_names", "write classes=['good', 'bad']"):
            kind(classes=[0, 1])
        with stumble("likelihoods/class_numbers.py:check_names", "labels that are numbers need"):
            kind(classes="bird")
    named = fit(model, words, likelihood=Categorical(classes=["bird", "cat", "dog"]))
    numbered = fit(model, likelihood=Categorical())
    np.testing.assert_array_equal(named.predict(X).std, numbered.predict(X).std)
