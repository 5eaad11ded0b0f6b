"""The rows of some parameters and examples, as products with them are fastest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["FormedRows", "HeldFactors", "HeldRows", "slices"]

Array = npt.NDArray[Any]

#: Columns of rows that are multiplied at a time, and terms of a sum over rows: sums of more are
#: added up in float64. One float32 product over all of 42,000 columns is 20 times less exact.
_COLUMNS, _TERMS = 8192, 4096

#: Rows that are brought to another precision at a time: more would be fresh memory every time,
#: which takes three times as long.
_CONVERTED = 512

#: Rows and columns of a block of G: large enough for products near the processor's peak.
_BLOCK = 2048

#: Numbers of a block of intermediate products of factors.
_NUMBERS = 2**23


class HeldRows(Protocol):
    """Rows `[n, size]` of some of the parameters, of all training examples or of a batch."""

    def add_gram(self, total: Array, dtype: Any, here: slice) -> None:
        """Add some rows of R R^T to those of a float64 `[n, n]`, products in a precision.

        The rows are all those of some examples; columns after the last of them are left out.
        """

    def add_product(self, columns: Array, total: Array) -> None:
        """Add R V to a total `[n, m]`, V `[P, m]` of all parameters, in V's precision."""

    def add_transposed(self, coefficients: Array, total: Array) -> None:
        """Add R^T Y to the part of these parameters, `[P, m]`, in the precision of Y `[n, m]`."""

    def squares(self) -> float:
        """Sum of the squares of all entries."""

    @property
    def n_bytes(self) -> int:
        """Bytes of memory that the rows take in the form in which they are held."""


