"""How an operation's cotangent and its data make the rows of the parameter it reads.

A rule is a function of a tap and of the cotangents of its output, one tensor for each row wanted,
registered for the TensorFlow operations it knows. `PerExample` compares every rule with automatic
differentiation before it is used, so a rule only has to be right where its `when` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from deltauq.network.jacobians.factors import Convolved, Factor, OuterProducts, Rows
from deltauq.network.jacobians.taps import Tap

__all__ = ["RULES", "Rule", "register_rule"]

#: tap, cotangents of its output (R tensors of the output's shape) -> rows.
RuleFunction = Callable[[Tap, Sequence[tf.Tensor]], Factor]


@dataclass(frozen=True)
class Rule:
    """How the rows of a parameter come from one type of operation that reads it.

    Attributes:
        operands: which operand may be the parameter -> which one is the data then.
        when: whether the rule holds for a tap.
        factor: gives the rows.
    """

    operands: dict[int, int]
    when: Callable[[Tap], bool]
    factor: RuleFunction


#: Operation type -> its rule.
RULES: dict[str, Rule] = {}


def _always(tap: Tap) -> bool:
    del tap
    return True


def register_rule(
    *operations: str, operands: dict[int, int], when: Callable[[Tap], bool] = _always
) -> Callable[[RuleFunction], RuleFunction]:
    """A decorator that makes a function the rule of some TensorFlow operations.

    The function takes a `Tap` and the cotangents of its output, and returns a `Factor`, as a rule
    `Rows` of the parameter. Where its rows are not those of automatic differentiation, `PerExample`
    sets it aside; an error that it raises is not caught, so `when` must keep it from what it cannot
    take.

    Args:
        *operations: types of operations, such as "MatMul".
        operands: which operand may be the parameter -> which one is the data then.
        when: whether the rule holds for a tap; always, where it is left out.
    """

    def register(function: RuleFunction) -> RuleFunction:
        RULES.update(dict.fromkeys(operations, Rule(operands, when, function)))
        return function

    return register


def _matrix(tap: Tap) -> bool:
    return tap.parameter.shape.rank == 2 and not tap.get(
        "transpose_a" if tap.kind == "MatMul" else "adj_x"
    )


@register_rule("MatMul", "BatchMatMulV2", operands={1: 0}, when=_matrix)
def _matmul(tap: Tap, deltas: Sequence[tf.Tensor]) -> Factor:
    """Y = a W (or a W^T): a (x) delta, or delta (x) a."""
    transposed = tap.get("transpose_b" if tap.kind == "MatMul" else "adj_y")
    n_inputs, n_outputs = tap.parameter.shape[:: -1 if transposed else 1]
    a = _by_example(tap, tap.data, n_inputs)
    by_example = [_by_example(tap, delta, n_outputs) for delta in deltas]
    if not transposed:
        return OuterProducts(a, by_example)
    return Rows([tf.matmul(delta, a, transpose_a=True) for delta in by_example])


def _einsum_of_letters(tap: Tap) -> bool:
    data, parameter, result = _letters(tap)
    known = set(data + result)
    return "." not in data + parameter + result and data[0] == result[0] and known >= set(parameter)


@register_rule("Einsum", operands={0: 1, 1: 0}, when=_einsum_of_letters)
def _einsum(tap: Tap, deltas: Sequence[tf.Tensor]) -> Factor:
    """Y = einsum(a, W): another einsum of a and delta, the example's letter kept."""
    data, parameter, result = _letters(tap)
    equation = f"{data},{result}->{data[0]}{parameter}"
    return Rows([tf.einsum(equation, tap.data, delta) for delta in deltas])


def _letters(tap: Tap) -> tuple[str, str, str]:
    """Subscripts of the data, the parameter and the result."""
    operands, result = tap.get("equation").decode().split("->")
    parts = operands.split(",")
    return parts[1 - tap.operand], parts[tap.operand], result


