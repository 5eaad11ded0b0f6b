"""A trained model as a pure function of a flat parameter vector.

The user's model is never changed: its values are copied once, and every forward pass is a call on
those copies (`adapters`).
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.errors import DeltaUQError, InvalidInputError, UnsupportedModelError
from deltauq.network.adapters import adapt
from deltauq.network.graph import bytes_reached_from, reached_from, traced
from deltauq.network.link import LINKS, End, end_of, mask_of
from deltauq.network.parameters import Layers, Parameter, lay_out, select
from deltauq.network.replaced_gradients import fast_gradients
from deltauq.network.requirements import (
    check_constraints,
    check_finite_weights,
    check_single_output,
    common_dtype,
)
from deltauq.runtime.threads import refuse_lost_runtime

__all__ = ["Layers", "Network", "Parameter"]

#: How the paths of the states of random generators end.
_SEED = "seed_generator_state"

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


class Network:
    """A model as a pure function of its uncertain parameters.

    Args:
        model: a built `keras.Model` or `tf_keras.Model`, a `tf.Module` with a call, or the path of
            a Keras file; with one output `[B, C]` or `[B, T, C]`: logits, probabilities of a
            softmax or of sigmoids, or the numbers of a regression.
        layers: which trainable variables are uncertain: None for all, names or glob patterns
            (on variable paths or on one part of them), "last" (the layer of the model's last
            variable), or a callable on the model's variables. All others are held fixed.

    Attributes:
        model: the user's model, which is only read.
        adapter: calls it.
        params: the values when this object was made, `[P]`.
        parameters: where each variable stands in `params`, in the model's variable order.
        n_params: P.
        dtype: "float32" or "float64".

    Raises:
        InvalidInputError: the model is not built, or `layers` selects nothing.
        UnsupportedModelError: none of those models, mixed precision, quantized, constrained or
            non-finite weights.

    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> Network(model).n_params
    15
    """

    def __init__(self, model: Any, *, layers: Layers = None) -> None:
        refuse_lost_runtime()
        self.adapter = adapt(model)
        self.model = self.adapter.model
        trainable, non_trainable = self.adapter.trainable, self.adapter.non_trainable
        self.variables = select(trainable, layers)
        chosen = {id(variable) for variable in self.variables}
        self.dtype = common_dtype(self.adapter, self.variables)
        self.parameters = lay_out(self.variables)
        self.n_params = self.parameters[-1].stop
        values = [np.ravel(variable.numpy()) for variable in self.variables]
        self.params: tf.Tensor = tf.constant(np.concatenate(values))
        self._fixed = {
            id(variable): tf.constant(variable.numpy())
            for variable in trainable + non_trainable
            if id(variable) not in chosen
        }
        self._links = LINKS
        self._activation_bytes: dict[str, int] = {}
        check_constraints(self.variables)
        check_finite_weights(trainable + non_trainable)

    def unflatten(self, params: tf.Tensor) -> list[tf.Tensor]:
        """Cut a flat vector `[P]` into the parameters, each in its variable's shape."""
        parts = tf.split(params, [parameter.size for parameter in self.parameters])
        return [
            tf.reshape(part, parameter.shape)
            for part, parameter in zip(parts, self.parameters, strict=True)
        ]

    def logits(self, pieces: Sequence[tf.Tensor], x: Any) -> tf.Tensor:
        """Logits `[B, C]` at the parameters `unflatten` gave; inside a `tf.function` only.

        A softmax or sigmoid at the end is not undone numerically: the trace is walked back to its
        input. Outputs `[B, T, C]` are one row of T C logits.
        """
        output = self.output(pieces, x)
        end = end_of(output)
        logits = end.logits if end.link in self._links else output
        return logits if logits.shape.rank == 2 else _one_row(logits)

    def without_link(self) -> Network:
        """A network whose logits are the model's own output, with a sigmoid at its end included."""
        other = copy.copy(self)
        other._links = frozenset()
        return other

    def in_variables(self) -> Network:
        """A network with its values in `tf.Variable`s: a SavedModel cannot hold large constants."""
        other = copy.copy(self)
        other.params = tf.Variable(self.params, trainable=False)
        other._fixed = {
            key: tf.Variable(value, trainable=False) for key, value in self._fixed.items()
        }
        return other

    def fixed_values(self) -> list[Any]:
        """Values of all variables that are not uncertain, in the model's order."""
        return list(self._fixed.values())

    def output(self, pieces: Sequence[tf.Tensor], x: Any) -> tf.Tensor:
        """The model's own output `[B, ..., C]`, in inference mode."""
        return self._stateless(pieces, x)[0]

    def fingerprint(self) -> str:
        """SHA-256 of all values that the output depends on, in the model's variable order."""
        digest = hashlib.sha256(str([p.shape for p in self.parameters]).encode())
        digest.update(self.params.numpy().tobytes())
        for variable in self.adapter.trainable + self.adapter.non_trainable:
            if id(variable) in self._fixed and not variable.path.endswith(_SEED):
                value = self._fixed[id(variable)].numpy()
                digest.update(f"{value.dtype} {value.shape}".encode())
                digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    def compiled_config(self) -> dict[str, Any] | None:
        """What the model was compiled with, as Keras keeps it; None where it was not."""
        compilation = self.adapter.compilation
        return compilation.get_compile_config() if compilation.compiled else None

    def count_outputs(self, spec: Any) -> int:
        """Number C of outputs for inputs of these `tf.TensorSpec`s, all positions together."""

        def trace(params: tf.Tensor, x: Any) -> tf.Tensor:
            return self.logits(self.unflatten(params), x)

        return int(traced(trace, self.params, spec).output_shapes[1])

    def activation_bytes(self, spec: Any) -> int:
        """Bytes that the forward pass of one example makes.

        Args:
            spec: `tf.TensorSpec`s of the inputs, their first axis free.
        """
        one = _row_spec(spec)
        if str(one) not in self._activation_bytes:
            self._trace_one_row(one)
        return self._activation_bytes[str(one)]

    def _trace_one_row(self, spec: Any) -> _Trace:
        """What stands in the graph of the forward pass of one row; how large that is, is kept."""
        found: list[_Trace] = []

        def trace(params: tf.Tensor, x: Any) -> tf.Tensor:
            output = self.output(self.unflatten(params), x)
            self._activation_bytes[str(spec)] = bytes_reached_from(tf.nest.flatten(x))
            operations = frozenset(op.type for op in output.graph.get_operations())
            mask = mask_of(output)
            shape = None if mask is None else tuple(mask.shape[1:])
            found.append(_Trace(operations, end_of(output), shape))
            return output

        traced(trace, self.params, spec)
        return found[-1]

    def terms_added(self, x: Any) -> list[str]:
        """Names of the layers that add to the cost what is no penalty on weights."""
        return self.adapter.terms_added(self._values(self.unflatten(self.params)), x)

    def _stateless(self, pieces: Sequence[tf.Tensor], x: Any) -> tuple[Any, list[Any]]:
        with fast_gradients():
            return self.adapter.call(self._values(pieces), x)

    def _values(self, pieces: Sequence[tf.Tensor]) -> dict[int, tf.Tensor]:
        fixed = {key: tf.convert_to_tensor(value) for key, value in self._fixed.items()}
        return fixed | {id(v): piece for v, piece in zip(self.variables, pieces, strict=True)}

    def inspect(self, x: Any) -> Inspection:
        """Look at the model on a few rows before anything is computed with it.

        Args:
            x: two rows or more.

        Raises:
            InvalidInputError: the model does not take inputs of this shape.
            UnsupportedModelError: random, stateful or batch-dependent output, or an output that
                is no row of numbers an input.
        """
        pieces = self.unflatten(self.params)
        try:
            output, state = self._stateless(pieces, x)
        except DeltaUQError:
            raise
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            raise InvalidInputError(
                "the model cannot be called on x",
                expected="inputs as in training",
                received=f"shapes {[list(leaf.shape) for leaf in tf.nest.flatten(x)]} in a probe "
                f"of the first rows, at which the model says: {_without_arrays(str(error))}",
            ) from error
        check_single_output(output)
        if not tf.is_tensor(output) or output.shape.rank < 2:
            shape = output.shape if tf.is_tensor(output) else type(output).__name__
            raise UnsupportedModelError(
                "the model's output is not one row of numbers an input",
                expected="one tensor [B, C], or [B, T, C] for T predictions an input",
                received=f"{shape}",
                remedy="wrap the part of the model that gives the output to be predicted: "
                "keras.Model(model.inputs, that_output)",
            )
        if output.dtype.name != self.dtype:
            raise UnsupportedModelError(
                "the model computes in another precision than its weights have",
                expected=f"{self.dtype} throughout",
                received=f"an output of dtype {output.dtype.name}",
                remedy=f"build the model with dtype={self.dtype!r} in every layer, and in Input",
            )
        self._check_repeatable(pieces, x, output, state)
        _check_rows_independent(self, pieces, x, output)
        self.adapter.check(self._values(pieces), x)
        return self._inspect_trace(x, output)

    def _check_repeatable(self, pieces: Any, x: Any, output: tf.Tensor, state: Any) -> None:
        again, _ = self._stateless(pieces, x)
        if not np.array_equal(again, output, equal_nan=True):
            raise _random_error(
                f"outputs that differ by up to {np.max(np.abs(again - output)):.3g}"
            )
        changed = [
            variable
            for variable, new in zip(self.adapter.non_trainable, state, strict=True)
            if not np.array_equal(self._fixed[id(variable)], new)
        ]
        seeds = [v for v in changed if v.path.endswith(_SEED)]
        random = [seed.path for seed in seeds if self._reaches_output(seed, x)]
        if random:
            raise _random_error(f"numbers drawn from {random}")
        changed = [variable for variable in changed if variable not in seeds]
        if changed:
            raise UnsupportedModelError(
                "the model is stateful: a call in inference mode changes it",
                expected="a model whose call with training=False leaves its variables alone",
                received=f"changed variables {[variable.path for variable in changed]}",
                remedy="update them only when training=True; moving averages belong to batch "
                "normalisation called with training=True",
            )

    def _reaches_output(self, variable: Any, x: Any) -> bool:
        """Recurrent layers with dropout draw masks in inference mode too, and do not use them."""
        found = []

        def trace(pieces: list[tf.Tensor], seed: tf.Tensor, x: Any) -> tf.Tensor:
            output, _ = self.adapter.call(self._values(pieces) | {id(variable): seed}, x)
            found.append(output.ref() in reached_from([seed]))
            return output

        traced(trace, self.unflatten(self.params), self._fixed[id(variable)], x)
        return found[-1]

    def _inspect_trace(self, x: Any, output: tf.Tensor) -> Inspection:
        try:
            trace = self._trace_one_row(_row_spec(x))
        except tf.errors.OperatorNotAllowedInGraphError as error:
            raise UnsupportedModelError(
                "the model branches in Python on the value of a tensor",
                expected="a call that Keras can compile",
                received=f"one at which TensorFlow says: {str(error).split('.', 1)[0]}",
                remedy="use keras.ops.where, keras.ops.cond or tf.cond in its place",
            ) from error
        return Inspection(
            output=np.asarray(output),
            last=trace.end.last,
            link=trace.end.link,
            kinks=tuple(sorted(trace.operations & _KINKED)),
            mask=trace.mask,
        )


