"""Which curvature.

**Question.** How far do the standard errors of the four curvatures lie from those of the exact
Hessian, and from those of a bootstrap? What do they cost? Which should be the default?

**Set-up.** Ten settings of data, width, activation, N and L2; networks at a minimum of their cost,
nothing left out of the curvature. The bootstrap is the static one: members start from the network's
own initial weights, on inputs and labels that are drawn together. What a default would cost is
timed with `rank="auto"`, of the fit and of predicting the test inputs, on the ten settings and on
larger ones, which have no bootstrap: shared weights, many parameters, many rows, a hundred classes.
What takes more than ten times as long as the OPG on one of the ten is not timed on the larger ones,
and the Sandwich, which takes the exact Hessian and more, is not timed at all.
Seconds are of the processor.

**Rule, written down before the run.** The default becomes the curvature whose mean over the
settings of |log(median standard error / that of the bootstrap)| is least, of those that give an
answer in every setting and take at most three times as long as the OPG in the median setting and at
most ten times in every one, if it is nearer to the bootstrap than the OPG on at least seven of ten
settings; else the OPG stays. The rank stays "auto" unless its standard errors lie more than 5 %
(`rank_tol`) from those of "full" in the median over outputs, in the median of settings and of the
curvatures OPG and GGN.

What was changed between runs, each time before the run that it decides: seconds had been those of
the clock; "auto", which takes an exact route where one is cheap and is then the same as "full", had
been compared as it comes, which showed nothing (it is compared by `route="sketch"`, which larger
networks on more data come to); and the costs had been those of `rank="full"` on the ten settings
alone, held to the median: by that the exact Hessian was to become the default, which took 18 and 65
times as long as the OPG in the two settings of more than 3,000 parameters. It was not followed.
The costs were taken after the other figures. At their first taking the GGN of a hundred classes
took 11 times as long as the OPG, which would have kept the OPG the default; then its matrix came to
be formed without the rows of dense layers, and the costs were taken again.
"""

from __future__ import annotations

import math
import statistics
from functools import partial
from typing import Any

import numpy as np

from deltauq.errors import DeltaUQError
from deltauq.evaluation.metrics import agreement, line
from evidence.baselines import members
from evidence.fits import Delta, delta, told, trained
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

#: Settings of which the cost alone is asked.
LARGER: dict[str, tuple[Recipe, ...]] = {
    "tiny": (Recipe("iris", hidden=(4,), l2=1e-2),),
    "small": (
        Recipe("digits", hidden=(64, 32), l2=1e-2),
        Recipe("digit pairs", n_train=500, n_test=50, l2=1e-2),
    ),
    "full": (
        Recipe("adult", n_train=32_561, n_test=500),
        Recipe("digit pairs", n_train=2000, n_test=50, hidden=(32,), l2=1e-2),
        Recipe("mnist", n_train=10_000, n_test=100, hidden=(32,), activation="relu", epochs=20),
        Recipe("mnist", n_train=10_000, n_test=100, hidden=(64,), activation="relu", epochs=20),
        Recipe("mnist", n_train=10_000, n_test=100, hidden=(256,), activation="relu", epochs=20),
    ),
}
#: Curvatures that are timed: on the settings that are compared, and of those the ones that are left
#: on larger ones.
TIMED, TIMED_LARGER = ("opg", "ggn", "hessian"), ("opg", "ggn")
MOST_TIMES, MOST_TIMES_ONCE = 3, 10

#: Fitted before others are timed: what TensorFlow does once a process belongs to no curvature.
_FIRST = Recipe("iris", hidden=(3,), l2=1e-2)

#: Curvatures whose eigenpairs are found by a sketch.
SKETCHED = ("opg", "ggn")

#: How far standard errors of rank="auto" may lie from those of "full", as `rank_tol` has it.
RANK_TOL = 0.05


def described(recipe: Recipe) -> str:
    """A setting in a table."""
    width = "-".join(map(str, recipe.hidden)) or "no hidden"
    if recipe.task.x.ndim == 4:
        width = f"2 convolutions, {width}"
    n = len(recipe.task.x)
    return f"{recipe.data}, {width} {recipe.activation}, N = {n:,}, lambda = {recipe.l2:g}"


def parts(size: str) -> Parts:
    """Every setting of a size, compared and timed, and the larger ones, timed."""
    compared = {described(r): partial(_setting, r, size) for r in SETTINGS[size] if told(r)}
    of_sizes = ((SETTINGS, TIMED), (LARGER, TIMED_LARGER))
    timed = ((r, kinds) for of, kinds in of_sizes for r in of[size])
    costs = {f"cost of {described(r)}": partial(_cost, r, kinds) for r, kinds in timed if told(r)}
    return compared | costs


