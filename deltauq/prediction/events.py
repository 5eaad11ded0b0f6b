"""What the probabilities of a prediction are about, and whether it came true."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

__all__ = ["Events"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Events:
    """Events that a prediction gives probabilities: E of them, one or more an input.

    Attributes:
        probability: of each event `[E]`.
        std: standard error of the probability `[E]`.
        happened: whether the event came true `[E]`; None where the truth is not known.
        wrong: whether the event was foretold wrong `[E]`; None where the truth is not known.
        unit: what there is one event for, "input" or "label".
        subject: what the probability is of, with its article.
        predicate: what is said of an event that came true, "right" or "there".
    """

    probability: Array
    std: Array
    happened: Array | None
    wrong: Array | None
    unit: str
    subject: str
    predicate: str
