"""The covariance of the weights from all of a curvature: what every exact route gives."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from deltauq.linalg import Eigenpairs, Storage

__all__ = ["Enclosure", "ExactInverse", "rounding_of_rows"]

Array = npt.NDArray[Any]

#: Relative width of a standard error up to which an enclosure is believed to be exact.
EXACT = 1e-4

#: Machine epsilons of a row's length by which what a sum of rows leaves of it may be wrong.
_ROW_EPSILONS = 4.0


class Enclosure(NamedTuple):
    """Matrices between which J Sigma J^T of some inputs' rows J lies, in the semidefinite order.

    Attributes:
        low: `[B, R, R]`.
        high: likewise. The nearer one by far: rounding enters it squared, and the lower one beside
            the largest curvature.
        slack: what rounding may do to the standard error of each row `[B, R]`; to that of a
            combination of rows it does the same combination at most.
    """

    low: Array
    high: Array
    slack: Array

    def is_exact(self, lefts: Array) -> Array:
        """Whether both agree on the variance of every combination of rows, `[B]`.

        Believed only if they do: one that is far above the other, or below it, is a failure, and so
        is NaN.

        Args:
            lefts: combinations `[B, L, R]`.
        """
        low, high = (
            np.einsum("blr,brs,bls->bl", lefts, end, lefts, optimize=True)
            for end in (self.low, self.high)
        )
        return np.asarray(np.all(np.abs(high - low) <= 2 * EXACT * high, axis=1))


def rounding_of_rows(jacobians: Array, n_examples: float) -> Array:
    """What the rounding of rows may do to standard errors, `[B, R]`.

    A row j that is wrong by dj moves its standard error by |x| |dj| / (N std) at most, x what the
    data leave of it, and |x| <= sqrt(N) std.

    Args:
        jacobians: J `[B, R, P]` in the prior's metric.
        n_examples: N.
    """
    epsilon = float(np.finfo(jacobians.dtype).eps)
    lengths = np.sqrt(np.vecdot(jacobians, jacobians).astype(np.float64))
    return np.asarray(_ROW_EPSILONS * epsilon * lengths / n_examples**0.5)


class ExactInverse(Protocol):
    """The covariance Sigma = (1/N) (A + I)^-1 in the prior's metric, with nothing of A left out.

    Attributes:
        few_inputs: up to which it is asked itself; beyond, its eigenpairs are faster.
        copies: how often the rows of a batch of inputs are in memory at a time.
    """

    few_inputs: ClassVar[float]
    copies: ClassVar[int]

    @property
    def n_examples(self) -> float:
        """Number N of training examples."""

    @property
    def trace(self) -> float:
        """Trace of the data's curvature A."""

    @property
    def spectrum(self) -> Array:
        """Eigenvalues of A, descending; those that are not there are zero."""

    def at_rates_times(self, factor: float) -> Self:
        """The inverse at all L2 rates times a factor."""

    def enclose(self, jacobians: Array, lefts: Array) -> Enclosure:
        """Enclose J Sigma J^T for the rows J `[B, R, P]` of some inputs.

        Args:
            jacobians: J in the prior's metric, in the network's precision.
            lefts: combinations of rows whose variances must be told, `[B, L, R]`.
        """

    def solve(self, vector: Array) -> Array:
        """Multiply a vector `[P]` by the inverse of A + I, in float64."""

    def pairs(self, storage: Storage) -> Eigenpairs:
        """Eigenpairs of A, but for those that no standard error shows."""
