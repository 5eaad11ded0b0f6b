"""Memory is planned before it is taken."""

from __future__ import annotations

import gc
import mmap
import tracemalloc

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
from marks import slow, wide

from deltauq import DeltaMethod, Network
from deltauq.curvature import GGN, OPG, Hessian
from deltauq.delta.memory_plan import AskedPairs, plan_memory
from deltauq.errors import InvalidInputError, MemoryLimitError
from deltauq.likelihoods import Categorical
from deltauq.linalg import Storage
from deltauq.prediction.result_memory import prediction_batch
from deltauq.runtime.memory import free_memory

SPEC = tf.TensorSpec([None, 784], "float32")


@pytest.fixture(scope="module")
def network():
    layers = keras.layers
    return Network(
        keras.Sequential([keras.Input((784,)), layers.Dense(300, "tanh"), layers.Dense(10)])
    )


@pytest.fixture(scope="module")
def narrow():
    """One that is fitted in a few seconds."""
    layers = keras.layers
    return Network(
        keras.Sequential([keras.Input((784,)), layers.Dense(40, "tanh"), layers.Dense(10)])
    )


def plan(network, operator, rank, free, batch_size=None, **options):
    asked = AskedPairs((operator,), Categorical(), 10, rank, **options)
    return plan_memory(network, SPEC, asked, free=free, batch_size=batch_size)


def test_limits_as_text_and_numbers(monkeypatch):
    held = psutil.Process().memory_info().rss
    assert free_memory(held + 10**9) == pytest.approx(10**9, rel=0.1)
    assert free_memory("64 GiB") == pytest.approx(2**36 - held, rel=0.1)
    assert free_memory("1KB") == 0
    assert 0 < free_memory(None) < psutil.virtual_memory().total
    for wrong in ("8 parsecs", "many", 0, -1, 1.5, True):
        with pytest.raises(InvalidInputError, match=r"memory_limit is not understood.*GiB"):
            free_memory(wrong)


@pytest.mark.parametrize("operator", [OPG, GGN, Hessian])
def test_a_plan_fits_or_is_refused(network, operator):
    roomy = plan(network, operator, 20, 2**34)
    tight = plan(network, operator, 20, roomy.vectors + (roomy.buffer + roomy.batch) // 3)
    assert tight.total <= roomy.vectors + (roomy.buffer + roomy.batch) // 3
    assert tight.batch_size <= roomy.batch_size
    with pytest.raises(MemoryLimitError, match=r"do not fit.*GiB.*238,510.*number as rank.*layers"):
        plan(network, operator, 200, 2**20)


@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
@pytest.mark.parametrize(
    ("curvature", "layers", "rowless"),
    [
        ("opg", None, False),
        wide("ggn", None, False),
        wide("ggn", "last", True),
        wide("hessian", None, True),
    ],
)
def test_a_fit_holds_no_more_than_its_plan(curvature, layers, rowless):
    """P of 200,000, with a bound on what is left out: the peak as Python counts it."""
    n_inputs, hidden, n_classes = (30, 200, 1000) if layers else (1000, 200, 3)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, n_inputs)).astype(np.float32)
    y = rng.integers(0, n_classes, 40)
    stack = [keras.layers.Dense(hidden, "tanh"), keras.layers.Dense(n_classes)]
    model = keras.Sequential([keras.Input((n_inputs,)), *stack])
    method = DeltaMethod(
        model, curvature, layers=layers, rank=30, l2=0.1, batch_size=20, progress=False
    )
    tracemalloc.start()
    try:
        method.fit(x, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    plan = method._fitted.problem.plan
    rows = 0 if rowless else plan.buffer
    assert peak <= plan.vectors + plan.batch + rows + 2**23  # for TensorFlow's objects in Python


def test_a_batch_size_that_was_chosen_is_kept(network):
    assert plan(network, GGN, 20, 2**34, batch_size=7).batch_size == 7
    with pytest.raises(MemoryLimitError, match="batches of 4096"):
        plan(network, GGN, 20, 2**30, batch_size=4096)


@pytest.mark.wide  # under a limit, in files: the test of vectors in files
@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_results_do_not_depend_on_the_limit(narrow):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1500, 784)).astype(np.float32), rng.integers(0, 10, 1500)
    options = {"rank": 20, "l2": 0.1, "bounds": False, "progress": False}

    def fit(limit):
        return DeltaMethod(narrow.model, "opg", memory_limit=limit, **options).fit(x, y)

    free = fit(None)
    gc.collect()  # what it freed must not count as held
    tight = fit(psutil.Process().memory_info().rss + 2**27)
    buffers = [method._fitted.problem.plan.buffer for method in (tight, free)]
    assert buffers[0] < x.shape[0] * narrow.n_params * 4 < buffers[1]  # bytes of all rows
    np.testing.assert_allclose(tight.predict(x[:9]).std, free.predict(x[:9]).std, rtol=1e-4)


