"""What stands for the eigenvalues that were not computed, and between what it lies."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deltauq.curvature.calibrated_tail import TailByShare, tail_by_share
from deltauq.errors import InvalidInputError
from deltauq.linalg import Eigenpairs, LowRank

__all__ = [
    "Tail",
    "certified_spectra",
    "measured_tail",
    "spectrum_interval",
    "tail_interval",
    "tail_of",
]

Array = npt.NDArray[Any]
Tail = Literal["auto", "calibrated", "midpoint", "l2", "trace", "none"]


def tail_interval(pairs: Eigenpairs) -> tuple[float, float]:
    """Interval [low, high] of the inverse eigenvalues that were left out, in the prior's metric.

    Left-out eigenvalues lie between 0 and rest = min(mu_K, delta), delta the bound on what is left
    out or, where it was not computed, trace - sum mu; or, where pairs of both ends are there,
    between the innermost of them. This takes the computed pairs as exact.
    """
    n_highest = pairs.rank - pairs.n_lowest
    bounds = [max(0.0, float(pairs.values[n_highest - 1])) if n_highest else np.inf]
    if pairs.left_out is not None:
        bounds.append(pairs.left_out.bound)
    elif pairs.remainder is not None:
        bounds.append(pairs.remainder)
    lowest = float(pairs.values[n_highest]) if pairs.n_lowest else 0.0
    return 1.0 / (1.0 + min(bounds)), 1.0 / (1.0 + lowest)


def spectrum_interval(pairs: Eigenpairs, epsilon: float) -> tuple[LowRank, LowRank]:
    """The smallest and the largest covariance, in the prior's metric, that pairs leave possible.

    Certified where it is known what they leave out; otherwise that of `tail_interval`.
    """
    values = pairs.values if pairs.n_lowest else np.maximum(pairs.values, 0.0)
    low, high = tail_interval(pairs)
    weights = 1.0 / (1.0 + values)
    return certified_spectra(pairs, values, epsilon) or (
        LowRank(weights, low),
        LowRank(weights, high),
    )


def certified_spectra(
    pairs: Eigenpairs, values: Array, epsilon: float
) -> tuple[LowRank, LowRank] | None:
    """Bounds of the inverse of M + I from below and from above, M the (projected) curvature.

    A semidefinite M has M^ <= M <= M^ + delta I with M^ = U diag(mu) U^T from a Nystrom sketch,
    converged or not. For the Hessian's projection M_+, which moves by no more than M in the
    Frobenius norm, U diag(mu) U^T - eps I <= M_+ <= U diag(mu) U^T + beta (I - U U^T) + eps I with
    eps = sqrt(2) ||M U - U diag(mu)||_F and beta the bound on M outside U.

    Args:
        pairs: with `left_out`, delta or beta; None where it was not computed.
        values: mu, negative ones left out.
        epsilon: relative rounding of the curvature.
    """
    if pairs.left_out is None:
        return None
    beyond = pairs.left_out.bound
    below = epsilon * float(np.max(pairs.values, initial=0.0))
    above = beyond
    if pairs.smallest is not None:  # the exact Hessian: eps below, eps on U and beta + eps outside
        below += float(np.sqrt(2.0) * np.linalg.norm(pairs.residual_norms))
        above, beyond = below, beyond + below
    # Inverses turn the order around: what M can be at most gives the smallest covariance.
    below = min(below, 1.0 - epsilon)
    return (
        LowRank(1.0 / (1.0 + values + above), 1.0 / (1.0 + beyond)),
        LowRank(1.0 / (1.0 + values - below), 1.0 / (1.0 - below)),
    )


def measured_tail(pairs: Eigenpairs, tail: Tail) -> TailByShare | None:
    """How the tail goes with the share of a variance that is outside, where it was measured."""
    if pairs.tail is None or tail not in ("auto", "calibrated"):
        return None
    return tail_by_share(pairs.tail.at_rate(1.0), tail_interval(pairs)[0])


def tail_of(pairs: Eigenpairs, tail: Tail) -> float:
    """What stands for the inverse eigenvalues that were left out, in the prior's metric.

    Args:
        pairs: in that metric.
        tail: as of `low_rank_covariance`.

    Raises:
        InvalidInputError: "trace" without a trace.
    """
    if tail == "trace":
        if pairs.remainder is None:
            raise InvalidInputError(
                "tail='trace' needs a trace that is known",
                expected="curvature 'opg' or 'ggn', whose trace one pass gives exactly",
                received="the exact Hessian",
                remedy="pass tail='midpoint' or 'l2'",
            )
        mean = pairs.remainder / (pairs.n_params - pairs.rank)
        return max(1.0 / (1.0 + mean), tail_interval(pairs)[0])
    low, high = tail_interval(pairs)
    middle = (low + high) / 2
    if pairs.tail is not None and tail in ("auto", "calibrated"):
        return float(np.clip(pairs.tail.at_rate(1.0).tau, low, high))
    return {"l2": high, "none": 0.0}.get(tail, middle)
