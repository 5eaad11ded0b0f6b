"""The exact Hessian of the data cost."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.curvature.operator import CurvatureOperator
from deltauq.data import Batch
from deltauq.jacobians import hessian_products

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

    A product costs about five forward passes over the data; columns of a block share the first
    three. At a kink (ReLU) it is the Hessian of the smooth piece the parameters lie in.
    """

    positive_semidefinite = False
    second_derivatives = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._rows_at_once = max(1, _CACHE_BYTES // self.network.activation_bytes(self.data.spec.x))
        self._products: dict[int, Any] = {}

    @staticmethod
    def rows_per_example(n_outputs: int) -> int:
        """None: the products are sums over the batch."""
        return 0

    def _sum(self, vectors: Array, out: Array) -> None:
        scale = self.scale[:, None]
        cuts = range(_BLOCK, vectors.shape[1], _BLOCK)
        scaled = (scale * vectors).astype(vectors.dtype)
        blocks = [tf.constant(block.T) for block in np.split(scaled, cuts, axis=1)]
        totals = [np.zeros(block.shape) for block in blocks]
        for batch in self.data:
            for block, total in zip(blocks, totals, strict=True):
                total += self._product(len(block))(self.network.params, batch, block).numpy()
        out[:] = scale * np.concatenate(totals).T

    def _product(self, width: int) -> Any:
        """The compiled product of a batch, traced once for each number of vectors."""
        if width not in self._products:
            parameters = tf.TensorSpec([self.shape[0]], self.network.dtype)
            vectors = tf.TensorSpec([width, self.shape[0]], self.network.dtype)

            def product(params: tf.Tensor, batch: Batch, vectors: tf.Tensor) -> tf.Tensor:
                return hessian_products(
                    self.network,
                    self.likelihood,
                    params,
                    batch,
                    vectors,
                    rows_at_once=self._rows_at_once,
                )

            self._products[width] = tf.function(
                product, input_signature=[parameters, self.data.spec, vectors]
            )
        return self._products[width]

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
