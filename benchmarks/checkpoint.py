"""What a checkpoint adds to fits of a few minutes, by the default interval.

Run `python benchmarks/checkpoint.py` for all kinds as a table, or name some; `--share 0.1` takes a
tenth of the examples. Each kind is fitted without a checkpoint and with one; the time that is spent
inside the checkpoint beside the steps themselves is taken too, as two fits of minutes may differ by
more than it. The last column is a fit that goes on from a whole record: what a replay takes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deltauq import DeltaMethod
from deltauq.runtime.checkpoint import Checkpoint

#: What is fitted: examples, and options; P = 109,386.
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "OPG, sketch": (60_000, {"curvature": "opg", "rank": 600}),
    "GGN, sketch": (5_000, {"curvature": "ggn", "rank": 600}),
    "GGN, gram": (1_500, {"curvature": "ggn", "route": "gram"}),
    "Hessian": (10_000, {"curvature": "hessian", "rank": 100}),
}

_MOST = 0.03


class Timed(Checkpoint):
    """A checkpoint that takes the time it needs beside the steps, and may stop before the end."""

    seconds = 0.0
    n_bytes = n_files = 0

    def begin(self, *arguments: Any) -> Timed:
        """Begin, and take the time of it."""
        started = time.perf_counter()
        super().begin(*arguments)
        Timed.seconds += time.perf_counter() - started
        return self

    def kept(self, what: str, given: Any, results: Any, compute: Any) -> None:
        """Do a step, and take the time that it takes beside what is computed."""
        started, inside = time.perf_counter(), 0.0

        def computed() -> None:
            nonlocal inside
            begun = time.perf_counter()
            compute()
            inside = time.perf_counter() - begun

        super().kept(what, given, results, computed)
        Timed.seconds += time.perf_counter() - started - inside

    def _clear(self) -> None:
        Timed.n_files = len(self._files) + bool(self._pending)
        Timed.n_bytes = sum(path.stat().st_size for path in self._files)
        raise _DoneError


class _DoneError(Exception):
    """Raised at the end of a fit, so that its record stays."""


def measure(n: int, options: dict[str, Any]) -> list[str]:
    """A row of the table, and whether the checkpoint took no more than it may."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 784), np.float32)
    y = rng.integers(0, 10, n)
    keras.utils.set_random_seed(0)
    widths = (keras.layers.Dense(128, "tanh"), keras.layers.Dense(64, "tanh"))
    model = keras.Sequential([keras.Input((784,)), *widths, keras.layers.Dense(10)])
    settings = {"l2": 0.01, "likelihood": "categorical", "progress": False}
    method = DeltaMethod(model, **settings, **options)
    started = time.perf_counter()
    method.fit(x, y)
    plain = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        seconds = []
        for _ in range(2):
            Timed.seconds, started = 0.0, time.perf_counter()
            try:
                method.fit(x, y, checkpoint=Path(folder))
            except _DoneError:
                seconds.append((time.perf_counter() - started, Timed.seconds))
    (whole, inside), (again, _) = seconds
    share = inside / (whole - inside)
    size = f"{Timed.n_bytes / 2**20:,.0f} MiB in {Timed.n_files}"
    shares = [f"{share:.1%}" + ("" if share <= _MOST else " (!)")]
    return [f"{plain:.0f} s", f"{whole:.0f} s", f"{inside:.1f} s", *shares, size, f"{again:.0f} s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"among {', '.join(KINDS)}; all by default")
    parser.add_argument("--share", type=float, default=1.0, help="of the examples")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    import deltauq.delta.delta_method as place

    place.Checkpoint = Timed  # type: ignore[misc]
    print("| fit | without | with | inside the checkpoint | share | on disk | a replay |")
    print("|---|---|---|---|---|---|---|")
    for name in asked.kinds or KINDS:
        n, options = KINDS[name]
        row = measure(round(n * asked.share), options)
        print(f"| {name}, N = {round(n * asked.share):,} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
