"""Plots of regressions: predicted numbers, their standard errors and their bands."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError, is_number
from deltauq.plots.canvas import BLACK, BLUE, MAX_POINTS, SKY, VERMILION, new_axes, tidy
from deltauq.plots.points import counted, refuse_other

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from deltauq.prediction import RegressionPrediction

__all__ = ["mean_against_error", "regression_band"]

Array = npt.NDArray[Any]


def regression_band(
    prediction: RegressionPrediction,
    feature: npt.ArrayLike,
    y: npt.ArrayLike | None = None,
    *,
    output: int = 0,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Draw the predicted mean along one feature, with its interval and an observation's.

    A curve where the inputs differ in this feature alone: it is the only one, or the inputs are a
    grid along it.

    Args:
        prediction: of N inputs.
        feature: its values `[N]`, in any order.
        y: observations at these inputs, `[N]` or `[N, C]`, drawn as points; or None. Those at other
            inputs: `ax.scatter` on the axes returned.
        output: which of the C outputs.
        level: of both intervals.
        ax: where to draw; None makes a figure.

    Raises:
        InvalidInputError: a feature or observations that do not fit the prediction.
    """
    prediction, feature, y = counted(prediction, feature, y)
    from deltauq.data.arrays import as_numbers, check_finite  # TensorFlow comes with it

    refuse_other("prediction", prediction, "observation_std", "mean")
    values = as_numbers(feature, "feature").astype(np.float64)
    check_finite("feature", values)
    if values.shape != (len(prediction),):
        raise InvalidInputError(
            "feature does not fit the prediction",
            expected=f"values [{len(prediction)}], one an input",
            received=f"shape {list(values.shape)}",
        )
    column = _checked_output(output, prediction)
    ax, order = new_axes(ax), np.argsort(values, kind="stable")
    along = values[order]
    of_mean, of_observation = (
        [end[order, column] for end in prediction.interval(level, of=of)]
        for of in ("mean", "observation")
    )
    share = f"{100 * level:g} %"
    ax.fill_between(
        along, *of_observation, color=SKY, alpha=0.25, linewidth=0, label=f"{share}, an observation"
    )
    for end in of_observation:
        ax.plot(along, end, color=BLUE, linestyle=":", linewidth=1)
    ax.fill_between(
        along,
        *of_mean,
        facecolor=BLUE,
        alpha=0.45,
        edgecolor=BLUE,
        linewidth=0.6,
        label=f"{share}, the mean",
    )
    ax.plot(along, prediction.mean[order, column], color=BLACK, linewidth=1.5, label="mean")
    if y is not None:
        seen = prediction.checked_truth(y)[order, column]
        ax.scatter(
            along, seen, s=12, facecolors="none", edgecolors=VERMILION, label="observed", zorder=3
        )
    ax.set_xlabel("feature")
    ax.set_ylabel("predicted")
    ax.legend(frameon=False)
    return tidy(ax)


def mean_against_error(
    prediction: RegressionPrediction,
    y: npt.ArrayLike | None = None,
    *,
    output: int = 0,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Scatter the predicted number against its standard error, one point an input.

    Args:
        prediction: of N inputs.
        y: observations `[N]` or `[N, C]`: those outside their interval are drawn differently, and
            counted.
        output: which of the C outputs.
        level: of the interval of an observation.
        ax: where to draw; None makes a figure.
    """
    prediction, y = counted(prediction, y)
    refuse_other("prediction", prediction, "observation_std", "mean")
    column, ax = _checked_output(output, prediction), new_axes(ax)
    mean, se = prediction.mean[:, column], prediction.std[:, column]
    style: dict[str, Any] = {"rasterized": len(mean) > MAX_POINTS, "linewidths": 0.6}
    if y is None:
        ax.scatter(mean, se, s=14, c=BLUE, alpha=0.6, label=f"inputs ({len(mean):,})", **style)
    else:
        seen = prediction.checked_truth(y)[:, column]
        lower, upper = (end[:, column] for end in prediction.interval(level, of="observation"))
        out = (seen < lower) | (seen > upper)
        within = f"observation within its {100 * level:g} % interval ({np.count_nonzero(~out):,})"
        ax.scatter(mean[~out], se[~out], s=14, c=SKY, marker="o", alpha=0.6, label=within, **style)
        style["linewidths"] = 1.2
        outside = f"outside ({np.count_nonzero(out):,})"
        ax.scatter(
            mean[out], se[out], s=26, c=VERMILION, marker="x", zorder=3, label=outside, **style
        )
    ax.set_ylim(bottom=-0.02 * max(float(se.max(initial=0.0)), 1e-12))
    ax.set_xlabel("predicted number")
    ax.set_ylabel("its standard error")
    ax.legend(frameon=False)
    return tidy(ax)


def _checked_output(output: int, prediction: RegressionPrediction) -> int:
    """The number of an output, or `InvalidInputError` where the regression has none such."""
    n_outputs = prediction.mean.shape[1]
    if not is_number(output) or int(output) != output or not 0 <= output < n_outputs:
        raise InvalidInputError(
            "output names no output of the regression",
            expected=f"a number from 0 to {n_outputs - 1}",
            received=reprlib.repr(output),
        )
    return int(output)
