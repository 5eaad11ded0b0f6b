"""A model and its data, checked against each other and brought into the prior's metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature import GGN, OPG, CurvatureOperator, LinearHeadGGN
from deltauq.curvature.cost import Cost, per_parameter
from deltauq.curvature.eigenpairs import Rank, check_rank
from deltauq.curvature.flatness import Flatness, measure_flatness, refuse_linear_loss
from deltauq.data.batches import Batches, spec_of
from deltauq.data.inputs import check_batch_size
from deltauq.data.record import DataRecord
from deltauq.data.streams import as_source, model_rank
from deltauq.data.weights import WeightKind
from deltauq.delta.memory_plan import MemoryPlan, plan_memory
from deltauq.delta.rates import read_rates
from deltauq.delta.residual_noise import residual_noise
from deltauq.errors import InvalidInputError, UnsupportedModelError
from deltauq.likelihoods import Likelihood
from deltauq.network.derivative_audit import (
    named,
    obstacles_to_second_derivatives,
    refuse_false_gradients,
)
from deltauq.network.interpretation import InterpretedModel, interpret, outputs
from deltauq.network.jacobians import LinearHead, PerExample, find_linear_head
from deltauq.network.l2 import L2, l2_rates, refuse_other_terms, refuse_weight_decay
from deltauq.network.network import Network
from deltauq.network.probe_rows import probe_rows
from deltauq.prediction.linearization import Linearization
from deltauq.runtime.memory import free_memory

__all__ = ["Problem", "check_settings", "recall_problem", "state_problem"]

Rates = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """What every curvature of one model on one data set shares.

    Attributes:
        network: the model.
        likelihood: gives the loss.
        data: the training set.
        n_outputs: C.
        rates: lambda_j `[P]` beside the mean of the likelihood's loss, that is those beside the
            cost that was minimised over the dispersion; zero where a parameter has no L2.
        per_example: rules for the network's per-example rows.
        linearization: the network linearised in its parameters, J scaled by `scale`.
        plan: the memory that the eigenpairs take.
        estimates_noise: the noise of a regression is the mean square of the residuals, for now.
        head: the last dense layer where no other parameter is uncertain; sought for the GGN alone.
        flatness: where the loss has no curvature; None where it is known to have some.
    """

    network: Network
    likelihood: Likelihood
    data: Batches
    n_outputs: int
    rates: Rates
    per_example: PerExample
    linearization: Linearization
    plan: MemoryPlan
    estimates_noise: bool = False
    head: LinearHead | None = None
    flatness: Flatness | None = None

    @cached_property
    def cost(self) -> Cost:
        """What the weights should minimise."""
        return Cost(self.network, self.likelihood, self.data, self.rates)

    @cached_property
    def n_shown(self) -> int:
        """Means that a prediction has: C at each position, and two of a single sigmoid."""
        n_outputs = self.n_outputs // self.likelihood.positions
        return len(self.likelihood.shown_logits(n_outputs))

    @property
    def epsilon(self) -> float:
        """Relative rounding of the curvature: the network's machine epsilon."""
        return float(np.finfo(self.network.dtype).eps)

    @property
    def scale(self) -> Rates:
        """lambda_j^-1/2, and 1 where a parameter has no L2, `[P]`."""
        return _metric(self.rates)

    @property
    def dispersion(self) -> float:
        """The cost that was minimised divided by the mean of the likelihood's loss."""
        return self.likelihood.dispersion(self.n_outputs)

    def with_likelihood(self, likelihood: Likelihood, rates: Rates) -> Problem:
        """The same with another likelihood of the same kind, and other rates."""
        linearization = Linearization(
            self.network,
            likelihood,
            self.data.spec.x,
            self.per_example,
            _metric(rates),
            self.linearization.mask,
        )
        return replace(self, likelihood=likelihood, rates=rates, linearization=linearization)

    @property
    def common_rate(self) -> float | None:
        """The L2 rate, where all parameters share a positive one."""
        rate = float(self.rates[0])
        return rate if rate > 0 and np.all(self.rates == rate) else None


