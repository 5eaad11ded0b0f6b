"""A model and its data, checked against each other and brought into the prior's metric."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature import CurvatureOperator
from deltauq.curvature.cost import Cost, per_parameter
from deltauq.curvature.eigenpairs import DENSE_LIMIT, EIGEN_LIMIT, Rank, check_rank
from deltauq.curvature.flatness import Flatness, measure_flatness, refuse_linear_loss
from deltauq.data.batch_reader import PassListener
from deltauq.data.batches import Batches, spec_of
from deltauq.data.inputs import InputBatches
from deltauq.data.record import DataRecord
from deltauq.data.training import TrainingData
from deltauq.delta.memory_plan import AskedPairs, MemoryPlan, plan_memory
from deltauq.delta.rates import read_rates
from deltauq.delta.residual_noise import residual_noise
from deltauq.delta.settings import Settings
from deltauq.errors import InvalidInputError, UnsupportedModelError
from deltauq.likelihoods import Likelihood
from deltauq.network.derivative_audit import (
    named,
    obstacles_to_second_derivatives,
    refuse_false_gradients,
)
from deltauq.network.interpretation import InterpretedModel, interpret, logits_and_labels
from deltauq.network.jacobians import LinearHead, PerExample, find_linear_head
from deltauq.network.l2 import L2, l2_rates, refuse_other_terms, refuse_weight_decay
from deltauq.network.network import Network
from deltauq.network.probe_rows import probe_rows
from deltauq.prediction.linearization import Linearization, RowFunctions
from deltauq.runtime.memory import free_memory
from deltauq.runtime.steps import Steps

__all__ = [
    "Problem",
    "attach_data",
    "check_before_training",
    "prior_scale",
    "recall_problem",
    "state_problem",
]

Rates = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """What every curvature of one model on one data set shares.

    Attributes:
        network: the model.
        likelihood: gives the loss.
        data: the training set; where it is not at hand, what is remembered of it.
        n_outputs: C.
        rates: lambda_j `[P]` beside the mean of the likelihood's loss, that is those beside the
            cost that was minimised over the dispersion; zero where a parameter has no L2.
        per_example: rules for the network's per-example rows.
        linearization: the network linearised in its parameters, J scaled by `scale`.
        plan: the memory that eigenpairs take; None where the data to multiply by are not at hand.
        estimates_noise: the noise of a regression is the mean square of the residuals, for now.
        head: the last dense layer where no other parameter is uncertain; sought where
            the curvature has a form of its own there.
        flatness: where the loss has no curvature; None where it is known to have some.
        calibration: inputs to measure the tail on, like those to come; None for some of training.
        steps: of the fit, those that take long.
    """

    network: Network
    likelihood: Likelihood
    data: Batches | DataRecord
    n_outputs: int
    rates: Rates
    per_example: PerExample
    linearization: Linearization
    plan: MemoryPlan | None = None
    estimates_noise: bool = False
    head: LinearHead | None = None
    flatness: Flatness | None = None
    calibration: InputBatches | None = None
    steps: Steps = field(default_factory=Steps)

    def require_data(self) -> tuple[Batches, MemoryPlan]:
        """The training set, and the memory that was planned for passes over it.

        Raises:
            InvalidInputError: the data are not at hand.
        """
        if self.plan is None or isinstance(self.data, DataRecord):
            raise InvalidInputError(
                "this needs the training data, and an artifact holds none",
                expected="the data that fit was called with",
                received="a method loaded from a file",
                remedy="give them back with attach(x, y); rank_curve(x) takes other inputs instead",
            )
        return self.data, self.plan

    @property
    def training_set(self) -> Batches:
        """The training set; `InvalidInputError` where it is not at hand."""
        return self.require_data()[0]

    @property
    def record(self) -> DataRecord:
        """What is remembered of the data; of arrays at hand it takes a pass over them."""
        return self.data if isinstance(self.data, DataRecord) else DataRecord.of(self.data)

    @property
    def input_spec(self) -> Any:
        """`tf.TensorSpec`s of the inputs, their first axis free."""
        return self.data.input_spec if isinstance(self.data, DataRecord) else self.data.spec.x

    @cached_property
    def cost(self) -> Cost:
        """The cost that the weights should minimise, as a function of them."""
        return Cost(self.network, self.likelihood, self.training_set, self.rates, self.steps)

    @cached_property
    def operators(self) -> dict[type[CurvatureOperator], CurvatureOperator]:
        """Curvatures that were made of the problem."""
        return {}

    @cached_property
    def n_shown(self) -> int:
        """Number of means of a prediction: C at each position, and two of a single sigmoid."""
        n_outputs = self.n_outputs // self.likelihood.positions
        return len(self.likelihood.shown_logits(n_outputs))

    @property
    def epsilon(self) -> float:
        """Relative rounding of the curvature: the network's machine epsilon."""
        return float(np.finfo(self.network.dtype).eps)

    @property
    def scale(self) -> Rates:
        """Scale of the prior's metric, lambda_j^-1/2, and 1 where a parameter has no L2, `[P]`."""
        return prior_scale(self.rates)

    @property
    def dispersion(self) -> float:
        """The cost that was minimised divided by the mean of the likelihood's loss."""
        return self.likelihood.dispersion(self.n_outputs)

    def with_likelihood(self, likelihood: Likelihood, rates: Rates) -> Problem:
        """A problem with another likelihood of the same kind, and other rates."""
        linearization = replace(self.linearization, likelihood=likelihood, scale=prior_scale(rates))
        return replace(self, likelihood=likelihood, rates=rates, linearization=linearization)

    @cached_property
    def of_scores(self) -> Problem:
        """The problem whose curvature is a sandwich's meat: of the labels' log-likelihood."""
        return self.with_likelihood(self.likelihood.of_scores, self.rates)

    def at_work(self, listener: PassListener, steps: Steps | None = None) -> Problem:
        """A problem whose passes over the data a listener hears of, and whose steps are others."""
        data = self.training_set.with_listener(listener)
        return replace(self, data=data, steps=steps or Steps())

    @property
    def common_rate(self) -> float | None:
        """The L2 rate, where all parameters share a positive one."""
        rate = float(self.rates[0])
        return rate if rate > 0 and np.all(self.rates == rate) else None


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


