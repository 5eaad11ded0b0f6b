"""A last dense layer: logits h W + b, where no other parameter is uncertain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from deltauq.network.graph import Compiled, reached_from
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
    found: dict[str, Parameter] = {}

    def trace(params: tf.Tensor, x: Any) -> tuple[tf.Tensor, tf.Tensor]:
        pieces = [tf.identity(piece) for piece in network.unflatten(params)]
        logits = network.logits(pieces, x)
        from_data = reached_from(tf.nest.flatten(x))
        features = logits[:, :0]
        for piece, parameter in zip(pieces, network.parameters, strict=True):
            taps = find_taps(piece, from_data, _OPERANDS) or []
            name = _role(taps[0], logits) if len(taps) == 1 else None
            if name is None or name in found:
                found.clear()
                return features, logits
            found[name] = parameter
            features = taps[0].data if name == "kernel" else features
        return features, logits

    compiled = Compiled(trace, tf.TensorSpec([network.n_params], network.dtype), spec).traced
    return LinearHead(found.get("kernel"), found.get("bias"), compiled) if found else None


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
