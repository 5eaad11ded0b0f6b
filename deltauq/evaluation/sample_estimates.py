"""What a fit would take and find, estimated from a part of the data."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature import CURVATURES, GGN, OPG, CurvatureOperator
from deltauq.curvature.eigenpairs import eigenpairs, is_dense
from deltauq.curvature.sandwich import sandwich_covariance
from deltauq.curvature.solver_kinds import solver_of
from deltauq.curvature.solvers import sketch_passes
from deltauq.data.batches import Batches
from deltauq.delta.covariances import inverse_curvature
from deltauq.delta.memory_plan import AskedPairs, plan_memory
from deltauq.delta.minimum_distance import newton_shifts, newton_step
from deltauq.delta.rates import prior_scale
from deltauq.errors import NotPositiveDefiniteError
from deltauq.likelihoods import Likelihood
from deltauq.linalg import BlockLanczos, Eigenpairs
from deltauq.network.jacobians import PerExample
from deltauq.network.masks import OutputMask
from deltauq.network.network import Network
from deltauq.prediction.directions import most_probable
from deltauq.prediction.forms import FormByPairs
from deltauq.prediction.linearization import Linearization, RowFunctions

__all__ = [
    "CostEstimate",
    "Sample",
    "curvatures_of",
    "estimate_costs",
    "estimate_shift",
    "extreme_eigenvalues",
    "sample",
]

Array = npt.NDArray[Any]

#: Activations of the examples that estimates are made on, and their number.
_SAMPLE_BYTES = 2**28
_SAMPLE_ROWS = 1024

#: Rows of the curvature for each parameter from which the distance to a minimum is estimated (fewer
#: leave directions undetermined and make it too long); inputs on which it is measured.
_ROWS_PER_PARAM, _SHIFT_INPUTS = 8, 32

#: Products for the extreme eigenvalues, at most.
_PRODUCTS = 24

#: Columns of the products that are timed, and of those that a solver makes a pair at a time.
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
    """Some examples of the data, as data of their own.

    Attributes:
        data: those examples.
        share: how many of them go into all rows.
    """

    data: Batches
    share: float


def sample(network: Network, data: Batches, at_most: int = _SAMPLE_ROWS) -> Sample:
    """Take as many examples as products are quick on, evenly spread: data may come sorted."""
    rows = _SAMPLE_BYTES // network.activation_bytes(data.spec.x)
    rows = min(data.n_weighted, at_most, max(16, rows))
    some = data.sample(rows)
    return Sample(some, data.n_rows / some.n_rows)


def curvatures_of(
    network: Network, likelihood: Likelihood, some: Sample, *, second_derivatives: bool
) -> dict[str, CurvatureOperator]:
    """The curvatures of a sample that can be formed, by name."""
    kinds = [kind for kind in CURVATURES.values() if not kind.is_sandwich]
    if not second_derivatives:
        kinds = [kind for kind in kinds if not kind.second_derivatives]
    kinds.sort(key=lambda kind: kind.second_derivatives)  # the slow ones come last
    return {kind.name: kind.bread(network, likelihood, some.data) for kind in kinds}


def extreme_eigenvalues(operator: CurvatureOperator) -> tuple[float, float]:
    """Estimate the smallest and the largest eigenvalue by Ritz values from a few products."""
    size = operator.shape[0]
    krylov = BlockLanczos(operator.matmat, size, dtype=operator.network.dtype)
    pairs, _ = krylov.converge(1, tolerance=0.0, max_columns=min(_PRODUCTS, size))
    return pairs.smallest, float(pairs.values[0])


def estimate_shift(
    network: Network,
    likelihood: Likelihood,
    data: Batches,
    probe: Any,
    rates: Array,
    gradient: Array,
    n_outputs: int,
    mask: OutputMask | None = None,
) -> float | None:
    """Estimate how far a step to the minimum would move predictions, as by `newton_shifts`.

    By the dense GGN of as many examples as determine it, or the OPG where the loss has no GGN; as a
    fit of all eigenpairs has it, without L2 too.

    Args:
        network: the network.
        likelihood: of the labels.
        data: the training set.
        probe: rows on which rules for the Jacobian are checked.
        rates: lambda_j `[P]`, beside the mean of the likelihood's loss.
        gradient: of the cost `[P]`.
        n_outputs: C.
        mask: which predictions count; None where all do.

    Returns:
        The median; None where the curvature plus L2 has no inverse, for more parameters than are
        quick, and where examples are too large for enough of them.
    """
    if not is_dense("auto", network.n_params):
        return None
    kind: type[CurvatureOperator] = GGN if likelihood.convex else OPG
    rows = _ROWS_PER_PARAM * network.n_params // kind.rows_per_example(likelihood, n_outputs)
    wanted = min(data.n_weighted, max(_SHIFT_INPUTS, rows))
    some = sample(network, data, max(wanted, _SAMPLE_ROWS)).data
    if some.n_rows < wanted:
        return None
    scale, per_example = prior_scale(rates), PerExample(network, probe)
    options: dict[str, Any] = {"scale": scale, "per_example": per_example}

    def pairs(likelihood: Likelihood) -> Eigenpairs:
        return eigenpairs(kind(network, likelihood, some, **options), "full")

    epsilon = float(np.finfo(network.dtype).eps)
    try:
        inverse = inverse_curvature(pairs(likelihood), rates, data.n_examples, epsilon=epsilon)
    except NotPositiveDefiniteError:
        return None
    covariance = inverse
    if likelihood.of_scores is not likelihood:
        covariance = sandwich_covariance(
            inverse, pairs(likelihood.of_scores), rates > 0, l2_share=likelihood.l2_in_scores
        )
    functions = RowFunctions(network, data.spec.x, per_example)
    linearization = Linearization(functions, likelihood, scale, mask)
    step = newton_step(inverse, gradient, data.n_examples)
    few = most_probable(likelihood, n_outputs)
    inputs = some.spread(_SHIFT_INPUTS).x
    vectors = np.ascontiguousarray(covariance.vectors, network.dtype)
    form = FormByPairs(linearization, covariance, vectors)
    shifts = newton_shifts(form, [step], inputs, few)
    return None if shifts is None else shifts[0]


def estimate_costs(
    operators: dict[str, CurvatureOperator], share: float, n_outputs: int, rank: int
) -> list[CostEstimate]:
    """Estimate memory and time of a number of eigenpairs for each curvature.

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
            AskedPairs((type(operator),), operator.likelihood, n_outputs, some),
            free=2**62,
            n_rows=round(share * operator.data.n_rows),
        )
        seconds = share * _seconds(operator, some, share * operator.data.n_weighted)
        estimates.append(CostEstimate(name, some, plan.total, seconds))
    return estimates


def _seconds(operator: CurvatureOperator, rank: int, n_examples: float) -> float:
    """Time of all products on the operator's data, as many as of so many examples are asked for.

    The time of one grows with its columns.
    """
    products = solver_of(operator).products_per_pair
    if products is not None:
        return products * rank * _timed(operator, _BLOCK) / _BLOCK
    one, some = (_timed(operator, columns) for columns in (1, _COLUMNS))
    each = one + (rank - 1) * max(0.0, some - one) / (_COLUMNS - 1)
    return sketch_passes(operator, rank, n_examples) * each


def _timed(operator: CurvatureOperator, columns: int) -> float:
    """Seconds of a product with so many columns, compilation left out."""
    rng = np.random.default_rng(0)
    shape = (operator.shape[0], columns)
    vectors: Any = rng.standard_normal(shape).astype(operator.network.dtype)
    operator.matmat(vectors)
    started = time.perf_counter()
    operator.matmat(vectors)
    return time.perf_counter() - started
