"""What can be asked of a fitted Delta method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from deltauq.cost import Stationarity
from deltauq.data import Batches
from deltauq.directions import some_classes
from deltauq.errors import NotFittedError
from deltauq.evidence import Evidence, TunedL2, log_marginal_likelihood, tune_l2
from deltauq.fitting import Fitted, calibration_rows
from deltauq.inputs import InputBatches
from deltauq.joint import JointPrediction, predict_joint
from deltauq.likelihoods import Likelihood
from deltauq.linalg import Eigenpairs
from deltauq.memory import free_memory, prediction_batch
from deltauq.newton import with_shift
from deltauq.posterior import posterior
from deltauq.prediction import predict, predict_some
from deltauq.problem import Problem
from deltauq.progress import progress_bar
from deltauq.rankcurve import RankCurve, rank_curve
from deltauq.refinement import check_refinable, refine, row_copies

__all__ = ["Answers"]


class Answers:
    """Predictions and what stands behind them, once there is a fit.

    `DeltaMethod` is one, and has what these methods are governed by: `batch_size`, `memory_limit`
    and `progress`.
    """

    batch_size: int | None
    memory_limit: int | str | None
    progress: bool
    _fitted: Fitted | None

    def predict(self, x: Any, classes: str | Sequence[int] | None = None) -> Any:
        """Predict with standard errors.

        Args:
            x: inputs as in `fit`: arrays, or a dataset that yields inputs without labels.
            classes: of many classes, those whose covariance is wanted: "top5" (any number: the most
                probable ones of each input) or class numbers. Exact for those, and far cheaper.

        Returns:
            A `Prediction`; of a regression a `RegressionPrediction`, of several labels a
            `MultiLabelPrediction`, of some classes a `SomeClassesPrediction`. T predictions an
            input (outputs `[B, T, C]`) are rows one after the other, N T in all.

        Raises:
            InvalidInputError: inputs that do not fit the training data, classes that are none.
            MemoryLimitError: the Jacobian of one input does not fit.
        """
        fitted = self._require_fitted("predict")
        problem = fitted.problem
        parts = (problem.linearization, fitted.covariance)
        if classes is None:
            with self._batches(x, "predicting") as inputs:
                return predict(*parts, inputs, fitted.vectors)
        chosen = some_classes(classes, problem.likelihood, problem.n_outputs)
        with self._batches(x, "predicting", n_rows=2 * len(chosen)) as inputs:
            return predict_some(*parts, inputs, fitted.vectors, chosen)

    def predict_joint(self, x: Any) -> JointPrediction:
        """Predict with the covariances between the inputs too.

        Args:
            x: B inputs as in `fit`; the result takes (B C)^2 numbers twice.
        """
        fitted = self._require_fitted("predict_joint")
        with self._batches(x, "predicting", copies=2) as inputs:
            return predict_joint(
                fitted.problem.linearization, fitted.covariance, inputs, fitted.vectors
            )

    def refine(self, x: Any, rtol: float = 0.01) -> Any:
        """Predict with standard errors that are known to a relative width, for chosen inputs.

        Takes up to six steps for every batch of inputs, as many of them as fit in memory. A step is
        a pass over the training data, of a sandwich two; `Prediction.data_passes` says how many.
        Bounds of OPG and GGN are certain; those of the exact Hessian and of the sandwich are an
        estimate, what the last two steps changed (`Prediction.certified` is False).

        Args:
            x: inputs as in `fit`, without labels.
            rtol: (high - low) / high of every standard error.

        Raises:
            InvalidInputError: an rtol that is none, too few parameters for the steps, a loaded
                method without its data (`attach`) or with eigenvectors in fewer bits.
            NumericalError: rounding as large as the L2 rate.
        """
        fitted = self._require_fitted("refine")
        check_refinable(fitted, rtol)
        if fitted.pairs.rank == fitted.pairs.n_params:
            return self.predict(x)  # nothing was left out
        with self._batches(x, "refining", copies=row_copies(fitted)) as inputs:
            return refine(fitted, inputs, rtol)

    def rank_curve(self, x: Any = None) -> RankCurve:
        """How wide the bounds of the probabilities' standard errors would be with fewer eigenpairs.

        Args:
            x: inputs to measure on, of a dataset the first batch; None takes some of the
                training inputs.

        Raises:
            InvalidInputError: eigenpairs of both ends of the spectrum; None for the inputs of a
                loaded method without its data.
        """
        fitted = self._require_fitted("rank_curve")
        some = None if x is None else self._inputs(x, fitted.problem).first()
        rows = calibration_rows(fitted.problem, self.memory_limit, some)
        return rank_curve(fitted.pairs, rows, fitted.problem.epsilon)

    def posterior(self) -> Any:
        """The normal distribution of the flat parameters, `tfp.distributions`: Laplace's.

        Its `sample` and `log_prob` take and give vectors `[P]` in the model's variable order.

        Raises:
            NotPositiveDefiniteError: a covariance that is singular, as with tail="none".
        """
        fitted = self._require_fitted("posterior")
        return posterior(fitted.problem.network.params, fitted.covariance)

    def log_marginal_likelihood(self) -> Evidence:
        """The log of p(y | x) in nats by Laplace's approximation, with its bounds.

        Raises:
            InvalidInputError: a sandwich, which is no posterior; the exact Hessian in low rank,
                whose trace is not known.
        """
        return log_marginal_likelihood(self._require_fitted("log_marginal_likelihood"))

    def tune_l2(self, x: Any = None, y: Any = None, sample_weight: Any = None) -> TunedL2:
        """Multiply all L2 rates by the factor that a criterion prefers, without training.

        The eigenpairs are used again, and `predict` then uses the new rates.

        Args:
            x: held-out inputs for the held-out likelihood; None for the marginal likelihood.
            y: their class numbers.
            sample_weight: their weights.

        Returns:
            What was chosen, and what it means.

        Raises:
            InvalidInputError: as `log_marginal_likelihood`; variables without L2; a loaded method
                without its data.
            NumericalError: a criterion without a maximum.
        """
        fitted = self._require_fitted("tune_l2")
        held_out = None
        if x is not None:
            problem = fitted.problem
            held_out = Batches(
                self._inputs(x, problem).source,
                y,
                sample_weight,
                likelihood=problem.likelihood,
                n_outputs=problem.n_outputs,
                dtype=problem.network.dtype,
                batch_size=self.batch_size or self._prediction_batch(problem),
            )
        tuned, fitted = tune_l2(fitted, held_out)
        self._fitted = with_shift(fitted)
        return tuned

    @contextmanager
    def _batches(
        self, x: Any, doing: str, *, copies: int = 1, n_rows: int | None = None
    ) -> Iterator[InputBatches]:
        """Inputs in batches whose Jacobians fit in memory so many times, under a progress bar."""
        problem = self._require_fitted(doing).problem
        inputs = self._inputs(x, problem, copies, n_rows)
        with progress_bar(doing, total=inputs.n_rows, enabled=self.progress) as advance:
            inputs.on_batch = advance
            yield inputs

    def _inputs(
        self, x: Any, problem: Problem, copies: int = 1, n_rows: int | None = None
    ) -> InputBatches:
        chosen = self.batch_size if copies == 1 else None
        return InputBatches(
            x,
            dtype=problem.network.dtype,
            batch_size=chosen or self._prediction_batch(problem, copies, n_rows),
            spec=problem.data.spec.x,
            columns=problem.data.columns,
        )

    def _prediction_batch(
        self, problem: Problem, copies: int = 1, n_rows: int | None = None
    ) -> int:
        spec, free = problem.data.spec.x, free_memory(self.memory_limit)
        rows = n_rows or problem.n_outputs
        return prediction_batch(problem.network, spec, rows, free=free, copies=copies)

    @property
    def eigenpairs(self) -> Eigenpairs:
        """Leading eigenpairs of the mean data curvature, the L2 rate not included.

        With one L2 rate the values are the curvature's own; with several they are those of
        L^-1/2 A L^-1/2, without a dimension.
        """
        return self._require_fitted("eigenpairs").eigenpairs

    @property
    def covariance(self) -> tf.linalg.LinearOperator:
        """Covariance of the flat parameters, `[P, P]`, in the model's variable order."""
        return self._require_fitted("covariance").covariance.to_linear_operator()

    @property
    def stationarity(self) -> Stationarity:
        """Gradient norm of the cost at the weights, and of its two parts."""
        return self._require_fitted("stationarity").stationarity

    @property
    def n_examples(self) -> float:
        """N: training examples, or the sum of their weights."""
        return self._require_fitted("n_examples").problem.data.n_examples

    @property
    def l2_rates(self) -> dict[str, float]:
        """Lambda of every uncertain variable by its path, beside the cost that was minimised."""
        problem = self._require_fitted("l2_rates").problem
        return {
            parameter.path: float(problem.rates[parameter.start]) * problem.dispersion
            for parameter in problem.network.parameters
        }

    @property
    def columns(self) -> tuple[Any, ...] | None:
        """Of the pandas frame that `fit` was called with; None of other inputs."""
        return self._require_fitted("columns").problem.data.columns

    @property
    def input_spec(self) -> Any:
        """`tf.TensorSpec`s of the inputs, their first axis free, in the structure of x."""
        return self._require_fitted("input_spec").problem.data.spec.x

    @property
    def n_outputs(self) -> int:
        """C: outputs of the model, all positions together."""
        return self._require_fitted("n_outputs").problem.n_outputs

    @property
    def fitted_likelihood(self) -> Likelihood:
        """As it was understood, with the noise of a regression as it was estimated."""
        return self._require_fitted("fitted_likelihood").problem.likelihood

    @property
    def fit_seconds(self) -> float:
        """Wall time of `fit`."""
        return self._require_fitted("fit_seconds").seconds

    def _require_fitted(self, what: str) -> Fitted:
        if self._fitted is None:
            raise NotFittedError(
                f"{what} needs the curvature, and fit was not called (or failed)",
                expected="fit(x, y) on the training data first",
            )
        return self._fitted
