"""Standard errors of chosen inputs to a stated width, by more passes over the training data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deltauq.curvature import CurvatureOperator
from deltauq.curvature.exact_inverse import rounding_of_rows
from deltauq.curvature.gram import Gram
from deltauq.curvature.noise_interval import NoiseRange
from deltauq.data.batch_reader import n_rows_of
from deltauq.data.inputs import InputBatches
from deltauq.delta.fitted import Fitted
from deltauq.delta.solving import bread_and_meat
from deltauq.errors import (
    ConvergenceWarning,
    InvalidInputError,
    NumericalError,
    check_count,
    warn,
)
from deltauq.linalg import (
    MOST_ROUNDING,
    Krylov,
    MatrixForms,
    NystromSketch,
    Whitening,
    bound_matrix_forms,
    combine,
    inner_products,
    project_out,
    relative_width,
    root_diagonal,
)
from deltauq.prediction import Estimate, assemble, join
from deltauq.prediction.forms import ROUNDING, ROUNDING_OF_ROWS, RowCovariances
from deltauq.prediction.linearization import FullJacobians

__all__ = ["MAX_PASSES", "Refinement", "refine", "refinement"]

Array = npt.NDArray[Any]

#: Says of bounds `[b, C, C]` of some blocks, and their numbers, whether each is close enough.
IsEnough = Callable[[Array, Array, Array], Array]

#: Passes over the training data that a batch of inputs takes at most, unless more are asked for.
MAX_PASSES = 60


class Way(Protocol):
    """Encloses X B X^T for rows X `[B, C, P]`, B what the covariance is of the curvature."""

    @property
    def certified(self) -> bool:
        """Whether the enclosure is proven; otherwise it is an estimate."""

    @property
    def rounding(self) -> float:
        """Relative rounding of a standard error."""

    def __call__(self, rows: Array, is_enough: IsEnough, max_steps: int) -> MatrixForms:
        """Enclose the forms of some rows, by so many steps at most."""

    def slack(self, rows: Array) -> Array | None:
        """What rounding may do to the standard error of each row beside that `[B, C]`."""


@dataclass(frozen=True)
class Refinement:
    """What a refinement of a fit in low rank takes, told before it is begun.

    Attributes:
        fitted: the fit.
        bread: the curvature.
        meat: of a sandwich, one; else none.
        max_steps: that a batch of inputs may take.
        in_double: float32 hides the L2 rate, and so rows are multiplied in float64.
    """

    fitted: Fitted
    bread: CurvatureOperator
    meat: Sequence[CurvatureOperator]
    max_steps: int
    in_double: bool

    @property
    def passes_a_step(self) -> int:
        """Passes over the training data of a step."""
        return 1 + len(self.meat)

    @property
    def row_copies(self) -> int:
        """How often the rows of a batch are in memory: a basis, its next block, the work."""
        copies = self.max_steps + (14 if self.meat else 4)
        return 2 * copies if self.in_double else copies

    def way(self) -> Way:
        """How forms are enclosed: with certainty for OPG and GGN, else by an estimate.

        Raises:
            NumericalError: rounding as large as the L2 rate.
        """
        if self.meat or not self.bread.positive_semidefinite:
            return _Estimated(self.fitted, self.bread, self.meat)
        return _of_rows(self.fitted, self.bread) if self.in_double else _of_products(self)


def refinement(fitted: Fitted, max_passes: int | None = None) -> Refinement:
    """Say what it takes to refine a fit in low rank.

    Args:
        fitted: the fit.
        max_passes: over the training data for a batch of inputs, at most; None for `MAX_PASSES`.

    Raises:
        InvalidInputError: no whole number of passes, too few of them or too few parameters for a
            step.
        NumericalError: rounding as large as the L2 rate, of a curvature that is not made of rows.
    """
    bread, *meat = bread_and_meat(fitted.problem, fitted.settings)
    allowed = MAX_PASSES if max_passes is None else check_count("max_passes", max_passes)
    steps = allowed // (1 + len(meat))
    if not steps:
        raise InvalidInputError(
            f"max_passes={max_passes} is less than a step of refine takes",
            expected=f"at least {1 + len(meat)}, what a step of a sandwich takes",
            received=str(max_passes),
            remedy=f"pass max_passes={MAX_PASSES}, or leave it out",
        )
    n_params, n_outputs = fitted.prior_pairs.n_params, fitted.problem.n_outputs
    room = n_params // n_outputs - 1
    if room < 1:
        raise InvalidInputError(
            "refine has no room for its steps",
            expected=f"at least {2 * n_outputs} parameters for {n_outputs} classes",
            received=f"P = {n_params}",
            remedy="pass rank='full', which is exact and takes no time at this size",
        )
    return Refinement(fitted, bread, meat, min(steps, room), _takes_double(fitted, bread, meat))


def _takes_double(
    fitted: Fitted, bread: CurvatureOperator, meat: Sequence[CurvatureOperator]
) -> bool:
    """Whether rows are to be multiplied in float64, for float32 hides the L2 rate.

    Raises:
        NumericalError: it does, and there are no rows.
    """
    seen = _whitening(fitted)
    if seen.is_seen:
        return False
    if fitted.problem.network.dtype == "float32" and isinstance(bread, Gram) and not meat:
        return True
    raise _too_large(seen)


def refine(plan: Refinement, inputs: InputBatches, rtol: float) -> Estimate:
    """Predictions whose standard errors lie in intervals of a relative width.

    Args:
        plan: what it takes.
        inputs: in batches whose rows fit in memory `plan.row_copies` times; their listener is told
            how long a batch may take.
        rtol: (high - low) / high of every standard error, of logits and of means.
    """
    fitted, way = plan.fitted, plan.way()
    likelihood, noise = fitted.problem.likelihood, fitted.known.noise
    n_examples, certified = fitted.problem.data.n_examples, way.certified
    parts, steps, open_, n_inputs = [], 0, 0, 0
    for x in inputs:
        n_inputs += n_rows_of(x)
        rows = fitted.problem.linearization.rows(x)
        is_enough = _Told(_Narrow(rows, rtol), plan.max_steps, inputs.listener.on_step)
        forms = way(rows.values, is_enough, plan.max_steps)
        steps += int(forms.steps.max())
        open_ += int(np.count_nonzero(~forms.enough))
        low, high = forms.low / n_examples, forms.high / n_examples
        found = RowCovariances(
            rows.shown, (low + high) / 2, (low, high), way.rounding, way.slack(rows.values)
        )
        parts.append(assemble(likelihood, found, noise))
    if open_:
        _warn_of_open(plan, open_, n_inputs, rtol)
    if noise is not None:
        _warn_of_noise(noise, rtol)
        certified = certified and noise.certified
    passes = steps * plan.passes_a_step + plan.in_double
    return replace(join(parts), data_passes=passes, certified=certified)


def _warn_of_open(plan: Refinement, count: int, n_inputs: int, rtol: float) -> None:
    """Say how many inputs are not as narrow as was asked, and what makes them narrower."""
    whole = plan.max_steps < plan.fitted.prior_pairs.n_params // plan.fitted.problem.n_outputs - 1
    further = f"max_passes={2 * plan.max_steps * plan.passes_a_step}, " if whole else ""
    warn(
        f"{count} of {n_inputs} inputs did not reach rtol={rtol:g} in {plan.max_steps} steps; "
        f"their std_bounds say how far they came. Pass {further}a larger rtol, or fit with a "
        "larger rank.",
        ConvergenceWarning,
    )


def _warn_of_noise(noise: NoiseRange, rtol: float) -> None:
    """No step makes the noise better known."""
    if noise.width > rtol:
        warn(
            f"the estimated noise leaves {noise.width:.1%} of every standard error open, above "
            f"rtol={rtol:g}, and refine does not change that. Fit with a larger rank, or give the "
            "variance, likelihood=deltauq.likelihoods.Gaussian(noise=...).",
            ConvergenceWarning,
        )


class _Told:
    """Tells after every step how many more a batch of inputs may take, and how long they are."""

    def __init__(
        self, is_enough: IsEnough, max_steps: int, tell: Callable[[str, str], None]
    ) -> None:
        self._is_enough, self._most, self._tell = is_enough, max_steps, tell
        self._started, self._done = time.monotonic(), 0

    def __call__(self, low: Array, high: Array, some: Array) -> Array:
        enough = self._is_enough(low, high, some)
        self._done += 1
        each = (time.monotonic() - self._started) / self._done
        self._tell(
            f"refining: step {self._done} of at most {self._most}",
            f"{np.count_nonzero(~enough):,} of these inputs are still wide; {each:.2g} s a step, "
            f"{each * (self._most - self._done):.0f} s more at most",
        )
        return enough


@dataclass(frozen=True)
class _Certain:
    """Bounds of X (A + I)^-1 X^T in the prior's metric, for OPG and GGN, by a product a step.

    Attributes:
        operator: A.
        whitening: of A beside what the eigenpairs make of it.
        rounding: relative, of a standard error.
        slack: gives that of rows beside it.
    """

    operator: CurvatureOperator
    whitening: Whitening
    rounding: float
    slack: Callable[[Array], Array | None]
    certified = True

    def __call__(self, rows: Array, is_enough: IsEnough, max_steps: int) -> MatrixForms:
        """Enclose in the precision of the eigenvectors."""
        rows = rows.astype(self.whitening.vectors.dtype, copy=False)
        return bound_matrix_forms(
            self.whitening.times(self.operator.matmat),
            _each_row(self.whitening, rows),
            self.whitening.bounds,
            is_enough=is_enough,
            max_steps=max_steps,
        )


def _whitening(fitted: Fitted) -> Whitening:
    """The curvature beside the eigenpairs of a fit, in the network's precision."""
    pairs = fitted.prior_pairs
    return Whitening(pairs.vectors, pairs.values, ROUNDING[fitted.problem.network.dtype])


