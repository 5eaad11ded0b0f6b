"""The inverse of a semidefinite curvature plus L2, exact, through the matrix itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.linalg

from deltauq.curvature.eigenpairs import pairs_of_matrix
from deltauq.curvature.exact_inverse import Enclosure, rounding_of_rows
from deltauq.curvature.plus_l2 import FactoredInverse, MatrixPlusL2
from deltauq.linalg import Eigenpairs, Storage

__all__ = ["DenseInverse"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DenseInverse(FactoredInverse):
    """The covariance Sigma of the weights in the prior's metric, from A `[P, P]` by Cholesky.

    Eigenpairs of A take twenty times as long, and are formed where something needs them.

    Attributes:
        plus_l2: A and A + I.
        n_examples: N.
    """

    #: Pairs are no faster: an input takes P^2 multiplications for each of its rows either way.
    few_inputs: ClassVar[float] = float("inf")
    #: J in its own precision, and twice in float64.
    copies: ClassVar[int] = 5

    @classmethod
    def of(cls, matrix: Array, n_examples: float) -> DenseInverse:
        """Invert a semidefinite A `[P, P]` plus L2, in float64."""
        return cls(MatrixPlusL2(matrix, 1.0), n_examples)

    def enclose(self, jacobians: Array, lefts: Array) -> Enclosure:
        """Form J Sigma J^T as V^T V / N with V = L^-1 J^T, which rounds it by float64 alone."""
        n_inputs, n_rows, n_params = jacobians.shape
        columns = jacobians.reshape(-1, n_params).T.astype(np.float64)
        halves = scipy.linalg.solve_triangular(
            self.plus_l2.root, columns, lower=True, overwrite_b=True, check_finite=False
        )
        halves = halves.T.reshape(n_inputs, n_rows, n_params)
        exact = halves @ np.swapaxes(halves, 1, 2) / self.n_examples
        return Enclosure(exact, exact, rounding_of_rows(jacobians, self.n_examples))

    def solve(self, vector: Array) -> Array:
        """Multiply a vector `[P]` by the inverse of A + I, in float64."""
        return np.asarray(
            scipy.linalg.cho_solve((self.plus_l2.root, True), vector, check_finite=False)
        )

    def pairs(self, storage: Storage) -> Eigenpairs:
        """All eigenpairs of A, in memory."""
        del storage
        return pairs_of_matrix(self.plus_l2.matrix / self.plus_l2.factor, semidefinite=True)
