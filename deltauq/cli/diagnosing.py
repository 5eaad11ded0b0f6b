"""`deltauq diagnose`: what would make the numbers wrong, before anything expensive."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deltauq.cli import arguments as takes
from deltauq.cli.console import as_options, in_words, note, say
from deltauq.cli.opening import l2_rate, open_model
from deltauq.cli.output import check_output
from deltauq.cli.tables import read_examples
from deltauq.runtime.whole_files import written_whole

if TYPE_CHECKING:
    from deltauq.evaluation.checks import Finding
    from deltauq.evaluation.diagnosis import Diagnosis

__all__ = ["diagnose"]


@in_words
def diagnose(
    model: takes.Model,
    data: takes.Data,
    target: takes.Target = None,
    inputs: takes.Inputs = "x",
    weight_column: takes.WeightColumn = None,
    weights: takes.WeightsAre = "auto",
    ignore: takes.Ignore = None,
    likelihood: takes.LikelihoodName = "auto",
    classes: takes.Classes = None,
    l2: takes.L2Rate = "auto",
    polish: Annotated[
        Path | None,
        typer.Option(help="Minimise the cost further, and write that model here (.keras)."),
    ] = None,
    as_json: takes.AsJson = False,
    quiet: takes.Quiet = False,
) -> None:
    """Look for everything that would make standard errors wrong: exit code 3 where there is some.

    Example: deltauq diagnose model.keras train.csv --target risk
    """
    import deltauq

    del quiet  # a diagnosis has no progress bars; whoever calls every command with it may
    if polish is not None:
        check_output(polish, ".keras")
    opened = open_model(model).with_classes(classes, likelihood)
    asked = "auto" if classes else likelihood
    examples = read_examples(
        data, target=target, needs_target=True, inputs=inputs, weights=weight_column, ignore=ignore
    )
    found = deltauq.diagnose(
        opened.model,
        opened.inputs(examples),
        opened.labels(examples),
        examples.weight,
        polish=polish is not None,
        **opened.asked(l2=l2_rate(l2), likelihood=asked, weights=weights),
    )
    found = replace(found, findings=tuple(map(_told, found.findings)))
    findings = [asdict(finding) for finding in found.findings]
    routes = [asdict(route) for route in found.routes]
    summary = {"ok": found.ok, "findings": findings, "advice": found.advice, "routes": routes}
    say(summary, found, as_json=as_json)
    if polish is not None:
        _write_polished(found, polish)
    if not found.ok:
        raise typer.Exit(3)


def _told(finding: Finding) -> Finding:
    """A finding with Python's arguments written as options of the commands."""
    what, why, remedy = map(as_options, (finding.what, finding.why, finding.remedy))
    return replace(finding, what=what, why=why, remedy=remedy)


def _write_polished(found: Diagnosis, path: Path) -> None:
    """Save the model whose cost was minimised further, and say where it is."""
    model = found.apply_polished()
    with written_whole(path) as beside:
        model.save(beside)
    note(f"the polished model is in {path}")
