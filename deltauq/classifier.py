"""`DeltaClassifier`: a scikit-learn classifier whose probabilities come with standard errors."""

from __future__ import annotations

import numbers
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.special
import tensorflow as tf
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from deltauq.cost import Cost, Stationarity, per_parameter
from deltauq.covariance import NegativeCurvature, Tail, check_choice
from deltauq.data import Batches
from deltauq.delta import Curvature, DeltaMethod
from deltauq.eigen import Rank
from deltauq.errors import ConvergenceWarning, InvalidInputError
from deltauq.inputs import InputBatches
from deltauq.likelihoods import Categorical
from deltauq.network import Network
from deltauq.prediction import Prediction
from deltauq.progress import progress_bar
from deltauq.regularization import l2_rates
from deltauq.sandwich import Meat
from deltauq.training import Polished, Verdict, build_mlp, polish, train_adam

__all__ = ["DeltaClassifier"]

Array = npt.NDArray[Any]


class DeltaClassifier(ClassifierMixin, BaseEstimator):
    """A dense network trained to a stationary point, with the Delta method on top.

    `fit` builds the network with L2 on every weight, trains it with Adam and then with L-BFGS on
    the whole cost until the gradient's norm is below `tol` times that of its larger part, and
    computes the curvature.

    Args:
        hidden_units: widths of the hidden layers.
        activation: a Keras activation. Smooth ones (tanh, softplus, gelu) reach a stationary
            point; relu stops at a kink, which `verdict_` then says.
        l2: lambda on every weight and bias: the cost contains (lambda / 2) * sum w^2.
        curvature: "opg", "ggn", "hessian" or "sandwich", as in `DeltaMethod`.
        rank: as in `DeltaMethod`.
        tail: as in `DeltaMethod`.
        rank_tol: as in `DeltaMethod`.
        negative_curvature: as in `DeltaMethod`.
        meat: as in `DeltaMethod`.
        bounds: as in `DeltaMethod`.
        epochs: of Adam.
        batch_size: of Adam.
        learning_rate: of Adam.
        tol: on the gradient norm relative to its larger part (data or L2).
        max_iter: of L-BFGS.
        dtype: "float64" reaches small gradients, "float32" is faster.
        random_state: seed of the weights, the shuffling and the eigenvalue solvers; an integer,
            a `numpy.random.RandomState`, or None for a new one each time.
        progress: show progress bars for work over a second.

    Attributes:
        classes_: the labels, in the order of the probabilities' columns.
        n_features_in_: columns of X.
        model_: the trained `keras.Sequential`.
        delta_: the fitted `DeltaMethod`.
        stationarity_: gradient norm of the cost and of its parts at the end of training.
        verdict_: "stationary", "stopped at a kink" or "not converged".
        n_iter_: iterations of L-BFGS.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = DeltaClassifier(hidden_units=(8,), l2=1e-2, progress=False).fit(X, y)
    >>> clf.predict_uncertainty(X[:5]).std.shape
    (5, 3)
    """

    def __init__(
        self,
        hidden_units: tuple[int, ...] = (64, 64),
        activation: str = "tanh",
        l2: float = 1e-3,
        curvature: Curvature = "opg",
        rank: Rank = "auto",
        *,
        tail: Tail = "midpoint",
        rank_tol: float = 0.05,
        negative_curvature: NegativeCurvature = "project",
        meat: Meat = "opg",
        bounds: bool = True,
        epochs: int = 30,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        tol: float = 1e-3,
        max_iter: int = 5_000,
        dtype: str = "float64",
        random_state: int | np.random.RandomState | None = 0,
        progress: bool = True,
    ) -> None:
        self.hidden_units = hidden_units
        self.activation = activation
        self.l2 = l2
        self.curvature = curvature
        self.rank = rank
        self.tail = tail
        self.rank_tol = rank_tol
        self.negative_curvature = negative_curvature
        self.meat = meat
        self.bounds = bounds
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.tol = tol
        self.max_iter = max_iter
        self.dtype = dtype
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> DeltaClassifier:
        """Train the network and compute the curvature.

        Args:
            X: features `[N, n_features]`.
            y: labels `[N]` of any kind scikit-learn takes.
            sample_weight: `[N]`, not negative.

        Returns:
            self.
        """
        seed = self._check_settings()
        X, y = validate_data(self, X, y, dtype=self.dtype)
        check_classification_targets(y)
        encoder = LabelEncoder().fit(y)
        self.classes_ = encoder.classes_
        if len(self.classes_) < 2:
            raise InvalidInputError(
                "y holds one class only",
                expected="two classes or more",
                received=f"{list(self.classes_)}",
            )
        weight = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight)
        self._train(X, encoder.transform(y), weight, seed)
        self.delta_ = DeltaMethod(
            self.model_,
            self.curvature,
            rank=self.rank,
            l2=self.l2,
            tail=self.tail,
            rank_tol=self.rank_tol,
            negative_curvature=self.negative_curvature,
            meat=self.meat,
            bounds=self.bounds,
            seed=seed,
            progress=self.progress,
        ).fit(X, encoder.transform(y), weight)
        return self

    def predict(self, X: Any) -> Array:
        """The most probable label of each row, `[N]`."""
        best = np.argmax(self.predict_proba(X), axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: Any) -> Array:
        """Class probabilities `[N, C]`, columns in the order of `classes_`."""
        X = self._validate_inputs(X)
        batches = InputBatches(X, dtype=self.dtype, batch_size=4096)
        logits = [self.model_(batch, training=False).numpy() for batch in batches]
        return np.asarray(scipy.special.softmax(np.concatenate(logits), axis=1))

    def predict_uncertainty(self, X: Any) -> Prediction:
        """Class probabilities with their covariances; classes are numbered as in `classes_`."""
        return self.delta_.predict(self._validate_inputs(X))

    def _check_settings(self) -> int:
        """Refuse settings that cannot be trained with; return the seed."""
        settings: dict[str, Any] = self.get_params(deep=False)
        check_choice("dtype", self.dtype, ("float32", "float64"))
        units = settings["hidden_units"]
        _check("hidden_units", units, isinstance(units, (tuple, list)), "a tuple of widths")
        for width in units:
            _check("hidden_units", units, _is_count(width), "widths that are whole numbers >= 1")
        for name in ("batch_size", "max_iter"):
            _check(name, settings[name], _is_count(settings[name]), "an integer >= 1")
        epochs = settings["epochs"]
        _check("epochs", epochs, epochs == 0 or _is_count(epochs), "an integer >= 0")
        for name in ("l2", "tol", "learning_rate"):
            value = settings[name]
            number = isinstance(value, numbers.Real) and 0 <= float(value) < np.inf
            _check(name, value, number, "a finite number >= 0")
        state = settings["random_state"]
        is_seed = isinstance(state, numbers.Integral)
        return int(state if is_seed else check_random_state(state).randint(2**31 - 1))

    def _validate_inputs(self, X: Any) -> Array:
        check_is_fitted(self, "delta_")
        return np.asarray(validate_data(self, X, reset=False, dtype=self.dtype))

    def _train(self, X: Array, y: Array, weight: Array, seed: int) -> None:
        self.model_ = build_mlp(
            X.shape[1],
            len(self.classes_),
            hidden_units=tuple(self.hidden_units),
            activation=self.activation,
            l2=self.l2,
            dtype=self.dtype,
            seed=seed,
        )
        data = Batches(
            X,
            y,
            weight,
            likelihood=Categorical(),
            n_outputs=len(self.classes_),
            dtype=self.dtype,
            batch_size=4096,
        )
        examples = self.epochs * len(X)
        with progress_bar("training: Adam", total=examples, enabled=self.progress) as advance:
            train_adam(
                self.model_,
                X,
                y,
                weight,
                epochs=self.epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                seed=seed,
                on_epoch=advance,
            )
        with progress_bar("training: L-BFGS", enabled=self.progress) as advance:
            data.on_batch = advance
            polished = self._polish(data)
        self.stationarity_: Stationarity = polished.stationarity
        self.verdict_: Verdict = polished.verdict
        self.n_iter_ = polished.iterations
        if self.verdict_ == "not converged":
            warnings.warn(
                f"training did not converge: after {self.n_iter_} iterations of L-BFGS the "
                f"gradient norm is {self.stationarity_.ratio:.2g} of its larger part, above "
                f"tol={self.tol:g}. Raise max_iter, or use dtype='float64'.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _polish(self, data: Batches) -> Polished:
        network = Network(self.model_)
        rates = per_parameter(network.parameters, l2_rates(network.variables, self.l2))
        inspection = network.inspect(data.probe())
        polished = polish(
            Cost(network, Categorical(), data, rates),
            network.params.numpy(),
            tolerance=self.tol,
            max_iterations=self.max_iter,
            kinks=inspection.kinks,
        )
        for variable, value in zip(
            network.variables,
            network.unflatten(tf.constant(polished.params, self.dtype)),
            strict=True,
        ):
            variable.assign(value)
        return polished


def _is_count(value: Any) -> bool:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and bool(value >= 1)


def _check(name: str, value: Any, valid: bool, expected: str) -> None:
    if not valid:
        raise InvalidInputError(
            f"{name} cannot be used", expected=expected, received=f"{name}={value!r}"
        )
