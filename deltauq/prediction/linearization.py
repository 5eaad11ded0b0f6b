"""The network linearised in its parameters, and what prediction covariances need of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.errors import NumericalError
from deltauq.likelihoods import Likelihood
from deltauq.linalg import root_diagonal
from deltauq.network.graph import Compiled
from deltauq.network.jacobians import Factor, PerExample, Workspace, evaluated, stacked
from deltauq.network.masks import OutputMask
from deltauq.network.network import Network
from deltauq.prediction.directions import AllOutputs, Directions, Shown

__all__ = ["FullJacobians", "Linearization", "RowFunctions", "Sketch", "refuse_not_finite"]

Array = npt.NDArray[Any]


class RowFunctions:
    """The rows of J along some directions of the logits: traced once, called for every batch.

    Args:
        network: the network.
        spec: of the inputs.
        per_example: the network's row rules.
    """

    def __init__(self, network: Network, spec: Any, per_example: PerExample) -> None:
        self.network = network
        self._per_example = per_example
        self._signature = [tf.TensorSpec([network.n_params], network.dtype), spec]
        self._compiled: dict[Directions, Compiled] = {}

    def __call__(self, x: Any, directions: Directions) -> tuple[list[Factor], Array]:
        """The rows of a batch, variable by variable, and its logits `[B, C]`.

        Raises:
            NumericalError: logits that are not finite.
        """
        if directions not in self._compiled:
            self._compiled[directions] = Compiled(
                lambda params, x: self._per_example.factors(params, x, directions.cotangents),
                *self._signature,
            )
        factors, logits = self._compiled[directions](self.network.params, x)
        logits = logits.numpy()
        refuse_not_finite(logits, "logits")
        return evaluated(factors), logits


@dataclass(frozen=True)
class Linearization:
    """The network linearised in its parameters: logits(w) = logits + J (w - w^).

    The rows of J are taken along some directions of the logits, those of all outputs unless others
    are asked for.

    Attributes:
        functions: that give the rows of J.
        likelihood: its mean turns logits into probabilities.
        scale: D `[P]`, one number for each variable, applied to the columns of J.
        mask: which predictions count, for those that are shown; None where all do.
    """

    functions: RowFunctions
    likelihood: Likelihood
    scale: Array
    mask: OutputMask | None = None

    @property
    def network(self) -> Network:
        """The network that is linearised."""
        return self.functions.network

    def rescaled(self, factor: float) -> Linearization:
        """A linearisation like this one with the scale D times a factor."""
        return replace(self, scale=self.scale * factor)

    def rows(self, x: Any, directions: Directions | None = None) -> FullJacobians:
        """Form the rows of J D for a batch of inputs, along some directions of the logits.

        Args:
            x: the batch.
            directions: None for all outputs.

        Raises:
            NumericalError: logits or derivatives that are not finite.
        """
        directions = directions or AllOutputs(self.likelihood)
        factors, logits = self.functions(x, directions)
        rows = stacked(factors)
        for parameter in self.network.parameters:
            rows[:, :, parameter.start : parameter.stop] *= float(self.scale[parameter.start])
        refuse_not_finite(np.asarray(rows.sum(axis=2, dtype=np.float64)), "logits' derivatives")
        shown = self._shown(directions, logits, x)
        return FullJacobians(shown, rows.reshape(len(shown.logits), -1, rows.shape[2]))

    def sketch(
        self, x: Any, vectors: Array, workspace: Workspace, directions: Directions | None = None
    ) -> Sketch:
        """Form what the covariances of a batch are made of, along some directions of the logits.

        The part of J D outside U is J J^T less the part inside, as long as the difference leaves
        enough of it; where it would cancel, the part outside is formed on its own.

        Args:
            x: the batch.
            vectors: U `[P, K]`, orthonormal, C-contiguous, in the network's precision.
            workspace: memory for the rows of one variable.
            directions: None for all outputs.

        Raises:
            NumericalError: logits or derivatives that are not finite.
        """
        directions = directions or AllOutputs(self.likelihood)
        positions = directions.positions
        factors, logits = self.functions(x, directions)
        shown = self._shown(directions, logits, x)
        along, gram = self._contract(factors, vectors, workspace)
        refuse_not_finite(gram, "logits' derivatives")
        rest = gram - along @ np.swapaxes(along, 1, 2)
        epsilon = float(np.finfo(self.network.dtype).eps)
        cancelled = _cancels(_blocks(gram, positions), _blocks(rest, positions), shown, epsilon)
        cancelled = np.asarray(np.any(cancelled.reshape(len(logits), -1), axis=1))
        if np.any(cancelled):
            some = tf.nest.map_structure(lambda leaf: tf.boolean_mask(leaf, cancelled), x)
            factors, _ = self.functions(some, directions)
            rest[cancelled] = self._outside(factors, along[cancelled], vectors, workspace)
        along = along.reshape(len(shown.logits), -1, along.shape[2])
        return Sketch(shown, along, _blocks(rest, positions))

    def _shown(self, directions: Directions, logits: Array, x: Any) -> Shown:
        """What is shown of a batch, with what the mask takes out."""
        shown = directions.shown(logits)
        return shown if self.mask is None else shown._replace(masked=~self.mask(x).ravel())

    def _variables(
        self, factors: list[Factor], vectors: Array
    ) -> Iterator[tuple[Factor, Array, float]]:
        """Each variable's rows, its part of U, and its entry of D."""
        for factor, p in zip(factors, self.network.parameters, strict=True):
            yield factor, vectors[p.start : p.stop], float(self.scale[p.start])

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


