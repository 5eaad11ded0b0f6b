"""What is known from the rows of the training data as the content of an artifact.

Eigenvectors are P times K numbers; the rows they are made of follow from the training data, and
all that took time is the factor L of R R^T + N I, n (n + 1) / 2 numbers. So the file holds the data
and L, and whoever loads it has the covariance as the fit had it, with nothing left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature.plus_l2 import RootPlusL2
from deltauq.curvature.rows_inverse import RowsInverse
from deltauq.data.arrays import ArrayInputs
from deltauq.data.batch_reader import n_rows_of
from deltauq.data.batches import Batches
from deltauq.data.training import TrainingData
from deltauq.delta.exact import training_rows
from deltauq.delta.files.nests import pack_nest, unpack_nest
from deltauq.delta.fitted import Fitted
from deltauq.delta.known import KnownByInverse
from deltauq.delta.problem import Problem
from deltauq.delta.settings import Settings
from deltauq.delta.stating import attach_data
from deltauq.errors import ArtifactError, InvalidInputError, MemoryLimitError
from deltauq.likelihoods import CustomLoss
from deltauq.runtime.memory import free_memory, gib

__all__ = ["HOLDS", "pack_rows", "unpack_rows"]

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

#: What such a file says of itself.
HOLDS = (
    "the training data: all inputs, labels and weights that fit was given, for anyone who has the "
    "file"
)

_INPUTS, _LABELS, _WEIGHTS = (f"training data/{name}" for name in ("inputs", "labels", "weights"))
_FACTOR = "rows/factor"


def pack_rows(fitted: Fitted, arrays: Arrays) -> dict[str, Any]:
    """Add the training data and the factor of their rows to the arrays of an artifact.

    Raises:
        InvalidInputError: a fit that is not known from rows, or rows that a file cannot give back.
    """
    inverse = _inverse_of(fitted)
    data = inverse.rows.data  # in the order of the factor; what was attached since may have another
    given = _as_given(data, fitted.problem)
    arrays[_LABELS] = given.y
    if given.sample_weight is not None:
        arrays[_WEIGHTS] = given.sample_weight
    arrays[_FACTOR] = _packed(inverse.plus_l2.root)
    return {
        "holds": HOLDS,
        "rows": {
            "inputs": pack_nest(given.x.nest, arrays, _INPUTS),
            "class_weight": sorted((given.class_weight or {}).items()),
            "weights": data.reading,
            "n_rows": inverse.rows.n_rows,
            "precision": inverse.precision,
        },
    }


def unpack_rows(
    facts: Mapping[str, Any], arrays: Arrays, problem: Problem, settings: Settings
) -> tuple[Problem, KnownByInverse]:
    """The problem with its training data at hand, and what is known from their rows.

    Args:
        facts: of the artifact.
        arrays: likewise.
        problem: as it was recalled, without its data.
        settings: that the covariance was made with.

    Raises:
        ArtifactError: arrays of other sizes than the facts say, or rows that are not those of the
            factor.
        MemoryLimitError: the factor or the rows do not fit in memory.
    """
    known = facts["rows"]
    x = unpack_nest(known["inputs"], arrays, _INPUTS)
    n_rows = known["n_rows"]
    _check_sizes(arrays, x, problem.data.n_rows, n_rows)
    try:
        _refuse_without_room(n_rows, settings)
        training = TrainingData(
            ArrayInputs(x, problem.data.columns),
            arrays[_LABELS],
            arrays.get(_WEIGHTS),
            {int(number): weight for number, weight in known["class_weight"]} or None,
        )
        problem = attach_data(problem, training, replace(settings, weights=known["weights"]))
        rows = training_rows(problem, settings)
    except MemoryLimitError as error:
        raise MemoryLimitError(
            "the artifact holds training data whose rows do not fit in memory here",
            expected=error.expected,
            received=error.received,
            remedy="load it where more memory is free; or save it there without "
            "training_data=True, which keeps eigenpairs",
        ) from error
    n_examples = problem.data.n_examples
    root = RootPlusL2(_unpacked(arrays.pop(_FACTOR), n_rows), n_examples)
    inverse = RowsInverse(root, n_examples, rows, known["precision"])
    if rows.n_rows != n_rows or not inverse.is_of_rows():
        raise ArtifactError(
            "the rows of the training data in the artifact are not those of its factor",
            expected="the rows that fit has formed, of the same model, code of its layers included",
            received=f"{rows.n_rows:,} rows with other values",
            remedy="import the code of the model's layers as it was then; or fit again",
        )
    return problem, KnownByInverse(inverse, problem.scale, settings.storage())


def _inverse_of(fitted: Fitted) -> RowsInverse:
    """The inverse through rows that a fit is known from."""
    inverse = fitted.known.inverse if isinstance(fitted.known, KnownByInverse) else None
    if isinstance(inverse, RowsInverse):
        return inverse
    if inverse is not None:
        remedy = "save without training_data=True: all eigenpairs are kept, and they are exact"
    elif fitted.known.noise is not None:
        remedy = (
            "save without training_data=True; or fit with "
            "likelihood=deltauq.likelihoods.Gaussian(noise=...) and route='gram', as a noise is "
            "estimated from eigenpairs"
        )
    else:
        remedy = "save without training_data=True; or fit OPG or GGN with route='gram'"
    raise InvalidInputError(
        "training_data=True is for a fit that is known from rows of the training data",
        expected="one by route='gram'",
        received=fitted.in_short,
        remedy=remedy,
    )


def _as_given(data: Batches, problem: Problem) -> TrainingData:
    """The training data as arrays from which the same rows can be formed again."""
    if isinstance(problem.likelihood.at_one_position, CustomLoss):
        raise InvalidInputError(
            "training_data=True needs the loss where the file is loaded, and a file holds no code",
            expected="a likelihood of deltauq.likelihoods other than CustomLoss",
            received=repr(problem.likelihood),
            remedy="save without training_data=True: predictions need no loss",
        )
    given = data.as_given()
    if given is None:
        raise InvalidInputError(
            "training_data=True needs training data that are in memory",
            expected="arrays or a frame, as fit was given them",
            received="a dataset, which is read anew in every pass",
            remedy="save without training_data=True; or fit with arrays: fit(x, y)",
        )
    return given


def _check_sizes(arrays: Arrays, x: Any, n_inputs: int, n_rows: int) -> None:
    """Hold the sizes of all arrays against what the facts say, before any memory is taken."""
    weights = arrays.get(_WEIGHTS, arrays[_LABELS])
    found = [n_rows_of(x), len(arrays[_LABELS]), len(weights), len(arrays[_FACTOR])]
    expected = [n_inputs, n_inputs, n_inputs, n_rows * (n_rows + 1) // 2]
    if found != expected:
        raise ArtifactError(
            "the training data in the artifact are not as many as it says",
            expected=f"lengths of inputs, labels, weights and factor: {expected}",
            received=f"{found}",
            remedy="copy it again from where it was written; nothing of it was used",
        )


def _refuse_without_room(n_rows: int, settings: Settings) -> None:
    """Refuse a factor that does not fit, before it is made."""
    free, needed = free_memory(settings.memory_limit), 8 * n_rows**2
    if needed > free:
        raise MemoryLimitError(
            "the factor of the rows does not fit in memory",
            expected=f"at most {gib(free)}, what the machine leaves",
            received=f"{gib(needed)} for a matrix [{n_rows:,}, {n_rows:,}] in float64",
        )


def _packed(root: Array) -> Array:
    """The lower triangle `[n, n]`, row after row, `[n (n + 1) / 2]`."""
    return np.concatenate([row[: i + 1] for i, row in enumerate(root)])


def _unpacked(packed: Array, size: int) -> Array:
    """The matrix `[n, n]` of a lower triangle, zero above its diagonal."""
    root, start = np.zeros((size, size)), 0
    for i, row in enumerate(root):
        row[: i + 1] = packed[start : start + i + 1]
        start += i + 1
    return root
