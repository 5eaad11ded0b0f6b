"""The stages of a fit: what is to come once its route is known, and what each of them is for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from deltauq.curvature import CurvatureOperator
from deltauq.curvature.eigenpairs import automatic_ranks
from deltauq.curvature.gram import Gram
from deltauq.curvature.stages import diagonalising, factoring, forming, pair_stages
from deltauq.delta.calibration import CALIBRATION
from deltauq.delta.exact import by_cholesky, training_rows
from deltauq.delta.minimum_distance import comparing
from deltauq.delta.problem import Problem
from deltauq.delta.routes import Route
from deltauq.delta.sampled_effective_parameters import sampling
from deltauq.delta.settings import Settings
from deltauq.delta.solving import make_operator, measures_tail, needs_meat, vector_room
from deltauq.linalg import Storage
from deltauq.prediction.forms import FormByInverse
from deltauq.runtime.stages import Stage

__all__ = ["SEARCH", "measuring", "outline"]

#: The search for the L2 rate, once eigenvalues are known.
SEARCH = Stage("the search for the L2 rate", "the one that makes the labels most probable")


def measuring(n_examples: int) -> Stage:
    """Measuring the cost, in a pass before anything is known of how long passes take."""
    return Stage("the cost", "are the weights at a minimum?", parts=n_examples)


def outline(problem: Problem, settings: Settings, route: Route, storage: Storage) -> list[Stage]:
    """The stages of a fit after the route is chosen, in their order.

    Args:
        problem: what is asked.
        settings: how.
        route: that is gone.
        storage: where eigenvectors live.
    """
    stages = list(_of_route(problem, settings, route, storage))
    if settings.tunes_l2:
        stages.append(SEARCH)
    if needs_meat(problem, settings):
        stages += _of_meat(problem, settings, route, storage)
    columns = _columns(problem, settings, route, storage)
    count = FormByInverse.sample if route == "gram" else CALIBRATION
    return [*stages, comparing(problem, columns, count)]


def _of_route(
    problem: Problem, settings: Settings, route: Route, storage: Storage
) -> Iterator[Stage]:
    """The stages that lead to an inverse of the curvature."""
    if route == "gram":
        yield from _of_rows(problem, settings)
        return
    operator = make_operator(problem, settings.kind.bread)
    if route == "dense":
        yield forming(operator)
        if problem.estimates_noise or not by_cholesky(problem, settings):
            yield diagonalising(operator.shape[0])
        return
    yield from pair_stages(
        operator,
        _ranks(operator, settings, storage),
        bounds=settings.bounds,
        tail=measures_tail(problem, settings, settings.rank),
    )
    if problem.estimates_noise and not operator.positive_semidefinite:
        yield sampling(operator)


def _of_rows(problem: Problem, settings: Settings) -> Iterator[Stage]:
    """Inner products of rows, once more in float64 where float32 does not tell enough."""
    rows, precision = training_rows(problem, settings), problem.network.dtype
    yield from rows.stages(precision)
    if problem.estimates_noise:
        yield diagonalising(rows.n_rows)
    elif precision != "float64":
        yield factoring(rows.n_rows)
    if precision != "float64":
        again = rows.stages("float64")
        again = again[1:] if len(again) == 2 else again  # all rows are still in memory
        yield from (replace(each, at_most=True) for each in again)


def _of_meat(
    problem: Problem, settings: Settings, route: Route, storage: Storage
) -> Iterator[Stage]:
    """Eigenpairs of the meat of a sandwich: as many as its bread has."""
    kind = settings.kind.meat_or_bread
    operator = make_operator(problem.of_scores if issubclass(kind, Gram) else problem, kind)
    if route == "dense":
        yield forming(operator)
        yield diagonalising(operator.shape[0])
        return
    ranks = _ranks(make_operator(problem, settings.kind.bread), settings, storage)
    for each in pair_stages(operator, ranks[-1:], bounds=settings.bounds):
        yield replace(each, at_most=each.at_most or settings.rank == "auto")


def _columns(problem: Problem, settings: Settings, route: Route, storage: Storage) -> int:
    """How many columns the covariance will be held in, at most."""
    kind = settings.kind.bread
    if route == "gram":
        each = kind.rows_per_example(problem.likelihood, problem.n_outputs)
        return problem.training_set.n_rows * each
    if route == "dense":
        return problem.network.n_params
    return _ranks(make_operator(problem, kind), settings, storage)[-1]


def _ranks(operator: CurvatureOperator, settings: Settings, storage: Storage) -> list[int]:
    """The ranks that may be tried one after the other."""
    if isinstance(settings.rank, int):
        return [settings.rank]
    return automatic_ranks(operator, vector_room(settings, storage))
