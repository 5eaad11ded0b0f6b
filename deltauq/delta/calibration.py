"""The inputs on which a fit measures what its predictions leave open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.curvature.calibrated_tail import TailInputs
from deltauq.data.batch_reader import cut
from deltauq.data.batches import Batches
from deltauq.delta.problem import Problem
from deltauq.delta.settings import Settings
from deltauq.errors import InvalidInputError, lying_in
from deltauq.prediction.directions import SomeClasses, most_probable
from deltauq.prediction.forms import ROUNDING
from deltauq.prediction.result_memory import prediction_batch
from deltauq.runtime.memory import free_memory

__all__ = [
    "CALIBRATION",
    "calibration_inputs",
    "calibration_rows",
    "has_tail_inputs",
    "tail_inputs",
]

#: Inputs on which `rank="auto"` measures what the tail leaves open.
CALIBRATION = 64

#: Training inputs that the tail is measured on: one in so many, and no more than these.
_ONE_IN, _HELD_OUT = 20, 32


def calibration_rows(
    problem: Problem, memory_limit: int | str | None, x: Any = None
) -> npt.NDArray[Any]:
    """Jacobians `[B, C, P]` of the means of `calibration_inputs`, in the prior's metric.

    Raises:
        InvalidInputError: inputs whose predictions are all masked.
    """
    rows = _mean_rows(problem, *calibration_inputs(problem, memory_limit, x))
    if not len(rows):
        raise InvalidInputError(
            "there is nothing to measure on: all predictions of these inputs are masked",
            expected="inputs that are not padding throughout",
            received="masked predictions alone",
        )
    return rows


def _mean_rows(problem: Problem, x: Any, directions: SomeClasses | None) -> npt.NDArray[Any]:
    """Jacobians `[B, C, P]` of the means of some inputs that are not masked."""
    rows = problem.linearization.rows(x, directions)
    counted = ~rows.shown.masked
    values = rows.values if np.all(counted) else rows.values[counted]
    return np.asarray(rows.shown.slope[counted].astype(values.dtype) @ values)


def tail_inputs(problem: Problem, settings: Settings, *, copies: int = 1) -> TailInputs:
    """The inputs that the tail is measured on: those that were given, else some of training.

    Of the training inputs one in twenty, `_HELD_OUT` at most, from all over the data: their own
    curvature is left out of the eigenvectors that are sought, and added at the end.

    Args:
        problem: what is asked.
        settings: how.
        copies: how often the rows of a batch of them are in memory.

    Raises:
        InvalidInputError: training inputs that cannot be left out of the curvature.
    """
    free = free_memory(settings.memory_limit)
    some_classes = most_probable(problem.likelihood, problem.n_outputs)
    n_rows = 2 * len(some_classes) if some_classes else problem.n_outputs
    size = prediction_batch(problem.network, problem.input_spec, n_rows * copies, free=free)
    held_out, given = None, problem.calibration
    if given is None:
        data = problem.training_set
        if not has_tail_inputs(problem, settings):
            raise InvalidInputError(
                "the tail cannot be calibrated on these training inputs",
                expected="arrays, of which the same rows can be left out in every pass and others "
                "stay, and a curvature that is a sum over them",
                received=_why_none(data, settings),
                remedy="pass calibration=x_new, inputs such as will be predicted; or tail='auto', "
                "which takes the middle of what is possible then",
            )
        held_out = data.apart(max(1, min(_HELD_OUT, data.n_weighted // _ONE_IN)))

    def inputs() -> Iterator[Any]:
        if given is not None:
            with lying_in("calibration=..."):
                yield from given.with_batch_size(size)
        elif held_out is not None:
            for batch in held_out[1]:
                yield from cut(batch.x, size)

    def rows() -> Iterator[npt.NDArray[Any]]:
        return (_mean_rows(problem, x, some_classes) for x in inputs())

    return TailInputs(rows, held_out, ROUNDING[problem.network.dtype], settings.seed)


def has_tail_inputs(problem: Problem, settings: Settings) -> bool:
    """Whether there are inputs to measure a tail on: given ones, or rows that can be held out."""
    return problem.calibration is not None or not _why_none(problem.training_set, settings)


def _why_none(data: Batches, settings: Settings) -> str:
    """Why no training inputs can be held out; nothing where some can be."""
    if data.is_stream:
        return "a dataset, whose order may change from pass to pass"
    if not settings.kind.bread.has_parts:
        return f"curvature={settings.curvature!r}, whose draws go by the order of all rows"
    return "" if data.n_weighted > 1 else "one example of positive weight"


def calibration_inputs(
    problem: Problem, memory_limit: int | str | None, x: Any = None, *, count: int = CALIBRATION
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
