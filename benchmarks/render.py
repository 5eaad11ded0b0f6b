"""Turn pytest-benchmark's JSON into `docs/benchmarks.json` and the tables of `docs/benchmarks.md`.

Use: python benchmarks/render.py raw.json
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

Every case runs deltauq and its rivals one after the other in one process, with the same weights
and the same data (`make bench`). Times are medians in seconds and depend on the machine; the ratios
are what carries over. *published* is the published algorithm, written anew from the papers and
vectorised; *floor* is the matrix products alone, on arrays that are already there.

"""


def main(raw: Path) -> None:
    """Write both files."""
    found = json.loads(raw.read_text())
    cpu = found["machine_info"]["cpu"]
    machine = {
        "cpu": cpu.get("brand_raw", "unknown"),
        "cores": cpu.get("count"),
        "python": found["machine_info"]["python_version"],
    }
    cases = [
        {
            "group": case["group"],
            "name": _name(case["name"]),
            "seconds": case["stats"]["median"],
            "rounds": case["stats"]["rounds"],
            **case["extra_info"],
        }
        for case in found["benchmarks"]
    ]
    summary = {"machine": machine, "cases": cases}
    (DOCS / "benchmarks.json").write_text(json.dumps(summary, indent=2) + "\n")
    text = HEAD + f"Machine: {machine['cpu']}, {machine['cores']} cores, no GPU.\n"
    groups = defaultdict(list)
    for case in cases:
        groups[case["group"]].append(case)
    for group, members in groups.items():
        text += f"\n## {group[0].upper() + group[1:]}\n\n" + _table(members)
        if "growth" in group:
            _plot(members)
            text += "\n![Time of OPG eigenpairs on log-log axes](growth.svg)\n"
    (DOCS / "benchmarks.md").write_text(text)


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
        ax.set_xlabel(case["name"])
        ax.legend()
    axes[0].set_ylabel("seconds")
    figure.savefig(DOCS / "growth.svg", metadata={"Date": None})


def _name(test: str) -> str:
    name = test.removeprefix("test_").split("[")[0].replace("_", " ")
    if test.startswith("test_products["):
        name = test.rstrip("]").split("-")[-1]
    elif test.startswith(("test_resnet[", "test_growth[")):
        name = test.rstrip("]").split("[")[-1]
    return "deltauq" if name.startswith("deltauq") else name


def _table(members: list[dict]) -> str:
    ours = next((case["seconds"] for case in members if case["name"] == "deltauq"), None)
    lines = ["| | seconds | times deltauq | |", "|---|---|---|---|"]
    for case in sorted(members, key=lambda case: case["seconds"]):
        ratio = f"{case['seconds'] / ours:.2f}" if ours else ""
        known = {"group", "name", "seconds", "rounds"}
        notes = ", ".join(f"{k}: {v:.4g}" for k, v in case.items() if k not in known)
        lines.append(f"| {case['name']} | {case['seconds']:.3g} | {ratio} | {notes} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
