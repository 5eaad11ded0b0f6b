"""The rows of one variable in the form in which they are cheapest: formed, or as their factors.

A row is c^T dz/dw for one example and one cotangent c. A trace of the network describes the rows
of a batch as named tuples of tensors; the methods work on the arrays that come out of it, because
BLAS multiplies many small matrices several times faster than TensorFlow on a processor.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.runtime.threads import side_by_side

__all__ = [
    "Convolved",
    "Factor",
    "OuterProducts",
    "Rows",
    "Scaled",
    "Total",
    "Workspace",
    "assemble",
    "evaluated",
    "outer_products",
    "stacked",
]

Array = npt.NDArray[Any]


class Workspace:
    """Memory for rows, used again and again: fresh memory of that size costs as much as the rows.

    Args:
        dtype: of the rows.
    """

    def __init__(self, dtype: Any) -> None:
        self._memory = np.empty(0, dtype)

    def take(self, *shape: int) -> Array:
        """An array whose values are not set; it holds until the next call."""
        size = int(np.prod(shape))
        if size > len(self._memory):
            self._memory = np.empty(size, self._memory.dtype)
        return self._memory[:size].reshape(shape)


class Factor(Protocol):
    """Rows `[B, R, size]` of one variable in whatever form: B examples, R cotangents each."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the rows that the factor stands for, (B, R, size)."""

    def rows(self, out: Array) -> None:
        """Write the rows into an array `[B, R, size]`, which may be a part of a wider one."""

    def beside(self, others: Sequence[Self]) -> Self:
        """Join the rows of several factors that are made of the same data, one after the other."""

    def contract(self, vectors: Array, workspace: Workspace) -> tuple[Array, Array]:
        """Multiply rows by V `[size, K]`, and with the rows of the same example.

        Returns:
            `[B, R, K]` and `[B, R, R]`.
        """


def evaluated(factors: Sequence[Factor]) -> list[Factor]:
    """Factors that a compiled function returned, with arrays for tensors; nothing is copied."""
    return list(tf.nest.map_structure(np.asarray, factors))


def assemble(factors: Sequence[Factor], out: Array) -> None:
    """Write the rows of all variables side by side into an array `[B, R, P]`."""
    stops = np.cumsum([factor.shape[2] for factor in factors])
    parts = np.split(out, stops[:-1], axis=2)
    side_by_side(lambda factor, part: factor.rows(part), factors, parts)


def stacked(factors: Sequence[Factor]) -> Array:
    """The rows of all variables side by side, `[B, R, P]`, in the network's precision."""
    n_examples, n_rows, _ = factors[0].shape
    dtype = tf.nest.flatten(factors)[0].dtype
    rows = np.empty((n_examples, n_rows, sum(factor.shape[2] for factor in factors)), dtype)
    assemble(factors, rows)
    return rows


