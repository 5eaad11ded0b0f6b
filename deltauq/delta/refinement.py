"""Standard errors of chosen inputs to a stated width, by more passes over the training data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature import CurvatureOperator
from deltauq.curvature.noise_interval import NoiseRange
from deltauq.data.batch_reader import n_rows_of
from deltauq.data.inputs import InputBatches
from deltauq.delta.fitted import Fitted
from deltauq.delta.solving import bread_and_meat, needs_meat
from deltauq.errors import ConvergenceWarning, InvalidInputError, NumericalError, warn
from deltauq.linalg import (
    Krylov,
    MatrixForms,
    bound_matrix_forms,
    combine,
    gauss_radau,
    inner_products,
    inverse_root,
    project_out,
    relative_width,
    root_diagonal,
)
from deltauq.prediction import Estimate, assemble, join
from deltauq.prediction.forms import ROUNDING, RowCovariances
from deltauq.prediction.linearization import FullJacobians

__all__ = ["check_refinable", "refine", "row_copies"]

Array = npt.NDArray[Any]

#: Steps that a batch of inputs may take, each a pass over the training data.
MAX_STEPS = 6

#: Rounding beside the L2 rate up to which a node under the spectrum is still worth something.
_LARGEST_ROUNDING = 0.5


def check_refinable(fitted: Fitted) -> None:
    """Refuse fits in low rank that cannot be refined.

    Raises:
        InvalidInputError: too few parameters for the steps.
        NumericalError: rounding as large as the L2 rate.
    """
    if not _rounding(fitted) <= _LARGEST_ROUNDING:
        raise NumericalError(
            "the curvature is too large for refine in this precision",
            expected=f"rounding under {_LARGEST_ROUNDING:g} of the L2 rate",
            received=f"{_rounding(fitted):.2g} of it",
            remedy="scale the inputs, raise l2, or build the model in float64",
        )
    n_params, n_outputs = fitted.prior_pairs.n_params, fitted.problem.n_outputs
    if n_params < (MAX_STEPS + 1) * n_outputs:
        raise InvalidInputError(
            "refine has no room for its steps",
            expected=f"at least {(MAX_STEPS + 1) * n_outputs} parameters for {n_outputs} classes",
            received=f"P = {n_params}",
            remedy="pass rank='full', which is exact and takes no time at this size",
        )


def row_copies(fitted: Fitted) -> int:
    """How often the rows of a batch of inputs are in memory: a basis, its next block, the work."""
    return MAX_STEPS + (14 if needs_meat(fitted.problem, fitted.settings) else 4)


def refine(fitted: Fitted, inputs: InputBatches, rtol: float) -> Estimate:
    """Predictions whose standard errors lie in intervals of a relative width.

    Args:
        fitted: a fit in low rank.
        inputs: in batches whose rows fit in memory `row_copies` times.
        rtol: (high - low) / high of every standard error, of logits and of means.
    """
    operator, *meat = bread_and_meat(fitted.problem, fitted.settings)
    certified = operator.positive_semidefinite and not meat
    way = _Certain(fitted, operator) if certified else _Estimated(fitted, operator, meat)
    likelihood, noise = fitted.problem.likelihood, fitted.known.noise
    n_examples, rounding = fitted.problem.data.n_examples, ROUNDING[fitted.problem.network.dtype]
    parts, steps, open_, n_inputs = [], 0, 0, 0
    for x in inputs:
        n_inputs += n_rows_of(x)
        rows = fitted.problem.linearization.rows(x)
        forms = way(rows.values, _Narrow(rows, rtol))
        steps += int(forms.steps.max())
        open_ += int(np.count_nonzero(~forms.enough))
        low, high = forms.low / n_examples, forms.high / n_examples
        found = RowCovariances(rows.shown, (low + high) / 2, (low, high), rounding)
        parts.append(assemble(likelihood, found, noise))
    passes = steps * (1 + len(meat))
    if open_:
        warn(
            f"{open_} of {n_inputs} inputs did not reach rtol={rtol:g} in {MAX_STEPS} steps; "
            "their std_bounds say how far they came. Fit with a larger rank, or pass a larger "
            "rtol.",
            ConvergenceWarning,
        )
    if noise is not None:
        _warn_of_noise(noise, rtol)
        certified = certified and noise.certified
    return replace(join(parts), data_passes=passes, certified=certified)


def _warn_of_noise(noise: NoiseRange, rtol: float) -> None:
    """No step makes the noise better known."""
    if noise.width > rtol:
        warn(
            f"the estimated noise leaves {noise.width:.1%} of every standard error open, above "
            f"rtol={rtol:g}, and refine does not change that. Fit with a larger rank, or give the "
            "variance, likelihood=deltauq.likelihoods.Gaussian(noise=...).",
            ConvergenceWarning,
        )


class _Certain:
    """Bounds of X (A + I)^-1 X^T, for OPG and GGN.

    With M = A^ + I (in the prior's metric, A^ what the eigenpairs make) the spectrum of
    T = M^-1/2 (A + I) M^-1/2 is at least 1, as A^ <= A, and mostly close to it. So a few steps of
    block Lanczos from the rows X M^-1/2 bound the form from both sides, without a bound on what the
    eigenpairs leave out and without any chance.
    """

    def __init__(self, fitted: Fitted, operator: CurvatureOperator) -> None:
        self._whiten = inverse_root(fitted.prior_pairs.vectors, fitted.prior_pairs.values)
        self._operator = operator
        self._rule = partial(gauss_radau, node=1.0 - _rounding(fitted))

    def __call__(self, rows: Array, is_enough: _Narrow) -> MatrixForms:
        return bound_matrix_forms(
            self._matmat,
            _each_row(self._whiten, rows),
            self._rule,
            is_enough=is_enough,
            max_steps=MAX_STEPS,
        )

    def _matmat(self, vectors: Array) -> Array:
        # T v = M^-1/2 (A + I) M^-1/2 v, one product with A a step.
        white = self._whiten(vectors)
        return self._whiten(self._operator.matmat(white).astype(white.dtype, copy=False) + white)


class _Estimated:
    """Estimates of X B X^T where the Hessian A is not semidefinite, or of X B (G + I) B X^T.

    B = f(A) with f(mu) = 1 / (1 + mu), or of the projected mu. Along the eigenpairs B is known;
    block Lanczos in A, from what the rows have outside, adds X B Q^T for its basis Q. The interval
    is what the last two steps changed, on both sides: no bound, as another step may change more.
    (One is too few: a step that meets negative curvature alone changes nothing where it is
    projected.)

    Args:
        fitted: the Hessian or a sandwich.
        operator: A.
        meat: G, for a sandwich.
    """

    def __init__(
        self, fitted: Fitted, operator: CurvatureOperator, meat: list[CurvatureOperator]
    ) -> None:
        self._operator, self._meat = operator, meat
        self._vectors, self._values = fitted.prior_pairs.vectors, fitted.prior_pairs.values
        self._settings = fitted.settings
        self._l2_share = fitted.problem.likelihood.l2_in_scores

    def __call__(self, rows: Array, is_enough: _Narrow) -> MatrixForms:
        along = _each_row(partial(inner_products, self._vectors), rows)
        outside = _each_row(partial(project_out, self._vectors), rows)
        rule = self._sandwiches if self._meat else self._inverses
        return bound_matrix_forms(
            self._matmat, outside, partial(rule, along), is_enough=is_enough, max_steps=MAX_STEPS
        )

    def _matmat(self, vectors: Array) -> Array:
        image = self._operator.matmat(vectors).astype(vectors.dtype, copy=False)
        return project_out(self._vectors, image, overwrite=True)

    def _inverse(self, values: Array) -> Array:
        kept = self._settings.negative_curvature == "keep"
        return np.asarray(1.0 / (1.0 + (values if kept else np.maximum(values, 0.0))))

    def _inverses(self, along: Array, krylov: Krylov) -> tuple[Array, Array]:
        # X = (X U) U^T + R: (X U) f(mu) (X U)^T of the pairs, and R f(A) R^T by quadrature.
        known = along[krylov.numbers]
        inside = (known * self._inverse(self._values)) @ np.swapaxes(known, 1, 2)
        start = np.swapaxes(krylov.first, 1, 2)
        return _around(inside + c[:, :, : start.shape[1]] @ start for c in self._last(krylov))

    def _sandwiches(self, along: Array, krylov: Krylov) -> tuple[Array, Array]:
        # Y = X B first, from the pairs and the basis, then Y (G + c I) Y^T with a product with G.
        known = along[krylov.numbers] * self._inverse(self._values)
        inside = _each_row(partial(combine, self._vectors), known)
        slices = inside + krylov.combine(self._last(krylov))
        image = _each_row(self._meat[0].matmat, slices)
        if self._settings.l2_in_meat:
            image += self._l2_share * slices
        return _around(_forms(y, gy) for y, gy in zip(slices, image, strict=True))

    def _last(self, krylov: Krylov) -> Array:
        """X B Q^T from all steps, from one less and from two less, `[3, b, C, k C]`."""
        return np.stack([krylov.apply(self._inverse, drop=drop) for drop in range(3)])


def _forms(y: Array, gy: Array) -> Array:
    """Y (G Y^T) summed in float64, of rows `[b, C, P]` each."""
    return np.stack([inner_products(one.T, image.T) for one, image in zip(y, gy, strict=True)])


def _around(estimates: Iterable[Array]) -> tuple[Array, Array]:
    """E - D and E + D for the first of some estimates, D what changed from each to the next."""
    forms = [(form + np.swapaxes(form, 1, 2)) / 2 for form in estimates]
    values, vectors = np.linalg.eigh(np.subtract(forms[:-1], forms[1:]))
    changes = (vectors * np.abs(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    change = np.sum(changes, axis=0)
    return forms[0] - change, forms[0] + change


def _rounding(fitted: Fitted) -> float:
    """How far rounding can bring eigenvalues of T under 1."""
    largest = float(np.max(fitted.prior_pairs.values, initial=0.0))
    return ROUNDING[fitted.problem.network.dtype] + fitted.problem.epsilon * largest


def _each_row(function: Callable[[Array], Array], rows: Array) -> Array:
    """A function of columns `[P, m]` -> `[Q, m]` applied to rows `[..., P]` -> `[..., Q]`."""
    columns = np.ascontiguousarray(rows.reshape(-1, rows.shape[-1]).T)
    return function(columns).T.reshape(*rows.shape[:-1], -1)


class _Narrow:
    """Whether the bounds of all standard errors of a prediction are within a relative width.

    Those of a masked one always are: nobody reads them.

    Args:
        rows: of the inputs.
        rtol: the width.
    """

    def __init__(self, rows: FullJacobians, rtol: float) -> None:
        self._lefts = np.concatenate([rows.shown.back, rows.shown.slope], axis=1)
        self._masked = rows.shown.masked
        self._rtol = rtol

    def __call__(self, low: Array, high: Array, some: Array) -> Array:
        lefts = self._lefts[some]
        ends = [root_diagonal(lefts @ end @ np.swapaxes(lefts, 1, 2)) for end in (low, high)]
        narrow = np.max(relative_width(*ends), axis=1) <= self._rtol
        return np.asarray(narrow | self._masked[some])
