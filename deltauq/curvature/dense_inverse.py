"""The inverse of a semidefinite curvature plus L2, exact, through the matrix itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.linalg

from deltauq.curvature.eigenpairs import pairs_of_matrix
from deltauq.curvature.exact_inverse import Enclosure, rounding_of_rows
from deltauq.linalg import Eigenpairs, Storage, factor_positive

__all__ = ["DenseInverse"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DenseInverse:
    """The covariance Sigma of the weights in the prior's metric, from A `[P, P]` by Cholesky.

    Eigenpairs of A take twenty times as long, and are formed where something needs them.

    Attributes:
        matrix: A, float64, semidefinite.
        n_examples: N.
        factor: what the L2 rates were multiplied by since A was formed.
    """

    #: Pairs are no faster: an input takes P^2 multiplications for each of its rows either way.
    few_inputs: ClassVar[float] = float("inf")
    #: J in its own precision, and twice in float64.
    copies: ClassVar[int] = 5

    matrix: Array = field(repr=False)
    n_examples: float
    factor: float = 1.0

    @cached_property
    def _root(self) -> Array:
        """L of A + I = L L^T, at the present rates."""
        matrix = self.matrix / self.factor
        matrix[np.diag_indices_from(matrix)] += 1.0
        return factor_positive(matrix)

    @property
    def trace(self) -> float:
        """Trace of the data's curvature A."""
        return float(np.trace(self.matrix)) / self.factor

    @cached_property
    def spectrum(self) -> Array:
        """The eigenvalues of A, descending."""
        values = scipy.linalg.eigvalsh(self.matrix, check_finite=False)[::-1]
        return np.asarray(np.maximum(values, 0.0) / self.factor)

    def at_rates_times(self, factor: float) -> DenseInverse:
        """The inverse at all L2 rates times a factor, of the same matrix."""
        return replace(self, factor=self.factor * factor)

    def enclose(self, jacobians: Array, lefts: Array) -> Enclosure:
        """Form J Sigma J^T as V^T V / N with V = L^-1 J^T, which rounds it by float64 alone."""
        n_inputs, n_rows, n_params = jacobians.shape
        columns = jacobians.reshape(-1, n_params).T.astype(np.float64)
        halves = scipy.linalg.solve_triangular(
            self._root, columns, lower=True, overwrite_b=True, check_finite=False
        )
        halves = halves.T.reshape(n_inputs, n_rows, n_params)
        exact = halves @ np.swapaxes(halves, 1, 2) / self.n_examples
        return Enclosure(exact, exact, rounding_of_rows(jacobians, self.n_examples))

    def solve(self, vector: Array) -> Array:
        """Multiply a vector `[P]` by the inverse of A + I, in float64."""
        return np.asarray(scipy.linalg.cho_solve((self._root, True), vector, check_finite=False))

    def pairs(self, storage: Storage) -> Eigenpairs:
        """All eigenpairs of A, in memory."""
        del storage
        return pairs_of_matrix(self.matrix / self.factor, semidefinite=True)
