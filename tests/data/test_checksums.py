"""A training set is known again: by exact counts, in any order, and not where it is another."""

from __future__ import annotations

import numpy as np
import pytest

from deltauq.data import Batches
from deltauq.data.checksums import N_SUMS, alike, checksum
from deltauq.errors import InvalidInputError
from deltauq.likelihoods import Categorical, Gaussian

RNG = np.random.default_rng(0)
N = 4000
PIXELS = np.round(255 * RNG.random((N, 300)) ** 3).astype("float32")
CLASSES = RNG.integers(0, 10, N).astype("int32")
NUMBERS = RNG.normal(size=(N, 2))
WEIGHTS = RNG.uniform(0.5, 2.0, N)
ORDER = RNG.permutation(N)


def sums(x=PIXELS, y=CLASSES, weight=WEIGHTS):
    return checksum(x, y, weight, np.ones(len(y)))


@pytest.mark.quick
def test_the_order_and_the_batches_do_not_matter():
    again = sums(PIXELS[ORDER], CLASSES[ORDER], WEIGHTS[ORDER])
    assert alike(again, sums(), whole_labels=True)
    parts = [sums(PIXELS[k::3], CLASSES[k::3], WEIGHTS[k::3]) for k in range(3)]
    assert alike(np.sum(parts, axis=0), sums(), whole_labels=True)
    noisy = PIXELS * (1 + 1e-7 * RNG.normal(size=PIXELS.shape))
    assert alike(sums(noisy - 80.0), sums(PIXELS - 80.0), whole_labels=True)


OTHER = {
    "labels beside the wrong rows": lambda: sums(y=CLASSES[ORDER]),
    "weights beside the wrong rows": lambda: sums(weight=WEIGHTS[ORDER]),
    "columns in another order": lambda: sums(PIXELS[:, ::-1]),
    "another sign": lambda: sums(-PIXELS),
    "one label": lambda: sums(y=np.r_[CLASSES[:-1], (CLASSES[-1] + 1) % 10]),
    "a row less": lambda: sums(PIXELS[1:], CLASSES[1:], WEIGHTS[1:]),
    "NaN": lambda: sums() * np.nan,
}


@pytest.mark.parametrize("what", OTHER)
@pytest.mark.quick
def test_other_data_are_others(what):
    assert not alike(OTHER[what](), sums(), whole_labels=True)


def test_numbers_of_other_sign_or_beside_other_rows_are_others():
    """Labels are small beside the squares of the inputs, and their sums cancel."""
    truth = sums(1e4 * PIXELS, NUMBERS)
    assert not alike(sums(1e4 * PIXELS, NUMBERS[ORDER]), truth)
    assert not alike(sums(1e4 * PIXELS, -NUMBERS), truth)
    assert alike(sums(1e4 * PIXELS[ORDER], NUMBERS[ORDER], WEIGHTS[ORDER]), truth)


def test_inputs_of_small_units_are_told_apart():
    """Their sums are all under what an absolute tolerance would pass."""
    assert not alike(
        sums(1e-12 * PIXELS[:5], 0 * CLASSES[:5], WEIGHTS[:5]),
        sums(2e-12 * PIXELS[:5], 0 * CLASSES[:5], WEIGHTS[:5]),
    )


@pytest.mark.parametrize("rows", [9_999_999, 9_999_995, 10_000_001])
def test_rows_of_ten_million_are_counted_one_by_one(rows):
    truth = np.r_[1e7, 4.5e7, np.full(N_SUMS - 2, 1e9)]
    other = truth * (1 + (rows - 1e7) / 1e7)
    assert other[0] == rows
    assert not alike(other, truth)
    assert alike(truth * np.r_[1.0, np.full(N_SUMS - 1, 1 + 1e-8)], truth)


def test_one_label_of_ten_million_counts_where_labels_are_whole():
    truth = np.r_[1e7, 4.5e7, np.full(N_SUMS - 2, 1e9)]
    other = truth + np.r_[0.0, 1.0, np.zeros(N_SUMS - 2)]
    assert not alike(other, truth, whole_labels=True)
    assert alike(other, truth)


def test_sums_of_earlier_artifacts_are_six():
    assert N_SUMS == 13
    assert alike(sums()[:6], sums(), whole_labels=True)
    assert alike(sums(), sums()[:6], whole_labels=True)
    assert not alike(sums()[:6], sums(PIXELS[1:], CLASSES[1:], WEIGHTS[1:]), whole_labels=True)


def test_a_dataset_that_loses_a_row_or_a_label_is_noticed():
    tensorflow = pytest.importorskip("tensorflow")
    passes = []

    def rows():
        passes.append(None)
        x, y = PIXELS[:50, :3], CLASSES[:50].copy()
        y[7] += len(passes) > 1
        yield from zip(x, y % 10, strict=True)

    signature = (tensorflow.TensorSpec([3]), tensorflow.TensorSpec([], "int32"))
    dataset = tensorflow.data.Dataset.from_generator(rows, output_signature=signature)
    data = Batches(dataset, likelihood=Categorical(), n_outputs=10, dtype="float32")
    with pytest.raises(InvalidInputError, match="changes from one pass to the next"):
        list(data)
    kept = Batches(PIXELS, NUMBERS, likelihood=Gaussian(1.0), n_outputs=2, dtype="float32")
    assert len(kept.sums) == N_SUMS
