"""Tensors in place of TensorFlow variables while a model is traced.

Keras 3 can be called with other values than its variables hold; a `tf_keras` model and a
`tf.Module` read their `tf.Variable`s wherever they please. Those reads are replaced where
TensorFlow makes them, for the tracing thread alone and as long as the trace lasts, and compiled
functions that the model calls are traced into the same graph: the trace is then one of plain
operations on the tensors, and the functions' own traces stay as they were.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.autograph.core import ag_ctx
from tensorflow.python.autograph.impl.api import tf_convert
from tensorflow.python.ops import resource_variable_ops

__all__ = ["StateUse", "convert", "reads_replaced", "state_use"]

#: What TensorFlow reads variables and calls compiled functions with.
_VARIABLE = resource_variable_ops.BaseResourceVariable
_FUNCTION = type(tf.function(lambda: None))

#: How the names of operations begin that write to variables, and that draw from a generator.
_WRITES = ("Assign", "ResourceScatter", "ResourceApply")
_DRAWS = ("Rng", "StatefulUniform", "StatefulStandard", "StatefulTruncated", "StatefulRandom")


class _Thread(threading.local):
    """What the thread that traces puts in place of its variables; None while it does not."""

    values: Mapping[int, tf.Tensor] | None = None


class _Hooks:
    """Methods of TensorFlow's classes, exchanged while any thread traces a model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._originals: list[tuple[Any, str, Any]] = []

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The methods are exchanged inside, and back in place when the last thread is done."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._install()
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    for owner, name, original in self._originals:
                        setattr(owner, name, original)

    def _install(self) -> None:
        hooks = [
            (_VARIABLE, "_read_variable_op", _read),
            (_VARIABLE, "sparse_read", _sparse_read),
            (_VARIABLE, "gather_nd", _gather_nd),
            (_FUNCTION, "__call__", _inline),
        ]
        self._originals = [(owner, name, getattr(owner, name)) for owner, name, _ in hooks]
        for (owner, name, original), (_, _, hook) in zip(self._originals, hooks, strict=True):
            setattr(owner, name, hook(original))


_THREAD, _HOOKS = _Thread(), _Hooks()


@contextmanager
def reads_replaced(values: Mapping[int, tf.Tensor]) -> Iterator[None]:
    """What is traced inside reads these tensors instead of variables; inside a `tf.function` only.

    Args:
        values: by the `id` of the `tf.Variable` that each stands for.
    """
    before = _THREAD.values
    with _HOOKS.installed():
        _THREAD.values = values
        try:
            yield
        finally:
            _THREAD.values = before


def convert(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its Python control flow on tensors turned into TensorFlow's."""
    enabled = ag_ctx.ControlStatusCtx(status=ag_ctx.Status.ENABLED)
    return tf_convert(function, enabled, user_requested=True)


class StateUse(NamedTuple):
    """Types of the operations in a trace that change something outside of it."""

    writes: list[str]
    draws: list[str]


def state_use(graph: Any) -> StateUse:
    """What a trace writes to variables and draws from generators, called functions included."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    kinds = sorted({node.op for node in nodes})
    return StateUse(
        writes=[kind for kind in kinds if kind.startswith(_WRITES)],
        draws=[kind for kind in kinds if kind.startswith(_DRAWS)],
    )


def _read(original: Any) -> Any:
    def read(variable: Any, *args: Any, **kwargs: Any) -> Any:
        value = _value_for(variable)
        return original(variable, *args, **kwargs) if value is None else value

    return read


def _sparse_read(original: Any) -> Any:
    def sparse_read(variable: Any, indices: Any, name: str | None = None) -> Any:
        value = _value_for(variable)
        if value is None:
            return original(variable, indices, name=name)
        return tf.gather(value, indices, name=name)

    return sparse_read


def _gather_nd(original: Any) -> Any:
    def gather_nd(variable: Any, indices: Any, name: str | None = None) -> Any:
        value = _value_for(variable)
        if value is None:
            return original(variable, indices, name=name)
        return tf.gather_nd(value, indices, name=name)

    return gather_nd


def _inline(original: Any) -> Any:
    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        python = function.python_function
        # `tf_keras` hands a grouped convolution its kernel, and compiles it because there is no
        # gradient of it on the CPU otherwise.
        if _THREAD.values is None or python.__module__.startswith("tf_keras."):
            return original(function, *args, **kwargs)
        return (convert(python) if function._autograph else python)(*args, **kwargs)

    return call


def _value_for(variable: Any) -> tf.Tensor | None:
    return None if _THREAD.values is None else _THREAD.values.get(id(variable))
