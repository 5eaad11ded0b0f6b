"""What the inverse of a curvature comes to outside its leading eigenvectors, measured on inputs.

The variance of a row r of J is nearly inside + tau rest, inside what r has along the eigenvectors
and rest what it has outside, at the L2 rate. How much of the rest the curvature that was left out
takes away, tau, is nearly one number for all inputs and classes, and is measured on some of them by
a few steps of quadrature. The inputs must have played no part in finding the eigenvectors: the
curvature of training inputs is aligned with their own rows, and a tau measured on them is half of
what it is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special

from deltauq.data.batches import Batches
from deltauq.linalg import (
    Asking,
    MeasuredTail,
    Whitening,
    bounding_matrix_forms,
    mapped,
)

__all__ = [
    "LEAST_SHARE",
    "MAX_STEPS",
    "NARROW",
    "PROBES",
    "TailByShare",
    "TailInputs",
    "mean_share",
    "measuring_tail",
    "tail_by_share",
]

Array = npt.NDArray[Any]

#: Random combinations of the rows of all inputs, of which tau is measured.
PROBES = 16

#: Products with the curvature that measuring takes at least and at most, each for all probes.
_MIN_STEPS, MAX_STEPS = 3, 6

#: Ratio of the two quadrature rules up to which no further step is taken.
_SETTLED = 1.5

#: How much more one of the rules may count than the other.
_MOST_UNEVEN = 20.0

#: Relative width up to which a standard error keeps the interval that it certainly lies in.
NARROW = 0.01

#: Shares are no nearer to 0 and 1 than this, and no offset is larger.
LEAST_SHARE, _LARGEST_OFFSET = 1e-12, 60.0


@dataclass(frozen=True)
class TailInputs:
    """The inputs that a tail is measured on.

    Attributes:
        rows: gives the rows of their means `[B, C, P]` in the prior's metric, batch by batch.
        held_out: the training data without them and what they are of it, where they are some of
            these; None where they are other inputs.
        rounding: relative, of a product in the network's precision.
        seed: of the random combinations.
    """

    rows: Callable[[], Iterable[Array]]
    held_out: tuple[Batches, Batches] | None
    rounding: float
    seed: int


@dataclass(frozen=True)
class TailByShare:
    """The tail of an input, by the share of its variance that lies outside the eigenvectors.

    Inputs that are unlike those it was measured on have more outside, and what they have there is
    less curved: logit((tau - least) / (1 - least)) = offset + logit(share) / 2.

    Attributes:
        least: the smallest tail that is possible.
        offset: such that the inputs that it was measured on have the tail that was measured.
        shares: the smallest and the largest share among these.
    """

    least: float
    offset: float
    shares: tuple[float, float]

    def at(self, share: Array, residual: float = 0.0) -> Array:
        """The tail at some shares, and at a residual from what they say."""
        grown = scipy.special.expit(self.logit(share) + residual)
        return np.asarray(self.least + (1.0 - self.least) * grown)

    def logit(self, share: Array) -> Array:
        """What shares say, on the logistic scale."""
        share = np.clip(share, LEAST_SHARE, 1.0 - LEAST_SHARE)
        return np.asarray(self.offset + scipy.special.logit(share) / 2)

    def logit_of_tail(self, tail: Array) -> Array:
        """Tails on the logistic scale, those outside the range at its ends."""
        part = (tail - self.least) / (1.0 - self.least)
        return np.asarray(scipy.special.logit(np.clip(part, LEAST_SHARE, 1.0 - LEAST_SHARE)))

    def is_narrow(self, inside: Array, rest: Array) -> Array:
        """Whether standard errors are known to a percent whatever the tail is.

        Args:
            inside: variances along the eigenvectors.
            rest: what is outside, were the tail one.
        """
        least = inside + self.least * rest
        return np.asarray(least >= (1.0 - NARROW) ** 2 * (inside + rest))

    def is_beyond(self, share: Array) -> Array:
        """Whether shares lie outside the range of the inputs that the tail was measured on."""
        low, high = self.shares
        return np.asarray(~((low <= share) & (share <= high)))


def tail_by_share(measured: MeasuredTail, least: float) -> TailByShare:
    """Fit the offset to what was measured.

    Args:
        measured: at the rate one.
        least: the smallest tail that is certain.
    """
    shares = np.asarray(measured.shares)
    ends = (float(np.min(shares)), float(np.max(shares)))

    def excess(offset: float) -> float:
        return float(shares @ TailByShare(least, offset, ends).at(shares) - wanted * shares.sum())

    wanted = float(np.clip(measured.tau, least, 1.0))
    if not excess(-_LARGEST_OFFSET) < 0.0:
        return TailByShare(least, -_LARGEST_OFFSET, ends)
    if not excess(_LARGEST_OFFSET) > 0.0:
        return TailByShare(least, _LARGEST_OFFSET, ends)
    offset = scipy.optimize.brentq(excess, -_LARGEST_OFFSET, _LARGEST_OFFSET)
    return TailByShare(least, float(offset), ends)


def measuring_tail(
    inputs: TailInputs, vectors: Array, values: Array, *, rate: float, least: float
) -> Asking[MeasuredTail | None]:
    """Measure the tail, asking for products with the curvature without these inputs.

    The forms of random combinations of the rows of all inputs are enclosed (`Whitening`) and
    summed, each row brought to the variance one before.

    Args:
        inputs: that it is measured on.
        vectors: `[P, K]` of the curvature without these inputs.
        values: its eigenvalues.
        rate: u.
        least: the smallest tail that is certain.

    Returns:
        None where there is nothing to measure: rounding hides it, or no row has anything outside.
    """
    whitening = Whitening(vectors, values, inputs.rounding, rate)
    if not whitening.is_seen:
        return None
    probes = _probes(inputs, whitening)
    if probes is None:
        return None
    trail = _Trail(probes, least)
    iteration = bounding_matrix_forms(
        np.ascontiguousarray(whitening(probes.rows).T)[:, None],
        whitening.bounds,
        is_enough=trail,
        max_steps=MAX_STEPS,
    )
    yield from mapped(iteration, whitening, whitening.image)
    return trail.measured(rate, exchangeable=inputs.held_out is None)


class _Probes(NamedTuple):
    """Random combinations of rows.

    Attributes:
        rows: of them, as columns `[P, m]`.
        inside: what all of them together have along the vectors.
        rest: what they have outside.
        shares: of every input, the part of its variance that is outside, `[n]`.
    """

    rows: Array
    inside: float
    rest: float
    shares: Array


def _probes(inputs: TailInputs, whitening: Whitening) -> _Probes | None:
    """Combine the rows of all inputs at random; None where nothing of them is outside."""
    rng = np.random.default_rng([inputs.seed, 3])
    vectors = whitening.vectors
    total, shares = np.zeros((len(vectors), PROBES), vectors.dtype), []
    for rows in inputs.rows():
        inside, rest = whitening.parts(rows.reshape(-1, rows.shape[2]).T)
        whole = inside + rest
        scale = np.where(whole > 0, 1.0 / np.sqrt(np.where(whole > 0, whole, 1.0)), 0.0)
        weights = scale[:, None] * rng.standard_normal((len(scale), PROBES))
        total += rows.reshape(-1, rows.shape[2]).T @ weights.astype(rows.dtype)
        shares.append(mean_share(inside.reshape(rows.shape[:2]), rest.reshape(rows.shape[:2])))
    along, outside = (float(part.sum()) for part in whitening.parts(total))
    seen = np.concatenate(shares)
    seen = seen[np.isfinite(seen)]
    if not (len(seen) and outside > LEAST_SHARE * along):
        return None
    return _Probes(total, along, outside, seen)


def mean_share(inside: Array, rest: Array) -> Array:
    """Mean over the last axis of rest / (inside + rest), without those that are both zero."""
    whole = inside + rest
    counted = whole > 0
    shares = np.where(counted, rest / np.where(counted, whole, 1.0), 0.0)
    count = np.count_nonzero(counted, axis=-1)
    return np.asarray(np.where(count, shares.sum(axis=-1) / np.maximum(count, 1), np.nan))


class _Trail:
    """Follows both rules step by step, and says when they have come close enough."""

    def __init__(self, probes: _Probes, least: float) -> None:
        self._probes, self._least = probes, least
        self._found: list[tuple[float, float]] = []

    def __call__(self, low: Array, high: Array, some: Array) -> Array:
        gauss, radau = (self._tau(end) for end in (low, high))
        self._found.append((gauss, max(radau, gauss)))
        enough = len(self._found) >= _MIN_STEPS and radau <= _SETTLED * gauss
        return np.full(len(some), enough)

    def _tau(self, forms: Array) -> float:
        tau = (float(forms.sum()) - self._probes.inside) / self._probes.rest
        return float(np.clip(tau, self._least, 1.0))

    def measured(self, rate: float, *, exchangeable: bool) -> MeasuredTail:
        """Between the two, nearer to the one that the last step moved less."""
        (low, high), balance = self._found[-1], 1.0
        if len(self._found) > 1:
            before = self._found[-2]
            rise, fall = np.log(low / before[0]), np.log(before[1] / high)
            balance = float(np.clip(rise / max(fall, 1e-12), 1.0 / _MOST_UNEVEN, _MOST_UNEVEN))
        tau = float(np.exp((np.log(low) + balance * np.log(high)) / (1.0 + balance)))
        return MeasuredTail(
            tau,
            low,
            high,
            tuple(float(share) for share in self._probes.shares),
            rate,
            len(self._found),
            exchangeable,
        )
