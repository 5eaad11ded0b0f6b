"""The matrix of a curvature whose rows of dense layers are not formed is that of formed rows."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

from deltauq.curvature import GGN, OPG, row_matrix
from deltauq.curvature.row_matrix import matrix_work, saves_matrix
from deltauq.data import Batches
from deltauq.likelihoods import Categorical
from deltauq.network import Network

N, CLASSES = 23, 6


def dense_layers():
    return [keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(4, use_bias=False)]


def convolutions():
    image = [keras.layers.Reshape((3, 4, 1)), keras.layers.Conv2D(3, 2, activation="tanh")]
    return [*image, keras.layers.Flatten(), keras.layers.Dense(5, activation="tanh")]


def along_steps():
    """A dense layer at every step shares its kernel among them: its rows are sums, and formed."""
    steps = [keras.layers.Reshape((3, 4)), keras.layers.Dense(4, activation="tanh")]
    return [*steps, keras.layers.Flatten(), keras.layers.Dense(5, activation="tanh")]


def one_number():
    """Layers that read one number: it is no less a datum than several."""
    first = [keras.layers.Lambda(lambda x: x[:, :1]), keras.layers.Dense(4, activation="tanh")]
    return [*first, keras.layers.Dense(1, activation="tanh"), keras.layers.Dense(7)]


def narrow():
    """More inputs than pairs of outputs."""
    return [keras.layers.Dense(2, activation="tanh"), keras.layers.Dense(3, activation="tanh")]


NETWORKS = {
    each.__name__: each for each in (dense_layers, convolutions, along_steps, one_number, narrow)
}


@pytest.fixture(autouse=True)
def small_layers_count(monkeypatch):
    """Layers as small as those here are formed otherwise."""
    monkeypatch.setattr(row_matrix, "_ALONE", 1)


def curvature(rng, of=GGN, layers=dense_layers, scale=None, dtype="float64"):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(dtype)
    model = keras.Sequential([keras.Input((12,)), *layers(), keras.layers.Dense(CLASSES)])
    keras.config.set_dtype_policy("float32")
    x, y = rng.normal(size=(N, 12)), rng.integers(0, CLASSES, N)
    data = Batches(x, y, likelihood=Categorical(), n_outputs=CLASSES, dtype=dtype, batch_size=9)
    return of(Network(model), "categorical", data, scale=scale)


def by_formed_rows(operator):
    rows = np.concatenate(list(map(np.copy, operator._row_blocks())))
    return rows.astype("float64").T @ rows / operator.data.n_examples


@pytest.mark.parametrize("numbers", [1, 200, row_matrix._NUMBERS])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_matrix_is_that_of_formed_rows(rng, monkeypatch, network, numbers):
    """However few examples, outputs, inputs and columns are multiplied at a time."""
    monkeypatch.setattr(row_matrix, "_NUMBERS", numbers)
    monkeypatch.setattr(row_matrix, "_COLUMNS", min(numbers, 7))
    operator = curvature(rng, layers=NETWORKS[network])
    assert saves_matrix(next(operator.row_factors()))
    found = operator.to_dense()
    np.testing.assert_allclose(found, by_formed_rows(operator), atol=1e-14)
    np.testing.assert_array_equal(found, found.T)
    assert operator.trace() == pytest.approx(np.trace(found), rel=1e-14)


@pytest.mark.parametrize("rates", ["of each variable", "of each entry"])
def test_each_parameter_has_its_scale(rng, rates):
    network = curvature(rng).network
    scale = rng.uniform(0.5, 2.0, network.n_params)
    for parameter in network.parameters if rates == "of each variable" else ():
        scale[parameter.start : parameter.stop] = scale[parameter.start]
    plain, scaled = (curvature(np.random.default_rng(3), scale=s) for s in (None, scale))
    expected = scale[:, None] * plain.to_dense() * scale
    np.testing.assert_allclose(scaled.to_dense(), expected, atol=1e-14)


def test_factors_of_single_precision_are_multiplied_in_double(rng):
    """Formed rows are rounded once more, which is all the difference."""
    operator = curvature(rng, dtype="float32")
    found, expected = operator.to_dense(), by_formed_rows(operator)
    assert found.dtype == "float64"
    np.testing.assert_allclose(found, expected, atol=1e-7 * expected.max())


def test_work_is_counted_by_what_is_multiplied(rng):
    """Of blocks [I O, J Q]: R O Q for the deltas, and I J O Q where anything is shared."""
    factors = next(curvature(rng).row_factors())
    rows = factors[0].shape[1]
    # kernel [12, 5], its bias, kernel [5, 4], kernel [4, 6], its bias
    shapes = [(12, 5), (1, 5), (5, 4), (4, 6), (1, 6)]
    expected = sum(
        rows * o * q + (i * o * j * q if i * j > 1 else 0)
        for (i, o), (j, q) in itertools.product(shapes, shapes)
    )
    assert matrix_work(factors) == expected


def test_layers_that_would_save_little_are_formed(rng, monkeypatch):
    monkeypatch.setattr(row_matrix, "_ALONE", 1000)
    factors = next(curvature(rng, layers=narrow).row_factors())
    assert not saves_matrix(factors)
    assert matrix_work(factors) == factors[0].shape[1] * sum(f.shape[2] for f in factors) ** 2


def test_examples_of_several_batches_are_multiplied_together(rng, monkeypatch):
    """All of the matrix is read and written each time, however few they are."""
    operator, sizes = curvature(rng), []
    add_block = row_matrix._add_block
    counted = lambda left, *others: sizes.append(len(left.a)) or add_block(left, *others)  # noqa: E731
    monkeypatch.setattr(row_matrix, "_add_block", counted)
    for most, taken in ((N, {N}), (17, {16, 7}), (4, {4, 3})):  # batches have 8, 8 and 7
        monkeypatch.setattr(row_matrix, "_EXAMPLES", most)
        sizes.clear()
        found = operator.to_dense()
        assert set(sizes) == taken
        np.testing.assert_allclose(found, by_formed_rows(operator), atol=1e-14)


def test_one_row_an_example_shares_nothing(rng):
    operator = curvature(rng, OPG)
    factors = next(operator.row_factors())
    assert not saves_matrix(factors)
    assert matrix_work(factors) == operator.shape[0] ** 2
    np.testing.assert_allclose(operator.to_dense(), by_formed_rows(operator), atol=1e-14)
