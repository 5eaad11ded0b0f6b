"""Whatever holds numbers or text as NumPy arrays, and what cannot be read refused in words."""

from __future__ import annotations

import numbers
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import tensorflow as tf

from deltauq.data.frames import column_types, from_column, from_frame
from deltauq.errors import InvalidInputError, what_it_says

__all__ = [
    "ArrayInputs",
    "as_labels",
    "as_nest",
    "as_numbers",
    "cast_floats",
    "check_finite",
    "check_length",
    "column_names",
    "empty_error",
    "in_dtype",
    "refuse_text",
    "refuse_unreadable",
]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ArrayInputs:
    """Inputs that are held in memory as arrays, made once from whatever held the numbers.

    Attributes:
        nest: an array `[N, ...]` of numbers, or of text as bytes, or a nest (list, dict) of them.
        columns: of the pandas frame that they come from; None of other inputs.
    """

    nest: Any
    columns: tuple[Any, ...] | None = None


def as_nest(x: Any, name: str = "x") -> Any:
    """Inputs as an array of numbers or of text, or a nest (list, dict) of them.

    A list or tuple of arrays is several inputs, as Keras takes them, and so is a dict; a list of
    numbers, or of lists of numbers, is one array. Text becomes an array of bytes, of dtype object,
    as TensorFlow has it.

    Raises:
        InvalidInputError: as `as_numbers`, or text with something else beside it.
    """
    if isinstance(x, Mapping):
        return {key: as_nest(value, f"{name}[{key!r}]") for key, value in x.items()}
    if isinstance(x, (list, tuple)) and not _is_rows(x):
        return [as_nest(value, f"{name}[{k}]") for k, value in enumerate(x)]
    array, numeric = _read(x, name)
    return _as_bytes(array, name) if _holds_text(array) else _as_checked(x, array, numeric, name)


def as_numbers(leaf: Any, name: str = "x") -> Array:
    """An array of numbers from an array, tensor, pandas object or list.

    Args:
        leaf: what is said to hold numbers; missing values of pandas become NaN.
        name: of the argument, for the errors.

    Raises:
        InvalidInputError: it holds no numbers, or is sparse, ragged, or read only once.
    """
    return _as_checked(leaf, *_read(leaf, name), name)


def in_dtype(leaf: Array, dtype: tf.DType) -> Array:
    """Numbers or text in the dtype of the training data or of the model's input.

    Raises:
        InvalidInputError: text for numbers or the reverse, or numbers that a dtype of whole
            numbers does not hold.
    """
    if dtype != tf.string:
        refuse_text("x", leaf)
    elif leaf.dtype.kind != "O":
        raise InvalidInputError(
            "x does not hold text",
            expected="text, as in training",
            received=f"{leaf.dtype}",
            remedy="prepare the inputs as for training: x.astype(str)",
        )
    with np.errstate(invalid="ignore"):
        made = leaf.astype(dtype.as_numpy_dtype, copy=False)
    if made.dtype.kind != "f" and not np.array_equal(made, leaf):
        raise InvalidInputError(
            "x does not fit the training data",
            expected=f"whole numbers that {made.dtype} holds, as in training",
            received=f"{leaf.dtype} from {leaf.min():g} to {leaf.max():g}",
            remedy="prepare the inputs as for training (same scaling, same dtype)",
        )
    return made


def refuse_text(name: str, array: Array) -> None:
    """`InvalidInputError` for text where numbers are taken."""
    if array.dtype.kind == "O":
        raise _no_numbers(name, array, f"text, such as {_shown(array.ravel()[0])}")


def _read(leaf: Any, name: str) -> tuple[Array, bool]:
    """An array of any dtype, and whether it may hold numbers, which categories may look like."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(leaf, pandas.DataFrame):
        return from_frame(leaf, name), True
    if pandas is not None and isinstance(leaf, column_types(pandas)):
        column = pandas.Series(leaf)
        return from_column(column), bool(pandas.api.types.is_numeric_dtype(column.dtype))
    return _as_array(leaf, name), True


def _as_checked(leaf: Any, array: Array, numeric: bool, name: str) -> Array:
    """The array that was read, where it holds numbers."""
    if not numeric or array.dtype.kind not in "fiub":
        raise _no_numbers(name, array, f"dtype {getattr(leaf, 'dtype', array.dtype)}")
    return array


def _no_numbers(name: str, array: Array, received: str) -> InvalidInputError:
    if array.dtype.kind == "c":
        remedy = "pass real and imaginary parts, as for training: np.stack([z.real, z.imag], -1)"
    elif array.dtype.kind == "O" and _are_numbers(array):
        remedy = "make one array of the numbers: np.asarray(values, dtype=float)"
    elif _is_of_inputs(name):
        remedy = (
            "encode text and categories before, or with preprocessing layers inside the model; "
            "a nest of inputs is a list, tuple or dict of arrays"
        )
    else:
        remedy = "give a number for every row: np.asarray(values, dtype=float) reads text of digits"
    return InvalidInputError(
        f"{name} does not hold numbers",
        expected="float, integer or boolean arrays",
        received=received,
        remedy=remedy,
    )


def _are_numbers(array: Array) -> bool:
    """Whether objects are numbers one and all, such as Python's or `Decimal`."""
    return array.size > 0 and all(isinstance(v, numbers.Number) for v in array.ravel())


