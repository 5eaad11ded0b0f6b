"""How large the rank must be: the width of the standard errors' bounds against it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature.effective_parameters import Freedom
from deltauq.curvature.tails import spectrum_interval
from deltauq.errors import InvalidInputError
from deltauq.linalg import Eigenpairs, relative_width, root_diagonal
from deltauq.runtime.showing import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["RankCurve", "TailWidth", "rank_curve"]

Array = npt.NDArray[Any]

#: Ranks of a curve, at most.
_POINTS = 24


class TailWidth:
    """How much of some inputs' standard errors eigenpairs leave open.

    Args:
        rows: Jacobians of the inputs in the prior's metric, `[B, C, P]`.
        epsilon: relative rounding of the curvature.
        freedom: what the noise of a regression is estimated from, as it scales standard errors too;
            None where no noise is. The pairs are then those of the residuals' mean square.
    """

    def __init__(self, rows: Array, epsilon: float, freedom: Freedom | None = None) -> None:
        self._rows = rows
        self._epsilon = epsilon
        self._freedom = freedom

    def __call__(self, pairs: Eigenpairs) -> float:
        """Median of (high - low) / high."""
        return self._median(pairs, self._times(self._rows, pairs.vectors))

    def of_leading(self, pairs: Eigenpairs, ranks: Array) -> Array:
        """Median widths at several numbers of leading pairs, `[len(ranks)]`."""
        along = self._times(self._rows, pairs.vectors)
        return np.array([self._median(_leading(pairs, k), along[..., :k]) for k in ranks])

    def _median(self, pairs: Eigenpairs, along: Array) -> float:
        noise = None
        if self._freedom is not None:
            noise = self._freedom.noise(pairs)
            if noise is None:
                return 1.0
            pairs = self._freedom.noisier(pairs, noise)
        outside = self._rows - self._times(along, pairs.vectors.T)
        rest = outside @ np.swapaxes(outside, 1, 2)
        ends = spectrum_interval(pairs, self._epsilon)
        limits = np.stack([root_diagonal(end.quadratic_form(along, rest)) for end in ends], axis=-1)
        if noise is not None:
            limits = noise.widen(limits)
        return float(np.median(relative_width(limits[..., 0], limits[..., 1])))

    @staticmethod
    def _times(rows: Array, matrix: Array) -> Array:
        """Rows `[B, C, k]` times a matrix as one product: each of B would read all the matrix."""
        product = rows.reshape(-1, rows.shape[2]) @ matrix
        return np.asarray(product.reshape(*rows.shape[:2], matrix.shape[1]))


@dataclass(frozen=True)
class RankCurve(Shown):
    """Width of the bounds of the probabilities' standard errors against the number of eigenpairs.

    Attributes:
        ranks: K, ascending.
        widths: median of (high - low) / high over inputs and classes, for each K.
        certified: the bounds are certified, not the published interval of the tail.
    """

    ranks: Array
    widths: Array
    certified: bool

    def smallest(self, width: float) -> int | None:
        """The smallest of the ranks that reaches a width; None where none does."""
        reached = self.ranks[self.widths <= width]
        return int(reached[0]) if len(reached) else None

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw width against rank, on matplotlib axes or a figure of its own."""
        return self._draw("rank_curve", ax=ax)


def rank_curve(
    pairs: Eigenpairs, rows: Array, epsilon: float, freedom: Freedom | None = None
) -> RankCurve:
    """Compute the rank curve up to the rank of some eigenpairs, without another product.

    The leading k of K pairs leave at most delta + mu_(k+1) out, delta being what all K do.

    Args:
        pairs: eigenpairs in the prior's metric, the largest ones.
        rows: Jacobians `[B, C, P]` of the inputs, in that metric.
        epsilon: relative rounding of the curvature.
        freedom: as for `TailWidth`.

    Raises:
        InvalidInputError: some of the pairs are the smallest.
    """
    if pairs.n_lowest:
        raise InvalidInputError(
            "rank_curve needs the largest eigenpairs alone",
            expected="negative_curvature='project' or 'raise'",
            received="eigenpairs of both ends of the spectrum",
        )
    ranks = np.unique(np.geomspace(1, max(1, pairs.rank), _POINTS).astype(int))
    ranks = ranks[ranks <= pairs.rank]
    widths = TailWidth(rows, epsilon, freedom).of_leading(pairs, ranks)
    return RankCurve(ranks, widths, pairs.left_out is not None)


def _leading(pairs: Eigenpairs, rank: int) -> Eigenpairs:
    """The first k pairs, with what they leave out."""
    if rank == pairs.rank:
        return pairs
    # ||A - U_k diag(mu_k) U_k^T|| <= ||A - U diag(mu) U^T|| + mu_(k+1).
    left_out, residual_norms = pairs.left_out, pairs.residual_norms[:rank]
    if left_out is not None:
        beyond = left_out.bound + max(0.0, float(pairs.values[rank]))
        if pairs.smallest is None and left_out.bound > 0:  # the residuals rest on that bound
            residual_norms = residual_norms * (beyond / left_out.bound)
        left_out = replace(left_out, bound=beyond)
    return replace(
        pairs,
        values=pairs.values[:rank],
        vectors=pairs.vectors[:, :rank],
        residual_norms=residual_norms,
        left_out=left_out,
    )
