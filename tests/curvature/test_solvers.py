"""Eigenpairs of matrices that are no network's: what is kept, and what is known of the rest."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg

from deltauq.curvature import solvers
from deltauq.curvature.eigenpairs import automatic_eigenpairs, eigenpairs
from deltauq.curvature.parameter_covariance import low_rank_covariance
from deltauq.linalg import RitzPairs
from deltauq.prediction import ROUNDING
from deltauq.runtime.steps import Steps


class Matrix:
    """What solvers ask of a curvature, of a symmetric matrix with some spectrum."""

    def __init__(self, spectrum, *, seed=0, dtype="float64"):
        spectrum = np.asarray(spectrum, float)
        size = len(spectrum)
        q = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
        self.dense = (q * spectrum) @ q.T
        self.shape = (size, size)
        self.network = SimpleNamespace(dtype=dtype)
        self.positive_semidefinite = bool(np.all(spectrum >= 0))
        self.solver = None
        self.steps = Steps()

    def matmat(self, vectors, out=None):
        image = self.dense.astype(vectors.dtype) @ vectors
        if out is not None:
            out[:] = image
        return image

    def sampled(self, share, seed):
        return None

    def trace(self):
        return float(np.trace(self.dense))

    def to_dense(self):
        return self.dense

    def residuals(self, pairs):
        vectors = pairs.vectors.astype(float)
        return np.linalg.norm(self.dense @ vectors - vectors * pairs.values, axis=0)

    def left_of(self, pairs):
        """The norm of A - U diag(mu) U^T; of an indefinite A the largest eigenvalue outside U."""
        u = pairs.vectors.astype(float)
        if self.positive_semidefinite:
            return np.linalg.norm(self.dense - (u * pairs.values) @ u.T, 2)
        outside = np.eye(len(u)) - u @ u.T
        return np.linalg.eigvalsh(outside @ self.dense @ outside)[-1]


def hessian_solver(matrix, *, ends="largest", bounds=False, rank=8):
    return solvers.make_solver(matrix, rank, bounds=bounds, seed=0, storage=None, ends=ends)


@pytest.mark.parametrize(
    ("ends", "n_lowest", "norms", "kept"),
    [
        ("largest", 0, [0.05, 0.04, 0.029, 0.02, 0.0], [0, 1, 2]),
        ("largest", 0, [0.05, 0.05, 0.0, 0.0, 0.0], [0, 1, 2, 3, 4]),
        ("largest", 0, [0.0708, 0.0, 0.0, 0.0, 0.0], []),
        ("smallest", 5, [0.02, 0.029, 0.0, 0.04, 0.05], [1, 2, 3, 4]),
        ("both", 2, [0.03, 0.0, 0.08, 0.04, 0.03], [0, 1, 3, 4]),
    ],
)
def test_pairs_are_kept_up_to_the_edge_of_the_residual_rule(ends, n_lowest, norms, kept):
    """sqrt(2) ||R||_F <= 0.1, the outermost pairs first: sqrt(2) decides in every case."""
    solver = hessian_solver(Matrix(np.linspace(-0.1, 5.0, 12)), ends=ends)
    found = RitzPairs(
        values=np.linspace(5.0, 1.0, 5),
        vectors=np.eye(12)[:, :5],
        residual_norms=np.array(norms),
        smallest=0.0,
        smallest_residual=0.0,
        n_lowest=n_lowest,
    )
    solver._krylov.converge = lambda rank, tolerance, max_columns: (found, True)
    pairs = solver.solve(5)
    np.testing.assert_array_equal(pairs.values, found.values[kept])
    np.testing.assert_array_equal(pairs.vectors, found.vectors[:, kept])
    np.testing.assert_array_equal(pairs.residual_norms, found.residual_norms[kept])
    assert pairs.n_lowest == sum(place >= 5 - n_lowest for place in kept)
    assert pairs.converged == (len(kept) == 5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ends", ["largest", "smallest", "both"])
def test_a_spectrum_of_small_gaps_converges_to_the_rule_and_no_further(ends, seed):
    """Residuals fall slowly there: a rule without sqrt(2) on either side would leave pairs out."""
    matrix = Matrix(np.linspace(-0.5, 3.0, 150), seed=seed)
    pairs = hessian_solver(matrix, ends=ends).solve(8)
    rule = np.sqrt(2) * np.linalg.norm(matrix.residuals(pairs))
    least = 0.1 * (1.0 + pairs.smallest) if ends == "both" else 0.1
    assert pairs.converged
    assert rule <= least * (1 + 1e-9)
    assert rule > 0.1 * least or ends == "both"
    np.testing.assert_allclose(pairs.residual_norms, matrix.residuals(pairs), atol=1e-12)
    assert pairs.n_lowest == {"largest": 0, "smallest": 8, "both": 3}[ends]


@pytest.mark.parametrize("limit", [16, 20, 24, 28, 32])
def test_what_does_not_converge_is_kept_as_far_as_the_rule_goes(limit, monkeypatch):
    monkeypatch.setattr(solvers, "_krylov_limit", lambda rank: limit)
    matrix = Matrix(np.r_[np.geomspace(40.0, 1.0, 12), np.linspace(-0.5, 0.9, 100)])
    solver = hessian_solver(matrix)
    pairs = solver.solve(12)
    every = solver._krylov.pairs(12)
    sums = np.sqrt(2 * np.cumsum(matrix.residuals(every) ** 2))
    assert pairs.rank == np.count_nonzero(sums <= 0.1)
    assert pairs.converged == (pairs.rank == 12)


def test_kept_negative_curvature_needs_residuals_small_beside_the_smallest_value():
    """An inverse is most sensitive there: 0.1 (1 + mu) is asked for."""
    matrix = Matrix(np.r_[np.geomspace(40.0, 0.5, 60), np.zeros(60), -np.geomspace(0.5, 0.99, 6)])
    pairs = hessian_solver(matrix, ends="both").solve(20)
    assert pairs.converged
    assert pairs.smallest == pytest.approx(-0.99, abs=1e-6)
    assert np.sqrt(2) * np.linalg.norm(matrix.residuals(pairs)) <= 0.1 * 0.0101


SPECTRA = {
    "decaying": np.geomspace(1e3, 1e-3, 160),
    "flat rest": np.r_[np.geomspace(1e3, 10.0, 12), np.full(148, 2.0)],
    "indefinite": np.r_[np.geomspace(50.0, 1.0, 20), np.linspace(0.5, -2.0, 140)],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_what_is_left_out_is_bounded_and_nearly_reached(spectrum, dtype):
    """By dense algebra: the random columns of the bound must not be those of the sketch."""
    rounding = 100 * np.finfo(dtype).eps * np.max(np.abs(SPECTRA[spectrum]))
    for seed in range(3):
        matrix = Matrix(SPECTRA[spectrum], seed=seed, dtype=dtype)
        pairs = eigenpairs(matrix, 12, bounds=True, seed=seed)
        left, found = matrix.left_of(pairs), pairs.left_out
        assert found.at_least <= left + rounding
        assert left - rounding <= found.bound <= 1.5 * left
        assert found.failure == 1e-6
        open_width = 1 / np.sqrt(1 + found.at_least) - 1 / np.sqrt(1 + found.bound)
        assert open_width <= 0.01 or found.products == 6 * 4  # six blocks of four columns
        assert np.all(matrix.residuals(pairs) <= pairs.residual_norms + rounding)


@pytest.mark.parametrize("largest", [1e3, 1e5])
def test_bounds_of_float32_products_contain_the_covariance_of_exact_ones(largest):
    """Up to 1e5 L2 rates, some pairs under their rounding: within that of predictions."""
    matrix = Matrix(np.r_[np.geomspace(largest, 0.3, 40), np.zeros(120)], dtype="float32")
    truth = np.linalg.inv(matrix.dense + np.eye(160))
    for rank in (20, 60):
        pairs = eigenpairs(matrix, rank, bounds=True)
        epsilon = float(np.finfo("float32").eps)
        found = low_rank_covariance(pairs, np.ones(160), 1.0, epsilon=epsilon)
        u = found.vectors.astype(float)
        rest = np.eye(160) - u @ u.T
        low, high = ((u * end.weights) @ u.T + end.tail * rest @ rest for end in found.bounds)
        assert scipy.linalg.eigvalsh(truth, low)[0] >= (1 - ROUNDING["float32"]) ** 2
        assert scipy.linalg.eigvalsh(truth, high)[-1] <= (1 + ROUNDING["float32"]) ** 2


def test_a_trace_that_is_known_bounds_what_is_left_with_certainty():
    """One eigenvalue more than pairs: what is left of the trace is that one."""
    matrix = Matrix(np.r_[9.0, 7.0, 5.0, 3.0, np.zeros(56)])
    pairs = eigenpairs(matrix, 3, bounds=True)
    assert pairs.remainder == pytest.approx(3.0)
    assert matrix.left_of(pairs) <= pairs.left_out.bound <= 3.0 * (1 + 1e-9)
    faint = Matrix(np.r_[9.0, 7.0, 5.0, 0.01, np.zeros(56)])
    pairs = eigenpairs(faint, 3, bounds=True)  # too little to spend a product on
    assert (pairs.left_out.products, pairs.left_out.failure) == (4, 0.0)
    assert pairs.left_out.bound == pytest.approx(faint.left_of(pairs), rel=1e-9)
    nothing = eigenpairs(matrix, 4, bounds=True)
    assert nothing.left_out.bound < 1e-12
    assert nothing.left_out.failure == 0.0


@pytest.mark.parametrize("spectrum", [np.linspace(-2.0, 5.0, 30), np.linspace(0.0, 5.0, 30)])
def test_all_eigenpairs_leave_nothing(spectrum):
    matrix = Matrix(spectrum)
    pairs = eigenpairs(matrix, "full")
    np.testing.assert_allclose(pairs.values, spectrum[::-1], atol=1e-13)
    assert pairs.trace == pytest.approx(spectrum.sum())
    assert pairs.smallest == (None if matrix.positive_semidefinite else pytest.approx(-2.0))
    assert pairs.left_out.bound == 0.0


def judged(answers, *, converged=True, certified=True, max_bytes=2**31, bounds=True):
    """The ranks that `rank="auto"` tries; judgements in turn; the step of the last certificate."""
    asked, answers = [], iter(answers)
    solver = SimpleNamespace(
        solve=lambda rank: (
            asked.append(rank) or SimpleNamespace(rank=rank, converged=converged, certified=0)
        ),
        certified=lambda pairs, step, unit: SimpleNamespace(**vars(pairs) | {"certified": step}),
    )
    operator = SimpleNamespace(
        shape=(5_000, 5_000),
        network=SimpleNamespace(dtype="float64"),
        positive_semidefinite=True,
        solver=None,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deltauq.curvature.eigenpairs.make_solver", lambda *args, **options: solver)
        pairs, why = automatic_eigenpairs(
            operator, lambda pairs: next(answers), bounds=bounds, max_bytes=max_bytes
        )
    return asked, pairs, why


def test_an_automatic_rank_is_judged_again_once_its_bound_is_known():
    """Before the bound 64 pairs seem enough; with it they are not, and 128 are."""
    asked, pairs, why = judged([True, False, True, True])
    assert asked == [64, 128]
    assert pairs.certified == 2  # and shares the chance of failure with the first step
    assert why is None
    asked, pairs, why = judged([False, True], bounds=False)
    assert asked == [64, 128]
    assert not pairs.certified


def test_an_automatic_rank_has_room_for_three_copies_of_its_vectors():
    asked, pairs, why = judged([False] * 9, max_bytes=3 * 5_000 * 8 * 100)
    assert asked == [64, 100]
    assert pairs.certified
    assert "memory" in why


def test_an_automatic_rank_ends_where_pairs_do_not_converge():
    asked, _, why = judged([False] * 9, converged=False)
    assert asked == [64]
    assert "do not converge" in why
