"""OPG, GGN and the meat of a sandwich: Gram matrices (1/N) sum_n v_n R_n^T R_n of rows."""

from __future__ import annotations

import abc
import copy
import itertools
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.curvature.batch_rows import BatchRows, batch_rows, saves_products
from deltauq.curvature.held_rows import slices
from deltauq.curvature.linear_head import LinearHeadGGN
from deltauq.curvature.operator import CurvatureOperator
from deltauq.curvature.row_matrix import add_matrix, saves_matrix
from deltauq.data.batches import Batch, Batches
from deltauq.likelihoods import Likelihood
from deltauq.linalg import add_gram_product
from deltauq.network.graph import Compiled
from deltauq.network.jacobians import (
    Cotangents,
    Factor,
    PerExample,
    Workspace,
    assemble,
    evaluated,
    stacked,
)
from deltauq.network.probe_rows import POOL, probe_rows

__all__ = ["GGN", "OPG", "Gram", "SandwichMeat"]

Array = npt.NDArray[Any]

#: Rows, and columns of A, that are multiplied at a time, at most.
_BLOCK_ROWS = 4096

#: Rows that are brought to float64 at a time: fresh memory for more takes longer than products.
_FINER_ROWS = 512


class Gram(CurvatureOperator):
    """Base of the curvatures A = (1/N) sum_n v_n R_n^T R_n, R_n `[R, P]` the rows F_n^T J_n.

    R_n belongs to one example and v_n is its weight in the sum: c_n w_n, as in the cost, unless a
    subclass says otherwise. A is semidefinite, and a product with it is two products with rows,
    R^T (R V).
    """

    positive_semidefinite = True
    matrix_in_a_pass = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # One number for all parameters costs nothing in the cotangents.
        uneven = bool(np.any(self.scale != self.scale[0]))
        self._common_scale = 1.0 if uneven else float(self.scale[0])
        self._uneven_scale = self.scale.astype(self.network.dtype) if uneven else None
        self._kept: list[BatchRows] = []
        self._kept_at = self.network.params
        self._rules = self._per_example or PerExample(
            self.network, probe_rows(self.network, self.data.head(POOL))
        )
        parameters = tf.TensorSpec([self.network.n_params], self.network.dtype)
        self._compiled_factors = Compiled(self._factors, parameters, self.data.spec)

    @abc.abstractmethod
    def _factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Cotangents `[B, R, C]` of the rows."""

    def _weight(self, batch: Batch) -> tf.Tensor:
        """Of each observation in the sum, v `[B]` or `[B, T]`."""
        return batch.weight

    def _factors(self, params: tf.Tensor, batch: Batch) -> list[Factor]:
        """Rows of a batch, sqrt(v_n) F_n^T J_n times the common scale, variable by variable."""

        def weighted(logits: tf.Tensor) -> tf.Tensor:
            rows = self._factor(logits, batch.y)
            return self._roots(batch, rows.shape[1]) * rows  # squared in R^T R it is v_n

        return self._factors_along(params, batch, weighted)

    def _factors_along(
        self, params: tf.Tensor, batch: Batch, cotangents: Cotangents
    ) -> list[Factor]:
        return self._rules.factors(params, batch.x, cotangents)[0]

    def _roots(self, batch: Batch, n_rows: int) -> tf.Tensor:
        """What R rows are multiplied by, sqrt(v_n) times the common scale, `[B, R or 1, 1]`."""
        return _for_each_row(self._common_scale * tf.sqrt(self._weight(batch)), n_rows)

    def row_factors(self) -> Iterator[list[Factor]]:
        """Rows of one batch after the other, once through the data, variable by variable.

        They are sqrt(v_n) F_n^T J_n times the scale where that is one number; where it is not,
        `uneven_scale` is left to be multiplied by.
        """
        for batch in self.data:
            yield evaluated(self._compiled_factors(self.network.params, batch))

    def _first_and_all(self) -> tuple[list[Factor], Iterator[list[Factor]]]:
        """What `row_factors` gives, and its first item beforehand."""
        row_factors = self.row_factors()
        first = next(row_factors)
        return first, itertools.chain([first], row_factors)

    @property
    def uneven_scale(self) -> Array | None:
        """The scale `[P]` in the network's precision, where it is not the same for all."""
        return self._uneven_scale

    def _row_blocks(self, row_factors: Iterator[list[Factor]] | None = None) -> Iterator[Array]:
        """All rows F_n^T J_n D, `[n, P]` at a time, in one buffer that is filled again and again.

        Blocks as large as this keep the products near the processor's peak; one buffer, because
        fresh memory of that size costs as much as the rows.
        """
        n_params = self.network.n_params
        itemsize = np.dtype(self.network.dtype).itemsize
        capacity = int(np.clip(self._buffer_bytes // (n_params * itemsize), 1, _BLOCK_ROWS))
        buffer: Array = np.empty((0, n_params), self.network.dtype)
        filled, squares = 0, 0.0
        for factors in self.row_factors() if row_factors is None else row_factors:
            n_examples, each, _ = factors[0].shape
            n_rows = n_examples * each
            if filled + n_rows > len(buffer):
                if filled:
                    yield buffer[:filled]
                    filled = 0
                if n_rows > len(buffer):
                    buffer = np.empty((max(capacity, n_rows), n_params), self.network.dtype)
            rows = buffer[filled : filled + n_rows]
            assemble(factors, rows.reshape(n_examples, each, n_params))
            if self._uneven_scale is not None:
                rows *= self._uneven_scale
            if self._trace is None:
                squares += float(np.vecdot(rows, rows).sum(dtype=np.float64))
            filled += n_rows
        yield buffer[:filled]
        self._note_trace(squares)

    def _note_trace(self, squares: float) -> None:
        """Keep the trace, from the sum of the rows' squares, where it is not known yet."""
        if self._trace is None:
            self._check_finite(squares, "rows")
            self._trace = squares / self.data.n_examples

    def _sum(self, vectors: Array, out: Array) -> None:
        out[:] = 0.0
        if self._kept and self._kept_at is self.network.params:
            self._sum_unformed(self._kept_rows(), vectors, out)
            return
        first, row_factors = self._first_and_all()
        if saves_products(first) and self.precision == self.network.dtype:
            self._sum_unformed(self._rows_to_keep(row_factors), vectors, out)
        else:
            self._sum_formed(row_factors, vectors, out)

    def _sum_unformed(self, batches: Iterator[BatchRows], vectors: Array, out: Array) -> None:
        """Add R^T (R V) batch by batch, rows of dense layers as their factors."""
        squares = 0.0
        for rows in batches:
            rows.add_gram_product(vectors, out)
            if self._trace is None:
                squares += rows.squares()
        self._note_trace(squares)

    def _rows_to_keep(self, row_factors: Iterator[list[Factor]]) -> Iterator[BatchRows]:
        """The rows of one batch after the other, which are kept for the next pass if all fit.

        In half of the buffer, as those of a part of the data may be kept beside those of the rest;
        so much as the rows so far take for each example is expected of the others.
        """
        kept: list[BatchRows] | None = []
        n_bytes, seen = 0, 0
        memory: Workspace | None = None
        for factors in row_factors:
            if memory is None or kept is not None:  # what is kept has its own
                memory = Workspace(self.network.dtype)
            rows = batch_rows(factors, self._uneven_scale, memory)
            yield rows
            n_bytes, seen = n_bytes + rows.n_bytes, seen + rows.n_examples
            if 2 * n_bytes * self.data.n_rows > self._buffer_bytes * seen:
                kept = None
            elif kept is not None:
                kept.append(rows)
        self._kept, self._kept_at = kept or [], self.network.params

    def forget(self) -> None:
        """Give back the rows that were kept."""
        self._kept = []

    def _kept_rows(self) -> Iterator[BatchRows]:
        """The rows of one batch after the other, as an earlier pass has left them."""
        for rows in self._kept:
            yield rows
            self.data.listener.on_batch(rows.n_examples)

    def _sum_formed(self, row_factors: Iterator[list[Factor]], vectors: Array, out: Array) -> None:
        """Add R^T (R V) of blocks of rows, in float64 few at a time where they are float32."""
        for rows in self._row_blocks(row_factors):
            if rows.dtype == out.dtype:
                add_gram_product(rows, vectors, out)
                continue
            for some in slices(len(rows), _FINER_ROWS):
                add_gram_product(rows[some].astype(out.dtype), vectors, out)

    def in_double(self) -> Self:
        """The curvature of the same rows, rounded as they are, with products in float64."""
        made = copy.copy(self)
        made.precision, made._kept = "float64", []
        return made

    def _over(self, data: Batches) -> Self:
        """The same curvature of other data, of which no rows are kept yet."""
        made = super()._over(data)
        made._kept = []
        return made

    def to_dense(self) -> Array:
        """Form the matrix A itself, float64 `[P, P]`, symmetric to the bit; one pass."""
        total = np.zeros(self.shape)
        self._step("matrix", (), total, lambda: self._sum_matrix(total))
        for here in slices(len(total), _BLOCK_ROWS):
            below = total[here, here]
            total[here, here] = np.tril(below) + np.tril(below, -1).T
            total[: here.start, here] = total[here, : here.start].T
        total /= self.data.n_examples
        return total

    def _sum_matrix(self, total: Array) -> None:
        """Add R^T R to a float64 `[P, P]`, of which what is below the diagonal counts."""
        first, row_factors = self._first_and_all()
        if saves_matrix(first):
            add_matrix(row_factors, self._uneven_scale, total)
            self._note_trace(float(np.trace(total)))
            return
        for rows in self._row_blocks(row_factors):
            wide = rows.astype(np.float64)
            for here in slices(len(total), _BLOCK_ROWS):
                # OpenBLAS' `syrk`, for all at once, crashes at 16,000 columns
                total[here, : here.stop] += wide[:, here].T @ wide[:, : here.stop]

    def _is_finite_on(self, data: Batches) -> bool:
        """Whether the rows of some of the data are finite, and squares of them."""
        for factors in self._over(data).row_factors():
            rows = stacked(factors)
            if self._uneven_scale is not None:
                rows *= self._uneven_scale
            if not np.all(np.isfinite(np.vecdot(rows, rows))):
                return False
        return True

    def sampled(self, share: float, seed: Any) -> Self | None:
        """Estimate the curvature from a random share of the examples, which count for all."""
        return self._over(self.data.sampled(share, seed))

    def trace(self) -> float:
        """Trace of A, exact: the sum of the rows' squared lengths, weighted, over N.

        Known after any pass over the data; the first call costs one where there was none.
        """
        if self._trace is None:
            for _ in self._row_blocks():
                pass
        assert self._trace is not None
        return self._trace


class OPG(Gram):
    """Outer products of the examples' gradients, G = (1/N) sum_n c_n w_n g_n g_n^T.

    g_n is the gradient of one example's data loss; nothing is centred. Also called the empirical
    Fisher. It is not the Fisher information: its standard errors can differ from the exact
    Hessian's by tens of percent where the model fits badly.
    """

    made_of_scores = True

    def _factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return self.likelihood.score_factor(logits, y)


class SandwichMeat(OPG):
    """How the cost's gradient varies from sample to sample: (1/N) sum_n c_n w_n^2 g_n g_n^T.

    What stands between the two inverse Hessians of a sandwich. A row that counts twice is two
    independent rows; a row of importance w is one, whose gradient is w g_n: its square has w^2.
    Equals OPG where all importance is one.
    """

    def _weight(self, batch: Batch) -> tf.Tensor:
        return batch.weight * batch.importance


class GGN(Gram):
    """Generalised Gauss-Newton, F = (1/N) sum_n c_n w_n J_n^T (d^2 loss_n / d z^2) J_n.

    Equals the Fisher information for softmax with cross-entropy, and the exact Hessian for a
    network that is linear in its parameters.
    """

    needs_convex_loss = True

    @classmethod
    def of_linear_head(cls) -> type[CurvatureOperator]:
        """`LinearHeadGGN`; of a subclass, which may be another matrix, the subclass itself."""
        return LinearHeadGGN if cls is GGN else cls

    @staticmethod
    def rows_per_example(likelihood: Likelihood, n_outputs: int) -> int:
        """Number of rows an example: the columns of its loss's second derivative."""
        return likelihood.n_rows(n_outputs)

    def _factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.linalg.matrix_transpose(self.likelihood.hessian_factor(logits, y))


def _for_each_row(weight: tf.Tensor, n_rows: int) -> tf.Tensor:
    """Weights `[B]` of examples, or `[B, T]` of positions, beside R rows each: `[B, R or 1, 1]`."""
    positions = weight.shape[1] if weight.shape.rank == 2 else 1
    each = tf.reshape(weight, [-1, positions, 1])
    return each if positions == 1 else tf.repeat(each, n_rows // positions, axis=1)
