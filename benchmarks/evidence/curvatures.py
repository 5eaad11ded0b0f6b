"""Which curvature.

**Question.** How far do the standard errors of the four curvatures lie from those of the exact
Hessian, and from those of a bootstrap? What do they cost? Which should be the default?

**Set-up.** Ten settings of data, width, activation, N and L2; networks at a minimum of their cost,
nothing left out of the curvature. The bootstrap is the static one: members start from the network's
own initial weights, on inputs and labels that are drawn together. Seconds are of the processor.

**Rule, written down before the run.** The default becomes the curvature whose mean over the
settings of |log(median standard error / that of the bootstrap)| is least, of those that give an
answer in every setting and take at most three times as long as the OPG in the median setting, if it
is nearer to the bootstrap than the OPG on at least seven of ten settings; else the OPG stays. The
rank stays "auto" unless its standard errors lie more than 5 % (`rank_tol`) from those of "full" in
the median over outputs, in the median of settings and of the curvatures OPG and GGN. After a first
run two things were changed: seconds were those of the clock; and "auto", which takes an exact route
where one is cheap and is then the same as "full", was compared as it comes, which showed nothing.
It is compared by `route="sketch"` since, which larger networks on more data come to.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from deltauq.errors import DeltaUQError
from deltauq.evaluation.metrics import agreement, line
from evidence.baselines import members
from evidence.fits import delta, told, trained
from evidence.frame import Parts, Rows, Table, plotted, ratios_along
from evidence.training import Recipe

Array = np.ndarray[Any, Any]

TITLE = "Which curvature"
KINDS = ("hessian", "opg", "ggn", "sandwich")

_DIGITS = {"data": "digits", "n_test": 300}
SETTINGS: dict[str, tuple[Recipe, ...]] = {
    "tiny": (Recipe("iris", hidden=(3,), l2=1e-2),),
    "small": (
        Recipe(**_DIGITS, n_train=600, hidden=(8,), l2=1e-2),
        Recipe(**_DIGITS, n_train=600, hidden=(16,), l2=1e-2),
        Recipe(**_DIGITS, n_train=600, hidden=(8,), l2=1e-3),
        Recipe(**_DIGITS, n_train=300, hidden=(8,), l2=1e-2),
        Recipe(**_DIGITS, n_train=600, hidden=(8,), l2=1e-2, activation="relu"),
        Recipe(**_DIGITS, n_train=600, hidden=(8,), l2=1e-2, activation="softplus"),
        Recipe("breast cancer", hidden=(8,), l2=1e-2),
        Recipe("wine", hidden=(8,), l2=1e-2),
        Recipe("adult", n_train=2000, n_test=500, hidden=(8,), l2=1e-2),
        Recipe("german credit", hidden=(8,), l2=1e-2),
    ),
}
SETTINGS["full"] = (
    Recipe("digits", hidden=(32,), l2=1e-2),
    Recipe("digits", hidden=(64, 32), l2=1e-2),
    Recipe("digits", hidden=(32,), l2=1e-3),
    Recipe("digits", n_train=300, hidden=(32,), l2=1e-2),
    Recipe("digits", hidden=(32,), l2=1e-2, activation="relu"),
    Recipe("digits", hidden=(32,), l2=1e-2, activation="softplus"),
    Recipe("breast cancer", hidden=(16,), l2=1e-2),
    Recipe("adult", n_train=10_000, n_test=2000, hidden=(16,), l2=1e-3),
    Recipe("german credit", hidden=(16,), l2=1e-2),
    Recipe("mnist", n_train=4000, n_test=1000, hidden=(), l2=1e-2),
)
MEMBERS = {"tiny": 2, "small": 15, "full": 100}

#: Curvatures whose eigenpairs are found by a sketch.
SKETCHED = ("opg", "ggn")

#: How far standard errors of rank="auto" may lie from those of "full", as `rank_tol` has it.
RANK_TOL = 0.05


def described(recipe: Recipe) -> str:
    """A setting in a table."""
    width = "-".join(map(str, recipe.hidden)) or "no hidden"
    n = len(recipe.task.x)
    return f"{recipe.data}, {width} {recipe.activation}, N = {n:,}, lambda = {recipe.l2:g}"


def parts(size: str) -> Parts:
    """Every setting of a size, and what gives its rows."""
    return {described(r): partial(_setting, r, size) for r in SETTINGS[size] if told(r)}


def _setting(recipe: Recipe, size: str) -> Rows:
    bootstrap = members(recipe, "static bootstrap", MEMBERS[size])["test"]
    found = {}
    for kind in KINDS:
        try:
            found[kind] = delta(recipe, kind, rank="full")
        except DeltaUQError as error:
            print(f"  {kind} is refused: {str(error).splitlines()[0]}")
    rows: Rows = []
    for kind in KINDS:
        row: dict[str, Any] = {"setting": described(recipe), "curvature": kind}
        if kind in found:
            std = found[kind].predictions["test"].std
            beside = agreement(bootstrap.std, std)
            row |= {
                "to bootstrap": beside.median_ratio,
                "R2 to bootstrap": line(bootstrap.std, std).r_squared,
                "Spearman": beside.spearman,
                "seconds": found[kind].seconds,
            }
            if "hessian" in found:
                exact = agreement(found["hessian"].predictions["test"].std, std)
                row |= {"to hessian": exact.median_ratio, "Spearman to hessian": exact.spearman}
            if kind in SKETCHED:
                row |= _auto_rank(recipe, kind, std)
        rows.append(row)
    return rows


def _auto_rank(recipe: Recipe, kind: str, std: Array) -> dict[str, Any]:
    """How far standard errors of the eigenpairs that rank="auto" keeps lie from the full ones."""
    found = delta(recipe, kind, route="sketch")
    off = np.abs(found.predictions["test"].std / std - 1)
    return {
        "P": trained(recipe).count_params(),
        "kept": found.kept,
        "auto off": float(np.median(off)),
        "auto off at most": float(off.max()),
        "auto seconds": found.seconds,
    }


def rank_verdict(rows: Rows) -> str:
    """What the rule says of the rank."""
    middle = float(np.median([r["auto off"] for r in rows]))
    what = 'stays "auto"' if middle <= RANK_TOL else 'becomes "full"'
    return f"By the rule the rank {what}: its standard errors are off by {100 * middle:.2g} %."


def judged(rows: Rows) -> Rows:
    """One row a curvature: what the rule looks at."""
    by = {
        kind: {r["setting"]: r for r in rows if r["curvature"] == kind and "to bootstrap" in r}
        for kind in KINDS
    }
    n = len({r["setting"] for r in rows})
    found: Rows = []
    for kind, of in by.items():
        both = [s for s in of if s in by["opg"]]
        off = {s: abs(np.log(of[s]["to bootstrap"])) for s in both}
        opg = {s: abs(np.log(by["opg"][s]["to bootstrap"])) for s in both}
        times = [of[s]["seconds"] / by["opg"][s]["seconds"] for s in both]
        found.append(
            {
                "curvature": kind,
                "answers": f"{len(of)} of {n}",
                "everywhere": len(of) == n,
                "off": float(np.mean(list(off.values()))) if off else None,
                "nearer than opg": sum(off[s] < opg[s] for s in both),
                "times opg": float(np.median(times)) if times else None,
                "mean R2": float(np.mean([r["R2 to bootstrap"] for r in of.values()]))
                if of
                else None,
            }
        )
    return found


def verdict(rows: Rows) -> str:
    """What the rule says."""
    table = judged(rows)
    allowed = [r for r in table if r["everywhere"] and r["times opg"] <= 3]
    best = min(allowed, key=lambda r: r["off"])
    n = len({r["setting"] for r in rows})
    changes = best["curvature"] != "opg" and best["nearer than opg"] >= 0.7 * n
    what = f"the default becomes {best['curvature']}" if changes else "the OPG stays the default"
    return (
        f"By the rule {what}: of those that answer everywhere and take at most three times as long "
        f"as the OPG, {best['curvature']} is nearest to the bootstrap (off by "
        f"{best['off']:.2f} in the logarithm on average), nearer than the OPG on "
        f"{best['nearer than opg']} of {n} settings."
    )


def tables(rows: Rows) -> list[Table]:
    """Tables of the page."""
    ranks = [r for r in rows if "auto off" in r]
    columns = ("curvature", "answers", "off", "nearer than opg", "times opg", "mean R2")
    each = ("setting", "curvature", "to bootstrap", "R2 to bootstrap", "Spearman", "to hessian")
    return [
        Table("All settings together", judged(rows), columns, verdict(rows)),
        Table(
            "Each setting",
            rows,
            (*each, "Spearman to hessian", "seconds"),
            "`to bootstrap`, `to hessian`: ratio of the median standard errors.",
        ),
        Table(
            "Rank",
            ranks,
            ("setting", "curvature", "P", "kept", "auto off", "auto off at most", "auto seconds",
             "seconds"),
            f"{rank_verdict(ranks) if ranks else ''}\n\nRelative difference of the standard errors "
            'of `rank="auto"` by `route="sketch"` from those of `rank="full"`: the median, and the '
            "largest; eigenpairs that it kept, and the seconds of both.",
        ),
    ]  # fmt: skip


def plot(rows: Rows, figure: Any) -> None:
    """Ratio of the medians to the bootstrap, and to the Hessian."""
    settings = list(dict.fromkeys(r["setting"] for r in rows))
    for axes, what in plotted(figure, ("to bootstrap", "to hessian")):
        for kind in KINDS:
            of = [r for r in rows if r["curvature"] == kind and what in r]
            places = [settings.index(r["setting"]) for r in of]
            axes.plot([r[what] for r in of], places, "o", label=kind, markersize=4)
        axes.axvline(1, color="black", linewidth=0.5)
        ratios_along(axes)
        axes.set_xlabel(f"median standard error, {what}")
    figure.axes[0].set_yticks(range(len(settings)), settings, fontsize=5)
    figure.axes[0].legend(fontsize=7)
