"""Plots of one curvature's standard errors against another's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deltauq.plots.canvas import BLACK, BLUE, MAX_POINTS, VERMILION, new_axes, tidy
from deltauq.plots.points import refuse_other

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from deltauq.evaluation.comparison import Comparison

__all__ = ["comparison"]


def comparison(comparison: Comparison, curvature: str, *, ax: Axes | None = None) -> Axes:
    """Scatter one curvature's standard errors against the reference's, one point a probability.

    Slope and R^2 are of all points; more than 5,000 are thinned for drawing, the same ones every
    time.

    Args:
        comparison: of several curvatures.
        curvature: the name of the one on the vertical axis.
        ax: where to draw; None makes a figure.
    """
    refuse_other("comparison", comparison, "reference", "agreement")
    ax = new_axes(ax, figsize=(4.7, 4.7))
    reference, run = comparison.reference, comparison[curvature]
    fit = comparison.agreement(curvature)
    a, b = (np.ravel(each.prediction.unmasked.std) for each in (reference, run))
    high = 1.04 * max(float(a.max(initial=0.0)), float(b.max(initial=0.0)), 1e-12)
    drawn = f"probabilities ({len(a):,})"
    if len(a) > MAX_POINTS:
        # A random choice: a fixed stride could fall in step with the classes.
        chosen = np.random.default_rng(0).choice(len(a), MAX_POINTS, replace=False)
        a, b, drawn = a[chosen], b[chosen], f"probabilities ({MAX_POINTS:,} of {len(a):,} drawn)"
    ax.scatter(a, b, s=9, c=BLUE, alpha=0.35, linewidths=0, rasterized=True, label=drawn)
    ends = np.array([0.0, high])
    ax.plot(ends, ends, color=BLACK, linestyle="--", linewidth=1, label="equal")
    line = f"slope {fit.slope:.3g}, R² = {fit.r_squared:.3g}"
    ax.plot(ends, fit.slope * ends, color=VERMILION, linewidth=1.6, label=line)
    ax.set(xlim=(0, high), ylim=(0, high), aspect="equal")
    ax.set_xlabel(f"standard error, {reference.curvature}")
    ax.set_ylabel(f"standard error, {run.curvature}")
    ax.legend(frameon=False, markerscale=2)
    return tidy(ax)