def _of_products(plan: Refinement) -> _Certain:
    """By products in the network's precision."""
    rounding = ROUNDING[plan.fitted.problem.network.dtype]
    return _Certain(plan.bread, _whitening(plan.fitted), rounding, lambda rows: None)


def _of_rows(fitted: Fitted, bread: CurvatureOperator) -> _Certain:
    """By products of rows in float64; the eigenpairs are made anew, to be below the curvature.

    Raises:
        NumericalError: rounding as large as the L2 rate even so.
    """
    assert isinstance(bread, Gram)
    operator, pairs, n_examples = (
        bread.in_double(),
        fitted.prior_pairs,
        fitted.problem.data.n_examples,
    )
    storage = fitted.settings.storage()
    sketch = NystromSketch.along(operator.matmat, pairs.vectors, np.float64, storage)
    values, vectors, _ = sketch.eigenpairs(pairs.rank)
    whitening = Whitening(vectors, values[: pairs.rank], ROUNDING["float64"])
    if not whitening.is_seen:
        raise _too_large(whitening)
    rounding = ROUNDING_OF_ROWS[fitted.problem.network.dtype]
    return _Certain(operator, whitening, rounding, lambda rows: rounding_of_rows(rows, n_examples))


def _too_large(whitening: Whitening) -> NumericalError:
    """Say that rounding hides the L2 rate."""
    return NumericalError(
        "the curvature is too large for refine in this precision",
        expected=f"rounding under {MOST_ROUNDING:g} of the L2 rate",
        received=f"{whitening.rounding:.2g} of it",
        remedy="scale the inputs, raise l2, or build the model in float64",
    )


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

    certified = False

    def __init__(
        self, fitted: Fitted, operator: CurvatureOperator, meat: Sequence[CurvatureOperator]
    ) -> None:
        self.rounding = ROUNDING[fitted.problem.network.dtype]
        self._operator, self._meat = operator, meat
        self._vectors, self._values = fitted.prior_pairs.vectors, fitted.prior_pairs.values
        self._settings = fitted.settings
        self._l2_share = fitted.problem.likelihood.l2_in_scores

    def slack(self, rows: Array) -> Array | None:
        """None: an estimate has no bounds to widen."""
        return None

    def __call__(self, rows: Array, is_enough: IsEnough, max_steps: int) -> MatrixForms:
        """Estimate with a product with A a step, and one with G."""
        along = _each_row(partial(inner_products, self._vectors), rows)
        outside = _each_row(partial(project_out, self._vectors), rows)
        rule = self._sandwiches if self._meat else self._inverses
        return bound_matrix_forms(
            self._matmat, outside, partial(rule, along), is_enough=is_enough, max_steps=max_steps
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
