"""Where a traced forward pass reads its parameters."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

__all__ = ["Tap", "find_taps"]

#: Operations that only give a parameter another shape.
_VIEWS = frozenset({"Identity", "Reshape", "ExpandDims", "Squeeze"})

#: Operations that work entry by entry, so that a parameter passes through them one to one.
_ENTRYWISE = frozenset(
    {
        *("Mul", "AddV2", "Add", "Sub", "RealDiv", "Neg", "Square", "Sqrt", "Rsqrt", "Exp"),
        *("Softplus", "Sigmoid", "Tanh", "Relu"),
    }
)


#: Calls of another function in the trace.
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})

#: Operations that may surround the one that matters in a function Keras compiles for itself.
_WRAPPING = _VIEWS | {"Const", "NoOp"}


@dataclass(frozen=True)
class Tap:
    """An operation of the trace that reads a parameter beside data.

    Attributes:
        operation: the operation.
        inner: of a called function that holds one operation, the definition of that one.
        parameter: the operand that comes from the parameter.
        data: the operand that comes from the inputs.
        operand: the number of the parameter among the operands.
        changed: the parameter went through entrywise operations before.
        folds: rows of the output that belong to one example: steps of a sequence folded into the
            batch. Known where the number of examples is.
    """

    operation: Any
    inner: Any
    parameter: tf.Tensor
    data: tf.Tensor
    operand: int
    changed: bool
    folds: int = 1

    @property
    def kind(self) -> str:
        """The type of the operation, or of the one inside it."""
        return str(self.operation.type if self.inner is None else self.inner.op)

    @property
    def output(self) -> tf.Tensor:
        """The operation's result, whose cotangent the rule needs."""
        return self.operation.outputs[0]

    def get(self, attribute: str) -> Any:
        """Value of one of the operation's attributes, by its name."""
        if self.inner is None:
            return self.operation.get_attr(attribute)
        value = self.inner.attr[attribute]
        kind = value.WhichOneof("value")
        return list(value.list.i) if kind == "list" else getattr(value, kind or "s")

    @property
    def folds_space(self) -> bool:
        """Whether TensorFlow dilates by folding space into the batch, examples running fastest."""
        producer = self.data.op
        while producer.type in _VIEWS:
            producer = producer.inputs[0].op
        return bool(producer.type == "SpaceToBatchND")


def find_taps(
    piece: tf.Tensor, from_data: Container[Any], operands: dict[str, dict[int, int]]
) -> list[Tap] | None:
    """Find all readings of a parameter; None when one of them is of no known kind.

    Args:
        piece: the parameter, a tensor of its own in the trace.
        from_data: references of the tensors that depend on the inputs.
        operands: for each known operation, which operand may be the parameter, and which one is
            the data then.
    """
    taps: list[Tap] = []
    visited, pending = {piece.ref()}, [(piece, False)]
    while pending:
        tensor, changed = pending.pop()
        for operation in tensor.consumers():
            apart_from_data = all(inp.ref() not in from_data for inp in operation.inputs)
            if operation.type in _VIEWS or (apart_from_data and _is_entrywise(operation, tensor)):
                output = operation.outputs[0]
                if output.ref() not in visited:
                    visited.add(output.ref())
                    pending.append((output, changed or operation.type not in _VIEWS))
                continue
            inner = _called(operation) if operation.type in _CALLS else None
            kind = operation.type if inner is None else inner.op
            places = [k for k, inp in enumerate(operation.inputs) if inp is tensor]
            data_at = operands.get(kind, {}).get(places[0])
            if len(places) != 1 or data_at is None or data_at >= len(operation.inputs):
                return None
            data = operation.inputs[data_at]
            if data.ref() not in from_data:
                return None
            taps.append(Tap(operation, inner, tensor, data, places[0], changed))
    return taps


def _called(operation: Any) -> Any:
    """The one operation that a called function applies to its arguments; None if there are more.

    Keras compiles grouped convolutions as functions of their own.
    """
    name = operation.get_attr("f").name
    library = operation.graph.as_graph_def().library.function
    function = next(f for f in library if f.signature.name == name)
    nodes = [node for node in function.node_def if node.op not in _WRAPPING]
    return nodes[0] if len(nodes) == 1 else None


def _is_entrywise(operation: Any, tensor: tf.Tensor) -> bool:
    return operation.type in _ENTRYWISE and operation.outputs[0].shape == tensor.shape
