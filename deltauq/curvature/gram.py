"""OPG and GGN: both are Gram matrices of per-example rows, (1/N) sum_n w_n R_n^T R_n."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.curvature.operator import CurvatureOperator
from deltauq.data import Batch, Batches
from deltauq.jacobians import PerExample
from deltauq.likelihoods import Likelihood
from deltauq.network import Network

__all__ = ["GGN", "OPG"]


class _Gram(CurvatureOperator):
    """A = (1/N) sum_n w_n R_n^T R_n with R_n `[R, P]` the rows F_n^T J_n of one example."""

    positive_semidefinite = True

    def __init__(
        self,
        network: Network,
        likelihood: str | Likelihood,
        data: Batches,
        *,
        scale: npt.NDArray[Any] | None = None,
    ) -> None:
        super().__init__(network, likelihood, data, scale=scale)
        self._per_example = PerExample(network, data.probe())
        parameters = tf.TensorSpec([network.n_params], network.dtype)
        self._compiled_rows = tf.function(self._rows, input_signature=[parameters, data.spec])
        self._compiled_lengths = tf.function(
            self._squared_lengths, input_signature=[parameters, data.spec, parameters]
        )

    @abc.abstractmethod
    def _factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Cotangents `[B, R, C]` of the rows."""

    def _rows(self, params: tf.Tensor, batch: Batch) -> tf.Tensor:
        rows, _ = self._per_example.rows(params, batch.x, lambda z: self._factor(z, batch.y))
        rows = tf.sqrt(batch.weight)[:, None, None] * rows
        return tf.reshape(rows, [-1, self.network.n_params])

    def _squared_lengths(self, params: tf.Tensor, batch: Batch, scale: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.square(scale * self._rows(params, batch)), axis=1)

    def _batch_product(self, params: tf.Tensor, batch: Batch, vectors: tf.Tensor) -> tf.Tensor:
        rows = self._rows(params, batch)
        return tf.matmul(rows, rows @ vectors, transpose_a=True)

    def to_dense(self) -> npt.NDArray[Any]:
        """A itself, float64 `[P, P]`, symmetric to the bit; one pass over the data."""
        total = np.zeros(self.shape)
        for batch in self.data:
            rows = self._compiled_rows(self.network.params, batch).numpy().astype(np.float64)
            total += rows.T @ rows
        total *= self.scale[:, None] * self.scale / self.data.n_examples
        return (total + total.T) / 2

    def trace(self) -> float:
        """Trace of A, exact: the mean squared length of the rows; one pass over the data."""
        scale = tf.constant(self.scale.astype(self.network.dtype))
        total = 0.0
        for batch in self.data:
            lengths = self._compiled_lengths(self.network.params, batch, scale)
            total += float(np.sum(lengths.numpy(), dtype=np.float64))
        return total / self.data.n_examples


class OPG(_Gram):
    """G = (1/N) sum_n w_n g_n g_n^T, g_n the gradient of one example's data loss; uncentred.

    Also called the empirical Fisher. It is not the Fisher information: its standard errors can
    differ from the exact Hessian's by tens of percent where the model fits badly.
    """

    def _factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return self.likelihood.residual(logits, y)[:, None, :]


class GGN(_Gram):
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
