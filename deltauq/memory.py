"""How much memory a fit takes, known before it is taken."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil

from deltauq.curvature import CurvatureOperator
from deltauq.eigen import Rank, basis_columns, certificate_columns, is_dense
from deltauq.errors import InvalidInputError, MemoryLimitError
from deltauq.likelihoods import Likelihood
from deltauq.machine import available_memory
from deltauq.network import Network

__all__ = [
    "MemoryPlan",
    "PredictionPlan",
    "ResultMemory",
    "free_memory",
    "plan_memory",
    "plan_prediction",
    "prediction_batch",
]

_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}

#: Share of the machine's free memory that is used when no limit is given.
_SAFE_SHARE = 0.8

#: Bytes of one batch's activations: memory above the allocator's limit for reuse (32 MiB) is
#: handed out fresh each time, which costs as much as filling it.
_ACTIVATION_BYTES = 3 * 2**24

#: Bytes of one variable's rows of one batch: enough rows for products near the processor's peak.
_VARIABLE_BYTES = 2**28

#: Bytes of the buffer in which rows are gathered, and rows it should hold where memory allows.
_BUFFER_BYTES = 2**29
_BUFFER_ROWS = 256

#: Bytes of activations that products of the exact Hessian may keep from one to the next.
_KEPT_BYTES = 2**32


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a fit takes beyond what the process holds already.

    Attributes:
        vectors: tall matrices of the eigenvalue solver, `[P, m]` each, those in files left out.
        buffer: per-example rows that are multiplied together, or activations that are kept.
        batch: activations and rows of one batch.
        batch_size: examples a step.
    """

    vectors: int
    buffer: int
    batch: int
    batch_size: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.vectors + self.buffer + self.batch


@dataclass(frozen=True)
class ResultMemory:
    """Bytes that a result of n inputs, or groups, takes while it is made: each n + square n^2.

    Attributes:
        what: the result holds, in words.
        remedy: what to do when it does not fit; `{most}` in it becomes the number that fits.
        each: bytes an input.
        square: bytes for each pair of inputs.
        unit: what is counted.
    """

    what: str
    remedy: str
    each: int = 0
    square: int = 0
    unit: str = "inputs"

    def n_bytes(self, count: int) -> int:
        """Of so many."""
        return self.each * count + self.square * count**2

    def most(self, n_bytes: int) -> int:
        """The largest number whose result takes at most so many bytes."""
        if not self.square:
            return n_bytes // self.each
        root = math.isqrt(self.each**2 + 4 * self.square * n_bytes)
        return (root - self.each) // (2 * self.square)


@dataclass(frozen=True)
class PredictionPlan:
    """How inputs are predicted within a limit.

    Attributes:
        batch_size: inputs a step.
        result: what is made of them.
        free: bytes that it may take.
    """

    batch_size: int
    result: ResultMemory
    free: int

    def check(self, count: int) -> None:
        """`MemoryLimitError` where the result of so many does not fit."""
        most = self.result.most(self.free)
        if count > most:
            raise MemoryLimitError(
                f"{self.result.what} do not fit in memory",
                expected=f"at most {_text(self.free)}, what the limit or the machine leaves",
                received=f"{_text(self.result.n_bytes(count))} for {count:,} {self.result.unit}",
                remedy=self.result.remedy.format(most=f"{most:,}")
                + ("" if most else " (not even one fits here)"),
            )


def free_memory(memory_limit: int | str | None) -> int:
    """Bytes that may be taken: what a limit on the process leaves, or a safe share of what is free.

    Args:
        memory_limit: of the whole process: bytes, or text such as "8GiB"; None for no limit.

    Raises:
        InvalidInputError: a limit that is not understood.
    """
    if memory_limit is None:
        return int(_SAFE_SHARE * available_memory())
    return max(0, _bytes(memory_limit) - psutil.Process().memory_info().rss)


