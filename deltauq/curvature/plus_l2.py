"""A semidefinite matrix beside what L2 adds to it, as every exact inverse factors it."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy.linalg

from deltauq.errors import NumericalError
from deltauq.linalg import factor_positive

__all__ = ["FactoredInverse", "MatrixPlusL2", "PlusL2", "RootPlusL2"]

Array = npt.NDArray[Any]

#: Rows of a product of L and L^T that are formed at a time.
_BLOCK = 2048


class PlusL2(abc.ABC):
    """A semidefinite matrix and, with L2 added to it, its Cholesky factor.

    S / factor + l2 I = L L^T, S `[m, m]` in float64. In the prior's metric l2 is 1 beside the
    curvature A, and N beside G = R R^T of its rows.

    Args:
        l2: what L2 adds to the diagonal.
        factor: what the L2 rates were multiplied by since S was formed.
    """

    def __init__(self, l2: float, factor: float = 1.0) -> None:
        self.l2 = l2
        self.factor = factor

    @property
    @abc.abstractmethod
    def matrix(self) -> Array:
        """The semidefinite S, at the rates that it was formed at."""

    @property
    @abc.abstractmethod
    def root(self) -> Array:
        """Cholesky's factor L at the present rates; what is above its diagonal is anything."""

    @property
    def unit(self) -> float:
        """What eigenvalues of S are divided by to be those of the curvature."""
        return self.factor * self.l2

    @cached_property
    def trace(self) -> float:
        """Trace of the curvature at the present rates, the sum of its eigenvalues."""
        return float(np.trace(self.matrix)) / self.unit

    def eigenvalues(self, precision: str = "float64") -> Array:
        """The eigenvalues of the curvature that S has, descending, none below zero.

        Args:
            precision: in which they are found.
        """
        matrix = self.matrix.astype(precision, copy=False)
        values = scipy.linalg.eigvalsh(matrix, lower=False, check_finite=False)[::-1]
        return np.maximum(values, 0.0).astype(np.float64) / self.unit

    def at_rates_times(self, factor: float) -> PlusL2:
        """Multiply all L2 rates by a factor."""
        return MatrixPlusL2(self.matrix, self.l2, self.factor * factor)


class MatrixPlusL2(PlusL2):
    """A matrix that is factored when that is needed.

    Args:
        matrix: S.
        l2: as of `PlusL2`.
        factor: likewise.
    """

    def __init__(self, matrix: Array, l2: float, factor: float = 1.0) -> None:
        super().__init__(l2, factor)
        self._matrix = matrix

    @property
    def matrix(self) -> Array:
        """The semidefinite S as it was given."""
        return self._matrix

    @cached_property
    def root(self) -> Array:
        """Cholesky's factor L of the matrix plus L2, formed when it is first asked for.

        Raises:
            NumericalError: the rounding of S is larger than what L2 adds to it.
        """
        matrix = self._matrix / self.factor
        matrix[np.diag_indices_from(matrix)] += self.l2
        try:
            return factor_positive(matrix)
        except np.linalg.LinAlgError as error:
            raise NumericalError(
                "the L2 rate drowns in the rounding of the curvature",
                expected="a curvature that float64 tells from its sum with L2",
                received=f"a trace of {self.trace:.2g} L2 rates, and a sum that is not positive "
                "definite",
                remedy="scale the inputs as for training, raise l2, or pass route='sketch'",
            ) from error


class RootPlusL2(PlusL2):
    """A factor, as a file keeps it, whose matrix is formed when that is needed.

    Args:
        root: L of the present rates, nothing above its diagonal.
        l2: as of `PlusL2`.
    """

    def __init__(self, root: Array, l2: float) -> None:
        super().__init__(l2)
        self._root = root

    @property
    def root(self) -> Array:
        """Cholesky's factor L as it was given."""
        return self._root

    @cached_property
    def matrix(self) -> Array:
        """The semidefinite S = L L^T - l2 I, symmetric to the bit and rounded as L is."""
        size = len(self._root)
        matrix = np.empty((size, size))
        for start in range(0, size, _BLOCK):
            stop = min(start + _BLOCK, size)
            block = self._root[start:stop, :stop] @ self._root[:stop, :stop].T
            matrix[start:stop, :stop] = block
            matrix[:start, start:stop] = block[:, :start].T
        for start in range(0, size, _BLOCK):
            here = slice(start, min(start + _BLOCK, size))
            below = np.tril(matrix[here, here])
            matrix[here, here] = below + np.tril(below, -1).T
        matrix[np.diag_indices_from(matrix)] -= self.l2
        return matrix


@dataclass(frozen=True)
class FactoredInverse:
    """What every exact inverse says of the curvature by its matrix alone.

    Attributes:
        plus_l2: the matrix that is factored.
        n_examples: N.
    """

    plus_l2: PlusL2 = field(repr=False)
    n_examples: float

    @property
    def trace(self) -> float:
        """Trace of the data's curvature A."""
        return self.plus_l2.trace

    @cached_property
    def spectrum(self) -> Array:
        """The eigenvalues of A that the matrix has, descending; all others are zero."""
        return self.plus_l2.eigenvalues()

    def at_rates_times(self, factor: float) -> Self:
        """The inverse at all L2 rates times a factor, of the same matrix."""
        return replace(self, plus_l2=self.plus_l2.at_rates_times(factor))
