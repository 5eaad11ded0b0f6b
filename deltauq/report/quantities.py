"""The story of a regression."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq import plots
from deltauq.report.blocks import Block, Column, Heading, Picture, Table, Text
from deltauq.report.stories import Story, uncertain_table
from deltauq.report.words import beside_error, number, percent

__all__ = ["OfQuantities"]

Array = npt.NDArray[Any]

#: Outputs that get a picture.
_PICTURES = 4

#: Levels at which intervals are checked.
_LEVELS = (0.5, 0.8, 0.95)


class OfQuantities(Story):
    """Story of a regression, of numbers with normal noise."""

    outcome = "quantities"
    lead = "How sure a trained regression is of the numbers it predicts, by the Delta method."
    question = (
        "A regression gives every input a number, but not how far to trust it. Two things blur "
        "it: the weights, which would have come out somewhat differently with another training "
        "set of the same kind (the standard error of the mean), and the noise of a single "
        "observation around that mean."
    )
    score_meaning = (
        "The score of an input is the square root of the sum of its outputs' variances: with one "
        "output its standard error."
    )

    #: What the variance of an observation is beside that of the mean, and when intervals are right.
    rest = "noise"
    right = (
        "An interval of an observation is right when it holds the share of the observations "
        "that it promises. Fewer: the noise or the standard errors are too small, or the model "
        "is not true; more: they are too large."
    )

    def written(self, value: float, error: float) -> str:
        """An observation, or an end of its interval, beside the standard error of its mean."""
        return beside_error(value, error)

    def facts(self) -> list[tuple[str, str, str]]:
        """Headline figures: errors of the predicted numbers, and the noise."""
        noise, low, high = (
            number(float(np.sqrt(np.mean(variance))))
            for variance in (self.prediction.noise, *self.prediction.noise_bounds)
        )
        what = "standard deviation of an observation"
        between = "" if low == high else f"; all eigenpairs would give {low} to {high}"
        facts = [("Noise", noise, what + between)]
        if self.study.y is not None:
            errors = self.truth - self.prediction.mean
            root = number(float(np.sqrt(np.mean(errors**2))))
            facts.insert(0, ("Error", root, "root of the mean square"))
        if len(self.names) > 1:
            facts.append(("Outputs", f"{len(self.names):,}", ""))
        return facts

    def sentences(self) -> list[str]:
        """Sentences on the standard errors of the means beside the noise."""
        se, split = self.prediction.std, self.prediction.variance_split()
        share = float(np.mean(split.epistemic / np.maximum(split.total, 1e-300)))
        return [
            f"The median standard error of a predicted mean is {number(float(np.median(se)))}; "
            f"one in twenty has more than {number(float(np.quantile(se, 0.95)))}.",
            f"On average {percent(share)} of the variance of a new observation comes from the "
            f"weights, and would shrink with more training data; the rest is {self.rest}, and "
            "would not.",
        ]

    def pictures(self) -> list[Picture]:
        """Plots of the bands along the only feature, or of numbers against standard errors."""
        if self.study.feature is not None:
            return [
                self._picture(
                    c,
                    "The predicted mean along the only feature, with the 95 % interval of the "
                    "mean (dark) and of a single observation (light).",
                    partial(plots.regression_band, self.prediction, self.study.feature),
                )
                for c in range(min(len(self.names), _PICTURES))
            ]
        return [
            self._picture(
                c,
                "Predicted number against its standard error, one point an input: a higher point "
                "is one the training data pin down less.",
                partial(plots.mean_against_error, self.prediction),
            )
            for c in range(min(len(self.names), _PICTURES))
        ]

    def against_truth(self) -> list[Block]:
        """Blocks on how many observations their intervals hold."""
        if self.study.y is None:
            return []
        truth, rows = self.truth, []
        for level in _LEVELS:
            lower, upper = self.prediction.interval(level, of="observation")
            held = float(np.mean((truth >= lower) & (truth <= upper)))
            rows.append((f"{100 * level:g} %", percent(held)))
        table = Table(
            "Observations within their intervals",
            [Column("Promised"), Column("Held")],
            rows,
        )
        return [Heading("Do the intervals hold?"), Text(self.right), table]

    def uncertain(self, chosen: Array) -> Table:
        """Table of inputs, each with its least certain output."""
        some, y = self.prediction[chosen], self.study.y
        n, output = np.arange(len(chosen)), some.std.argmax(axis=1)
        std = some.std[n, output]
        intervals = [
            [
                f"{written(a, se)} to {written(b, se)}"
                for a, b, se in zip(low[n, output], high[n, output], std, strict=True)
            ]
            for written, (low, high) in (
                (beside_error, some.interval(0.95, "mean")),
                (self.written, some.interval(0.95, "observation")),
            )
        ]
        observed = [] if y is None else list(map(self.written, self.truth[chosen][n, output], std))
        several = [self.names[c] for c in output] if len(self.names) > 1 else []
        limits = some.std_limits
        between = [] if limits is None else limits[n, output].tolist()
        columns = [
            (Column("Least certain output", "names"), several),
            (Column("Observed"), observed),
            (Column("Mean"), list(map(beside_error, some.mean[n, output], std))),
            (Column("Standard error"), list(map(number, std))),
            (
                Column("which is between"),
                [f"{number(low)} and {number(high)}" for low, high in between],
            ),
            (Column("95 % interval of the mean"), intervals[0]),
            (Column("of an observation"), intervals[1]),
        ]
        none = np.zeros(len(chosen), bool)
        return uncertain_table(self.study, chosen, columns, none)

    def _picture(self, c: int, caption: str, draw: Any) -> Picture:
        one = len(self.names) == 1
        name = "" if one else f" Output: {self.names[c]}."
        return Picture(
            "mean_and_error" if one else f"mean_and_error_{c}",
            caption + name,
            "Plot of the predicted numbers and how far they may be off." + name,
            lambda: draw(y=self.study.y, output=c),
        )
