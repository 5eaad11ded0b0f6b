"""Likelihoods: derivatives of the loss, Keras' own losses, and what is read from compiled ones."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltauq.errors import InvalidInputError, NotPositiveDefiniteError, UnsupportedModelError
from deltauq.likelihoods import (
    AtPositions,
    Bernoulli,
    Binary,
    Categorical,
    CustomLoss,
    Gaussian,
    Poisson,
    read_likelihood,
    resolve_likelihood,
)
from deltauq.likelihoods.serialization import likelihood_facts, likelihood_of

RNG = np.random.default_rng(3)
B, C = 6, 4
NUMBERS = RNG.integers(0, C, B)
SOFT = RNG.dirichlet(np.ones(C), B)
SHARES = RNG.uniform(size=(B, C))


def focal(z, y):
    p = tf.gather(tf.nn.softmax(z), y, batch_dims=1)
    return -tf.square(1 - p) * tf.math.log(p)


CASES = {
    "numbers": (Categorical(), C, NUMBERS),
    "soft": (Categorical(), C, SOFT),
    "smoothed": (Categorical(label_smoothing=0.2), C, NUMBERS),
    "soft and smoothed": (Categorical(label_smoothing=0.2), C, SOFT),
    "labels": (Bernoulli(), C, (SHARES > 0.5).astype(int)),
    "shares": (Bernoulli(label_smoothing=0.1), C, SHARES),
    "binary": (Binary(), 1, NUMBERS % 2),
    "gaussian": (Gaussian(noise=[0.5, 1.0, 2.0, 4.0]), C, RNG.normal(size=(B, C))),
    "one gaussian": (Gaussian(noise=0.7), 1, RNG.normal(size=B)),
    "counts": (Poisson(), C, RNG.poisson(2.0, (B, C))),
    "counts in time": (AtPositions(Poisson(), (3,)), 3, RNG.poisson(2.0, (B, 3))),
    "sequence": (AtPositions(Categorical(), (3,)), 3 * C, RNG.integers(0, C, (B, 3))),
    "soft image": (AtPositions(Categorical(), (2, 1)), 2 * C, RNG.dirichlet(np.ones(C), (B, 2, 1))),
    "labels in time": (AtPositions(Bernoulli(), (2,)), 2 * C, RNG.integers(0, 2, (B, 2, C))),
}


@pytest.fixture(params=CASES)
def case(request):
    likelihood, n_outputs, y = CASES[request.param]
    logits = tf.constant(np.random.default_rng(0).normal(size=(B, n_outputs)) * 2)
    return likelihood, logits, tf.constant(likelihood.check_labels(y, n_outputs))


def total(likelihood, logits, y):
    return tf.reduce_sum(tf.reshape(likelihood.loss(logits, y), [B, -1]), axis=1)


@pytest.mark.quick
def test_the_residual_is_the_gradient_of_the_loss(case):
    likelihood, logits, y = case
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = total(likelihood, logits, y)
    np.testing.assert_allclose(
        likelihood.residual(logits, y), tape.gradient(loss, logits), atol=1e-12
    )


@pytest.mark.quick
def test_scores_are_residuals_one_observation_a_row(case):
    likelihood, logits, y = case
    scores = likelihood.score_factor(logits, y).numpy()
    assert scores.shape[1] == likelihood.positions
    np.testing.assert_allclose(scores.sum(axis=1), likelihood.residual(logits, y), atol=1e-14)
    apart = scores.reshape(B, likelihood.positions, likelihood.positions, -1)
    for s in range(likelihood.positions):
        for t in range(likelihood.positions):
            assert s == t or np.all(apart[:, s, t] == 0)


def test_the_factor_makes_the_second_derivative(case):
    likelihood, logits, y = case
    with tf.GradientTape() as tape:
        tape.watch(logits)
        residual = likelihood.residual(logits, y)
    factor = likelihood.hessian_factor(logits, y).numpy()
    assert factor.shape[2] == likelihood.n_rows(logits.shape[1])
    np.testing.assert_allclose(
        factor @ np.swapaxes(factor, 1, 2), tape.batch_jacobian(residual, logits), atol=1e-12
    )


def test_the_slope_is_the_derivative_of_the_mean(case):
    likelihood, logits, _ = case
    logits = tf.reshape(logits, [B * likelihood.positions, -1])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        mean = likelihood.mean(logits)
    np.testing.assert_allclose(
        likelihood.mean_jacobian(logits), tape.batch_jacobian(mean, logits), atol=1e-12
    )
    assert mean.shape[1] == len(likelihood.shown_logits(logits.shape[1]))


KERAS = {
    "numbers": lambda y, z: keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, z),
    "soft": lambda y, z: keras.losses.CategoricalCrossentropy(from_logits=True)(y, z),
    "soft and smoothed": lambda y, z: keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.2
    )(y, z),
    "labels": lambda y, z: keras.losses.BinaryCrossentropy(from_logits=True)(y, z),
    "shares": lambda y, z: keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)(
        y, z
    ),
    "binary": lambda y, z: keras.losses.BinaryCrossentropy(from_logits=True)(y[:, None], z),
    "sequence": lambda y, z: keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        y, tf.reshape(z, [B, 3, C])
    ),
}


@pytest.mark.parametrize("name", KERAS)
def test_the_dispersion_leads_to_the_loss_of_keras(name):
    """What Keras minimises is the dispersion times the mean loss of an observation."""
    likelihood, n_outputs, y = CASES[name]
    logits = tf.constant(np.random.default_rng(0).normal(size=(B, n_outputs)))
    loss = likelihood.loss(logits, tf.constant(likelihood.check_labels(y, n_outputs)))
    ours = likelihood.dispersion(n_outputs) * np.mean(loss)
    np.testing.assert_allclose(ours, KERAS[name](y, tf.cast(logits, "float32")), rtol=1e-5)


def test_the_dispersion_of_a_regression_leads_to_the_mean_square_of_keras():
    """With one variance for all outputs; up to the loss's constant."""
    likelihood, y = Gaussian(noise=0.3), RNG.normal(size=(B, 2))
    z = RNG.normal(size=(B, 2))
    ours = np.mean(likelihood.loss(tf.constant(z), y) - likelihood.loss(tf.constant(y), y))
    keras_loss = keras.losses.MeanSquaredError()(y, z)
    np.testing.assert_allclose(likelihood.dispersion(2) * ours, keras_loss, rtol=1e-5)


