"""Solvers on matrices of prescribed spectrum, where every answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from deltauq.linalg import (
    BlockLanczos,
    Eigenpairs,
    LowRank,
    NormBound,
    NystromSketch,
    RitzPairs,
    add_gram_product,
    combine,
    inner_products,
    orthonormal_basis,
    project_out,
    quadratic_diagonals,
    relative_width,
    root_diagonal,
)


def symmetric(spectrum, seed=0):
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(spectrum), len(spectrum))))[0]
    return (q * spectrum) @ q.T, q


@pytest.mark.parametrize("condition", [1e0, 1e6, 1e12, np.inf])
@pytest.mark.quick
def test_orthonormal_basis_is_orthonormal_and_spans(rng, condition):
    left, right = (np.linalg.qr(rng.normal(size=(n, 8)))[0] for n in (50, 8))
    singular = (
        np.geomspace(1.0, 1.0 / condition, 8)
        if np.isfinite(condition)
        else np.r_[1, 0 * left[:7, 0]]
    )
    y = (left * singular) @ right.T
    q = orthonormal_basis(y)
    assert np.max(np.abs(q.T @ q - np.eye(8))) < 1e-13
    assert np.linalg.norm(y - q @ (q.T @ y)) < 1e-13


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.quick
def test_orthonormal_basis_keeps_precision_and_puts_the_largest_first(rng, dtype):
    """Columns are left singular vectors: a product with A then has columns of graded size."""
    left, right = (np.linalg.qr(rng.normal(size=(n, 8)))[0] for n in (20_000, 8))
    y = ((left * np.geomspace(1, 1e-3, 8)) @ right.T).astype(dtype)
    q = orthonormal_basis(y)
    assert q.dtype == dtype
    eps = np.finfo(dtype).eps
    gram = q.T.astype(float) @ q.astype(float)
    assert np.max(np.abs(gram - np.eye(8))) < 20 * eps
    sizes = np.linalg.norm(y.T @ q, axis=0)
    np.testing.assert_allclose(np.log10(sizes), np.linspace(0, -3, 8), atol=0.5)


@pytest.mark.slow
def test_orthonormal_basis_of_ten_million_rows(rng):
    """Float32, nearly parallel columns: plain QR loses orthogonality to 2e-2 there."""
    y = rng.standard_normal((10_000_000, 12), np.float32)
    y += 30 * y[:, :1]
    q = orthonormal_basis(y)
    assert np.max(np.abs(inner_products(q, q) - np.eye(12))) < 1e-5


@pytest.mark.parametrize("condition", [1e9, 1e11])
def test_a_basis_of_nearly_dependent_columns_spans_them(condition):
    """Columns that drown in the rounding of Y^T Y, but not in that of Y."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        left, right = (np.linalg.qr(rng.normal(size=(n, 4)))[0] for n in (50, 4))
        y = (left * np.r_[1.0, 0.5, 0.2, 1 / condition]) @ right.T
        q = orthonormal_basis(y)
        np.testing.assert_allclose(np.linalg.norm(q.T @ left[:, 3]), 1.0, rtol=1e-15 * condition)
        assert np.max(np.abs(q.T @ q - np.eye(4))) < 1e-13


@pytest.mark.parametrize("share", [1.0, 1e-8])
def test_project_out_leaves_nothing_of_the_span(rng, share):
    """Nor of columns that lie in it but for a hundred millionth."""
    q = np.linalg.qr(rng.normal(size=(40, 6)))[0]
    rest = project_out(q, q @ rng.normal(size=(6, 3)) + share * rng.normal(size=(40, 3)))
    assert np.max(np.abs(q.T @ rest)) < 1e-14 * share


