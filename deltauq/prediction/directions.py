"""The combinations of the logits along which the rows of the Jacobian are taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.special
import tensorflow as tf

from deltauq.data.arrays import as_labels
from deltauq.errors import InvalidInputError
from deltauq.likelihoods import Likelihood

__all__ = ["AllOutputs", "Directions", "Shown", "SomeClasses", "most_probable", "some_classes"]

Array = npt.NDArray[Any]

#: Of more classes than this the most probable ones of an input stand for all, so many of them.
_MANY, _FEW = 100, 10


class Shown(NamedTuple):
    """What a prediction shows, and how it moves with the rows of the Jacobian; float64.

    Attributes:
        logits: `[B, M]`.
        mean: `[B, M]`.
        back: d logits / d rows `[B, M, R]`.
        slope: d mean / d rows `[B, M, R]`.
        masked: which predictions the mask on the model's output takes out `[B]`.
        classes: of `SomeClasses`, which class each column is about `[B, M]`.
        log_odds: of `SomeClasses`, of those classes `[B, M]`.
    """

    logits: Array
    mean: Array
    back: Array
    slope: Array
    masked: Array
    classes: Array | None = None
    log_odds: Array | None = None


class Directions(Protocol):
    """A choice of R combinations of an input's logits, along which its predictions are taken.

    Attributes:
        positions: T, the predictions an input makes.
    """

    @property
    def positions(self) -> int:
        """Number T of predictions that an input makes, one for each position."""

    def cotangents(self, logits: tf.Tensor) -> tf.Tensor:
        """Combinations `[B, R, C]`, R static, at logits `[B, C]`; inside a `tf.function`."""

    def shown(self, logits: Array) -> Shown:
        """What is shown at logits `[B, C]`, one row for each position, none masked.

        Args:
            logits: in the network's precision.
        """


class AllOutputs:
    """Directions that span all logits: the rows of an orthogonal matrix.

    A softmax does not see the direction in which all logits move alike, whose variance can be huge:
    kept apart it cannot drown the others in its rounding. So the rows are Helmert's contrasts of
    the classes then, of which the first one is constant.

    Args:
        likelihood: of the labels.
    """

    def __init__(self, likelihood: Likelihood) -> None:
        self._likelihood = likelihood
        self.positions = likelihood.positions

    def __eq__(self, other: object) -> bool:
        """Whether the directions are the same, which those of other noise are."""
        return isinstance(other, AllOutputs) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[int, bool]:
        """What the cotangents of a network depend on."""
        return self.positions, self._likelihood.shift_invariant

    def cotangents(self, logits: tf.Tensor) -> tf.Tensor:
        """The orthogonal matrix for every input, in blocks for its positions, `[B, R, C]`."""
        one = self._matrix(int(logits.shape[1]) // self.positions)
        matrix = tf.constant(np.kron(np.eye(self.positions), one), logits.dtype)
        return tf.broadcast_to(matrix, [tf.shape(logits)[0], *matrix.shape])

    def shown(self, logits: Array) -> Shown:
        """Logits and means of all outputs, one row for each position."""
        shown = self.symbolic(tf.constant(logits))
        return Shown(*(np.asarray(part) for part in shown[:5]))

    def symbolic(self, logits: tf.Tensor) -> Shown:
        """Logits and means of all outputs as tensors, inside a `tf.function` too."""
        likelihood = self._likelihood
        n_outputs = logits.shape[1] // self.positions
        logits = tf.cast(tf.reshape(logits, [-1, n_outputs]), tf.float64)
        matrix, to_shown = self._matrix(n_outputs), likelihood.shown_logits(n_outputs)
        along = matrix.T
        if likelihood.shift_invariant:
            along = along * (np.arange(n_outputs) > 0)  # the first one moves no mean
        slope = likelihood.mean_jacobian(logits) @ along
        back = tf.broadcast_to(tf.constant(to_shown @ matrix.T), tf.shape(slope))
        masked = tf.zeros(tf.shape(logits)[:1], tf.bool)
        return Shown(logits @ to_shown.T, likelihood.mean(logits), back, slope, masked)

    def _matrix(self, n_outputs: int) -> Array:
        """The orthogonal matrix `[C, C]`: Helmert's contrasts for a softmax, else the identity."""
        if not self._likelihood.shift_invariant:
            return np.eye(n_outputs)
        return np.asarray(scipy.linalg.helmert(n_outputs, full=True))


