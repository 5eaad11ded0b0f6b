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
    from deltauq.callback import DeltaUncertainty
    from deltauq.classifier import DeltaClassifier
    from deltauq.comparison import Comparison, compare
    from deltauq.data import Batches
    from deltauq.delta import DeltaMethod
    from deltauq.diagnosis import Diagnosis, diagnose
    from deltauq.errors import ConvergenceWarning, DeltaUQError
    from deltauq.network import Network
    from deltauq.prediction import Prediction
    from deltauq.regressor import DeltaRegressor

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
    "Comparison": "comparison",
    "ConvergenceWarning": "errors",
    "DeltaClassifier": "classifier",
    "DeltaMethod": "delta",
    "DeltaRegressor": "regressor",
    "DeltaUQError": "errors",
    "DeltaUncertainty": "callback",
    "Diagnosis": "diagnosis",
    "Network": "network",
    "Prediction": "prediction",
    "compare": "comparison",
    "diagnose": "diagnosis",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'deltauq' has no attribute {name!r}")
    if name in _HOME:
        return getattr(importlib.import_module(f"deltauq.{_HOME[name]}"), name)
    return importlib.import_module(f"deltauq.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
