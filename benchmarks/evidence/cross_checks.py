"""Cross-checks with other packages.

**Question.** Do other packages say the same of the same weights, data and prior?

**Set-up.** Four networks in float64, each at a minimum of its cost with lambda = 0.01 on every
weight: a softmax without hidden layer (iris), a layer of eight tanh units (wine), two convolutions
(digits) and a regression of two numbers (iris, noise of variance 0.1). Their weights are carried
over to torch and JAX, where the prior precision is N lambda (N lambda C / (2 s) of the regression,
whose loss is a mean square). laplace-torch, whose matrices are those of curvlinops, and laplax take
the full matrix. Data come in batches of 64, the last one smaller, where a package takes batches.
statsmodels fits six models itself, two of them with weights of the rows, and networks without
hidden layer get its weights, without L2 (1e-9 in the softmax, whose weights are compared as
differences to class 0).

Outputs are logits or means of twenty inputs that were not trained on. A difference of covariances
is told in units of the two standard errors, one of probabilities as it is, one of standard errors
in units of each, any other in units of the largest number.

**Rule, written down before the run.** Every difference is at most 1e-4. A larger one is shown as it
is, and its cause is found and written below; no limit is moved.

Where a package has another definition, ours is brought to it before the comparison, which is these
cases: the Hessian keeps its negative eigenvalues (`negative_curvature="keep"`), which we project by
default; the square of laplax is without 1 / (2 s); curvlinops' empirical Fisher of a mean square
over N inputs and C outputs divides by N C. Two things are not compared: the empirical Fisher of
laplace-torch 0.3 in a regression is 2 s times the sum of the scores' outer products, s the variance
of the noise, and its last-layer form takes no network of one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from evidence import peers, regressions
from evidence.carried import CARRIED
from evidence.checks import Check
from evidence.frame import Parts, Rows, Table, plotted

TITLE = "Cross-checks with other packages"

#: What a difference may be at most.
LIMIT = 1e-4

#: Where a difference of zero stands in the plot.
_ZERO = 1e-17

#: Distributions of the peers: what compares with them, and the models that they are given.
PEERS: dict[str, tuple[Callable[[Any], Iterator[Check]], Mapping[str, Callable[[], Any]]]] = {
    "laplace-torch": (peers.laplace_torch, CARRIED),
    "laplax": (peers.laplax, CARRIED),
    "curvlinops-for-pytorch": (peers.curvlinops, CARRIED),
    "statsmodels": (regressions.statsmodels, regressions.REGRESSIONS),
}


def installed(peer: str) -> str | None:
    """The version of a distribution, None where it is not installed."""
    try:
        return version(peer)
    except PackageNotFoundError:
        return None


def parts(size: str) -> Parts:
    """Every model of every peer, of the tests the first one, and what gives its rows.

    A part's name has the peer's version, so that another one is not taken for known.
    """
    found: Parts = {}
    for peer, (compare, models) in PEERS.items():
        known = installed(peer)
        for name in list(models)[: 1 if size == "tiny" else None]:
            part = f"{peer} {known or '(not installed)'}, {name}"
            found[part] = partial(_model, peer, known, name, compare, models[name])
    return found


def _model(
    peer: str,
    known: str | None,
    name: str,
    compare: Callable[[Any], Iterator[Check]],
    make: Callable[[], Any],
) -> Rows:
    row = {"peer": f"{peer} {known}" if known else peer, "model": name}
    if known is None:
        return [row | {"quantity": "not installed", "missing": peer}]
    return [row | told(check) for check in compare(make())]


def told(check: Check) -> dict[str, Any]:
    """A check as a row has it."""
    apart = check.apart
    return {
        "quantity": check.quantity,
        "largest difference": apart,
        "limit": LIMIT,
        "met": bool(apart <= LIMIT),
    }


def judged(rows: Rows) -> Rows:
    """One row a peer."""
    found: Rows = []
    for peer in dict.fromkeys(r["peer"] for r in rows):
        checks = [r for r in rows if r["peer"] == peer and "met" in r]
        row: dict[str, Any] = {"peer": peer, "comparisons": len(checks)}
        if checks:
            row["largest difference"] = max(r["largest difference"] for r in checks)
            row["limit"] = LIMIT
            row["met"] = all(r["met"] for r in checks)
        found.append(row)
    return found


def tables(rows: Rows) -> list[Table]:
    """Tables of the page."""
    columns = ("largest difference", "limit", "met")
    return [
        Table("All together", judged(rows), ("peer", "comparisons", *columns)),
        Table(
            "Each comparison",
            rows,
            ("peer", "model", "quantity", *columns),
            "`weights`, `outputs`: covariances. `evidence`: the log marginal likelihood. "
            "`products`: with random vectors.",
        ),
    ]


def plot(rows: Rows, figure: Any) -> None:
    """Differences by model, a peer beside the other."""
    compared = [r for r in rows if "met" in r]
    models = list(dict.fromkeys(r["model"] for r in compared))
    for axes, peer in plotted(figure, list(dict.fromkeys(r["peer"] for r in compared))):
        of = [r for r in compared if r["peer"] == peer]
        apart = [max(r["largest difference"], _ZERO) for r in of]
        axes.plot(apart, [models.index(r["model"]) for r in of], "o", markersize=3)
        axes.axvline(LIMIT, color="black", linewidth=0.5)
        axes.set_xscale("log")
        axes.set_xlim(_ZERO / 3, 1)
        axes.set_title(peer, fontsize=8)
        axes.set_xlabel("largest difference")
    figure.axes[0].set_yticks(range(len(models)), models, fontsize=5)
