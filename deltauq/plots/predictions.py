"""Plots of classifications and their standard errors, for all inputs and for single ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError
from deltauq.plots.canvas import (
    BLACK,
    BLUE,
    MAX_POINTS,
    SKY,
    VERMILION,
    new_axes,
    tidy,
)
from deltauq.plots.points import (
    checked_index,
    counted,
    output_names,
    refuse_other,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from deltauq.prediction import MultiLabelPrediction, Prediction

__all__ = ["class_bars", "gallery", "probability_against_error"]

Array = npt.NDArray[Any]

#: The largest standard deviation that a probability can have.
_LARGEST_SPREAD = 0.5

#: Classes that get a bar; with more of them, only the most probable ones do.
_MAX_BARS, _TOP_BARS = 20, 10


def probability_against_error(
    prediction: Prediction | MultiLabelPrediction,
    y: npt.ArrayLike | None = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Scatter the predicted class's probability against its standard error, one point an input.

    Of several labels, one point a label of an input.

    Args:
        prediction: of N inputs.
        y: class numbers `[N]`, or labels `[N, C]` of several: wrong predictions are drawn
            differently, and counted.
        ax: where to draw; None makes a figure.
    """
    prediction, y = counted(prediction, y)
    refuse_other("prediction", prediction, "events", "is_wrong")
    ax = new_axes(ax)
    events = prediction.events(y)
    p, se, wrong = events.probability, events.std, events.wrong
    style: dict[str, Any] = {"rasterized": len(p) > MAX_POINTS, "linewidths": 0.6}
    if wrong is None:
        name = f"{events.unit}s ({len(p):,})"
        ax.scatter(p, se, s=14, c=BLUE, alpha=0.6, label=name, **style)
    else:
        right, misses = ~wrong, f"wrong ({np.count_nonzero(wrong):,})"
        hits = f"right ({np.count_nonzero(right):,})"
        ax.scatter(p[right], se[right], s=14, c=SKY, marker="o", alpha=0.6, label=hits, **style)
        style["linewidths"] = 1.2
        ax.scatter(
            p[wrong], se[wrong], s=26, c=VERMILION, marker="x", zorder=3, label=misses, **style
        )
    ax.set_xlim(right=1.015)
    ax.set_ylim(bottom=-0.02 * max(float(se.max(initial=0.0)), 1e-12))
    ax.set_xlabel(f"probability of {events.subject}")
    ax.set_ylabel("its standard error")
    ax.legend(frameon=False)
    return tidy(ax)


