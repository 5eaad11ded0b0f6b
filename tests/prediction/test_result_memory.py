"""What grows with the inputs is planned before it is computed, or refused with figures."""

from __future__ import annotations

import re
import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf
from marks import wide
from ways import stumble

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
SITE = "prediction/result_memory.py:PredictionPlan.check"


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


@pytest.fixture(params=["one_sigmoid", wide("classes")])
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
    return int(re.search(r"([0-9,]+) inputs a call", str(error.error))[1].replace(",", ""))


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
    planned = joint_memory(problem.n_outputs, shown, dm._fitted.form(1).row_bytes).n_bytes(len(x))
    assert 0.8 < peak(lambda: dm.predict_joint(x)) / planned < 1.1
    x = RNG.normal(size=(10_000, D))
    planned = prediction_memory(shown).n_bytes(len(x))
    assert 0.6 < peak(lambda: dm.predict(x)) / planned < 1.3
    groups = np.arange(1000 // shown)
    planned = mean_memory(shown, dm._fitted.form(1)).n_bytes(len(groups))
    assert 0.6 < peak(lambda: dm.predict_mean(x[: len(groups)], groups)) / planned < 1.1


def test_a_joint_prediction_is_refused_before_anything_is_computed(dm, free, monkeypatch):
    x = RNG.normal(size=(20_000, D))
    free(2**24)
    with monkeypatch.context() as patch:
        patch.setattr(Linearization, "rows", None)  # a call of it would be a TypeError
        with stumble(SITE, "predict_mean(x, groups, weights) has means and contrasts") as caught:
            dm.predict_joint(x)
        match = r"covariances between all inputs.*at most 0.0[12] GiB.* GiB for 20,000 inputs"
        assert re.search(match, str(caught.error))
        with pytest.raises(MemoryLimitError, match="for 20,000 inputs"):
            dm.predict_joint(tf.data.Dataset.from_tensors(x))
    most = fits(caught)
    assert peak(lambda: dm.predict_joint(x[:most])) < 1.1 * 2**24
    with pytest.raises(MemoryLimitError):
        dm.predict_joint(x[: most + 1])
    assert np.all(np.isfinite(dm.predict_mean(x).std))


def test_predictions_that_do_not_fit_are_refused_with_how_many_do(classes, free):
    x = RNG.normal(size=(20_000, D))
    free(2**23)
    with stumble(SITE, "predict(x, 'top5') the most probable of many classes") as caught:
        classes.predict(x)
    match = r"covariances \[N, 6, 6\] do not fit.*0.01 GiB.*0.04 GiB for 20,000 inputs"
    assert re.search(match, str(caught.error))
    assert len(classes.predict(x[: fits(caught)])) == fits(caught)
    one = classes.predict_mean(x)
    free(2**30)
    np.testing.assert_allclose(one.mean[0], classes.predict(x).mean.mean(axis=0), rtol=1e-9)
    free(2**23)
    small = tf.data.Dataset.from_tensor_slices(x).batch(1000)
    with pytest.raises(MemoryLimitError, match=r"do not fit.*for [0-9],000 inputs"):
        classes.predict(small)
    with pytest.raises(MemoryLimitError, match="do not fit"):
        classes.predict(x, classes="top4")
    assert len(classes.predict(small.take(2))) == 2000


def test_means_of_too_many_groups_are_refused_with_how_many_fit(classes, free):
    x = RNG.normal(size=(3000, D))
    free(2**25)
    with stumble(SITE, "choose fewer parameters with layers=..., or pass a larger") as caught:
        classes.predict_mean(x, np.arange(3000))
    match = r"means of 6 outputs, their gradients of 24 .*for 3,000 groups.*groups a call"
    assert re.search(match, str(caught.error))
    most = int(re.search(r"at most ([0-9]+) groups", str(caught.error))[1])
    assert 50 < most < 3000
    assert peak(lambda: classes.predict_mean(x[:most], np.arange(most))) < 1.1 * 2**25
    with pytest.raises(MemoryLimitError):
        classes.predict_mean(x, np.arange(3000) % (most + 1))


def test_not_even_one_input_fits(classes, free):
    free(2400)
    """Fewer of the classes do, and a larger limit."""
    x = RNG.normal(size=(1, D))
    free(2400)
    with stumble(SITE, "pass a larger memory_limit; predict_mean(x, groups) has") as caught:
        classes.predict(x)
    assert "of which not even one fits" in caught.error.received
    assert "at most" not in caught.error.remedy
    some = classes.predict(x, classes="top1")
    free(2**30)
    whole = classes.predict(x)
    np.testing.assert_allclose(some.std[0, 0], whole.std[0, whole.mean[0].argmax()], rtol=1e-9)


def test_the_jacobian_of_one_input_that_does_not_fit(classes, free):
    wide = keras.Sequential(
        [keras.Input((D,)), keras.layers.Dense(500, "tanh"), keras.layers.Dense(6)]
    )
    x, options = RNG.normal(size=(5, D)), {"l2": 0.1, "rank": 3, "progress": False}
    whole, last = (
        DeltaMethod(wide, layers=layers, **options).fit(x, np.arange(5))
        for layers in (None, ["*dense*/bias"])
    )
    free(80_000)
    with stumble("prediction/result_memory.py:_jacobian_bytes", "select fewer layers"):
        whole.predict(x[:1])
    assert np.all(last.predict(x[:1]).std > 0)
    free(2**30)
    assert np.all(whole.predict(x[:1]).std > 0)
