"""Figures and axes that plots draw on, and the colours they draw in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from deltauq.errors import optional

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BLACK",
    "BLUE",
    "GREEN",
    "GREY",
    "MAX_POINTS",
    "PURPLE",
    "SKY",
    "VERMILION",
    "YELLOW",
    "new_axes",
    "new_figure",
    "tidy",
    "unshown",
]

BLACK, SKY, GREEN, GREY = "#000000", "#56B4E9", "#009E73", "#666666"
BLUE, VERMILION, PURPLE, YELLOW = "#0072B2", "#D55E00", "#CC79A7", "#F0E442"

#: Points that a scatter plot draws at most.
MAX_POINTS = 5_000


def new_figure(**options: Any) -> Figure:
    """A figure that needs no display; in a notebook one of pyplot's, which the notebook shows.

    Args:
        **options: of matplotlib's `Figure`, such as `figsize`.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figures = optional("matplotlib.figure", needed_by="plots need matplotlib", extra="plots")
    if "ipykernel" in sys.modules:
        from matplotlib import pyplot

        return pyplot.figure(layout="constrained", **options)
    return figures.Figure(layout="constrained", **options)


def unshown(figure: Figure) -> Figure:
    """Take a figure out of those that a notebook shows by itself, and give it back."""
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    return figure


def new_axes(ax: Axes | None, figsize: tuple[float, float] = (6.4, 4.4)) -> Axes:
    """The axes given, or those of a new figure where none were given.

    Args:
        ax: where to draw, or None.
        figsize: of the new figure, width and height in inches.
    """
    return new_figure(figsize=figsize).add_subplot() if ax is None else ax


def tidy(ax: Axes) -> Axes:
    """Remove the frame at the top and the right of axes, and give them back."""
    ax.spines[["top", "right"]].set_visible(False)
    return ax
