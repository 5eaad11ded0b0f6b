"""How much memory the results of predictions take, and batches that fit beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deltauq.errors import MemoryLimitError
from deltauq.network.network import Network
from deltauq.runtime.memory import gib

__all__ = [
    "PredictionPlan",
    "ResultMemory",
    "comfortable_batch",
    "plan_prediction",
    "prediction_batch",
]

#: Bytes of one batch's activations: memory above the allocator's limit for reuse (32 MiB) is
#: handed out fresh each time, which costs as much as filling it.
_ACTIVATION_BYTES = 3 * 2**24

#: Bytes of one variable's rows of one batch: enough rows for products near the processor's peak.
_VARIABLE_BYTES = 2**28


@dataclass(frozen=True)
class ResultMemory:
    """Bytes that a result of n inputs, or groups, takes while it is made: each n + square n^2.

    Attributes:
        what: what the result holds, in words.
        remedy: what to do when it does not fit, beside asking for fewer at a time.
        each: bytes an input.
        square: bytes for each pair of inputs.
        unit: what is counted.
        by_steps: the rows of an input are held for every step of a refinement.
    """

    what: str
    remedy: str
    each: int = 0
    square: int = 0
    unit: str = "inputs"
    by_steps: bool = False

    def n_bytes(self, count: int) -> int:
        """Bytes that the result of so many inputs, or groups, takes."""
        return self.each * count + self.square * count**2

    def most(self, n_bytes: int) -> int:
        """The largest number of inputs, or groups, whose result takes at most `n_bytes`."""
        if not self.square:
            return n_bytes // self.each
        root = math.isqrt(self.each**2 + 4 * self.square * n_bytes)
        return (root - self.each) // (2 * self.square)


@dataclass(frozen=True)
class PredictionPlan:
    """How many inputs are predicted at a time within a limit, and what may come of all of them.

    Attributes:
        batch_size: inputs a step.
        result: what is made of them.
        free: bytes that the result may take.
    """

    batch_size: int
    result: ResultMemory
    free: int

    def check(self, count: int) -> None:
        """Refuse so many inputs, or groups, as give a result that does not fit.

        Raises:
            MemoryLimitError: the result of `count` takes more than is free.
        """
        most = self.result.most(self.free)
        if count > most:
            raise MemoryLimitError(
                f"{self.result.what} do not fit in memory",
                expected=f"at most {gib(self.free)}, what the limit or the machine leaves",
                received=f"{gib(self.result.n_bytes(count))} for {count:,} {self.result.unit}"
                + ("" if most else ", of which not even one fits"),
                remedy=(f"ask for at most {most:,} {self.result.unit} a call, or " if most else "")
                + self.result.remedy,
            )


def prediction_batch(
    network: Network, spec: Any, n_outputs: int, *, free: int, copies: int = 1
) -> int:
    """Number of inputs a step at which their Jacobians `[B, C, P]` fit in memory.

    Args:
        network: the network.
        spec: of its inputs.
        n_outputs: C.
        free: bytes that may be taken.
        copies: of the Jacobians that are held at once. More than one are held for work that a
            batch does not share with the next: then as many inputs as fit are a batch.

    Raises:
        MemoryLimitError: not even the Jacobian of one input fits.
    """
    each = _jacobian_bytes(network, spec, n_outputs, copies, free)
    fits = max(1, free // (2 * each))
    if copies > 1:
        return int(fits)
    return int(min(comfortable_batch(network, spec, n_outputs), fits))


def plan_prediction(
    result: ResultMemory,
    count: int | None,
    network: Network,
    spec: Any,
    n_outputs: int,
    *,
    free: int,
    batch_size: int | None = None,
    copies: int = 1,
) -> PredictionPlan:
    """Choose batches that fit beside the whole result, or say what does not fit.

    Args:
        result: what grows with the inputs, or groups.
        count: how many; None of a dataset, whose inputs are counted as they are read.
        network: the network.
        spec: of its inputs.
        n_outputs: rows of the Jacobian of an input.
        free: bytes that may be taken.
        batch_size: inputs a step, where the user chose.
        copies: of the Jacobian that are held at once.

    Raises:
        MemoryLimitError: not even the Jacobian of one input fits; the result of so many, or of
            one, does not fit beside batches that are not slow, or half of the memory.
    """
    one = _jacobian_bytes(network, spec, n_outputs, copies, free, by_steps=result.by_steps)
    usual = batch_size or comfortable_batch(network, spec, n_outputs)
    room = max(one, min(2 * usual * one, free // 2))
    found = PredictionPlan(usual, result, max(0, free - room))
    known = count or 1
    found.check(known)
    if batch_size is None:
        left = free - result.n_bytes(known)
        size = prediction_batch(network, spec, n_outputs, free=left, copies=copies)
        taken = size * one if count is None else 0
        found = replace(found, batch_size=size, free=min(found.free, free - taken))
    return found


def _jacobian_bytes(
    network: Network, spec: Any, n_outputs: int, copies: int, free: int, *, by_steps: bool = False
) -> int:
    """Bytes that one input takes while its rows are formed, refused where that is too much."""
    row = network.n_params * np.dtype(network.dtype).itemsize
    each = int(copies * n_outputs * row + (2 + n_outputs) * network.activation_bytes(spec))
    if each > free:
        raise MemoryLimitError(
            "the Jacobian of one input does not fit in memory",
            expected=f"at most {gib(free)}, what the limit or the machine leaves",
            received=f"{gib(each)} for {n_outputs} outputs and {network.n_params:,} parameters",
            remedy=("pass a smaller max_passes, " if by_steps else "")
            + "select fewer layers with layers=..., or pass a larger memory_limit",
        )
    return each


def comfortable_batch(network: Network, spec: Any, rows_per_example: int) -> int:
    """Number of examples a step that keeps activations and rows small, without any limit.

    Args:
        network: the network.
        spec: of its inputs.
        rows_per_example: rows of length P that are formed of an example; 0 for none.
    """
    if not rows_per_example:
        return int(np.clip(_VARIABLE_BYTES // network.activation_bytes(spec), 16, 4096))
    largest = max(parameter.size for parameter in network.parameters)
    rows = rows_per_example * largest * np.dtype(network.dtype).itemsize
    activations = _ACTIVATION_BYTES // network.activation_bytes(spec)
    return int(np.clip(min(_VARIABLE_BYTES // rows, activations), 16, 512))
