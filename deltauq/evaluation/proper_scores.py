"""How right probabilities are by proper scores, which the true probabilities alone make least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.evaluation.metric_inputs import probabilities_and_classes

__all__ = ["BrierScore", "brier_score", "log_loss"]

Array = npt.NDArray[Any]


def log_loss(probabilities: Array, y: Array) -> float:
    """Mean negative log-likelihood of the labels, in nats (NLL).

    Infinite where a class came true that had the probability zero: scikit-learn's `log_loss` would
    put the smallest number in its place.

    Args:
        probabilities: `[N, C]`.
        y: class numbers `[N]`.

    Raises:
        InvalidInputError: other than probabilities, or labels that do not fit them.

    >>> import numpy as np
    >>> log_loss(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 1])).__round__(4)
    0.4904
    """
    p, labels = probabilities_and_classes(probabilities, y)
    with np.errstate(divide="ignore"):
        return float(-np.mean(np.log(p[np.arange(len(p)), labels])))


@dataclass(frozen=True)
class BrierScore:
    """Mean square error of probabilities, and what it is made of.

    Inputs are grouped by the class that is predicted for them, and value = uncertainty - resolution
    + reliability + within.

    Attributes:
        value: mean of sum_c (p_c - [y = c])^2, from 0 to 2: the less the better.
        uncertainty: of the labels, what always saying their shares would have.
        resolution: how far the labels' shares in the groups lie from those of all.
        reliability: how far the mean probabilities in the groups lie from the shares there.
        within: what differs inside the groups: the variance of the probabilities less twice their
            covariance with the labels. Negative where they tell inputs of one group apart.
    """

    value: float
    uncertainty: float
    resolution: float
    reliability: float
    within: float


def brier_score(probabilities: Array, y: Array) -> BrierScore:
    """Measure the mean square error of probabilities, and divide it into its parts.

    The parts sum to the score, which those of `tfp.stats.brier_decomposition` do only where nothing
    differs inside the groups; in version 0.25 its resolution also reads the shares along the wrong
    axis.

    Args:
        probabilities: `[N, C]`.
        y: class numbers `[N]`.

    Raises:
        InvalidInputError: other than probabilities, or labels that do not fit them.

    Source: Murphy 1973, "A new vector partition of the probability score"; Stephenson et al. 2008,
    "Two extra components in the Brier score decomposition".

    >>> import numpy as np
    >>> brier_score(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 1])).value
    0.25
    """
    p, labels = probabilities_and_classes(probabilities, y)
    truth = np.eye(p.shape[1])[labels]
    value = float(np.mean(np.sum((p - truth) ** 2, axis=1)))
    shares = truth.mean(axis=0)
    _, group, count = np.unique(p.argmax(axis=1), return_inverse=True, return_counts=True)
    members = np.eye(len(count))[group].T / count[:, None]
    predicted, observed = members @ p, members @ truth
    weights = count / len(p)
    resolution = float(weights @ np.sum((observed - shares) ** 2, axis=1))
    reliability = float(weights @ np.sum((predicted - observed) ** 2, axis=1))
    uncertainty = float(1 - shares @ shares)
    within = value - (uncertainty - resolution + reliability)
    return BrierScore(value, uncertainty, resolution, reliability, within)
