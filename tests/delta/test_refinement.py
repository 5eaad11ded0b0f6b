"""Refined standard errors: contained in their bounds, and as narrow as was asked."""

from __future__ import annotations

import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from marks import slow, wide

from deltauq import ConvergenceWarning, DeltaMethod
from deltauq.curvature import GGN
from deltauq.delta.enclosing import Certain, _around
from deltauq.delta.refinement import MAX_PASSES, _Narrow, refinement
from deltauq.errors import InvalidInputError, NumericalError
from deltauq.linalg import Whitening, bound_matrix_forms, gauss_radau
from deltauq.runtime.progress import ProgressDisplay

pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")


def fit(case, curvature, **options):
    options = {"rank": 4, "l2": 0.01, "weights": "counts", "progress": False} | options
    return DeltaMethod(case.model, curvature, **options).fit(case.x, case.y, case.weight)


@pytest.mark.parametrize("largest", [1.0, 1.5, 30.0])
def test_quadrature_bounds_the_inverse_from_both_sides(largest):
    """In the semidefinite order, at every number of steps, for spectra from 1 on."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(90, 90)))
    values = np.r_[np.ones(30), np.linspace(1.0, largest, 60)]
    t, rows = (q * values) @ q.T, rng.normal(size=(4, 3, 90))
    rows[1, 2] = 0.0  # a row of zeros
    rows[2, 1] = rows[2, 0]  # a dependent one
    truth = rows @ np.linalg.solve(t, np.swapaxes(rows, 1, 2))
    size = np.abs(truth).max()
    widths = []
    for steps in (1, 2, 4, 8):
        rule = partial(gauss_radau, node=1 - 1e-9)
        found = bound_matrix_forms(lambda v: t @ v, rows, rule, is_enough=_never, max_steps=steps)
        assert np.all(np.linalg.eigvalsh(truth - found.low) > -1e-7 * size)
        assert np.all(np.linalg.eigvalsh(found.high - truth) > -1e-7 * size)
        widths.append(np.trace(found.high - found.low, axis1=1, axis2=2).sum() / size)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.2 * widths[0] or widths[0] < 1e-6


def test_the_upper_bound_is_exact_with_the_node_at_the_smallest_of_two_eigenvalues():
    """T - a I then has no Schur complement left, whatever a: one step says all."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    t, rows = (q * np.repeat([0.4, 3.0], 20)) @ q.T, rng.normal(size=(2, 3, 40))
    truth = rows @ np.linalg.solve(t, np.swapaxes(rows, 1, 2))
    found = bound_matrix_forms(
        lambda v: t @ v, rows, partial(gauss_radau, node=0.4), is_enough=_never, max_steps=1
    )
    np.testing.assert_allclose(found.high, truth)
    assert np.all(np.linalg.eigvalsh(truth - found.low) > 1e-2 * np.abs(truth).max())


def test_a_direction_that_ends_leaves_the_basis_orthonormal():
    """A row that is an eigenvector has no next direction; the others go on."""
    rng = np.random.default_rng(0)
    t, rows, seen = np.diag(np.linspace(1.0, 20.0, 60)), rng.normal(size=(2, 3, 60)), []
    rows[0, 1], rows[1, 0] = np.eye(60)[[7, 30]]

    def rule(krylov):
        q = np.concatenate(krylov.basis, axis=1)
        seen.append(np.abs(q @ np.swapaxes(q, 1, 2) - np.eye(q.shape[1])).max())
        return (np.zeros((2, 3, 3)),) * 2

    bound_matrix_forms(lambda v: t @ v, rows, rule, is_enough=_never, max_steps=8)
    assert max(seen) < 1e-12