def check_before_training(network: Network, settings: Settings) -> None:
    """Check rates and rank against a network, as far as they show without data.

    Args:
        network: a model, trained or not.
        settings: how the covariance is to be computed.

    Raises:
        InvalidInputError: rates or a rank that cannot be used.
        UnsupportedModelError: a penalty without a rate; weights that only the optimizer decays.
    """
    check_rank(settings.rank, network.n_params)
    l2 = settings.l2_to_start(network.variables)
    _check_rates(network, l2_rates(network.variables, l2), l2, settings.rank)


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


def rates_beside_cost(interpreted: InterpretedModel, data: Batches, l2: L2, rank: Rank) -> Rates:
    """Rates lambda_j `[P]` in the cost that was minimised; refused if missing and needed."""
    network = interpreted.network
    per_variable = np.array([rate.rate for rate in read_rates(interpreted, data, l2)])
    _check_rates(network, per_variable, l2, rank)
    return per_parameter(network.parameters, per_variable)


def prior_scale(rates: Rates) -> Rates:
    """Scale of the prior's metric, lambda_j^-1/2, and 1 where a parameter has no L2, `[P]`."""
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
    refuse_weight_decay(network.adapter.compilation.weight_decay, rates, l2)
    missing = [p.path for p, rate in zip(network.parameters, rates, strict=True) if rate == 0]
    if missing and rank != "full":
        every = len(missing) == len(network.parameters)
        small = network.n_params <= DENSE_LIMIT
        without = "" if every else "; or layers=... without those variables"
        full = "; or rank='full', where the data determine all of them" if small else ""
        raise InvalidInputError(
            f"{'the model has' if every else 'some variables have'} no L2 rate, so that nothing "
            "bounds the variance of the directions that the data leave open",
            expected="lambda > 0 for every uncertain variable",
            received="none for any of them" if every else f"none for {missing}",
            remedy="pass l2='tune', which chooses a rate from the training data and says in "
            f"`caveats` what that means; or l2=..., the rate to assume{without}{full}",
        )