class _Trace(NamedTuple):
    """Types of the operations in the graph of a forward pass, its end, and its mask's shape."""

    operations: frozenset[str]
    end: End
    mask: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Inspection:
    """What a look at the model on a few rows found.

    Attributes:
        output: of those rows, `[B, ..., C]`.
        last: the type of the operation that made it; see `deltauq.network.link.End`.
        link: "Softmax" or "Sigmoid" where that is one: the logits are its input. None otherwise.
        kinks: operations without a second derivative everywhere, such as "Relu".
        mask: axes of the mask on the output beside the first, None for one of a length that is not
            known; None where there is no mask.
    """

    output: npt.NDArray[Any]
    last: str
    link: str | None
    kinks: tuple[str, ...]
    mask: tuple[int | None, ...] | None = None

    @property
    def positions(self) -> tuple[int, ...]:
        """Axes between inputs and outputs, of a sequence or an image; () where there are none."""
        return self.output.shape[1:-1]

    @property
    def n_outputs(self) -> int:
        """Number C of outputs, those of all positions together."""
        return int(np.prod(self.output.shape[1:]))


def _random_error(received: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        "the model is random in inference mode",
        expected="the same output for the same input",
        received=received,
        remedy="switch off layers that draw random numbers when training=False, such as dropout "
        "called with training=True",
    )


