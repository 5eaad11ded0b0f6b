"""Weights as people leave them.

**Question.** The Delta method asks for weights at a minimum of the cost. How far from one are
networks as people train them, what are their standard errors worth there, and what do polishing
and `l2="tune"` change?

**Set-up.** Digits, one hidden layer, trained in seven ways: to a minimum by L-BFGS; by Adam, at a
rate that falls to zero, with L2 and without; with ReLU, batch normalisation or dropout; and stopped
early, at a constant rate, by the loss of a fifth of the rows. Each network is fitted as it was
left; with `l2="tune"`; and polished by `diagnose(polish=True)`, with the L2 of its training, or
with the tuned one where it has none. The reference is the standard deviation over networks that
were trained in the same way, from other initial weights, on inputs and labels that were drawn
together; for the first polished network of a way beside it one over networks at a minimum of the
same cost (batch normalisation has none: its moving statistics come from training by batches).

`gradient`: norm of the cost's gradient relative to that of the larger of its parts. `shift`: the
median, over training inputs, of how far a Newton step to the minimum would move their predictions,
in standard errors. `moved`: how far polishing did move the probabilities of test inputs, in the
standard errors of the weights as they were left; the median. `caveat`: whether the fit says that
the weights are far from a minimum.

**Rule, written down before the run.** The caveat is given where `gradient` lies above 0.02 and
`shift` above one standard error (`MINIMUM` and `Stationarity.is_far` in `deltauq.curvature.cost`).
A fit to weights that were not polished is *spoilt* where Spearman's correlation with the bootstrap
lies more than 0.1 below the mean of that of the same curvature at a minimum, or |log(ratio)| more
than log 2 above it. The threshold of one standard error becomes the one of 0.25, 0.5, 1, 2 and 4
that calls the fewest fits wrongly (a caveat where nothing is spoilt, or none where it is), if these
are at most three quarters of the wrong calls of one, with the OPG and the GGN each. Networks that
were trained in one way are alike: nothing is decided from fewer than ten spoilt fits of three ways,
and ten others of three ways, with each curvature, which the small sizes cannot have.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from deltauq import DeltaMethod, Prediction, diagnose
from deltauq.curvature.cost import MINIMUM
from deltauq.errors import DeltaUQError
from deltauq.evaluation.metrics import agreement, line
from evidence.baselines import members
from evidence.frame import Parts, Rows, Table, plotted, ratios_along
from evidence.training import Recipe

Array = np.ndarray[Any, Any]

TITLE = "Weights as people leave them"
KINDS = ("opg", "ggn")
LEFT, TUNED, POLISHED = "as left", "l2='tune'", "polished"
MINIMISED = "at a minimum"

_BASE = Recipe("digits", n_train=600, n_test=300, hidden=(8,))
_ADAM = replace(_BASE, epochs=120)
WAYS: dict[str, Recipe] = {
    MINIMISED: _BASE,
    "Adam": _ADAM,
    "Adam, no L2": replace(_ADAM, l2=0.0),
    "Adam, stopped early, no L2": replace(_ADAM, l2=0.0, epochs=40, patience=3),
    "Adam, ReLU, no L2": replace(_ADAM, l2=0.0, activation="relu"),
    "Adam, batch normalisation, no L2": replace(_ADAM, l2=0.0, batch_norm=True),
    "Adam, dropout, no L2": replace(_ADAM, l2=0.0, dropout=0.3),
}
MEMBERS = {"tiny": 2, "small": 6, "full": 50}
NETWORKS = {"tiny": 1, "small": 1, "full": 5}

#: Seed of the first network; members of bootstraps have smaller ones.
_FIRST_SEED = 1000

THRESHOLDS = (0.25, 0.5, 1.0, 2.0, 4.0)
_WORSE_CORRELATION, _WORSE_RATIO = 0.1, float(np.log(2))
_LEAST_FITS, _LEAST_WAYS, _BETTER = 10, 3, 0.75


def parts(size: str) -> Parts:
    """Every way of training, and what gives its rows."""
    ways = WAYS
    if size == "tiny":
        iris = Recipe("iris", hidden=(3,), l2=1e-2)
        ways = {MINIMISED: iris, "Adam, no L2": replace(iris, l2=0.0, epochs=1)}
    if size == "full":
        more = {"n_train": 1000, "n_test": 700, "hidden": (32,)}
        ways = {way: replace(recipe, **more) for way, recipe in WAYS.items()}
    return {way: partial(_way, way, recipe, size) for way, recipe in ways.items()}


def _way(way: str, recipe: Recipe, size: str) -> Rows:
    """Rows of the networks that were trained in a way, in every state and by every curvature."""
    n = MEMBERS[size]
    bootstrap = members(recipe, "bootstrap", n)["test"].std
    rows: Rows = []
    for network in range(NETWORKS[size]):
        model = recipe.train(_FIRST_SEED + network)
        for kind in KINDS:
            for state, found in _states(model, recipe, kind).items():
                row = {"way": way, "network": network, "curvature": kind, "state": state}
                if isinstance(found, DeltaUQError):
                    rows.append(row | {"refused": str(found).split(". Expected")[0]})
                    continue
                row |= found.facts | _beside(bootstrap, found.prediction.std)
                if state == POLISHED and not (network or recipe.batch_norm):
                    minimised = replace(recipe, epochs=0, dropout=0.0, l2=found.facts["l2"])
                    minima = members(minimised, "bootstrap", n)["test"].std
                    beside = _beside(minima, found.prediction.std)
                    row |= {f"{name} to minima": value for name, value in beside.items()}
                rows.append(row)
    return rows


class _Fit(NamedTuple):
    """What a fit says of the test inputs, and what it says of itself."""

    prediction: Prediction
    facts: dict[str, Any]


def _states(model: Any, recipe: Recipe, kind: str) -> dict[str, _Fit | DeltaUQError]:
    """Fits to a network as it was left, with a tuned L2, and polished; the network is as before."""
    found: dict[str, _Fit | DeltaUQError] = {}
    for state, l2 in ((LEFT, "auto"), (TUNED, "tune")):
        try:
            found[state] = _fit(model, recipe, kind, l2)
        except DeltaUQError as error:
            found[state] = error
    before = next(each for each in found.values() if isinstance(each, _Fit))
    rate, weights = before.facts["l2"], model.get_weights()
    x, y = recipe.task.x[: recipe.n_rows], recipe.task.y[: recipe.n_rows]
    examined = diagnose(model, x, y, polish=True, l2=rate)
    examined.apply_polished()
    after = _fit(model, recipe, kind, rate)
    model.set_weights(weights)
    moved = np.abs(after.prediction.probabilities - before.prediction.probabilities)
    also = {"moved": float(np.median(moved / before.prediction.std))}
    also["end"] = examined.polished.verdict
    return found | {POLISHED: _Fit(after.prediction, after.facts | also)}


def _fit(model: Any, recipe: Recipe, kind: str, l2: Any) -> _Fit:
    data = recipe.task
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dm = DeltaMethod(model, kind, l2=l2, progress=False)
        dm.fit(data.x[: recipe.n_rows], data.y[: recipe.n_rows])
        prediction = dm.predict(data.x_test)
    (rate,) = set(dm.l2_rates.values())
    where = dm.stationarity
    facts = {
        "l2": rate,
        "gradient": float(where.ratio),
        "shift": float(where.shift if where.least_shift is None else where.least_shift),
        "caveat": any(each.subject == "minimum" for each in dm.caveats),
    }
    return _Fit(prediction, facts)


def _beside(reference: Array, std: Array) -> dict[str, float]:
    found = agreement(reference, std)
    fit = line(reference, std).r_squared
    return {"ratio": found.median_ratio, "R2": fit, "Spearman": found.spearman}


def _spoilt(rows: Rows, kind: str) -> list[tuple[dict[str, Any], bool]]:
    """Fits of a curvature to weights that were not polished, and whether they are spoilt."""
    fits = [r for r in rows if r["curvature"] == kind and r["state"] != POLISHED and "ratio" in r]
    at = [r for r in fits if r["way"] == MINIMISED and r["state"] == LEFT]
    correlation = np.mean([r["Spearman"] for r in at]) - _WORSE_CORRELATION
    off = np.mean([abs(np.log(r["ratio"])) for r in at]) + _WORSE_RATIO
    return [(r, bool(r["Spearman"] < correlation or abs(np.log(r["ratio"])) > off)) for r in fits]


def judged(rows: Rows) -> Rows:
    """One row a curvature: spoilt fits, and how many every threshold calls wrongly."""
    found: Rows = []
    for kind in KINDS:
        fits = _spoilt(rows, kind)
        row: dict[str, Any] = {"curvature": kind}
        for name, wanted in (("spoilt", True), ("others", False)):
            of = [r["way"] for r, spoilt in fits if spoilt == wanted]
            row |= {name: len(of), f"ways of {name}": len(set(of))}
        for threshold in THRESHOLDS:
            row[f"wrong by {threshold:g}"] = sum(
                spoilt != (r["gradient"] > MINIMUM and r["shift"] > threshold) for r, spoilt in fits
            )
        found.append(row)
    return found


def verdict(rows: Rows) -> str:
    """What the rule says."""
    table = judged(rows)
    if any(
        row[name] < _LEAST_FITS or row[f"ways of {name}"] < _LEAST_WAYS
        for row in table
        for name in ("spoilt", "others")
    ):
        return (
            "By the rule nothing is decided: there are too few fits of a kind, or too few ways of "
            "training that they come from. The threshold stays at one standard error."
        )
    wrong = {t: [row[f"wrong by {t:g}"] for row in table] for t in THRESHOLDS}
    best = min(THRESHOLDS, key=lambda t: (sum(wrong[t]), t != 1.0))
    better = all(a <= _BETTER * b for a, b in zip(wrong[best], wrong[1.0], strict=True))
    what = f"becomes {best:g}" if best != 1.0 and better else "stays at one"
    return f"By the rule the threshold of the caveat, in standard errors, {what}."


def tables(rows: Rows) -> list[Table]:
    """Tables of the page."""
    counts = ("curvature", "spoilt", "ways of spoilt", "others", "ways of others")
    columns = ("way", "network", "curvature", "state", "l2", "gradient", "shift", "moved", "caveat")
    beside = ("ratio", "R2", "Spearman", "ratio to minima", "Spearman to minima", "end", "refused")
    return [
        Table(
            "The threshold of the caveat",
            judged(rows),
            (*counts, *(f"wrong by {threshold:g}" for threshold in THRESHOLDS)),
            verdict(rows),
        ),
        Table(
            "Ways of training",
            [r | {"caveat": "yes" if r["caveat"] else "no"} if "caveat" in r else r for r in rows],
            columns + beside,
            "`ratio` of the medians, `R2` and `Spearman` are of the standard errors and those of "
            "the bootstrap; `end`: how polishing ended.",
        ),
    ]


def plot(rows: Rows, figure: Any) -> None:
    """Ratio and rank correlation with the bootstrap, by way of training and state."""
    ways = list(dict.fromkeys(r["way"] for r in rows))
    for axes, what in plotted(figure, ("ratio", "Spearman")):
        for state, colour in zip((LEFT, TUNED, POLISHED), ("C0", "C1", "C2"), strict=True):
            for kind, marker in zip(KINDS, "ox", strict=True):
                of = [r for r in rows if (r["curvature"], r["state"]) == (kind, state)]
                of = [r for r in of if what in r]
                places = [ways.index(r["way"]) for r in of]
                label = f"{state}, {kind}"
                axes.plot([r[what] for r in of], places, marker, color=colour, label=label)
        axes.axvline(1, color="black", linewidth=0.5)
        axes.set_xlabel(f"{what} to the bootstrap")
    ratios, correlations = figure.axes
    ratios_along(ratios)
    ratios.set_yticks(range(len(ways)), ways, fontsize=6)
    correlations.legend(fontsize=6, loc="right")  # nothing correlates as well as that
