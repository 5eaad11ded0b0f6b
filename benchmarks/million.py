"""Peak memory of every public call with one input and with a million, under `memory_limit="2GiB"`.

Run `python benchmarks/million.py` for the whole table as Markdown, or name some calls and
`--inputs`. Each measurement is a process of its own, one after the other; one that takes more than
`_KILL` is ended and reported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

_LIMIT, _KILL, _SECONDS = "2GiB", 4 * 2**30, 1500
_FEATURES, _CLASSES, _FEW = 8, 3, 2_000

Work = Callable[[], Any]
CALLS: dict[str, Callable[[int], Work]] = {}


def call(make: Callable[[int], Work]) -> Callable[[int], Work]:
    """Register a call by its name: N -> what is measured, prepared outside of it."""
    CALLS[make.__name__] = make
    return make


def data(n: int, n_classes: int = _CLASSES) -> Any:
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, _FEATURES), np.float32)
    return x, (rng.random(n) * n_classes).astype(np.int64)


def method(curvature: str = "ggn", *, n_classes: int = _CLASSES, **options: Any) -> Any:
    """Not fitted: P = 195 with three classes."""
    import keras

    import deltauq

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(16, "tanh"), keras.layers.Dense(n_classes)]
    model = keras.Sequential([keras.Input((_FEATURES,)), *layers])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    options = {"l2": 0.1, "memory_limit": _LIMIT, "progress": False} | options
    return deltauq.DeltaMethod(model, curvature, **options)


def fitted(
    curvature: str = "ggn", *, n: int = _FEW, n_classes: int = _CLASSES, **options: Any
) -> Any:
    return method(curvature, n_classes=n_classes, **options).fit(*data(n, n_classes))


def prediction(n: int) -> Any:
    """Of N inputs, some of them again and again, for what follows it."""
    import numpy as np

    return fitted().predict(data(_FEW)[0])[np.arange(n) % _FEW]


@call
def fit_opg(n: int) -> Work:
    dm = method("opg")
    x_y = data(n)
    return lambda: dm.fit(*x_y)


@call
def fit_ggn_low_rank(n: int) -> Work:
    dm = method("ggn", rank=50)
    x_y = data(n)
    return lambda: dm.fit(*x_y)


@call
def fit_hessian(n: int) -> Work:
    dm = method("hessian", rank=20, bounds=False)
    x_y = data(n)
    return lambda: dm.fit(*x_y)


@call
def fit_dataset(n: int) -> Work:
    import tensorflow as tf

    dm, dataset = method("opg"), tf.data.Dataset.from_tensor_slices(data(n)).batch(512)
    return lambda: dm.fit(dataset)


@call
def predict_3_classes(n: int) -> Work:
    dm = fitted()
    x, _ = data(n)
    return lambda: dm.predict(x)


@call
def predict_10_classes(n: int) -> Work:
    dm = fitted(n_classes=10)
    x, _ = data(n)
    return lambda: dm.predict(x)


@call
def predict_2_of_10_classes(n: int) -> Work:
    dm = fitted(n_classes=10)
    x, _ = data(n)
    return lambda: dm.predict(x, classes="top2")


@call
def predict_dataset_10_classes(n: int) -> Work:
    import tensorflow as tf

    dm = fitted(n_classes=10)
    dataset = tf.data.Dataset.from_tensor_slices(data(n)[0]).batch(512)
    return lambda: dm.predict(dataset)


@call
def predict_joint(n: int) -> Work:
    dm = fitted()
    x, _ = data(n)
    return lambda: dm.predict_joint(x)


@call
def predict_mean(n: int) -> Work:
    dm = fitted()
    x, _ = data(n)
    return lambda: dm.predict_mean(x)


@call
def predict_mean_1000_groups(n: int) -> Work:
    import numpy as np

    dm = fitted()
    x, _ = data(n)
    return lambda: dm.predict_mean(x, np.arange(n) % 1000)


@call
def predict_mean_group_an_input(n: int) -> Work:
    import numpy as np

    dm = fitted()
    x, _ = data(n)
    return lambda: dm.predict_mean(x, np.arange(n))


@call
def refine(n: int) -> Work:
    dm = fitted(n=200, rank=20)
    x, _ = data(n)
    return lambda: dm.refine(x, rtol=0.2)


@call
def rank_curve(n: int) -> Work:
    dm = fitted(rank=50)
    x, _ = data(n)
    return lambda: dm.rank_curve(x)


@call
def log_marginal_likelihood(n: int) -> Work:
    dm = fitted(n=n)
    return dm.log_marginal_likelihood


@call
def posterior(n: int) -> Work:
    dm = fitted(n=n)
    return lambda: dm.posterior().sample(10)


@call
def tune_l2(n: int) -> Work:
    """Of a model that learned some labels too well, so that held-out ones prefer some variance."""
    import numpy as np

    def learnable(n: int) -> Any:
        x, _ = data(n)
        noise = np.random.default_rng(1).gumbel(size=(n, _CLASSES))
        return x, np.argmax(x[:, :_CLASSES] + noise, axis=1)

    dm = method(l2=1e-4)
    x, y = learnable(200)
    dm.model.fit(x, y, epochs=200, batch_size=20, verbose=0)
    dm.fit(x, y)
    x_y = learnable(n)
    return lambda: dm.tune_l2(*x_y)


@call
def save_and_load(n: int) -> Work:
    import deltauq

    dm, path = fitted(n=n), Path(tempfile.mkdtemp()) / "m.deltauq"
    return lambda: (dm.save(path), deltauq.DeltaMethod.load(path))


@call
def attach(n: int) -> Work:
    import deltauq

    path = Path(tempfile.mkdtemp()) / "m.deltauq"
    fitted(n=n).save(path)
    loaded = deltauq.DeltaMethod.load(path)
    x_y = data(n)
    return lambda: loaded.attach(*x_y)


@call
def export(n: int) -> Work:
    dm, path = fitted(n=n), Path(tempfile.mkdtemp()) / "served"
    return lambda: dm.export(path)


@call
def diagnose(n: int) -> Work:
    import deltauq

    model = method().model
    x_y = data(n)
    return lambda: deltauq.diagnose(model, *x_y, l2=0.1)


@call
def compare(n: int) -> Work:
    import deltauq

    model = method().model
    x, y = data(n)
    return lambda: deltauq.compare(
        model, x, y, x, curvatures=("ggn", "opg"), l2=0.1, memory_limit=_LIMIT, progress=False
    )


@call
def study_to_html(n: int) -> Work:
    from deltauq.report import Study

    dm = fitted()
    x, y = data(n)
    return lambda: Study.of(dm, x, y).to_html()


@call
def metrics(n: int) -> Work:
    import numpy as np

    from deltauq.evaluation import metrics

    rng = np.random.default_rng(0)
    score, wrong = rng.random(n), rng.random(n) < 0.1
    wrong[0] = True
    return lambda: (
        metrics.agreement(np.stack([score, score]), np.stack([score, score**2])),
        metrics.error_auroc(score, wrong),
        metrics.risk_coverage(score, wrong),
        metrics.reliability(score, wrong),
    )


@call
def plots(n: int) -> Work:
    from deltauq import plots

    found, y = prediction(n), data(n)[1]
    return lambda: (
        plots.probability_against_error(found, y),
        plots.reliability(found, y),
        plots.risk_coverage(found, y),
    )


@call
def to_frame_and_interval(n: int) -> Work:
    found = prediction(n)
    return lambda: (found.to_frame(), found.interval(), found.difference_test())


@call
def distribution(n: int) -> Work:
    found = prediction(n)
    return lambda: found.distribution()


@call
def classifier_fit(n: int) -> Work:
    import deltauq

    estimator = deltauq.DeltaClassifier((16,), l2=0.01, memory_limit=_LIMIT, progress=False)
    x, y = data(n)
    return lambda: estimator.fit(x, y)


@call
def classifier_predict(n: int) -> Work:
    import deltauq

    estimator = deltauq.DeltaClassifier((16,), l2=0.01, memory_limit=_LIMIT, progress=False)
    estimator.fit(*data(_FEW))
    x, _ = data(n)
    return lambda: (estimator.predict_proba(x), estimator.predict_uncertainty(x))


@call
def command_predict(n: int) -> Work:
    import numpy as np

    from deltauq.cli.predicting import predict

    place = Path(tempfile.mkdtemp())
    fitted().save(place / "m.deltauq")
    np.savez(place / "new.npz", x=data(n)[0])
    return lambda: predict(
        place / "m.deltauq", place / "new.npz", output=place / "out.csv", quiet=True
    )


def measure(name: str, n: int) -> None:
    """In a process of its own: print what it took."""
    warnings.simplefilter("ignore")
    from deltauq.errors import DeltaUQError

    own = psutil.Process()
    found: dict[str, Any] = {}
    try:
        work = CALLS[name](n)
        found["before"] = own.memory_info().rss
        peak, done = [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.01):
                peak[0] = max(peak[0], own.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.perf_counter()
        try:
            work()
        finally:
            found["seconds"] = time.perf_counter() - started
            done.set()
            watcher.join()
            found["peak"] = peak[0]
    except DeltaUQError as error:
        found["refused"] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))


def run(name: str, n: int) -> dict[str, Any]:
    """A process that measures, ended when it takes too much."""
    command = [sys.executable, __file__, name, "--inputs", str(n), "--child"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watched, started = psutil.Process(child.pid), time.monotonic()
    outcome: dict[str, Any] = {}
    while child.poll() is None:
        try:
            held = watched.memory_info().rss
        except psutil.NoSuchProcess:
            break
        if held > _KILL or time.monotonic() - started > _SECONDS:
            child.kill()
            seconds = time.monotonic() - started
            outcome["ended"] = f"ended at {held / 2**30:.1f} GiB after {seconds:.0f} s"
            break
        time.sleep(0.1)
    out, err = child.communicate()
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if lines:
        return json.loads(lines[-1])
    return outcome or {"ended": "failed: " + " ".join(err.strip().splitlines()[-1:])}


def cell(found: dict[str, Any]) -> str:
    """What a table says of a measurement."""
    if "ended" in found:
        return f"**{found['ended']}**"
    if "refused" in found:
        return found["refused"].replace("|", r"\|")
    before, peak = (found[key] / 2**30 for key in ("before", "peak"))
    return f"{peak:.2f} GiB ({before:.2f} before), {found['seconds']:.1f} s"


def main() -> None:
    """The table, or one measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("calls", nargs="*", default=list(CALLS))
    parser.add_argument("--inputs", nargs="+", type=int, default=[1, 1_000_000])
    parser.add_argument("--child", action="store_true")
    given = parser.parse_args()
    if given.child:
        measure(given.calls[0], given.inputs[0])
        return
    print("| call | " + " | ".join(f"{n:,} inputs" for n in given.inputs) + " |")
    print("|---" * (1 + len(given.inputs)) + "|")
    for name in given.calls:
        cells = [cell(run(name, n)) for n in given.inputs]
        print(f"| `{name}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
