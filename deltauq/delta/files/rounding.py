"""A parameter covariance whose eigenvectors are kept in fewer bits, its bounds widened for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.curvature.parameter_covariance import ParameterCovariance
from deltauq.errors import InvalidInputError, check_choice
from deltauq.linalg import Eigenpairs, LowRank, nearest_orthonormal, relative_range

__all__ = ["restored", "round_covariance", "round_pairs", "rounded"]

Array = npt.NDArray[Any]

#: The precisions in which eigenvectors may be kept.
PRECISIONS = ("float32", "float16", "bfloat16")


def rounded(vectors: Array, dtype: str) -> Array:
    """Round eigenvectors to fewer bits, as a file keeps them.

    Raises:
        InvalidInputError: a dtype that is none of those.
    """
    check_choice("vectors_dtype", dtype, PRECISIONS)
    return vectors.astype(tf.as_dtype(dtype).as_numpy_dtype)


def restored(vectors: Array, dtype: str) -> Array:
    """Make orthonormal vectors in a network's precision of those in fewer bits, or keep them."""
    if vectors.dtype == dtype:
        return vectors
    return nearest_orthonormal(vectors.astype(dtype))


def round_covariance(
    covariance: ParameterCovariance, vectors: Array
) -> tuple[ParameterCovariance, float]:
    """Give a covariance rounded eigenvectors, and say what that costs a standard error.

    S' = U' diag(d) U'^T + t (I - U' U'^T) lies between two multiples of S, which small matrices
    give. So the bounds hold with U' once each is divided by the multiple on its side; an estimate,
    which is no bound, by those of the covariance itself.

    Args:
        covariance: as it was computed.
        vectors: U' `[P, K]`, as `restored` gives them.

    Returns:
        The covariance, its bounds widened; and the largest relative change of any standard error.

    Raises:
        InvalidInputError: a singular covariance, whose rounding has no bound.
    """
    spectrum = covariance.spectrum
    complete = covariance.vectors.shape[0] == covariance.vectors.shape[1]
    if not (np.min(spectrum.weights, initial=1.0) > 0 and (complete or spectrum.tail > 0)):
        raise InvalidInputError(
            "vectors_dtype has no bound on what it costs where a variance is zero",
            expected="a covariance without zero variances",
            received="one with them (tail='none', or meat='scores' with few eigenpairs)",
            remedy="save without vectors_dtype",
        )
    ranges = [
        relative_range(covariance.vectors, vectors, _positive(one, complete))
        for one in (spectrum, *((covariance.bounds or ()) if covariance.certified else ()))
    ]
    least, most = ranges[0]
    bounds = covariance.bounds
    if bounds is not None:
        below, above = ranges[1:] or ranges * 2
        bounds = (bounds[0].times(1.0 / below[1]), bounds[1].times(1.0 / above[0]))
    error = max(np.sqrt(most) - 1.0, 1.0 - np.sqrt(least))
    return replace(covariance, vectors=vectors, bounds=bounds), float(error)


def round_pairs(pairs: Eigenpairs, vectors: Array) -> Eigenpairs:
    """Give eigenpairs rounded vectors u', and the residuals that these have at most.

    ||A u' - mu u'|| <= ||A u - mu u|| + (||A|| + mu) ||u' - u||.
    """
    moved = np.linalg.norm(vectors - pairs.vectors, axis=0)
    largest = float(np.max(np.abs(pairs.values), initial=0.0))
    residuals = pairs.residual_norms + (largest + np.abs(pairs.values)) * moved
    return replace(pairs, vectors=vectors, residual_norms=residuals)


def _positive(spectrum: LowRank, complete: bool) -> LowRank:
    """The same; where there is no rest its share is of no matter, and is not to be zero."""
    return LowRank(spectrum.weights, 1.0) if complete else spectrum
