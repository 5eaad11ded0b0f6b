"""The story of predictions of several labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq import plots
from deltauq.report.blocks import Block, Column, Picture, Table
from deltauq.report.stories import (
    Story,
    averaged_sentence,
    beyond_sentences,
    reliability_blocks,
    score_blocks,
    se_range,
    uncertain_table,
)
from deltauq.report.words import fixed, number, percent

__all__ = ["OfLabels"]

Array = npt.NDArray[Any]


class OfLabels(Story):
    """Story of predictions of several labels, each there or not."""

    outcome = "labels"
    lead = "How sure a trained model is of the probability of each label, by the Delta method."
    question = (
        "A model gives every input a probability for each of several labels, but not how far to "
        "trust those numbers. With another training set of the same kind, the weights and so the "
        "probabilities would have come out somewhat differently."
    )

    def facts(self) -> list[tuple[str, str, str]]:
        """Headline figures: shares of the labels and of the inputs that are right."""
        facts, wrong = [], self._wrong_labels()
        if wrong is not None:
            none = int(np.count_nonzero(~wrong.any(axis=1)))
            facts += [
                ("Labels right", percent(float(np.mean(~wrong))), f"{int(wrong.sum()):,} wrong"),
                ("Inputs right", percent(none / len(wrong)), "all labels of the input"),
            ]
        return [*facts, ("Labels", f"{len(self.names):,}", "")]

    def sentences(self) -> list[str]:
        """Sentences on the standard errors of all labels, and of the wrong ones."""
        se, wrong = self.prediction.std, self._wrong_labels()
        sentences = [
            "The median standard error of a label's probability is "
            f"{number(float(np.median(se)))}; one in twenty has more than "
            f"{number(float(np.quantile(se, 0.95)))}."
        ]
        if wrong is not None and wrong.any() and not wrong.all():
            sentences.append(
                f"Among the wrong labels the median is {number(float(np.median(se[wrong])))}, "
                f"among the right ones {number(float(np.median(se[~wrong])))}."
            )
        return [*sentences, *beyond_sentences(se.ravel()), averaged_sentence(self.prediction)]

    def pictures(self) -> list[Picture]:
        """Plot of probability against standard error."""
        return [
            Picture(
                "probability_against_error",
                "Probability of each label against its standard error, one point a label of an "
                "input. Among labels of the same probability, a higher point is one the training "
                "data pin down less.",
                "Scatter plot of the labels' probabilities against their standard errors.",
                lambda: plots.probability_against_error(self.prediction, self.study.y),
            )
        ]

    def against_truth(self) -> list[Block]:
        """Blocks that judge score and probabilities: AUROC, risk and coverage, calibration."""
        return score_blocks(self) + reliability_blocks(self)

    def uncertain(self, chosen: Array) -> Table:
        """Table of inputs, each with its least certain label."""
        some, y = self.prediction[chosen], self.study.y
        n, label = np.arange(len(chosen)), some.std.argmax(axis=1)
        averaged = some.predictive("probit").probabilities[n, label]
        lower, upper = (end[n, label] for end in some.interval(0.95))
        there = [] if y is None else ["yes" if v > 0.5 else "no" for v in self.truth[chosen, label]]
        columns = [
            (Column("Least certain label", "names"), [self.names[c] for c in label]),
            (Column("There", "names"), there),
            (Column("Probability"), [fixed(v, 3) for v in some.probabilities[n, label]]),
            (Column("Averaged"), [fixed(v, 3) for v in averaged]),
            (Column("Standard error"), [number(float(v)) for v in some.std[n, label]]),
            (Column("which is between"), se_range(self.study, chosen, label)),
            (
                Column("95 % interval"),
                [f"{a:.3f} to {b:.3f}" for a, b in zip(lower, upper, strict=True)],
            ),
        ]
        wrong = self._wrong_labels()
        marked = np.zeros(len(chosen), bool) if wrong is None else wrong[chosen, label]
        return uncertain_table(self.study, chosen, columns, marked)

    def _wrong_labels(self) -> Array | None:
        if self.study.y is None:
            return None
        return np.asarray(self.prediction.labels != (self.truth > 0.5))