def test_products_of_float32_columns_are_summed_in_float64(rng):
    """Over more rows than are read at a time."""
    x, y = rng.normal(size=(20_000, 3)).astype("float32"), rng.normal(size=(20_000, 2))
    y = y.astype("float32")
    wide, other = x.astype(float), y.astype(float)
    np.testing.assert_allclose(inner_products(x, y), wide.T @ other, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(inner_products(x, x), wide.T @ wide, rtol=1e-12, atol=1e-10)
    c = rng.normal(size=(3, 2))
    np.testing.assert_array_equal(combine(x, c), (wide @ c).astype("float32"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gram_products_are_added(rng, dtype):
    rows, v = rng.normal(size=(7, 30)).astype(dtype), rng.normal(size=(30, 4)).astype(dtype)
    before = rng.normal(size=(30, 4)).astype(dtype)
    total = before.copy()
    add_gram_product(rows, v, total)
    np.testing.assert_allclose(total, before + rows.T @ (rows @ v), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("passes", [1, 2, 3])
@pytest.mark.quick
def test_nystrom_never_exceeds_the_matrix(passes):
    """A^ <= A in the semidefinite order, converged or not."""
    a, _ = symmetric(np.geomspace(1e2, 1e-6, 60))
    sketch = NystromSketch(lambda v, out: np.matmul(a, v, out=out), 60, passes=passes)
    sketch.grow(20)
    values, vectors, _ = sketch.eigenpairs(15)
    approximation = (vectors * values[:15]) @ vectors.T
    assert np.max(np.abs(vectors.T @ vectors - np.eye(15))) < 1e-12
    assert np.min(np.linalg.eigvalsh(a - approximation)) > -1e-12 * 1e2
    assert sketch.products == 20 * passes


def test_a_search_with_another_matrix_leaves_a_sketch_below_its_own():
    """Another matrix chooses Q, once by chance alone: A^ <= A, and products are those with A."""
    a, _ = symmetric(np.geomspace(1e2, 1e-6, 60))
    near, _ = symmetric(np.geomspace(1e2, 1e-6, 60), seed=1)
    captured = []

    def times(matrix):
        return lambda v, out: np.matmul(matrix, v, out=out)

    for search in (None, times(a + 0.1 * near), times(near)):
        sketch = NystromSketch(times(a), 60)
        for columns in (10, 20):
            sketch.grow(columns, search)
        assert sketch.products == (40 if search is None else 20)
        values, vectors, _ = sketch.eigenpairs(15)
        rest = a - (vectors * values[:15]) @ vectors.T
        assert np.min(np.linalg.eigvalsh(rest)) > -1e-12 * 1e2
        captured.append(values.sum())
    assert captured[0] > captured[1] > captured[2]


def test_two_passes_reach_a_fast_spectrum():
    spectrum = np.geomspace(1e2, 1e-6, 60)
    a, _ = symmetric(spectrum)
    sketch = NystromSketch(lambda v, out: np.matmul(a, v, out=out), 60)
    sketch.grow(20)
    np.testing.assert_allclose(sketch.eigenpairs(10)[0][:10], spectrum[:10], rtol=1e-3)


@pytest.mark.parametrize("passes", [1, 2])
def test_nystrom_residuals_are_bounded_by_what_is_left_of_the_trace(passes):
    a, _ = symmetric(np.geomspace(1e2, 1e-6, 60))
    sketch = NystromSketch(lambda v, out: np.matmul(a, v, out=out), 60, passes=passes)
    sketch.grow(20)
    values, vectors, reach = sketch.eigenpairs(20)
    true = np.linalg.norm(a @ vectors - vectors * values, axis=0)
    bound = (np.trace(a) - values.sum()) * reach
    assert np.all(true <= bound * (1 + 1e-9) + 1e-12)
    assert np.median(bound[:5]) < 1.0 * 1e2 ** (2 - passes)


def test_nystrom_grows_without_forgetting():
    a, _ = symmetric(np.geomspace(1e2, 1e-6, 60))
    sketch = NystromSketch(lambda v, out: np.matmul(a, v, out=out), 60)
    captured = []
    for columns in (8, 16, 60, 80):
        sketch.grow(columns)
        captured.append(np.sum(sketch.eigenpairs(columns)[0]))
    assert sketch.columns == 60
    assert np.all(np.diff(captured) >= -1e-12)
    assert captured[-1] == pytest.approx(np.trace(a), rel=1e-12)


def test_nystrom_of_a_singular_matrix_has_its_rank():
    spectrum = np.r_[np.linspace(3, 1, 5), np.zeros(35)]
    a, _ = symmetric(spectrum)
    sketch = NystromSketch(lambda v, out: np.matmul(a, v, out=out), 40)
    sketch.grow(12)
    values, _, _ = sketch.eigenpairs(12)
    np.testing.assert_allclose(values, spectrum[:5], rtol=1e-10)


@pytest.mark.parametrize("block", [1, 3, 4])
@pytest.mark.parametrize("rank", [1, 5, 12])
@pytest.mark.parametrize("ends", ["largest", "smallest", "both"])
def test_lanczos_finds_the_ends_and_its_residuals_are_true(block, rank, ends):
    spectrum = np.r_[np.geomspace(50, 0.1, 40), -np.geomspace(0.01, 5, 20)]
    a, _ = symmetric(spectrum)
    krylov = BlockLanczos(lambda v: a @ v, 60, block=block, ends=ends)
    pairs, converged = krylov.converge(rank, 1e-6, max_columns=60)
    assert converged
    low = {"largest": 0, "smallest": rank, "both": 2 * rank // 5}[ends]
    descending = np.sort(spectrum)[::-1]
    wanted = np.r_[descending[: rank - low], descending[len(descending) - low :]]
    np.testing.assert_allclose(pairs.values, wanted, atol=1e-6)
    true = np.linalg.norm(a @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
    np.testing.assert_allclose(pairs.residual_norms, true, atol=1e-11)
    assert pairs.n_lowest == low
    assert np.max(np.abs(pairs.vectors.T @ pairs.vectors - np.eye(rank))) < 1e-12
    assert krylov._columns <= 60


def test_lanczos_recurrence_holds():
    """A Q = Q T + W S E^T: the identity behind the residuals."""
    a, _ = symmetric(np.linspace(-1, 3, 30))
    krylov = BlockLanczos(lambda v: a @ v, 30, block=3)
    for _ in range(4):
        krylov._extend()
    q, t = krylov._basis, krylov._projected
    rest = a @ q - q @ t
    np.testing.assert_allclose(rest[:, :-3], 0, atol=1e-13)
    np.testing.assert_allclose(
        np.linalg.norm(rest[:, -3:]), np.linalg.norm(krylov._coupling), rtol=1e-12
    )
    np.testing.assert_allclose(q.T @ q, np.eye(12), atol=1e-14)


def test_lanczos_sees_the_negative_end():
    spectrum = np.r_[np.linspace(1, 2, 50), -4.0]
    a, _ = symmetric(spectrum)
    pairs, _ = BlockLanczos(lambda v: a @ v, 51).converge(2, 1e-8, max_columns=51)
    assert pairs.smallest == pytest.approx(-4.0, abs=1e-6)


def test_lanczos_says_when_it_did_not_converge():
    a, _ = symmetric(np.linspace(1, 2, 200))
    krylov = BlockLanczos(lambda v: a @ v, 200)
    pairs, converged = krylov.converge(10, 1e-10, max_columns=24)
    assert not converged
    assert np.max(pairs.residual_norms) > 1e-10
    assert krylov.products == 24


@pytest.mark.parametrize("copies", [5, 11, 12])
@pytest.mark.parametrize(("ends", "sign"), [("largest", 1), ("smallest", -1)])
def test_lanczos_finds_every_copy_of_an_eigenvalue(copies, ends, sign):
    """More copies than the block has columns: small residuals alone do not show one is missing."""
    a, _ = symmetric(sign * np.r_[np.full(copies, 10.0), np.full(200 - copies, 1.0)])
    krylov = BlockLanczos(lambda v: a @ v, 200, ends=ends)
    pairs, converged = krylov.converge(12, 1e-8, max_columns=200)
    assert converged
    wanted = sign * np.r_[[10.0] * copies, [1.0] * (12 - copies)]
    np.testing.assert_allclose(pairs.values, np.sort(wanted)[::-1])


@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_few_steps_show_a_copy_that_a_random_vector_does_not(sign, missing):
    """Its quotient x^T A x is under the innermost pair; a Krylov space of four steps is not."""
    spectrum = sign * np.r_[np.full(3, 10.0), np.geomspace(1.0, 1e-3, 197)]
    a, q = symmetric(spectrum)
    some = [0, 1, 3] if missing else [0, 1, 2, 3]
    some = some[::sign]
    krylov = BlockLanczos(lambda v: a @ v, 200, ends="largest" if sign > 0 else "smallest")
    pairs = RitzPairs(
        values=spectrum[some],
        vectors=q[:, some],
        residual_norms=np.zeros(len(some)),
        smallest=float(spectrum.min()),
        smallest_residual=0.0,
        n_lowest=0 if sign > 0 else len(some),
    )
    assert krylov._hides(pairs, 1e-6) == missing
    assert krylov.products == 4


@pytest.mark.parametrize("seed", range(3))
def test_lanczos_stops_where_all_residuals_together_meet_the_tolerance(seed):
    """Small gaps, so that residuals fall slowly, and several of one size."""
    a, _ = symmetric(np.linspace(-1.0, 1.0, 150), seed=seed)
    krylov = BlockLanczos(lambda v: a @ v, 150, ends="both", seed=seed)
    pairs, converged = krylov.converge(10, 1e-2, max_columns=150)
    assert converged
    assert 1e-3 < np.linalg.norm(pairs.residual_norms) <= 1e-2
    assert pairs.smallest == pairs.values[-1]
    assert pairs.smallest_residual == pytest.approx(pairs.residual_norms[-1])
    assert krylov._ritz()[2][-1] == pytest.approx(pairs.residual_norms[0])


def test_products_count_those_of_the_check_for_copies():
    a, _ = symmetric(np.r_[np.full(3, 10.0), np.geomspace(1.0, 1e-3, 97)])
    counted = []
    krylov = BlockLanczos(lambda v: counted.append(v.shape[1]) or a @ v, 100)
    krylov.converge(4, 1e-4, max_columns=100)
    assert krylov.products == sum(counted) > krylov._columns


def test_nystrom_of_rounded_products_does_not_exceed_the_matrix():
    """Float32 rows of rank 30 under 100 columns: noise must not pass for eigenvalues."""
    rows = np.random.default_rng(0).normal(size=(30, 300)).astype(np.float32)

    def matmat(v, out):
        np.matmul(rows.T, rows @ v, out=out)

    sketch = NystromSketch(matmat, 300, dtype=np.float32)
    sketch.grow(100)
    values, vectors, _ = sketch.eigenpairs(100)
    assert len(values) == 30
    truth = rows.T.astype(float) @ rows.astype(float)
    excess = np.max(np.linalg.eigvalsh((vectors * values) @ vectors.T - truth))
    assert excess < 1e-5 * values[0]


def test_lanczos_survives_an_invariant_subspace():
    """Rank 3: the Krylov space of the start is exhausted long before P columns."""
    a, _ = symmetric(np.r_[3.0, 2.0, 1.0, np.zeros(27)])
    pairs, converged = BlockLanczos(lambda v: a @ v, 30).converge(20, 1e-10, max_columns=30)
    assert converged
    np.testing.assert_allclose(pairs.values[:4], [3, 2, 1, 0], atol=1e-12)
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(20), atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 7])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_an_exhausted_krylov_space_keeps_an_orthonormal_basis(rank, block):
    """Every block after the third is rounding: its errors must not grow from one to the next."""
    spectrum = np.r_[np.geomspace(3.0, 0.01, rank), np.zeros(50 - rank)]
    for seed in range(5):
        a, _ = symmetric(spectrum, seed=seed)
        chain = BlockLanczos(lambda v, a=a: a @ v, 50, block=block, seed=seed)
        pairs, _ = chain.converge(35, 1e-10, max_columns=50)
        np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(35), atol=1e-13)


def test_low_rank_quadratic_form_equals_the_dense_one(rng):
    u = np.linalg.qr(rng.normal(size=(20, 6)))[0]
    d, tail, x = rng.uniform(0.1, 1, 6), 0.7, rng.normal(size=(2, 3, 20))
    dense = (u * d) @ u.T + tail * (np.eye(20) - u @ u.T)
    rest = x - x @ u @ u.T
    found = LowRank(d, tail).quadratic_form(x @ u, rest @ np.swapaxes(rest, 1, 2))
    np.testing.assert_allclose(found, x @ dense @ np.swapaxes(x, 1, 2), atol=1e-12)


@pytest.mark.parametrize("diagonal", [True, False])
def test_diagonals_of_many_quadratic_forms_are_those_of_each(rng, diagonal):
    along, rows = rng.normal(size=(5, 3, 4)), rng.normal(size=(5, 3, 7))
    rest = rows @ np.swapaxes(rows, 1, 2)
    weights = rng.uniform(size=(6, 4) if diagonal else (6, 4, 4))
    weights = weights if diagonal else weights + np.swapaxes(weights, 1, 2)
    matrices = [LowRank(weight, tail) for weight, tail in zip(weights, range(6), strict=True)]
    each = [np.einsum("ncc->nc", matrix.quadratic_form(along, rest)) for matrix in matrices]
    found = quadratic_diagonals(matrices, along, np.einsum("ncc->nc", rest))
    np.testing.assert_allclose(found, each, rtol=1e-12)


def test_lanczos_spends_no_products_on_copies_that_cannot_be():
    """With distinct eigenvalues nothing can hide; with as many equal ones as columns it can."""
    distinct, _ = symmetric(np.geomspace(50, 0.01, 200))
    equal, _ = symmetric(np.r_[np.full(4, 50.0), np.geomspace(20, 0.01, 196)])
    for a, checked in ((distinct, False), (equal, True)):
        krylov = BlockLanczos(lambda v, a=a: a @ v, 200)
        assert krylov.converge(6, 1e-6, max_columns=200)[1]
        assert (krylov.products > krylov._columns) == checked


def test_rescaled_pairs_are_those_of_the_rescaled_matrix():
    """Values, residuals, trace, ends and the bound on what is left, but no vector."""
    vectors = np.eye(4)[:, :2]
    bound = NormBound(bound=0.5, at_least=0.4, failure=1e-6, products=8)
    pairs = Eigenpairs(
        values=np.array([3.0, 1.0]),
        vectors=vectors,
        residual_norms=np.array([0.1, 0.2]),
        trace=4.4,
        smallest=-0.3,
        products=9,
        converged=True,
        left_out=bound,
        n_lowest=1,
    )
    assert pairs.remainder == pytest.approx(0.4)
    found = pairs.rescaled(10.0)
    np.testing.assert_allclose(found.values, [30.0, 10.0])
    np.testing.assert_allclose(found.residual_norms, [1.0, 2.0])
    assert (found.trace, found.smallest, found.remainder) == pytest.approx((44.0, -3.0, 4.0))
    assert found.left_out == NormBound(bound=5.0, at_least=4.0, failure=1e-6, products=8)
    assert found.vectors is vectors
    assert (found.n_lowest, found.products) == (1, 9)
    bare = pairs.rescaled(0.5).__class__(
        **vars(pairs) | {"trace": None, "smallest": None, "left_out": None}
    )
    assert bare.rescaled(2.0).remainder is None
    rounded = Eigenpairs(**vars(pairs) | {"trace": 4.0 - 1e-15})
    assert rounded.remainder == 0.0


def test_roots_and_widths_of_intervals():
    covariance = np.array([[[4.0, 9.0], [9.0, -1e-18]]])
    np.testing.assert_array_equal(root_diagonal(covariance), [[2.0, 0.0]])
    low, high = np.array([0.0, 1.0, 0.0]), np.array([0.0, 4.0, 2.0])
    np.testing.assert_array_equal(relative_width(low, high), [0.0, 0.75, 1.0])
