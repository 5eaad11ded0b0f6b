"""The part of a page that says whether the model is fit for standard errors."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from deltauq.evaluation.route_estimates import in_figures
from deltauq.report.blocks import Block, Bullets, Callout, Column, Heading, Section, Table, Text
from deltauq.report.contents import ReportContents
from deltauq.report.words import NBSP, curvature_name, number

if TYPE_CHECKING:
    from deltauq.evaluation.diagnosis import Diagnosis

__all__ = ["diagnosis_sentence", "fitness_section", "stationarity_verdict"]

_VERDICTS = {
    "stationary": "The cost's gradient vanishes to the stated tolerance, as the method assumes.",
    "stopped at a kink": "Training stopped where the cost has a kink, such as a ReLU at zero: its "
    "gradient jumps there, and no small step lowers the cost. The method assumes a smooth minimum, "
    "so read the standard errors as approximate.",
    "not converged": "The method assumes a minimum of the cost, and training had not reached one: "
    "with more training both the probabilities and the standard errors may change. Read them as "
    "provisional.",
    "near a minimum": "The method assumes a minimum of the cost. A step to it would move the "
    "predictions by less than their standard errors, as is usual after training by mini-batches.",
    "not at a minimum": "The method assumes a minimum of the cost, and the gradient has not "
    "vanished. How far a minimum is, in standard errors of the predictions, is not known: a fit "
    "with enough eigenpairs says it.",
    "far from a minimum": "The method assumes a minimum of the cost. Either training stopped well "
    "before one, or the L2 rate is not the one the weights were trained with. Read the standard "
    "errors as provisional.",
}

#: Levels of findings, the gravest first, and what they are called here.
_LEVELS = {
    "error": f"✗{NBSP}error",
    "warning": f"!{NBSP}warning",
    "note": "note",
    "ok": f"✓{NBSP}in{NBSP}order",
}

#: Variables that are named of those with one L2 rate.
_NAMED = 3


def fitness_section(study: ReportContents) -> Section | None:
    """Section on the model's stationarity and diagnosis; None where nothing is known."""
    blocks: list[Block] = []
    if study.stationarity is not None:
        verdict = stationarity_verdict(study)
        note = _stationarity_sentence(study)
        blocks.append(Callout(f"The weights: {verdict}.", _VERDICTS.get(verdict, ""), note))
    if study.caveats:
        items = [(f"{each.subject.capitalize()}:", each.text) for each in study.caveats]
        blocks += [Heading("Caveats of the fit"), Bullets(items)]
    if study.diagnosis is not None:
        blocks += _diagnosed(study.diagnosis)
    return Section("Is the model fit for it?", blocks) if blocks else None


def stationarity_verdict(study: ReportContents) -> str:
    """Verdict on the minimum: that of training, or by the gradient and the step that is left."""
    found = study.stationarity
    if study.verdict is not None or found is None:
        return study.verdict or ""
    if found.ratio <= study.tolerance:
        return "stationary"
    if found.is_near and found.shift is not None:
        return "near a minimum"
    return "far from a minimum" if found.is_far and found.shift else "not at a minimum"


def diagnosis_sentence(diagnosis: Diagnosis) -> str:
    """Sentence that says how many findings of each level there are."""
    counts = dict.fromkeys(_LEVELS, 0)
    for finding in diagnosis.findings:
        counts[finding.level] += 1
    if not counts["error"] + counts["warning"]:
        return "The diagnosis found nothing that would make the numbers wrong."
    found = " and ".join(
        f"{counts[level]} {level}{'s' if counts[level] > 1 else ''}"
        for level in ("error", "warning")
        if counts[level]
    )
    meaning = {
        True: "an error means that there can be no standard errors",
        False: "a warning means that the numbers may be off",
    }
    return f"The diagnosis found {found}: {meaning[counts['error'] > 0]}."


def _diagnosed(diagnosis: Diagnosis) -> list[Block]:
    order = list(_LEVELS)
    findings = sorted(diagnosis.findings, key=lambda finding: order.index(finding.level))
    grave = frozenset(i for i, f in enumerate(findings) if f.level in ("error", "warning"))
    columns = [Column("Looked at", "names"), Column("Verdict", "names")]
    columns += [Column(title, "prose") for title in ("Found", "Why it matters", "What to do")]
    blocks: list[Block] = [
        Heading("The diagnosis"),
        Text(f"{diagnosis_sentence(diagnosis)} {diagnosis.advice}"),
        Table(
            "What the diagnosis found",
            columns,
            [(f.subject, _LEVELS[f.level], f.what, f.why, f.remedy) for f in findings],
            grave,
        ),
    ]
    if diagnosis.rates:
        blocks += [Heading("L2 rates"), _rates(diagnosis)]
    if diagnosis.costs:
        blocks += [
            Heading(f"What {diagnosis.costs[0].rank:,} eigenpairs would take"),
            _costs(diagnosis),
        ]
    if diagnosis.routes:
        blocks += [Heading("What each route would take"), *_routes(diagnosis)]
    return blocks


def _rates(diagnosis: Diagnosis) -> Table:
    """Variables of one rate and source together: there may be hundreds."""
    groups = defaultdict(list)
    for variable in diagnosis.rates:
        groups[variable.rate, variable.source].append(variable.path)
    rows = []
    for (rate, source), paths in groups.items():
        more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
        rows.append((", ".join(paths[:_NAMED]) + more, number(rate), source))
    columns = [Column("Variables", "names"), Column("Rate"), Column("Read from", "names")]
    return Table("L2 rates", columns, rows)


def _costs(diagnosis: Diagnosis) -> Table:
    rows = [
        (curvature_name(cost.curvature), *in_figures(cost.n_bytes, cost.seconds))
        for cost in diagnosis.costs
    ]
    columns = [Column("Curvature", "names"), Column("Memory"), Column("Time")]
    return Table("Costs", columns, rows)


def _routes(diagnosis: Diagnosis) -> list[Block]:
    """What each way to the standard errors would cost, and which is taken unasked."""
    rows = [
        (
            curvature_name(route.curvature),
            route.route,
            *in_figures(route.n_bytes, route.seconds, route.per_thousand),
            route.width,
        )
        for route in diagnosis.routes
    ]
    taken = frozenset(i for i, route in enumerate(diagnosis.routes) if route.is_taken)
    columns = [Column("Curvature", "names"), Column("Route", "names"), Column("Memory")]
    columns += [Column("Fit"), Column("1,000 predictions"), Column("Width of bounds", "names")]
    why = [
        (f"{curvature_name(route.curvature)}:", f"{route.route} ({route.why}).")
        for route in diagnosis.taken_routes
    ]
    note = Text(
        "Counted, not measured: in bold the route that a fit takes where none is asked for. "
        "Dense and gram leave nothing out; sketch and lanczos keep 600 eigenpairs.",
        quiet=True,
    )
    return [Table("Routes", columns, rows, taken), note, Bullets(why)]


def _stationarity_sentence(study: ReportContents) -> str:
    s = study.stationarity
    assert s is not None
    side = "within" if s.ratio <= study.tolerance else "above"
    sentence = (
        f"The cost's gradient has norm {number(s.gradient_norm)}; its two parts, from the data "
        f"and from L2, have norms {number(s.data_norm)} and {number(s.l2_norm)} and cancel at a "
        f"minimum. What is left is {number(s.ratio)} of the larger part, {side} the stated "
        f"tolerance of {number(study.tolerance)}."
    )
    if s.shift is None:
        return sentence
    return (
        f"{sentence} A step to the minimum would move the predictions of training inputs by "
        f"{s.shift_range} of their standard errors (median)."
    )
