"""Minimising the cost over the whole data by L-BFGS, until the gradient is small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.optimize

from deltauq.curvature.cost import Cost, Stationarity

__all__ = ["Polished", "Verdict", "polish"]

Array = npt.NDArray[Any]
Verdict = Literal["stationary", "stopped at a kink", "not converged"]

#: A network with kinks has stalled when its cost fell by less than this share of itself in so many
#: iterations: L-BFGS zigzags across the kinks and may go on for ever.
_STALL_SHARE, _STALL_ITERATIONS = 1e-5, 200

#: L-BFGS runs: a run that ends in its line search starts again with an empty memory.
_RESTARTS = 4


@dataclass(frozen=True)
class Polished:
    """The point at which L-BFGS stopped, and why it did.

    Attributes:
        params: `[P]`.
        stationarity: of the cost at `params`.
        verdict: "stationary" (gradient ratio within the tolerance), "stopped at a kink" (no more
            descent, and the network has kinks such as ReLU's: the gradient jumps there and cannot
            vanish), or "not converged" (out of iterations, or of precision).
        iterations: of L-BFGS.
    """

    params: Array
    stationarity: Stationarity
    verdict: Verdict
    iterations: int


def polish(
    cost: Cost,
    params: Array,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 5_000,
    kinks: tuple[str, ...] = (),
) -> Polished:
    """Minimise the cost by L-BFGS until its gradient is small relative to its parts.

    Args:
        cost: the function; one pass over the data per evaluation.
        params: where to start, `[P]`.
        tolerance: on `Stationarity.ratio`.
        max_iterations: over all restarts.
        kinks: operations of the network without a second derivative, from `Network.inspect`.

    Returns:
        The best point; never raises for a lack of convergence.
    """
    search = _Search(cost, tolerance, may_stall=bool(kinks))
    point, iterations, exhausted = np.asarray(params, np.float64), 0, False
    for _ in range(_RESTARTS):
        result = scipy.optimize.minimize(
            search.evaluate,
            point,
            jac=True,
            method="L-BFGS-B",
            callback=search.stop_when_done,
            options={
                "maxcor": 50,
                "maxiter": max_iterations - iterations,
                "maxfun": 20 * max_iterations,
                "ftol": 0.0,
                "gtol": 0.0,
            },
        )
        moved = bool(np.any(result.x != point))
        point, iterations = result.x, iterations + int(result.nit)
        exhausted = iterations >= max_iterations
        if search.ratio(point) <= tolerance or search.stalled or exhausted or not moved:
            break
    stationarity = cost.stationarity(point)
    verdict: Verdict = "not converged"
    if stationarity.ratio <= tolerance:
        verdict = "stationary"
    elif kinks and not exhausted:
        verdict = "stopped at a kink"
    return Polished(point, stationarity, verdict, iterations)


class _Search:
    """The cost as L-BFGS calls it, with the gradient's parts of the last point at hand."""

    def __init__(self, cost: Cost, tolerance: float, *, may_stall: bool) -> None:
        self._cost = cost
        self._tolerance = tolerance
        self._may_stall = may_stall
        self._values: list[float] = []
        self._point: Array = np.zeros(0)
        self._ratio = np.inf

    def evaluate(self, params: Array) -> tuple[float, Array]:
        found, gradient = self._cost.evaluate(params)
        self._point, self._ratio = params.copy(), found.ratio
        return found.cost, gradient

    def ratio(self, params: Array) -> float:
        if not np.array_equal(params, self._point):
            self.evaluate(params)
        return self._ratio

    @property
    def stalled(self) -> bool:
        if not self._may_stall or len(self._values) <= _STALL_ITERATIONS:
            return False
        before, now = self._values[-1 - _STALL_ITERATIONS], self._values[-1]
        return before - now < _STALL_SHARE * abs(now)

    def stop_when_done(self, intermediate_result: scipy.optimize.OptimizeResult) -> None:
        self._values.append(float(intermediate_result.fun))
        if self.stalled or self.ratio(intermediate_result.x) <= self._tolerance:
            raise StopIteration
