"""Calibration of averaged probabilities.

**Question.** Are probabilities that are averaged over the uncertain logits better than the plain
ones, and how do they compare with temperature scaling, an ensemble and dropout?

**Set-up.** The networks of the comparison of scores that have five hundred inputs or more to
test, and the same ones trained by Adam with little L2 (lambda = 1e-5, 60 epochs), as people leave
them. Half of the test inputs fit the temperature and the conformal sets; the other half is
measured: negative log-likelihood, Brier score, expected calibration error of the top label (15
bins of equal width, as in Guo et al. 2017, so that figures compare with published ones).
Averages: by probit, and by 250 pairs of draws of the logits, from the OPG and the GGN (of networks
of 3,000 weights at most).

**Rule, written down before the run.** The documentation may say that averaging improves
calibration where the negative log-likelihood falls by more than the paired 95 % interval on more
than half of the networks, and rises by more on none.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from deltauq.evaluation.metrics import reliability
from deltauq.evaluation.proper_scores import brier_score, log_loss
from deltauq.evaluation.resampling import bootstrapped
from evidence.baselines import conformal_sets, mc_dropout, members, temperature
from evidence.fits import delta, named, recipes, with_dropout
from evidence.frame import Parts, Rows, Table, plotted
from evidence.training import Recipe
from evidence.which_score import MOST_FOR_GGN, PAIRS, RESAMPLES

Array = np.ndarray[Any, Any]

TITLE = "Calibration of averaged probabilities"
BINS, LEVEL = 15, 0.9


def parts(size: str) -> Parts:
    """Every network of a size, and what gives its rows."""
    chosen = [r for r in recipes(size) if size == "tiny" or len(r.task.y_test) >= 350]
    as_left = [replace(r, l2=1e-5, epochs=60) for r in chosen if not r.epochs and size != "tiny"]
    return {
        f"{named(recipe)}, lambda = {recipe.l2:g}": partial(_network, recipe, size)
        for recipe in [*chosen, *as_left]
    }


def _network(recipe: Recipe, size: str) -> Rows:
    y, first = recipe.task.y_test, delta(recipe, "opg").predictions["test"]
    held_out = np.arange(len(y)) % 2 == 0
    half = ~held_out
    scale = temperature(first.logits[held_out], y[held_out])
    ensemble = members(recipe, "ensemble", 2 if size == "tiny" else 5)["test"]
    network = with_dropout(recipe, size)
    small = sum(map(np.size, network.get_weights())) <= MOST_FOR_GGN
    found = {
        "plain": first.probabilities,
        "temperature": scipy.special.softmax(first.logits / scale, axis=1),
    }
    for curvature in ("opg", "ggn") if small else ("opg",):
        prediction = delta(recipe, curvature).predictions["test"]
        for method in ("probit", "monte_carlo"):
            average = prediction.predictive(method, samples=PAIRS)
            found[f"{method.replace('_', ' ')} ({curvature})"] = average.probabilities
    found["ensemble"] = ensemble.probabilities
    found["dropout"] = mc_dropout(network, recipe.task.x_test).probabilities
    rows: Rows = []
    for name, p in found.items():
        rows.append({"network": named(recipe), "l2": recipe.l2, "probabilities": name})
        rows[-1] |= _figures(p[half], found["plain"][half], y[half], RESAMPLES[size])
        sets = conformal_sets(p[held_out], y[held_out], p[half], LEVEL)
        rows[-1]["set coverage"] = float(np.mean(sets[np.arange(half.sum()), y[half]]))
        rows[-1]["set size"] = float(np.mean(sets.sum(axis=1)))
    return rows


def _figures(p: Array, plain: Array, y: Array, n: int) -> dict[str, Any]:
    # Probabilities below 1e-12 are the rounding of a softmax.
    p, plain = np.maximum(p, 1e-12), np.maximum(plain, 1e-12)
    nll = bootstrapped(log_loss, p, y, n_resamples=n)
    gap = bootstrapped(
        lambda a, b, truth: log_loss(a, truth) - log_loss(b, truth), p, plain, y, n_resamples=n
    )
    top = p.argmax(axis=1)
    brier = brier_score(p, y)
    return {
        "NLL": nll.value,
        "NLL low": nll.low,
        "NLL high": nll.high,
        "NLL - plain": gap.value,
        "low": gap.low,
        "high": gap.high,
        "Brier": brier.value,
        "Brier reliability": brier.reliability,
        "ECE": reliability(p.max(axis=1), top == y, BINS).error,
        "errors": float(np.mean(top != y)),
    }


class Counted(NamedTuple):
    """On how many of n networks the negative log-likelihood falls or rises beyond its interval."""

    better: int
    worse: int
    n: int


def judged(rows: Rows) -> dict[str, Counted]:
    """What the rule looks at, by the kind of probabilities."""
    found = {}
    for name in dict.fromkeys(r["probabilities"] for r in rows):
        of = [r for r in rows if r["probabilities"] == name]
        better, worse = sum(r["high"] < 0 for r in of), sum(r["low"] > 0 for r in of)
        found[name] = Counted(better, worse, len(of))
    return found


def verdict(rows: Rows) -> str:
    """What the rule says of each kind of average."""
    lines = []
    for name, of in judged(rows).items():
        if name == "plain":
            continue
        ok = 2 * of.better > of.n and not of.worse
        lines.append(
            f"- {name}: the negative log-likelihood falls on {of.better} of {of.n} networks and "
            f"rises on {of.worse}: {'may' if ok else 'may not'} be said to improve calibration."
        )
    return "\n".join(lines)


def tables(rows: Rows) -> list[Table]:
    """Tables of the page."""
    columns = ("network", "l2", "probabilities", "NLL", "NLL - plain", "low", "high")
    more = ("Brier", "Brier reliability", "ECE", "errors", "set coverage", "set size")
    note = (
        f"By more than the paired 95 % interval:\n\n{verdict(rows)}\n\nSets are split conformal, "
        "for 90 %."
    )
    return [Table("All networks", rows, columns + more, note)]


def plot(rows: Rows, figure: Any) -> None:
    """NLL and ECE less those of the plain probabilities."""
    names = list(dict.fromkeys(f"{r['network'].split(',')[0]}), {r['l2']:g}" for r in rows))
    for axes, what in plotted(figure, ("NLL", "ECE")):
        for kind in ("temperature", "probit (opg)", "probit (ggn)", "ensemble", "dropout"):
            points = []
            for r in rows:
                if r["probabilities"] == "plain":
                    plain = r[what]
                if r["probabilities"] == kind:
                    place = names.index(f"{r['network'].split(',')[0]}), {r['l2']:g}")
                    points.append((r[what] - plain, place))
            if points:
                axes.plot(*zip(*points, strict=True), "o", label=kind, markersize=4)
        axes.axvline(0, color="black", linewidth=0.5)
        axes.set_xlabel(f"{what} less that of the plain probabilities")
    figure.axes[0].set_yticks(range(len(names)), names, fontsize=6)
    figure.axes[0].legend(fontsize=6)
