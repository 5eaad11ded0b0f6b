"""Between what standard errors lie where pairs were left out, with a probability."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature.tail_band import TailBand

__all__ = ["StdRange", "exact", "half_width", "range_of_std"]

Array = npt.NDArray[Any]

#: A relative distance that is rounding.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class StdRange:
    """Between what the standard errors from all eigenpairs lie, for all means of an input at once.

    It can be taken apart like a pair: `low, high = prediction.std_range()`.

    Attributes:
        low: `[N, C]`.
        high: `[N, C]`.
        level: the probability with which it holds for an input, at least what was asked for; 1
            where nothing was left out.
        n_inputs: calibration inputs that it rests on; 0 where nothing was left out.
        guaranteed: the level is promised for inputs that are exchangeable with the calibration
            inputs; otherwise these were training inputs, and it is empirical. Where the noise of a
            regression is estimated, the promise is of the rest: the noise lies with 99 % where the
            range takes it, as far as the samples behind that are normal.
        half_width: of a typical standard error, how far it may lie from the one reported, relative.
    """

    low: Array
    high: Array
    level: float
    n_inputs: int
    guaranteed: bool
    half_width: float

    def __iter__(self) -> Iterator[Array]:
        return iter((self.low, self.high))

    def __str__(self) -> str:
        if not self.n_inputs:
            return exact(self.half_width)
        within = f"within {100 * self.half_width:.2g} %"
        kind = "" if self.guaranteed else ", training inputs held out: empirical"
        return (
            f"{within}, typically, for {100 * self.level:.3g} % of the inputs (measured on "
            f"{self.n_inputs}{kind})"
        )


def range_of_std(
    band: TailBand, level: float, std: Array, limits: Array, shares: Array, outside: Array
) -> StdRange:
    """Move the tail of every input to the ends of its band, inside what is certain.

    Args:
        band: of the fit.
        level: the probability.
        std: `[N, C]`, at the tail that the share says.
        limits: certified ends `[N, C, 2]`.
        shares: of each input `[N]`; NaN where none of its means has any variance.
        outside: variance of each mean outside the eigenvectors, were the tail one, `[N, C]`.
    """
    ends, by_share = band.ends(level), band.by_share
    known = np.where(np.isfinite(shares), shares, 0.5)
    middle = by_share.at(known)
    narrow = by_share.is_narrow(np.maximum(std**2 - middle[:, None] * outside, 0.0), outside)
    found = []
    of_noise = band.residuals.noise_on_std
    for i, residual, factor in zip((0, 1), (ends.low, ends.high), of_noise, strict=True):
        moved = (by_share.at(known, residual) - middle)[:, None] * outside
        variance = np.maximum(std**2 + moved, 0.0)
        end = np.clip(factor * np.sqrt(variance), limits[..., 0], limits[..., 1])
        found.append(np.where(narrow, limits[..., i], end))
    low, high = found
    return StdRange(
        low,
        high,
        ends.level,
        len(band.residuals.low),
        band.exchangeable,
        half_width(std, low, high),
    )


def exact(typical: float) -> str:
    """How far standard errors are known that nothing to speak of was left out of, in words."""
    return "exact to rounding" if typical < _ROUNDING else f"exact: within {100 * typical:.1g} %"


def half_width(std: Array, low: Array, high: Array) -> float:
    """Median, over means that have a variance, of the relative distance to the further end."""
    some = std > 0
    if not np.any(some):
        return 0.0
    return float(np.median(np.maximum(high[some] / std[some] - 1.0, 1.0 - low[some] / std[some])))
