"""The exact Hessian of the data cost, the true second derivative."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.curvature.operator import CurvatureOperator
from deltauq.likelihoods import Likelihood
from deltauq.network.jacobians import hessian_product

__all__ = ["Hessian", "TraceEstimate"]


Array = npt.NDArray[Any]

#: Bytes of activations that are differentiated together: about what the cache holds.
_CACHE_BYTES = 2**25

#: Columns of V that one compiled call takes at most.
_BLOCK = 8


class TraceEstimate(NamedTuple):
    """A trace that is known up to sampling error, with its standard error."""

    value: float
    standard_error: float


class Hessian(CurvatureOperator):
    """The exact Hessian H = (1/N) sum_n c_n w_n d^2 loss_n / d w^2, which may be indefinite.

    A product costs about five forward passes over the data. What it does not share with another
    one is three of them: the rest is done once for the columns of a block, or once and for all
    where `buffer_bytes` has room for the activations of all the data. At a kink (ReLU) it is the
    Hessian of the smooth piece the parameters lie in. It is only as true as TensorFlow's second
    derivatives: `DeltaMethod` asks `deltauq.network.derivative_audit` about them first.
    """

    positive_semidefinite = False
    second_derivatives = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._rows_at_once = max(1, _CACHE_BYTES // self.network.activation_bytes(self.data.spec.x))
        self._product = hessian_product(self.network, self.likelihood, self.data.spec)
        self._at_once: Callable[[tf.Tensor], tf.Tensor] | None = None

    @staticmethod
    def rows_per_example(likelihood: Likelihood, n_outputs: int) -> int:
        """Always 0, because the products are sums over the batch and no row is formed."""
        return 0

    def _sum(self, vectors: Array, out: Array) -> None:
        scaled = vectors.T * self.scale.astype(vectors.dtype)
        stacks = [tf.constant(scaled[k : k + _BLOCK]) for k in range(0, len(scaled), _BLOCK)]
        totals = self._totals(stacks)
        for start, total in zip(range(0, len(scaled), _BLOCK), totals, strict=True):
            out[:, start : start + _BLOCK] = (total * self.scale).T

    def _totals(self, stacks: Sequence[tf.Tensor]) -> list[Array]:
        """The sum over the data for stacks of vectors `[b, P]`, float64.

        What does not depend on the vectors is kept for the next time, where there is room for all
        of it.
        """
        if self._at_once is not None:
            totals = [self._at_once(stack).numpy() for stack in stacks]
            self.data.passed(self.data.n_rows)
            return totals
        totals = [np.zeros(stack.shape) for stack in stacks]
        kept: list[list[tf.Tensor]] | None = []
        room = self._buffer_bytes
        for point in self._points():
            for stack, total in zip(stacks, totals, strict=True):
                total += self._product.second(point, stack).numpy()
            room -= sum(tensor.dtype.size * math.prod(tensor.shape) for tensor in point)
            if room < 0:
                kept = None
            if kept is not None:
                kept.append(point)
        if kept is not None:
            self._at_once = self._product.over(kept)
        self._buffer_bytes = max(0, room)  # what did not fit is not tried again
        return totals

    def _points(self) -> Iterator[list[tf.Tensor]]:
        """What products need of a few rows at a time, once through the data."""
        for batch in self.data:
            for start in range(0, len(batch.y), self._rows_at_once):
                some = slice(start, start + self._rows_at_once)
                rows = tf.nest.map_structure(lambda leaf, some=some: leaf[some], batch)
                yield self._product.first(self.network.params, rows)

    def trace(self) -> float:
        """Trace of H, exact; costs P products (see `estimate_trace` for large P)."""
        size, total = self.shape[0], 0.0
        for start in range(0, size, 256):
            columns = np.eye(size, min(256, size - start), -start)
            total += float(np.sum(columns * self.matmat(columns)))
        return total

    def estimate_trace(self, n_probes: int = 64, seed: int = 0) -> TraceEstimate:
        """Estimate the trace of H by Hutchinson's method: the mean of z^T H z over random signs z.

        Args:
            n_probes: random vectors, one product each; at least 2.
            seed: of the signs.
        """
        rng: Any = np.random.default_rng(seed)
        signs = rng.choice([-1.0, 1.0], size=(self.shape[0], max(2, n_probes)))
        samples = np.sum(signs * self.matmat(signs), axis=0)  # E[z z^T] = I (Hutchinson 1990)
        return TraceEstimate(
            float(np.mean(samples)), float(np.std(samples, ddof=1) / np.sqrt(len(samples)))
        )