def _channels_last(tap: Tap) -> bool:
    return bool(
        tap.get("data_format") in (b"NHWC", b"NDHWC") and tap.get("padding") in (b"SAME", b"VALID")
    )


@register_rule("Conv2D", "Conv3D", "DepthwiseConv2dNative", operands={1: 0}, when=_channels_last)
def _convolution(tap: Tap, deltas: Sequence[tf.Tensor]) -> Factor:
    """A convolution is a product of image patches with the kernel, one product a group."""
    kernel = tap.parameter.shape
    channels, taken = int(tap.data.shape[-1]), int(kernel[-2])
    groups = channels if tap.kind == "DepthwiseConv2dNative" else channels // taken
    if groups == tap.folds == 1:
        return Convolved(tap.data, deltas, _layout(tap))
    patches = _patches(tap, tap.data)
    a = _by_example(tap, patches, patches.shape[-1])
    by_example = [_by_example(tap, delta, tap.output.shape[-1]) for delta in deltas]
    if groups == 1:
        return OuterProducts(a, by_example)
    window = int(np.prod(kernel[:-2]))
    a = _by_group(a, [window, groups, channels // groups])
    return Rows([_grouped_rows(a, delta, groups) for delta in by_example])


def _grouped_rows(a: tf.Tensor, delta: tf.Tensor, groups: int) -> tf.Tensor:
    """Rows `[B, I, G, O]` of G separate products, a `[B G, T, I]` and delta `[B, T, G O]`."""
    each = int(delta.shape[-1]) // groups
    rows = tf.matmul(a, _by_group(delta, [1, groups, each]), transpose_a=True)
    rows = tf.reshape(rows, [-1, groups, a.shape[-1], each])
    return tf.transpose(rows, [0, 2, 1, 3])


def _by_group(values: tf.Tensor, layout: list[int]) -> tf.Tensor:
    """`[B, T, W * G * C]` in the layout [W, G, C] -> `[B G, T, W C]`."""
    window, groups, channels = layout
    positions = tf.shape(values)[1]
    split = tf.reshape(values, [-1, positions, window, groups, channels])
    moved = tf.transpose(split, [0, 3, 1, 2, 4])
    return tf.reshape(moved, [-1, positions, window * channels])


@register_rule("Conv2DBackpropInput", operands={1: 2}, when=_channels_last)
def _transposed_convolution(tap: Tap, deltas: Sequence[tf.Tensor]) -> Factor:
    """A transposed convolution: patches of delta (x) its data."""
    data = _by_example(tap, tap.data, tap.data.shape[-1])
    formed = []
    for delta in deltas:
        patches = _patches(tap, delta)
        patches = _by_example(tap, patches, patches.shape[-1])
        formed.append(tf.matmul(patches, data, transpose_a=True))
    return Rows(formed)


def _layout(tap: Tap) -> tf.Tensor:
    """Window, strides and dilations of each axis of space, `[3, axes]`."""
    axes, window = tap.data.shape.rank - 2, tap.parameter.shape[:-2].as_list()
    options = [tap.get(name)[1:-1][-axes:] for name in ("strides", "dilations")]
    return tf.constant([[1] * (axes - len(window)) + window, *options])


def _patches(tap: Tap, images: tf.Tensor) -> tf.Tensor:
    """What the kernel sees at each position, `[B, positions ..., window * channels]`."""
    padding, strides = tap.get("padding").decode(), tap.get("strides")
    if images.shape.rank == 3:  # one space axis, as a row of an image
        images = images[:, None]
    window = tap.parameter.shape[:-2].as_list()
    sizes = [1, *([1] * (images.shape.rank - 2 - len(window))), *window, 1]
    if len(sizes) == 5:
        return tf.extract_volume_patches(images, sizes, strides, padding)
    return tf.image.extract_patches(images, sizes, strides, tap.get("dilations"), padding)


def _broadcasts_over_examples(tap: Tap) -> bool:
    output, shape = tap.output.shape, tap.parameter.shape
    if output.rank is None or shape.rank is None or output.rank < 2 or output[0] == 1:
        return False
    return None not in output[1:] and not (shape.rank == output.rank and shape[0] != 1)


@register_rule(
    *("BiasAdd", "AddV2", "Add", "Sub"), operands={0: 1, 1: 0}, when=_broadcasts_over_examples
)
def _sum(tap: Tap, deltas: Sequence[tf.Tensor]) -> Factor:
    """Y = a + b or a - b: delta summed over the axes along which b is broadcast."""
    rows = [_sum_to_parameter(tap, delta) for delta in deltas]
    return Rows([-row for row in rows] if tap.kind == "Sub" and tap.operand == 1 else rows)


@register_rule("Mul", operands={0: 1, 1: 0}, when=_broadcasts_over_examples)
def _product(tap: Tap, deltas: Sequence[tf.Tensor]) -> Factor:
    """Y = a * b, entry by entry: a * delta, summed as for a sum."""
    return Rows([_sum_to_parameter(tap, tap.data * delta) for delta in deltas])


def _looks_up_rows(tap: Tap) -> bool:
    """Whether rows of a matrix are gathered, one at each place of indices of a known rank."""
    if tap.parameter.shape.rank != 2 or tap.data.shape.rank is None or tap.get("batch_dims"):
        return False
    axis = None if tap.inner is not None else tf.get_static_value(tap.operation.inputs[2])
    return tap.inner is not None or axis == 0


@register_rule("GatherV2", operands={0: 1}, when=_looks_up_rows)
def _lookup(tap: Tap, deltas: Sequence[tf.Tensor]) -> Factor:
    """Row i of an embedding gets the sum of the deltas of the places that looked it up."""
    n_entries, width = tap.parameter.shape
    n_examples = tf.shape(tap.data)[0] // tap.folds
    examples = tf.range(n_examples)
    indices = tf.cast(tf.reshape(tap.data, [n_examples, -1]), tf.int32)
    indices += n_entries * examples[:, None]
    formed = [
        tf.math.unsorted_segment_sum(
            tf.reshape(delta, [-1, width]), tf.reshape(indices, [-1]), n_entries * n_examples
        )
        for delta in deltas
    ]
    return Rows([tf.reshape(rows, [-1, n_entries * width]) for rows in formed])


def _by_example(tap: Tap, values: tf.Tensor, width: int) -> tf.Tensor:
    """`[F B, ..., width]` -> `[B, T, width]`: all positions of an example on one axis.

    T is static where the graph knows the axes between. TensorFlow dilates a convolution by folding
    space into the batch so that B runs fastest; everywhere else the folds of an example lie
    together.
    """
    positions = values.shape[1:-1]
    known = positions.is_fully_defined()
    n_examples = -1 if known else tf.shape(values)[0] // tap.folds
    if tap.folds_space:
        n_examples = tf.shape(values)[0] // tap.folds
        apart = tf.reshape(values, [tap.folds, n_examples, -1, width])
        values = tf.transpose(apart, [1, 0, 2, 3])
    count = tap.folds * int(np.prod(positions)) if known else -1
    return tf.reshape(values, [n_examples, count, width])


def _sum_to_parameter(tap: Tap, terms: tf.Tensor) -> tf.Tensor:
    inner = tap.output.shape[1:].as_list() or [1]
    shape = tap.parameter.shape.as_list()
    shape = ([1] * (len(inner) - len(shape)) + shape)[-len(inner) :]
    if tap.folds > 1 or shape != inner:
        folded = tf.reshape(terms, [-1, tap.folds, *inner])
        axes = [1, *(2 + k for k, n in enumerate(shape) if n == 1)]
        terms = tf.reduce_sum(folded, axes)
    return tf.reshape(terms, [-1, int(np.prod(shape))])
