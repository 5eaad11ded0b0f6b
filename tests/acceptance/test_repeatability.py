"""Whole fits in processes of their own: the same bits again, and no dependence on threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

FIT = """
import json, sys
import keras, numpy as np, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
from deltauq import DeltaMethod

keras.utils.set_random_seed(0)
layers = keras.layers
model = keras.Sequential([
    keras.Input((10, 10, 1)), layers.Conv2D(6, 3, activation="tanh"), layers.MaxPooling2D(2),
    layers.Flatten(), layers.Dense(40, activation="tanh"), layers.Dense(4),
])
rng = np.random.default_rng(0)
x, y = rng.normal(size=(300, 10, 10, 1)).astype("float32"), rng.integers(0, 4, 300)
found = {}
for curvature in ("opg", "ggn", "hessian"):
    dm = DeltaMethod(model, curvature, rank=12, l2=0.1, progress=False).fit(x, y)
    found[curvature] = [float.hex(float(s)) for s in dm.predict(x[:20]).std.ravel()]
print(json.dumps(found), flush=True)
"""


# Two processes of three fits. One process: test_delta_method.py; what is loaded, to the bit, in
# another process: delta/files/test_fits.py.
pytestmark = pytest.mark.wide


def run(threads, code=FIT):
    environment = os.environ | {"OPENBLAS_NUM_THREADS": str(threads)}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(threads)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.fixture(scope="module")
def runs():
    """Two processes; the second one goes on to what float32 sequences meet."""
    return [run(2), run(2, FIT + SEQUENCES)]


def results(done):
    assert done.stdout, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[0])


def values(done, curvature):
    return np.array([float.fromhex(text) for text in results(done)[curvature]])


@pytest.mark.parametrize("curvature", ["opg", "ggn"])
def test_the_same_bits_in_another_process(runs, curvature):
    assert results(runs[0])[curvature] == results(runs[1])[curvature]


def test_the_exact_hessian_repeats_to_1e_6(runs):
    """Derivatives of derivatives add up in an order that changes from run to run."""
    first, second = (values(found, "hessian") for found in runs)
    np.testing.assert_allclose(first, second, rtol=1e-6)


@pytest.mark.slow
def test_threads_do_not_matter_beyond_rounding(runs):
    alone = run(1)
    for curvature in ("opg", "ggn", "hessian"):
        two, one = (values(found, curvature) for found in (runs[1], alone))
        np.testing.assert_allclose(two, one, rtol=1e-4)


SEQUENCES = """
from deltauq import Network
from deltauq.network.jacobians import PerExample, evaluated, stacked

# A weight used in a loop goes example by example, through [1, T, D] times a matrix.
x = keras.Input((7, 16))
z = layers.Dense(32, activation="tanh")(x)
z = layers.LSTM(8, return_sequences=True)(z)
z = layers.Dense(16, activation="tanh")(z)
model = keras.Model(x, layers.Dense(3)(layers.Flatten()(z)))
network = Network(model)
inputs = np.random.default_rng(0).normal(size=(64, 7, 16)).astype("float32")
per_example = PerExample(network, tf.constant(inputs[:3]))
identity = tf.eye(3, batch_shape=[64])
factors = tf.function(lambda p, x: per_example.factors(p, x, lambda _: identity)[0])
found = stacked(evaluated(factors(network.params, tf.constant(inputs))))

with tf.GradientTape(persistent=True) as tape:
    tape.watch(network.params)
    logits = network.output(network.unflatten(network.params), tf.constant(inputs))
    total = tf.reduce_sum(logits, axis=0)
batch = tape.jacobian(total, network.params, experimental_use_pfor=False).numpy()
np.testing.assert_allclose(found.sum(axis=0), batch, rtol=1e-4, atol=1e-4 * abs(batch).max())
print("whole")
"""


def test_float32_sequences_do_not_meet_the_broken_product(runs):
    """TensorFlow 2.21 corrupts memory in float32 products of [B, 1, T, D] with one matrix."""
    done = runs[1]
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "whole"
