"""The eigenpairs of a fit: of the bread, and of the meat where the covariance has some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from deltauq.curvature import CurvatureOperator
from deltauq.curvature.calibrated_tail import TailInputs
from deltauq.curvature.effective_parameters import Freedom
from deltauq.curvature.eigenpairs import (
    Rank,
    automatic_eigenpairs,
    eigenpairs,
    own_unit,
    resolving,
)
from deltauq.curvature.rank_curve import TailWidth
from deltauq.curvature.tails import tail_interval
from deltauq.delta.calibration import calibration_rows, has_tail_inputs, tail_inputs
from deltauq.delta.caveats import Caveat
from deltauq.delta.fitted import Fitted
from deltauq.delta.judging import beyond_precision
from deltauq.delta.problem import Problem
from deltauq.delta.settings import Settings
from deltauq.errors import InvalidInputError
from deltauq.linalg import Eigenpairs, Ends, Storage
from deltauq.runtime.memory import free_memory

__all__ = [
    "Solution",
    "bread_and_meat",
    "check_measurable",
    "freedom_of",
    "make_operator",
    "measures_tail",
    "needs_meat",
    "solve",
    "solve_meat",
    "vector_room",
]

#: What is left of the trace, in L2 rates and of the whole, that rounding or nothing explains.
_LEFT, _TRACE_ROUNDING = 0.01, 3e-6

#: Ratio of a tail's ends above which nothing is gained by knowing where between them it lies.
_OPEN = 0.98


class Solution(NamedTuple):
    """Eigenpairs, and where they are other or fewer than was asked for, what to know of that."""

    pairs: Eigenpairs
    caveats: tuple[Caveat, ...]


def make_operator(
    problem: Problem, kind: type[CurvatureOperator], *, in_rows: bool = False
) -> CurvatureOperator:
    """A curvature in the prior's metric, in the form that is cheapest for the network.

    It is made once for a problem: what is traced to count its rows is used to multiply them.

    Args:
        problem: what is asked.
        kind: of the curvature.
        in_rows: in the form that has rows.
    """
    data, plan = problem.require_data()
    options: dict[str, Any] = {
        "scale": problem.scale,
        "per_example": problem.per_example,
        "buffer_bytes": plan.buffer,
        "steps": problem.steps,
    }
    of_head = kind.of_linear_head()
    if of_head is not kind and problem.head is not None and not in_rows:
        kind, options["head"] = of_head, problem.head
    if kind not in problem.operators:
        operator = kind(problem.network, problem.likelihood, data, **options)
        problem.operators[kind] = operator
    return problem.operators[kind]


#: The factor that L2 rates are multiplied by when eigenpairs are known.
FactorOf = Callable[[Eigenpairs], float]


def solve(
    problem: Problem,
    settings: Settings,
    storage: Storage,
    *,
    dense: bool,
    factor_of: FactorOf | None = None,
) -> Solution:
    """The eigenpairs that were asked for; of a sandwich those of its bread.

    Args:
        problem: what is asked.
        settings: how.
        storage: where eigenvectors live.
        dense: all of them, by a dense matrix.
        factor_of: chooses the rates that they will be used at; None for those of the problem.
    """
    rank: Rank = "full" if dense else settings.rank
    kind = settings.kind.bread
    tail = tail_inputs(problem, settings) if measures_tail(problem, settings, rank) else None
    found = _eigenpairs(problem, settings, kind, storage, rank, factor_of or own_unit, tail)
    if tail is None:
        return found
    caveat = _of_tail(_used(found.pairs, factor_of or own_unit), settings)
    return found if caveat is None else found._replace(caveats=(*found.caveats, caveat))


def vector_room(settings: Settings, storage: Storage) -> int:
    """Bytes that eigenvectors of an automatic rank may take."""
    free = free_memory(settings.memory_limit) if storage.directory is None else storage.free
    return free // 2


def measures_tail(problem: Problem, settings: Settings, rank: Rank) -> bool:
    """Whether what few pairs leave is measured; of a sandwich no rule says it from two sides."""
    if rank == "full" or not settings.measures_tail or needs_meat(problem, settings):
        return False
    return settings.tail == "calibrated" or has_tail_inputs(problem, settings)


def _of_tail(pairs: Eigenpairs, settings: Settings) -> Caveat | None:
    """What to know of the tail where measuring it did not come to an end."""
    tail, (low, high) = pairs.tail, tail_interval(pairs)
    if tail is None:
        if not low < _OPEN * high:
            return None
        return Caveat(
            "tail",
            "the tail could not be measured",
            "the tail could not be measured: the curvature's rounding is as large as the L2 rate, "
            "or no mean of the calibration inputs has any variance. The middle of what is "
            "possible stands in its place; std_bounds hold. Ask for a larger l2 or rank, or build "
            "the model in float64.",
        )
    if tail.is_settled:
        return None
    least, most = (float(np.clip(end, low, high)) for end in (tail.low, tail.high))
    return Caveat(
        "tail",
        f"the tail lies between {least:.2g} and {most:.2g}",
        f"the {tail.steps} steps that measured the tail did not settle it: it is {least:.2g} at "
        f"least and {most:.2g} at most of what L2 alone would allow, and standard errors that "
        f"rest on it are off by {np.sqrt(most / least):.1f} times at most. Ask for a larger rank, "
        f"or refine(x) for chosen inputs.",
    )


def bread_and_meat(problem: Problem, settings: Settings) -> list[CurvatureOperator]:
    """The curvature, and where the covariance is a sandwich what is between its inverses.

    It is a sandwich where that was asked for; and where the cost that was minimised is not the
    log-likelihood of the labels, as the mean square of outputs with unequal noise is not. Between
    is then the same curvature of `Likelihood.of_scores`.
    """
    operators = [make_operator(problem, settings.kind.bread)]
    if needs_meat(problem, settings):
        scores = problem.of_scores
        operators.append(make_operator(scores, settings.kind.meat_or_bread))
    return operators


def needs_meat(problem: Problem, settings: Settings) -> bool:
    """Whether the covariance is more than the inverse of the curvature: bread, meat, bread.

    It is where a sandwich was asked for, and where the cost is not the log-likelihood of the labels
    (`Likelihood.of_scores`).
    """
    return settings.kind.is_sandwich or problem.likelihood.of_scores is not problem.likelihood


def check_measurable(problem: Problem, settings: Settings) -> None:
    """Refuse a tail that is to be measured where the loss makes a sandwich of the covariance.

    Raises:
        InvalidInputError: it does.
    """
    if needs_meat(problem, settings):
        raise InvalidInputError(
            "no tail can be measured for this loss",
            expected="a loss that is the log-likelihood of its labels",
            received=f"{problem.likelihood!r}, whose covariance is a sandwich, of which no "
            "quadrature rule is known to stay on one side",
            remedy="leave calibration=... out, and tail='auto' as it is; refine(x) estimates what "
            "the tail comes to at some inputs",
        )


def solve_meat(fitted: Fitted, storage: Storage) -> Solution | None:
    """Eigenpairs of the meat of a sandwich; None where the covariance is none."""
    problem, settings, pairs = fitted.problem, fitted.settings, fitted.prior_pairs
    if not needs_meat(problem, settings):
        return None
    rank: Rank = "full" if pairs.rank == pairs.n_params else pairs.rank
    scores = problem.of_scores
    kind = settings.kind.meat_or_bread
    pairs, caveats = _eigenpairs(scores, settings, kind, storage, rank, own_unit)
    rounding = beyond_precision(pairs, problem.epsilon)
    return Solution(pairs, caveats if rounding is None else (*caveats, rounding))


def freedom_of(problem: Problem, settings: Settings) -> Freedom:
    """What the noise of a regression is estimated from, beside eigenpairs of the bread."""
    return Freedom(
        problem.data.n_examples * len(problem.likelihood.noise_variance()),
        settings.kind.bread.most_rank(
            problem.likelihood, problem.n_outputs, problem.data.n_rows, len(problem.rates)
        ),
        _noise_power(problem, settings),
        problem.epsilon,
    )


def _noise_power(problem: Problem, settings: Settings) -> int:
    """How the parameters' covariance goes with the noise, see `NoiseRange`."""
    if not problem.likelihood.scaled_by_noise:
        return 0
    if not settings.l2_in_meat:
        return 0  # the scores' covariance between two inverses holds no noise of its own
    return settings.kind.noise_power


