"""The part of a page that says how sure the standard errors themselves are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq import plots
from deltauq.evaluation.comparison import Run
from deltauq.linalg import Eigenpairs, Spectrum, relative_width
from deltauq.report.blocks import Block, Bullets, Facts, Heading, Picture, Section, Text
from deltauq.report.contents import ReportContents
from deltauq.report.words import curvature_name, number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["certainty_section", "certainty_sentence"]

#: Median width of the intervals above which the page says what would narrow them.
_WIDE = 0.05

#: What stands for the directions left out.
_TAILS = {
    "midpoint": "For the directions left out stands the middle between what they could be at "
    "least and at most.",
    "l2": "For the directions left out stands what L2 alone allows, the most they can be.",
    "trace": "For the directions left out stands their mean, from the trace of the curvature.",
    "none": "The directions left out are taken as certain: the standard errors are too small, and "
    "for comparison only.",
}

#: How a route reached all of a curvature.
_REACHED = {
    "dense": "the whole matrix was formed",
    "gram": "the inner products of all its rows, one or more for each training example, were "
    "formed",
}

_NOT_COVERED = (
    (
        "The straight line.",
        "The Delta method follows the network along a straight line around its weights. Where "
        "standard errors are large, the true distribution may be curved.",
    ),
    (
        "The model itself.",
        "The standard errors say how far the data determine the weights of this model, not "
        "whether it is the right model, or whether its inputs are recorded without error.",
    ),
    (
        "Another kind of input.",
        "They grow away from the training data, but do not warn of every input of a new kind.",
    ),
)


def certainty_section(study: ReportContents) -> Section:
    """Section on how far the standard errors are known, and what they do not cover."""
    run = study.require_run()
    pairs = run.eigenpairs
    blocks: list[Block] = [
        Facts(_facts(study)),
        Text(f"{certainty_sentence(study)} {_basis(study)}".strip()),
    ]
    if not pairs.converged:
        blocks.append(
            Text(
                "The eigenvalue solver stopped before its tolerance: some of the last eigenpairs "
                "are less exact than asked."
            )
        )
    runs = (run,) if study.comparison is None else study.comparison.runs
    shown = tuple(each for each in runs if each.eigenpairs.values is not None)
    if shown:
        blocks += [
            Heading("The spectrum" if len(shown) == 1 else "The spectra"),
            Text(
                "An eigenvalue of the curvature says how firmly the data hold the weights in one "
                "direction. Directions above the L2 rate are held by the data, those below it by "
                "L2."
            ),
            *(Text(told) for each in shown if (told := _negative(each, study))),
            _spectra(shown, study.spectrum_l2),
        ]
    blocks += [Heading("What these numbers do not cover"), Bullets(_NOT_COVERED)]
    return Section("How sure are the numbers?", blocks)


def certainty_sentence(study: ReportContents) -> str:
    """How far the standard errors are known, in a sentence or two."""
    run, prediction = study.require_run(), study.prediction
    reached = _REACHED.get(run.route or "")
    widths = _widths(study)
    if run.is_exact:
        exact = "Nothing of the curvature was left out"
        if reached is not None:
            exact += f": {reached}"
        if widths is None:
            return f"{exact}."
        most = percent(float(np.max(widths, initial=0.0)))
        return f"{exact}. All that the calculation leaves open is {most} of a standard error."
    if widths is None:
        return (
            "Only the leading eigenpairs were computed, and without bounds: how far the rest would "
            "move the standard errors is not known."
        )
    typical, wide = percent(float(np.median(widths))), percent(float(np.quantile(widths, 0.95)))
    kind = "lies" if prediction.certified else "is estimated to lie"
    kept = "Only the leading eigenpairs were computed."
    if reached is not None:
        kept = f"All of the curvature was at hand ({reached}); its leading eigenpairs are kept."
    return (
        f"{kept} The standard error that all of them would "
        f"give {kind} in a known interval around the one reported: its width is {typical} of its "
        f"upper end for a typical standard error, and at most {wide} for nineteen out of twenty."
    )


def _facts(study: ReportContents) -> list[tuple[str, str, str]]:
    run = study.require_run()
    pairs, widths = run.eigenpairs, _widths(study)
    name, by = curvature_name(run.curvature), f"; route: {run.route}" if run.route else ""
    if run.is_exact:
        facts = [("Left out", "nothing", f"of the {name}{by}")]
    else:
        facts = [("Eigenpairs", f"{pairs.rank:,}", f"of {pairs.n_params:,}, the {name}'s{by}")]
    if widths is not None:
        width = percent(float(np.median(widths))).replace("under ", "< ")
        facts.append(("Width", width, "of a standard error's interval"))
        facts.append(_kind_of_interval(study))
    return facts


def _kind_of_interval(study: ReportContents) -> tuple[str, str, str]:
    failure = _failure(study.require_run().eigenpairs)
    if not study.prediction.certified:
        return "Kind of interval", "estimate", "not a bound"
    if failure == 0:
        return "Kind of interval", "certified", "true up to rounding"
    return "Kind of interval", "certified", f"wrong with probability {number(failure)} at most"


def _basis(study: ReportContents) -> str:
    """What the intervals rest on, and what stands for the rest."""
    run, sentences = study.require_run(), []
    pairs = run.eigenpairs
    if run.is_exact:
        return ""
    widths = _widths(study)
    if widths is not None:
        failure = _failure(pairs)
        if not study.prediction.certified:
            sentences.append(
                f"For the {curvature_name(run.curvature)} as it was used no bound is known: this "
                "is an estimate of how far the standard errors may lie."
            )
        elif failure > 0:
            sentences.append(
                "That is a mathematical bound; its one chance of being wrong, with probability "
                f"{number(failure)} at most, lies in the random start of the calculation."
            )
        else:
            sentences.append("That is a mathematical bound, true up to rounding.")
        if not np.all(np.isfinite(study.prediction.std_bounds[1])):
            sentences.append(
                "They have no upper end: the eigenpairs leave open whether the data determine as "
                "many parameters as there are observations, and so how large the noise is. More "
                "eigenpairs, more L2 or a noise that is given would settle it."
            )
        elif np.median(widths) > _WIDE:
            sentences.append(
                "More eigenpairs would narrow it; for chosen inputs `DeltaMethod.refine` does."
            )
    sentences.append(_what_stands_for_the_rest(study))
    return " ".join(sentence for sentence in sentences if sentence)


def _what_stands_for_the_rest(study: ReportContents) -> str:
    """What stands for the directions left out, and how good that is where it was measured."""
    pairs, asked = study.require_run().eigenpairs, study.tail
    if asked is None:
        return ""
    tail = pairs.tail if isinstance(pairs, Eigenpairs) else None
    if asked not in ("auto", "calibrated") or tail is None:
        return _TAILS.get(asked, _TAILS["midpoint"])
    those = "inputs that were given for it" if tail.exchangeable else "training inputs"
    found = (
        f"For the directions left out stands what was measured on {len(tail.shares)} {those}, of "
        "whose own curvature nothing was used for it."
    )
    band = study.prediction.band
    if band is None or not band.is_known:
        return f"{found} `std_range` of a prediction says how well that does."
    return f"{found} The standard errors are then known {study.prediction.certainty}."


def _failure(pairs: Eigenpairs | Spectrum) -> float:
    return 0.0 if pairs.left_out is None else pairs.left_out.failure


def _widths(study: ReportContents) -> npt.NDArray[Any] | None:
    """(high - low) / high of every standard error; None where there are no bounds."""
    limits = study.prediction.std_limits
    return None if limits is None else relative_width(limits[..., 0], limits[..., 1])


def _negative(run: Run, study: ReportContents) -> str | None:
    """A sentence on negative curvature, where the smallest eigenvalue found is below zero."""
    pairs, name, l2 = run.eigenpairs, curvature_name(run.curvature), study.spectrum_l2
    if not isinstance(pairs, Eigenpairs) or pairs.smallest is None or pairs.smallest >= 0:
        return None
    top = float(np.max(np.abs(pairs.values), initial=-pairs.smallest))
    found = f"{number(pairs.smallest)}, where the largest is {number(top)}"
    if l2 is not None:
        found += f" and the L2 rate {number(l2)}"
    if -pairs.smallest <= 1e3 * np.finfo(pairs.vectors.dtype).eps * top:
        return (
            f"The smallest eigenvalue of the {name}, {number(pairs.smallest)}, is zero to "
            f"rounding (the largest is {number(top)}): there is no sign of negative curvature."
        )
    treated = (
        "It was used as it is."
        if study.negative_curvature == "keep"
        else "Negative data curvature was set to zero, which leaves those directions to L2."
    )
    return (
        f"The {name} of the data is not positive definite at these weights: its smallest "
        f"eigenvalue found is {found}. {treated}"
    )


def _spectra(runs: tuple[Run, ...], l2: float | None) -> Picture:
    def draw() -> Axes:
        ax = plots.spectrum(runs[0].eigenpairs, l2=l2, label=curvature_name(runs[0].curvature))
        for run in runs[1:]:
            plots.spectrum(run.eigenpairs, label=curvature_name(run.curvature), ax=ax)
        return ax

    return Picture(
        "spectra",
        "Eigenvalues of the mean data curvature, in descending order, on a log scale; negative "
        "ones as absolute values.",
        "Line plot on a log scale of the eigenvalues of each curvature against their index.",
        draw,
    )
