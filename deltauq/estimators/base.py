"""What the scikit-learn estimators share: settings, training, the curvature, pickling."""

from __future__ import annotations

import numbers
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from deltauq.curvature.cost import Cost, Stationarity, per_parameter
from deltauq.curvature.eigenpairs import Rank
from deltauq.curvature.minimization import Verdict, polish
from deltauq.curvature.parameter_covariance import NegativeCurvature
from deltauq.curvature.registry import Curvature
from deltauq.curvature.sandwich import Meat
from deltauq.curvature.tails import Tail
from deltauq.data.batches import Batches
from deltauq.data.inputs import InputBatches
from deltauq.data.training import TrainingData
from deltauq.data.weights import WeightKind, loss_factors
from deltauq.data.work import at_work
from deltauq.delta.delta_method import DeltaMethod
from deltauq.delta.routes import RouteName
from deltauq.delta.settings import Settings
from deltauq.errors import (
    ConvergenceWarning,
    InvalidInputError,
    check_choice,
    check_count,
    is_number,
    warn,
)
from deltauq.estimators.networks import build_mlp, train_adam
from deltauq.likelihoods import Likelihood
from deltauq.network.l2 import l2_rates
from deltauq.network.network import Network
from deltauq.network.probe_rows import probe_rows
from deltauq.prediction import Estimate
from deltauq.runtime.threads import refuse_lost_runtime
from deltauq.runtime.whole_files import temporary_folder

__all__ = ["Array", "DeltaEstimator"]

Array = npt.NDArray[Any]

#: Rows a step where no gradient is taken for a single batch.
_ROWS = 4096


