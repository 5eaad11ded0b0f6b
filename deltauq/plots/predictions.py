"""Predictions and their standard errors."""

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
    new_figure,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from deltauq.prediction import Prediction

__all__ = ["class_bars", "gallery", "probability_against_error"]

Array = npt.NDArray[Any]

#: Classes that get a bar; with more of them, only the most probable ones do.
_MAX_BARS, _TOP_BARS = 20, 10


def probability_against_error(
    prediction: Prediction, y: npt.ArrayLike | None = None, *, ax: Axes | None = None
) -> Axes:
    """Probability of the predicted class against its standard error, one point an input.

    Args:
        prediction: of N inputs.
        y: class numbers `[N]`: wrong predictions are drawn differently, and counted.
        ax: where to draw; None makes a figure.
    """
    ax = new_axes(ax)
    n = np.arange(len(prediction))
    p, se = prediction.probabilities[n, prediction.labels], prediction.std[n, prediction.labels]
    style: dict[str, Any] = {"rasterized": len(n) > MAX_POINTS, "linewidths": 0.6}
    if y is None:
        ax.scatter(p, se, s=14, c=BLUE, alpha=0.6, label=f"inputs ({len(n):,})", **style)
    else:
        wrong = prediction.labels != _class_numbers(y, len(n))
        right, misses = ~wrong, f"wrong ({np.count_nonzero(wrong):,})"
        hits = f"right ({np.count_nonzero(right):,})"
        ax.scatter(p[right], se[right], s=14, c=SKY, marker="o", alpha=0.6, label=hits, **style)
        style["linewidths"] = 1.2
        ax.scatter(
            p[wrong], se[wrong], s=26, c=VERMILION, marker="x", zorder=3, label=misses, **style
        )
    ax.set_xlim(right=1.015)
    ax.set_ylim(bottom=-0.02 * max(float(se.max(initial=0.0)), 1e-12))
    ax.set_xlabel("probability of the predicted class")
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
    """Class probabilities of one input as bars, with their intervals as whiskers.

    With more than 20 classes only the ten most probable ones and the true one get a bar.

    Args:
        prediction: of N inputs.
        index: of the input.
        level: of the intervals, as for `Prediction.interval`.
        class_names: `[C]`; None numbers them.
        y: class numbers `[N]`: marks the true class of the input.
        ax: where to draw; None makes a figure.
    """
    names, index = _names(class_names, prediction), _checked_index(index, prediction)
    true = None if y is None else int(_class_numbers(y, len(prediction))[index])
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
    labels = [f"{names[c]} (true)" if c == true else names[c] for c in shown]
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
) -> Figure:
    """Some inputs as pictures, each beside its class probabilities, two pairs a row.

    A title gives the probability of the predicted class and its standard error.

    Args:
        prediction: of N inputs.
        images: `[N, h, w]`, `[N, h, w, 1]` or `[N, h, w, 3]`.
        indices: which inputs.
        class_names: `[C]`; None numbers them.
        y: class numbers `[N]`, or None.
        level: of the intervals.

    Returns:
        A new figure.

    Raises:
        InvalidInputError: images of another shape, or no indices.
    """
    numbers = [_checked_index(index, prediction) for index in indices]
    if not numbers:
        raise InvalidInputError(
            "there is nothing to show", expected="at least one index", received="none"
        )
    pictures = _pictures(images, len(prediction))
    names = _names(class_names, prediction)
    n_bars = min(len(names), _MAX_BARS)
    columns = min(2, len(numbers))
    rows = -(-len(numbers) // columns)
    figure = new_figure(figsize=(5.4 * columns, rows * max(1.9, 0.75 + 0.17 * n_bars)))
    cells = figure.subfigures(rows, columns, squeeze=False)
    low, high = float(pictures.min()), float(pictures.max())
    for cell, index in zip(cells.flat, numbers, strict=False):
        left, right = cell.subplots(1, 2, width_ratios=(1, 1.5))
        left.imshow(pictures[index], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        left.set_axis_off()
        class_bars(prediction, index, level=level, class_names=names, y=y, ax=right)
        right.tick_params(labelsize=8)
        right.xaxis.label.set_fontsize(8)
        cell.suptitle(_title(prediction, index, names, y), fontsize=10)
    return figure


def _shown_classes(p: Array, true: int | None) -> list[int]:
    if len(p) <= _MAX_BARS:
        return list(range(len(p)))
    top = {int(c) for c in np.argsort(-p, kind="stable")[:_TOP_BARS]}
    return sorted(top if true is None else top | {true})


def _title(
    prediction: Prediction, index: int, names: Sequence[str], y: npt.ArrayLike | None
) -> str:
    c = int(prediction.labels[index])
    p, se = float(prediction.probabilities[index, c]), float(prediction.std[index, c])
    digits = int(np.clip(np.ceil(-np.log10(se)), 2, 4)) if se > 0 else 4
    error = f"± {se:.{digits}f}" if round(se, digits) > 0 else f"± less than {10.0**-digits:g}"
    title = f"predicted {names[c]} (p = {p:.{digits}f} {error})"
    return title if y is None else f"{title}, true {names[int(np.asarray(y)[index])]}"


def _pictures(images: Array, n: int) -> Array:
    """Images `[N, h, w]` or `[N, h, w, 3]` as matplotlib takes them; colours within [0, 1]."""
    pictures = np.asarray(images)
    if pictures.ndim == 4 and pictures.shape[3] == 1:
        pictures = pictures[..., 0]
    colour = pictures.ndim == 4 and pictures.shape[3] == 3
    if len(pictures) != n or not (pictures.ndim == 3 or colour):
        raise InvalidInputError(
            "images do not fit the prediction",
            expected=f"shape [{n}, h, w], or [{n}, h, w, 3] for colours",
            received=f"shape {list(np.shape(images))}",
        )
    if colour and pictures.dtype != np.uint8:
        low, high = float(pictures.min()), float(pictures.max())
        if low < 0 or high > 1:
            pictures = (pictures - low) / max(high - low, 1e-12)
    return pictures


def _names(class_names: Sequence[str] | None, prediction: Prediction) -> list[str]:
    n_classes = prediction.probabilities.shape[1]
    names = range(n_classes) if class_names is None else class_names
    if len(names) != n_classes:
        raise InvalidInputError(
            "class_names has the wrong length",
            expected=f"{n_classes} names, one a class",
            received=f"{len(names)}",
        )
    return [str(name) for name in names]


def _class_numbers(y: npt.ArrayLike, n: int) -> Array:
    numbers = np.asarray(y)
    if numbers.shape != (n,):
        raise InvalidInputError(
            "y does not fit the prediction",
            expected=f"class numbers [{n}], one an input",
            received=f"shape {list(numbers.shape)}",
        )
    return numbers


def _checked_index(index: int, prediction: Prediction) -> int:
    n = len(prediction)
    if not -n <= index < n:
        raise InvalidInputError(
            "index names no input", expected=f"a number from 0 to {n - 1}", received=str(index)
        )
    return int(index) % n
