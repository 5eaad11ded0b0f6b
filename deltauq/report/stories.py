"""How a kind of prediction is told: one story each for classes, labels, numbers, counts."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq import plots
from deltauq.errors import InvalidInputError
from deltauq.evaluation.metrics import error_auroc
from deltauq.prediction import MultiLabelPrediction, Prediction
from deltauq.report.blocks import Block, Column, Facts, Heading, Picture, Section, Table, Text
from deltauq.report.contents import ReportContents
from deltauq.report.words import fixed, number

__all__ = [
    "Story",
    "averaged_sentence",
    "beyond_sentences",
    "reliability_blocks",
    "score_blocks",
    "se_range",
    "uncertain_table",
]

Array = npt.NDArray[Any]

#: Rows in the table of the most uncertain inputs.
_TABLE = 10

#: Difference of two AUROCs up to which the page calls them as good.
_AUROC_MARGIN = 0.02

#: A quantity between 0 and 1 cannot have a larger standard deviation.
_LARGEST_STD = 0.5

#: What the weights of the training examples were taken for.
_WEIGHTED = {
    "none": "",
    "counts": "the sum of their weights, which are counts: a weight of 2 is two examples",
    "importance": "those of positive weight; weights are factors on their losses, not counts",
    "counts and importance": "the sum of the sample weights, which are counts; the weights of "
    "classes are factors on the losses",
}

_FROM_SCORE = "AUROC of the score, from the standard errors"
_FROM_PROBABILITIES = "AUROC of 1 \N{MINUS SIGN} max p, from the probabilities alone"


class Story(abc.ABC):
    """Base of what a page says of one kind of prediction.

    Args:
        study: with a run.
    """

    #: The outcome of the predictions that it tells, and whether images of the inputs go with it.
    outcome: str
    takes_images: bool = False
    #: Under the title, and how "What was asked" begins.
    lead: str
    question: str
    #: What the score is, in a sentence.
    score_meaning: str = (
        "The score of an input is the square root of the sum of its probabilities' variances."
    )

    def __init__(self, study: ReportContents) -> None:
        self.study = study
        self.prediction = study.prediction
        self.names = study.names

    @property
    def truth(self) -> Array:
        """Labels or numbers that the inputs have in truth; there must be some."""
        if self.study.y is None:
            raise InvalidInputError("nothing is known of the truth", expected="a study with y")
        return self.prediction.checked_truth(self.study.y)

    @abc.abstractmethod
    def facts(self) -> list[tuple[str, str, str]]:
        """Headline figures, (label, value, note) each; the first is the answer in the summary."""

    @abc.abstractmethod
    def sentences(self) -> list[str]:
        """Sentences on the standard errors; the first one stands in the summary too."""

    @abc.abstractmethod
    def pictures(self) -> list[Picture]:
        """Plots of the predictions and their standard errors."""

    @abc.abstractmethod
    def against_truth(self) -> list[Block]:
        """Blocks on how the predictions fare against the truth; empty where there is none."""

    @abc.abstractmethod
    def uncertain(self, chosen: Array) -> Table:
        """Table of chosen inputs, one row each.

        Args:
            chosen: their places in the predictions.
        """

    def galleries(self) -> list[Block]:
        """Images of the most and least uncertain inputs."""
        return []

    def found_section(self) -> Section:
        """Section on what the predictions are, and how sure."""
        study, n = self.study, len(self.prediction)
        of_these = "all figures below are of these"
        if study.n_masked:
            of_these += f"; {study.n_masked:,} more are masked, which is padding"
        facts = [*self.facts(), (f"{study.unit}s".capitalize(), f"{n:,}", of_these)]
        if study.n_train is not None:
            note = _WEIGHTED[study.weighting]
            facts.append(("Training examples", f"{study.n_train:,.10g}", note))
        n_params = study.require_run().eigenpairs.n_params
        facts.append(("Parameters", f"{n_params:,}", "those counted as uncertain"))
        if study.l2 is not None:
            note = "the cost holds half of it times the squared weights, beside the mean loss"
            facts.append(("L2 rate", number(study.l2), note))
        text = Text(" ".join(self.sentences()))
        return Section(
            "What it found", [Facts(facts), text, *self.pictures(), *self.against_truth()]
        )

    def inputs_section(self) -> Section:
        """Section on which inputs to look at: the most uncertain ones."""
        chosen = self.study.by_score[:_TABLE]
        table = self.uncertain(chosen)
        marked = "; wrong predictions are in bold" if table.marked else ""
        intro = Text(
            f"The {len(chosen)} {self.study.unit}s with the highest score, of "
            f"{len(self.prediction):,}: a second opinion is worth most there. "
            f"The index counts the {self.study.unit}s from 0{marked}. {self.score_meaning}"
        )
        title = f"Which {self.study.unit}s to look at"
        return Section(title, [intro, table, *self.galleries()])


def se_range(study: ReportContents, rows: Array, columns: Array) -> list[str]:
    """Text for the range of each standard error from all eigenpairs; empty where unknown."""
    limits = study.prediction.std_limits
    if limits is None:
        return []
    return [f"{number(low)} and {number(high)}" for low, high in limits[rows, columns].tolist()]


def uncertain_table(
    study: ReportContents,
    chosen: Array,
    columns: Sequence[tuple[Column, Sequence[str]]],
    marked: Array,
) -> Table:
    """A table of inputs: their numbers, some columns, and their scores.

    Args:
        study: the inputs are of.
        chosen: their places in its predictions.
        columns: those between number and score; one without cells is left out.
        marked: which rows stand out.
    """
    filled = [(column, cells) for column, cells in columns if len(cells)]
    score = [number(float(value)) for value in study.prediction.score[chosen]]
    every = [
        (Column("Index"), [str(i) for i in study.rows[chosen]]),
        *filled,
        (Column("Score"), score),
    ]
    return Table(
        f"The most uncertain {study.unit}s",
        [column for column, _ in every],
        list(zip(*(cells for _, cells in every), strict=True)),
        frozenset(np.flatnonzero(marked).tolist()),
    )


def beyond_sentences(se: Array) -> list[str]:
    """Sentences on standard errors that no probability can have, where there are any."""
    beyond = int(np.count_nonzero(se > _LARGEST_STD))
    if not beyond:
        return []
    return [
        f"For {beyond:,} of {len(se):,} predictions the standard error exceeds {_LARGEST_STD}, "
        "more than any probability can vary: there the weights are so loosely determined that the "
        'linear approximation leaves its range. Take it as "not determined by the data", and read '
        "the interval, which stays between 0 and 1."
    ]


def averaged_sentence(prediction: Prediction | MultiLabelPrediction) -> str:
    """A sentence on how far probabilities move when they are averaged over the weights."""
    moved = np.abs(prediction.predictive("probit").probabilities - prediction.probabilities)
    largest = moved.max(axis=1)
    return (
        "Averaged over what the data leave open of the weights (probit approximation) "
        f"probabilities move by up to {number(float(np.median(largest)))} for a typical input, and "
        f"by {number(float(largest.max()))} at most."
    )


def reliability_blocks(story: Story) -> list[Block]:
    """Heading and plot of whether the probabilities are right, where there are labels."""
    prediction, y = story.prediction, story.study.y
    if y is None:
        return []
    picture = Picture(
        "reliability",
        "Inputs in bins by the probability they were given: how often it came true, with the 95 % "
        "interval of that share. On the dashed line probabilities are right; below it the model "
        "is too sure. The numbers at the foot count what each point is made of.",
        "Line plot of how often predictions came true against their probability.",
        lambda: plots.reliability(prediction, y),
        size="narrow",
    )
    return [Heading("Are the probabilities themselves right?"), picture]


def score_blocks(story: Story) -> list[Block]:
    """Blocks on whether the score finds wrong predictions, and better than probabilities do.

    Args:
        story: of probabilities; none without labels.
    """
    prediction, y = story.prediction, story.study.y
    if y is None:
        return []
    wrong = prediction.is_wrong(y)
    score = error_auroc(prediction.score, wrong)
    baseline = prediction.least_confidence
    other = None if baseline is None else error_auroc(baseline, wrong)
    blocks: list[Block] = [
        Heading("Does the score find wrong predictions?"),
        Text(
            f"{story.score_meaning} "
            "The AUROC is the chance that a wrong prediction has a higher score than a right one: "
            "0.5 is a coin, 1 is perfect."
        ),
    ]
    if score is None:
        every = "All predictions are right, or all are wrong, so neither can be judged."
        return [*blocks, Text(every)]
    cards = [(_FROM_SCORE, fixed(score, 3), "")]
    if other is not None:
        cards.append((_FROM_PROBABILITIES, fixed(other, 3), ""))
    basis = f"({int(wrong.sum()):,} wrong predictions out of {len(wrong):,})"
    verdict = f"Judged on {basis[1:-1]}." if other is None else _compared(score, other, basis)
    picture = Picture(
        "risk_coverage",
        "The most uncertain inputs are set aside one by one, from right to left: the error rate "
        "among those that are kept. The lower a curve, the better its order. The dotted line sets "
        "the wrong predictions aside first, which only one who knows the truth can do.",
        "Line plot of the error rate among the inputs kept against the share that is kept.",
        lambda: plots.risk_coverage(prediction, y),
    )
    return [*blocks, Facts(cards), Text(verdict), picture]


def _compared(score: float, baseline: float, basis: str) -> str:
    """Only a clear lead counts."""
    lead = score - baseline
    gap = f"{abs(round(score, 3) - round(baseline, 3)):.3f}"
    if abs(lead) <= _AUROC_MARGIN:
        return (
            f"The two are as good as each other at finding the wrong predictions here {basis}: "
            f"they differ by {gap}. What the standard errors add is the uncertainty of "
            "every probability, not a better list of suspects."
        )
    if lead < 0:
        return (
            f"The score is lower by {gap} {basis}: to find wrong predictions here, use "
            "1 \N{MINUS SIGN} max p, which needs no curvature."
        )
    return f"The score finds the wrong predictions better here, by {gap} {basis}."
