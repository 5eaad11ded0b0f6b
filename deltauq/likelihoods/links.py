"""Functions from logits to means at the end of a model: their operations and their names.

They are called links here; a generalised linear model gives that name to their inverses.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["ACTIVATIONS", "Link", "probit_logits", "spoken"]

Array = npt.NDArray[Any]

#: The operation of TensorFlow whose input the logits are.
Link = Literal["Softmax", "Sigmoid", "Exp"]

#: The activation of Keras that is each of them.
ACTIVATIONS: dict[str, str] = {"Softmax": "softmax", "Sigmoid": "sigmoid", "Exp": "exponential"}


def spoken(link: str) -> str:
    """A link function in a sentence, as "a softmax" is."""
    name = ACTIVATIONS[link]
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def probit_logits(logits: Array, variance: Array) -> Array:
    """Shrink logits so that their softmax or sigmoid is about its average over normal logits.

    E sigmoid(z) is about sigmoid(z / sqrt(1 + (pi / 8) Var z)), exact were the sigmoid a probit
    function of the same slope at zero (MacKay 1992, "The evidence framework applied to
    classification networks"); a softmax likewise, logit by logit (Gibbs 1997, "Bayesian Gaussian
    processes for regression and classification").

    Args:
        logits: their means, any shape.
        variance: of each of them.
    """
    return np.asarray(logits / np.sqrt(1.0 + np.pi / 8 * variance))