@pytest.mark.parametrize("excess", [0.0, 1.0])
def test_refined_bounds_hold_where_rounding_made_the_eigenpairs_too_large(excess):
    """By epsilon mu_1, as is allowed for: T has eigenvalues under 1 then, and the node is there.

    Of a curvature of 0 that passes for one of epsilon mu_1, and 3 outside: a node at 1 would give
    less than the truth after one step.
    """
    rng = np.random.default_rng(0)
    size, epsilon = 30, 5e-3
    q = np.linalg.qr(rng.normal(size=(size, size)))[0]
    curvature = (q * np.r_[30.0, 0.0, np.full(size - 2, 3.0)]) @ q.T
    vectors, values = np.ascontiguousarray(q[:, :2]), np.array([30.0, excess * epsilon * 30.0])
    whitening = Whitening(vectors, values, rounding=epsilon * 30.0)
    operator = SimpleNamespace(matmat=lambda v: curvature @ v)
    certain = Certain(operator, whitening, rounding=0.0, slack=lambda rows: None)
    rows = (rng.normal(size=(6, 1, size)) * np.r_[0.0, 2.0, np.ones(size - 2)]) @ q.T
    truth = (rows @ np.linalg.solve(curvature + np.eye(size), np.swapaxes(rows, 1, 2))).ravel()
    forms = certain(rows, lambda low, high, some: np.ones(len(some), bool), max_steps=6)
    assert np.all(forms.steps == 1)
    assert np.all(forms.low.ravel() < truth)
    assert np.all(forms.high.ravel() > truth * (1 - 1e-12))
    assert np.all(forms.high.ravel() < truth * 1.1)


def test_the_estimates_interval_is_what_the_last_two_steps_changed():
    """E - |E - E'| - |E' - E''| and E + the same, with absolute values of matrices."""
    e = np.array([[[2.0, 0.3], [0.3, 1.0]]])
    rotation = np.array([[0.8, -0.6], [0.6, 0.8]])
    change = rotation @ np.diag([0.2, -0.1]) @ rotation.T
    size = rotation @ np.diag([0.2, 0.1]) @ rotation.T
    low, high = _around([e, e - change, e - 3 * change])
    np.testing.assert_allclose(low, e - 3 * size)
    np.testing.assert_allclose(high, e + 3 * size)


@pytest.mark.parametrize("masked", [True, False])
def test_an_input_is_narrow_enough_when_every_logit_and_every_mean_is(masked):
    """Or when it is masked, so that nobody reads it."""
    shown = SimpleNamespace(
        back=np.eye(2)[None, :1], slope=np.eye(2)[None, 1:], masked=np.array([masked])
    )
    narrow = _Narrow(SimpleNamespace(shown=shown), rtol=0.1)
    for widths, enough in (((0.05, 0.05), True), ((0.2, 0.05), False), ((0.05, 0.2), False)):
        low = np.diag((1.0 - np.array(widths)) ** 2)[None]
        assert narrow(low, np.eye(2)[None], np.array([0])) == (enough or masked)


def test_less_than_all_steps_is_what_fewer_steps_gave():
    """X f(T) Q^T of k steps less one is that of k - 1; of none f(0) X; before that zero."""
    rng = np.random.default_rng(0)
    t, rows, seen = np.diag(np.linspace(-0.5, 3.0, 40)), rng.normal(size=(2, 3, 40)), []

    def rule(krylov):
        seen.append([krylov.combine(krylov.apply(np.exp, drop=drop)) for drop in range(3)])
        return (np.zeros((2, 3, 3)),) * 2

    bound_matrix_forms(lambda v: t @ v, rows, rule, is_enough=_never, max_steps=11)
    np.testing.assert_allclose(seen[0][1], rows, atol=1e-12)
    np.testing.assert_array_equal(seen[0][2], 0.0)
    for (_, one_less, two_less), (earlier, before, _) in zip(seen[1:], seen, strict=False):
        np.testing.assert_allclose(one_less, earlier, atol=1e-10)
        np.testing.assert_allclose(two_less, before, atol=1e-10)
    np.testing.assert_allclose(seen[-1][0], rows * np.exp(np.diag(t)), atol=1e-5)


