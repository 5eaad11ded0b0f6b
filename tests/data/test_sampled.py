"""A random share of the rows of a training set: which rows, how they count, what is still read."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deltauq.data import Batches
from deltauq.data.batch_reader import PassListener
from deltauq.errors import InvalidInputError
from deltauq.likelihoods import AtPositions, Categorical

N, C = 240, 3
X = np.arange(N, dtype=float)[:, None]  # a row's number, by which it is known
Y = np.repeat(np.arange(C), N // C)  # sorted by their labels
OPTIONS = {"likelihood": Categorical(), "n_outputs": C, "dtype": "float64", "batch_size": 8}

#: The same rows in the same order, read in parts of other sizes.
SOURCES = {
    "arrays": (X, Y),
    "parts of 50": (tf.data.Dataset.from_tensor_slices((X, Y)).batch(50),),
    "parts of 3": (tf.data.Dataset.from_tensor_slices((X, Y)).batch(3),),
    "single examples": (tf.data.Dataset.from_tensor_slices((X, Y)),),
}


def numbers(data):
    """Which rows a pass has, in order."""
    return np.concatenate([batch.x.numpy()[:, 0] for batch in data]).astype(int)


@pytest.mark.parametrize("source", SOURCES)
def test_a_share_of_the_rows_is_the_same_however_they_are_read(source):
    data = Batches(*SOURCES[source], **OPTIONS)
    some = data.sampled(1 / 8, 5)
    found = numbers(some)
    np.testing.assert_array_equal(found, numbers(Batches(X, Y, **OPTIONS).sampled(1 / 8, 5)))
    np.testing.assert_array_equal(found, numbers(some))  # in the next pass too
    assert len(set(found)) == N // 8
    assert [len(batch.y) for batch in some] == [8, 8, 8, 6]
    for batch in some:
        np.testing.assert_array_equal(batch.y, Y[batch.x.numpy()[:, 0].astype(int)])
        np.testing.assert_array_equal(batch.count, 8.0)
    np.testing.assert_array_equal(numbers(data), np.arange(N))


def test_every_row_is_drawn_equally_often():
    """Of data that are sorted: within five standard deviations of 400 draws."""
    data = Batches(X, Y, **OPTIONS)
    times = np.bincount(np.concatenate([numbers(data.sampled(1 / 8, seed)) for seed in range(400)]))
    assert len(times) == N
    assert np.all(np.abs(times - 50) < 5 * np.sqrt(400 * 7 / 64))
    assert np.any(numbers(data.sampled(1 / 8, 0)) != numbers(data.sampled(1 / 8, 1)))


def test_rows_without_weight_are_not_drawn_and_the_others_keep_theirs():
    weight = np.where(np.arange(N) % 3 == 0, 0.0, 0.5 + np.arange(N) / N)
    some = Batches(X, Y, weight, {0: 1.0, 1: 2.0, 2: 3.0}, **OPTIONS).sampled(0.3, 0)
    found = numbers(some)
    assert len(found) == round(0.3 * 160)
    assert np.all(found % 3 > 0)
    for batch in some:
        rows = batch.x.numpy()[:, 0].astype(int)
        np.testing.assert_allclose(batch.importance, weight[rows] * (1 + Y[rows]))
        np.testing.assert_allclose(batch.count, 160 / len(found))


def test_weights_of_positions_are_drawn_with_their_row():
    weight = np.random.default_rng(0).integers(0, 3, (N, 2)) * (np.arange(N) % 2)[:, None]
    options = OPTIONS | {"likelihood": AtPositions(Categorical(), (2,)), "n_outputs": 2 * C}
    data = Batches(X, np.stack([Y, Y], axis=1), weight, **options)
    some = data.sampled(0.5, 0)
    each = data.n_weighted / round(0.5 * data.n_weighted)
    for batch in some:
        rows = batch.x.numpy()[:, 0].astype(int)
        np.testing.assert_allclose(batch.count, each * weight[rows])
        assert np.all(np.any(weight[rows] > 0, axis=1))


@pytest.mark.parametrize("source", ["arrays", "parts of 50"])
def test_what_the_data_say_of_themselves_is_about_all_rows(source):
    data = Batches(*SOURCES[source], **OPTIONS)
    some = data.sampled(1 / 8, 0)
    assert (some.n_rows, some.n_weighted, some.n_examples) == (N, N, N)
    np.testing.assert_array_equal(some.sums, data.sums)
    np.testing.assert_array_equal(some.head(3)[:, 0], X[:3, 0])
    np.testing.assert_array_equal(some.spread(4).x, data.spread(4).x)
    heard: list[int] = []
    told = some.with_listener(PassListener(on_batch=heard.append))
    np.testing.assert_array_equal(numbers(told), numbers(some))
    assert sum(heard) == N // 8


def test_of_a_share_there_is_one_row_at_least():
    assert len(numbers(Batches(X[:3], Y[:3], **OPTIONS).sampled(0.1, 0))) == 1
    assert len(numbers(Batches(X[:3], Y[:3], **OPTIONS).sampled(1.0, 0))) == 3


@pytest.mark.quick
def test_a_dataset_is_read_to_its_end_and_a_change_in_rows_that_are_not_drawn_is_noticed():
    reads, changed = [], []

    def rows():
        y = Y.copy()
        y[changed] = 2
        for k in range(0, N, 30):
            yield X[k : k + 30], y[k : k + 30]
        reads.append(N)

    signature = (tf.TensorSpec([None, 1], tf.float64), tf.TensorSpec([None], tf.int64))
    dataset = tf.data.Dataset.from_generator(rows, output_signature=signature)
    some = Batches(dataset, **OPTIONS).sampled(1 / 8, 0)
    reads.clear()
    drawn = numbers(some)
    assert len(reads) == 1
    changed.append(next(k for k in range(N) if k not in drawn))
    with pytest.raises(InvalidInputError, match="changes from one pass to the next"):
        list(some)