def test_predictive_log_probabilities_without_variance_are_those_of_the_loss(case):
    likelihood, logits, y = case
    flat = logits.numpy().reshape(B * likelihood.positions, -1)
    shown = flat @ likelihood.shown_logits(flat.shape[1]).T
    found = likelihood.log_predictive(shown, np.zeros_like(shown), y.numpy())
    np.testing.assert_allclose(found, -np.ravel(likelihood.loss(logits, y)), rtol=1e-10)


def test_products_with_the_factor_are_those_with_the_matrix(case):
    likelihood, logits, y = case
    factor = likelihood.hessian_factor(logits, y)
    vectors = tf.constant(np.random.default_rng(1).normal(size=(B, factor.shape[2], 5)))
    found = likelihood.hessian_factor_times(logits, y, vectors)
    np.testing.assert_allclose(found, factor @ vectors, rtol=1e-12, atol=1e-14)


# Labels as users have them.


@pytest.mark.parametrize(
    "y",
    [NUMBERS, NUMBERS[:, None], NUMBERS.astype(float), NUMBERS.astype("uint8"), np.eye(C)[NUMBERS]],
)
def test_class_numbers_in_every_form(y):
    checked = Categorical().check_labels(y, C)
    np.testing.assert_array_equal(checked, NUMBERS)
    assert checked.dtype == np.int32


def test_names_need_their_order():
    names = np.array(["cat", "dog", "cat"])
    with pytest.raises(InvalidInputError, match=r"class numbers.*Categorical\(classes="):
        Categorical().check_labels(names, 2)
    found = Categorical(classes=["dog", "cat"]).check_labels(names, 2)
    np.testing.assert_array_equal(found, [1, 0, 1])
    with pytest.raises(InvalidInputError, match=r"names that are no classes.*\['cow'\]"):
        Categorical(classes=["dog", "cat"]).check_labels(np.array(["cow"]), 2)
    with pytest.raises(InvalidInputError, match="3 different names"):
        Categorical(classes=["dog", "cat"]).check_labels(names, 3)


