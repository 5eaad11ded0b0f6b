"""Derivatives of the network in its parameters, as graph functions.

`PerExample` forms the rows c_n^T J_n of many examples at once. A trace of the forward pass shows
which operation reads each variable; one backward pass gives the cotangent of every such operation,
and a small rule per operation type multiplies it with the operation's own input: for y = a W the
row of W is a (x) delta. Whatever no rule covers is differentiated example by example. Before use
the rules are compared with plain automatic differentiation on real rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from deltauq.errors import UnsupportedModelError
from deltauq.likelihoods import Likelihood
from deltauq.network import Network

__all__ = ["Cotangents", "PerExample", "hessian_products"]

#: Maps logits `[B, C]` to the cotangents `[B, R, C]` whose rows are wanted (R static).
Cotangents = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Tap:
    """An operation that reads a parameter, and the operand it reads it through."""

    operation: Any
    operand: int

    @property
    def output(self) -> tf.Tensor:
        """The operation's result, whose cotangent the rule needs."""
        return self.operation.outputs[0]

    @property
    def parameter(self) -> tf.Tensor:
        """The parameter as the operation sees it."""
        return self.operation.inputs[self.operand]

    @property
    def data(self) -> tf.Tensor:
        """The other operand."""
        return self.operation.inputs[1 - self.operand]


#: tap, cotangent of its output `[B, T, last axis]`, number of examples B -> rows `[B, size]`.
Rule = Callable[[Tap, tf.Tensor, tf.Tensor], tf.Tensor]

_RULES: dict[str, tuple[Callable[[Tap], bool], Rule]] = {}


def rule(*operations: str, when: Callable[[Tap], bool]) -> Callable[[Rule], Rule]:
    """Register the row rule of some TensorFlow operations, valid for the taps `when` accepts."""

    def register(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(operations, (when, function)))
        return function

    return register


