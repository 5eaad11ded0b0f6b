"""Predictions of counts: their rates, and new counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from beartype import beartype
from jaxtyping import jaxtyped

from deltauq.errors import check_choice, check_share
from deltauq.likelihoods.lognormal_rates import count_quantile
from deltauq.prediction.estimate import Array, normal_quantile
from deltauq.prediction.predictive import PredictiveMoments, refuse_method
from deltauq.prediction.quantities import RegressionPrediction

__all__ = ["CountPrediction"]


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class CountPrediction(RegressionPrediction):
    """Predicted rates of N inputs with their epistemic uncertainty, and that of new counts.

    `mean` and `std` are of the rates exp(z), `logits` and `logit_std` of the log rates z; `noise`
    is the variance of a count around its rate, which is the rate itself.
    """

    outcome = "counts"

    def __repr__(self) -> str:
        c = self.logits.shape[1]
        return f"CountPrediction({self._count}, {c} {'output' if c == 1 else 'outputs'})"

    def interval(
        self, level: float = 0.95, of: Literal["mean", "observation"] = "mean"
    ) -> tuple[Array, Array]:
        """Intervals of the rate, or of a new count, at a confidence level.

        That of the rate is exp(z +- q logit_std), as a GLM package has it: it is positive, and not
        symmetric. That of a count goes between the (1 - level) / 2 and (1 + level) / 2 quantiles of
        a Poisson distribution whose log rate is normal, of mean z and standard error logit_std,
        both ends included. As counts are whole it holds at least `level`, and more where rates are
        small.

        Args:
            level: in (0, 1).
            of: "mean" (epistemic: where the rate lies) or "observation" (total: where a new count
                lies).

        Returns:
            (lower, upper), each `[N, C]`; of "observation" whole numbers, as floats.
        """
        check_choice("of", of, ("mean", "observation"))
        if of == "mean":
            reach = normal_quantile(level) * self.logit_std
            with np.errstate(over="ignore"):  # an interval without an upper end is one
                return np.exp(self.logits - reach), np.exp(self.logits + reach)
        left = (1.0 - check_share("level", level, example=0.95)) / 2
        parts = self.logits, self.logit_std
        return count_quantile(left, *parts), count_quantile(1.0 - left, *parts)

    def predictive(self, method: str = "exact") -> PredictiveMoments:
        """Mean and variance of a new count whose log rate is normal, of mean z and variance v.

        The mean is that of the rates, m = exp(z + v / 2), which is larger than the rate exp(z); the
        variance is m + m^2 (exp(v) - 1). They belong to the distribution that
        `interval(of="observation")` takes quantiles of, and are infinite where they overflow.

        Args:
            method: "exact", which there is no other than.

        Raises:
            InvalidInputError: another method.
        """
        refuse_method(method)
        spread = np.square(self.logit_std)
        with np.errstate(over="ignore"):  # so loosely determined a rate has no upper end
            mean = np.exp(self.logits + spread / 2)
            # m^2 (exp(v) - 1) = exp(2 z + 2 v) (1 - exp(-v)), without infinity times zero
            of_rates = np.exp(2 * (self.logits + spread)) * -np.expm1(-spread)
        return PredictiveMoments(mean, mean + of_rates)
