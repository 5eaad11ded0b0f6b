"""The normal distribution of the weights around those that were trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.curvature.parameter_covariance import ParameterCovariance
from deltauq.errors import NotPositiveDefiniteError

if TYPE_CHECKING:
    from tensorflow_probability.python.distributions import Distribution

__all__ = ["RootOperator", "posterior"]

Array = npt.NDArray[Any]


def posterior(params: tf.Tensor, covariance: ParameterCovariance) -> Distribution:
    """The normal distribution N(w^, Sigma) of the weights, to sample from or for densities.

    It is a `tfp.distributions.MultivariateNormalLinearOperator` `[P]` of the precision of the
    weights, float32 as a rule, so that its samples can be assigned to a model; `log_prob` takes
    points of that precision.

    Args:
        params: the trained weights `[P]`.
        covariance: of the weights.

    Raises:
        NotPositiveDefiniteError: the covariance has no density.
    """
    import tensorflow_probability as tfp

    return tfp.distributions.MultivariateNormalLinearOperator(
        loc=params, scale=RootOperator(covariance, params.dtype), name="posterior"
    )


class RootOperator(tf.linalg.LinearOperator):
    """Root of the covariance, S `[P, P]` with S S^T = Sigma; products and solutions take O(P K).

    S = D K with K = U diag(r) U^T + t (I - U U^T), r the roots of the eigenvalues and D the scale
    of the prior's metric. U is orthonormal, so K^-1 is the same of 1 / r and 1 / t, and no matrix
    is factored: what a factorisation would lose to rounding is not lost.

    Args:
        covariance: Sigma.
        dtype: of S, whatever the precision of the eigenvectors.

    Raises:
        NotPositiveDefiniteError: Sigma is singular.
    """

    def __init__(self, covariance: ParameterCovariance, dtype: Any) -> None:
        # det S = det D det K, and K has the eigenvalues r on U and t, P - K times, elsewhere.
        n = covariance.n_examples
        roots = np.sqrt(covariance.spectrum.weights / n)
        tail = float(np.sqrt(covariance.spectrum.tail / n))
        n_params, rank = covariance.vectors.shape
        if not np.all(roots > 0) or not (rank == n_params or tail > 0):
            raise NotPositiveDefiniteError(
                "the parameters' covariance is singular, so it has no density",
                expected="a positive variance in every direction",
                received="zero variance outside the eigenpairs" if tail == 0 else "zero variances",
                remedy="pass another tail than 'none', or meat='opg' with curvature='sandwich'",
            )
        super().__init__(
            tf.as_dtype(dtype),
            is_non_singular=True,
            is_square=True,
            parameters={"covariance": covariance, "dtype": dtype},
        )
        self._roots, self._tail = roots, tail
        self._u = tf.constant(covariance.vectors, dtype)
        self._d = tf.constant(covariance.scale[:, None], dtype)
        self._log_determinant = float(
            np.sum(np.log(covariance.scale))
            + np.sum(np.log(roots))
            + (n_params - rank) * (np.log(tail) if rank < n_params else 0.0)
        )

    def _shape(self) -> tf.TensorShape:
        return tf.TensorShape([self._u.shape[0]] * 2)

    def _shape_tensor(self) -> tf.Tensor:
        return tf.constant([self._u.shape[0]] * 2)

    def _matmul(self, x: tf.Tensor, adjoint: bool = False, adjoint_arg: bool = False) -> tf.Tensor:
        x = tf.linalg.adjoint(x) if adjoint_arg else x
        if adjoint:
            return self._symmetric(self._d * x, self._roots, self._tail)
        return self._d * self._symmetric(x, self._roots, self._tail)

    def _solve(self, rhs: tf.Tensor, adjoint: bool = False, adjoint_arg: bool = False) -> tf.Tensor:
        rhs = tf.linalg.adjoint(rhs) if adjoint_arg else rhs
        roots, tail = 1.0 / self._roots, 1.0 / self._tail if self._tail else 0.0
        if adjoint:
            return self._symmetric(rhs, roots, tail) / self._d
        return self._symmetric(rhs / self._d, roots, tail)

    def _log_abs_determinant(self) -> tf.Tensor:
        return tf.constant(self._log_determinant, self.dtype)

    def _symmetric(self, x: tf.Tensor, roots: Array, tail: float) -> tf.Tensor:
        """(U diag(r) U^T + t (I - U U^T)) x, `[..., P, m]`."""
        along = tf.linalg.matmul(self._u, x, transpose_a=True)
        inside = tf.linalg.matmul(self._u, tf.constant(roots[:, None], x.dtype) * along)
        if not tail:  # nothing is left outside U
            return inside
        return inside + tf.constant(tail, x.dtype) * (x - tf.linalg.matmul(self._u, along))
