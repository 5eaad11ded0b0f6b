"""The noise of a regression, with the parameters that the data determined taken into account."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deltauq.curvature.effective_parameters import Freedom, effective_parameters
from deltauq.curvature.noise_interval import NoiseRange, noise_range
from deltauq.delta.caveats import Caveat
from deltauq.delta.covariances import covariance_of
from deltauq.delta.fitted import Fitted
from deltauq.delta.sampled_effective_parameters import sampled_effective_parameters
from deltauq.delta.solving import freedom_of
from deltauq.errors import InvalidInputError
from deltauq.linalg import Eigenpairs

__all__ = ["before_noise", "with_unbiased_noise"]


def with_unbiased_noise(fitted: Fitted) -> Fitted:
    """A fit with the residuals' squares over N - gamma / C for the noise, not over N.

    gamma = trace(A (A + L)^-1) = P - N sum_j lambda_j Sigma_jj counts the parameters that the data
    determine (MacKay 1992); without L2 it is P, as in ordinary least squares. It does not depend on
    the noise. From some of the eigenpairs it is known to lie in an interval, and so is the noise:
    `ParameterCovariance.noise` says in which. A noise f times as large leaves the eigenpairs of the
    Hessian and the GGN in the prior's metric as they are, because L2's rates in units of the
    log-likelihood go down with it, and divides those of OPG by f.

    Args:
        fitted: with the mean squares for the noise, of a sandwich its bread alone.

    Raises:
        InvalidInputError: no more observations than parameters.
    """
    problem, freedom = fitted.problem, freedom_of(fitted.problem, fitted.settings)
    gamma, certified = _effective_parameters(fitted, freedom)
    noise = noise_range(gamma, freedom.n_observations, power=freedom.power, certified=certified)
    if noise is None:
        each = gamma[0] * problem.data.n_examples / freedom.n_observations
        raise InvalidInputError(
            "the noise cannot be estimated: the parameters fit all observations",
            expected=f"more than {each:.4g} observations: at least so many parameters do they "
            "determine for each output",
            received=f"{problem.data.n_examples:g}",
            remedy="give the variance, likelihood=deltauq.likelihoods.Gaussian(noise=...), or more "
            "L2",
        )
    caveats = (_unbounded(fitted, gamma, freedom.n_observations),) if noise.is_open else ()
    likelihood = problem.likelihood.with_noise(noise.factor * problem.likelihood.noise_variance())
    unit = noise.factor if likelihood.scaled_by_noise else 1.0
    noisier = problem.with_likelihood(likelihood, problem.rates / unit)
    pairs = _at_noise(fitted, freedom, noise)
    measured = fitted.require_measured().with_noise(
        noise.factor, problem.likelihood, noisier.likelihood
    )
    covariance = covariance_of(noisier, fitted.settings, pairs).with_noise(noise)
    return replace(
        fitted.with_pairs(pairs, covariance),
        problem=noisier,
        stationarity=measured.beside(noisier.rates)[0],
        measured=measured,
        caveats=fitted.caveats + caveats,
    )


def before_noise(fitted: Fitted) -> tuple[Eigenpairs, Freedom | None]:
    """The eigenpairs at the residuals' mean square, and what the noise was estimated from.

    None where no noise was, or where gamma was sampled.
    """
    noise, pairs = fitted.covariance.noise, fitted.prior_pairs
    if noise is None or pairs.trace is None:
        return pairs, None
    freedom = freedom_of(fitted.problem, fitted.settings)
    return (pairs.rescaled(noise.factor) if freedom.power == 2 else pairs), freedom


def _effective_parameters(fitted: Fitted, freedom: Freedom) -> tuple[tuple[float, float], bool]:
    """The interval of gamma, and whether gamma lies in it for certain."""
    problem, pairs = fitted.problem, fitted.prior_pairs
    if pairs.rank == pairs.n_params:
        # gamma = trace(A (A + L)^-1) = trace(I - L (A + L)^-1), (A + L)^-1 = N Sigma.
        variances = covariance_of(problem, fitted.settings, pairs).diagonal()
        gamma = pairs.n_params - problem.data.n_examples * float(problem.rates @ variances)
        return (gamma, gamma), True
    low, high = effective_parameters(pairs, freedom.most_rank, freedom.epsilon)
    if pairs.trace is not None:
        return (low, high), True
    # Of the exact Hessian not even the trace is known: sampled, within what is certain.
    least, most = sampled_effective_parameters(fitted)
    return (min(max(low, least), high), max(min(high, most), low)), False


def _at_noise(fitted: Fitted, freedom: Freedom, noise: NoiseRange) -> Eigenpairs:
    """The eigenpairs at the noise that was estimated."""
    pairs, penalised = freedom.noisier(fitted.prior_pairs, noise), fitted.problem.rates > 0
    if np.all(penalised):
        return pairs
    # Where there is no L2, the metric is that of the parameters themselves.
    shrunk = np.where(penalised, 1.0, noise.factor**-0.5)[:, None] * pairs.vectors
    values, vectors = np.linalg.eigh((shrunk * pairs.values) @ shrunk.T)
    return replace(
        pairs,
        values=values[::-1],
        vectors=vectors[:, ::-1],
        trace=float(values.sum()),
        smallest=None if pairs.smallest is None else float(values[0]),
    )


def _unbounded(fitted: Fitted, gamma: tuple[float, float], n_observations: float) -> Caveat:
    return Caveat(
        "noise",
        "the noise has no upper bound",
        f"the noise has no upper bound: {fitted.prior_pairs.rank} eigenpairs of the "
        f"{fitted.settings.curvature} leave open whether the data determine {gamma[0]:.4g} or "
        f"{gamma[1]:.4g} parameters, and there are {n_observations:g} observed numbers. So "
        "std_bounds have no upper end, and the noise that is used may be too small or up to twice "
        "the least. Ask for a larger rank or rank='full', more l2, or give the variance, "
        "likelihood=deltauq.likelihoods.Gaussian(noise=...).",
    )
