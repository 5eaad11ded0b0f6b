"""What a model's outputs mean: its likelihood, checked against the model's last operation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.data.batches import Batches
from deltauq.errors import UnsupportedModelError
from deltauq.likelihoods import (
    AtPositions,
    Likelihood,
    Training,
    read_likelihood,
    resolve_likelihood,
)
from deltauq.likelihoods.compiled import LOG_RATES, refuse_rates
from deltauq.likelihoods.links import ACTIVATIONS, spoken
from deltauq.network.graph import Compiled
from deltauq.network.inspection import Inspection
from deltauq.network.masks import OutputMask, find_mask
from deltauq.network.network import Network

__all__ = ["InterpretedModel", "interpret", "logits_and_labels"]

Array = npt.NDArray[Any]

#: Operations whose result is bounded or one-sided, so that it cannot be a logit.
_NOT_LOGITS = frozenset({"Tanh", "Relu", "Relu6", "Softplus", "Exp", "Softsign"})


@dataclass(frozen=True)
class InterpretedModel:
    """A network together with what its outputs mean: the likelihood of its labels and the mask.

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
        """Number C of outputs, those of all positions together."""
        return self.inspection.n_outputs


def interpret(network: Network, inspection: Inspection, likelihood: Any) -> InterpretedModel:
    """Find the likelihood of a model's labels, and check that it goes with the outputs.

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
        training = read_likelihood(
            compiled, inspection.link, n_outputs, keeps_logits=inspection.keeps_logits
        )
    else:
        training = Training(resolve_likelihood(likelihood, n_outputs=n_outputs))
        if training.likelihood.link == "Exp":
            refuse_rates(training.likelihood, network.compiled_config(), inspection.link)
    found = training.likelihood
    found.check_outputs(n_outputs)
    _check_link(training, inspection)
    if found.link is None:
        network = network.without_link()
    if inspection.position_shape:
        found = AtPositions(found, inspection.position_shape)
    mask = find_mask(network, inspection)
    return InterpretedModel(network, inspection, found, training.reduction, mask)


def logits_and_labels(
    network: Network, data: Batches
) -> Iterator[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Yield logits `[B, C]`, labels and weights batch by batch, once through the data."""

    def logits(params: tf.Tensor, x: Any) -> tf.Tensor:
        return network.logits(network.unflatten(params), x)

    spec = tf.TensorSpec([network.n_params], network.dtype)
    compiled = Compiled(logits, spec, data.spec.x)
    for batch in data:
        yield compiled(network.params, batch.x), batch.y, batch.weight


def _check_link(training: Training, inspection: Inspection) -> None:
    """Refuse outputs that are not what the likelihood takes, as far as that can be seen.

    Outputs that the loss took for logits are logits, be they those of a ReLU.
    """
    likelihood = training.likelihood
    if likelihood.link is None or likelihood.link == inspection.link:
        return
    if inspection.link is not None:
        raise UnsupportedModelError(
            f"the likelihood {likelihood.name!r} does not fit the model's last operation",
            expected=f"logits, or {spoken(likelihood.link)}",
            received=spoken(inspection.link),
            remedy="pass likelihood='multilabel' (or 'binary' for one output) for sigmoids, "
            "'categorical' for a softmax, 'poisson' for an exponential",
        )
    values = inspection.output
    distribution = (
        likelihood.link == "Softmax"
        and bool(np.all(values >= 0))
        and np.allclose(values.sum(axis=-1), 1.0, atol=1e-4)
    )
    if (inspection.last in _NOT_LOGITS and not training.from_logits) or distribution:
        raise UnsupportedModelError(
            "the model's output is neither logits nor a link function that can be traced back",
            expected=f"a last operation that gives logits, or {spoken(likelihood.link)}",
            received=f"a last operation {inspection.last!r}"
            + (" whose rows are probabilities" if distribution else ""),
            remedy="end the model in Dense(n_outputs), or in "
            f"Dense(n_outputs, activation={ACTIVATIONS[likelihood.link]!r})"
            + (f"; or {LOG_RATES}" if likelihood.link == "Exp" else ""),
        )
