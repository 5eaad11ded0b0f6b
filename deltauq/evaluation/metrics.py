"""Figures of merit: how well standard errors agree, how well scores and probabilities are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats
import sklearn.metrics

from deltauq.errors import InvalidInputError, check_count
from deltauq.evaluation.metric_inputs import numbers, numbers_and_truths

__all__ = [
    "Agreement",
    "Line",
    "Reliability",
    "RiskCoverage",
    "agreement",
    "error_auroc",
    "line",
    "reliability",
    "risk_coverage",
]

Array = npt.NDArray[Any]

#: Bins of a reliability curve, at most: each of them is a point that somebody looks at.
_MOST_BINS = 100_000


@dataclass(frozen=True)
class Agreement:
    """How one set of standard errors follows another, the reference.

    Attributes:
        slope: of the line through the origin, other = slope * reference.
        r_squared: of that line, 1 - residual sum of squares / centred sum of squares.
        spearman: rank correlation.
        median_ratio: median(other) / median(reference).
    """

    slope: float
    r_squared: float
    spearman: float
    median_ratio: float


def agreement(reference: Array, other: Array) -> Agreement:
    """Compare two arrays of standard errors of one shape, flattened.

    Raises:
        InvalidInputError: shapes that differ.

    >>> import numpy as np
    >>> agreement(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])).slope
    2.0
    """
    a, b = _to_compare(reference, other)
    with np.errstate(over="ignore"):
        squares = np.array([a @ a, a @ b, b @ b])
    if not np.all(np.isfinite(squares)):
        raise InvalidInputError(
            "the standard errors to compare are too large",
            expected="numbers whose squares float64 holds",
            received=f"{np.max(np.abs([a, b])):g}, the largest of them",
        )
    slope = float(a @ b / (a @ a))
    return Agreement(
        slope=slope,
        r_squared=float(sklearn.metrics.r2_score(b, slope * a)),
        spearman=float(scipy.stats.spearmanr(a, b).statistic),
        median_ratio=float(np.median(b) / np.median(a)),
    )


@dataclass(frozen=True)
class Line:
    """The least-squares line of one set of standard errors on another, the reference.

    Attributes:
        slope: of other = intercept + slope * reference.
        intercept: of that line, in the unit of the standard errors.
        r_squared: of that line, the square of Pearson's correlation.
    """

    slope: float
    intercept: float
    r_squared: float


def line(reference: Array, other: Array) -> Line:
    """Fit a line with an intercept to two arrays of standard errors of one shape, flattened.

    Args:
        reference: of any shape, not all alike.
        other: of the same shape.

    Raises:
        InvalidInputError: shapes that differ, or a reference that is one number throughout.

    Source: the comparison with a bootstrap of Nilsen et al., arXiv 2107.01606.

    >>> import numpy as np
    >>> line(np.array([1.0, 2.0, 3.0]), np.array([3.0, 5.0, 7.0])).intercept
    1.0
    """
    a, b = _to_compare(reference, other)
    if np.ptp(a) == 0:
        raise InvalidInputError(
            "no line can be fitted: all standard errors of the reference are one number",
            expected="at least two different ones",
            received=f"{a.size} times {a[0]:g}",
        )
    fit = scipy.stats.linregress(a, b)
    return Line(float(fit.slope), float(fit.intercept), float(fit.rvalue**2))


def _to_compare(reference: Array, other: Array) -> tuple[Array, Array]:
    """Two arrays of finite numbers of one shape, flattened."""
    first, second = numbers("reference", reference), numbers("other", other)
    if first.shape != second.shape or not first.size:
        raise InvalidInputError(
            "the standard errors to compare have different shapes, or there are none",
            expected=str(first.shape),
            received=str(second.shape),
        )
    return np.ravel(first), np.ravel(second)


def error_auroc(score: Array, wrong: Array) -> float | None:
    """Probability that a misclassified input has a higher score than a well classified one.

    Args:
        score: `[N]`, higher means less sure.
        wrong: whether each input was misclassified `[N]`.

    Returns:
        AUROC in [0, 1]; None where all inputs are right, or all wrong.

    Raises:
        InvalidInputError: shapes that differ, no input, or a score that is NaN, as of masked
            predictions.
    """
    score, wrong = numbers_and_truths("score", score, "wrong", wrong)
    if wrong.all() or not wrong.any():
        return None
    return float(sklearn.metrics.roc_auc_score(wrong, score))


@dataclass(frozen=True)
class RiskCoverage:
    """The error rate among the inputs that are kept when the most uncertain ones are set aside.

    Attributes:
        coverage: share of the inputs that is kept, 1/N, 2/N, ... 1 `[N]`.
        risk: share of those that is misclassified `[N]`.
    """

    coverage: Array
    risk: Array

    @property
    def area(self) -> float:
        """Mean risk over all coverages: the less the better (AURC)."""
        return float(np.mean(self.risk))


def risk_coverage(score: Array, wrong: Array) -> RiskCoverage:
    """How the error rate falls as inputs are set aside by their score, the highest first.

    Inputs of one score are taken in random order: the risk is its expectation.

    Args:
        score: `[N]`, higher means less sure.
        wrong: whether each input was misclassified `[N]`.

    Raises:
        InvalidInputError: shapes that differ, no input, or a score that is NaN.

    Source: Geifman and El-Yaniv 2017, arXiv 1705.08500, section 2.

    >>> import numpy as np
    >>> risk_coverage(np.array([0.1, 0.3, 0.2, 0.4]), np.array([0, 1, 0, 1])).risk.tolist()
    [0.0, 0.0, 0.3333333333333333, 0.5]
    """
    score, wrong = numbers_and_truths("score", score, "wrong", wrong)
    _, group, count = np.unique(score, return_inverse=True, return_counts=True)
    shared = np.bincount(group, wrong) / count
    kept = np.arange(1, len(score) + 1)
    return RiskCoverage(kept / len(score), np.cumsum(np.repeat(shared, count)) / kept)


@dataclass(frozen=True)
class Reliability:
    """How often what was given a probability came true, bin by bin; empty bins are left out.

    Attributes:
        predicted: mean probability in each bin `[B]`.
        observed: share that came true `[B]`.
        count: how many there are `[B]`.
        lower: lower end of the 95 % interval of `observed`, Wilson's for a proportion `[B]`.
        upper: its upper end `[B]`.
    """

    predicted: Array
    observed: Array
    count: Array
    lower: Array
    upper: Array

    @property
    def error(self) -> float:
        """Expected calibration error: mean |observed - predicted|, weighted by the counts."""
        return float(np.average(np.abs(self.observed - self.predicted), weights=self.count))


def reliability(probability: Array, came_true: Array, n_bins: int = 10) -> Reliability:
    """Compare probabilities with frequencies in bins of equal width, (a, b].

    Args:
        probability: `[N]`, in [0, 1].
        came_true: whether each came true `[N]`.
        n_bins: of equal width over [0, 1].

    Raises:
        InvalidInputError: shapes that differ, no input, or no bin.

    Source: Guo et al. 2017, arXiv 1706.04599, equations 2 and 3.

    >>> import numpy as np
    >>> reliability(np.array([0.05, 0.95, 0.91]), np.array([0, 1, 0])).count.tolist()
    [1, 2]
    """
    probability, came_true = numbers_and_truths("probability", probability, "came_true", came_true)
    if not np.all((probability >= 0) & (probability <= 1)):
        raise InvalidInputError(
            "probability holds other numbers than probabilities",
            expected="numbers from 0 to 1",
            received=f"values from {probability.min():g} to {probability.max():g}",
        )
    if check_count("n_bins", n_bins) > _MOST_BINS:
        raise InvalidInputError(
            "n_bins is too large", expected=f"at most {_MOST_BINS:,} bins", received=f"{n_bins:,}"
        )
    place = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], probability)
    counts = np.bincount(place, minlength=n_bins)
    used, n = counts > 0, counts[counts > 0]
    predicted, hits = (
        np.bincount(place, weights, minlength=n_bins)[used] for weights in (probability, came_true)
    )
    ends = [
        scipy.stats.binomtest(round(k), int(of)).proportion_ci(method="wilson")
        for k, of in zip(hits, n, strict=True)
    ]
    lower, upper = (np.array([getattr(end, name) for end in ends]) for name in ("low", "high"))
    return Reliability(predicted / n, hits / n, n, lower, upper)
