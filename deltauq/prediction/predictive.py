"""Means averaged over what the data leave open of the weights: the posterior predictive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import scipy.special

from deltauq.errors import InvalidInputError, NumericalError, check_choice, check_count
from deltauq.likelihoods.links import probit_logits

__all__ = [
    "SAMPLES",
    "Averaged",
    "AveragedProbabilities",
    "PredictiveMoments",
    "average_sigmoid",
    "average_softmax",
    "refuse_method",
]

Array = npt.NDArray[Any]

#: Pairs of draws of a Monte Carlo average. Its error is then at most a thirtieth of the standard
#: deviation of a probability, which is far from what the linearisation itself leaves open.
SAMPLES = 1_000

#: Numbers in the largest array of a Monte Carlo average (8 MiB).
_NUMBERS = 2**20

#: Share of the largest variance that is rounding where all logits move alike.
_LOST = 1e-12

#: An eigenvalue of a covariance below zero is rounding up to this share of the largest one.
_ROUNDING = 1e-4

#: A variance is nothing up to this share of the largest one of an input.
_NEXT_TO_NOTHING = 1e-9


class Averaged(Protocol):
    """What an average has in common with others: columns of a table."""

    def columns(self) -> dict[str, Array]:
        """Columns `[N]` by their names in the table of a prediction."""


@dataclass(frozen=True)
class AveragedProbabilities:
    """Probabilities of N inputs averaged over the distribution of their logits.

    Attributes:
        probabilities: `[N, C]`. Of one of several classes rows sum to one.
        method: by which they were averaged.
        sampling_error: standard error of each of them from the finite number of draws `[N, C]`;
            None where nothing was drawn.
    """

    probabilities: Array
    method: str
    sampling_error: Array | None = None

    def columns(self) -> dict[str, Array]:
        """Columns `predictive_c` of every class or label c."""
        return {f"predictive_{c}": column for c, column in enumerate(self.probabilities.T)}


class PredictiveMoments(NamedTuple):
    """Mean and variance of a new observation, the weights' uncertainty and the noise together.

    It can be taken apart: `mean, variance = prediction.predictive()`.

    Attributes:
        mean: `[N, C]`.
        variance: `[N, C]`, in the unit of the observations squared.
    """

    mean: Array
    variance: Array

    def columns(self) -> dict[str, Array]:
        """Columns `predictive_mean_c` and `predictive_variance_c`, without `_c` of one output."""
        found, n_outputs = {}, self.mean.shape[1]
        for c in range(n_outputs):
            end = "" if n_outputs == 1 else f"_{c}"
            found[f"predictive_mean{end}"] = self.mean[:, c]
            found[f"predictive_variance{end}"] = self.variance[:, c]
        return found


def average_softmax(
    logits: Array, covariance: Array, method: str, samples: int, seed: int
) -> AveragedProbabilities:
    """Average a softmax over normal logits; see `Prediction.predictive`.

    Args:
        logits: their means z `[N, C]`.
        covariance: V `[N, C, C]`.
        method: "probit", "monte_carlo" or "bridge".
        samples: pairs of draws of "monte_carlo".
        seed: of the draws.
    """
    check_choice("method", method, ("probit", "monte_carlo", "bridge"))
    if method == "probit":
        z = probit_logits(logits, np.einsum("ncc->nc", covariance))
        return AveragedProbabilities(scipy.special.softmax(z, axis=1), method)
    contrasts = _centred(logits, covariance)
    if method == "bridge":
        return AveragedProbabilities(_laplace_bridge(*contrasts), method)
    softmax = partial(scipy.special.softmax, axis=-1)
    p, error = _sampled(*contrasts, softmax, samples, seed)
    return AveragedProbabilities(p, method, error)


def average_sigmoid(
    logits: Array, covariance: Array, method: str, samples: int, seed: int
) -> AveragedProbabilities:
    """Average sigmoids over normal logits; see `MultiLabelPrediction.predictive`.

    Args:
        logits: their means z `[N, C]`.
        covariance: V `[N, C, C]`.
        method: "probit" or "monte_carlo".
        samples: pairs of draws of "monte_carlo".
        seed: of the draws.
    """
    if method == "bridge":
        raise _no_bridge("several labels")
    check_choice("method", method, ("probit", "monte_carlo"))
    if method == "probit":
        z = probit_logits(logits, np.einsum("ncc->nc", covariance))
        return AveragedProbabilities(scipy.special.expit(z), method)
    p, error = _sampled(logits, covariance, scipy.special.expit, samples, seed)
    return AveragedProbabilities(p, method, error)


def refuse_method(method: str) -> None:
    """Refuse a method for what is averaged exactly.

    Raises:
        InvalidInputError: a method other than "exact".
    """
    if method != "exact":
        raise InvalidInputError(
            "a regression is averaged exactly, not by a method for probabilities",
            expected="'exact'",
            received=repr(method),
            remedy="leave it out, or write method='exact'",
        )


def _centred(logits: Array, covariance: Array) -> tuple[Array, Array]:
    """Logits less their mean over the classes, M z, with their covariance M V M, M = I - 1 1^T / C.

    A softmax sees nothing else. What moves all logits alike may vary a lot, and would drown the
    rest in the rounding of a root; where the rest is no more than its rounding, it is zero.
    """
    half = covariance - covariance.mean(axis=2, keepdims=True)
    rest = half - half.mean(axis=1, keepdims=True)
    whole = np.einsum("ncc->nc", covariance).max(axis=1)
    rest[np.abs(rest).max(axis=(1, 2)) <= _LOST * whole] = 0.0
    return logits - logits.mean(axis=1, keepdims=True), rest


def _laplace_bridge(logits: Array, covariance: Array) -> Array:
    """Mean of the Dirichlet distribution whose logits have about these moments, `[N, C]`.

    Args:
        logits: that sum to zero `[N, C]`.
        covariance: of them `[N, C, C]`.
    """
    n_classes = logits.shape[1]
    if n_classes < 3:
        raise _no_bridge("two classes")
    # Hobbhahn et al. 2022, arXiv 2003.01227:
    # alpha_c = (1 - 2 / C + exp(z_c) / C^2 sum_d exp(-z_d)) / V_cc, here in logarithms.
    sums = scipy.special.logsumexp(-logits, axis=1, keepdims=True)
    grown = np.logaddexp(np.log1p(-2.0 / n_classes), logits + sums - 2.0 * np.log(n_classes))
    variance = np.einsum("ncc->nc", covariance)
    largest = variance.max(axis=1, keepdims=True)
    known = largest == 0  # there is nothing to average over
    some = variance > _NEXT_TO_NOTHING * largest
    if not np.all(some | known):
        raise NumericalError(
            "the Laplace bridge divides by a variance of zero",
            expected="a variance of every class's logit beside the mean of all, or of none",
            received=f"{np.count_nonzero(~np.all(some | known, axis=1))} inputs where some "
            "classes have one, and others none",
            remedy="write method='monte_carlo', which takes any covariance",
        )
    log_alpha = np.where(known, logits, grown - np.log(np.where(known, 1.0, variance)))
    return np.asarray(scipy.special.softmax(log_alpha, axis=1))


def _no_bridge(what: str) -> InvalidInputError:
    """The error for a Laplace bridge to a Dirichlet distribution over two classes.

    There both variances are equal, and cancel: alpha_1 / alpha_0 = exp(z_1 - z_0).
    """
    return InvalidInputError(
        f"the Laplace bridge averages nothing of {what}: of a yes or no it gives the plain "
        "probability, whatever the variance",
        expected="one of three classes or more",
        received=what,
        remedy="write method='probit' or method='monte_carlo'",
    )


def _sampled(
    logits: Array, covariance: Array, link: Callable[[Array], Array], samples: int, seed: int
) -> tuple[Array, Array]:
    """Average a link function over draws of normal logits, each beside its mirror image.

    All inputs share the standard normal draws, so that what one input gets does not depend on the
    others. The odd orders of the link's expansion cancel in a pair.

    Args:
        logits: their means `[N, C]`.
        covariance: `[N, C, C]`.
        link: from logits `[..., C]` to means.
        samples: pairs of draws.
        seed: of the draws.

    Returns:
        The averages and their standard errors, `[N, C]` each.
    """
    samples = check_count("samples", samples, at_least=2)
    seed = check_count("seed", seed, at_least=0)
    n_inputs, width = logits.shape
    pairs = min(samples, max(1, _NUMBERS // width))
    rows = max(1, _NUMBERS // (width * max(pairs, width)))
    average, error = np.empty(logits.shape), np.empty(logits.shape)
    for start in range(0, n_inputs, rows):
        some = slice(start, start + rows)
        z, root = logits[some, None], _root(covariance[some])
        plain = link(z)
        total, squares = np.zeros((2, len(z), width))
        draws = np.random.default_rng(seed)
        for done in range(0, samples, pairs):
            moved = draws.standard_normal((min(pairs, samples - done), width)) @ root
            beyond = (link(z + moved) + link(z - moved)) / 2 - plain
            total += beyond.sum(axis=1)
            squares += np.square(beyond).sum(axis=1)
        average[some] = plain[:, 0] + total / samples
        spread = np.maximum(squares - total**2 / samples, 0.0) / (samples - 1)
        error[some] = np.sqrt(spread / samples)
    return average, error


def _root(covariance: Array) -> Array:
    """The symmetric roots of covariances that may be singular, `[N, C, C]`.

    Unlike a factor it does not depend on the signs of eigenvectors.
    """
    values, vectors = np.linalg.eigh(covariance)
    if not np.all(values[:, 0] >= -_ROUNDING * values[:, -1]):
        raise NumericalError(
            "a covariance of logits has negative eigenvalues, and cannot be drawn from",
            expected="none beyond rounding",
            received=f"down to {np.min(values):.3g}, beside {np.max(values):.3g}",
            remedy="write method='probit', which takes the variances alone",
        )
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]) @ vectors.mT)