def _check_rows_independent(
    network: Network, pieces: Sequence[tf.Tensor], x: Any, output: tf.Tensor
) -> None:
    try:
        alone = network.output(pieces, tf.nest.map_structure(lambda leaf: leaf[:1], x))
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        raise UnsupportedModelError(
            "the model takes batches of one size only",
            expected="a model that takes any number of rows",
            received=f"for one row alone: {error}",
            remedy="build it with Input(shape) rather than batch_shape, without stateful=True, "
            "and copy the weights",
        ) from error
    scale = float(np.max(np.abs(output))) + np.finfo(network.dtype).tiny
    gap = float(np.max(np.abs(alone[0] - output[0]))) / scale
    if not gap <= 1e3 * np.finfo(network.dtype).eps:
        raise UnsupportedModelError(
            "the output for one input depends on the others in its batch",
            expected="a model that treats the rows of a batch one by one",
            received=f"an output that moves by {gap:.2g} relative when its row stands alone",
            remedy="run normalisation layers in inference mode (not training=True)",
        )


def _row_spec(leaves: Any) -> Any:
    """`tf.TensorSpec`s of one row of some tensors, or of what others are specs of."""
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([1, *leaf.shape[1:]], leaf.dtype), leaves
    )


def _one_row(output: tf.Tensor) -> tf.Tensor:
    """`[B, T, C]` -> `[B, T C]`."""
    return tf.reshape(output, [-1, int(np.prod(output.shape[1:]))])


def _without_arrays(text: str) -> str:
    """A message of Keras, which may print a whole batch, with [...] for it."""
    return re.sub(r"\[\[.*\]\]", "[...]", text, flags=re.DOTALL)
