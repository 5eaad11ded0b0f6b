"""The routes of a fit: which one it takes, and the covariance by those that leave nothing out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature import CurvatureOperator
from deltauq.curvature.dense_inverse import DenseInverse
from deltauq.curvature.eigenpairs import AUTO_DENSE_LIMIT, DENSE_LIMIT, EIGEN_LIMIT
from deltauq.curvature.gram import Gram
from deltauq.curvature.row_layout import row_work
from deltauq.curvature.row_matrix import matrix_work
from deltauq.curvature.rows_inverse import RowsInverse
from deltauq.curvature.solver_kinds import solver_of
from deltauq.curvature.stages import diagonalising, factoring, forming
from deltauq.curvature.training_rows import TrainingRows
from deltauq.delta.calibration import calibration_inputs
from deltauq.delta.fitted import Fitted
from deltauq.delta.known import KnownByInverse, KnownByPairs
from deltauq.delta.problem import Problem
from deltauq.delta.routes import ROUTE_RANK, Route, Work, choose_route
from deltauq.delta.settings import Settings
from deltauq.delta.solving import make_operator, needs_meat
from deltauq.errors import InvalidInputError, MemoryLimitError
from deltauq.linalg import Storage
from deltauq.runtime.memory import free_memory, gib

__all__ = [
    "automatic_route",
    "by_cholesky",
    "in_enough_precision",
    "known_exactly",
    "route_of",
    "routes_missing",
    "training_rows",
    "work_of",
]

#: Training inputs on which it is seen whether float32 tells enough.
_PROBED = 8

#: Square matrices in float64 that an exact route holds at a time.
_MATRICES = 3


def route_of(problem: Problem, settings: Settings) -> Route:
    """The route that a fit takes: the one that is forced, or the cheapest that does.

    Raises:
        InvalidInputError: a route is forced that this fit has not.
        MemoryLimitError: nothing may be left out, and no exact route fits in memory.
    """
    kind, forced = settings.kind.bread, settings.route
    by_pairs = "sketch" if solver_of(kind).products_per_pair is None else "lanczos"
    meat = needs_meat(problem, settings)
    without = routes_missing(kind, problem.network.n_params, problem.rates, is_sandwich=meat)
    if forced != "auto":
        route = _forced(settings, by_pairs, without)
        _refuse_without_room(route, problem, settings)
        return route
    if not isinstance(settings.rank, str):
        return Route(by_pairs, f"rank={settings.rank:,} asks for leading eigenpairs")

    def work() -> Work:
        data = problem.training_set
        return work_of(make_operator(problem, kind), data.n_rows, problem.n_outputs)

    exact, free = settings.rank == "full", free_memory(settings.memory_limit)
    return automatic_route(problem.network.n_params, work, exact=exact, free=free, without=without)


def automatic_route(
    n_params: int, work: Callable[[], Work], *, exact: bool, free: int, without: Mapping[str, str]
) -> Route:
    """The route that is taken where nothing forces one: dense of few parameters, else as it costs.

    Args:
        n_params: P.
        work: counts how large the problem is.
        exact: as for `choose_route`.
        free: likewise.
        without: likewise.

    Raises:
        MemoryLimitError: nothing may be left out, and no exact route fits in memory.
    """
    if n_params <= AUTO_DENSE_LIMIT and "dense" not in without:
        return Route("dense", f"exact: P = {n_params:,} parameters are few")
    return choose_route(work(), exact=exact, free=free, without=without)


def _forced(settings: Settings, by_pairs: str, without: dict[str, str]) -> Route:
    """The route that was asked for, if this fit has it."""
    refused, route, rank = dict(without), settings.route, settings.rank
    for name in {"sketch", "lanczos"} - {by_pairs}:
        refused[name] = f"does not find eigenpairs of the {settings.curvature}"
    if rank == "full":
        refused[by_pairs] = "leaves eigenpairs out, and rank='full' asks for all"
    elif rank != "auto":
        leaves = f"leaves nothing out, and rank={rank} asks for leading eigenpairs"
        refused |= {name: leaves for name in ("dense", "gram") if name not in refused}
    if route in refused:
        others = [name for name in ("dense", "gram", by_pairs) if name not in refused]
        raise InvalidInputError(
            f"route={route!r} cannot be taken",
            expected=f"a route that this fit has: {others or 'none'}",
            received=f"{route}, which {refused[route]}",
            remedy=f"pass route={others[0]!r}, or 'auto'"
            if others
            else "pass rank='auto' and route='auto'",
        )
    return Route(route, "as asked")


def _refuse_without_room(route: Route, problem: Problem, settings: Settings) -> None:
    """Refuse an exact route whose matrices do not fit, before any of them is made."""
    each = settings.kind.bread.rows_per_example(problem.likelihood, problem.n_outputs)
    sides = {"dense": problem.network.n_params, "gram": problem.training_set.n_rows * each}
    free, side = free_memory(settings.memory_limit), sides.get(route, 0)
    needed = _MATRICES * 8 * side**2
    if needed > free:
        raise MemoryLimitError(
            f"the matrices of route={str(route)!r} do not fit in memory",
            expected=f"at most {gib(free)}, what the limit or the machine leaves",
            received=f"{gib(needed)} for {_MATRICES} matrices [{side:,}, {side:,}] in float64",
            remedy="pass route='auto', or a larger memory_limit",
        )


def routes_missing(
    kind: type[CurvatureOperator], n_params: int, rates: npt.NDArray[Any], *, is_sandwich: bool
) -> dict[str, str]:
    """Exact routes that a fit has not, and why.

    Args:
        kind: of the curvature.
        n_params: P.
        rates: L2 rates of all variables or parameters.
        is_sandwich: the covariance is more than the inverse of the curvature.
    """
    without: dict[str, str] = {}
    if n_params > DENSE_LIMIT:
        without["dense"] = f"is for at most {DENSE_LIMIT:,} parameters, and there are {n_params:,}"
    if not issubclass(kind, Gram):
        without["gram"] = f"needs a curvature that is made of rows, and {kind.__name__} is not"
    elif not np.all(rates > 0):
        without["gram"] = "needs an L2 rate for every variable"
    elif is_sandwich:
        without["gram"] = "has no sandwich, and this covariance is one"
    return without


def work_of(operator: CurvatureOperator, n_examples: int, n_outputs: int) -> Work:
    """How large a problem is, counted on a batch of the operator's data.

    Args:
        operator: the curvature, of all the data or of some.
        n_examples: rows of all the data.
        n_outputs: C.
    """
    n_params = operator.network.n_params
    each = solver_of(operator).products_per_pair
    if not isinstance(operator, Gram):
        products = None if each is None else each * ROUTE_RANK
        return Work(n_examples, n_examples, n_params, n_outputs, 0, 0, False, products)
    factors = next(operator.row_factors())
    found, matrix = row_work(factors, n_examples), matrix_work(factors)
    return Work(
        n_examples,
        found.n_rows,
        n_params,
        n_outputs,
        found.inner,
        found.held,
        matrix=matrix,
    )


def known_exactly(
    problem: Problem, settings: Settings, route: Route, storage: Storage
) -> KnownByInverse | KnownByPairs | None:
    """The covariance by a route that leaves nothing out; None where that takes eigenpairs.

    Rows are multiplied in the network's precision, which `in_enough_precision` judges. The noise of
    a regression is estimated from eigenpairs, which are then formed at once.
    """
    inverse: RowsInverse | DenseInverse
    stages = problem.training_set.listener.stages
    if route == "gram":
        inverse = _by_rows(problem, settings)
    elif route == "dense" and by_cholesky(problem, settings):
        operator = make_operator(problem, settings.kind.bread)
        stages.begin(forming(operator))
        inverse = DenseInverse.of(operator.to_dense(), problem.data.n_examples)
    else:
        return None
    known = KnownByInverse(inverse, problem.scale, storage)
    if not problem.estimates_noise:
        return known
    side = inverse.rows.n_rows if isinstance(inverse, RowsInverse) else problem.network.n_params
    stages.begin(diagonalising(side))
    return known.by_pairs


def by_cholesky(problem: Problem, settings: Settings) -> bool:
    """Whether a dense curvature is factored and not diagonalised.

    It is where that would take minutes, A plus L2 is positive definite by its form, and the
    covariance is its inverse.
    """
    if problem.network.n_params <= EIGEN_LIMIT or needs_meat(problem, settings):
        return False
    return settings.kind.bread.positive_semidefinite and bool(np.all(problem.rates > 0))


def _by_rows(problem: Problem, settings: Settings) -> RowsInverse:
    """The inverse through the Gram matrix of all rows."""
    rows = training_rows(problem, settings)
    return RowsInverse.of(rows, problem.data.n_examples, problem.network.dtype)


def training_rows(problem: Problem, settings: Settings) -> TrainingRows:
    """The rows of the training data, in the prior's metric.

    Raises:
        MemoryLimitError: there is not even room for a hundredth of them.
    """
    operator: Any = make_operator(problem, settings.kind.bread, in_rows=True)
    return TrainingRows(operator, free_memory(settings.memory_limit) // 2)


def in_enough_precision(fitted: Fitted) -> Fitted:
    """A fit whose Gram matrix tells the standard errors at its L2 rates; often the same."""
    known = fitted.known
    if not (isinstance(known, KnownByInverse) and isinstance(known.inverse, RowsInverse)):
        return fitted
    if known.inverse.precision == "float64":
        return fitted
    fitted.problem.training_set.listener.stages.begin(factoring(known.inverse.rows.n_rows))
    if _tells(known.inverse, fitted):
        return fitted
    return replace(fitted, known=replace(known, inverse=known.inverse.in_double()))


def _tells(inverse: RowsInverse, fitted: Fitted) -> bool:
    """Whether a Gram matrix tells the standard errors of some training inputs.

    Those lose most of all, because the data leave least of their rows. Of each input one logit and
    one mean are asked, those of the mean that moves most.
    """
    limit = fitted.settings.memory_limit
    some, directions = calibration_inputs(fitted.problem, limit, count=_PROBED)
    found = fitted.problem.linearization.rows(some, directions)
    back, slope = found.shown.back, found.shown.slope
    most = np.argmax(np.vecdot(slope, slope), axis=1)[:, None, None]
    asked = [np.take_along_axis(part, most, axis=1) for part in (back, slope)]
    rows = np.concatenate(asked, axis=1).astype(found.values.dtype) @ found.values
    return inverse.tells(rows, np.broadcast_to(np.eye(2), (len(rows), 2, 2)))
