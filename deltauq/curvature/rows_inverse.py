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

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.linalg

from deltauq.curvature.exact_inverse import Enclosure, rounding_of_rows
from deltauq.curvature.plus_l2 import FactoredInverse, MatrixPlusL2
from deltauq.curvature.training_rows import TrainingRows
from deltauq.errors import NumericalError
from deltauq.linalg import Eigenpairs, NormBound, Storage, row_products

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

#: How far a factor's products with random signs may be from those of the rows, beside their size:
#: rows of another release of TensorFlow are well within, those of other data or a layer whose code
#: was changed are not.
_ALIKE = 1e-3


@dataclass(frozen=True)
class RowsInverse(FactoredInverse):
    """The covariance Sigma of the weights in the prior's metric, from all rows.

    Attributes:
        plus_l2: G = R R^T `[n, n]` and M.
        n_examples: N.
        rows: R, at the L2 rates that they were formed at.
        precision: of the products that G is made of.
    """

    #: Eigenpairs take as long as predictions of some hundred inputs by rows, and a fiftieth of the
    #: time for each after that.
    few_inputs: ClassVar[float] = 256
    #: J, its part outside the rows in float64, and their products.
    copies: ClassVar[int] = 8

    rows: TrainingRows
    precision: str

    @classmethod
    def of(cls, rows: TrainingRows, n_examples: float, precision: str) -> RowsInverse:
        """Form the Gram matrix of rows by products in a precision, summed in float64."""
        gram = MatrixPlusL2(rows.gram(precision), n_examples)
        return cls(gram, n_examples, rows, precision)

    def in_double(self) -> RowsInverse:
        """Form the Gram matrix again, by products in float64."""
        finer = RowsInverse.of(self.rows, self.n_examples, "float64")
        return finer.at_rates_times(self.plus_l2.factor)

    @property
    def n_params(self) -> int:
        """Number P of uncertain parameters."""
        return self.rows.n_params

    @cached_property
    def spectrum(self) -> Array:
        """The n largest eigenvalues of A, descending; all others are zero."""
        # In float32 they are rounded no more than by its products, and take half of the time.
        return self.plus_l2.eigenvalues(self.precision)

    def is_of_rows(self) -> bool:
        """Whether the factor of M is that of the rows, as products with both say.

        A wrong factor makes bounds wide and never wrong, since both ends of an enclosure are made
        of the rows and hold for any alpha. Here it is told at once, and for all inputs.
        """
        signs = np.random.default_rng(0).integers(0, 2, self.rows.n_rows) * 2.0 - 1.0
        root = self.plus_l2.root
        # L^T in Fortran's order, of which BLAS reads the upper triangle alone.
        half = scipy.linalg.blas.dtrmv(root.T, signs)
        found = scipy.linalg.blas.dtrmv(root.T, half, trans=1)
        image = self._product(self._transposed(signs[:, None]))[:, 0]
        gaps = np.abs(image + self.n_examples * signs - found)
        # An entry of M v is of size sqrt(M_ii trace(M)) at most.
        sizes = np.array([row[: i + 1] @ row[: i + 1] for i, row in enumerate(root)])
        return bool(np.all(gaps <= _ALIKE * np.sqrt(sizes * np.sum(sizes))))

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
        except NumericalError:  # rounding of G outweighs N
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
        alpha = scipy.linalg.cho_solve((self.plus_l2.root, True), b, check_finite=False)
        alpha = alpha.astype(columns.dtype)
        return alpha, columns - self._transposed(alpha)

    def _product(self, columns: Array) -> Array:
        """R V at the present rates."""
        return self.plus_l2.factor**-0.5 * self.rows.product(columns)

    def _transposed(self, coefficients: Array) -> Array:
        """R^T Y at the present rates."""
        return self.plus_l2.factor**-0.5 * self.rows.transposed(coefficients)

    def pairs(self, storage: Storage, theta: float = THETA) -> Eigenpairs:
        """The eigenpairs of A above a share of the L2 rate.

        Args:
            storage: where vectors of length P live.
            theta: eigenvalues up to this, in units of L2, are left out: that makes standard errors
                too large by sqrt(1 + theta) at most.
        """
        if self.precision != "float64" and not self.rounding <= _TOLD * theta:
            return self.in_double().pairs(storage, theta)
        unit = self.plus_l2.unit
        values, v = np.linalg.eigh(self.plus_l2.matrix)
        values, v = values[::-1] / unit, v[:, ::-1]
        count = max(1, int(np.count_nonzero(values > theta)))
        dtype = self.rows.dtype
        vectors = storage.empty((self.n_params, count), dtype)
        # G = V S V^T, and U = R^T V S^-1/2. In float64: small eigenvalues are small sums of large
        # terms.
        for start in range(0, count, _COLUMNS):
            some = slice(start, min(start + _COLUMNS, count))
            lengths = np.sqrt(np.where(values[some] > 0, values[some], 1.0) * unit)
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
