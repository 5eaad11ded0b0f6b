"""The noise of a regression by the residuals of its training data."""

from __future__ import annotations

from typing import Any

import numpy as np

from deltauq.data.batches import Batches
from deltauq.errors import InvalidInputError
from deltauq.likelihoods import Likelihood
from deltauq.network.interpretation import InterpretedModel, logits_and_labels

__all__ = ["residual_noise"]


def residual_noise(model: InterpretedModel, data: Batches) -> Likelihood:
    """The likelihood of a regression with the mean squares of the residuals for the noise.

    Raises:
        InvalidInputError: an output without any residual.
    """
    squares: Any = 0.0
    for logits, y, weight in logits_and_labels(model.network, data):
        n_outputs = model.inspection.output.shape[-1]
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
    return model.likelihood.with_noise(noise)
