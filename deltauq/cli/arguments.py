"""The arguments and options that several commands of the command line take, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Artifact",
    "AsJson",
    "Calibration",
    "Classes",
    "Data",
    "Ignore",
    "Inputs",
    "L2Rate",
    "LikelihoodName",
    "Model",
    "Quiet",
    "RankOption",
    "RouteOption",
    "Seed",
    "Target",
    "WeightColumn",
    "WeightsAre",
]

Data = Annotated[
    Path, typer.Argument(help="A table (.csv, .parquet) with a row an example, or arrays (.npz).")
]
Model = Annotated[
    Path,
    typer.Argument(
        help="A Keras model (.keras, .h5, a SavedModel's folder), or an artifact that `fit` wrote."
    ),
]
Artifact = Annotated[Path, typer.Argument(help="An artifact that `fit` wrote.")]
Target = Annotated[
    str | None,
    typer.Option(help="The column of the labels; of .npz the array, 'y' where there is one."),
]
Inputs = Annotated[
    str,
    typer.Option(help="Of .npz: the array of the inputs, or several: 'words,numbers'."),
]
WeightColumn = Annotated[
    str | None, typer.Option("--weights", help="The column or array of the examples' weights.")
]
WeightsAre = Annotated[
    str,
    typer.Option(
        "--weights-are",
        help="counts (2 is the row twice), importance (a factor on the row's loss), or auto: "
        "counts where all are whole numbers.",
    ),
]
Ignore = Annotated[str | None, typer.Option(help="Columns that are no inputs: 'id,name'.")]
Classes = Annotated[
    str | None,
    typer.Option(
        help="Names of the classes in the order of the model's outputs, 'good,bad'; of one sigmoid "
        "those of 0 and of 1."
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        help="Inputs such as will be predicted, none of them trained on: columns or arrays as in "
        "the training data, labels not needed. What few eigenpairs leave out is measured on them, "
        "and how far standard errors are known is promised for inputs like them.",
    ),
]
LikelihoodName = Annotated[
    str,
    typer.Option(
        "--likelihood",
        help="What the outputs are: auto, categorical, binary, multilabel, gaussian or poisson.",
    ),
]
L2Rate = Annotated[
    str,
    typer.Option(
        "--l2",
        help="The L2 rate: 'auto' (read from the model), 'tune', or a number; the cost contains "
        "(l2 / 2) * sum w^2.",
    ),
]
RankOption = Annotated[str, typer.Option("--rank", help="Eigenpairs: 'auto', 'full', or a number.")]
RouteOption = Annotated[
    str,
    typer.Option(
        "--route",
        help="How the curvature is reached: dense or gram (both leave nothing out), sketch or "
        "lanczos (leading eigenpairs), or auto: an exact one where it is worth what it costs.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
