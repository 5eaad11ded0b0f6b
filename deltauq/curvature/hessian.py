"""The exact Hessian of the data cost, the true second derivative."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.curvature.operator import CurvatureOperator
from deltauq.data.batches import Batches
from deltauq.likelihoods import Likelihood
from deltauq.network.hessian_product import hessian_product
from deltauq.runtime.stages import Stage

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
    one is three of them; the rest, here the activations, is formed once for the columns of a block,
    or once and for all: see `activations`. At a kink (ReLU) it is the Hessian of the smooth piece
    the parameters lie in. It is only as true as TensorFlow's second derivatives: `DeltaMethod` asks
    `deltauq.network.derivative_audit` about them first.

    Attributes:
        activations: "kept" where `buffer_bytes` has room for those of all the data: they were
            formed when this was made, and products do not read the data. "formed" where it has
            not: every product reads the data and forms them again.
    """

    positive_semidefinite = False
    second_derivatives = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._rows_at_once = max(1, _CACHE_BYTES // self.network.activation_bytes(self.data.spec.x))
        self._product = hessian_product(self.network, self.likelihood, self.data.spec)
        points = self._points_that_fit()
        self._kept = None if points is None else self._product.over(points)
        self._kept_at = self.network.params

    @property
    def activations(self) -> Literal["kept", "formed"]:
        """Where activations come from: "kept" from the first pass, or "formed" in each product."""
        return "formed" if self._kept is None else "kept"

    @staticmethod
    def rows_per_example(likelihood: Likelihood, n_outputs: int) -> int:
        """Always 0, because the products are sums over the batch and no row is formed."""
        return 0

    def _over(self, data: Batches) -> Self:
        """The Hessian of other data, whose activations are formed."""
        made = super()._over(data)
        made._kept = None
        return made

    def _is_finite_on(self, data: Batches) -> bool:
        """Whether a product with ones has a finite part from some of the data."""
        ones = tf.ones([1, self.shape[0]], self.network.dtype)
        return bool(np.all(np.isfinite(self._over(data)._totals([ones])[0])))

    def _sum(self, vectors: Array, out: Array) -> None:
        scaled = vectors.T * self.scale.astype(vectors.dtype)
        stacks = [tf.constant(scaled[k : k + _BLOCK]) for k in range(0, len(scaled), _BLOCK)]
        totals = self._totals(stacks)
        for start, total in zip(range(0, len(scaled), _BLOCK), totals, strict=True):
            out[:, start : start + _BLOCK] = (total * self.scale).T

    def _totals(self, stacks: Sequence[tf.Tensor]) -> list[Array]:
        """The sum over the data for stacks of vectors `[b, P]`, float64."""
        if self._kept is not None and self._kept_at is self.network.params:
            totals = [self._kept(stack).numpy() for stack in stacks]
            self.data.listener.on_batch(self.data.n_rows)
            return totals
        totals = [np.zeros(stack.shape) for stack in stacks]
        for _, point in self._points():
            for stack, total in zip(stacks, totals, strict=True):
                total += self._product.second(point, stack).numpy()
        return totals

    def _points_that_fit(self) -> list[Sequence[tf.Tensor]] | None:
        """What products need of all the data; None as soon as it shows that it does not fit.

        So much as the rows so far take for each row is expected of the others.
        """
        kept: list[Sequence[tf.Tensor]] = []
        n_bytes, seen = 0, 0
        self.data.listener.stages.begin(
            Stage(
                "forming activations", "once for all products, if they fit", parts=self.data.n_rows
            )
        )
        for n_rows, point in self._points():
            seen += n_rows
            n_bytes += sum(tensor.dtype.size * math.prod(tensor.shape) for tensor in point)
            if n_bytes * self.data.n_rows > self._buffer_bytes * seen:
                return None
            kept.append(point)
        return kept

    def _points(self) -> Iterator[tuple[int, list[tf.Tensor]]]:
        """A few rows at a time, how many, and what products need of them; once through the data."""
        for batch in self.data:
            for start in range(0, len(batch.y), self._rows_at_once):
                some = slice(start, start + self._rows_at_once)
                rows = tf.nest.map_structure(lambda leaf, some=some: leaf[some], batch)
                yield len(rows.y), self._product.first(self.network.params, rows)

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
