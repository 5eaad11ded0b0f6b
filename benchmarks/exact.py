"""How exact the exact routes are, and how fast: `python benchmarks/exact.py [words]`, some minutes.

Each figure stands beside what is asked of it, and the script fails where one is missed. With words
it runs the parts whose names hold one of them: `python benchmarks/exact.py cnn tune`. Standard
errors are held against `double.py`, which shares no code with the package.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import psutil
import scipy.linalg
import threadpoolctl
from double import Array, Problem, Rows
from rich.console import Console
from rich.table import Table
from routes import images

from deltauq import DeltaMethod
from deltauq.curvature.gram import Gram
from deltauq.curvature.training_rows import TrainingRows
from deltauq.delta.solving import make_operator
from deltauq.linalg import factor_positive
from deltauq.network.jacobians import stacked

layers = keras.layers
Work = Callable[[], Any]

#: Epochs of training: few enough that gradients of examples, which the OPG is made of, are not yet
#: next to nothing.
EPOCHS = 3

#: Inputs that are predicted.
NEW = 16

#: Bytes in which all rows find room.
ROOM = 2**40


class Figure(NamedTuple):
    """A line of the table: what was seen, beside what is asked of it."""

    what: str
    seen: str
    asked: str
    held: bool


def at_most(what: str, seen: float, limit: float, note: str = "") -> Figure:
    """A number that must not be above a limit, which NaN is."""
    told = f"{seen:.3g} ({note})" if note else f"{seen:.3g}"
    return Figure(what, told, f"<= {limit:g}", bool(seen <= limit))


def network(*body: keras.layers.Layer) -> keras.Model:
    """A network of images 28 x 28 with ten logits."""
    return keras.Sequential([keras.Input((28, 28, 1)), *body, layers.Dense(10)])


def cnn() -> keras.Model:
    """Two convolutions with batch normalisation, P = 43,930."""
    body: list[Any] = []
    for filters in (16, 32):
        body += [layers.Conv2D(filters, 3), layers.BatchNormalization(), layers.ReLU()]
        body += [layers.MaxPooling2D()]
    return network(*body, layers.Flatten(), layers.Dense(48, "relu"))


def lenet() -> keras.Model:
    """LeNet, P = 61,706."""
    first = [layers.Conv2D(6, 5, padding="same", activation="relu"), layers.MaxPooling2D()]
    second = [layers.Conv2D(16, 5, activation="relu"), layers.MaxPooling2D()]
    dense = [layers.Dense(width, "relu") for width in (120, 84)]
    return network(*first, *second, layers.Flatten(), *dense)


def convolutions() -> keras.Model:
    """Three convolutions, whose 55,744 columns of rows are formed, P = 93,322."""
    body: list[Any] = []
    for filters in (32, 64):
        body += [layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D()]
    body += [layers.Conv2D(64, 3, activation="relu"), layers.Flatten()]
    return network(*body, layers.Dense(64, "relu"))


def mlp() -> keras.Model:
    """Dense layers alone, P = 235,146."""
    return network(layers.Flatten(), layers.Dense(256, "relu"), layers.Dense(128, "relu"))


@functools.cache
def trained(make: Callable[[], keras.Model], n: int, epochs: int = EPOCHS) -> Problem:
    """A network after a training in float32, a short one as a rule."""
    keras.utils.set_random_seed(0)
    x, y = images(n + NEW)
    model = make()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:n], y[:n], epochs=epochs, verbose=0)
    return Problem(model, x[:n], y[:n], x[n:])


def fit(problem: Problem, curvature: Any = "opg", **options: Any) -> DeltaMethod:
    """A fit of all examples of a problem."""
    dm = DeltaMethod(problem.model, curvature, progress=False, **options)
    return dm.fit(problem.x, problem.y)


def errors(found: Any, truth: Array) -> Array:
    """The worst relative errors of a prediction's standard errors: of logits, of probabilities."""
    pairs = zip((found.logit_std, found.std), truth, strict=True)
    return np.array([np.max(np.abs(std / expected - 1)) for std, expected in pairs])


