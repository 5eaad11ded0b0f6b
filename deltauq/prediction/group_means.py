"""Means of predictions over groups of inputs, and contrasts between the groups."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from beartype import beartype
from jaxtyping import Float, Int, Shaped, jaxtyped

from deltauq.curvature.noise_interval import NoiseRange
from deltauq.data.arrays import as_labels
from deltauq.data.grouping import as_factors
from deltauq.errors import InvalidInputError, is_number, optional
from deltauq.linalg import root_diagonal
from deltauq.prediction.estimate import normal_quantile
from deltauq.prediction.tables import notebook_table, terminal_table

if TYPE_CHECKING:
    import pandas as pd
    import rich.table

__all__ = ["CovarianceLimits", "GroupMean"]

Array = npt.NDArray[Any]

#: Groups that a table in a notebook or terminal shows, and the level of their intervals.
_SHOWN, _LEVEL = 10, 0.95


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
        """Bounds (low, high) of the standard errors, each `[G, C]`, rounding and noise included."""
        roots = root_diagonal(_flat(self.covariances)).reshape(-1, *self.rounding.shape)
        low, high = roots.min(axis=0), roots.max(axis=0)
        low = np.maximum(low * (1.0 - self.share) - self.rounding, 0.0)
        limits = np.stack([low, high * (1.0 + self.share) + self.rounding], axis=-1)
        limits = limits if self.noise is None else self.noise.widen(limits)
        return limits[..., 0], limits[..., 1]

    def combined(self, coefficients: Array) -> CovarianceLimits:
        """Limits for linear combinations of the groups.

        Args:
            coefficients: `[H, G]`, a row for each combination.
        """
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
        """Mean probabilities of the groups `[G, C]`; of a regression the means of its numbers."""
        return self.mean

    @cached_property
    def std(self) -> Array:
        """Standard error of each group's mean `[G, C]`."""
        return root_diagonal(_flat(self.covariance[None])).reshape(self.mean.shape)

    @property
    def std_bounds(self) -> tuple[Array, Array]:
        """Bounds (low, high), each `[G, C]`, of the standard errors that all eigenpairs would give.

        They mean what `Prediction.std_bounds` do; those of a contrast come from the covariances'
        bounds, not from the bounds of its groups.

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
        given = as_factors(coefficients, "coefficients")
        matrix = np.atleast_2d(given)
        if matrix.ndim != 2 or matrix.shape[1] != len(self):
            raise InvalidInputError(
                "coefficients of a contrast cannot be used",
                expected=f"finite numbers [{len(self)}] or [H, {len(self)}], one for every group",
                received=f"shape {list(given.shape)}",
            )
        called = np.arange(len(matrix)) if names is None else as_labels(names, name="names")
        if called.shape != (len(matrix),) or called.dtype.kind not in "fiubU":
            raise InvalidInputError(
                "names do not fit the contrast",
                expected=f"{len(matrix)} numbers or texts, one for every combination",
                received=f"dtype {called.dtype}, shape {list(called.shape)}",
            )
        return self._combined(matrix, called)

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
        """The columns of `to_frame` by name, as arrays, without pandas."""
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
        """Title of a table that shows the first groups."""
        return f"{self!r}, the first {_SHOWN}" if len(self) > _SHOWN else repr(self)

    def _number(self, name: Any) -> int:
        """Index of the group of a name, or `InvalidInputError` where no group has it."""
        is_one = isinstance(name, (str, bool, np.bool_)) or is_number(name)
        found = np.flatnonzero(self.groups == name) if is_one else np.empty(0)
        if len(found) != 1:
            raise InvalidInputError(
                "there is no such group",
                expected=f"one of {self.groups[:_SHOWN].tolist()}"
                + (f" and {len(self) - _SHOWN} more" if len(self) > _SHOWN else ""),
                received=reprlib.repr(name),
            )
        return int(found[0])

    def _combined(self, matrix: Array, names: Any) -> GroupMean:
        """Means of combinations of the groups, one for each row of a matrix `[H, G]`."""
        return GroupMean(
            np.asarray(names),
            matrix @ self.mean,
            _combined(self.covariance, matrix),
            (matrix != 0).astype(np.int64) @ self.n,
            None if self.limits is None else self.limits.combined(matrix),
            self.certified,
        )


def _flat(matrices: Array) -> Array:
    """Matrices `[L, G, C, G, C]` as `[L, G C, G C]`."""
    size = matrices.shape[1] * matrices.shape[2]
    return matrices.reshape(-1, size, size)


def _combined(covariance: Array, coefficients: Array) -> Array:
    """Covariance `[H, C, H, C]` of combinations `[H, G]` of the groups."""
    return np.asarray(
        np.einsum("hg,gcde,kd->hcke", coefficients, covariance, coefficients, optimize=True)
    )
