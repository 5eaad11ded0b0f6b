"""Ways out that errors of predictions name; those about memory are in tests/prediction."""

from __future__ import annotations

from dataclasses import replace

import masked_models
import numpy as np
import pytest
from tiny_methods import X, Y, fit, fitted, network
from ways import stumble

from deltauq import DeltaMethod
from deltauq.evaluation.metrics import risk_coverage

pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")


def test_classes_where_there_are_none():
    found = fit(network(n_outputs=1), y=Y > 0, likelihood="binary")
    with stumble("prediction/directions.py:some_classes", "predict(x) gives all outputs"):
        found.predict(X, classes="top1")
    p = found.predict(X)
    np.testing.assert_allclose(p.mean[:, 1], 1 / (1 + np.exp(-found.model(X)[:, 0])), rtol=1e-9)


def test_bounds_of_a_fit_without_them():
    bare, bounded = (fitted(rank=3, bounds=bounds) for bounds in (False, True))
    joint = bounded.predict_joint(X).mean(np.ones((1, len(X))))
    with stumble("prediction/estimate.py:_unstacked", "pass bounds=True"):
        _ = bare.predict(X).std_bounds
    exact = fitted().predict(X).std
    low, high = bounded.predict(X).std_bounds
    assert np.all((low <= exact) & (exact <= high))
    site = "prediction/group_means.py:GroupMean.std_bounds"
    with stumble(site, "fit with bounds=True"):
        _ = bare.predict_mean(X).std_bounds
    with stumble(site, "call predict_mean(x)"):
        _ = joint.std_bounds
    exact = fitted().predict_mean(X).std
    low, high = bounded.predict_mean(X).std_bounds
    assert np.all((low <= exact) & (exact <= high))


def test_groups_and_scores_of_padding():
    case = masked_models.masking()
    x, valid = case.x.copy(), case.valid.copy()
    x[3], valid[3] = 0.0, False  # an input of padding alone
    case.model.compile(loss=case.model.loss)
    found = DeltaMethod(case.model, "ggn", rank="full", bounds=False, progress=False)
    found.fit(case.x, case.y)
    of_inputs = np.arange(len(x))
    site = "prediction/averaging.py:_refuse_masked"
    groups = np.where(valid, of_inputs[:, None], -1)
    with stumble(site, "give padding the group of its input"):
        found.predict_mean(x, groups)
    with stumble(site, "leave out inputs of padding alone"):
        found.predict_mean(x, of_inputs)
    some = valid.any(axis=1)
    means = found.predict_mean(x[some], of_inputs[some])
    each = found.predict(x[some])
    first = each.mean[: x.shape[1]][valid[some][0]]
    np.testing.assert_allclose(means.mean[0], first.mean(axis=0), rtol=1e-5)
    wrong = np.arange(len(each)) % 2
    with stumble("evaluation/metric_inputs.py:_refuse_nan", "pass prediction.unmasked.score"):
        risk_coverage(each.score, wrong)
    curve = risk_coverage(each.unmasked.score, wrong[~each.masked])
    counted = valid[some].ravel()
    same = risk_coverage(each.score[counted], wrong[counted])
    np.testing.assert_array_equal(curve.risk, same.risk)


def test_weights_whose_squares_leave_float64():
    """Of all of them times a number, the sums times it."""
    tiny = np.linspace(1e-120, 2e-120, len(X))
    site = "data/grouping.py:as_factors"
    with stumble(site, "multiply all of them by one number, and divide the results by it"):
        fitted().predict_mean(X, weights=tiny)
    found, plain = (fitted().predict_mean(X, weights=w) for w in (tiny * 1e120, tiny * 1e121))
    np.testing.assert_allclose(found.std, plain.std / 10, rtol=1e-9)
    groups = fitted().predict_mean(X, groups=Y)
    with stumble(site, "multiply all of them by one number"):
        groups.contrast([1e130, -1e130, 0.0])
    np.testing.assert_allclose(groups.contrast([1.0, -1.0, 0.0]).mean, groups.difference(0, 1).mean)


def test_averages_that_there_are_none_of():
    chosen = fitted().predict(X, classes="top2")
    with stumble("prediction/classes.py:SomeClassesPrediction.predictive", "without classes="):
        chosen.predictive()
    every = fitted().predict(X).predictive()
    np.testing.assert_allclose(every.probabilities.sum(axis=1), 1.0)
    of_two = fit(network(n_outputs=1), y=Y > 0, likelihood="binary").predict(X)
    of_labels = fit(network(), y=np.eye(3)[Y], likelihood="multilabel").predict(X)
    for prediction in (of_two, of_labels):
        with stumble("prediction/predictive.py:_no_bridge", "method='monte_carlo'"):
            prediction.predictive("bridge")
        drawn, probit = (prediction.predictive(method) for method in ("monte_carlo", "probit"))
        np.testing.assert_allclose(drawn.probabilities, probit.probabilities, atol=0.02)
    numbers = fit(network(n_outputs=1), y=X[:, :1], likelihood="gaussian").predict(X)
    with stumble("prediction/predictive.py:refuse_method", "write method='exact'"):
        numbers.to_dict(predictive="probit")
    assert np.all(numbers.to_dict(predictive="exact")["predictive_variance"] > 0)


def test_covariances_that_cannot_be_averaged_over():
    prediction = fitted().predict(X)

    def with_covariance(matrix):
        return replace(prediction, logit_covariance=np.tile(matrix, (len(X), 1, 1)))

    indefinite = with_covariance([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    with stumble("prediction/predictive.py:_root", "method='probit'"):
        indefinite.predictive("monte_carlo")
    usual = with_covariance(np.eye(3)).predictive("probit").probabilities
    np.testing.assert_allclose(indefinite.predictive("probit").probabilities, usual)
    without_third = with_covariance([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    with stumble("prediction/predictive.py:_laplace_bridge", "method='monte_carlo'"):
        without_third.predictive("bridge")
    drawn = without_third.predictive("monte_carlo").probabilities
    np.testing.assert_allclose(drawn.sum(axis=1), 1.0)
