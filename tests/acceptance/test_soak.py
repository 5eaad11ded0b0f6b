"""A process that predicts and fits for long holds no more memory, and traces nothing anew."""

from __future__ import annotations

import gc

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
from marks import slow
from tensorflow.python.framework import func_graph
from tiny_methods import X, fit, network

pytestmark = pytest.mark.filterwarnings("ignore")

CURVATURES = ("ggn", "opg", "hessian", "sandwich")


@pytest.fixture
def traces(monkeypatch):
    """The functions that TensorFlow has traced since the test began."""
    made, begin = [], func_graph.FuncGraph.__init__

    def counted(self, name, *arguments, **options):
        made.append(name)
        begin(self, name, *arguments, **options)

    monkeypatch.setattr(func_graph.FuncGraph, "__init__", counted)
    return made


@pytest.fixture
def functions(monkeypatch):
    """The `tf.function`s that were made since the test began, or since the list was emptied."""
    made, function = [], tf.function

    def recorded(*arguments, **options):
        made.append(function(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(tf, "function", recorded)
    return made


def resident():
    """Bytes that this process has in memory, without what is garbage."""
    gc.collect()
    return psutil.Process().memory_info().rss


def model():
    return network(keras.layers.Dense(8, "tanh", dtype="float64"))


@pytest.mark.parametrize("count", [200, slow(10_000)])
def test_predictions_of_any_length_trace_nothing_after_the_first_few(traces, count):
    method = fit(model(), rank=10, route="sketch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, X.shape[1]))
    for done in range(count):
        method.predict(x[: 1 + int(rng.integers(len(x)))])
        if done == 20:
            first = len(traces)
        if done == 100:
            before = resident()
    assert len(traces) == first
    assert resident() <= 1.02 * before


@pytest.mark.parametrize("count", [8, slow(200)])
def test_fits_retrace_nothing_and_leave_nothing_behind(traces, functions, count):
    """Of one model, four curvatures in turns: in the end memory is that of the first fifth.

    A fit traces its functions once each, as many as the first fit of its curvature did, and takes
    none of an earlier fit: the model may have been changed in place between the two.
    """
    one, counts, memory = model(), [], []
    for number in range(count):
        before = len(traces)
        fit(one, curvature=CURVATURES[number % 4], rank=5, route="auto").predict(X)
        counts.append(len(traces) - before)
        assert max(each.experimental_get_tracing_count() for each in functions) == 1
        functions.clear()
        if number % 4 == 3:
            memory.append(resident())
    assert all(later <= first for later, first in zip(counts[4:], counts, strict=False))
    if count == 200:  # the first fits of all load what TensorFlow needs
        assert max(memory) <= 1.02 * max(memory[:10])
