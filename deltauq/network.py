"""A trained model as a pure function of a flat parameter vector.

The user's model is never changed: its values are copied once, and every forward pass goes through
Keras' stateless call with those copies.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.errors import InvalidInputError, UnsupportedModelError
from deltauq.gradients import fast_gradients
from deltauq.regularization import matches
from deltauq.tracing import bytes_reached_from

__all__ = ["Layers", "Network", "Parameter"]

Layers = str | Sequence[str] | Callable[[Any], bool] | None

#: Operations that may stand after a link function without changing its values.
_TRANSPARENT = frozenset({"Identity"})

#: Link functions at the end of a model: their inputs are the logits.
_LINKS = frozenset({"Softmax", "Sigmoid"})

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
class Parameter:
    """One variable's place in the flat parameter vector: `params[start:stop]`."""

    path: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.stop - self.start


class Network:
    """A built Keras 3 model as a pure function of its uncertain parameters.

    Args:
        model: a built `keras.Model` with one output `[B, C]` or `[B, T, C]`: logits, probabilities
            of a softmax or of sigmoids, or the numbers of a regression.
        layers: which trainable variables are uncertain: None for all, names or glob patterns
            (on variable paths or on one part of them), or a callable on variables. All others
            are held fixed.

    Attributes:
        model: the user's model, which is only read.
        params: the values when this object was made, `[P]`.
        parameters: where each variable stands in `params`, in the model's variable order.
        n_params: P.
        dtype: "float32" or "float64".

    Raises:
        InvalidInputError: the model is not built, or `layers` selects nothing.
        UnsupportedModelError: not a Keras model, mixed precision, or non-finite weights.

    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> Network(model).n_params
    15
    """

    def __init__(self, model: Any, *, layers: Layers = None) -> None:
        _check_model(model)
        self.model = model
        takes_mode = "training" in inspect.signature(model.call).parameters
        self._mode = {"training": False} if takes_mode else {}
        trainable = list(model.trainable_variables)
        self.variables = _select(trainable, layers)
        chosen = {id(variable) for variable in self.variables}
        self.dtype = _common_dtype(model, self.variables)
        self.parameters = _lay_out(self.variables)
        self.n_params = self.parameters[-1].stop
        values = [np.ravel(variable.numpy()) for variable in self.variables]
        self.params: tf.Tensor = tf.constant(np.concatenate(values))
        self._fixed = {
            id(variable): tf.constant(variable.numpy())
            for variable in trainable + list(model.non_trainable_variables)
            if id(variable) not in chosen
        }
        self._links = _LINKS
        self._activation_bytes: dict[str, int] = {}
        _check_finite_weights(self.variables + trainable + list(model.non_trainable_variables))

    def unflatten(self, params: tf.Tensor) -> list[tf.Tensor]:
        """The parts of a flat vector `[P]`, each in its variable's shape."""
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
        end = _last_operation(output)
        logits = end.inputs[0] if end.type in self._links else output
        return logits if logits.shape.rank == 2 else _one_row(logits)

    def without_link(self) -> Network:
        """The same with the model's output itself for logits, a sigmoid at its end included."""
        other = copy.copy(self)
        other._links = frozenset()
        return other

    def output(self, pieces: Sequence[tf.Tensor], x: Any) -> tf.Tensor:
        """The model's own output `[B, ..., C]`, in inference mode."""
        return self._stateless(pieces, x)[0]

    def compiled_config(self) -> dict[str, Any] | None:
        """What the model was compiled with, as Keras keeps it; None where it was not."""
        compiled = getattr(self.model, "compiled", False)
        return self.model.get_compile_config() if compiled else None

    def count_outputs(self, spec: Any) -> int:
        """C, of inputs of these `tf.TensorSpec`s."""

        @tf.function
        def trace(params: tf.Tensor, x: Any) -> tf.Tensor:
            return self.logits(self.unflatten(params), x)

        return int(trace.get_concrete_function(self.params, spec).output_shapes[1])

    def activation_bytes(self, spec: Any) -> int:
        """Bytes that the forward pass of one example makes.

        Args:
            spec: `tf.TensorSpec`s of the inputs, their first axis free.
        """
        key = str(spec)
        if key not in self._activation_bytes:
            self._activation_bytes[key] = self._trace_activations(spec)
        return self._activation_bytes[key]

    def _trace_activations(self, spec: Any) -> int:
        found = []
        one = tf.nest.map_structure(
            lambda leaf: tf.TensorSpec([1, *leaf.shape[1:]], leaf.dtype), spec
        )

        @tf.function
        def trace(params: tf.Tensor, x: Any) -> tf.Tensor:
            output = self.output(self.unflatten(params), x)
            found.append(bytes_reached_from(tf.nest.flatten(x)))
            return output

        trace.get_concrete_function(self.params, one)
        return found[-1]

    def _stateless(self, pieces: Sequence[tf.Tensor], x: Any) -> tuple[Any, Any]:
        by_id = self._fixed | {
            id(v): piece for v, piece in zip(self.variables, pieces, strict=True)
        }
        # Variables that came later, such as the metrics of `evaluate`, have no part in the output.
        trainable = [by_id.get(id(v), v) for v in self.model.trainable_variables]
        state = [by_id.get(id(v), v) for v in self.model.non_trainable_variables]
        with fast_gradients():
            return self.model.stateless_call(trainable, state, x, **self._mode)

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
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            raise InvalidInputError(
                "the model cannot be called on x",
                expected="inputs as in training",
                received=f"shapes {[list(leaf.shape) for leaf in tf.nest.flatten(x)]} in a probe "
                f"of the first rows, at which the model says: {error}",
            ) from error
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
        return self._inspect_trace(x, output)

    def _check_repeatable(self, pieces: Any, x: Any, output: tf.Tensor, state: Any) -> None:
        again, _ = self._stateless(pieces, x)
        if not np.array_equal(again, output, equal_nan=True):
            raise UnsupportedModelError(
                "the model is random in inference mode",
                expected="the same output for the same input",
                received=f"outputs that differ by up to {np.max(np.abs(again - output)):.3g}",
                remedy="switch off layers that draw random numbers when training=False",
            )
        before = [self._fixed[id(v)] for v in self.model.non_trainable_variables]
        paths = [v.path for v in self.model.non_trainable_variables]
        changed = [
            path
            for path, old, new in zip(paths, before, state, strict=True)
            if not np.array_equal(old, new)
        ]
        if changed:
            raise UnsupportedModelError(
                "the model is stateful: a call in inference mode changes it",
                expected="a model whose call with training=False leaves its variables alone",
                received=f"changed variables {changed}",
                remedy="update them only when training=True; a seed generator among them belongs "
                "to a layer that is random, such as dropout called with training=True",
            )

    def _inspect_trace(self, x: Any, output: tf.Tensor) -> Inspection:
        found: dict[str, Any] = {}

        @tf.function
        def trace(params: tf.Tensor, x: Any) -> tf.Tensor:
            end = _last_operation(self.output(self.unflatten(params), x))
            found["last"] = end.type
            found["operations"] = frozenset(op.type for op in end.graph.get_operations())
            return end.outputs[0]

        trace.get_concrete_function(self.params, x)
        return Inspection(
            output=np.asarray(output),
            last=found["last"],
            link=found["last"] if found["last"] in _LINKS else None,
            kinks=tuple(sorted(found["operations"] & _KINKED)),
        )


