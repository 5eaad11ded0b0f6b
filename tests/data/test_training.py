"""Training data are one record: it checks how they come, and passes on all it was given."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import keras
import numpy as np
import pytest
import tensorflow as tf

from deltauq import Batches, DeltaMethod, DeltaUncertainty, compare, diagnose
from deltauq.data.streams import Stream
from deltauq.data.training import TrainingData
from deltauq.errors import InvalidInputError
from deltauq.likelihoods import Categorical

X, Y = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) % 3
WEIGHT = np.linspace(0.5, 2.0, 12)


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)


@pytest.mark.quick
def test_it_passes_on_all_it_was_given_in_the_order_in_which_calls_take_it():
    given = X, Y, WEIGHT, {1: 2.0}
    training = TrainingData(*given)
    assert all(one is other for one, other in zip(training, given, strict=True))
    options = {"likelihood": Categorical(), "n_outputs": 3, "dtype": "float64"}
    one, other = Batches(*training, **options), Batches(*given, **options)
    assert (one.total_weight, one.weighting) == (other.total_weight, other.weighting)
    assert one.has(other.sums)
    with pytest.raises(FrozenInstanceError):
        training.y = None


def test_a_dataset_is_a_stream_that_learns_of_the_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    training = TrainingData(dataset())
    assert isinstance(training.stream, Stream)
    assert training.stream is training.x
    singles = TrainingData(dataset().unbatch()).of_model(model).stream
    sizes = [len(x) for x, _ in singles.examples(7)]
    assert sizes == [7, 5]
    arrays = TrainingData(X, Y)
    assert arrays.stream is None
    assert arrays.of_model(model).x.nest is X


MISSING, BESIDE = "y is missing", "came beside a dataset"
WAYS = {
    "no labels": ((X,), MISSING),
    "labels": ((dataset(), Y), BESIDE),
    "weights": ((dataset(), None, WEIGHT), BESIDE),
    "endless": ((dataset().repeat(),), "never ends"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_door_refuses_what_comes_in_no_possible_way(way):
    given, text = WAYS[way]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    names = ("x", "y", "sample_weight")
    named = dict(zip(names, given, strict=False))
    doors = [
        lambda: TrainingData(*given),
        lambda: Batches(*given, likelihood=Categorical(), n_outputs=3, dtype="float64"),
        lambda: DeltaMethod(model).fit(*given),
        lambda: DeltaUncertainty(*given),
        lambda: compare(model, **({"y": None} | named), x_eval=X),
    ]
    for door in doors:
        with pytest.raises(InvalidInputError, match=text):
            door()
    finding = diagnose(model, *given).findings[-1]
    assert (finding.subject, finding.level) == ("data", "error")
    assert text in finding.what
