"""A last dense layer: logits h W + b, where no other parameter is uncertain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from deltauq.network.graph import reached_from, traced_and_read
from deltauq.network.jacobians.taps import Tap, find_taps
from deltauq.network.network import Network, Parameter

__all__ = ["LinearHead", "find_linear_head"]

_OPERANDS = {"MatMul": {1: 0}, "BiasAdd": {1: 0}, "AddV2": {1: 0, 0: 1}}


@dataclass(frozen=True)
class LinearHead:
    """Place of a last dense layer's variables in the flat vector, and how to compute its inputs.

    Attributes:
        kernel: W `[I, C]`; None where it is held fixed.
        bias: b `[C]`; None where it is held fixed, or absent.
        evaluate: parameters `[P]`, inputs -> features h `[B, I]`, logits `[B, C]`, compiled.
    """

    kernel: Parameter | None
    bias: Parameter | None
    evaluate: Any


def find_linear_head(network: Network, spec: Any) -> LinearHead | None:
    """Find a last dense layer that holds all uncertain parameters; None for other networks.

    Args:
        network: the network.
        spec: `tf.TensorSpec`s of its inputs.
    """
    if len(network.parameters) > 2:  # more than a kernel and a bias
        return None

    def trace(
        params: tf.Tensor, x: Any
    ) -> tuple[tuple[tf.Tensor, tf.Tensor], dict[str, Parameter]]:
        pieces = network.unflatten(params)
        logits = network.logits(pieces, x)
        roles = _roles(pieces, x, logits)
        features = roles["kernel"][1].data if "kernel" in roles else logits[:, :0]
        return (features, logits), {name: network.parameters[k] for name, (k, _) in roles.items()}

    flat = tf.TensorSpec([network.n_params], network.dtype)
    evaluate, found = traced_and_read(trace, flat, spec)
    return LinearHead(found.get("kernel"), found.get("bias"), evaluate) if found else None


def _roles(pieces: list[tf.Tensor], x: Any, logits: tf.Tensor) -> dict[str, tuple[int, Tap]]:
    """Which parameter is the "kernel" and which the "bias", and where each is read.

    Nothing where one of them is neither, or both are the same.
    """
    from_data = reached_from(tf.nest.flatten(x))
    roles: dict[str, tuple[int, Tap]] = {}
    for k, piece in enumerate(pieces):
        taps = find_taps(piece, from_data, _OPERANDS) or []
        name = _role(taps[0], logits) if len(taps) == 1 else None
        if name is None or name in roles:
            return {}
        roles[name] = k, taps[0]
    return roles


def _role(tap: Tap, logits: tf.Tensor) -> str | None:
    """What the operation's parameter is to the logits: "kernel", "bias", or neither."""
    if tap.changed or tap.inner is not None:
        return None
    if tap.kind != "MatMul":
        same = tap.parameter.shape.rank == 1 and tap.parameter.shape[0] == logits.shape[1]
        return "bias" if same and _is(tap.output, logits) else None
    if tap.get("transpose_a") or tap.get("transpose_b"):
        return None
    after = [op for op in tap.output.consumers() if op.type in ("BiasAdd", "AddV2")]
    outputs = [tap.output, *(op.outputs[0] for op in after)]
    return "kernel" if any(_is(output, logits) for output in outputs) else None


def _is(tensor: tf.Tensor, logits: tf.Tensor) -> bool:
    """Whether the logits are this tensor, renamed at most."""
    while logits is not tensor and logits.op.type == "Identity":
        logits = logits.op.inputs[0]
    return logits is tensor
