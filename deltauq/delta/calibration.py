"""The inputs on which a fit measures what its predictions leave open."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.delta.problem import Problem
from deltauq.errors import InvalidInputError
from deltauq.prediction.directions import SomeClasses, most_probable
from deltauq.prediction.result_memory import prediction_batch
from deltauq.runtime.memory import free_memory

__all__ = ["calibration_inputs", "calibration_rows"]

#: Inputs on which `rank="auto"` measures what the tail leaves open.
_CALIBRATION = 64


def calibration_rows(
    problem: Problem, memory_limit: int | str | None, x: Any = None
) -> npt.NDArray[Any]:
    """Jacobians `[B, C, P]` of the means of `calibration_inputs`, in the prior's metric.

    Raises:
        InvalidInputError: inputs whose predictions are all masked.
    """
    rows = problem.linearization.rows(*calibration_inputs(problem, memory_limit, x))
    counted = ~rows.shown.masked
    if not np.any(counted):
        raise InvalidInputError(
            "there is nothing to measure on: all predictions of these inputs are masked",
            expected="inputs that are not padding throughout",
            received=f"{len(counted)} masked predictions",
        )
    values = rows.values if np.all(counted) else rows.values[counted]
    return np.asarray(rows.shown.slope[counted].astype(values.dtype) @ values)


def calibration_inputs(
    problem: Problem, memory_limit: int | str | None, x: Any = None, *, count: int = _CALIBRATION
) -> tuple[Any, SomeClasses | None]:
    """Choose inputs to measure widths on, and of many classes which to look at.

    The first of the inputs given, or some of training: `count` at most.
    """
    free = free_memory(memory_limit)
    some_classes = most_probable(problem.likelihood, problem.n_outputs)
    n_rows = 2 * len(some_classes) if some_classes else problem.n_outputs
    fits = prediction_batch(problem.network, problem.input_spec, n_rows, free=free)
    count = min(count, fits)
    x = problem.training_set.spread(count).x if x is None else x
    return tf.nest.map_structure(lambda leaf: tf.constant(leaf[:count]), x), some_classes