def error(what: str, found: Any, truth: Array, limit: float) -> Figure:
    """The worst of both beside a limit."""
    each = errors(found, truth)
    note = f"logits {each[0]:.2g}, probabilities {each[1]:.2g}"
    return at_most(f"{what}: error", np.max(each), limit, note)


def outside(what: str, found: Any, truth: Array) -> Figure:
    """How many standard errors `[2, B, C]` lie outside the bounds of a prediction."""
    pairs = zip((found.logit_std_bounds, found.std_bounds), truth, strict=True)
    count = sum(int(np.sum(~((low <= std) & (std <= high)))) for (low, high), std in pairs)
    note = f"of {truth.size}, error {np.max(errors(found, truth)):.2g}"
    return at_most(f"{what}: outside of bounds", count, 0, note)


def bracket(dm: DeltaMethod, x: Array) -> float:
    """The widest share of a standard error that rows leave open, before what rounding may do."""
    found = dm._fitted.form(len(x))(x)
    left = np.stack([found.shown.back, found.shown.slope])
    low, high = (
        np.einsum("kbmr,brs,kbms->kbm", left, end, left, optimize=True) for end in found.outer
    )
    return float(np.max(np.abs(1 - np.sqrt(low / high))))


def shown_by(dm: DeltaMethod, x: Array) -> Array:
    """What `Problem.shown` gives, by the package's rows in the prior's metric."""
    found = dm._fitted.problem.linearization.rows(x)
    return np.stack([found.shown.back @ found.values, found.shown.slope @ found.values])


def difference_form(dm: DeltaMethod, j: Array) -> Array:
    """Standard errors from (|j|^2 - b . alpha) / N, products of rows in float32."""
    rows, n = dm._fitted.known.inverse.rows, dm.n_examples
    flat = j.reshape(-1, j.shape[-1]).astype("float32")
    b, m = rows.product(flat.T), rows.gram("float32") + n * np.eye(rows.n_rows)
    alpha = scipy.linalg.solve(m, b, assume_a="pos")
    variance = (np.vecdot(flat, flat) - np.vecdot(b, alpha, axis=0)) / n
    return np.sqrt(np.maximum(variance, 0)).reshape(j.shape[:-1])


def operator_of(dm: DeltaMethod) -> Any:
    """The curvature of a fit, made of rows in the prior's metric."""
    return make_operator(dm._fitted.problem, dm._fitted.settings.kind.bread, in_rows=True)


def seconds(work: Work, clock: Callable[[], float] = time.perf_counter) -> float:
    """How long a call takes, by a clock."""
    start = clock()
    work()
    return clock() - start


def times(what: str, limit: float, work: Work, other: Work) -> Figure:
    """How many times as long as another a call takes, the median of three alternating pairs."""
    pairs = [(seconds(work), seconds(other)) for _ in range(3)]
    note = "; ".join(f"{one:.2f} / {two:.2f} s" for one, two in pairs)
    return at_most(what, statistics.median(one / two for one, two in pairs), limit, note)


