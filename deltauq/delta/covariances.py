"""The covariance of the weights, from the eigenpairs of a fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature.parameter_covariance import (
    NegativeCurvature,
    ParameterCovariance,
    dense_covariance,
    low_rank_covariance,
)
from deltauq.curvature.sandwich import sandwich_covariance
from deltauq.curvature.tails import Tail
from deltauq.delta.fitted import Fitted
from deltauq.delta.problem import Problem
from deltauq.delta.rates import Rates, prior_scale
from deltauq.delta.settings import Settings
from deltauq.delta.solving import needs_meat, solve_meat
from deltauq.linalg import Eigenpairs, Storage

__all__ = ["covariance_of", "inverse_curvature", "weight_covariance", "with_meat"]


def with_meat(fitted: Fitted, storage: Storage) -> Fitted:
    """A fit with the covariance of the weights, where that is more than an inverse."""
    if not needs_meat(fitted.problem, fitted.settings):
        return fitted
    solution = solve_meat(fitted, storage)
    meat, caveats = (None, ()) if solution is None else solution
    covariance = weight_covariance(
        fitted.problem, fitted.settings, fitted.prior_pairs, meat, storage
    )
    covariance = covariance.with_noise(fitted.known.noise)
    return replace(
        fitted.with_pairs(fitted.prior_pairs, covariance), caveats=fitted.caveats + caveats
    )


def weight_covariance(
    problem: Problem,
    settings: Settings,
    pairs: Eigenpairs,
    meat: Eigenpairs | None,
    storage: Storage | None = None,
    basis: npt.NDArray[Any] | None = None,
) -> ParameterCovariance:
    """Make the covariance of the weights from eigenpairs of a curvature and a sandwich's meat.

    Several of the same vectors may share a basis, as of `sandwich_covariance`.
    """
    bread = covariance_of(problem, settings, pairs)
    if meat is None:
        return bread
    penalised, share = problem.rates > 0, problem.likelihood.l2_in_scores
    if settings.kind.is_sandwich:
        kind = settings.meat
        return sandwich_covariance(
            bread, meat, penalised, meat=kind, l2_share=share, storage=storage, basis=basis
        )
    # The meat is treated as the bread is, so that outputs of equal noise leave their inverse.
    if np.all(penalised) and settings.negative_curvature != "keep":
        meat = replace(meat, values=np.maximum(meat.values, 0.0))
    rest = None
    if meat.rank < meat.n_params:
        tail = covariance_of(problem, settings, meat).spectrum.tail
        rest = 1.0 / tail - 1.0 if tail > 0 else 0.0
    return sandwich_covariance(
        bread, meat, penalised, l2_share=share, rest=rest, storage=storage, basis=basis
    )


def covariance_of(problem: Problem, settings: Settings, pairs: Eigenpairs) -> ParameterCovariance:
    """Make the covariance that is the inverse of the curvature plus L2, over N."""
    return inverse_curvature(
        pairs,
        problem.rates,
        problem.data.n_examples,
        epsilon=problem.epsilon,
        tail=settings.tail,
        negative_curvature=settings.negative_curvature,
    )


def inverse_curvature(
    pairs: Eigenpairs,
    rates: Rates,
    n_examples: float,
    *,
    epsilon: float,
    tail: Tail = "midpoint",
    negative_curvature: NegativeCurvature = "project",
) -> ParameterCovariance:
    """Make the covariance (A + L)^-1 / N of eigenpairs, whichever parameters have L2.

    Args:
        pairs: of A in the prior's metric; all of them where some parameter has no L2.
        rates: lambda_j `[P]`, zero where a parameter has no L2.
        n_examples: N.
        epsilon: relative rounding of the curvature, the network's machine epsilon.
        tail: what stands for directions that were not computed.
        negative_curvature: as of `DeltaMethod`.

    Raises:
        NotPositiveDefiniteError: A + L has no inverse that is a covariance.
    """
    scale = prior_scale(rates)
    if not np.all(rates > 0):
        return dense_covariance(
            pairs,
            rates > 0,
            scale,
            n_examples,
            negative_curvature=negative_curvature,
            epsilon=epsilon,
        )
    return low_rank_covariance(
        pairs,
        scale,
        n_examples,
        tail=tail,
        negative_curvature=negative_curvature,
        epsilon=epsilon,
    )
