"""`DeltaRegressor`: a scikit-learn regressor whose numbers come with standard errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import validate_data

from deltauq.curvature.eigenpairs import Rank
from deltauq.curvature.parameter_covariance import NegativeCurvature
from deltauq.curvature.registry import Curvature
from deltauq.curvature.sandwich import Meat
from deltauq.curvature.tails import Tail
from deltauq.data.training import TrainingData
from deltauq.data.weights import WeightKind, loss_factors
from deltauq.delta.routes import RouteName
from deltauq.errors import InvalidInputError
from deltauq.estimators.base import Array, DeltaEstimator
from deltauq.likelihoods import CustomLoss, Gaussian
from deltauq.prediction import RegressionPrediction
from deltauq.runtime.faults import faults_told

__all__ = ["DeltaRegressor"]

#: Times that several outputs are weighed anew by their noise: feasible generalized least squares.
_REWEIGHTINGS = 3

#: Least noise of an output for its weight in the cost, as a share of its variance.
_LEAST_NOISE = 1e-6


class DeltaRegressor(RegressorMixin, MultiOutputMixin, DeltaEstimator):
    """A dense network for numbers, trained to a stationary point, with the Delta method on top.

    y = f(x) + normal noise, its variance estimated for every output. y may have any unit: the
    network's last layer, which has no parameters, turns what the others predict into y's mean and
    standard deviation, so that predictions and their standard errors are in y's own unit and `l2`
    means the same in every unit (no `TransformedTargetRegressor` is needed, whose predictions have
    no standard errors). The cost of one output is its mean square error, in units of y's variance,
    plus L2. With several outputs each counts by one over its noise, found in three rounds; how
    far the last changed it shows in `delta_.stationarity`.

    The arguments, and the attributes of a fitted one, are those of `DeltaEstimator`. Two have other
    defaults: more L2, because the noise of numbers asks for it, and the GGN, which is the Fisher
    information of normal noise. Besides:

    Attributes:
        n_outputs_: columns of y.

    Source: for several outputs A. Zellner, J. Am. Stat. Assoc. 57 (1962) 348.

    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True, scaled=False)
    >>> X = (X - X.mean(axis=0)) / X.std(axis=0)
    >>> reg = DeltaRegressor(hidden_units=(4,), l2=1e-2, progress=False).fit(X, y)
    >>> lower, upper = reg.predict_uncertainty(X[:5]).interval(of="observation")
    >>> upper.shape
    (5, 1)
    """

    def __init__(
        self,
        hidden_units: tuple[int, ...] = (64, 64),
        activation: str = "tanh",
        l2: float = 0.1,
        curvature: Curvature = "ggn",
        rank: Rank = "auto",
        *,
        tail: Tail = "auto",
        rank_tol: float = 0.05,
        negative_curvature: NegativeCurvature = "project",
        meat: Meat = "opg",
        weights: WeightKind = "auto",
        bounds: bool = True,
        memory_limit: int | str | None = None,
        vectors_dir: str | Path | None = None,
        route: RouteName = "auto",
        epochs: int = 30,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        tol: float = 1e-3,
        max_iter: int = 5_000,
        dtype: str = "float64",
        random_state: int | np.random.RandomState | None = 0,
        progress: bool = True,
    ) -> None:
        super().__init__(
            hidden_units,
            activation,
            l2,
            curvature,
            rank,
            tail=tail,
            rank_tol=rank_tol,
            negative_curvature=negative_curvature,
            meat=meat,
            weights=weights,
            bounds=bounds,
            memory_limit=memory_limit,
            vectors_dir=vectors_dir,
            route=route,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            tol=tol,
            max_iter=max_iter,
            dtype=dtype,
            random_state=random_state,
            progress=progress,
        )

    @faults_told("training")
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, calibration: Any = None
    ) -> DeltaRegressor:
        """Train the network and compute the curvature.

        Args:
            X: features `[N, n_features]`.
            y: numbers `[N]` or `[N, C]`.
            sample_weight: `[N]`, not negative; counts or importance, as `weights` says.
            calibration: features of inputs such as will be predicted, that are not in X, prepared
                as X is (a pipeline does not do it); without labels. As in `DeltaMethod.fit`: what
                few eigenpairs leave out is measured on them.

        Returns:
            self.

        Raises:
            InvalidInputError: data or settings that cannot be used, before any training.
        """
        seed = self._check_settings()
        X, y = validate_data(
            self,
            X,
            y,
            dtype=self.dtype,
            multi_output=True,
            y_numeric=True,
            ensure_min_samples=2,
        )
        calibration = self._validate_calibration(calibration)
        weight = loss_factors(sample_weight, len(X), self.weights)
        y = np.asarray(y, np.float64).reshape(len(X), -1)
        self.n_outputs_ = y.shape[1]
        mean = np.average(y, axis=0, weights=weight)
        variance = np.average((y - mean) ** 2, axis=0, weights=weight)
        _refuse_constant(y, variance)
        # Trained on standardised numbers, which differences lose no digits of.
        unit, l2 = np.sqrt(variance), self.l2 * float(np.mean(variance))
        training = TrainingData(X, (y - mean) / unit, sample_weight)
        model = self._build(self.n_outputs_, l2=l2, seed=seed)
        self._train_adam(model, _squares(unit, variance), training, seed=seed)
        self._polish(model, _squares(unit, variance), training, l2=l2)
        for _ in range(_REWEIGHTINGS if self.n_outputs_ > 1 else 0):
            squares = (training.y - self._outputs(model, X)) ** 2
            noise = variance * np.maximum(np.average(squares, axis=0, weights=weight), _LEAST_NOISE)
            self._polish(model, _squares(unit, noise), training, l2=l2)
        model.add(keras.layers.Rescaling(unit, mean, dtype=self.dtype, name="rescaling"))
        self.model_ = model
        training = replace(training, y=y)  # in its own unit, as the whole network predicts it
        self._compute_curvature(
            Gaussian(pooled=False), training, l2=l2, seed=seed, calibration=calibration
        )
        return self

    def predict(self, X: Any) -> Array:
        """The mean of each row, `[N]`, or `[N, C]` where y has several columns."""
        X = self._validate_inputs(X)
        means = self._outputs(self.model_, X)
        return means[:, 0] if self.n_outputs_ == 1 else means

    def predict_uncertainty(self, X: Any) -> RegressionPrediction:
        """Predict means `[N, C]` with their covariances, and the noise of an observation."""
        return cast(RegressionPrediction, super().predict_uncertainty(X))


def _squares(unit: Array, noise: Array) -> CustomLoss:
    """The mean square error, outputs weighed by their mean noise over their own.

    Args:
        unit: of the standardised outputs `[C]`.
        noise: variances `[C]`, in the squares of y's own units as the loss is.
    """
    weights = unit**2 * np.mean(noise) / noise

    def mean_square(z: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        squares = tf.square(z - tf.cast(y, z.dtype))
        return tf.reduce_mean(tf.constant(weights, z.dtype) * squares, axis=1)

    return CustomLoss(mean_square, Gaussian())


def _refuse_constant(y: Array, variance: Array) -> None:
    constant = np.flatnonzero(variance <= (np.finfo(y.dtype).eps * np.abs(y).max(axis=0)) ** 2)
    if constant.size:
        raise InvalidInputError(
            "y does not vary, so there is nothing to learn and no noise to estimate",
            expected="numbers that differ, in rows of positive weight",
            received=f"one value in columns {constant.tolist()}",
        )
