"""What a model's outputs mean: its likelihood, checked against its last operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.data import Batches
from deltauq.errors import InvalidInputError, UnsupportedModelError
from deltauq.likelihoods import (
    AtPositions,
    Likelihood,
    Training,
    read_likelihood,
    resolve_likelihood,
)
from deltauq.masks import OutputMask, find_mask
from deltauq.network import Inspection, Network
from deltauq.regularization import L2, VariableRate, l2_sources
from deltauq.tracing import Compiled

__all__ = ["Understood", "estimate_noise", "outputs", "read_rates", "understand"]

Array = npt.NDArray[Any]

#: Operations whose result is bounded or one-sided, so that it cannot be a logit.
_NOT_LOGITS = frozenset({"Tanh", "Relu", "Relu6", "Softplus", "Exp", "Softsign"})


@dataclass(frozen=True)
class Understood:
    """A model whose outputs are understood.

    Attributes:
        network: the model, its logits taken before the link function of the likelihood.
        inspection: what a look at it on a few rows found.
        likelihood: of its labels, at every position.
        reduction: of the losses of a training batch, see `Training`.
        mask: which predictions count; None where all do.
    """

    network: Network
    inspection: Inspection
    likelihood: Likelihood
    reduction: str
    mask: OutputMask | None

    @property
    def n_outputs(self) -> int:
        """C, all positions together."""
        return self.inspection.n_outputs


def understand(network: Network, inspection: Inspection, likelihood: Any) -> Understood:
    """Find the likelihood of a model's labels.

    Args:
        network: the network.
        inspection: what a look at it on a few rows found.
        likelihood: "auto" (from the compiled loss and the last operation), a name, a `Likelihood`,
            or a loss function.

    Raises:
        InvalidInputError: a likelihood that does not fit the outputs.
        UnsupportedModelError: a compiled loss, a last operation or a mask that cannot be used.
    """
    n_outputs = inspection.output.shape[-1]
    if isinstance(likelihood, str) and likelihood == "auto":
        compiled = network.compiled_config()
        training = read_likelihood(compiled, inspection.link, n_outputs)
    else:
        training = Training(resolve_likelihood(likelihood, n_outputs=n_outputs))
    found = training.likelihood
    found.check_outputs(n_outputs)
    _check_link(found, inspection)
    if found.link is None:
        network = network.without_link()
    if inspection.positions:
        found = AtPositions(found, inspection.positions)
    mask = find_mask(network, inspection)
    return Understood(network, inspection, found, training.reduction, mask)


def read_rates(understood: Understood, data: Batches, l2: L2) -> tuple[VariableRate, ...]:
    """The L2 rate of every variable in the cost that was minimised, and where it was read.

    Raises:
        InvalidInputError: rates or patterns that cannot be used.
        UnsupportedModelError: a penalty without a rate; a summed loss, beside which no rate that
            was read means anything.
    """
    # Keras divides the weighted losses by the predictions that are not masked, or by the sum of
    # their weights, and our cost by N.
    divisor: float = data.n_predictions
    if understood.reduction == "mean_with_sample_weight":
        divisor = data.total_weight
    read_scale = divisor / data.n_examples
    rates = l2_sources(understood.network.variables, l2, read_scale=read_scale)
    read = [rate for rate in rates if rate.rate > 0 and rate.read]
    if understood.reduction == "sum" and read:
        raise UnsupportedModelError(
            "the loss is summed over the batch, so the L2 rate depends on the batch size",
            expected="a loss that is a mean, or rates that are given",
            received=f"reduction='sum', and regularizers on {[rate.path for rate in read][:5]}",
            remedy="give l2=...: with Keras' L2(a) and B rows a batch lambda is "
            f"{2 * data.n_rows / data.n_examples:.6g} a / B here",
        )
    return rates


def outputs(network: Network, data: Batches) -> Any:
    """Logits `[B, C]`, labels and weights of one batch after the other, once through the data."""

    def logits(params: tf.Tensor, x: Any) -> tf.Tensor:
        return network.logits(network.unflatten(params), x)

    spec = tf.TensorSpec([network.n_params], network.dtype)
    compiled = Compiled(logits, spec, data.spec.x)
    for batch in data:
        yield compiled(network.params, batch.x), batch.y, batch.weight


def estimate_noise(understood: Understood, data: Batches) -> Likelihood:
    """The likelihood of a regression with the mean squares of the residuals for the noise.

    Raises:
        InvalidInputError: an output without any residual.
    """
    squares: Any = 0.0
    for logits, y, weight in outputs(understood.network, data):
        n_outputs = understood.inspection.output.shape[-1]
        residuals = logits.numpy().astype(np.float64).reshape(-1, n_outputs)
        residuals -= y.numpy().reshape(-1, n_outputs)
        squares = squares + weight.numpy().astype(np.float64).ravel() @ residuals**2
    noise = squares / data.n_examples
    if not np.all(noise > 0):
        raise InvalidInputError(
            "the model fits the training data without any error, so the noise cannot be estimated",
            expected="residuals that are not all zero",
            received=f"mean squares {noise}",
            remedy="give the variance: likelihood=deltauq.likelihoods.Gaussian(noise=...)",
        )
    return understood.likelihood.with_noise(noise)


def _check_link(likelihood: Likelihood, inspection: Inspection) -> None:
    """Refuse outputs that are not what the likelihood takes, as far as that can be seen."""
    if likelihood.link is None or likelihood.link == inspection.link:
        return
    if inspection.link is not None:
        raise UnsupportedModelError(
            f"the likelihood {likelihood.name!r} does not fit the model's last operation",
            expected=f"logits, or a {likelihood.link.lower()}",
            received=f"a {inspection.link.lower()}",
            remedy="pass likelihood='multilabel' (or 'binary' for one output) for sigmoids, "
            "'categorical' for a softmax",
        )
    values = inspection.output
    distribution = (
        likelihood.link == "Softmax"
        and bool(np.all(values >= 0))
        and np.allclose(values.sum(axis=-1), 1.0, atol=1e-4)
    )
    if inspection.last in _NOT_LOGITS or distribution:
        raise UnsupportedModelError(
            "the model's output is neither logits nor a link function that can be traced back",
            expected=f"a last operation that gives logits, or a {likelihood.link.lower()}",
            received=f"a last operation {inspection.last!r}"
            + (" whose rows are probabilities" if distribution else ""),
            remedy="end the model in Dense(n_classes), or in "
            f"Dense(n_classes, activation={likelihood.link.lower()!r})",
        )
