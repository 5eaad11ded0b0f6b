"""Curves of risk and reliability, against plain loops and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sklearn.calibration
import statsmodels.stats.proportion

from deltauq.errors import InvalidInputError
from deltauq.evaluation.metrics import reliability, risk_coverage


@pytest.fixture(params=range(3))
def scored(request):
    rng = np.random.default_rng(request.param)
    score = rng.uniform(size=50)
    return score, rng.uniform(size=50) < score


@pytest.mark.quick
def test_risk_is_the_error_rate_of_those_kept(scored):
    score, wrong = scored
    curve = risk_coverage(score, wrong)
    for k, (coverage, risk) in enumerate(zip(curve.coverage, curve.risk, strict=True), start=1):
        kept = sorted(range(50), key=lambda i: score[i])[:k]
        assert coverage == pytest.approx(k / 50)
        assert risk == pytest.approx(sum(wrong[i] for i in kept) / k)
    assert curve.area == pytest.approx(sum(curve.risk) / 50)


@pytest.mark.quick
def test_inputs_of_one_score_are_taken_in_every_order_on_average():
    score, wrong = np.array([0.0, 1.0, 1.0, 1.0, 2.0]), np.array([0, 1, 0, 1, 1])
    risks = [
        np.cumsum([wrong[0], *(wrong[list(order)]), wrong[4]]) / np.arange(1, 6)
        for order in itertools.permutations((1, 2, 3))
    ]
    np.testing.assert_allclose(risk_coverage(score, wrong).risk, np.mean(risks, axis=0))


def test_the_order_of_the_inputs_does_not_matter(scored):
    score, wrong = scored
    shuffled = np.random.default_rng(9).permutation(50)
    expected = risk_coverage(score, wrong).risk
    np.testing.assert_allclose(risk_coverage(score[shuffled], wrong[shuffled]).risk, expected)
    assert risk_coverage(wrong, wrong).area < risk_coverage(score, wrong).area
    assert risk_coverage(score, wrong).area < risk_coverage(-score, wrong).area


@pytest.mark.parametrize("n_bins", [1, 5, 10])
def test_reliability_is_that_of_scikit_learn_and_of_a_loop(scored, n_bins):
    probability, came_true = scored
    curve = reliability(probability, came_true, n_bins)
    observed, predicted = sklearn.calibration.calibration_curve(
        came_true, probability, n_bins=n_bins
    )
    np.testing.assert_allclose(curve.observed, observed)
    np.testing.assert_allclose(curve.predicted, predicted)
    gaps = []
    for i in range(n_bins):
        here = [j for j in range(50) if i / n_bins < probability[j] <= (i + 1) / n_bins]
        if here:
            gap = sum(came_true[j] for j in here) - sum(probability[j] for j in here)
            gaps.append(abs(gap))
    assert curve.count.sum() == 50
    assert curve.error == pytest.approx(sum(gaps) / 50)


def test_intervals_of_the_shares_are_wilsons(scored):
    curve = reliability(*scored, 4)
    hits = np.round(curve.observed * curve.count)
    expected = statsmodels.stats.proportion.proportion_confint(hits, curve.count, method="wilson")
    np.testing.assert_allclose([curve.lower, curve.upper], expected, rtol=1e-6, atol=1e-12)


def test_the_ends_of_the_range_have_a_bin():
    curve = reliability(np.array([0.0, 1.0]), np.array([0, 1]))
    assert curve.count.tolist() == [1, 1]
    assert curve.error == 0


@pytest.mark.parametrize("function", [risk_coverage, reliability])
@pytest.mark.parametrize(("a", "b"), [([], []), ([0.1], [0, 1]), ([[0.1]], [[1]])])
def test_arrays_that_do_not_fit_are_refused(function, a, b):
    with pytest.raises(InvalidInputError, match=r"do not fit each other.*\[N\], N > 0"):
        function(a, b)
