"""The steps of a fit: is this a minimum, which eigenpairs, which L2 rate, how much noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from deltauq.curvature.cost import DataCost
from deltauq.data.batches import Batch
from deltauq.delta.caveats import Caveat
from deltauq.delta.covariances import covariance_of, with_meat
from deltauq.delta.exact import known_exactly, route_of
from deltauq.delta.fitted import Fitted
from deltauq.delta.judging import judged
from deltauq.delta.known import Known, KnownByPairs
from deltauq.delta.marginal_likelihood import tune_l2
from deltauq.delta.minimum_distance import with_shift
from deltauq.delta.noise import with_unbiased_noise
from deltauq.delta.problem import Problem
from deltauq.delta.settings import Settings
from deltauq.delta.solving import solve
from deltauq.delta.tuned_l2 import TunedL2
from deltauq.linalg import Storage

__all__ = ["fit_problem", "tuned_fit"]

#: Subjects of caveats that depend on the L2 rates.
_OF_RATES = ("minimum", "data", "precision", "l2")


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
    return judged(with_shift(with_meat(fitted, storage)))


def tuned_fit(
    fitted: Fitted, storage: Storage, held_out: Iterable[Batch] | None
) -> tuple[TunedL2, Fitted]:
    """Choose L2 rates for a fit by a criterion, as `tune_l2`, and judge the fit at those."""
    tuned, fitted = _tuned(fitted, held_out)
    return tuned, judged(with_shift(with_meat(fitted, storage)))


def _solve_tuned(
    problem: Problem, settings: Settings, storage: Storage, measured: DataCost
) -> Fitted:
    """Choose the L2 rate from eigenpairs at a first one, then again from those at that rate."""
    # What the search starts from need not be positive definite where negative curvature is kept.
    start = replace(settings, bounds=False, negative_curvature="project")
    first = _solved(problem, start, storage, measured)
    if first.known.is_exact:  # other rates take nothing anew
        return _tuned(replace(first, settings=settings))[1]
    _, fitted = tune_l2(replace(first, settings=settings))
    return _tuned(_solved(fitted.problem, settings, storage, measured))[1]


def _tuned(fitted: Fitted, held_out: Iterable[Batch] | None = None) -> tuple[TunedL2, Fitted]:
    """Choose L2 rates, and note that they were chosen; what was said of others no longer holds."""
    tuned, fitted = tune_l2(fitted, held_out)
    others = tuple(each for each in fitted.caveats if each.subject not in _OF_RATES)
    caveat = Caveat("l2", tuned.in_short, tuned.note)
    return tuned, replace(fitted, caveats=(*others, caveat))


def _solved(problem: Problem, settings: Settings, storage: Storage, measured: DataCost) -> Fitted:
    """A fit whose covariance is the inverse of the curvature, as yet."""
    route = route_of(problem, settings)
    known: Known | None = known_exactly(problem, settings, route, storage)
    caveats: tuple[Caveat, ...] = ()
    if known is None:
        pairs, caveats = solve(problem, settings, storage, dense=route == "dense")
        known = KnownByPairs(pairs, covariance_of(problem, settings, pairs))
    stationarity, _ = measured.beside(problem.rates)
    return Fitted(
        problem,
        settings,
        known,
        stationarity,
        0.0,
        measured.weight,
        measured,
        caveats=caveats,
        route=route,
    )
