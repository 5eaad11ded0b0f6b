"""The network linearised in its parameters, and what prediction covariances need of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import tensorflow as tf

from deltauq.errors import NumericalError
from deltauq.jacobians import Cotangents, Factor, PerExample, Workspace, evaluated, stacked
from deltauq.likelihoods import Likelihood
from deltauq.linalg import root_diagonal
from deltauq.network import Network

__all__ = ["Linearization", "Rows", "Sketch", "contrasts"]

Array = npt.NDArray[Any]


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
        self._rates = [float(scale[parameter.start]) for parameter in network.parameters]
        self._factors: dict[Cotangents, Any] = {
            cotangents: tf.function(
                partial(per_example.factors, cotangents=cotangents),
                input_signature=[tf.TensorSpec([network.n_params], network.dtype), spec],
            )
            for cotangents in (_every_class, _every_contrast)
        }

    def rescaled(self, factor: float) -> Linearization:
        """The same with D times a factor."""
        other = copy.copy(self)
        other._rates = [rate * factor for rate in self._rates]
        return other

    def jacobian(self, x: Any) -> tuple[Array, Array]:
        """Logits `[B, C]` and J D `[B, C, P]`, in the network's precision."""
        return self._rows(x, _every_class)

    def contrast_rows(self, x: Any) -> Rows:
        """The rows H J D themselves.

        Raises:
            NumericalError: logits that are not finite.
        """
        logits, rows = self._rows(x, _every_contrast)
        logits = logits.astype(np.float64)
        _check_finite(logits)
        return Rows(logits, self.likelihood.mean(logits).numpy(), rows, self._slope(logits))

    def _rows(self, x: Any, cotangents: Cotangents) -> tuple[Array, Array]:
        factors, logits = self._evaluate(x, cotangents)
        rows = stacked(factors)
        for parameter, rate in zip(self.network.parameters, self._rates, strict=True):
            rows[:, :, parameter.start : parameter.stop] *= rate
        return logits, rows

    def sketch(self, x: Any, vectors: Array, workspace: Workspace) -> Sketch:
        """What the covariances of a batch are made of, along the contrasts of the classes.

        The part of J D outside U is J J^T less the part inside, as long as the difference leaves
        enough of it; where it would cancel, the part outside is formed on its own.

        Args:
            x: the batch.
            vectors: U `[P, K]`, orthonormal, C-contiguous, in the network's precision.
            workspace: memory for the rows of one variable.

        Raises:
            NumericalError: logits that are not finite.
        """
        factors, logits = self._evaluate(x, _every_contrast)
        logits = logits.astype(np.float64)
        _check_finite(logits)
        along, gram = self._contract(factors, vectors, workspace)
        rest = gram - along @ np.swapaxes(along, 1, 2)
        slope = self._slope(logits)
        cancelled = _cancels(gram, rest, slope, float(np.finfo(self.network.dtype).eps))
        if np.any(cancelled):
            some = tf.nest.map_structure(lambda leaf: tf.boolean_mask(leaf, cancelled), x)
            factors, _ = self._evaluate(some, _every_contrast)
            rest[cancelled] = self._outside(factors, along[cancelled], vectors, workspace)
        return Sketch(logits, self.likelihood.mean(logits).numpy(), along, rest, slope)

    def _evaluate(self, x: Any, cotangents: Cotangents) -> tuple[list[Factor], Array]:
        factors, logits = self._factors[cotangents](self.network.params, x)
        return evaluated(factors), logits.numpy()

    def _variables(self, factors: list[Factor], vectors: Array) -> Iterator[Any]:
        """Each variable's rows, its part of U, and its entry of D."""
        parts = (vectors[p.start : p.stop] for p in self.network.parameters)
        return zip(factors, parts, self._rates, strict=True)

    def _contract(
        self, factors: list[Factor], vectors: Array, workspace: Workspace
    ) -> tuple[Array, Array]:
        """J D U `[B, R, K]` and J D^2 J^T `[B, R, R]`, added up in float64."""
        n_examples, n_rows, _ = factors[0].shape
        along = np.zeros((n_examples, n_rows, vectors.shape[1]))
        gram = np.zeros((n_examples, n_rows, n_rows))
        for factor, part, rate in self._variables(factors, vectors):
            part_along, part_gram = factor.contract(part, workspace)
            part_along *= rate
            along += part_along
            gram += rate**2 * part_gram
        return along, gram

    def _outside(
        self, factors: list[Factor], along: Array, vectors: Array, workspace: Workspace
    ) -> Array:
        """R R^T `[B, R, R]` of R = J D - (J D U) U^T, formed variable by variable."""
        inside = along.astype(vectors.dtype).reshape(-1, vectors.shape[1])
        gram = np.zeros((*along.shape[:2], along.shape[1]))
        for factor, part, rate in self._variables(factors, vectors):
            rest = workspace.take(*factor.shape)
            factor.rows(rest)
            rest *= rate
            rest -= (inside @ part.T).reshape(rest.shape)
            gram += rest @ np.swapaxes(rest, 1, 2)
        return gram

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


@dataclass(frozen=True)
class Rows:
    """The Jacobians of a batch along C' contrasts of the classes.

    Attributes:
        logits: `[B, C]`, float64.
        mean: `[B, C]`, float64.
        values: H J D `[B, C', P]`, in the network's precision.
        slope: d mean / d contrasts `[B, C, C']`, float64.
    """

    logits: Array
    mean: Array
    values: Array
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
