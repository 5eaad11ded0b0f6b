"""`DeltaClassifier`: a scikit-learn classifier whose probabilities come with standard errors."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import scipy.special
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from deltauq.data.training import TrainingData
from deltauq.errors import InvalidInputError
from deltauq.estimators.base import Array, DeltaEstimator
from deltauq.likelihoods import Categorical
from deltauq.prediction import Prediction
from deltauq.runtime.faults import faults_told

__all__ = ["DeltaClassifier"]


class DeltaClassifier(ClassifierMixin, DeltaEstimator):
    """A dense network for classes, trained to a stationary point, with the Delta method on top.

    Its cost is the mean cross-entropy plus L2. The arguments, and the attributes of a fitted one,
    are those of `DeltaEstimator`; besides:

    Attributes:
        classes_: the labels, in the order of the probabilities' columns.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = DeltaClassifier(hidden_units=(8,), l2=1e-2, progress=False).fit(X, y)
    >>> clf.predict_uncertainty(X[:5]).std.shape
    (5, 3)
    """

    @faults_told("training")
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, calibration: Any = None
    ) -> DeltaClassifier:
        """Train the network and compute the curvature.

        Args:
            X: features `[N, n_features]`.
            y: labels `[N]` of any kind scikit-learn takes.
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
        X, y = validate_data(self, X, y, dtype=self.dtype)
        calibration = self._validate_calibration(calibration)
        check_classification_targets(y)
        encoder = LabelEncoder().fit(y)
        self.classes_ = encoder.classes_
        if len(self.classes_) < 2:
            raise InvalidInputError(
                "y holds one class only",
                expected="two classes or more",
                received=f"{list(self.classes_)}",
            )
        training = TrainingData(X, encoder.transform(y), sample_weight)
        self.model_ = self._build(len(self.classes_), l2=self.l2, seed=seed)
        self._train_adam(self.model_, Categorical(), training, seed=seed)
        self._polish(self.model_, Categorical(), training, l2=self.l2)
        self._compute_curvature(
            "categorical", training, l2=self.l2, seed=seed, calibration=calibration
        )
        return self

    def predict(self, X: Any) -> Array:
        """The most probable label of each row, `[N]`."""
        best = np.argmax(self.predict_proba(X), axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: Any) -> Array:
        """Class probabilities `[N, C]`, columns in the order of `classes_`."""
        X = self._validate_inputs(X)
        return np.asarray(scipy.special.softmax(self._outputs(self.model_, X), axis=1))

    def predict_uncertainty(self, X: Any) -> Prediction:
        """Predict class probabilities with their covariances, classes numbered as in `classes_`."""
        return cast(Prediction, super().predict_uncertainty(X))
