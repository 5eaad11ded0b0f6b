"""A fit with a checkpoint: the numbers of one without, refused where it is another fit."""

from __future__ import annotations

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from full_disk import full_disk
from marks import covering
from tiny_methods import network

from deltauq import DeltaMethod
from deltauq.data.batch_reader import BatchReader
from deltauq.errors import CheckpointWarning, InvalidInputError, WriteError
from deltauq.likelihoods import Categorical, CustomLoss
from deltauq.runtime.checkpoint import Checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:The L2 rate is"),
]

RNG = np.random.default_rng(0)
N = 120
X, Y = RNG.normal(size=(N, 4)), RNG.integers(0, 3, N)
NEW = RNG.normal(size=(40, 4))

#: Options of fits that go through every kind of long step.
KINDS = {
    "sketch": {"curvature": "opg", "rank": 5},
    "grown": {"curvature": "ggn", "rank": "auto", "route": "sketch", "l2": "tune"},
    "gram": {"curvature": "ggn", "route": "gram"},
    "dense": {"curvature": "opg", "route": "dense"},
    "lanczos": {"curvature": "hessian", "rank": 4},
    "dense Hessian": {"curvature": "hessian", "rank": "full"},
    "sandwich": {"curvature": "sandwich", "rank": 4},
}


