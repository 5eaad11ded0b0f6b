"""The end of a model: logits, or a link function whose input they are; and its mask.

The trace of the output is walked back through operations that only move numbers, as where a layer
is applied at every position of a sequence and the results are stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from deltauq.likelihoods.links import ACTIVATIONS

__all__ = ["LINKS", "End", "end_of", "mask_of"]

#: Link functions: their inputs are the logits.
LINKS = frozenset(ACTIVATIONS)


class End(NamedTuple):
    """The last operation of a model, with the logits that it is made of.

    Attributes:
        last: the type of the last operation that does more than move numbers.
        link: that type, where it is a link function; None otherwise.
        logits: the output without the link function, in the output's shape.
    """

    last: str
    link: str | None
    logits: tf.Tensor


class _Move(NamedTuple):
    """Operands, whether the numbers along their last axis stay together, and the move itself."""

    operands: Sequence[tf.Tensor]
    keeps_rows: bool
    again: Callable[[list[tf.Tensor]], tf.Tensor]


def end_of(output: tf.Tensor) -> End:
    """Find the end of the model that made an output; inside its trace."""
    operation = output.op
    if operation.type in LINKS:
        return End(operation.type, operation.type, operation.inputs[0])
    if operation.type not in _MOVES:
        return End(operation.type, None, output)
    move = _MOVES[operation.type](operation)
    parts = [end_of(operand) for operand in move.operands]
    if len({part.last for part in parts}) > 1:
        return End(operation.type, None, output)
    last, link, _ = parts[0]
    if link is None:
        return End(last, None, output)
    if link == "Softmax" and not move.keeps_rows:
        return End(operation.type, None, output)
    return End(last, link, move.again([part.logits for part in parts]))


def mask_of(output: tf.Tensor) -> tf.Tensor | None:
    """The mask that Keras, of either version, keeps on a tensor for its losses; None for none."""
    return getattr(output, "_keras_mask", None)


def _identity(operation: Any) -> _Move:
    return _Move(operation.inputs, True, lambda parts: parts[0])


def _transpose(operation: Any) -> _Move:
    x, order = operation.inputs
    known = tf.get_static_value(order)
    keeps = known is not None and known[-1] == len(known) - 1
    return _Move([x], keeps, lambda parts: tf.transpose(parts[0], order))


def _reshape(operation: Any) -> _Move:
    x, shape = operation.inputs
    before, after = x.shape, operation.outputs[0].shape
    known = bool(before.rank and after.rank) and before[-1] is not None
    return _Move([x], known and before[-1] == after[-1], lambda parts: tf.reshape(parts[0], shape))


def _stack(operation: Any) -> _Move:
    axis, rank = operation.get_attr("axis"), operation.outputs[0].shape.rank
    keeps = rank is not None and axis % rank != rank - 1
    return _Move(operation.inputs, keeps, lambda parts: tf.stack(parts, axis))


def _concatenation(operation: Any) -> _Move:
    *operands, axis = operation.inputs
    known, rank = tf.get_static_value(axis), operation.outputs[0].shape.rank
    keeps = known is not None and rank is not None and known % rank != rank - 1
    return _Move(operands, keeps, lambda parts: tf.concat(parts, axis))


_MOVES: dict[str, Callable[[Any], _Move]] = {
    "Identity": _identity,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Pack": _stack,
    "ConcatV2": _concatenation,
}
