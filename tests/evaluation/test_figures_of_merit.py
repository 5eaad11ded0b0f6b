"""Figures of merit against scikit-learn, SciPy, tensorflow-probability and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics

from deltauq.errors import InvalidInputError
from deltauq.evaluation.coverage import interval_coverage
from deltauq.evaluation.detection import detection, error_aupr
from deltauq.evaluation.metrics import error_auroc, line
from deltauq.evaluation.proper_scores import brier_score, log_loss
from deltauq.evaluation.resampling import bootstrapped


def drawn(seed, n=60, n_classes=4):
    """Logits and labels that follow their probabilities."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, n_classes))
    p = scipy.special.softmax(logits, axis=1)
    return logits, p, np.array([rng.choice(n_classes, p=row) for row in p])


@pytest.mark.quick
@pytest.mark.parametrize("seed", range(3))
def test_areas_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    score = np.round(rng.uniform(size=50), 1)  # with ties
    wrong = rng.uniform(size=50) < score
    expected = sklearn.metrics.average_precision_score(wrong, score)
    assert error_aupr(score, wrong) == pytest.approx(expected)
    assert error_aupr(score, np.zeros(50)) is None
    assert error_aupr(score, np.ones(50)) is None


@pytest.mark.parametrize("seed", range(3))
def test_detection_counts_pairs_and_the_known_ones_above_the_threshold(seed):
    rng = np.random.default_rng(seed)
    known, unknown = rng.normal(size=40).round(1), 1 + rng.normal(size=30).round(1)
    pairs = [(u > k) + 0.5 * (u == k) for u in unknown for k in known]
    found = detection(known, unknown)
    assert found.auroc == pytest.approx(np.mean(pairs))
    thresholds = [t for t in unknown if np.mean(unknown >= t) >= 0.95]
    assert found.fpr95 == pytest.approx(np.mean(known >= max(thresholds)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorflow-probability's import
@pytest.mark.parametrize("seed", range(3))
def test_the_brier_score_and_its_parts_are_those_of_loops_and_of_tfp(seed):
    import tensorflow_probability as tfp

    logits, p, y = drawn(seed)
    found = brier_score(p, y)
    squares = [sum((p[n, c] - (y[n] == c)) ** 2 for c in range(4)) for n in range(60)]
    assert found.value == pytest.approx(np.mean(squares))
    uncertainty, _, reliability = tfp.stats.brier_decomposition(
        y.astype(np.int32), logits.astype(np.float32)
    )
    assert found.uncertainty - 1 == pytest.approx(float(uncertainty), rel=1e-5)  # of p^2 - 2 p_y
    # Its reliability has the variance of p within the groups too, its resolution compares the share
    # of the group's class with those of all classes there.
    shares, resolution, spread, mixed = np.bincount(y, minlength=4) / 60, 0.0, 0.0, 0.0
    for group in range(4):
        rows = p.argmax(axis=1) == group
        for c in range(4) if rows.any() else ():
            centred, came_true = p[rows, c] - p[rows, c].mean(), y[rows] == c
            spread += np.sum(centred**2) / 60
            mixed += np.sum(centred * came_true) / 60
            resolution += np.sum(rows) / 60 * (np.mean(came_true) - shares[c]) ** 2
    assert found.reliability + spread == pytest.approx(float(reliability), rel=1e-5)
    assert found.resolution == pytest.approx(resolution)
    assert found.within == pytest.approx(spread - 2 * mixed)


def test_log_loss_is_scikit_learns_but_for_an_impossible_label():
    _, p, y = drawn(0)
    assert log_loss(p, y) == pytest.approx(sklearn.metrics.log_loss(y, p, labels=range(4)))
    assert log_loss(np.array([[0.0, 1.0], [0.5, 0.5]]), np.array([0, 1])) == np.inf


def test_a_line_is_scipys_and_has_an_intercept():
    rng = np.random.default_rng(0)
    a = rng.uniform(size=(10, 3))
    b = 2 * a + 0.3 + 0.1 * rng.normal(size=a.shape)
    design = np.column_stack([np.ones(30), a.ravel()])
    (intercept, slope), residual, *_ = np.linalg.lstsq(design, b.ravel())
    found = line(a, b)
    np.testing.assert_allclose([found.intercept, found.slope], [intercept, slope])
    assert found.r_squared == pytest.approx(1 - residual[0] / (30 * np.var(b)))


def test_coverage_counts_both_ends_and_the_sides():
    found = interval_coverage(np.zeros(5), np.full(5, 2.0), np.array([-1.0, 0.0, 1.0, 2.0, 3.0]))
    assert (found.share, found.below, found.above, found.width) == (0.6, 0.2, 0.2, 2.0)


def test_a_bootstrap_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrapped(np.mean, values, n_resamples=2000)
    error = values.std() / 20
    expected = values.mean() + error * scipy.stats.norm.ppf([0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.15 * error)
    assert found == bootstrapped(np.mean, values, n_resamples=2000)
    assert found != bootstrapped(np.mean, values, n_resamples=2000, seed=1)


def test_two_scores_are_compared_on_the_same_inputs():
    rng = np.random.default_rng(0)
    wrong = rng.uniform(size=200) < 0.4
    score = wrong + rng.normal(size=200)

    def gap(a, b, truth):
        return error_auroc(a, truth) - error_auroc(b, truth)

    same = bootstrapped(gap, score, 2 * score, wrong, n_resamples=99)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    alone = [bootstrapped(error_auroc, s, wrong, n_resamples=99) for s in (score, score + 0.1)]
    assert alone[0].high - alone[0].low > 0.05  # unpaired, nothing would be zero


def test_resamples_without_an_error_are_counted():
    wrong = np.arange(40) < 1
    found = bootstrapped(error_auroc, np.arange(40.0), wrong, n_resamples=400)
    assert 0.25 < found.n_undefined / 400 < 0.5  # (1 - 1/40)^40 = 0.36
    assert found.low <= found.value == 0.0 <= found.high


SCORE, YES = np.array([0.1, 0.2]), np.array([True, False])
NAN = np.array([np.nan, 0.2])
P = np.array([[0.5, 0.5], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: error_aupr(NAN, YES), "score holds NaN"),
        (lambda: error_aupr(SCORE, YES[:1]), "do not fit each other"),
        (lambda: detection(NAN, SCORE), "known"),
        (lambda: detection(SCORE, P), "unknown is no row of scores"),
        (lambda: brier_score(P * np.nan, YES), "probabilities"),
        (lambda: brier_score(P, np.array([0, 2])), "labels out of range"),
        (lambda: brier_score(P[:1], np.array([0, 1])), "do not fit each other"),
        (lambda: brier_score(2 * P, np.array([0, 1])), "other rows than of probabilities"),
        (lambda: log_loss(P[0], np.array([0, 1])), "do not fit each other"),
        (lambda: line(SCORE, SCORE[:1]), "different shapes"),
        (lambda: line(np.ones(3), np.arange(3)), "no line can be fitted"),
        (lambda: interval_coverage(SCORE, SCORE, NAN), "truth"),
        (lambda: interval_coverage(SCORE, SCORE - 1, SCORE), "end before they begin"),
        (lambda: interval_coverage(SCORE, SCORE, P), "do not fit each other"),
        (lambda: bootstrapped(np.mean, SCORE, P[:1]), "do not fit each other"),
        (lambda: bootstrapped(np.mean), "do not fit each other"),
        (lambda: bootstrapped(error_auroc, SCORE, np.zeros(2)), "not defined on these inputs"),
        (lambda: bootstrapped(np.mean, SCORE, level=1.0), "level"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(call, words):
    with pytest.raises(InvalidInputError, match=words):
        call()