@pytest.mark.parametrize(
    ("likelihood", "y", "n_outputs", "text"),
    [
        (Categorical(), np.array([0, 3]), 3, "labels out of range.*from 0 to 2"),
        (Categorical(), np.array([0.5, 1.0]), 3, "does not hold class numbers.*float64"),
        (Categorical(), np.array([[0.5, 0.1, 0.1]]), 3, "no distributions.*multilabel"),
        (Bernoulli(), np.array([0, 1]), 3, r"yes or no.*\[N, 3\].*3 sigmoid outputs"),
        (Bernoulli(), np.array([[-1, 1]]), 2, "labels out of range.*from -1 to 1"),
        (Binary(), np.array(["yes"]), 1, r"yes or no.*Binary\(classes="),
        (Binary(), np.array([1, 2]), 1, "out of range.*map labels"),
        (Gaussian(), np.zeros(3), 2, r"numbers that the model predicts.*\[N, 2\]"),
        (Gaussian(), np.array([np.nan]), 1, "y holds NaN"),
        (AtPositions(Categorical(), (4,)), np.zeros((2, 3), int), 8, r"every position.*'N', 4"),
    ],
)
def test_labels_that_are_none(likelihood, y, n_outputs, text):
    with pytest.raises(InvalidInputError, match=text):
        likelihood.check_labels(y, n_outputs)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, "much"])
def test_smoothing_is_a_share(smoothing):
    with pytest.raises(InvalidInputError, match="label_smoothing is no share"):
        Categorical(label_smoothing=smoothing)


@pytest.mark.parametrize("noise", [0.0, -1.0, [1.0, np.inf], [[1.0]]])
def test_noise_is_a_variance(noise):
    with pytest.raises(InvalidInputError, match="noise is not a variance"):
        Gaussian(noise=noise)


# A loss of the user's own.


def test_a_custom_loss_has_the_derivatives_of_its_function():
    loss = CustomLoss(focal)
    logits, y = tf.constant(RNG.normal(size=(B, C))), tf.constant(NUMBERS)
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(logits)
        with tf.GradientTape() as inner:
            inner.watch(logits)
            value = focal(logits, y)
        gradient = inner.gradient(value, logits)
    np.testing.assert_allclose(loss.residual(logits, y), gradient, atol=1e-12)
    second = outer.batch_jacobian(gradient, logits)
    np.testing.assert_allclose(loss.second_derivative(logits, y), second, atol=1e-12)


def test_a_custom_loss_equal_to_cross_entropy_has_its_factor():
    plain = CustomLoss(lambda z, y: tf.nn.sparse_softmax_cross_entropy_with_logits(y, z))
    logits, y = tf.constant(RNG.normal(size=(B, C))), tf.constant(NUMBERS)
    plain.check_convex(logits, y)
    ours, known = (li.hessian_factor(logits, y).numpy() for li in (plain, Categorical()))
    np.testing.assert_allclose(
        ours @ np.swapaxes(ours, 1, 2), known @ np.swapaxes(known, 1, 2), atol=1e-12
    )


def test_a_custom_loss_that_is_not_convex_has_no_ggn():
    logits = tf.constant([[4.0, -4.0, 0.0]], tf.float64)
    with pytest.raises(NotPositiveDefiniteError, match=r"not convex in the logits.*'hessian'"):
        CustomLoss(focal).check_convex(logits, tf.constant([1]))


@pytest.mark.parametrize(
    "function", [lambda z, y: tf.reduce_mean(z), lambda z, y: tf.cast(z[:, 0], tf.float32)]
)
def test_a_custom_loss_gives_one_number_an_example(function):
    with pytest.raises(InvalidInputError, match="does not give one number an example"):
        CustomLoss(function).loss(tf.constant([[1.0, 2.0]], tf.float64), tf.constant([0]))


# What is read from a compiled model.

CCE, BCE = keras.losses.SparseCategoricalCrossentropy, keras.losses.BinaryCrossentropy


def compiled(loss, **options):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile(loss=loss, **options)
    return model.get_compile_config()


@pytest.mark.parametrize(
    ("loss", "link", "n_outputs", "kind", "reduction"),
    [
        (None, None, 3, Categorical, "sum_over_batch_size"),
        (None, "Softmax", 3, Categorical, "sum_over_batch_size"),
        (None, "Sigmoid", 1, Binary, "sum_over_batch_size"),
        (None, "Sigmoid", 3, Bernoulli, "sum_over_batch_size"),
        ("sparse_categorical_crossentropy", "Softmax", 3, Categorical, "sum_over_batch_size"),
        (CCE(from_logits=True, reduction="sum"), None, 3, Categorical, "sum"),
        ("binary_crossentropy", "Sigmoid", 1, Binary, "sum_over_batch_size"),
        (BCE(from_logits=True), None, 3, Bernoulli, "sum_over_batch_size"),
        ("mse", None, 2, Gaussian, "sum_over_batch_size"),
        ("mse", "Exp", 2, Gaussian, "sum_over_batch_size"),
        ("poisson", "Exp", 2, Poisson, "sum_over_batch_size"),
        (keras.losses.Poisson(reduction="sum"), "Exp", 1, Poisson, "sum"),
        (
            keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"),
            "Sigmoid",
            1,
            Gaussian,
            "mean_with_sample_weight",
        ),
    ],
)
def test_losses_that_are_understood(loss, link, n_outputs, kind, reduction):
    found = read_likelihood(None if loss is None else compiled(loss), link, n_outputs)
    assert type(found.likelihood) is kind
    assert found.reduction == reduction


