"""The page: its sections in order, and the HTML that they become."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from deltauq import __version__
from deltauq.errors import InvalidInputError, optional
from deltauq.plots.canvas import unshown
from deltauq.prediction import Estimate
from deltauq.report.blocks import Block, Bullets, Picture, Section, Text
from deltauq.report.certainty import certainty_section, certainty_sentence
from deltauq.report.classes import OfClasses
from deltauq.report.contents import ReportContents
from deltauq.report.counts import OfCounts
from deltauq.report.curvatures import side_by_side
from deltauq.report.fitness import diagnosis_sentence, fitness_section, stationarity_verdict
from deltauq.report.labels import OfLabels
from deltauq.report.quantities import OfQuantities
from deltauq.report.stories import Story
from deltauq.report.words import curvature_in_full, curvature_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STORIES", "figures", "story_of", "to_html"]

_DPI = 144

#: The story of every outcome that a prediction may have.
STORIES: dict[str, type[Story]] = {
    story.outcome: story for story in (OfClasses, OfLabels, OfQuantities, OfCounts)
}

_METHOD = (
    "The Delta method estimates by how much, without training again: the curvature of the training "
    "cost around the trained weights says how firmly the data hold each weight; its inverse, "
    "divided by the number of training examples, is the weights' covariance; and the network's "
    "derivatives carry that covariance over to a standard error of every prediction."
)


def story_of(prediction: Estimate) -> type[Story]:
    """The story that tells a prediction, by its outcome.

    Raises:
        InvalidInputError: a form of prediction that no story tells.
    """
    if prediction.outcome not in STORIES:
        raise InvalidInputError(
            "a report cannot tell this kind of prediction",
            expected="predictions of one of several classes, of several labels, of numbers or of "
            "counts",
            received=repr(prediction),
            remedy="predict without classes=",
        )
    return STORIES[prediction.outcome]


def figures(study: ReportContents) -> dict[str, Figure]:
    """Draw the report's figures in its order; the names serve as file names."""
    return {picture.name: _drawn(picture) for picture in _pictures(_sections(study))}


def to_html(study: ReportContents, figures: dict[str, Figure] | None = None) -> str:
    """The report as one HTML page that refers to nothing outside itself.

    Args:
        study: what to report.
        figures: by name, as from `figures`, those that are missing left out; None draws them.

    Raises:
        InvalidInputError: a study of nothing.
        MissingDependencyError: without jinja2 or matplotlib.
    """
    jinja2 = optional("jinja2", needed_by="reports need jinja2", extra="report")
    sections = _sections(study)
    if figures is None:
        figures = {picture.name: _drawn(picture) for picture in _pictures(sections)}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deltauq.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(
        title=study.title,
        lead=_lead(study),
        sections=sections,
        sources={name: _embedded(figure) for name, figure in figures.items()},
        version=__version__,
    )


def _sections(study: ReportContents) -> list[Section]:
    """The sections that there is something for, in the order of a reader's questions."""
    parts: list[Section | None] = []
    story = None if study.run is None else story_of(study.prediction)(study)
    if story is not None:
        parts = [_in_short(study, story), _asked(study, story)]
    parts.append(fitness_section(study))
    if story is not None:
        parts += [story.found_section(), story.inputs_section()]
    if study.comparison is not None:
        parts.append(side_by_side(study.comparison))
    if story is not None:
        parts.append(certainty_section(study))
    sections = [part for part in parts if part is not None]
    if not sections:
        raise InvalidInputError(
            "there is nothing to report",
            expected="a study with a run, a diagnosis or a comparison",
            received="none of them",
        )
    return sections


def _lead(study: ReportContents) -> str:
    if study.run is None:
        return "Whether a trained model is fit for standard errors by the Delta method."
    return story_of(study.prediction).lead


def _in_short(study: ReportContents, story: Story) -> Section:
    """The answer to each question in a sentence."""
    items = []
    if study.y is not None:
        label, value, note = story.facts()[0]
        items.append((f"{label}:", f"{value} ({note})."))
    fit = []
    if study.stationarity is not None:
        fit.append(f"The weights are {stationarity_verdict(study)}.")
    if study.caveats:
        several = "s" if len(study.caveats) > 1 else ""
        fit.append(f"The fit has {len(study.caveats)} caveat{several}, told below.")
    if study.diagnosis is not None:
        fit.append(diagnosis_sentence(study.diagnosis))
    if fit:
        items.append(("Is the model fit for it?", " ".join(fit)))
    items.append(("How uncertain are its predictions?", story.sentences()[0]))
    first = ", ".join(str(i) for i in study.rows[study.by_score[:3]])
    items.append((f"Which {study.unit}s to look at first?", f"Numbers {first}, counted from 0."))
    items.append(("How sure are these numbers?", certainty_sentence(study)))
    return Section("In short", [Bullets(items)])


def _asked(study: ReportContents, story: Story) -> Section:
    runs = () if study.comparison is None else study.comparison.runs
    reference = study.require_run().curvature
    names = dict.fromkeys([reference, *(run.curvature for run in runs)])
    text = Text(f"{story.question} {_METHOD}")
    if len(names) == 1:
        full, meaning = curvature_in_full(reference)
        what = f"The curvature is the {full}" + (f": {meaning}." if meaning else ".")
        return Section("What was asked", [text, Text(what)])
    listed = [
        (full, f"\N{EN DASH} {meaning}." if meaning else "")
        for full, meaning in map(curvature_in_full, names)
    ]
    chosen = Text(
        f"The curvature was taken in {len(names)} ways. Where not said otherwise the standard "
        f"errors are those of the {curvature_name(reference)}."
    )
    return Section("What was asked", [text, chosen, Bullets(listed)])


def _pictures(sections: list[Section]) -> list[Picture]:
    blocks: list[Block] = [block for section in sections for block in section.blocks]
    return [block for block in blocks if isinstance(block, Picture)]


def _drawn(picture: Picture) -> Figure:
    """The figure of a picture, drawn; a notebook does not show it beside the page."""
    figure = picture.draw().get_figure(root=True)
    assert figure is not None, "axes that are drawn on belong to a figure"
    return unshown(figure)


def _embedded(figure: Figure) -> str:
    """A figure as a data address."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI, facecolor="white")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
