"""Keras masks: what a loss of Keras leaves out is left out, and the L2 rate is read beside it.

The truth is Keras' own `compute_loss`: its gradient and its second derivative, taken by
`tf.GradientTape` of the model itself, and a softmax regression over the valid steps in NumPy.
"""

from __future__ import annotations

from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf
from marks import slow, wide
from masked_models import (
    EMBEDDING,
    RATE,
    WORDS,
    C,
    Case,
    N,
    T,
    bidirectional,
    finished,
    legacy,
    masking,
    nested,
    pixels,
    reals,
    recurrent,
    regression,
    rows,
    subclassed,
    words,
)
from ways import stumble

from deltauq.curvature.cost import Cost
from deltauq.data import Batches
from deltauq.delta.rates import rates_beside_cost
from deltauq.errors import InvalidInputError, UnsupportedModelError
from deltauq.network import Network
from deltauq.network.interpretation import interpret
from deltauq.network.masks import find_mask
from deltauq.network.probe_rows import probe_rows

layers = keras.layers


@cache
def known(make, reduction="sum_over_batch_size"):
    """A case, and its model as it is understood."""
    case = make(reduction=reduction)
    network = Network(case.model)
    probe = probe_rows(network, case.x)
    return case, interpret(network, network.inspect(probe), "auto")


def data_of(case, understood, y=None, sample_weight=None, class_weight=None):
    """In batches whose valid predictions are not alike in number."""
    return Batches(
        case.x,
        case.y if y is None else y,
        sample_weight,
        class_weight,
        likelihood=understood.likelihood,
        n_outputs=understood.n_outputs,
        dtype=understood.network.dtype,
        batch_size=3,
        mask=understood.mask,
    )


def our_gradient(case, understood, *weights):
    """Of the cost with the rates that are read, `[P]`."""
    network, likelihood = understood.network, understood.likelihood
    data = data_of(case, understood, None, *weights)
    rates = rates_beside_cost(understood, data, "auto", "full")
    rates = rates / likelihood.with_noise(np.ones(1)).dispersion(understood.n_outputs)
    cost = Cost(network, likelihood.with_noise(np.ones(1)), data, rates)
    return cost.evaluate(network.params.numpy())[1]


def keras_gradient(case, sample_weight=None):
    """Of the cost that Keras minimises, over all the data as one batch, regularizers included."""
    with tf.GradientTape() as tape:
        weight = None if sample_weight is None else tf.constant(sample_weight, tf.float32)
        loss = case.model.compute_loss(case.x, tf.constant(case.y), case.model(case.x), weight)
    gradients = tape.gradient(loss, case.model.trainable_variables)
    return np.concatenate([np.ravel(tf.convert_to_tensor(g)) for g in gradients])


def check_direction(ours, truth):
    """Another N, or a rate that was read for another one, turns the gradient."""
    ours, truth = (vector / np.linalg.norm(vector) for vector in (ours, truth))
    np.testing.assert_allclose(ours, truth, atol=2e-6)


CASES = [
    masking,
    recurrent,
    rows,
    pixels,
    regression,
    slow(legacy),
    slow(bidirectional),
    slow(nested),
    slow(subclassed),
]


@pytest.mark.parametrize("make", [wide(c) if c in (recurrent, pixels) else c for c in CASES])
def test_the_cost_is_that_of_keras(make):
    case, understood = known(make)
    check_direction(our_gradient(case, understood), keras_gradient(case))


@pytest.mark.parametrize("make", [slow(recurrent), *(case for case in CASES if case != recurrent)])
def test_so_it_is_with_weights_of_the_predictions(make):
    case, understood = known(make)
    weight = np.random.default_rng(5).uniform(0.2, 3.0, case.valid.shape)
    check_direction(our_gradient(case, understood, weight), keras_gradient(case, weight))


@pytest.mark.parametrize("make", [masking, slow(rows), slow(legacy)])
def test_a_mean_over_the_weights_too(make):
    if make is legacy:
        pytest.skip("tf_keras has no such reduction")
    case, understood = known(make, "mean_with_sample_weight")
    weight = np.random.default_rng(5).uniform(0.2, 3.0, case.valid.shape)
    check_direction(our_gradient(case, understood), keras_gradient(case))
    check_direction(our_gradient(case, understood, weight), keras_gradient(case, weight))


def test_weights_of_inputs_and_of_classes_beside_a_mask():
    case, understood = known(masking)
    of_inputs = np.random.default_rng(5).uniform(0.2, 3.0, N)
    keras_has = np.repeat(of_inputs[:, None], T, axis=1)
    check_direction(our_gradient(case, understood, of_inputs), keras_gradient(case, keras_has))
    of_classes = {0: 3.0, 2: 0.25}
    keras_has = np.vectorize(lambda label: of_classes.get(label, 1.0))(case.y)
    ours = our_gradient(case, understood, None, of_classes)
    check_direction(ours, keras_gradient(case, keras_has))


def test_a_sum_has_no_rate_beside_a_mask_either():
    case, understood = known(masking, "sum")
    with pytest.raises(UnsupportedModelError, match="the loss is summed over the batch"):
        our_gradient(case, understood)


def test_weights_of_zero_on_padding_change_nothing_beside_a_mask():
    """The documented way for models without a mask: there the rate is for N, here it stays."""
    case, understood = known(masking)
    plain, weighted = (
        data_of(case, understood, sample_weight=weight) for weight in (None, case.valid * 1.0)
    )
    assert plain.n_examples == weighted.n_examples == case.valid.sum()
    assert plain.n_masked == np.sum(~case.valid)
    for data in (plain, weighted):
        rates = rates_beside_cost(understood, data, "auto", "full")
        np.testing.assert_allclose(rates, RATE, rtol=1e-6)


