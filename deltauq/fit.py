"""The steps of a fit: is this a minimum, which eigenpairs, which L2 rate, how much noise."""

from __future__ import annotations

from dataclasses import replace

from deltauq.cost import Stationarity
from deltauq.errors import ConvergenceWarning, TunedL2Warning, warn
from deltauq.evidence import tune_l2
from deltauq.fitting import Fitted, Settings, solve
from deltauq.linalg import Storage
from deltauq.newton import with_shift
from deltauq.noise import with_unbiased_noise
from deltauq.problem import Problem
from deltauq.regularization import range_of

__all__ = ["fit_problem"]


def fit_problem(
    problem: Problem, settings: Settings, storage: Storage, *, tunes_l2: bool
) -> Fitted:
    """The parameters' covariance of a stated problem.

    Args:
        problem: what is asked.
        settings: how.
        storage: where eigenvectors live.
        tunes_l2: the rates of the problem are only where a search for one starts.
    """
    stationarity = problem.cost.stationarity(problem.network.params.numpy())
    if tunes_l2:
        fitted = _solve_tuned(problem, settings, storage, stationarity)
    else:
        pairs, covariance = solve(problem, settings, storage)
        fitted = Fitted(problem, settings, pairs, covariance, stationarity, 0.0)
    if problem.estimates_noise:
        fitted = with_unbiased_noise(fitted, storage)
    fitted = with_shift(fitted)
    _warn_if_far(fitted)
    return fitted


def _solve_tuned(
    problem: Problem, settings: Settings, storage: Storage, stationarity: Stationarity
) -> Fitted:
    """Choose the L2 rate from eigenpairs at a first one, then again from those at that rate."""
    first = replace(settings, bounds=False)
    pairs, covariance = solve(problem, first, storage)
    _, fitted = tune_l2(Fitted(problem, settings, pairs, covariance, stationarity, 0.0))
    pairs, covariance = solve(fitted.problem, settings, storage)
    tuned, fitted = tune_l2(replace(fitted, pairs=pairs, covariance=covariance))
    warn(tuned.note, TunedL2Warning)
    return fitted


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