def _holds_text(array: Array) -> bool:
    """Whether an array has text in it, perhaps beside something else."""
    if array.dtype.kind in "UST":
        return True
    return array.dtype.kind == "O" and any(isinstance(v, (str, bytes)) for v in array.ravel())


def _as_bytes(array: Array, name: str) -> Array:
    """Text as UTF-8, an array of dtype object."""
    flat = array.ravel().tolist()
    other = [k for k, value in enumerate(flat) if not isinstance(value, (str, bytes))]
    if other:
        missing = any(_is_missing(flat[k]) for k in other)
        row = other[0] // (array.size // len(array))
        raise InvalidInputError(
            f"{name} holds something else beside text",
            expected="text in every place",
            received=f"{flat[other[0]]!r} in row {row}, the first such row (counted from 0)",
            remedy="fill missing values before, as for training: x.fillna('')"
            if missing  # before numbers are made text, which would make "None" of None
            else "for a model of numbers encode text before; for one of text make all of it text, "
            "as for training: x.astype(str)",
        )
    encoded = np.empty(array.shape, object)
    encoded.ravel()[:] = [v.encode() if isinstance(v, str) else v for v in flat]
    return encoded


def _is_missing(value: Any) -> bool:
    """Whether an object stands for a value that is not there, as pandas understands it."""
    pandas = sys.modules.get("pandas")
    no_number = isinstance(value, numbers.Real) and bool(np.isnan(float(value)))
    return value is None or no_number or (pandas is not None and value is pandas.NA)


def _shown(text: bytes) -> str:
    return repr(text.decode(errors="replace")[:40])


def as_labels(
    y: Any, first_row: int = 0, name: str = "y", *, counted: Array | None = None
) -> Array:
    """Labels of any kind as an array `[N, ...]`: numbers or text.

    Args:
        y: labels.
        first_row: as for `check_finite`.
        name: of the argument, for the errors.
        counted: which of them are looked at, `[N]` or `[N, T]`, and `[N, T, ...]` are labels of T
            predictions; the others may be anything, and become like one of these. None for all.

    Raises:
        InvalidInputError: missing or non-finite labels, or what is no array.
    """
    if isinstance(y, Mapping):
        raise InvalidInputError(
            f"{name} is a dict",
            expected="labels of the model's one output",
            received=f"a dict of {sorted(map(str, y))}",
            remedy="pass y[name] of that output",
        )
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(y, (pandas.DataFrame, *column_types(pandas))):
        frame = y if isinstance(y, pandas.DataFrame) else pandas.Series(y)
        missing = int(np.sum(frame.isna().to_numpy()))
        if missing:
            raise InvalidInputError(
                f"{name} holds missing values",
                expected="a label for every row",
                received=f"{missing} of {frame.size} values are missing",
                remedy="drop those rows of x and y before; deltauq never drops any",
            )
        if isinstance(y, pandas.DataFrame):
            columns = [from_column(y.iloc[:, k]) for k in range(y.shape[1])]
            labels = np.stack(columns, axis=1) if columns else np.empty((len(y), 0))
        else:
            labels = from_column(frame)
    else:
        labels = _as_array(y, name)
    if counted is not None:
        labels = _alike_where_not(counted, labels)
    if labels.dtype.kind == "f":
        check_finite(name, labels, first_row)
    return _as_text(labels) if labels.dtype.kind in "OST" else labels


def _alike_where_not(counted: Array, labels: Array) -> Array:
    """Labels with the first that counts in place of all that do not; as they are without any."""
    if np.all(counted) or not np.any(counted) or labels.size % counted.size:
        return labels  # of a size that does not fit: refused by those who know what would
    one_a_row = labels.reshape(counted.size, -1).copy()
    one_a_row[~counted.ravel()] = one_a_row[np.argmax(counted)]
    return one_a_row.reshape(labels.shape)


def cast_floats(leaf: Array, dtype: str) -> Array:
    """Floats in a dtype; integers as they are."""
    return leaf.astype(dtype, copy=False) if leaf.dtype.kind == "f" else leaf


def column_names(x: Any) -> tuple[Any, ...] | None:
    """The columns of a pandas frame, or of what was made of one; None of anything else."""
    if isinstance(x, ArrayInputs):
        return x.columns
    pandas = sys.modules.get("pandas")
    return tuple(x.columns) if pandas is not None and isinstance(x, pandas.DataFrame) else None


