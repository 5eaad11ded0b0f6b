"""What can be asked of a fitted Delta method: predictions, and what stands behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deltauq.curvature.posterior import posterior
from deltauq.curvature.rank_curve import RankCurve, rank_curve
from deltauq.data.batches import Batches
from deltauq.data.grouping import group_inputs
from deltauq.data.inputs import InputBatches
from deltauq.data.training import TrainingData
from deltauq.data.work import at_work
from deltauq.delta.calibration import calibration_rows
from deltauq.delta.facts import FitFacts
from deltauq.delta.fitted import Fitted
from deltauq.delta.marginal_likelihood import Evidence, log_marginal_likelihood
from deltauq.delta.noise import before_noise
from deltauq.delta.problem import Problem
from deltauq.delta.refinement import refine, refinement
from deltauq.delta.settings import Settings
from deltauq.delta.steps import tuned_fit
from deltauq.delta.tail_band import band_of
from deltauq.delta.tuned_l2 import TunedL2
from deltauq.errors import check_share
from deltauq.prediction import Estimate, predict, predict_some, prediction_memory
from deltauq.prediction.averaging import mean_memory, predict_mean
from deltauq.prediction.directions import some_classes
from deltauq.prediction.forms import Form
from deltauq.prediction.group_means import GroupMean
from deltauq.prediction.joint import JointPrediction, joint_memory, predict_joint
from deltauq.prediction.result_memory import ResultMemory, plan_prediction, prediction_batch
from deltauq.runtime.faults import faults_told
from deltauq.runtime.memory import free_memory
from deltauq.runtime.threads import start, stop

if TYPE_CHECKING:
    from tensorflow_probability.python.distributions import Distribution

__all__ = ["Answers"]


class Answers(FitFacts):
    """Predictions and what stands behind them, once there is a fit.

    `DeltaMethod` is one; its settings, attributes of their names, say how they are computed.
    """

    @property
    def settings(self) -> Settings:
        """All settings as they stand, as one frozen record.

        Every setting is an attribute of its own name too, which can be set again: `batch_size`,
        `memory_limit` and `progress` count from the next call on, the others from the next `fit`.

        Raises:
            InvalidInputError: one was set to what cannot be.
        """
        return Settings.among(vars(self))

    @faults_told("predicting")
    def predict(self, x: Any, classes: str | Sequence[int] | None = None) -> Estimate:
        """Predict with standard errors.

        Args:
            x: inputs as in `fit`: arrays, or a dataset that yields inputs without labels.
            classes: of many classes, those whose covariance is wanted: "top5" (any number: the most
                probable ones of each input) or class numbers. Exact for those, and far cheaper;
                where a tail was calibrated, it goes by the share outside of these classes alone.

        Returns:
            A `Prediction`; of a regression a `RegressionPrediction`, of counts a `CountPrediction`,
            of several labels a `MultiLabelPrediction`, of some classes a `SomeClassesPrediction`. T
            predictions an input (outputs `[B, T, C]`) are rows one after the other, N T in all.

        Raises:
            InvalidInputError: inputs that do not fit the training data, classes that are none.
            MemoryLimitError: the covariances of all inputs do not fit, or the Jacobian of one.
        """
        fitted = self._require_fitted("predict")
        problem, inputs = fitted.problem, self._inputs(x, fitted.problem, batch_size=1)
        form = fitted.form(inputs.n_rows)
        if classes is None:
            return self._predicted(inputs, form, "predicting")
        chosen = some_classes(classes, problem.likelihood, problem.n_outputs)
        memory, n_rows = prediction_memory(len(chosen)), 2 * len(chosen)
        with self._batches(inputs, "predicting", memory, form.copies, n_rows=n_rows) as batches:
            found = predict_some(form, batches, chosen)
        return replace(found, band=band_of(fitted))

    def _predicted(self, inputs: InputBatches, form: Form, doing: str) -> Estimate:
        """Predictions of all outputs by one form."""
        fitted = self._require_fitted("predict")
        with self._batches(inputs, doing, _predictions(fitted.problem), form.copies) as batches:
            found = predict(form, batches, fitted.known.noise)
        return replace(found, band=band_of(fitted))

    @faults_told("predicting")
    def predict_joint(self, x: Any) -> JointPrediction:
        """Predict with standard errors and with the covariances between the inputs too.

        Args:
            x: B inputs as in `fit`; the result takes (B C)^2 numbers twice.

        Raises:
            InvalidInputError: inputs that do not fit the training data.
            MemoryLimitError: the covariances do not fit. `predict_mean` has means and contrasts
                over any number of inputs.
        """
        fitted = self._require_fitted("predict_joint")
        problem, inputs = fitted.problem, self._inputs(x, fitted.problem, batch_size=1)
        form, n_shown = fitted.form(inputs.n_rows), problem.likelihood.positions * problem.n_shown
        memory = joint_memory(problem.n_outputs, n_shown, form.row_bytes)
        with self._batches(inputs, "predicting", memory, copies=2) as batches:
            return predict_joint(form, batches)

    @faults_told("predicting")
    def predict_mean(self, x: Any, groups: Any = None, weights: Any = None) -> GroupMean:
        """Means of the predictions over groups of inputs, or other sums of them, in one pass.

        The sum of w_n p_n over a group has the covariance J_ Sigma J_^T with J_ = sum_n w_n S_n J_n
        its own gradient. So memory does not grow with the inputs: 8 G C P bytes for G groups of C
        outputs and P parameters. The covariance is between all groups, and so their differences and
        other contrasts have standard errors and bounds too: `GroupMean.difference`.

        Args:
            x: any number of inputs as in `fit`: arrays, or a dataset that yields inputs without
                labels, in a fixed order where there are groups or weights.
            groups: the group of every input, numbers or text `[N]`; None takes all inputs as one
                group, named "all". Where an input makes T predictions, all of them are in its
                group, but for those that are masked, which are in none; `[N, T]` puts each in its
                own.
            weights: w `[N]` (or `[N, T]`), finite and of any sign; used as they are: not divided by
                their sum. None takes 1/n_g, n_g the number of predictions of the group, which
                makes the sum a mean.

        Raises:
            InvalidInputError: inputs that do not fit the training data, groups or weights that do
                not fit the inputs, groups of masked predictions alone.
            MemoryLimitError: the gradients of so many groups do not fit.
        """
        fitted = self._require_fitted("predict_mean")
        problem = fitted.problem
        grouping = group_inputs(groups, weights, problem.likelihood.positions)
        inputs, n_groups = self._inputs(x, problem, batch_size=1), len(grouping.names)
        memory = mean_memory(problem.n_shown, form := fitted.form(n_groups))
        with self._batches(inputs, "predicting", memory, n_groups=n_groups) as batches:
            if inputs.n_rows is not None:
                grouping.check_length(inputs.n_rows)
            return predict_mean(form, batches, grouping, fitted.known.noise)

    @faults_told("refining")
    def refine(self, x: Any, rtol: float = 0.01, max_passes: int | None = None) -> Estimate:
        """Predict with standard errors that are known to a relative width, for chosen inputs.

        Goes on for every batch of inputs, as many of them as fit in memory, until all are as narrow
        or `max_passes` are spent. A step is a pass over the training data, of a sandwich two;
        `Prediction.data_passes` says how many there were, and the progress display how long those
        that may follow would take at most. `std` is the middle of what is possible, `std_bounds`
        its ends. Bounds of OPG and GGN are certain; those of the exact Hessian and of the sandwich
        are an estimate, what the last two steps changed (`Prediction.certified` is False).

        Where the largest curvature hides the L2 rate from float32, rows are multiplied in float64:
        one pass more, and each takes several times as long.

        Args:
            x: inputs as in `fit`, without labels.
            rtol: (high - low) / high of every standard error.
            max_passes: over the training data for every batch of inputs, at most; None for 60. A
                batch holds as many rows `[C, P]` of each of its inputs.

        Raises:
            InvalidInputError: an rtol or max_passes that is none, too few parameters for a step, a
                loaded method without its data (`attach`) or with eigenvectors in fewer bits.
            MemoryLimitError: the rows of so many steps of one input do not fit.
            NumericalError: rounding as large as the L2 rate, of what has no rows in float64.
        """
        fitted = self._require_fitted("refine")
        check_share("rtol", rtol, example=0.01)
        fitted.require_unrounded_vectors("refine")
        inputs = self._inputs(x, fitted.problem, batch_size=1)
        if fitted.known.is_exact:  # nothing was left out
            return self._predicted(inputs, fitted.form(1), "refining")
        plan = refinement(self._within_limit(fitted), max_passes)
        memory = replace(_predictions(fitted.problem), by_steps=True)
        with self._batches(inputs, "refining", memory, plan.row_copies) as batches:
            return refine(plan, batches, rtol)

    @faults_told("the rank curve")
    def rank_curve(self, x: Any = None) -> RankCurve:
        """Show how wide the standard errors' bounds would be with fewer eigenpairs.

        Args:
            x: inputs to measure on, of a dataset the first batch; None takes some of the
                training inputs.

        Raises:
            InvalidInputError: eigenpairs of both ends of the spectrum; None for the inputs of a
                loaded method without its data.
        """
        fitted = self._require_fitted("rank_curve")
        some = None if x is None else self._inputs(x, fitted.problem).first()
        rows = calibration_rows(fitted.problem, self.settings.memory_limit, some)
        pairs, freedom = before_noise(fitted)
        return rank_curve(pairs, rows, fitted.problem.epsilon, freedom)

    @faults_told("the posterior")
    def posterior(self) -> Distribution:
        """Laplace's normal distribution of the flat parameters, a `tfp.distributions` object.

        Its `sample` and `log_prob` take and give vectors `[P]` in the model's variable order and
        precision.

        Raises:
            NotPositiveDefiniteError: a covariance that is singular, as with tail="none".
        """
        fitted = self._require_fitted("posterior")
        return posterior(fitted.problem.network.params, fitted.covariance)

    @faults_told("the marginal likelihood")
    def log_marginal_likelihood(self) -> Evidence:
        """Log of p(y | x) in nats by Laplace's approximation, with its bounds.

        Raises:
            InvalidInputError: a sandwich, which is no posterior; the exact Hessian in low rank,
                whose trace is not known.
        """
        return log_marginal_likelihood(self._require_fitted("log_marginal_likelihood"))

    @faults_told("choosing the L2 rate")
    def tune_l2(self, x: Any = None, y: Any = None, sample_weight: Any = None) -> TunedL2:
        """Multiply all L2 rates by the factor that a criterion prefers, without training.

        The eigenpairs are used again, and `predict` then uses the new rates.

        Args:
            x: held-out inputs for the held-out likelihood; None for the marginal likelihood.
            y: their labels, as in `fit`.
            sample_weight: their weights.

        Returns:
            What was chosen, and what it means.

        Raises:
            InvalidInputError: as `log_marginal_likelihood`; variables without L2; a loaded method
                without its data.
            NumericalError: a criterion without a maximum.
        """
        fitted = self._within_limit(self._require_fitted("tune_l2"))
        held_out = None
        if x is not None:
            problem, inputs = fitted.problem, self._inputs(x, fitted.problem)
            held_out = Batches(
                *TrainingData(inputs.source, y, sample_weight),
                likelihood=problem.likelihood,
                n_outputs=problem.n_outputs,
                dtype=problem.network.dtype,
                batch_size=inputs.batch_size,
                mask=problem.linearization.mask,
            )
        tuned, self._fitted = tuned_fit(fitted, fitted.settings.storage(), held_out)
        return tuned

    def _within_limit(self, fitted: Fitted) -> Fitted:
        """A fit whose settings have the memory limit that counts now."""
        limit = self.settings.memory_limit
        return replace(fitted, settings=replace(fitted.settings, memory_limit=limit))

    @contextmanager
    def _batches(
        self,
        inputs: InputBatches,
        doing: str,
        result: ResultMemory,
        copies: int = 1,
        *,
        n_rows: int | None = None,
        n_groups: int | None = None,
    ) -> Iterator[InputBatches]:
        """Inputs in batches whose Jacobians fit so many times beside a result, with progress."""
        problem, settings = self._require_fitted(doing).problem, self.settings
        plan = plan_prediction(
            result,
            n_groups or inputs.n_rows,
            problem.network,
            problem.input_spec,
            n_rows or problem.n_outputs,
            free=free_memory(settings.memory_limit),
            batch_size=settings.batch_size if copies == 1 else None,
            copies=copies,
        )
        inputs = inputs.with_batch_size(plan.batch_size)
        with at_work(doing, total=inputs.n_rows, enabled=settings.progress) as (_, listener):
            listener = replace(listener, on_fetch=stop, on_fetched=start)
            if n_groups is None:
                listener = replace(listener, on_rows=plan.check)
            try:
                yield inputs.with_listener(listener)
            finally:
                stop()

    def _inputs(self, x: Any, problem: Problem, *, batch_size: int | None = None) -> InputBatches:
        size = batch_size or self.settings.batch_size
        if size is None:
            free = free_memory(self.settings.memory_limit)
            spec = problem.input_spec
            size = prediction_batch(problem.network, spec, problem.n_outputs, free=free)
        return InputBatches(
            x,
            dtype=problem.network.dtype,
            batch_size=size,
            spec=problem.input_spec,
            columns=problem.data.columns,
        )


def _predictions(problem: Problem) -> ResultMemory:
    """What predictions of all outputs take."""
    return prediction_memory(problem.n_shown, problem.likelihood.positions)
