"""Whether the derivatives that TensorFlow forms of a network are the true ones.

`tf.stop_gradient` and `tf.custom_gradient` change derivatives; some operations have a gradient
whose own gradient is missing, or registered as zero where it is not. A trace of the logits, and of
their gradient, shows which of them lie on the way from the parameters to the result. A stopped or
custom gradient replaces that of an operation; to lift it is to let the operation have its own
again. They are judged by what lifting changes, to rounding, at the parameters on a few rows:
nothing in a recomputed layer, in `tf.nn.silu` and in `tf.reduce_logsumexp`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.framework import convert_to_constants, ops

from deltauq.errors import UnsupportedModelError
from deltauq.network.graph import read_trace, traced
from deltauq.network.network import Network
from deltauq.network.probe_rows import gradient_along_outputs, rounding
from deltauq.network.replaced_gradients import GRADIENT_PREFIX

__all__ = ["named", "obstacles_to_second_derivatives", "refuse_false_gradients"]

Array = npt.NDArray[Any]

#: Pieces of the parameters and inputs -> logits.
Forward = Callable[[Sequence[tf.Tensor], Any], tf.Tensor]

#: Operations that have no gradient because their derivative is zero.
_CONSTANT = frozenset({"ZerosLike", "OnesLike"})

#: How TensorFlow names the gradients given to `tf.custom_gradient`.
_CUSTOM = "CustomGradient"

#: Operations that may carry another gradient than that of their type, which lifting gives back.
_LIFTED = frozenset({"Identity", "IdentityN", "PartitionedCall", "StatefulPartitionedCall"})

#: The gradient of a StopGradient that lets through what it is given.
_THROUGH = f"{GRADIENT_PREFIX}Through"

#: Operations or variables that a message names at most.
_NAMED = 4


@dataclass(frozen=True)
class _Changed:
    """What changes or lacks a derivative on the way from some tensors to others.

    Attributes:
        replaced: operations with a stopped or custom gradient in place of their own.
        lacking: operations without a gradient.
    """

    replaced: tuple[str, ...]
    lacking: tuple[str, ...]


def refuse_false_gradients(network: Network, x: Any) -> None:
    """Refuse a network whose gradients are not the derivatives of its logits.

    A custom gradient around operations that have none of their own is believed.

    Args:
        network: the network.
        x: a few different input rows.

    Raises:
        UnsupportedModelError: naming the operations, and the variables whose derivatives they
            change.
    """

    def read(params: tf.Tensor, x: Any) -> _Changed:
        pieces = network.unflatten(params)
        return _changed_between(pieces, [network.logits(pieces, x)])

    changed = read_trace(read, network.params, x)
    if changed.lacking:
        _refuse(changed.lacking, "operations without a gradient")
    if changed.replaced:
        moved = _moved_by_lifting(network, x, gradient_along_outputs)
        if moved:
            kind = f"stopped or custom gradients, which change the derivatives in {named(moved)}"
            _refuse(changed.replaced, kind)


def obstacles_to_second_derivatives(network: Network, x: Any) -> tuple[str, ...]:
    """Operations through which TensorFlow's second derivatives of the logits are false or missing.

    Args:
        network: one that `refuse_false_gradients` let pass.
        x: a few different input rows.
    """

    def read(params: tf.Tensor, x: Any) -> tuple[_Changed, _Changed]:
        pieces = network.unflatten(params)
        logits = network.logits(pieces, x)
        forward = _changed_between(pieces, [logits])
        gradient = gradient_along_outputs(network, pieces, logits)
        return forward, _changed_between(pieces, gradient)

    forward, changed = read_trace(read, network.params, x)
    if changed.lacking:
        return changed.lacking
    # Lifting acts on the logits. Where none of their gradients is replaced, one that stands in the
    # gradient alone cannot be lifted and compared: it counts as false.
    if changed.replaced and (not forward.replaced or _moved_by_lifting(network, x, _bend)):
        return changed.replaced
    return ()


def _refuse(operations: Sequence[str], kind: str) -> None:
    raise UnsupportedModelError(
        "the gradients that TensorFlow forms of the model are not the derivatives of its output",
        expected="differentiable operations, with their own gradients, from the uncertain "
        "variables to the logits",
        received=f"{kind}: {named(operations)}",
        remedy="take them out of the layers' call, or leave the variables behind them out with "
        "layers=...",
    )


def named(names: Sequence[str]) -> str:
    """Text that names the first few of some operations, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _changed_between(starts: Sequence[tf.Tensor], ends: Sequence[tf.Tensor]) -> _Changed:
    replaced, lacking = [], []
    for operation in _operations_between(starts, ends):
        bodies = list(_bodies(operation))
        inner = [_changed_between(body.inputs, body.outputs) for body in bodies]
        replaced += [f"{name} in {operation.name}" for each in inner for name in each.replaced]
        lacking += [f"{name} in {operation.name}" for each in inner for name in each.lacking]
        name = f"{operation.type} ({operation.name})"
        registered = bool(bodies) or _registered(operation)
        if _is_custom(operation) or (operation.type == "StopGradient" and not registered):
            replaced.append(name)
        elif not registered and operation.type not in _CONSTANT:
            lacking.append(name)
    return _Changed(tuple(sorted(replaced)), tuple(sorted(lacking)))


