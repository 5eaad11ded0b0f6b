"""How far the weights are from the minimum, in standard errors."""

import functools
import warnings

import keras
import numpy as np
import pytest
import reference
from marks import covering, wide
from sklearn.datasets import load_wine

from deltauq import DeltaMethod
from deltauq.curvature.cost import Stationarity
from deltauq.curvature.parameter_covariance import low_rank_covariance
from deltauq.delta.calibration import calibration_inputs
from deltauq.delta.minimum_distance import _with_least_tail, newton_step
from deltauq.errors import ConvergenceWarning
from deltauq.linalg import Eigenpairs, NormBound

L2 = 0.05


def wine():
    x, y = load_wine(return_X_y=True)
    return ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32"), y


@functools.cache  # nothing here changes a model
def trained(epochs, *, l2=L2, batch_size=32):
    """A small network that Adam trained for so many epochs of mini-batches."""
    keras.utils.set_random_seed(1)
    options = {
        "kernel_regularizer": keras.regularizers.L2(l2 / 2),
        "bias_regularizer": keras.regularizers.L2(l2 / 2),
    }
    model = keras.Sequential(
        [
            keras.Input((13,)),
            keras.layers.Dense(6, activation="tanh", **options),
            keras.layers.Dense(3, activation="softmax", **options),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    x, y = wine()
    if epochs % 10 == 0:  # ten to one of Keras', which take less time
        x, y, epochs = np.tile(x, (10, 1)), np.tile(y, 10), epochs // 10
    model.fit(x, y, epochs=epochs, batch_size=batch_size, verbose=0)
    return model


def dense_shift(case, matrix):
    """The median over examples and classes, from the dense reference; `matrix` gives the step."""
    truth, n_examples = case.truth, case.weight.sum()
    w = np.concatenate([v.ravel() for v in case.model.get_weights()])
    gradient = case.weight @ truth.gradients / n_examples + L2 * w
    step = -np.linalg.solve(matrix + L2 * np.eye(len(w)), gradient)
    slope = np.stack([reference.softmax_matrix(p) for p in truth.probabilities])
    return np.abs(np.einsum("ncd,ndp,p->nc", slope, truth.jacobian, step))


@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
@covering(curvature=["opg", "sandwich", "ggn"], name=["no_hidden", "tanh", "relu_conv"])
def test_the_shift_is_the_newton_step_of_the_dense_reference(get_case, name, curvature):
    case = get_case(name)
    options = {"negative_curvature": "project", "weights": "counts"}
    dm = DeltaMethod(case.model, curvature, rank="full", l2=L2, progress=False, **options)
    dm.fit(case.x, case.y, case.weight)
    matrix = case.truth.hessian if curvature == "sandwich" else getattr(case.truth, curvature)
    values, vectors = np.linalg.eigh(matrix)
    moved = dense_shift(case, (vectors * np.maximum(values, 0)) @ vectors.T)
    expected = np.median(moved / dm.predict(case.x).std)
    assert dm.stationarity.shift == pytest.approx(expected, rel=1e-8)


def test_the_step_leads_a_linear_model_to_ridge_regression(rng):
    """Where the model is linear the Newton step is exact: numpy can walk it."""
    x = rng.normal(size=(40, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.3 * rng.normal(size=40)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    design = np.column_stack([x, np.ones(40)])
    best = np.linalg.solve(2 / 40 * design.T @ design + 0.1 * np.eye(4), 2 / 40 * design.T @ y)
    model.set_weights([best[:3, None] + 0.2, best[3:] - 0.1])
    dm = DeltaMethod(model, "ggn", l2=0.1, progress=False)
    with pytest.warns(ConvergenceWarning, match="far from a minimum"):
        dm.fit(x, y)
    moved = np.abs(design @ [0.2, 0.2, 0.2, -0.1])
    expected = np.median(moved / dm.predict(x).std[:, 0])
    assert dm.stationarity.shift == pytest.approx(expected, rel=1e-4)


def test_the_step_goes_down_and_the_least_one_takes_the_least_tail(rng):
    """-(A + L)^-1 g in the prior's metric, with 1 / (1 + what may be left) outside the pairs."""
    u, scale = np.linalg.qr(rng.normal(size=(8, 8)))[0], rng.uniform(0.5, 2.0, 8)
    pairs = Eigenpairs(
        values=np.array([9.0, 3.0]),
        vectors=u[:, :2],
        residual_norms=np.zeros(2),
        trace=14.0,
        smallest=None,
        products=0,
        converged=True,
        left_out=NormBound(1.5, 1.0, 1e-6, 4),
    )
    covariance = low_rank_covariance(pairs, scale, 50.0, tail="l2")
    gradient = rng.normal(size=8)
    for each, left in ((covariance, 0.0), (_with_least_tail(covariance, pairs), 1.5)):
        curvature = (u * np.r_[9.0, 3.0, np.full(6, left)]) @ u.T + np.eye(8)
        expected = -scale * np.linalg.solve(curvature, scale * gradient)
        np.testing.assert_allclose(newton_step(each, gradient, 50.0), expected)


def test_it_is_measured_on_inputs_from_all_over_the_data():
    """Sorted data begin with inputs that are alike."""
    x, y = wine()
    dm = DeltaMethod(trained(1), "ggn", l2=0.5, progress=False)
    with pytest.warns(ConvergenceWarning):
        dm.fit(x, y)
    some, _ = calibration_inputs(dm._fitted.problem, None)
    which = np.linspace(0, len(x) - 1, len(some)).astype(int)
    np.testing.assert_array_equal(some, x[which])
    assert set(y[which]) == {0, 1, 2} > set(y[: len(some)])


@pytest.mark.wide  # of other weights: the test of few eigenpairs
def test_training_by_mini_batches_leaves_a_gradient_that_does_not_matter():
    model = trained(40, l2=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dm = DeltaMethod(model, "ggn", progress=False).fit(*wine())
    assert dm.stationarity.ratio > 0.5
    assert 0.0 < dm.stationarity.shift < 1.0
    assert not dm.stationarity.is_far


@pytest.mark.parametrize(
    ("epochs", "l2"), [(2, L2), wide(60, 5.0)], ids=["training that stopped", "another L2 rate"]
)
def test_a_fit_says_what_a_step_to_the_minimum_would_do(epochs, l2):
    model = trained(epochs)
    with pytest.warns(ConvergenceWarning) as caught:
        dm = DeltaMethod(model, "ggn", l2=l2, progress=False).fit(*wine())
    assert dm.stationarity.is_far
    text = str(caught[0].message)
    assert f"by {dm.stationarity.shift:.2g} of their standard errors (median)" in text
    assert f"the L2 rate, {l2:.3g}, is what" in text


@pytest.mark.wide  # its caveat: tests/delta/test_caveats.py
def test_a_tuned_rate_does_not_hide_that_training_stopped():
    x, y = wine()
    dm = DeltaMethod(trained(1, l2=0.0), "ggn", l2="tune", progress=False)
    with pytest.warns(ConvergenceWarning, match="far from a minimum.*chosen after training"):
        dm.fit(x, y)
    assert dm.stationarity.shift > 1.0
    before = dm.stationarity
    dm.tune_l2()
    assert dm.stationarity.shift == pytest.approx(before.shift, rel=0.2)


@pytest.mark.parametrize("curvature", ["ggn", wide("hessian")])
def test_few_eigenpairs_leave_the_distance_open_and_warn_of_nothing(curvature):
    """What they do not see makes the step long; all of them show that it is short."""
    x, y = wine()
    model = trained(40, l2=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few, every = (
            DeltaMethod(model, curvature, rank=rank, progress=False).fit(x, y).stationarity
            for rank in (5, "full")
        )
    assert few.least_shift < every.shift < 1.0 < few.shift
    assert not few.is_near
    assert not few.is_far
    assert few.shift_range == f"{few.least_shift:.2g} to {few.shift:.2g}"
    assert every.is_near
    assert every.shift == every.least_shift
    assert every.shift_range == f"{every.shift:.2g}"


def test_weights_of_zero_are_no_minimum_for_that():
    assert Stationarity(0.5, 0.1, 0.1, 0.0, 0.0).ratio == 1.0
    assert Stationarity(0.5, 0.0, 0.0, 0.0, 0.0).ratio == 0.0


@pytest.mark.parametrize(
    ("cost", "expected"), [(0.5, 0.4), (-3.0, 0.2)], ids=["a loss", "a density above one"]
)
def test_without_l2_the_ratio_is_in_units_of_the_cost_or_in_nats(cost, expected):
    assert Stationarity(cost, 0.1, 0.1, 0.0, 2.0).ratio == pytest.approx(expected)
