"""What a look at a model on a few rows shows, and what of it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.errors import InvalidInputError, UnsupportedModelError, what_it_says
from deltauq.network.graph import bytes_reached_from, reached_from
from deltauq.network.link import end_of, mask_of

__all__ = [
    "ForwardTrace",
    "Inspection",
    "batch_size_error",
    "branching_error",
    "check_output",
    "check_rows_independent",
    "keeps_logits",
    "random_error",
    "read_forward_trace",
    "row_spec",
    "shape_error",
    "takes_one_batch_size",
]

#: Operations with a kink: the cost has no second derivative there.
_KINKED = frozenset(
    {
        "Relu",
        "Relu6",
        "LeakyRelu",
        "MaxPool",
        "MaxPool3D",
        "Abs",
        "Maximum",
        "Minimum",
        "Max",
        "Selu",
    }
)


@dataclass(frozen=True)
class Inspection:
    """What a look at the model on a few rows found.

    Attributes:
        output: of those rows, `[B, ..., C]`.
        last: the type of the operation that made it; see `deltauq.network.link.End`.
        link: "Softmax", "Sigmoid" or "Exp" where that is one: the logits are its input. None
            otherwise.
        kinks: operations without a second derivative everywhere, such as "Relu".
        mask: axes of the mask on the output beside the first, None for one of a length that is not
            known; None where there is no mask.
        keeps_logits: see the function of that name.
    """

    output: npt.NDArray[Any]
    last: str
    link: str | None
    kinks: tuple[str, ...]
    mask: tuple[int | None, ...] | None = None
    keeps_logits: bool = False

    @property
    def position_shape(self) -> tuple[int, ...]:
        """Axes between inputs and outputs, of a sequence or an image; () where there are none."""
        return self.output.shape[1:-1]

    @property
    def n_outputs(self) -> int:
        """Number C of outputs, those of all positions together."""
        return int(np.prod(self.output.shape[1:]))


class ForwardTrace(NamedTuple):
    """What stands in the graph of the forward pass of one row.

    Attributes:
        kinks: as of `Inspection`, and so the next three.
        last: see there.
        link: see there.
        mask: see there.
        activation_bytes: of all tensors that depend on the inputs.
        outputs: shape of the output of one row.
    """

    kinks: tuple[str, ...]
    last: str
    link: str | None
    mask: tuple[int | None, ...] | None
    activation_bytes: int
    outputs: tuple[int, ...]


def read_forward_trace(params: tf.Tensor, x: Any, output: tf.Tensor) -> ForwardTrace:
    """Read the graph that makes the model's output of its parameters and one row, inside its trace.

    What is done to the inputs before any parameter has a part in it has no kink in the parameters.
    """
    activation_bytes = bytes_reached_from(tf.nest.flatten(x))
    kinks = {tensor.op.type for tensor in reached_from([params]).values()} & _KINKED
    mask, end = mask_of(output), end_of(output)
    shape = None if mask is None else tuple(mask.shape[1:])
    outputs = tuple(output.shape[1:])
    return ForwardTrace(tuple(sorted(kinks)), end.last, end.link, shape, activation_bytes, outputs)


def keeps_logits(model: Any, output: tf.Tensor) -> bool:
    """Whether Keras keeps the input of the last softmax or sigmoid beside the output.

    It does so for its own of them. A trace of `tf_keras` loses it, where the last layer tells.

    Args:
        model: the model.
        output: of a call of it.
    """
    last = (getattr(model, "layers", None) or [None])[-1]
    activation = getattr(last, "activation", None)
    of_keras = "keras" in (getattr(activation, "__module__", None) or "")
    named = getattr(activation, "__name__", None) in ("softmax", "sigmoid")
    return hasattr(output, "_keras_logits") or (of_keras and named)


def row_spec(leaves: Any) -> Any:
    """`tf.TensorSpec`s of one row of some tensors, or of what others are specs of."""
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([1, *leaf.shape[1:]], leaf.dtype), leaves
    )


def check_output(output: Any, dtype: str) -> None:
    """`UnsupportedModelError` unless the output is one tensor `[B, ..., C]` of this precision."""
    _check_single(output)
    if not tf.is_tensor(output) or output.shape.rank < 2:
        shape = output.shape if tf.is_tensor(output) else type(output).__name__
        raise UnsupportedModelError(
            "the model's output is not one row of numbers an input",
            expected="one tensor [B, C], or [B, T, C] for T predictions an input",
            received=f"{shape}",
            remedy="give it an axis: keras.Model(model.inputs, "
            "keras.ops.expand_dims(model.outputs[0], -1))"
            if tf.is_tensor(output) and output.shape.rank == 1
            else "wrap the part of the model that gives the output to be predicted: "
            "keras.Model(model.inputs, that_output)",
        )
    if output.dtype.name != dtype:
        raise UnsupportedModelError(
            "the model computes in another precision than its weights have",
            expected=f"{dtype} throughout",
            received=f"an output of dtype {output.dtype.name}",
            remedy=f"build the model with dtype={dtype!r} in every layer, and in Input, and cast "
            "to no other one inside",
        )


def check_rows_independent(output: tf.Tensor, alone: tf.Tensor) -> None:
    """`UnsupportedModelError` where the first row of an output is another one alone.

    Args:
        output: of a few rows, `[B, ..., C]`.
        alone: of the first of them, `[1, ..., C]`.
    """
    numbers = np.finfo(output.dtype.as_numpy_dtype)
    scale = float(np.max(np.abs(output))) + numbers.tiny
    gap = float(np.max(np.abs(alone[0] - output[0]))) / scale
    if not gap <= 1e3 * numbers.eps:
        raise UnsupportedModelError(
            "the output for one input depends on the others in its batch",
            expected="a model that treats the rows of a batch one by one",
            received=f"an output that moves by {gap:.2g} relative when its row stands alone",
            remedy="compute nothing over the rows of a batch where training=False: run "
            "normalisation layers in inference mode (not training=True)",
        )


def shape_error(x: Any, error: Exception) -> InvalidInputError:
    """The error for a model that cannot be called on some rows."""
    return InvalidInputError(
        "the model cannot be called on x",
        expected="inputs as in training",
        received=f"shapes {[list(leaf.shape) for leaf in tf.nest.flatten(x)]} in a probe "
        f"of the first rows, at which the model says: {what_it_says(error)}",
    )


def takes_one_batch_size(model: Any) -> bool:
    """Whether a model of Keras says that its batches have one size, as a stateful one has to."""
    return any(leaf.shape[0] is not None for leaf in getattr(model, "inputs", None) or ())


def batch_size_error(error: Exception) -> UnsupportedModelError:
    """The error for a model that cannot be called on another number of rows."""
    return UnsupportedModelError(
        "the model takes batches of one size only",
        expected="a model that takes any number of rows",
        received=f"of fewer rows it says: {what_it_says(error)}",
        remedy="build it with Input(shape) rather than batch_shape, without stateful=True, and "
        "copy the weights: new.set_weights(old.get_weights())",
    )


def random_error(received: str) -> UnsupportedModelError:
    """The error for a model that draws random numbers at prediction."""
    return UnsupportedModelError(
        "the model is random in inference mode",
        expected="the same output for the same input",
        received=received,
        remedy="switch off layers that draw random numbers when training=False, such as dropout "
        "called with training=True",
    )


def branching_error(error: Exception) -> UnsupportedModelError:
    """The error for a model whose Python code asks for the value of a tensor."""
    return UnsupportedModelError(
        "the model branches in Python on the value of a tensor",
        expected="a call that Keras can compile",
        received=f"one at which TensorFlow says: {what_it_says(error).partition('. ')[0]}",
        remedy="use keras.ops.where, keras.ops.cond or tf.cond in its place",
    )


def _check_single(output: Any) -> None:
    """Refuse a model with several outputs, or with one in a list or a dict.

    Raises:
        UnsupportedModelError: the output is no single tensor.
    """
    if isinstance(output, (list, tuple, dict)):
        names = list(output) if isinstance(output, dict) else range(len(output))
        raise UnsupportedModelError(
            "the model has several outputs, or one that is no plain tensor",
            expected="one tensor [B, C]",
            received=f"a {type(output).__name__} of {len(output)}: {list(names)}",
            remedy="wrap the one output that is wanted: keras.Model(model.inputs, "
            "model.outputs[0]), or a subclass or tf.Module whose call returns it, with layers=... "
            "for the variables that it depends on",
        )
