"""How much memory a fit takes, known before it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deltauq.curvature import CurvatureOperator
from deltauq.curvature.eigenpairs import Rank, basis_columns, certificate_columns, is_dense
from deltauq.errors import MemoryLimitError
from deltauq.likelihoods import Likelihood
from deltauq.network.network import Network
from deltauq.prediction.result_memory import comfortable_batch
from deltauq.runtime.memory import gib

__all__ = ["AskedPairs", "MemoryPlan", "plan_memory"]

#: Bytes a parameter that a fit takes whatever its rank: rates, the cost's gradient, its shares and
#: the prior's metric, in float64.
_BYTES_A_PARAMETER = 32

#: Bytes of the buffer in which rows are gathered, and rows it should hold where memory allows.
_BUFFER_BYTES = 2**29
_BUFFER_ROWS = 256

#: Bytes of activations that products of the exact Hessian may keep from one to the next.
_KEPT_BYTES = 2**32


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a fit takes beyond what the process holds already.

    Attributes:
        vectors: what is as long as P: the tall matrices `[P, m]` of the eigenvalue solver and of
            products, those in files left out, and a few vectors beside them.
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
        """Bytes of all parts of the plan together."""
        return self.vectors + self.buffer + self.batch


@dataclass(frozen=True)
class AskedPairs:
    """The eigenpairs that a fit asks for, before any is computed.

    Attributes:
        operators: the curvatures, which are computed one after the other.
        likelihood: of the labels.
        n_outputs: C.
        rank: how many; "auto" is taken at its start.
        bounds: what they leave out is bounded too.
        tail: and the tail measured.
        in_files: tall matrices take no memory; dense ones do.
    """

    operators: Sequence[type[CurvatureOperator]]
    likelihood: Likelihood
    n_outputs: int
    rank: Rank
    bounds: bool = False
    tail: bool = False
    in_files: bool = False

    @property
    def rows_per_example(self) -> int:
        """Rows of an example in any of the curvatures, at most."""
        rows = (each.rows_per_example(self.likelihood, self.n_outputs) for each in self.operators)
        return max(rows)

    def are_mapped(self, n_params: int) -> bool:
        """Whether the tall matrices are in files that are mapped into memory."""
        return self.in_files and not is_dense(self.rank, n_params)

    def columns(self, n_params: int) -> int:
        """Vectors of length P that are in memory at a time, at most."""
        columns = max(operator.columns_per_product for operator in self.operators)
        if self.bounds:
            columns += certificate_columns(self.rank, n_params, tail=self.tail)
        if self.are_mapped(n_params):
            return columns
        return columns + max(basis_columns(each, self.rank, n_params) for each in self.operators)


def plan_memory(
    network: Network,
    spec: Any,
    asked: AskedPairs,
    *,
    free: int,
    batch_size: int | None = None,
    n_rows: int | None = None,
) -> MemoryPlan:
    """Choose batches and buffers that fit, or say what is missing.

    Args:
        network: the network.
        spec: of its inputs.
        asked: the eigenpairs.
        free: bytes that may be taken.
        batch_size: examples a step, where the user chose.
        n_rows: of all the data, whose activations are all that can be kept; None if not known.

    Raises:
        MemoryLimitError: even the smallest batches do not fit.
    """
    itemsize = np.dtype(network.dtype).itemsize
    per_example = asked.rows_per_example
    row = network.n_params * itemsize
    activations = network.activation_bytes(spec)
    vectors = asked.columns(network.n_params) * row + _BYTES_A_PARAMETER * network.n_params
    kept = _KEPT_BYTES if n_rows is None else min(_KEPT_BYTES, 2 * n_rows * activations)

    def plan(size: int) -> MemoryPlan:
        rows = size * per_example * row
        batch = rows + (2 + per_example) * size * activations
        spare = free - vectors - batch
        wanted = max(_BUFFER_BYTES, _BUFFER_ROWS * row) if per_example else kept
        buffer = max(rows, min(wanted, spare))
        return MemoryPlan(vectors, buffer, batch, size)

    size = batch_size or comfortable_batch(network, spec, per_example)
    found = plan(size)
    while batch_size is None and found.total > free and size > 1:
        size //= 2
        found = plan(size)
    if found.total > free:
        mapped = asked.are_mapped(network.n_params)
        dense = is_dense(asked.rank, network.n_params)
        fewer = "" if mapped or asked.rank == 1 else "pass a smaller number as rank, "
        files = "" if dense or mapped else "keep the vectors in files with vectors_dir=..., "
        measures = asked.bounds and asked.tail and not dense
        midpoint = "leave the tail unmeasured with tail='midpoint' and no calibration=..., "
        tail = midpoint if measures else ""
        smaller = "a smaller batch_size or " if size > 1 else ""
        raise MemoryLimitError(
            "the eigenpairs do not fit in memory",
            expected=f"at most {gib(free)}, what the limit or the machine leaves",
            received=f"{gib(found.total)}: {gib(vectors)} for vectors of "
            f"{network.n_params:,} parameters, {gib(found.buffer + found.batch)} for batches of "
            f"{size}",
            remedy=f"{fewer}{files}{tail}select fewer layers with layers=..., or pass {smaller}a "
            "larger memory_limit",
        )
    return found