class FormedRows(NamedTuple):
    """Rows that were formed, of variables side by side.

    Attributes:
        matrix: `[n, size]`.
        places: of the variables among all parameters, in the order of the columns.
    """

    matrix: Array
    places: Sequence[slice]

    def add_gram(self, total: Array, dtype: Any, here: slice) -> None:
        """Add products of blocks of rows, summed over blocks of columns in float64."""
        wider = np.dtype(dtype).itemsize // self.matrix.itemsize
        for columns in slices(self.matrix.shape[1], _COLUMNS // wider):
            block = self.matrix[: here.stop, columns].astype(dtype, copy=False)
            for there in slices(here.stop, _BLOCK):
                total[here, there] += block[here] @ block[there].T

    def add_product(self, columns: Array, total: Array) -> None:
        """Add products with blocks of columns."""
        parts = [columns[place] for place in self.places]
        chosen = parts[0] if len(parts) == 1 else np.concatenate(parts)
        for some in slices(self.matrix.shape[1], _COLUMNS):
            for rows in slices(len(total), self._terms(columns)):
                block = self.matrix[rows, some].astype(columns.dtype, copy=False)
                total[rows] += block @ chosen[some]

    def add_transposed(self, coefficients: Array, total: Array) -> None:
        """Add products with blocks of rows."""
        start = 0
        for place in self.places:
            for some in slices(place.stop - place.start, _COLUMNS):
                here = total[place.start + some.start : place.start + some.stop]
                for rows in slices(len(coefficients), self._terms(coefficients)):
                    block = self.matrix[rows, start + some.start : start + some.stop]
                    here += block.T.astype(coefficients.dtype, copy=False) @ coefficients[rows]
            start += place.stop - place.start

    def squares(self) -> float:
        """Add up the squares of the rows one by one, those sums in float64."""
        return float(np.vecdot(self.matrix, self.matrix).sum(dtype=np.float64))

    @property
    def n_bytes(self) -> int:
        """Bytes of memory that the matrix takes."""
        return self.matrix.nbytes

    def _terms(self, factor: Array) -> int:
        return _TERMS if factor.dtype == self.matrix.dtype else _CONVERTED


class HeldFactors(NamedTuple):
    """Rows of a variable `[I, O]` as their factors, row r of an example sum_t a_t (x) delta_rt.

    Attributes:
        a: `[N, T, I]`.
        delta: `[N, R, T, O]`.
        place: of the variable among all parameters.
    """

    a: Array
    delta: Array
    place: slice

    def add_gram(self, total: Array, dtype: Any, here: slice) -> None:
        """Add sum_ts (a_t . a'_s) (delta_t . delta'_s) for blocks of examples."""
        _, n_rows, positions, _ = self.delta.shape
        step = max(1, min(_BLOCK // n_rows, int(_NUMBERS**0.5) // (n_rows * positions)))
        for some in slices((here.stop - here.start) // n_rows, step):
            first = here.start // n_rows
            mine = slice(first + some.start, first + some.stop)
            a, delta = self._flat(mine, dtype)
            for there in slices(mine.stop, step):
                b, eta = self._flat(there, dtype)
                of_data = (a @ b.T).reshape(-1, positions, len(b) // positions, positions)
                of_cotangents = (delta @ eta.T).reshape(
                    of_data.shape[0], n_rows, positions, of_data.shape[2], n_rows, positions
                )
                if positions == 1:
                    block = of_cotangents[:, :, 0, :, :, 0]
                    block *= of_data[:, None, 0, :, None, 0]
                else:
                    block = np.einsum("itjs,irtjqs->irjq", of_data, of_cotangents)
                place = (_times(mine, n_rows), _times(there, n_rows))
                total[place] += block.reshape(block.shape[0] * n_rows, -1)

    def _flat(self, some: slice, dtype: Any, outputs: slice = slice(None)) -> tuple[Array, Array]:
        """The factors of some examples, `[B T, I]` and `[B R T, O]`, of some outputs."""
        a, delta = self.a[some], self.delta[some, :, :, outputs]
        flat = (a.reshape(-1, a.shape[-1]), delta.reshape(-1, delta.shape[-1]))
        return flat[0].astype(dtype, copy=False), flat[1].astype(dtype, copy=False)

    def add_product(self, columns: Array, total: Array) -> None:
        """Add sum_t delta_rt^T (a_t^T V), some examples at a time."""
        n_inputs, n_rows = self.a.shape[2], self.delta.shape[1]
        width = columns.shape[1]
        wide = columns[self.place].reshape(n_inputs, -1)
        for some, outputs in self._chunks(width):
            a, delta = self._flat(some, columns.dtype, outputs)
            n_examples = some.stop - some.start
            image = (a @ wide[:, _times(outputs, width)]).reshape(n_examples, -1, width)
            found = delta.reshape(n_examples, n_rows, -1) @ image
            total[_times(some, n_rows)] += found.reshape(-1, width)

    def add_transposed(self, coefficients: Array, total: Array) -> None:
        """Add sum_t a_t (x) (sum_r y_r delta_rt), some examples at a time."""
        n_rows, width = self.delta.shape[1], coefficients.shape[1]
        here = total[self.place].reshape(self.a.shape[2], -1)
        for some, outputs in self._chunks(width):
            a, delta = self._flat(some, coefficients.dtype, outputs)
            n_examples = some.stop - some.start
            y = coefficients[_times(some, n_rows)].reshape(n_examples, n_rows, width)
            of_cotangents = np.swapaxes(delta.reshape(n_examples, n_rows, -1), 1, 2) @ y
            here[:, _times(outputs, width)] += a.T @ of_cotangents.reshape(len(a), -1)

    def squares(self) -> float:
        """Add up sum_ts (a_t . a_s) (delta_rt . delta_rs)."""
        of_data = self.a @ np.swapaxes(self.a, 1, 2)
        of_cotangents = self.delta @ np.swapaxes(self.delta, 2, 3)
        found = np.einsum("nts,nrts->n", of_data, of_cotangents)
        return float(found.sum(dtype=np.float64))

    @property
    def n_bytes(self) -> int:
        """Bytes of memory that both factors take together."""
        return self.a.nbytes + self.delta.nbytes

    def _chunks(self, width: int) -> Iterator[tuple[slice, slice]]:
        """Slices of examples and outputs whose products `[B, T, O, width]` stay small.

        Of few examples at a time, all vectors would be read for little work.
        """
        n_examples, positions, _ = self.a.shape
        most = _NUMBERS // (positions * width)  # examples times outputs
        step = max(1, min(n_examples, _TERMS // positions, max(most, 1)))
        for some in slices(n_examples, step):
            for outputs in slices(self.delta.shape[3], max(1, most // step)):
                yield some, outputs


def slices(size: int, step: int) -> Iterator[slice]:
    """Slices of at most `step` that go through `size` places."""
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _times(some: slice, count: int) -> slice:
    """A slice of examples as one of their rows, `count` each."""
    return slice(some.start * count, some.stop * count)
