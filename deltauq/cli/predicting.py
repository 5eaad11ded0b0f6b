"""`deltauq predict`: from an artifact and data to a table with standard errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from deltauq.cli import arguments as takes
from deltauq.cli.console import in_words, pairs_table, say
from deltauq.cli.opening import open_artifact
from deltauq.cli.output import check_output, write_whole
from deltauq.cli.tables import read_examples

__all__ = ["predict"]


@in_words
def predict(
    artifact: takes.Artifact,
    data: takes.Data,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .csv to write; without it the table is printed."),
    ] = None,
    target: takes.Target = None,
    inputs: takes.Inputs = "x",
    ignore: takes.Ignore = None,
    level: Annotated[float, typer.Option(help="Confidence level of the intervals.")] = 0.95,
    as_json: takes.AsJson = False,
    quiet: takes.Quiet = False,
) -> None:
    """Predict with standard errors, their bounds, intervals and a score, one row an input.

    With --target the table has the truth beside the prediction.

    Example: deltauq predict credit.deltauq new.csv --output predictions.csv
    """
    if output is not None:
        check_output(output, ".csv")
    method, opened = open_artifact(artifact)
    method.progress = not quiet
    examples = read_examples(data, target=target, needs_target=False, inputs=inputs, ignore=ignore)
    prediction = method.predict(opened.inputs(examples))
    frame = _named(prediction.to_frame(level=level), opened.classes)
    truth = opened.labels(examples)
    if truth is not None and len(truth) == len(frame) and truth.ndim == 1:
        frame.insert(0, "true", truth)
    if output is None:
        text = frame.to_json(orient="records", indent=2) if as_json else frame.to_csv(index=False)
        typer.echo(text, nl=as_json)
        return
    write_whole(output, frame.to_csv(index=False))
    facts = {
        "inputs": len(prediction),
        "median_std": float(np.median(prediction.std)),
        "median_score": float(np.median(prediction.score)),
        "table": str(output),
    }
    say(facts, pairs_table("Predicted", facts), as_json=as_json)


def _named(frame: Any, classes: tuple[str, ...] | None) -> Any:
    """The table with the names of the classes in place of their numbers."""
    if classes is None:
        return frame
    if "label" in frame:
        frame["label"] = [classes[number] for number in frame["label"]]
    places = {f"{kind}_{c}": f"{kind}_{name}" for c, name in enumerate(classes) for kind in _KINDS}
    return frame.rename(columns=places)


#: Columns that there are for every class.
_KINDS = ("probability", "se")
