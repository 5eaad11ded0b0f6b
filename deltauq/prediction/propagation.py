"""From a parameter covariance to the covariance of every prediction, by the linearised network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from deltauq.curvature.noise_interval import NoiseRange
from deltauq.curvature.parameter_covariance import ParameterCovariance
from deltauq.data.inputs import InputBatches
from deltauq.likelihoods import Likelihood
from deltauq.linalg import root_diagonal
from deltauq.network.jacobians import Workspace
from deltauq.prediction.classes import Prediction, SomeClassesPrediction
from deltauq.prediction.counts import CountPrediction
from deltauq.prediction.directions import Directions, Shown, SomeClasses
from deltauq.prediction.estimate import Array, Estimate, Moments, join
from deltauq.prediction.labels import MultiLabelPrediction
from deltauq.prediction.linearization import Linearization
from deltauq.prediction.quantities import RegressionPrediction
from deltauq.prediction.result_memory import ResultMemory

__all__ = ["PREDICTIONS", "ROUNDING", "assemble", "predict", "predict_some", "prediction_memory"]

#: The form of the predictions of every outcome that a likelihood may have.
PREDICTIONS: dict[str, type[Estimate]] = {
    "classes": Prediction,
    "labels": MultiLabelPrediction,
    "quantities": RegressionPrediction,
    "counts": CountPrediction,
}

#: Relative rounding of a standard error in the network's precision, by which bounds are widened.
ROUNDING = {"float32": 1e-4, "float64": 1e-9}

#: Numbers of an output beside its covariances: logit, mean, four bounds, and three of some classes.
_COLUMNS = 9


def prediction_memory(n_outputs: int, positions: int = 1) -> ResultMemory:
    """What predictions take in memory: two covariances each, twice while batches are joined.

    Args:
        n_outputs: C, those of a position, or the classes that are predicted.
        positions: predictions an input.
    """
    numbers = 2 * n_outputs**2 + _COLUMNS * n_outputs
    return ResultMemory(
        f"predictions with covariances [N, {n_outputs}, {n_outputs}]",
        "pass a larger memory_limit; predict_mean(x, groups) has means over any number of inputs, "
        "and predict(x, 'top5') the most probable of many classes",
        each=2 * 8 * positions * numbers,
    )


def predict(
    linearization: Linearization,
    covariance: ParameterCovariance,
    inputs: InputBatches,
    vectors: Array,
) -> Estimate:
    """Push a parameter covariance through the linearised network, batch by batch.

    Cov(z) = J Sigma J^T and Cov(p) = S Cov(z) S^T with S the mean's Jacobian. J is never multiplied
    by a `[P, P]` matrix.

    Args:
        linearization: of the network.
        covariance: of its parameters.
        inputs: the inputs.
        vectors: the covariance's vectors, C-contiguous and in the network's precision.

    Returns:
        The `Estimate` of the likelihood's kind.
    """
    likelihood = linearization.likelihood
    parts = []
    for shown, middle, outer in _covariances(linearization, covariance, inputs, vectors):
        dtype = vectors.dtype.name
        parts.append(assemble(likelihood, shown, middle, outer, dtype, covariance.noise))
    return replace(join(parts), certified=covariance.certified)


def predict_some(
    linearization: Linearization,
    covariance: ParameterCovariance,
    inputs: InputBatches,
    vectors: Array,
    classes: SomeClasses,
) -> SomeClassesPrediction:
    """Push a parameter covariance through to some classes of many, exact for those.

    Takes 2 k rows an input for k classes, where `predict` takes C.

    Args:
        linearization: of the network.
        covariance: of its parameters.
        inputs: the inputs.
        vectors: the covariance's vectors, C-contiguous and in the network's precision.
        classes: the classes that are asked for.
    """
    parts, dtype = [], vectors.dtype.name
    for shown, middle, outer in _covariances(linearization, covariance, inputs, vectors, classes):
        of_log_odds = slice(len(classes), None)
        parts.append(
            SomeClassesPrediction(
                *_moments(shown, middle, outer, dtype),
                classes=np.asarray(shown.classes),
                log_odds=np.asarray(shown.log_odds),
                log_odds_std=root_diagonal(middle[:, of_log_odds, of_log_odds]),
                masked=shown.masked,
            )
        )
    return replace(join(parts), certified=covariance.certified)


def _covariances(
    linearization: Linearization,
    covariance: ParameterCovariance,
    inputs: InputBatches,
    vectors: Array,
    directions: Directions | None = None,
) -> Iterator[tuple[Shown, Array, Sequence[Array] | None]]:
    """What is shown, the covariance of its rows, and covariances between which that one lies."""
    workspace = Workspace(vectors.dtype)
    for x in inputs:
        found = linearization.sketch(x, vectors, workspace, directions)
        yield found.shown, *covariance.project_between(found.along, found.rest)


def assemble(
    likelihood: Likelihood,
    shown: Shown,
    middle: Array,
    outer: Sequence[Array] | None,
    dtype: str,
    noise: NoiseRange | None = None,
) -> Estimate:
    """Make a prediction of the likelihood's kind from covariances of the Jacobian's rows.

    Args:
        likelihood: says what kind of prediction it is.
        shown: logits, means and how they move with the rows.
        middle: the covariance `[B, R, R]`.
        outer: between which it lies, or None; the standard errors' bounds are those from the
            smallest to the largest.
        dtype: the network's precision, whose rounding widens them.
        noise: how far the estimated noise of a regression is known, which widens them too.
    """
    moments = _moments(shown, middle, outer, dtype, noise)
    return PREDICTIONS[likelihood.outcome].of_moments(likelihood, moments, shown.masked, noise)


def _moments(
    shown: Shown,
    middle: Array,
    outer: Sequence[Array] | None,
    dtype: str,
    noise: NoiseRange | None = None,
) -> Moments:
    """The first six fields of an `Estimate`."""
    return (
        shown.logits,
        shown.mean,
        _congruent(shown.back, middle),
        _congruent(shown.slope, middle),
        None if outer is None else _std_bounds(shown.back, outer, ROUNDING[dtype], noise),
        None if outer is None else _std_bounds(shown.slope, outer, ROUNDING[dtype], noise),
    )


def _std_bounds(
    left: Array, middles: Sequence[Array], rounding: float, noise: NoiseRange | None
) -> Array:
    """The range of the roots of the diagonals of L M L^T, rounding and noise allowed for."""
    roots = [root_diagonal(_congruent(left, middle)) for middle in middles]
    low, high = np.min(roots, axis=0), np.max(roots, axis=0)
    limits = np.stack([low * (1.0 - rounding), high * (1.0 + rounding)], axis=-1)
    return limits if noise is None else noise.widen(limits)


def _congruent(left: Array, middle: Array) -> Array:
    """L M L^T, symmetric to the bit."""
    result = left @ middle @ np.swapaxes(left, -1, -2)
    return np.asarray((result + np.swapaxes(result, -1, -2)) / 2)
