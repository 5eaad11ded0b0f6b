"""What an uncertainty finds: misclassified inputs, and inputs of another kind than those known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn.metrics

from deltauq.errors import InvalidInputError
from deltauq.evaluation.metric_inputs import numbers, numbers_and_truths

__all__ = ["Detection", "detection", "error_aupr"]

Array = npt.NDArray[Any]

#: Share of the unknown inputs that must be found, in the second figure of `Detection`.
_FOUND = 0.95


def error_aupr(score: Array, wrong: Array) -> float | None:
    """Area under the curve of precision and recall of a score that looks for errors.

    Unlike AUROC it depends on how many errors there are: a score that knows nothing has their
    share.

    Args:
        score: `[N]`, higher means less sure.
        wrong: whether each input was misclassified `[N]`.

    Returns:
        Average precision in [0, 1]; None where all inputs are right, or all wrong.

    Raises:
        InvalidInputError: shapes that differ, no input, or a score that is NaN.

    >>> import numpy as np
    >>> error_aupr(np.array([0.1, 0.3, 0.2, 0.4]), np.array([0, 1, 0, 1]))
    1.0
    """
    score, wrong = numbers_and_truths("score", score, "wrong", wrong)
    if wrong.all() or not wrong.any():
        return None
    return float(sklearn.metrics.average_precision_score(wrong, score))


@dataclass(frozen=True)
class Detection:
    """How well a score tells inputs of another kind from inputs like those that were trained on.

    Attributes:
        auroc: probability that an unknown input has a higher score than a known one.
        fpr95: share of the known inputs that are taken for unknown where the threshold finds 95 %
            of the unknown ones: the less the better.
    """

    auroc: float
    fpr95: float


def detection(known: Array, unknown: Array) -> Detection:
    """Measure how a score tells unknown inputs (out of distribution) from known ones.

    Args:
        known: scores of inputs like those that were trained on `[N]`, higher means less sure.
        unknown: scores of others `[M]`.

    Raises:
        InvalidInputError: no row of scores, or one that is NaN.

    Source: Hendrycks and Gimpel 2017, arXiv 1610.02136; Liang et al. 2018, arXiv 1706.02690.

    >>> import numpy as np
    >>> detection(np.array([0.1, 0.2, 0.3]), np.array([0.25, 0.9])).fpr95
    0.3333333333333333
    """
    inside, outside = numbers("known", known), numbers("unknown", unknown)
    for name, values in (("known", inside), ("unknown", outside)):
        if values.ndim != 1 or not len(values):
            raise InvalidInputError(
                f"{name} is no row of scores",
                expected="an array [N], N > 0",
                received=str(list(values.shape)),
            )
    score = np.concatenate([inside, outside])
    is_unknown = np.arange(len(score)) >= len(inside)
    found, threshold = np.ceil(_FOUND * len(outside)), np.sort(outside)[::-1]
    return Detection(
        auroc=float(sklearn.metrics.roc_auc_score(is_unknown, score)),
        fpr95=float(np.mean(inside >= threshold[int(found) - 1])),
    )
