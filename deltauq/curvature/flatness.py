"""Where a loss has no curvature in the outputs, so that an inverse of it says nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature.registry import names_where
from deltauq.data.batches import Batches
from deltauq.errors import NotPositiveDefiniteError, NumericalError
from deltauq.likelihoods import Likelihood
from deltauq.network.interpretation import logits_and_labels
from deltauq.network.network import Network

__all__ = ["SMOOTHING", "Flatness", "measure_flatness", "refuse_linear_loss"]

Array = npt.NDArray[Any]

#: Second derivatives of the loss `[B, C, C]` that are formed at a time.
_AT_ONCE = 2**23

#: Share of the observations from which a flat loss is worth a word, and how far the two curvatures
#: of a likelihood may be apart, as a factor on standard errors, before it matters.
_SHARE, _APART = 0.01, 1.25

#: What to do about a loss with kinks.
SMOOTHING = (
    "smooth its kinks: write the loss with max(u, 0) and take h * softplus(u / h) for it, with a "
    "width h within which a few percent of the u lie (a quantile's loss is then tau * e + h * "
    "softplus(-e / h) with e = y - z), polish the weights to it, and pass curvature='sandwich', "
    "meat='scores'"
)


@dataclass(frozen=True)
class Flatness:
    """How curved a loss is in the outputs, over the training data.

    One entry an output; of classes, whose outputs make one distribution, one in all.

    Attributes:
        curvature: mean of |d^2 loss / dz_c^2|, what rounding may explain left out, `[C]`.
        slope: mean of (d loss / dz_c)^2, `[C]`. The expectations of the two are equal where the
            loss is the negative log-likelihood of the labels.
        flat: share of the weight at which the loss has no curvature, `[C]`.
        pulled: share at which it has none and yet a slope: the labels pull at the output, and say
            nothing of how far, `[C]`.
    """

    curvature: Array
    slope: Array
    flat: Array
    pulled: Array

    @property
    def linear(self) -> Array:
        """Outputs in which the loss has slopes but no curvature at any observation, `[n]`."""
        return np.flatnonzero((self.curvature == 0) & (self.pulled > 0))

    @property
    def is_blank(self) -> bool:
        """Whether nothing pulls at the outputs and nothing holds them: the data say nothing."""
        return bool(np.all((self.flat == 1) & (self.pulled == 0)))

    @property
    def is_worth_a_word(self) -> bool:
        """Whether more than single observations are without curvature, so that a user is told."""
        return not np.max(self.flat) < _SHARE

    @property
    def factor(self) -> float:
        """Factor sqrt(slope / curvature) of the output where it is furthest from one.

        The standard errors of a sandwich are about that many times those from the curvature alone.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            factors = np.sqrt(self.slope / self.curvature)[self.pulled > 0]
        if not len(factors):
            return 1.0
        return float(factors[np.argmax(np.abs(np.log(np.maximum(factors, 1e-300))))])

    @property
    def matters(self) -> bool:
        """Whether observations without curvature pull, so that two curvatures differ by much."""
        apart = 1.0 / _APART <= self.factor <= _APART
        return not np.max(self.pulled) < _SHARE and not apart

    @property
    def share(self) -> str:
        """Share of the observations that are without curvature, as text."""
        return f"{np.max(self.flat):.2g}"


def measure_flatness(network: Network, likelihood: Likelihood, data: Batches) -> Flatness:
    """Measure how curved the loss is in the outputs over the data; one pass.

    Args:
        network: the network.
        likelihood: gives the loss, its noise known.
        data: the training set.

    Raises:
        NumericalError: a second derivative or a slope is not finite.
    """
    epsilon = float(np.finfo(network.dtype).eps)
    total, sums = 0.0, np.zeros((4, 1))
    for logits, y, weight in logits_and_labels(network, data):
        step = max(1, _AT_ONCE // logits.shape[1] ** 2)
        for start in range(0, len(logits), step):
            some = slice(start, start + step)
            each = weight[some].numpy().astype(np.float64).ravel()
            counted, each = each > 0, each[each > 0]
            curvature, slope = (
                values[counted] for values in likelihood.curvature_and_slope(logits[some], y[some])
            )
            _check_finite(curvature, slope, likelihood)
            if likelihood.is_one_distribution:
                curvature, slope = (x.sum(axis=1, keepdims=True) for x in (curvature, slope))
            flat = likelihood.is_flat(curvature, slope, epsilon)
            # At a probability of one to rounding the slope is the root of it, and no pull.
            pulled = flat & (slope > epsilon * curvature)
            parts = (np.where(flat, 0.0, curvature), slope, flat, pulled)
            sums = sums + np.stack([each @ part for part in parts])
            total += float(np.sum(each))
    return Flatness(*(sums / total))


def refuse_linear_loss(found: Flatness, likelihood: Likelihood) -> None:
    """Refuse the inverse of a curvature that the loss does not have.

    Raises:
        NotPositiveDefiniteError: the loss is linear in an output, but for kinks.
    """
    if not len(found.linear):
        return
    where = "the outputs" if likelihood.is_one_distribution else f"output {found.linear.tolist()}"
    raise NotPositiveDefiniteError(
        f"the loss has no curvature in {where}, so that its inverse would be that of L2 alone",
        expected="a positive second derivative at some of the examples; "
        f"curvature={names_where(lambda kind: not kind.made_of_scores)} are made of it",
        received=f"{likelihood!r}, whose second derivative is zero to rounding at every example, "
        f"its slope at {np.max(found.pulled):.0%} of them not",
        remedy=f"{SMOOTHING}; curvature='opg' needs slopes only, and is right where this loss is "
        "the negative log-likelihood of the labels, scale and all",
    )


def _check_finite(curvature: Array, slope: Array, likelihood: Likelihood) -> None:
    bad = ~np.all(np.isfinite(curvature) & np.isfinite(slope), axis=1)
    if np.any(bad):
        raise NumericalError(
            "the loss's derivatives in the outputs are not finite on the training data",
            expected="finite first and second derivatives at every example",
            received=f"NaN or infinity at {np.count_nonzero(bad)} of {len(bad)} examples of a "
            f"batch, from {likelihood!r}",
            remedy="scale the labels, keep exponentials in the loss from overflowing and roots and "
            "powers in it away from zero (|e|^1.5 has no second derivative at 0), or build the "
            "model in float64",
        )
