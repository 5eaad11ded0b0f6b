"""Run experiments, and write their figures, pages and plots into docs/evidence.

`python -m evidence small [names]` from a place where `benchmarks` is on the path; `render` writes
pages and plots anew from the figures that are there. What was trained is kept, and what was run in
the same size within this run of the command is not run again where it was stopped.
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
