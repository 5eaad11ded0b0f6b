"""The steps of a fit: is this a minimum, which eigenpairs, which L2 rate, how much noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deltauq.curvature.cost import DataCost
from deltauq.curvature.flatness import SMOOTHING
from deltauq.delta.covariances import covariance_of, with_meat
from deltauq.delta.fitted import Fitted
from deltauq.delta.marginal_likelihood import tune_l2
from deltauq.delta.minimum_distance import with_shift
from deltauq.delta.noise import with_unbiased_noise
from deltauq.delta.problem import Problem
from deltauq.delta.settings import Settings
from deltauq.delta.solving import solve
from deltauq.errors import ConvergenceWarning, CurvatureWarning, TunedL2Warning, warn
from deltauq.linalg import Storage
from deltauq.network.l2 import range_of

__all__ = ["fit_problem"]

#: Sum of all eigenvalues in L2 rates, up to which no standard error is a percent from L2's own.
_NOTHING = 0.01


def fit_problem(problem: Problem, settings: Settings, storage: Storage) -> Fitted:
    """Compute the parameters' covariance of a stated problem, step by step.

    Args:
        problem: what is asked; where L2 rates are to be chosen, with those to start from.
        settings: how the covariance is to be computed.
        storage: where eigenvectors live.
    """
    measured = problem.cost.measure(problem.network.params.numpy())
    if settings.tunes_l2:
        fitted = _solve_tuned(problem, settings, storage, measured)
    else:
        fitted = _solved(problem, settings, storage, measured)
    if problem.estimates_noise:
        fitted = with_unbiased_noise(fitted)
    fitted = with_shift(with_meat(fitted, storage))
    _warn_if_far(fitted)
    _warn_if_flat(fitted)
    _warn_if_nothing_is_learned(fitted)
    return fitted


def _solve_tuned(
    problem: Problem, settings: Settings, storage: Storage, measured: DataCost
) -> Fitted:
    """Choose the L2 rate from eigenpairs at a first one, then again from those at that rate."""
    # What the search starts from need not be positive definite where negative curvature is kept.
    start = replace(settings, bounds=False, negative_curvature="project")
    first = _solved(problem, start, storage, measured)
    _, fitted = tune_l2(replace(first, settings=settings))
    tuned, fitted = tune_l2(_solved(fitted.problem, settings, storage, measured))
    warn(tuned.note, TunedL2Warning)
    return fitted


def _warn_if_flat(fitted: Fitted) -> None:
    """Say what a loss that is flat at part of the data makes of standard errors, where it does."""
    flatness, kind = fitted.problem.flatness, fitted.settings.kind
    if flatness is None or kind.is_sandwich or not flatness.matters:
        return
    flat = f"the loss has a slope and no curvature at {flatness.share} of the training data"
    factor = flatness.factor**2 if kind.made_of_scores else flatness.factor
    sandwich = (
        f"curvature='sandwich' gives standard errors about {factor:.2g} times these"
        if np.isfinite(factor)
        else "curvature='sandwich' is refused"
    )
    warn(
        f"{flat}. curvature='{kind.name}' takes it for the negative log-likelihood of the labels, "
        "scale and all: its standard errors are right where it is that (of |e| for labels with "
        f"Laplace noise of scale one), and not otherwise; {sandwich}. For a loss that only "
        f"describes what was minimised, {SMOOTHING}.",
        CurvatureWarning,
    )


def _warn_if_nothing_is_learned(fitted: Fitted) -> None:
    """Say when the covariance is that of L2 alone, for want of curvature in the data."""
    pairs = fitted.pairs
    if not np.all(fitted.problem.rates > 0) or (pairs.trace is None and pairs.left_out is None):
        return
    most = pairs.n_params * pairs.left_out.bound if pairs.left_out else np.inf
    left = min(most, np.inf if pairs.remainder is None else pairs.remainder)
    learned = float(np.sum(np.maximum(pairs.values, 0.0))) + left
    if learned > _NOTHING:
        return
    warn(
        "the data say next to nothing of the weights: all their curvature together is "
        f"{learned:.2g} times the L2 rate, so that the standard errors are those that L2 alone "
        "gives. Either the loss is flat at the training data (probabilities of 0 and 1 to "
        "rounding, or a margin that every example keeps), or the L2 rate is far above what the "
        "data can tell.",
        CurvatureWarning,
    )


def _solved(problem: Problem, settings: Settings, storage: Storage, measured: DataCost) -> Fitted:
    """A fit whose covariance is the inverse of the curvature, as yet."""
    pairs = solve(problem, settings, storage)
    covariance = covariance_of(problem, settings, pairs)
    stationarity, _ = measured.beside(problem.rates)
    return Fitted(
        problem, settings, pairs, covariance, stationarity, 0.0, measured.weight, measured
    )


def _warn_if_far(fitted: Fitted) -> None:
    found = fitted.stationarity
    if not found.is_far:
        return
    rates = range_of(fitted.problem.rates * fitted.problem.dispersion)
    warn(
        "the weights are far from a minimum of the cost: a step to it would move the predictions "
        f"of training inputs by {found.shift_range} of their standard errors (median), and these "
        f"describe a minimum. The gradient norm is {found.gradient_norm:.3g} (of its parts, data "
        f"{found.data_norm:.3g}, L2 {found.l2_norm:.3g}). Check that the L2 rate, {rates}, is what "
        "the model was trained with; or train further, as diagnose does with polish=True.",
        ConvergenceWarning,
    )
