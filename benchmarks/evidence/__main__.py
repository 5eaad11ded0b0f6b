"""Run experiments, and write their figures, pages and plots into docs/evidence.

`python -m evidence small [names]` from a place where `benchmarks` is on the path; `render` writes
pages and plots anew from the figures that are there. What was trained and the parts that were run
are kept: a run that was stopped goes on where it was. A page is written where all that its
experiment needs is there; docs/evidence/settings.md, which has the advice, at the end.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from evidence.advice import page
from evidence.frame import DOCS, EXPERIMENTS, conduct, figures, missing, publish


def main(size: str, *names: str) -> None:
    """Run experiments of a size, all of them where none is named."""
    for name in names or EXPERIMENTS:
        print(name, flush=True)
        if size == "render":
            publish(name, json.loads((DOCS / f"{name}.json").read_text()))
            continue
        found = conduct(name, size)
        if lacking := missing(found):
            which = " and ".join(lacking)
            print(f"  its page stays as it was: {which} must be installed (the bench extra)")
        else:
            publish(name, found)
    (DOCS / "settings.md").write_text(page(figures()))


if __name__ == "__main__":
    main(*sys.argv[1:])
