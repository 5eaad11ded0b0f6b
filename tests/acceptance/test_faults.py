"""Whatever fails half-way through a fit is told with its batch and rows, and leaves no half fit."""

from __future__ import annotations

import io
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from marks import covering, wide
from rich.console import Console
from sklearn.exceptions import NotFittedError as NotFitted
from tiny_estimators import classifier
from tiny_methods import N, X, Y, fit, network

from deltauq import DeltaMethod
from deltauq.errors import (
    InvalidInputError,
    MemoryLimitError,
    NotFittedError,
    NumericalError,
)
from deltauq.likelihoods import CustomLoss
from deltauq.network.graph import Compiled
from deltauq.runtime import progress

pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")

layers = keras.layers

#: Every route, and the exact Hessian.
ROUTES = {
    "gram": {"route": "gram", "rank": "auto"},
    "dense": {"route": "dense", "rank": "auto"},
    "sketch": {"curvature": "opg", "route": "sketch", "rank": 3},
    "lanczos": {"curvature": "hessian", "route": "lanczos", "rank": 3},
}


class Threes(keras.utils.PyDataset):
    """Batches of three rows, with which something happens in the third of a later pass."""

    def __init__(self, fault, first=3):
        super().__init__()
        self.fault, self.first, self.passes = fault, first, 0

    def __len__(self):
        return 4

    def __getitem__(self, k):
        self.passes += k == 0
        x, y = X[3 * k : 3 * k + 3], Y[3 * k : 3 * k + 3]
        return self.fault(x, y) if k == 2 and self.passes >= self.first else (x, y)


def torn(x, y):
    raise KeyError("a file of rows")


def starved(x, y):
    raise MemoryError("no room for rows")


def interrupted(x, y):
    signal.raise_signal(signal.SIGINT)
    return x, y


def with_nan(x, y):
    return np.where(np.arange(12).reshape(3, 4) == 6, np.nan, x), y


def narrower(x, y):
    return x[:, :2], y


FAULTS = {
    torn: (InvalidInputError, r"KeyError says at batch 2, from row 6 on.*a file of rows.*getitem"),
    starved: (MemoryLimitError, r"memory ran out.*no room for rows.*smaller batch_size"),
    with_nan: (InvalidInputError, r"x holds NaN.*nan in row 7"),
    narrower: (InvalidInputError, r"one shape.*\['B', 2\].*from row 6 on"),
}


@covering(fault=list(FAULTS), route=ROUTES, first=[3, 4])
def test_a_batch_that_fails_in_a_later_pass_is_named(fault, route, first):
    error, match = FAULTS[fault]
    method = DeltaMethod(network(), l2=0.1, progress=False, **({"curvature": "ggn"} | route))
    with pytest.raises(error, match=match):
        method.fit(Threes(fault, first))
    with pytest.raises(NotFittedError):
        method.predict(X)


def of_passes(counts):
    """A generator that yields so many rows in pass after pass, and then as many as in the last."""
    passes = []

    def rows():
        count = counts[min(len(passes), len(counts) - 1)]
        passes.append(count)
        for k in range(count):
            yield X[k % N], Y[k % N]

    signature = tf.TensorSpec([4], tf.float64), tf.TensorSpec([], tf.int64)
    return tf.data.Dataset.from_generator(rows, output_signature=signature).batch(3)


@covering(
    counts=[[N, N, N, 0], [N, N, N, 7], [N, N, N, 20], [N, N, N, N, 0], [N, N, N, N, 20]],
    route=ROUTES,
)
def test_a_dataset_of_other_rows_in_a_later_pass_is_refused(counts, route):
    """None at all, fewer, and more than there is room for."""
    after = f"{counts[-1]} rows after 12|rows or more after 12"
    with pytest.raises(InvalidInputError, match=f"changes from one pass.*({after})"):
        fit(x=of_passes(counts), y=None, **({"curvature": "ggn"} | route))


class Lookup(layers.Layer):
    """A table that has no entry for large inputs."""

    def build(self, shape):
        self.table = self.add_weight(shape=(4, 3), name="table", dtype="float64")

    def call(self, x):
        return x[:, :3] + tf.gather(self.table, tf.cast(x[:, 3] > 90, tf.int32) * 9)


@pytest.mark.parametrize("kind", ["fit", "predict", "predict_mean"])
def test_a_row_at_which_the_model_fails_is_among_those_that_are_named(kind):
    x = np.tile(X, (10, 1))  # the model is probed with the first ones
    model = network(Lookup(dtype="float64"))
    method = fit(model, x, np.tile(Y, 10), batch_size=5)
    x[103, 3] = 99.0
    match = r"model fails on a batch.*rows 100 to 104 \(batch 20; .*indices.*call the model on"
    with pytest.raises(InvalidInputError, match=match):
        method.fit(x, np.tile(Y, 10)) if kind == "fit" else getattr(method, kind)(x)
    x[103, 3] = 0.0
    method = method.fit(x, np.tile(Y, 10)) if kind == "fit" else method
    assert np.all(method.predict(x).std > 0)


class Power(layers.Layer):
    """|h|^1.5: at zero the slope is zero, and the second derivative infinite."""

    def call(self, h):
        return tf.pow(tf.abs(h), 1.5)


def steep(z, y):
    """Its slopes at large logits are numbers of float32, and their squares are not."""
    return tf.reduce_sum(tf.square(z), axis=1)


