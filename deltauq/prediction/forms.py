"""The covariances J Sigma J^T of the rows of a batch of inputs, by whatever Sigma is known from."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from deltauq.curvature.exact_inverse import ExactInverse
from deltauq.curvature.parameter_covariance import ParameterCovariance
from deltauq.network.jacobians import Workspace
from deltauq.prediction.directions import Directions, Shown
from deltauq.prediction.estimate import Array
from deltauq.prediction.linearization import Linearization

__all__ = ["ROUNDING", "Form", "FormByInverse", "FormByPairs", "RowCovariances"]

#: Relative rounding of a standard error in the network's precision, by which bounds are widened.
ROUNDING = {"float32": 1e-4, "float64": 1e-9}

#: The same where nothing but the rows themselves is rounded: where a sum of theirs cancels, that is
#: told apart (`Enclosure.slack`).
_ROUNDING_OF_ROWS = {"float32": 1e-5, "float64": 1e-12}


class RowCovariances(NamedTuple):
    """Covariances of the rows of a batch of inputs.

    Attributes:
        shown: logits and means, and how they move with the R rows.
        middle: J Sigma J^T `[B, R, R]`.
        outer: matrices from the smallest to the largest of which it lies; None where not known.
        rounding: of a standard error, relative.
        slack: of the standard error of each row beside that `[B, R]`; None for none.
    """

    shown: Shown
    middle: Array
    outer: tuple[Array, ...] | None
    rounding: float
    slack: Array | None = None


class Form(Protocol):
    """Forms J Sigma J^T, batch by batch.

    Attributes:
        linearization: gives the rows J.
        copies: how often the rows of a batch are in memory at a time.
        sample: inputs that a median is measured on, beside what they cost.
        certified: what lies between two bounds is proven to.
    """

    linearization: Linearization
    copies: int
    sample: int
    certified: bool

    def __call__(self, x: Any, directions: Directions | None = None) -> RowCovariances:
        """The covariances of a batch of inputs.

        Args:
            x: the batch.
            directions: of the logits along which rows are taken; None for all outputs.
        """


class FormByPairs:
    """Forms J Sigma J^T from eigenpairs: J U and the part of J outside U are all it takes.

    Args:
        linearization: of the network.
        covariance: of its parameters.
        vectors: the covariance's vectors, C-contiguous and in the network's precision.
    """

    copies = 1
    sample = 64

    def __init__(
        self, linearization: Linearization, covariance: ParameterCovariance, vectors: Array
    ) -> None:
        self.linearization = linearization
        self.covariance = covariance
        self.vectors = vectors
        self.certified = covariance.certified
        self._workspace = Workspace(vectors.dtype)

    def __call__(self, x: Any, directions: Directions | None = None) -> RowCovariances:
        """The covariances of a batch, of which no row is held in full."""
        found = self.linearization.sketch(x, self.vectors, self._workspace, directions)
        middle, outer = self.covariance.project_between(found.along, found.rest)
        return RowCovariances(found.shown, middle, outer, ROUNDING[self.vectors.dtype.name])


class FormByInverse:
    """Forms J Sigma J^T from all of the curvature, exact to the rounding of rows.

    Args:
        linearization: of the network.
        inverse: Sigma in the prior's metric.
    """

    sample = 16
    certified = True

    def __init__(self, linearization: Linearization, inverse: ExactInverse) -> None:
        self.linearization = linearization
        self.inverse = inverse
        self.copies = inverse.copies

    def __call__(self, x: Any, directions: Directions | None = None) -> RowCovariances:
        """The covariances of a batch, from its rows in full."""
        found = self.linearization.rows(x, directions)
        shown = found.shown
        lefts = np.concatenate([shown.back, shown.slope], axis=1)
        ends = self.inverse.enclose(found.values, lefts)
        rounding = _ROUNDING_OF_ROWS[found.values.dtype.name]
        return RowCovariances(shown, ends.high, (ends.low, ends.high), rounding, ends.slack)