def state_problem(
    network: Network,
    training: tuple[Any, Any, Any, Any],
    *,
    l2: L2,
    likelihood: str | Likelihood,
    rank: Rank,
    operators: Sequence[type[CurvatureOperator]],
    batch_size: int | None,
    bounds: bool = False,
    memory_limit: int | str | None = None,
    weights: WeightKind = "auto",
    vectors_in_files: bool = False,
) -> Problem:
    """Check a network, its training data and the settings against each other.

    Args:
        network: the network.
        training: x, y, sample_weight, class_weight as `DeltaMethod.fit` takes them.
        l2: as in `DeltaMethod`.
        likelihood: as in `DeltaMethod`.
        rank: as in `DeltaMethod`; without L2 on every variable only "full" will do.
        operators: the curvatures, for the choice of a batch size and for what they cannot take.
        batch_size: rows a step, or None to choose it.
        bounds: as in `DeltaMethod`.
        memory_limit: as in `DeltaMethod`.
        weights: as in `DeltaMethod`.
        vectors_in_files: as for `plan_memory`.

    Raises:
        InvalidInputError: data, labels, rates or a rank that cannot be used.
        UnsupportedModelError: a model or a compiled loss that cannot be used.
        MemoryLimitError: the eigenpairs do not fit in memory.
    """
    x, *labels = training
    x = as_source(x, rank=model_rank(network.model))
    probe = probe_rows(network, x)
    interpreted = interpret(network, network.inspect(probe), likelihood)
    network, found, n_outputs = interpreted.network, interpreted.likelihood, interpreted.n_outputs
    if l2 == "auto":
        refuse_other_terms(network.terms_added(probe))
    refuse_false_gradients(network, probe)
    if any(operator.second_derivatives for operator in operators):
        _refuse_obstacles(obstacles_to_second_derivatives(network, probe))
    check_rank(rank, network.n_params)
    spec = spec_of(probe)
    head = None
    if GGN in operators and found.observed_axes == 1:
        head = find_linear_head(network, spec)
    plan = plan_memory(
        network,
        spec,
        [LinearHeadGGN if head and kind is GGN else kind for kind in operators],
        found,
        n_outputs,
        rank,
        free=free_memory(memory_limit),
        batch_size=None if batch_size is None else check_batch_size(batch_size),
        bounds=bounds,
        vectors_in_files=vectors_in_files,
    )
    data = Batches(
        x,
        *labels,
        likelihood=found,
        n_outputs=n_outputs,
        dtype=network.dtype,
        batch_size=plan.batch_size,
        mask=interpreted.mask,
        weights=weights,
    )
    rates = rates_beside_cost(interpreted, data, l2, rank)
    estimates_noise = found.needs_noise
    if estimates_noise:
        found = residual_noise(interpreted, data)
    flatness = None if found.curved else measure_flatness(network, found, data)
    if flatness is not None and any(operator is not OPG for operator in operators):
        refuse_linear_loss(flatness, found)
    if GGN in operators and not found.convex:
        for logits, labels, _ in outputs(network, data):
            found.check_convex(logits, labels)
    rates = rates / found.dispersion(n_outputs)
    per_example = PerExample(network, probe)
    linearization = Linearization(
        network, found, data.spec.x, per_example, _metric(rates), interpreted.mask
    )
    return Problem(
        network,
        found,
        data,
        n_outputs,
        rates,
        per_example,
        linearization,
        plan,
        estimates_noise,
        head,
        flatness,
    )


def recall_problem(
    network: Network, likelihood: Likelihood, data: DataRecord, rates: Rates, probe: Any
) -> Problem:
    """A problem as it was stated once, without its data: good for predictions.

    Args:
        network: the network.
        likelihood: of one position, its noise known.
        data: what is remembered of them.
        rates: lambda_j `[P]`, as of `Problem`.
        probe: rows on which the network is looked at.
    """
    interpreted = interpret(network, network.inspect(probe), likelihood)
    network, found = interpreted.network, interpreted.likelihood
    per_example = PerExample(network, probe)
    linearization = Linearization(
        network, found, data.spec.x, per_example, _metric(rates), interpreted.mask
    )
    plan = MemoryPlan(0, 0, 0, 1)  # without data no curvature will be multiplied
    return Problem(
        network, found, data, interpreted.n_outputs, rates, per_example, linearization, plan
    )


def check_settings(network: Network, *, l2: L2, rank: Rank) -> None:
    """Of what `state_problem` refuses, that which shows without data.

    Args:
        network: a model, trained or not.
        l2: as in `DeltaMethod`, but not "tune".
        rank: as in `DeltaMethod`.

    Raises:
        InvalidInputError: rates or a rank that cannot be used.
        UnsupportedModelError: a penalty without a rate; weights that only the optimizer decays.
    """
    check_rank(rank, network.n_params)
    _check_rates(network, l2_rates(network.variables, l2), l2, rank)


def rates_beside_cost(interpreted: InterpretedModel, data: Batches, l2: L2, rank: Rank) -> Rates:
    """lambda_j `[P]` in the cost that was minimised; refused where one is missing and needed."""
    network = interpreted.network
    per_variable = np.array([rate.rate for rate in read_rates(interpreted, data, l2)])
    _check_rates(network, per_variable, l2, rank)
    return per_parameter(network.parameters, per_variable)


def _metric(rates: Rates) -> Rates:
    return 1.0 / np.sqrt(np.where(rates > 0, rates, 1.0))


def _refuse_obstacles(operations: tuple[str, ...]) -> None:
    if operations:
        raise UnsupportedModelError(
            "the exact Hessian of this model would be wrong",
            expected="operations that TensorFlow differentiates twice",
            received=f"{named(operations)}, whose second derivative is false or missing",
            remedy="use curvature='ggn' or 'opg', which need first derivatives only",
        )


def _check_rates(network: Network, rates: Rates, l2: L2, rank: Rank) -> None:
    """Refuse rates `[n]` that are unknown, and, but for the rank "full", those that are zero."""
    refuse_weight_decay(network.model, rates, l2)
    missing = [p.path for p, rate in zip(network.parameters, rates, strict=True) if rate == 0]
    if missing and rank != "full":
        raise InvalidInputError(
            "some variables have no L2 rate, so the directions that were not computed have no "
            "bound on their variance",
            expected="lambda > 0 for every uncertain variable",
            received=f"none for {missing}",
            remedy="give l2=... (a rate, {pattern: rate}, or 'tune' to have one chosen); or leave "
            "those variables out with layers=...; or, with few parameters and a curvature that is "
            "positive definite without L2, pass rank='full'",
        )
