"""How often data are read, made into arrays and checked, and who is told of it."""

from __future__ import annotations

from collections import Counter

import cases
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from deltauq import DeltaMethod
from deltauq.curvature import Hessian
from deltauq.data import Batches
from deltauq.data.arrays import ArrayInputs
from deltauq.data.batch_reader import PassListener
from deltauq.data.inputs import InputBatches
from deltauq.likelihoods import Categorical
from deltauq.network import Network

N, F, C, SIZE = 23, 4, 3, 5
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, F)), RNG.integers(0, C, N)
N_ELEMENTS = -(-N // SIZE)
OPTIONS = {"likelihood": Categorical(), "n_outputs": C, "dtype": "float64", "batch_size": 4}

#: What holds the same inputs.
HOLDERS = {
    "array": X,
    "list": X.tolist(),
    "frame": pd.DataFrame(X, columns=list("abcd")),
    "tensor": tf.constant(X),
}


class Elements(keras.utils.PyDataset):
    """Batches of five rows; counts how often each is read."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays, self.reads = arrays, Counter()

    def __len__(self):
        return N_ELEMENTS

    def __getitem__(self, k):
        self.reads[k] += 1
        parts = [array[k * SIZE : (k + 1) * SIZE] for array in self.arrays]
        return tuple(parts) if parts[1:] else parts[0]


@pytest.fixture
def counts(monkeypatch):
    """Calls that make inputs into arrays, and rows whose inputs are checked."""
    seen: Counter[str] = Counter()

    def count(where, name, what, number):
        original = getattr(__import__(where, fromlist=[name]), name)

        def counted(x, *args, **options):
            seen[what] += number(x)
            return original(x, *args, **options)

        monkeypatch.setattr(f"{where}.{name}", counted)

    for where in ("data.streams",):
        count(f"deltauq.{where}", "as_nest", "made", lambda x: 1)
    for where in ("data.inputs", "network.probe_rows"):
        count(f"deltauq.{where}", "checked_inputs", "checked", len)
    return seen


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    options = {"dtype": "float64", "kernel_regularizer": keras.regularizers.L2(0.05)}
    options["bias_regularizer"] = options["kernel_regularizer"]
    return keras.Sequential([keras.Input((F,), dtype="float64"), keras.layers.Dense(C, **options)])


def test_a_pass_over_a_dataset_reads_and_checks_each_element_once(counts):
    for arrays, open_ in (
        ((X, Y), lambda source: Batches(source, **OPTIONS)),
        ((X,), lambda source: InputBatches(source, dtype="float64", batch_size=4)),
    ):
        source = Elements(*arrays)
        data = open_(source)
        for _ in range(2):
            source.reads.clear()
            counts.clear()
            assert sum(tf.nest.flatten(batch)[0].shape[0] for batch in data) == N
            assert source.reads == dict.fromkeys(range(N_ELEMENTS), 1)
            assert counts == {"made": N_ELEMENTS, "checked": N}


def test_a_training_set_reads_a_dataset_once_to_know_it(counts):
    source = Elements(X, Y)
    assert Batches(source, **OPTIONS).n_rows == N
    assert source.reads == dict.fromkeys(range(N_ELEMENTS), 1)
    assert counts == {"made": N_ELEMENTS, "checked": N}


@pytest.mark.parametrize("holder", HOLDERS)
def test_arrays_are_made_and_checked_once_whatever_the_passes(counts, holder):
    for open_ in (
        lambda x: Batches(x, Y, **OPTIONS),
        lambda x: InputBatches(x, dtype="float64", batch_size=4),
    ):
        counts.clear()
        data = open_(HOLDERS[holder])
        for _ in range(3):
            assert len(list(data)) == 6
        assert len(list(data.with_listener(PassListener()))) == 6
        assert counts == {"made": 1, "checked": N}


def test_what_was_made_into_arrays_is_not_made_again(counts):
    inputs = InputBatches(HOLDERS["frame"], dtype="float64", batch_size=4)
    assert isinstance(inputs.source, ArrayInputs)
    counts.clear()
    Batches(inputs.source, Y, **OPTIONS)
    assert counts["made"] == 0


@pytest.mark.filterwarnings("ignore:the weights are far")
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_fit_and_a_prediction_make_the_inputs_into_arrays_once(counts, model, holder):
    """Of a fit, a probe checks its few rows, and the training set all."""
    method = DeltaMethod(model, "ggn", likelihood="categorical", progress=False)
    method.fit(HOLDERS[holder], Y)
    assert counts == {"made": 1, "checked": 16 + N}
    counts.clear()
    method.predict(HOLDERS[holder])
    assert counts == {"made": 1, "checked": N}


@pytest.mark.parametrize("room", [2**29, 0])
def test_a_hessian_that_keeps_activations_reads_once_and_another_one_for_every_product(room):
    case = cases.case("tanh")
    source = Elements(case.x, case.y)
    source.arrays = tuple(np.resize(array, (N, *array.shape[1:])) for array in source.arrays)
    data = Batches(source, **OPTIONS)
    source.reads.clear()
    hessian = Hessian(Network(case.model), "categorical", data, buffer_bytes=room)
    before = source.reads.total()
    for _ in range(3):
        hessian.matvec(np.ones(hessian.shape[0]))
    kept = room > 0
    assert hessian.activations == ("kept" if kept else "formed")
    assert before == (N_ELEMENTS if kept else 1)
    assert source.reads.total() - before == (0 if kept else 3 * N_ELEMENTS)


@pytest.mark.parametrize("source", [(X, Y), (Elements(X, Y),)], ids=["arrays", "dataset"])
def test_a_listener_hears_of_every_row_in_its_own_passes_alone(source):
    heard: list[str | int] = []
    data = Batches(*source, **OPTIONS)
    told = data.with_listener(
        PassListener(
            on_fetch=lambda: heard.append("fetch"),
            on_fetched=lambda: heard.append("fetched"),
            on_rows=lambda n: heard.append(f"{n} so far"),
            on_batch=heard.append,
        )
    )
    assert sum(len(batch.y) for batch in data) == N
    assert not heard
    assert sum(len(batch.y) for batch in told) == N
    sizes = [entry for entry in heard if isinstance(entry, int)]
    assert sum(sizes) == N
    assert max(sizes) <= 4
    assert heard[-1] == "fetched"
    assert heard.count("fetch") == heard.count("fetched")
    so_far = [entry for entry in heard if str(entry).endswith("so far")]
    assert so_far[-1] == f"{N} so far"
    assert so_far == sorted(so_far, key=lambda entry: int(entry.split()[0]))


def test_nobody_listens_to_the_data_of_a_fit_once_it_is_over(model):
    method = DeltaMethod(model, "ggn", likelihood="categorical", progress=False)
    with pytest.warns(Warning, match="far from a minimum"):
        method.fit(X, Y)
    assert method._fitted.problem.data.listener == PassListener()


def test_what_a_training_set_says_of_itself_cannot_be_set():
    data = Batches(X, Y, **OPTIONS)
    for name in (
        *("n_rows", "n_weighted", "n_masked", "n_predictions", "n_examples", "total_weight"),
        *("weighting", "spec", "columns", "mask", "listener"),
    ):
        with pytest.raises(AttributeError, match=name):
            setattr(data, name, None)
