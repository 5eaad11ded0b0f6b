"""A trained model as a pure function of a flat parameter vector.

The user's model is never changed: its values are copied once, and every forward pass is a call on
those copies (`adapters`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from deltauq.errors import DeltaUQError, UnsupportedModelError
from deltauq.network.adapters import Adapter, adapt
from deltauq.network.graph import last_operands, reached_from, read_trace
from deltauq.network.inspection import (
    ForwardTrace,
    Inspection,
    batch_size_error,
    branching_error,
    check_output,
    check_rows_independent,
    keeps_logits,
    random_error,
    read_forward_trace,
    row_spec,
    shape_error,
    takes_one_batch_size,
)
from deltauq.network.link import LINKS, end_of
from deltauq.network.parameters import Layers, Parameter, is_last_keyword, lay_out, select
from deltauq.network.replaced_gradients import replaced_gradients
from deltauq.network.requirements import (
    check_constraints,
    check_finite_weights,
    check_last_layer,
    check_one_precision,
)
from deltauq.runtime.threads import refuse_lost_runtime

__all__ = ["Layers", "Network", "Parameter"]

#: How the paths of the states of random generators end.
_SEED = "seed_generator_state"


@dataclass(frozen=True)
class _Parts:
    """What a `Network` is made of.

    Attributes:
        adapter: calls the model.
        variables: the uncertain ones.
        params: their values, `[P]`.
        fixed: the values of all others, by the `id` of the variable.
        layers: what they were chosen by.
        links: types of the operations that are undone at the end of the model.
        traces: forward passes of one row that were traced already, by the specs of the inputs.
        row_gradients: gradients of one row that were, likewise; of a network with other links or
            values they are others.
    """

    adapter: Adapter
    variables: Sequence[Any]
    params: tf.Tensor | tf.Variable
    fixed: Mapping[int, tf.Tensor | tf.Variable]
    layers: Layers = None
    links: frozenset[str] = LINKS
    traces: dict[str, ForwardTrace] = field(default_factory=dict)
    row_gradients: dict[str, Any] = field(init=False, default_factory=dict)


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
        parameters: where each variable stands in `params`, in the model's variable order: one for
            a variable, where P counts their entries. `unflatten` cuts a vector there into pieces.
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
        self._consist_of(_parts_of(adapt(model), layers))

    def _consist_of(self, parts: _Parts) -> None:
        self._parts = parts
        self.adapter = parts.adapter
        self.model = parts.adapter.model
        self.variables = parts.variables
        self.params: tf.Tensor = parts.params
        self.parameters = lay_out(parts.variables)
        self.n_params = self.parameters[-1].stop
        self.dtype: str = parts.params.dtype.name

    @classmethod
    def _of(cls, parts: _Parts) -> Network:
        network = cls.__new__(cls)
        network._consist_of(parts)
        return network

    def unflatten(self, params: tf.Tensor) -> list[tf.Tensor]:
        """Cut a flat vector `[P]` into the parameters, each in its variable's shape.

        In a trace each is a tensor of its own, in which the logits can be differentiated.
        """
        parts = tf.split(params, [parameter.size for parameter in self.parameters])
        return [
            tf.reshape(part, parameter.shape)
            for part, parameter in zip(parts, self.parameters, strict=True)
        ]

    def logits(self, pieces: Sequence[tf.Tensor], x: Any) -> tf.Tensor:
        """Logits `[B, C]` at the parameters `unflatten` gave; inside a `tf.function` only.

        A softmax, sigmoid or exponential at the end is not undone numerically: the trace is walked
        back to its input. Outputs `[B, T, C]` are one row of T C logits.
        """
        return self._logits_behind(self.output(pieces, x))

    def read_logits(self, params: tf.Tensor, pieces: Sequence[tf.Tensor], row: Any) -> tf.Tensor:
        """Logits `[1, C]` of one row; what stands in its forward pass is kept for `inspect`.

        That spares another trace of the same row.

        Args:
            params: `[P]`.
            pieces: made of them, as for `logits`.
            row: the inputs `[1, ...]`, in a trace that holds nothing else that depends on them yet.
        """
        output = self.output(pieces, row)
        traces = self._parts.traces
        traces.setdefault(str(row_spec(row)), read_forward_trace(params, row, output))
        return self._logits_behind(output)

    def _logits_behind(self, output: tf.Tensor) -> tf.Tensor:
        end = end_of(output)
        logits = end.logits if end.link in self._parts.links else output
        return logits if logits.shape.rank == 2 else _one_row(logits)

    def without_link(self) -> Network:
        """A network whose logits are the model's own output, whatever stands at its end.

        For likelihoods of outputs as they are, such as a regression's that end in a sigmoid.
        """
        if not self._parts.links:
            return self
        return Network._of(replace(self._parts, links=frozenset()))

    def in_variables(self) -> Network:
        """A network with its values in `tf.Variable`s: a SavedModel cannot hold large constants."""
        params = tf.Variable(self.params, trainable=False)
        fixed = {
            key: tf.Variable(value, trainable=False) for key, value in self._parts.fixed.items()
        }
        return Network._of(replace(self._parts, params=params, fixed=fixed))

    def fixed_values(self) -> list[Any]:
        """Values of all variables that are not uncertain, in the model's order."""
        return list(self._parts.fixed.values())

    def output(self, pieces: Sequence[tf.Tensor], x: Any) -> tf.Tensor:
        """The model's own output `[B, ..., C]`, in inference mode."""
        return self._stateless(pieces, x)[0]

    def fingerprint(self) -> str:
        """SHA-256 of all values that the output depends on, in the model's variable order."""
        digest = hashlib.sha256(str([p.shape for p in self.parameters]).encode())
        digest.update(self.params.numpy().tobytes())
        for variable in self.adapter.trainable + self.adapter.non_trainable:
            if id(variable) in self._parts.fixed and not variable.path.endswith(_SEED):
                value = self._parts.fixed[id(variable)].numpy()
                digest.update(f"{value.dtype} {value.shape}".encode())
                digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    def compiled_config(self) -> dict[str, Any] | None:
        """What the model was compiled with, as Keras keeps it; None where it was not."""
        compilation = self.adapter.compilation
        return compilation.get_compile_config() if compilation.compiled else None

    def count_outputs(self, spec: Any) -> int:
        """Number C of outputs for inputs of these `tf.TensorSpec`s, all positions together."""
        return int(np.prod(self._forward_trace(row_spec(spec)).outputs))

    def activation_bytes(self, spec: Any) -> int:
        """Bytes that the forward pass of one example makes.

        Args:
            spec: `tf.TensorSpec`s of the inputs, their first axis free.
        """
        return self._forward_trace(row_spec(spec)).activation_bytes

    @property
    def row_gradients(self) -> dict[str, Any]:
        """What `probe_rows.row_gradient` traced of this network, by the specs of the inputs."""
        return self._parts.row_gradients

    def _forward_trace(self, spec: Any) -> ForwardTrace:
        """What stands in the graph of the forward pass of one row, traced once for a spec."""

        def read(params: tf.Tensor, x: Any) -> ForwardTrace:
            return read_forward_trace(params, x, self.output(self.unflatten(params), x))

        traces = self._parts.traces
        if str(spec) not in traces:
            traces[str(spec)] = read_trace(read, self.params, spec)
        return traces[str(spec)]

    def terms_added(self, x: Any) -> list[str]:
        """Names of the layers that add to the cost what is no penalty on weights."""
        return self.adapter.terms_added(self._values(self.unflatten(self.params)), x)

    def _stateless(self, pieces: Sequence[tf.Tensor], x: Any) -> tuple[Any, list[Any]]:
        with replaced_gradients():
            return self.adapter.call(self._values(pieces), x)

    def _values(self, pieces: Sequence[tf.Tensor]) -> dict[int, tf.Tensor]:
        fixed = {key: tf.convert_to_tensor(value) for key, value in self._parts.fixed.items()}
        return fixed | {id(v): piece for v, piece in zip(self.variables, pieces, strict=True)}

    def inspect(self, x: Any) -> Inspection:
        """Look at the model on a few rows before anything is computed with it.

        Args:
            x: two rows or more.

        Raises:
            InvalidInputError: the model does not take inputs of this shape.
            UnsupportedModelError: random, stateful or batch-dependent output, an output that
                is no row of numbers an input, or a last layer that does not make it.
        """
        pieces = self.unflatten(self.params)
        try:
            output, state = self._stateless(pieces, x)
        except DeltaUQError:
            raise
        except tf.errors.OperatorNotAllowedInGraphError as error:
            raise branching_error(error) from error
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            if takes_one_batch_size(self.model):
                raise batch_size_error(error) from error
            raise shape_error(x, error) from error
        check_output(output, self.dtype)
        self._check_repeatable(pieces, x, output, state)
        self._check_rows_independent(pieces, x, output)
        self.adapter.check(self._values(pieces), x)
        try:
            trace = self._forward_trace(row_spec(x))
        except tf.errors.OperatorNotAllowedInGraphError as error:
            raise branching_error(error) from error
        if is_last_keyword(self.adapter.trainable, self._parts.layers):
            check_last_layer(self.variables, self._makers_of_output(row_spec(x)))
        return Inspection(
            np.asarray(output),
            trace.last,
            trace.link,
            trace.kinks,
            trace.mask,
            keeps_logits(self.model, output),
        )

    def _makers_of_output(self, spec: Any) -> list[Any]:
        """The trainable variables that meet the data last on the way to the output."""
        trainable = self.adapter.trainable

        def read(weights: list[tf.Tensor], x: Any) -> set[int]:
            values = {id(v): weight for v, weight in zip(trainable, weights, strict=True)}
            rest = self._values(self.unflatten(self.params))
            output, _ = self.adapter.call(rest | values, x)
            return last_operands(output, weights, x)

        specs = [tf.TensorSpec(variable.shape, variable.dtype) for variable in trainable]
        return [trainable[k] for k in sorted(read_trace(read, specs, spec))]

    def _check_repeatable(self, pieces: Any, x: Any, output: tf.Tensor, state: Any) -> None:
        again, _ = self._stateless(pieces, x)
        if not np.array_equal(again, output, equal_nan=True):
            raise random_error(f"outputs that differ by up to {np.max(np.abs(again - output)):.3g}")
        changed = [
            variable
            for variable, new in zip(self.adapter.non_trainable, state, strict=True)
            if not np.array_equal(self._parts.fixed[id(variable)], new)
        ]
        seeds = [v for v in changed if v.path.endswith(_SEED)]
        random = [seed.path for seed in seeds if self._reaches_output(seed, x)]
        if random:
            raise random_error(f"numbers drawn from {random}")
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

        def read(pieces: list[tf.Tensor], seed: tf.Tensor, x: Any) -> bool:
            output, _ = self.adapter.call(self._values(pieces) | {id(variable): seed}, x)
            return output.ref() in reached_from([seed])

        return read_trace(read, self.unflatten(self.params), self._parts.fixed[id(variable)], x)

    def _check_rows_independent(self, pieces: Any, x: Any, output: tf.Tensor) -> None:
        try:
            alone = self.output(pieces, tf.nest.map_structure(lambda leaf: leaf[:1], x))
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            raise batch_size_error(error) from error
        check_rows_independent(output, alone)


def _parts_of(adapter: Adapter, layers: Layers) -> _Parts:
    """A model's values as they are now, its uncertain variables chosen and checked."""
    everything = adapter.trainable + adapter.non_trainable
    variables = select(adapter.trainable, layers)
    chosen = {id(variable) for variable in variables}
    check_one_precision(adapter, variables)
    params = tf.constant(np.concatenate([np.ravel(variable.numpy()) for variable in variables]))
    fixed = {id(v): tf.constant(v.numpy()) for v in everything if id(v) not in chosen}
    check_constraints(variables)
    check_finite_weights(everything)
    return _Parts(adapter, variables, params, fixed, layers)


def _one_row(output: tf.Tensor) -> tf.Tensor:
    """`[B, T, C]` -> `[B, T C]`."""
    return tf.reshape(output, [-1, int(np.prod(output.shape[1:]))])
