"""What a study found, in words and written-out numbers, for a reader without the code."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq import __version__
from deltauq.errors import InvalidInputError
from deltauq.prediction import Prediction

if TYPE_CHECKING:
    from deltauq.comparison import Comparison, Run
    from deltauq.cost import Stationarity

__all__ = ["Study", "alternative_text", "by_score", "page_context"]

#: Rows in the table of the most uncertain inputs.
_TABLE = 10

#: Difference of two AUROCs up to which the page calls them as good.
_AUROC_MARGIN = 0.02

#: A quantity between 0 and 1 cannot have a larger standard deviation.
_LARGEST_STD = 0.5

_MINUS, _MISSING = "\N{MINUS SIGN}", "\N{EN DASH}"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

#: What each curvature is called, and what it is.
_CURVATURES = {
    "hessian": (
        "exact Hessian",
        "the full second derivative of the cost: what the theory asks for, and the slowest",
    ),
    "opg": (
        "OPG, outer products of gradients",
        "the mean outer product of the examples' gradients: first derivatives only, and cheap",
    ),
    "ggn": (
        "GGN, generalized Gauss-Newton matrix",
        "the Hessian without the network's own second derivatives, which is the Fisher "
        "information: never negative",
    ),
    "sandwich": (
        "Sandwich",
        "the inverse Hessian on both sides of the outer products of gradients: for a model that "
        "need not be true",
    ),
}

_VERDICTS = {
    "stationary": "The cost's gradient vanishes to the stated tolerance, as the method assumes.",
    "stopped at a kink": "Training stopped where the cost has a kink, such as a ReLU at zero: its "
    "gradient jumps there, and no small step lowers the cost. The method assumes a smooth minimum, "
    "so read the standard errors as approximate.",
    "not converged": "The method assumes a minimum of the cost, and training had not reached one: "
    "with more training both the probabilities and the standard errors may change. Read them as "
    "provisional.",
}


@dataclass(frozen=True)
class Study:
    """Everything a report shows.

    Attributes:
        title: of the page.
        comparison: runs of several curvatures on held-out inputs, the reference first.
        stationarity: how nearly the cost's gradient vanishes at the weights.
        verdict: "stationary", "stopped at a kink" or "not converged".
        tolerance: of the gradient ratio.
        l2: the L2 rate; None where there is no single one.
        n_train: training examples.
        class_names: `[C]`.
        images: of the held-out inputs, `[N, h, w]` or `[N, h, w, 3]`; or None.
    """

    title: str
    comparison: Comparison
    stationarity: Stationarity
    verdict: str
    tolerance: float
    l2: float | None
    n_train: int
    class_names: tuple[str, ...]
    images: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        prediction = self.comparison.reference.prediction
        if not isinstance(prediction, Prediction):
            raise InvalidInputError(
                "a report is about classes",
                expected="a comparison of predictions of one of several classes",
                received=repr(prediction),
            )
        n_classes = prediction.probabilities.shape[1]
        if len(self.class_names) != n_classes:
            raise InvalidInputError(
                "class_names has the wrong length",
                expected=f"{n_classes} names, one a class",
                received=f"{len(self.class_names)}",
            )


def page_context(study: Study) -> dict[str, Any]:
    """What the template shows, numbers already written out."""
    reference = study.comparison.reference
    return {
        "title": study.title,
        "reference": _label(reference),
        "curvatures": [
            _CURVATURES.get(run.curvature, (run.curvature, "")) for run in study.comparison.runs
        ],
        "scatters": [
            f"{reference.curvature}_against_{run.curvature}" for run in study.comparison.runs[1:]
        ],
        "facts": _facts(study),
        "stationarity": _stationarity_sentence(study),
        "verdict": study.verdict,
        "verdict_meaning": _VERDICTS.get(study.verdict, ""),
        "errors": _error_sentences(study),
        "aurocs": _aurocs(study),
        "auroc_sentence": _auroc_sentence(study),
        "rows": _comparison_rows(study),
        "negative_curvature": [
            sentence for run in study.comparison.runs if (sentence := _negative(run, study.l2))
        ],
        "inputs": _uncertain_inputs(study),
        "version": __version__,
        "has_labels": study.comparison.y is not None,
    }


def _facts(study: Study) -> list[tuple[str, str, str]]:
    """Headline figures: label, value and a note."""
    reference, wrong = study.comparison.reference, _wrong(study)
    n = len(reference.prediction)
    facts = []
    if wrong is not None:
        count = int(wrong.sum())
        facts.append(("Accuracy", f"{100 * (1 - count / n):.1f} %", f"{count:,} of {n:,} wrong"))
    facts += [
        ("Training examples", f"{study.n_train:,}", ""),
        ("Held-out inputs", f"{n:,}", "all figures below are of these"),
        ("Parameters", f"{reference.eigenpairs.n_params:,}", "all counted as uncertain"),
        ("Classes", f"{len(study.class_names):,}", ""),
    ]
    if study.l2 is not None:
        facts.append(
            (
                "L2 rate",
                _number(study.l2),
                "the cost holds half of it times the squared weights",
            )
        )
    return facts


def _stationarity_sentence(study: Study) -> str:
    s = study.stationarity
    side = "within" if s.ratio <= study.tolerance else "above"
    return (
        f"The cost's gradient has norm {_number(s.gradient_norm)}; its two parts, from the data "
        f"and from L2, have norms {_number(s.data_norm)} and {_number(s.l2_norm)} and cancel at a "
        f"minimum. What is left is {_number(s.ratio)} of the larger part, {side} the stated "
        f"tolerance of {_number(study.tolerance)}."
    )


def _error_sentences(study: Study) -> list[str]:
    se, wrong = _top(study)[1], _wrong(study)
    sentences = [
        f"The median standard error of the predicted class's probability is "
        f"{_number(float(np.median(se)))}; one input in twenty has more than "
        f"{_number(float(np.quantile(se, 0.95)))}."
    ]
    if wrong is not None and wrong.any() and not wrong.all():
        sentences.append(
            f"Among the wrong predictions the median is {_number(float(np.median(se[wrong])))}, "
            f"among the right ones {_number(float(np.median(se[~wrong])))}."
        )
    beyond = int(np.count_nonzero(se > _LARGEST_STD))
    if beyond:
        sentences.append(
            f"For {beyond:,} of {len(se):,} inputs it exceeds {_LARGEST_STD}, more than any "
            "probability can vary: there the weights are so loosely determined that the linear "
            'approximation leaves its range. Take it as "not determined by the data", and read '
            "the interval, which stays between 0 and 1."
        )
    return sentences


def _aurocs(study: Study) -> list[tuple[str, str]]:
    score = study.comparison.auroc(study.comparison.reference.curvature)
    return [
        ("AUROC of the score, from the standard errors", _fixed(score, 3)),
        (
            "AUROC of 1 \N{MINUS SIGN} max p, from the probabilities alone",
            _fixed(study.comparison.baseline_auroc(), 3),
        ),
    ]


def _auroc_sentence(study: Study) -> str:
    """Does the score find wrong predictions better than 1 - max p? Only a clear lead counts."""
    score = study.comparison.auroc(study.comparison.reference.curvature)
    baseline, wrong = study.comparison.baseline_auroc(), _wrong(study)
    if wrong is None:
        return "The held-out inputs have no labels, so neither can be judged."
    if score is None or baseline is None:
        return "All predictions are right, or all are wrong, so neither can be judged."
    lead = score - baseline
    gap = f"{abs(round(score, 3) - round(baseline, 3)):.3f}"
    basis = f"({int(wrong.sum()):,} wrong predictions out of {len(wrong):,})"
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


def _comparison_rows(study: Study) -> list[list[str]]:
    rows = []
    for run, row in zip(study.comparison.runs, study.comparison.rows(), strict=True):
        cells = [
            _label(run),
            f"{row['rank']:,}",
            _number(row["median_std"]),
            *(_fixed(row[name], 3) for name in ("slope", "r_squared", "spearman", "median_ratio")),
            _fixed(row["auroc"], 3),
            _fixed(row["seconds"], 1),
            _fixed(row["kept_megabytes"], 1),
        ]
        if run is study.comparison.reference:
            cells[0] += " (reference)"
            cells[3:7] = [_MISSING] * 4
        rows.append(cells)
    return rows


def _negative(run: Run, l2: float | None) -> str | None:
    """A sentence on negative curvature, where the smallest eigenvalue found is below zero."""
    pairs = run.eigenpairs
    if pairs.smallest is None or pairs.smallest >= 0:
        return None
    top = float(np.max(np.abs(pairs.values), initial=-pairs.smallest))
    found = f"{_number(pairs.smallest)}, where the largest is {_number(top)}"
    if l2 is not None:
        found += f" and the L2 rate {_number(l2)}"
    if -pairs.smallest <= 1e3 * np.finfo(pairs.vectors.dtype).eps * top:
        return (
            f"The smallest eigenvalue of the {_label(run)}, {_number(pairs.smallest)}, is zero to "
            f"rounding (the largest is {_number(top)}): there is no sign of negative curvature."
        )
    return (
        f"The {_label(run)} of the data is not positive definite at these weights: its smallest "
        f"eigenvalue found is {found}. Negative data curvature was set to zero, which leaves those "
        "directions to L2."
    )


def _uncertain_inputs(study: Study) -> list[dict[str, str]]:
    """The inputs with the highest scores, one row each."""
    chosen = by_score(study)[:_TABLE]
    prediction, y = study.comparison.reference.prediction[chosen], study.comparison.y
    lower, upper = prediction.interval(0.95)
    return [
        {
            "index": f"{index}",
            "predicted": study.class_names[c],
            "true": "" if y is None else study.class_names[int(y[index])],
            "p": _fixed(prediction.probabilities[row, c], 3),
            "std": _fixed(prediction.std[row, c], 3),
            "interval": f"{lower[row, c]:.3f} to {upper[row, c]:.3f}",
            "score": _fixed(prediction.score[row], 3),
        }
        for row, (index, c) in enumerate(zip(chosen, prediction.labels, strict=True))
    ]


def alternative_text(name: str, study: Study) -> str:
    """What a figure shows, in words."""
    p, se = _top(study)
    texts = {
        "probability_against_error": "Scatter plot of the predicted class's probability, from "
        f"{_number(float(p.min()))} to {_number(float(p.max()))}, against its standard error, up "
        f"to {_number(float(se.max()))}, for {len(p):,} inputs.",
        "spectra": "Line plot on a log scale of the eigenvalues of each curvature against their "
        "index.",
        "most_uncertain": "The inputs with the highest scores, with their class probabilities.",
        "least_uncertain": "The inputs with the lowest scores, with their class probabilities.",
    }
    for run in study.comparison.runs[1:]:
        fit = study.comparison.agreement(run.curvature)
        texts[f"{study.comparison.reference.curvature}_against_{run.curvature}"] = (
            f"Scatter plot of the standard errors from the {_label(run)} against those from the "
            f"{_label(study.comparison.reference)}: slope {_fixed(fit.slope, 3)}, "
            f"R² {_fixed(fit.r_squared, 3)}."
        )
    return texts.get(name, name.replace("_", " "))


def _label(run: Run) -> str:
    return _CURVATURES.get(run.curvature, (run.curvature, ""))[0].partition(",")[0]


def _wrong(study: Study) -> npt.NDArray[Any] | None:
    if study.comparison.y is None:
        return None
    return np.asarray(study.comparison.reference.prediction.labels != study.comparison.y)


def _top(study: Study) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Probability of the predicted class and its standard error `[N]`."""
    prediction = study.comparison.reference.prediction
    n = np.arange(len(prediction))
    return prediction.probabilities[n, prediction.labels], prediction.std[n, prediction.labels]


def by_score(study: Study) -> npt.NDArray[Any]:
    """Numbers of the inputs, the most uncertain first."""
    return np.argsort(-study.comparison.reference.prediction.score, kind="stable")


def _fixed(value: float | None, digits: int) -> str:
    if value is None or not math.isfinite(value):
        return _MISSING
    return f"{value:.{digits}f}".replace("-", _MINUS)


def _number(value: float) -> str:
    """Three significant digits; as a power of ten where decimals would be long."""
    if value == 0 or 1e-4 <= abs(value) < 1e3:
        return f"{value:.3g}".replace("-", _MINUS)
    mantissa, exponent = f"{value:.1e}".split("e")
    power = str(int(exponent)).translate(_SUPERSCRIPT)
    return f"{mantissa} \N{MULTIPLICATION SIGN} 10{power}".replace("-", _MINUS)
