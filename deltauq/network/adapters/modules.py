"""Models that read `tf.Variable`s: their reads are replaced in the trace of a call."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.errors import UnsupportedModelError, what_it_says
from deltauq.network.adapters.adapter import Values, mode_arguments, tables_of
from deltauq.network.adapters.substitution import convert, reads_replaced, state_use
from deltauq.network.graph import traced

__all__ = ["ModuleAdapter", "TensorFlowAdapter", "TensorFlowVariable"]


@dataclass(frozen=True, eq=False)
class TensorFlowVariable:
    """A `tf.Variable` with the attributes that a Keras 3 variable has.

    Attributes:
        variable: the user's.
        path: its name within the model.
        regularizer: its penalty, or None.
    """

    variable: Any
    path: str
    regularizer: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the variable's value, as integers."""
        return tuple(self.variable.shape)

    @property
    def dtype(self) -> str:
        """Name of the variable's precision, such as "float32"."""
        return str(self.variable.dtype.name)

    @property
    def constraint(self) -> Any:
        """What training projects the variable with, or None."""
        return getattr(self.variable, "constraint", None)

    @property
    def parts(self) -> list[Any]:
        """The variables that are read for it: itself, or its copy on each device."""
        return list(getattr(self.variable, "values", [self.variable]))

    def numpy(self) -> npt.NDArray[Any]:
        """Value of the variable as a NumPy array."""
        return np.asarray(self.variable.numpy())

    def assign(self, value: Any) -> None:
        """Give the variable another value, in the user's model too."""
        self.variable.assign(value)


class TensorFlowAdapter:
    """Adapter of a callable model on `tf.Variable`s, whose reads are replaced while it is traced.

    Args:
        model: the model.
        trainable: its trainable variables.
        non_trainable: its others.
        call: whose signature says how it is told that it is not training.
    """

    def __init__(
        self,
        model: Any,
        trainable: list[TensorFlowVariable],
        non_trainable: list[TensorFlowVariable],
        call: Any,
    ) -> None:
        self.model = model
        self.trainable, self.non_trainable = trainable, non_trainable
        self.compilation: Any = SimpleNamespace(compiled=False, weight_decay=None)
        self.opened_by: str | None = None
        self._variables = trainable + non_trainable
        self._modes = mode_arguments(call)
        self._compiled = tf.function(self._of_list, autograph=False)

    def call(self, values: Values, x: Any) -> tuple[Any, list[Any]]:
        """Output for other values; a call that would change a variable is refused beforehand."""
        unchanged = [values[id(v)] for v in self.non_trainable]
        if not tf.executing_eagerly():
            return self.trace(values, x), unchanged
        ordered = [values[id(v)] for v in self._variables]
        concrete = self._compiled.get_concrete_function(ordered, x)
        self._check_trace(concrete.graph)
        return concrete(ordered, x), unchanged

    def check(self, values: Values, x: Any) -> None:
        """Check that the gradient by the values is that of the model by its own variables.

        Raises:
            UnsupportedModelError: it is not.
        """
        own = [v.variable for v in self.trainable]
        with tf.GradientTape() as tape:
            target = _mixed(self.run(x))
        truth = _dense(tape.gradient(target, own), own)
        try:
            found = self._gradients(values, x)
        except (ValueError, LookupError) as error:
            raise _not_differentiable(what_it_says(error)) from error
        scale = max(float(tf.reduce_max(tf.abs(t))) for t in truth)
        lost = [
            v.path
            for v, a, b in zip(self.trainable, found, truth, strict=True)
            if not np.allclose(a, b, 1e-3, scale * np.sqrt(np.finfo(v.dtype).eps), equal_nan=True)
        ]
        if lost:
            raise _not_differentiable(f"another one by {lost}")

    def _gradients(self, values: Values, x: Any) -> list[tf.Tensor]:
        """Gradients of one number made of the output, in the trainable variables."""
        here = [values[id(v)] for v in self.trainable]

        def gradients(tensors: list[tf.Tensor], x: Any) -> list[tf.Tensor]:
            pieces = [tf.identity(tensor) for tensor in tensors]
            replaced = {id(v): piece for v, piece in zip(self.trainable, pieces, strict=True)}
            output = self.trace({**values, **replaced}, x)
            return _dense(tf.gradients(_mixed(output), pieces), pieces)

        return traced(gradients, here, x)(here, x)

    def dtypes_of_layers(self) -> dict[str, str]:
        """An empty mapping, because nothing is known of layers."""
        return {}

    def tables(self) -> list[Any]:
        """The lookup tables that are attributes of the model or of what it holds."""
        return tables_of([self.model])

    def terms_added(self, values: Values, x: Any) -> list[str]:
        """An empty list, because nothing is known of the cost."""
        return []

    def trace(self, values: Values, x: Any) -> Any:
        """Output of the model for other values, inside a `tf.function`."""
        with self.replaced(values):
            return self.run(x)

    def replaced(self, values: Values) -> AbstractContextManager[None]:
        """Context in which what is traced reads the values in place of the variables."""
        parts = ((id(part), values[id(v)]) for v in self._variables for part in v.parts)
        return reads_replaced(dict(parts))

    def run(self, x: Any, *, training: bool = False) -> Any:
        """Call the model with the values that its variables hold."""
        mode = dict.fromkeys(self._modes, training)
        return convert(lambda: self.model(x, **mode))()

    def _of_list(self, values: list[tf.Tensor], x: Any) -> Any:
        return self.trace(dict(zip(map(id, self._variables), values, strict=True)), x)

    def _check_trace(self, graph: Any) -> None:
        """Refuse a trace that is no function of the values, all reads having been replaced."""
        used = state_use(graph)
        if used.draws:
            raise UnsupportedModelError(
                "the model is random in inference mode",
                expected="the same output for the same input",
                received=f"random numbers from the state of a generator ({used.draws})",
                remedy="switch off layers that draw random numbers when training=False",
            )
        # A lookup captures its table's handle without using it, to run on the same device.
        captured = {id(outer) for outer, inner in graph.captures if inner.consumers()}
        touched = [
            v.path for v in self._variables if any(id(p.handle) in captured for p in v.parts)
        ]
        if used.writes:
            raise UnsupportedModelError(
                "the model is stateful: a call in inference mode changes it",
                expected="a model whose call with training=False leaves its variables alone",
                received=f"changed variables {touched} ({used.writes})",
                remedy="update them only when training=True; moving averages belong to batch "
                "normalisation called with training=True",
            )
        known = {id(part) for v in self._variables for part in v.parts}
        strange = [v.name for v in graph.variables if v.trainable and id(v) not in known]
        if touched or strange:
            raise UnsupportedModelError(
                "the model reads variables where they cannot be replaced",
                expected="variables that are attributes of the model, read by its own code",
                received=f"variables {touched + strange}, which belong to something else or are "
                "read inside a function that was compiled before",
                remedy="make them attributes of the tf.Module or of modules in it; give a Keras "
                "model itself, without a tf.Module around it; call Python code rather than a "
                "function restored from a SavedModel",
            )


