"""The command line: `deltauq demo`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deltauq import __version__

__all__ = ["app"]

app = typer.Typer(
    help="Honest error bars for trained Keras classifiers, by the Delta method.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


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
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@app.command()
def demo(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", file_okay=False, help="Directory for the report and the tables."
        ),
    ] = Path("deltauq-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and of the training.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Train on scikit-learn's digits, compare exact Hessian, OPG and GGN, and write a report.

    Example: deltauq demo --output deltauq-demo
    """
    from deltauq.errors import DeltaUQError

    console = Console()
    try:
        from deltauq.demo import run_demo

        summary = run_demo(output, seed=seed, progress=not quiet)
    except (DeltaUQError, OSError) as error:
        Console(stderr=True).print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from error
    console.print(_demo_table(summary))
    console.print(
        f"{summary['n_train']:,} training digits, {summary['n_held_out']:,} held out, "
        f"{summary['n_params']:,} parameters; test accuracy {summary['test_accuracy']:.1%}; "
        f"training ended {summary['stationarity']['verdict']} (gradient "
        f"{summary['stationarity']['ratio']:.1e} of its parts)."
    )
    console.print(f"Open {output / 'report.html'}")


def _demo_table(summary: dict[str, object]) -> object:
    from rich.table import Table

    table = Table(title="Standard errors of the probabilities, against the exact Hessian's")
    columns = {
        "curvature": "curvature",
        "median_std": "median",
        "slope": "slope",
        "r_squared": "R^2",
        "spearman": "rank corr.",
        "auroc": "AUROC of errors",
        "seconds": "seconds",
    }
    for title in columns.values():
        table.add_column(title, justify="right")
    rows = summary["curvatures"]
    assert isinstance(rows, list)
    for row in rows:
        cells = [row[name] for name in columns]
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in cells))
    return table
