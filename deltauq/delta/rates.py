"""The L2 rates in the cost that a training minimised, read beside its data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deltauq.curvature.cost import per_parameter
from deltauq.curvature.eigenpairs import DENSE_LIMIT, Rank, check_rank
from deltauq.data.batches import Batches
from deltauq.delta.settings import Settings
from deltauq.errors import InvalidInputError, UnsupportedModelError
from deltauq.network.interpretation import InterpretedModel
from deltauq.network.l2 import L2, VariableRate, l2_rates, l2_sources, refuse_weight_decay
from deltauq.network.network import Network

__all__ = ["Rates", "check_before_training", "prior_scale", "rates_beside_cost", "read_rates"]

Rates = npt.NDArray[np.float64]


def read_rates(model: InterpretedModel, data: Batches, l2: L2) -> tuple[VariableRate, ...]:
    """The L2 rate of every variable in the cost that was minimised, and where it was read.

    Raises:
        InvalidInputError: rates or patterns that cannot be used.
        UnsupportedModelError: a penalty without a rate; a summed loss, beside which no rate that
            was read means anything.
    """
    # Keras divides the weighted losses by the predictions that are not masked, or by the sum of
    # their weights, and our cost by N.
    divisor: float = data.n_predictions
    if model.reduction == "mean_with_sample_weight":
        divisor = data.total_weight
    read_scale = divisor / data.n_examples
    rates = l2_sources(model.network.variables, l2, read_scale=read_scale)
    read = [rate for rate in rates if rate.rate > 0 and rate.read]
    if model.reduction == "sum" and read:
        raise UnsupportedModelError(
            "the loss is summed over the batch, so the L2 rate depends on the batch size",
            expected="a loss that is a mean, or rates that are given",
            received=f"reduction='sum', and regularizers on {[rate.path for rate in read][:5]}",
            remedy="give l2=...: with Keras' L2(a) and B rows a batch lambda is "
            f"{2 * data.n_rows / data.n_examples:.6g} a / B here",
        )
    return rates


def rates_beside_cost(interpreted: InterpretedModel, data: Batches, l2: L2, rank: Rank) -> Rates:
    """Rates lambda_j `[P]` in the cost that was minimised; refused if missing and needed."""
    network = interpreted.network
    per_variable = np.array([rate.rate for rate in read_rates(interpreted, data, l2)])
    _check_rates(network, per_variable, l2, rank)
    return per_parameter(network.parameters, per_variable)


def prior_scale(rates: Rates) -> Rates:
    """Scale of the prior's metric, lambda_j^-1/2, and 1 where a parameter has no L2, `[P]`."""
    return 1.0 / np.sqrt(np.where(rates > 0, rates, 1.0))


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
