"""Standard errors of chosen inputs to a stated width, by more passes over the training data."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature import CurvatureOperator
from deltauq.errors import ConvergenceWarning, InvalidInputError, NumericalError
from deltauq.fitting import Fitted
from deltauq.inputs import InputBatches
from deltauq.linalg import (
    bound_inverse_forms,
    combine,
    inner_products,
    relative_width,
    root_diagonal,
)
from deltauq.linearization import Rows, contrasts
from deltauq.prediction import ROUNDING, Prediction, assemble, join

__all__ = ["MAX_STEPS", "check_refinable", "refine"]

Array = npt.NDArray[Any]

#: Passes over the training data that a batch of inputs may take.
MAX_STEPS = 6

#: Rounding beside the L2 rate up to which a node under the spectrum is still worth something.
_LARGEST_ROUNDING = 0.5


def check_refinable(fitted: Fitted, rtol: float) -> None:
    """Refuse what cannot be refined.

    Raises:
        InvalidInputError: a width that is none, another curvature than OPG or GGN, or too few
            parameters for the steps.
        NumericalError: rounding as large as the L2 rate.
    """
    if not (isinstance(rtol, float) and 0 < rtol < 1):
        raise InvalidInputError(
            "rtol is not a relative width",
            expected="a number between 0 and 1, such as 0.01",
            received=repr(rtol),
        )
    if fitted.settings.curvature not in ("opg", "ggn"):
        raise InvalidInputError(
            "refine needs a positive semidefinite curvature",
            expected="curvature='opg' or 'ggn'",
            received=f"curvature={fitted.settings.curvature!r}",
            remedy="pass a larger rank instead",
        )
    if _rounding(fitted) > _LARGEST_ROUNDING:
        raise NumericalError(
            "the curvature is too large for refine in this precision",
            expected=f"rounding under {_LARGEST_ROUNDING:g} of the L2 rate",
            received=f"{_rounding(fitted):.2g} of it",
            remedy="scale the inputs, raise l2, or build the model in float64",
        )
    n_params, n_outputs = fitted.pairs.n_params, fitted.problem.n_outputs
    if fitted.pairs.rank < n_params < (MAX_STEPS + 1) * n_outputs:
        raise InvalidInputError(
            "refine has no room for its steps",
            expected=f"at least {(MAX_STEPS + 1) * n_outputs} parameters for {n_outputs} classes",
            received=f"P = {n_params}",
            remedy="pass rank='full', which is exact and takes no time at this size",
        )


def refine(
    fitted: Fitted, operator: CurvatureOperator, inputs: InputBatches, rtol: float
) -> Prediction:
    """Predictions whose standard errors lie in certain intervals of a relative width.

    With M = A^ + I (in the prior's metric, A^ what the eigenpairs make) the spectrum of
    T = M^-1/2 (A + I) M^-1/2 is at least 1, as A^ <= A, and mostly close to it. So a few steps of
    block Lanczos from the rows of J M^-1/2 bound J (A + I)^-1 J^T from both sides, without a bound
    on what the eigenpairs leave out and without any chance. The covariance is the middle.

    Args:
        fitted: a fit of OPG or GGN.
        operator: its curvature, in the prior's metric.
        inputs: in batches whose rows fit in memory `MAX_STEPS + 4` times.
        rtol: (high - low) / high of every standard error, of logits and of probabilities.
    """
    dtype = fitted.problem.network.dtype
    whiten = _inverse_root(fitted.pairs.vectors, fitted.pairs.values)

    def matmat(vectors: Array) -> Array:
        white = whiten(vectors)
        return whiten(operator.matmat(white).astype(white.dtype, copy=False) + white)

    parts, passes, open_ = [], 0, 0
    n_examples = fitted.problem.data.n_examples
    for x in inputs:
        rows = fitted.problem.linearization.contrast_rows(x)
        forms = bound_inverse_forms(
            matmat,
            _each_row(whiten, rows.values),
            1.0 - _rounding(fitted),
            is_enough=_Narrow(rows, rtol),
            max_steps=MAX_STEPS,
        )
        passes += int(forms.steps.max())
        open_ += int(np.count_nonzero(~forms.enough))
        low, high = forms.low / n_examples, forms.high / n_examples
        parts.append(assemble(rows, (low + high) / 2, (low, high), dtype))
    if open_:
        warnings.warn(
            f"{open_} of {inputs.n_rows} inputs did not reach rtol={rtol:g} in {MAX_STEPS} passes; "
            "their std_bounds say how far they came. Fit with a larger rank, or pass a larger "
            "rtol.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return replace(join(parts), data_passes=passes)


def _rounding(fitted: Fitted) -> float:
    """How far rounding can bring eigenvalues of T under 1."""
    largest = float(np.max(fitted.pairs.values, initial=0.0))
    return ROUNDING[fitted.problem.network.dtype] + fitted.problem.epsilon * largest


def _inverse_root(vectors: Array, values: Array) -> Callable[[Array], Array]:
    """(U diag(mu) U^T + I)^-1/2 as a function of `[P, m]`."""
    change = 1.0 / np.sqrt(1.0 + np.maximum(values, 0.0)) - 1.0

    def apply(columns: Array) -> Array:
        return columns + combine(vectors, change[:, None] * inner_products(vectors, columns))

    return apply


def _each_row(function: Callable[[Array], Array], rows: Array) -> Array:
    """A function of columns `[P, m]` applied to the rows of `[B, C, P]`."""
    return function(rows.reshape(-1, rows.shape[2]).T).T.reshape(rows.shape)


class _Narrow:
    """Whether the bounds of all standard errors of an input are within a relative width.

    Args:
        rows: of the inputs.
        rtol: the width.
    """

    def __init__(self, rows: Rows, rtol: float) -> None:
        to_logits = np.broadcast_to(contrasts(rows.logits.shape[1]).T, rows.slope.shape)
        self._lefts = np.concatenate([to_logits, rows.slope], axis=1)
        self._rtol = rtol

    def __call__(self, low: Array, high: Array, some: Array) -> Array:
        lefts = self._lefts[some]
        ends = [root_diagonal(lefts @ end @ np.swapaxes(lefts, 1, 2)) for end in (low, high)]
        return np.asarray(np.max(relative_width(*ends), axis=1) <= self._rtol)
