"""Tables of a diagnosis for a terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from deltauq.evaluation.checks import Finding
from deltauq.evaluation.route_estimates import RouteEstimate, in_figures
from deltauq.evaluation.sample_estimates import CostEstimate
from deltauq.network.l2 import VariableRate

__all__ = ["choice_of_route", "costs_table", "findings_table", "rates_table", "routes_table"]

#: How levels of findings look.
_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}


def findings_table(findings: tuple[Finding, ...]) -> Table:
    """What was found, why it matters and what to do."""
    table = Table(title="Diagnosis", show_lines=True)
    for name in ("subject", "level", "found", "why it matters", "what to do"):
        table.add_column(name)
    for f in findings:
        cells = [Text(text) for text in (f.subject, f.level, f.what, f.why, f.remedy)]
        cells[1].stylize(_STYLES[f.level])
        table.add_row(*cells)
    return table


def rates_table(rates: tuple[VariableRate, ...]) -> Table:
    """The L2 rate of every variable, and where it was read."""
    table = Table("variable", "L2 rate", "read from", title="L2")
    for rate in rates:
        table.add_row(rate.path, f"{rate.rate:.3g}", rate.source)
    return table


def costs_table(costs: tuple[CostEstimate, ...]) -> Table:
    """Memory and time of some eigenpairs of each curvature."""
    title = f"What {costs[0].rank} eigenpairs would take"
    table = Table("curvature", "memory", "time", title=title)
    for cost in costs:
        table.add_row(cost.curvature, *in_figures(cost.n_bytes, cost.seconds))
    return table


def routes_table(routes: tuple[RouteEstimate, ...]) -> Table:
    """What each route to the standard errors would cost, those that are taken in bold."""
    names = ("curvature", "route", "memory", "fit", "1,000 predictions", "width of std_bounds")
    table = Table(*names, title="What each route would take")
    for route in routes:
        figures = in_figures(route.n_bytes, route.seconds, route.per_thousand)
        style = "bold" if route.is_taken else None
        table.add_row(route.curvature, route.route, *figures, route.width, style=style)
    return table


def choice_of_route(route: RouteEstimate) -> str:
    """Which route a fit of a curvature takes where none is asked for, and why."""
    return f"{route.curvature}: where no route is asked for, {route.route} ({route.why})."
