"""What the figures of a fit say against its standard errors: the caveats that follow from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deltauq.curvature.flatness import SMOOTHING
from deltauq.delta.caveats import Caveat, in_order
from deltauq.delta.fitted import Fitted
from deltauq.linalg import Eigenpairs
from deltauq.network.l2 import range_of

__all__ = ["beyond_precision", "judged"]

#: Sum of all eigenvalues in L2 rates, up to which no standard error is a percent from L2's own.
_NOTHING = 0.01

#: Rounding of the largest curvature, in units of the L2 rate, above which L2 has too few digits.
_RESOLUTION = 0.1

#: Machine epsilons of the largest eigenvalue that a smallest one may be off by.
_ROUNDINGS = 1e3


def judged(fitted: Fitted) -> Fitted:
    """A fit with the caveats that follow from its figures, beside those of its computation."""
    found = [_far(fitted), _flat(fitted), _nothing_learned(fitted)]
    if not fitted.known.tells_rounding:  # else pairs would be formed for this alone
        pairs, epsilon = fitted.prior_pairs, fitted.problem.epsilon
        has_l2 = bool(np.all(fitted.problem.rates > 0))
        found += [_saddle(pairs, epsilon) if has_l2 else None, beyond_precision(pairs, epsilon)]
    return replace(fitted, caveats=in_order([*fitted.caveats, *filter(None, found)]))


def _far(fitted: Fitted) -> Caveat | None:
    """Where a step to the minimum would move predictions by more than their standard errors."""
    found = fitted.stationarity
    if not found.is_far:
        return None
    rate = range_of(fitted.problem.rates * fitted.problem.dispersion)
    way_out = (
        f"The L2 rate, {rate}, was chosen after training: train further with it, as diagnose does "
        f"with l2={rate} and polish=True."
        if any(each.subject == "l2" for each in fitted.caveats)
        else f"Check that the L2 rate, {rate}, is what the model was trained with; or train "
        "further, as diagnose does with polish=True."
    )
    return Caveat(
        "minimum",
        "the weights are far from a minimum of the cost (a step to it would move predictions by "
        f"{found.shift_range} of their standard errors)",
        "the weights are far from a minimum of the cost: a step to it would move the predictions "
        f"of training inputs by {found.shift_range} of their standard errors (median), and these "
        f"describe a minimum. The gradient norm is {found.gradient_norm:.3g} (of its parts, data "
        f"{found.data_norm:.3g}, L2 {found.l2_norm:.3g}). {way_out}",
    )


def _saddle(pairs: Eigenpairs, epsilon: float) -> Caveat | None:
    """Where the Hessian of the cost, L2 included, has a negative eigenvalue, which was projected.

    What was found, a Ritz value, is not below the smallest that there is.
    """
    if pairs.smallest is None:
        return None
    top = float(np.max(pairs.values, initial=-pairs.smallest))
    if not pairs.smallest < -1 - _ROUNDINGS * epsilon * top:
        return None
    found = f"the exact Hessian of the data has an eigenvalue of {pairs.smallest:.3g} L2 rates"
    return Caveat(
        "curvature",
        f"the exact Hessian shows no minimum of the cost ({found})",
        f"the exact Hessian shows no minimum of the cost: {found} or below, so that with L2 too it "
        "curves down in some direction. What standard errors say of such directions is a "
        "convention, as negative curvature is taken for none. Train further, by batches, whose "
        "noise leads away from a saddle; raise l2; or take curvature='ggn' or 'opg', which have no "
        "negative eigenvalues.",
    )


def _flat(fitted: Fitted) -> Caveat | None:
    """What a loss that is flat at part of the data makes of standard errors, where it does."""
    flatness, kind = fitted.problem.flatness, fitted.settings.kind
    if flatness is None or kind.is_sandwich or not flatness.matters:
        return None
    flat = f"the loss has a slope and no curvature at {flatness.share} of the training data"
    factor = flatness.factor**2 if kind.made_of_scores else flatness.factor
    sandwich = (
        f"curvature='sandwich' gives standard errors about {factor:.2g} times these"
        if np.isfinite(factor)
        else "curvature='sandwich' is refused"
    )
    return Caveat(
        "loss",
        flat,
        f"{flat}. curvature='{kind.name}' takes it for the negative log-likelihood of the labels, "
        "scale and all: its standard errors are right where it is that (of |e| for labels with "
        f"Laplace noise of scale one), and not otherwise; {sandwich}. For a loss that only "
        f"describes what was minimised, {SMOOTHING}.",
    )


def _nothing_learned(fitted: Fitted) -> Caveat | None:
    """Where the covariance is that of L2 alone, for want of curvature in the data."""
    learned = fitted.known.learned
    if not np.all(fitted.problem.rates > 0) or learned is None or learned > _NOTHING:
        return None
    return Caveat(
        "data",
        "the data say next to nothing of the weights",
        "the data say next to nothing of the weights: all their curvature together is "
        f"{learned:.2g} times the L2 rate, so that the standard errors are those that L2 alone "
        "gives. Either the loss is flat at the training data (probabilities of 0 and 1 to "
        "rounding, or a margin that every example keeps), or the L2 rate is far above what the "
        "data can tell.",
    )


def beyond_precision(pairs: Eigenpairs, epsilon: float) -> Caveat | None:
    """Where the largest curvature leaves L2 without digits of its own.

    Args:
        pairs: in the prior's metric.
        epsilon: the network's machine epsilon.
    """
    largest = float(pairs.values[0]) if pairs.rank else 0.0
    if largest * epsilon <= _RESOLUTION:
        return None
    found = f"the largest curvature is {largest:.1g} times the L2 rate"
    return Caveat(
        "precision",
        f"{found}, of which the model's precision leaves L2 few digits",
        f"{found}, and the model's precision resolves 1 part in {1 / epsilon:.1g}: directions that "
        "L2 matters for drown in rounding. Scale the inputs, raise l2, or build the model in "
        "float64.",
    )
