"""The row with a fault is found among all, by way of its batch."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deltauq.data import Batches
from deltauq.data.faulty_rows import first_faulty
from deltauq.likelihoods import Categorical

N = 53
X = np.arange(2.0 * N).reshape(N, 2)
Y = np.arange(N) % 3
WEIGHTS = np.where(np.arange(N) % 5 == 0, 0.0, 1.0)  # rows without a weight are counted too


def batches(stream, weights=None, batch_size=8):
    parts = (X, Y) if weights is None else (X, Y, weights)
    if stream:
        parts = (tf.data.Dataset.from_tensor_slices(parts).batch(10),)
    options = {"likelihood": Categorical(), "n_outputs": 3, "dtype": "float64"}
    return Batches(*parts, batch_size=batch_size, **options)


def without(*rows):
    """Whether data hold none of some rows, told by their inputs."""
    return lambda data: not any(np.isin(batch.x[:, 0], X[list(rows), 0]).any() for batch in data)


@pytest.mark.quick
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("row", [0, 7, 26, N - 1])
def test_the_first_faulty_row_is_found(stream, weights, row):
    data = batches(stream, weights)
    found = first_faulty(data, without(row, *range(row + 1, N, 9)))
    (batch,) = [p for p, _ in data.pieces(8) if p.first_row <= row < p.first_row + p.n_rows]
    assert found == f"row {row}, among {batch}"
    assert str(batch).startswith(f"rows {batch.first_row} to {batch.first_row + batch.n_rows - 1} ")


def test_few_rows_are_looked_at_beside_one_pass():
    seen = []

    def look(data):
        seen.append(sum(len(batch.y) for batch in data))
        return without(50)(data)

    first_faulty(batches(False, batch_size=16), look)
    assert sum(seen) <= N + 2 * 16


def test_what_no_row_shows_by_itself_is_that_of_its_batch_or_of_none():
    def sums_below(most):
        return lambda data: sum(float(tf.reduce_sum(batch.x)) for batch in data) < most

    most = X[40:48].sum()
    assert (
        first_faulty(batches(False), sums_below(most)) == "rows 40 to 47 (batch 5; counted from 0)"
    )
    assert first_faulty(batches(False), sums_below(most + 1)) == ""


def test_pieces_are_all_rows_and_say_of_themselves_what_all_say():
    data = batches(False, WEIGHTS)
    pieces = [piece for _, piece in data.pieces(8)]
    rows = np.concatenate([batch.x.numpy() for piece in pieces for batch in piece])
    np.testing.assert_array_equal(rows, X)
    assert {piece.n_examples for piece in pieces} == {data.n_examples}
