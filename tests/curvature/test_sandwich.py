"""The sandwich covariance equals the dense one, in low rank too."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from marks import covering, slow, wide

from deltauq import DeltaMethod
from deltauq.errors import InvalidInputError, NotPositiveDefiniteError

L2 = 0.05

pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")


def fit(case, **options):
    options = {"rank": "full", "l2": L2, "weights": "counts", "progress": False} | options
    return DeltaMethod(case.model, "sandwich", **options).fit(case.x, case.y, case.weight)


def dense(case, meat, rates=L2, *, project=True):
    """(1/N) H^-1 G H^-1, negative curvature projected in the prior's metric."""
    rates = np.broadcast_to(rates, len(case.truth.opg)).astype(float)
    n = case.weight.sum()
    inverse = "projected_parameter_covariance" if project else "parameter_covariance"
    bread = n * getattr(reference, inverse)(case.truth.hessian, rates, n)
    inner = case.truth.opg + (np.diag(rates) if meat == "opg" else 0.0)
    return bread @ inner @ bread / n


def relative(found, expected):
    return np.max(np.abs(found - expected)) / np.max(np.abs(expected))


@covering(meat=["scores", "opg"], rates=["several rates", "one rate"])
@pytest.mark.parametrize("name", ["tanh", wide("no_hidden"), wide("relu_conv")])
def test_full_rank_equals_the_dense_sandwich(get_case, name, meat, rates):
    case = get_case(name)
    l2 = L2 if rates == "one rate" else {"*kernel": L2, "*bias": 3 * L2}
    dm = fit(case, meat=meat, l2=l2)
    per_parameter = dm._fitted.problem.rates
    sigma = dense(case, meat, per_parameter)
    prediction = dm.predict(case.x)
    logit = reference.logit_covariance(case.truth.jacobian, sigma)
    assert relative(prediction.logit_covariance, logit) < 1e-8
    probability = reference.probability_covariance(
        case.truth.jacobian, case.truth.probabilities, sigma
    )
    assert relative(prediction.covariance, probability) < 1e-8
    assert relative(dm.covariance.to_dense().numpy(), sigma) < 1e-8


@pytest.mark.parametrize("meat", [wide("opg"), slow("scores")])
def test_low_rank_approaches_the_dense_sandwich(get_case, meat):
    """Exact where U holds the Hessian's positive eigenvectors; the OPG's 11 are all in V."""
    case = get_case("tanh")
    truth = fit(case, meat=meat).predict(case.x).std
    errors = [
        np.max(np.abs(fit(case, meat=meat, rank=rank).predict(case.x).std / truth - 1))
        for rank in (5, 20, 40)
    ]
    assert errors[1] < errors[0]
    assert errors[2] < 1e-8


@pytest.mark.filterwarnings("ignore:the exact Hessian shows no minimum")
def test_its_bounds_are_an_estimate_and_say_so(get_case):
    case = get_case("tanh")
    prediction = fit(case, rank=15).predict(case.x)
    assert not prediction.certified
    low, high = prediction.std_bounds
    assert np.all(low <= prediction.std)
    assert np.all(prediction.std <= high)
    assert np.any(low < high)


@pytest.mark.wide  # the rules: tests/delta/test_delta_method.py
def test_the_same_rules_for_negative_curvature(get_case):
    case = get_case("tanh")
    with pytest.raises(NotPositiveDefiniteError, match="negative eigenvalues"):
        fit(case, negative_curvature="raise")
    enough = 2 * abs(np.linalg.eigvalsh(case.truth.hessian)[0])
    kept = fit(case, negative_curvature="keep", l2=enough)
    sigma = dense(case, "opg", enough, project=False)
    assert relative(kept.covariance.to_dense().numpy(), sigma) < 1e-8


def test_meat_is_checked(get_case):
    with pytest.raises(InvalidInputError, match="meat='beef'"):
        fit(get_case("tanh"), meat="beef")


@pytest.mark.wide  # of each operator alone: test_operators.py
def test_several_curvatures_of_one_plan_do_not_depend_on_the_batch_size(get_case):
    case = get_case("relu_conv")
    results = [fit(case, rank=10, batch_size=b).predict(case.x).std for b in (3, 11)]
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)
