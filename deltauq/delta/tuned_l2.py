"""An L2 rate that was chosen after training: by what, and what that means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FACTORS", "TunedL2"]

Array = npt.NDArray[Any]

#: Factors on the L2 rates that are tried, from the first to the second.
FACTORS = (1e-8, 1e8)


@dataclass(frozen=True)
class TunedL2:
    """An L2 rate chosen after training, and what it was chosen from.

    Attributes:
        factor: by which all rates were multiplied.
        rate: the L2 rate now; None where variables have different ones.
        criterion: "marginal likelihood" or "held-out likelihood".
        factors: that were tried, ascending `[n]`; those at which there is a covariance.
        values: of the criterion at each `[n]`, in nats: in total, or the mean of the held-out ones.
    """

    factor: float
    rate: float | None
    criterion: str
    factors: Array
    values: Array

    @property
    def in_short(self) -> str:
        """What was chosen, in some words."""
        if self.rate is None:
            return f"the factor {self.factor:.3g} on the L2 rates was {self._criterion}"
        return f"the L2 rate, {self.rate:.3g}, was {self._criterion}"

    @property
    def origin(self) -> str:
        """Where the rate comes from: the criterion, on which data, among which rates."""
        unit = 1.0 if self.rate is None else self.rate / self.factor
        low, high = self.factors[0] * unit, self.factors[-1] * unit
        tried = "factors on all rates" if self.rate is None else "rates"
        return f"{self._criterion}, among {len(self.factors)} {tried} from {low:.2g} to {high:.2g}"

    @property
    def note(self) -> str:
        """What the choice means for the standard errors."""
        chosen = f"is {self.rate:.3g}" if self.rate else f"was multiplied by {self.factor:.3g}"
        sentences = [
            f"The L2 rate {chosen}, {self.origin}.",
            "The weights were trained with another, so they are no minimum of the cost with this "
            "one: the standard errors and intervals are those of weights like these under this "
            "rate, as if it had been known; that it might have come out otherwise is not in them.",
        ]
        if self._is_held_out:
            gain = float(np.max(self.values) - self.values[-1])
            sentences.append(
                f"Held-out labels are worth {gain:.2g} nats an observation more with it than with "
                "next to no epistemic variance."
            )
        if self.factors[0] > FACTORS[0]:
            sentences.append(
                f"Factors under {self.factors[0]:.2g} were left out: with "
                "negative_curvature='keep' the curvature plus L2 is not positive definite there."
            )
        return " ".join(sentences)

    @property
    def _criterion(self) -> str:
        data = "held-out data" if self._is_held_out else "the training data"
        return f"chosen after training by the {self.criterion} of {data}"

    @property
    def _is_held_out(self) -> bool:
        return self.criterion.startswith("held-out")
