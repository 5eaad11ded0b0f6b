"""A likelihood made of a loss function of the user's own on the logits."""

from __future__ import annotations

import reprlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deltauq.errors import (
    DeltaUQError,
    InvalidInputError,
    NotPositiveDefiniteError,
    what_it_says,
)
from deltauq.likelihoods.categorical import Categorical
from deltauq.likelihoods.likelihood import Array, Likelihood
from deltauq.likelihoods.loss_names import function_in_words
from deltauq.likelihoods.wrapped import Wrapped

__all__ = ["CustomLoss"]

#: Negative eigenvalues of the loss's second derivative that rounding explains, of the largest.
_ROUNDING = {"float32": 1e-5, "float64": 1e-12}


def _to_one_number(rank: int | None) -> str:
    """What to do with the values of a loss function that have this rank, or another dtype."""
    if rank == 1:
        return "compute in the dtype of the logits: tf.cast(values, logits.dtype)"
    if rank == 0:
        return "return the loss of each example, without a mean over the batch"
    return "add up what belongs to one example: tf.reduce_sum(values, axis=1)"


class CustomLoss(Wrapped):
    """A differentiable loss on logits, such as a focal loss, with the labels and means of another.

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
        if not callable(function):
            raise InvalidInputError(
                "the custom loss is no function",
                expected="a function of logits [B, C] and labels, in TensorFlow",
                received=reprlib.repr(function),
            )
        super().__init__(Categorical() if like is None else like)
        self.function = function
        self.convex = self.curved = False  # as far as is known
        self._dispersion = dispersion

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Values of the user's function, one an example, `[B]`.

        Raises:
            InvalidInputError: the function does not give one number an example.
        """
        try:
            values = tf.convert_to_tensor(self.function(logits, y))
        except (DeltaUQError, MemoryError):
            raise
        except Exception as error:  # it is the user's, and may raise anything
            raise InvalidInputError(
                "the custom loss fails",
                expected=f"a function of logits [B, {logits.shape[1]}] and labels, in TensorFlow",
                received=f"{type(error).__name__}, which says: {what_it_says(error)}",
            ) from error
        if values.shape.rank != 1 or values.dtype != logits.dtype:
            raise InvalidInputError(
                "the custom loss does not give one number an example",
                expected=f"values [B] of dtype {logits.dtype.name} from logits [B, C] and labels",
                received=f"shape {values.shape}, dtype {values.dtype.name}",
                remedy=_to_one_number(values.shape.rank),
            )
        return values

    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Gradient of the function in the logits, by automatic differentiation, `[B, C]`."""
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total = tf.reduce_sum(self.loss(logits, y))
        return tape.gradient(total, logits, unconnected_gradients="zero")

    def second_derivative(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Second derivative of the function in the logits, by differentiating twice, `[B, C, C]`.

        It is made symmetric, and may be indefinite.
        """
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(logits)
            columns = tf.unstack(self.residual(logits, y), axis=1)
        rows = [tape.gradient(c, logits, unconnected_gradients="zero") for c in columns]
        matrix = tf.stack(rows, axis=1)
        return (matrix + tf.linalg.matrix_transpose(matrix)) / 2

    def hessian_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Square root of the function's second derivative, V diag(sqrt(d)), `[B, C, C]`.

        V diag(d) V^T is that derivative. Negative d count as zero: `check_convex` has refused any
        beyond rounding before.
        """
        values, vectors = tf.linalg.eigh(self.second_derivative(logits, y))
        return vectors * tf.sqrt(tf.nn.relu(values))[:, None, :]

    def curvature_and_slope(self, logits: tf.Tensor, y: tf.Tensor) -> tuple[Array, Array]:
        """Size of the curvature in each output and the squared slope, `[B, C]` each, float64.

        The curvature is the largest absolute entry of each row of d^2 loss / dz^2, the slope
        d loss / dz.
        """
        second = self.second_derivative(logits, y).numpy().astype(np.float64)
        slope = self.residual(logits, y).numpy().astype(np.float64)
        return np.max(np.abs(second), axis=2), np.square(slope)

    def is_flat(self, curvature: Array, slope: Array, epsilon: float) -> Array:
        """Whether the curvature is below sqrt(epsilon) of the squared slope.

        A kink such as |e|, coded as sqrt(e^2), leaves about that much of rounding.
        """
        return np.asarray(curvature <= np.sqrt(epsilon) * slope)

    def check_convex(self, logits: tf.Tensor, y: tf.Tensor) -> None:
        """Refuse the loss as not convex where an eigenvalue of its second derivative is negative.

        Raises:
            NotPositiveDefiniteError: an eigenvalue is negative beyond rounding.
        """
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
        """Minimised cost over the mean of this loss, as it was given to the constructor."""
        return self._dispersion

    @property
    def scaled_by_noise(self) -> bool:
        """Always False: the user's function does not contain the noise of a regression."""
        return False

    def with_noise(self, noise: Array) -> CustomLoss:
        """A loss like this one with noise variances `[C]` in the likelihood of its means."""
        inner = self.inner.with_noise(noise)
        return CustomLoss(self.function, inner, dispersion=self._dispersion)

    def n_rows(self, n_outputs: int) -> int:
        """Columns R of `hessian_factor`, one for every output, as its factor is square."""
        return n_outputs

    def __repr__(self) -> str:
        return f"CustomLoss({function_in_words(self.function)}, like={self.inner!r})"