def test_without_a_mask_they_do():
    case = masking()
    stack = [keras.Input((T, 3)), case.model.layers[-1]]
    unmasked = Case(finished(keras.Sequential(stack)), case.x, case.y, case.valid)
    network = Network(unmasked.model)
    probe = probe_rows(network, case.x)
    understood = interpret(network, network.inspect(probe), "auto")
    assert understood.mask is None
    data = data_of(unmasked, understood, sample_weight=case.valid * 1.0)
    rates = rates_beside_cost(understood, data, "auto", "full")
    np.testing.assert_allclose(rates, RATE * N * T / case.valid.sum(), rtol=1e-6)


@pytest.mark.parametrize("make", [rows, pixels])
def test_a_mask_with_an_axis_more_at_its_end(make):
    """Keras' losses take it."""
    case, _ = known(make)
    wider = make()
    wider.model.layers[0].keepdims = True
    assert keras_gradient(wider).shape == keras_gradient(case).shape
    network = Network(wider.model)
    inspection = network.inspect(probe_rows(network, case.x))
    assert inspection.mask == (*case.valid.shape[1:], 1)
    mask = find_mask(network, inspection)
    np.testing.assert_array_equal(mask(case.x), case.valid.reshape(len(case.x), -1).squeeze())


LABELS = {
    "numbers out of range": (masking, lambda y: -np.ones_like(y)),
    "rows of zeros": (
        masking,
        lambda y: np.zeros((*y.shape, C)),
        lambda y: np.eye(C)[y],
    ),
    "NaN": (regression, lambda y: np.full_like(y, np.nan)),
    "one label an input": (rows, lambda y: np.full_like(y, 99)),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_masked_predictions_may_be_anything(name):
    make, padded, *others = LABELS[name]
    case, understood = known(make)
    y = others[0](case.y) if others else case.y
    mask = case.valid.reshape(*case.valid.shape, *(1,) * (y.ndim - case.valid.ndim))
    strange = np.where(mask, y, padded(case.y))
    data, truth = (data_of(case, understood, labels) for labels in (strange, y))
    for batch, expected in zip(data, truth, strict=True):
        counted = expected.weight.numpy() > 0
        np.testing.assert_array_equal(batch.weight, expected.weight)
        np.testing.assert_array_equal(batch.y.numpy()[counted], expected.y.numpy()[counted])
        assert np.all(np.isfinite(batch.y.numpy().astype(float)))


def test_labels_that_count_may_not():
    case, understood = known(masking)
    y = np.where(case.valid, case.y, -1)
    y[0, 0] = -1
    with pytest.raises(InvalidInputError, match="y holds labels out of range"):
        data_of(case, understood, y)


def test_a_dataset_counts_as_its_arrays_do():
    """Batch by batch, one of them all padding."""
    case, understood = known(masking)
    x = np.concatenate([case.x[:4], np.zeros((2, T, 3), "float32"), case.x[4:]])
    y = np.concatenate([case.y[:4], np.zeros((2, T), int), case.y[4:]])
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(2)
    read = data_of(Case(case.model, dataset, None, None), understood)
    arrays = data_of(Case(case.model, x, y, None), understood)
    for data in (read, arrays):
        assert (data.n_rows, data.n_weighted) == (N + 2, N)
        assert data.n_examples == data.n_predictions == case.valid.sum()
        assert data.n_masked == (N + 2) * T - case.valid.sum()
        assert sum(float(tf.reduce_sum(batch.weight)) for batch in data) == case.valid.sum()
    for n in (3, N, 50):  # of rows that count alone
        assert np.all(read.spread(n).weight.sum(axis=1) > 0)
        np.testing.assert_array_equal(read.spread(n).x, arrays.spread(n).x)
    np.testing.assert_array_equal(read.spread(50).x, case.x)


def test_a_mask_that_ends_before_the_output_is_none():
    x, *_ = words()
    stack = [
        keras.Input((T,), dtype="int32"),
        layers.Embedding(WORDS, 2, **EMBEDDING),
        layers.GlobalAveragePooling1D(),
        layers.Dense(C, "softmax"),
    ]
    network = Network(finished(keras.Sequential(stack)))
    inspection = network.inspect(probe_rows(network, x))
    assert inspection.mask is None
    assert find_mask(network, inspection) is None


class KeepsMask(layers.Layer):
    """Hands the mask of steps on to what has no steps any more."""

    def call(self, x):
        return keras.ops.sum(x, axis=1)

    def compute_mask(self, x, previous_mask=None):
        return previous_mask


def test_a_mask_of_other_axes_is_refused():
    """Keras' own loss fails with it."""
    x, _, rng = reals()
    stack = [keras.Input((T, 3)), layers.Masking(0.0), KeepsMask(), layers.Dense(C, "softmax")]
    model = finished(keras.Sequential(stack))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        keras_gradient(Case(model, x, rng.integers(0, C, N), None))
    network = Network(model)
    inspection = network.inspect(probe_rows(network, x))
    with stumble("network/masks.py:find_mask", "whose compute_mask returns None") as refused:
        find_mask(network, inspection)
    for words_of in (
        "the mask on the model's output does not fit its predictions",
        "Expected: a mask of shape ['B'], an entry a prediction",
        "Received: shape ['B', 5], beside an output of shape ['B', 3]",
    ):
        assert words_of in str(refused.error)

    class EndsMask(KeepsMask):
        def compute_mask(self, x, previous_mask=None):
            return None

    ended = keras.Sequential([*stack[:2], EndsMask(), *stack[3:]])
    network = Network(finished(ended))
    assert find_mask(network, network.inspect(probe_rows(network, x))) is None
    np.testing.assert_allclose(ended(x), model(x), rtol=1e-5)
