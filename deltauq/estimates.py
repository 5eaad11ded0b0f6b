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

__all__ = ["CostEstimate", "Sample", "estimate_costs", "extreme_eigenvalues", "sample"]

#: Activations of the examples that estimates are made on, and their number.
_SAMPLE_BYTES = 2**28
_SAMPLE_ROWS = 1024

#: Products for the extreme eigenvalues, at most.
_PRODUCTS = 24

#: Products that an eigenpair of the exact Hessian takes, as a rule; passes for the others.
_PRODUCTS_PER_PAIR = 2.5
_PASSES = 2

#: Columns of the products that are timed.
_COLUMNS = 8


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


def extreme_eigenvalues(
    network: Network, likelihood: Likelihood, some: Sample
) -> tuple[float, float]:
    """The smallest and the largest Ritz value of the exact Hessian of a sample, without L2."""
    hessian = Hessian(network, likelihood, some.data)
    krylov = BlockLanczos(hessian.matmat, network.n_params, dtype=network.dtype)
    columns = min(_PRODUCTS, network.n_params)
    pairs, _ = krylov.converge(1, tolerance=0.0, max_columns=columns)
    return pairs.smallest, float(pairs.values[0])


def estimate_costs(
    network: Network,
    likelihood: Likelihood,
    some: Sample,
    n_outputs: int,
    rank: int,
    *,
    second_derivatives: bool,
) -> list[CostEstimate]:
    """Memory and time of a number of eigenpairs of each curvature.

    Args:
        network: the network.
        likelihood: gives the loss.
        some: examples to time products on.
        n_outputs: C.
        rank: the number of eigenpairs.
        second_derivatives: whether the exact Hessian can be formed.
    """
    rank = min(rank, network.n_params)
    kinds: dict[str, type[CurvatureOperator]] = {"opg": OPG, "ggn": GGN}
    if second_derivatives:
        kinds["hessian"] = Hessian
    estimates = []
    for name, kind in kinds.items():
        plan = plan_memory(
            network,
            some.data.spec.x,
            (kind,),
            n_outputs,
            rank,
            free=2**62,
            batch_size=None,
        )
        seconds = _seconds(kind(network, likelihood, some.data), rank) * some.share
        estimates.append(CostEstimate(name, rank, plan.total, seconds))
    return estimates


def _seconds(operator: CurvatureOperator, rank: int) -> float:
    """Time of all products on the operator's data; the time of one grows with its columns."""
    one, some = (_timed(operator, columns) for columns in (1, _COLUMNS))
    if not operator.positive_semidefinite:
        return _PRODUCTS_PER_PAIR * rank * some / _COLUMNS
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
