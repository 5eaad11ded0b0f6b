"""What a `Prediction` derives from its covariances, against direct evaluation and sampling."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.special
import scipy.stats

from deltauq import Prediction
from deltauq.errors import InvalidInputError


@pytest.fixture(scope="module")
def prediction():
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(6, 4)) * 2
    root = rng.normal(size=(6, 4, 4)) * 0.1
    return build(logits, root @ np.swapaxes(root, 1, 2))


def build(logits, logit_covariance):
    p = scipy.special.softmax(logits, axis=1)
    slope = np.stack([np.diag(row) - np.outer(row, row) for row in p])
    return Prediction(logits, p, logit_covariance, slope @ logit_covariance @ slope)


def samples(prediction, n, count=200_000):
    rng = np.random.default_rng(1)
    z = rng.multivariate_normal(prediction.logits[n], prediction.logit_covariance[n], count)
    return z, scipy.special.softmax(z, axis=1)


@pytest.mark.quick
def test_standard_errors_are_those_of_samples(prediction):
    """For small logit covariances the linear error is the sampled one."""
    small = build(prediction.logits, prediction.logit_covariance * 0.01)
    for n in range(3):
        _, p = samples(small, n)
        np.testing.assert_allclose(small.std[n], p.std(axis=0), rtol=0.02)


def test_score_is_the_root_of_the_trace(prediction):
    expected = [np.sqrt(np.trace(c)) for c in prediction.covariance]
    np.testing.assert_allclose(prediction.score, expected, rtol=1e-12)


def test_entropy(prediction):
    expected = [scipy.stats.entropy(p) for p in prediction.probabilities]
    np.testing.assert_allclose(prediction.entropy, expected, rtol=1e-12)


def test_mutual_information_is_the_second_order_term(prediction):
    """(1/2) sum_c Var(p_c) / p_c, and close to the sampled H(E p) - E H(p) for small errors."""
    variance = np.einsum("ncc->nc", prediction.covariance)
    expected = 0.5 * np.sum(variance / prediction.probabilities, axis=1)
    np.testing.assert_allclose(prediction.mutual_information, expected, rtol=1e-10)
    small = build(prediction.logits, prediction.logit_covariance * 0.1)
    for n in range(3):
        _, p = samples(small, n)
        sampled = scipy.stats.entropy(p.mean(axis=0)) - np.mean(scipy.stats.entropy(p, axis=1))
        assert small.mutual_information[n] == pytest.approx(sampled, rel=0.1)


def test_mutual_information_of_a_sure_prediction_is_no_difference_of_larger_numbers():
    """Of two classes it is p (1 - p) v, v the variance of each logit: here 1e-17 times v."""
    sure = build(np.array([[0.0, -39.0]]), 0.1 * np.eye(2)[None])
    p = scipy.special.expit(-39.0)
    np.testing.assert_allclose(sure.mutual_information, 0.1 * p * (1 - p), rtol=1e-10)


def test_mutual_information_is_at_most_the_entropy(prediction):
    wide = build(prediction.logits, prediction.logit_covariance * 1e4)
    np.testing.assert_array_equal(wide.mutual_information, wide.entropy)


@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.quick
def test_logit_intervals_are_the_normal_ones_of_the_log_odds(prediction, level):
    lower, upper = prediction.interval(level)
    q = scipy.stats.norm.ppf(0.5 + level / 2)
    odds = scipy.special.logit(prediction.probabilities)
    # d log odds = dp / (p (1 - p)): the delta method once more.
    spread = prediction.std / (prediction.probabilities * (1 - prediction.probabilities))
    np.testing.assert_allclose(lower, scipy.special.expit(odds - q * spread), rtol=1e-9)
    np.testing.assert_allclose(upper, scipy.special.expit(odds + q * spread), rtol=1e-9)


def test_intervals_stay_inside_and_hold_the_probability():
    """Even where a probability rounds to 0 or 1 and errors are huge."""
    logits = np.array([[800.0, 0.0, -800.0], [0.0, 0.0, 0.0], [50.0, -50.0, 1.0]])
    prediction = build(logits, np.broadcast_to(100 * np.eye(3), (3, 3, 3)).copy())
    lower, upper = prediction.interval()
    assert np.all((lower >= 0) & (upper <= 1) & (lower <= upper))
    assert np.all((lower <= prediction.probabilities) & (prediction.probabilities <= upper))
    assert np.all(np.isfinite(lower) & np.isfinite(upper))


def test_normal_intervals_are_symmetric(prediction):
    lower, upper = prediction.interval(0.9, method="normal")
    np.testing.assert_allclose((lower + upper) / 2, prediction.probabilities, atol=1e-14)
    np.testing.assert_allclose(upper - lower, 2 * 1.6448536 * prediction.std, rtol=1e-6)


@pytest.mark.parametrize("level", [0, 1, 95, "0.95", None, np.array([0, 1])])
def test_levels_are_checked(prediction, level):
    with pytest.raises(InvalidInputError, match="level is not between 0 and 1"):
        prediction.interval(level)


def test_difference_test_is_the_z_test_of_the_top_two(prediction):
    test = prediction.difference_test()
    for n in range(3):
        z, _ = samples(prediction, n)
        gap = z[:, test.first[n]] - z[:, test.second[n]]
        assert test.first[n] == prediction.labels[n]
        assert test.std[n] == pytest.approx(gap.std(), rel=0.02)
    np.testing.assert_allclose(test.z, test.difference / test.std)
    np.testing.assert_allclose(test.p_value, 2 * (1 - scipy.stats.norm.cdf(test.z)), atol=1e-12)


def test_difference_test_without_a_difference_or_without_errors():
    prediction = build(np.array([[1.0, 1.0], [2.0, 1.0]]), np.zeros((2, 2, 2)))
    test = prediction.difference_test()
    np.testing.assert_array_equal(test.p_value, [1.0, 0.0])


@pytest.mark.quick
def test_frame_has_one_row_an_input(prediction):
    frame = prediction.to_frame(level=0.9)
    lower, upper = prediction.interval(0.9)
    n = np.arange(6)
    np.testing.assert_array_equal(frame["label"], prediction.labels)
    np.testing.assert_allclose(frame["ci_lower"], lower[n, prediction.labels])
    np.testing.assert_allclose(frame["ci_upper"], upper[n, prediction.labels])
    np.testing.assert_allclose(frame["se"], prediction.std[n, prediction.labels])
    np.testing.assert_allclose(frame[[f"probability_{c}" for c in range(4)]].sum(axis=1), 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_distribution_has_the_moments(prediction):
    z = prediction.distribution().sample(100_000, seed=(1, 2)).numpy()
    np.testing.assert_allclose(z.mean(axis=0), prediction.logits, atol=0.02)
    np.testing.assert_allclose(
        np.einsum("snc,snd->ncd", z - z.mean(axis=0), z - z.mean(axis=0)) / len(z),
        prediction.logit_covariance,
        atol=0.02 * np.max(prediction.logit_covariance),
    )


def test_rows_can_be_chosen(prediction):
    chosen = prediction[[4, 1]]
    np.testing.assert_array_equal(chosen.logits, prediction.logits[[4, 1]])
    assert len(prediction[prediction.labels == prediction.labels[0]]) >= 1
    assert len(prediction[1:3]) == 2


def test_shapes_are_checked_by_machine(prediction):
    with pytest.raises(Exception, match="covariance"):
        dataclasses.replace(prediction, covariance=prediction.covariance[:2])


def test_results_are_frozen(prediction):
    with pytest.raises(dataclasses.FrozenInstanceError):
        prediction.logits = None


def test_the_variance_of_the_labels_is_split(prediction):
    split = prediction.variance_split()
    p = prediction.probabilities
    np.testing.assert_allclose(split.total, p * (1 - p))
    np.testing.assert_allclose(split.epistemic, np.einsum("ncc->nc", prediction.covariance))
    np.testing.assert_allclose(split.epistemic + split.aleatoric, split.total)


@pytest.mark.parametrize("spread", [1, 10, 60])
def test_log_odds_are_those_of_each_class_against_the_others(spread):
    """Class by class: z_c - logsumexp(others), along e_c - q; up to probabilities that are 1."""
    rng = np.random.default_rng(spread)
    logits = spread * rng.normal(size=(20, 5))
    root = rng.normal(size=(20, 5, 5))
    prediction = build(logits, root @ np.swapaxes(root, 1, 2))
    lower, upper = (scipy.special.logit(end) for end in prediction.interval(0.5))
    q = scipy.stats.norm.ppf(0.75)
    for n in range(20):
        for c in range(5):
            others = np.delete(np.arange(5), c)
            odds = logits[n, c] - scipy.special.logsumexp(logits[n, others])
            gradient = np.zeros(5)
            gradient[c] = 1
            gradient[others] = -scipy.special.softmax(logits[n, others])
            std = np.sqrt(gradient @ prediction.logit_covariance[n] @ gradient)
            if abs(odds) + q * std < 30:  # beyond, a probability is 1 to rounding
                np.testing.assert_allclose(lower[n, c], odds - q * std, rtol=1e-6, atol=1e-3)
                np.testing.assert_allclose(upper[n, c], odds + q * std, rtol=1e-6, atol=1e-3)
