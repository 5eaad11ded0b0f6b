"""Several threads, forked processes and containers: what a process shares, or has less of."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import subprocess
import sys
import threading
import time

import joblib.externals.loky.backend.context as loky
import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
import threadpoolctl
from marks import slow, wide

from deltauq import DeltaMethod
from deltauq.errors import ForkedProcessError
from deltauq.runtime import memory, threads
from deltauq.runtime.memory import free_memory

CALLS = {
    "predict": lambda dm, x: (dm.predict(x).covariance, dm.predict(x).std_bounds[1]),
    "predict_joint": lambda dm, x: (dm.predict_joint(x).covariance,),
    "refine": lambda dm, x: (dm.refine(x[:2], rtol=0.2).std,),
}


@pytest.fixture(scope="module")
def fitted():
    """Rows of a convolution and of a wide layer: BLAS forms the ones, and multiplies both."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 16, 16, 1)).astype("float32"), rng.integers(0, 3, 40)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            keras.layers.Conv2D(4, 3, activation="tanh"),
            keras.layers.Conv2D(8, 3, strides=2, activation="tanh"),
            keras.layers.Flatten(),
            keras.layers.Dense(12, activation="tanh"),
            keras.layers.Dense(3),
        ]
    )
    options = {"l2": 1e-2, "rank": 24, "likelihood": "categorical", "progress": False}
    return DeltaMethod(model, "ggn", **options).fit(x, y), x


def blas_threads():
    return [
        one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"
    ]


def set_blas_threads(count):
    """From a thread that ends: threadpoolctl obeys the first that sets limits, while it lives."""
    thread = threading.Thread(target=threadpoolctl.threadpool_limits, args=(count, "blas"))
    thread.start()
    thread.join()


@pytest.fixture
def two_blas_threads():
    before = blas_threads()[0]
    set_blas_threads(2)
    yield
    set_blas_threads(before)


@pytest.mark.filterwarnings("ignore:.* did not reach rtol")
@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
@pytest.mark.parametrize("count", [wide(6), slow(500)])
def test_eight_threads_predict_to_the_bit_what_one_does_and_leave_blas_alone(
    fitted, two_blas_threads, count
):
    """Every thread asks all three kinds, refine a tenth of the time, of inputs in many batches."""
    dm, x = fitted
    methods = {size: copy.copy(dm) for size in (None, 1, 7)}
    for size, method in methods.items():
        method.batch_size = size
    cheap = list(itertools.product(("predict", "predict_joint"), methods, ((0, 3), (2, 17))))
    dear = [("refine", None, (0, 3)), ("refine", None, (4, 6))]

    def ask(kind):
        call, size, some = kind
        return [part.tobytes() for part in CALLS[call](methods[size], x[slice(*some)])]

    wrong, done = [], []

    def work(number):
        for k in range(count):
            kinds = dear if k % 10 == 3 else cheap
            kind = kinds[(5 * k + 7 * number) % len(kinds)]
            done.append(kind[0])
            if ask(kind) != expected[kind]:
                wrong.append(kind)

    before = blas_threads()
    assert set(before) == {2}
    expected = {kind: ask(kind) for kind in cheap + dear}
    running = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(8)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(3600 if count > 100 else 300)
    assert not any(thread.is_alive() for thread in running)
    assert len(done) == 8 * count
    assert set(done) == set(CALLS)
    assert wrong == []
    assert blas_threads() == before


def test_rows_and_products_never_meet(two_blas_threads):
    """Whoever forms rows has one thread of BLAS, whoever multiplies has all of them."""
    seen, errors = [], []

    def form(_):
        seen.append(blas_threads())

    def work():
        try:
            for _ in range(10):
                threads.start()
                assert set(blas_threads()) == {2}
                threads.side_by_side(form, range(2))
                assert set(blas_threads()) == {2}
                threads.stop()
        except AssertionError as error:
            errors.append(error)
        finally:
            threads.stop()

    running = [threading.Thread(target=work) for _ in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert not any(thread.is_alive() for thread in running)
    assert not errors
    assert {count for counts in seen for count in counts} == {1}
    assert set(blas_threads()) == {2}
    with threadpoolctl.threadpool_limits(1, user_api="blas"):  # others may set limits afterwards
        assert set(blas_threads()) == {1}


def test_an_error_in_a_prediction_or_in_a_row_holds_up_nobody(fitted):
    dm, x = fitted
    dm.predict_joint(x[:2])

    def fails(_):
        raise ZeroDivisionError

    kept = []  # tracebacks hold the frames that failed
    with pytest.raises(ZeroDivisionError) as error:
        threads.side_by_side(fails, [1])
    kept.append(error)
    broken = copy.copy(dm)
    broken._fitted = dm._fitted.with_pairs(
        dm._fitted.prior_pairs, None
    )  # fails between rows and products
    for call in (broken.predict, broken.predict_joint):
        with pytest.raises(AttributeError) as error:
            call(x[:2])
        kept.append(error)
    thread = threading.Thread(target=lambda: dm.predict_joint(x[:2]), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    dm.predict(x[:2])


def test_a_slow_dataset_holds_up_no_other_thread(fitted):
    """Between its batches the thread that waits for them is not in the way."""
    dm, x = fitted
    dm.predict_joint(x[:2])
    waiting, go_on = threading.Event(), threading.Event()

    def batches():
        yield x[:2]
        waiting.set()
        go_on.wait(60)
        yield x[2:4]

    spec = tf.TensorSpec([None, 16, 16, 1])
    dataset = tf.data.Dataset.from_generator(batches, output_signature=spec)
    thread = threading.Thread(target=lambda: dm.predict(dataset), daemon=True)
    thread.start()
    assert waiting.wait(60)
    time.sleep(0.2)  # until the first batch is predicted
    dm.predict_joint(x[:2])
    go_on.set()
    thread.join(60)
    assert not thread.is_alive()


def _in_child(queue, dm, x):
    began = time.monotonic()
    results = []
    for call in (
        lambda: dm.predict(x),
        lambda: dm.posterior(),
        lambda: DeltaMethod(dm.model, "ggn", l2=1.0).fit(x, np.zeros(len(x), int)),
        lambda: DeltaMethod.load("nowhere"),
    ):
        try:
            call()
            results.append(None)
        except ForkedProcessError as error:
            results.append(str(error))
    queue.put((time.monotonic() - began, results))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork
def test_a_child_of_a_fork_is_told_at_once_that_tensorflow_is_lost(fitted):
    dm, x = fitted
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue, dm, x[:3]))
    child.start()
    seconds, results = queue.get(timeout=60)
    child.join(60)
    assert seconds < 5
    for text in results:
        assert "forked from one in which TensorFlow was running" in text
        assert "get_context('spawn') or 'forkserver'" in text
    dm.predict(x[:3])  # the parent goes on


