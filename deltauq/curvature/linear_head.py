"""The GGN of a last dense layer, whose rows are never formed: for thousands of classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.curvature.operator import CurvatureOperator
from deltauq.data.batches import Batches
from deltauq.likelihoods import Likelihood
from deltauq.network.jacobians import LinearHead, find_linear_head

__all__ = ["LinearHeadGGN"]

Array = npt.NDArray[Any]

#: Bytes of products `[B, C, b]` that are held at a time.
_BLOCK_BYTES = 2**26

#: Columns of V that are multiplied at a time: each takes a copy of itself and of its image.
_COLUMNS = 8


class LinearHeadGGN(CurvatureOperator):
    """The GGN where the logits are h W + b and nothing else is uncertain.

    With S_n the second derivative of a loss, A V = (1/N) sum_n c_n w_n J_n^T S_n J_n V, where
    J_n V is h_n^T V_W + V_b: two products with h `[B, I]` and one with S a batch, C times less than
    from an example's rows, as many as outputs or one fewer, which are not formed.

    Args:
        *arguments: as for `GGN`.
        head: the layer; None looks for it.
        **options: as for `GGN`.
    """

    positive_semidefinite = True
    needs_convex_loss = True
    columns_per_product = 2 * _COLUMNS

    def __init__(self, *arguments: Any, head: LinearHead | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        found = head or find_linear_head(self.network, self.data.spec.x)
        assert found is not None, "callers look before they choose this form"
        self._head = found

    @staticmethod
    def rows_per_example(likelihood: Likelihood, n_outputs: int) -> int:
        """Always 0, because no row of the Jacobian is formed."""
        return 0

    def _sum(self, vectors: Array, out: Array) -> None:
        out[:] = 0.0
        scale = self.scale.astype(vectors.dtype)[:, None]
        total = 0.0
        for batch in self._batches(_COLUMNS):
            for start in range(0, vectors.shape[1], _COLUMNS):
                some = slice(start, start + _COLUMNS)
                self._add(batch, scale, vectors[:, some], out[:, some])
            total += self._trace_of(batch) if self._trace is None else 0.0
        if self._trace is None:
            self._check_finite(total, "trace")
            self._trace = total / self.data.n_examples

    def _add(self, batch: _Batch, scale: Array, vectors: Array, out: Array) -> None:
        """Add the sum over a batch of c_n w_n D A_n D V to `out`, for a few columns of V."""
        # D A_n D V with J_n V = h_n^T V_W + V_b, so J_n^T U = (h_n (x) U, U): D, J, S, J^T, D from
        # the right to the left, the [C, P] rows of J never formed.
        width = vectors.shape[1]
        image = np.zeros((*batch.logits.shape, width), vectors.dtype)
        if (kernel := self._head.kernel) is not None:
            rows = slice(kernel.start, kernel.stop)
            part = (scale[rows] * vectors[rows]).reshape(kernel.shape[0], -1)
            image += (batch.features @ part).reshape(image.shape)
        if (bias := self._head.bias) is not None:
            below = slice(bias.start, bias.stop)
            image += scale[below] * vectors[below]
        weight = batch.weight[:, None, None]
        image = weight * self.likelihood.hessian_times(batch.logits, batch.y, image)
        if kernel is not None:
            product = (batch.features.T @ image.reshape(len(image), -1)).reshape(-1, width)
            product *= scale[rows]
            out[rows] += product
        if bias is not None:
            out[below] += scale[below] * image.sum(axis=0)

    def _batches(self, width: int) -> Iterator[_Batch]:
        """Features, logits, labels and weights, as many examples at a time as products fit."""
        for batch in self.data:
            features, logits = self._head.evaluate(self.network.params, batch.x)
            each = logits.shape[1] * width * logits.dtype.size
            step = max(1, _BLOCK_BYTES // each)
            for start in range(0, len(logits), step):
                some = slice(start, start + step)
                yield _Batch(
                    features[some].numpy(),
                    logits[some].numpy(),
                    batch.y[some],
                    batch.weight[some].numpy(),
                )

    def _trace_of(self, batch: _Batch) -> float:
        """Sum of c_n w_n J_nc D^2 J_nc^T times the diagonal of S."""
        # trace(J^T S J) = sum_c S_cc |J_c|^2 + terms of S off the diagonal, which vanish: rows of
        # two classes have no parameter in common. |J_c D|^2 = sum_i h_i^2 D_ic^2 + D_c^2.
        lengths: Array = np.zeros(batch.logits.shape)
        if (kernel := self._head.kernel) is not None:
            squares = np.square(self.scale[kernel.start : kernel.stop].reshape(kernel.shape))
            lengths += np.square(batch.features, dtype=np.float64) @ squares
        if (bias := self._head.bias) is not None:
            lengths += np.square(self.scale[bias.start : bias.stop])
        diagonal = self.likelihood.hessian_diagonal(batch.logits, batch.y)
        return float(batch.weight @ np.sum(diagonal * lengths, axis=1))

    def _is_finite_on(self, data: Batches) -> bool:
        """Whether some of the data have a finite part of the trace."""
        part = self._over(data)
        return all(np.isfinite(part._trace_of(batch)) for batch in part._batches(1))

    def sampled(self, share: float, seed: Any) -> Self | None:
        """Estimate the curvature from a random share of the examples, which count for all."""
        return self._over(self.data.sampled(share, seed))

    def trace(self) -> float:
        """Trace of A, exact; known after any pass over the data, otherwise one pass."""
        if self._trace is None:
            total = sum(self._trace_of(batch) for batch in self._batches(1))
            self._check_finite(total, "trace")
            self._trace = total / self.data.n_examples
        return self._trace


class _Batch(NamedTuple):
    """Features, logits, labels and weights of some examples, as arrays."""

    features: Array
    logits: Array
    y: tf.Tensor
    weight: Array
