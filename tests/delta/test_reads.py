"""What a fit owes: how often it evaluates the cost, and how often it reads a dataset."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from marks import wide

from deltauq import DeltaMethod
from deltauq.curvature.cost import Cost
from deltauq.curvature.gram import Gram
from deltauq.delta.marginal_likelihood import _costs_in_range
from deltauq.likelihoods import Gaussian
from deltauq.network.jacobians import evaluated

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:The L2 rate"),
]

N = 60
X = np.random.default_rng(0).normal(size=(N, 4)).astype("float32")
CLASSES = (X[:, 0] > 0).astype("int32")
NUMBERS = X[:, :1] ** 2 + 0.1 * np.random.default_rng(1).normal(size=(N, 1)).astype("float32")

#: Reads that every fit owes: N and the checks; the cost; a few inputs at even distances, on which
#: the distance to the minimum is measured.
ALWAYS = 3

#: Passes of the low-rank solver, each of which reads a dataset to its end, whatever share of it is
#: computed on, and of the bound on what it leaves out beyond those.
SKETCH, BOUND = 2, 2


def compiled(loss, units):
    keras.utils.set_random_seed(0)
    inner = keras.layers.Dense(9, "tanh")
    model = keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(units)])
    model.compile(loss=loss)
    return model


def softmax():
    return compiled(keras.losses.SparseCategoricalCrossentropy(from_logits=True), 2), CLASSES


def regression():
    return compiled("mse", 1), NUMBERS


class Counted:
    """A dataset that counts how often it is read to its end."""

    def __init__(self, y):
        self.reads = 0

        def examples():
            for start in range(0, N, 20):
                yield X[start : start + 20], y[start : start + 20]
            self.reads += 1

        like = tf.TensorSpec((None, *y.shape[1:]), y.dtype)
        signature = (tf.TensorSpec((None, 4)), like)
        self.dataset = tf.data.Dataset.from_generator(examples, output_signature=signature)


@pytest.fixture
def evaluations(monkeypatch):
    """Counts passes over the data for the cost and its gradient."""
    found, measured = SimpleNamespace(count=0), Cost._measured

    def counting(self, params):
        found.count += 1
        return measured(self, params)

    monkeypatch.setattr(Cost, "_measured", counting)
    return found


@pytest.mark.parametrize(
    ("make", "options", "owed"),
    [
        wide(softmax, {"curvature": "opg", "rank": 20}, ALWAYS + SKETCH + BOUND),
        wide(softmax, {"curvature": "opg", "rank": 20, "bounds": False}, ALWAYS + SKETCH),
        wide(softmax, {"curvature": "ggn", "rank": "full"}, ALWAYS + 1),
        # and the mean squares of the residuals
        (regression, {"curvature": "ggn", "rank": "full"}, ALWAYS + 1 + 1),
        # the rate is chosen by the one sketch there is
        (softmax, {"curvature": "opg", "rank": 20, "l2": "tune"}, ALWAYS + SKETCH + BOUND),
    ],
)
def test_a_fit_evaluates_the_cost_once_and_reads_what_it_owes(evaluations, make, options, owed):
    model, y = make()
    counted = Counted(y)
    DeltaMethod(model, **({"l2": 0.05, "progress": False} | options)).fit(counted.dataset)
    assert evaluations.count == 1
    assert counted.reads == owed


@pytest.mark.parametrize(("n", "computed"), [(2_400, 2_700), (60, 120)])
def test_the_first_pass_of_a_sketch_computes_on_an_eighth_that_spans_it(monkeypatch, n, computed):
    """300 gradients are enough for 30 columns, 8 of 60 examples are not; both passes are read."""
    rows = []

    def counting(self):
        for batch in self.data:
            rows.append(len(batch.y))
            yield evaluated(self._compiled_factors(self.network.params, batch))

    monkeypatch.setattr(Gram, "row_factors", counting)
    model, y = softmax()
    several = tf.data.Dataset.from_tensor_slices((X, y)).repeat(n // N).batch(200)
    DeltaMethod(model, rank=20, bounds=False, l2=0.05, progress=False).fit(several)
    assert sum(rows) == computed


def test_tuning_on_held_out_data_reads_them_twice(evaluations):
    """For the checks, and for the likelihood at all rates; the cost needs no other pass."""
    model, _ = softmax()
    labels = np.random.default_rng(3).integers(0, 2, N)  # so that less is better than certain
    dm = DeltaMethod(model, "ggn", rank="full", l2=1e-3, progress=False).fit(X, labels)
    held_out = Counted(CLASSES)
    dm.tune_l2(held_out.dataset)
    assert held_out.reads == 2
    assert evaluations.count == 1


@pytest.mark.quick
def test_the_cost_at_another_noise_and_rate_needs_no_pass(evaluations):
    """What is derived is what a pass over the data would give, importance weights included."""
    model, y = regression()
    weight = np.random.default_rng(4).uniform(0.2, 3.0, N)
    dm = DeltaMethod(model, "ggn", rank="full", l2=0.05, progress=False).fit(X, y, weight)
    problem = dm._fitted.problem
    found = dm._fitted.measured
    again = Cost(problem.network, problem.likelihood, problem.data, problem.rates)
    truth = again.measure(problem.network.params.numpy())
    assert evaluations.count == 2
    assert found.loss == pytest.approx(truth.loss, rel=1e-6)
    assert found.weight == pytest.approx(weight.mean(), rel=1e-6)
    np.testing.assert_allclose(found.gradient, truth.gradient, rtol=1e-5, atol=1e-7)
    assert dm.stationarity.cost == pytest.approx(truth.beside(problem.rates)[0].cost, rel=1e-6)


def test_the_cost_over_a_range_of_noise_is_that_of_its_ends_with_importance_weights():
    """The evidence of few eigenpairs reaches from that of the least noise to that of the most."""
    model, y = regression()
    weight = np.random.default_rng(4).uniform(0.5, 6.0, N)
    dm = DeltaMethod(model, "ggn", rank=3, l2=0.1, progress=False).fit(X, y, weight)
    fitted = dm._fitted
    noise, problem = fitted.covariance.noise, fitted.problem
    residuals = (y - model.predict(X, verbose=0)).ravel()
    penalty = fitted.stationarity.cost - fitted.measured.loss

    def cost(multiple):
        variance = float(problem.likelihood.noise_variance()[0]) * multiple
        losses = residuals**2 / (2 * variance) + 0.5 * np.log(2 * np.pi * variance)
        return float(weight @ losses) + N * penalty / multiple

    assert isinstance(problem.likelihood, Gaussian)
    assert noise.low < 0.97
    assert noise.high > 1.03
    truth = [cost(multiple) for multiple in np.linspace(noise.low, noise.high, 2001)]
    found = _costs_in_range(fitted, noise, N * fitted.stationarity.cost)
    np.testing.assert_allclose(found, (min(truth), max(truth)), rtol=1e-5)
