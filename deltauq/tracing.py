"""Reading a traced TensorFlow graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

__all__ = ["bytes_reached_from", "reached_from"]


def reached_from(tensors: Sequence[tf.Tensor]) -> dict[Any, tf.Tensor]:
    """All tensors that depend on some, those included, by their references."""
    reached: dict[Any, tf.Tensor] = {}
    pending = list(tensors)
    while pending:
        tensor = pending.pop()
        if tensor.ref() not in reached:
            reached[tensor.ref()] = tensor
            pending.extend(out for op in tensor.consumers() for out in op.outputs)
    return reached


def bytes_reached_from(tensors: Sequence[tf.Tensor]) -> int:
    """Bytes of all those tensors whose shape the graph knows."""
    return sum(
        tensor.dtype.size * tensor.shape.num_elements()
        for tensor in reached_from(tensors).values()
        if tensor.shape.is_fully_defined()
    )
