"""A matrix beside the low-rank part of it that is known, as quadrature of its inverse sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.linalg.orthogonal import combine, inner_products, split
from deltauq.linalg.quadrature import Krylov, gauss_radau

__all__ = ["MOST_ROUNDING", "Whitening"]

Array = npt.NDArray[Any]

#: Rounding, in units of the L2 rate, up to which the spectrum has a lower end that is worth using.
MOST_ROUNDING = 0.5


class Whitening:
    """Multiplies A / u + I from both sides by the inverse root of what is known of it.

    T = M^-1/2 (A / u + I) M^-1/2 with M = A^ / u + I, where A^ = U diag(mu) U^T is below A. The
    spectrum of T is above one, and mostly close to it. So a few steps of Lanczos from the rows
    X M^-1/2 enclose X (A / u + I)^-1 X^T from both sides, without a bound on what A^ leaves out and
    without any chance: Gauss' rule from below, Gauss-Radau's with a node at one from above.

    Args:
        vectors: U `[P, K]`, orthonormal.
        values: mu `[K]`, negative ones taken for zero.
        rounding: relative, of a product with A.
        unit: u, the L2 rate.

    Attributes:
        vectors: U.
        values: mu / u.
        rounding: how far rounding can bring eigenvalues of T under one.
    """

    def __init__(self, vectors: Array, values: Array, rounding: float, unit: float = 1.0) -> None:
        self.vectors = vectors
        self.values = np.maximum(values, 0.0) / unit
        largest = float(np.max(self.values, initial=0.0))
        self.rounding = rounding + float(np.finfo(vectors.dtype).eps) * largest
        self._unit = unit
        # M^-1/2 = I + U diag((1 + mu)^-1/2 - 1) U^T: one outside U, where nothing is subtracted.
        self._change = 1.0 / np.sqrt(1.0 + self.values) - 1.0

    @property
    def is_seen(self) -> bool:
        """Whether rounding leaves the spectrum of T a lower end that is worth using."""
        return self.rounding <= MOST_ROUNDING

    def __call__(self, columns: Array) -> Array:
        """Multiply columns `[P, m]` by M^-1/2."""
        inside = inner_products(self.vectors, columns)
        return columns + combine(self.vectors, self._change[:, None] * inside)

    def image(self, inner: Array, product: Array) -> Array:
        """Give T V from M^-1/2 V and its product with A."""
        return self(product.astype(inner.dtype, copy=False) / self._unit + inner)

    def times(self, matmat: Callable[[Array], Array]) -> Callable[[Array], Array]:
        """Products with T, from products with A."""

        def product(columns: Array) -> Array:
            inner = self(columns)
            return self.image(inner, matmat(inner))

        return product

    def bounds(self, krylov: Krylov) -> tuple[Array, Array]:
        """Enclose X T^-1 X^T, `[b, C, C]` each, by both rules."""
        return gauss_radau(krylov, node=1.0 - self.rounding)

    def parts(self, columns: Array) -> tuple[Array, Array]:
        """What M makes of the forms of some columns `[P, m]`: along U, and outside, `[m]` each."""
        columns = np.ascontiguousarray(columns, self.vectors.dtype)
        along, outside = split(self.vectors, columns, rounds=1)  # their lengths are all that counts
        inside = np.sum(along**2 / (1.0 + self.values[:, None]), axis=0)
        return inside, np.einsum("pm,pm->m", outside, outside, dtype=np.float64)
