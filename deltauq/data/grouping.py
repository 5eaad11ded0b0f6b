"""Which group each input belongs to, and with which weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.data.arrays import as_labels, as_numbers, check_finite, check_length
from deltauq.errors import InvalidInputError

__all__ = ["Grouping", "as_factors", "group_inputs"]

Array = npt.NDArray[Any]

#: Factors from one over this to this have squares, and sums of those, that float64 holds.
_LARGE = 1e100


@dataclass(frozen=True)
class Grouping:
    """Groups and weights of N inputs that make T predictions each.

    Attributes:
        names: of the groups `[G]`, sorted.
        codes: the number of each input's group `[N]`, or of each prediction's `[N, T]`; None puts
            all into the one group.
        weights: of the same shape; None for means, where every prediction counts 1/n_g.
        positions: T.
    """

    names: Array
    codes: Array | None
    weights: Array | None
    positions: int

    def rows(self, start: int, stop: int) -> tuple[Array, Array]:
        """Groups and weights of the predictions of some inputs, `[B T]` each.

        Raises:
            InvalidInputError: there are more inputs than groups or weights.
        """
        self.check_length(stop, at_least=True)
        codes = np.zeros(stop - start, np.intp) if self.codes is None else self.codes[start:stop]
        weights = np.ones(stop - start) if self.weights is None else self.weights[start:stop]
        return self._of_predictions(codes), self._of_predictions(weights)

    def check_length(self, n_inputs: int, *, at_least: bool = False) -> None:
        """`InvalidInputError` unless there are as many groups and weights as inputs."""
        for name, values in (("groups", self.codes), ("weights", self.weights)):
            if values is not None and not (at_least and len(values) >= n_inputs):
                check_length(name, len(values), n_inputs)

    def _of_predictions(self, values: Array) -> Array:
        if values.ndim == 1:
            values = np.repeat(values[:, None], self.positions, axis=1)
        return values.ravel()


def group_inputs(groups: Any, weights: Any, positions: int) -> Grouping:
    """Check groups and weights as a user gives them.

    Args:
        groups: numbers or text `[N]`, or `[N, T]` for the predictions of an input apart; None puts
            all inputs into one group, named "all".
        weights: finite numbers of any sign, `[N]` or `[N, T]`; or None.
        positions: T.

    Raises:
        InvalidInputError: other shapes, labels that are missing, weights that are not finite.
    """
    names, codes = np.array(["all"]), None
    if groups is not None:
        labels = as_labels(groups, name="groups")
        if labels.dtype.kind not in "fiubU":
            raise InvalidInputError(
                "groups are neither numbers nor text",
                expected="one number or text for every input",
                received=f"dtype {labels.dtype}",
                remedy="name them by text: np.asarray(groups).astype(str)",
            )
        labels = _shaped("groups", labels, positions)
        names, flat = np.unique(labels, return_inverse=True)
        codes = flat.reshape(labels.shape)
    if weights is not None:
        weights = _shaped("weights", as_factors(weights, "weights"), positions)
    return Grouping(names, codes, weights, positions)


def as_factors(values: Any, name: str) -> Array:
    """Finite factors of any sign whose squares float64 holds, in float64.

    Args:
        values: an array, tensor, pandas object or list of numbers.
        name: of the argument, for the errors.

    Raises:
        InvalidInputError: they hold something else, or their squares overflow or vanish.
    """
    factors = as_numbers(values, name).astype(np.float64)
    check_finite(name, factors)
    sizes = np.abs(factors[factors != 0])
    if sizes.size and not (sizes.min() >= 1.0 / _LARGE and sizes.max() <= _LARGE):
        raise InvalidInputError(
            f"{name} are too small or too large",
            expected=f"numbers that are zero, or from {1.0 / _LARGE:g} to {_LARGE:g} in size: "
            "variances hold their squares",
            received=f"sizes from {sizes.min():g} to {sizes.max():g}",
            remedy="multiply all of them by one number, and divide the results by it",
        )
    return factors


def _shaped(name: str, values: Array, positions: int) -> Array:
    """`[N]` or `[N, T]`; the axes of an image's pixels side by side."""
    if values.ndim > 1 and len(values):
        values = values.reshape(len(values), -1)
        values = values[:, 0] if values.shape[1] == 1 and positions > 1 else values
    if values.ndim == 0 or (values.ndim == 2 and values.shape[1] != positions):
        raise InvalidInputError(
            f"{name} have another shape than the predictions",
            expected="[N], one for every input"
            + (f", or [N, {positions}], one for every prediction" if positions > 1 else ""),
            received=f"shape {list(values.shape)}",
        )
    return values
