"""`DeltaUncertainty`: a Keras callback that computes the curvature when training ends."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from deltauq.data.training import TrainingData
from deltauq.delta.delta_method import DeltaMethod
from deltauq.delta.rates import check_before_training
from deltauq.linalg import relative_width
from deltauq.network.network import Network
from deltauq.prediction import Estimate

__all__ = ["DeltaUncertainty"]


class DeltaUncertainty(keras.callbacks.Callback):
    """Fit the Delta method at the end of `fit`, and log the uncertainty on validation inputs.

    The model is read and not changed. `delta_` keeps the weights it was fitted at: training that
    goes on leaves it as it is, until the end of the next `fit` replaces it. Put this callback after
    those that change weights at the end, such as `EarlyStopping(restore_best_weights=True)`.

    With `x_val`, the end of training logs, in `logs` and in the `History` that `fit` returns,

    - `val_mean_score`: mean of the validation inputs' scores, see `Prediction.score`;
    - `val_std_width`: median relative width of the bounds of their standard errors, where the
      curvature was computed with bounds.

    They belong to the last epoch; `History` holds NaN for those before.

    Args:
        x: the training inputs, or a dataset, as `DeltaMethod.fit` takes them.
        y: their labels; None beside a dataset.
        sample_weight: their weights, or None; the option `weights` says what they are.
        class_weight: class number -> weight, or None.
        calibration: inputs such as will be predicted, without labels, that are not in x, as
            `DeltaMethod.fit` takes them; None takes some of x.
        x_val: validation inputs as `DeltaMethod.predict` takes them, without labels (of a dataset
            of pairs `dataset.map(lambda x, y: x)`); None logs nothing.
        verbose: 0 is silent, 1 shows a progress bar and a line, 2 a line; None takes that of `fit`.
        **options: all settings of `DeltaMethod`, such as `curvature="ggn"`, `l2=1e-3` or
            `memory_limit="8GiB"`.

    Attributes:
        delta_: the fitted `DeltaMethod`; None before training has ended.

    >>> x = np.random.default_rng(0).normal(size=(60, 2))
    >>> y = (x[:, 0] > 0).astype(int)
    >>> l2 = keras.regularizers.L2(0.05)
    >>> layers = [keras.layers.Dense(2, kernel_regularizer=l2, bias_regularizer=l2)]
    >>> model = keras.Sequential([keras.Input((2,)), *layers])
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile(keras.optimizers.SGD(2.0), loss)
    >>> uncertainty = DeltaUncertainty(x, y, x_val=x[:10], curvature="ggn")
    >>> history = model.fit(x, y, batch_size=60, epochs=10, verbose=0, callbacks=[uncertainty])
    >>> bool(history.history["val_mean_score"][-1] > 0)
    True
    >>> uncertainty.delta_.predict(x[:10]).std.shape
    (10, 2)
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        *,
        calibration: Any = None,
        x_val: Any = None,
        verbose: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.training = TrainingData(x, y, sample_weight, class_weight)
        self.calibration = calibration
        self.x_val = x_val
        self.verbose = verbose
        self.options = options
        self._checked = False
        self.delta_: DeltaMethod | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuse before training what could only be refused after hours of it."""
        self.delta_ = None
        self._checked = False
        self._check()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Refuse what cannot be used of a model that only its first batch has built."""
        self._check()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Compute the curvature, and predict the validation inputs."""
        delta = self._delta_method()
        self.delta_ = delta.fit(*self.training, calibration=self.calibration)
        found = {} if self.x_val is None else _figures(delta.predict(self.x_val))
        if logs is not None:
            logs.update(found)
        history = getattr(self.model, "history", None)
        if history is not None:
            _write_last(history.history, found)
        if self._verbosity() > 0:
            print(_line(delta, found))

    def _check(self) -> None:
        if self._checked:
            return
        settings = self._delta_method().settings
        if self.calibration is not None:
            settings.check_calibration()
        self._checked = bool(self.model.built)
        if self._checked:
            check_before_training(Network(self.model, layers=settings.layers), settings)

    def _delta_method(self) -> DeltaMethod:
        return DeltaMethod(self.model, **{"progress": self._verbosity() == 1, **self.options})

    def _verbosity(self) -> int:
        verbose = self.params.get("verbose", 0) if self.verbose is None else self.verbose
        return 1 if verbose == "auto" else int(verbose)


def _figures(prediction: Estimate) -> dict[str, float]:
    prediction = prediction.unmasked
    figures = {"val_mean_score": float(np.mean(prediction.score))}
    if prediction.std_limits is not None:
        figures["val_std_width"] = float(np.median(relative_width(*prediction.std_bounds)))
    return figures


def _write_last(history: dict[str, list[float]], figures: dict[str, float]) -> None:
    """Add figures of the last epoch, in lists as long as the others, so that a frame takes them."""
    n_epochs = max(map(len, history.values()), default=1)
    for name, figure in figures.items():
        values = history.setdefault(name, [])
        values.extend([math.nan] * (n_epochs - 1 - len(values)))
        values.append(figure)


def _line(delta: DeltaMethod, figures: dict[str, float]) -> str:
    kept = "exact" if delta.is_exact else f"{delta.eigenpairs.rank} eigenpairs"
    parts = [f"{delta.curvature}: {kept} by {delta.route}", f"{delta.fit_seconds:.0f}s"]
    return " - ".join(parts + [f"{name}: {value:.4g}" for name, value in figures.items()])
