"""What a calibrated tail costs, and how near it comes: `python benchmarks/calibration.py [words]`.

Words choose parts by their names. "cost" (a minute): fits with and without calibration, in turns,
and the band of a prediction apart. "published" (an hour or so): the network of arXiv 1912.00832 on
all of MNIST, whose standard errors of 64 test images are refined to half a percent beside those of
600 eigenpairs; it reads `$DELTAUQ_DATA`. The script fails where a figure misses its limit.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

import keras
import numpy as np
from published_network import lenet, mnist
from rich.console import Console
from rich.table import Table
from routes import digits, images

from deltauq import DeltaMethod

layers = keras.layers

#: Share of a fit with bounds that calibrating may take beside it, and pairs of fits it is seen in.
MOST_COST, PAIRS = 0.5, 9


class Seen(NamedTuple):
    """A figure of the table, and the largest that it may be; None for one that has no limit."""

    what: str
    value: float
    most: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether it is at most as large; NaN never is."""
        return self.most is None or self.value <= self.most


def trained(hidden: list[Any], shape: tuple[int, ...], x: Any, y: Any) -> keras.Model:
    """A classifier of ten classes."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input(shape), *hidden, layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(x, y, epochs=10, batch_size=64, verbose=0)
    return model


def problems() -> Iterator[tuple[str, keras.Model, Any, Any, str, float, int]]:
    """Name, model, examples, curvature, L2 rate and rank of the fits that are timed."""
    x, y = digits(1_797)
    dense = trained([layers.Dense(64, "tanh"), layers.Dense(64, "tanh")], (64,), x, y)
    yield "dense layers, GGN", dense, x, y, "ggn", 1e-4, 100
    x, y = images(4_000)
    parts = [
        layers.Conv2D(6, 5, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(16, 5, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(120, "relu"),
        layers.Dense(84, "relu"),
    ]
    lenet = trained(parts, (28, 28, 1), x, y)
    yield "LeNet, OPG", lenet, x, y, "opg", 1e-3, 200
    yield "LeNet, GGN, 1,000 examples", lenet, x[:1_000], y[:1_000], "ggn", 1e-3, 100


def cost() -> Iterator[Seen]:
    """Time of a fit with calibration beside one without, and what the band of a prediction adds."""
    for name, model, x, y, curvature, rate, rank in problems():

        def fit(tail: str, model=model, x=x, y=y, kind=curvature, rate=rate, rank=rank) -> Any:
            dm = DeltaMethod(
                model, kind, l2=rate, rank=rank, route="sketch", tail=tail, progress=False
            )
            gc.collect()  # or what an earlier fit traced is removed while this one is timed
            return timed(lambda: dm.fit(x, y))

        fit("auto")  # everything is traced once
        times = [(fit("auto"), fit("midpoint")) for _ in range(PAIRS)]
        ratio = statistics.median(more[1] / less[1] for more, less in times)
        yield Seen(f"{name}: calibrating, of a fit with bounds", ratio - 1, MOST_COST)
        dm, seconds = times[-1][0]
        prediction = dm.predict(x[:8])
        band = timed(lambda prediction=prediction: prediction.std_range(0.5))[1]
        yield Seen(f"{name}: the band, of a fit with bounds", band / seconds)


def published() -> Iterator[Seen]:
    """Errors of 600 eigenpairs beside standard errors that are refined to half a percent."""
    (x, y), (new, _) = mnist("train"), mnist("test", 64)
    model = lenet()
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for rate in (0.01, 1e-4):
        dm = DeltaMethod(model, "opg", l2=rate, rank=600, route="sketch")
        _, seconds = timed(lambda dm=dm: dm.fit(x, y))
        tail, found = dm.eigenpairs.tail, dm.predict(new)
        at = f"published, L2 {rate:g}"
        yield Seen(f"{at}: s of a fit", seconds)
        if tail is not None:
            yield Seen(f"{at}: tau by Gauss", tail.low)
            yield Seen(f"{at}: tau by Gauss-Radau", tail.high)
            yield Seen(f"{at}: tau", tail.tau)
        refined, seconds = timed(lambda dm=dm: dm.refine(new, rtol=0.005, max_passes=20))
        yield Seen(f"{at}: s of refining 64 images", seconds)
        yield Seen(f"{at}: passes of that", refined.data_passes)
        low, high = refined.std_bounds
        yield Seen(f"{at}: widest of the refined", float(np.max(1 - low / high)))
        large = refined.std >= np.quantile(refined.std, 0.2)
        certified = 1 - found.std_bounds[0] / found.std_bounds[1]
        middle = np.sqrt(np.mean(np.square(found.std_bounds), axis=0))
        for what, std in (("calibrated", found.std), ("middle", middle)):
            errors = np.abs(std / refined.std - 1)[large]
            yield Seen(f"{at}: {what}, median error", float(np.median(errors)))
        yield Seen(f"{at}: median certified width", float(np.median(certified[large])))
        beyond = (found.std_bounds[0] > high) | (low > found.std_bounds[1])
        yield Seen(f"{at}: share outside the bounds", float(np.mean(beyond)), 0.0)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function gives, and its seconds."""
    started = time.perf_counter()
    return function(), time.perf_counter() - started


def main(words: list[str]) -> int:
    """Measure the parts that are asked for, and show what was seen."""
    warnings.filterwarnings("ignore")
    table, missed = Table("what", "seen", "at most"), 0
    for part in (cost, published):
        if words and not any(word in part.__name__ for word in words):
            continue
        for seen in part():
            print(seen.what, f"{seen.value:.4g}", flush=True)
            table.add_row(
                seen.what, f"{seen.value:.4g}", "" if seen.most is None else f"{seen.most:g}"
            )
            missed += not seen.is_met
    Console(width=110).print(table)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
