"""A curvature that is registered with a few lines is taken wherever a curvature is named."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import reference
from marks import wide

import deltauq
from deltauq import DeltaMethod
from deltauq.curvature import CURVATURES, GGN, OPG, CurvatureKind, SandwichMeat, register
from deltauq.curvature.registry import names_where
from deltauq.errors import InvalidInputError

L2 = 0.05

# Random weights are far from a minimum of the cost; `fit` says so, and the algebra still holds.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # of Keras, where it loads
]


class DoubledGGN(GGN):
    """Twice the GGN."""

    def _factor(self, logits, y):
        return 2**0.5 * super()._factor(logits, y)


DOUBLED = CurvatureKind("doubled", DoubledGGN, short_name="doubled GGN", meaning="twice the GGN")
ROBUST = CurvatureKind("robust", GGN, SandwichMeat, short_name="GGN sandwich")


@pytest.fixture(params=[DOUBLED, ROBUST], ids=lambda kind: kind.name)
def kind(request):
    yield register(request.param)
    del CURVATURES[request.param.name]


def sigma_of(kind, truth, n_examples):
    """The covariance of the parameters with dense matrices."""
    unit = L2 * np.eye(len(truth.ggn))
    if kind is DOUBLED:
        return np.linalg.inv(2 * truth.ggn + unit) / n_examples
    inverse = np.linalg.inv(truth.ggn + unit)
    return inverse @ (truth.opg + unit) @ inverse / n_examples


def relative(found, expected):
    return np.max(np.abs(found - expected)) / np.max(np.abs(expected))


OPTIONS = {"l2": L2, "progress": False, "batch_size": 4, "weights": "counts"}


@pytest.mark.parametrize("name", [wide("no_hidden"), "tanh"])
def test_it_is_fitted_predicted_and_saved_as_the_dense_matrices_say(get_case, tmp_path, kind, name):
    """Of `no_hidden` the GGN itself takes another form, which is no form of twice the GGN."""
    case = get_case(name)
    sigma = sigma_of(kind, case.truth, case.weight.sum())
    expected = reference.probability_covariance(
        case.truth.jacobian, case.truth.probabilities, sigma
    )
    dm = DeltaMethod(case.model, kind.name, rank="full", **OPTIONS)
    dm.fit(case.x, case.y, case.weight).save(tmp_path / "m.deltauq")
    assert relative(dm.covariance.to_dense().numpy(), sigma) < 1e-8
    assert relative(dm.predict(case.x).covariance, expected) < 1e-8
    loaded = DeltaMethod.load(tmp_path / "m.deltauq")
    assert loaded.curvature == kind.name
    assert relative(loaded.predict(case.x).covariance, expected) < 1e-8


def test_its_low_rank_bounds_contain_the_dense_truth(get_case, kind):
    case = get_case("tanh")
    sigma = sigma_of(kind, case.truth, case.weight.sum())
    covariance = reference.probability_covariance(
        case.truth.jacobian, case.truth.probabilities, sigma
    )
    std = np.sqrt(np.einsum("ncc->nc", covariance))
    dm = DeltaMethod(case.model, kind.name, rank=12, **OPTIONS).fit(case.x, case.y, case.weight)
    prediction = dm.predict(case.x)
    assert prediction.certified == (kind is DOUBLED)
    low, high = prediction.std_bounds
    slack = 0.0 if kind is DOUBLED else 0.01  # those of a sandwich are an estimate
    assert np.all(low * (1 - slack) <= std)
    assert np.all(std <= high * (1 + slack))
    refined = dm.refine(case.x[:2], rtol=0.02)
    assert relative(refined.std, std[:2]) < 0.02


@pytest.mark.wide  # fitted, predicted and saved: the tests before
def test_it_is_compared_diagnosed_and_told(get_case, kind):
    case = get_case("tanh")
    comparison = deltauq.compare(
        case.model,
        case.x,
        case.y,
        case.x,
        case.y,
        sample_weight=case.weight,
        curvatures=("ggn", kind.name),
        rank="full",
        **OPTIONS,
    )
    if kind is DOUBLED:
        assert comparison.agreement("doubled").median_ratio < 1
    assert kind.short_name in comparison.to_html()
    diagnosis = deltauq.diagnose(case.model, case.x, case.y, l2=L2)
    timed = [cost.curvature for cost in diagnosis.costs]
    assert timed == ["opg", "ggn", *(["doubled"] if kind is DOUBLED else []), "hessian"]


def test_its_sandwich_has_no_marginal_likelihood(get_case, kind):
    case = get_case("tanh")
    dm = DeltaMethod(case.model, kind.name, rank="full", **OPTIONS).fit(case.x, case.y)
    if kind is DOUBLED:
        assert np.isfinite(dm.log_marginal_likelihood().value)
        return
    with pytest.raises(InvalidInputError, match=r"'hessian', 'opg' or 'ggn'.*curvature='robust'"):
        dm.log_marginal_likelihood()


@pytest.mark.parametrize(("operator", "power"), [(GGN, 1), (OPG, 2)])
def test_the_noise_of_a_regression_scales_it_as_its_operator_says(operator, power):
    """Registered anew, GGN and OPG give what they give under their own names."""
    rng = np.random.default_rng(2)
    keras.utils.set_random_seed(0)
    x = rng.normal(size=(40, 3))
    y = x @ [1.0, -1.0, 0.5] + 0.3 * rng.normal(size=40)
    model = keras.Sequential([keras.Input((3,), dtype="float64"), keras.layers.Dense(1)])
    model.layers[0].set_weights([np.array([[1.0], [-1.0], [0.5]]), np.zeros(1)])
    options = {"l2": 0.1, "likelihood": "gaussian", "rank": 2, "progress": False}
    own = {GGN: "ggn", OPG: "opg"}[operator]
    kind = register(CurvatureKind("again", operator))
    try:
        found, expected = (
            DeltaMethod(model, name, **options).fit(x, y).predict(x) for name in ("again", own)
        )
    finally:
        del CURVATURES["again"]
    assert kind.noise_power == power
    np.testing.assert_array_equal(found.std, expected.std)
    np.testing.assert_array_equal(found.noise, expected.noise)


def test_a_name_is_given_once():
    with pytest.raises(InvalidInputError, match=r"known already.*'sandwich'.*'ggn'"):
        register(CurvatureKind("ggn", GGN))


def test_a_curvature_that_is_not_registered_is_refused():
    with pytest.raises(InvalidInputError, match=r"'hessian', 'opg', 'ggn', 'sandwich'.*doubled"):
        DeltaMethod(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]), "doubled")


def test_what_the_four_curvatures_are():
    assert names_where(lambda kind: kind.is_sandwich) == "'sandwich'"
    assert names_where(lambda kind: kind.made_of_scores) == "'opg'"
    assert names_where(lambda kind: kind.semidefinite, "or") == "'opg' or 'ggn'"
    assert names_where(lambda kind: kind.second_derivatives) == "'hessian' and 'sandwich'"
    assert {name: kind.noise_power for name, kind in CURVATURES.items()} == {
        "hessian": 1,
        "opg": 2,
        "ggn": 1,
        "sandwich": 1,
    }
