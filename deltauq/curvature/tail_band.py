"""A range for the standard errors that few eigenvectors give, from how far single inputs differ.

The tail of every mean of every calibration input is measured by itself. How far it lies from what
its share outside the eigenvectors says (`TailByShare`) is a residual on the logistic scale, and the
residuals of inputs that are exchangeable with the next one rank that of the next one: split
conformal prediction (Vovk, Gammerman, Shafer 2005, "Algorithmic learning in a random world").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deltauq.curvature.calibrated_tail import (
    TailByShare,
    TailInputs,
    mean_share,
)
from deltauq.errors import InvalidInputError, NumericalError, check_share
from deltauq.linalg import MOST_ROUNDING, Whitening, bound_matrix_forms

__all__ = ["COPIES", "Residuals", "ResidualsOnce", "TailBand", "measure_residuals"]

Array = npt.NDArray[Any]

#: Products with the curvature, at most, by which the tail of a mean is measured.
_MAX_STEPS = 24

#: Times the rows of a batch of inputs are in memory while their tails are measured.
COPIES = _MAX_STEPS + 6

#: Relative width of a mean's own tail under which no further step is taken.
_NARROW = 0.02


class Residuals(NamedTuple):
    """The least and the largest residual of the means of each calibration input, `[n]` each.

    Infinite, and the wrong way around, of an input whose standard errors are known well enough
    whatever the tail (`TailByShare.is_narrow`).

    Attributes:
        low: the least.
        high: the largest.
        noise_on_std: factors on standard errors between which the estimated noise of a regression
            leaves them.
    """

    low: Array
    high: Array
    noise_on_std: tuple[float, float] = (1.0, 1.0)


class ResidualsOnce:
    """Residuals that are measured when they are first asked for; all who share this know them then.

    Args:
        found: those that were measured before; None for none.
    """

    def __init__(self, found: Residuals | None = None) -> None:
        self.found = found

    def get(self, measure: Callable[[], Residuals]) -> Residuals:
        """The residuals, measured where nobody has asked for them before."""
        if self.found is None:
            self.found = measure()
        return self.found


class Ends(NamedTuple):
    """Residuals between which that of another input lies.

    Attributes:
        low: the smallest.
        high: the largest.
        level: the probability that is promised for all means of an input together.
    """

    low: float
    high: float
    level: float


@dataclass(frozen=True)
class TailBand:
    """How far the tails of single inputs lie from what was calibrated.

    Attributes:
        by_share: what was calibrated.
        exchangeable: the inputs were given, as such as will be predicted.
        measure: gives the residuals.
        once: keeps them from when they are first asked for.
    """

    by_share: TailByShare
    exchangeable: bool
    measure: Callable[[], Residuals]
    once: ResidualsOnce

    @property
    def residuals(self) -> Residuals:
        """Residuals of every calibration input, measured when they are first asked for."""
        return self.once.get(self.measure)

    @property
    def is_known(self) -> bool:
        """Whether the residuals were asked for before, so that they are there at once."""
        return self.once.found is not None

    def largest_level(self) -> float:
        """The largest level that so many inputs can promise."""
        return max(0.0, 1.0 - 2.0 / (len(self.residuals.low) + 1))

    def ends(self, level: float) -> Ends:
        """Between which residuals the next one lies with some probability at least.

        Of n residuals and the next one, each is the k-th smallest or largest with the same
        probability: with k / (n + 1) the next one is outside at either end.

        Args:
            level: the probability.

        Raises:
            InvalidInputError: so few inputs cannot promise that level.
        """
        check_share("level", level, example=0.9)
        low, high, _ = self.residuals
        count = len(low)
        k = int(np.floor((1.0 - level) * (count + 1) / 2 + 1e-9))
        if k < 1:
            largest = self.largest_level()
            wanted = int(np.ceil(2.0 / (1.0 - level) - 1e-9)) - 1
            raise InvalidInputError(
                f"{count} calibration inputs cannot promise level={level:g}",
                expected=f"a level of {np.floor(1000 * largest) / 1000:g} at most"
                if largest > 0
                else "more than one of them",
                received=f"{level:g}",
                remedy=f"pass a smaller level, or fit(..., calibration=x_new) with {wanted} inputs "
                "or more",
            )
        promised = 1.0 - 2.0 * k / (count + 1)
        least, most = float(np.sort(low)[k - 1]), float(np.sort(high)[-k])
        if not least <= most:  # nearly all inputs are narrow, and say nothing of others
            least, most = -np.inf, np.inf
        return Ends(least, most, promised)


def measure_residuals(
    inputs: TailInputs,
    matmat: Callable[[Array], Array],
    vectors: Array,
    values: Array,
    by_share: TailByShare,
) -> Residuals:
    """Measure the tail of every mean of some inputs, at the rate one.

    Args:
        inputs: whose rows `[B, C, P]` fit in memory `COPIES` times.
        matmat: product with the curvature without these inputs.
        vectors: its leading eigenvectors `[P, K]`.
        values: mu.
        by_share: from which residuals are taken.

    Raises:
        NumericalError: rounding as large as the L2 rate.
    """
    whitening = Whitening(vectors, values, inputs.rounding)
    if not whitening.is_seen:
        raise NumericalError(
            "the curvature is too large for std_range in this precision",
            expected=f"rounding under {MOST_ROUNDING:g} of the L2 rate",
            received=f"{whitening.rounding:.2g} of it",
            remedy="scale the inputs, raise l2, or build the model in float64; std_bounds hold",
        )
    product = whitening.times(matmat)
    found = [
        pair for rows in inputs.rows() for pair in _residuals(rows, whitening, product, by_share)
    ]
    low, high = np.array(found).T
    return Residuals(low, high)


def _residuals(
    rows: Array, whitening: Whitening, product: Callable[[Array], Array], by_share: TailByShare
) -> Iterator[tuple[float, float]]:
    """The least and the largest residual of each input of a batch, of those that are not narrow.

    Where all are, the ends are the wrong way around: no range has to reach for them.
    """
    shape, columns = rows.shape[:2], rows.reshape(-1, rows.shape[2]).T
    inside, rest = whitening.parts(columns)
    numbers = np.flatnonzero(~by_share.is_narrow(inside, rest))
    low, high = np.full(len(inside), np.inf), np.full(len(inside), -np.inf)
    if len(numbers):

        def tails(forms: Array, some: Array) -> Array:
            return (forms[:, 0, 0] - inside[some]) / rest[some]

        def is_enough(low: Array, high: Array, some: Array) -> Array:
            least, most = (tails(end, numbers[some]) for end in (low, high))
            return np.asarray(most - least <= _NARROW * most)

        start = np.ascontiguousarray(whitening(np.ascontiguousarray(columns[:, numbers])).T)
        max_steps = min(_MAX_STEPS, len(columns) - 1)  # a basis of P - 1 rows has room for one more
        forms = bound_matrix_forms(
            product, start[:, None], whitening.bounds, is_enough=is_enough, max_steps=max_steps
        )
        shares = mean_share(inside.reshape(shape), rest.reshape(shape))
        centre = np.repeat(by_share.logit(shares), shape[1])[numbers]
        low[numbers] = by_share.logit_of_tail(tails(forms.low, numbers)) - centre
        high[numbers] = by_share.logit_of_tail(tails(forms.high, numbers)) - centre
    yield from zip(low.reshape(shape).min(axis=1), high.reshape(shape).max(axis=1), strict=True)
