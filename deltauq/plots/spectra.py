"""Plots of eigenvalue spectra, and of what more eigenpairs would win."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError
from deltauq.plots.canvas import BLACK, BLUE, GREEN, PURPLE, VERMILION, new_axes, tidy
from deltauq.plots.points import refuse_other

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from deltauq.curvature.rank_curve import RankCurve
    from deltauq.linalg import Eigenpairs, Spectrum

__all__ = ["rank_curve", "spectrum"]

Array = npt.NDArray[Any]

#: Colour, line style and marker of the first, second, ... spectrum on the same axes.
_STYLES = (
    (BLUE, "-", "o"),
    (VERMILION, "--", "s"),
    (GREEN, "-.", "^"),
    (PURPLE, (0, (3, 1, 1, 1, 1, 1)), "D"),
)

#: Width of bounds below which a rank curve is not shown.
_NARROWEST = 1e-6

#: Marks (gid) on what `spectrum` has drawn, so that the next call on the same axes finds it.
_SPECTRUM, _NEGATIVE, _L2 = "deltauq.spectrum", "deltauq.spectrum.negative", "deltauq.l2"


def spectrum(
    eigenpairs: Eigenpairs | Spectrum,
    *,
    l2: float | None = None,
    label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw eigenvalues against their index on a log scale; call again with `ax` to add a curvature.

    Negative eigenvalues are drawn as absolute values with a hollow marker, and counted.

    Args:
        eigenpairs: of a data curvature; its `Spectrum` will do.
        l2: the L2 rate, drawn as a line; give it to one call per axes, best the first.
        label: the curvature's name in the legend.
        ax: where to draw; None makes a figure.
    """
    refuse_other("eigenpairs", eigenpairs, "values", "n_params")
    ax = new_axes(ax)
    earlier = sum(line.get_gid() == _SPECTRUM for line in ax.lines)
    colour, dashes, marker = _STYLES[earlier % len(_STYLES)]
    values, name = eigenpairs.values, label or "eigenvalues"
    if values is None:
        raise InvalidInputError(
            "the eigenvalues were not computed",
            expected="eigenpairs, or a spectrum with values",
            received="the spectrum of an exact fit, which has too many to take them unasked",
            remedy="pass dm.eigenpairs",
        )
    index, positive = np.arange(1, len(values) + 1), values > 0
    common: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 3.5}
    ax.set_yscale("log")
    if l2 is not None:
        ax.axhline(
            l2, color=BLACK, linestyle=":", linewidth=1.2, label=f"L2 rate {l2:.3g}", gid=_L2
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
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("index of the eigenvalue")
    ax.set_ylabel("eigenvalue")
    ax.legend(frameon=False)
    return tidy(ax)


def rank_curve(curve: RankCurve, *, width: float | None = 0.05, ax: Axes | None = None) -> Axes:
    """Draw the width of the standard errors' bounds against the number of eigenpairs, log-log.

    Args:
        curve: from `DeltaMethod.rank_curve`.
        width: a width to draw a line at, and to name the smallest rank that reaches it; or None.
        ax: where to draw; None makes a figure.
    """
    refuse_other("curve", curve, "ranks", "widths", "smallest")
    ax = new_axes(ax)
    kind = "certified" if curve.certified else "by the interval of the tail"
    shown = curve.widths > 0
    ax.plot(
        curve.ranks[shown],
        curve.widths[shown],
        color=BLUE,
        marker="o",
        markersize=3.5,
        label=f"median width, {kind}",
    )
    if width is not None:
        rank = curve.smallest(width)
        reached = f"reached at K = {rank:,}" if rank else "not reached"
        ax.axhline(
            width, color=VERMILION, linestyle="--", linewidth=1.2, label=f"{width:.1%}, {reached}"
        )
    ax.set(xscale="log", yscale="log")
    # With all eigenpairs the width is rounding, and would stretch the axis over ten decades.
    ax.set_ylim(bottom=max(_NARROWEST, ax.get_ylim()[0]))
    ax.set_xlabel("eigenpairs K")
    ax.set_ylabel("(high - low) / high of the standard errors")
    ax.legend(frameon=False)
    return tidy(ax)


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
