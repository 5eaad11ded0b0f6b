"""Plots of predictions, comparisons and spectra with matplotlib.

Every function draws on the axes it is given, or on a figure of its own that needs no display, and
returns the axes; arguments that do not fit the prediction raise `InvalidInputError`. No global
state of matplotlib is changed. Colours are Okabe and Ito's, told apart by
colour-blind readers; marker or line style differs as well, for print in grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from deltauq.comparison import Comparison
    from deltauq.linalg import Eigenpairs
    from deltauq.prediction import Prediction

__all__ = ["class_bars", "comparison", "gallery", "probability_against_error", "spectrum"]

Array = npt.NDArray[Any]

_BLACK, _SKY, _GREEN = "#000000", "#56B4E9", "#009E73"
_BLUE, _VERMILION, _PURPLE = "#0072B2", "#D55E00", "#CC79A7"

#: Colour, line style and marker of the first, second, ... spectrum on the same axes.
_STYLES = (
    (_BLUE, "-", "o"),
    (_VERMILION, "--", "s"),
    (_GREEN, "-.", "^"),
    (_PURPLE, (0, (3, 1, 1, 1, 1, 1)), "D"),
)

#: Points that a scatter plot draws at most.
_MAX_POINTS = 5_000

#: Classes that get a bar; with more of them, only the most probable ones do.
_MAX_BARS, _TOP_BARS = 20, 10

#: Marks (gid) on what `spectrum` has drawn, so that the next call on the same axes finds it.
_SPECTRUM, _NEGATIVE, _L2 = "deltauq.spectrum", "deltauq.spectrum.negative", "deltauq.l2"


def probability_against_error(
    prediction: Prediction, y: npt.ArrayLike | None = None, *, ax: Axes | None = None
) -> Axes:
    """Probability of the predicted class against its standard error, one point an input.

    Args:
        prediction: of N inputs.
        y: class numbers `[N]`: wrong predictions are drawn differently, and counted.
        ax: where to draw; None makes a figure.
    """
    ax = _axes(ax)
    n = np.arange(len(prediction))
    p, se = prediction.probabilities[n, prediction.labels], prediction.std[n, prediction.labels]
    style: dict[str, Any] = {"rasterized": len(n) > _MAX_POINTS, "linewidths": 0.6}
    if y is None:
        ax.scatter(p, se, s=14, c=_BLUE, alpha=0.6, label=f"inputs ({len(n):,})", **style)
    else:
        wrong = prediction.labels != _class_numbers(y, len(n))
        right, misses = ~wrong, f"wrong ({np.count_nonzero(wrong):,})"
        hits = f"right ({np.count_nonzero(right):,})"
        ax.scatter(p[right], se[right], s=14, c=_SKY, marker="o", alpha=0.6, label=hits, **style)
        style["linewidths"] = 1.2
        ax.scatter(
            p[wrong], se[wrong], s=26, c=_VERMILION, marker="x", zorder=3, label=misses, **style
        )
    ax.set_xlim(right=1.015)
    ax.set_ylim(bottom=-0.02 * max(float(se.max(initial=0.0)), 1e-12))
    ax.set_xlabel("probability of the predicted class")
    ax.set_ylabel("its standard error")
    ax.legend(frameon=False)
    return _tidy(ax)


def comparison(comparison: Comparison, curvature: str, *, ax: Axes | None = None) -> Axes:
    """One curvature's standard errors against the reference's, one point a probability.

    Slope and R^2 are of all points; more than 5,000 are thinned for drawing, the same ones every
    time.

    Args:
        comparison: of several curvatures.
        curvature: the name of the one on the vertical axis.
        ax: where to draw; None makes a figure.
    """
    ax = _axes(ax, figsize=(4.7, 4.7))
    reference, run = comparison.reference, comparison[curvature]
    fit = comparison.agreement(curvature)
    a, b = np.ravel(reference.prediction.std), np.ravel(run.prediction.std)
    high = 1.04 * max(float(a.max(initial=0.0)), float(b.max(initial=0.0)), 1e-12)
    drawn = f"probabilities ({len(a):,})"
    if len(a) > _MAX_POINTS:
        # A random choice: a fixed stride could fall in step with the classes.
        chosen = np.random.default_rng(0).choice(len(a), _MAX_POINTS, replace=False)
        a, b, drawn = a[chosen], b[chosen], f"probabilities ({_MAX_POINTS:,} of {len(a):,} drawn)"
    ax.scatter(a, b, s=9, c=_BLUE, alpha=0.35, linewidths=0, rasterized=True, label=drawn)
    ends = np.array([0.0, high])
    ax.plot(ends, ends, color=_BLACK, linestyle="--", linewidth=1, label="equal")
    line = f"slope {fit.slope:.3g}, R² = {fit.r_squared:.3g}"
    ax.plot(ends, fit.slope * ends, color=_VERMILION, linewidth=1.6, label=line)
    ax.set(xlim=(0, high), ylim=(0, high), aspect="equal")
    ax.set_xlabel(f"standard error, {reference.curvature}")
    ax.set_ylabel(f"standard error, {run.curvature}")
    ax.legend(frameon=False, markerscale=2)
    return _tidy(ax)


def spectrum(
    eigenpairs: Eigenpairs,
    *,
    l2: float | None = None,
    label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Eigenvalues against their index, on a log scale; call again with `ax` to add a curvature.

    Negative eigenvalues are drawn as absolute values with a hollow marker, and counted.

    Args:
        eigenpairs: of a data curvature.
        l2: the L2 rate, drawn as a line; give it to one call per axes, best the first.
        label: the curvature's name in the legend.
        ax: where to draw; None makes a figure.
    """
    ax = _axes(ax)
    earlier = sum(line.get_gid() == _SPECTRUM for line in ax.lines)
    colour, dashes, marker = _STYLES[earlier % len(_STYLES)]
    values, name = eigenpairs.values, label or "eigenvalues"
    index, positive = np.arange(1, len(values) + 1), values > 0
    common: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 3.5}
    ax.set_yscale("log")
    if l2 is not None:
        ax.axhline(
            l2, color=_BLACK, linestyle=":", linewidth=1.2, label=f"L2 rate {l2:.3g}", gid=_L2
        )
    every = max(1, int(np.count_nonzero(positive)) // 25)
    ax.plot(
        index[positive],
        values[positive],
        linestyle=dashes,
        linewidth=1.4,
        markevery=(earlier * every // len(_STYLES), every),
        label=name,
        gid=_SPECTRUM,
        **common,
    )
    _add_negative(ax, index, values, f"{name}, negative", colour)
    _limit_spectrum(ax)
    ax.set_xlabel("index of the eigenvalue")
    ax.set_ylabel("eigenvalue")
    ax.legend(frameon=False)
    return _tidy(ax)


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
    ax = _axes(ax, figsize=(5.0, 0.9 + 0.26 * len(shown)))
    places, bars = np.arange(len(shown)), p[shown]
    whiskers = np.maximum([bars - lower[shown], upper[shown] - bars], 0.0)
    ax.barh(
        places,
        bars,
        height=0.72,
        color=[_BLUE if c == predicted else _SKY for c in shown],
        edgecolor=[_BLACK if c == true else "none" for c in shown],
        linewidth=1.4,
    )
    ax.errorbar(bars, places, xerr=whiskers, fmt="none", ecolor=_BLACK, elinewidth=1.1, capsize=2.5)
    labels = [f"{names[c]} (true)" if c == true else names[c] for c in shown]
    ax.set_yticks(places, labels)
    for c, text in zip(shown, ax.get_yticklabels(), strict=True):
        text.set_fontweight("bold" if c == true else "normal")
    ax.set(xlim=(0, 1.02), ylim=(len(shown) - 0.4, -0.6))
    ax.set_xlabel(f"probability, {100 * level:g} % interval")
    return _tidy(ax)


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
    figure = _figure(figsize=(5.4 * columns, rows * max(1.9, 0.75 + 0.17 * n_bars)))
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


def _figure(**options: Any) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "plots need matplotlib", remedy='pip install "deltauq[plots]"'
        ) from error
    return Figure(layout="constrained", **options)


def _axes(ax: Axes | None, figsize: tuple[float, float] = (6.4, 4.4)) -> Axes:
    return _figure(figsize=figsize).add_subplot() if ax is None else ax


def _tidy(ax: Axes) -> Axes:
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _add_negative(ax: Axes, index: Array, values: Array, name: str, colour: str) -> None:
    """Absolute values of the negative eigenvalues; those too small to show are only counted."""
    negative = values < 0
    shown = negative & (-values >= _spectrum_floor(ax, values))
    hidden = np.count_nonzero(negative) - np.count_nonzero(shown)
    if np.any(shown):
        count = f"{np.count_nonzero(shown):,}"
        if hidden:
            count += f", and {hidden:,} below the axis"
        ax.plot(
            index[shown],
            -values[shown],
            linestyle="none",
            marker="v",
            markersize=5,
            markerfacecolor="none",
            color=colour,
            label=f"{name}: absolute value ({count})",
            gid=_NEGATIVE,
        )


def _spectrum_floor(ax: Axes, values: Array) -> float:
    """Where the display of a spectrum ends below.

    All eigenvalues of a large matrix include thousands that are zero up to rounding, and would
    stretch a log axis to 1e-18. What lies below a thousandth of the L2 rate changes no standard
    error, and is not shown; without a rate the axis ends eight decades below the largest value.
    """
    rates = [float(np.ravel(line.get_ydata())[0]) for line in ax.lines if line.get_gid() == _L2]
    if rates:
        return min(rates) / 1000
    return 1e-8 * float(np.max(np.abs(values), initial=0.0))


def _limit_spectrum(ax: Axes) -> None:
    """Axis limits from everything that `spectrum` has drawn so far; see `_spectrum_floor`."""
    drawn = [line for line in ax.lines if line.get_gid() in (_SPECTRUM, _NEGATIVE, _L2)]
    heights = np.concatenate([np.ravel(line.get_ydata()) for line in drawn])
    if len(heights):
        floor = _spectrum_floor(ax, heights)
        ax.set_ylim(max(floor, float(heights.min()) / 2), 2 * float(heights.max()))


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
