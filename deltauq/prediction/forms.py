"""The covariances J Sigma J^T of the rows of a batch of inputs, by whatever Sigma is known from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from deltauq.curvature.calibrated_tail import mean_share
from deltauq.curvature.exact_inverse import ExactInverse
from deltauq.curvature.parameter_covariance import ParameterCovariance
from deltauq.data.batch_reader import n_rows_of
from deltauq.linalg import inner_products, split
from deltauq.network.jacobians import Workspace
from deltauq.prediction.directions import Directions, Shown
from deltauq.prediction.estimate import Array
from deltauq.prediction.linearization import Linearization

__all__ = ["ROUNDING", "ROUNDING_OF_ROWS", "Form", "FormByInverse", "FormByPairs", "RowCovariances"]

#: Relative rounding of a standard error in the network's precision, by which bounds are widened.
ROUNDING = {"float32": 1e-4, "float64": 1e-9}

#: The same where nothing but the rows themselves is rounded: where a sum of theirs cancels, that is
#: told apart (`Enclosure.slack`).
ROUNDING_OF_ROWS = {"float32": 1e-5, "float64": 1e-12}


#: Parameters of a block that is projected in memory of its own, at most.
_BLOCK = 8192


class Tails(NamedTuple):
    """What the tails of a batch of inputs go by.

    Attributes:
        shares: of the variance of each input's means that lies outside the vectors `[B]`.
        beyond: whether it lies outside the range of the calibration inputs' `[B]`.
        outside: variance of each mean outside the vectors, were the tail one, `[B, M]`.
    """

    shares: Array
    beyond: Array
    outside: Array


class RowCovariances(NamedTuple):
    """Covariances of the rows of a batch of inputs.

    Attributes:
        shown: logits and means, and how they move with the R rows.
        middle: J Sigma J^T `[B, R, R]`.
        outer: matrices from the smallest to the largest of which it lies; None where not known.
        rounding: of a standard error, relative.
        slack: of the standard error of each row beside that `[B, R]`; None for none.
        tails: what the tail of each input goes by; None where it was not measured.
    """

    shown: Shown
    middle: Array
    outer: tuple[Array, ...] | None
    rounding: float
    slack: Array | None = None
    tails: Tails | None = None


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

    @property
    def largest_std(self) -> float:
        """The largest standard error of a row of length one in the prior's metric."""

    @property
    def numbers_of_gradient(self) -> int:
        """Numbers in float64 that `of_gradients` takes beside each gradient."""

    @property
    def row_bytes(self) -> int:
        """Bytes that `between` holds for each row of all inputs."""

    def __call__(
        self, x: Any, directions: Directions | None = None, *, roughly: bool = False
    ) -> RowCovariances:
        """The covariances of a batch of inputs.

        Args:
            x: the batch.
            directions: of the logits along which rows are taken; None for all outputs.
            roughly: the middle to a percent is enough, and what it lies between may be wide.
        """

    def between(self, batches: Sequence[Any]) -> tuple[list[Shown], Array]:
        """What is shown of some batches, and J Sigma J^T of the rows of all, one after the other.

        Args:
            batches: of inputs; the rows of two of them fit in memory.
        """

    def of_gradients(self, gradients: Array) -> tuple[Array, tuple[Array, ...] | None]:
        """The form of rows `[m, P]` in float64, and matrices between which it lies.

        Args:
            gradients: in the prior's metric; changed.
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

    def __call__(
        self, x: Any, directions: Directions | None = None, *, roughly: bool = False
    ) -> RowCovariances:
        """The covariances of a batch, of which no row is held in full."""
        found = self.linearization.sketch(x, self.vectors, self._workspace, directions)
        covariance, tails = self.covariance, None
        if covariance.by_share is not None:  # each input has a tail of its own
            inside, outside = covariance.apart(found.along, found.rest, found.shown.slope)
            shares = mean_share(inside, outside)
            tails = Tails(shares, covariance.by_share.is_beyond(shares), outside)
        own = None if tails is None else tails.shares
        middle, outer = covariance.project_between(found.along, found.rest, own)
        rounding = ROUNDING[self.vectors.dtype.name]
        return RowCovariances(found.shown, middle, outer, rounding, tails=tails)

    @property
    def largest_std(self) -> float:
        """The standard error along the least curvature, or outside all vectors."""
        return self.covariance.largest_std

    @property
    def numbers_of_gradient(self) -> int:
        """Numbers of a block of the part outside, twice, and of the part inside."""
        n_params, rank = self.vectors.shape
        return 2 * min(n_params, _BLOCK) + 2 * rank

    row_bytes = 0

    def between(self, batches: Sequence[Any]) -> tuple[list[Shown], Array]:
        """Form two batches at a time, the rows of later ones anew for each before."""
        sizes = [n_rows_of(x) for x in batches]
        parts, along, outside, each = [], [], np.empty((0, 0)), 0
        for number, x in enumerate(batches):
            rows = self.linearization.rows(x)
            inside, left = self._split(rows.values)
            if not number:
                each = left.shape[1] // sizes[0]
                outside = np.empty((each * sum(sizes),) * 2)
            stops = each * np.cumsum(sizes)
            places = [slice(stop - each * n, stop) for stop, n in zip(stops, sizes, strict=True)]
            parts.append(rows.shown)
            along.append(inside.T)
            here = places[number]
            outside[here, here] = inner_products(left, left)
            for later, there in zip(batches[number + 1 :], places[number + 1 :], strict=True):
                right = self._split(self.linearization.rows(later).values)[1]
                outside[here, there] = inner_products(left, right)
                outside[there, here] = outside[here, there].T
        return parts, self.covariance.project(np.concatenate(along), outside)

    def _split(self, rows: Array) -> tuple[Array, Array]:
        """(J U)^T `[K, B C]` and the part of J^T outside U, `[P, B C]`."""
        return split(self.vectors, rows.reshape(-1, rows.shape[2]).T, overwrite=True)

    def of_gradients(self, gradients: Array) -> tuple[Array, tuple[Array, ...] | None]:
        """Split gradients into their parts along the pairs and outside."""
        inside, rest = split(self.vectors, gradients.T, overwrite=True)
        return self.covariance.project_between(inside.T, inner_products(rest, rest))


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

    def __call__(
        self, x: Any, directions: Directions | None = None, *, roughly: bool = False
    ) -> RowCovariances:
        """The covariances of a batch, from its rows in full."""
        found = self.linearization.rows(x, directions)
        shown = found.shown
        lefts = np.concatenate([shown.back, shown.slope], axis=1)[:, : 0 if roughly else None]
        ends = self.inverse.enclose(found.values, lefts)
        rounding = ROUNDING_OF_ROWS[found.values.dtype.name]
        return RowCovariances(shown, ends.high, (ends.low, ends.high), rounding, ends.slack)

    @property
    def largest_std(self) -> float:
        """The standard error of the prior, which data only lessen."""
        return float(self.inverse.n_examples) ** -0.5

    @property
    def numbers_of_gradient(self) -> int:
        """Numbers of as many gradients as there are copies of rows."""
        return self.copies * self.linearization.network.n_params

    @property
    def row_bytes(self) -> int:
        """Bytes of as many rows as are in memory for each."""
        network = self.linearization.network
        return self.copies * network.n_params * np.dtype(network.dtype).itemsize

    def between(self, batches: Sequence[Any]) -> tuple[list[Shown], Array]:
        """Hold the rows of all inputs, and form what is between them."""
        found = [self.linearization.rows(x) for x in batches]
        rows = np.concatenate([each.values.reshape(-1, each.values.shape[2]) for each in found])
        return [each.shown for each in found], self.of_gradients(rows)[0]

    def of_gradients(self, gradients: Array) -> tuple[Array, tuple[Array, ...] | None]:
        """Enclose all gradients together, as the rows of one input."""
        each = np.eye(len(gradients))[None]
        ends = self.inverse.enclose(gradients[None], each)
        return ends.high[0], (ends.low[0], ends.high[0])
