"""Reading data files as inputs and labels: tables with named columns, or NumPy's arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError, optional

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "Examples",
    "encoded",
    "encoded_like",
    "names_in",
    "numbers_as_floats",
    "read_examples",
    "taken_from",
]

Array = npt.NDArray[Any]

#: Rows of a .csv file that are looked at as text at a time.
_ROWS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Examples:
    """Inputs, labels and weights that were read from a file.

    Attributes:
        x: inputs: a pandas frame, an array, or a dict of arrays.
        y: labels, or None.
        weight: of the examples, or None.
    """

    x: Any
    y: Array | None = None
    weight: Array | None = None

    @property
    def is_table(self) -> bool:
        """Whether the inputs are a table with named columns rather than arrays."""
        return hasattr(self.x, "columns")


def names_in(text: str | None) -> list[str]:
    """Names in a list with commas such as 'one,two'; none of no text."""
    return [name.strip() for name in text.split(",") if name.strip()] if text else []


def read_examples(
    path: Path,
    *,
    target: str | None,
    needs_target: bool,
    inputs: str = "x",
    weights: str | None = None,
    ignore: str | None = None,
) -> Examples:
    """Read inputs, labels and weights from a data file.

    Args:
        path: `.csv`, `.parquet` or `.npz`.
        target: the column or array of the labels; None for none, or `y` in `.npz`.
        needs_target: labels must be there.
        inputs: names of the input arrays in `.npz`.
        weights: the column or array of the weights.
        ignore: columns that are no inputs.

    Raises:
        InvalidInputError: no such file, none that can be read, or names that are not in it.
        MissingDependencyError: pandas or pyarrow is not installed.
    """
    if not path.is_file():
        raise InvalidInputError(
            "the data file does not exist", expected="a .csv, .parquet or .npz", received=str(path)
        )
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz}
    if path.suffix.lower() not in readers:
        raise InvalidInputError(
            "the data file is of a kind that is not known",
            expected=f"one of {sorted(readers)}",
            received=path.name,
        )
    content = readers[path.suffix.lower()](path)
    if isinstance(content, dict):
        return _of_arrays(content, path, target, inputs, weights, needs_target=needs_target)
    return _of_columns(content, path, target, weights, names_in(ignore), needs_target=needs_target)


def encoded(frame: DataFrame) -> tuple[DataFrame, list[str]]:
    """Turn a table into numbers: a column of text becomes a column of 0 and 1 for each value.

    These are called `name=value`.

    Returns:
        The table, and the names of the columns of text.
    """
    pandas = optional("pandas", needed_by="tables need pandas", extra="report")
    numeric = pandas.api.types.is_numeric_dtype
    text = [name for name in frame.columns if not numeric(frame[name])]
    _refuse_missing(frame)
    wide: Any = pandas.get_dummies(frame, columns=text, prefix_sep="=", dtype="float64")
    return wide.astype("float64"), text


def encoded_like(frame: DataFrame, columns: Sequence[str]) -> tuple[DataFrame, list[str]]:
    """Turn a table into the same columns of numbers that another table became by `encoded`.

    Args:
        frame: the table.
        columns: of the other one, encoded.

    Returns:
        The table, and the names of its columns that have no part in it.

    Raises:
        InvalidInputError: a column that is missing, or a text that was not there then.
    """
    pandas = optional("pandas", needed_by="tables need pandas", extra="report")
    sources = {name: name if name in frame.columns else _text_of(name) for name in columns}
    used = list(dict.fromkeys(sources.values()))
    _check_columns(frame, used)
    wide = {}
    for name, source in sources.items():
        column = frame[source]
        is_text = name != source
        wide[name] = (column.astype(str) == name.partition("=")[2]) if is_text else column
    table = pandas.DataFrame(wide)
    for source in used:
        values = [name for name in columns if sources[name] == source and name != source]
        unseen: Any = frame[source][table[values].sum(axis=1) != 1] if values else []
        if len(unseen):
            raise InvalidInputError(
                f"column {source!r} holds values that were not in the training data",
                expected=f"one of {[value.partition('=')[2] for value in values]}",
                received=f"{sorted(set(unseen.astype(str)))[:5]}",
                remedy="drop those rows, or fit again with data that have them",
            )
    table = _as_floats(table)
    return table, [name for name in frame.columns if name not in used]


def taken_from(frame: DataFrame, columns: Sequence[str]) -> tuple[DataFrame, list[str]]:
    """Take some columns of a table as they are.

    Args:
        frame: the table.
        columns: that a model was fitted with.

    Returns:
        Those columns, and the names of the others.

    Raises:
        InvalidInputError: a column that is missing, or has missing values.
    """
    _check_columns(frame, columns)
    return frame[list(columns)], [name for name in frame.columns if name not in columns]


def numbers_as_floats(frame: DataFrame) -> DataFrame:
    """A table with its numbers as float64, whatever other rows of the file would have made them."""
    numbers = frame.select_dtypes(["number", "bool"]).columns
    return frame.astype(dict.fromkeys(numbers, "float64"))


def _check_columns(frame: DataFrame, names: Sequence[str]) -> None:
    """`InvalidInputError` where a table lacks some columns, or values in them."""
    missing = sorted(name for name in names if name not in frame.columns)
    if missing:
        raise InvalidInputError(
            "the table lacks columns that the model was fitted with",
            expected=f"columns {sorted(names)}",
            received=f"columns {list(frame.columns)}, without {missing}",
        )
    _refuse_missing(frame[list(names)])


def _text_of(name: str) -> str:
    """The column of text that an encoded column `name=value` was made of."""
    return name.partition("=")[0]


def _as_floats(table: DataFrame) -> DataFrame:
    """A table with every column as float64, or `InvalidInputError` where one is no number."""
    try:
        return table.astype("float64")
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            "a column that held numbers in training holds something else",
            expected="numbers",
            received=str(error),
        ) from error


def _refuse_missing(frame: DataFrame) -> None:
    """Refuse a table with missing values, and count them by column."""
    counts = frame.isna().sum()
    if counts.any():
        named = {str(name): int(count) for name, count in counts[counts > 0].items()}
        raise InvalidInputError(
            "the table has missing values",
            expected="a value in every row of every column",
            received=f"missing values by column: {named}",
            remedy="impute or drop those rows before; deltauq never drops any",
        )


def _read_csv(path: Path) -> DataFrame:
    """A .csv file as a pandas frame, in which text is what the file says.

    A text such as "NA" is a text, and only an empty place is missing there; numbers with a zero
    before them, as postal codes have, are text.
    """
    pandas = optional("pandas", needed_by=".csv files need pandas", extra="report")
    try:
        frame = pandas.read_csv(path)
        kinds = {name: frame[name].dtype.kind for name in frame.columns}
        text = [name for name, kind in kinds.items() if kind not in "fiub"]
        text += _with_zeros_before(path, [name for name, kind in kinds.items() if kind == "i"])
        if text:
            as_written = pandas.read_csv(
                path, usecols=text, dtype=str, keep_default_na=False, na_values=[""]
            )
            frame[text] = as_written[text]
    except (ValueError, pandas.errors.ParserError) as error:  # an empty file is a ValueError
        raise _unreadable(path, error) from error
    return frame


def _with_zeros_before(path: Path, names: list[str]) -> list[str]:
    """Columns of whole numbers of which one is written with a zero before it, such as 01234."""
    pandas = optional("pandas", needed_by=".csv files need pandas", extra="report")
    if not names:
        return []
    parts = pandas.read_csv(path, usecols=names, dtype=str, chunksize=_ROWS_AT_ONCE)
    counts = sum(
        part.apply(lambda column: column.str.match(r"\s*[+-]?0\d")).sum() for part in parts
    )
    return [name for name in names if counts[name] > 0]


def _read_parquet(path: Path) -> DataFrame:
    """A .parquet file as a pandas frame."""
    pandas = optional("pandas", needed_by=".parquet files need pandas", extra="parquet")
    optional("pyarrow", needed_by=".parquet files need pyarrow", extra="parquet")
    try:
        return pandas.read_parquet(path)
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from error


def _read_npz(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by their names."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InvalidInputError:
    """The error for a file that its reader refuses."""
    return InvalidInputError(
        "the data file cannot be read",
        expected=f"a {path.suffix} file",
        received=f"{path.name}, at which the reader says: {error}",
    )


def _of_arrays(
    arrays: dict[str, Array],
    path: Path,
    target: str | None,
    inputs: str,
    weights: str | None,
    *,
    needs_target: bool,
) -> Examples:
    """The examples of a data file that holds named arrays, as NumPy's .npz does."""
    label = target or ("y" if "y" in arrays or needs_target else None)
    names = names_in(inputs)
    _check_there([*names, *filter(None, (label, weights))], arrays, path, "arrays")
    x = {name: arrays[name] for name in names}
    return Examples(
        x if len(names) > 1 else arrays[names[0]],
        None if label is None else arrays[label],
        None if weights is None else arrays[weights],
    )


def _of_columns(
    frame: Any,
    path: Path,
    target: str | None,
    weights: str | None,
    ignore: list[str],
    *,
    needs_target: bool,
) -> Examples:
    """Examples from a table: the target and the weights are columns, all others inputs."""
    frame = frame.rename(columns=str)
    if target is None and needs_target:
        raise InvalidInputError(
            "the column of the labels is not known",
            expected="--target with one of the columns",
            received=f"{path.name} with columns {list(frame.columns)}",
        )
    others = [name for name in (target, weights) if name is not None]
    _check_there([*others, *ignore], frame.columns, path, "columns")
    if target is not None:
        _refuse_missing(frame[[target]])
    return Examples(
        frame.drop(columns=[*others, *ignore]),
        None if target is None else frame[target].to_numpy(),
        None if weights is None else frame[weights].to_numpy(),
    )


def _check_there(names: Iterable[str], known: Iterable[str], path: Path, kind: str) -> None:
    """Refuse names that are not among those of the file."""
    missing = [name for name in names if name not in known]
    if missing:
        raise InvalidInputError(
            f"{path.name} has no {kind} {missing}",
            expected=f"names out of {list(known)}",
            received=f"{missing}",
        )
