"""Means of predictions over groups of any number of inputs, from one gradient a group."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature.noise_interval import NoiseRange
from deltauq.data.grouping import Grouping
from deltauq.data.inputs import InputBatches
from deltauq.errors import InvalidInputError
from deltauq.prediction.forms import ROUNDING, Form
from deltauq.prediction.group_means import CovarianceLimits, GroupMean
from deltauq.prediction.linearization import FullJacobians, refuse_not_finite
from deltauq.prediction.result_memory import ResultMemory

__all__ = ["mean_memory", "predict_mean"]

Array = npt.NDArray[Any]

#: Groups that a message names.
_SHOWN = 10

#: Rounding of a row of the Jacobian, in machine epsilons of its norm.
_ROW_EPSILONS = 10.0

#: Matrices of all groups and outputs that are in memory at once.
_MATRICES = 6

#: Rows that are added up in the network's precision; their sums are added up in float64.
_TERMS = 4096


def mean_memory(n_outputs: int, form: Form) -> ResultMemory:
    """What the gradients of groups take in memory, and the covariances between the groups.

    Args:
        n_outputs: C.
        form: by which they are formed.
    """
    n_params = form.linearization.network.n_params
    row = n_params + form.numbers_of_gradient
    return ResultMemory(
        f"means of {n_outputs} outputs, their gradients of {n_params:,} parameters and the "
        "covariances between all groups",
        "choose fewer parameters with layers=..., or pass a larger memory_limit; a difference "
        "needs both of its groups in one call",
        each=8 * n_outputs * row,
        square=8 * _MATRICES * n_outputs**2,
        unit="groups",
    )


def predict_mean(
    form: Form, inputs: InputBatches, grouping: Grouping, noise: NoiseRange | None = None
) -> GroupMean:
    """Sum predictions over the inputs of every group, with the covariance of the sums.

    The sum_n w_n p_n is linear in the predictions, so J_g = sum_n w_n S_n J_n `[C, P]` is all that
    its covariance J_g Sigma J_h^T needs: memory is 8 G C P bytes however many inputs there are.

    Args:
        form: gives J Sigma J^T.
        inputs: read once.
        grouping: of the inputs, with their weights.
        noise: how far the estimated noise of a regression is known.

    Raises:
        InvalidInputError: another number of inputs than groups or weights were given for.
    """
    sums = _Sums(len(grouping.names))
    start = 0
    for x in inputs:
        rows = form.linearization.rows(x)
        stop = start + len(rows.values) // grouping.positions
        sums.add(rows, *grouping.rows(start, stop))
        start = stop
    grouping.check_length(start)
    _refuse_masked(grouping.names[sums.counts == 0])
    if grouping.weights is None:
        sums.divide()
    n_groups, n_outputs, n_params = sums.gradients.shape
    middle, outer = form.of_gradients(sums.gradients.reshape(-1, n_params))
    refuse_not_finite(sums.norms, "gradients of the means")
    for covariance in (middle, *(() if outer is None else outer)):
        refuse_not_finite(covariance, "covariances of the means")
    shape = (n_groups, n_outputs, n_groups, n_outputs)
    limits = None
    if outer is not None:
        dtype = form.linearization.network.dtype
        epsilon = float(np.finfo(dtype).eps)
        rounding = _ROW_EPSILONS * epsilon * form.largest_std * sums.norms
        matrices = np.stack(outer).reshape(-1, *shape)
        limits = CovarianceLimits(matrices, rounding, ROUNDING[dtype], noise)
    return GroupMean(
        grouping.names,
        sums.means,
        middle.reshape(shape),
        sums.counts,
        limits,
        form.certified,
    )


def _refuse_masked(names: Array) -> None:
    """Refuse groups that hold nothing but masked predictions."""
    if len(names):
        raise InvalidInputError(
            "there are groups of masked predictions alone",
            expected="a prediction that is not padding in every group",
            received=f"the groups {names[:_SHOWN].tolist()}",
            remedy="give padding the group of its input, and leave out inputs of padding alone",
        )


class _Sums:
    """Weighted sums over the inputs of each group, in float64.

    Attributes:
        gradients: of the means times D, `[G, C, P]`.
        means: `[G, C]`.
        norms: of |w| times a bound on the norm of each mean's gradient, `[G, C]`.
        counts: predictions `[G]`.
    """

    gradients: Array
    means: Array
    norms: Array

    def __init__(self, n_groups: int) -> None:
        self.counts = np.zeros(n_groups, np.int64)

    def add(self, rows: FullJacobians, codes: Array, weights: Array) -> None:
        """Add predictions with their groups and weights, `[B]`; not those that are masked."""
        n_groups, n_outputs = len(self.counts), rows.shown.mean.shape[1]
        if not hasattr(self, "means"):
            self.means = np.zeros((n_groups, n_outputs))
            self.norms = np.zeros((n_groups, n_outputs))
            self.gradients = np.zeros((n_groups, n_outputs, rows.values.shape[2]))
        slope = weights[:, None, None] * rows.shown.slope
        lengths = np.sqrt(np.einsum("brp,brp->br", rows.values, rows.values))
        norms = np.einsum("bcr,br->bc", np.abs(slope), lengths)
        counted = ~rows.shown.masked
        for g in np.unique(codes[counted]):
            some = counted & (codes == g)
            chosen = slice(None) if np.all(some) else some
            self.counts[g] += np.count_nonzero(some)
            self.means[g] += weights[chosen] @ rows.shown.mean[chosen]
            self.norms[g] += norms[chosen].sum(axis=0)
            _add_product(slope[chosen], rows.values[chosen], self.gradients[g])

    def divide(self) -> None:
        """Divide the sums of each group by its number of predictions, in place."""
        self.means /= self.counts[:, None]
        self.norms /= self.counts[:, None]
        self.gradients /= self.counts[:, None, None]


def _add_product(slope: Array, values: Array, total: Array) -> None:
    """Add sum_b S_b J_b to a total in float64, S `[B, C, R]`, J `[B, R, P]` in its own precision.

    Each output's coefficients are brought to the range of that precision first.
    """
    left = np.moveaxis(slope, 1, 0).reshape(slope.shape[1], -1)
    sizes = np.max(np.abs(left), axis=1, keepdims=True)
    left = (left / np.where(sizes > 0, sizes, 1.0)).astype(values.dtype)
    right = values.reshape(-1, values.shape[2])
    for start in range(0, len(right), _TERMS):
        some = slice(start, start + _TERMS)
        total += sizes * (left[:, some] @ right[some])
