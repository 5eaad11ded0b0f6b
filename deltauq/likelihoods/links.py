"""Functions from logits to means at the end of a model: their operations and their names.

They are called links here; a generalised linear model gives that name to their inverses.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["ACTIVATIONS", "Link", "spoken"]

#: The operation of TensorFlow whose input the logits are.
Link = Literal["Softmax", "Sigmoid", "Exp"]

#: The activation of Keras that is each of them.
ACTIVATIONS: dict[str, str] = {"Softmax": "softmax", "Sigmoid": "sigmoid", "Exp": "exponential"}


def spoken(link: str) -> str:
    """A link function in a sentence, as "a softmax" is."""
    name = ACTIVATIONS[link]
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
