"""What the package needs of a model, whoever made it: the protocol of adapters."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf
from tensorflow.python.checkpoint.graph_view import ObjectGraphView
from tensorflow.python.trackable.resource import CapturableResource

from deltauq.likelihoods.loss_names import only_loss

__all__ = [
    "Adapter",
    "Values",
    "WeightDecay",
    "decay_of",
    "dtypes_of_layers",
    "emptied",
    "mode_arguments",
    "own_loss",
    "tables_of",
    "with_explicit_reduction",
]

#: Tensors by the `id` of the variable that each stands for.
Values = Mapping[int, tf.Tensor]


class Adapter(Protocol):
    """A model that can be called with any values of its variables.

    Attributes:
        model: the user's, which is only read.
        trainable: its trainable variables, each with `path`, `shape`, `dtype`, `regularizer`,
            `constraint`, `numpy` and `assign`, as Keras 3 has them.
        non_trainable: all its others.
        compilation: what it was compiled with: `compiled`, `get_compile_config()` as Keras 3
            writes it, and `weight_decay`.
        opened_by: the name and version of the Keras that opened the model's file; None for a model
            that was given itself.
    """

    model: Any
    trainable: list[Any]
    non_trainable: list[Any]
    compilation: Any
    opened_by: str | None

    def call(self, values: Values, x: Any) -> tuple[Any, list[Any]]:
        """Call the model in inference mode with other values of its variables.

        Args:
            values: by the `id` of the variable that each stands for.
            x: inputs.

        Returns:
            The output, and what becomes of the variables in `non_trainable`.
        """

    def check(self, values: Values, x: Any) -> None:
        """Raise `UnsupportedModelError` where a call with the values is not the model's own."""

    def dtypes_of_layers(self) -> dict[str, str]:
        """The precision in which each layer computes, as far as layers are known."""

    def tables(self) -> list[Any]:
        """The lookup tables of the model, which a SavedModel has to hold."""

    def terms_added(self, values: Values, x: Any) -> list[str]:
        """Names of the layers that add to the cost what is no penalty on weights."""


@dataclass(frozen=True)
class WeightDecay:
    """An optimizer's weight decay, which is no penalty of the cost.

    Attributes:
        optimizer: the name of its class.
        rate: as it was given to the optimizer.
    """

    optimizer: str
    rate: float


def decay_of(model: Any) -> WeightDecay | None:
    """The weight decay of the optimizer that a Keras model was compiled with; None for none."""
    optimizer = getattr(model, "optimizer", None)
    rate = getattr(optimizer, "weight_decay", None)
    return WeightDecay(type(optimizer).__name__, float(rate)) if rate else None


def own_loss(loss: Any, losses: Any) -> dict[str, Any] | None:
    """Describe a loss of the user's own as Keras does, by its full name; None for Keras' losses.

    By identity: a function or class may have any name, that of one of Keras' among them.

    Args:
        loss: as it was given to `compile`, alone, in a list or by the output's name.
        losses: the module of Keras' own.
    """
    loss = only_loss(loss)
    kind = loss if inspect.isfunction(loss) else type(loss)
    if not callable(loss) or getattr(losses, kind.__name__, None) is kind:
        return None
    return {"class_name": "function", "config": f"{kind.__module__}.{kind.__qualname__}"}


def with_explicit_reduction(loss: Any) -> Any:
    """Write a loss as Keras 3 writes it, of which Keras 2 says "auto" where it means the mean."""
    config = loss.get("config") if isinstance(loss, dict) else None
    if isinstance(config, dict) and config.get("reduction") == "auto":
        return loss | {"config": config | {"reduction": "sum_over_batch_size"}}
    return loss


def mode_arguments(call: Any) -> tuple[str, ...]:
    """The arguments that tell a model's call whether it is training."""
    parameters = inspect.signature(call).parameters
    return tuple(name for name in ("training", "is_training") if name in parameters)


def dtypes_of_layers(layers: Sequence[Any], containers: tuple[Any, ...]) -> dict[str, str]:
    """The precision in which each Keras layer computes; containers have none of their own."""
    return {
        layer.name: str(layer.compute_dtype)
        for layer in layers
        if not isinstance(layer, containers)
    }


def tables_of(roots: Iterable[Any]) -> list[Any]:
    """The lookup tables that hang on some objects of TensorFlow, each once."""
    found = {
        id(held): held
        for root in roots
        for held in ObjectGraphView(root).breadth_first_traversal()[0]
        if isinstance(held, CapturableResource)
    }
    return list(found.values())


@contextmanager
def emptied(collections: Sequence[list[Any] | set[Any]]) -> Iterator[None]:
    """Empty some collections while the block runs, and give them back what they held before."""
    before = [collection.copy() for collection in collections]
    for collection in collections:
        collection.clear()
    try:
        yield
    finally:
        for collection, items in zip(collections, before, strict=True):
            collection.clear()
            if isinstance(collection, set):
                collection.update(items)
            else:
                collection.extend(items)
