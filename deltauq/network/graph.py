"""Tracing functions of tensors, and reading or copying the TensorFlow graphs that come out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any, TypeVar

import tensorflow as tf

from deltauq.runtime.threads import refuse_lost_runtime

__all__ = [
    "Compiled",
    "Staged",
    "bytes_reached_from",
    "copies",
    "last_operands",
    "reached_from",
    "read_trace",
    "traced",
    "traced_and_read",
]

T = TypeVar("T")

#: Operations that give the shape of a tensor, whatever is in it.
_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank"})

#: The collection of a graph in which stands what was read while it was traced.
_READ = "deltauq_read"


def reached_from(tensors: Sequence[tf.Tensor]) -> dict[Any, tf.Tensor]:
    """Tensors of the graph that depend on some tensors, those included, by their references."""
    reached: dict[Any, tf.Tensor] = {}
    pending = list(tensors)
    while pending:
        tensor = pending.pop()
        if tensor.ref() not in reached:
            reached[tensor.ref()] = tensor
            pending.extend(out for op in tensor.consumers() for out in op.outputs)
    return reached


def last_operands(output: tf.Tensor, weights: Sequence[tf.Tensor], x: Any) -> set[int]:
    """Numbers of the weights that meet the data last on the ways to an output, in a trace.

    Of `softmax(h W + b)` that is b; of `h W` it is W. Shapes are no data.

    Args:
        output: depends on the rest.
        weights: inputs of the trace.
        x: a nest of other inputs of it.
    """
    data = reached_from(tf.nest.flatten(x))
    dependent = [reached_from([weight]) for weight in weights]
    found: set[int] = set()
    pending, seen = [output.op], set()
    while pending:
        operation = pending.pop()
        if operation in seen or operation.type in _SHAPES:
            continue
        seen.add(operation)
        operands = [tensor for tensor in operation.inputs if tensor.ref() not in data]
        here = {k for k, of in enumerate(dependent) if any(t.ref() in of for t in operands)}
        found |= here
        if not here:
            pending += [tensor.op for tensor in operation.inputs if tensor.ref() in data]
    return found


def bytes_reached_from(tensors: Sequence[tf.Tensor]) -> int:
    """Bytes of all tensors that depend on some, as far as the graph knows their shapes."""
    return sum(
        tensor.dtype.size * tensor.shape.num_elements()
        for tensor in reached_from(tensors).values()
        if tensor.shape.is_fully_defined()
    )


def traced(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """The `ConcreteFunction` of a function for some arguments: tensors, or specs of them.

    AutoGraph is not asked, as Keras 3 does not ask it: it takes most of the time of a trace, and
    hides errors in one of its own.
    """
    return tf.function(function, autograph=False).get_concrete_function(*arguments, **named)


def traced_and_read(function: Callable[..., tuple[Any, T]], *arguments: Any) -> tuple[Any, T]:
    """The `ConcreteFunction` of a function for some arguments, and what it read while traced.

    Args:
        function: of tensors. It returns what the `ConcreteFunction` is to compute, and beside it a
            value of any type, such as names of operations in the graph around it.
        *arguments: tensors, or specs of them.
    """

    def run(*values: Any) -> Any:
        computed, read = function(*values)
        tf.compat.v1.get_default_graph().add_to_collection(_READ, read)
        return computed

    concrete = traced(run, *arguments)
    (read,) = concrete.graph.get_collection(_READ)
    return concrete, read


def read_trace(reader: Callable[..., T], *arguments: Any) -> T:
    """What a function of tensors finds in the graph that tracing it for some arguments makes.

    Args:
        reader: returns what it found, of any type; nothing is computed.
        *arguments: tensors, or specs of them.
    """
    return traced_and_read(lambda *values: ((), reader(*values)), *arguments)[1]


def copies(
    results: Sequence[tf.Tensor], source: tf.Tensor, values: Sequence[tf.Tensor]
) -> Iterator[list[tf.Tensor]]:
    """Copy what lies between a tensor and some results, with other tensors in its place.

    Yields the results for each of the values. Tracing the same again for each of them takes many
    times as long.

    Args:
        results: tensors of the current graph; those that do not depend on the source stay as they
            are.
        source: a tensor of it.
        values: tensors to stand in its place, like it in shape and dtype.
    """
    if not values:
        return
    late = reached_from([source])
    between = {tensor.op.name for tensor in late.values()} - {source.op.name}
    definition = _only_data(source.graph.as_graph_def())
    nodes = [node for node in definition.node if node.name in between]
    part = tf.compat.v1.GraphDef(node=nodes, versions=definition.versions)
    operations = [source.graph.get_operation_by_name(name) for name in between]
    given = {t.name: t for op in operations for t in op.inputs if t.op.name not in between}
    wanted = [tensor for tensor in results if tensor.ref() in late and tensor is not source]
    for value in values:
        found = tf.graph_util.import_graph_def(
            part, given | {source.name: value}, [tensor.name for tensor in wanted], name="copy"
        )
        copied = {source.ref(): value}
        for tensor, copy in zip(wanted, found, strict=True):
            copy.set_shape(tensor.shape)
            copied[tensor.ref()] = copy
        yield [copied.get(tensor.ref(), tensor) for tensor in results]


class Compiled:
    """A function of tensors that is compiled for one signature, at its first call.

    `tf.function` counts traces by the place of the function in the code, and warns of those of one
    model after another; what is made of it here is not counted, and made as by `traced`.

    Args:
        function: of tensors, or of nests of them.
        signature: a `tf.TensorSpec`, or a nest of them, for each argument.
        inlined: where another trace calls it, its operations are copied there at every call; False
            for one that is called so often that TensorFlow would be long at work on the copies.
    """

    def __init__(self, function: Callable[..., Any], *signature: Any, inlined: bool = True) -> None:
        apart = None if inlined else {"_noinline": True}
        self._compiled = tf.function(
            function, input_signature=signature, autograph=False, experimental_attributes=apart
        )

    @functools.cached_property
    def concrete(self) -> Any:
        """The `ConcreteFunction` that the calls run, traced when it is first asked for."""
        return self._compiled.get_concrete_function()

    def __call__(self, *arguments: Any) -> Any:
        """Of tensors, as the signature has them."""
        refuse_lost_runtime()
        return self.concrete(*arguments)


class Staged:
    """A function compiled in two stages: what its last argument does not change, and the rest.

    Args:
        function: of tensors, or of nests of them.
        signature: a `tf.TensorSpec`, or a nest of them, for each argument; the last is one spec.
    """

    def __init__(self, function: Callable[..., tf.Tensor], *signature: Any) -> None:
        graph = Compiled(function, *signature).concrete.graph
        *before, self._last = graph.inputs[: len(tf.nest.flatten(signature))]
        definition = _only_data(graph.as_graph_def())
        self._point = _needed_by(graph, before, self._last)
        first = _Part(definition, graph.captures, before, self._point)
        self._first = Compiled(
            lambda *values: first(values),
            *(tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in before),
        )
        feeds = [*self._point, self._last]
        self._rest = _Part(definition, graph.captures, feeds, graph.outputs[:1])
        self._second: dict[int, Any] = {}

    def first(self, *arguments: Any) -> list[tf.Tensor]:
        """Tensors that the second stage needs of all arguments but the last."""
        return list(self._first(*tf.nest.flatten(arguments)))

    def second(self, point: Sequence[tf.Tensor], stack: tf.Tensor) -> tf.Tensor:
        """Values of the function, stacked, for several last arguments `[b, ...]`."""
        count = stack.shape[0]
        if count not in self._second:
            # Side by side rather than stacked: TensorFlow then runs them on all processors.
            self._second[count] = Compiled(
                lambda *values: tf.stack(
                    [self._rest([*values[:-1], each])[0] for each in tf.unstack(values[-1])]
                ),
                *(tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in self._point),
                tf.TensorSpec([count, *self._last.shape], self._last.dtype),
                inlined=False,
            )
        return self._second[count](*point, stack)

    def over(self, points: Sequence[Sequence[tf.Tensor]]) -> Callable[[tf.Tensor], tf.Tensor]:
        """The sum of `second` over some points as one call, stack -> float64 `[b, ...]`."""

        def total(stack: tf.Tensor) -> tf.Tensor:
            result = tf.zeros(stack.shape, tf.float64)
            for point in points:
                # One after the other: side by side they would drive each other from the cache.
                with tf.control_dependencies([result]):
                    result += tf.cast(self.second(point, tf.identity(stack)), tf.float64)
            return result

        @functools.cache
        def compiled(count: int) -> Callable[[tf.Tensor], tf.Tensor]:
            spec = tf.TensorSpec([count, *self._last.shape], self._last.dtype)
            return traced(total, spec)

        return lambda stack: compiled(stack.shape[0])(stack)


class _Part:
    """The part of a graph between some tensors, which get other values, and what is made of them.

    Args:
        definition: of the graph, as `_only_data` gives it.
        captured: pairs of a tensor outside of the graph and its placeholder within.
        feeds: tensors of the graph.
        fetches: those that are wanted.
    """

    def __init__(
        self,
        definition: Any,
        captured: Sequence[tuple[tf.Tensor, tf.Tensor]],
        feeds: Sequence[tf.Tensor],
        fetches: Sequence[tf.Tensor],
    ) -> None:
        self._captured = {inner.name: outer for outer, inner in captured}
        self._feeds = [tensor.name for tensor in feeds]
        self._fetches = [tensor.name for tensor in fetches]
        self._made = [name for name in self._fetches if name not in self._feeds]
        known = self._captured.keys() | self._feeds
        self._definition, self._read = _between(definition, known, self._made)

    def __call__(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The fetches, in the graph that is being traced, for values in the place of the feeds."""
        here = tf.compat.v1.get_default_graph()
        known = {name: here.capture(outer) for name, outer in self._captured.items()}
        known |= dict(zip(self._feeds, values, strict=True))
        read = {name: known[name] for name in self._read}
        made = tf.graph_util.import_graph_def(self._definition, read, self._made, name="")
        known |= dict(zip(self._made, made, strict=True))
        return [known[name] for name in self._fetches]


