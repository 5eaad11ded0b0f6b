"""A model and its data, checked against each other and brought into the prior's metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.cost import Cost, per_parameter
from deltauq.curvature import CurvatureOperator
from deltauq.data import Batches, probe_rows
from deltauq.eigen import Rank, check_rank
from deltauq.errors import InvalidInputError, UnsupportedModelError
from deltauq.inputs import check_batch_size
from deltauq.jacobians import PerExample
from deltauq.likelihoods import Likelihood, check_compiled_loss, resolve_likelihood
from deltauq.linearization import Linearization
from deltauq.memory import MemoryPlan, free_memory, plan_memory
from deltauq.network import Network
from deltauq.regularization import L2, l2_rates, refuse_other_terms, refuse_weight_decay

__all__ = ["Problem", "state_problem"]

Rates = npt.NDArray[np.float64]

#: Rows on which the model and its derivatives are probed.
_PROBE = 3


@dataclass(frozen=True)
class Problem:
    """What every curvature of one model on one data set shares.

    Attributes:
        network: the model.
        likelihood: gives the loss.
        data: the training set.
        n_outputs: C.
        rates: lambda_j `[P]`; zero where a parameter has no L2.
        per_example: rules for the network's per-example rows.
        linearization: the network linearised in its parameters, J scaled by `scale`.
        plan: the memory that the eigenpairs take.
    """

    network: Network
    likelihood: Likelihood
    data: Batches
    n_outputs: int
    rates: Rates
    per_example: PerExample
    linearization: Linearization
    plan: MemoryPlan

    @property
    def cost(self) -> Cost:
        """What the weights should minimise."""
        return Cost(self.network, self.likelihood, self.data, self.rates)

    @property
    def epsilon(self) -> float:
        """Relative rounding of the curvature: the network's machine epsilon."""
        return float(np.finfo(self.network.dtype).eps)

    @property
    def scale(self) -> Rates:
        """lambda_j^-1/2, and 1 where a parameter has no L2, `[P]`."""
        return _metric(self.rates)

    @property
    def common_rate(self) -> float | None:
        """The L2 rate, where all parameters share a positive one."""
        rate = float(self.rates[0])
        return rate if rate > 0 and np.all(self.rates == rate) else None


def state_problem(
    network: Network,
    training: tuple[Any, Any, Any],
    *,
    l2: L2,
    likelihood: str | Likelihood,
    rank: Rank,
    operators: Sequence[type[CurvatureOperator]],
    batch_size: int | None,
    bounds: bool = False,
    memory_limit: int | str | None = None,
    vectors_in_files: bool = False,
) -> Problem:
    """Check a network, its training data and the settings against each other.

    Args:
        network: the network.
        training: x, y, sample_weight as `DeltaMethod.fit` takes them.
        l2: as in `DeltaMethod`.
        likelihood: as in `DeltaMethod`.
        rank: as in `DeltaMethod`; without L2 on every variable only "full" will do.
        operators: the curvatures, for the choice of a batch size and for what they cannot take.
        batch_size: rows a step, or None to choose it.
        bounds: as in `DeltaMethod`.
        memory_limit: as in `DeltaMethod`.
        vectors_in_files: as for `plan_memory`.

    Raises:
        InvalidInputError: data, labels, rates or a rank that cannot be used.
        UnsupportedModelError: a model or a compiled loss that cannot be used.
        MemoryLimitError: the eigenpairs do not fit in memory.
    """
    x, y, sample_weight = training
    resolved = resolve_likelihood(likelihood)
    probe = probe_rows(x, dtype=network.dtype, n=_PROBE)
    inspection = network.inspect(probe)
    if likelihood == "auto":
        check_compiled_loss(network.adapter.compilation, inspection.ends_in_softmax)
    if l2 == "auto":
        refuse_other_terms(network.terms_added(probe))
    twice = any(operator.second_derivatives for operator in operators)
    if twice and inspection.once_differentiable:
        _refuse_second_derivatives(inspection.once_differentiable)
    check_rank(rank, network.n_params)
    if batch_size is not None:
        batch_size = check_batch_size(batch_size)
    plan = plan_memory(
        network,
        tf.nest.map_structure(_free_first_axis, probe),
        operators,
        inspection.n_outputs,
        rank,
        free=free_memory(memory_limit),
        batch_size=batch_size,
        bounds=bounds,
        vectors_in_files=vectors_in_files,
    )
    data = Batches(
        x,
        y,
        sample_weight,
        likelihood=resolved,
        n_outputs=inspection.n_outputs,
        dtype=network.dtype,
        batch_size=plan.batch_size,
    )
    read_scale = data.n_rows / data.n_examples
    per_variable = l2_rates(network.variables, l2, read_scale=read_scale)
    refuse_weight_decay(network.model, per_variable, l2)
    _refuse_missing_l2(network, per_variable, rank)
    rates = per_parameter(network.parameters, per_variable)
    per_example = PerExample(network, probe)
    linearization = Linearization(network, resolved, data.spec.x, per_example, _metric(rates))
    return Problem(
        network, resolved, data, inspection.n_outputs, rates, per_example, linearization, plan
    )


def _free_first_axis(leaf: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype)


def _metric(rates: Rates) -> Rates:
    return 1.0 / np.sqrt(np.where(rates > 0, rates, 1.0))


def _refuse_second_derivatives(operations: tuple[str, ...]) -> None:
    raise UnsupportedModelError(
        "the exact Hessian of this model would be wrong",
        expected="operations that TensorFlow differentiates twice",
        received=f"{list(operations)}: layer and group normalisation, bilinear resizing and "
        "softsign have a gradient whose own gradient is wrong or missing",
        remedy="use curvature='ggn' or 'opg', which need first derivatives only",
    )


def _refuse_missing_l2(network: Network, rates: Rates, rank: Rank) -> None:
    missing = [p.path for p, rate in zip(network.parameters, rates, strict=True) if rate == 0]
    if missing and rank != "full":
        raise InvalidInputError(
            "some variables have no L2 rate, so the directions that were not computed have no "
            "bound on their variance",
            expected="lambda > 0 for every uncertain variable",
            received=f"none for {missing}",
            remedy="give l2=... (a rate, or {pattern: rate}); or leave those variables out with "
            "layers=...; or, with few parameters and a curvature that is positive definite "
            "without L2, pass rank='full'",
        )
