"""Reading data files as inputs and labels: tables with named columns, or NumPy's arrays."""

from __future__ import annotations

import warnings
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
    "check_columns",
    "names_in",
    "numbers_as_floats",
    "read_examples",
    "read_inputs",
    "refuse_missing",
    "taken_from",
]

Array = npt.NDArray[Any]

#: Rows of a .csv file that are looked at as text at a time.
_ROWS_AT_ONCE = 100_000

#: What to do with a .csv file whose rows are longer than its first line.
_EVERY_ROW = (
    "give every row as many places as the first line has names: put a value that has a comma in "
    "quotes, write no comma in a number, and name every column"
)


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
    content = _read(path)
    if isinstance(content, dict):
        return _of_arrays(content, path, target, inputs, weights, needs_target=needs_target)
    return _of_columns(content, path, target, weights, names_in(ignore), needs_target=needs_target)


def read_inputs(path: Path, *, inputs: str, others: Iterable[str | None]) -> Examples:
    """Read inputs alone from a data file such as the training data are in.

    Args:
        path: `.csv`, `.parquet` or `.npz`.
        inputs: names of the input arrays in `.npz`.
        others: columns that are no inputs in the training data; they need not be there.

    Raises:
        InvalidInputError: no such file, or none that can be read.
        MissingDependencyError: pandas or pyarrow is not installed.
    """
    content = _read(path)
    if isinstance(content, dict):
        arrays = _of_arrays(content, path, None, inputs, None, needs_target=False)
        return Examples(arrays.x)
    frame = content.rename(columns=str)
    return Examples(frame.drop(columns=[name for name in others if name in frame]))


def _read(path: Path) -> Any:
    """A data file as a pandas frame, or as arrays by their names."""
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
    return readers[path.suffix.lower()](path)


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
    check_columns(frame, columns)
    return frame[list(columns)], [name for name in frame.columns if name not in columns]


def numbers_as_floats(frame: DataFrame) -> DataFrame:
    """A table with its numbers as float64, whatever other rows of the file would have made them."""
    numbers = frame.select_dtypes(["number", "bool"]).columns
    return frame.astype(dict.fromkeys(numbers, "float64"))


def check_columns(frame: DataFrame, names: Sequence[str]) -> None:
    """`InvalidInputError` where a table lacks some columns, or values in them."""
    missing = sorted(name for name in names if name not in frame.columns)
    if missing:
        raise InvalidInputError(
            "the table lacks columns that the model was fitted with",
            expected=f"columns {sorted(names)}",
            received=f"columns {list(frame.columns)}, without {missing}",
        )
    refuse_missing(frame[list(names)])


def refuse_missing(frame: DataFrame) -> None:
    """Refuse a table with missing values, and count them by column."""
    counts = frame.isna().sum()
    if counts.any():
        named = {str(name): int(count) for name, count in counts[counts > 0].items()}
        raise InvalidInputError(
            "the table has missing values",
            expected="a value in every row of every column",
            received=f"missing values by column: {named}",
            remedy="fill them in or drop those rows before, in pandas by frame.fillna(...) or "
            "frame.dropna(); deltauq never drops any",
        )


def _read_csv(path: Path) -> DataFrame:
    """A .csv file as a pandas frame, in which text is what the file says.

    A text such as "NA" is a text, and only an empty place is missing there; numbers with a zero
    before them, as postal codes have, are text.

    Raises:
        InvalidInputError: a file that is not in UTF-8, whose places have something else than
            commas between them, or whose rows have more of them than there are names.
    """
    pandas = optional("pandas", needed_by=".csv files need pandas", extra="report")
    try:
        _check_separator([str(name) for name in pandas.read_csv(path, nrows=0)], path)
        with warnings.catch_warnings():
            # Without index_col=False a row that is too long shifts its values by a column.
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            frame = pandas.read_csv(path, index_col=False)
        kinds = {name: frame[name].dtype.kind for name in frame.columns}
        text = [name for name, kind in kinds.items() if kind not in "fiub"]
        text += _with_zeros_before(path, [name for name, kind in kinds.items() if kind == "i"])
        if text:
            as_written = pandas.read_csv(
                path,
                usecols=text,
                dtype=str,
                index_col=False,
                keep_default_na=False,
                na_values=[""],
            )
            frame[text] = as_written[text]
    except UnicodeDecodeError as error:
        raise _unreadable(path, error, "save it in UTF-8 ('CSV UTF-8' in spreadsheets)") from error
    except (pandas.errors.ParserError, pandas.errors.ParserWarning) as error:
        raise _unreadable(path, error, _EVERY_ROW) from error
    except InvalidInputError:
        raise
    except ValueError as error:  # an empty file is one
        raise _unreadable(path, error) from error
    return frame


def _check_separator(names: list[str], path: Path) -> None:
    """Refuse a file whose columns have another sign than commas between them."""
    for sign in (";", "\t", "|"):
        if len(names) == 1 and sign in names[0]:
            raise InvalidInputError(
                f"the columns of {path.name} are separated by {sign!r}",
                expected="commas between the columns, and points in the numbers",
                received=f"the first line {names[0]!r}",
                remedy=f"write it anew: pandas.read_csv(path, sep={sign!r}, decimal=',')"
                ".to_csv(path, index=False), without decimal where numbers have points",
            )


def _with_zeros_before(path: Path, names: list[str]) -> list[str]:
    """Columns of whole numbers of which one is written with a zero before it, such as 01234."""
    pandas = optional("pandas", needed_by=".csv files need pandas", extra="report")
    if not names:
        return []
    parts = pandas.read_csv(
        path, usecols=names, dtype=str, index_col=False, chunksize=_ROWS_AT_ONCE
    )
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
    except Exception as error:  # a damaged file makes its readers raise nearly anything
        raise _unreadable(path, error) from error


def _read_npz(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by their names."""
    try:
        # Opened here: of a damaged file NumPy leaves it open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Exception as error:  # a damaged file makes its readers raise nearly anything
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception, remedy: str | None = None) -> InvalidInputError:
    """The error for a file that its reader refuses."""
    return InvalidInputError(
        "the data file cannot be read",
        expected=f"a {path.suffix} file",
        received=f"{path.name}, at which the reader says: {error}",
        remedy=remedy,
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
    if not names:
        raise InvalidInputError(
            "--inputs names no array",
            expected="names of arrays with commas between them",
            received=f"{inputs!r}, beside arrays {list(arrays)}",
        )
    beside = [name for name in (label, weights) if name is not None]
    _check_there([*names, *beside], arrays, path, "arrays")
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
    if not set(frame.columns) - {*others, *ignore}:
        raise InvalidInputError(
            "the table has no column of inputs",
            expected="a column at least beside the labels, the weights and those that are ignored",
            received=f"{path.name} with columns {list(frame.columns)}",
            remedy="leave a column that says something of the labels out of --ignore; of free text "
            "save numbers (lengths, counts, an embedding) as columns of the table, or pass a Keras "
            "model that takes the text itself as --model",
        )
    if target is not None:
        refuse_missing(frame[[target]])
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
