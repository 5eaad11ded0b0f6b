"""What the outputs mean: the loss of one example and its first two derivatives in the logits.

A likelihood is a stateless object of pure TensorFlow functions on logits `[B, C]`, usable inside
and outside `tf.function`. A new one is a new class here and one entry in `_BY_NAME`.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.errors import InvalidInputError, UnsupportedModelError

__all__ = ["Categorical", "Likelihood", "check_compiled_loss", "resolve_likelihood"]


@runtime_checkable
class Likelihood(Protocol):
    """The distribution of a label given the logits z of its input."""

    name: str

    def check_labels(self, y: npt.NDArray[Any], n_outputs: int) -> npt.NDArray[Any]:
        """Return the labels as the other methods take them, or raise `InvalidInputError`."""

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Negative log-likelihood of each example, `[B]`."""

    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """D loss / d logits, `[B, C]`."""

    def hessian_factor(self, logits: tf.Tensor) -> tf.Tensor:
        """F `[B, C, R]` with F F^T = d^2 loss / d logits^2 (R is static)."""

    def draw(self, logits: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
        """Labels of the predicted distribution from uniform numbers `[B, D]`, `[B, D]`."""

    def mean(self, logits: tf.Tensor) -> tf.Tensor:
        """Mean of the label: the probabilities, `[B, C]`."""

    def mean_jacobian(self, logits: tf.Tensor) -> tf.Tensor:
        """D mean / d logits, `[B, C, C]`."""


class Categorical:
    """Softmax over C >= 2 classes with cross-entropy; labels are class numbers `[N]`.

    With p = softmax(z): loss = -log p_y, residual = p - onehot(y), Hessian S = diag(p) - p p^T.

    >>> import tensorflow as tf
    >>> Categorical().residual(tf.constant([[0.0, 0.0]]), tf.constant([1])).numpy()
    array([[ 0.5, -0.5]], dtype=float32)
    """

    name = "categorical"

    def check_labels(self, y: npt.NDArray[Any], n_outputs: int) -> npt.NDArray[Any]:
        """Class numbers `[N]` as int32."""
        y = np.asarray(y)
        if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
            raise InvalidInputError(
                "y does not hold class numbers",
                expected="integers of shape [N]",
                received=f"dtype {y.dtype}, shape {list(y.shape)}",
                remedy="pass y.ravel() for a column of numbers, y.argmax(axis=1) for one-hot rows, "
                "y.astype(int) for whole floats, sklearn.preprocessing.LabelEncoder for names",
            )
        if y.size and (y.min() < 0 or y.max() >= n_outputs):
            raise InvalidInputError(
                "y holds labels out of range",
                expected=f"integers from 0 to {n_outputs - 1}, as the model has {n_outputs} "
                "outputs",
                received=f"values from {y.min()} to {y.max()}",
                remedy="number the classes from 0, in the order of the model's outputs",
            )
        return y.astype(np.int32)

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """-log p_y, `[B]`."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)

    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """P - onehot(y), `[B, C]`."""
        return tf.nn.softmax(logits) - tf.one_hot(y, logits.shape[-1], dtype=logits.dtype)

    def hessian_factor(self, logits: tf.Tensor) -> tf.Tensor:
        """F = diag(r) - p r^T with r = sqrt(p), `[B, C, C]`; F F^T = S because r^T r = 1."""
        p = tf.nn.softmax(logits)
        root = tf.sqrt(p)
        return tf.linalg.diag(root) - p[:, :, None] * root[:, None, :]

    def draw(self, logits: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
        """The first class whose cumulated probability exceeds the uniform number."""
        cumulated = tf.cumsum(tf.nn.softmax(logits), axis=1)[:, None, :]
        labels = tf.reduce_sum(tf.cast(cumulated <= uniforms[:, :, None], tf.int32), axis=2)
        return tf.minimum(labels, logits.shape[1] - 1)  # the sum may round to less than one

    def mean(self, logits: tf.Tensor) -> tf.Tensor:
        """softmax(z), `[B, C]`."""
        return tf.nn.softmax(logits)

    def mean_jacobian(self, logits: tf.Tensor) -> tf.Tensor:
        """S = diag(p) - p p^T, `[B, C, C]`."""
        p = tf.nn.softmax(logits)
        return tf.linalg.diag(p) - p[:, :, None] * p[:, None, :]


_BY_NAME: dict[str, type[Categorical]] = {Categorical.name: Categorical}


def resolve_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """A likelihood by name ("auto" is "categorical"), or the object itself.

    Raises:
        InvalidInputError: the name is not known.
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    name = Categorical.name if likelihood == "auto" else likelihood
    if name not in _BY_NAME:
        raise InvalidInputError(
            f"likelihood {likelihood!r} is not known",
            expected=f"'auto', one of {sorted(_BY_NAME)}, or a Likelihood object",
            received=repr(likelihood),
        )
    return _BY_NAME[name]()


def check_compiled_loss(model: Any, ends_in_softmax: bool) -> None:
    """Refuse a model that was compiled with another loss than softmax cross-entropy.

    The curvature must be that of the loss that was minimised. A model that was never compiled
    passes: there is nothing to contradict.

    Raises:
        UnsupportedModelError: another loss, label smoothing, a summed loss, or `from_logits` that
            contradicts the model's last operation.
    """
    compiled = model.get_compile_config() if getattr(model, "compiled", False) else None
    loss = (compiled or {}).get("loss")
    if compiled is None or loss is None:
        return
    name, config = _name_and_config(loss)
    problem = None
    if name not in ("categorical_crossentropy", "sparse_categorical_crossentropy"):
        problem = f"the model was compiled with the loss {name!r}"
    elif config.get("label_smoothing"):
        problem = f"the loss smooths the labels by {config['label_smoothing']}"
    elif compiled.get("loss_weights") not in (None, 1, 1.0, [1], [1.0]):
        problem = f"the loss was compiled with loss_weights={compiled['loss_weights']}"
    elif config.get("ignore_class") is not None:
        problem = f"the loss ignores class {config['ignore_class']}"
    elif config.get("axis", -1) != -1:
        problem = f"the loss takes the classes along axis {config['axis']}"
    elif config.get("reduction", "mean") in (None, "none", "mean_with_sample_weight"):
        problem = f"the loss is reduced by {config['reduction']!r}, so its L2 rate is not known"
    elif config.get("reduction") == "sum":
        problem = "the loss is summed over the batch, so its L2 rate depends on the batch size"
    elif bool(config.get("from_logits")) == ends_in_softmax:
        output = "softmax probabilities" if ends_in_softmax else "logits"
        problem = (
            f"the loss was compiled with from_logits={ends_in_softmax}, but the model's last "
            f"operation gives {output}"
        )
    if problem is not None:
        raise UnsupportedModelError(
            problem,
            expected="mean (sparse) categorical cross-entropy that fits the model's output",
            received=repr(loss),
            remedy="if the weights were trained with plain softmax cross-entropy all the same, "
            "say so: likelihood='categorical' and l2=...",
        )


def _name_and_config(loss: Any) -> tuple[str, dict[str, Any]]:
    """The snake-case name and the configuration of a loss as Keras stores it."""
    if isinstance(loss, dict) and "class_name" in loss:
        config = loss.get("config")
        if loss["class_name"] == "function":
            return str(config), {}
        camel = str(loss["class_name"])
        name = "".join("_" + c.lower() if c.isupper() else c for c in camel).lstrip("_")
        return name, config if isinstance(config, dict) else {}
    return str(loss), {}
