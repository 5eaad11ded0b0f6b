"""What each route to the standard errors would cost, counted before a fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt

from deltauq.curvature import CURVATURES, CurvatureOperator
from deltauq.curvature.rows_inverse import THETA, RowsInverse
from deltauq.delta.exact import automatic_route, routes_missing, work_of
from deltauq.delta.routes import ROUTE_RANK, Work, route_costs
from deltauq.prediction.forms import ROUNDING
from deltauq.runtime.memory import free_memory

__all__ = ["RouteEstimate", "estimate_routes", "in_figures"]

#: Of the time that so many cores would take if they shared all the work, what they take.
_SHARED = 0.9

#: Rows of a curvature with several an example beyond which its routes are not told: their inner
#: products take a hundred gigabytes, and rows of so many classes are slow to count.
_COUNTED = 100_000

#: Routes that leave nothing out.
_EXACT = ("dense", "gram")

#: What the eigenpairs that a fit by rows forms for many inputs leave of a standard error.
_BY_PAIRS = (1.0 + THETA) ** 0.5 - 1.0

#: The bound on what a sketch leaves beside the largest eigenvalue left, as a rule at most.
_SLACK = 2.0


@dataclass(frozen=True)
class RouteEstimate:
    """What a route to the standard errors of a curvature would cost, by counts of multiplications.

    Attributes:
        curvature: its name.
        route: "dense", "gram", "sketch" or "lanczos"; the last two with 600 eigenpairs.
        seconds: wall time of the fit on all cores of this machine.
        per_thousand: that of a thousand predictions, in seconds.
        n_bytes: memory beside the model and the data.
        is_exact: whether it leaves nothing out.
        why: where `route="auto"` takes this one, the reason; empty of the others.
        std_width: of a standard error's bounds, (high - low) / high: of an exact route what
            rounding leaves, of a sketch an estimate of the most it may be; None where nothing is
            known of it before the fit.
    """

    curvature: str
    route: str
    seconds: float
    per_thousand: float
    n_bytes: int
    is_exact: bool
    why: str = ""
    std_width: float | None = None

    @property
    def is_taken(self) -> bool:
        """Whether a fit takes this route where none is asked for."""
        return bool(self.why)

    @property
    def width(self) -> str:
        """How wide bounds of a standard error are to be expected, in words."""
        if not self.is_exact:
            return _in_words(self.std_width)
        to = "" if self.std_width is None else f" to 1 in {1 / self.std_width:,.0f}"
        more = f"; {_BY_PAIRS:.1%} beyond {RowsInverse.few_inputs} inputs"
        return f"exact{to}{more if self.route == 'gram' else ''}"


def _in_words(width: float | None) -> str:
    """The estimate of a width that may be anything below it."""
    if width is None:
        return "unknown before the fit"
    return "under 1% (an estimate)" if width < 0.01 else f"at most about {width:.0%} (an estimate)"


def estimate_routes(
    operators: Mapping[str, CurvatureOperator],
    n_examples: int,
    n_outputs: int,
    rates: npt.NDArray[Any],
) -> list[RouteEstimate]:
    """Estimate what each route would cost of curvatures that can be counted.

    Those are made of rows, few enough, or of products one by one, as the exact Hessian is.

    Args:
        operators: the curvatures of a sample, by name.
        n_examples: rows of all the data.
        n_outputs: C.
        rates: L2 rates of the variables. A fit asks for those that are zero; here they count as
            given.
    """
    estimates: list[RouteEstimate] = []
    for name, operator in operators.items():
        each = operator.rows_per_example(operator.likelihood, n_outputs)
        if each <= 1 or n_examples * each <= _COUNTED:
            work = work_of(operator, n_examples, n_outputs)
            if work.has_rows or work.products is not None:
                estimates += _of_curvature(name, operator, work, rates)
    return estimates


def _of_curvature(
    name: str, operator: CurvatureOperator, work: Work, rates: npt.NDArray[Any]
) -> Iterator[RouteEstimate]:
    """The routes that a fit of one curvature has."""
    n_params, likelihood = operator.network.n_params, operator.likelihood
    kind, sandwich = CURVATURES[name].bread, likelihood.of_scores is not likelihood
    given = np.where(rates > 0, rates, 1.0)
    without = routes_missing(kind, n_params, given, is_sandwich=sandwich)
    rounding = ROUNDING[operator.network.dtype]
    free, cores = free_memory(None), _SHARED * joblib.cpu_count()
    taken = automatic_route(n_params, lambda: work, exact=False, free=free, without=without)
    for route, cost in route_costs(work).items():
        if route not in without:
            yield RouteEstimate(
                curvature=name,
                route=route,
                seconds=cost.seconds / cores,
                per_thousand=cost.per_thousand / cores,
                n_bytes=cost.n_bytes,
                is_exact=route in _EXACT,
                why=taken.why if route == taken else "",
                std_width=rounding if route in _EXACT else _most_width(route, operator, rates),
            )


def _most_width(route: str, operator: CurvatureOperator, rates: npt.NDArray[Any]) -> float | None:
    """Estimate how wide bounds by a sketch are at most; None of Lanczos, and without an L2 rate.

    What 600 eigenpairs leave has no eigenvalue above delta = trace / 601 in units of L2, because
    601 of them at least as large sum to no more than the trace. A variance between inside + rest /
    (1 + delta) and inside + rest has a standard error of relative width 1 - (1 + delta)^-1/2 at
    most. The trace is that of the sample. Its own eigenvalues are no estimate: after some hundreds
    they were a thousandth of those of all data, in trials on digits.
    """
    if route != "sketch" or not np.all(rates > 0):
        return None
    if operator.network.n_params <= ROUTE_RANK:
        return 0.0
    delta = _SLACK * operator.trace() / ((ROUTE_RANK + 1) * float(np.min(rates)))
    return float(1.0 - (1.0 + delta) ** -0.5)


def in_figures(n_bytes: int, *seconds: float) -> list[str]:
    """Memory and times as tables show them."""
    times = [f"{each:,.0f} s" if each >= 1 else "under 1 s" for each in seconds]
    return [f"{n_bytes / 2**30:,.2f} GiB", *times]
