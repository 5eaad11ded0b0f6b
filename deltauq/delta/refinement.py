"""Standard errors of chosen inputs to a stated width, by more passes over the training data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature import CurvatureOperator
from deltauq.curvature.noise_interval import NoiseRange
from deltauq.data.batch_reader import n_rows_of
from deltauq.data.inputs import InputBatches
from deltauq.delta.enclosing import Estimated, IsEnough, Way, by_products, by_rows, takes_rows
from deltauq.delta.fitted import Fitted
from deltauq.delta.solving import bread_and_meat
from deltauq.errors import ConvergenceWarning, InvalidInputError, check_count, warn
from deltauq.linalg import relative_width, root_diagonal
from deltauq.prediction import Estimate, assemble, join
from deltauq.prediction.forms import RowCovariances
from deltauq.prediction.linearization import FullJacobians

__all__ = ["MAX_PASSES", "Refinement", "refine", "refinement"]

Array = npt.NDArray[Any]

#: Passes over the training data that a batch of inputs takes at most, unless more are asked for.
MAX_PASSES = 60


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
            return Estimated(self.fitted, self.bread, self.meat)
        enclose = by_rows if self.in_double else by_products
        return enclose(self.fitted, self.bread)


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
    return Refinement(fitted, bread, meat, min(steps, room), takes_rows(fitted, bread, meat))


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
    for operator in (plan.bread, *plan.meat):
        operator.forget()
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
