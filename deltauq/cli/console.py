"""How commands speak: results on standard output, everything else on standard error."""

from __future__ import annotations

import functools
import importlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TextIO

import typer
from rich.console import Console
from rich.markup import escape

__all__ = ["in_words", "note", "pairs_table", "say"]

P = ParamSpec("P")


def in_words(command: Callable[P, None]) -> Callable[P, None]:
    """A command whose errors and warnings are paragraphs; a user's mistake exits with 1."""

    @functools.wraps(command)
    def spoken(*args: P.args, **kwargs: P.kwargs) -> None:
        from deltauq.errors import DeltaUQError

        _start_tensorflow()
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _show
            try:
                command(*args, **kwargs)
            except (DeltaUQError, OSError) as error:
                _paragraph("[bold red]Error:[/]", str(error))
                raise typer.Exit(1) from error

    return spoken


def say(summary: Mapping[str, Any], text: Any, *, as_json: bool) -> None:
    """The result of a command: what `rich` prints, or JSON for machines."""
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        Console().print(text)


def pairs_table(title: str, facts: Mapping[str, Any]) -> Any:
    """Names and values, one pair a line."""
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in facts.items():
        shown = f"{value:,.4g}" if isinstance(value, float) else str(value)
        table.add_row(name.replace("_", " "), escape(shown))
    return table


def note(text: str) -> None:
    """Something worth knowing beside the result."""
    _paragraph("[bold cyan]Note:[/]", text)


def _start_tensorflow() -> None:
    """Import TensorFlow without its messages, which it writes past every setting of its own."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        importlib.import_module("tensorflow").constant(0)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del filename, lineno, file, line  # a place in our code says nothing to a user
    # Those of other packages are about their own code, and of no use at a terminal.
    if category.__module__.startswith("deltauq."):
        _paragraph("[bold yellow]Warning:[/]", str(message))


def _paragraph(label: str, text: str) -> None:
    Console(stderr=True).print(f"{label} {escape(text)}", highlight=False)
