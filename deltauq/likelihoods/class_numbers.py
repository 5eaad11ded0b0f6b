"""Labels as users have them: checked, and turned into class numbers."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError, as_list, is_number
from deltauq.likelihoods.likelihood import Array

__all__ = [
    "are_whole",
    "check_class_numbers",
    "check_names",
    "check_number_of_names",
    "check_smoothing",
    "class_numbers",
    "finite_numbers",
    "numbers_of_names",
    "yes_or_no",
]


def class_numbers(y: npt.ArrayLike, names: npt.ArrayLike | None = None) -> Array:
    """Labels in any form that classes have, as the numbers of the classes from 0 `[N]`.

    The one place where labels become class numbers. What must be refused where, such as a number
    that no output of the model stands for, is checked by those who ask.

    Args:
        y: class numbers `[N]` or `[N, 1]`, of any numeric dtype; a weight for every class `[N, C]`,
            of which the largest counts; of two classes the probability of class 1 `[N]`, which
            counts from above one half; or names of classes `[N]`, every one out of `names`.
        names: what the classes are called `[C]`, in their order; None where `y` holds numbers.

    Raises:
        InvalidInputError: labels that are no numbers, and no names of them are given.
    """
    y = np.asarray(y)
    column = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if names is not None:
        return np.argmax(column[:, None] == np.asarray(names), axis=1)
    if column.dtype.kind not in "fiub":
        raise _no_class_numbers(y, "[N, C]")
    if column.ndim == 2:
        return np.argmax(column, axis=1)
    return np.asarray(column if are_whole(column) else column > 0.5, np.intp)


def check_class_numbers(y: Array, n_classes: int) -> None:
    """Refuse labels that are no class numbers `[N]` or `[N, 1]` of a model with C outputs.

    Raises:
        InvalidInputError: labels of another shape or dtype, or out of range.
    """
    one_column = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
    if not (one_column and y.dtype.kind in "fiub" and are_whole(y)):
        raise _no_class_numbers(y, f"[N, {n_classes}]")
    if y.size and (y.min() < 0 or y.max() >= n_classes):
        raise InvalidInputError(
            "y holds labels out of range",
            expected=f"integers from 0 to {n_classes - 1}, as the model tells {n_classes} classes "
            "apart",
            received=f"values from {y.min():g} to {y.max():g}",
            remedy="number the classes from 0, in the order of the model's outputs",
        )


def numbers_of_names(y: Array, names: Sequence[str] | None, n_classes: int) -> Array:
    """Replace names of classes by their numbers; labels that are no text come back as they are.

    Args:
        y: labels of any shape.
        names: of the classes in the order of the model's outputs; None leaves all labels alone.
        n_classes: C.

    Raises:
        InvalidInputError: names that are not C different ones, or labels that are none of them.
    """
    if names is None or y.dtype.kind not in "OUST":
        return y
    check_number_of_names(names, n_classes)
    different = set(names)
    texts = y.astype(str).ravel()
    unknown = sorted({str(label) for label in np.unique(texts)} - different)
    if unknown:
        raise InvalidInputError(
            "y holds names that are no classes",
            expected=f"names out of {list(names)[:10]}",
            received=f"{unknown[:5]}",
        )
    return class_numbers(texts, names).reshape(y.shape)


def yes_or_no(y: Array, n_labels: int) -> Array:
    """Check that labels are numbers from 0 (no) to 1 (yes), and give them as `[N, C]`.

    Args:
        y: `[N, C]`; `[N]` will do for a single label.
        n_labels: C.

    Returns:
        int32 for whole numbers and booleans, float64 for floats.

    Raises:
        InvalidInputError: another shape, text, or numbers outside of [0, 1].
    """
    wide = _beside_outputs(y, n_labels)
    if wide is None:
        raise InvalidInputError(
            "y does not hold labels of yes or no",
            expected=f"numbers from 0 to 1 of {_shape_beside(n_labels, 'sigmoid output')}",
            received=f"dtype {y.dtype}, shape {list(y.shape)}",
            remedy=_to_yes_or_no(y, n_labels),
        )
    if wide.size and not (np.min(wide) >= 0 and np.max(wide) <= 1):
        raise InvalidInputError(
            "y holds labels out of range",
            expected="0 (no), 1 (yes), or a probability between them",
            received=f"values from {np.min(wide):g} to {np.max(wide):g}",
            remedy="map labels such as -1 and 1, or 1 and 2, to 0 and 1",
        )
    return wide.astype(np.float64 if wide.dtype.kind == "f" else np.int32)


def _to_yes_or_no(y: Array, n_labels: int) -> str:
    """What to do with labels that are text, or have another shape than the outputs."""
    if y.dtype.kind not in "fiub":
        if n_labels == 1:
            return "for names of two classes pass likelihood=Binary(classes=[...]), that of 0 first"
        return "for lists of names make columns with sklearn.preprocessing.MultiLabelBinarizer"
    if n_labels == 1:
        return "for one-hot rows of two classes pass the second column: y[:, 1]"
    return f"for class numbers make a column of each class: np.eye({n_labels})[y]"


def finite_numbers(y: Array, n_outputs: int) -> Array:
    """Check that labels are finite numbers, one for every output, and give them as `[N, C]`.

    Args:
        y: `[N, C]`; `[N]` will do for a single output.
        n_outputs: C.

    Returns:
        float64.

    Raises:
        InvalidInputError: another shape, text, NaN or infinity.
    """
    wide = _beside_outputs(y, n_outputs)
    if wide is None:
        raise InvalidInputError(
            "y does not hold the numbers that the model predicts",
            expected=f"numbers of {_shape_beside(n_outputs, 'output')}",
            received=f"dtype {y.dtype}, shape {list(y.shape)}",
        )
    if not np.all(np.isfinite(wide)):
        raise InvalidInputError(
            "y holds NaN or infinity",
            expected="finite numbers",
            received=f"{np.count_nonzero(~np.isfinite(wide))} of {wide.size} are not finite",
            remedy="impute or drop those rows before; deltauq never drops any",
        )
    return wide.astype(np.float64)


def _beside_outputs(y: Array, n_outputs: int) -> Array | None:
    """Labels `[N, C]`, one for every output; None for another shape, and where they are text."""
    wide = y[:, None] if y.ndim == 1 and n_outputs == 1 else y
    fits = wide.ndim == 2 and wide.shape[1] == n_outputs and wide.dtype.kind in "fiub"
    return wide if fits else None


def _shape_beside(n_outputs: int, output: str) -> str:
    """What an error says of the shape of labels beside so many outputs of this name."""
    if n_outputs == 1:
        return f"shape [N] or [N, 1], as the model has 1 {output}"
    return f"shape [N, {n_outputs}], as the model has {n_outputs} {output}s"


def check_smoothing(label_smoothing: Any) -> float:
    """Check that a label smoothing lies in [0, 1), and give it as a float.

    Raises:
        InvalidInputError: it does not, or it is no number.
    """
    if not is_number(label_smoothing) or not 0 <= float(label_smoothing) < 1:
        raise InvalidInputError(
            "label_smoothing is no share",
            expected="0 <= label_smoothing < 1",
            received=repr(label_smoothing),
        )
    return float(label_smoothing)


def check_names(classes: Any) -> tuple[str, ...] | None:
    """Check that classes have names that are different texts, and give them as a tuple, or None.

    Raises:
        InvalidInputError: they are none.
    """
    if classes is None:
        return None
    names = as_list(classes)
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidInputError(
            "classes are no names",
            expected="a text for each class, in the order of the model's outputs",
            received=reprlib.repr(classes),
            remedy="write classes=['good', 'bad']; labels that are numbers need none",
        )
    return tuple(map(str, names))


def check_number_of_names(names: Sequence[str] | None, n_classes: int) -> None:
    """Refuse names of classes that are not as many different ones as there are classes.

    Raises:
        InvalidInputError: they are not.
    """
    if names is not None and not len(names) == len(set(names)) == n_classes:
        raise InvalidInputError(
            "classes do not fit the model",
            expected=f"{n_classes} different names, in the order of the model's outputs",
            received=f"{len(names)} names, {len(set(names))} of them different",
        )


def are_whole(y: Array) -> bool:
    """Whether numbers of any dtype have no fractions."""
    return y.dtype.kind != "f" or bool(np.all(y == np.floor(y)))


def _no_class_numbers(y: Array, distributions: str) -> InvalidInputError:
    return InvalidInputError(
        "y does not hold class numbers",
        expected=f"whole numbers of shape [N] or [N, 1], or distributions {distributions}",
        received=f"dtype {y.dtype}, shape {list(y.shape)}",
        remedy=_to_class_numbers(y),
    )


def _to_class_numbers(y: Array) -> str:
    """What to do with labels that are text, fractions, or columns that are not those of classes."""
    if y.dtype.kind not in "fiub":
        return (
            "for names pass likelihood=Categorical(classes=[...]), which gives their order, or "
            "number them with sklearn.preprocessing.LabelEncoder"
        )
    if y.ndim == 1 or y.shape[1:] == (1,):
        return "for quantities rather than classes pass likelihood='gaussian'"
    return "pass the one column that holds class numbers, y[:, k], or a column for every output"
