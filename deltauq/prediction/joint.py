"""Predictions of several inputs together, with the covariances between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from beartype import beartype
from jaxtyping import Bool, Float, jaxtyped

from deltauq.data.grouping import as_factors
from deltauq.data.inputs import InputBatches
from deltauq.errors import InvalidInputError
from deltauq.prediction.estimate import NONE_MASKED
from deltauq.prediction.forms import Form
from deltauq.prediction.group_means import GroupMean
from deltauq.prediction.linearization import refuse_not_finite
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
        given = np.ones(n_inputs) if weights is None else as_factors(weights, "weights")
        shares = np.atleast_2d(given)
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


def joint_memory(n_outputs: int, n_shown: int, row_bytes: int) -> ResultMemory:
    """What the covariances between B inputs take in memory while the second of the two is made.

    Args:
        n_outputs: of the model, all positions of an input together.
        n_shown: C, those of the predictions: two of a single sigmoid.
        row_bytes: of the rows of all inputs that are held at a time, for each of them.
    """
    matrices = n_outputs**2 + n_outputs * n_shown + 2 * n_shown**2
    return ResultMemory(
        f"covariances between all inputs, [B, {n_shown}, B, {n_shown}],",
        "pass a larger memory_limit; predict_mean(x, groups, weights) has means and contrasts over "
        "any number of inputs",
        each=n_outputs * row_bytes,
        square=8 * matrices,
    )


def predict_joint(form: Form, inputs: InputBatches) -> JointPrediction:
    """Predict some inputs with the covariance J Sigma J^T between all of them.

    Args:
        form: gives J Sigma J^T.
        inputs: the inputs, in batches whose rows `[B, C, P]` fit in memory twice.
    """
    parts, middle = form.between(list(inputs))
    columns = (np.concatenate(column) for column in zip(*(each[:5] for each in parts), strict=True))
    logits, mean, back, slope, masked = columns
    covariances = _congruent(back, middle), _congruent(slope, middle)
    for covariance in covariances:
        refuse_not_finite(covariance, "covariances between inputs")
    return JointPrediction(logits, mean, *covariances, masked=masked)


def _congruent(left: Array, middle: Array) -> Array:
    """L_b M_bd L_d^T for each pair of inputs b and d, `[B, C, B, C]`."""
    n, c, r = left.shape
    half = np.matmul(left, middle.reshape(n, r, n * r)).reshape(n * c, n, r)
    result = np.empty((n * c, n, c))
    for d in range(n):
        np.matmul(half[:, d], left[d].T, out=result[:, d])
    return result.reshape(n, c, n, c)
