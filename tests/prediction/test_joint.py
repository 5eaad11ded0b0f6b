"""Covariances between inputs, and means over groups of them."""

from __future__ import annotations

import numpy as np
import pytest
from marks import wide

from deltauq import DeltaMethod
from deltauq.errors import InvalidInputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # tensorflow-probability
]


def fit(case, **options):
    options = {"rank": 10, "l2": 0.05, "weights": "counts", "progress": False} | options
    return DeltaMethod(case.model, "ggn", **options).fit(case.x, case.y, case.weight)


@pytest.mark.parametrize("rank", [wide(10), "full"])
@pytest.mark.parametrize("l2", [wide(0.05), {"*kernel": 0.05, "*bias": 0.2}])
def test_it_is_j_sigma_j_over_all_inputs(get_case, rank, l2):
    case = get_case("tanh")
    dm = fit(case, rank=rank, l2=l2)
    joint = dm.predict_joint(case.x)
    sigma, p = dm.covariance.to_dense().numpy(), case.truth.probabilities
    logit = np.einsum("bcp,pq,deq->bcde", case.truth.jacobian, sigma, case.truth.jacobian)
    slope = np.einsum("bc,ce->bce", p, np.eye(3)) - p[:, :, None] * p[:, None, :]
    both = np.einsum("bij,bjdk,dlk->bidl", slope, logit, slope)
    np.testing.assert_allclose(joint.logit_covariance, logit, atol=1e-10 * np.abs(logit).max())
    np.testing.assert_allclose(joint.covariance, both, atol=1e-10 * np.abs(both).max())
    np.testing.assert_allclose(joint.probabilities, p)
    # One by one inputs have tails of their own, which no covariance of the weights has.
    dm = fit(case, rank=rank, l2=l2, tail="midpoint")
    own = np.einsum("bcbe->bce", dm.predict_joint(case.x).covariance)
    np.testing.assert_allclose(own, dm.predict(case.x).covariance, atol=1e-12)


def test_batches_do_not_matter(get_case, monkeypatch):
    case = get_case("relu_conv")
    dm = fit(case)
    whole = dm.predict_joint(case.x).covariance
    monkeypatch.setattr(
        "deltauq.prediction.result_memory.prediction_batch", lambda *args, **options: 3
    )
    np.testing.assert_allclose(dm.predict_joint(case.x).covariance, whole, atol=1e-14)


def test_the_variance_of_a_groups_mean_is_that_of_the_linearised_model(get_case):
    """Over 20,000 draws of the posterior; inputs share the weights: no independent errors."""
    case = get_case("tanh")
    dm = fit(case)
    groups = np.array([np.arange(11) < 4, np.arange(11) >= 4], float)
    found = dm.predict_joint(case.x).mean(groups)
    draws = dm.posterior().sample(20_000, seed=1).numpy() - dm.posterior().mean().numpy()
    p = case.truth.probabilities
    slope = np.einsum("bc,ce->bce", p, np.eye(3)) - p[:, :, None] * p[:, None, :]
    moved = np.einsum("bij,bjp,sp->sbi", slope, case.truth.jacobian, draws, optimize=True)
    shares = groups / groups.sum(axis=1, keepdims=True)
    means = np.einsum("gb,sbc->sgc", shares, moved)
    np.testing.assert_allclose(found.std, means.std(axis=0), rtol=4 / np.sqrt(2 * 20_000))
    np.testing.assert_allclose(found.probabilities, shares @ p)
    independent = np.sqrt(shares**2 @ dm.predict(case.x).std ** 2)
    assert np.any(found.std > 1.2 * independent)


def test_groups_are_checked(get_case):
    joint = fit(get_case("tanh")).predict_joint(get_case("tanh").x[:3])
    assert joint.mean().probabilities.shape == (1, 3)
    with pytest.raises(InvalidInputError, match=r"weights cannot be used.*\[G, 3\]"):
        joint.mean(np.ones(4))
    with pytest.raises(InvalidInputError, match="a group has no inputs"):
        joint.mean(np.zeros(3))