def _between(definition: Any, known: Set[str], wanted: Sequence[str]) -> tuple[Any, set[str]]:
    """The nodes that make some tensors of others, and which of the others they read.

    Args:
        definition: of the whole graph.
        known: names of the tensors at which the way back ends.
        wanted: names of those at which it begins, none of them known.
    """
    nodes = {node.name: node for node in definition.node}
    between: set[str] = set()
    read: set[str] = set()
    pending = list(wanted)
    while pending:
        tensor = pending.pop()
        name = tensor.partition(":")[0]
        if tensor in known:
            read.add(tensor)
        elif name not in between:
            between.add(name)
            pending.extend(each if ":" in each else f"{each}:0" for each in nodes[name].input)
    part = tf.compat.v1.GraphDef(
        node=[node for node in definition.node if node.name in between],
        library=definition.library,
        versions=definition.versions,
    )
    return part, read


def _only_data(definition: Any) -> Any:
    """A graph definition whose nodes wait for nothing but their data, wherever they stand.

    TensorFlow's gradients let constants, and what they make of the forward pass, wait for values of
    the other stage, to save memory; the functions staged here have no side effects, so that no
    order is lost.
    """
    for node in definition.node:
        data = [name for name in node.input if not name.startswith("^")]
        del node.input[:]
        node.input.extend(data)
        node.attr.pop("_class", None)  # beside which other node it is to run
    return definition


def _needed_by(graph: Any, before: Sequence[tf.Tensor], last: tf.Tensor) -> list[tf.Tensor]:
    """Tensors made of some inputs that are read where the last input has a part."""
    early, late = reached_from(before), reached_from([last])
    used = list(graph.outputs)
    for operation in graph.get_operations():
        if any(tensor.ref() in late for tensor in operation.outputs):
            used.extend(operation.inputs)
    needed = {t.ref(): t for t in used if t.ref() in early and t.ref() not in late}
    return list(needed.values())
