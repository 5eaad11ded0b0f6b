"""The marginal likelihood of a Laplace approximation, and the L2 rate that it prefers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.interpolate
import scipy.optimize

from deltauq.curvature.cost import least_loss
from deltauq.curvature.noise_interval import NoiseRange
from deltauq.curvature.parameter_covariance import ParameterCovariance, is_positive
from deltauq.curvature.registry import names_where
from deltauq.curvature.sandwich import common_basis
from deltauq.curvature.tail_band import ResidualsOnce
from deltauq.data.batches import Batch
from deltauq.delta.covariances import covariance_of, weight_covariance
from deltauq.delta.fitted import Fitted
from deltauq.delta.known import KnownByInverse, KnownByPairs
from deltauq.delta.solving import freedom_of, solve_meat
from deltauq.delta.tuned_l2 import FACTORS, TunedL2
from deltauq.errors import InvalidInputError, NumericalError
from deltauq.linalg import Storage, quadratic_diagonals
from deltauq.network.jacobians import Workspace

__all__ = [
    "Evidence",
    "held_out_likelihood",
    "log_marginal_likelihood",
    "tune_l2",
    "with_l2_times",
]

Array = npt.NDArray[Any]

#: Number of factors on the L2 rates that are tried.
_GRID = 161

#: Rates at which held-out predictions are made at a time, or as many as there are outputs: then
#: they take no more memory than the covariance of the outputs does.
_AT_ONCE = 16

#: Points of the grid on each side of the largest value through which a spline is laid.
_NEIGHBOURS = 4


@dataclass(frozen=True)
class Evidence:
    """Log of p(y | x) in nats, the weights integrated out by Laplace's approximation.

    Attributes:
        value: with the upper bound of the log-determinant; what to compare models by.
        low: the approximation with all eigenpairs is not below this (the same number, where no
            noise was estimated; minus infinity where the noise has no upper bound).
        high: nor above this.
    """

    value: float
    low: float
    high: float

    def __float__(self) -> float:
        return self.value


def log_marginal_likelihood(fitted: Fitted) -> Evidence:
    """The log of p(y | x) by Laplace's approximation, with bounds for the low rank.

    -N cost - (1/2) log det(M + I) in the prior's metric, where the prior's normalisation cancels
    sum_j log(N lambda_j). The log-determinant is at least sum_k log(1 + mu_k), and at most that
    plus (P - K) log(1 + t / (P - K)) with t what is left of the trace (MacKay 1992, "A practical
    Bayesian framework for backpropagation networks"; the upper bound is Jensen's inequality).

    The noise of a regression is part of the model: where it was estimated, the value is that of the
    estimate, and the bounds hold for each in its range.

    Raises:
        InvalidInputError: a sandwich, which is no posterior; a trace that is not known; a parameter
            without L2, whose prior has no normalisation.
    """
    # log p(y | x) = log p(y, w^ | x) + (P / 2) log 2 pi - (1/2) log det(N (A + L)) (MacKay 1992).
    # The prior in it has (1/2) sum_j log(N lambda_j) - (P / 2) log 2 pi: log det(M + I) is left.
    costs = fitted.problem.data.n_examples * fitted.stationarity.cost
    values, left = _spectrum(fitted)
    noise, times = fitted.known.noise, np.ones(2)
    least, most = costs, costs
    if noise is not None and noise.power > 0:
        least, most = _costs_in_range(fitted, noise, costs)
        times = np.array([noise.low, noise.high]) ** (noise.power - 1)
    low, high = _log_determinants(values, left, fitted.problem.network.n_params, times)
    middle = _log_determinants(values, left, fitted.problem.network.n_params, np.ones(1))[1]
    return Evidence(
        -costs - float(middle[0]) / 2, -most - float(high[0]) / 2, -least - float(low[1]) / 2
    )


def _costs_in_range(fitted: Fitted, noise: NoiseRange, costs: float) -> tuple[float, float]:
    """N times the cost at least and at most, for each noise in its range.

    At g times the noise it is a + b log(g) + c / g, with b = (C / 2) sum_n c_n w_n and c what is
    left without the logarithms of the noise: it falls until g = c / b and grows from there.
    """
    problem = fitted.problem
    weights = problem.data.n_examples * fitted.mean_weight
    rest = costs - weights * least_loss(problem.likelihood)
    half = 0.5 * fitted.mean_weight * freedom_of(problem, fitted.settings).n_observations
    noises = np.array([noise.low, noise.high, np.clip(rest / half, noise.low, noise.high)])
    found = costs - rest + half * np.log(noises) + rest / noises
    return float(np.min(found)), float(np.max(found))


def tune_l2(fitted: Fitted, held_out: Iterable[Batch] | None = None) -> tuple[TunedL2, Fitted]:
    """The factor on all L2 rates that a criterion prefers, with the same weights and eigenpairs.

    Where negative curvature is kept, A plus L2 is positive definite above a factor only, and below
    it there is neither a covariance nor a criterion: those factors are left out. Just above it the
    marginal likelihood grows without bound, as log det goes to minus infinity while Laplace's
    approximation is worth nothing: its maximum is the largest of those between two smaller values.

    Args:
        fitted: of the present rates.
        held_out: data for the held-out likelihood; None for the marginal likelihood.

    Returns:
        What was chosen, and the fit with it.

    Raises:
        InvalidInputError: as `log_marginal_likelihood`; a parameter without L2.
        NumericalError: the criterion has no maximum in 16 decades, or is not finite.
    """
    if not np.all(fitted.problem.rates > 0):
        raise InvalidInputError(
            "tune_l2 multiplies the L2 rates by one factor, and some are zero",
            expected="an L2 rate for every variable",
            received=f"{int(np.count_nonzero(fitted.problem.rates == 0))} parameters without one",
            remedy="pass l2='tune' or a rate for all variables to DeltaMethod",
        )
    fitted.require_unrounded_vectors("tune_l2")
    fitted.problem.require_data()
    factors = np.geomspace(*FACTORS, _GRID)
    factors = factors[[_has_covariance(fitted, factor) for factor in factors]]
    if held_out is None:
        criterion, values = "marginal likelihood", _evidence(fitted, factors)
    else:
        criterion, values = "held-out likelihood", held_out_likelihood(fitted, held_out, factors)
    fewer = len(factors) < _GRID
    factor = _maximum(
        factors, values, criterion, pole_below=fewer and held_out is None, rates_left_out=fewer
    )
    tuned = with_l2_times(fitted, factor)
    rate = tuned.problem.common_rate
    if rate is not None:
        rate *= tuned.problem.dispersion
    return TunedL2(factor, rate, criterion, factors, values), tuned


def with_l2_times(fitted: Fitted, factor: float) -> Fitted:
    """A fit of the same weights and eigenpairs with all L2 rates times a factor, without meat."""
    problem, measured = fitted.problem, fitted.require_measured()
    problem = replace(
        problem,
        rates=problem.rates * factor,
        linearization=problem.linearization.rescaled(factor**-0.5),
    )
    known = fitted.known
    if isinstance(known, KnownByInverse):
        known = known.at_rates_times(factor)
    else:
        pairs = known.pairs.rescaled(1.0 / factor)
        covariance = covariance_of(problem, fitted.settings, pairs).with_noise(known.noise)
        known = KnownByPairs(pairs, covariance)
    return replace(
        fitted,
        problem=problem,
        known=known,
        stationarity=measured.beside(problem.rates)[0],
        measured=measured,
        residuals=ResidualsOnce(),
    )


def _spectrum(fitted: Fitted) -> tuple[Array, float]:
    """Eigenvalues in the prior's metric, and what is left of the trace."""
    kind = fitted.settings.kind
    if kind.is_sandwich:
        raise InvalidInputError(
            "a sandwich covariance has no marginal likelihood",
            expected=f"curvature={names_where(lambda kind: not kind.is_sandwich, 'or')}",
            received=f"curvature={kind.name!r}",
            remedy="ask another curvature of the same model. For an L2 rate, pass as l2=... the "
            "one that tune_l2() of the other finds, or any, and then held-out data to tune_l2",
        )
    free = int(np.count_nonzero(fitted.problem.rates == 0))
    if free:
        raise InvalidInputError(
            "the marginal likelihood needs a prior for every parameter",
            expected="an L2 rate for every variable",
            received=f"{free} parameters without one, whose prior has no normalisation",
            remedy="pass a rate for all variables to DeltaMethod, or l2='tune'",
        )
    if isinstance(fitted.known, KnownByInverse):
        return fitted.known.inverse.spectrum, 0.0
    pairs = fitted.known.pairs
    if pairs.trace is None:
        raise InvalidInputError(
            "the marginal likelihood needs the trace of the curvature",
            expected="curvature "
            f"{names_where(lambda kind: kind.semidefinite, 'or')}, "
            "whose trace one pass gives exactly, or rank='full'",
            received=f"the {kind.short_name or kind.name} with {pairs.rank} of {pairs.n_params} "
            "eigenpairs",
            remedy="pass curvature='ggn', or rank='full' where P is small",
        )
    if pairs.rank == pairs.n_params:
        keep = fitted.settings.negative_curvature == "keep"
        return (pairs.values if keep else np.maximum(pairs.values, 0.0)), 0.0
    return pairs.values, float(pairs.remainder or 0.0)


def _has_covariance(fitted: Fitted, factor: float) -> bool:
    """Whether A plus L2 times a factor is positive definite, where negative curvature is kept."""
    if fitted.settings.negative_curvature != "keep" or fitted.settings.kind.semidefinite:
        return True
    pairs = fitted.prior_pairs
    if pairs.smallest is None:
        return True
    return is_positive(pairs.values / factor + 1.0, fitted.problem.epsilon)


def _log_determinants(
    values: Array, left: float, n_params: int, factors: Array
) -> tuple[Array, Array]:
    """Bounds of log det(M / s + I) for some factors s, `[n]` each."""
    # Eigenvalues that were left out are at least 0; of a given sum, their logarithms are largest
    # where all are equal (Jensen).
    low = np.sum(np.log1p(values / factors[:, None]), axis=1)
    rest = n_params - len(values)
    return low, low + (rest * np.log1p(left / (rest * factors)) if rest else 0.0)


def _evidence(fitted: Fitted, factors: Array) -> Array:
    """The marginal likelihood for L2 rates times some factors, the weights as they are."""
    values, left = _spectrum(fitted)
    problem = fitted.problem
    params = problem.network.params.numpy().astype(np.float64)
    penalty = 0.5 * float(problem.rates @ params**2)
    cost = fitted.stationarity.cost + (factors - 1.0) * penalty
    _, high = _log_determinants(values, left, fitted.problem.network.n_params, factors)
    return np.asarray(-problem.data.n_examples * cost - high / 2)


def held_out_likelihood(fitted: Fitted, held_out: Iterable[Batch], factors: Array) -> Array:
    """Mean log probability of held-out labels, the logits' variance taken into account.

    All covariances are those of the same vectors, so that one pass over the data serves all rates.

    Args:
        fitted: of the present rates.
        held_out: batches, read once.
        factors: on the rates `[n]`.

    Returns:
        In nats an observation `[n]`.
    """
    problem = fitted.problem
    workspace = Workspace(fitted.vectors.dtype)
    totals, weight = np.zeros(len(factors)), 0.0
    vectors, covariances = _at_factors(fitted, factors)
    spectra = [
        covariance.spectrum.times(1.0 / (factor * covariance.n_examples))
        for covariance, factor in zip(covariances, factors, strict=True)
    ]
    for batch in held_out:
        found = problem.linearization.sketch(batch.x, vectors, workspace)
        back, logits = found.shown.back, found.shown.logits
        y, w = batch.y.numpy(), batch.weight.numpy().ravel()
        rest = np.einsum("nci,nij,ncj->nc", back, found.rest, back, optimize=True)
        along, at_once = back @ found.along, max(_AT_ONCE, logits.shape[1])
        for start in range(0, len(spectra), at_once):
            variances = quadratic_diagonals(spectra[start : start + at_once], along, rest)
            for k, variance in enumerate(np.maximum(variances, 0.0), start):
                totals[k] += float(w @ problem.likelihood.log_predictive(logits, variance, y))
        weight += float(np.sum(w))
    return totals / weight


def _at_factors(fitted: Fitted, factors: Array) -> tuple[Array, list[ParameterCovariance]]:
    """The covariance with the L2 rates times each factor, and the vectors that all of them share.

    An inverse has its eigenvectors at any rate. A sandwich has others at each, but all of them in
    the span of its bread's vectors and its meat's, in which it is left.
    """
    solution, pairs = solve_meat(fitted, Storage()), fitted.prior_pairs
    meat = None if solution is None else solution.pairs
    basis = None if meat is None else common_basis(pairs.vectors, meat.vectors)
    covariances = [
        weight_covariance(
            fitted.problem,
            fitted.settings,
            pairs.rescaled(1.0 / factor),
            None if meat is None else meat.rescaled(1.0 / factor),
            basis=basis,
        )
        for factor in factors
    ]
    return np.ascontiguousarray(covariances[0].vectors, fitted.vectors.dtype), covariances


def _maximum(
    factors: Array, values: Array, criterion: str, *, pole_below: bool, rates_left_out: bool
) -> float:
    """The factor of the largest value, between the grid's points by a spline through them.

    Args:
        factors: ascending, at even distances of their logarithms.
        values: of the criterion.
        criterion: its name.
        pole_below: the criterion grows without bound towards the smallest factor.
        rates_left_out: there is no covariance under the smallest factor.
    """
    if not np.all(np.isfinite(values)):
        raise NumericalError(
            f"the {criterion} is not finite",
            expected="a number at every factor on the L2 rate",
            received=f"NaN or infinity at {np.sum(~np.isfinite(values))} of {len(values)}",
            remedy="look for labels that the model gives no probability; or give l2=... yourself",
        )
    best = _peak(values, unbounded_below=pole_below)
    if best == len(values) - 1 and criterion.startswith("held-out"):
        raise NumericalError(
            "the held-out likelihood has no maximum over the L2 rate: these labels are the more "
            "probable the less epistemic variance there is",
            expected="held-out labels that are sometimes less certain than the model says",
            received=f"a value that still rises at {factors[best]:.2g} times the present rate, "
            f"where next to none is left, {values[best] - values[0]:.2g} nats an observation above "
            f"that at {factors[0]:.2g} times",
            remedy="keep the rate of the training, of which the standard errors then tell, and "
            "take the predictions without them where only those labels count; or let the training "
            "data choose: tune_l2()",
        )
    if best in (0, len(values) - 1):
        raise NumericalError(
            f"the {criterion} has no maximum over the L2 rate",
            expected=f"one between {factors[0]:.2g} and {factors[-1]:.2g} times the present rate",
            received=f"a value that still rises at {factors[best]:.2g} times the rate"
            + (", under which there is no covariance" if rates_left_out and not best else ""),
            remedy="give l2=... yourself"
            + (", or pass negative_curvature='project'" if rates_left_out else ""),
        )
    near = slice(max(0, best - _NEIGHBOURS), best + _NEIGHBOURS + 1)
    curve = scipy.interpolate.make_interp_spline(np.log(factors[near]), values[near])
    found: Any = scipy.optimize.minimize_scalar(
        lambda log_factor: -float(curve(log_factor)),
        bounds=tuple(np.log(factors[[best - 1, best + 1]])),
        method="bounded",
    )
    return float(np.exp(found.x))


def _peak(values: Array, *, unbounded_below: bool) -> int:
    """The place of the largest value; of the largest peak where values have a pole under them."""
    if not unbounded_below:
        return int(np.argmax(values))
    inner = values[1:-1]
    peaks = 1 + np.flatnonzero((inner > values[:-2]) & (inner > values[2:]))
    places = np.append(peaks, len(values) - 1)
    best = int(places[np.argmax(values[places])])
    return best if len(peaks) else int(np.argmax(values))
