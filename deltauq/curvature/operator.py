"""What all curvatures share: the loop over the data, the mean, the dense and the SciPy form."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse.linalg
import tensorflow as tf

from deltauq.data import Batch, Batches
from deltauq.errors import InvalidInputError
from deltauq.likelihoods import Likelihood, resolve_likelihood
from deltauq.network import Network

__all__ = ["CurvatureOperator"]

Array = npt.NDArray[Any]


class CurvatureOperator(abc.ABC):
    """A `[P, P]`, the mean of a per-example curvature over the data, as products A V.

    Products run in the network's precision; sums over batches are float64.

    Args:
        network: the network; P is `network.n_params`.
        likelihood: a `Likelihood` or its name.
        data: the training set.
        scale: `[P]` or None: the operator is then diag(scale) A diag(scale), which is how the
            prior's metric enters (scale = lambda^-1/2).

    Attributes:
        shape: (P, P).
        dtype: of the products' results, float64.
    """

    #: No eigenvalue is negative, whatever the network.
    positive_semidefinite: ClassVar[bool]
    #: It holds second derivatives of the network.
    second_derivatives: ClassVar[bool] = False
    #: Columns of V that one compiled call takes at most; None where it takes any number.
    _block: ClassVar[int | None] = None

    def __init__(
        self,
        network: Network,
        likelihood: str | Likelihood,
        data: Batches,
        *,
        scale: Array | None = None,
    ) -> None:
        self.network = network
        self.likelihood = resolve_likelihood(likelihood)
        self.data = data
        self.scale = np.ones(network.n_params) if scale is None else np.asarray(scale)
        if self.scale.shape != (network.n_params,):
            raise InvalidInputError(
                "scale has the wrong shape",
                expected=f"[P] = [{network.n_params}]",
                received=str(list(self.scale.shape)),
            )
        self.shape = (network.n_params, network.n_params)
        self.dtype = np.dtype(np.float64)
        self._products: dict[int | None, Any] = {}

    @abc.abstractmethod
    def _batch_product(self, params: tf.Tensor, batch: Batch, vectors: tf.Tensor) -> tf.Tensor:
        """Sum over the batch of w_n A_n V, `[P, b]`; a graph function."""

    @staticmethod
    def rows_per_example(n_outputs: int) -> int:
        """Vectors of length P that one example takes in memory."""
        return 1

    @abc.abstractmethod
    def trace(self) -> float:
        """Trace of A."""

    def matvec(self, vector: Array) -> Array:
        """A v, `[P] -> [P]`; one pass over the data."""
        vector = np.asarray(vector)
        return self.matmat(vector.reshape(-1, 1)).reshape(vector.shape)

    def matmat(self, vectors: Array) -> Array:
        """A V, `[P, b] -> [P, b]`, float64; one pass over the data.

        Raises:
            InvalidInputError: V is not `[P, b]`.
        """
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or vectors.shape[0] != self.shape[0]:
            raise InvalidInputError(
                "vectors has the wrong shape",
                expected=f"[P, b] with P = {self.shape[0]}",
                received=str(list(vectors.shape)),
            )
        scaled = (self.scale[:, None] * vectors).astype(self.network.dtype)
        blocks = [tf.constant(block) for block in self._blocks(scaled)]
        total = np.zeros(vectors.shape)
        for batch in self.data:
            start = 0
            for block in blocks:
                stop = start + block.shape[1]
                product = self._product(block.shape[1] if self._block else None)
                total[:, start:stop] += product(self.network.params, batch, block).numpy()
                start = stop
        return self.scale[:, None] * total / self.data.n_examples

    def _product(self, width: int | None) -> Any:
        """The compiled product of a batch, traced once for each width of V."""
        if width not in self._products:
            parameters = tf.TensorSpec([self.shape[0]], self.network.dtype)
            vectors = tf.TensorSpec([self.shape[0], width], self.network.dtype)
            self._products[width] = tf.function(
                self._batch_product, input_signature=[parameters, self.data.spec, vectors]
            )
        return self._products[width]

    def _blocks(self, vectors: Array) -> list[Array]:
        if self._block is None:
            return [vectors]
        cuts = range(self._block, vectors.shape[1], self._block)
        return np.split(vectors, cuts, axis=1)

    def to_dense(self) -> Array:
        """A itself, float64 `[P, P]`, symmetric to the bit; P products."""
        dense = self.matmat(np.eye(self.shape[0]))
        return (dense + dense.T) / 2

    def to_scipy(self) -> scipy.sparse.linalg.LinearOperator:
        """A as a `scipy.sparse.linalg.LinearOperator`, for `eigsh`, `cg` and the like."""
        return scipy.sparse.linalg.LinearOperator(
            self.shape,
            matvec=self.matvec,
            rmatvec=self.matvec,
            matmat=self.matmat,
            rmatmat=self.matmat,
            dtype=self.dtype,
        )
