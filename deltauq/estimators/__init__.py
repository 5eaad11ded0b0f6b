"""Other doors to the Delta method: scikit-learn estimators that train, and a Keras callback."""

from deltauq.estimators.callback import DeltaUncertainty
from deltauq.estimators.classifier import DeltaClassifier
from deltauq.estimators.regressor import DeltaRegressor

__all__ = ["DeltaClassifier", "DeltaRegressor", "DeltaUncertainty"]