def overflowing():
    """A model whose output overflows at one input."""
    model = network(dtype="float32")
    model.set_weights([np.full((4, 3), 1e37, "float32"), np.zeros(3, "float32")])
    return model, np.clip(X, -1, 1), 100.0, {}


def infinite_curvature():
    model = network(layers.Dense(3, use_bias=False, dtype="float64"), Power(dtype="float64"))
    return model, X, 0.0, {"curvature": "hessian"}


def huge_rows():
    """Gradients of float32 whose squares overflow, in a row an example."""
    return network(dtype="float32"), X, 1e25, {"curvature": "opg", "likelihood": CustomLoss(steep)}


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize(
    ("case", "route"),
    [
        (overflowing, "gram"),
        (infinite_curvature, "lanczos"),
        (infinite_curvature, "dense"),
        (huge_rows, "gram"),
        (huge_rows, "sketch"),
        wide(huge_rows, "dense"),
    ],
)
def test_the_row_at_which_something_is_not_finite_is_found(case, route):
    """By a pass over the data and parts of a batch, whatever showed it at the end of a pass."""
    model, x, bad, options = case()
    x = np.tile(x, (10, 1))
    options = ROUTES[route] | {"batch_size": 50, "curvature": "ggn"} | options
    x[103] = bad
    with pytest.raises(NumericalError, match=r"first at row 103\b"):
        fit(model, x, np.tile(Y, 10), **options)


def test_predictions_that_are_not_finite_are_among_those_that_are_named():
    model = network(layers.Lambda(tf.sqrt, dtype="float64"))
    x = np.tile(np.abs(X) + 1, (10, 1))
    method = fit(model, x, np.tile(Y, 10), batch_size=5)
    x[103, 3] = -1.0
    with pytest.raises(NumericalError, match=r"not finite.*at work on rows 100 to 104 \(batch 20"):
        method.predict(x)


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal is sent, on which the progress display appears at once."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=60)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    monkeypatch.setattr(progress, "_PATIENCE", -1.0)
    return file


HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


@covering(route=ROUTES, first=[2, 3, 4], in_files=[False, True])
def test_an_interruption_goes_through_and_leaves_nothing(
    route, first, in_files, terminal, tmp_path, monkeypatch
):
    """Ctrl-C: the display is closed, no file is left, the method is not fitted, and can be."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    options = {"curvature": "ggn", "l2": 0.1, "vectors_dir": tmp_path if in_files else None} | route
    method = DeltaMethod(network(), **options).fit(Threes(None, 99))
    expected = method.predict(X).std
    terminal.truncate(0)
    with pytest.raises(KeyboardInterrupt):
        method.fit(Threes(interrupted, first))
    assert terminal.getvalue().rfind(HIDE) <= terminal.getvalue().rfind(SHOW)
    assert not list(tmp_path.iterdir())
    with pytest.raises(NotFittedError):
        method.predict(X)
    np.testing.assert_allclose(method.fit(Threes(None, 99)).predict(X).std, expected, rtol=1e-9)


@pytest.mark.parametrize("place", ["deltauq.network.graph.Compiled.__call__", "numpy.linalg.eigh"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, "ResourceExhausted"])
def test_what_happens_in_the_midst_of_computing_is_told(place, error, monkeypatch, terminal):
    """In a kernel and in the algebra between two passes."""
    if error == "ResourceExhausted":
        error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    room, _, name = place.rpartition(".")
    holder = np.linalg if room == "numpy.linalg" else Compiled
    calls, function = [], getattr(holder, name)

    def fail_late(*arguments, **options):
        calls.append(place)
        if len(calls) > (8 if holder is Compiled else 0):
            raise error
        return function(*arguments, **options)

    method = DeltaMethod(network(), "ggn", l2=0.1, rank=3, batch_size=2)
    monkeypatch.setattr(holder, name, fail_late)
    expected = KeyboardInterrupt if error is KeyboardInterrupt else MemoryLimitError
    with pytest.raises(expected, match=None if error is KeyboardInterrupt else "memory ran out"):
        method.fit(X, Y)
    monkeypatch.undo()
    assert HIDE in terminal.getvalue()
    assert terminal.getvalue().rfind(HIDE) < terminal.getvalue().rfind(SHOW)
    with pytest.raises(NotFittedError):
        method.predict(X)
    assert np.all(method.fit(X, Y).predict(X).std > 0)


class Hungry(layers.Layer):
    """Asks for more memory than there is at one input in the midst of others."""

    def call(self, x):
        size = tf.where(tf.reduce_max(x) > 90, tf.constant(2**46, tf.int64), 1)
        return x + tf.reduce_min(tf.fill([size], x[0, 0])) - x[0, 0]


@pytest.mark.wide  # TensorFlow asks again for ten seconds; what is told: the test before
def test_memory_that_tensorflow_has_not_got_is_told():
    x = np.tile(X, (10, 1))
    method = fit(network(Hungry(dtype="float64")), x, np.tile(Y, 10), batch_size=5)
    x[103, 3] = 99.0
    with pytest.raises(MemoryError, match=r"memory ran out.*OOM.*at rows 100 to 104"):
        method.predict(x)


def test_an_estimator_that_is_interrupted_is_not_fitted(monkeypatch):
    clf = classifier()

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as late:
        late.setattr(DeltaMethod, "fit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(X, Y)
    with pytest.raises(NotFitted):
        clf.predict(X)
    assert clf.fit(X, Y).predict_uncertainty(X).std.shape == (N, 3)
