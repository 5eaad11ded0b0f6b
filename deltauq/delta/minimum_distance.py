"""How far the weights are from the minimum, in standard errors of the predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature.parameter_covariance import ParameterCovariance
from deltauq.curvature.rows_inverse import RowsInverse
from deltauq.curvature.speeds import COLUMNS, FORMED
from deltauq.curvature.tails import tail_interval
from deltauq.delta.calibration import calibration_inputs
from deltauq.delta.covariances import covariance_of
from deltauq.delta.fitted import Fitted
from deltauq.delta.known import KnownByInverse
from deltauq.delta.problem import Problem
from deltauq.linalg import Eigenpairs, LowRank, root_diagonal
from deltauq.network.jacobians import Workspace
from deltauq.prediction.directions import Directions
from deltauq.prediction.forms import Form
from deltauq.runtime.stages import Stage

__all__ = ["comparing", "newton_shifts", "newton_step", "with_shift"]

Array = npt.NDArray[Any]

#: Multiplications for each number of a row and each column, at most.
_PRODUCTS = 6


def with_shift(fitted: Fitted) -> Fitted:
    """A fit with the stationarity of its weights, shift included."""
    problem = fitted.problem
    found, gradient = fitted.require_measured().beside(problem.rates)
    form = fitted.form(1)
    stage = comparing(problem, _columns(fitted), form.sample)
    problem.training_set.listener.stages.begin(stage)
    some, directions = calibration_inputs(problem, fitted.settings.memory_limit, count=form.sample)
    shifts = newton_shifts(form, _newton_steps(fitted, gradient), some, directions)
    shift, least = (None, None) if shifts is None else (shifts[0], min(shifts))
    return replace(fitted, stationarity=replace(found, shift=shift, least_shift=least))


def comparing(problem: Problem, columns: int, count: int) -> Stage:
    """Comparing a Newton step with standard errors of some training inputs.

    Args:
        problem: what is asked.
        columns: that standard errors take for each parameter: K eigenvectors, n rows, or P.
        count: inputs.
    """
    why = "how many standard errors the weights are from the minimum"
    numbers = float(count) * problem.n_outputs * problem.network.n_params
    seconds = numbers * (FORMED + _PRODUCTS * columns / COLUMNS)
    return Stage("a step to the minimum", why, seconds=seconds)


def _columns(fitted: Fitted) -> int:
    """How many columns the covariance is held in."""
    known = fitted.known
    if not isinstance(known, KnownByInverse):
        return known.pairs.rank
    if isinstance(known.inverse, RowsInverse):
        return known.inverse.rows.n_rows
    return fitted.problem.network.n_params


def _newton_steps(fitted: Fitted, gradient: Array) -> list[Array]:
    """The step to the minimum `[P]`, or steps between which it is where pairs are left out."""
    problem, known = fitted.problem, fitted.known
    if isinstance(known, KnownByInverse):
        return [-known.scale * known.inverse.solve(known.scale * gradient)]
    # The standard errors may be those of a sandwich, which is no inverse of a curvature.
    inverse = covariance_of(problem, fitted.settings, known.pairs)
    return [
        newton_step(each, gradient, problem.data.n_examples)
        for each in (inverse, _with_least_tail(inverse, known.pairs))
    ]


def _with_least_tail(covariance: ParameterCovariance, pairs: Eigenpairs) -> ParameterCovariance:
    """With as little variance in the directions that were not computed as the pairs allow."""
    if pairs.rank == pairs.n_params:
        return covariance
    spectrum = LowRank(covariance.spectrum.weights, tail_interval(pairs)[0])
    return replace(covariance, spectrum=spectrum)


def newton_step(covariance: ParameterCovariance, gradient: Array, n_examples: float) -> Array:
    """The step to the minimum of the cost, dw = -(A + L)^-1 g = -N Sigma g `[P]`.

    Args:
        covariance: Sigma = (A + L)^-1 / N, not a sandwich.
        gradient: g of the cost `[P]`.
        n_examples: N.
    """
    return -n_examples * covariance.times(gradient)


def newton_shifts(
    form: Form, steps: Sequence[Array], x: Any, directions: Directions | None = None
) -> list[float] | None:
    """Medians over predictions and outputs of |J dw| / std: what steps do to the means.

    By Cauchy and Schwarz a Newton step moves no mean by more than N sqrt(g^T Sigma g) standard
    errors; most move by far less.

    Args:
        form: gives the standard errors.
        steps: dw `[P]` each.
        x: inputs.
        directions: as for `Linearization.sketch`.

    Returns:
        The median of each step, masked predictions left out; None where no mean has a standard
        error.
    """
    linearization, found = form.linearization, form(x, directions, roughly=True)
    slope = found.shown.slope
    std = root_diagonal(slope @ found.middle @ np.swapaxes(slope, 1, 2))
    known = (std > 0) & ~found.shown.masked[:, None]
    if not np.any(known):
        return None
    scaled = np.stack(steps, axis=1) / linearization.scale[:, None]  # the rows are those of J D
    sizes = np.linalg.norm(scaled, axis=0)
    dtype = linearization.network.dtype
    units = (scaled / np.where(sizes > 0, sizes, 1.0)).astype(dtype)
    along = linearization.sketch(x, units, Workspace(dtype), directions).along
    moved = sizes * np.abs(slope @ along)
    return [float(np.median(each[known] / std[known])) for each in np.moveaxis(moved, 2, 0)]
