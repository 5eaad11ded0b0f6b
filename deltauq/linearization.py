"""The network linearised in its parameters, and what prediction covariances need of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import tensorflow as tf

from deltauq.errors import NumericalError
from deltauq.jacobians import PerExample
from deltauq.likelihoods import Likelihood
from deltauq.linalg import root_diagonal
from deltauq.network import Network

__all__ = ["Directions", "Linearization", "Sketch", "contrasts"]

Array = npt.NDArray[Any]

#: D U, `[size, K]` for every variable.
Directions = list[tf.Tensor]


class Linearization:
    """The network linearised in its parameters: logits(w) = logits + J (w - w^).

    The C rows of J are taken along contrasts of the classes, the rows of an orthogonal matrix
    H `[C, C]` whose first row is constant. A softmax does not see that first direction, whose
    variance can be huge: kept apart it cannot drown the others in its rounding.

    Args:
        network: the network.
        likelihood: its mean turns logits into probabilities.
        spec: of the inputs.
        per_example: the network's row rules.
        scale: D `[P]`, one number for each variable, applied to the columns of J.
    """

    def __init__(
        self,
        network: Network,
        likelihood: Likelihood,
        spec: Any,
        per_example: PerExample,
        scale: Array,
    ) -> None:
        self.network = network
        self.likelihood = likelihood
        self._scale = scale

        def rows(params: tf.Tensor, x: Any) -> tuple[tf.Tensor, tf.Tensor]:
            jacobian, logits = per_example.rows(params, x, _every_class)
            return logits, jacobian

        rates = [float(scale[parameter.start]) for parameter in network.parameters]

        def apart(params: tf.Tensor, x: Any, *vectors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            factors, _ = per_example.factors(params, x, _every_contrast)
            along = _sum(f.times(v) for f, v in zip(factors, vectors, strict=True))
            flat = tf.reshape(along, [-1, tf.shape(along)[2]])
            grams = []
            for factor, v, s in zip(factors, vectors, rates, strict=True):
                inside = tf.matmul(flat, v / s, transpose_b=True)  # v holds D U
                rest = s * factor.rows()
                rest -= tf.reshape(inside, tf.shape(rest))
                grams.append(tf.matmul(rest, rest, transpose_b=True))
            return along, _sum(grams)

        def whole(
            params: tf.Tensor, x: Any, *vectors: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            factors, logits = per_example.factors(params, x, _every_contrast)
            along = _sum(f.times(v) for f, v in zip(factors, vectors, strict=True))
            gram = _sum(s * s * f.gram() for f, s in zip(factors, rates, strict=True))
            return logits, along, gram

        flat = tf.TensorSpec([network.n_params], network.dtype)
        pieces = [tf.TensorSpec([p.size, None], network.dtype) for p in network.parameters]
        self._rows = tf.function(rows, input_signature=[flat, spec])
        self._apart = tf.function(apart, input_signature=[flat, spec, *pieces])
        self._whole = tf.function(whole, input_signature=[flat, spec, *pieces])

    def jacobian(self, x: Any) -> tuple[Array, Array]:
        """Logits `[B, C]` and J D `[B, C, P]`, in the network's precision."""
        logits, rows = self._rows(self.network.params, x)
        return logits.numpy(), rows.numpy() * self._scale.astype(self.network.dtype)

    def along(self, vectors: Array) -> Directions:
        """Orthonormal vectors U `[P, K]` as `sketch` reads them: D U, cut at the variables."""
        dtype = np.dtype(self.network.dtype)
        return [
            tf.constant(np.multiply(vectors[p.start : p.stop], self._scale[p.start], dtype=dtype))
            for p in self.network.parameters
        ]

    def sketch(self, x: Any, directions: Directions) -> Sketch:
        """What the covariances of a batch are made of, along the contrasts of the classes.

        The part of J D outside U is J J^T less the part inside, as long as the difference leaves
        enough of it; where it would cancel, the part outside is formed on its own.

        Raises:
            NumericalError: logits that are not finite.
        """
        params = self.network.params
        parts = self._whole(params, x, *directions)
        logits, along, gram = (part.numpy().astype(np.float64) for part in parts)
        _check_finite(logits)
        rest = gram - along @ np.swapaxes(along, 1, 2)
        slope = self._slope(logits)
        cancelled = _cancels(gram, rest, slope, float(np.finfo(self.network.dtype).eps))
        if np.any(cancelled):
            some = tf.nest.map_structure(lambda leaf: tf.boolean_mask(leaf, cancelled), x)
            along[cancelled], rest[cancelled] = self._apart(params, some, *directions)
        return Sketch(logits, self.likelihood.mean(logits).numpy(), along, rest, slope)

    def _slope(self, logits: Array) -> Array:
        """D mean / d contrasts, `[B, C, C]`; no class moves along the constant contrast."""
        slope = self.likelihood.mean_jacobian(logits).numpy() @ contrasts(logits.shape[1]).T
        slope[:, :, 0] = 0.0
        return np.asarray(slope)