def _eigenpairs(
    problem: Problem,
    settings: Settings,
    kind: type[CurvatureOperator],
    storage: Storage,
    rank: Rank,
    factor_of: FactorOf,
    tail: TailInputs | None = None,
) -> Solution:
    """So many pairs of a curvature, with the caveats where they are fewer or not enough."""
    operator = make_operator(problem, kind)
    ends = "largest" if operator.positive_semidefinite else settings.ends
    if rank == "auto":
        return _automatic_eigenpairs(problem, settings, operator, ends, storage, factor_of, tail)
    pairs = eigenpairs(
        operator,
        rank,
        ends=ends,
        bounds=settings.bounds,
        unit=factor_of,
        seed=settings.seed,
        storage=storage,
        tail=tail,
        stages=operator.data.listener.stages,
    )
    operator.forget()
    caveats, used = [], _used(pairs, factor_of)
    if not pairs.converged:
        caveats.append(_not_converged(pairs, rank, settings))
    elif settings.rank != "auto" and _is_cut(used, rank):
        caveats.append(_cut(used, rank, settings, problem.network.dtype))
    return Solution(pairs, tuple(caveats))


def _used(pairs: Eigenpairs, factor_of: FactorOf) -> Eigenpairs:
    """Pairs in the metric of the rates that they will be used at."""
    factor = factor_of(pairs)
    return pairs if factor == 1.0 else pairs.rescaled(1.0 / factor)


