"""What each route to the standard errors would cost, counted before a fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt

from deltauq.curvature import CURVATURES, CurvatureOperator
from deltauq.delta.exact import automatic_route, routes_missing, work_of
from deltauq.delta.routes import Work, route_costs
from deltauq.runtime.memory import free_memory

__all__ = ["RouteEstimate", "estimate_routes", "in_figures"]

#: Of the time that so many cores would take if they shared all the work, what they take.
_SHARED = 0.9

#: Rows of a curvature with several an example beyond which its routes are not told: their inner
#: products take a hundred gigabytes, and rows of so many classes are slow to count.
_COUNTED = 100_000

#: Routes that leave nothing out.
_EXACT = ("dense", "gram")


@dataclass(frozen=True)
class RouteEstimate:
    """What a route to the standard errors of a curvature would cost, by counts of multiplications.

    Attributes:
        curvature: its name.
        route: "dense", "gram", "sketch" or "lanczos"; the last two with 600 eigenpairs.
        seconds: wall time of the fit on all cores of this machine.
        per_thousand: that of a thousand predictions, in seconds.
        n_bytes: memory beside the model and the data.
        is_exact: whether it leaves nothing out; of the others the bounds of a fit say how wide
            standard errors are.
        why: where `route="auto"` takes this one, the reason; empty of the others.
    """

    curvature: str
    route: str
    seconds: float
    per_thousand: float
    n_bytes: int
    is_exact: bool
    why: str = ""

    @property
    def is_taken(self) -> bool:
        """Whether a fit takes this route where none is asked for."""
        return bool(self.why)

    @property
    def width(self) -> str:
        """How wide bounds of a standard error are to be expected, in words."""
        return "exact" if self.is_exact else "by the bounds of the fit"


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
    given = np.where(rates > 0, rates, 1.0)
    estimates: list[RouteEstimate] = []
    for name, operator in operators.items():
        each = operator.rows_per_example(operator.likelihood, n_outputs)
        if each <= 1 or n_examples * each <= _COUNTED:
            work = work_of(operator, n_examples, n_outputs)
            if work.has_rows or work.products is not None:
                estimates += _of_curvature(name, operator, work, given)
    return estimates


def _of_curvature(
    name: str, operator: CurvatureOperator, work: Work, rates: npt.NDArray[Any]
) -> Iterator[RouteEstimate]:
    """The routes that a fit of one curvature has."""
    n_params, likelihood = operator.network.n_params, operator.likelihood
    kind, sandwich = CURVATURES[name].bread, likelihood.of_scores is not likelihood
    without = routes_missing(kind, n_params, rates, is_sandwich=sandwich)
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
            )


def in_figures(n_bytes: int, *seconds: float) -> list[str]:
    """Memory and times as tables show them."""
    times = [f"{each:,.0f} s" if each >= 1 else "under 1 s" for each in seconds]
    return [f"{n_bytes / 2**30:,.2f} GiB", *times]