def _never(low, high, some):
    return np.zeros(len(some), bool)


def test_blocks_stop_one_by_one():
    """Each block's products end when it is close enough; the others go on."""
    rng = np.random.default_rng(0)
    t, rows = np.diag(np.linspace(1.0, 20.0, 60)), rng.normal(size=(3, 2, 60))
    rows[0, :, 2:] = 0.0  # an invariant subspace: exact at once
    columns = []

    def matmat(vectors):
        columns.append(vectors.shape[1])
        return t @ vectors

    found = bound_matrix_forms(
        matmat,
        rows,
        partial(gauss_radau, node=1 - 1e-9),
        is_enough=lambda low, high, some: np.trace(high - low, axis1=1, axis2=2) < 1e-3,
        max_steps=20,
    )
    assert found.steps[0] == 1
    assert np.all(found.steps[1:] > 2)
    assert found.enough.all()
    assert columns[0] == 6
    assert columns[1] == 4


@pytest.mark.parametrize("curvature", [wide("ggn"), "opg"])
@pytest.mark.parametrize("l2", [wide(0.01), {"*kernel": 0.01, "*bias": 0.03}])
@pytest.mark.parametrize("name", ["tanh", slow("relu_conv")])
def test_refined_standard_errors_are_those_from_all_eigenpairs(get_case, name, curvature, l2):
    case = get_case(name)
    truth = fit(case, curvature, rank="full", l2=l2).predict(case.x)
    dm = fit(case, curvature, l2=l2)
    found = dm.refine(case.x, rtol=0.01)
    for (low, high), std, true in (
        (found.std_bounds, found.std, truth.std),
        (found.logit_std_bounds, found.logit_std, truth.logit_std),
    ):
        assert np.all((high - low) / high <= 0.0101)
        assert np.all((low <= true) & (true <= high))
        np.testing.assert_allclose(std**2, (low**2 + high**2) / 2, rtol=1e-6)
    assert 1 <= found.data_passes <= 6
    assert found.certified
    np.testing.assert_allclose(found.probabilities, truth.probabilities)
    np.testing.assert_allclose(found.covariance.sum(axis=2), 0.0, atol=1e-12)
    assert dm.predict(case.x).data_passes == 0


def test_rows_that_were_kept_are_given_back(get_case, monkeypatch):
    """By a fit and by `refine`, each of which asks for more than one product."""
    kept, forget = [], GGN.forget

    def forgetting(operator):
        kept.append(len(operator._kept))
        forget(operator)
        assert not operator._kept

    monkeypatch.setattr(GGN, "forget", forgetting)
    case = get_case("tanh", "float32")
    dm = fit(case, "ggn", tail="midpoint")  # no rows are held out: the operator is that of all
    dm.refine(case.x[:3], rtol=0.01)
    assert len(kept) == 2
    assert min(kept) > 0


@pytest.mark.parametrize("curvature", ["opg", wide("ggn")])
def test_in_float32(get_case, curvature):
    case = get_case("tanh", "float32")
    truth = fit(get_case("tanh"), curvature, rank="full").predict(case.x)
    low, high = fit(case, curvature).refine(case.x, rtol=0.01).std_bounds
    assert np.all((low <= truth.std) & (truth.std <= high))


