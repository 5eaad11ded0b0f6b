"""What plots take from a prediction: points, truth and names, checked against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError

if TYPE_CHECKING:
    from deltauq.prediction import Estimate, MultiLabelPrediction, Prediction

__all__ = [
    "checked_index",
    "checked_truth",
    "counted",
    "events",
    "is_of_classes",
    "is_of_labels",
    "misclassified",
    "output_names",
    "predicted",
    "shortened",
]

Array = npt.NDArray[Any]

#: Letters of a class's name in a picture.
_LETTERS = 24


def is_of_classes(prediction: Any) -> bool:
    """Whether a prediction is of one of several classes."""
    from deltauq.prediction import Prediction  # not at the top: TensorFlow comes with it

    return isinstance(prediction, Prediction)


def is_of_labels(prediction: Any) -> bool:
    """Whether a prediction is of several yes-or-no labels."""
    from deltauq.prediction import MultiLabelPrediction

    return isinstance(prediction, MultiLabelPrediction)


def counted(prediction: Any, *columns: Any) -> tuple[Any, ...]:
    """A prediction without what is masked, and columns `[N, ...]` beside it, or None, likewise.

    A column of another length stays as it is: it may be about the others alone, or is refused.
    """
    kept = ~prediction.masked
    if np.all(kept):
        return prediction, *columns
    arrays = (None if column is None else np.asarray(column) for column in columns)
    some = (
        array if array is None or array.shape[:1] != kept.shape else array[kept] for array in arrays
    )
    return prediction[kept], *some


def predicted(prediction: Prediction | MultiLabelPrediction) -> tuple[Array, Array]:
    """Probability and standard error of the predicted class `[N]`; of every label `[N C]`."""
    if is_of_labels(prediction):
        return prediction.probabilities.ravel(), prediction.std.ravel()
    n = np.arange(len(prediction))
    return prediction.probabilities[n, prediction.labels], prediction.std[n, prediction.labels]


def events(prediction: Prediction | MultiLabelPrediction, y: npt.ArrayLike) -> tuple[Array, Array]:
    """Probabilities, and whether what they are about came true, `[N]` each, of labels `[N C]`."""
    truth = checked_truth(prediction, y)
    if is_of_labels(prediction):
        return prediction.probabilities.ravel(), truth.ravel() > 0.5
    return predicted(prediction)[0], prediction.labels == truth


def misclassified(prediction: Prediction | MultiLabelPrediction, y: npt.ArrayLike) -> Array:
    """Whether the prediction of each input was wrong `[N]`, given the truth."""
    return prediction.is_wrong(checked_truth(prediction, y))


def checked_truth(prediction: Estimate, y: npt.ArrayLike) -> Array:
    """Labels in the form that the prediction has: class numbers `[N]`, otherwise `[N, C]`.

    Args:
        prediction: of N inputs.
        y: `[N]`, `[N, 1]` or `[N, C]`; of classes, one-hot rows will do.

    Raises:
        InvalidInputError: they do not fit the prediction.
    """
    from deltauq.likelihoods.class_numbers import class_numbers

    n, n_outputs = prediction.logits.shape
    truth = np.asarray(y)
    if not is_of_classes(prediction):
        truth = truth[:, None] if truth.shape == (n,) and n_outputs == 1 else truth
        fits, expected = truth.shape == (n, n_outputs), f"labels [{n}, {n_outputs}]"
    else:
        fits = truth.shape in ((n,), (n, 1), (n, n_outputs))
        expected = f"class numbers [{n}]"
    if not fits:
        raise InvalidInputError(
            "y does not fit the prediction",
            expected=f"{expected}, one row an input",
            received=f"shape {list(np.shape(y))}",
        )
    return class_numbers(truth) if is_of_classes(prediction) else truth


def output_names(class_names: Sequence[Any] | None, n_outputs: int) -> list[str]:
    """Names of classes, labels or outputs as text; their numbers where no names are given.

    Raises:
        InvalidInputError: another number of names than of outputs.
    """
    names = range(n_outputs) if class_names is None else class_names
    if len(names) != n_outputs:
        raise InvalidInputError(
            "class_names has the wrong length",
            expected=f"{n_outputs} names, one a class",
            received=f"{len(names)}",
        )
    return [str(name) for name in names]


def shortened(name: str) -> str:
    """A name as it fits into a picture; of a long one both ends, which may tell it from others."""
    name = " ".join(name.split())
    if len(name) <= _LETTERS:
        return name
    return f"{name[: _LETTERS // 2].rstrip()}…{name[1 - _LETTERS // 2 :].lstrip()}"


def checked_index(index: int, prediction: Estimate) -> int:
    """The number of an input as a place from 0 to N - 1; a negative one counts from the end.

    Raises:
        InvalidInputError: there is no such input.
    """
    n = len(prediction)
    if not -n <= index < n:
        raise InvalidInputError(
            "index names no input", expected=f"a number from 0 to {n - 1}", received=str(index)
        )
    return int(index) % n