def _registered(operation: Any) -> bool:
    """Whether an operation has a gradient; None is registered for one taken for constant."""
    try:
        return ops.get_gradient_function(operation) is not None
    except LookupError:
        return False


def _is_custom(operation: Any) -> bool:
    if operation.type != "IdentityN":
        return False
    return operation.node_def.attr["_gradient_op_type"].s.decode().startswith(_CUSTOM)


def _bodies(operation: Any) -> Iterator[Any]:
    """Graphs of the functions that a loop, a branch or a call runs."""
    for name in _functions_of(operation.node_def):
        graph = operation.graph
        while graph._get_function(name) is None:
            graph = graph.outer_graph
        yield graph._get_function(name).graph


def _functions_of(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        yield from (each.name for each in [value.func, *value.list.func] if each.name)


def _operations_between(starts: Sequence[tf.Tensor], ends: Sequence[tf.Tensor]) -> list[Any]:
    """Operations that a derivative of some tensors in others passes through."""
    reached: set[Any] = set()
    pending = list(starts)
    while pending:
        tensor = pending.pop()
        if tensor.ref() not in reached and _has_derivative(tensor):
            reached.add(tensor.ref())
            pending.extend(out for op in tensor.consumers() for out in op.outputs)
    found: dict[str, Any] = {}
    pending = list(ends)
    while pending:
        tensor = pending.pop()
        if tensor.ref() in reached and tensor.op.name not in found:
            found[tensor.op.name] = tensor.op
            pending.extend(_differentiated_inputs(tensor.op))
    for start in starts:
        found.pop(start.op.name, None)
    return list(found.values())


def _has_derivative(tensor: tf.Tensor) -> bool:
    """Variants are the lists of tensors that loops keep."""
    return tensor.dtype.is_floating or tensor.dtype.is_complex or tensor.dtype == tf.variant


def _differentiated_inputs(operation: Any) -> list[tf.Tensor]:
    """All; of a custom gradient the arguments, which it passes on to no one, not the results."""
    if not _is_custom(operation):
        return list(operation.inputs)
    pairs = zip(operation.inputs, operation.outputs, strict=True)
    return [tensor for tensor, passed_on in pairs if not passed_on.consumers()]


def _bend(network: Network, pieces: Any, logits: tf.Tensor) -> list[tf.Tensor]:
    """The derivative of that gradient along a fixed vector."""
    vector = tf.cos(tf.range(1, network.n_params + 1, dtype=logits.dtype))
    gradient = gradient_along_outputs(network, pieces, logits)
    along = network.unflatten(vector)
    found = tf.gradients(gradient, pieces, grad_ys=along, unconnected_gradients="zero")
    return [tf.convert_to_tensor(part) for part in found]


def _moved_by_lifting(network: Network, x: Any, derivative: Callable[..., Any]) -> list[str]:
    """Variables whose derivatives are others once stopped and custom gradients are lifted.

    Where derivatives of that order cannot be formed, or are not finite, there is nothing to
    compare: all of them. But a custom gradient may give the first derivative of operations whose
    own is missing or not finite: it is believed then, and stopped gradients alone are lifted.
    """

    def values(forward: Forward) -> list[Array]:
        def run(params: tf.Tensor, x: Any) -> list[tf.Tensor]:
            pieces = network.unflatten(params)
            return derivative(network, pieces, forward(pieces, x))

        return [value.numpy() for value in traced(run, network.params, x)(network.params, x)]

    every = [parameter.path for parameter in network.parameters]
    try:
        given = values(network.logits)
        lifted = values(_lifted(network, x))
    except LookupError:  # an operation without a gradient
        lifted = []
    except (NotImplementedError, tf.errors.OpError):  # `tf.recompute_grad`; calls inside a loop
        return every
    if not (lifted and _finite(lifted)):
        if derivative is not gradient_along_outputs or _stops_inside_functions(network, x):
            return every
        lifted = values(_without_stops(network))
    if not (_finite(given) and _finite(lifted)):
        return every
    sizes = [np.max(np.abs(value)) for value in lifted]
    near = rounding(np.array(sizes), np.max(sizes), network.dtype)
    return [
        parameter.path
        for parameter, was, true, limit in zip(network.parameters, given, lifted, near, strict=True)
        if not np.max(np.abs(was - true)) <= limit
    ]


def _finite(values: Sequence[Array]) -> bool:
    return all(bool(np.all(np.isfinite(value))) for value in values)


def _without_stops(network: Network) -> Forward:
    """The logits without stopped gradients, but for those inside loops, branches and calls."""

    def forward(pieces: Sequence[tf.Tensor], x: Any) -> tf.Tensor:
        graph = tf.compat.v1.get_default_graph()
        with graph.gradient_override_map({"StopGradient": _THROUGH}):
            return network.logits(pieces, x)

    return forward


def _stops_inside_functions(network: Network, x: Any) -> bool:
    signature = [tf.TensorSpec(p.shape, network.dtype) for p in network.parameters]
    library = traced(network.logits, signature, x).graph.as_graph_def().library
    return any(node.op == "StopGradient" for each in library.function for node in each.node_def)


@tf.RegisterGradient(_THROUGH)
def _through(_: Any, upstream: tf.Tensor) -> tf.Tensor:
    return upstream


def _lifted(network: Network, x: Any) -> Forward:
    """The logits without stopped and custom gradients, inside loops and branches too."""
    signature = [tf.TensorSpec(p.shape, network.dtype) for p in network.parameters]
    function = traced(network.logits, signature, x)
    graph = function.graph
    definition = convert_to_constants._run_inline_graph_optimization(
        function, lower_control_flow=False, aggressive_inlining=True
    )
    _lift(definition)

    def forward(pieces: Sequence[tf.Tensor], x: Any) -> tf.Tensor:
        here = tf.compat.v1.get_default_graph()
        values = [*pieces, *tf.nest.flatten(x)]
        feeds = {inner.name: here.capture(outer) for outer, inner in graph.captures}
        feeds |= {t.name: value for t, value in zip(graph.inputs, values, strict=False)}
        (logits,) = tf.graph_util.import_graph_def(
            definition, input_map=feeds, return_elements=[graph.outputs[0].name], name=""
        )
        return logits

    return forward


def _lift(definition: Any) -> None:
    """Let stopped gradients through and forget custom ones, in a graph's definition."""
    functions = definition.library.function
    new = {function.signature.name: f"{function.signature.name}_lifted" for function in functions}
    for function in functions:
        function.signature.name = new[function.signature.name]
    nodes = [*definition.node, *(node for each in functions for node in each.node_def)]
    for node in nodes:
        if node.op == "StopGradient":
            node.op = "Identity"
        if node.op in _LIFTED:
            node.attr.pop("_gradient_op_type", None)
        for value in node.attr.values():
            for each in [value.func, *value.list.func]:
                if each.name:
                    each.name = new[each.name]
