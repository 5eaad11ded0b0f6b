"""What grows with the inputs is planned before it is computed, or refused with figures."""

from __future__ import annotations

import re
import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltauq import DeltaMethod
from deltauq.errors import MemoryLimitError
from deltauq.prediction import prediction_memory
from deltauq.prediction.averaging import mean_memory
from deltauq.prediction.joint import joint_memory
from deltauq.prediction.linearization import Linearization
from deltauq.prediction.result_memory import ResultMemory

pytestmark = [pytest.mark.filterwarnings("ignore:the weights are far from a minimum")]

RNG = np.random.default_rng(0)
D = 3


def fitted(n_outputs, activation, likelihood, y):
    model = keras.Sequential(
        [
            keras.Input((D,), dtype="float64"),
            keras.layers.Dense(n_outputs, activation=activation, dtype="float64"),
        ]
    )
    dm = DeltaMethod(model, "ggn", l2=0.1, rank="full", likelihood=likelihood, progress=False)
    return dm.fit(RNG.normal(size=(len(y), D)), y)


@pytest.fixture(scope="module")
def one_sigmoid():
    return fitted(1, "sigmoid", "binary", RNG.integers(0, 2, 50))


@pytest.fixture(scope="module")
def classes():
    return fitted(6, None, "categorical", RNG.integers(0, 6, 50))


@pytest.fixture(params=["one_sigmoid", "classes"])
def dm(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def free(monkeypatch):
    """So many bytes are left by the limit."""

    def leave(n_bytes):
        monkeypatch.setattr("deltauq.delta.answers.free_memory", lambda limit: n_bytes)

    return leave


def peak(function):
    function()  # what is made once
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def fits(error):
    """How many inputs the error says fit."""
    return int(re.search(r"([0-9,]+) inputs at a time", str(error.value))[1].replace(",", ""))


@pytest.mark.parametrize(("each", "square"), [(7, 0), (0, 5), (7, 5)])
def test_the_most_inputs_that_fit_are_the_most(each, square):
    result = ResultMemory("results", "fewer", each=each, square=square)
    for free in (0, 4, 12, 100, 12_345):
        most = result.most(free)
        assert result.n_bytes(most) <= free < result.n_bytes(most + 1)


def test_a_result_takes_what_was_planned(dm):
    problem = dm._fitted.problem
    shown = problem.n_shown
    x = RNG.normal(size=(1000 // shown, D))
    planned = joint_memory(problem.n_outputs, shown).n_bytes(len(x))
    assert 0.8 < peak(lambda: dm.predict_joint(x)) / planned < 1.1
    x = RNG.normal(size=(10_000, D))
    planned = prediction_memory(shown).n_bytes(len(x))
    assert 0.6 < peak(lambda: dm.predict(x)) / planned < 1.3
    groups = np.arange(1000 // shown)
    planned = mean_memory(shown, dm.eigenpairs).n_bytes(len(groups))
    assert 0.6 < peak(lambda: dm.predict_mean(x[: len(groups)], groups)) / planned < 1.1


def test_a_joint_prediction_is_refused_before_anything_is_computed(dm, free, monkeypatch):
    x = RNG.normal(size=(20_000, D))
    free(2**24)
    with monkeypatch.context() as patch:
        patch.setattr(Linearization, "rows", None)  # a call of it would be a TypeError
        with pytest.raises(
            MemoryLimitError,
            match=r"covariances between all inputs.*at most 0.0[12] GiB.* GiB for 20,000 inputs"
            r".*predict_mean\(x, groups, weights\)",
        ) as error:
            dm.predict_joint(x)
        with pytest.raises(MemoryLimitError, match="for 20,000 inputs"):
            dm.predict_joint(tf.data.Dataset.from_tensors(x))
    most = fits(error)
    assert peak(lambda: dm.predict_joint(x[:most])) < 1.1 * 2**24
    with pytest.raises(MemoryLimitError):
        dm.predict_joint(x[: most + 1])
    assert np.all(np.isfinite(dm.predict_mean(x).std))


def test_predictions_that_do_not_fit_are_refused_with_how_many_do(classes, free):
    x = RNG.normal(size=(20_000, D))
    free(2**23)
    with pytest.raises(
        MemoryLimitError,
        match=r"covariances \[N, 6, 6\] do not fit.*0.01 GiB.*0.04 GiB for 20,000 inputs",
    ) as error:
        classes.predict(x)
    assert len(classes.predict(x[: fits(error)])) == fits(error)
    small = tf.data.Dataset.from_tensor_slices(x).batch(1000)
    with pytest.raises(MemoryLimitError, match=r"do not fit.*for [0-9],000 inputs"):
        classes.predict(small)
    with pytest.raises(MemoryLimitError, match="do not fit"):
        classes.predict(x, classes="top4")
    assert len(classes.predict(small.take(2))) == 2000


def test_means_of_too_many_groups_are_refused_with_how_many_fit(classes, free):
    x = RNG.normal(size=(3000, D))
    free(2**25)
    with pytest.raises(
        MemoryLimitError,
        match=r"means of 6 outputs, their gradients of 24 .*for 3,000 groups.*groups in a call",
    ) as error:
        classes.predict_mean(x, np.arange(3000))
    most = int(re.search(r"at most ([0-9]+) groups", str(error.value))[1])
    assert 50 < most < 3000
    assert peak(lambda: classes.predict_mean(x[:most], np.arange(most))) < 1.1 * 2**25
    with pytest.raises(MemoryLimitError):
        classes.predict_mean(x, np.arange(3000) % (most + 1))


def test_not_even_one_input_fits(classes, free):
    free(1500)
    with pytest.raises(MemoryLimitError, match=r"memory_limit.*not even one fits"):
        classes.predict(RNG.normal(size=(1, D)))