class PerExample:
    """Per-example vector-Jacobian products of the logits: rows c^T J `[B, R, P]`.

    Args:
        network: the network.
        probe: a few input rows on which the rules are compared with automatic differentiation;
            a variable whose rows differ goes to the example-by-example path.

    Attributes:
        mapped: paths of the variables on the example-by-example path.
    """

    def __init__(self, network: Network, probe: Any) -> None:
        self._network = network
        self._mapped: set[int] = set()  # tracing `rows` adds the variables without a rule
        self._mapped |= self._with_wrong_rule(probe)

    @property
    def mapped(self) -> list[str]:
        """Paths of the variables that no rule covers."""
        return [self._network.parameters[i].path for i in sorted(self._mapped)]

    def rows(
        self, params: tf.Tensor, x: Any, cotangents: Cotangents
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Rows c^T J of every example, and the logits; inside a `tf.function` only.

        Args:
            params: `[P]`.
            x: inputs `[B, ...]`.
            cotangents: logits `[B, C]` -> `[B, R, C]`.

        Returns:
            `[B, R, P]` and `[B, C]`. Cost: one forward pass and R backward passes.
        """
        pieces = [tf.identity(piece) for piece in self._network.unflatten(params)]
        logits = self._network.logits(pieces, x)
        c = tf.stop_gradient(cotangents(logits))
        taps = [_taps(piece, x) for piece in pieces]
        self._mapped.update(i for i, found in enumerate(taps) if found is None)
        mapped = _map_examples(self._network, pieces, x, c, sorted(self._mapped))
        parts: list[tf.Tensor] = []
        for r in range(c.shape[1]):
            ruled = self._ruled([found or [] for found in taps], logits, c[:, r])
            ruled.update((i, rows[:, r]) for i, rows in mapped.items())
            parts += [ruled[i] for i in range(len(pieces))]
        rows = tf.concat(parts, axis=1)
        return tf.reshape(rows, [-1, c.shape[1], self._network.n_params]), logits

    def _ruled(
        self, taps: list[list[Tap]], logits: tf.Tensor, direction: tf.Tensor
    ) -> dict[int, tf.Tensor]:
        """Rows `[B, size]` of every variable that has a rule, along one cotangent `[B, C]`."""
        n_examples = tf.shape(logits)[0]
        ruled = [i for i in range(len(taps)) if i not in self._mapped]
        outputs = {id(t.operation): t.output for i in ruled for t in taps[i]}
        gradients = tf.gradients(
            logits, list(outputs.values()), grad_ys=direction, unconnected_gradients="zero"
        )
        delta = {
            key: tf.reshape(gradient, [n_examples, -1, _last_axis(output)])
            for (key, output), gradient in zip(outputs.items(), gradients, strict=True)
        }
        parts = {}
        for i in ruled:
            rows = [
                _RULES[t.operation.type][1](t, delta[id(t.operation)], n_examples) for t in taps[i]
            ]
            empty = tf.zeros([n_examples, self._network.parameters[i].size], logits.dtype)
            parts[i] = tf.add_n(rows) if rows else empty
        return parts

    def _with_wrong_rule(self, probe: Any) -> set[int]:
        """Variables whose rows in a batch are not what each example gives alone."""
        network = self._network
        cut_off: list[str] = []

        def pattern(logits: tf.Tensor) -> tf.Tensor:
            columns = tf.range(1, logits.shape[1] + 1, dtype=logits.dtype)
            return tf.ones_like(logits)[:, None, :] * tf.cos(columns)

        def together(params: tf.Tensor, x: Any) -> tf.Tensor:
            return self.rows(params, x, pattern)[0][:, 0]

        def alone(params: tf.Tensor, x: Any) -> tf.Tensor:
            pieces = [tf.identity(piece) for piece in network.unflatten(params)]
            logits = network.logits(pieces, x)
            gradients = tf.gradients(logits, pieces, grad_ys=pattern(logits)[:, 0])
            cut_off.extend(
                parameter.path
                for parameter, gradient in zip(network.parameters, gradients, strict=True)
                if gradient is None
            )
            found = [
                tf.zeros_like(piece) if gradient is None else gradient
                for piece, gradient in zip(pieces, gradients, strict=True)
            ]
            return tf.concat([tf.reshape(gradient, [-1]) for gradient in found], axis=0)

        examples = [
            tf.nest.map_structure(lambda leaf, n=n: leaf[n : n + 1], probe)
            for n in range(tf.nest.flatten(probe)[0].shape[0])
        ]
        params = network.params
        single = tf.function(alone).get_concrete_function(params, examples[0])
        _refuse_cut_off(cut_off)
        rows = tf.function(together).get_concrete_function(params, probe)(params, probe).numpy()
        wrong: set[int] = set()
        for row, example in zip(rows, examples, strict=True):
            truth = single(params, example).numpy()
            for i, parameter in enumerate(network.parameters):
                part = slice(parameter.start, parameter.stop)
                gap = np.max(np.abs(row[part] - truth[part]))
                eps = np.finfo(network.dtype).eps
                own, whole = np.max(np.abs(truth[part])), np.max(np.abs(truth))
                tolerance = np.sqrt(eps) * own + 100 * eps * whole
                if not gap <= tolerance or own == 0:  # zero against zero proves nothing
                    wrong.add(i)
        return wrong


def _refuse_cut_off(cut_off: list[str]) -> None:
    if cut_off:
        raise UnsupportedModelError(
            "the output does not depend on some variables in a way that can be differentiated",
            expected="a path of differentiable operations from every variable to the logits",
            received=f"none from {cut_off}",
            remedy="remove @tf.function and stop_gradient from the layers' call; leave variables "
            "that are not used out with layers=...",
        )


def hessian_products(
    network: Network, likelihood: Likelihood, params: tf.Tensor, batch: Any, vectors: tf.Tensor
) -> tf.Tensor:
    """Sum over a batch of w_n (d^2 loss_n / d w^2) V; inside a `tf.function` only.

    Reverse over reverse: the gradient is formed once and differentiated along every column.

    Args:
        network: the network.
        likelihood: its loss is differentiated.
        params: `[P]`.
        batch: a `Batch`.
        vectors: V `[P, b]`, b static.

    Returns:
        `[P, b]`.
    """
    params = tf.identity(params)
    logits = network.logits(network.unflatten(params), batch.x)
    cost = tf.reduce_sum(batch.weight * likelihood.loss(logits, batch.y))
    gradient = tf.gradients(cost, params)[0]
    columns = tf.unstack(vectors, axis=1)
    return tf.stack([tf.gradients(gradient, params, grad_ys=v)[0] for v in columns], axis=1)


def _taps(piece: tf.Tensor, x: Any) -> list[Tap] | None:
    """Where a parameter is read, or None when some reading has no valid rule."""
    from_data = _reached_from(tf.nest.flatten(x))
    taps, pending = [], [piece]
    while pending:
        tensor = pending.pop()
        for operation in tensor.consumers():
            if operation.type in ("Identity", "Reshape", "ExpandDims", "Squeeze"):
                pending.append(operation.outputs[0])
                continue
            if operation.type not in _RULES or len(operation.inputs) != 2:
                return None
            operands = [k for k in (0, 1) if operation.inputs[k] is tensor]
            tap = Tap(operation, operands[0])
            valid = _RULES[operation.type][0]
            if len(operands) != 1 or tap.data.ref() not in from_data or not valid(tap):
                return None
            taps.append(tap)
    return taps


def _reached_from(tensors: Sequence[tf.Tensor]) -> set[Any]:
    reached, pending = set(), list(tensors)
    while pending:
        tensor = pending.pop()
        if tensor.ref() not in reached:
            reached.add(tensor.ref())
            pending.extend(out for op in tensor.consumers() for out in op.outputs)
    return reached


def _map_examples(
    network: Network, pieces: list[tf.Tensor], x: Any, c: tf.Tensor, indices: list[int]
) -> dict[int, tf.Tensor]:
    """Rows of some variables by differentiating one example at a time, `[B, R, size]` each."""
    if not indices:
        return {}

    def one(arguments: Any) -> list[tf.Tensor]:
        example, directions = arguments
        inner = [tf.identity(piece) for piece in pieces]
        chosen = [inner[i] for i in indices]
        logits = network.logits(inner, tf.nest.map_structure(lambda leaf: leaf[None], example))
        rows = [
            tf.gradients(logits, chosen, grad_ys=d[None], unconnected_gradients="zero")
            for d in tf.unstack(directions)
        ]
        return [
            tf.stack([tf.reshape(g, [-1]) for g in column]) for column in zip(*rows, strict=True)
        ]

    signature = [
        tf.TensorSpec([c.shape[1], network.parameters[i].size], pieces[0].dtype) for i in indices
    ]
    return dict(zip(indices, tf.map_fn(one, (x, c), fn_output_signature=signature), strict=True))


def _plain_matmul(tap: Tap) -> bool:
    attributes = ("transpose_a", "transpose_b")
    return tap.operand == 1 and not any(tap.operation.get_attr(a) for a in attributes)


@rule("MatMul", when=_plain_matmul)
def _matmul_rows(tap: Tap, delta: tf.Tensor, n_examples: tf.Tensor) -> tf.Tensor:
    """Y = a W: sum over positions of a (x) delta."""
    a = tf.reshape(tap.data, [n_examples, -1, tap.parameter.shape[0]])
    return _outer_products(a, delta)


def _plain_convolution(tap: Tap) -> bool:
    get = tap.operation.get_attr
    return bool(
        tap.operand == 1
        and get("data_format") == b"NHWC"
        and get("padding") in (b"SAME", b"VALID")
        and tap.data.shape[-1] == tap.parameter.shape[2]  # no groups
    )


@rule("Conv2D", when=_plain_convolution)
def _convolution_rows(tap: Tap, delta: tf.Tensor, n_examples: tf.Tensor) -> tf.Tensor:
    """A convolution is a product of image patches with the kernel."""
    get = tap.operation.get_attr
    height, width = tap.parameter.shape[:2]
    patches = tf.image.extract_patches(
        tap.data,
        sizes=[1, height, width, 1],
        strides=get("strides"),
        rates=get("dilations"),
        padding=get("padding").decode(),
    )
    return _outer_products(tf.reshape(patches, [n_examples, -1, patches.shape[-1]]), delta)


def _outer_products(a: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """Sum_t a_t (x) delta_t of `[B, T, I]` and `[B, T, O]`, as `[B, I O]`."""
    rows = tf.matmul(a, delta, transpose_a=True)
    return tf.reshape(rows, [-1, a.shape[-1] * delta.shape[-1]])


def _broadcasts_over_examples(tap: Tap) -> bool:
    output, shape = tap.output.shape, tap.parameter.shape
    if output.rank is None or shape.rank is None or output.rank < 2 or output[0] == 1:
        return False
    return None not in output[1:] and not (shape.rank == output.rank and shape[0] != 1)


@rule("BiasAdd", "AddV2", "Add", when=_broadcasts_over_examples)
def _sum_rows(tap: Tap, delta: tf.Tensor, n_examples: tf.Tensor) -> tf.Tensor:
    """Y = a + b: delta summed over the axes along which b is broadcast."""
    return _sum_to_parameter(tap, delta, n_examples)


@rule("Mul", when=_broadcasts_over_examples)
def _product_rows(tap: Tap, delta: tf.Tensor, n_examples: tf.Tensor) -> tf.Tensor:
    """Y = a * b, element by element: a * delta, summed as for a sum."""
    a = tf.broadcast_to(tap.data, tf.shape(tap.output))
    return _sum_to_parameter(tap, tf.reshape(a, tf.shape(delta)) * delta, n_examples)


def _last_axis(output: tf.Tensor) -> int:
    return int(output.shape[-1])


def _sum_to_parameter(tap: Tap, terms: tf.Tensor, n_examples: tf.Tensor) -> tf.Tensor:
    inner = tap.output.shape[1:].as_list() or [1]
    shape = tap.parameter.shape.as_list()
    shape = ([1] * (len(inner) - len(shape)) + shape)[-len(inner) :]
    folded = tf.reshape(terms, [n_examples, -1, *inner])
    axes = [1, *(2 + k for k, n in enumerate(shape) if n == 1)]
    return tf.reshape(tf.reduce_sum(folded, axes), [n_examples, int(np.prod(shape))])
