"""`DeltaMethod`: wrap a trained classifier, get its predictions with standard errors."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq import curvature as curvatures
from deltauq.cost import Stationarity
from deltauq.covariance import (
    NegativeCurvature,
    ParameterCovariance,
    Tail,
    check_choice,
    dense_covariance,
    low_rank_covariance,
    spectrum_interval,
)
from deltauq.curvature import CurvatureOperator
from deltauq.eigen import Rank, automatic_eigenpairs, eigenpairs
from deltauq.errors import ConvergenceWarning, NotFittedError
from deltauq.inputs import InputBatches, align_inputs
from deltauq.likelihoods import Likelihood
from deltauq.linalg import Eigenpairs, Storage, root_diagonal
from deltauq.memory import free_memory, prediction_batch
from deltauq.network import Layers, Network
from deltauq.prediction import Prediction, predict
from deltauq.problem import Problem, state_problem
from deltauq.progress import progress_bar
from deltauq.regularization import L2

__all__ = ["CURVATURES", "Curvature", "DeltaMethod"]

Curvature = Literal["hessian", "opg", "ggn"]

CURVATURES: dict[str, type[CurvatureOperator]] = {
    "hessian": curvatures.Hessian,
    "opg": curvatures.OPG,
    "ggn": curvatures.GGN,
}

#: Rounding of the largest curvature, in units of the L2 rate, above which `fit` warns.
_RESOLUTION = 0.1

#: Inputs on which `rank="auto"` measures what the tail leaves open.
_CALIBRATION = 64

#: Gradient norm relative to its parts above which `fit` warns.
_FAR_FROM_STATIONARY = 0.5


class DeltaMethod:
    """Epistemic uncertainty of a trained classifier by the Delta method.

    The model is linearised in its parameters, and their covariance, the inverse of the cost's
    curvature over N, is pushed through. Nothing is trained and the model is not changed.

    Args:
        model: a built Keras 3 classifier with logits or softmax output `[B, C]`.
        curvature: "opg" (outer products of gradients: one pass is cheap; standard errors often
            larger than the exact ones), "ggn" (Gauss-Newton: the Fisher information) or "hessian"
            (exact second derivative: slowest, and not positive semidefinite in general).
        rank: eigenpairs kept: a number, "full" (all, by a dense matrix), or "auto" (grows until the
            part of the standard errors that the tail leaves open is under `rank_tol`).
        l2: "auto" (from the Keras regularizers), one rate, or `{glob: rate}`; the cost contains
            (lambda / 2) * sum w^2.
        likelihood: "auto" (softmax with cross-entropy, checked against the compiled loss),
            "categorical" (the same, unchecked) or a `Likelihood`.
        layers: which variables are uncertain: None (all trainable), names or glob patterns, or a
            callable on variables.
        tail: what stands for the inverse eigenvalues not computed: "midpoint", "l2", "trace" or
            "none"; see `deltauq.covariance.low_rank_covariance`.
        rank_tol: relative width for rank="auto".
        negative_curvature: "project" (the Hessian's negative eigenvalues become zero), "raise" or
            "keep".
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
        self.bounds = bounds
        self.batch_size = batch_size
        self.memory_limit = memory_limit
        self.vectors_dir = vectors_dir
        self.seed = seed
        self.progress = progress
        self._fitted: _Fitted | None = None

    def fit(self, x: Any, y: Any = None, sample_weight: Any = None) -> DeltaMethod:
        """Compute the curvature on the training data and the parameters' covariance.

        Args:
            x: the training inputs: an array `[N, ...]`, a nest of arrays for several inputs, or a
                batched `tf.data.Dataset` of `(x, y)` or `(x, y, weight)`.
            y: class numbers `[N]`.
            sample_weight: `[N]`; N becomes their sum.

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
        problem = state_problem(
            Network(self.model, layers=self.layers),
            (x, y, sample_weight),
            l2=self.l2,
            likelihood=self.likelihood,
            rank=self.rank,
            bounds=self.bounds,
            operator=CURVATURES[self.curvature],
            batch_size=self.batch_size,
            memory_limit=self.memory_limit,
            vectors_in_files=storage.directory is not None,
        )
        with progress_bar(f"{self.curvature} eigenpairs", enabled=self.progress) as advance:
            problem.data.on_batch = advance
            stationarity = problem.cost.stationarity(problem.network.params)
            _warn_unless_stationary(stationarity)
            pairs, covariance = _solve(self, problem, storage)
        unit = problem.common_rate
        self._fitted = _Fitted(
            problem=problem,
            pairs=pairs.rescaled(unit) if unit else pairs,
            covariance=covariance,
            stationarity=stationarity,
            seconds=time.monotonic() - started,
        )
        return self

    def predict(self, x: Any) -> Prediction:
        """Predict with standard errors.

        Args:
            x: inputs as in `fit`, without labels.
        """
        fitted = self._require_fitted("predict")
        problem = fitted.problem
        x = align_inputs(x, problem.data.spec.x)
        size = self.batch_size or self._prediction_batch(problem)
        inputs = InputBatches(x, dtype=problem.network.dtype, batch_size=size)
        with progress_bar("predicting", total=inputs.n_rows, enabled=self.progress) as advance:
            inputs.on_batch = advance
            return predict(problem.linearization, fitted.covariance, inputs, fitted.vectors)

    def _prediction_batch(self, problem: Problem) -> int:
        spec, free = problem.data.spec.x, free_memory(self.memory_limit)
        return prediction_batch(problem.network, spec, problem.n_outputs, free=free)

    @property
    def eigenpairs(self) -> Eigenpairs:
        """Leading eigenpairs of the mean data curvature, the L2 rate not included.

        With one L2 rate the values are the curvature's own; with several they are those of
        L^-1/2 A L^-1/2, without a dimension.
        """
        return self._require_fitted("eigenpairs").pairs

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
    def fit_seconds(self) -> float:
        """Wall time of `fit`."""
        return self._require_fitted("fit_seconds").seconds

    def _require_fitted(self, what: str) -> _Fitted:
        if self._fitted is None:
            raise NotFittedError(
                f"{what} needs the curvature, and fit was not called (or failed)",
                expected="fit(x, y) on the training data first",
            )
        return self._fitted


@dataclass(frozen=True)
class _Fitted:
    """What `fit` leaves behind."""

    problem: Problem
    pairs: Eigenpairs
    covariance: ParameterCovariance
    stationarity: Stationarity
    seconds: float

    @cached_property
    def vectors(self) -> npt.NDArray[Any]:
        """The covariance's vectors as predictions read them; as a rule not a copy."""
        return np.ascontiguousarray(self.covariance.vectors, self.problem.network.dtype)


def _solve(
    dm: DeltaMethod, problem: Problem, storage: Storage
) -> tuple[Eigenpairs, ParameterCovariance]:
    operator = CURVATURES[dm.curvature](
        problem.network,
        problem.likelihood,
        problem.data,
        scale=problem.scale,
        per_example=problem.per_example,
        buffer_bytes=problem.plan.buffer,
    )
    n_examples = problem.data.n_examples
    epsilon = float(np.finfo(problem.network.dtype).eps)
    if dm.rank == "auto":
        pairs = _solve_automatically(dm, problem, operator, storage)
    else:
        pairs = eigenpairs(operator, dm.rank, bounds=dm.bounds, seed=dm.seed, storage=storage)
        if not pairs.converged:
            warnings.warn(
                f"the {dm.rank} eigenpairs of the {dm.curvature} did not all converge: "
                f"{pairs.rank} are good enough and are used, the rest belongs to the tail. Ask "
                "for a smaller rank, or use curvature='ggn'.",
                ConvergenceWarning,
                stacklevel=3,
            )
    _warn_beyond_precision(pairs, epsilon)
    if not np.all(problem.rates > 0):
        covariance = dense_covariance(
            pairs,
            problem.rates > 0,
            problem.scale,
            n_examples,
            negative_curvature=dm.negative_curvature,
            epsilon=epsilon,
        )
    else:
        covariance = low_rank_covariance(
            pairs,
            problem.scale,
            n_examples,
            tail=dm.tail,
            negative_curvature=dm.negative_curvature,
            epsilon=epsilon,
        )
    return pairs, covariance


def _solve_automatically(
    dm: DeltaMethod, problem: Problem, operator: CurvatureOperator, storage: Storage
) -> Eigenpairs:
    """Grow the rank until the tail leaves less than `rank_tol` of the standard errors open."""
    count = min(_CALIBRATION, dm._prediction_batch(problem))
    _, rows = problem.linearization.jacobian(problem.data.head(count))
    epsilon = float(np.finfo(problem.network.dtype).eps)
    width = 1.0

    def is_enough(pairs: Eigenpairs) -> bool:
        nonlocal width
        along = rows @ pairs.vectors
        outside = rows - along @ pairs.vectors.T
        rest = outside @ np.swapaxes(outside, 1, 2)
        low, high = (
            root_diagonal(spectrum.quadratic_form(along, rest))
            for spectrum in spectrum_interval(pairs, epsilon)
        )
        width = float(np.median((high - low) / np.where(high > 0, high, 1.0)))
        return width <= dm.rank_tol

    room = free_memory(dm.memory_limit) if storage.directory is None else storage.free
    pairs, enough = automatic_eigenpairs(
        operator,
        is_enough,
        bounds=dm.bounds,
        max_bytes=room // 2,
        seed=dm.seed,
        storage=storage,
    )
    if not enough:
        warnings.warn(
            f"rank='auto' stopped at {pairs.rank} eigenpairs of the {dm.curvature}: the tail "
            f"leaves {width:.1%} of the median standard error open, above rank_tol="
            f"{dm.rank_tol:.1%}. Pass a larger rank if memory allows, more L2, or fewer layers.",
            ConvergenceWarning,
            stacklevel=4,
        )
    return pairs


def _warn_beyond_precision(pairs: Eigenpairs, epsilon: float) -> None:
    largest = float(pairs.values[0]) if pairs.rank else 0.0
    if largest * epsilon > _RESOLUTION:
        warnings.warn(
            f"the largest curvature is {largest:.1g} times the L2 rate, and the model's precision "
            f"resolves 1 part in {1 / epsilon:.1g}: directions that L2 matters for drown in "
            "rounding. Scale the inputs, raise l2, or build the model in float64.",
            ConvergenceWarning,
            stacklevel=4,
        )


def _warn_unless_stationary(stationarity: Stationarity) -> None:
    if stationarity.ratio > _FAR_FROM_STATIONARY:
        warnings.warn(
            "the weights are far from a minimum of the cost: the gradient norm is "
            f"{stationarity.gradient_norm:.3g}, {stationarity.ratio:.0%} of its larger part "
            f"(data {stationarity.data_norm:.3g}, L2 {stationarity.l2_norm:.3g}). The standard "
            "errors describe a minimum; train further, or check that l2 is what the model was "
            "trained with.",
            ConvergenceWarning,
            stacklevel=3,
        )