def plan_memory(
    network: Network,
    spec: Any,
    operators: Sequence[type[CurvatureOperator]],
    likelihood: Likelihood,
    n_outputs: int,
    rank: Rank,
    *,
    free: int,
    batch_size: int | None,
    n_rows: int | None = None,
    bounds: bool = False,
    vectors_in_files: bool = False,
) -> MemoryPlan:
    """Choose batches and buffers that fit, or say what is missing.

    Args:
        network: the network.
        spec: of its inputs.
        operators: the curvatures, which are computed one after the other.
        likelihood: of the labels.
        n_outputs: C.
        rank: eigenpairs asked for; "auto" is taken at its start.
        free: bytes that may be taken.
        batch_size: examples a step, where the user chose.
        n_rows: of all the data, whose activations are all that can be kept; None if not known.
        bounds: what the eigenpairs leave out is bounded too.
        vectors_in_files: tall matrices take no memory; dense ones do.

    Raises:
        MemoryLimitError: even the smallest batches do not fit.
    """
    itemsize = np.dtype(network.dtype).itemsize
    per_example = max(operator.rows_per_example(likelihood, n_outputs) for operator in operators)
    row = network.n_params * itemsize
    activations = network.activation_bytes(spec)
    columns = max(basis_columns(operator, rank, network.n_params) for operator in operators)
    mapped = vectors_in_files and not is_dense(rank, network.n_params)
    vectors = 0 if mapped else columns * row
    if bounds:
        vectors += certificate_columns(rank, network.n_params) * row

    kept = _KEPT_BYTES if n_rows is None else min(_KEPT_BYTES, 2 * n_rows * activations)

    def plan(size: int) -> MemoryPlan:
        rows = size * per_example * row
        batch = rows + (2 + per_example) * size * activations
        spare = free - vectors - batch
        wanted = max(_BUFFER_BYTES, _BUFFER_ROWS * row) if per_example else kept
        buffer = max(rows, min(wanted, spare))
        return MemoryPlan(vectors, buffer, batch, size)

    size = batch_size or _comfortable_batch(network, spec, per_example)
    found = plan(size)
    while batch_size is None and found.total > free and size > 1:
        size //= 2
        found = plan(size)
    if found.total > free:
        raise MemoryLimitError(
            "the eigenpairs do not fit in memory",
            expected=f"at most {_text(free)}, what the limit or the machine leaves",
            received=f"{_text(found.total)}: {_text(vectors)} for vectors of "
            f"{network.n_params:,} parameters, {_text(found.buffer + found.batch)} for batches of "
            f"{size}",
            remedy="ask for a smaller rank, select fewer layers with layers=..., keep the vectors "
            "in memory-mapped files with vectors_dir=..., or pass a smaller batch_size or a larger "
            "memory_limit",
        )
    return found


def prediction_batch(
    network: Network, spec: Any, n_outputs: int, *, free: int, copies: int = 1
) -> int:
    """Inputs a step at which their Jacobians `[B, C, P]` fit.

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
    each = _jacobian_bytes(network, spec, n_outputs, copies)
    if each > free:
        raise MemoryLimitError(
            "the Jacobian of one input does not fit in memory",
            expected=f"at most {_text(free)}, what the limit or the machine leaves",
            received=f"{_text(each)} for {n_outputs} outputs and {network.n_params:,} parameters",
            remedy="select fewer layers with layers=..., or pass a larger memory_limit",
        )
    fits = max(1, free // (2 * each))
    if copies > 1:
        return int(fits)
    return int(min(_comfortable_batch(network, spec, n_outputs), fits))


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
        MemoryLimitError: the result of so many, or of one, does not fit beside batches that are
            not slow, or half of the memory.
    """
    one = _jacobian_bytes(network, spec, n_outputs, copies)
    usual = batch_size or _comfortable_batch(network, spec, n_outputs)
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


def _jacobian_bytes(network: Network, spec: Any, n_outputs: int, copies: int) -> int:
    """What an input takes while its rows are formed."""
    row = network.n_params * np.dtype(network.dtype).itemsize
    return int(copies * n_outputs * row + (2 + n_outputs) * network.activation_bytes(spec))


def _comfortable_batch(network: Network, spec: Any, rows_per_example: int) -> int:
    """Examples a step at which activations and rows are small."""
    if not rows_per_example:
        return int(np.clip(_VARIABLE_BYTES // network.activation_bytes(spec), 16, 4096))
    largest = max(parameter.size for parameter in network.parameters)
    rows = rows_per_example * largest * np.dtype(network.dtype).itemsize
    activations = _ACTIVATION_BYTES // network.activation_bytes(spec)
    return int(np.clip(min(_VARIABLE_BYTES // rows, activations), 16, 512))


def _bytes(limit: int | str) -> int:
    if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
        return limit
    match = (
        re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", limit) if isinstance(limit, str) else None
    )
    if match and match[2] in _UNITS:
        return int(float(match[1]) * _UNITS[match[2]])
    raise InvalidInputError(
        "memory_limit is not understood",
        expected=f"a positive number of bytes, or text with a unit out of {list(_UNITS)[1:]}",
        received=repr(limit),
        remedy='pass for example "8GiB", or None to use what is free',
    )


def _text(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB"