@pytest.mark.filterwarnings("ignore:the exact Hessian shows no minimum")
@pytest.mark.filterwarnings("ignore:.* did not reach rtol")
@pytest.mark.parametrize("name", ["tanh", slow("relu_conv")])
@pytest.mark.parametrize(
    ("curvature", "options"),
    [
        ("hessian", {"l2": 0.1}),
        slow("hessian", {"l2": {"*kernel": 0.1, "*bias": 0.3}}),
        wide("hessian", {"l2": 3.0, "negative_curvature": "keep"}),
        slow("sandwich", {"l2": 0.1}),
        wide("sandwich", {"l2": {"*kernel": 0.1, "*bias": 0.3}, "meat": "scores"}),
        wide("sandwich", {"l2": 3.0, "negative_curvature": "keep"}),
    ],
)
def test_an_indefinite_curvature_is_refined_to_an_estimate(get_case, name, curvature, options):
    """Close to what all eigenpairs give, far closer than before, and never called a bound."""
    case = get_case(name)
    truth = fit(case, curvature, rank="full", **options).predict(case.x)
    dm = fit(case, curvature, **options)
    found, before = dm.refine(case.x), dm.predict(case.x)
    for std, coarse, true, (low, high) in (
        (found.std, before.std, truth.std, found.std_bounds),
        (found.logit_std, before.logit_std, truth.logit_std, found.logit_std_bounds),
    ):
        error, was = (np.abs(value / true - 1) for value in (std, coarse))
        assert np.median(error) < 0.02
        assert np.max(error) < 0.2 * np.max(was)
        assert np.all((low <= std) & (std <= high))
        assert np.all(error < np.maximum((high - low) / high, 0.01))
    assert not found.certified
    passes = 2 if curvature == "sandwich" else 1
    assert found.data_passes % passes == 0
    assert 2 * passes <= found.data_passes <= MAX_PASSES


@pytest.mark.parametrize("without", [wide(0), 1])
def test_all_eigenpairs_leave_nothing_to_refine(get_case, without):
    """With and without variables that have no L2 rate."""
    case = get_case("tanh")
    paths = [variable.path for variable in case.model.trainable_variables]
    free = paths[1 : 1 + without]
    l2 = {path: 0.0 if path in free else 0.1 for path in paths}
    dm = fit(case, "ggn", rank="full", l2=l2)
    np.testing.assert_array_equal(dm.refine(case.x).std, dm.predict(case.x).std)


@pytest.mark.filterwarnings("ignore:the exact Hessian shows no minimum")
def test_what_it_does_not_reach_it_says_and_what_would(get_case):
    """A step more is a narrower interval; of all steps that there is room for no more are named."""
    case = get_case("tanh")
    dm = fit(case, "ggn", rank=1, l2=1e-4, tail="midpoint")
    words = r"of 11 inputs did not reach rtol=1e-13 in 2 steps.*Pass max_passes=4, a larger rtol"
    with pytest.warns(ConvergenceWarning, match=words):
        few = dm.refine(case.x, rtol=1e-13, max_passes=2)
    with pytest.warns(ConvergenceWarning, match="in 4 steps"):
        more = dm.refine(case.x, rtol=1e-13, max_passes=4)
    assert (few.data_passes, more.data_passes) == (2, 4)
    widths = [1 - found.std_bounds[0] / found.std_bounds[1] for found in (few, more)]
    assert np.median(widths[1]) < 0.8 * np.median(widths[0])
    with pytest.warns(ConvergenceWarning, match=r"came\. Pass a larger rtol, or fit with a larger"):
        fit(case, "hessian", l2=0.1).refine(case.x, rtol=1e-15)


def test_it_goes_on_until_all_are_as_narrow(get_case):
    """What two steps leave open is closed by as many as it takes."""
    case = get_case("tanh")
    truth = fit(case, "opg", rank="full", l2=1e-6).predict(case.x).std
    found = fit(case, "opg", rank=1, l2=1e-6, tail="midpoint").refine(case.x, rtol=0.01)
    assert found.data_passes > 4
    low, high = found.std_bounds
    assert np.all(high - low <= 0.0101 * high)
    rounding = 1e-7  # of the dense one, whose largest curvature is some 1e7 times L2
    assert np.all((low <= truth * (1 + rounding)) & (truth * (1 - rounding) <= high))


