"""The part of a page that shows curvatures side by side."""

from __future__ import annotations

from functools import partial

from deltauq import plots
from deltauq.evaluation.comparison import Comparison
from deltauq.report.blocks import Block, Bullets, Column, Heading, Picture, Section, Table, Text
from deltauq.report.words import MISSING, curvature_name, fixed, number

__all__ = ["side_by_side"]

_COLUMNS = (
    "Eigenpairs",
    "Median standard error",
    "Slope",
    "R²",
    "Rank correlation",
    "Ratio of medians",
    "AUROC of the score",
    "Seconds",
    "Memory (MiB)",
)


def side_by_side(comparison: Comparison) -> Section:
    """Section that compares the curvatures by a table and by plots."""
    note = (
        "Over the standard errors of all inputs and outputs. Slope and R² are of the line "
        "through the origin, standard error = slope times the reference's; a slope above 1 means "
        "larger standard errors than the reference's. Seconds and memory are of the fit and of "
        "what it keeps."
    )
    blocks: list[Block] = [_table(comparison), Text(note, quiet=True)]
    blocks += [Heading("How far the standard errors are known"), _certainty(comparison)]
    blocks += [_scatter(comparison, run.curvature) for run in comparison.runs[1:]]
    return Section("The curvatures side by side", blocks)


def _table(comparison: Comparison) -> Table:
    rows = []
    for run, row in zip(comparison.runs, comparison.rows(), strict=True):
        cells = [
            curvature_name(run.curvature),
            "all" if run.is_exact else f"{row['rank']:,}",
            number(row["median_std"]),
            *(fixed(row[name], 3) for name in ("slope", "r_squared", "spearman", "median_ratio")),
            fixed(row["auroc"], 3),
            fixed(row["seconds"], 1),
            fixed(row["kept_megabytes"], 1),
        ]
        if run is comparison.reference:
            cells[0] += " (reference)"
            cells[3:7] = [MISSING] * 4
        rows.append(cells)
    columns = [Column("Curvature", "names"), *(Column(title) for title in _COLUMNS)]
    return Table("Comparison of the curvatures", columns, rows)


def _certainty(comparison: Comparison) -> Bullets:
    """A sentence on each curvature: how far its standard errors are known."""
    return Bullets(
        [(f"{curvature_name(run.curvature)}:", f"{run.certainty}.") for run in comparison.runs]
    )


def _scatter(comparison: Comparison, curvature: str) -> Picture:
    fit, reference = comparison.agreement(curvature), comparison.reference.curvature
    return Picture(
        f"{reference}_against_{curvature}",
        f"Standard errors from the {curvature_name(curvature)} against those from the "
        f"{curvature_name(reference)}, one point each. On the dashed line both are equal.",
        f"Scatter plot of the standard errors from the {curvature_name(curvature)} against those "
        f"from the {curvature_name(reference)}: slope {fixed(fit.slope, 3)}, "
        f"R² {fixed(fit.r_squared, 3)}.",
        partial(plots.comparison, comparison, curvature),
        size="narrow",
    )
