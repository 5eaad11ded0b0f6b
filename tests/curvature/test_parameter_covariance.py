"""Bounds of the parameters' covariance hold and are attained, on matrices of known eigenpairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg

from deltauq.curvature.parameter_covariance import (
    ParameterCovariance,
    dense_covariance,
    low_rank_covariance,
)
from deltauq.curvature.posterior import RootOperator
from deltauq.curvature.rank_curve import rank_curve
from deltauq.curvature.sandwich import sandwich_covariance
from deltauq.curvature.tails import spectrum_interval, tail_interval
from deltauq.errors import NotPositiveDefiniteError
from deltauq.linalg import Eigenpairs, LowRank, NormBound

EPSILON = float(np.finfo(float).eps)


def basis(rng, size, columns):
    return np.linalg.qr(rng.normal(size=(size, size)))[0][:, :columns]


def pairs_of(vectors, values, *, left_out=None, residual_norms=0.0, **others):
    """Eigenpairs as a solver would hand them over; `left_out` is the bound on what is left."""
    facts = {"trace": None, "smallest": None, "products": 0, "converged": True} | others
    return Eigenpairs(
        values=np.asarray(values, float),
        vectors=vectors,
        residual_norms=np.broadcast_to(np.asarray(residual_norms, float), len(values)),
        left_out=None if left_out is None else NormBound(left_out, 0.0, 1e-6, 1),
        **facts,
    )


def dense(spectrum, vectors):
    """U W U^T + t (I - U U^T)."""
    weights = np.diag(spectrum.weights) if spectrum.weights.ndim == 1 else spectrum.weights
    identity = np.eye(len(vectors))
    return vectors @ weights @ vectors.T + spectrum.tail * (identity - vectors @ vectors.T)


def projected(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 0.0)) @ vectors.T


def extremes(matrix, other):
    """(least, most) of x^T A x / x^T B x over all x."""
    ratios = scipy.linalg.eigvalsh(matrix, other)
    return ratios[0], ratios[-1]


def against_bounds(pairs, curvature, epsilon=EPSILON):
    """The least share of the lower bound that the true covariance has, the most of the upper."""
    found = low_rank_covariance(pairs, np.ones(pairs.n_params), 1.0, epsilon=epsilon)
    low, high = (dense(bound, found.vectors) for bound in found.bounds)
    truth = np.linalg.inv(projected(curvature) + np.eye(len(curvature)))
    return extremes(truth, low)[0], extremes(truth, high)[1]


@pytest.mark.parametrize("delta", [0.3, 40.0])
@pytest.mark.parametrize("where", ["outside the eigenvectors", "everywhere"])
def test_the_lower_bound_of_a_sketch_is_attained_where_all_that_may_be_left_is_there(
    rng, where, delta
):
    """A^ <= A <= A^ + delta I: no factor on delta, inside U or outside, leaves a bound."""
    u = basis(rng, 12, 4)
    known = (u * [90.0, 9.0, 2.0, 0.5]) @ u.T
    rest = np.eye(12) - (u @ u.T if where == "outside the eigenvectors" else 0.0)
    pairs = pairs_of(u, [90.0, 9.0, 2.0, 0.5], left_out=delta)
    least, most = against_bounds(pairs, known + delta * rest)
    assert least == pytest.approx(1.0, abs=1e-12)
    assert most <= 1.0 + 1e-12


@pytest.mark.parametrize("epsilon", [EPSILON, 1e-3])
def test_the_upper_bound_of_a_sketch_is_attained_where_nothing_is_left(rng, epsilon):
    """Rounding may have made A^ larger than A, by epsilon times the largest eigenvalue."""
    u = basis(rng, 12, 12)
    values = np.r_[90.0, 9.0, 2.0, 0.5, np.full(8, 0.09)]
    too_large = (u * (values - epsilon * 90.0)) @ u.T
    least, most = against_bounds(pairs_of(u[:, :4], values[:4], left_out=0.09), too_large, epsilon)
    assert least >= 1.0 - 1e-12
    assert most <= 1.0 + 1e-12
    exact = pairs_of(u[:, :4], values[:4], left_out=0.0)
    inside = (u[:, :4] * (values[:4] - epsilon * 90.0)) @ u[:, :4].T
    assert against_bounds(exact, inside, epsilon)[1] == pytest.approx(1.0, abs=1e-12)


def test_rounding_as_large_as_l2_leaves_the_bounds_positive(rng):
    pairs = pairs_of(basis(rng, 6, 2), [1e6, 1.0], left_out=0.5)
    for bound in low_rank_covariance(pairs, np.ones(6), 1.0, epsilon=1e-3).bounds:
        assert np.all(bound.weights > 0)
        assert 0 < bound.tail < np.inf


@pytest.mark.parametrize(("edge", "theta", "slack"), [("low", 2.68, 1.32), ("high", 70.0, 1.45)])
def test_the_residual_term_of_a_projected_hessian_is_needed(rng, edge, theta, slack):
    """Eps = sqrt(2) ||R||_F bounds it from both sides, and so little less does not.

    In units of the residual, [[theta, 1], [1, 0]] projected exceeds diag(theta, 0) by 1.0765 for
    theta = 2.68, the most there is for one pair, and falls below it by nearly 1 for a large one.
    So ||R||_F without sqrt(2) is no bound.
    """
    residual = 0.07  # sqrt(2) of it is just within the rule of 0.1
    theta = theta * residual
    q = basis(rng, 2, 2)
    hessian = q @ np.array([[theta, residual], [residual, 0.0]]) @ q.T
    u = q[:, :1]
    true = np.linalg.norm(hessian @ u - theta * u, axis=0)
    pairs = pairs_of(
        u,
        [theta],
        left_out=0.0,
        residual_norms=true,
        smallest=float(np.linalg.eigvalsh(hessian)[0]),
    )
    least, most = against_bounds(pairs, hessian)
    assert least >= 1.0 - 1e-12
    assert most <= 1.0 + 1e-12
    least, most = against_bounds(replace(pairs, residual_norms=true / slack), hessian)
    assert least < 1.0 if edge == "low" else most > 1.0


def test_the_residual_term_is_what_the_pairs_do_not_explain_of_the_hessian(rng):
    """sqrt(2) ||R||_F is the Frobenius norm of A less its parts inside U and outside."""
    noise = 0.02 * rng.normal(size=(9, 9))
    start = np.diag(np.r_[5.0, 4.0, 3.0, rng.normal(size=6)]) + noise + noise.T
    values, within = np.linalg.eigh(start[:3, :3])
    u = np.eye(9)[:, :3] @ within
    inside, outside = u @ u.T, np.eye(9) - u @ u.T
    left = start - inside @ start @ inside - outside @ start @ outside
    residuals = np.linalg.norm(start @ u - u * values, axis=0)
    beta = float(np.linalg.eigvalsh(outside @ start @ outside)[-1])
    pairs = pairs_of(u, values, left_out=beta, residual_norms=residuals, smallest=-1.0)
    low, high = low_rank_covariance(pairs, np.ones(9), 1.0, epsilon=0.0).bounds
    eps = np.linalg.norm(left)
    np.testing.assert_allclose(1.0 / high.weights, 1.0 + values - eps)
    np.testing.assert_allclose(1.0 / low.weights, 1.0 + values + eps)
    assert 1.0 / high.tail == pytest.approx(1.0 - eps)
    assert 1.0 / low.tail == pytest.approx(1.0 + beta + eps)
    least, most = against_bounds(pairs, start)
    assert least >= 1.0
    assert most <= 1.0


@pytest.mark.parametrize(
    ("left_out", "trace", "rest"),
    [(0.3, 20.0, 0.3), (7.0, 20.0, 2.0), (None, 17.1, 0.1), (None, 20.0, 2.0), (None, None, 2.0)],
)
def test_what_is_left_of_a_sketch_is_the_least_that_bounds_it(rng, left_out, trace, rest):
    """mu_K, the bound on what is left, and trace - sum mu where that was not computed."""
    pairs = pairs_of(basis(rng, 10, 3), [10.0, 5.0, 2.0], left_out=left_out, trace=trace)
    assert tail_interval(pairs) == pytest.approx((1 / (1 + rest), 1.0))
    tails = {
        tail: low_rank_covariance(pairs, np.ones(10), 1.0, tail=tail).spectrum.tail
        for tail in ("midpoint", "l2", "none")
    }
    assert tails == pytest.approx({"midpoint": (1 + 1 / (1 + rest)) / 2, "l2": 1.0, "none": 0.0})


@pytest.mark.parametrize(("trace", "rest"), [(10.1 + 0.4, 0.05), (10.1 + 8.0, 0.1)])
def test_the_tail_of_the_trace_is_the_mean_of_what_is_left_within_its_interval(rng, trace, rest):
    pairs = pairs_of(basis(rng, 10, 2), [10.0, 0.1], trace=trace)
    spectrum = low_rank_covariance(pairs, np.ones(10), 1.0, tail="trace").spectrum
    assert spectrum.tail == pytest.approx(1 / (1 + rest))


def test_between_both_ends_the_tail_lies_between_the_innermost_pairs(rng):
    values = [5.0, 3.0, 2.0, -0.2, -0.5]
    pairs = pairs_of(basis(rng, 10, 5), values, smallest=-0.5, n_lowest=2)
    assert tail_interval(pairs) == pytest.approx((1 / 3, 1 / 0.8))
    low, high = spectrum_interval(pairs, EPSILON)
    np.testing.assert_allclose(low.weights, 1 / (1 + np.array(values)))
    assert (low.tail, high.tail) == pytest.approx((1 / 3, 1 / 0.8))
    kept = low_rank_covariance(pairs, np.ones(10), 1.0, negative_curvature="keep")
    assert kept.spectrum.tail == pytest.approx((1 / 3 + 1 / 0.8) / 2)
    assert not kept.certified


def test_negative_values_are_projected_in_the_interval_of_the_rank_curve(rng):
    pairs = pairs_of(basis(rng, 8, 3), [4.0, 1.0, -0.6], smallest=-0.6)
    for end in spectrum_interval(pairs, EPSILON):
        np.testing.assert_allclose(end.weights, [0.2, 0.5, 1.0])


@pytest.mark.parametrize(("times", "refused"), [(0.5, True), (2.0, False)])
def test_what_rounding_cannot_tell_from_zero_is_not_positive(rng, times, refused):
    """10 sqrt(P) epsilon of the largest eigenvalue, with and without L2 on all parameters."""
    epsilon = 1e-6
    smallest = times * 10 * np.sqrt(8) * epsilon * 4.0
    u = basis(rng, 8, 8)
    values = np.r_[np.linspace(4.0, 1.0, 7), smallest]
    partly = pairs_of(u, values, smallest=smallest)
    whole = pairs_of(u, values - 1.0, smallest=smallest - 1.0)
    for covariance in (
        lambda: dense_covariance(
            partly, np.zeros(8), np.ones(8), 1.0, negative_curvature="keep", epsilon=epsilon
        ),
        lambda: low_rank_covariance(
            whole, np.ones(8), 1.0, negative_curvature="keep", epsilon=epsilon
        ),
    ):
        if refused:
            with pytest.raises(NotPositiveDefiniteError, match="not positive definite"):
                covariance()
        else:
            found = covariance()
            np.testing.assert_allclose(
                np.linalg.inv(dense(found.spectrum, found.vectors)), (u * values) @ u.T, atol=1e-8
            )


@pytest.mark.parametrize(("times", "refused"), [(0.5, False), (2.0, True)])
def test_negative_curvature_beyond_rounding_is_refused(rng, times, refused):
    smallest = -times * 1e3 * EPSILON * 50.0
    pairs = pairs_of(basis(rng, 8, 2), [50.0, 2.0], smallest=smallest)

    def covariance():
        return low_rank_covariance(pairs, np.ones(8), 1.0, negative_curvature="raise")

    if refused:
        with pytest.raises(NotPositiveDefiniteError, match="negative eigenvalues"):
            covariance()
    else:
        assert covariance().spectrum.tail > 0


def test_every_form_of_the_covariance_is_one_matrix(rng):
    """Sigma = (1/N) D [U diag(d) U^T + t (I - U U^T)] D."""
    u, scale, n = basis(rng, 7, 3), rng.uniform(0.5, 3.0, 7), 40.0
    spectrum = LowRank(np.array([0.1, 0.3, 0.6]), 0.8)
    sigma = np.diag(scale) @ dense(spectrum, u) @ np.diag(scale) / n
    found = ParameterCovariance(u, spectrum, scale, n, (spectrum.times(0.5), spectrum.times(2.0)))
    v = rng.normal(size=7)
    np.testing.assert_allclose(found.times(v), sigma @ v)
    np.testing.assert_allclose(found.diagonal(), np.diag(sigma))
    np.testing.assert_allclose(found.to_linear_operator().to_dense(), sigma)
    root = RootOperator(found, "float64").to_dense().numpy()
    np.testing.assert_allclose(root @ root.T, sigma)
    rows = rng.normal(size=(2, 4, 7)) * scale
    rest = rows - rows @ u @ u.T
    along, gram = rows @ u, rest @ np.swapaxes(rest, 1, 2)
    truth = (rows / scale) @ sigma @ np.swapaxes(rows / scale, 1, 2)
    np.testing.assert_allclose(found.project(along, gram), truth)
    low, high = found.project_bounds(along, gram)
    np.testing.assert_allclose(low, truth / 2)
    np.testing.assert_allclose(high, truth * 2)


@pytest.mark.parametrize("delta", [0.0, 0.7])
def test_the_rank_curve_counts_the_pairs_that_a_smaller_rank_leaves_out(rng, delta):
    """Along the next eigenvector a curvature of mu_(k+1) + delta is possible, and no more."""
    values = np.array([30.0, 8.0, 3.0, 1.0])
    u = basis(rng, 12, 4)
    pairs = pairs_of(u, values, left_out=delta, trace=60.0)
    for k, value in enumerate(values[1:], start=1):
        curve = rank_curve(pairs, u[:, k].reshape(1, 1, -1), EPSILON)
        width = curve.widths[curve.ranks == k][0]
        assert width == pytest.approx(1 - 1 / np.sqrt(1 + value + delta), rel=1e-10)
        assert curve.widths[-1] == pytest.approx(
            1 - np.sqrt((1 + value) / (1 + value + delta)), abs=1e-10
        )
    assert curve.certified
    assert curve.smallest(width) == 3
    assert curve.smallest(np.nextafter(curve.widths[-1], 0) - 1e-9) is None


def test_the_leading_pairs_of_a_hessian_keep_their_own_residuals(rng):
    """The last pair's residual is not counted where that pair is left out."""
    u = basis(rng, 12, 3)
    pairs = pairs_of(
        u, [30.0, 8.0, 3.0], left_out=0.0, residual_norms=[0.0, 0.0, 0.05], smallest=-1.0
    )
    curve = rank_curve(pairs, u[:, 0].reshape(1, 1, -1), EPSILON)
    eps = np.sqrt(2) * 0.05
    np.testing.assert_allclose(curve.widths[:2], 0.0, atol=1e-12)
    assert curve.widths[2] == pytest.approx(1 - np.sqrt((31 - eps) / (31 + eps)))


