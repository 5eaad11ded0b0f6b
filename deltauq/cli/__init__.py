"""The command line: from a table to a report, without a line of Python.

Every command exits with 0, with 1 where something cannot be used (it says what and what to do),
with 2 where the command itself is not understood, and `diagnose` with 3 where it found something.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from deltauq import __version__
from deltauq.cli.comparing import compare
from deltauq.cli.diagnosing import diagnose
from deltauq.cli.fitting import fit
from deltauq.cli.predicting import predict
from deltauq.cli.reporting import report
from deltauq.cli.showing import demo

__all__ = ["app"]

app = typer.Typer(
    help="Honest error bars for trained Keras classifiers, by the Delta method.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

for command in (demo, diagnose, fit, predict, compare, report):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deltauq {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Honest error bars for trained Keras classifiers, by the Delta method."""
    # TensorFlow prints its start-up messages unless told otherwise before it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
