"""Run experiments, and write their figures, pages and plots into docs/evidence.

`python -m evidence small [names]` from a place where `benchmarks` is on the path; `render` writes
pages and plots anew from the figures that are there. What was trained and the parts that were run
are kept: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from evidence.frame import DOCS, EXPERIMENTS, conduct, publish


def main(size: str, *names: str) -> None:
    """Run experiments of a size, all of them where none is named."""
    for name in names or EXPERIMENTS:
        print(name, flush=True)
        if size == "render":
            path = DOCS / f"{name}.json"
            if path.exists():
                publish(name, json.loads(path.read_text()))
        else:
            publish(name, conduct(name, size))


if __name__ == "__main__":
    main(*sys.argv[1:])