@pytest.mark.parametrize(
    ("loss", "link", "n_outputs"),
    [
        (keras.losses.CategoricalCrossentropy(label_smoothing=0.3), "Softmax", 3),
        (BCE(label_smoothing=0.3), "Sigmoid", 2),
    ],
)
def test_label_smoothing_is_read(loss, link, n_outputs):
    assert read_likelihood(compiled(loss), link, n_outputs).likelihood.label_smoothing == 0.3


@pytest.mark.parametrize(
    ("loss", "link", "n_outputs", "text"),
    [
        ("sparse_categorical_crossentropy", None, 3, "without from_logits=True.*in a softmax, and"),
        (CCE(from_logits=True), "Softmax", 3, "from_logits=True.*softmax probabilities"),
        (CCE(from_logits=True), None, 1, "a model with one output"),
        ("binary_crossentropy", None, 1, "without from_logits=True.*in a sigmoid, and"),
        (BCE(from_logits=True), "Sigmoid", 1, "from_logits=True.*sigmoid probabilities"),
        ("binary_crossentropy", "Softmax", 2, "for a model that ends in a softmax"),
        ("categorical_crossentropy", "Sigmoid", 2, "ends in a sigmoid.*divides the sigmoids"),
        ("mse", "Softmax", 3, "compiled for a softmax"),
        ("mae", None, 1, "compiled with the loss 'mae'"),
        ("poisson", None, 1, "takes rates.* not end in an exponential.*keras.ops.log"),
        ("poisson", "Softmax", 3, "takes rates.* not end in an exponential.*keras.ops.log"),
        ("sparse_categorical_crossentropy", "Exp", 3, "for a model that ends in an exponential"),
        (None, "Exp", 3, "positive outputs.*likelihood='poisson' for counts, or 'gaussian'"),
        (CCE(from_logits=True, ignore_class=0), None, 3, "ignores class 0.*sample_weight"),
        (CCE(from_logits=True, reduction=None), None, 3, "reduced by"),
        (None, None, 1, "one output.*likelihood='binary'"),
    ],
)
def test_losses_that_are_refused(loss, link, n_outputs, text):
    with pytest.raises(UnsupportedModelError, match=text):
        read_likelihood(None if loss is None else compiled(loss), link, n_outputs)


@pytest.mark.parametrize(
    "held", [lambda loss: [loss], lambda loss: {"output": loss}], ids=["in a list", "by name"]
)
@pytest.mark.parametrize("loss", ["binary_crossentropy", BCE(label_smoothing=0.3)])
def test_a_loss_in_a_list_or_by_the_outputs_name_is_that_loss(held, loss):
    config = compiled(loss)
    wrapped = config | {"loss": held(config["loss"]), "loss_weights": held(1.0)}
    found = read_likelihood(wrapped, "Sigmoid", 1)
    assert vars(found.likelihood) == vars(read_likelihood(config, "Sigmoid", 1).likelihood)
    with pytest.raises(UnsupportedModelError, match="loss_weights"):
        read_likelihood(wrapped | {"loss_weights": held(2.0)}, "Sigmoid", 1)


def test_names_and_functions_become_likelihoods():
    assert type(resolve_likelihood("multilabel")) is Bernoulli
    assert type(resolve_likelihood(focal, n_outputs=3).inner) is Categorical
    assert type(resolve_likelihood(focal, n_outputs=1).inner) is Binary
    with pytest.raises(InvalidInputError, match=r"likelihood 'cauchy' is not known.*binary"):
        resolve_likelihood("cauchy")


def test_names_of_two_classes_are_zero_and_one():
    """Numbers stay numbers beside them, and a name that is none is refused."""
    likelihood = Binary(classes=["no", "yes"])
    for y in (["yes", "no"], [1, 0]):
        assert likelihood.check_labels(np.array(y), 1).ravel().tolist() == [1, 0]
    assert likelihood_of(likelihood_facts(likelihood)).classes == ("no", "yes")
    with pytest.raises(InvalidInputError, match=r"no classes.*'maybe'"):
        likelihood.check_labels(np.array(["maybe"]), 1)
    with pytest.raises(InvalidInputError, match="2 different names"):
        Binary(classes=["yes"]).check_labels(np.array(["yes"]), 1)
