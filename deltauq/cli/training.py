"""Training a network for a table, where the user has no model."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.cli.encoding import numbers_as_text
from deltauq.cli.opening import as_names
from deltauq.data.arrays import as_numbers, check_finite, empty_error
from deltauq.errors import InvalidInputError

if TYPE_CHECKING:
    import keras
    from sklearn.preprocessing import StandardScaler

__all__ = ["Trained", "train"]

Array = npt.NDArray[Any]

#: L2 rates that are tried, and how far each training goes for it.
_RATES, _COARSE = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1], 1e-2

#: Parts of the data of which each is held out once.
_FOLDS = 3

#: More whole numbers than this are more likely counts of something than classes.
_MANY = 50


@dataclass(frozen=True)
class Trained:
    """A network that takes the table's own numbers, trained to a minimum of its cost.

    Attributes:
        model: `keras.Sequential` on inputs that are not scaled.
        likelihood: for `DeltaMethod`.
        classes: names of the classes in the order of the outputs, or None for numbers.
        verdict: on the training: whether it reached the minimum.
        l2: the rate it was trained with.
        score: accuracy on the training data, or R^2 of numbers.
    """

    model: Any
    likelihood: Any
    classes: tuple[str, ...] | None
    verdict: str
    l2: float
    score: float


def train(
    x: Any, y: Array, weight: Array | None, *, likelihood: str, settings: dict[str, Any]
) -> Trained:
    """Train a dense network on scaled inputs, its L2 rate chosen where it is not given.

    Args:
        x: inputs `[N, F]`.
        y: labels.
        weight: of the examples, or None.
        likelihood: "gaussian" for numbers; otherwise the labels are classes.
        settings: of the estimator: hidden_units, random_state, and l2, which is chosen by
            cross-validation where it is not given.

    Raises:
        InvalidInputError: inputs or labels that no such network can be trained on.
    """
    from sklearn.preprocessing import StandardScaler

    from deltauq.estimators.classifier import DeltaClassifier
    from deltauq.estimators.regressor import DeltaRegressor
    from deltauq.likelihoods import Categorical

    x = _features(x)
    scaler = StandardScaler().fit(x)
    scaled = scaler.transform(x)
    of_numbers = likelihood == "gaussian"
    labels = _numbers(y) if of_numbers else _class_names(y, likelihood)
    # The curvature is computed afterwards, of the whole network, the scaling included.
    kind: Any = DeltaRegressor if of_numbers else DeltaClassifier
    estimator = kind(**settings, rank=1, bounds=False, progress=False)
    if "l2" not in settings:
        estimator.set_params(l2=_best_l2(estimator, scaled, labels, weight))
    estimator.fit(scaled, labels, weight)
    classes = None if of_numbers else tuple(str(name) for name in estimator.classes_)
    return Trained(
        model=_on_raw_inputs(estimator.model_, scaler),
        likelihood="gaussian" if classes is None else Categorical(classes=classes),
        classes=classes,
        verdict=estimator.verdict_,
        l2=estimator.l2,
        score=float(estimator.score(scaled, labels, weight)),
    )


def _best_l2(estimator: Any, x: Array, y: Array, weight: Array | None) -> float:
    """The L2 rate by cross-validation, by the likelihood of held-out labels or by R^2.

    Raises:
        InvalidInputError: data too few or too much alike to be divided.
    """
    from sklearn.base import clone, is_classifier
    from sklearn.model_selection import GridSearchCV

    scoring = "neg_log_loss" if is_classifier(estimator) else "r2"
    # A coarser minimum than the last one will do for a choice.
    coarse = clone(estimator).set_params(tol=_COARSE)
    search = GridSearchCV(coarse, {"l2": _RATES}, scoring=scoring, cv=_FOLDS, refit=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the folds; those of the last training are shown
        try:
            search.fit(x, y, sample_weight=weight)
        except ValueError as error:
            raise InvalidInputError(
                "the L2 rate cannot be chosen by cross-validation",
                expected=f"data that can be divided into {_FOLDS} parts, each with every class",
                received=f"{len(y)} rows, at which it says: {str(error).strip().splitlines()[-1]}",
                remedy="give the rate, such as l2=0.1",
            ) from error
    return float(search.best_params_["l2"])


def _on_raw_inputs(model: keras.Model, scaler: StandardScaler) -> keras.Sequential:
    """The trained network behind a layer that scales its inputs."""
    import keras

    n_features = len(scaler.mean_)
    scaling = keras.layers.Normalization(
        mean=scaler.mean_, variance=scaler.scale_**2, dtype="float64"
    )
    return keras.Sequential(
        [keras.Input((n_features,), dtype="float64"), scaling, *model.layers], name="network"
    )


def _features(x: Any) -> Array:
    """Inputs as float64 `[N, F]`, or `InvalidInputError` where they are no rows of numbers."""
    if isinstance(x, dict) or np.ndim(x) != 2:
        raise InvalidInputError(
            "a network can be trained here on rows of numbers only",
            expected="a table, or one array [N, F]",
            received="several inputs" if isinstance(x, dict) else f"shape {list(np.shape(x))}",
            remedy="train your own model and pass --model",
        )
    rows = as_numbers(x).astype(np.float64)
    check_finite("x", rows)
    if not len(rows):
        raise empty_error("no row")
    return rows


def _numbers(y: Array) -> Array:
    """Labels that are numbers, or `InvalidInputError` where they are text."""
    if y.dtype.kind not in "fiub":
        raise InvalidInputError(
            "the labels are text, and a regression is of numbers",
            expected="numbers such as 1234.5, without commas, signs and units",
            received=f"text, such as {str(y[0])!r}",
            remedy="write them so; or leave out likelihood='gaussian' where they are classes",
        )
    return y


def _class_names(y: Array, likelihood: str) -> Array:
    """Labels as names of classes, or `InvalidInputError` where they look like numbers."""
    if y.ndim > 1 or likelihood not in ("auto", "categorical", "binary"):
        raise InvalidInputError(
            "a network can be trained here for one label an example",
            expected="--likelihood auto or gaussian, and one column of labels",
            received=f"--likelihood {likelihood}, labels of shape {list(y.shape)}",
            remedy="train your own model and pass --model",
        )
    whole = y.dtype.kind != "f" or bool(np.all(y == np.round(y)))
    numbers = y.dtype.kind in "fiu" and likelihood != "categorical"
    text = y.dtype.kind not in "fiub" and likelihood != "categorical"
    written = numbers_as_text(y.astype(str).tolist()) if text else None
    if not whole or written or (numbers and len(np.unique(y)) > _MANY):
        raise InvalidInputError(
            "the labels look like numbers, not like classes",
            expected=f"names, or at most {_MANY} different whole numbers",
            received=written or f"{len(np.unique(y))} different values, such as {str(y[0])!r}",
            remedy="pass --likelihood gaussian for a regression, with labels such as 1234.5"
            + ("; --likelihood categorical says that they are classes" if whole else ""),
        )
    return as_names(y)
