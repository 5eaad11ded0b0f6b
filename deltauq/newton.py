"""How far from the minimum are the weights, in standard errors of the predictions?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.covariance import ParameterCovariance
from deltauq.directions import Directions
from deltauq.fitting import CURVATURES, Fitted, calibration_inputs, covariance_of
from deltauq.jacobians import Workspace
from deltauq.linalg import root_diagonal
from deltauq.linearization import Linearization

__all__ = ["newton_shift", "newton_step", "with_shift"]

Array = npt.NDArray[Any]


def with_shift(fitted: Fitted) -> Fitted:
    """The same fit with the stationarity of its weights, shift included; a pass over the data."""
    problem, covariance = fitted.problem, fitted.covariance
    found, gradient = problem.cost.evaluate(problem.network.params.numpy())
    inverse = covariance
    if len(CURVATURES[fitted.settings.curvature]) > 1:  # a sandwich is no inverse of a curvature
        inverse = covariance_of(problem, fitted.settings, fitted.pairs)
    some, directions = calibration_inputs(problem, fitted.settings.memory_limit)
    step = newton_step(inverse, gradient, problem.data.n_examples)
    shift = newton_shift(problem.linearization, covariance, step, some, directions)
    return replace(fitted, stationarity=replace(found, shift=shift))


def newton_step(covariance: ParameterCovariance, gradient: Array, n_examples: float) -> Array:
    """To the minimum of the cost, dw = -(A + L)^-1 g = -N Sigma g `[P]`.

    Args:
        covariance: Sigma = (A + L)^-1 / N, not a sandwich.
        gradient: g of the cost `[P]`.
        n_examples: N.
    """
    return -n_examples * covariance.times(gradient)


def newton_shift(
    linearization: Linearization,
    covariance: ParameterCovariance,
    step: Array,
    x: Any,
    directions: Directions | None = None,
) -> float | None:
    """Median over inputs and outputs of |J dw| / std: what a step does to the means.

    By Cauchy and Schwarz a Newton step moves no mean by more than N sqrt(g^T Sigma g) standard
    errors; most move by far less.

    Args:
        linearization: of the network.
        covariance: of its parameters, which gives the standard errors.
        step: dw `[P]`.
        x: inputs.
        directions: as for `Linearization.sketch`.

    Returns:
        The median; None where no mean has a standard error.
    """
    dtype = linearization.network.dtype
    workspace = Workspace(dtype)
    vectors = np.ascontiguousarray(covariance.vectors, dtype)
    found = linearization.sketch(x, vectors, workspace, directions)
    slope = found.shown.slope
    middle = covariance.project(found.along, found.rest)
    std = root_diagonal(slope @ middle @ np.swapaxes(slope, 1, 2))
    if not np.any(std > 0):
        return None
    scaled = step / covariance.scale  # the rows are those of J D
    size = float(np.linalg.norm(scaled))
    unit = (scaled / size if size else scaled).astype(dtype)[:, None]
    along = linearization.sketch(x, unit, workspace, directions).along
    moved = size * np.abs(slope @ along)[..., 0]
    return float(np.median(moved[std > 0] / std[std > 0]))
