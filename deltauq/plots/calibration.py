"""Plots of whether probabilities are right, and of whether setting uncertain inputs aside helps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.plots.canvas import BLACK, BLUE, GREY, VERMILION, new_axes, tidy
from deltauq.plots.points import counted, refuse_other

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from deltauq.evaluation.metrics import RiskCoverage
    from deltauq.prediction import MultiLabelPrediction, Prediction

__all__ = ["reliability", "risk_coverage"]


def reliability(
    prediction: Prediction | MultiLabelPrediction,
    y: npt.ArrayLike,
    *,
    n_bins: int = 10,
    ax: Axes | None = None,
) -> Axes:
    """How often the predicted class was right against the probability it was given.

    Points on the diagonal are calibrated. Whiskers are 95 % intervals of the shares; the number at
    the foot of each is how many inputs it is made of. Of several labels, every label of every
    input counts: how often it was there.

    Args:
        prediction: of N inputs.
        y: class numbers `[N]`, or labels `[N, C]` of several.
        n_bins: bins of equal width.
        ax: where to draw; None makes a figure.
    """
    from deltauq.evaluation import metrics  # not at the top: TensorFlow comes with it

    prediction, y = counted(prediction, y)
    refuse_other("prediction", prediction, "events", "is_wrong")
    ax, events = new_axes(ax, figsize=(4.9, 5.1)), prediction.events(y)
    curve = metrics.reliability(events.probability, np.asarray(events.happened), n_bins)
    ax.plot([0, 1], [0, 1], color=BLACK, linestyle="--", linewidth=1, label="calibrated")
    whiskers = np.maximum([curve.observed - curve.lower, curve.upper - curve.observed], 0.0)
    ax.errorbar(
        curve.predicted,
        curve.observed,
        yerr=whiskers,
        color=BLUE,
        marker="o",
        markersize=5,
        linewidth=1.4,
        elinewidth=1,
        capsize=2.5,
        label=f"observed, mean gap {curve.error:.3f}",
    )
    ax.annotate(
        f"{events.unit}s",
        (-0.03, -0.06),
        ha="right",
        va="center",
        fontsize=7,
        annotation_clip=False,
    )
    for x, n in zip(curve.predicted, curve.count, strict=True):
        ax.annotate(_short_count(int(n)), (x, -0.06), ha="center", va="center", fontsize=7)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.11, 1.04), aspect="equal")
    ax.set_xlabel(f"probability of {events.subject}")
    ax.set_ylabel(f"share that was {events.predicate}")
    # Above the axes: a wide whisker may be anywhere in them.
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    return tidy(ax)


def risk_coverage(
    prediction: Prediction | MultiLabelPrediction,
    y: npt.ArrayLike,
    *,
    score: npt.ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The error rate among the inputs kept when those with the highest score are set aside.

    Of a classification there is a second curve for 1 - max p, which needs no standard errors. The
    dotted curve is the best that any order could do. The number in the legend is the area under
    each curve: the less the better.

    Args:
        prediction: of N inputs.
        y: class numbers `[N]`, or labels `[N, C]` of several.
        score: `[N]`, higher is set aside first; None takes the prediction's own.
        ax: where to draw; None makes a figure.
    """
    from deltauq.evaluation import metrics

    prediction, y, score = counted(prediction, y, score)
    refuse_other("prediction", prediction, "events", "is_wrong")
    ax = new_axes(ax)
    wrong = prediction.is_wrong(y)
    own = metrics.risk_coverage(prediction.score if score is None else np.asarray(score), wrong)
    _add_curve(ax, own, "by the score", color=BLUE, linewidth=1.8)
    unsure = prediction.least_confidence
    if unsure is not None:
        _add_curve(
            ax,
            metrics.risk_coverage(unsure, wrong),
            "by 1 \N{MINUS SIGN} max p",
            color=VERMILION,
            linestyle="--",
        )
    _add_curve(ax, metrics.risk_coverage(wrong, wrong), "best possible", color=GREY, linestyle=":")
    top = max(float(np.max(line.get_ydata())) for line in ax.lines)
    ax.set(xlim=(0, 1.005), ylim=(-0.02 * max(top, 0.01), 1.05 * max(top, 0.01)))
    ax.set_xlabel("share of the inputs that is kept")
    ax.set_ylabel("error rate among them")
    ax.legend(frameon=False)
    return tidy(ax)


def _add_curve(ax: Axes, curve: RiskCoverage, name: str, **style: Any) -> None:
    """Draw a risk-coverage curve as steps, its area in the legend."""
    options: dict[str, Any] = {"linewidth": 1.4, "drawstyle": "steps-post"} | style
    ax.plot(curve.coverage, curve.risk, label=f"{name}: area {curve.area:.3g}", **options)


def _short_count(n: int) -> str:
    """A number of inputs in a few letters, thousands as "12k"."""
    return f"{n}" if n < 10_000 else f"{n / 1000:.0f}k"