@dataclass(frozen=True)
class Sketch:
    """The small matrices of which the covariances of B predictions are made; float64.

    Attributes:
        shown: logits and means, and how they move with the R rows.
        along: J D U `[B, R, K]`.
        rest: Q Q^T `[B, R, R]` with Q = J D (I - U U^T).
    """

    shown: Shown
    along: Array
    rest: Array


@dataclass(frozen=True)
class FullJacobians:
    """The Jacobians of B predictions in full, in the prior's metric.

    Attributes:
        shown: logits and means, and how they move with the R rows.
        values: J D `[B, R, P]`, in the network's precision.
    """

    shown: Shown
    values: Array


def _blocks(matrices: Array, positions: int) -> Array:
    """The diagonal blocks of `[B, T R, T R]`, as `[B T, R, R]`."""
    size = matrices.shape[1] // positions
    apart = matrices.reshape(len(matrices), positions, size, positions, size)
    return np.einsum("btitj->btij", apart).reshape(-1, size, size)


def _cancels(gram: Array, rest: Array, shown: Shown, epsilon: float) -> Array:
    """Inputs whose part outside U is too small beside the whole to come from a difference, `[B]`.

    Rounding of `gram` is about epsilon times its diagonal. The variance of every logit and of every
    mean, a combination of rows, must leave a relative error under 1e-4 of its rest.
    """
    limit = 1e4 * epsilon
    root = root_diagonal(gram)
    cancelled = np.zeros(len(gram), bool)
    for combination in (shown.back, shown.slope):
        left = np.einsum("bij,bjk,bik->bi", combination, rest, combination, optimize=True)
        whole = np.einsum("bij,bj->bi", np.abs(combination), root) ** 2
        cancelled |= ~np.all((left >= limit * whole) | (whole == 0), axis=1)
    return cancelled


def refuse_not_finite(values: Array, what: str) -> None:
    """Refuse numbers of predictions of which one is NaN or infinite.

    Args:
        values: the numbers.
        what: they are, in the plural.

    Raises:
        NumericalError: not all are finite.
    """
    if not np.all(np.isfinite(values)):
        raise NumericalError(
            f"the {what} are not finite",
            expected=f"finite {what} for finite inputs",
            received=f"{np.count_nonzero(~np.isfinite(values))} values of NaN or infinity",
            remedy="look for inputs unlike those of training, for overflow in the model, such as "
            "unscaled inputs, for logs and roots in it that leave their domain, and for an l2 near "
            "zero, by whose root derivatives are divided",
        )
