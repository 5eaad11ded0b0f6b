"""A loss of the user's own on the logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deltauq.errors import InvalidInputError, NotPositiveDefiniteError
from deltauq.likelihoods.categorical import Categorical
from deltauq.likelihoods.likelihood import Array, Likelihood
from deltauq.likelihoods.wrapped import Wrapped

__all__ = ["CustomLoss"]

#: Negative eigenvalues of the loss's second derivative that rounding explains, of the largest.
_ROUNDING = {"float32": 1e-5, "float64": 1e-12}


class CustomLoss(Wrapped):
    """A differentiable loss on logits, such as a focal loss; labels and means are those of another.

    It is taken for a negative log-likelihood: the weights' covariance is the inverse of its
    curvature over N. The exact Hessian and OPG need nothing more. The GGN takes the loss's second
    derivative in the logits, which must be positive semidefinite on the training data.

    Args:
        function: logits `[B, C]`, labels -> loss of each example `[B]`, in TensorFlow operations.
        like: gives the labels and the means: softmax over classes unless another is given.
        dispersion: the minimised cost divided by the mean of this loss.

    >>> import tensorflow as tf
    >>> focal = CustomLoss(
    ...     lambda z, y: (1 - tf.nn.softmax(z)[:, 0]) ** 2 * tf.nn.softplus(-z[:, 0])
    ... )
    >>> focal.loss(tf.constant([[0.0, 0.0]]), tf.constant([0])).shape
    TensorShape([1])
    """

    name = "custom"

    def __init__(
        self,
        function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        like: Likelihood | None = None,
        *,
        dispersion: float = 1.0,
    ) -> None:
        super().__init__(Categorical() if like is None else like)
        self.function = function
        self.convex = self.curved = False  # as far as is known
        self._dispersion = dispersion

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """The function's values, `[B]`."""
        values = tf.convert_to_tensor(self.function(logits, y))
        if values.shape.rank != 1 or values.dtype != logits.dtype:
            raise InvalidInputError(
                "the custom loss does not give one number an example",
                expected=f"values [B] of dtype {logits.dtype.name} from logits [B, C] and labels",
                received=f"shape {values.shape}, dtype {values.dtype.name}",
                remedy="return the loss of each example, without a mean over the batch",
            )
        return values

    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """The loss's gradient in the logits, `[B, C]`."""
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total = tf.reduce_sum(self.loss(logits, y))
        return tape.gradient(total, logits, unconnected_gradients="zero")

    def second_derivative(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """The loss's second derivative in the logits, `[B, C, C]`, symmetric."""
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(logits)
            columns = tf.unstack(self.residual(logits, y), axis=1)
        rows = [tape.gradient(c, logits, unconnected_gradients="zero") for c in columns]
        matrix = tf.stack(rows, axis=1)
        return (matrix + tf.linalg.matrix_transpose(matrix)) / 2

    def hessian_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """V diag(sqrt(d)) of the second derivative V diag(d) V^T, `[B, C, C]`.

        `check_convex` was called with all the data before.
        """
        values, vectors = tf.linalg.eigh(self.second_derivative(logits, y))
        return vectors * tf.sqrt(tf.nn.relu(values))[:, None, :]

    def curvature_and_slope(self, logits: tf.Tensor, y: tf.Tensor) -> tuple[Array, Array]:
        """The largest entry of each row of d^2 loss / dz^2, and (d loss / dz)^2, `[B, C]`."""
        second = self.second_derivative(logits, y).numpy().astype(np.float64)
        slope = self.residual(logits, y).numpy().astype(np.float64)
        return np.max(np.abs(second), axis=2), np.square(slope)

    def is_flat(self, curvature: Array, slope: Array, epsilon: float) -> Array:
        """Under sqrt(epsilon) of the squared slope, which sqrt(e^2) for |e| leaves of it."""
        return np.asarray(curvature <= np.sqrt(epsilon) * slope)

    def check_convex(self, logits: tf.Tensor, y: tf.Tensor) -> None:
        """`NotPositiveDefiniteError` at a negative eigenvalue beyond rounding."""
        values = np.linalg.eigvalsh(self.second_derivative(logits, y).numpy())
        limit = _ROUNDING[logits.dtype.name] * max(float(np.abs(values).max(initial=0)), 1.0)
        if not np.min(values, initial=0.0) >= -limit:
            raise NotPositiveDefiniteError(
                "the custom loss is not convex in the logits, so it has no GGN",
                expected="a positive semidefinite second derivative at every example",
                received=f"an eigenvalue of {values.min():.3g}",
                remedy="use curvature='hessian' or 'opg'",
            )

    def dispersion(self, n_outputs: int) -> float:
        """As given."""
        return self._dispersion

    @property
    def scaled_by_noise(self) -> bool:
        """The function does not know of it: it is that of observations alone."""
        return False

    def with_noise(self, noise: Array) -> CustomLoss:
        """The same with variances `[C]` in the other likelihood."""
        inner = self.inner.with_noise(noise)
        return CustomLoss(self.function, inner, dispersion=self._dispersion)

    def n_rows(self, n_outputs: int) -> int:
        """One an output."""
        return n_outputs

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"CustomLoss({name}, like={self.inner!r})"
