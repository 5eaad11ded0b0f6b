"""The inverse of a semidefinite curvature plus L2, exact, through the Gram matrix of its rows.

A = R^T R / N has the rank n of its rows at most, and in the prior's metric

    Sigma = (1/N) (A + I)^-1 = (1/N) (I - R^T M^-1 R)    with    M = R R^T + N I  [n, n].

For a row j of a Jacobian, b = R j, alpha = M^-1 b and x = j - R^T alpha, its variance j Sigma j^T
is (|x|^2 + N |alpha|^2) / N at the minimum over alpha, so that this is an upper bound for any
alpha, and (x . j)^2 / (|R x|^2 + N |x|^2) at the maximum over x, so that this is a lower bound for
any x: whatever rounding did to M, the two enclose the variance of the rows. The difference
(|j|^2 - b^T alpha) / N is the same on paper and cancels near the training data.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.linalg

from deltauq.curvature.exact_inverse import Enclosure, rounding_of_rows
from deltauq.curvature.training_rows import TrainingRows
from deltauq.linalg import Eigenpairs, NormBound, Storage, factor_positive, row_products

__all__ = ["THETA", "RowsInverse"]

Array = npt.NDArray[Any]

#: Eigenvalues up to this share of the L2 rate are left out of pairs: standard errors are then too
#: large by 0.1 % at most, sqrt(1 + theta).
THETA = 2e-3

#: Share of the largest eigenvalue up to which one of the rows' own products is rounding: leaving
#: it out leaves a lower bound.
_SINGULAR = 1e-13

#: Rounding of eigenvalues, as a share of the smallest that is kept, up to which they are pairs.
_TOLD = 0.01

#: Columns of U that are formed at a time.
_COLUMNS = 512


@dataclass(frozen=True)
class RowsInverse:
    """The covariance Sigma of the weights in the prior's metric, from all rows.

    Attributes:
        rows: R, at the L2 rates that they were formed at.
        gram: G = R R^T `[n, n]`, float64.
        n_examples: N.
        precision: of the products that G is made of.
        factor: what the L2 rates were multiplied by since.
    """

    #: Eigenpairs take as long as predictions of some hundred inputs by rows, and a fiftieth of the
    #: time for each after that.
    few_inputs: ClassVar[float] = 256
    #: J, its part outside the rows in float64, and their products.
    copies: ClassVar[int] = 8

    rows: TrainingRows
    gram: Array = field(repr=False)
    n_examples: float
    precision: str
    factor: float = 1.0

    @classmethod
    def of(cls, rows: TrainingRows, n_examples: float, precision: str) -> RowsInverse:
        """Form the Gram matrix of rows by products in a precision, summed in float64."""
        return cls(rows, rows.gram(precision), n_examples, precision)

    def at_rates_times(self, factor: float) -> RowsInverse:
        """The inverse at all L2 rates times a factor, of the same rows."""
        return replace(self, factor=self.factor * factor)

    def in_double(self) -> RowsInverse:
        """Form the Gram matrix again, by products in float64."""
        finer = RowsInverse.of(self.rows, self.n_examples, "float64")
        return finer.at_rates_times(self.factor)

    @property
    def n_params(self) -> int:
        """Number P of uncertain parameters."""
        return self.rows.n_params

    @property
    def _unit(self) -> float:
        """What eigenvalues of G are divided by to be those of A."""
        return self.factor * self.n_examples

    @cached_property
    def _root(self) -> Array:
        """L of M = G + N I = L L^T, at the present rates."""
        matrix = self.gram / self.factor
        matrix[np.diag_indices_from(matrix)] += self.n_examples
        return factor_positive(matrix)

    @cached_property
    def trace(self) -> float:
        """Trace of the data's curvature A."""
        return float(np.trace(self.gram)) / self._unit

    @cached_property
    def spectrum(self) -> Array:
        """The n largest eigenvalues of A, descending; all others are zero."""
        # In float32 they are rounded no more than by its products, and take half of the time.
        gram = self.gram.astype(self.precision)
        values = scipy.linalg.eigvalsh(gram, lower=False, check_finite=False)[::-1]
        return np.maximum(values, 0.0).astype(np.float64) / self._unit

    @property
    def rounding(self) -> float:
        """What the rounding of G's products may move eigenvalues of A by."""
        # Errors of the entries are independent, of size eps |r_i| |r_j|: a matrix of norm
        # 2 sqrt(n) times that, where trace(G) / n is the mean of |r|^2.
        epsilon = float(np.finfo(self.precision).eps)
        return 8.0 * epsilon * self.trace / np.sqrt(self.rows.n_rows)

    def solve(self, vector: Array) -> Array:
        """Multiply a vector `[P]` by the inverse of A + I, in float64."""
        return self._outside(vector[:, None].astype(np.float64))[1][:, 0]

    def enclose(self, jacobians: Array, lefts: Array) -> Enclosure:
        """Enclose J Sigma J^T for the rows J of some inputs.

        Where float32 does not tell enough, products are made once more in float64.

        Args:
            jacobians: J `[B, R, P]` in the prior's metric, in the network's precision.
            lefts: combinations of rows whose variances must be told, `[B, L, R]`.
        """
        found = self._enclose(jacobians, self.precision)
        wide = ~found.is_exact(lefts)
        if np.any(wide) and self.precision != "float64":
            finer = self._enclose(jacobians[wide], "float64")
            for part, better in zip(found[:2], finer[:2], strict=True):
                part[wide] = better
        return found

    def tells(self, jacobians: Array, lefts: Array) -> bool:
        """Whether G as it is tells the variances of some rows, if need be by products in float64.

        Args:
            jacobians: as for `enclose`.
            lefts: likewise.
        """
        try:
            return bool(np.all(self.enclose(jacobians, lefts).is_exact(lefts)))
        except np.linalg.LinAlgError:  # rounding of G outweighs N
            return False

    def _enclose(self, jacobians: Array, precision: str) -> Enclosure:
        n_inputs, n_rows, n_params = jacobians.shape
        columns = jacobians.reshape(-1, n_params).T.astype(precision)
        found = self._outside(columns)
        x = found[1].astype(precision)
        image, alpha, x, rows = (
            np.ascontiguousarray(part.T).reshape(n_inputs, n_rows, -1)
            for part in (self._product(x), found[0], x, columns)
        )
        squares = self.n_examples * row_products(x, x)
        high = squares / self.n_examples**2 + row_products(alpha, alpha)
        squares += row_products(image, image)
        ends = zip(row_products(rows, x), squares, strict=True)
        low = np.stack([_largest_quotient(*each) for each in ends])
        return Enclosure(low, high, rounding_of_rows(jacobians, self.n_examples))

    def _outside(self, columns: Array) -> tuple[Array, Array]:
        """Solve for alpha `[n, m]` of columns J^T `[P, m]`, and x = J^T - R^T alpha."""
        b = self._product(columns)
        alpha = scipy.linalg.cho_solve((self._root, True), b, check_finite=False)
        alpha = alpha.astype(columns.dtype)
        return alpha, columns - self.factor**-0.5 * self.rows.transposed(alpha)

    def _product(self, columns: Array) -> Array:
        """R V at the present rates."""
        return self.factor**-0.5 * self.rows.product(columns)

    def pairs(self, storage: Storage, theta: float = THETA) -> Eigenpairs:
        """The eigenpairs of A above a share of the L2 rate.

        Args:
            storage: where vectors of length P live.
            theta: eigenvalues up to this, in units of L2, are left out: that makes standard errors
                too large by sqrt(1 + theta) at most.
        """
        if self.precision != "float64" and not self.rounding <= _TOLD * theta:
            return self.in_double().pairs(storage, theta)
        values, v = np.linalg.eigh(self.gram)
        values, v = values[::-1] / self._unit, v[:, ::-1]
        count = max(1, int(np.count_nonzero(values > theta)))
        dtype = self.rows.dtype
        vectors = storage.empty((self.n_params, count), dtype)
        # G = V S V^T, and U = R^T V S^-1/2. In float64: small eigenvalues are small sums of large
        # terms.
        for start in range(0, count, _COLUMNS):
            some = slice(start, min(start + _COLUMNS, count))
            lengths = np.sqrt(np.where(values[some] > 0, values[some], 1.0) * self._unit)
            vectors[:, some] = self.rows.transposed(v[:, some] / lengths)
        beyond = float(values[count]) if count < len(values) else 0.0
        rounding = self.rounding
        return Eigenpairs(
            values=values[:count].copy(),
            vectors=vectors,
            residual_norms=np.full(count, rounding),
            trace=self.trace,
            smallest=None,
            products=0,
            converged=True,
            left_out=NormBound(max(0.0, beyond) + rounding, max(0.0, beyond), 0.0, 0),
        )


def _largest_quotient(products: Array, squares: Array) -> Array:
    """J X (X^T H X)^-1 X^T J^T from J X and X^T H X, which may be singular, `[R, R]`."""
    lengths = np.sqrt(np.diag(squares))
    lengths = np.where(lengths > 0, lengths, 1.0)
    values, vectors = np.linalg.eigh(squares / lengths[:, None] / lengths)
    kept = values > _SINGULAR * values[-1]
    half = (products / lengths) @ (vectors[:, kept] / np.sqrt(values[kept]))
    return np.asarray(half @ half.T)
