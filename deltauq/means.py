"""Means and contrasts of predictions over any number of inputs, from one gradient a group."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from beartype import beartype
from jaxtyping import Float, Int, Shaped, jaxtyped

from deltauq.covariance import ParameterCovariance
from deltauq.errors import InvalidInputError, optional
from deltauq.grouping import Grouping
from deltauq.inputs import InputBatches
from deltauq.linalg import Eigenpairs, inner_products, root_diagonal, split
from deltauq.linearization import Linearization, Rows
from deltauq.memory import ResultMemory
from deltauq.noiserange import NoiseRange
from deltauq.prediction import ROUNDING, normal_quantile
from deltauq.tables import notebook_table, terminal_table

if TYPE_CHECKING:
    import pandas as pd
    import rich.table

__all__ = ["CovarianceLimits", "GroupMean", "mean_memory", "predict_mean"]

Array = npt.NDArray[Any]

#: Groups that a table in a notebook or terminal shows, and the level of their intervals.
_SHOWN, _LEVEL = 10, 0.95

#: Rounding of a row of the Jacobian, in machine epsilons of its norm.
_ROW_EPSILONS = 10.0

#: Matrices of all groups and outputs that are in memory at once.
_MATRICES = 6

#: Parameters of a block that is projected in memory of its own, at most.
_BLOCK = 8192

#: Rows that are added up in the network's precision; their sums are added up in float64.
_TERMS = 4096


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class CovarianceLimits:
    """Matrices between which the covariance of group means from all eigenpairs lies.

    The order is the semidefinite one, so that it holds for every combination of the groups too.

    Attributes:
        covariances: the smallest and the largest, L of them, `[L, G, C, G, C]`.
        rounding: standard error that rounding of the gradients may add or hide `[G, C]`.
        share: relative rounding of a standard error.
        noise: how far the estimated noise of a regression is known; None where it was given.
    """

    covariances: Float[np.ndarray, "L G C G C"]
    rounding: Float[np.ndarray, "G C"]
    share: float
    noise: NoiseRange | None = None

    def std_bounds(self) -> tuple[Array, Array]:
        """(low, high) of the standard errors, each `[G, C]`."""
        roots = root_diagonal(_flat(self.covariances)).reshape(-1, *self.rounding.shape)
        low, high = roots.min(axis=0), roots.max(axis=0)
        low = np.maximum(low * (1.0 - self.share) - self.rounding, 0.0)
        limits = np.stack([low, high * (1.0 + self.share) + self.rounding], axis=-1)
        limits = limits if self.noise is None else self.noise.widen(limits)
        return limits[..., 0], limits[..., 1]

    def combined(self, coefficients: Array) -> CovarianceLimits:
        """Of combinations of the groups, `[H, G]`."""
        covariances = [_combined(each, coefficients) for each in self.covariances]
        rounding = np.abs(coefficients) @ self.rounding
        return CovarianceLimits(np.stack(covariances), rounding, self.share, self.noise)


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class GroupMean:
    """Means of predictions over groups of inputs, with their covariance.

    Inputs share the weights of the network, so their errors do not average out as independent ones
    would.

    Attributes:
        groups: names of the groups `[G]`.
        mean: sum_n w_n p_n over each group `[G, C]`: mean probabilities, or means of a regression.
        covariance: of the groups' means, `[G, C, G, C]`.
        n: predictions in each group `[G]`, several an input where it makes several; without those
            that are masked.
        limits: between which the covariance lies; None where that is not known.
        certified: `std_bounds` are bounds; otherwise they are an estimate, as of `Prediction`.
    """

    groups: Shaped[np.ndarray, " G"]
    mean: Float[np.ndarray, "G C"]
    covariance: Float[np.ndarray, "G C G C"]
    n: Int[np.ndarray, " G"]
    limits: CovarianceLimits | None = field(default=None, repr=False)
    certified: bool = True

    def __len__(self) -> int:
        return len(self.mean)

    def __repr__(self) -> str:
        g, c = self.mean.shape
        count = f"{g} groups" if g > 1 else "1 group"
        outputs = f"{c} outputs" if c > 1 else "1 output"
        return f"GroupMean({count}, {int(self.n.sum()):,} predictions, {outputs})"

    def __getitem__(self, rows: slice | Array | list[int]) -> GroupMean:
        """Some of the groups, chosen by a slice, numbers or a mask."""
        chosen = np.eye(len(self))[rows if isinstance(rows, slice) else np.atleast_1d(rows)]
        return self._combined(chosen, self.groups[np.argmax(chosen, axis=1)])

    @property
    def probabilities(self) -> Array:
        """The means `[G, C]`, where they are probabilities."""
        return self.mean

    @cached_property
    def std(self) -> Array:
        """Standard error of each mean `[G, C]`."""
        return root_diagonal(_flat(self.covariance[None])).reshape(self.mean.shape)

    @property
    def std_bounds(self) -> tuple[Array, Array]:
        """(low, high), each `[G, C]`: the standard errors from all eigenpairs lie between them.

        As of `Prediction.std_bounds`; those of a contrast come from the covariances' bounds, not
        from the bounds of its groups.

        Raises:
            InvalidInputError: the curvature was computed without them, or these are means of
                `predict_joint`.
        """
        if self.limits is None:
            raise InvalidInputError(
                "std_bounds of a mean need a bound on what the eigenpairs leave out",
                expected="predict_mean of a curvature that was fitted with bounds",
                received="a fit with bounds=False, or the mean of a predict_joint",
                remedy="fit with bounds=True (the default), and call predict_mean(x)",
            )
        return self.limits.std_bounds()

    def contrast(self, coefficients: Any, names: Any = None) -> GroupMean:
        """Combinations sum_g a_g mean_g of the groups, with their standard errors and bounds.

        Args:
            coefficients: `[G]`, or `[H, G]` for H combinations; any signs, used as they are.
            names: of the combinations `[H]`; None numbers them.

        Raises:
            InvalidInputError: coefficients of another shape, or not finite.
        """
        matrix = np.atleast_2d(np.asarray(coefficients, np.float64))
        if matrix.ndim != 2 or matrix.shape[1] != len(self) or not np.all(np.isfinite(matrix)):
            raise InvalidInputError(
                "coefficients of a contrast cannot be used",
                expected=f"finite numbers [{len(self)}] or [H, {len(self)}], one for every group",
                received=f"shape {list(np.shape(coefficients))}",
            )
        numbers = np.arange(len(matrix))
        return self._combined(matrix, numbers if names is None else np.atleast_1d(names))

    def difference(self, first: Any, second: Any) -> GroupMean:
        """The mean of one group less that of another, by their names.

        Raises:
            InvalidInputError: a name that no group has.
        """
        coefficients = np.zeros(len(self))
        for name, sign in ((first, 1.0), (second, -1.0)):
            coefficients[self._number(name)] += sign
        return self.contrast(coefficients, [f"{first} - {second}"])

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Normal intervals mean +- q std at a confidence level, each `[G, C]`."""
        q = normal_quantile(level)
        return self.mean - q * self.std, self.mean + q * self.std

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """A table with one row for each group and output.

        Columns: `group`, `n`, `output`, `mean`, `se`, `ci_lower`, `ci_upper`, and `se_low`,
        `se_high` where there are `std_bounds`.
        """
        frames = optional("pandas", needed_by="to_frame() needs pandas", extra="report")
        return frames.DataFrame(self.to_dict(level))

    def to_dict(self, level: float = 0.95) -> dict[str, Array]:
        """The columns of `to_frame` by name, without pandas."""
        n_groups, n_outputs = self.mean.shape
        lower, upper = self.interval(level)
        columns = {
            "group": np.repeat(self.groups, n_outputs),
            "n": np.repeat(self.n, n_outputs),
            "output": np.tile(np.arange(n_outputs), n_groups),
            "mean": self.mean.ravel(),
            "se": self.std.ravel(),
            "ci_lower": lower.ravel(),
            "ci_upper": upper.ravel(),
        }
        if self.limits is not None:
            low, high = self.std_bounds
            columns["se_low"], columns["se_high"] = low.ravel(), high.ravel()
        return columns

    def _repr_html_(self) -> str | None:
        """The first groups as a table in a notebook; their text without pandas."""
        return notebook_table(self._caption, lambda: self[:_SHOWN].to_frame())

    def __rich__(self) -> rich.table.Table:
        """The first groups as a table in a terminal: `rich.print(means)`."""
        return terminal_table(self._caption, self[:_SHOWN].to_dict(_LEVEL))

    @property
    def _caption(self) -> str:
        return f"{self!r}, the first {_SHOWN}" if len(self) > _SHOWN else repr(self)

    def _number(self, name: Any) -> int:
        found = np.flatnonzero(self.groups == name)
        if len(found) != 1:
            raise InvalidInputError(
                "there is no such group",
                expected=f"one of {self.groups[:_SHOWN].tolist()}"
                + (f" and {len(self) - _SHOWN} more" if len(self) > _SHOWN else ""),
                received=repr(name),
            )
        return int(found[0])

    def _combined(self, matrix: Array, names: Any) -> GroupMean:
        return GroupMean(
            np.asarray(names),
            matrix @ self.mean,
            _combined(self.covariance, matrix),
            (matrix != 0).astype(np.int64) @ self.n,
            None if self.limits is None else self.limits.combined(matrix),
            self.certified,
        )


