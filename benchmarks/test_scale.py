"""Large models and long data: time and peak memory, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from published_network import mnist
from setting import layers, operator

from deltauq.curvature import OPG
from deltauq.curvature.eigenpairs import eigenpairs

HERE = Path(__file__).parent
PLACES = [str(HERE), str(HERE.parent / "tests" / "helpers")]
HEAD = f"""
import json, sys, time
sys.path[:0] = {PLACES!r}
import keras, numpy as np, tensorflow as tf
import datasets, setting
from deltauq import DeltaMethod
from peak_memory import peak_memory

def report(started):
    seconds = time.perf_counter() - started
    print(json.dumps({{"seconds": seconds, "peak GiB": peak_memory()}}))
"""

RESNET = """
arrays = datasets.load("cifar10.npz")
x, y = arrays["x_train"][:2000] / np.float32(255), arrays["y_train"][:2000].astype(int)
model = setting.resnet18()
started = time.perf_counter()
dm = DeltaMethod(
    model,
    "opg",
    rank=20,
    l2=1e-2,
    layers={layers},
    bounds=False,
    memory_limit="8GiB",
    progress=False,
).fit(x, y)
assert dm.eigenpairs.rank == 20
report(started)
"""

LAST_STAGE = """[v.path.split("/")[0] for v in model.trainable_variables[-16:]]"""

STREAM = """
model = keras.Sequential(
    [keras.Input((30,)), keras.layers.Dense(100, "tanh"), keras.layers.Dense(5)]
)

def batch(number):
    seed = tf.stack([number, tf.constant(0, tf.int64)])
    x = tf.random.stateless_normal([1000, 30], seed)
    return x, tf.argmax(x[:, :5], axis=1)

data = tf.data.Dataset.range({n} // 1000).map(batch)
started = time.perf_counter()
DeltaMethod(model, "opg", rank=20, l2=1e-2, progress=False).fit(data)
report(started)
"""


def measured(program):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HEAD + textwrap.dedent(program)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def once(benchmark, program):
    """One run; the seconds of `fit` alone and the peak memory of the process go to the table."""
    found = benchmark.pedantic(measured, (program,), rounds=1)
    benchmark.extra_info.update({"seconds of fit": found["seconds"], "peak GiB": found["peak GiB"]})
    return found


@pytest.mark.benchmark(group="OPG, ResNet-18 (11 million parameters), 2,000 images, K = 20, 8 GiB")
@pytest.mark.parametrize("part", ["whole", "last stage"])
def test_resnet(benchmark, part):
    benchmark.extra_info["case"] = part
    found = once(benchmark, RESNET.format(layers="None" if part == "whole" else LAST_STAGE))
    assert found["seconds"] < 600
    assert found["peak GiB"] < 8


@pytest.mark.benchmark(group="OPG, streamed examples, P = 3,605, K = 20")
def test_memory_does_not_grow_with_examples(benchmark):
    short = measured(STREAM.format(n=10_000))
    long = once(benchmark, STREAM.format(n=1_000_000))
    assert long["peak GiB"] < 1.1 * short["peak GiB"]
    benchmark.extra_info["peak GiB of 10,000"] = short["peak GiB"]


AXES = {
    "examples": [{"n": n, "rank": 40, "units": 100} for n in (2_000, 4_000, 8_000, 16_000)],
    "eigenpairs": [{"n": 16_000, "rank": rank, "units": 100} for rank in (40, 80, 160, 320)],
    "parameters": [{"n": 4_000, "rank": 40, "units": units} for units in (50, 100, 200, 400)],
}


@pytest.mark.benchmark(group="growth of the time of OPG eigenpairs: exponents")
@pytest.mark.parametrize("axis", AXES)
def test_growth(benchmark, axis):
    """The slope of log time against log N, K or P; linear is 1."""
    times, sizes = [], []
    for setting in AXES[axis]:
        x, y = mnist("train", setting["n"])
        model = keras.Sequential(
            [
                keras.Input((784,)),
                layers.Dense(setting["units"], "tanh"),
                layers.Dense(10),
            ]
        )
        curvature = operator(OPG, model, x.reshape(len(x), -1), y, l2=1e-2, batch_size=256)
        curvature.matmat(np.zeros((curvature.shape[0], 1), np.float32))  # compile
        started = time.perf_counter()
        eigenpairs(curvature, setting["rank"])
        times.append(time.perf_counter() - started)
        known = {"examples": setting["n"], "eigenpairs": setting["rank"]}
        sizes.append(known.get(axis, curvature.shape[0]))
    benchmark.pedantic(lambda: None, rounds=1)
    slope = float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
    benchmark.extra_info["case"] = axis
    benchmark.extra_info["exponent"] = slope
    for size, seconds in zip(sizes, times, strict=True):
        benchmark.extra_info[f"seconds at {size:,}"] = seconds
    assert slope <= 1.1