@dataclass(frozen=True)
class Inspection:
    """What a look at the model on a few rows found.

    Attributes:
        output: of those rows, `[B, ..., C]`.
        last: the type of the operation that made it.
        link: "Softmax" or "Sigmoid" where that is one: the logits are its input. None otherwise.
        kinks: operations without a second derivative everywhere, such as "Relu".
    """

    output: npt.NDArray[Any]
    last: str
    link: str | None
    kinks: tuple[str, ...]

    @property
    def positions(self) -> tuple[int, ...]:
        """Axes between the inputs and their outputs: those of a sequence or an image."""
        return self.output.shape[1:-1]

    @property
    def n_outputs(self) -> int:
        """C, all positions together."""
        return int(np.prod(self.output.shape[1:]))


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise UnsupportedModelError(
            "the model is not a Keras 3 model",
            expected="a built keras.Model (Sequential, functional or subclassed)",
            received=f"{type(model).__module__}.{type(model).__qualname__}",
            remedy="rebuild a legacy tf_keras model with keras",
        )
    if not model.built or not model.variables:
        raise InvalidInputError(
            "the model is not built",
            expected="a trained model whose variables exist",
            received=f"{model.name!r} with {len(model.variables)} variables",
            remedy="train or load it first, or call it once on a batch",
        )


