"""How commands speak: results on standard output, everything else on standard error."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO, get_type_hints

import typer
from rich.console import Console
from rich.markup import escape
from typer.models import OptionInfo

from deltauq.errors import DeltaUQError, WriteError

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["as_options", "in_words", "note", "out", "pairs_table", "say"]

P = ParamSpec("P")

#: All that are defined, for the names of their options.
_COMMANDS: list[Callable[..., None]] = []

#: Values of arguments that an option may have.
_VALUE = r"(?>'[^']*'|\[?\.{3}\]?|\w[\w.-]*\w|\w)"

#: An argument with its value, or with an object made of another, as errors and findings name them.
_ARGUMENT = re.compile(
    rf"(?<!\w)(?P<name>[a-z]\w*)="
    rf"(?:[\w.]+\((?P<inner>[a-z]\w*)=(?P<part>{_VALUE})\)|(?P<value>{_VALUE})(?!\())"
)


def in_words(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command print its errors and warnings as paragraphs.

    A user's mistake (`DeltaUQError`, `OSError`) exits with 1.
    """
    _COMMANDS.append(command)

    @functools.wraps(command)
    def spoken(*args: P.args, **kwargs: P.kwargs) -> None:
        _start_tensorflow()
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _show
            try:
                _called(command, *args, **kwargs)
            except (DeltaUQError, OSError) as error:
                _paragraph("[bold red]Error:[/]", as_options(str(error)))
                _show_notes(error)
                raise typer.Exit(1) from error
            except KeyboardInterrupt as error:
                _show_notes(error)
                raise

    return spoken


def _show_notes(error: BaseException) -> None:
    """Print what was noted on an error on its way, such as how to go on from a checkpoint."""
    for text in getattr(error, "__notes__", ()):
        note(text)


def _called(command: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call a command, and tell where memory runs out in it."""
    from deltauq.runtime.faults import faults_told  # TensorFlow comes with it

    with faults_told(command.__name__):
        command(*args, **kwargs)


def say(summary: Mapping[str, Any], text: Any, *, as_json: bool) -> None:
    """Print the result of a command on standard output: for people, or as JSON for machines.

    Args:
        summary: what JSON shows.
        text: what `rich` prints otherwise.
        as_json: which of the two.
    """
    out(json.dumps(summary, indent=2) + "\n" if as_json else text)


def out(content: Any) -> None:
    """Print on standard output: text as it is, anything else as `rich` prints it.

    Raises:
        WriteError: what standard output leads to takes no more.
    """
    try:
        if isinstance(content, str):
            typer.echo(content, nl=False)
        else:
            Console().print(content)
    except OSError as error:
        raise WriteError(
            "the result could not be written to standard output",
            expected="room for it where standard output leads to",
            received=error.strerror or str(error),
            remedy="make room there, or let it lead to another place",
        ) from error


def pairs_table(title: str, facts: Mapping[str, Any]) -> Table:
    """A table of names and values for the terminal, one pair a line."""
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in facts.items():
        shown = f"{value:,.4g}" if isinstance(value, float) else str(value)
        if isinstance(value, list):
            shown = "; ".join(value) or "none"
        table.add_row(name.replace("_", " "), escape(shown))
    return table


def note(text: str) -> None:
    """Print something worth knowing beside the result, on standard error."""
    _paragraph("[bold cyan]Note:[/]", text)


def as_options(text: str) -> str:
    """Translate advice from Python's words into the commands': l2='tune' becomes --l2 tune.

    So does an object that an option makes: likelihood=Categorical(classes=[...]) becomes
    --classes ... An argument that no command has is left as it is, and named as one of Python's.
    """
    import deltauq
    from deltauq.likelihoods import Categorical

    # Layers of a model have arguments too, some of which are called like an option.
    method = _arguments(deltauq.DeltaMethod)
    ours = method | _arguments(deltauq.diagnose) | _arguments(Categorical)
    ours |= _arguments(deltauq.DeltaMethod.fit) | _arguments(deltauq.DeltaMethod.save)
    ours |= _arguments(deltauq.Prediction.predictive)
    options = {
        name: (option, is_flag)
        for command in _COMMANDS
        for name, option, is_flag in _options(command)
        if name in ours
    }
    of_python: list[str] = []

    def replace(found: re.Match[str]) -> str:
        name, value = found["inner"] or found["name"], found["part"] or found["value"]
        if name in options:
            option, is_flag = options[name]
            shown = "FILE" if value == "True" else value.strip("'[]")
            return option if is_flag else f"{option} {shown}"
        if found["name"] in method:
            of_python.append(found["name"])
        return found[0]

    told = _ARGUMENT.sub(replace, text)
    if not of_python:
        return told
    names = " and ".join(dict.fromkeys(of_python))
    return f"{told.removesuffix('.')}. (In Python: {names}, of deltauq.DeltaMethod.)"


def _options(command: Callable[..., None]) -> Iterator[tuple[str, str, bool]]:
    """The parameters of a command that are options, how they are written, and without a value."""
    for name, hint in get_type_hints(command, include_extras=True).items():
        for info in getattr(hint, "__metadata__", ()):
            if isinstance(info, OptionInfo):
                written = [text for text in (info.default, *(info.param_decls or ())) if text]
                option = next(filter(_is_long, written), f"--{name.replace('_', '-')}")
                yield name, option, hint.__origin__ is bool


def _is_long(text: Any) -> bool:
    """Whether a declaration of an option is its long name, with two dashes."""
    return isinstance(text, str) and text.startswith("--")


def _arguments(function: Callable[..., Any]) -> frozenset[str]:
    """Names of the arguments that a function takes."""
    return frozenset(inspect.signature(function).parameters)


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
    """Print a warning of this package as a paragraph, in place of `warnings.showwarning`."""
    del filename, lineno, file, line  # a place in our code says nothing to a user
    # Those of other packages are about their own code, and of no use at a terminal.
    if category.__module__.startswith("deltauq."):
        _paragraph("[bold yellow]Warning:[/]", as_options(str(message)))


def _paragraph(label: str, text: str) -> None:
    """Print a labelled paragraph on standard error."""
    Console(stderr=True).print(f"{label} {escape(text)}", highlight=False)