@dataclass(frozen=True)
class Sketch:
    """What covariances are made of; float64, C' contrasts of the classes.

    Attributes:
        logits: `[B, C]`.
        mean: `[B, C]`.
        along: H J D U `[B, C', K]`.
        rest: R R^T `[B, C', C']` with R = H J D (I - U U^T).
        slope: d mean / d contrasts `[B, C, C']`.
    """

    logits: Array
    mean: Array
    along: Array
    rest: Array
    slope: Array


def _cancels(gram: Array, rest: Array, slope: Array, epsilon: float) -> Array:
    """Inputs whose part outside U is too small beside the whole to come from a difference, `[B]`.

    Rounding of `gram` is about epsilon times its diagonal. The variance of every logit and of every
    probability, a combination of contrasts, must leave a relative error under 1e-4 of its rest.
    """
    limit = 1e4 * epsilon
    root = root_diagonal(gram)
    to_logits = np.broadcast_to(contrasts(gram.shape[1]).T, gram.shape)
    cancelled = np.zeros(len(gram), bool)
    for combination in (to_logits, slope):
        left = np.einsum("bij,bjk,bik->bi", combination, rest, combination, optimize=True)
        whole = np.einsum("bij,bj->bi", np.abs(combination), root) ** 2
        cancelled |= np.any((left < limit * whole) & (whole > 0), axis=1)
    return cancelled


def contrasts(n_classes: int) -> Array:
    """H `[C, C]`, orthogonal, its first row constant: Helmert's contrasts of the classes."""
    return np.asarray(scipy.linalg.helmert(n_classes, full=True))


def _sum(terms: Iterable[tf.Tensor]) -> tf.Tensor:
    return tf.add_n(list(terms))


def _every_class(logits: tf.Tensor) -> tf.Tensor:
    """The identity as cotangents: `[B, C]` -> `[B, C, C]`."""
    return _for_each(np.eye(logits.shape[1]), logits)


def _every_contrast(logits: tf.Tensor) -> tf.Tensor:
    """The contrasts as cotangents: `[B, C]` -> `[B, C, C]`."""
    return _for_each(contrasts(logits.shape[1]), logits)


def _for_each(matrix: Array, logits: tf.Tensor) -> tf.Tensor:
    constant = tf.constant(matrix, logits.dtype)
    return tf.broadcast_to(constant, [tf.shape(logits)[0], *constant.shape])


def _check_finite(logits: Array) -> None:
    if not np.all(np.isfinite(logits)):
        raise NumericalError(
            "the logits are not finite",
            expected="finite logits for finite inputs",
            received=f"{np.count_nonzero(~np.isfinite(logits))} values of NaN or infinity",
            remedy="look for overflow in the model, such as unscaled inputs",
        )