def mean_memory(n_outputs: int, pairs: Eigenpairs) -> ResultMemory:
    """What the gradients of groups take, and the covariances between them.

    Args:
        n_outputs: C.
        pairs: of the fit, `[P, K]`.
    """
    row = pairs.n_params + 2 * min(pairs.n_params, _BLOCK) + 2 * pairs.rank
    return ResultMemory(
        f"means of {n_outputs} outputs, their gradients of {pairs.n_params:,} parameters and the "
        "covariances between all groups",
        "ask for at most {most} groups in a call (a difference needs both of its groups in one), "
        "for fewer parameters with layers=..., or pass a larger memory_limit",
        each=8 * n_outputs * row,
        square=8 * _MATRICES * n_outputs**2,
        unit="groups",
    )


def predict_mean(
    linearization: Linearization,
    covariance: ParameterCovariance,
    inputs: InputBatches,
    vectors: Array,
    grouping: Grouping,
) -> GroupMean:
    """Sums sum_n w_n p_n over the inputs of every group, with J_ Sigma J_^T of their gradients.

    The sum is linear in the predictions, so J_g = sum_n w_n S_n J_n `[C, P]` is all that its
    covariance needs: memory is 8 G C P bytes however many inputs there are.

    Args:
        linearization: of the network.
        covariance: of its parameters.
        inputs: read once.
        vectors: the covariance's vectors, C-contiguous and in the network's precision.
        grouping: of the inputs, with their weights.

    Raises:
        InvalidInputError: another number of inputs than groups or weights were given for.
    """
    sums = _Sums(len(grouping.names))
    start = 0
    for x in inputs:
        rows = linearization.rows(x)
        stop = start + len(rows.values) // grouping.positions
        sums.add(rows, *grouping.rows(start, stop))
        start = stop
    grouping.check_length(start)
    _refuse_masked(grouping.names[sums.counts == 0])
    if grouping.weights is None:
        sums.divide()
    n_groups, n_outputs, n_params = sums.gradients.shape
    inside, rest = split(vectors, sums.gradients.reshape(-1, n_params).T, overwrite=True)
    middle, outer = covariance.project_between(inside.T, inner_products(rest, rest))
    shape = (n_groups, n_outputs, n_groups, n_outputs)
    limits = None
    if outer is not None:
        epsilon = float(np.finfo(vectors.dtype).eps)
        rounding = _ROW_EPSILONS * epsilon * covariance.largest_std * sums.norms
        matrices = np.stack(outer).reshape(-1, *shape)
        share = ROUNDING[vectors.dtype.name]
        limits = CovarianceLimits(matrices, rounding, share, covariance.noise)
    return GroupMean(
        grouping.names,
        sums.means,
        middle.reshape(shape),
        sums.counts,
        limits,
        covariance.certified,
    )


def _refuse_masked(names: Array) -> None:
    if len(names):
        raise InvalidInputError(
            "there are groups of masked predictions alone",
            expected="a prediction that is not padding in every group",
            received=f"the groups {names[:_SHOWN].tolist()}",
            remedy="give padding the group of its input",
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

    def add(self, rows: Rows, codes: Array, weights: Array) -> None:
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
        """Make means of the sums."""
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


def _flat(matrices: Array) -> Array:
    """`[L, G, C, G, C]` as `[L, G C, G C]`."""
    size = matrices.shape[1] * matrices.shape[2]
    return matrices.reshape(-1, size, size)


def _combined(covariance: Array, coefficients: Array) -> Array:
    """Of combinations `[H, G]` of the groups, `[H, C, H, C]`."""
    return np.asarray(
        np.einsum("hg,gcde,kd->hcke", coefficients, covariance, coefficients, optimize=True)
    )