def megabytes(work: Work) -> tuple[Any, float]:
    """What a call returns, and what the process held at most, less what it held before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed and kept would be taken again unseen
    process, done, seen = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(1e-3):
            seen.append(process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = work()
    finally:
        done.set()
        watcher.join()
    return result, max(seen) / 1e6


def reference() -> Iterator[Figure]:
    """The algebra of the reference beside an inverse that is formed."""
    rng = np.random.default_rng(0)
    rows, j = rng.normal(size=(30, 40)), rng.normal(size=(5, 40))
    sigma = np.linalg.inv(rows.T @ rows + 30 * 1e-3 * np.eye(40))
    dense = np.sqrt(np.einsum("bp,pq,bq->b", j, sigma, j))
    gap = np.max(np.abs(Rows(rows, 30).std(j, 1e-3) / dense - 1))
    yield at_most("reference: error beside an inverse that is formed", float(gap), 1e-12)


def cnn_new_inputs() -> Iterator[Figure]:
    """Inputs that were not trained on."""
    problem = trained(cnn, 4_000)
    shown = problem.shown(problem.new)
    for l2 in (1e-3, 1e-5):
        dm, what = fit(problem, l2=l2, route="gram"), f"CNN, OPG, L2 {l2:g}"
        yield at_most(f"{what}: width between the forms", bracket(dm, problem.new), 1e-5)
        yield outside(what, dm.predict(problem.new), problem.opg.std(shown, l2))
    yield times(
        "CNN, OPG: fit beside a sketch of 200",
        1.5,
        partial(fit, problem, l2=1e-3, route="gram"),
        partial(fit, problem, l2=1e-3, route="sketch", rank=200),
    )


def cnn_training_inputs() -> Iterator[Figure]:
    """Inputs whose variance is next to nothing beside that without data, at a small rate."""
    problem, l2, what = trained(cnn, 4_000), 1e-6, "CNN, OPG, training inputs, L2 1e-06"
    dm, x = fit(problem, l2=l2, route="gram"), problem.x[:NEW]
    truth, precision = problem.opg.std(problem.shown(x), l2), dm._fitted.known.inverse.precision
    yield Figure(f"{what}: products", precision, "float64", precision == "float64")
    yield outside(what, dm.predict(x), truth)
    wrong = float(np.max(np.abs(difference_form(dm, shown_by(dm, x)) / truth - 1)))
    yield Figure(f"{what}: error of a difference", f"{wrong:.3g}", "> 0.01", wrong > 0.01)


def lenet_new_inputs() -> Iterator[Figure]:
    """Standard errors in float32 beside those that are all in float64."""
    problem = trained(lenet, 1_000)
    shown = problem.shown(problem.new)
    for l2 in (1e-2, 1e-4, 1e-6):
        found = fit(problem, l2=l2, route="gram").predict(problem.new)
        yield error(f"LeNet, OPG, L2 {l2:g}", found, problem.opg.std(shown, l2), 2e-5)


def lenet_ggn() -> Iterator[Figure]:
    """The algebra alone, beside the same rows multiplied in float64."""
    # After 3 epochs G is so large that its rounding shows: 1e-5.
    problem = trained(lenet, 400, epochs=30)
    dm, x = fit(problem, "ggn", l2=1e-4, route="gram"), problem.x[:NEW]
    batches = [stacked(factors) for factors in operator_of(dm).row_factors()]
    rows = np.concatenate(batches).astype("float64")
    truth = Rows(rows.reshape(-1, rows.shape[-1]), len(problem.x)).std(shown_by(dm, x), 1.0)
    yield error("LeNet, GGN, training inputs, L2 0.0001", dm.predict(x), truth, 1e-6)


def mlp_gram() -> Iterator[Figure]:
    """The inner products of rows that are never formed."""
    problem = trained(mlp, 4_000)
    operator = operator_of(fit(problem, l2=1e-3, route="gram"))

    def gram() -> Array:
        return TrainingRows(operator, ROOM).gram("float32")

    found, most = megabytes(gram)
    yield at_most("MLP, OPG, G of N = 4,000: MB beside it", most - found.nbytes / 1e6, 100)
    taken = statistics.median(seconds(gram, time.process_time) for _ in range(5))
    yield at_most("MLP, OPG, G of N = 4,000: seconds of a core", taken, 2)


def columns_of_rows() -> Iterator[Figure]:
    """Rows that are formed again, some columns at a time, beside those that are held."""
    problem, what = trained(convolutions, 2_000), "convolutions, a third of columns at a time"
    operator = operator_of(fit(problem, l2=1e-3, route="gram"))
    formed = TrainingRows(operator, ROOM)._layout.groups[0]
    columns = sum(some.place.stop - some.place.start for some in formed)
    room = len(problem.x) * 4 * -(-columns // 3)

    def gram(room: int) -> Array:
        return TrainingRows(operator, room).gram("float32")

    (whole, held), (parts, grouped) = (megabytes(lambda r=r: gram(r)) for r in (ROOM, room))
    gap = float(np.max(np.abs(parts - whole)) / np.max(np.abs(whole)))
    yield at_most(f"{what}: error of G", gap, 2e-7)
    held, grouped = (most - whole.nbytes / 1e6 for most in (held, grouped))
    note = f"{grouped:.1f} / {held:.1f} MB"
    yield at_most(f"{what}: memory beside all", grouped / held, 0.5, note)
    yield times(f"{what}: time beside all", 1.6, lambda: gram(room), lambda: gram(ROOM))


def sixteen_thousand_rows() -> Iterator[Figure]:
    """Cholesky's factor of a large matrix, on two threads."""
    n, rng = 16_000, np.random.default_rng(0)
    half, v = rng.normal(size=(n, 1_000)), rng.normal(size=(n, 3))
    matrix = half @ half.T.copy()  # of the same memory it would be OpenBLAS' syrk, which crashes
    matrix[np.diag_indices(n)] += 1.0
    with threadpoolctl.threadpool_limits(2, "blas"):
        note = f"{seconds(lambda: factor_positive(matrix)):.0f} s"
    root, image = np.tril(matrix), half @ (half.T @ v) + v
    gap = float(np.linalg.norm(root @ (root.T @ v) - image) / np.linalg.norm(image))
    yield at_most("n = 16,000, two threads: error of L L^T", gap, 1e-10, note)


