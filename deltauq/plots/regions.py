"""Plots of where a classifier of two features changes its mind, and where it is unsure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError
from deltauq.plots.canvas import BLACK, BLUE, GREEN, PURPLE, SKY, VERMILION, YELLOW, new_axes
from deltauq.plots.points import output_names, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from deltauq.prediction import Prediction

__all__ = ["decision_regions"]

Array = npt.NDArray[Any]

#: Colours of the classes, and hatches and markers of another number: 42 pairs before they repeat.
_COLOURS = (BLUE, VERMILION, GREEN, YELLOW, PURPLE, SKY)
_HATCHES = ("", "//", "..", "\\\\", "||", "--", "xx")
_MARKERS = "os^DvPX"

#: Share of the display that is left around the points.
_MARGIN = 0.12

#: Opacity of a region where the score is zero, and where it is at its 0.95 quantile or above: far
#: from all points it can be many times what it is among them.
_SURE, _UNSURE, _HIGH = 0.8, 0.06, 0.95

#: Shares of that score that get a contour.
_CONTOURS = (0.2, 0.5, 0.8)


def decision_regions(
    source: Any,
    points: npt.ArrayLike,
    y: npt.ArrayLike | None = None,
    *,
    class_names: Sequence[Any] | None = None,
    resolution: int = 100,
    ax: Axes | None = None,
) -> Axes:
    """Colour the plane by the most probable class, paler where the score is higher.

    Contours give the score, sqrt(trace of the probabilities' covariance). Classes differ in colour,
    hatch and marker.

    Args:
        source: a fitted `DeltaMethod`, or an estimator with `predict_uncertainty` such as
            `DeltaClassifier`, of two features.
        points: inputs `[N, 2]`; the display is as large as they are, and a little more.
        y: labels `[N]`, as the source was fitted to, for the points' markers; None draws them all
            alike.
        class_names: `[C]`; None takes the estimator's `classes_`, or numbers them.
        resolution: points of the grid along each axis; the source predicts its square.
        ax: where to draw; None makes a figure.

    Raises:
        InvalidInputError: points that are not `[N, 2]`, labels that are none of the classes, or a
            source that does not predict one of several classes.
    """
    from deltauq.data.arrays import as_numbers, check_finite  # TensorFlow comes with it

    inputs = as_numbers(points, "points")
    check_finite("points", inputs)
    if inputs.ndim != 2 or inputs.shape[1] != 2 or not len(inputs):
        raise InvalidInputError(
            "decision regions are of two features",
            expected="points [N, 2], N > 0",
            received=f"shape {list(inputs.shape)}",
        )
    classes = getattr(source, "classes_", None)
    axes_values = [_around(column, resolution) for column in inputs.T]
    grid = np.stack(np.meshgrid(*axes_values), axis=-1)
    prediction = _predict(source, grid.reshape(-1, 2).astype(inputs.dtype))
    names = output_names(classes if class_names is None else class_names, prediction.mean.shape[1])
    numbers = None if y is None else _checked_classes(y, len(inputs), classes, len(names))
    ax = new_axes(ax, figsize=(6.4, 5.0))
    _add_regions(ax, axes_values, prediction)
    _add_points(ax, inputs, numbers, names, np.unique(prediction.labels))
    ax.set(xlim=axes_values[0][[0, -1]], ylim=axes_values[1][[0, -1]])
    ax.set_xlabel("feature 0")
    ax.set_ylabel("feature 1")
    return ax


def _around(column: Array, resolution: int) -> Array:
    """Values from a little below the lowest to a little above the highest."""
    low, high = float(column.min()), float(column.max())
    margin = _MARGIN * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, resolution)


def _predict(source: Any, inputs: Array) -> Prediction:
    """Predictions of the source at some inputs; `InvalidInputError` if it is no classifier."""
    predict = None
    if not isinstance(source, type):
        predict = getattr(source, "predict_uncertainty", None) or getattr(source, "predict", None)
    prediction: Any = predict(inputs) if predict else None
    if getattr(prediction, "outcome", None) != "classes":
        raise InvalidInputError(
            "decision regions need predictions of one of several classes, with standard errors",
            expected="a fitted DeltaMethod, or an estimator with predict_uncertainty",
            received=f"{type(source).__name__}, which predicts {type(prediction).__name__}",
        )
    return prediction


def _checked_classes(y: npt.ArrayLike, n: int, classes: Any, n_classes: int) -> Array:
    """The number of each point's class `[N]`; refused where one is none of the classes."""
    from deltauq.data.arrays import as_labels  # TensorFlow comes with it
    from deltauq.likelihoods.class_numbers import class_numbers

    labels, known = as_labels(y), np.arange(n_classes) if classes is None else np.asarray(classes)
    if labels.shape != (n,) or not np.isin(labels, known).all():
        raise InvalidInputError(
            "y does not fit the points",
            expected=f"labels [{n}], each one of the {n_classes} classes",
            received=f"shape {list(labels.shape)}, values {np.unique(labels)[:5].tolist()}",
        )
    return class_numbers(labels, known)


def _add_regions(ax: Axes, axes_values: list[Array], prediction: Prediction) -> None:
    """Colour by class, opacity by score, hatch by class; contours of the score."""
    from matplotlib.colors import to_rgb

    shape = (len(axes_values[1]), len(axes_values[0]))
    labels, score = prediction.labels.reshape(shape), prediction.score.reshape(shape)
    palette = np.array([to_rgb(colour) for colour in _COLOURS])
    high = max(float(np.quantile(score, _HIGH)), 1e-12)
    unsure = np.minimum(score / high, 1.0)
    opacity = _SURE + (_UNSURE - _SURE) * unsure
    picture = np.concatenate([palette[labels % len(_COLOURS)], opacity[..., None]], axis=2)
    ends = []
    for values in axes_values:  # the centres of the outermost pixels
        half = (values[1] - values[0]) / 2
        ends += [values[0] - half, values[-1] + half]
    left, right, bottom, top = ends
    extent = (left, right, bottom, top)
    ax.imshow(picture, extent=extent, origin="lower", aspect="auto", interpolation="nearest")
    for c in np.unique(labels):
        hatch = _style(c)[1]
        lead = _lead(prediction.logits, c).reshape(shape)
        if hatch and lead.max() > 0:
            # White lines on the colour: they fade as the region does, and leave the contours alone.
            region = ax.contourf(
                *axes_values, lead, levels=(0, lead.max()), colors="none", hatches=[hatch]
            )
            region.set_edgecolor("white")
            region.set_linewidth(0)
        ax.contour(*axes_values, lead, levels=(0,), colors=BLACK, linewidths=1.3)
    levels = [share * high for share in _CONTOURS if score.min() < share * high < score.max()]
    if levels:
        style: dict[str, Any] = {"colors": BLACK, "linewidths": 0.8, "linestyles": "--"}
        lines = ax.contour(*axes_values, score, levels=levels, **style)
        ax.clabel(lines, fontsize=8, fmt="%.2g")


def _lead(logits: Array, c: int) -> Array:
    """How far class c's logit is above the highest of the others `[N]`."""
    return np.asarray(logits[:, c] - np.delete(logits, c, axis=1).max(axis=1))


def _style(c: int) -> tuple[str, str, str]:
    """Colour, hatch and marker of a class."""
    return _COLOURS[c % len(_COLOURS)], _HATCHES[c % len(_HATCHES)], _MARKERS[c % len(_MARKERS)]


def _add_points(
    ax: Axes, inputs: Array, numbers: Array | None, names: list[str], shown: Array
) -> None:
    """Draw the points in the colours and markers of their classes, with a legend."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    style: dict[str, Any] = {"edgecolors": BLACK, "linewidths": 0.6, "zorder": 3}
    if numbers is None:
        ax.scatter(inputs[:, 0], inputs[:, 1], s=14, c="white", **style)
    for c in np.union1d(shown, [] if numbers is None else numbers).astype(int):
        colour, hatch, marker = _style(c)
        if numbers is None:
            handles.append(
                Patch(facecolor=colour, edgecolor="white", hatch=hatch, label=shortened(names[c]))
            )
            continue
        some = inputs[numbers == c]
        ax.scatter(some[:, 0], some[:, 1], s=22, c=colour, marker=marker, **style)
        handles.append(
            Line2D(
                [],
                [],
                color=colour,
                marker=marker,
                linestyle="none",
                markeredgecolor=BLACK,
                label=shortened(names[c]),
            )
        )
    contour = Line2D([], [], color=BLACK, linestyle="--", linewidth=0.7, label="score")
    ax.legend(handles=[*handles, contour], fontsize=8, framealpha=0.9)
