"""`deltauq demo`: the whole job on scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group

from deltauq.cli import arguments as takes
from deltauq.cli.console import in_words, note, say

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["demo"]


@in_words
def demo(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", file_okay=False, help="Directory for the report and the tables."
        ),
    ] = Path("deltauq-demo"),
    seed: takes.Seed = 0,
    as_json: takes.AsJson = False,
    quiet: takes.Quiet = False,
) -> None:
    """Train on scikit-learn's digits, compare exact Hessian, OPG and GGN, and write a report.

    Example: deltauq demo --output deltauq-demo
    """
    from deltauq.cli.demo import run_demo

    summary = run_demo(output, seed=seed, progress=not quiet)
    words = (
        f"{summary['n_train']:,} training digits, {summary['n_held_out']:,} held out, "
        f"{summary['n_params']:,} parameters; test accuracy {summary['test_accuracy']:.1%}; "
        f"training ended {summary['stationarity']['verdict']} (gradient "
        f"{summary['stationarity']['ratio']:.1e} of its parts). "
    )
    if summary["exact"]:
        words += (
            "The standard errors are exact: nothing of any curvature was left out, by the route "
            f"{summary['route']}."
        )
    say(summary, Group(_demo_table(summary), words.strip()), as_json=as_json)
    note(f"open {output / 'report.html'}")


def _demo_table(summary: dict[str, Any]) -> Table:
    """The demo's comparison of curvatures as a table for the terminal."""
    from deltauq.prediction.tables import terminal_table

    columns = {
        "curvature": "curvature",
        "median_std": "median of all",
        "slope": "slope",
        "r_squared": "R^2",
        "spearman": "rank corr.",
        "auroc": "AUROC of errors",
        "seconds": "seconds",
    }
    return terminal_table(
        "Standard errors of the probabilities, against the exact Hessian's",
        {title: [row[name] for row in summary["curvatures"]] for name, title in columns.items()},
    )