def _not_converged(pairs: Eigenpairs, rank: Rank, settings: Settings) -> Caveat:
    return Caveat(
        "rank",
        f"{pairs.rank} of {rank} eigenpairs of the {settings.curvature} converged",
        f"the {rank} eigenpairs of the {settings.curvature} did not all converge: {pairs.rank} are "
        "good enough and are used, the rest belongs to the tail. Ask for a smaller rank, or use "
        "curvature='ggn'.",
    )


def _is_cut(pairs: Eigenpairs, rank: Rank) -> bool:
    """Whether rounding, not the data, is why there are fewer pairs than were asked for."""
    if rank == "full" or pairs.rank == rank or pairs.trace is None:
        return False
    return not (pairs.remainder or 0.0) <= max(_LEFT, _TRACE_ROUNDING * pairs.trace)


def _cut(pairs: Eigenpairs, rank: Rank, settings: Settings, dtype: str) -> Caveat:
    kept = f"{pairs.rank} eigenpairs of the {settings.curvature} are kept of the {rank} that were"
    return Caveat(
        "rank",
        f"{kept} asked for",
        f"{kept} asked for: the next ones drown in the rounding of {dtype}. What they leave, "
        f"{pairs.remainder or 0.0:.2g} L2 rates of the trace, belongs to the tail and to the "
        f"bounds: {resolving(dtype)} keeps more.",
    )


def _automatic_eigenpairs(
    problem: Problem,
    settings: Settings,
    operator: CurvatureOperator,
    ends: Ends,
    storage: Storage,
    factor_of: FactorOf,
    tail: TailInputs | None,
) -> Solution:
    """Grow the rank until the tail leaves less than `rank_tol` of the standard errors open."""
    rows = calibration_rows(problem, settings.memory_limit)
    knows_noise = not problem.estimates_noise or not operator.positive_semidefinite
    freedom = None if knows_noise else freedom_of(problem, settings)
    width_of = TailWidth(rows, problem.epsilon, freedom)

    def width(pairs: Eigenpairs) -> float:
        return width_of(_used(pairs, factor_of))  # relative: the rows may stay in their metric

    pairs, why_no_more = automatic_eigenpairs(
        operator,
        lambda pairs: width(pairs) <= settings.rank_tol,
        ends=ends,
        bounds=settings.bounds,
        max_bytes=vector_room(settings, storage),
        unit=factor_of,
        seed=settings.seed,
        storage=storage,
        tail=tail,
        stages=operator.data.listener.stages,
    )
    operator.forget()
    if why_no_more is None:
        return Solution(pairs, ())
    stopped = (
        f"rank='auto' stopped at {pairs.rank} eigenpairs of the {settings.curvature}, which leave "
        f"{width(pairs):.1%} of the median standard error open"
    )
    above = f"above rank_tol={settings.rank_tol:.1%}"
    return Solution(pairs, (Caveat("rank", stopped, f"{stopped}, {above}: {why_no_more}."),))
