"""Results as tables in a notebook or a terminal."""

from __future__ import annotations

import html
import importlib
import numbers
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from deltauq.errors import MissingDependencyError

if TYPE_CHECKING:
    import rich.table

__all__ = ["cell", "notebook_table", "terminal_table"]

#: Columns in a notebook, and in a terminal.
_WIDE, _NARROW = 14, 7


def notebook_table(caption: str, make_frame: Callable[[], Any]) -> str | None:
    """Render a result as an HTML table for a notebook; None without pandas.

    A notebook shows the text of a result for which this gives None.

    Args:
        caption: above it.
        make_frame: makes the frame, or raises `MissingDependencyError`.
    """
    try:
        frame = make_frame()
    except MissingDependencyError:
        return None
    # Without this pandas cuts a cell's text after 50 letters.
    with importlib.import_module("pandas").option_context("display.max_colwidth", None):
        table = frame.to_html(float_format=lambda value: f"{value:.4g}", border=0, max_cols=_WIDE)
    return f"<p>{html.escape(caption)}</p>\n{table}"


def terminal_table(caption: str, columns: Mapping[str, Any]) -> rich.table.Table:
    """Render columns of equal length as a `rich` table; of many columns only the first ones.

    Args:
        caption: above it.
        columns: by name.
    """
    from rich.table import Table
    from rich.text import Text

    shown = list(columns)[:_NARROW]
    hidden = len(columns) - len(shown)
    table = Table(title=Text(caption + (f", {hidden} more columns" if hidden else "")))
    for name in shown:
        table.add_column(Text(name.replace("_", " ")), justify="right", overflow="fold")
    for row in zip(*(columns[name] for name in shown), strict=True):
        table.add_row(*(Text(cell(value)) for value in row))
    return table


def cell(value: Any) -> str:
    """Text of a value in a table: four digits of a number, a dash for None."""
    if value is None:
        return "-"
    whole = isinstance(value, (bool, numbers.Integral))
    return f"{value:.4g}" if isinstance(value, numbers.Real) and not whole else str(value)
