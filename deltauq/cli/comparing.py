"""`deltauq compare`: curvatures side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from deltauq.cli import arguments as takes
from deltauq.cli.console import in_words, note, say
from deltauq.cli.opening import l2_rate, open_model, whole_number_or_word
from deltauq.cli.output import check_output, write_whole
from deltauq.cli.tables import names_in, read_examples

__all__ = ["compare"]


@in_words
def compare(
    model: takes.Model,
    data: takes.Data,
    held_out: Annotated[Path, typer.Argument(help="Data of the same kind, to be predicted.")],
    target: takes.Target = None,
    inputs: takes.Inputs = "x",
    weight_column: takes.WeightColumn = None,
    weights: takes.WeightsAre = "auto",
    ignore: takes.Ignore = None,
    curvatures: Annotated[
        str, typer.Option(help="Two or more, the reference first.")
    ] = "hessian,ggn,opg",
    rank: takes.RankOption = "auto",
    route: takes.RouteOption = "auto",
    likelihood: takes.LikelihoodName = "auto",
    calibration: takes.Calibration = None,
    l2: takes.L2Rate = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .csv or .html to write.")
    ] = None,
    seed: takes.Seed = 0,
    as_json: takes.AsJson = False,
    quiet: takes.Quiet = False,
) -> None:
    """Fit several curvatures to one model, and compare their standard errors on other data.

    Example: deltauq compare credit.deltauq train.csv test.csv --target risk
    """
    import deltauq

    if output is not None:
        check_output(output, ".csv", ".html")
    chosen_rank = whole_number_or_word("--rank", rank, ("auto", "full"))
    opened = open_model(model)
    read: dict[str, Any] = {"target": target, "inputs": inputs, "ignore": ignore}
    training = read_examples(data, needs_target=True, weights=weight_column, **read)
    others = read_examples(held_out, needs_target=True, **read)
    if others.is_table and weight_column is not None:  # weights are no inputs there either
        others = replace(others, x=others.x.drop(columns=weight_column, errors="ignore"))
    names: Any = names_in(curvatures)
    x = opened.inputs(training)
    no_inputs = (target, weight_column, *names_in(ignore))
    comparison = deltauq.compare(
        opened.model,
        x,
        opened.labels(training),
        opened.inputs(others),
        opened.labels(others),
        sample_weight=training.weight,
        calibration=opened.calibration(calibration, x, inputs=inputs, others=no_inputs),
        curvatures=names,
        rank=chosen_rank,
        route=route,
        seed=seed,
        progress=not quiet,
        **opened.asked(l2=l2_rate(l2), likelihood=likelihood, weights=weights),
    )
    if output is not None:
        html = output.suffix.lower() == ".html"
        write_whole(output, comparison.to_html() if html else comparison.to_frame().to_csv())
    say({"curvatures": comparison.rows()}, comparison, as_json=as_json)
    if output is not None:
        note(f"written to {output}")