class DeltaEstimator(BaseEstimator):
    """A dense network trained to a stationary point, with the Delta method on top.

    `fit` builds the network with L2 on every weight, trains it with Adam and then with L-BFGS on
    the whole cost until the gradient's norm is below `tol` times that of its larger part, and
    computes the curvature. Features are taken as they come: scale them before, as for any network
    (`make_pipeline(StandardScaler(), ...)`).

    A fitted estimator is pickled as the file that `DeltaMethod.save` writes, in Keras' own format
    and without code; it then predicts as before, and what needs the training data again
    (`delta_.refine`) asks for a new fit.

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
        weights: what `sample_weight` is, as in `DeltaMethod`; training minimises the same cost.
        bounds: as in `DeltaMethod`.
        memory_limit: as in `DeltaMethod`; of the curvature and of `predict_uncertainty`.
        vectors_dir: as in `DeltaMethod`.
        route: as in `DeltaMethod`.
        epochs: of Adam; 0 trains with L-BFGS alone.
        batch_size: of Adam.
        learning_rate: of Adam.
        tol: on the gradient norm relative to its larger part (data or L2).
        max_iter: of L-BFGS.
        dtype: "float64" reaches small gradients, "float32" is faster.
        random_state: seed of the weights, the shuffling and the eigenvalue solvers; an integer,
            a `numpy.random.RandomState`, or None for a new one each time.
        progress: show progress bars for work over a second.

    Attributes:
        n_features_in_: columns of X.
        feature_names_in_: their names, where X was a frame with names.
        model_: the trained `keras.Sequential`.
        delta_: the fitted `DeltaMethod`.
        stationarity_: gradient norm of the cost and of its parts at the end of training.
        verdict_: "stationary", "stopped at a kink" or "not converged".
        n_iter_: iterations of L-BFGS.
    """

    model_: keras.Sequential
    delta_: DeltaMethod
    stationarity_: Stationarity
    verdict_: Verdict
    n_iter_: int

    def __init__(
        self,
        hidden_units: tuple[int, ...] = (64, 64),
        activation: str = "tanh",
        l2: float = 1e-3,
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
        self.hidden_units = hidden_units
        self.activation = activation
        self.l2 = l2
        self.curvature = curvature
        self.rank = rank
        self.tail = tail
        self.rank_tol = rank_tol
        self.negative_curvature = negative_curvature
        self.meat = meat
        self.weights = weights
        self.bounds = bounds
        self.memory_limit = memory_limit
        self.vectors_dir = vectors_dir
        self.route = route
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.tol = tol
        self.max_iter = max_iter
        self.dtype = dtype
        self.random_state = random_state
        self.progress = progress

    def predict_uncertainty(self, X: Any) -> Estimate:
        """Predict with standard errors: `DeltaMethod.predict` of the validated features."""
        X = self._validate_inputs(X)
        return self.delta_.predict(X)

    def _check_settings(self) -> int:
        """Refuse settings that cannot be trained with; return the seed."""
        refuse_lost_runtime()
        settings: dict[str, Any] = self.get_params(deep=False)
        check_choice("dtype", self.dtype, ("float32", "float64"))
        units = settings["hidden_units"]
        _check("hidden_units", units, isinstance(units, (tuple, list)), "a tuple of widths")
        for width in units:
            fits = check_count("hidden_units", width) < 2**31
            _check("hidden_units", units, fits, "widths that a layer can have, below 2^31")
        for name in ("batch_size", "max_iter"):
            check_count(name, settings[name])
        check_count("epochs", settings["epochs"], at_least=0)
        for name in ("l2", "tol", "learning_rate"):
            value = settings[name]
            number = is_number(value) and 0 <= float(value) < np.inf
            _check(name, value, number, "a finite number >= 0")
        state = settings["random_state"]
        is_seed = isinstance(state, numbers.Integral)
        seed = int(state if is_seed else check_random_state(state).randint(2**31 - 1))
        self._settings_of_curvature(seed=seed)  # which check themselves, before any training
        return seed

    def _settings_of_curvature(self, **others: Any) -> Settings:
        """The parameters that `DeltaMethod` takes too; `batch_size` is that of Adam here."""
        return Settings.among(self.get_params(deep=False) | {"batch_size": None} | others)

    def _validate_inputs(self, X: Any) -> Array:
        check_is_fitted(self, "delta_")
        refuse_lost_runtime()
        return np.asarray(validate_data(self, X, reset=False, dtype=self.dtype))

    def _outputs(self, model: keras.Sequential, X: Array) -> Array:
        """A network's outputs for validated features, `[N, C]`."""
        batches = InputBatches(X, dtype=self.dtype, batch_size=_ROWS)
        return np.concatenate([model(batch, training=False).numpy() for batch in batches])

    def _build(self, n_outputs: int, *, l2: float, seed: int) -> keras.Sequential:
        """An untrained network with the rate `l2` on every kernel and bias."""
        return build_mlp(
            self.n_features_in_,
            n_outputs,
            hidden_units=tuple(self.hidden_units),
            activation=self.activation,
            l2=l2,
            dtype=self.dtype,
            seed=seed,
        )

    def _train_adam(
        self,
        model: keras.Sequential,
        likelihood: Likelihood,
        training: TrainingData,
        *,
        seed: int,
    ) -> None:
        """Train a network by Adam on features, labels and weights."""
        total = self.epochs * len(training.x)
        with at_work("training: Adam", total=total, enabled=self.progress) as (shown, _):
            train_adam(
                model,
                likelihood,
                training.x,
                training.y,
                loss_factors(training.sample_weight, len(training.x), self.weights),
                epochs=self.epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                seed=seed,
                on_epoch=shown.advance,
            )

    def _polish(
        self,
        model: keras.Sequential,
        likelihood: Likelihood,
        training: TrainingData,
        *,
        l2: float,
    ) -> None:
        """Bring a network to a minimum of the mean loss plus (l2 / 2) * sum w^2."""
        network = Network(model)
        data = Batches(
            *training,
            likelihood=likelihood,
            n_outputs=model.output_shape[-1],
            dtype=self.dtype,
            batch_size=_ROWS,
            weights=self.weights,
        )
        rates = per_parameter(network.parameters, l2_rates(network.variables, l2))
        inspection = network.inspect(probe_rows(network, training.x))
        with at_work("training: L-BFGS", enabled=self.progress) as (_, listener):
            polished = polish(
                Cost(network, likelihood, data.with_listener(listener), rates),
                network.params.numpy(),
                tolerance=self.tol,
                max_iterations=self.max_iter,
                kinks=inspection.kinks,
            )
        values = network.unflatten(tf.constant(polished.params, self.dtype))
        for variable, value in zip(network.variables, values, strict=True):
            variable.assign(value)
        self.stationarity_ = polished.stationarity
        self.verdict_ = polished.verdict
        self.n_iter_ = polished.iterations

    def _validate_calibration(self, calibration: Any) -> Array | None:
        """Inputs that a tail is to be measured on, refused before a training that is for nothing.

        The features of training must be known.
        """
        if calibration is None:
            return None
        self._settings_of_curvature().check_calibration()
        try:
            return np.asarray(validate_data(self, calibration, reset=False, dtype=self.dtype))
        except ValueError as error:
            raise InvalidInputError(
                "calibration cannot be used",
                expected="rows of the features that X has",
                received=f"calibration, of which scikit-learn says: {error}",
            ) from error

    def _compute_curvature(
        self,
        likelihood: str | Likelihood,
        training: TrainingData,
        *,
        l2: float,
        seed: int,
        calibration: Array | None = None,
    ) -> None:
        """The Delta method of the trained `model_`.

        The L2 rate is given, because Keras' own training, which the regularizers are read for,
        takes the mean over rows where this one takes it over N.
        """
        if self.verdict_ == "not converged":
            warn(
                f"training did not converge: after {self.n_iter_} iterations of L-BFGS the "
                f"gradient norm is {self.stationarity_.ratio:.2g} of its larger part, above "
                f"tol={self.tol:g}. Raise max_iter, or use dtype='float64'.",
                ConvergenceWarning,
            )
        settings = self._settings_of_curvature(l2=l2, likelihood=likelihood, seed=seed)
        delta = DeltaMethod(self.model_, **settings.as_arguments())
        self.delta_ = delta.fit(*training, calibration=calibration)

    def __getstate__(self) -> dict[str, Any]:
        """The state with the file of `DeltaMethod.save` in place of TensorFlow's objects."""
        state = dict(super().__getstate__())
        if "delta_" in state:
            del state["model_"]
            with temporary_folder() as folder:
                path = folder / "fitted.deltauq"
                state["delta_"].save(path)
                state["delta_"] = path.read_bytes()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state of `__getstate__`, and make TensorFlow's objects of the file in it.

        What the file does not keep, because it belongs to a process, is that of the parameters.
        """
        super().__setstate__(state)
        if "delta_" in state:
            with temporary_folder() as folder:
                path = folder / "fitted.deltauq"
                path.write_bytes(state["delta_"])
                self.delta_ = DeltaMethod.load(path)
            self.delta_.memory_limit = state.get("memory_limit")
            self.delta_.vectors_dir = state.get("vectors_dir")
            self.model_ = self.delta_.model


def _check(name: str, value: Any, valid: bool, expected: str) -> None:
    if not valid:
        raise InvalidInputError(
            f"{name} cannot be used", expected=expected, received=f"{name}={value!r}"
        )
