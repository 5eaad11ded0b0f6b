"""How many parameters the data determine: an interval of gamma, as far as eigenpairs tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature.noise_interval import NoiseRange, noise_range
from deltauq.curvature.tails import tail_interval
from deltauq.linalg import Eigenpairs

__all__ = ["Freedom", "effective_parameters"]

Array = npt.NDArray[Any]

#: Rounding of a trace, in units of the curvature's.
_TRACE_ROUNDING = 32.0


@dataclass(frozen=True)
class Freedom:
    """What the noise of a regression is estimated from, beside eigenpairs of its curvature.

    Attributes:
        n_observations: N C.
        most_rank: of the curvature, at most: the rows that it is made of, or P.
        power: as of `NoiseRange`: 2 of a curvature made of scores, which hold the noise twice.
        epsilon: relative rounding of the curvature.
    """

    n_observations: float
    most_rank: int
    power: int
    epsilon: float

    def noise(self, pairs: Eigenpairs) -> NoiseRange | None:
        """Range of the noise that eigenpairs leave open; None where no observation is left for it.

        Args:
            pairs: in the prior's metric, of the noise that is the residuals' mean square.
        """
        gamma = effective_parameters(pairs, self.most_rank, self.epsilon)
        return noise_range(gamma, self.n_observations, power=self.power)

    def noisier(self, pairs: Eigenpairs, noise: NoiseRange) -> Eigenpairs:
        """Eigenpairs of the curvature at the estimated noise, from those at the mean square."""
        return pairs.rescaled(1.0 / noise.factor) if self.power == 2 else pairs


def effective_parameters(pairs: Eigenpairs, most_rank: int, epsilon: float) -> tuple[float, float]:
    """Bound the number of parameters that the data determine, gamma = trace(A (A + I)^-1).

    A is the curvature in the prior's metric; gamma is that of MacKay 1992, "A practical Bayesian
    framework for backpropagation networks". It is sum f(eigenvalues) with f(x) = x / (1 + x), which
    grows and is concave. Of a semidefinite A = A^ + E, with A^ = U diag(mu) U^T from a sketch,
    E >= 0, trace(E) = t, ||E|| <= delta and rank(E) <= m, Rotfel'd's inequality gives

        gamma <= sum f(mu) + m f(t / m).

    Were E outside U, gamma would be sum f(mu) + trace f(E) >= sum f(mu) + t / (1 + delta). It is
    not: with eta_k >= ||E u_k|| the residuals, at most sum eta^2 / delta of t lies inside U, and
    what couples the two takes away at most 2 sum eta_k^2 / (1 + mu_k) / (1 - sum eta^2) (Schur's
    complement). At least gamma is sum f(mu), as f grows.

    Of the exact Hessian each eigenvalue that was left out lies in `tail_interval`.

    Args:
        pairs: in the prior's metric.
        most_rank: of A, at most.
        epsilon: relative rounding of the curvature.

    Returns:
        The lower and the upper end of the interval.
    """
    if pairs.n_lowest:  # an estimate of both ends, as of the covariance that keeps them
        inside = float(np.sum(_share(pairs.values)))
        return _with_tail(pairs, (inside, inside), 0.0)
    values = np.maximum(pairs.values, 0.0)
    doubt = epsilon * float(np.max(values, initial=0.0))
    semidefinite = pairs.smallest is None and pairs.trace is not None
    if not semidefinite:
        doubt += float(np.sqrt(2.0) * np.linalg.norm(pairs.residual_norms))
    low = float(np.sum(_share(np.maximum(values - doubt, 0.0))))
    high = float(np.sum(_share(values + doubt)))
    if not semidefinite:
        return _with_tail(pairs, (low, high), doubt)
    least, most = _of_semidefinite(pairs, max(0, most_rank - pairs.rank), epsilon)
    return low + least, high + most


def _with_tail(pairs: Eigenpairs, inside: tuple[float, float], doubt: float) -> tuple[float, float]:
    """The sum over the pairs with that over all eigenvalues left out, each in `tail_interval`."""
    left = pairs.n_params - pairs.rank
    low, high = tail_interval(pairs)
    return inside[0] + left * (1.0 - high), inside[1] + left * min(1.0, 1.0 - low + doubt)


def _of_semidefinite(pairs: Eigenpairs, most_rank: int, epsilon: float) -> tuple[float, float]:
    """What the directions that were left out add to the sum over the pairs, (least, most)."""
    assert pairs.trace is not None
    rounding = _TRACE_ROUNDING * epsilon * pairs.trace
    remainder = pairs.remainder or 0.0
    most, least = remainder + rounding, max(0.0, remainder - rounding)
    # Above, Rotfel'd and concavity: trace f(E) <= m f(t / m) = m t / (m + t).
    highest = most_rank * most / (most_rank + most) if most_rank else 0.0
    if pairs.left_out is None:
        return 0.0, highest
    delta = pairs.left_out.bound
    squares = pairs.residual_norms**2
    coupling = float(np.sum(squares))
    if not (delta > 0 and coupling < 1):
        return 0.0, highest
    # Below, f(x) >= x / (1 + delta) on [0, delta] for the trace outside U, less the coupling.
    inside = coupling / delta
    lost = 2.0 * float(np.sum(squares / (1.0 + pairs.values))) / (1.0 - coupling)
    lowest = max(0.0, (least - inside) / (1.0 + delta) - lost)
    return min(lowest, highest), highest


def _share(values: Array) -> Array:
    """Share that the data determine of directions with eigenvalues x: x / (1 + x)."""
    return np.asarray(values / (1.0 + values))
