"""A model and its data, checked against each other and brought into the prior's metric."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from deltauq.curvature import CurvatureOperator
from deltauq.curvature.cost import Cost
from deltauq.curvature.flatness import Flatness
from deltauq.data.batch_reader import PassListener
from deltauq.data.batches import Batches
from deltauq.data.inputs import InputBatches
from deltauq.data.record import DataRecord
from deltauq.delta.memory_plan import MemoryPlan
from deltauq.delta.rates import Rates, prior_scale
from deltauq.errors import InvalidInputError
from deltauq.likelihoods import Likelihood
from deltauq.network.jacobians import LinearHead, PerExample
from deltauq.network.network import Network
from deltauq.prediction.linearization import Linearization
from deltauq.runtime.steps import Steps

__all__ = ["Problem"]


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
