"""What all experiments share: rows, tables, pages, plots, and how they are run."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import joblib

Rows = list[dict[str, Any]]

#: Parts of an experiment by name, and what gives their rows.
Parts = dict[str, Callable[[], Rows]]

#: Processes that run parts of an experiment side by side.
JOBS = int(os.environ.get("DELTAUQ_EVIDENCE_JOBS", "1"))

#: Where parts of experiments and predictions of members are kept.
CACHE = Path(os.environ.get("DELTAUQ_EVIDENCE_CACHE", Path(__file__).parent / "cache"))

DOCS = Path(__file__).parents[2] / "docs" / "evidence"

#: The experiments in the order of their pages.
EXPERIMENTS: tuple[str, ...] = (
    "coverage",
    "curvatures",
    "as_trained",
    "which_score",
    "delta_bootstrap",
    "calibration_of_averages",
    "cross_checks",
)

_RUN = {
    "small": "`make evidence`, the small sizes",
    "full": "`make evidence-full`, the sizes of publication",
    "tiny": "the sizes of the tests, which say nothing",
}


#: Ratios that are named on an axis.
_RATIOS = (0.1, 0.2, 0.5, 1, 2, 5, 10)


class Table(NamedTuple):
    """A table of a page: a title, rows, the columns that are shown, and a sentence below."""

    title: str
    rows: Rows
    columns: Sequence[str]
    note: str = ""


def experiment(name: str) -> ModuleType:
    """The module of an experiment."""
    return importlib.import_module(f"evidence.{name}")


def conduct(name: str, size: str) -> dict[str, Any]:
    """Run an experiment; what is published of it.

    Its parts are kept once they are done, for a run that goes on where it was stopped, until a line
    of the library or of the experiments changes.
    """
    rows, seconds = [], 0.0
    parts = experiment(name).parts(size)
    run = joblib.Parallel(n_jobs=JOBS, batch_size=1, return_as="generator")
    done = run(joblib.delayed(_kept)(name, size, *part) for part in parts.items())
    for part, kept in zip(parts, done, strict=True):
        rows += kept["rows"]
        seconds += kept["seconds"]
        print(f"  {part}: {kept['seconds']:.0f} s", flush=True)
    return {"size": size, "seconds": round(seconds), "rows": rows}


def _kept(name: str, size: str, part: str, compute: Callable[[], Rows]) -> dict[str, Any]:
    """The rows of a part, and processor's seconds that they took; from its file if it was run."""
    made_of = json.dumps([name, size, part, _sources()])
    path = CACHE / f"{hashlib.sha256(made_of.encode()).hexdigest()[:32]}.json"
    if not path.exists():
        started = time.process_time()
        found: dict[str, Any] = {"rows": compute()}
        found["seconds"] = time.process_time() - started
        written(path, json.dumps(found).encode())
    return json.loads(path.read_text())


@cache
def _sources() -> str:
    """SHA-256 of the library and the experiments."""
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for folder in ("deltauq", "benchmarks/evidence"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def written(path: Path, content: bytes) -> None:
    """Write a file of the cache, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_bytes(content)
    os.replace(beside, path)


def missing(found: dict[str, Any]) -> list[str]:
    """What some parts of an experiment needed and did not find."""
    return list(dict.fromkeys(row["missing"] for row in found["rows"] if "missing" in row))


def figures() -> dict[str, Rows]:
    """The rows of every experiment, as they were published."""
    known = {name: DOCS / f"{name}.json" for name in EXPERIMENTS}
    return {name: json.loads(path.read_text())["rows"] for name, path in known.items()}


def publish(name: str, found: dict[str, Any]) -> None:
    """Write an experiment's figures, its page and its plot."""
    rows = [{key: _rounded(value) for key, value in row.items()} for row in found["rows"]]
    found = found | {"rows": rows}
    DOCS.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in rows)
    head = json.dumps({key: found[key] for key in ("size", "seconds")})[:-1]
    (DOCS / f"{name}.json").write_text(f'{head}, "rows": [\n{lines}\n]}}\n')
    (DOCS / f"{name}.md").write_text(page(name, found))
    _draw(name, rows)


def page(name: str, found: dict[str, Any]) -> str:
    """The text of an experiment's page for what its JSON holds."""
    module = experiment(name)
    docstring = str(module.__doc__).split("\n", 1)[1].strip()
    text = f"# {module.TITLE}\n\n{docstring}\n\n"
    text += (
        f"What follows is of {_RUN[found['size']]}, {found['seconds']:,} seconds of a processor.\n"
    )
    text += f"\n![{module.TITLE}]({name}.svg)\n"
    for table in module.tables(found["rows"]):
        if table.rows:
            text += f"\n## {table.title}\n\n" + (f"{table.note}\n\n" if table.note else "")
            text += _markdown(table) + "\n"
    return text


def _markdown(table: Table) -> str:
    lines = [" | ".join(table.columns), " | ".join("---" for _ in table.columns)]
    lines += [" | ".join(_word(row.get(c)) for c in table.columns) for row in table.rows]
    return "\n".join(f"| {line} |" for line in lines)


def _word(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _rounded(value: Any) -> Any:
    """Five digits are more than any figure here has."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def plotted(figure: Any, names: Sequence[str]) -> Iterator[tuple[Any, str]]:
    """Axes side by side, one for each name."""
    axes = figure.subplots(1, max(1, len(names)), sharey=True, squeeze=False)[0]
    yield from zip(axes, names, strict=False)


def ratios_along(axes: Any) -> None:
    """Ratios on a logarithmic horizontal axis, named by plain numbers."""
    axes.set_xscale("log")
    shown = axes.get_xlim()
    axes.set_xticks(_RATIOS, [f"{ratio:g}" for ratio in _RATIOS])
    axes.minorticks_off()
    axes.set_xlim(shown)


def _draw(name: str, rows: Rows) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": name, "font.size": 8, "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        experiment(name).plot(rows, figure)
        figure.savefig(DOCS / f"{name}.svg", metadata={"Date": None})
