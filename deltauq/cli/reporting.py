"""`deltauq report`: one page about an artifact and some data, for a reader without the code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltauq.cli import arguments as takes
from deltauq.cli.console import in_words, pairs_table, say
from deltauq.cli.opening import Opened, open_artifact
from deltauq.cli.output import check_output, write_whole
from deltauq.cli.tables import read_examples

if TYPE_CHECKING:
    from deltauq.evaluation.diagnosis import Diagnosis

__all__ = ["report"]


@in_words
def report(
    artifact: takes.Artifact,
    data: takes.Data,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The page to write, such as report.html.")
    ],
    target: takes.Target = None,
    inputs: takes.Inputs = "x",
    ignore: takes.Ignore = None,
    training: Annotated[
        Path | None,
        typer.Option(help="The training data: adds the diagnosis of the model on them."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of the page.")] = None,
    weight_column: takes.WeightColumn = None,
    images: Annotated[bool, typer.Option("--images", help="Show the inputs as pictures.")] = False,
    as_json: takes.AsJson = False,
    quiet: takes.Quiet = False,
) -> None:
    """Write what was asked, whether the model is fit for it, and what it found, as one HTML page.

    Example: deltauq report credit.deltauq test.csv --target risk --output report.html
    """
    from deltauq.report import Study

    check_output(output, ".html")
    method, opened = open_artifact(artifact)
    method.progress = not quiet
    read: dict[str, Any] = {"target": target, "inputs": inputs, "ignore": ignore}
    examples = read_examples(data, needs_target=False, **read)
    study = Study.of(
        method,
        opened.inputs(examples),
        opened.labels(examples),
        title=title or f"{artifact.stem}: predictions with standard errors",
        images=examples.x if images else None,
        diagnosis=None if training is None else _diagnosis(opened, training, weight_column, read),
    )
    write_whole(output, study.to_html())
    facts = {"inputs": len(study.prediction), "page": str(output)}
    say(facts, pairs_table("Reported", facts), as_json=as_json)


def _diagnosis(
    opened: Opened, training: Path, weights: str | None, read: dict[str, Any]
) -> Diagnosis:
    """The diagnosis of the model on its training data, for the report."""
    import deltauq

    examples = read_examples(training, needs_target=True, weights=weights, **read)
    return deltauq.diagnose(
        opened.model,
        opened.inputs(examples),
        opened.labels(examples),
        examples.weight,
        **opened.options,
    )
