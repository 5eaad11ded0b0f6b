"""Whether intervals hold what they are to hold, and how wide they are for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError
from deltauq.evaluation.metric_inputs import numbers

__all__ = ["IntervalCoverage", "interval_coverage"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class IntervalCoverage:
    """How often intervals held the truth, and their width.

    Attributes:
        share: of the intervals that hold it, their ends included.
        below: share of the truths that lie below their interval.
        above: share of those that lie above.
        width: mean of upper - lower.
    """

    share: float
    below: float
    above: float
    width: float


def interval_coverage(lower: Array, upper: Array, truth: Array) -> IntervalCoverage:
    """Count how often intervals hold the truth.

    Args:
        lower: ends of any shape.
        upper: ends of the same shape, none below `lower`.
        truth: what they are to hold, of the same shape.

    Raises:
        InvalidInputError: shapes that differ, numbers that are not finite, or ends the wrong way
            round.

    >>> import numpy as np
    >>> interval_coverage(np.zeros(4), np.ones(4), np.array([-1.0, 0.0, 0.5, 2.0])).share
    0.5
    """
    low, high, value = numbers("lower", lower), numbers("upper", upper), numbers("truth", truth)
    if not (low.shape == high.shape == value.shape and low.size):
        raise InvalidInputError(
            "lower, upper and truth do not fit each other",
            expected="three arrays of one shape, not empty",
            received=f"{list(low.shape)}, {list(high.shape)} and {list(value.shape)}",
        )
    if not np.all(low <= high):
        raise InvalidInputError(
            "intervals end before they begin",
            expected="lower <= upper everywhere",
            received=f"{np.count_nonzero(low > high)} of {low.size} the other way round",
        )
    return IntervalCoverage(
        share=float(np.mean((low <= value) & (value <= high))),
        below=float(np.mean(value < low)),
        above=float(np.mean(value > high)),
        width=float(np.mean(high - low)),
    )