def _select(trainable: list[Any], layers: Layers) -> list[Any]:
    if layers is None:
        chosen = trainable
    elif callable(layers):
        chosen = [variable for variable in trainable if layers(variable)]
    else:
        patterns = [layers] if isinstance(layers, str) else list(layers)
        for pattern in patterns:
            if not isinstance(pattern, str) or not any(
                matches(variable.path, pattern) for variable in trainable
            ):
                raise InvalidInputError(
                    f"layers has the pattern {pattern!r}, which matches no trainable variable",
                    expected="names or glob patterns of layers or variables",
                    received=f"trainable variables {[variable.path for variable in trainable]}",
                )
        chosen = [v for v in trainable if any(matches(v.path, p) for p in patterns)]
    if not chosen:
        raise InvalidInputError(
            "no variable is left to be uncertain",
            expected="at least one trainable variable",
            received=f"layers={layers!r} on trainable variables {[v.path for v in trainable]}",
            remedy="select other layers, or set layer.trainable = True",
        )
    return chosen


def _lay_out(variables: Sequence[Any]) -> tuple[Parameter, ...]:
    parameters, start = [], 0
    for variable in variables:
        shape = tuple(int(n) for n in variable.shape)
        stop = start + int(np.prod(shape, dtype=int))
        parameters.append(Parameter(variable.path, shape, start, stop))
        start = stop
    return tuple(parameters)


def _common_dtype(model: Any, variables: Sequence[Any]) -> str:
    dtypes = {str(variable.dtype) for variable in variables}
    containers = (keras.layers.InputLayer, keras.Model)
    compute = {
        layer.name: str(layer.compute_dtype)
        for layer in model._flatten_layers()
        if not isinstance(layer, containers)
    }
    others = {name: dtype for name, dtype in compute.items() if dtype not in dtypes}
    if len(dtypes) != 1 or not dtypes <= {"float32", "float64"} or others:
        raise UnsupportedModelError(
            "the model mixes precisions, or uses one that curvature cannot be computed in",
            expected="float32 everywhere, or float64 everywhere",
            received=f"variables of {sorted(dtypes)}"
            + (f", layers computing in {others}" if others else ""),
            remedy="copy the weights into the same model built with one dtype in every layer, "
            "those without weights included",
        )
    return dtypes.pop()


def _check_finite_weights(variables: Sequence[Any]) -> None:
    for variable in variables:
        value = variable.numpy()
        if value.dtype.kind == "f" and not np.all(np.isfinite(value)):
            raise UnsupportedModelError(
                f"the weights in {variable.path!r} hold NaN or infinity",
                expected="finite weights",
                received=f"{np.count_nonzero(~np.isfinite(value))} of {value.size} not finite",
                remedy="the training diverged; train again with a smaller learning rate",
            )


def _check_rows_independent(
    network: Network, pieces: Sequence[tf.Tensor], x: Any, output: tf.Tensor
) -> None:
    alone = network.output(pieces, tf.nest.map_structure(lambda leaf: leaf[:1], x))
    scale = float(np.max(np.abs(output))) + np.finfo(network.dtype).tiny
    gap = float(np.max(np.abs(alone[0] - output[0]))) / scale
    if gap > 1e3 * np.finfo(network.dtype).eps:
        raise UnsupportedModelError(
            "the output for one input depends on the others in its batch",
            expected="a model that treats the rows of a batch one by one",
            received=f"an output that moves by {gap:.2g} relative when its row stands alone",
            remedy="run normalisation layers in inference mode (not training=True)",
        )


def _last_operation(output: tf.Tensor) -> Any:
    operation = output.op
    while operation.type in _TRANSPARENT:
        operation = operation.inputs[0].op
    return operation


def _one_row(output: tf.Tensor) -> tf.Tensor:
    """`[B, T, C]` -> `[B, T C]`."""
    return tf.reshape(output, [-1, int(np.prod(output.shape[1:]))])