@pytest.mark.parametrize("left_out", [None, 0.2, 5.0])
@pytest.mark.parametrize(("meat", "l2"), [("opg", 1.0), ("scores", 0.0)])
def test_the_sandwich_of_low_rank_slices_is_the_dense_product(rng, meat, l2, left_out):
    """B G B with what the pairs left of G's trace spread over the directions outside them."""
    size, values = 20, np.array([6.0, 2.0, 0.4])
    u, v = basis(rng, size, 4), basis(rng, size, 3)
    slices = [LowRank(np.array([0.02, 0.1, 0.3, 0.5]) * c, 0.8 * c) for c in (1.0, 0.9, 1.1)]
    bread = ParameterCovariance(u, slices[0], np.ones(size), 30.0, (slices[1], slices[2]))
    pairs = pairs_of(v, values, trace=values.sum() + 3.4, left_out=left_out)
    found = sandwich_covariance(bread, pairs, np.ones(size, bool), meat=meat)
    most = min(3.4, left_out or 3.4)
    for spectrum, one, rest in zip(
        (found.spectrum, *found.bounds), slices, (3.4 / (size - 3), 0.0, most), strict=True
    ):
        meat_matrix = dense(LowRank(values, rest), v) + l2 * np.eye(size)
        truth = dense(one, u) @ meat_matrix @ dense(one, u)
        np.testing.assert_allclose(dense(spectrum, found.vectors), truth, atol=1e-12)
    assert not found.certified
