"""From a parameter covariance to the covariance of every prediction, by the linearised network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deltauq.curvature.noise_interval import NoiseRange
from deltauq.data.inputs import InputBatches
from deltauq.likelihoods import Likelihood
from deltauq.linalg import root_diagonal
from deltauq.prediction.classes import Prediction, SomeClassesPrediction
from deltauq.prediction.counts import CountPrediction
from deltauq.prediction.directions import SomeClasses
from deltauq.prediction.estimate import Array, Estimate, Kind, Moments, join
from deltauq.prediction.forms import Form, RowCovariances
from deltauq.prediction.labels import MultiLabelPrediction
from deltauq.prediction.quantities import RegressionPrediction
from deltauq.prediction.result_memory import ResultMemory

__all__ = ["PREDICTIONS", "assemble", "predict", "predict_some", "prediction_memory"]

#: The form of the predictions of every outcome that a likelihood may have.
PREDICTIONS: dict[str, type[Estimate]] = {
    "classes": Prediction,
    "labels": MultiLabelPrediction,
    "quantities": RegressionPrediction,
    "counts": CountPrediction,
}

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


def predict(form: Form, inputs: InputBatches, noise: NoiseRange | None = None) -> Estimate:
    """Push a parameter covariance through the linearised network, batch by batch.

    Cov(z) = J Sigma J^T and Cov(p) = S Cov(z) S^T with S the mean's Jacobian. J is never multiplied
    by a `[P, P]` matrix.

    Args:
        form: gives J Sigma J^T.
        inputs: the inputs.
        noise: how far the estimated noise of a regression is known.

    Returns:
        The `Estimate` of the likelihood's kind.
    """
    likelihood = form.linearization.likelihood
    parts = [assemble(likelihood, form(x), noise) for x in inputs]
    return replace(join(parts), certified=form.certified)


def predict_some(form: Form, inputs: InputBatches, classes: SomeClasses) -> SomeClassesPrediction:
    """Push a parameter covariance through to some classes of many, exact for those.

    Takes 2 k rows an input for k classes, where `predict` takes C.

    Args:
        form: gives J Sigma J^T.
        inputs: the inputs.
        classes: the classes that are asked for.
    """
    parts = []
    for x in inputs:
        found = form(x, classes)
        shown, of_log_odds = found.shown, slice(len(classes), None)
        part = SomeClassesPrediction(
            *_moments(found),
            classes=np.asarray(shown.classes),
            log_odds=np.asarray(shown.log_odds),
            log_odds_std=root_diagonal(found.middle[:, of_log_odds, of_log_odds]),
            masked=shown.masked,
        )
        parts.append(_with_tails(part, found))
    return replace(join(parts), certified=form.certified)


def assemble(
    likelihood: Likelihood, found: RowCovariances, noise: NoiseRange | None = None
) -> Estimate:
    """Make a prediction of the likelihood's kind from covariances of the Jacobian's rows.

    Args:
        likelihood: says what kind of prediction it is.
        found: the covariances of a batch, and between which they lie.
        noise: how far the estimated noise of a regression is known, which widens bounds too.
    """
    moments = _moments(found, noise)
    made = PREDICTIONS[likelihood.outcome].of_moments(
        likelihood, moments, found.shown.masked, noise
    )
    return _with_tails(made, found)


def _with_tails(made: Kind, found: RowCovariances) -> Kind:
    """A prediction that knows what the tails of its inputs go by."""
    if found.tails is None:
        return made
    shares, beyond, outside = found.tails
    return replace(made, unlike_calibration=beyond, shares_outside=shares, variance_outside=outside)


def _moments(found: RowCovariances, noise: NoiseRange | None = None) -> Moments:
    """The first six fields of an `Estimate`."""
    shown, middle = found.shown, found.middle
    return (
        shown.logits,
        shown.mean,
        _congruent(shown.back, middle),
        _congruent(shown.slope, middle),
        _std_bounds(shown.back, found, noise),
        _std_bounds(shown.slope, found, noise),
    )


def _std_bounds(left: Array, found: RowCovariances, noise: NoiseRange | None) -> Array | None:
    """The range of the roots of the diagonals of L M L^T, rounding and noise allowed for."""
    if found.outer is None:
        return None
    roots = [root_diagonal(_congruent(left, middle)) for middle in found.outer]
    low, high = np.min(roots, axis=0), np.max(roots, axis=0)
    low, high = low * (1.0 - found.rounding), high * (1.0 + found.rounding)
    if found.slack is not None:
        slack = np.einsum("bij,bj->bi", np.abs(left), found.slack)
        low, high = np.maximum(low - slack, 0.0), high + slack
    limits = np.stack([low, high], axis=-1)
    return limits if noise is None else noise.widen(limits)


def _congruent(left: Array, middle: Array) -> Array:
    """L M L^T, symmetric to the bit."""
    result = left @ middle @ np.swapaxes(left, -1, -2)
    return np.asarray((result + np.swapaxes(result, -1, -2)) / 2)
