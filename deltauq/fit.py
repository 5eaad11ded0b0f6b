"""The steps of a fit: is this a minimum, which eigenpairs, which L2 rate, how much noise."""

from __future__ import annotations

import warnings
from dataclasses import replace

from deltauq.cost import Stationarity
from deltauq.errors import ConvergenceWarning, TunedL2Warning
from deltauq.evidence import tune_l2
from deltauq.fitting import Fitted, Settings, solve
from deltauq.linalg import Storage
from deltauq.noise import with_unbiased_noise
from deltauq.problem import Problem

__all__ = ["fit_problem"]

#: Gradient norm relative to its parts above which a fit warns.
_FAR_FROM_STATIONARY = 0.5


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
        _warn_unless_stationary(stationarity)
        pairs, covariance = solve(problem, settings, storage)
        fitted = Fitted(problem, settings, pairs, covariance, stationarity, 0.0)
    return with_unbiased_noise(fitted, storage) if problem.estimates_noise else fitted


def _solve_tuned(
    problem: Problem, settings: Settings, storage: Storage, stationarity: Stationarity
) -> Fitted:
    """Choose the L2 rate from eigenpairs at a first one, then again from those at that rate."""
    first = replace(settings, bounds=False)
    pairs, covariance = solve(problem, first, storage)
    _, fitted = tune_l2(Fitted(problem, settings, pairs, covariance, stationarity, 0.0))
    pairs, covariance = solve(fitted.problem, settings, storage)
    tuned, fitted = tune_l2(replace(fitted, pairs=pairs, covariance=covariance))
    warnings.warn(tuned.note, TunedL2Warning, stacklevel=4)
    return fitted


def _warn_unless_stationary(stationarity: Stationarity) -> None:
    if stationarity.ratio > _FAR_FROM_STATIONARY:
        warnings.warn(
            "the weights are far from a minimum of the cost: the gradient norm is "
            f"{stationarity.gradient_norm:.3g}, {stationarity.ratio:.0%} of its larger part "
            f"(data {stationarity.data_norm:.3g}, L2 {stationarity.l2_norm:.3g}). The standard "
            "errors describe a minimum; train further (`deltauq.diagnose(..., polish=True)` and "
            "its `apply_polished()` do), or check that l2 is what the model was trained with.",
            ConvergenceWarning,
            stacklevel=4,
        )
