"""From a network, its training data and settings to a problem, each checked against the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from deltauq.curvature.eigenpairs import EIGEN_LIMIT, check_rank
from deltauq.curvature.flatness import Flatness, measure_flatness, refuse_linear_loss
from deltauq.data.batches import Batches, spec_of
from deltauq.data.record import DataRecord
from deltauq.data.training import TrainingData
from deltauq.delta.memory_plan import AskedPairs, MemoryPlan, plan_memory
from deltauq.delta.problem import Problem
from deltauq.delta.rates import Rates, prior_scale, rates_beside_cost
from deltauq.delta.residual_noise import residual_noise
from deltauq.delta.settings import Settings
from deltauq.errors import UnsupportedModelError
from deltauq.likelihoods import Likelihood
from deltauq.network.derivative_audit import (
    named,
    obstacles_to_second_derivatives,
    refuse_false_gradients,
)
from deltauq.network.interpretation import InterpretedModel, interpret, logits_and_labels
from deltauq.network.jacobians import LinearHead, PerExample, find_linear_head
from deltauq.network.l2 import refuse_other_terms
from deltauq.network.network import Network
from deltauq.network.probe_rows import probe_rows
from deltauq.prediction.linearization import Linearization, RowFunctions
from deltauq.runtime.memory import free_memory

__all__ = ["attach_data", "recall_problem", "state_problem"]


@dataclass(frozen=True)
class _Passes:
    """Training data that were read once, and what further passes over them take."""

    data: Batches
    plan: MemoryPlan
    head: LinearHead | None


def state_problem(network: Network, training: TrainingData, settings: Settings) -> Problem:
    """Check a network, its training data and the settings against each other.

    Args:
        network: the network.
        training: as it was handed over.
        settings: how the covariance is to be computed; without L2 on every variable only the rank
            "full" will do.

    Raises:
        InvalidInputError: data, labels, rates or a rank that cannot be used.
        UnsupportedModelError: a model or a compiled loss that cannot be used.
        MemoryLimitError: the eigenpairs do not fit in memory.
    """
    training = training.of_model(network.model)
    probe = probe_rows(network, training.x)
    model = interpret(network, network.inspect(probe), settings.likelihood)
    l2 = settings.l2_to_start(network.variables)
    if l2 == "auto":
        refuse_other_terms(model.network.terms_added(probe))
    passes = _prepare_passes(model, probe, training, settings)
    rates = rates_beside_cost(model, passes.data, l2, settings.rank)
    likelihood, estimates_noise = model.likelihood, model.likelihood.needs_noise
    if estimates_noise:
        likelihood = residual_noise(model, passes.data)
    flatness = _check_curvature(model.network, likelihood, passes.data, settings)
    rates = rates / likelihood.dispersion(model.n_outputs)
    problem = _for_predictions(model, likelihood, passes.data, rates, probe)
    return replace(
        problem,
        plan=passes.plan,
        head=passes.head,
        estimates_noise=estimates_noise,
        flatness=flatness,
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
    model = interpret(network, network.inspect(probe), likelihood)
    return _for_predictions(model, model.likelihood, data, rates, probe)


def attach_data(problem: Problem, training: TrainingData, settings: Settings) -> Problem:
    """A problem with its data at hand, for further passes over them.

    Args:
        problem: with its data or without.
        training: the data that it was stated with, in any order.
        settings: how passes over them are made.

    Raises:
        InvalidInputError: other data, or weights that mean something else.
        MemoryLimitError: further eigenpairs do not fit in memory.
    """
    network = problem.network
    training = training.of_model(network.model)
    probe = probe_rows(network, training.x)
    known = problem.likelihood.at_one_position
    model = interpret(network, network.inspect(probe), known)
    passes = _prepare_passes(model, probe, training, settings)
    problem.record.check_same(passes.data)
    found = _for_predictions(model, problem.likelihood, passes.data, problem.rates, probe)
    return replace(
        found,
        plan=passes.plan,
        head=passes.head,
        estimates_noise=problem.estimates_noise,
        flatness=problem.flatness,
    )


def _prepare_passes(
    model: InterpretedModel, probe: Any, training: TrainingData, settings: Settings
) -> _Passes:
    """See that the curvature can be formed, plan its memory, and read the data a first time."""
    network, likelihood, operators = model.network, model.likelihood, settings.kind.operators
    refuse_false_gradients(network, probe)
    if any(operator.second_derivatives for operator in operators):
        _refuse_obstacles(obstacles_to_second_derivatives(network, probe))
    check_rank(settings.rank, network.n_params)
    spec = spec_of(probe)
    head, of_head = None, tuple(operator.of_linear_head() for operator in operators)
    if of_head != operators and likelihood.observed_axes == 1:
        head = find_linear_head(network, spec)
    # Routes to all of a large curvature count their own memory, once they are compared.
    routed = settings.rank == "full" and network.n_params > EIGEN_LIMIT
    asked = AskedPairs(
        of_head if head else operators,
        likelihood,
        model.n_outputs,
        "auto" if routed else settings.rank,
        bounds=settings.bounds,
        tail=settings.measures_tail,
        in_files=settings.vectors_dir is not None,
    )
    free = free_memory(settings.memory_limit)
    plan = plan_memory(network, spec, asked, free=free, batch_size=settings.batch_size)
    data = Batches(
        *training,
        likelihood=likelihood,
        n_outputs=model.n_outputs,
        dtype=network.dtype,
        batch_size=plan.batch_size,
        mask=model.mask,
        weights=settings.weights,
    )
    return _Passes(data, plan, head)


def _check_curvature(
    network: Network, likelihood: Likelihood, data: Batches, settings: Settings
) -> Flatness | None:
    """Where the loss has no curvature; None where it is known to have some.

    Raises:
        InvalidInputError: a loss without any, or one that is not convex, for a curvature that
            needs it.
    """
    operators = settings.kind.operators
    flatness = None if likelihood.curved else measure_flatness(network, likelihood, data)
    if flatness is not None and not all(operator.made_of_scores for operator in operators):
        refuse_linear_loss(flatness, likelihood)
    if not likelihood.convex and any(operator.needs_convex_loss for operator in operators):
        for logits, labels, _ in logits_and_labels(network, data):
            likelihood.check_convex(logits, labels)
    return flatness


def _for_predictions(
    model: InterpretedModel,
    likelihood: Likelihood,
    data: Batches | DataRecord,
    rates: Rates,
    probe: Any,
) -> Problem:
    """A problem in the prior's metric, as far as predictions need it.

    Args:
        model: its network and mask.
        likelihood: the model's, its noise known.
        data: the training set, or what is remembered of it.
        rates: lambda_j `[P]`, as of `Problem`.
        probe: rows on which the rules for per-example rows are checked.
    """
    per_example = PerExample(model.network, probe)
    spec = data.input_spec if isinstance(data, DataRecord) else data.spec.x
    functions = RowFunctions(model.network, spec, per_example)
    linearization = Linearization(functions, likelihood, prior_scale(rates), model.mask)
    return Problem(
        model.network, likelihood, data, model.n_outputs, rates, per_example, linearization
    )


def _refuse_obstacles(operations: tuple[str, ...]) -> None:
    if operations:
        raise UnsupportedModelError(
            "the exact Hessian of this model would be wrong",
            expected="operations that TensorFlow differentiates twice",
            received=f"{named(operations)}, whose second derivative is false or missing",
            remedy="use curvature='ggn' or 'opg', which need first derivatives only",
        )
