"""The steps of a fit: is this a minimum, which eigenpairs, which L2 rate, how much noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from deltauq.curvature.cost import DataCost
from deltauq.data.batches import Batch
from deltauq.delta.caveats import Caveat
from deltauq.delta.covariances import covariance_of, with_meat
from deltauq.delta.exact import in_enough_precision, known_exactly, route_of
from deltauq.delta.fitted import Fitted
from deltauq.delta.judging import judged
from deltauq.delta.known import Known, KnownByPairs
from deltauq.delta.marginal_likelihood import tune_l2, with_l2_times
from deltauq.delta.minimum_distance import with_shift
from deltauq.delta.noise import with_unbiased_noise
from deltauq.delta.outline import SEARCH, measuring, outline
from deltauq.delta.problem import Problem
from deltauq.delta.routes import Route
from deltauq.delta.settings import Settings
from deltauq.delta.solving import needs_meat, solve
from deltauq.delta.tuned_l2 import TunedL2
from deltauq.errors import NumericalError
from deltauq.linalg import Eigenpairs, Storage

__all__ = ["fit_problem", "tuned_fit"]

#: Subjects of caveats that depend on the L2 rates.
_OF_RATES = ("minimum", "data", "precision", "l2")

_TAIL_OF_OTHER_RATES = Caveat(
    "tail",
    "the tail was measured at other L2 rates",
    "the tail was measured at the L2 rates of fit, and is carried over as if all that the "
    "eigenpairs leave out had one curvature; where it could not be seen at those, the middle of "
    "what is possible stands in its place. std_bounds hold. Fit again with l2=... the rate that "
    "was chosen, or refine(x) for chosen inputs.",
)


def fit_problem(
    problem: Problem,
    settings: Settings,
    storage: Storage,
    *,
    tell_route: Callable[[Route], None] = lambda route: None,
) -> Fitted:
    """Compute the parameters' covariance of a stated problem, step by step.

    Args:
        problem: what is asked; where L2 rates are to be chosen, with those to start from.
        settings: how the covariance is to be computed.
        storage: where eigenvectors live.
        tell_route: is told the route before it is gone.
    """
    stages = problem.training_set.listener.stages
    stages.begin(measuring(problem.training_set.n_rows))
    measured = problem.cost.measure(problem.network.params.numpy())
    solved = partial(_solved, storage=storage, measured=measured, tell_route=tell_route)
    find = partial(_solve_tuned, solved=solved) if settings.tunes_l2 else solved
    fitted = find(problem, settings)
    if problem.estimates_noise:
        fitted = with_unbiased_noise(fitted)
    return judged(with_shift(with_meat(fitted, storage)))


def tuned_fit(
    fitted: Fitted, storage: Storage, held_out: Iterable[Batch] | None
) -> tuple[TunedL2, Fitted]:
    """Choose L2 rates for a fit by a criterion, as `tune_l2`, and judge the fit at those."""
    measures = fitted.settings.measures_tail and not fitted.known.is_exact
    tuned, fitted = _tuned(fitted, held_out)
    if measures and not needs_meat(fitted.problem, fitted.settings):
        others = (each for each in fitted.caveats if each.subject != "tail")
        fitted = replace(fitted, caveats=(*others, _TAIL_OF_OTHER_RATES))
    return tuned, judged(with_shift(with_meat(fitted, storage)))


def _solve_tuned(problem: Problem, settings: Settings, solved: Callable[..., Fitted]) -> Fitted:
    """Choose the L2 rate by the curvature, whose eigenpairs are the same at any.

    Their number grows, and bounds are sought, as the rate that they choose asks for. That of an
    indefinite curvature needs all of them.
    """
    start = settings
    if not settings.kind.bread.positive_semidefinite:
        # What the search starts from need not be positive definite where negative curvature is kept
        start = replace(settings, negative_curvature="project")
    first = solved(problem, start, chooses_rates=True)
    problem.training_set.listener.stages.begin(SEARCH)
    return _tuned(replace(first, settings=settings))[1]


def _tuned(fitted: Fitted, held_out: Iterable[Batch] | None = None) -> tuple[TunedL2, Fitted]:
    """Choose L2 rates, and note that they were chosen; what was said of others no longer holds."""
    tuned, found = tune_l2(fitted, held_out)
    finer = in_enough_precision(found)
    if finer is not found:  # nor are the eigenvalues that chose the rates told from rounding
        tuned, found = tune_l2(with_l2_times(finer, 1.0 / tuned.factor), held_out)
    others = tuple(each for each in found.caveats if each.subject not in _OF_RATES)
    caveat = Caveat("l2", tuned.in_short, tuned.note)
    return tuned, replace(found, caveats=(*others, caveat))


def _solved(
    problem: Problem,
    settings: Settings,
    *,
    storage: Storage,
    measured: DataCost,
    tell_route: Callable[[Route], None],
    chooses_rates: bool = False,
) -> Fitted:
    """A fit whose covariance is the inverse of the curvature, as yet.

    Args:
        problem: what is asked.
        settings: how.
        storage: where eigenvectors live.
        measured: the data's part of the cost.
        tell_route: as for `fit_problem`.
        chooses_rates: the rates are no more than a beginning: others are chosen by the pairs.
    """
    route = route_of(problem, settings)
    tell_route(route)
    problem.training_set.listener.stages.plan(outline(problem, settings, route, storage))
    known: Known | None = known_exactly(problem, settings, route, storage)
    caveats: tuple[Caveat, ...] = ()
    stationarity, _ = measured.beside(problem.rates)

    def fitted(known: Known) -> Fitted:
        return Fitted(
            problem, settings, known, stationarity, 0.0, measured.weight, measured, route=route
        )

    if known is not None:
        found = fitted(known)
        return found if chooses_rates else in_enough_precision(found)

    def by(pairs: Eigenpairs) -> KnownByPairs:
        return KnownByPairs(pairs, covariance_of(problem, settings, pairs))

    pairs, caveats = solve(
        problem,
        settings,
        storage,
        dense=route == "dense",
        factor_of=(lambda pairs: _factor(fitted(by(pairs)))) if chooses_rates else None,
    )
    return replace(fitted(by(pairs)), caveats=caveats)


def _factor(fitted: Fitted) -> float:
    """The factor on the L2 rates that some eigenpairs choose, 1 where they cannot tell yet."""
    try:
        return tune_l2(fitted)[0].factor
    except NumericalError:  # the last pairs of all are asked once more, and refused
        return 1.0
