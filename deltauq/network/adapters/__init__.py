"""Models of every origin, called in one way: with tensors in place of their variables.

A Keras 3 model has a stateless call. A `tf_keras` model and a `tf.Module` are traced with their
variables' reads replaced. Nothing else of the package knows the difference.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import keras
import tensorflow as tf

from deltauq.errors import InvalidInputError, UnsupportedModelError
from deltauq.network.adapters.adapter import Adapter, Values
from deltauq.network.adapters.files import open_model
from deltauq.network.adapters.keras3 import KerasAdapter
from deltauq.network.adapters.legacy import LegacyKerasAdapter
from deltauq.network.adapters.modules import ModuleAdapter, TensorFlowVariable
from deltauq.network.adapters.substitution import state_use

__all__ = ["Adapter", "TensorFlowVariable", "Values", "adapt", "state_use"]


def adapt(model: Any) -> Adapter:
    """Find the adapter that calls a model, or the model of a Keras file.

    Args:
        model: a Keras 3 or `tf_keras` model, a `tf.Module` with a call, or the path of a file of
            either Keras.

    Raises:
        UnsupportedModelError: nothing that can be called with other values of its variables, or
            quantized weights.
        InvalidInputError: the model has no variables yet, or its file cannot be opened.
    """
    file = open_model(model) if isinstance(model, (str, Path)) else None
    model = model if file is None else file.model
    legacy = sys.modules.get("tf_keras")  # it is loaded if the model is one of its
    if isinstance(model, keras.Model):
        _check_built(model)
        return KerasAdapter(model, file)
    if legacy is not None and isinstance(model, legacy.Model):
        _check_built(model)
        return LegacyKerasAdapter(model, legacy, file)
    if isinstance(model, tf.Module) and callable(model):
        _check_built(model)
        return ModuleAdapter(model)
    return _refuse(model)


def _refuse(model: Any) -> NoReturn:
    """Refuse what is no model, and say where one is in a wrapper, such as one for scikit-learn."""
    remedy = (
        "put a layer into keras.Sequential, and a function into the __call__ of a tf.Module that "
        "holds its variables"
    )
    for name in ("model_", "model"):
        if isinstance(getattr(model, name, None), (keras.Model, tf.Module)):
            remedy = f"pass the model that it wraps, which is its attribute {name!r}"
            break
    raise UnsupportedModelError(
        "the model is not one that can be linearised",
        expected="a built keras.Model, a tf_keras.Model, a tf.Module with a call, or a file",
        received=f"{type(model).__module__}.{type(model).__qualname__}",
        remedy=remedy,
    )


def _check_built(model: Any) -> None:
    """Refuse a Keras model whose variables were not made yet."""
    variables = model.variables if getattr(model, "built", True) else []
    if not variables:
        raise InvalidInputError(
            "the model is not built",
            expected="a trained model whose variables exist",
            received=f"{model.name!r} with {len(variables)} variables",
            remedy="train or load it first, or call it once on a batch",
        )
