"""The story of predictions of one of several classes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq import plots
from deltauq.report.blocks import Block, Column, Heading, Picture, Table
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

__all__ = ["OfClasses"]

Array = npt.NDArray[Any]

#: Inputs in a gallery.
_GALLERY = 6


class OfClasses(Story):
    """Story of a classifier, which finds one class for every input."""

    outcome = "classes"
    takes_images = True
    lead = "How sure a trained classifier is of its own probabilities, by the Delta method."
    question = (
        "A classifier gives every input a probability for each class, but not how far to trust "
        "that number. With another training set of the same kind, the weights and so the "
        "probabilities would have come out somewhat differently."
    )

    def facts(self) -> list[tuple[str, str, str]]:
        """Headline figures: accuracy, number of classes and the like."""
        facts, wrong = [], self._wrong()
        if wrong is not None:
            n, count = len(wrong), int(wrong.sum())
            accuracy = fixed(100 * (1 - count / n), 1) + " %"
            if count and accuracy.startswith("100"):
                accuracy = percent(1 - count / n)
            facts.append(("Accuracy", accuracy, f"{count:,} of {n:,} wrong"))
        return [*facts, ("Classes", f"{len(self.names):,}", "")]

    def sentences(self) -> list[str]:
        """Sentences on the standard errors of the predicted classes, and of the wrong ones."""
        se, wrong = self.prediction.events().std, self._wrong()
        sentences = [
            "The median standard error of the predicted class's probability is "
            f"{number(float(np.median(se)))}; one input in twenty has more than "
            f"{number(float(np.quantile(se, 0.95)))}."
        ]
        if wrong is not None and wrong.any() and not wrong.all():
            sentences.append(
                f"Among the wrong predictions the median is {number(float(np.median(se[wrong])))}, "
                f"among the right ones {number(float(np.median(se[~wrong])))}."
            )
        apart = self.prediction.difference_test().p_value < 0.05
        sentences.append(
            f"For {percent(float(np.mean(apart)))} of the inputs the predicted class is told from "
            "the second by more than the uncertainty of the weights (at the 5 % level)."
        )
        return [*sentences, *beyond_sentences(se), averaged_sentence(self.prediction)]

    def pictures(self) -> list[Picture]:
        """Plot of probability against standard error."""
        events = self.prediction.events()
        p, se = events.probability, events.std
        return [
            Picture(
                "probability_against_error",
                "Probability of the predicted class against its standard error, one point an "
                "input. Near 0 and 1 a probability has little room to vary; among inputs of the "
                "same probability, a higher point is one the training data pin down less.",
                "Scatter plot of the predicted class's probability, from "
                f"{number(float(p.min()))} to {number(float(p.max()))}, against its standard "
                f"error, up to {number(float(se.max()))}, for {len(p):,} inputs.",
                lambda: plots.probability_against_error(self.prediction, self.study.y),
            )
        ]

    def against_truth(self) -> list[Block]:
        """Blocks that judge score and probabilities: AUROC, risk and coverage, calibration."""
        return score_blocks(self) + reliability_blocks(self)

    def uncertain(self, chosen: Array) -> Table:
        """Table of inputs: predicted class, truth, probability, standard error and interval."""
        some, y = self.prediction[chosen], self.study.y
        n, top = np.arange(len(chosen)), some.labels
        averaged = some.predictive("probit").probabilities[n, top]
        lower, upper = (end[n, top] for end in some.interval(0.95))
        true = [] if y is None else [self.names[int(c)] for c in self.truth[chosen]]
        columns = [
            (Column("Predicted", "names"), [self.names[c] for c in top]),
            (Column("True", "names"), true),
            (Column("Probability"), [fixed(v, 3) for v in some.probabilities[n, top]]),
            (Column("Averaged"), [fixed(v, 3) for v in averaged]),
            (Column("Standard error"), [number(float(v)) for v in some.std[n, top]]),
            (Column("which is between"), se_range(self.study, chosen, top)),
            (
                Column("95 % interval"),
                [f"{a:.3f} to {b:.3f}" for a, b in zip(lower, upper, strict=True)],
            ),
        ]
        wrong = self._wrong()
        marked = np.zeros(len(chosen), bool) if wrong is None else wrong[chosen]
        return uncertain_table(self.study, chosen, columns, marked)

    def galleries(self) -> list[Block]:
        """Galleries of the first and the last inputs by their score as pictures, with bars."""
        images, order = self.study.images, self.study.by_score
        if images is None:
            return []
        truth = "" if self.study.y is None else ", the true one outlined"
        drawn_as = (
            "Bars are class probabilities, whiskers their 95 % intervals; the predicted class is "
            f"dark{truth}. After ± in a title is the standard error."
        )
        ends = (
            ("most", order[:_GALLERY], drawn_as, "highest"),
            ("least", order[::-1][:_GALLERY], "Drawn as above, the lowest scores.", "lowest"),
        )
        blocks: list[Block] = []

        def draw(chosen: Array) -> Any:
            prediction, y = self.prediction, self.study.y
            return plots.gallery(prediction, images, chosen, class_names=self.names, y=y)

        for name, chosen, caption, kind in ends:
            blocks += [
                Heading(f"The {name} uncertain inputs"),
                Picture(
                    f"{name}_uncertain",
                    caption,
                    f"The inputs with the {kind} scores, with their class probabilities.",
                    partial(draw, chosen),
                    size="wide",
                ),
            ]
        return blocks

    def _wrong(self) -> Array | None:
        y = self.study.y
        return None if y is None else self.prediction.is_wrong(y)