def check_length(name: str, received: int, expected: int) -> None:
    """`InvalidInputError` unless there are as many rows as x has."""
    if received != expected:
        raise InvalidInputError(
            f"{name} has the wrong length",
            expected=f"{expected} rows, as many as x has",
            received=f"{received} rows",
        )


def check_finite(name: str, array: Array, first_row: int = 0) -> None:
    """`InvalidInputError` where an array `[B, ...]` holds NaN or infinity.

    Args:
        name: of the argument, for the error.
        array: all rows, or those of one batch.
        first_row: of all rows, the number of the array's first one.
    """
    finite = np.atleast_1d(np.isfinite(array))
    if not finite.all():
        place = int(np.argmin(finite))
        row = first_row + place // (finite.size // len(finite))
        raise InvalidInputError(
            f"{name} holds NaN or infinity",
            expected="finite numbers",
            received=f"{np.ravel(array)[place]} in row {row}, the first such row (counted from 0)",
            remedy="impute or drop those rows before; deltauq never drops any",
        )


def empty_error(received: str) -> InvalidInputError:
    """The error for data without a row."""
    return InvalidInputError(
        "x is empty",
        expected="at least one row: arrays [N, ...] with N >= 1, or a dataset that yields a batch",
        received=received,
    )


def _is_rows(x: Any) -> bool:
    """A list of numbers (or of text), or of lists of them: one array, not several."""
    while isinstance(x, (list, tuple)) and x:
        x = x[0]
    return isinstance(x, (bool, int, float, complex, str, np.generic, list, tuple))


def _as_array(leaf: Any, name: str) -> Array:
    """A NumPy array of any dtype from what is no pandas object."""
    refuse_unreadable(leaf, name)
    if np.ma.is_masked(leaf):
        return np.ma.filled(leaf.astype(float), np.nan)
    try:
        return np.asarray(leaf.numpy() if tf.is_tensor(leaf) else leaf)
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise InvalidInputError(
            f"{name} cannot be read as an array",
            expected="an array, a tensor, a pandas object or a list of numbers",
            received=f"a {type(leaf).__name__}, of which NumPy says: {what_it_says(error)}",
            remedy="pad rows of different lengths before"
            if isinstance(leaf, Sequence)
            else "pass what it holds as a NumPy array",
        ) from error


def refuse_unreadable(leaf: Any, name: str) -> None:
    """`InvalidInputError` for what is no array, or would be one only after a choice."""
    kind = type(leaf).__name__
    if isinstance(leaf, tf.RaggedTensor):
        remedy = "pad it before: .to_tensor(), as for training"
    elif isinstance(leaf, tf.SparseTensor):
        remedy = "pass tf.sparse.to_dense(...) of it"
    elif scipy.sparse.issparse(leaf):
        remedy = "pass .toarray() of it, in batches of a tf.data.Dataset where that is too large"
    elif isinstance(leaf, Iterator) or _is_iterable_alone(leaf):
        remedy = _in_passes(name, once=isinstance(leaf, Iterator))
    else:
        return
    raise InvalidInputError(
        f"{name} is a {kind}",
        expected="an array, a tensor, a pandas object, a list of numbers, or as x a dataset",
        received=f"{type(leaf).__module__}.{kind}",
        remedy=remedy,
    )


def _is_iterable_alone(leaf: Any) -> bool:
    """A loader, a set or the like, which is neither an array nor a sequence."""
    return isinstance(leaf, tf.data.Dataset) or (
        not hasattr(leaf, "__array__")
        and not isinstance(leaf, Sequence)
        and (hasattr(leaf, "__iter__") or hasattr(leaf, "__getitem__"))
    )


def _in_passes(name: str, *, once: bool) -> str:
    """How to pass what is read row by row, or batch by batch: datasets are taken as x alone."""
    if not _is_of_inputs(name):
        return "pass an array or a list, with one row for every row of x"
    if name != "x":
        return "pass arrays, or as x one dataset that yields all inputs together"
    if once:
        return (
            "a generator can be read only once, and curvature takes several passes: pass arrays, "
            "a keras.utils.PyDataset, or tf.data.Dataset.from_generator(make_generator, ...)"
        )
    return (
        "read a DataLoader or other iterable of batches into arrays, or wrap it in a "
        "keras.utils.PyDataset or a tf.data.Dataset that yields the same examples in every pass"
    )


def _is_of_inputs(name: str) -> bool:
    """Whether an argument, such as "x" or "x[0]", holds inputs; others hold labels or weights."""
    return name.partition("[")[0] == "x"


def _as_text(labels: Array) -> Array:
    """Text as NumPy's own; TensorFlow has it as bytes."""
    flat = [v.decode() if isinstance(v, bytes) else v for v in labels.ravel().tolist()]
    if all(isinstance(v, str) for v in flat):
        return np.asarray(flat, dtype=str).reshape(labels.shape)
    return labels