@dataclass(frozen=True)
class SomeClasses:
    """Directions of some classes of many: their logits and their log odds.

    For k classes there are 2 k rows, however many classes the model has: the logits z_c, and the
    log odds log(p_c / (1 - p_c)), whose derivative in the logits is e_c - q with q the
    probabilities of the other classes given that it is none of c. dp_c = p_c (1 - p_c) d log odds.

    Attributes:
        chosen: class numbers, or a number k: the k most probable classes of each input.
    """

    chosen: tuple[int, ...] | int
    positions: int = 1

    def __len__(self) -> int:
        return self.chosen if isinstance(self.chosen, int) else len(self.chosen)

    def classes(self, logits: Any) -> tf.Tensor:
        """Numbers of the chosen classes of each input, `[B, k]`."""
        if isinstance(self.chosen, int):
            return tf.math.top_k(logits, self.chosen).indices
        return tf.broadcast_to(tf.constant(self.chosen, tf.int32), [tf.shape(logits)[0], len(self)])

    def cotangents(self, logits: tf.Tensor) -> tf.Tensor:
        """Derivatives of the logits, e_c, and of the log odds, e_c - q, `[B, 2 k, C]`."""
        ones = tf.one_hot(self.classes(logits), logits.shape[1], dtype=logits.dtype)
        others = tf.where(ones > 0, logits.dtype.min, logits[:, None, :])
        return tf.concat([ones, ones - tf.nn.softmax(others)], axis=1)

    def shown(self, logits: Array) -> Shown:
        """Logits and probabilities of the chosen classes, the most probable first if asked for."""
        classes = self.classes(logits).numpy()
        wide = logits.astype(np.float64)
        own = np.take_along_axis(wide, classes, axis=1)
        log_odds = own - _others(wide, classes)
        p, rest = scipy.special.expit(log_odds), scipy.special.expit(-log_odds)
        one, nothing = np.eye(len(self)), np.zeros((len(self), len(self)))
        back = np.broadcast_to(np.hstack([one, nothing]), (len(p), len(self), 2 * len(self)))
        slope = (p * rest)[:, :, None] * np.hstack([nothing, one])
        return Shown(own, p, back, slope, np.zeros(len(p), bool), classes, log_odds)


def most_probable(likelihood: Likelihood, n_outputs: int) -> SomeClasses | None:
    """The classes that stand for all of a softmax where there are many; None for all outputs."""
    softmax = likelihood.shift_invariant and likelihood.positions == 1
    return SomeClasses(_FEW) if softmax and n_outputs > _MANY else None


def some_classes(
    classes: str | Sequence[int], likelihood: Likelihood, n_outputs: int
) -> SomeClasses:
    """Understand the classes that a user names: "top5", or class numbers.

    Raises:
        InvalidInputError: they are no classes of this model, or it has no softmax.
    """
    if not likelihood.shift_invariant or likelihood.positions > 1:
        raise InvalidInputError(
            "classes cannot be chosen",
            expected="a softmax over the classes, one prediction an input",
            received=repr(likelihood),
            remedy="predict(x) gives all outputs",
        )
    if isinstance(classes, str):
        match = re.fullmatch(r"top(\d+)", classes)
        if match and 1 <= int(match[1]) <= n_outputs:
            return SomeClasses(int(match[1]))
    else:
        numbers = as_labels(classes, name="classes")
        whole = numbers.ndim == 1 and len(numbers) > 0 and numbers.dtype.kind in "iu"
        if whole and len(np.unique(numbers)) == len(numbers):
            chosen = tuple(int(n) for n in numbers)
            if min(chosen) >= 0 and max(chosen) < n_outputs:
                return SomeClasses(chosen)
    raise InvalidInputError(
        "classes are none of this model's",
        expected=f"'top5' or another number up to {n_outputs}, or different class numbers from 0 "
        f"to {n_outputs - 1}",
        received=repr(classes),
    )


def _others(logits: Array, classes: Array) -> Array:
    """Log of the sum of the exponentials of all logits but each class's own, `[B, k]`."""
    result = np.empty(classes.shape)
    for k in range(classes.shape[1]):
        others = logits.copy()
        np.put_along_axis(others, classes[:, k : k + 1], -np.inf, axis=1)
        result[:, k] = scipy.special.logsumexp(others, axis=1)
    return result
