"""Fits with a checkpoint in processes that can be killed at any moment, several a second.

As a program it is a server that has TensorFlow imported and never used: each fit runs in a fork of
it, which costs none of the import.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["KINDS", "Server"]

#: What is fitted, by name: options of `DeltaMethod`.
KINDS: dict[str, dict[str, Any]] = {
    "opg": {"curvature": "opg", "rank": 12},
    "gram": {"curvature": "opg", "route": "gram"},
    "ggn": {"curvature": "ggn", "rank": 12},
    "hessian": {"curvature": "hessian", "rank": 6},
    "sandwich": {"curvature": "sandwich", "rank": 6},
}

#: Seconds that every step takes beside what it computes, so that a fit lasts.
_PAUSE = 0.02


class Server:
    """A process that starts fits, each in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def start(self, kind: str, folder: Path) -> int:
        """Begin a fit whose checkpoint is `folder / "checkpoint"`, or go on with one; its process.

        Once it has come to its end, `folder / "done"` is there, before its checkpoint is removed,
        and then `folder / "std.npy"`. `folder / "products"` has a line for each product with a
        curvature, or with rows, that was computed.
        """
        return int(self._ask(f"start {kind} {folder}"))

    def wait(self, process: int) -> int:
        """Wait for the end of a fit; 0 where it came to its end by itself."""
        return int(self._ask(f"wait {process}"))

    def kill(self, process: int) -> int:
        """Kill a fit, unless it has ended; what it ended with."""
        os.kill(process, signal.SIGKILL)  # an ended one is there until it is waited for
        return self.wait(process)

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


def _serve() -> None:
    import deltauq
    import deltauq.delta.delta_method
    import deltauq.runtime.checkpoint  # noqa: F401

    for line in sys.stdin:
        match line.split():
            case ["start", kind, folder]:
                process = os.fork()
                if not process:
                    _run(kind, Path(folder))
                print(process, flush=True)
            case ["wait", process]:
                print(os.waitpid(int(process), 0)[1], flush=True)


def _run(kind: str, folder: Path) -> None:
    """Fit, write the standard errors, and end the process."""
    code = 1
    try:
        _fit(kind, folder)
        code = 0
    finally:
        os._exit(code)


def _fit(kind: str, folder: Path) -> None:
    import keras
    import numpy as np

    from deltauq import DeltaMethod
    from deltauq.curvature import training_rows
    from deltauq.curvature.gram import Gram
    from deltauq.curvature.held_rows import FormedRows, HeldFactors
    from deltauq.curvature.hessian import Hessian
    from deltauq.runtime.checkpoint import Checkpoint

    training_rows._STRIPE = 20
    Checkpoint.interval = 0.0
    clear = Checkpoint._clear

    def done(checkpoint: Checkpoint) -> None:
        (folder / "done").touch()
        clear(checkpoint)

    Checkpoint._clear = done  # type: ignore[method-assign]
    products = os.open(folder / "products", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    for owner, name in (
        (Gram, "_sum"),
        (Hessian, "_sum"),
        (FormedRows, "add_gram"),
        (HeldFactors, "add_gram"),
    ):
        setattr(owner, name, _counted(getattr(owner, name), products))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 6)).astype("float32"), rng.integers(0, 3, 200)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(10, "tanh"), keras.layers.Dense(3)]
    )
    method = DeltaMethod(model, l2=0.05, likelihood="categorical", progress=False, **KINDS[kind])
    method.fit(x[:160], y[:160], checkpoint=folder / "checkpoint")
    np.save(folder / "std.npy", method.predict(x[160:]).std)


def _counted(product: Any, log: int) -> Any:
    def counted(*arguments: Any) -> None:
        time.sleep(_PAUSE)
        os.write(log, b".\n")
        product(*arguments)

    return counted


if __name__ == "__main__":
    _serve()