def sampled_pass() -> Iterator[Figure]:
    """A sketch whose first pass reads an eighth, beside one that reads all examples twice."""
    problem, what = trained(lenet, 1_500), "LeNet, GGN sorted by label, K = 100"
    order, left = np.argsort(problem.y, kind="stable"), {}
    problem = replace(problem, x=problem.x[order], y=problem.y[order])

    def sketch(draw: Any) -> None:
        with mock.patch.object(Gram, "sampled", draw):
            dm = fit(problem, "ggn", l2=1e-3, route="sketch", rank=100, bounds=False)
        left[draw] = dm.eigenpairs.remainder

    sampled, whole = Gram.sampled, lambda operator, share, seed: None
    yield times(
        f"{what}: time beside two passes", 0.75, partial(sketch, sampled), partial(sketch, whole)
    )
    yield at_most(f"{what}: trace left beside theirs", left[sampled] / left[whole], 1.25)


def tuned() -> Iterator[Figure]:
    """An L2 rate that is chosen after training."""
    problem, what = trained(lenet, 6_000), "LeNet, OPG, N = 6,000"
    start = time.perf_counter()
    dm = fit(problem, l2="tune")
    dm.predict(images(6_032)[0][-32:])
    taken, rate = time.perf_counter() - start, dm._fitted.problem.common_rate
    yield at_most(f"{what}: seconds, tuned, with 32 predictions", taken, 60, str(dm.route))
    yield Figure(f"{what}: exact", str(dm.is_exact), "True", dm.is_exact)
    for limit, options in ((2.5, {"route": "gram"}), (1.2, {"route": "sketch", "rank": 200})):
        tune, given = (partial(fit, problem, l2=l2, **options) for l2 in ("tune", rate))
        yield times(f"{what}, {options['route']}: tuned beside {rate:.2g}", limit, tune, given)


PARTS = [
    reference,
    cnn_new_inputs,
    cnn_training_inputs,
    lenet_new_inputs,
    lenet_ggn,
    mlp_gram,
    columns_of_rows,
    sixteen_thousand_rows,
    sampled_pass,
    tuned,
]


def main(words: list[str]) -> None:
    """Print the table, and fail where a figure is not what is asked."""
    warnings.simplefilter("ignore")
    parts = [part for part in PARTS if not words or any(w in part.__name__ for w in words)]
    if not parts:
        sys.exit(f"no part has one of {words} in its name: {[part.__name__ for part in PARTS]}")
    console, table, failed = Console(width=130), Table("what", "seen", "asked", ""), False
    for part in parts:
        for figure in part():
            failed |= not figure.held
            told = (figure.what, figure.seen, figure.asked, "" if figure.held else "missed")
            console.print(*told, highlight=False)
            table.add_row(*told)
    console.print(table)
    sys.exit(int(failed))


if __name__ == "__main__":
    main(sys.argv[1:])