def test_a_display_is_told_how_long_it_may_take(get_case, monkeypatch):
    told, dm = [], fit(get_case("tanh"), "opg")
    monkeypatch.setattr(ProgressDisplay, "describe", lambda _, *words: told.append(words))
    dm.refine(get_case("tanh").x, max_passes=7)
    assert told[0][0] == "refining: step 1 of at most 7"
    assert re.search(r"of these inputs are still wide; .* s a step, \d+ s more at most", told[0][1])


@pytest.mark.filterwarnings("ignore:the exact Hessian shows no minimum")
@pytest.mark.parametrize(
    ("curvature", "max_passes", "words"),
    [
        ("ggn", 0, "max_passes is not a whole number >= 1"),
        ("ggn", 1.5, "max_passes is not a whole number >= 1"),
        ("sandwich", 1, "max_passes=1 is less than a step"),
    ],
)
def test_passes_that_are_none_are_refused(get_case, curvature, max_passes, words):
    case = get_case("tanh")
    with pytest.raises(InvalidInputError, match=words):
        fit(case, curvature, l2=0.1).refine(case.x, max_passes=max_passes)


def test_what_it_cannot_do_is_refused(get_case):
    case = get_case("tanh")
    with pytest.raises(InvalidInputError, match="rtol is not between 0 and 1"):
        fit(case, "ggn").refine(case.x, rtol=2)
    small = get_case("no_hidden")
    bias = DeltaMethod(
        small.model, "ggn", rank=1, l2=0.01, layers=["bias"], weights="counts", progress=False
    )
    with pytest.raises(InvalidInputError, match=r"no room.*6 parameters for 3 classes"):
        bias.fit(small.x, small.y, small.weight).refine(small.x)


@pytest.mark.filterwarnings("ignore:the largest curvature is")
@pytest.mark.parametrize(
    ("name", "dtype", "l2"), [("no_hidden", "float64", 0.1), ("tanh", "float32", 1e-8)]
)
def test_where_nothing_is_left_out_there_is_nothing_to_refuse(get_case, name, dtype, l2):
    """Few parameters, or rounding as large as L2: a fit of all eigenpairs needs no steps."""
    case = get_case(name, dtype)
    method = fit(case, "ggn", rank="full", l2=l2)
    np.testing.assert_array_equal(method.refine(case.x).std, method.predict(case.x).std)


@pytest.mark.filterwarnings("ignore:the largest curvature is")
@pytest.mark.parametrize("curvature", ["ggn", wide("opg")])
def test_where_float32_hides_l2_rows_are_multiplied_in_float64(get_case, curvature):
    """The bounds hold what the same network in float64 gives, though float32 sees no L2 at all."""
    case, options = get_case("tanh", "float32"), {"l2": 1e-8, "rank": 6}
    truth = fit(get_case("tanh"), curvature, **options | {"rank": "full"}).predict(case.x)
    plan = refinement(fit(case, curvature, **options)._fitted)
    assert plan.in_double
    assert plan.row_copies == 2 * (plan.max_steps + 4)
    found = fit(case, curvature, **options).refine(case.x, rtol=0.01)
    assert found.certified
    for (low, high), exact in (
        (found.std_bounds, truth.std),
        (found.logit_std_bounds, truth.logit_std),
    ):
        assert np.all((low <= exact) & (exact <= high))
        assert np.median(1 - low / high) < 0.015


@pytest.mark.filterwarnings("ignore:the exact Hessian shows no minimum")
@pytest.mark.filterwarnings("ignore:the largest curvature is")
@pytest.mark.parametrize(
    ("curvature", "dtype", "l2"), [("hessian", "float32", 1e-8), ("ggn", "float32", 1e-20)]
)
def test_rounding_as_large_as_l2_is_refused(get_case, curvature, dtype, l2):
    """A Hessian has no rows; and there are rates that float64 does not see either."""
    case = get_case("tanh", dtype)
    with pytest.raises(NumericalError, match=r"too large for refine.*float64"):
        fit(case, curvature, l2=l2).refine(case.x)
