"""The exact Hessian of the data cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.curvature.operator import CurvatureOperator
from deltauq.jacobians import hessian_product

__all__ = ["Hessian", "TraceEstimate"]


Array = npt.NDArray[Any]

#: Bytes of activations that are differentiated together: about what the cache holds.
_CACHE_BYTES = 3 * 2**23

#: Columns of V that one compiled call takes at most.
_BLOCK = 8


class TraceEstimate(NamedTuple):
    """A trace known up to sampling error."""

    value: float
    standard_error: float


class Hessian(CurvatureOperator):
    """H = (1/N) sum_n w_n d^2 loss_n / d w^2, the true second derivative; not semidefinite.

    A product costs about five forward passes over the data. What it does not share with another
    one is three of them: the rest is done once for the columns of a block, or once and for all
    where `buffer_bytes` has room for the activations of all the data. At a kink (ReLU) it is the
    Hessian of the smooth piece the parameters lie in.
    """

    positive_semidefinite = False
    second_derivatives = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._rows_at_once = max(1, _CACHE_BYTES // self.network.activation_bytes(self.data.spec.x))
        self._product = hessian_product(self.network, self.likelihood, self.data.spec)
        self._kept: list[tuple[list[tf.Tensor], int]] = []

    @staticmethod
    def rows_per_example(n_outputs: int) -> int:
        """None: the products are sums over the batch."""
        return 0

    def _sum(self, vectors: Array, out: Array) -> None:
        scale = self.scale[:, None]
        scaled = (scale * vectors).T.astype(vectors.dtype)
        blocks = [tf.constant(scaled[k : k + _BLOCK]) for k in range(0, len(scaled), _BLOCK)]
        totals = [np.zeros(block.shape) for block in blocks]
        for point in self._points():
            for block, total in zip(blocks, totals, strict=True):
                total += self._product.second(point, block).numpy()
        out[:] = scale * np.concatenate(totals).T

    def _points(self) -> Iterator[list[tf.Tensor]]:
        """What products need of a few rows at a time, once through the data.

        Where there is room for all of it, it is kept for the next time.
        """
        if self._kept:
            for point, n_rows in self._kept:
                yield point
                self.data.passed(n_rows)
            return
        kept: list[tuple[list[tf.Tensor], int]] = []
        room = self._buffer_bytes
        for batch in self.data:
            for start in range(0, len(batch.y), self._rows_at_once):
                some = slice(start, start + self._rows_at_once)
                rows = tf.nest.map_structure(lambda leaf, some=some: leaf[some], batch)
                point = self._product.first(self.network.params, rows)
                room -= sum(tensor.dtype.size * math.prod(tensor.shape) for tensor in point)
                kept.append((point, len(rows.y)))
                if room < 0:
                    kept.clear()
                yield point
        self._kept = kept if room >= 0 else []
        self._buffer_bytes = max(0, room)  # what did not fit is not tried again

    def trace(self) -> float:
        """Trace of H, exact; costs P products (see `estimate_trace` for large P)."""
        size, total = self.shape[0], 0.0
        for start in range(0, size, 256):
            columns = np.eye(size, min(256, size - start), -start)
            total += float(np.sum(columns * self.matmat(columns)))
        return total

    def estimate_trace(self, n_probes: int = 64, seed: int = 0) -> TraceEstimate:
        """Trace of H by Hutchinson's estimator: the mean of z^T H z over random signs z.

        Args:
            n_probes: random vectors, one product each; at least 2.
            seed: of the signs.
        """
        rng: Any = np.random.default_rng(seed)
        signs = rng.choice([-1.0, 1.0], size=(self.shape[0], max(2, n_probes)))
        samples = np.sum(signs * self.matmat(signs), axis=0)
        return TraceEstimate(
            float(np.mean(samples)), float(np.std(samples, ddof=1) / np.sqrt(len(samples)))
        )
