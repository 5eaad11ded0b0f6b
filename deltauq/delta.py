"""`DeltaMethod`: wrap a trained classifier, get its predictions with standard errors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from deltauq.cost import Stationarity
from deltauq.covariance import NegativeCurvature, Tail, check_choice
from deltauq.data import Batches
from deltauq.directions import some_classes
from deltauq.eigen import Rank
from deltauq.errors import NotFittedError
from deltauq.evidence import Evidence, TunedL2, log_marginal_likelihood, tune_l2
from deltauq.fit import fit_problem
from deltauq.fitting import (
    CURVATURES,
    Curvature,
    Fitted,
    Settings,
    calibration_rows,
)
from deltauq.inputs import InputBatches
from deltauq.joint import JointPrediction, predict_joint
from deltauq.likelihoods import Likelihood
from deltauq.linalg import Eigenpairs, Storage
from deltauq.memory import free_memory, prediction_batch
from deltauq.network import Layers, Network
from deltauq.posterior import posterior
from deltauq.prediction import predict, predict_some
from deltauq.problem import Problem, state_problem
from deltauq.progress import progress_bar
from deltauq.rankcurve import RankCurve, rank_curve
from deltauq.refinement import check_refinable, refine, row_copies
from deltauq.regularization import L2, complete_l2
from deltauq.sandwich import Meat

__all__ = ["CURVATURES", "Curvature", "DeltaMethod"]


class DeltaMethod:
    """Epistemic uncertainty of a trained classifier by the Delta method.

    The model is linearised in its parameters, and their covariance, the inverse of the cost's
    curvature over N, is pushed through. Nothing is trained and the model is not changed.

    Args:
        model: a built Keras 3 model, a `tf_keras` model, a `tf.Module` with a call (which has no L2
            to be read), or the path of a `.keras` or `.h5` file; with one output `[B, C]` or
            `[B, T, C]`.
        curvature: "opg" (outer products of gradients: one pass is cheap; standard errors often
            larger than the exact ones), "ggn" (Gauss-Newton: the Fisher information), "hessian"
            (exact second derivative: slowest, and not positive semidefinite in general) or
            "sandwich" (inverse Hessian, OPG, inverse Hessian: for a model that need not be true).
        rank: eigenpairs kept: a number, "full" (all, by a dense matrix), or "auto" (grows until the
            part of the standard errors that the tail leaves open is under `rank_tol`).
        l2: "auto" (from the Keras regularizers), one rate, or `{glob: rate}`; the cost contains
            (lambda / 2) * sum w^2 beside Keras' loss, a mean over labels or outputs where there are
            several. "tune" chooses a rate by marginal likelihood, after training:
            for models without L2; `fit` says with a warning what that means.
        likelihood: "auto" (read from the compiled loss, label smoothing included, and checked
            against the model's last operation); "categorical" (one of several classes),
            "binary" (one sigmoid), "multilabel" (several), "gaussian" (a regression, its noise
            estimated); a `Likelihood`; or a loss function of logits and labels, see
            `deltauq.likelihoods.CustomLoss`.
        layers: which variables are uncertain: None (all trainable), names or glob patterns, "last"
            (the layer of the model's last variable), or a callable on variables.
        tail: what stands for the inverse eigenvalues not computed: "midpoint", "l2", "trace" or
            "none"; see `deltauq.covariance.low_rank_covariance`.
        rank_tol: relative width for rank="auto".
        negative_curvature: "project" (the Hessian's negative eigenvalues become zero), "raise"
            (refuse them) or "keep" (use them, from both ends of the spectrum).
        meat: of the sandwich: "opg" with the L2 term, as in the paper, or "scores" without it.
        bounds: bound what the eigenpairs leave out, so that every standard error comes with an
            interval for its own approximation error (`Prediction.std_bounds`); takes up to five
            more passes over the data.
        batch_size: rows a step; None chooses it from the model's size.
        memory_limit: of the whole process, bytes or text such as "8GiB"; None uses a safe share of
            what is free. Batches and buffers are chosen to stay under it, and `fit` refuses a rank
            that cannot.
        vectors_dir: a directory on a large disk: the eigenvectors and the solver's other vectors of
            length P then live there, in files that are mapped into memory and vanish with the
            object. Slower; for a rank times P beyond memory. None keeps them in memory.
        seed: of the random start of the eigenvalue solvers.
        progress: show a progress bar for work over a second.

    Attributes:
        eigenpairs: of the mean data curvature, an `Eigenpairs`.
        covariance: of the parameters, a `tf.linalg.LinearOperator` `[P, P]`.
        stationarity: how nearly the cost's gradient vanishes at the weights.
        n_examples: N, the training examples or the sum of their weights.
        fit_seconds: wall time of `fit`.

    Source: G. K. Nilsen et al., arXiv 1912.00832 and 2107.01606.

    >>> from sklearn.datasets import load_iris
    >>> from deltauq import DeltaClassifier
    >>> x, y = load_iris(return_X_y=True)
    >>> model = DeltaClassifier(hidden_units=(4,), l2=0.1, progress=False).fit(x, y).model_
    >>> dm = DeltaMethod(model, curvature="ggn", progress=False).fit(x, y)
    >>> dm.predict(x[:2]).std.shape
    (2, 3)
    """

    def __init__(
        self,
        model: Any,
        curvature: Curvature = "opg",
        *,
        rank: Rank = "auto",
        l2: L2 = "auto",
        likelihood: str | Likelihood = "auto",
        layers: Layers = None,
        tail: Tail = "midpoint",
        rank_tol: float = 0.05,
        negative_curvature: NegativeCurvature = "project",
        meat: Meat = "opg",
        bounds: bool = True,
        batch_size: int | None = None,
        memory_limit: int | str | None = None,
        vectors_dir: str | Path | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        self.model = model
        self.curvature = curvature
        self.rank = rank
        self.l2 = l2
        self.likelihood = likelihood
        self.layers = layers
        self.tail = tail
        self.rank_tol = rank_tol
        self.negative_curvature = negative_curvature
        self.meat = meat
        self.bounds = bounds
        self.batch_size = batch_size
        self.memory_limit = memory_limit
        self.vectors_dir = vectors_dir
        self.seed = seed
        self.progress = progress
        self._fitted: Fitted | None = None

    def fit(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None
    ) -> DeltaMethod:
        """Compute the curvature on the training data and the parameters' covariance.

        Args:
            x: the training inputs: an array, tensor or list `[N, ...]`, a pandas frame, a list or
                dict of arrays for several inputs; or a finite `tf.data.Dataset`, batched or not,
                or `keras.utils.PyDataset`, of `(x, y)` or `(x, y, weight)`. A dataset is read
                several times, and must yield the same examples each time.
            y: labels `[N]`, in any of these forms; None beside a dataset.
            sample_weight: `[N]`; N becomes their sum.
            class_weight: `{class number: weight}`, as Keras' `fit` takes it: multiplies the
                weights of that class's examples; classes that are left out count once.

        Returns:
            self.

        Raises:
            InvalidInputError: data or arguments that cannot be used.
            UnsupportedModelError: a model, loss or penalty that cannot be used.
            NotPositiveDefiniteError: no covariance exists under the asked treatment of negative
                curvature.
        """
        started = time.monotonic()
        self._fitted = None
        check_choice("curvature", self.curvature, tuple(CURVATURES))
        storage = Storage(self.vectors_dir)
        network = Network(self.model, layers=self.layers)
        tunes = isinstance(self.l2, str) and self.l2 == "tune"
        problem = state_problem(
            network,
            (x, y, sample_weight, class_weight),
            l2=complete_l2(network.variables) if tunes else self.l2,
            likelihood=self.likelihood,
            rank=self.rank,
            bounds=self.bounds,
            operators=CURVATURES[self.curvature],
            batch_size=self.batch_size,
            memory_limit=self.memory_limit,
            vectors_in_files=storage.directory is not None,
        )
        with progress_bar(f"{self.curvature} eigenpairs", enabled=self.progress) as advance:
            problem.data.on_batch = advance
            fitted = fit_problem(problem, self._settings(), storage, tunes_l2=tunes)
        problem.data.on_batch = None  # the display is closed
        self._fitted = replace(fitted, seconds=time.monotonic() - started)
        return self

    def _settings(self) -> Settings:
        return Settings(
            curvature=self.curvature,
            rank=self.rank,
            tail=self.tail,
            rank_tol=self.rank_tol,
            negative_curvature=self.negative_curvature,
            meat=self.meat,
            bounds=self.bounds,
            memory_limit=self.memory_limit,
            seed=self.seed,
        )

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
            x: inputs to measure on, of a dataset the first batch; None takes the first training
                inputs.
        """
        fitted = self._require_fitted("rank_curve")
        some = None if x is None else self._inputs(x, fitted.problem).first()
        rows = calibration_rows(fitted.problem, self.memory_limit, some)
        return rank_curve(fitted.pairs, rows, fitted.problem.epsilon)

    def posterior(self) -> Any:
        """The normal distribution of the flat parameters, `tfp.distributions`: Laplace's.

        Its `sample` and `log_prob` take and give vectors `[P]` in the model's variable order.
        """
        fitted = self._require_fitted("posterior")
        return posterior(fitted.problem.network.params, fitted.covariance)

    def log_marginal_likelihood(self) -> Evidence:
        """The log of p(y | x) in nats by Laplace's approximation, with its bounds."""
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
        tuned, self._fitted = tune_l2(fitted, held_out)
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