CHILD_THAT_WORKS = """
import multiprocessing, numpy as np, keras
from deltauq import DeltaMethod
from deltauq.runtime import threads
threads.side_by_side(len, ["ab"])  # the pool of the parent has threads
def child(queue):
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    dm = DeltaMethod(model, "ggn", l2=0.1, likelihood="categorical", progress=False).fit(x, y)
    queue.put(float(dm.predict_joint(x[:2]).covariance.sum()))
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(queue,))
process.start()
print("got", queue.get(timeout=100))
"""


@pytest.mark.slow
def test_a_child_forked_before_tensorflow_ran_works():
    run = [sys.executable, "-W", "ignore", "-c", CHILD_THAT_WORKS]
    found = subprocess.run(run, capture_output=True, text=True, timeout=200)
    assert "got" in found.stdout, found.stderr[-2000:]


# Containers: fake files of their control groups.

GIB = 2**30


def groups(monkeypatch, tmp_path, own, files):
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (tmp_path / "self").write_text(own)
    monkeypatch.setattr(memory, "_MOUNT", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_OWN", tmp_path / "self")
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: type("Memory", (), {"available": 100 * GIB})
    )


V2 = {"memory.max": 8 * GIB, "memory.current": 5 * GIB, "memory.stat": f"inactive_file {GIB}"}
V1 = {
    "memory.limit_in_bytes": 6 * GIB,
    "memory.usage_in_bytes": 3 * GIB,
    "memory.stat": f"cache 7\ntotal_inactive_file {GIB}",
}


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        ("0::/\n", V2, 4),  # inside of a container with a name space of its own
        ("0::/docker/abc\n", V2, 4),  # its own group is what is mounted
        ("0::/a/b\n", {f"a/b/{k}": v for k, v in V2.items()}, 4),
        ("0::/a/b\n", {f"a/{k}": v for k, v in V2.items()}, 4),  # a group around it
        ("0::/\n", V2 | {"memory.max": "max"}, 100),
        ("0::/\n", V2 | {"memory.current": 20 * GIB}, 0),
        ("0::/\n", {"memory.max": 8 * GIB, "memory.current": 5 * GIB}, 3),
        ("4:memory:/x\n3:cpu:/\n0::/\n", {f"memory/x/{k}": v for k, v in V1.items()}, 4),
        ("4:cpu,memory:/docker/y\n", {f"memory/{k}": v for k, v in V1.items()}, 4),
        ("4:memory:/\n", {f"memory/{k}": 2**63 - 4096 for k in V1 if "limit" in k}, 100),
        ("", {}, 100),
    ],
)
@pytest.mark.quick
def test_free_memory_is_what_the_container_leaves(monkeypatch, tmp_path, own, files, left):
    groups(monkeypatch, tmp_path, own, files)
    assert memory.available_memory() == left * GIB
    assert free_memory(None) == int(0.8 * left * GIB)


def test_a_machine_without_control_groups_has_what_psutil_says(monkeypatch, tmp_path):
    groups(monkeypatch, tmp_path, "", {})
    (tmp_path / "self").unlink()
    assert memory.available_memory() == 100 * GIB


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        ({"/sys/fs/cgroup/cpu.max": "max 100000"}, 16),
        (
            {
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            3,
        ),
    ],
)
def test_the_pool_has_the_processors_that_the_container_leaves(
    monkeypatch, tmp_path, files, expected
):
    def opened(path, *arguments):
        place = tmp_path / path.replace("/", "_")
        place.write_text(files[path])
        return open(place, *arguments)

    monkeypatch.setattr(loky, "open", opened, raising=False)
    monkeypatch.setattr(loky.os.path, "exists", lambda path: path in files)
    monkeypatch.setattr(loky.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(loky.os, "sched_getaffinity", lambda pid: range(16), raising=False)
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    assert threads._Workers().pool._max_workers == expected


@pytest.mark.quick
def test_the_pool_has_the_processors_of_the_affinity(monkeypatch):
    monkeypatch.setattr(loky.os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert threads._Workers().pool._max_workers == 1
