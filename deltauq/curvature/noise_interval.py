"""How far the estimated noise of a regression is known, and what that leaves open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["NoiseRange", "noise_range"]

Array = npt.NDArray[Any]

#: Share of the observations that must be left for the noise.
_LEAST_FREEDOM = 1e-3


@dataclass(frozen=True)
class NoiseRange:
    """Range of the noise that all eigenpairs would give, as multiples of the estimate.

    Attributes:
        low: the noise is not under so many times the estimate.
        high: nor above so many times; infinite where the eigenpairs leave as many directions open
            as there are observations.
        factor: the estimate over the mean square of the residuals, 1 / (1 - gamma / (N C)).
        power: p with (multiple)^p a bound on the multiple of the parameters' covariance, for
            multiples above one from above and for those under one from below.
        certified: these are bounds; otherwise gamma was sampled.
    """

    low: float
    high: float
    factor: float
    power: int
    certified: bool = True

    @property
    def is_open(self) -> bool:
        """Whether the range leaves standard errors without an upper bound."""
        return self.power > 0 and not np.isfinite(self.high)

    @property
    def width(self) -> float:
        """Relative width (high - low) / high of a standard error that nothing else leaves open."""
        return 1.0 if self.is_open else 1.0 - (self.low / self.high) ** (self.power / 2)

    @property
    def on_std(self) -> tuple[float, float]:
        """Factors on the lower and the upper bound of a standard error."""
        return self.low ** (self.power / 2), self.high ** (self.power / 2)

    def sampled(self, gamma: tuple[float, float], n_observations: float) -> NoiseRange:
        """The part of the range in which a sampled gamma leaves the noise, and the estimate.

        Args:
            gamma: parameters that the data determine, between which they are as a rule.
            n_observations: N C.
        """
        left = np.maximum(n_observations - np.asarray(gamma), 0.0)
        with np.errstate(divide="ignore"):
            low, high = n_observations / (self.factor * left)
        return replace(
            self,
            low=float(np.clip(low, self.low, 1.0)),
            high=float(np.clip(high, 1.0, self.high)),
            certified=False,
        )

    def widen(self, limits: Array) -> Array:
        """Widen bounds `[..., 2]` of standard errors by the range of the noise; 0 stays 0."""
        low, high = self.on_std
        above = np.where(limits[..., 1] > 0, limits[..., 1], 1.0) * high
        return np.stack(
            [limits[..., 0] * low, np.where(limits[..., 1] > 0, above, limits[..., 1])], axis=-1
        )


def noise_range(
    gamma: tuple[float, float], n_observations: float, *, power: int, certified: bool = True
) -> NoiseRange | None:
    """Range of the noise RSS / (N - gamma / C) for gamma in an interval.

    The estimate is that of the interval's middle, its upper end taken as N C where it is above.

    Args:
        gamma: parameters that the data determine, at least and at most.
        n_observations: N C.
        power: as of `NoiseRange`.
        certified: gamma lies in the interval for certain.

    Returns:
        The range; None where already the lower end leaves nothing for the noise.
    """
    # With RSS the squares of all N C residuals, v = RSS / (N C - gamma) (MacKay 1992), which grows
    # with gamma: the ends of gamma change places in what they leave for the noise.
    low, high = gamma
    most, least = n_observations - low, n_observations - min(high, n_observations)
    needed = _LEAST_FREEDOM * n_observations
    if not most >= needed:
        return None
    middle = (most + least) / 2
    return NoiseRange(
        low=middle / most,
        high=middle / least if least >= needed else np.inf,
        factor=n_observations / middle,
        power=power,
        certified=certified,
    )
