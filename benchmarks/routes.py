"""Whether the route that a fit chooses is the fastest: `python benchmarks/routes.py`, some minutes.

Twelve problems, each by every route that its curvature has: seconds of a fit and 1,000 predictions,
and the widest standard error, as a share. A sketch or Lanczos of 600 eigenpairs stands beside the
exact routes. A route counts where its standard errors are as narrow as those of the chosen one. The
script fails where that takes more than 1.5 times the fastest of those that count.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import sklearn.datasets
from rich.console import Console
from rich.table import Table

from deltauq import DeltaMethod
from deltauq.errors import DeltaUQError

layers = keras.layers
L2, INPUTS, RANK, WORST = 1e-3, 1_000, 600, 1.5

#: Times the width of the chosen route up to which another is as narrow.
AS_NARROW = 1.25


class Point(NamedTuple):
    """A problem of the table: a network, examples, a curvature, and routes that it may take."""

    name: str
    make: Callable[[], keras.Model]
    examples: Callable[[int], tuple[Any, Any]]
    n_examples: int
    curvature: str
    routes: tuple[str, ...]


def digits(n: int) -> tuple[Any, Any]:
    """Digits of 8 x 8 pixels, as often as asked for, with a little noise of their own."""
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    some = rng.permutation(np.resize(np.arange(len(x)), n))
    return (x[some] / 16 + 0.02 * rng.normal(size=(n, 64))).astype("float32"), y[some]


def images(n: int) -> tuple[Any, Any]:
    """The digits at 28 x 28 pixels."""
    x, y = digits(n)
    large = np.kron(x.reshape(-1, 8, 8), np.ones((1, 3, 3)))
    return np.pad(large, [(0, 0), (2, 2), (2, 2)])[..., None].astype("float32"), y


def even(n: int) -> tuple[Any, Any]:
    """Whether a digit is even, at 28 x 28 pixels."""
    x, y = images(n)
    return x, (y % 2 == 0).astype("float32")


def dense(shape: tuple[int, ...], *widths: int) -> Callable[[], keras.Model]:
    """A network of dense layers."""
    hidden = [layers.Dense(width, "tanh") for width in widths[:-1]]
    return lambda: keras.Sequential(
        [keras.Input(shape), layers.Flatten(), *hidden, layers.Dense(widths[-1])]
    )


def convolutional() -> keras.Model:
    """A network of three convolutions with batch normalisation."""
    blocks: list[Any] = []
    for filters, strides in ((16, 2), (32, 2), (96, 1)):
        blocks += [layers.Conv2D(filters, 3, strides, activation="tanh")]
        blocks += [layers.BatchNormalization()]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(80, "tanh"), layers.Dense(10)]
    return keras.Sequential([keras.Input((28, 28, 1)), *blocks, *head])


EXACT, IMAGE = ("dense", "gram"), (28, 28, 1)
POINTS = [
    Point("dense layers", dense((64,), 32, 10), digits, 1_797, "opg", EXACT),
    Point("dense layers", dense((64,), 32, 10), digits, 6_000, "opg", EXACT),
    Point("dense layers", dense((64,), 32, 10), digits, 300, "ggn", EXACT),
    Point("dense layers", dense((64,), 60, 10), digits, 1_000, "opg", EXACT),
    Point("dense layers", dense((64,), 128, 10), digits, 1_797, "opg", EXACT),
    Point("dense layers", dense(IMAGE, 16, 10), images, 1_000, "opg", EXACT),
    Point("dense layers", dense(IMAGE, 64, 10), images, 2_000, "opg", ("gram",)),
    Point("dense layers", dense(IMAGE, 64, 10), images, 300, "ggn", ("gram",)),
    Point("one output", dense(IMAGE, 6, 1), even, 3_000, "ggn", EXACT),
    Point("convolutions", convolutional, images, 2_000, "opg", ("gram",)),
    Point("dense layers", dense((64,), 32, 10), digits, 500, "hessian", ("dense",)),
    Point("dense layers", dense((64,), 48, 10), digits, 500, "hessian", ("dense",)),
]


def trained(point: Point) -> tuple[keras.Model, Any, Any]:
    """The network of a point after a short training, and its examples."""
    keras.utils.set_random_seed(0)
    x, y = point.examples(point.n_examples)
    model = point.make()
    classes = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    one = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile("adam", one if model.output_shape[-1] == 1 else classes)
    model.fit(x, y, epochs=10, verbose=0)
    return model, x, y


def run(point: Point, model: keras.Model, x: Any, y: Any, **options: Any) -> tuple[Any, ...]:
    """The route that a fit took, seconds of it and of predictions, and their width."""
    start = time.perf_counter()
    dm = DeltaMethod(
        model, point.curvature, l2=L2, progress=False, negative_curvature="project", **options
    ).fit(x, y)
    low, high = dm.predict(point.examples(INPUTS)[0]).std_bounds
    return str(dm.route), time.perf_counter() - start, float(np.max(1 - low / high))


def main() -> None:
    """Print the table, and fail where a choice is not among the best."""
    warnings.simplefilter("ignore")
    console, failed = Console(width=110), False
    table = Table("network", "curvature", "N", "P", "chosen", "times the fastest", "s and width")
    for point in POINTS:
        model, x, y = trained(point)
        seconds, told = {}, []
        by_pairs = "lanczos" if point.curvature == "hessian" else "sketch"
        forced: list[dict[str, Any]] = [{"route": route} for route in point.routes]
        if model.count_params() > RANK:
            forced.append({"route": by_pairs, "rank": RANK})
        chosen = run(point, model, x, y)  # the first of all traces more: it is taken twice
        chosen = run(point, model, x, y)
        for options in forced:
            try:
                route, taken, width = run(point, model, x, y, **options)
            except DeltaUQError as error:
                told.append(f"{options['route']} refused: {str(error).splitlines()[0]}")
                continue
            told.append(f"{route} {taken:.1f} s, {width:.2g}")
            if width <= AS_NARROW * chosen[2]:
                seconds[route] = taken
        times = chosen[1] / min([chosen[1], *seconds.values()])
        failed |= not times <= WORST
        cells = (point.curvature, f"{len(x):,}", f"{model.count_params():,}", chosen[0])
        table.add_row(point.name, *cells, f"{times:.2f}", "; ".join(told))
        console.print(f"{cells} {chosen[1]:.1f} s, {chosen[2]:.2g}; {told}", highlight=False)
    console.print(table)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
