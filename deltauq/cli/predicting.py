"""`deltauq predict`: from an artifact and data to a table with standard errors."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
import numpy.typing as npt
import typer

from deltauq.cli import arguments as takes
from deltauq.cli.console import in_words, out, pairs_table, say
from deltauq.cli.opening import open_artifact
from deltauq.cli.output import check_output
from deltauq.cli.tables import read_examples
from deltauq.runtime.whole_files import written_whole

__all__ = ["predict"]

Columns = dict[str, npt.NDArray[Any]]

#: Rows that are turned into text at a time.
_ROWS = 8192

#: What of a column's name is followed by the number of a class.
_KINDS = ("probability", "se", "predictive")


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
    method: Annotated[
        str | None,
        typer.Option(
            "--predictive",
            help="Add averages over the weights, 'predictive_' columns: 'probit', 'monte_carlo' or "
            "'bridge' of probabilities, 'exact' of a regression.",
        ),
    ] = None,
    as_json: takes.AsJson = False,
    quiet: takes.Quiet = False,
) -> None:
    """Predict with standard errors, their bounds, intervals and a score, one row an input.

    With --target the table has the truth beside the prediction. Predictions that the model's mask
    takes out (padding) have no row; a column says which row of all each one is.

    Example: deltauq predict credit.deltauq new.csv --output predictions.csv
    """
    if output is not None:
        check_output(output, ".csv")
    fitted, opened = open_artifact(artifact)
    fitted.progress = not quiet
    examples = read_examples(data, target=target, needs_target=False, inputs=inputs, ignore=ignore)
    prediction = fitted.predict(opened.inputs(examples))
    columns = _named(prediction.to_dict(level, method), opened.classes)
    truth = opened.labels(examples)
    if truth is not None and len(truth) == len(prediction) and truth.ndim == 1:
        columns = {"true": truth[~prediction.masked]} | columns
    if output is None:
        out(_as_json(columns) if as_json else _as_csv(columns))
        return
    with written_whole(output) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        _write_csv(columns, file)
    counted = prediction.unmasked
    facts = {
        "inputs": len(counted),
        "masked": len(prediction) - len(counted),
        "median_std": float(np.median(counted.std)),
        "standard_errors": counted.certainty,
        "median_score": float(np.median(counted.score)),
        "table": str(output),
    }
    say(facts, pairs_table("Predicted", facts), as_json=as_json)


def _named(columns: Columns, classes: tuple[str, ...] | None) -> Columns:
    """The table with the names of the classes in place of their numbers."""
    if classes is None:
        return columns
    if "label" in columns:
        columns["label"] = np.asarray(classes)[columns["label"]]
    places = {f"{kind}_{c}": f"{kind}_{name}" for c, name in enumerate(classes) for kind in _KINDS}
    return {places.get(name, name): values for name, values in columns.items()}


def _as_json(columns: Columns) -> str:
    """Rows of a table as a JSON list of objects."""
    return (
        json.dumps([dict(zip(columns, row, strict=True)) for row in _rows(columns)], indent=2)
        + "\n"
    )


def _as_csv(columns: Columns) -> str:
    """A table as the text of a .csv file."""
    text = io.StringIO()
    _write_csv(columns, text)
    return text.getvalue()


def _write_csv(columns: Columns, file: TextIO) -> None:
    """Write a table to an open file as .csv, row by row."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(_rows(columns))


def _rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    """Rows of a table, some converted at a time: numbers of Python take four times the memory."""
    for start in range(0, len(next(iter(columns.values()))), _ROWS):
        some = slice(start, start + _ROWS)
        yield from zip(*(values[some].tolist() for values in columns.values()), strict=True)
