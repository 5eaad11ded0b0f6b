"""Delta against the bootstrap.

**Question.** Do standard errors of the Delta method agree with those of a bootstrap, and what do
the two cost? The paper (arXiv 2107.01606) finds a strong linear relation, and the Delta method
five times faster.

**Set-up.** Networks at a minimum of their cost. The bootstrap draws inputs and labels together,
and trains each network anew on them: *static*, from the initial weights of the network itself, or
*dynamic*, from other ones every time, as in section 4 of the paper. Its standard deviation over
the members, of every class's probability at every test input, is the reference; the Delta
method's standard errors, nothing left out, are held against it: slope, intercept and R^2 of a
line, Spearman's correlation, the ratio of the medians, with bootstrap intervals over inputs.
Time: training all members over the fit and the prediction of the Delta method, training the
network once not counted; of the processor, as experiments run side by side.

**Rule, written down before the run.** None; the table says what it says. "Strong linear relation"
would be an R^2 of 0.8 or more.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from deltauq.evaluation.metrics import agreement, line
from deltauq.evaluation.resampling import bootstrapped
from evidence.baselines import Kind, members
from evidence.fits import delta, told
from evidence.frame import Parts, Rows, Table, plotted
from evidence.training import Recipe

Array = np.ndarray[Any, Any]

TITLE = "Delta against the bootstrap"

#: Networks, the number of their bootstraps' members, curvatures.
RUNS: dict[str, list[tuple[Recipe, int, tuple[str, ...]]]] = {
    "tiny": [(Recipe("iris", hidden=(3,), l2=1e-2), 2, ("ggn",))],
    "small": [
        (
            Recipe("digits", n_train=600, n_test=300, hidden=(16,), l2=1e-2),
            30,
            ("hessian", "opg", "ggn", "sandwich"),
        ),
        (
            Recipe("adult", n_train=2000, n_test=500, hidden=(8,), l2=1e-2),
            30,
            ("hessian", "opg", "ggn", "sandwich"),
        ),
        (Recipe("mnist", n_train=500, n_test=500, hidden=(), l2=1e-2), 30, ("opg", "ggn")),
    ],
}
_ALL = ("hessian", "opg", "ggn", "sandwich")
RUNS["full"] = [
    (Recipe("digits", hidden=(32,), l2=1e-2), 100, _ALL),
    (Recipe("adult", n_train=10_000, n_test=2000, hidden=(16,), l2=1e-3), 100, _ALL),
    (Recipe("mnist", n_train=4000, n_test=2000, l2=1e-2), 50, ("opg", "ggn")),
]
KINDS: tuple[Kind, ...] = ("bootstrap", "static bootstrap")


def parts(size: str) -> Parts:
    """Every network and bootstrap of a size, and what gives their rows."""
    return {
        f"{recipe.data}, {kind}": partial(_beside, recipe, kind, n, curvatures, size)
        for recipe, n, curvatures in RUNS[size]
        if told(recipe)
        for kind in KINDS
    }


def _beside(recipe: Recipe, kind: Kind, n: int, curvatures: tuple[str, ...], size: str) -> Rows:
    """A row for every curvature of a network, beside one bootstrap."""
    found, rows = members(recipe, kind, n)["test"], []
    for curvature in curvatures:
        ours = delta(recipe, curvature, rank="full")
        row = _row(found.std, ours.predictions["test"].std, 19 if size == "tiny" else 199)
        rows.append(
            {"task": recipe.data, "N": len(recipe.task.x)}
            | {"bootstrap": "static" if kind.startswith("static") else "dynamic"}
            | {"members": n, "curvature": curvature}
            | row
            | {"bootstrap seconds": found.seconds, "delta seconds": ours.seconds}
            | {"times faster": found.seconds / ours.seconds}
        )
    return rows


def _row(reference: Array, std: Array, n: int) -> dict[str, Any]:
    found = line(reference, std)
    slope = bootstrapped(lambda a, b: line(a, b).slope, reference, std, n_resamples=n)
    fit = bootstrapped(lambda a, b: line(a, b).r_squared, reference, std, n_resamples=n)
    also = agreement(reference, std)
    return {
        "slope": found.slope,
        "slope low": slope.low,
        "slope high": slope.high,
        "intercept": found.intercept,
        "R2": found.r_squared,
        "R2 low": fit.low,
        "R2 high": fit.high,
        "Spearman": also.spearman,
        "median ratio": also.median_ratio,
    }


def tables(rows: Rows) -> list[Table]:
    """Tables of the page."""
    columns = ("task", "N", "bootstrap", "members", "curvature", "slope", "slope low", "slope high")
    more = ("intercept", "R2", "R2 low", "R2 high", "Spearman", "median ratio", "times faster")
    note = "Of the Delta method's standard errors on those of the bootstrap; 95 % intervals."
    return [Table("Agreement and time", rows, columns + more, note)]


def plot(rows: Rows, figure: Any) -> None:
    """R^2 and the ratio of medians by curvature."""
    for axes, (name, what) in plotted(figure, (("R2", "R^2"), ("median ratio", "ratio"))):
        for kind in ("static", "dynamic"):
            of = [r for r in rows if r["bootstrap"] == kind]
            places = [f"{r['task']}, {r['curvature']}" for r in of]
            axes.plot([r[name] for r in of], range(len(of)), "o", label=kind, markersize=4)
        axes.axvline(1, color="black", linewidth=0.5)
        axes.set_xlabel(what)
    figure.axes[0].set_yticks(range(len(places)), places, fontsize=6)
    figure.axes[0].legend(fontsize=7)