def test_fit_refuses_what_does_not_fit(network):
    x, y = np.zeros((5, 784), np.float32), np.arange(5)
    limit = psutil.Process().memory_info().rss + 2**20
    with pytest.raises(MemoryLimitError, match="larger memory_limit"):
        DeltaMethod(network.model, rank=50, l2=0.1, memory_limit=limit).fit(x, y)


def test_prediction_shrinks_its_batches_or_refuses(network):
    def batch(free):
        return prediction_batch(network, SPEC, 10, free=free)

    assert 1 <= batch(2**25) < batch(2**34)
    many = prediction_batch(network, SPEC, 10, free=2**40, copies=10)
    assert many > batch(2**40)  # as many as fit: each batch costs passes of its own
    with pytest.raises(MemoryLimitError, match=r"Jacobian of one input.*10 outputs and 238,510"):
        batch(2**20)


def is_mapped(array):
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array is not None


@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
@pytest.mark.parametrize("curvature", ["opg", slow("hessian")])
def test_vectors_in_files_give_the_same_results_under_a_limit(narrow, tmp_path, curvature):
    """A rank that memory refuses fits into files; nothing is left behind in the directory."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 784)).astype(np.float32), rng.integers(0, 10, 300)
    options = {"curvature": curvature, "rank": 12, "l2": 0.5, "progress": False}
    plain = DeltaMethod(narrow.model, **options).fit(x, y)
    mapped = DeltaMethod(narrow.model, vectors_dir=tmp_path, **options).fit(x, y)
    assert is_mapped(mapped.eigenpairs.vectors)
    assert not is_mapped(plain.eigenpairs.vectors)
    assert not list(tmp_path.iterdir())
    np.testing.assert_allclose(mapped.eigenpairs.values, plain.eigenpairs.values, rtol=1e-5)
    np.testing.assert_allclose(mapped.predict(x[:9]).std, plain.predict(x[:9]).std, rtol=1e-4)


def test_files_take_the_vectors_out_of_the_plan(network):
    free = plan(network, OPG, 20, 2**34).total
    with pytest.raises(MemoryLimitError, match=r"vectors_dir="):
        plan(network, OPG, 2_000, free)
    found = plan(network, OPG, 2_000, free, in_files=True)
    assert found.vectors == 32 * network.n_params
    with pytest.raises(MemoryLimitError):  # dense matrices stay in memory
        plan(network, OPG, "full", free, in_files=True)


@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_a_directory_that_cannot_take_the_vectors_is_refused(network, tmp_path, monkeypatch):
    x, y = np.zeros((5, 784), np.float32), np.arange(5)
    with pytest.raises(InvalidInputError, match=r"vectors_dir is not a directory.*absent"):
        DeltaMethod(network.model, rank=5, l2=0.1, vectors_dir=tmp_path / "absent").fit(x, y)
    monkeypatch.setattr(Storage, "free", 1000)
    with pytest.raises(MemoryLimitError, match=r"do not fit on the disk.*larger disk"):
        DeltaMethod(network.model, rank=5, l2=0.1, vectors_dir=tmp_path, progress=False).fit(x, y)
