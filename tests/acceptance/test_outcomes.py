"""Every likelihood end to end: dense truth, statsmodels, and one another."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import scipy.special
import sklearn.datasets
import statsmodels.api as sm
import tensorflow as tf
from eager import (
    Eager,
    binary_cross_entropy,
    covariances,
    cross_entropy,
    poisson_loss,
    shares_to_logits,
    sigmoid_mean,
    softmax_mean,
    squares,
    two_classes,
)
from marks import covering, slow, wide

from deltauq import DeltaMethod
from deltauq.delta.marginal_likelihood import held_out_likelihood
from deltauq.errors import InvalidInputError, NotPositiveDefiniteError, UnsupportedModelError
from deltauq.likelihoods import Categorical, Gaussian

layers = keras.layers
F64 = {"dtype": "float64"}
RNG = np.random.default_rng(0)
N, D = 13, 4
X = RNG.normal(size=(N, D))
WEIGHT = RNG.uniform(0.3, 2.0, N)

pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")


def network(n_outputs, activation=None, hidden=3, seed=1):
    keras.utils.set_random_seed(seed)
    x = keras.Input((D,), **F64)
    z = layers.Dense(hidden, activation="tanh", **F64)(x)
    return keras.Model(x, layers.Dense(n_outputs, activation=activation, **F64)(z))


def fit(model, y, curvature="ggn", weight=WEIGHT, **options):
    options = {"rank": "full", "l2": 0.1, "progress": False, "batch_size": 5} | options
    options = {"weights": "counts"} | options
    return DeltaMethod(model, curvature, **options).fit(X, y, weight)


NUMBERS = RNG.integers(0, 3, N)
SOFT = RNG.dirichlet(np.ones(3), N)
SMOOTHED = 0.8 * np.eye(3)[NUMBERS] + 0.2 / 3
LABELS = RNG.integers(0, 2, (N, 3))
VALUES = RNG.normal(size=(N, 2))
COUNTS = np.random.default_rng(1).poisson(1.5, (N, 2))

#: Fits that several tests look at and none changes: the model's outputs and labels.
PLAIN = {
    "binary": (1, "sigmoid", LABELS[:, 0]),
    "labels": (3, "sigmoid", LABELS),
    "soft labels": (3, None, SOFT),
    "six classes": (6, None, RNG.integers(0, 6, N)),
}


@functools.cache
def plain(name, curvature="ggn", rank="full", **options):
    """Fitted once."""
    n_outputs, activation, y = PLAIN[name]
    return fit(network(n_outputs, activation), y, curvature, rank=rank, **options)


#: model, labels, options -> the loss and the means as they are written down, and the rate's factor.
DENSE = {
    "soft labels": (network(3), SOFT, {}, cross_entropy, SOFT, softmax_mean, 1),
    "label smoothing": (
        network(3),
        NUMBERS,
        {"likelihood": Categorical(label_smoothing=0.2)},
        cross_entropy,
        SMOOTHED,
        softmax_mean,
        1,
    ),
    # Keras' losses are means over labels and outputs, so L2 counts C times beside the sum.
    "labels": (network(3, "sigmoid"), LABELS, {}, binary_cross_entropy, LABELS, sigmoid_mean, 3),
    "binary": (
        network(1, "sigmoid"),
        LABELS[:, 0],
        {},
        binary_cross_entropy,
        LABELS[:, 0],
        two_classes,
        1,
    ),
    "regression": (
        network(2),
        VALUES,
        {"likelihood": Gaussian(noise=[0.5, 1.5])},
        squares([0.5, 1.5]),
        VALUES,
        lambda z: z,
        2 / (2 * 1.0),
    ),
    "counts": (
        network(2, "exponential"),
        COUNTS,
        {"likelihood": "poisson"},
        poisson_loss,
        COUNTS,
        np.exp,
        2,
    ),
}

#: Back from the outputs of the last activation to its inputs.
TO_LOGITS = {"sigmoid": shares_to_logits, "exponential": tf.math.log, "linear": tf.identity}


def _kinds():
    """One curvature of each; the others of each, or of random models, are proven elsewhere.

    Label smoothing is soft labels; the exact Hessian of counts is that of statsmodels, in
    test_counts.py; its products are compared for random models of every outcome.
    """
    for name in DENSE:
        of_opg = name == "regression"
        yield wide(name, "ggn") if of_opg or name == "label smoothing" else (name, "ggn")
        yield (name, "opg") if of_opg else wide(name, "opg")
        several = name in ("soft labels", "label smoothing")
        yield slow(name, "hessian") if several else wide(name, "hessian")


@pytest.mark.parametrize(("name", "curvature"), list(_kinds()))
def test_covariances_equal_the_dense_ones(name, curvature):
    model, y, options, loss, target, mean, factor = DENSE[name]
    to_logits = TO_LOGITS[model.layers[-1].activation.__name__]
    truth = Eager(model, X, target, loss, WEIGHT, to_logits=to_logits)
    prediction = fit(model, y, curvature, l2=5.0, negative_curvature="keep", **options).predict(X)
    logits, jacobian = truth.jacobian()
    matrix = getattr(truth, curvature)()
    of_logits, of_means = covariances(matrix, 5.0 * factor, WEIGHT.sum(), jacobian, logits, mean)
    tolerance = {"rtol": 1e-6, "atol": 1e-6 * np.abs(of_means).max()}
    np.testing.assert_allclose(prediction.mean, [mean(z) for z in logits], rtol=1e-9)
    np.testing.assert_allclose(prediction.covariance, of_means, **tolerance)
    last = slice(-logits.shape[1], None)  # of two classes the second has the logit
    np.testing.assert_allclose(
        prediction.logit_covariance[:, last, last],
        of_logits,
        rtol=1e-6,
        atol=1e-6 * np.abs(of_logits).max(),
    )


def softmax_of_two():
    """The network with one sigmoid, with a softmax whose first logit is zero in its place."""
    one = network(1, "sigmoid")
    kernel, bias = one.layers[-1].get_weights()
    x = keras.Input((D,), **F64)
    hidden = one.layers[1](x)
    z = layers.Dense(1, name="logit", **F64)(hidden)
    two = keras.Model(x, layers.Softmax(**F64)(layers.Concatenate(**F64)([0 * z, z])))
    two.get_layer("logit").set_weights([kernel, bias])
    return two


@pytest.mark.wide  # against the dense reference: test_covariances, of binary
@pytest.mark.parametrize("curvature", ["ggn", wide("opg"), slow("hessian"), slow("sandwich")])
def test_one_sigmoid_is_a_softmax_of_two(curvature):
    fits = plain("binary", curvature), fit(softmax_of_two(), LABELS[:, 0], curvature)
    predictions = [each.predict(X) for each in fits]
    for name in ("probabilities", "std", "logit_std", "score", "entropy", "mutual_information"):
        one, two = (getattr(prediction, name) for prediction in predictions)
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-15, err_msg=name)
    one, two = predictions
    np.testing.assert_allclose(one.interval(), two.interval(), rtol=1e-6)
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_allclose(one.difference_test().p_value, two.difference_test().p_value)


@pytest.mark.parametrize("curvature", ["ggn", wide("opg"), slow("hessian"), slow("sandwich")])
def test_one_label_is_binary(curvature):
    model, y = network(1, "sigmoid"), LABELS[:, 0]
    binary = plain("binary", curvature).predict(X)
    label = fit(model, y, curvature, likelihood="multilabel").predict(X)
    np.testing.assert_allclose(label.probabilities[:, 0], binary.probabilities[:, 1], rtol=1e-12)
    np.testing.assert_allclose(label.std[:, 0], binary.std[:, 1], rtol=1e-9)
    np.testing.assert_allclose(label.entropy, binary.entropy)
    np.testing.assert_allclose(label.mutual_information, binary.mutual_information)
    for ours, theirs in zip(label.interval(), binary.interval(), strict=True):
        np.testing.assert_allclose(ours[:, 0], theirs[:, 1], rtol=1e-9)


def test_a_multilabel_prediction_says_what_it_is():
    prediction = plain("labels").predict(X)
    p = prediction.probabilities
    np.testing.assert_array_equal(prediction.labels, p > 0.5)
    expected = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(axis=1)
    np.testing.assert_allclose(prediction.entropy, expected)
    spread = prediction.std / (p * (1 - p))
    lower, upper = prediction.interval(0.9)
    np.testing.assert_allclose(lower, scipy.special.expit(prediction.logits - 1.6448536 * spread))
    np.testing.assert_allclose(upper, scipy.special.expit(prediction.logits + 1.6448536 * spread))
    split = prediction.variance_split()
    np.testing.assert_allclose(split.total, p * (1 - p))
    np.testing.assert_allclose(split.epistemic + split.aleatoric, split.total)
    frame = prediction.to_frame()
    np.testing.assert_allclose(frame["se_2"], prediction.std[:, 2])
    assert "MultiLabelPrediction(13 inputs, 3 labels)" in repr(prediction)
    np.testing.assert_array_equal(prediction.is_wrong(LABELS), np.any((p > 0.5) != LABELS, axis=1))


# Regression.


def linear_model(x, y):
    """Least squares as a network without a hidden layer, at its minimum."""
    design = sm.add_constant(x)
    solution = np.linalg.lstsq(design, y, rcond=None)[0].reshape(x.shape[1] + 1, -1)
    model = keras.Sequential(
        [keras.Input((x.shape[1],), **F64), layers.Dense(solution.shape[1], **F64)]
    )
    model.set_weights([solution[1:], solution[0]])
    model.compile(loss="mse")
    return model


@covering(outputs=[1, 2], curvature=["hessian", "ggn"])
def test_regression_equals_ordinary_least_squares(curvature, outputs):
    """Standard errors of the mean and of an observation, output by output."""
    x, y = sklearn.datasets.load_diabetes(return_X_y=True)
    x, y = x[:, :5] * 10, np.stack([y, x[:, 7] * 30 + y / 9], axis=1)[:, :outputs]
    model = linear_model(x, y)
    dm = DeltaMethod(model, curvature, rank="full", progress=False).fit(x, y)
    prediction = dm.predict(x[:50])
    lower, upper = prediction.interval(0.9)
    obs_lower, obs_upper = prediction.interval(0.9, of="observation")
    for c in range(outputs):
        truth = sm.OLS(y[:, c], sm.add_constant(x)).fit()
        found = truth.get_prediction(sm.add_constant(x)[:50])
        np.testing.assert_allclose(dm.fitted_likelihood.noise[c], truth.scale, rtol=1e-6)
        np.testing.assert_allclose(prediction.mean[:, c], found.predicted_mean, rtol=1e-6)
        np.testing.assert_allclose(prediction.std[:, c], found.se_mean, rtol=1e-6)
        np.testing.assert_allclose(prediction.observation_std[:, c], found.se_obs, rtol=1e-6)
        # statsmodels takes Student's quantile, of 436 degrees of freedom.
        np.testing.assert_allclose(lower[:, c], found.conf_int(alpha=0.1)[:, 0], rtol=2e-3)
        np.testing.assert_allclose(
            obs_upper[:, c], found.conf_int(obs=True, alpha=0.1)[:, 1], rtol=2e-3
        )
    assert np.all((obs_lower < lower) & (upper < obs_upper))


def test_the_noise_of_a_regression_counts_what_the_data_determine():
    """With L2 gamma is trace(A (A + L)^-1), the same for the GGN and for the exact Hessian here."""
    x, y = sklearn.datasets.load_diabetes(return_X_y=True)
    x, l2 = x[:, :5] * 10, 3.0
    design = sm.add_constant(x)
    gram = design.T @ design / len(x)
    # Keras' cost: mean square + (l2 / 2) w^2.
    ridge = gram + l2 / 2 * np.eye(6)
    solution = np.linalg.solve(ridge, design.T @ y / len(x))
    model = linear_model(x, y)
    model.set_weights([solution[1:, None], solution[:1]])
    gamma = np.trace(np.linalg.solve(ridge, gram))
    noise = np.sum((y - design @ solution) ** 2) / (len(x) - gamma)
    sigma = noise * np.linalg.inv(ridge) / len(x)
    truth = np.sqrt(np.einsum("ni,ij,nj->n", design, sigma, design))
    for curvature in ("ggn", "hessian"):
        dm = DeltaMethod(model, curvature, rank="full", l2=l2, progress=False).fit(x, y)
        assert dm.stationarity.ratio < 1e-6
        np.testing.assert_allclose(dm.fitted_likelihood.noise, [noise], rtol=1e-9)
        np.testing.assert_allclose(dm.predict(x).std[:, 0], truth, rtol=1e-9)


@pytest.mark.wide  # against dense algebra: tests/delta/test_unequal_noise.py
@pytest.mark.parametrize("curvature", ["ggn", slow("opg"), slow("hessian"), wide("sandwich")])
def test_estimated_noise_is_given_noise(curvature):
    """A fit with the estimated noise given says the same as the fit that estimated it."""
    model = network(2)
    estimated = fit(model, VALUES, curvature, likelihood="gaussian")
    noise = estimated.fitted_likelihood.noise
    given = fit(model, VALUES, curvature, likelihood=Gaussian(noise, pooled=True))
    ours, theirs = estimated.predict(X), given.predict(X)
    np.testing.assert_allclose(ours.std, theirs.std, rtol=1e-9)
    np.testing.assert_allclose(ours.noise, theirs.noise)
    np.testing.assert_allclose(estimated.stationarity.cost, given.stationarity.cost)


@pytest.mark.wide  # with the noise estimated: tests/delta/test_noise.py
@pytest.mark.parametrize("curvature", [wide("ggn"), "opg"])
def test_bounds_of_a_regression_hold(curvature):
    model, options = network(2), {"likelihood": Gaussian(noise=[0.5, 1.5])}
    truth = fit(model, VALUES, curvature, **options).predict(X)
    lower, upper = fit(model, VALUES, curvature, rank=8, **options).predict(X).std_bounds
    assert np.all((lower <= truth.std) & (truth.std <= upper))
    assert np.median(1 - lower / upper) < 0.2


def test_a_regression_without_degrees_of_freedom_is_refused():
    options = {"likelihood": "gaussian", "weight": None}
    with pytest.raises(InvalidInputError, match=r"parameters fit all observations.*noise=\.\.\."):
        fit(network(1, hidden=20), VALUES[:, 0], l2=1e-9, **options)
    model = network(1)
    exact = model(X).numpy()
    with pytest.raises(InvalidInputError, match="without any error"):
        fit(model, exact, **options)


def test_a_regression_prediction_says_what_it_is():
    prediction = fit(network(2), VALUES, likelihood="gaussian").predict(X)
    assert repr(prediction) == "RegressionPrediction(13 inputs, 2 outputs)"
    frame = prediction.to_frame()
    np.testing.assert_allclose(frame["mean_se_1"], prediction.std[:, 1])
    np.testing.assert_allclose(
        frame["obs_ci_upper_0"], prediction.interval(of="observation")[1][:, 0]
    )
    split = prediction.variance_split()
    np.testing.assert_allclose(split.total, prediction.observation_std**2)
    assert prediction[[0, 3]].noise.shape == (2, 2)
    assert prediction.is_wrong(VALUES) is None
    with pytest.raises(InvalidInputError, match="of='median' is not known"):
        prediction.interval(of="median")


# Several predictions of one input.


def sequence_model(activation=None):
    keras.utils.set_random_seed(2)
    x = keras.Input((5, 2), **F64)
    z = layers.Dense(4, activation="tanh", **F64)(x)
    z = layers.Conv1D(3, 2, padding="same", activation="tanh", **F64)(z)
    return keras.Model(x, layers.Dense(3, activation=activation, **F64)(z))


@pytest.mark.wide  # against dense sums: tests/prediction/test_masked_predictions.py
@pytest.mark.parametrize("curvature", ["ggn", wide("opg"), wide("hessian")])
@pytest.mark.parametrize("weighted", [True, slow(False)])
def test_every_position_is_an_observation(curvature, weighted):
    """A sequence model is its copies that give one position each, on repeated inputs."""
    model, rng = sequence_model("softmax"), np.random.default_rng(0)
    x, y = rng.normal(size=(7, 5, 2)), rng.integers(0, 3, (7, 5))
    weight = rng.uniform(0.2, 2, (7, 5)) if weighted else None
    options = {"rank": "full", "l2": 2.0, "progress": False}
    options |= {"negative_curvature": "keep", "weights": "counts"}
    found = DeltaMethod(model, curvature, batch_size=4, **options).fit(x, y, weight)
    inputs, place = keras.Input((5, 2), **F64), keras.Input((5,), **F64)
    chosen = keras.ops.sum(model(inputs) * place[:, :, None], axis=1)
    single = keras.Model([inputs, place], keras.ops.log(chosen))
    repeated = [np.repeat(x, 5, axis=0), np.tile(np.eye(5), (7, 1))]
    flat = None if weight is None else weight.ravel()
    truth = DeltaMethod(single, curvature, batch_size=18, **options).fit(repeated, y.ravel(), flat)
    prediction, expected = found.predict(x), truth.predict(repeated)
    assert len(prediction) == 35
    np.testing.assert_allclose(prediction.probabilities, expected.probabilities, rtol=1e-9)
    np.testing.assert_allclose(prediction.std, expected.std, rtol=1e-8)
    assert found.n_examples == pytest.approx(35 if weight is None else weight.sum())


# Some classes of many.


@pytest.mark.parametrize("curvature", ["ggn", wide("opg")])
def test_some_classes_have_the_covariance_they_have_among_all(curvature):
    # A tail that is calibrated goes by the share outside of the classes that are asked for.
    dm = plain("six classes", curvature, rank=9, tail="midpoint")
    full = dm.predict(X)
    for classes, k in (("top3", 3), ([4, 1], 2), ("top6", 6)):
        some = dm.predict(X, classes=classes)
        chosen = some.classes
        assert chosen.shape == (N, k)
        if classes == "top3":
            np.testing.assert_array_equal(chosen[:, 0], full.labels)
        n = np.arange(N)[:, None]
        np.testing.assert_allclose(some.probabilities, full.probabilities[n, chosen], rtol=1e-9)
        np.testing.assert_allclose(some.std, full.std[n, chosen], rtol=1e-8)
        np.testing.assert_allclose(some.logit_std, full.logit_std[n, chosen], rtol=1e-8)
        block = full.covariance[n[:, :, None], chosen[:, :, None], chosen[:, None, :]]
        np.testing.assert_allclose(some.covariance, block, rtol=1e-7, atol=1e-14)
        for ours, theirs in zip(some.interval(), full.interval(), strict=True):
            np.testing.assert_allclose(ours, theirs[n, chosen], rtol=1e-8)
        for ours, theirs in zip(some.std_bounds, full.std_bounds, strict=True):
            np.testing.assert_allclose(ours, theirs[n, chosen], rtol=1e-7)
    assert len(some.to_frame()) == N * 6
    assert "SomeClassesPrediction(13 inputs, 6 classes of many)" in repr(some)


@pytest.mark.parametrize("classes", ["top0", "top7", "best", [], [0, 0], [6], [0.5], [[1]]])
def test_classes_that_are_none(classes):
    dm = plain("six classes", rank=9)
    with pytest.raises(InvalidInputError, match=r"are none of this model.*from 0 to 5"):
        dm.predict(X, classes=classes)


def test_classes_are_chosen_from_a_softmax():
    dm = plain("labels")
    with pytest.raises(InvalidInputError, match="classes cannot be chosen"):
        dm.predict(X, classes="top2")


# A loss of the user's own.


def focal(z, y):
    p = tf.gather(tf.nn.softmax(z), y, batch_dims=1)
    return -tf.square(1 - p) * tf.math.log(p)


@pytest.mark.parametrize("curvature", ["opg", slow("hessian")])
def test_a_custom_loss_equals_the_dense_truth(curvature):
    model = network(3)
    truth = Eager(model, X, NUMBERS, lambda z, y: focal(z[None], np.array([y]))[0], WEIGHT)
    dm = fit(model, NUMBERS, curvature, likelihood=focal, l2=2.0, negative_curvature="keep")
    logits, jacobian = truth.jacobian()
    matrix = truth.hessian() if curvature == "hessian" else truth.opg()
    _, expected = covariances(matrix, 2.0, WEIGHT.sum(), jacobian, logits, softmax_mean)
    np.testing.assert_allclose(
        dm.predict(X).covariance, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max()
    )


def test_a_custom_loss_of_another_shape_is_refused_while_it_is_traced():
    """AutoGraph hides what is raised in a trace in an error of its own."""

    def mean(z, y):
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, z))

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    x, y = np.ones((6, 4), "float32"), np.arange(6) % 3
    with pytest.raises(InvalidInputError, match=r"does not give one number an example"):
        DeltaMethod(model, "opg", l2=0.1, likelihood=mean, progress=False).fit(x, y)


def test_a_custom_loss_that_is_not_convex_has_no_ggn():
    model = network(3)
    model.layers[-1].set_weights([10 * w for w in model.layers[-1].get_weights()])
    with pytest.raises(NotPositiveDefiniteError, match="no GGN"):
        fit(model, NUMBERS, likelihood=focal)


# What the outputs are.


@pytest.mark.wide  # the likelihood is read: tests/likelihoods/test_compiled_losses.py
def test_a_compiled_loss_says_what_the_outputs_are():
    for model, y, loss, kind in (
        (network(1, "sigmoid"), LABELS[:, 0], "binary_crossentropy", "Prediction"),
        (network(3, "sigmoid"), LABELS, "binary_crossentropy", "MultiLabelPrediction"),
        (network(2, "sigmoid"), LABELS[:, :2], "mse", "RegressionPrediction"),
        (network(2, "relu"), VALUES, "mean_squared_error", "RegressionPrediction"),
    ):
        model.compile(loss=loss)
        assert type(fit(model, y).predict(X)).__name__ == kind


def test_a_regression_on_a_sigmoid_takes_the_output_itself():
    model = network(1, "sigmoid")
    prediction = fit(model, LABELS[:, 0], likelihood="gaussian").predict(X)
    np.testing.assert_allclose(prediction.mean, model(X).numpy())


@pytest.mark.parametrize(
    ("model", "likelihood", "text"),
    [
        (network(1), "auto", "nothing says what the model's one output is.*'binary'"),
        (network(3, "sigmoid"), "categorical", "does not fit.*a sigmoid.*'multilabel'"),
        (network(3, "softmax"), "multilabel", "does not fit.*a softmax"),
        (network(3, "relu"), "categorical", "neither logits nor a link function.*'Relu'"),
        (network(2), "binary", "needs one output"),
        (network(1), "categorical", "needs two outputs or more.*'binary'"),
        (network(2), Gaussian(noise=[1.0, 2.0, 3.0]), "noise has the wrong length"),
    ],
)
def test_outputs_that_do_not_fit(model, likelihood, text):
    with pytest.raises((InvalidInputError, UnsupportedModelError), match=text):
        fit(model, NUMBERS % 2, likelihood=likelihood)


def test_a_summed_loss_needs_its_rate():
    keras.utils.set_random_seed(0)
    x = keras.Input((D,), **F64)
    model = keras.Model(
        x, layers.Dense(3, kernel_regularizer="l2", bias_regularizer="l2", **F64)(x)
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    model.compile(loss=loss)
    with pytest.raises(UnsupportedModelError, match=r"summed over the batch.*give l2=.*2\S* a / B"):
        fit(model, NUMBERS, l2="auto")
    given = fit(model, NUMBERS, l2=0.3).predict(X)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    np.testing.assert_array_equal(fit(model, NUMBERS, l2=0.3).predict(X).std, given.std)


def test_rates_are_read_as_the_reduction_says():
    """Keras divides by the rows, or by the weights; our cost by the weights."""
    x = keras.Input((D,), **F64)
    l2 = {"kernel_regularizer": keras.regularizers.L2(0.1), "bias_regularizer": "l2"}
    keras.utils.set_random_seed(0)
    model = keras.Model(x, layers.Dense(3, **l2, **F64)(x))
    stds = []
    for reduction, factor in (
        ("sum_over_batch_size", N / WEIGHT.sum()),
        ("mean_with_sample_weight", 1),
    ):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
        model.compile(loss=loss)
        read = fit(model, NUMBERS, l2="auto").predict(X).std
        given = fit(model, NUMBERS, l2={"*kernel": 0.2 * factor, "*bias": 0.02 * factor})
        np.testing.assert_allclose(read, given.predict(X).std, rtol=1e-10)
        stds.append(read)
    assert np.max(np.abs(stds[0] / stds[1] - 1)) > 0.01


@pytest.mark.parametrize("name", [wide("binary"), "labels", wide("soft labels")])
def test_evidence_and_joint_covariances_of_other_labels(name):
    dm = plain(name)
    prediction, joint = dm.predict(X), dm.predict_joint(X)
    n = np.arange(N)
    blocks = joint.covariance[n, :, n]
    np.testing.assert_allclose(blocks, prediction.covariance, rtol=1e-7, atol=1e-14)
    assert np.isfinite(float(dm.log_marginal_likelihood()))


@pytest.mark.parametrize("name", ["binary", "labels", wide("soft labels")])
def test_the_held_out_likelihood_is_that_of_the_predictions(name):
    dm = plain(name)
    prediction, likelihood = dm.predict(X), dm.fitted_likelihood
    labels = likelihood.check_labels(PLAIN[name][2], dm.n_outputs)
    expected = likelihood.log_predictive(prediction.logits, prediction.logit_std**2, labels)
    found = held_out_likelihood(dm._fitted, dm._fitted.problem.data, np.ones(1))
    np.testing.assert_allclose(found, [np.average(expected, weights=WEIGHT)], rtol=1e-9)
