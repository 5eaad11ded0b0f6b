"""Covariances between the predictions of several inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from beartype import beartype
from jaxtyping import Float, jaxtyped

from deltauq.covariance import ParameterCovariance
from deltauq.errors import InvalidInputError
from deltauq.inputs import InputBatches
from deltauq.linalg import inner_products, split
from deltauq.linearization import Linearization

__all__ = ["GroupMean", "JointPrediction", "predict_joint"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class GroupMean:
    """Mean probabilities over groups of inputs.

    Attributes:
        probabilities: `[G, C]`.
        covariance: of the groups' means, `[G, C, G, C]`.
        std: standard error of each mean `[G, C]`.
    """

    probabilities: Array
    covariance: Array
    std: Array


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class JointPrediction:
    """Probabilities of B inputs with their covariance, between inputs too.

    Attributes:
        logits: z `[B, C]`.
        probabilities: p `[B, C]`, or the means of a regression.
        logit_covariance: Cov(z_bc, z_de) `[B, C, B, C]`.
        covariance: Cov(p_bc, p_de) `[B, C, B, C]`.
    """

    logits: Float[np.ndarray, "B C"]
    probabilities: Float[np.ndarray, "B C"]
    logit_covariance: Float[np.ndarray, "B C B C"]
    covariance: Float[np.ndarray, "B C B C"]

    def __repr__(self) -> str:
        n, c = self.logits.shape
        return f"JointPrediction({n} inputs, {c} classes)"

    def mean(self, weights: Array | None = None) -> GroupMean:
        """Mean probabilities over groups of inputs, with their standard errors.

        Inputs share the weights of the network, so their errors do not average out as independent
        ones would.

        Args:
            weights: `[G, B]` or `[B]`, not negative; each row is brought to the sum one. None takes
                all inputs as one group.

        Raises:
            InvalidInputError: weights of another shape, negative ones, or a group without any.
        """
        n_inputs = len(self.logits)
        shares = np.atleast_2d(np.ones(n_inputs) if weights is None else np.asarray(weights, float))
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
        variance = np.einsum("gcgc->gc", covariance)
        return GroupMean(
            shares @ self.probabilities, covariance, np.sqrt(np.maximum(variance, 0.0))
        )


def predict_joint(
    linearization: Linearization,
    covariance: ParameterCovariance,
    inputs: InputBatches,
    vectors: Array,
) -> JointPrediction:
    """J Sigma J^T over all rows of all inputs.

    The rows of two batches are held at a time: with more than one batch, those of the later ones
    are formed again for every earlier one.

    Args:
        linearization: of the network.
        covariance: of its parameters.
        inputs: the inputs, in batches whose rows `[B, C, P]` fit in memory twice.
        vectors: the covariance's vectors, C-contiguous and in the network's precision.
    """
    batches = list(inputs)
    parts, along, blocks = [], [], []
    for number, x in enumerate(batches):
        rows = linearization.rows(x)
        inside, left = _split(vectors, rows.values)
        parts.append(rows.shown[:4])
        along.append(inside.T)
        blocks.append([inner_products(left, left)])
        for later in batches[number + 1 :]:
            right = _split(vectors, linearization.rows(later).values)[1]
            blocks[-1].append(inner_products(left, right))
    middle = covariance.project(np.concatenate(along), _symmetric(blocks))
    logits, mean, back, slope = (np.concatenate(column) for column in zip(*parts, strict=True))
    return JointPrediction(logits, mean, _congruent(back, middle), _congruent(slope, middle))


def _split(vectors: Array, rows: Array) -> tuple[Array, Array]:
    """(J U)^T `[K, B C]` and the part of J^T outside U, `[P, B C]`."""
    return split(vectors, rows.reshape(-1, rows.shape[2]).T, overwrite=True)


def _symmetric(blocks: list[list[Array]]) -> Array:
    """The symmetric matrix with some blocks on and above its diagonal."""
    count = len(blocks)
    full = [
        [blocks[i][j - i] if j >= i else blocks[j][i - j].T for j in range(count)]
        for i in range(count)
    ]
    return np.block(full)


def _congruent(left: Array, middle: Array) -> Array:
    """L_b M_bd L_d^T for each pair of inputs b and d, `[B, C, B, C]`."""
    n, _, r = left.shape
    middle = middle.reshape(n, r, n, r)
    return np.einsum("bci,bidj,dej->bcde", left, middle, left, optimize=True)
