"""The exact Hessian of the data cost."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from deltauq.curvature.operator import CurvatureOperator
from deltauq.data import Batch
from deltauq.jacobians import hessian_products

__all__ = ["Hessian", "TraceEstimate"]


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
    _block = 8

    def _batch_product(self, params: tf.Tensor, batch: Batch, vectors: tf.Tensor) -> tf.Tensor:
        return hessian_products(self.network, self.likelihood, params, batch, vectors)

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
