"""The L2 rates in the cost that a training minimised, read beside its data."""

from __future__ import annotations

from deltauq.data.batches import Batches
from deltauq.errors import UnsupportedModelError
from deltauq.network.interpretation import InterpretedModel
from deltauq.network.l2 import L2, VariableRate, l2_sources

__all__ = ["read_rates"]


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
