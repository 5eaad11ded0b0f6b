"""OPG and GGN: both are Gram matrices of per-example rows, (1/N) sum_n w_n R_n^T R_n."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.curvature.operator import CurvatureOperator
from deltauq.data import Batch
from deltauq.jacobians import Cotangents, PerExample
from deltauq.linalg import add_gram_product

__all__ = ["GGN", "OPG", "Gram"]

Array = npt.NDArray[Any]

#: Rows that are multiplied at a time, at most.
_BLOCK_ROWS = 4096


class Gram(CurvatureOperator):
    """A = (1/N) sum_n w_n R_n^T R_n with R_n `[R, P]` the rows F_n^T J_n of one example."""

    positive_semidefinite = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._rules = self._per_example or PerExample(self.network, self.data.probe())
        parameters = tf.TensorSpec([self.network.n_params], self.network.dtype)
        self._compiled_rows = tf.function(self._rows, input_signature=[parameters, self.data.spec])
        self._trace: float | None = None

    @abc.abstractmethod
    def _factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Cotangents `[B, R, C]` of the rows."""

    def _rows(self, params: tf.Tensor, batch: Batch) -> list[tf.Tensor]:
        """Rows of a batch, sqrt(w_n) F_n^T J_n: `[B R, size]` for every variable."""
        return self._rows_along(params, batch, lambda logits: self._factor(logits, batch.y))

    def _rows_along(self, params: tf.Tensor, batch: Batch, factor: Cotangents) -> list[tf.Tensor]:
        root = tf.sqrt(batch.weight)[:, None, None]
        factors, _ = self._rules.factors(params, batch.x, lambda logits: root * factor(logits))
        rows = [factor.rows() for factor in factors]
        return [tf.reshape(row, [-1, row.shape[2]]) for row in rows]

    def _batch_rows(self) -> Iterator[list[tf.Tensor]]:
        """The rows of one batch after the other, once through the data."""
        for batch in self.data:
            yield self._compiled_rows(self.network.params, batch)

    def _row_blocks(self) -> Iterator[Array]:
        """All rows, `[n, P]` at a time, in one buffer that is filled again and again.

        Blocks as large as this keep the products near the processor's peak; one buffer, because
        fresh memory of that size costs as much as the rows.
        """
        n_params = self.network.n_params
        itemsize = np.dtype(self.network.dtype).itemsize
        capacity = int(np.clip(self._buffer_bytes // (n_params * itemsize), 1, _BLOCK_ROWS))
        buffer: Array = np.empty((0, n_params), self.network.dtype)
        filled, squares = 0, 0.0
        for parts in self._batch_rows():
            n_rows = int(parts[0].shape[0])
            if filled + n_rows > len(buffer):
                if filled:
                    yield buffer[:filled]
                    filled = 0
                if n_rows > len(buffer):
                    buffer = np.empty((max(capacity, n_rows), n_params), self.network.dtype)
            for parameter, part in zip(self.network.parameters, parts, strict=True):
                columns = slice(parameter.start, parameter.stop)
                values = np.asarray(part)
                buffer[filled : filled + n_rows, columns] = values
                if self._trace is None:
                    squares += _squared_length(values, self.scale[columns])
            filled += n_rows
        yield buffer[:filled]
        if self._trace is None:
            self._trace = squares / self.data.n_examples

    def _sum(self, vectors: Array) -> Array:
        total = np.zeros_like(vectors)
        for rows in self._row_blocks():
            add_gram_product(rows, vectors, total)
        return total

    def to_dense(self) -> Array:
        """A itself, float64 `[P, P]`, symmetric to the bit; one pass over the data."""
        total = np.zeros(self.shape)
        for rows in self._row_blocks():
            wide = rows.astype(np.float64)
            total += wide.T @ wide
        total *= self.scale[:, None] * self.scale / self.data.n_examples
        return (total + total.T) / 2

    def trace(self) -> float:
        """Trace of A, exact: the mean squared length of the rows.

        Known after any pass over the data; the first call costs one where there was none.
        """
        if self._trace is None:
            for _ in self._row_blocks():
                pass
        assert self._trace is not None
        return self._trace


def _squared_length(values: Array, scale: Array) -> float:
    """Sum of (values * scale)^2, rows added in float64; no copy where the scale is one number."""
    unit = float(scale[0])
    if np.any(scale != unit):
        values, unit = values * scale, 1.0
    return unit**2 * float(np.sum(np.vecdot(values, values), dtype=np.float64))


class OPG(Gram):
    """G = (1/N) sum_n w_n g_n g_n^T, g_n the gradient of one example's data loss; uncentred.

    Also called the empirical Fisher. It is not the Fisher information: its standard errors can
    differ from the exact Hessian's by tens of percent where the model fits badly.
    """

    def _factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return self.likelihood.residual(logits, y)[:, None, :]


class GGN(Gram):
    """F = (1/N) sum_n w_n J_n^T (d^2 loss_n / d z^2) J_n: Generalised Gauss-Newton.

    Equals the Fisher information for softmax with cross-entropy, and the exact Hessian for a
    network that is linear in its parameters.
    """

    @staticmethod
    def rows_per_example(n_outputs: int) -> int:
        """One row per class."""
        return n_outputs

    def _factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.linalg.matrix_transpose(self.likelihood.hessian_factor(logits))
