"""`DeltaRegressor` is linear regression without hidden units, and knows no unit of y with them."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.datasets
import sklearn.linear_model
import statsmodels.api
from marks import wide

from deltauq import DeltaMethod, DeltaRegressor, DeltaUQError


def regressor(**options):
    options = {"hidden_units": (3,), "l2": 2e-2, "epochs": 0, "progress": False} | options
    return DeltaRegressor(**{"rank": "full", "bounds": False, "tol": 1e-6} | options)


def linear(**options):
    return regressor(hidden_units=(), **options)


@pytest.fixture(scope="module")
def diabetes():
    X, y = sklearn.datasets.load_diabetes(return_X_y=True)
    return (X / X.std(axis=0))[:150, :5], y[:150]


@pytest.fixture(scope="module")
def two_outputs(diabetes):
    """Numbers in very different units, one of them far noisier than the other."""
    X, y = diabetes
    rng = np.random.default_rng(0)
    return X, np.column_stack([y, 1e-3 * (X[:, 0] - X[:, 1] + 0.1 * rng.normal(size=len(X))) + 7])


def with_ones(X):
    return np.column_stack([X, np.ones(len(X))])


def test_without_hidden_units_it_is_ridge_regression(diabetes):
    """With y standardised, and the intercept penalised as one more column's weight."""
    X, y = diabetes
    rate, design, standard = 0.3, with_ones(X), (y - y.mean()) / y.std()
    alpha = len(X) * rate / 2  # scikit-learn minimises the sum of squares + alpha * sum w^2
    ridge = sklearn.linear_model.Ridge(alpha=alpha, fit_intercept=False).fit(design, standard)
    expected = y.mean() + y.std() * ridge.predict(design)
    precision = design.T @ design + alpha * np.eye(design.shape[1])
    effective = np.trace(np.linalg.solve(precision, design.T @ design))
    noise = np.sum((y - expected) ** 2) / (len(X) - effective)
    std = np.sqrt(noise * np.einsum("ni,ni->n", design, np.linalg.solve(precision, design.T).T))

    reg = linear(l2=rate).fit(X, y)
    prediction = reg.predict_uncertainty(X)
    np.testing.assert_allclose(reg.predict(X), expected, rtol=1e-6)
    np.testing.assert_allclose(prediction.mean[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(prediction.noise[:, 0], noise, rtol=1e-6)
    np.testing.assert_allclose(prediction.std[:, 0], std, rtol=1e-6)


def test_without_l2_its_intervals_are_those_of_least_squares(diabetes):
    X, y = diabetes
    truth = statsmodels.api.OLS(y, with_ones(X)).fit().get_prediction(with_ones(X))
    prediction = linear(l2=0.0).fit(X, y).predict_uncertainty(X)
    np.testing.assert_allclose(prediction.mean[:, 0], truth.predicted_mean, rtol=1e-6)
    np.testing.assert_allclose(prediction.std[:, 0], truth.se_mean, rtol=1e-6)
    np.testing.assert_allclose(prediction.observation_std[:, 0], truth.se_obs, rtol=1e-6)


def test_several_outputs_are_least_squares_of_each(two_outputs):
    """The outputs' weights do not matter where no weight of the network is shared."""
    X, Y = two_outputs
    reg = linear(l2=0.0).fit(X, Y)
    prediction = reg.predict_uncertainty(X)
    assert reg.predict(X).shape == (150, 2)
    for c in range(2):
        truth = statsmodels.api.OLS(Y[:, c], with_ones(X)).fit().get_prediction(with_ones(X))
        np.testing.assert_allclose(prediction.mean[:, c], truth.predicted_mean, rtol=1e-6)
        np.testing.assert_allclose(prediction.std[:, c], truth.se_mean, rtol=1e-5)


@pytest.mark.wide  # several outputs: the test of least squares
def test_several_outputs_end_where_their_noise_says(two_outputs):
    """A minimum of the likelihood with the noise as estimated, though the noises differ by far."""
    reg = regressor(hidden_units=(4,), tol=1e-4).fit(*two_outputs)
    noise = reg.delta_.fitted_likelihood.noise_variance() / two_outputs[1].var(axis=0)
    assert noise[0] / noise[1] > 20
    assert reg.delta_.stationarity.ratio < 0.02


@pytest.mark.parametrize("case", ["diabetes", wide("two_outputs")])
def test_the_unit_of_y_does_not_matter(case, request):
    X, y = request.getfixturevalue(case)
    one, other = (regressor(tol=1e-5).fit(X, target) for target in (y, 1e-4 * y - 3))
    ours, theirs = (reg.predict_uncertainty(X) for reg in (one, other))
    np.testing.assert_allclose(1e-4 * ours.mean - 3, theirs.mean, rtol=1e-6)
    np.testing.assert_allclose(1e-4 * ours.std, theirs.std, rtol=1e-4)
    np.testing.assert_allclose(1e-8 * ours.noise, theirs.noise, rtol=1e-4)


@pytest.mark.wide  # so does the classifier: test_classifier.py
def test_it_wraps_the_same_delta_method(diabetes):
    """The L2 rate can be read from the model, in the unit of y's squares."""
    reg = regressor().fit(*diabetes)
    dm = DeltaMethod(
        reg.model_, "ggn", likelihood="gaussian", rank="full", bounds=False, progress=False
    ).fit(*diabetes)
    ours, theirs = reg.predict_uncertainty(diabetes[0]), dm.predict(diabetes[0])
    np.testing.assert_allclose(ours.covariance, theirs.covariance, rtol=1e-10)
    np.testing.assert_allclose(ours.noise, theirs.noise, rtol=1e-10)
    assert dm.stationarity.ratio == pytest.approx(reg.stationarity_.ratio, abs=1e-6)


@pytest.mark.wide  # of the classifier: scikit-learn's check of sample weights
@pytest.mark.parametrize("case", ["diabetes", wide("two_outputs")])
def test_sample_weights_equal_repeated_rows(case, request):
    X, y = request.getfixturevalue(case)
    counts = np.random.default_rng(0).integers(0, 4, len(X))
    weighted = regressor(tol=1e-5).fit(X, y, counts)
    repeated = regressor(tol=1e-5).fit(np.repeat(X, counts, axis=0), np.repeat(y, counts, axis=0))
    ours, theirs = (reg.predict_uncertainty(X) for reg in (weighted, repeated))
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-4)
    np.testing.assert_allclose(ours.std, theirs.std, rtol=1e-3)


@pytest.mark.wide  # the defaults: the example of DeltaRegressor; real data: the tests before
def test_the_defaults_do_for_real_data():
    X, y = sklearn.datasets.load_diabetes(return_X_y=True)
    X = X / X.std(axis=0)
    reg = DeltaRegressor(progress=False).fit(X[:300], y[:300])
    lower, upper = reg.predict_uncertainty(X[300:]).interval(of="observation")
    assert reg.verdict_ == "stationary"
    assert reg.score(X[300:], y[300:]) > 0.5
    assert 0.9 < np.mean((lower[:, 0] < y[300:]) & (y[300:] < upper[:, 0])) < 0.99


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.ones(9)}, "y does not vary.*columns \\[0\\]"),
        ({"y": np.column_stack([np.arange(9), np.full(9, 0.1)])}, "columns \\[1\\]"),
        ({"sample_weight": np.zeros(9)}, "all weights of sample_weight are zero.*9 zeros"),
        ({"sample_weight": -np.ones(9)}, "sample_weight is negative"),
        ({"sample_weight": np.ones((9, 2))}, "sample_weight is not a vector"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(changes, message):
    data = {"X": np.eye(9), "y": np.arange(9.0)} | changes
    with pytest.raises(DeltaUQError, match=message):
        regressor().fit(**data)
