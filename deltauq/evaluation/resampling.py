"""How far a figure of merit is known: bootstrap intervals over the inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.data.arrays import as_numbers
from deltauq.errors import InvalidInputError, check_count, check_share

__all__ = ["Bootstrapped", "bootstrapped"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Bootstrapped:
    """A figure of merit with its interval over the inputs.

    Attributes:
        value: on all inputs.
        low: lower end of the percentile interval.
        high: its upper end.
        n_undefined: resamples on which there is no such figure, as of errors where none was drawn;
            the interval is of the others.
    """

    value: float
    low: float
    high: float
    n_undefined: int


def bootstrapped(
    figure: Callable[..., float | None],
    *arrays: Array,
    level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> Bootstrapped:
    """Measure a figure of merit and its bootstrap interval, resampling the inputs.

    All arrays are resampled by the same rows: the difference of two scores on the same inputs is
    `bootstrapped(lambda a, b, wrong: error_auroc(a, wrong) - error_auroc(b, wrong), a, b, wrong)`,
    paired, though each of its parts must have a value on every resample.

    Args:
        figure: of the arrays, a number, or None where there is none.
        *arrays: `[N, ...]`, what it is a figure of.
        level: in (0, 1).
        n_resamples: how often.
        seed: of the resampling.

    Raises:
        InvalidInputError: arrays of different lengths or none, and what the figure refuses; a
            figure that is not there for all inputs, or on more than half of the resamples.

    >>> import numpy as np
    >>> found = bootstrapped(np.mean, np.arange(100.0))
    >>> found.low < found.value < found.high
    True
    """
    level = check_share("level", level, example=0.95)
    check_count("n_resamples", n_resamples)
    columns = [as_numbers(array, f"array {k}") for k, array in enumerate(arrays)]
    lengths = {column.shape[:1] for column in columns}
    if len(lengths) != 1 or lengths <= {(), (0,), (1,)}:
        raise InvalidInputError(
            "the arrays to resample do not fit each other",
            expected="arrays [N, ...] of one length, N > 1",
            received=f"{[list(column.shape) for column in columns]}",
        )

    def of(rows: Array) -> float:
        value = figure(*(column[rows] for column in columns))
        return np.nan if value is None else float(value)

    n, rng = len(columns[0]), np.random.default_rng(seed)
    # SciPy's `bootstrap` has no interval where the figure is undefined on a single resample.
    found = np.array([of(rng.integers(n, size=n)) for _ in range(n_resamples)])
    value, defined = of(np.arange(n)), found[~np.isnan(found)]
    if np.isnan(value) or 2 * len(defined) < len(found):
        raise InvalidInputError(
            "the figure is not defined on these inputs",
            expected="a number for all inputs, and on most resamples",
            received=f"{value:g} for all, and a number on {len(defined)} of {len(found)} resamples",
            remedy="take inputs among which there are both kinds, such as right and wrong ones",
        )
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Bootstrapped(value, float(low), float(high), len(found) - len(defined))
