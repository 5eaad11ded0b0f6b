"""Frames and columns of pandas as NumPy arrays; pandas is never imported here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError

__all__ = ["column_types", "columns_named", "from_column", "from_frame"]

Array = npt.NDArray[Any]

#: Column names that an error lists.
_LISTED = 10

#: What pandas calls objects that are numbers.
_NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal", "boolean"}


def column_types(pandas: Any) -> tuple[Any, ...]:
    """The pandas types that are one column."""
    return pandas.Series, pandas.Index, pandas.api.extensions.ExtensionArray


def columns_named(frame: Any, names: Sequence[str]) -> dict[str, Any]:
    """The columns of a frame by the names of the inputs that they are.

    Args:
        frame: with a column for each input, in any order.
        names: of the inputs.

    Raises:
        InvalidInputError: a column that is missing, or one that is no input.
    """
    columns = list(frame.columns)
    missing = [name for name in names if name not in columns]
    other = [column for column in columns if column not in names]
    if missing or other:
        raise InvalidInputError(
            "the columns of x are not the inputs of the model",
            expected=f"a column for each of the inputs {list(names)}",
            received=_listed([str(column) for column in columns]),
            remedy=_to_inputs(names, missing, other),
        )
    return {name: frame[name] for name in names}


def _to_inputs(names: Sequence[str], missing: list[str], other: list[Any]) -> str:
    if not missing:
        return f"leave out what is no input: x[{list(names)}]"
    if other:
        return "rename the columns that are missing: x.rename(columns={...})"
    return f"add what is missing: x.assign(...) of {_listed(missing)}"


def from_frame(frame: Any, name: str) -> Array:
    """Columns in order, `[N, F]`, in the smallest dtype that holds them all, or all of text."""
    types = sys.modules["pandas"].api.types
    if frame.shape[1] and all(types.is_string_dtype(dtype) for dtype in frame.dtypes):
        return np.asarray(frame.to_numpy(dtype=object))
    other = [
        (column, dtype)
        for column, dtype in frame.dtypes.items()
        if not types.is_numeric_dtype(dtype) or types.is_complex_dtype(dtype)
    ]
    if other:
        raise InvalidInputError(
            f"{name} has columns that do not hold numbers",
            expected="numeric or boolean columns",
            received=_listed([f"{column!r} ({dtype})" for column, dtype in other]),
            remedy=_to_numbers(frame, [column for column, _ in other]),
        )
    missing = frame.isna().to_numpy().sum(axis=0)
    if missing.any():
        named = [repr(frame.columns[k]) for k in np.flatnonzero(missing)]
        raise InvalidInputError(
            f"{name} holds missing values",
            expected="a number in every row of every column",
            received=f"{missing.sum()} missing values in {_listed(named)}",
            remedy="impute or drop those rows before; deltauq never drops any",
        )
    if len(set(frame.dtypes)) == 1 and isinstance(frame.dtypes.iloc[0], np.dtype):
        return np.asarray(frame)
    columns = [from_column(frame.iloc[:, k]) for k in range(frame.shape[1])]
    return np.stack(columns, axis=1) if columns else np.empty(frame.shape)


def _to_numbers(frame: Any, columns: list[Any]) -> str:
    """What to do with columns of other dtypes; numbers may hide in those of dtype object."""
    kinds = frame[columns].apply(sys.modules["pandas"].api.types.infer_dtype)
    hidden = {column: "float" for column, kind in kinds.items() if kind in _NUMBERS}
    if hidden:
        return f"say that they are numbers: x.astype({hidden})"
    return (
        "encode them as for training, pandas.get_dummies(x, columns=[...]), or leave them out, "
        "x.drop(columns=[...])"
    )


def from_column(series: Any) -> Array:
    """One pandas column; of a nullable dtype its NumPy one, with NaN for what is missing."""
    numpy_dtype = getattr(series.dtype, "numpy_dtype", None)
    if numpy_dtype is not None and numpy_dtype.kind in "fiub" and series.isna().any():
        return np.asarray(series.to_numpy(dtype="float64", na_value=np.nan))
    return np.asarray(series.to_numpy(dtype=numpy_dtype))


def _listed(names: list[str]) -> str:
    more = len(names) - _LISTED
    return "columns " + ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