class Interrupted(BaseException):
    """Like Ctrl-C, which pytest takes for itself."""


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Every step is written when it is done."""
    monkeypatch.setattr(Checkpoint, "interval", 0.0)


@pytest.fixture
def steps(monkeypatch):
    """The names of all steps that are computed, as they are; the list may say when to stop."""

    class Steps(list):
        stop = None

    computed, add = Steps(), Checkpoint._add

    def noted(checkpoint, step, seconds):
        add(checkpoint, step, seconds)
        computed.append(step.digest)
        if len(computed) == computed.stop:
            computed.stop = None
            raise Interrupted

    monkeypatch.setattr(Checkpoint, "_add", noted)
    return computed


def hidden():
    """The model with the same weights every time, and another object."""
    keras.utils.set_random_seed(0)
    return network(keras.layers.Dense(5, "tanh", dtype="float64"))


def other_activation():
    """The same weights, of which the model makes something else."""
    model = hidden()
    model.layers[0].activation = keras.activations.softsign
    return model


def method(model=None, **options):
    options = {"l2": 0.1, "likelihood": "categorical", "progress": False, "seed": 1} | options
    return DeltaMethod(model or hidden(), **options)


def interrupted(folder, steps, stop, *data, **options):
    """A fit that ends after so many steps."""
    steps.stop = stop
    with pytest.raises(Interrupted):
        method(**options).fit(*(data or (X, Y)), checkpoint=folder)


@pytest.mark.filterwarnings("ignore:the exact Hessian shows no minimum")
@covering(options=KINDS, stop=[1, 2, 3])
def test_the_numbers_are_those_of_a_fit_without(tmp_path, steps, options, stop):
    expected = method(**options).fit(X, Y)
    method(**options).fit(X, Y, checkpoint=tmp_path)
    once = len(steps)
    del steps[:]
    interrupted(tmp_path, steps, min(stop, once), **options)
    found = method(**options).fit(X, Y, checkpoint=tmp_path)
    rtol = 1e-6 if options["curvature"] in ("hessian", "sandwich") else 0.0
    for values in ("std", "std_bounds"):
        both = (getattr(each.predict(NEW), values) for each in (found, expected))
        np.testing.assert_allclose(*both, rtol=rtol)
    assert len(steps) == once
    assert not os.listdir(tmp_path)
    assert found.refine(NEW[:2], rtol=0.2).std.shape == (2, 3)  # whose products are not recorded
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("options", [{}, {"calibration": NEW}], ids=["held out", "given"])
def test_the_measured_tail_and_its_band_are_those_of_a_fit_without(tmp_path, steps, options):
    expected = method(rank=5, curvature="opg").fit(X, Y, **options)
    steps.stop = 5
    with pytest.raises(Interrupted):
        method(rank=5, curvature="opg").fit(X, Y, checkpoint=tmp_path, **options)
    found = method(rank=5, curvature="opg").fit(X, Y, checkpoint=tmp_path, **options)
    assert found.eigenpairs.tail == expected.eigenpairs.tail
    for end in ("low", "high"):
        band = (getattr(each.predict(NEW).std_range(0.5), end) for each in (found, expected))
        np.testing.assert_array_equal(*band)


def test_examples_are_read_once_but_for_the_start(tmp_path, steps, monkeypatch):
    """A fit that goes on reads none for what is recorded."""
    read = []
    batches = BatchReader._batches

    def counted(reader):
        for batch in batches(reader):
            read.append(len(batch[-1]) if isinstance(batch, tuple) else len(batch))
            yield batch

    monkeypatch.setattr(BatchReader, "_batches", counted)
    model = hidden()

    def n_read(**options):
        del read[:]
        method(model, curvature="opg", rank=5, **options).fit(X, Y, checkpoint=tmp_path)
        return sum(read)

    whole = n_read()
    n_steps = len(steps)
    steps.stop = n_steps + n_steps - 1
    with pytest.raises(Interrupted):
        n_read()
    assert sum(read) + N > whole
    # What the start reads is read again: a few rows to probe, and a pass that tells the work.
    assert n_read() <= N + 12


def test_tall_vectors_may_live_in_files(tmp_path, steps):
    vectors, folder = tmp_path / "vectors", tmp_path / "checkpoint"
    vectors.mkdir()
    options = {"rank": 5, "vectors_dir": vectors}
    expected = method(rank=5).fit(X, Y).predict(NEW).std
    interrupted(folder, steps, 3, **options)
    found = method(**options).fit(X, Y, checkpoint=folder)
    np.testing.assert_array_equal(found.predict(NEW).std, expected)


def test_a_dataset_may_come_in_another_order(tmp_path, steps):
    """Rows by which the inner products are known are not taken for others then."""
    order = np.arange(N)[::-1]
    data, turned = (tf.data.Dataset.from_tensor_slices((X[o], Y[o])) for o in (order[::-1], order))
    data, turned = data.batch(32), turned.batch(32)
    expected = method(rank=5).fit(data).predict(NEW).std
    interrupted(tmp_path, steps, 2, data, rank=5)
    found = method(rank=5).fit(turned, checkpoint=tmp_path)
    np.testing.assert_allclose(found.predict(NEW).std, expected, rtol=1e-3)
    interrupted(tmp_path, steps, len(steps) + 2, data, route="gram")
    with pytest.warns(CheckpointWarning, match="other numbers came before it"):
        found = method(route="gram").fit(turned, checkpoint=tmp_path)
    expected = method(route="gram").fit(data).predict(NEW).std
    np.testing.assert_allclose(found.predict(NEW).std, expected, rtol=1e-9)


def other_weights():
    model = hidden()
    model.layers[0].bias.assign(np.full(5, 0.01))
    return model


def half_as_much(logits, labels):
    return 0.5 * Categorical().loss(logits, labels)


Z = Y.copy()
Z[[0, 1]] = (Z[[0, 1]] + 1) % 3


@pytest.mark.parametrize(
    ("said", "options", "data"),
    [
        ("the model's weights", {"model": other_weights}, (X, Y)),
        ("training data", {}, (X + 1e-12, Y)),
        ("training data", {}, (X[::-1], Y[::-1])),
        ("training data", {}, (X, Z)),
        ("number of examples 120.*number of examples 119", {}, (X[1:], Y[1:])),
        ("weights are none.*weights are counts", {}, (X, Y, np.arange(N) % 2)),
        ("calibration inputs none", {}, (X, Y, None, None, NEW)),
        ("L2 rates", {"l2": 0.2}, (X, Y)),
        ("curvature 'opg'.*curvature 'ggn'", {"curvature": "ggn"}, (X, Y)),
        ("rank 5.*rank 6", {"rank": 6}, (X, Y)),
        ("seed 1.*seed 2", {"seed": 2}, (X, Y)),
        ("bounds True", {"bounds": False}, (X, Y)),
        ("uncertain variables", {"layers": "last"}, (X, Y)),
        ("the cost beside", {"likelihood": CustomLoss(half_as_much)}, (X, Y)),
        ("the cost beside", {"model": other_activation}, (X, Y)),
    ],
)
def test_another_fit_is_refused_by_what_differs(tmp_path, steps, said, options, data):
    interrupted(tmp_path, steps, 2, curvature="opg", rank=5)
    options = dict(options)
    model = options.pop("model", lambda: None)()
    other = method(model, **{"curvature": "opg", "rank": 5, **options})
    x, y, *weights = data
    calibration = weights.pop() if len(weights) == 3 else None
    with pytest.raises(InvalidInputError, match=f"of another fit.*{said}.*another directory"):
        other.fit(x, y, *weights, calibration=calibration, checkpoint=tmp_path)
    del steps[:]
    method(curvature="opg", rank=5).fit(X, Y, checkpoint=tmp_path)
    assert steps


def test_batches_of_another_size_change_the_last_digits_alone(tmp_path, steps):
    """As where memory ran out, and smaller ones do."""
    expected = method(rank=5).fit(X, Y).predict(NEW).std
    interrupted(tmp_path, steps, 3, rank=5)
    with pytest.warns(CheckpointWarning, match="rows a batch 7; it was begun with rows a batch"):
        found = method(rank=5, batch_size=7).fit(X, Y, checkpoint=tmp_path)
    np.testing.assert_allclose(found.predict(NEW).std, expected, rtol=1e-6)


def test_a_disk_that_fills_up_stops_the_fit_and_a_larger_one_goes_on(tmp_path, steps):
    interrupted(tmp_path, steps, 2, rank=5)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    with pytest.raises(WriteError, match=r"steps-000002.*make room"), full_disk(100):
        method(rank=5).fit(X, Y, checkpoint=tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    found = method(rank=5).fit(X, Y, checkpoint=tmp_path)
    expected = method(rank=5).fit(X, Y)
    np.testing.assert_array_equal(found.predict(NEW).std, expected.predict(NEW).std)


def test_a_checkpoint_is_no_artifact(tmp_path, steps):
    from deltauq.delta.files import artifact
    from deltauq.errors import ArtifactError

    interrupted(tmp_path, steps, 2, rank=5)
    for path in tmp_path.iterdir():
        assert not artifact.is_artifact(path)
        with pytest.raises(ArtifactError, match="no artifact"):
            DeltaMethod.load(path)


def test_threads_of_another_number_are_told(tmp_path, steps, monkeypatch):
    interrupted(tmp_path, steps, 2, rank=5)
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 64)
    with pytest.warns(CheckpointWarning, match="TensorFlow's threads 64; it was begun with"):
        method(rank=5).fit(X, Y, checkpoint=tmp_path)
