"""Honest error bars for trained Keras classifiers: epistemic uncertainty by the Delta method.

Importing the package loads nothing heavy: every public name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltauq import (
        curvature,
        data,
        errors,
        likelihoods,
        linalg,
        network,
        plots,
        report,
    )
    from deltauq.data import Batches
    from deltauq.delta.delta_method import DeltaMethod
    from deltauq.errors import ConvergenceWarning, DeltaUQError
    from deltauq.estimators import DeltaClassifier, DeltaRegressor, DeltaUncertainty
    from deltauq.evaluation.comparison import Comparison, compare
    from deltauq.evaluation.diagnosis import Diagnosis, diagnose
    from deltauq.network import Network
    from deltauq.prediction import Prediction

__version__ = "0.1.0"

__all__ = [
    "Batches",
    "Comparison",
    "ConvergenceWarning",
    "DeltaClassifier",
    "DeltaMethod",
    "DeltaRegressor",
    "DeltaUQError",
    "DeltaUncertainty",
    "Diagnosis",
    "Network",
    "Prediction",
    "compare",
    "curvature",
    "data",
    "diagnose",
    "errors",
    "likelihoods",
    "linalg",
    "network",
    "plots",
    "report",
]

#: Where each public name that is not a module of its own lives.
_HOME = {
    "Batches": "data",
    "Comparison": "evaluation.comparison",
    "ConvergenceWarning": "errors",
    "DeltaClassifier": "estimators",
    "DeltaMethod": "delta.delta_method",
    "DeltaRegressor": "estimators",
    "DeltaUQError": "errors",
    "DeltaUncertainty": "estimators",
    "Diagnosis": "evaluation.diagnosis",
    "Network": "network",
    "Prediction": "prediction",
    "compare": "evaluation.comparison",
    "diagnose": "evaluation.diagnosis",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'deltauq' has no attribute {name!r}")
    if name in _HOME:
        return getattr(importlib.import_module(f"deltauq.{_HOME[name]}"), name)
    return importlib.import_module(f"deltauq.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
