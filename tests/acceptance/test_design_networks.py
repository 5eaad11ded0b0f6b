"""The networks of the papers' kind on which everything can be checked densely: digits, 64-32-10.

Trained to the end, in float64, on 1,500 digits: 2,410 parameters, 297 other digits to predict.
"""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
import scipy.linalg
import sklearn.datasets

from deltauq import ConvergenceWarning, DeltaClassifier, DeltaMethod
from deltauq.curvature import CURVATURES
from deltauq.delta.solving import make_operator
from deltauq.errors import NotPositiveDefiniteError

pytestmark = pytest.mark.slow


@cache
def trained(activation, data="digits"):
    load = {
        "digits": sklearn.datasets.load_digits,
        "breast cancer": sklearn.datasets.load_breast_cancer,
    }[data]
    x, y = load(return_X_y=True)
    if data == "digits":
        x, train = x / 16, 1_500
    else:
        x, train = (x - x.mean(axis=0)) / x.std(axis=0), 400
    classifier = DeltaClassifier(
        (32,) if data == "digits" else (64,),
        activation,
        l2=1e-3 if activation == "tanh" else 1e-2,
        rank=1,
        bounds=False,
        tol=1e-6,
        max_iter=20_000,
        progress=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(x[:train], y[:train])
    if activation == "tanh":
        assert classifier.stationarity_.ratio < 1e-5
    return classifier.model_, x[:train], y[:train], x[train:]


def fit(activation, curvature, data="digits", **options):
    model, x, y, _ = trained(activation, data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return DeltaMethod(model, curvature, progress=False, **options).fit(x, y)


@cache
def truth(activation, curvature, data="digits"):
    dm = fit(activation, curvature, data, rank="full")
    return dm.predict(trained(activation, data)[3])


def width(prediction):
    low, high = prediction.std_bounds
    return float(np.median((high - low) / high))


def contained(prediction, true):
    pairs = ((prediction.logit_std_bounds, true.logit_std), (prediction.std_bounds, true.std))
    return all(np.all(low <= std) and np.all(std <= high) for (low, high), std in pairs)


@pytest.mark.parametrize(
    ("curvature", "rank", "widest"), [("opg", 100, 0.16), ("opg", 200, 0.02), ("ggn", 400, 0.10)]
)
def test_bounds_are_tight(curvature, rank, widest):
    prediction = fit("tanh", curvature, rank=rank).predict(trained("tanh")[3])
    assert contained(prediction, truth("tanh", curvature))
    assert width(prediction) <= widest
    print(f"{curvature} K = {rank}: width {width(prediction):.2%}")


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("curvature", ["opg", "ggn", "hessian"])
def test_breast_cancer_is_contained(curvature, activation):
    others = trained(activation, "breast cancer")[3]
    for rank in (20, 100):
        prediction = fit(activation, curvature, "breast cancer", rank=rank).predict(others)
        assert contained(prediction, truth(activation, curvature, "breast cancer"))


@pytest.mark.parametrize(("curvature", "rank"), [("opg", 100), ("ggn", 200)])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_refined_to_one_percent(activation, curvature, rank):
    others = trained(activation)[3][:64]
    dm = fit(activation, curvature, rank=rank)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        prediction = dm.refine(others, rtol=0.01)
    assert contained(prediction, truth(activation, curvature)[:64])
    for low, high in (prediction.std_bounds, prediction.logit_std_bounds):
        assert np.all((high - low) / high <= 0.01 + 1e-8)
    print(f"{activation} {curvature}: {prediction.data_passes} passes")


def dense_hessian(activation):
    dm = fit(activation, "hessian", rank=1, bounds=False)
    problem = dm._fitted.problem
    return make_operator(problem, CURVATURES["hessian"].bread).to_dense(), problem


def test_kept_and_projected_negative_curvature_equal_the_dense_inverse():
    m, problem = dense_hessian("tanh")
    values, vectors = np.linalg.eigh(m)
    assert np.count_nonzero(values < 0) > 200
    unit = 1e-3 * problem.data.n_examples
    kept = fit("tanh", "hessian", rank="full", negative_curvature="keep")
    inverse = np.linalg.inv(m + np.eye(len(m))) / unit
    found = kept.covariance.to_dense().numpy()
    assert np.max(np.abs(found - inverse)) < 1e-8 * np.max(np.abs(inverse))
    projected = (vectors / (1.0 + np.maximum(values, 0.0))) @ vectors.T / unit
    found = fit("tanh", "hessian", rank="full").covariance.to_dense().numpy()
    assert np.max(np.abs(found - projected)) < 1e-8 * np.max(np.abs(projected))


def test_a_thousand_pairs_of_both_ends_are_enough_to_keep_negative_curvature():
    others = trained("tanh")[3]
    true = fit("tanh", "hessian", rank="full", negative_curvature="keep").predict(others)
    dm = fit("tanh", "hessian", rank=1_000, negative_curvature="keep")
    assert (dm.eigenpairs.rank, dm.eigenpairs.n_lowest) == (1_000, 400)
    found = dm.predict(others)
    np.testing.assert_allclose(found.std, true.std, rtol=0.02)


def test_relu_has_no_covariance_to_keep():
    with pytest.raises(NotPositiveDefiniteError, match=r"not positive definite.*'ggn' or 'opg'"):
        fit("relu", "hessian", rank="full", negative_curvature="keep")


@pytest.mark.parametrize("rank", [100, 200])
def test_the_tuned_l2_rate_is_near_the_dense_optimum(rank):
    rates = []
    for some in ("full", rank):
        dm = fit("tanh", "ggn", rank=some, bounds=False)
        rates.append(dm.tune_l2().rate)
    assert 1 / 1.5 < rates[1] / rates[0] < 1.5
    print(f"K = {rank}: {rates[1]:.3g}, dense {rates[0]:.3g}")


def test_sandwich_in_full_rank():
    m, problem = dense_hessian("tanh")
    values, vectors = np.linalg.eigh(m)
    g = make_operator(problem, CURVATURES["opg"].bread).to_dense()
    bread = (vectors / (1.0 + np.maximum(values, 0.0))) @ vectors.T
    for meat, extra in (("opg", 1.0), ("scores", 0.0)):
        truth = bread @ (g + extra * np.eye(len(g))) @ bread / (1e-3 * problem.data.n_examples)
        dm = fit("tanh", "sandwich", rank="full", meat=meat)
        found = dm.covariance.to_dense().numpy()
        assert scipy.linalg.norm(found - truth) < 1e-8 * scipy.linalg.norm(truth)
