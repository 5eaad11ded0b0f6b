"""Columns of text as columns of 0 and 1, for a network that is trained on a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from deltauq.cli.tables import check_columns, refuse_missing
from deltauq.errors import InvalidInputError, optional

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["encoded", "encoded_like", "numbers_as_text"]

#: Text of at most so many different values is taken for categories, whatever they are.
_CATEGORIES = 20

#: A number as a table for people writes it: 1,234 or $5 or 12% or 3 kg; no code such as 01234.
_NUMBER = re.compile(r"\s*[-+]?\W?\s*(?!0\d)\d[\d.,' ]*\s*(%|[A-Za-z°²³$€£]{1,4})?\s*")

#: Values that are shown of many.
_SHOWN = 10


def encoded(frame: DataFrame) -> tuple[DataFrame, list[str]]:
    """Turn a table into numbers: a column of text becomes a column of 0 and 1 for each value.

    These are called `name=value`.

    Returns:
        The table, and the names of the columns of text.

    Raises:
        InvalidInputError: missing values; text that is no category but a number, or of which
            nearly every row has another one.
    """
    pandas = optional("pandas", needed_by="tables need pandas", extra="report")
    numeric = pandas.api.types.is_numeric_dtype
    text = [name for name in frame.columns if not numeric(frame[name])]
    refuse_missing(frame)
    _refuse_no_categories(frame, text)
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
    check_columns(frame, used)
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
                expected=f"one of {_some([value.partition('=')[2] for value in values])}",
                received=_some(sorted(set(unseen.astype(str)))),
                remedy="drop those rows, or fit again with data that have them",
            )
    table = _as_floats(table)
    return table, [name for name in frame.columns if name not in used]


def _refuse_no_categories(frame: DataFrame, text: Sequence[str]) -> None:
    """Refuse columns of text of which 0 and 1 for each value would make a network learn the rows.

    Numbers in a text are such: each is a value of its own, and no new one is known.
    """
    many = {name: frame[name].astype(str) for name in text if frame[name].nunique() > _CATEGORIES}
    numbers = {name: what for name, column in many.items() if (what := numbers_as_text(column))}
    unlike = {
        name: f"{found} different values in {len(column)} rows, such as {column.iloc[0]!r}"
        for name, column in many.items()
        if name not in numbers and 2 * (found := column.nunique()) > len(column)
    }
    if not numbers and not unlike:
        return
    unfit = numbers | unlike
    raise InvalidInputError(
        f"columns of text are no categories: {', '.join(unfit)}",
        expected="text of a few values, each in many rows",
        received="; ".join(f"{name!r} with {what}" for name, what in unfit.items()),
        remedy=(
            f"write the numbers of {', '.join(numbers)} without commas, signs and units, such as "
            "1234.5, and leave the place empty where one is missing"
            if numbers
            else ""
        )
        + ("; " if numbers and unlike else "")
        + (
            f"leave out names, dates and free text with --ignore {','.join(unlike)}"
            if unlike
            else ""
        ),
    )


def numbers_as_text(text: Iterable[str]) -> str | None:
    """What some text holds where it is mostly numbers, many and different ones, in words.

    Args:
        text: values of a column.

    Returns:
        None where they are no numbers, or so few that they may be categories.
    """
    values = list(dict.fromkeys(text))
    numbers = [value for value in values if _NUMBER.fullmatch(value)]
    if len(numbers) <= max(_CATEGORIES, len(values) // 2):
        return None
    others = [value for value in values if not _NUMBER.fullmatch(value)]
    beside = f"beside {_some(others)}" if others else f"such as {numbers[0]!r}"
    return f"numbers as text, {beside}"


def _some(values: Sequence[str]) -> str:
    """The first of some values, and how many more there are."""
    more = len(values) - _SHOWN
    return f"{list(values[:_SHOWN])}" + (f" and {more} more" if more > 0 else "")


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