def _setting(recipe: Recipe, size: str) -> Rows:
    bootstrap = members(recipe, "static bootstrap", MEMBERS[size])["test"]
    found = _fits(recipe, KINDS, rank="full")
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


def _cost(recipe: Recipe, kinds: tuple[str, ...]) -> Rows:
    """Seconds of the fit that a default would be."""
    delta(_FIRST, "opg")
    about = {"P": trained(recipe).count_params(), "classes": recipe.task.n_classes}
    return [
        {"setting": described(recipe), "curvature": kind, **about, "default seconds": found.seconds}
        for kind, found in _fits(recipe, kinds).items()
    ]


def _fits(recipe: Recipe, kinds: tuple[str, ...], **options: str) -> dict[str, Delta]:
    """The fits of curvatures that give an answer; of the others it is said that they do not."""
    found = {}
    for kind in kinds:
        try:
            found[kind] = delta(recipe, kind, **options)
        except DeltaUQError as error:
            print(f"  {kind} is refused: {str(error).splitlines()[0]}")
    return found


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
    return [_judge(rows, kind) for kind in KINDS]


def _judge(rows: Rows, kind: str) -> dict[str, Any]:
    """What the rule looks at of one curvature."""
    settings = _settings(rows)
    off, off_opg = (
        {s: abs(math.log(ratio)) for s, ratio in _figures(rows, which, "to bootstrap").items()}
        for which in (kind, "opg")
    )
    seconds, seconds_opg = (_figures(rows, k, "default seconds") for k in (kind, "opg"))
    times = {s: taken / seconds_opg[s] for s, taken in seconds.items() if s in seconds_opg}
    r_squared = _figures(rows, kind, "R2 to bootstrap")
    middle = statistics.median(times[s] for s in settings) if settings <= times.keys() else None
    most = max(times.values(), default=None)
    everywhere = len(off) == len(settings) and len(times) == len(seconds_opg)
    is_cheap = (
        middle is not None and middle <= MOST_TIMES and max(times.values()) <= MOST_TIMES_ONCE
    )
    return {
        "curvature": kind,
        "answers": f"{len(off)} of {len(settings)}",
        "off": statistics.fmean(off.values()) if off else None,
        "nearer than opg": sum(of < off_opg[s] for s, of in off.items() if s in off_opg),
        "times opg": middle,
        "at most": most,
        "timed": f"{len(times)} of {len(seconds_opg)}",
        "eligible": everywhere and is_cheap,
        "mean R2": statistics.fmean(r_squared.values()) if r_squared else None,
    }


def _settings(rows: Rows) -> set[str]:
    """The settings in which curvatures are compared with a bootstrap."""
    return {row["setting"] for row in rows if "default seconds" not in row}


def _figures(rows: Rows, kind: str, what: str) -> dict[str, float]:
    """A figure of a curvature, by the settings that have it."""
    return {r["setting"]: r[what] for r in rows if r["curvature"] == kind and what in r}


def default(rows: Rows) -> str:
    """The curvature that the rule makes the default."""
    best = min((r for r in judged(rows) if r["eligible"]), key=lambda r: r["off"], default=None)
    if best is None:
        return "opg"
    enough = best["nearer than opg"] >= 0.7 * len(_settings(rows))
    return str(best["curvature"]) if enough else "opg"


def verdict(rows: Rows) -> str:
    """What the rule says."""
    return (
        f'By the rule the default is `curvature="{default(rows)}"`. `off`: mean over the settings '
        "of |log(median standard error / that of the bootstrap)|; `times opg`: seconds of a fit "
        'by `rank="auto"` beside those of the OPG, in the median of these settings, and at most in '
        "any that was timed."
    )


def tables(rows: Rows) -> list[Table]:
    """Tables of the page."""
    ranks = [r for r in rows if "auto off" in r]
    compared = [r for r in rows if "default seconds" not in r]
    costs = [r for r in rows if "default seconds" in r]
    columns = ("curvature", "answers", "off", "nearer than opg", "times opg", "at most", "timed",
               "eligible", "mean R2")  # fmt: skip
    each_cost = ("setting", "curvature", "P", "classes", "default seconds")
    each = ("setting", "curvature", "to bootstrap", "R2 to bootstrap", "Spearman", "to hessian")
    return [
        Table("All settings together", judged(rows), columns, verdict(rows)),
        Table(
            "Each setting",
            compared,
            (*each, "Spearman to hessian", "seconds"),
            "`to bootstrap`, `to hessian`: ratio of the median standard errors.",
        ),
        Table("Cost of a default", costs, each_cost),
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
    settings = sorted(_settings(rows), key=[r["setting"] for r in rows].index)
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
