"""Which curvature, which route, which L2, which score.

One question a row: what to take, what was seen of it, and where. The figures are those of the pages
that the rows link to, and change with them; the advice was written by hand, and a test holds it
against the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from evidence import calibration_of_averages, cross_checks, curvatures, which_score
from evidence.frame import Rows

TITLE = "Which curvature, which route, which L2, which score?"

#: Rows of every experiment that the page rests on, by its name.
Figures = Mapping[str, Rows]


class Advice(NamedTuple):
    """A row of the page.

    Attributes:
        question: what a user asks.
        take: what to take.
        seen: gives what was seen of it in the figures.
        of: where that stands.
    """

    question: str
    take: str
    seen: Callable[[Figures], str]
    of: str


def _between(values: Iterable[float], digits: str = ".2g") -> str:
    """The least and the largest of some values."""
    known = list(values)
    low, high = format(min(known), digits), format(max(known), digits)
    return low if low == high else f"{low} to {high}"


def _to_hessian(found: Figures, kind: str) -> str:
    rows = [r for r in found["curvatures"] if r["curvature"] == kind and "to hessian" in r]
    times = _between((r["to hessian"] for r in rows), ".3g")
    least = min(r["Spearman to hessian"] for r in rows)
    return (
        f"standard errors are {times} times those of the exact Hessian in {len(rows)} settings, in "
        f"the same order (Spearman {least:.3f} at least)"
    )


def _cost(found: Figures, kind: str) -> str:
    (row,) = (r for r in curvatures.judged(found["curvatures"]) if r["curvature"] == kind)
    return (
        f"takes {row['times opg']:.2g} times as long as the OPG in the median, and "
        f"{row['at most']:.2g} times at most"
    )


def _to_bootstrap(found: Figures, kind: str) -> str:
    rows = [r for r in found["curvatures"] if r["curvature"] == kind and "to bootstrap" in r]
    times = _between(r["to bootstrap"] for r in rows)
    return f"standard errors are {times} times those of a bootstrap in {len(rows)} settings"


def _misspecified(found: Figures) -> str:
    of = {
        kind: [
            r["coverage"]
            for r in found["coverage"]
            if r["table"] == "coverage"
            and r["setting"] == "linear, far from the centre"
            and r["intervals"] == kind
            and r["level"] == 0.95
        ]
        for kind in ("hessian", "sandwich")
    }
    return (
        "where the model cannot be true, 95 % intervals of the Hessian hold the best one in "
        f"{_percent(of['hessian'])} of the cases, those of the Sandwich in "
        f"{_percent(of['sandwich'])}"
    )


def _percent(shares: Iterable[float]) -> str:
    return f"{_between([100 * share for share in shares], '.0f')} %"


def _coverage(found: Figures) -> str:
    rows = [r for r in found["coverage"] if r["table"] == "coverage" and r["level"] == 0.95]
    rows = [r for r in rows if r["N"] >= 1000 and r["intervals"] in ("hessian", "ggn")]
    linear = [r["coverage"] for r in rows if r["setting"] == "linear"]
    network = [r["coverage"] for r in rows if r["setting"] == "network"]
    return (
        f"95 % intervals hold the truth in {_percent(linear)} of the cases without hidden layers, "
        f"in {_percent(network)} of those of a small network (N of 1,000 and more)"
    )


def _against_bootstrap(found: Figures) -> str:
    rows = found["delta_bootstrap"]
    return (
        f"Spearman {_between((r['Spearman'] for r in rows), '.2f')}, R^2 "
        f"{_between((r['R2'] for r in rows), '.2f')}, ratio of the medians "
        f"{_between(r['median ratio'] for r in rows)}, "
        f"{_between((r['times faster'] for r in rows), '.0f')} times as fast"
    )


def _as_left(found: Figures, state: str) -> str:
    rows = [r for r in found["as_trained"] if r["way"] != "at a minimum" and "ratio" in r]
    rows = [r for r in rows if r["state"] == state]
    return (
        f"Spearman {_between((r['Spearman'] for r in rows), '.2f')} with a bootstrap trained the "
        f"same way, {_between(r['ratio'] for r in rows)} times as large"
    )


def _polished(found: Figures) -> str:
    rows = [r for r in found["as_trained"] if "moved" in r and r["way"] != "at a minimum"]
    moved = _between(r["moved"] for r in rows)
    return (
        f"polishing moved probabilities by {moved} standard errors in the median; after it: "
        f"{_as_left(found, 'polished')}"
    )


def _auroc(found: Figures, table: str, score: str) -> float:
    (row,) = (r for r in which_score.judged(found["which_score"]) if r["score"] == score)
    return float(row[table])


def _scores(found: Figures, table: str, *scores: str) -> str:
    tasks = len({r["task"] for r in found["which_score"] if r["table"] == table})
    known = ", ".join(f"{score} {_auroc(found, table, score):.3f}" for score in scores)
    return f"mean AUROC over {tasks} tasks: {known}"


def _averages(found: Figures) -> str:
    counted = calibration_of_averages.judged(found["calibration_of_averages"])
    lines = []
    for name in ("probit (opg)", "probit (ggn)", "temperature", "ensemble"):
        better, worse, n = counted[name]
        lines.append(f"{name} better on {better} and worse on {worse} of {n}")
    return f"negative log-likelihood beside that of the plain ones: {', '.join(lines)}"


def _checked(found: Figures) -> str:
    rows = cross_checks.judged(found["cross_checks"])
    peers = ", ".join(row["peer"].rsplit(" ", 1)[0] for row in rows)
    apart = max(row["largest difference"] for row in rows)
    count = sum(row["comparisons"] for row in rows)
    return f"{count} comparisons with {peers}: at most {apart:.1g} apart"


ROOT, AVERAGED, PLAIN = "root of the trace (opg)", "1 - max averaged p (opg)", "1 - max p"
DIFFERENCE, OF_ENSEMBLE = "std of the difference (opg)", "mutual information (ensemble)"

ADVICE = (
    Advice(
        "Which curvature, to report standard errors?",
        '`"ggn"`, the default',
        lambda found: f"{_to_hessian(found, 'ggn')}; {_cost(found, 'ggn')}",
        "curvatures.md#each-setting",
    ),
    Advice(
        "For a first look at a large network?",
        '`"opg"`; its errors are larger, their order is the same',
        lambda found: _to_hessian(found, "opg"),
        "curvatures.md#each-setting",
    ),
    Advice(
        "Where the model need not be true, or to come nearest to a bootstrap?",
        '`"sandwich"`',
        lambda found: f"{_to_bootstrap(found, 'sandwich')}; {_misspecified(found)}",
        "coverage.md#coverage",
    ),
    Advice(
        "Do the intervals hold the truth?",
        "those of Hessian and GGN alike: without hidden layers as often as they say, else less",
        _coverage,
        "coverage.md#coverage",
    ),
    Advice(
        "Which L2 rate, if the model has none?",
        '`l2="tune"`, and read the ranking rather than the size',
        lambda found: _as_left(found, "l2='tune'"),
        "as_trained.md#ways-of-training",
    ),
    Advice(
        "The weights are not at a minimum?",
        "`diagnose(polish=True)` where `fit` warns",
        _polished,
        "as_trained.md#ways-of-training",
    ),
    Advice(
        "Which score, to find errors?",
        "`least_confidence`, which needs no curvature; `score` adds nothing to it",
        lambda found: _scores(found, "errors", PLAIN, ROOT, AVERAGED),
        "which_score.md#all-tasks-together",
    ),
    Advice(
        "Which score, to find inputs of another kind?",
        "`difference_test().std`, which says nothing of errors",
        lambda found: _scores(found, "strange", PLAIN, ROOT, AVERAGED, OF_ENSEMBLE, DIFFERENCE),
        "which_score.md#strange-inputs",
    ),
    Advice(
        "Averaged probabilities, for calibration?",
        "none: a temperature, which does no harm, or an ensemble",
        _averages,
        "calibration_of_averages.md#all-networks",
    ),
    Advice(
        "The Delta method, or a bootstrap?",
        "the Delta method for the order of standard errors and for their size to a factor of a few",
        _against_bootstrap,
        "delta_bootstrap.md#agreement-and-time",
    ),
    Advice(
        "Does anybody else find the same numbers?",
        "yes, on the same weights",
        _checked,
        "cross_checks.md#all-together",
    ),
)

_TEXT = """# {title}

One recommendation a row, what was seen of it, and the table that it comes from. Three settings are
left as they are: with `route="auto"` and `rank="auto"` a fit leaves nothing out where that is
affordable ([which route, and why](../howto/rank.md#which-route-and-why)), and says elsewhere how
far its standard errors are known, which was [measured](../theory.md#the-calibrated-tail);
`l2="auto"` reads the rates that the model was trained with.

| question | take | seen | table |
| --- | --- | --- | --- |
"""


def page(found: Figures) -> str:
    """The text of the page, for the figures of all experiments."""
    lines = (
        f"| {row.question} | {row.take} | {row.seen(found)} | [{row.of.split('.')[0]}]({row.of}) |"
        for row in ADVICE
    )
    return _TEXT.format(title=TITLE) + "\n".join(lines) + "\n"