class Rows(NamedTuple):
    """Rows of one variable that were formed in full.

    Attributes:
        formed: R arrays `[B, ...]`.
    """

    formed: Sequence[Array]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the rows, (B, R, size)."""
        first = self.formed[0]
        return len(first), len(self.formed), int(np.prod(first.shape[1:]))

    def rows(self, out: Array) -> None:
        """Copy the rows into an array `[B, R, size]`."""
        for r, row in enumerate(self.formed):
            out[:, r] = row.reshape(len(row), -1)

    def beside(self, others: Sequence[Self]) -> Self:
        """Join the rows of several factors, one after the other."""
        return self._replace(formed=_chained(self.formed, (other.formed for other in others)))

    def contract(self, vectors: Array, workspace: Workspace) -> tuple[Array, Array]:
        """Multiply by one product for the whole batch, and a small one for each example."""
        return _contract_rows(self, vectors, workspace)


class OuterProducts(NamedTuple):
    """Rows of a variable of shape `[I, O]` as outer products, row r being sum_t a_t (x) delta_rt.

    Attributes:
        a: `[B, T, I]`; T positions share the variable (pixels of a convolution, steps).
        deltas: R arrays `[B, T, O]`.
    """

    a: Array
    deltas: Sequence[Array]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the rows that the products stand for, (B, R, I O)."""
        return len(self.a), len(self.deltas), self.a.shape[2] * self.deltas[0].shape[2]

    def rows(self, out: Array) -> None:
        """Form the rows by a small product an example, or a multiplication at one position."""
        n_inputs, n_outputs = self.a.shape[2], self.deltas[0].shape[2]
        multiply = np.multiply if self.a.shape[1] == 1 else np.matmul
        for r, delta in enumerate(self.deltas):
            row = np.reshape(out[:, r], (-1, n_inputs, n_outputs), copy=False)
            multiply(np.swapaxes(self.a, 1, 2), delta, out=row)

    def beside(self, others: Sequence[Self]) -> Self:
        """Join the deltas of several factors, which share their one a."""
        return self._replace(deltas=_chained(self.deltas, (other.deltas for other in others)))

    def contract(self, vectors: Array, workspace: Workspace) -> tuple[Array, Array]:
        """Multiply the factors where there are few positions, otherwise the rows.

        Multiplications for K columns: T I O K + R T O K against R I O K, of which the second term
        is small where I is large (the factored form is bound by memory, so it has to save half of
        them); and T^2 (I + R^2 O) against R^2 I O.
        """
        n_rows, positions = len(self.deltas), self.a.shape[1]
        n_inputs, n_outputs = self.a.shape[2], self.deltas[0].shape[2]
        along = self._times(vectors, workspace) if self.saves_products else None
        gram = None
        if positions**2 * (n_inputs + n_rows**2 * n_outputs) < n_rows**2 * n_inputs * n_outputs:
            gram = self._gram()
        if along is None or gram is None:
            rows = _formed(self, workspace)
            along = _times(rows, vectors) if along is None else along
            gram = _gram(rows) if gram is None else gram
        return along, gram

    @property
    def saves_products(self) -> bool:
        """Whether products of the rows with vectors take much less work by the factors."""
        return 2 * self.a.shape[1] <= len(self.deltas)

    def _times(self, vectors: Array, workspace: Workspace) -> Array:
        """Sum_t delta_rt^T (a_t^T V), as many examples at a time as take the memory of the rows."""
        n_examples, positions, n_inputs = self.a.shape
        delta = np.stack([delta.reshape(n_examples, -1) for delta in self.deltas], axis=1)
        n_rows, count = delta.shape[1], vectors.shape[1]
        wide = vectors.reshape(n_inputs, -1)
        result = np.empty((n_examples, n_rows, count), vectors.dtype)
        step = max(1, n_examples * n_rows * n_inputs // (positions * count))
        for start in range(0, n_examples, step):
            some = slice(start, start + step)
            a = self.a[some].reshape(-1, n_inputs)
            image = np.matmul(a, wide, out=workspace.take(len(a), wide.shape[1]))
            np.matmul(delta[some], image.reshape(-1, delta.shape[2], count), out=result[some])
        return result

    def _gram(self) -> Array:
        """Sum_ts (a_t . a_s) (delta_rt . delta_qs)."""
        n_rows, positions = len(self.deltas), self.a.shape[1]
        delta_delta = _gram(np.concatenate(self.deltas, axis=1))
        delta_delta = delta_delta.reshape(-1, n_rows, positions, n_rows, positions)
        return np.asarray(np.einsum("nrtqs,nts->nrq", delta_delta, _gram(self.a)))


class Convolved(NamedTuple):
    """Rows of a convolution's kernel `[window ..., I, O]`, row r being sum_t patch_t (x) delta_rt.

    Attributes:
        images: `[B, space ..., I]`.
        deltas: R arrays `[B, positions ..., O]`.
        layout: window, strides and dilations of each axis of space, `[3, axes]`.
    """

    images: Array
    deltas: Sequence[Array]
    layout: Array

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the rows that the images and deltas stand for, (B, R, size)."""
        entries = int(np.prod(self.layout[0])) * self.images.shape[-1] * self.deltas[0].shape[-1]
        return len(self.images), len(self.deltas), entries

    def rows(self, out: Array) -> None:
        """Form the rows as those of outer products of patches and deltas."""
        self._products().rows(out)

    def beside(self, others: Sequence[Self]) -> Self:
        """Join the deltas of several factors, which share their images."""
        return self._replace(deltas=_chained(self.deltas, (other.deltas for other in others)))

    def contract(self, vectors: Array, workspace: Workspace) -> tuple[Array, Array]:
        """Multiply as the outer products of patches and deltas do."""
        return self._products().contract(vectors, workspace)

    def _products(self) -> OuterProducts:
        """Outer products of the images' patches with the deltas."""
        n_examples, *grid, n_outputs = self.deltas[0].shape
        patches = _patches(self.images, grid, *self.layout)
        deltas = [delta.reshape(n_examples, -1, n_outputs) for delta in self.deltas]
        return OuterProducts(patches, deltas)


def _patches(
    images: Array, grid: Sequence[int], window: Array, strides: Array, dilations: Array
) -> Array:
    """What a kernel sees at each place of the grid, `[B, T, window * I]`, zero outside the images.

    TensorFlow's operation for it takes five to ten times as long on a processor.
    """
    space, axes = images.shape[1:-1], range(1, images.ndim - 1)
    extent = (window - 1) * dilations + 1
    covered = (np.asarray(grid) - 1) * strides
    missing = np.maximum(covered + extent - space, 0)
    before = missing // 2
    if np.any(missing):
        margins = zip(before, missing - before, strict=True)
        images = np.pad(images, [(0, 0), *margins, (0, 0)])
    seen = np.lib.stride_tricks.sliding_window_view(images, tuple(extent), tuple(axes))
    placed = (slice(0, last + 1, step) for last, step in zip(covered, strides, strict=True))
    dilated = (slice(None, None, step) for step in dilations)
    seen = np.moveaxis(seen[:, *placed, :, *dilated], len(space) + 1, -1)
    return seen.reshape(len(images), int(np.prod(grid)), -1)


class Scaled(NamedTuple):
    """Rows times one number for each entry of the variable: D of a function applied to it before.

    Attributes:
        factor: the rows.
        slope: `[size]`.
    """

    factor: Factor
    slope: Array

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the rows, (B, R, size)."""
        return self.factor.shape

    def rows(self, out: Array) -> None:
        """Form the rows of the factor, and multiply them by the slope."""
        self.factor.rows(out)
        out *= self.slope

    def beside(self, others: Sequence[Self]) -> Self:
        """Join the rows of several factors, which share their one slope."""
        return self._replace(factor=self.factor.beside([other.factor for other in others]))

    def contract(self, vectors: Array, workspace: Workspace) -> tuple[Array, Array]:
        """Multiply the rows, which are formed first."""
        return _contract_rows(self, vectors, workspace)


class Total(NamedTuple):
    """The sum of several factors of one variable: a shared layer, read more than once.

    Attributes:
        parts: at least one.
    """

    parts: Sequence[Factor]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the rows, (B, R, size)."""
        return self.parts[0].shape

    def rows(self, out: Array) -> None:
        """Form the rows of every part and add them up."""
        first, *others = self.parts
        first.rows(out)
        if others:
            more = np.empty(out.shape, out.dtype)
            for part in others:
                part.rows(more)
                out += more

    def beside(self, others: Sequence[Self]) -> Self:
        """Join the rows of several totals, part by part."""
        return self._replace(
            parts=[
                part.beside([other.parts[k] for other in others])
                for k, part in enumerate(self.parts)
            ]
        )

    def contract(self, vectors: Array, workspace: Workspace) -> tuple[Array, Array]:
        """Multiply the rows where parts are several: their inner products have cross terms."""
        if len(self.parts) == 1:
            return self.parts[0].contract(vectors, workspace)
        return _contract_rows(self, vectors, workspace)


def outer_products(factor: Factor) -> OuterProducts | None:
    """The rows as outer products, where they are the sum of one kind of them; None elsewhere."""
    if isinstance(factor, Total) and len(factor.parts) == 1:
        factor = factor.parts[0]
    return factor if isinstance(factor, OuterProducts) else None


def _chained(first: Sequence[Array], others: Iterable[Sequence[Array]]) -> list[Array]:
    """Columns of some factors, one after the other."""
    return list(itertools.chain(first, *others))


def _contract_rows(factor: Factor, vectors: Array, workspace: Workspace) -> tuple[Array, Array]:
    """What `Factor.contract` gives, from the rows in full."""
    rows = _formed(factor, workspace)
    return _times(rows, vectors), _gram(rows)


def _formed(factor: Factor, workspace: Workspace) -> Array:
    """The rows of a factor `[B, R, size]` in the memory of the workspace."""
    rows = workspace.take(*factor.shape)
    factor.rows(rows)
    return rows


def _times(rows: Array, vectors: Array) -> Array:
    n_examples, n_rows, size = rows.shape
    return np.asarray((rows.reshape(-1, size) @ vectors).reshape(n_examples, n_rows, -1))


def _gram(rows: Array) -> Array:
    return np.asarray(rows @ np.swapaxes(rows, 1, 2))
