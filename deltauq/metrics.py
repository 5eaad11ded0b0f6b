"""Figures of merit: how well two sets of standard errors agree, how well a score finds errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats
import sklearn.metrics

from deltauq.errors import InvalidInputError

__all__ = ["Agreement", "agreement", "error_auroc"]

Array = npt.NDArray[Any]


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
    if np.shape(reference) != np.shape(other):
        raise InvalidInputError(
            "the standard errors to compare have different shapes",
            expected=str(np.shape(reference)),
            received=str(np.shape(other)),
        )
    a, b = np.ravel(reference), np.ravel(other)
    slope = float(a @ b / (a @ a))
    return Agreement(
        slope=slope,
        r_squared=float(sklearn.metrics.r2_score(b, slope * a)),
        spearman=float(scipy.stats.spearmanr(a, b).statistic),
        median_ratio=float(np.median(b) / np.median(a)),
    )


def error_auroc(score: Array, wrong: Array) -> float | None:
    """Probability that a misclassified input has a higher score than a well classified one.

    Args:
        score: `[N]`, higher means less sure.
        wrong: whether each input was misclassified `[N]`.

    Returns:
        AUROC in [0, 1]; None where all inputs are right, or all wrong.
    """
    wrong = np.asarray(wrong, bool)
    if wrong.all() or not wrong.any():
        return None
    return float(sklearn.metrics.roc_auc_score(wrong, score))