class ModuleAdapter(TensorFlowAdapter):
    """Adapter of a `tf.Module` with a call; its variables are named by their attributes."""

    def __init__(self, module: Any) -> None:
        paths: dict[int, str] = {}
        for path, value in module._flatten(with_path=True, predicate=_is_variable):
            paths.setdefault(id(value), "/".join(map(str, path)))
        # `tf.Variable`s are trainable unless told otherwise, counters too.
        trainable = {id(v) for v in module.trainable_variables if v.dtype.is_floating}
        variables = [TensorFlowVariable(v, paths.get(id(v), v.name)) for v in module.variables]
        call = type(module).__call__
        super().__init__(
            module,
            [v for v in variables if id(v.variable) in trainable],
            [v for v in variables if id(v.variable) not in trainable],
            getattr(call, "python_function", call),
        )


def _not_differentiable(received: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        "the model cannot be differentiated as a function of its variables",
        expected="the gradient that tf.GradientTape gives",
        received=received,
        remedy="read the variables by plain operations: tf.custom_gradient and tf.recompute_grad "
        "hide them",
    )


def _is_variable(value: Any) -> bool:
    return isinstance(value, tf.Variable)


def _mixed(output: Any) -> tf.Tensor:
    """One number that depends on every entry of the output in its own way."""
    flat = [tf.reshape(leaf, [-1]) for leaf in tf.nest.flatten(output)]
    numbers = [tf.cast(tf.range(tf.size(leaf)), leaf.dtype) for leaf in flat]
    return tf.add_n(
        [tf.reduce_sum(leaf * tf.cos(n)) for leaf, n in zip(flat, numbers, strict=True)]
    )


def _dense(gradients: list[Any], like: list[Any]) -> list[tf.Tensor]:
    return [
        tf.zeros(source.shape, source.dtype) if gradient is None else tf.convert_to_tensor(gradient)
        for gradient, source in zip(gradients, like, strict=True)
    ]
