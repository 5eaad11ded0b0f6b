"""What curvatures would cost, and their extreme eigenvalues, from a part of the data."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from deltauq.curvature import GGN, OPG, CurvatureOperator, Hessian
from deltauq.data import Batches
from deltauq.likelihoods import Likelihood
from deltauq.linalg import BlockLanczos
from deltauq.memory import plan_memory
from deltauq.network import Network

__all__ = [
    "CostEstimate",
    "Sample",
    "curvatures_of",
    "estimate_costs",
    "extreme_eigenvalues",
    "sample",
]

#: Activations of the examples that estimates are made on, and their number.
_SAMPLE_BYTES = 2**28
_SAMPLE_ROWS = 1024

#: Products for the extreme eigenvalues, at most.
_PRODUCTS = 24

#: Products that an eigenpair of the exact Hessian takes, as a rule; passes for the others.
_PRODUCTS_PER_PAIR = 2.5
_PASSES = 2

#: Columns of the products that are timed, and of those with the exact Hessian.
_COLUMNS, _BLOCK = 8, 2


@dataclass(frozen=True)
class CostEstimate:
    """What a number of eigenpairs of a curvature would take, without bounds.

    Attributes:
        curvature: its name.
        rank: the number of eigenpairs.
        n_bytes: memory beyond what the process holds.
        seconds: wall time, extrapolated from products on a part of the data.
    """

    curvature: str
    rank: int
    n_bytes: int
    seconds: float


@dataclass(frozen=True)
class Sample:
    """The first examples, as data of their own.

    Attributes:
        data: those examples.
        share: how many of them go into all rows.
    """

    data: Batches
    share: float


def sample(network: Network, likelihood: Likelihood, data: Batches, n_outputs: int) -> Sample:
    """As many of the first examples as products are quick on, at most one batch."""
    rows = _SAMPLE_BYTES // network.activation_bytes(data.spec.x)
    rows = int(np.clip(rows, 16, _SAMPLE_ROWS))
    batch = next(iter(data))
    x = tf.nest.map_structure(lambda leaf: leaf[:rows].numpy(), batch.x)
    y, weight = batch.y[:rows].numpy(), batch.weight[:rows].numpy()
    some = Batches(
        x, y, weight, likelihood=likelihood, n_outputs=n_outputs, dtype=network.dtype, batch_size=64
    )
    return Sample(some, data.n_rows / some.n_rows)


def curvatures_of(
    network: Network, likelihood: Likelihood, some: Sample, *, second_derivatives: bool
) -> dict[str, CurvatureOperator]:
    """The curvatures of a sample that can be formed, by name."""
    kinds: dict[str, type[CurvatureOperator]] = {"opg": OPG, "ggn": GGN}
    if second_derivatives:
        kinds["hessian"] = Hessian
    return {name: kind(network, likelihood, some.data) for name, kind in kinds.items()}


def extreme_eigenvalues(operator: CurvatureOperator) -> tuple[float, float]:
    """The smallest and the largest Ritz value from a few products."""
    size = operator.shape[0]
    krylov = BlockLanczos(operator.matmat, size, dtype=operator.network.dtype)
    pairs, _ = krylov.converge(1, tolerance=0.0, max_columns=min(_PRODUCTS, size))
    return pairs.smallest, float(pairs.values[0])


def estimate_costs(
    operators: dict[str, CurvatureOperator], share: float, n_outputs: int, rank: int
) -> list[CostEstimate]:
    """Memory and time of a number of eigenpairs of each curvature.

    Args:
        operators: the curvatures of a sample, by name.
        share: how many of the samples go into all rows.
        n_outputs: C.
        rank: the number of eigenpairs.
    """
    estimates = []
    for name, operator in operators.items():
        network = operator.network
        some = min(rank, network.n_params)
        plan = plan_memory(
            network,
            operator.data.spec.x,
            (type(operator),),
            operator.likelihood,
            n_outputs,
            some,
            free=2**62,
            batch_size=None,
        )
        seconds = share * _seconds(operator, some)
        estimates.append(CostEstimate(name, some, plan.total, seconds))
    return estimates


def _seconds(operator: CurvatureOperator, rank: int) -> float:
    """Time of all products on the operator's data; that of one grows with its columns."""
    if not operator.positive_semidefinite:
        return _PRODUCTS_PER_PAIR * rank * _timed(operator, _BLOCK) / _BLOCK
    one, some = (_timed(operator, columns) for columns in (1, _COLUMNS))
    return _PASSES * (one + (rank - 1) * max(0.0, some - one) / (_COLUMNS - 1))


def _timed(operator: CurvatureOperator, columns: int) -> float:
    """Seconds of a product with so many columns, compilation left out."""
    rng = np.random.default_rng(0)
    shape = (operator.shape[0], columns)
    vectors: Any = rng.standard_normal(shape).astype(operator.network.dtype)
    operator.matmat(vectors)
    started = time.perf_counter()
    operator.matmat(vectors)
    return time.perf_counter() - started
