"""Keras 3 models, by their stateless call."""

from __future__ import annotations

from typing import Any

import keras

from deltauq.errors import UnsupportedModelError
from deltauq.network.adapters.adapter import (
    Values,
    WeightDecay,
    decay_of,
    dtypes_of_layers,
    emptied,
    mode_arguments,
    own_loss,
    tables_of,
)
from deltauq.network.adapters.files import ModelFile
from deltauq.network.graph import read_trace

__all__ = ["KerasAdapter"]


class KerasAdapter:
    """Adapter of a Keras 3 model, which is called by its stateless call.

    Args:
        model: the model.
        file: that it comes from, if any.

    Raises:
        UnsupportedModelError: its weights are quantized.
    """

    def __init__(self, model: Any, file: ModelFile | None = None) -> None:
        self.model = model
        self.compilation = (file and file.compilation) or _Compilation(model)
        self.opened_by = file.opened_by if file else None
        self.trainable = list(model.trainable_variables)
        self.non_trainable = list(model.non_trainable_variables)
        self._modes = mode_arguments(model.call)
        _refuse_quantized(model)

    def call(self, values: Values, x: Any) -> tuple[Any, list[Any]]:
        """Output in inference mode for other values, and the new values of `non_trainable`."""
        output, state, _ = self._stateless(values, x, training=False)
        return output, state

    def check(self, values: Values, x: Any) -> None:
        """Accept every call, because Keras vouches for its stateless call."""

    def dtypes_of_layers(self) -> dict[str, str]:
        """The precision in which each layer of the model computes, by the layer's name."""
        containers = (keras.layers.InputLayer, keras.Model)
        return dtypes_of_layers(self.model._flatten_layers(), containers)

    def tables(self) -> list[Any]:
        """The lookup tables of all its layers, those in lists of a subclass among them."""
        return tables_of(self.model._flatten_layers())

    def terms_added(self, values: Values, x: Any) -> list[str]:
        """Names of layers with an activity regularizer or `add_loss`.

        The model is traced in training mode, not run.
        """
        return read_trace(lambda x: self._stateless(values, x, training=True)[2], x)

    def _stateless(
        self, values: Values, x: Any, *, training: bool
    ) -> tuple[Any, list[Any], list[str]]:
        # Variables that came later, such as the metrics of `evaluate`, have no part in the output.
        trainable = [values.get(id(v), v) for v in self.model.trainable_variables]
        state = [values.get(id(v), v) for v in self.model.non_trainable_variables]
        layers = self.model._flatten_layers()
        collections = [c for layer in layers for c in (layer._losses, layer._loss_ids)]
        with emptied(collections):
            output, new, *_ = self.model.stateless_call(
                trainable, state, x, return_losses=training, **dict.fromkeys(self._modes, training)
            )
            added = [layer.name for layer in layers if layer._loss_ids]
        by_id = dict(zip(map(id, self.model.non_trainable_variables), new, strict=True))
        return output, [by_id.get(id(v)) for v in self.non_trainable], added


def _refuse_quantized(model: Any) -> None:
    """Refuse a model with quantized weights, which have no derivatives."""
    quantized = {
        layer.name: layer.quantization_mode
        for layer in model._flatten_layers()
        if getattr(layer, "quantization_mode", None) is not None
    }
    if quantized:
        raise UnsupportedModelError(
            "the model's weights are quantized",
            expected="weights that the loss can be differentiated by",
            received=f"layers {quantized}",
            remedy="use the model as it was before quantize()",
        )


class _Compilation:
    """What a Keras 3 model was compiled with, as the model says itself."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def compiled(self) -> bool:
        """Whether the model was compiled."""
        return bool(self._model.compiled)

    @property
    def weight_decay(self) -> WeightDecay | None:
        """The weight decay of the model's optimizer, or None."""
        return decay_of(self._model)

    def get_compile_config(self) -> dict[str, Any]:
        """As Keras writes it; of a loss of the user's own, which it may fail to write, the name."""
        own = own_loss(self._model.loss, keras.losses)
        return {"loss": own} if own else dict(self._model.get_compile_config())
