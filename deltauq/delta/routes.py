"""Which way a fit goes to its covariance, and what each way would cost.

"dense" forms the curvature `[P, P]`, "gram" the inner products of all its rows `[n, n]`: both leave
nothing out. "sketch" and "lanczos" find leading eigenpairs. The costs are counts of multiplications
over the speeds that one core of a usual processor has; only their ratios decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from deltauq.curvature.eigenpairs import EIGEN_LIMIT
from deltauq.curvature.speeds import CHOLESKY, COLUMNS, DOUBLE, EIGEN, FORMED, INNER
from deltauq.errors import MemoryLimitError
from deltauq.runtime.memory import gib

__all__ = [
    "ROUTES",
    "ROUTE_RANK",
    "Route",
    "RouteCost",
    "RouteName",
    "Work",
    "choose_route",
    "route_costs",
]

RouteName = Literal["auto", "dense", "gram", "sketch", "lanczos"]

#: Every route that can be forced, and "auto".
ROUTES: tuple[RouteName, ...] = ("auto", "dense", "gram", "sketch", "lanczos")

#: How many times as fast products of a dense matrix are as those of Lanczos, fewer at a time.
_AT_ONCE = 3.0

#: What is not counted, as a share of what is.
_OVERHEAD = 1.25

#: Eigenpairs of the sketch, or of Lanczos, that exact routes are measured by.
ROUTE_RANK = 600

#: How many times the cost of those exact routes may take: they leave nothing out.
_WORTH = 3.0

#: Columns of a sketch for each eigenpair.
_OVERSAMPLED = 1.083

#: Inputs whose predictions are counted beside a fit, at least, and as a share of the examples.
_INPUTS, _SHARE = 1_000, 0.1


class Route(str):
    """The way that a fit went to its covariance: "dense", "gram", "sketch" or "lanczos".

    Attributes:
        why: half a sentence.
    """

    why: str

    def __new__(cls, name: str, why: str) -> Self:
        """A name with its reason."""
        route = super().__new__(cls, name)
        route.why = why
        return route

    def __repr__(self) -> str:
        return f"{self} ({self.why})"


@dataclass(frozen=True)
class Work:
    """How large the problem is.

    Attributes:
        n_examples: rows of the data.
        n_rows: n, rows of the curvature: some for each example.
        n_params: P.
        n_outputs: C.
        inner: multiplications of an inner product of two rows, P where they are formed.
        held: numbers of formed rows that all of them take, and of factors.
        has_rows: whether the curvature is made of rows.
        products: products that 600 eigenpairs take, where they come one by one; None of a sketch.
        matrix: multiplications that form `[P, P]` from the rows of an example; None for all of
            those by formed rows.
    """

    n_examples: int
    n_rows: int
    n_params: int
    n_outputs: int
    inner: int
    held: int
    has_rows: bool = True
    products: float | None = None
    matrix: float | None = None


@dataclass(frozen=True)
class RouteCost:
    """What a route would cost.

    Attributes:
        name: of the route.
        seconds: of the fit, of one core.
        per_thousand: seconds of a thousand predictions.
        n_bytes: memory beside the model and the data.
    """

    name: str
    seconds: float
    per_thousand: float
    n_bytes: int

    def total(self, n_inputs: int) -> float:
        """Seconds of a fit and of so many predictions."""
        return self.seconds + self.per_thousand * n_inputs / 1e3


def route_costs(work: Work) -> dict[str, RouteCost]:
    """What each route would cost that the curvature has.

    Of eigenpairs and a Cholesky factor the dense route takes what is right for P.
    """
    n, p, c = float(work.n_rows), float(work.n_params), work.n_outputs
    formed = n * p * FORMED
    width = min(_OVERSAMPLED * ROUTE_RANK, p)
    factor = p**3 / EIGEN if work.n_params <= EIGEN_LIMIT else p**3 / (3 * CHOLESKY)
    matrix = n * p**2 if work.matrix is None else work.n_examples * work.matrix
    matrices = 24 if work.n_params <= EIGEN_LIMIT else 16
    costs = {
        "dense": _cost(
            "dense", formed + matrix / DOUBLE + factor, c * p**2 / DOUBLE, matrices * p**2
        ),
    }
    if work.products is not None:
        # A product costs what the rows of an example would, whatever it is made of.
        products = p * formed / _AT_ONCE
        costs["dense"] = _cost("dense", products + p**3 / EIGEN, c * p**2 / DOUBLE, 24 * p**2)
        costs["lanczos"] = _cost(
            "lanczos", work.products * formed, 2 * c * p * ROUTE_RANK / COLUMNS, 12 * p * width
        )
        return costs
    costs["sketch"] = _cost(
        "sketch",
        5 * formed + 8 * n * p * width / COLUMNS + 24 * p * width**2 / DOUBLE,
        2 * c * p * ROUTE_RANK / COLUMNS,
        12 * p * width,
    )
    if work.has_rows:
        pairs = min(n, p) / 2
        by_rows = 6 * c * p * n / COLUMNS
        by_pairs = 2 * c * p * pairs / COLUMNS
        eigen = n**3 / EIGEN + 2 * n * p * pairs / DOUBLE
        inputs = _inputs(work)
        each = min(by_rows, by_pairs + eigen / inputs)
        seconds = work.held * FORMED + n**2 * work.inner / INNER + n**3 / (3 * CHOLESKY)
        costs["gram"] = _cost("gram", seconds, each, 32 * n**2 + 4 * work.held)
    return costs


def _cost(name: str, seconds: float, each: float, n_bytes: float) -> RouteCost:
    return RouteCost(name, _OVERHEAD * seconds, 1e3 * _OVERHEAD * each, int(n_bytes))


def _inputs(work: Work) -> int:
    """Inputs whose predictions are counted beside the fit."""
    return max(_INPUTS, int(_SHARE * work.n_examples))


def choose_route(
    work: Work, *, exact: bool, free: int, without: Mapping[str, str] | None = None
) -> Route:
    """The cheapest exact route where it is worth what it costs beside a sketch, else the sketch.

    It is worth three times a sketch of 600 eigenpairs, predictions of 1,000 inputs or of a tenth of
    the data counted with both.

    Args:
        work: how large the problem is.
        exact: whether nothing may be left out, whatever it costs.
        free: bytes that may be taken.
        without: exact routes that the fit has not, and why.

    Raises:
        MemoryLimitError: nothing may be left out, and no exact route fits in memory.
    """
    costs, refused, inputs = route_costs(work), dict(without or {}), _inputs(work)
    pairs = next(costs[name] for name in ("sketch", "lanczos") if name in costs)
    fitting = []
    for name in ("dense", "gram"):
        if name in refused or name not in costs:
            continue
        if costs[name].n_bytes > free:
            refused[name] = f"would take {gib(costs[name].n_bytes)}, and {gib(free)} are free"
        else:
            fitting.append(costs[name])
    best = min(fitting, key=lambda cost: cost.total(inputs), default=None)
    if best is None and exact:
        raise MemoryLimitError(
            "no route that leaves nothing out can be taken",
            expected="room for the curvature [P, P] or for inner products [n, n] of its rows",
            received=f"P = {work.n_params:,}, n = {work.n_rows:,}: {_listed(refused)}",
            remedy="pass a number as rank, rank='auto', fewer layers with layers=..., or a larger "
            "memory_limit",
        )
    if best is None:
        return Route(pairs.name, f"leading eigenpairs: {_listed(refused)}")
    times = best.total(inputs) / pairs.total(inputs)
    if exact or times <= _WORTH:
        return Route(best.name, f"exact: {_MEANINGS[best.name].format(work=work)}")
    return Route(
        pairs.name,
        f"leading eigenpairs: {best.name} would be exact, and take {times:.2g} times the time",
    )


#: What is formed on an exact route.
_MEANINGS = {
    "dense": "the curvature of P = {work.n_params:,} parameters is formed",
    "gram": "the inner products of its n = {work.n_rows:,} rows are formed, of P = "
    "{work.n_params:,} parameters",
}


def _listed(refused: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {why}" for name, why in refused.items())
