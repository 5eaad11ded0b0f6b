"""The noise of a regression, with the parameters that the data determined taken into account."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deltauq.errors import InvalidInputError
from deltauq.fitting import CURVATURES, Fitted, covariance_of, solve
from deltauq.linalg import Eigenpairs, Storage
from deltauq.problem import Problem

__all__ = ["with_unbiased_noise"]

#: Share of the observations that must be left for the noise.
_LEAST_FREEDOM = 1e-3


def with_unbiased_noise(fitted: Fitted, storage: Storage) -> Fitted:
    """The same fit with the residuals' squares over N - gamma / C for the noise, not over N.

    gamma = trace(A (A + L)^-1) = P - N sum_j lambda_j Sigma_jj counts the parameters that the data
    determine (MacKay 1992); without L2 it is P, as in ordinary least squares. It does not depend on
    the noise. A noise f times as large leaves the eigenpairs of the Hessian and the GGN in the
    prior's metric as they are, because L2's rates in units of the log-likelihood go down with it,
    and divides those of OPG by f.

    Args:
        fitted: with the mean squares for the noise.
        storage: where a sandwich, which is solved again, keeps its vectors.

    Raises:
        InvalidInputError: no more observations than parameters.
    """
    problem = fitted.problem
    n_examples = problem.data.n_examples
    gamma = _effective_parameters(fitted)
    each = gamma / len(problem.likelihood.noise_variance())
    if n_examples - each < _LEAST_FREEDOM * n_examples:
        raise InvalidInputError(
            "the noise cannot be estimated: the parameters fit all observations",
            expected=f"more than {each:.4g} observations: so many parameters do they determine for "
            "each output",
            received=f"{n_examples:g}",
            remedy="give the variance, likelihood=deltauq.likelihoods.Gaussian(noise=...), or more "
            "L2",
        )
    factor = n_examples / (n_examples - each)
    likelihood = problem.likelihood.with_noise(factor * problem.likelihood.noise_variance())
    noisier = problem.with_likelihood(likelihood, problem.rates / factor)
    if len(CURVATURES[fitted.settings.curvature]) > 1:
        pairs, covariance = solve(noisier, fitted.settings, storage)
    else:
        pairs = _rescaled(fitted, factor)
        covariance = covariance_of(noisier, fitted.settings, pairs)
    return replace(
        fitted,
        problem=noisier,
        pairs=pairs,
        covariance=covariance,
        stationarity=noisier.cost.stationarity(noisier.network.params.numpy()),
    )


def _effective_parameters(fitted: Fitted) -> float:
    problem: Problem = fitted.problem
    variances = covariance_of(problem, fitted.settings, fitted.pairs).diagonal()
    return fitted.pairs.n_params - problem.data.n_examples * float(problem.rates @ variances)


def _rescaled(fitted: Fitted, factor: float) -> Eigenpairs:
    """The eigenpairs with the noise times a factor."""
    of_scores = fitted.settings.curvature == "opg"
    pairs, penalised = fitted.pairs, fitted.problem.rates > 0
    if of_scores:
        pairs = pairs.rescaled(1.0 / factor)
    if np.all(penalised):
        return pairs
    # Where there is no L2, the metric is that of the parameters themselves.
    shrunk = np.where(penalised, 1.0, factor**-0.5)[:, None] * pairs.vectors
    values, vectors = np.linalg.eigh((shrunk * pairs.values) @ shrunk.T)
    return replace(
        pairs,
        values=values[::-1],
        vectors=vectors[:, ::-1],
        trace=float(values.sum()),
        smallest=None if pairs.smallest is None else float(values[0]),
    )
