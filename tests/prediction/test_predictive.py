"""Averages over the weights: by formulas written out, by draws, and in every table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from tiny_methods import X, Y, fit, network

from deltauq.errors import InvalidInputError
from deltauq.likelihoods import Categorical
from deltauq.prediction import CountPrediction, MultiLabelPrediction, Prediction, predictive

DRAWS = 100_000
#: Standard errors that two averages may differ by.
SIGMAS = 5


def classes(n_inputs=5, n_classes=4, scale=1.0):
    """Logits whose covariances are singular, as that of C contrasts is."""
    rng = np.random.default_rng(5)
    logits = 2 * rng.normal(size=(n_inputs, n_classes))
    root = scale * rng.normal(size=(n_inputs, n_classes, n_classes - 1))
    covariance = root @ np.swapaxes(root, 1, 2)
    p = scipy.special.softmax(logits, axis=1)
    slope = np.stack([np.diag(row) - np.outer(row, row) for row in p])
    return Prediction(logits, p, covariance, slope @ covariance @ slope)


def labels():
    some = classes()
    p = scipy.special.expit(some.logits)
    slope = np.stack([np.diag(row * (1 - row)) for row in p])
    return MultiLabelPrediction(
        some.logits, p, some.logit_covariance, slope @ some.logit_covariance @ slope
    )


def softmax(z):
    return scipy.special.softmax(z, axis=-1)


KINDS = {"classes": (classes, softmax), "labels": (labels, scipy.special.expit)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.quick
def test_monte_carlo_is_the_average_of_independent_draws(kind):
    """Within the sampling errors of both, to which a wrong covariance is many of them away."""
    make, link = KINDS[kind]
    prediction = make()
    found = prediction.predictive("monte_carlo", seed=3)
    for n, (z, covariance) in enumerate(
        zip(prediction.logits, prediction.logit_covariance, strict=True)
    ):
        drawn = link(np.random.default_rng(11).multivariate_normal(z, covariance, DRAWS))
        error = np.hypot(drawn.std(axis=0) / np.sqrt(DRAWS), found.sampling_error[n])
        assert np.all(np.abs(found.probabilities[n] - drawn.mean(axis=0)) <= SIGMAS * error)
        by_variances = link(
            z + np.sqrt(np.diag(covariance)) * np.random.default_rng(0).normal(size=(DRAWS, len(z)))
        ).mean(axis=0)
        if kind == "classes" and n == 0:  # so that the test would see it
            assert np.any(np.abs(found.probabilities[n] - by_variances) > SIGMAS * error)


def test_its_sampling_error_is_that_of_other_seeds():
    prediction = classes(3)
    each = [prediction.predictive("monte_carlo", samples=50, seed=seed) for seed in range(300)]
    spread = np.std([one.probabilities for one in each], axis=0)
    told = np.sqrt(np.mean([one.sampling_error**2 for one in each], axis=0))
    np.testing.assert_allclose(told, spread, rtol=0.2)  # 1 / sqrt(600) is 4 %


def test_draws_go_by_the_seed_alone(monkeypatch):
    """Neither other inputs nor the memory that is taken at a time changes what one gets."""
    prediction = classes(7)
    whole = prediction.predictive("monte_carlo", samples=101)
    again = prediction.predictive("monte_carlo", samples=101)
    np.testing.assert_array_equal(whole.probabilities, again.probabilities)
    other = prediction.predictive("monte_carlo", samples=101, seed=1)
    assert np.all(whole.probabilities != other.probabilities)
    some = prediction[[5, 2]].predictive("monte_carlo", samples=101)
    np.testing.assert_allclose(some.probabilities, whole.probabilities[[5, 2]], rtol=1e-12)
    monkeypatch.setattr(predictive, "_NUMBERS", 100)  # one input and 25 draws
    small = prediction.predictive("monte_carlo", samples=101)
    np.testing.assert_allclose(small.probabilities, whole.probabilities, rtol=1e-12)
    np.testing.assert_allclose(small.sampling_error, whole.sampling_error, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_probit_is_its_formula(kind):
    make, link = KINDS[kind]
    prediction = make()
    for n, averaged in enumerate(prediction.predictive().probabilities):
        z, variance = prediction.logits[n], np.diag(prediction.logit_covariance[n])
        expected = link(np.array([z[c] / np.sqrt(1 + np.pi * variance[c] / 8) for c in range(4)]))
        np.testing.assert_allclose(averaged, expected, rtol=1e-12)


def test_probit_of_a_model_without_hidden_layer_from_its_weights():
    """The posterior precision is sum_n S_n (x) a_n a_n^T + N lambda I, and all follows from it."""
    found = fit(network(), l2=0.1)
    weights, bias = found.model.get_weights()
    a = np.column_stack([X, np.ones(len(X))])
    z = a @ np.vstack([weights, bias])
    p = softmax(z)
    precision = len(X) * 0.1 * np.eye(15)
    for n, row in enumerate(p):
        precision += np.kron(np.outer(a[n], a[n]), np.diag(row) - np.outer(row, row))
    posterior = np.linalg.inv(precision)
    expected = []
    for n in range(len(X)):
        jacobian = np.kron(a[n], np.eye(3))  # of z_c in W_ic, which stands at 3 i + c
        variance = np.diag(jacobian @ posterior @ jacobian.T)
        expected.append(softmax(z[n] / np.sqrt(1 + np.pi / 8 * variance)))
    averaged = found.predict(X).predictive("probit").probabilities
    np.testing.assert_allclose(averaged, expected, rtol=1e-6)
    assert np.abs(averaged - p).max() > 1e-3  # which is seen


def test_one_sigmoid_is_averaged_as_one():
    """Both methods against the integral over the one logit."""
    found = fit(network(n_outputs=1), y=Y > 0, likelihood="binary", l2=0.02).predict(X)
    z, std = found.logits[:, 1], found.logit_std[:, 1]
    probit = found.predictive().probabilities
    shrunk = scipy.special.expit(z / np.sqrt(1 + np.pi / 8 * std**2))
    np.testing.assert_allclose(probit[:, 1], shrunk, rtol=1e-12)
    np.testing.assert_allclose(probit.sum(axis=1), 1.0)
    drawn = found.predictive("monte_carlo")
    for n in range(3):
        exact, _ = scipy.integrate.quad(
            lambda u, n=n: scipy.special.expit(z[n] + std[n] * u) * scipy.stats.norm.pdf(u), -9, 9
        )
        assert abs(drawn.probabilities[n, 1] - exact) <= SIGMAS * drawn.sampling_error[n, 1]


def test_the_bridge_inverts_the_logits_of_a_dirichlet_distribution():
    """Whose moments are z_c = log alpha_c less the mean, and the published variances."""
    alpha = np.random.default_rng(0).uniform(0.5, 20, size=(6, 5))
    z = np.log(alpha) - np.log(alpha).mean(axis=1, keepdims=True)
    n_classes = alpha.shape[1]
    contrasts = np.eye(n_classes) - 1 / n_classes
    covariance = np.stack([contrasts @ np.diag(1 / row) @ contrasts for row in alpha])
    moved = covariance + 7.0  # what moves all logits alike is not seen
    for logits, spread in ((z, covariance), (z + 3.0, moved)):
        bridged = replace(classes(6, n_classes), logits=logits, logit_covariance=spread)
        expected = alpha / alpha.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(bridged.predictive("bridge").probabilities, expected, rtol=1e-9)


@pytest.mark.parametrize("method", ["probit", "monte_carlo", "bridge"])
def test_what_is_certain_stays_as_it_is(method):
    prediction = classes(scale=0.0)
    averaged = prediction.predictive(method).probabilities
    np.testing.assert_allclose(averaged, prediction.probabilities, rtol=1e-12)


def test_large_numbers_do_not_overflow():
    wide = replace(classes(), logits=1e3 * classes().logits)
    for method in ("probit", "monte_carlo", "bridge"):
        averaged = wide.predictive(method).probabilities
        np.testing.assert_allclose(averaged.sum(axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("method", ["monte_carlo", "bridge"])
def test_logits_that_move_together_are_averaged_as_certain(method):
    """What is left beside their common part is its rounding, of either sign."""
    some = classes()
    common = 1.1 + 1e-9 * np.random.default_rng(2).normal(size=(5, 4))
    covariance = common[:, :, None] * common[:, None, :]
    together = replace(some, logit_covariance=covariance)
    found = together.predictive(method).probabilities
    np.testing.assert_allclose(found, some.probabilities, rtol=1e-12)


def test_held_out_likelihoods_take_the_same_averages():
    prediction = classes()
    variance = prediction.logit_std**2
    found = Categorical().log_predictive(prediction.logits, variance, np.arange(5) % 4)
    averaged = prediction.predictive().probabilities[np.arange(5), np.arange(5) % 4]
    np.testing.assert_allclose(np.exp(found), averaged, rtol=1e-12)


def test_a_regression_has_the_variance_of_an_observation():
    found = fit(network(n_outputs=2), y=X[:, :2], likelihood="gaussian").predict(X)
    mean, variance = found.predictive()
    np.testing.assert_array_equal(mean, found.mean)
    np.testing.assert_allclose(variance, found.observation_std**2, rtol=1e-12)
    assert np.all(variance > found.noise)
    table = found.to_dict(predictive="exact")
    np.testing.assert_array_equal(table["predictive_variance_1"], variance[:, 1])


def test_a_count_is_averaged_over_its_log_rate():
    """Against draws of rates and counts."""
    z, v = np.array([[0.5], [1.5]]), np.array([[[0.2]], [[0.05]]])
    rate = np.exp(z)
    counts = CountPrediction(z, rate, v, v * rate[:, :, None] ** 2, noise=rate)
    mean, variance = counts.predictive()
    rng = np.random.default_rng(0)
    drawn = rng.poisson(np.exp(rng.normal(z[:, 0], np.sqrt(v[:, 0, 0]), size=(400_000, 2))))
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn.mean(axis=0) - mean[:, 0]) <= SIGMAS * error)
    assert np.all(mean[:, 0] - rate[:, 0] > 2 * SIGMAS * error)  # which the rate itself is not
    np.testing.assert_allclose(variance[:, 0], drawn.var(axis=0), rtol=0.02)
    loose = replace(counts, logit_covariance=np.full((2, 1, 1), 2e3))
    assert np.all(np.isinf(loose.predictive().variance))


def test_tables_have_a_column_for_each_average():
    prediction = replace(classes(), masked=np.arange(5) == 1)
    table = prediction.to_dict(predictive="bridge")
    averaged = prediction.predictive("bridge").probabilities[~prediction.masked]
    for c in range(4):
        np.testing.assert_array_equal(table[f"predictive_{c}"], averaged[:, c])
    assert "predictive_0" not in prediction.to_dict()
    assert list(labels().to_frame(predictive="probit").columns)[-1] == "predictive_3"


@pytest.mark.parametrize("prediction", [classes(), labels()], ids=KINDS)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "prbit"}, "write method='probit'"),
        ({"method": "monte_carlo", "samples": 1}, "samples"),
        ({"method": "monte_carlo", "seed": -1}, "seed"),
    ],
)
def test_what_cannot_be_asked_is_refused(prediction, arguments, words):
    with pytest.raises(InvalidInputError, match=words):
        prediction.predictive(**arguments)
