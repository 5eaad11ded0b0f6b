"""A quantity by us and by another package, and how far they are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Check:
    """A quantity by us and by a peer.

    Attributes:
        quantity: what it is.
        ours: an array.
        theirs: one that should be equal.
        unit: in which their difference is told; None for the largest of theirs.
    """

    quantity: str
    ours: Array
    theirs: Array
    unit: Array | float | None = None

    @property
    def apart(self) -> float:
        """The largest difference in the unit."""
        ours, theirs = np.asarray(self.ours), np.asarray(self.theirs)
        if ours.shape != theirs.shape:
            raise ValueError(f"{self.quantity}: {ours.shape} beside {theirs.shape}")
        unit = np.abs(theirs).max() if self.unit is None else self.unit
        return float(np.max(np.abs(ours - theirs) / unit))


def covariance(quantity: str, ours: Any, theirs: Any) -> Check:
    """A check of covariances `[..., P, P]` in units of the two standard errors."""
    std = np.sqrt(np.einsum("...ii->...i", np.asarray(theirs)))
    unit = std[..., :, None] * std[..., None, :]
    return Check(quantity, np.asarray(ours), np.asarray(theirs), unit)


def each(quantity: str, ours: Any, theirs: Any) -> Check:
    """A check of positive numbers, each in its own unit."""
    return Check(quantity, np.asarray(ours), np.asarray(theirs), np.asarray(theirs))
