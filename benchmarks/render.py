"""Turn pytest-benchmark's JSON into `docs/benchmarks.json` and the tables of `docs/benchmarks.md`.

Use: python benchmarks/render.py raw.json [more.json ...]
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

DOCS = Path(__file__).parents[1] / "docs"

HEAD = """# Benchmarks

`make bench` times deltauq and its rivals in turn in one process, with the same weights and the same
data, and writes this page. It needs the data files that `$DELTAUQ_DATA` names, and an hour of a
machine that does nothing else. Seconds depend on the machine; the ratios, medians over the rounds,
are what carries over. The *published algorithm* is written anew from the papers and vectorised;
products *alone* run on arrays that are already there, and are what no implementation can avoid.

"""


def main(paths: list[Path]) -> None:
    """Write both files."""
    found = [json.loads(path.read_text()) for path in paths]
    info = found[0]["machine_info"]
    machine = {
        "cpu": info["cpu"].get("brand_raw", "unknown"),
        "cores": info["cpu"].get("count"),
        "python": info["python_version"],
    }
    cases = [
        {
            "group": case["group"],
            "seconds": case["stats"]["median"],
            "rounds": case["stats"]["rounds"],
            **case["extra_info"],
        }
        for part in found
        for case in part["benchmarks"]
    ]
    summary = {"machine": machine, "cases": cases}
    (DOCS / "benchmarks.json").write_text(json.dumps(summary, indent=2) + "\n")
    (DOCS / "benchmarks.md").write_text(page(summary))
    for members in _groups(cases).values():
        if "exponent" in members[0]:
            _plot(members)


def page(summary: dict) -> str:
    """The text of `docs/benchmarks.md` for what `docs/benchmarks.json` holds."""
    machine = summary["machine"]
    text = HEAD + f"Machine: {machine['cpu']}, {machine['cores']} cores, no GPU.\n"
    for group, members in _groups(summary["cases"]).items():
        text += f"\n## {group[0].upper() + group[1:]}\n"
        if "exponent" in members[0]:
            text += "\n![Time of OPG eigenpairs on log-log axes](growth.svg)\n"
        text += "".join(map(_section, members))
    return text


def _groups(cases: list[dict]) -> dict[str, list[dict]]:
    groups = defaultdict(list)
    for case in cases:
        groups[case["group"]].append(case)
    return groups


def _section(case: dict) -> str:
    """One case: a table where it has rivals, and what else was noted of it."""
    lines = [""] + ([f"**{case['case']}**", ""] if "case" in case else [])
    if case.get("rivals"):
        lines += ["| | seconds | times deltauq |", "|---|---|---|"]
        lines += [f"| deltauq | {case['seconds']:.3g} | 1 |"]
        for name, rival in case["rivals"].items():
            lines += [f"| {name} | {rival['seconds']:.3g} | {rival['times deltauq']:.2f} |"]
        lines += [""]
    known = {"group", "case", "seconds", "rounds", "rivals"}
    lines += [f"- {key}: {value:.6g}" for key, value in case.items() if key not in known]
    return "\n".join(lines) + "\n"


def _plot(members: list[dict]) -> None:
    """Time against the number of examples, eigenpairs and parameters, on log-log axes."""
    figure, axes = plt.subplots(1, len(members), figsize=(9, 3), sharey=True, layout="constrained")
    for case, ax in zip(members, axes, strict=True):
        points = {
            float(key.removeprefix("seconds at ").replace(",", "")): value
            for key, value in case.items()
            if key.startswith("seconds at ")
        }
        sizes, seconds = np.array(list(points)), np.array(list(points.values()))
        ax.loglog(sizes, seconds, "o-", label=f"slope {case['exponent']:.2f}")
        ax.loglog(sizes, seconds[0] * sizes / sizes[0], "k:", label="linear")
        ax.set_xlabel(case["case"])
        ax.legend()
    axes[0].set_ylabel("seconds")
    figure.savefig(DOCS / "growth.svg", metadata={"Date": None})


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
