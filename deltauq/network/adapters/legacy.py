"""Models of `tf_keras`, the Keras before version 3; never imported here."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from deltauq.network.adapters.adapter import (
    Values,
    decay_of,
    dtypes_of_layers,
    own_loss,
    with_explicit_reduction,
)
from deltauq.network.adapters.files import ModelFile
from deltauq.network.adapters.modules import TensorFlowAdapter, TensorFlowVariable
from deltauq.network.graph import read_trace

__all__ = ["LegacyKerasAdapter"]

#: Where `tf_keras` makes the penalty on a weight.
_OF_WEIGHT = "Layer._handle_weight_regularization."


class LegacyKerasAdapter(TensorFlowAdapter):
    """Adapter of a `tf_keras` model; its variables are named as they are, without the ":0".

    Args:
        model: the model.
        package: `tf_keras`.
        file: that it comes from, if any.
    """

    def __init__(self, model: Any, package: Any, file: ModelFile | None = None) -> None:
        self._package = package
        self._layers = list(model._flatten_layers())
        penalties, self._own_terms = _penalties(self._layers)

        def named(variables: list[Any]) -> list[TensorFlowVariable]:
            return [
                TensorFlowVariable(v, v.name.removesuffix(":0"), penalties.get(id(v)))
                for v in variables
            ]

        super().__init__(
            model,
            named(model.trainable_variables),
            named(model.non_trainable_variables),
            model.call,
        )
        self.compilation = (file and file.compilation) or _Compilation(model, package)
        self.opened_by = file.opened_by if file else None

    def dtypes_of_layers(self) -> dict[str, str]:
        """The precision in which each layer of the model computes, by the layer's name."""
        containers = (self._package.layers.InputLayer, self._package.Model)
        return dtypes_of_layers(self._layers, containers)

    def terms_added(self, values: Values, x: Any) -> list[str]:
        """Names of layers with an activity regularizer or `add_loss`.

        The model is traced in training mode, not run.
        """

        def read(x: Any) -> list[str]:
            with self.replaced(values):
                return self._run(x, training=True)[1]

        return self._own_terms + read_trace(read, x)

    def run(self, x: Any, *, training: bool = False) -> Any:
        """Call the model with the values that its variables hold."""
        return self._run(x, training=training)[0]

    def _run(self, x: Any, *, training: bool) -> tuple[Any, list[str]]:
        """The output, and the layers that add a loss; the losses of the user's last call stay."""
        before = [layer._eager_losses for layer in self._layers]
        try:
            output = super().run(x, training=training)
            return output, [layer.name for layer in self._layers if layer._eager_losses]
        finally:
            for layer, losses in zip(self._layers, before, strict=True):
                layer._thread_local._eager_losses = losses


def _penalties(layers: list[Any]) -> tuple[dict[int, Any], list[str]]:
    """Regularizers by the `id` of their variable, and layers whose loss is something else."""
    penalties: dict[int, Any] = {}
    others: list[str] = []
    for layer in layers:
        for loss in layer._callable_losses:
            # A penalty on a weight is its regularizer, in a closure, applied to the variable.
            term: Any = loss.args[0] if isinstance(loss, functools.partial) and loss.args else None
            function: Any = getattr(term, "func", None)
            if getattr(function, "__qualname__", "").startswith(_OF_WEIGHT):
                held = inspect.getclosurevars(function).nonlocals
                penalties[id(term.args[0])] = held["regularizer"]
            else:
                others.append(layer.name)
    return penalties, others


class _Compilation:
    """What a model was compiled with, written as Keras 3 writes it."""

    def __init__(self, model: Any, package: Any) -> None:
        self._losses = package.losses
        settings = getattr(getattr(model, "_compile_config", None), "config", None)
        self._settings: dict[str, Any] = settings or {"loss": getattr(model, "loss", None)}
        self.compiled = bool(model._is_compiled)
        self.weight_decay = decay_of(model)

    def get_compile_config(self) -> dict[str, Any]:
        """The loss and its weights."""
        weights = self._settings.get("loss_weights")
        loss = self._settings.get("loss")
        written = own_loss(loss, self._losses) or _written(loss)
        return {"loss": written, "loss_weights": weights}


def _written(loss: Any) -> Any:
    """A loss as Keras 3 writes it."""
    if hasattr(loss, "get_config"):
        config = dict(loss.get_config())
        return with_explicit_reduction({"class_name": type(loss).__name__, "config": config})
    if callable(loss):
        return {"class_name": "function", "config": loss.__name__}
    return loss