def class_bars(
    prediction: Prediction,
    index: int,
    *,
    level: float = 0.95,
    class_names: Sequence[str] | None = None,
    y: npt.ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one input's class probabilities as bars, with their intervals as whiskers.

    With more than 20 classes only the ten most probable ones and the true one get a bar.

    Args:
        prediction: of N inputs.
        index: of the input.
        level: of the intervals, as for `Prediction.interval`.
        class_names: `[C]`; None numbers them.
        y: class numbers `[N]`: marks the true class of the input.
        ax: where to draw; None makes a figure.
    """
    refuse_other("prediction", prediction, "logits", "probabilities", "labels")
    names = output_names(class_names, prediction.logits.shape[1])
    index = checked_index(index, prediction)
    true = None if y is None else int(prediction.checked_truth(y)[index])
    one = prediction[[index]]
    lower, upper = (ends[0] for ends in one.interval(level))
    p, predicted = one.probabilities[0], int(one.labels[0])
    shown = _shown_classes(p, true)
    ax = new_axes(ax, figsize=(5.0, 0.9 + 0.26 * len(shown)))
    places, bars = np.arange(len(shown)), p[shown]
    whiskers = np.maximum([bars - lower[shown], upper[shown] - bars], 0.0)
    ax.barh(
        places,
        bars,
        height=0.72,
        color=[BLUE if c == predicted else SKY for c in shown],
        edgecolor=[BLACK if c == true else "none" for c in shown],
        linewidth=1.4,
    )
    ax.errorbar(bars, places, xerr=whiskers, fmt="none", ecolor=BLACK, elinewidth=1.1, capsize=2.5)
    labels = [shortened(names[c]) + (" (true)" if c == true else "") for c in shown]
    ax.set_yticks(places, labels)
    for c, text in zip(shown, ax.get_yticklabels(), strict=True):
        text.set_fontweight("bold" if c == true else "normal")
    ax.set(xlim=(0, 1.02), ylim=(len(shown) - 0.4, -0.6))
    ax.set_xlabel(f"probability, {100 * level:g} % interval")
    return tidy(ax)


def gallery(
    prediction: Prediction,
    images: Array,
    indices: Sequence[int] | Array,
    *,
    class_names: Sequence[str] | None = None,
    y: npt.ArrayLike | None = None,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Show some inputs as pictures, each beside its class probabilities, two pairs a row.

    A title gives the probability of the predicted class and its standard error.

    Args:
        prediction: of N inputs.
        images: `[N, h, w]`, `[N, h, w, 1]` or `[N, h, w, 3]`.
        indices: which inputs.
        class_names: `[C]`; None numbers them.
        y: class numbers `[N]`, or None.
        level: of the intervals.
        ax: a subplot whose place the pictures take; None makes a figure of the size they need.

    Returns:
        The axes, themselves empty: the pictures are on a `SubFigure` in their place.

    Raises:
        InvalidInputError: images of another shape, no indices, or axes that are no subplot.
    """
    refuse_other("prediction", prediction, "logits", "probabilities", "labels")
    listed: Any = indices if isinstance(indices, (Sequence, np.ndarray)) else [indices]
    numbers = [checked_index(each, prediction) for each in listed]
    if not numbers:
        raise InvalidInputError(
            "there is nothing to show", expected="at least one index", received="none"
        )
    pictures = _pictures(images, len(prediction))
    names = output_names(class_names, prediction.logits.shape[1])
    n_bars = min(len(names), _MAX_BARS)
    columns = min(2, len(numbers))
    rows = -(-len(numbers) // columns)
    ax = new_axes(ax, figsize=(5.4 * columns, rows * max(1.9, 0.75 + 0.17 * n_bars)))
    cells = _in_place_of(ax).subfigures(rows, columns, squeeze=False)
    low, high = float(pictures.min()), float(pictures.max())
    for cell, index in zip(cells.flat, numbers, strict=False):
        left, right = cell.subplots(1, 2, width_ratios=(1, 1.5))
        left.imshow(pictures[index], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        left.set_axis_off()
        class_bars(prediction, index, level=level, class_names=names, y=y, ax=right)
        right.tick_params(labelsize=8)
        right.xaxis.label.set_fontsize(8)
        cell.suptitle(_title(prediction, index, names, y), fontsize=10)
    return ax


def _in_place_of(ax: Axes) -> SubFigure:
    """An empty figure where the axes were."""
    place = ax.get_subplotspec()
    if place is None:
        raise InvalidInputError(
            "the pictures need the place of a subplot",
            expected="axes of figure.subplots or add_subplot",
            received=f"{type(ax).__name__} placed by hand",
        )
    ax.set_axis_off()
    return ax.figure.add_subfigure(place)


def _shown_classes(p: Array, true: int | None) -> list[int]:
    """The classes that get a bar: all, or the most probable ones and the true one."""
    if len(p) <= _MAX_BARS:
        return list(range(len(p)))
    top = {int(c) for c in np.argsort(-p, kind="stable")[:_TOP_BARS]}
    return sorted(top if true is None else top | {true})


def _title(
    prediction: Prediction, index: int, names: Sequence[str], y: npt.ArrayLike | None
) -> str:
    """Title of a picture: predicted class, its probability and standard error, true class."""
    c = int(prediction.labels[index])
    p, se = float(prediction.probabilities[index, c]), float(prediction.std[index, c])
    digits = int(np.clip(np.ceil(-np.log10(se)), 2, 4)) if se > 0 else 4
    title = f"predicted {shortened(names[c])} (p = {p:.{digits}f} ± {_error(se, digits)})"
    if y is None:
        return title
    return f"{title}, true {shortened(names[int(prediction.checked_truth(y)[index])])}"


def _error(se: float, digits: int) -> str:
    """A standard error in figures, or that it is below them, or beyond what a probability has."""
    if se > _LARGEST_SPREAD:
        return f"more than {_LARGEST_SPREAD}"
    return f"{se:.{digits}f}" if round(se, digits) > 0 else f"less than {10.0**-digits:g}"


def _pictures(images: Array, n: int) -> Array:
    """Images `[N, h, w]` or `[N, h, w, 3]` as matplotlib takes them; colours within [0, 1]."""
    from deltauq.data.arrays import as_numbers, check_finite  # TensorFlow comes with it

    pictures = as_numbers(images, "images")
    check_finite("images", pictures)
    if pictures.ndim == 4 and pictures.shape[3] == 1:
        pictures = pictures[..., 0]
    colour = pictures.ndim == 4 and pictures.shape[3] == 3
    if not (pictures.ndim == 3 or colour) or len(pictures) != n or not pictures.size:
        raise InvalidInputError(
            "images do not fit the prediction",
            expected=f"shape [{n}, h, w], or [{n}, h, w, 3] for colours",
            received=f"shape {list(pictures.shape)}",
        )
    if colour and pictures.dtype != np.uint8:
        low, high = float(pictures.min()), float(pictures.max())
        if low < 0 or high > 1:
            pictures = (pictures - low) / max(high - low, 1e-12)
    return pictures
