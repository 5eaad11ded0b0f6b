"""Predictions of several inputs together, with the covariances between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from beartype import beartype
from jaxtyping import Bool, Float, jaxtyped

from deltauq.curvature.parameter_covariance import ParameterCovariance
from deltauq.data.inputs import InputBatches
from deltauq.errors import InvalidInputError
from deltauq.linalg import inner_products, split
from deltauq.prediction.estimate import NONE_MASKED
from deltauq.prediction.group_means import GroupMean
from deltauq.prediction.linearization import Linearization
from deltauq.prediction.result_memory import ResultMemory

__all__ = ["GroupMean", "JointPrediction", "joint_memory", "predict_joint"]

Array = npt.NDArray[Any]


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class JointPrediction:
    """Probabilities of B inputs with their covariance, between inputs too.

    Attributes:
        logits: z `[B, C]`.
        probabilities: p `[B, C]`, or the means of a regression.
        logit_covariance: Cov(z_bc, z_de) `[B, C, B, C]`.
        covariance: Cov(p_bc, p_de) `[B, C, B, C]`.
        masked: predictions that the mask on the model's output takes out `[B]`; see `Prediction`.
    """

    logits: Float[np.ndarray, "B C"]
    probabilities: Float[np.ndarray, "B C"]
    logit_covariance: Float[np.ndarray, "B C B C"]
    covariance: Float[np.ndarray, "B C B C"]
    masked: Bool[np.ndarray, " B"] = field(default_factory=lambda: NONE_MASKED, kw_only=True)

    def __post_init__(self) -> None:
        if self.masked is NONE_MASKED:
            object.__setattr__(self, "masked", np.zeros(len(self.logits), bool))

    def __repr__(self) -> str:
        n, c = self.logits.shape
        return f"JointPrediction({n} inputs, {c} classes)"

    def mean(self, weights: Array | None = None) -> GroupMean:
        """Means over groups of these inputs, with their standard errors.

        `DeltaMethod.predict_mean` has them for any number of inputs, with `std_bounds`.

        Args:
            weights: `[G, B]` or `[B]`, not negative; each row is brought to the sum one, without
                predictions that are masked. None takes all inputs as one group.

        Raises:
            InvalidInputError: weights of another shape, negative ones, or a group without any.
        """
        n_inputs = len(self.logits)
        shares = np.atleast_2d(np.ones(n_inputs) if weights is None else np.asarray(weights, float))
        if shares.shape[1:] == (n_inputs,):
            shares = shares * ~self.masked
        totals = shares.sum(axis=1, keepdims=True)
        if shares.ndim != 2 or shares.shape[1] != n_inputs or not np.all(shares >= 0):
            raise InvalidInputError(
                "weights cannot be used",
                expected=f"[G, {n_inputs}], one weight >= 0 for every input",
                received=f"shape {list(shares.shape)}",
            )
        if not np.all(totals > 0):
            raise InvalidInputError(
                "a group has no inputs",
                expected="a positive weight in every row",
                received=f"{int(np.count_nonzero(totals <= 0))} rows of zeros",
            )
        shares = shares / totals
        covariance = np.einsum("gb,bcde,hd->gche", shares, self.covariance, shares, optimize=True)
        counts = np.count_nonzero(shares, axis=1)
        names = np.arange(len(shares))
        return GroupMean(names, shares @ self.probabilities, covariance, counts)


def joint_memory(n_outputs: int, n_shown: int) -> ResultMemory:
    """What the covariances between B inputs take in memory while the second of the two is made.

    Args:
        n_outputs: of the model, all positions of an input together.
        n_shown: C, those of the predictions: two of a single sigmoid.
    """
    matrices = n_outputs**2 + n_outputs * n_shown + 2 * n_shown**2
    return ResultMemory(
        f"covariances between all inputs, [B, {n_shown}, B, {n_shown}],",
        "pass a larger memory_limit; predict_mean(x, groups, weights) has means and contrasts over "
        "any number of inputs",
        square=8 * matrices,
    )


def predict_joint(
    linearization: Linearization,
    covariance: ParameterCovariance,
    inputs: InputBatches,
    vectors: Array,
    n_outputs: int,
) -> JointPrediction:
    """Predict some inputs with the covariance J Sigma J^T between all of them.

    The rows of two batches are held at a time: with more than one batch, those of the later ones
    are formed again for every earlier one.

    Args:
        linearization: of the network.
        covariance: of its parameters.
        inputs: the inputs, in batches whose rows `[B, C, P]` fit in memory twice.
        vectors: the covariance's vectors, C-contiguous and in the network's precision.
        n_outputs: C, all positions of an input together.
    """
    batches = list(inputs)
    sizes = [len(tf.nest.flatten(x)[0]) * n_outputs for x in batches]
    places = [slice(stop - size, stop) for size, stop in zip(sizes, np.cumsum(sizes), strict=True)]
    outside = np.empty((sum(sizes), sum(sizes)))
    parts, along = [], []
    for number, (x, here) in enumerate(zip(batches, places, strict=True)):
        rows = linearization.rows(x)
        inside, left = _split(vectors, rows.values)
        parts.append(rows.shown[:5])
        along.append(inside.T)
        outside[here, here] = inner_products(left, left)
        for later, there in zip(batches[number + 1 :], places[number + 1 :], strict=True):
            right = _split(vectors, linearization.rows(later).values)[1]
            outside[here, there] = inner_products(left, right)
            outside[there, here] = outside[here, there].T
    middle = covariance.project(np.concatenate(along), outside)
    del outside
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    logits, mean, back, slope, masked = columns
    covariances = _congruent(back, middle), _congruent(slope, middle)
    return JointPrediction(logits, mean, *covariances, masked=masked)


def _split(vectors: Array, rows: Array) -> tuple[Array, Array]:
    """(J U)^T `[K, B C]` and the part of J^T outside U, `[P, B C]`."""
    return split(vectors, rows.reshape(-1, rows.shape[2]).T, overwrite=True)


def _congruent(left: Array, middle: Array) -> Array:
    """L_b M_bd L_d^T for each pair of inputs b and d, `[B, C, B, C]`."""
    n, c, r = left.shape
    half = np.matmul(left, middle.reshape(n, r, n * r)).reshape(n * c, n, r)
    result = np.empty((n * c, n, c))
    for d in range(n):
        np.matmul(half[:, d], left[d].T, out=result[:, d])
    return result.reshape(n, c, n, c)
