"""The likelihood of a classifier: softmax over several classes, of which one is true."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.special
import tensorflow as tf

from deltauq.errors import InvalidInputError
from deltauq.likelihoods.class_numbers import (
    check_class_numbers,
    check_names,
    check_number_of_names,
    check_smoothing,
    class_numbers,
    numbers_of_names,
)
from deltauq.likelihoods.likelihood import Array, Likelihood
from deltauq.likelihoods.links import probit_logits

__all__ = ["Categorical"]


class Categorical(Likelihood):
    """Softmax over C >= 2 classes with cross-entropy.

    Labels are class numbers `[N]` or `[N, 1]`, names where `classes` gives their order, or
    distributions q `[N, C]` (one-hot or soft). With p = softmax(z): loss = -sum_c q_c log p_c,
    residual = p - q, Hessian S = diag(p) - p p^T whatever q.

    Args:
        label_smoothing: epsilon: q is mixed with the uniform distribution, (1 - epsilon) q +
            epsilon / C, as Keras' losses do.
        classes: names of the classes in the order of the model's outputs, for labels that are
            names.

    >>> import tensorflow as tf
    >>> Categorical().residual(tf.constant([[0.0, 0.0]]), tf.constant([1])).numpy()
    array([[ 0.5, -0.5]], dtype=float32)
    """

    name = "categorical"
    outcome = "classes"
    link = "Softmax"
    shift_invariant = True
    curved = True

    def __init__(
        self, *, label_smoothing: float = 0.0, classes: Sequence[str] | None = None
    ) -> None:
        self.label_smoothing = check_smoothing(label_smoothing)
        self.classes = check_names(classes)

    def check_outputs(self, n_outputs: int) -> None:
        """Refuse a model with a single output, and say which likelihood fits it.

        Raises:
            InvalidInputError: the model has one output, or another number than there are names.
        """
        if n_outputs < 2:
            raise InvalidInputError(
                "the likelihood 'categorical' needs two outputs or more",
                expected="one output a class",
                received=f"a model with {n_outputs}",
                remedy="pass likelihood='binary', or a loss of your own as CustomLoss(f, "
                "Binary()), for one sigmoid that tells two classes apart",
            )
        check_number_of_names(self.classes, n_outputs)

    def check_labels(self, y: Array, n_outputs: int) -> Array:
        """Labels as class numbers `[N]`, int32, or as distributions `[N, C]` where soft."""
        y = numbers_of_names(np.asarray(y), self.classes, n_outputs)
        if y.ndim == 2 and y.shape[1] == n_outputs and y.dtype.kind in "fiub":
            return _distributions(y)
        check_class_numbers(y, n_outputs)
        return class_numbers(y).astype(np.int32)

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Cross-entropy of each example in nats, -sum_c q_c log p_c, `[B]`."""
        if y.shape.rank == 1 and not self.label_smoothing:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
        return tf.nn.softmax_cross_entropy_with_logits(self._target(y, logits), logits)

    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Gradient of the loss in the logits, softmax(z) - q with the labels smoothed, `[B, C]`."""
        return tf.nn.softmax(logits) - self._target(y, logits)

    def hessian_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Square root F `[B, C, C - 1]` of S = diag(p) - p p^T, whose rank is C - 1.

        The Cholesky factor of S with the most probable class in the last place, where its last
        column is zero, and the classes in their own places again.
        """
        # q_k = sum_{i >= k} p_i in that order: F_kk = sqrt(p_k q_k+1 / q_k), and below it
        # F_jk = -p_j sqrt(p_k / (q_k q_k+1)). Row c of F is row place[c] of that factor.
        p, place, diagonal, below = _cholesky(logits)
        columns = tf.range(diagonal.shape[1])
        lower = -p[:, :, None] * tf.cast(place[:, :, None] > columns, p.dtype) * below[:, None, :]
        return lower + tf.cast(place[:, :, None] == columns, p.dtype) * diagonal[:, None, :]

    def hessian_factor_times(
        self, logits: tf.Tensor, y: tf.Tensor, vectors: tf.Tensor
    ) -> tf.Tensor:
        """Product F v `[B, C, D]` of the factor without a `[C, C - 1]` matrix."""
        # Row j below the diagonal is -p_j times one vector, so that it makes a running sum.
        p, place, diagonal, below = _cholesky(logits)
        own = tf.pad(diagonal[:, :, None] * vectors, [[0, 0], [0, 1], [0, 0]])
        sums = tf.pad(tf.cumsum(below[:, :, None] * vectors, axis=1), [[0, 0], [1, 0], [0, 0]])
        own, sums = (tf.gather(part, place, batch_dims=1) for part in (own, sums))
        return own - p[:, :, None] * sums

    def n_rows(self, n_outputs: int) -> int:
        """Number of rows that an example has in the GGN, C - 1: no row for a shift of all logits.

        One fewer than outputs, because probabilities sum to one.
        """
        return n_outputs - 1

    def hessian_times(self, logits: Array, y: tf.Tensor, vectors: Array) -> Array:
        """Product S v = p v - p (p^T v) of the second derivative without a `[C, C]` matrix."""
        p = scipy.special.softmax(logits, axis=1)[:, :, None]
        image = p * vectors
        return np.asarray(image - p * image.sum(axis=1, keepdims=True))

    def hessian_diagonal(self, logits: Array, y: tf.Tensor) -> Array:
        """Second derivative of the loss in each logit, p_c (1 - p_c), `[B, C]`, float64."""
        p = scipy.special.softmax(logits.astype(np.float64), axis=1)
        return np.asarray(p * (1.0 - p))

    def is_flat(self, curvature: Array, slope: Array, epsilon: float) -> Array:
        """Whether a class has probability 1 up to rounding, so that the loss has no curvature."""
        return np.asarray(curvature <= epsilon)

    def mean(self, logits: tf.Tensor) -> tf.Tensor:
        """Probabilities of the classes, softmax(z), `[B, C]`; each row sums to one."""
        return tf.nn.softmax(logits)

    def mean_jacobian(self, logits: tf.Tensor) -> tf.Tensor:
        """Derivative of the probabilities in the logits, S = diag(p) - p p^T, `[B, C, C]`."""
        p = tf.nn.softmax(logits)
        return tf.linalg.diag(p) - p[:, :, None] * p[:, None, :]

    def log_predictive(self, logits: Array, variance: Array, y: Array) -> Array:
        """Log-likelihood of the labels in nats with normal logits integrated out, `[B]`.

        E softmax(z) is approximated by the softmax of `probit_logits`.
        """
        log_p = scipy.special.log_softmax(probit_logits(logits, variance), axis=1)
        target = self._target(tf.constant(y), tf.constant(log_p)).numpy()
        return np.asarray(np.sum(target * log_p, axis=1))

    def _target(self, y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Labels as distributions q over the classes `[B, C]`, smoothed."""
        n_classes = logits.shape[-1]
        q = tf.one_hot(y, n_classes, dtype=logits.dtype) if y.shape.rank == 1 else y
        smoothing = self.label_smoothing
        q = tf.cast(q, logits.dtype)
        return (1.0 - smoothing) * q + smoothing / n_classes if smoothing else q

    def __repr__(self) -> str:
        smoothing = f"label_smoothing={self.label_smoothing:g}" if self.label_smoothing else ""
        return f"Categorical({smoothing})"


def _cholesky(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The Cholesky factor of diag(p) - p p^T, the most probable class last, as four arrays.

    The sums q_k of what is behind are sums, never 1 - ..., and hold the largest probability: they
    lose nothing where p is 0 or 1 up to rounding, and none is below 1 / C. They and their roots are
    float64, and rounded to the logits' precision once.

    Returns:
        p `[B, C]` in the order of the logits; the place of each class in that of the factor
        `[B, C]`; its diagonal, and what -p_j multiplies below it, `[B, C - 1]` each.
    """
    p = tf.nn.softmax(tf.cast(logits, tf.float64))
    numbers, last = tf.range(p.shape[1]), p.shape[1] - 1
    top = tf.argmax(p, axis=1, output_type=tf.int32)[:, None]
    # Two classes change places, and change them back likewise.
    place = tf.where(numbers == top, last, tf.where(numbers == last, top, numbers))
    ordered = tf.gather(p, place, batch_dims=1)
    sums = tf.cumsum(ordered, axis=1, reverse=True)
    here, q, behind = ordered[:, :-1], sums[:, :-1], sums[:, 1:]
    roots = tf.sqrt(here * behind / q), tf.sqrt(here / (q * behind))
    p, diagonal, below = (tf.cast(part, logits.dtype) for part in (p, *roots))
    return p, place, diagonal, below


def _distributions(y: Array) -> Array:
    """One-hot rows as class numbers, which take less memory; soft ones as they are."""
    sums = y.sum(axis=1, dtype=np.float64)
    empty = ~np.any(y, axis=1)
    if np.any(empty) and not np.all(empty) and not np.any(y < 0):
        raise _no_class(int(np.count_nonzero(empty)), len(y))
    if np.any(y < 0) or not np.allclose(sums, 1.0, rtol=0, atol=1e-4):
        raise InvalidInputError(
            "y holds rows that are no distributions over the classes",
            expected="one-hot or soft labels: rows >= 0 that sum to 1",
            received=f"sums from {sums.min():.4g} to {sums.max():.4g}, entries from {y.min():.4g}",
            remedy="divide shares by their sum, y / y.sum(axis=1, keepdims=True); for several "
            "labels an input use likelihood='multilabel', with a model that ends in sigmoids or "
            "their logits",
        )
    one_hot = np.all(np.isin(y, (0, 1)))
    return class_numbers(y).astype(np.int32) if one_hot else y


def _no_class(n_empty: int, n_rows: int) -> InvalidInputError:
    """The error for rows of labels that are all zero, as padding and "no class" are written.

    Keras counts such a row in its mean. Its loss is zero, and its gradient is not: TensorFlow's
    cross-entropy gives softmax(z) - q, right for rows that sum to one alone. So weights that were
    trained with them minimise no cost of the other rows. Of weight zero they are out of both, and
    Keras minimises sum(loss) / rows + a sum w^2: as many times more beside the mean over N as
    there are rows to N.
    """
    factor = n_rows / (n_rows - n_empty)
    return InvalidInputError(
        f"y holds {n_empty} rows that are all zero, which belong to no class",
        expected="one-hot or soft labels: rows >= 0 that sum to 1",
        received=f"{n_empty} of {n_rows} rows of labels all zero",
        remedy="give them the weight zero, here and in training: keep = y.any(axis=-1), "
        "model.fit(x, y, sample_weight=keep.astype(float)), because TensorFlow's gradient pulls at "
        "the outputs of such a row as if it were an example; then y[~keep, 0] = 1 and "
        "fit(x, y, sample_weight=keep). Keras divides by all rows, those of weight zero too: a "
        f"rate of its L2 that is read is multiplied by rows / kept rows, {factor:.6g} here; "
        "multiply one that you give as l2=... by it",
    )
