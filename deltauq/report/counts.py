"""The story of counts."""

from __future__ import annotations

import numpy as np

from deltauq.report.quantities import OfQuantities
from deltauq.report.words import number

__all__ = ["OfCounts"]


class OfCounts(OfQuantities):
    """Story of counts with a Poisson distribution, and of their rates."""

    outcome = "counts"
    lead = "How sure a trained model is of the rates of counts it predicts, by the Delta method."
    question = (
        "A model of counts gives every input a rate, the mean of its counts, but not how far to "
        "trust it. Two things blur it: the weights, which would have come out somewhat differently "
        "with another training set of the same kind (the standard error of the rate), and the "
        "spread of a single count around its rate, whose variance is that rate."
    )
    rest = "that of a count around its rate"
    right = (
        "An interval of an observation is right when it holds at least the share of the "
        "observations that it promises; as counts are whole, it holds more where rates are small. "
        "Fewer: the counts vary more than a Poisson distribution does, or the model is not true."
    )

    def written(self, value: float, error: float) -> str:
        """A count, which is whole however well its rate is known."""
        return f"{value:,.0f}"

    def facts(self) -> list[tuple[str, str, str]]:
        """Headline figures: errors of the rates, and how the counts vary beside them."""
        facts = []
        if self.study.y is not None:
            errors, variance = self.truth - self.prediction.mean, self.prediction.observation_std**2
            root = number(float(np.sqrt(np.mean(errors**2))))
            # Pearson's statistic, the epistemic variance counted as these may be new inputs.
            ratio = number(float(np.mean(errors**2 / np.maximum(variance, 1e-300))))
            what = (
                "squared errors beside their variances: 1 for Poisson counts; well above it they "
                "are overdispersed, and only the sandwich's standard errors hold"
            )
            facts += [("Error", root, "root of the mean square"), ("Dispersion", ratio, what)]
        if len(self.names) > 1:
            facts.append(("Outputs", f"{len(self.names):,}", ""))
        return facts
