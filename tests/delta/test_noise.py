"""The noise of a regression in low rank: gamma, the noise and the standard errors in intervals."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from eager import Eager, squares
from marks import slow, wide

from deltauq import DeltaMethod
from deltauq.curvature.effective_parameters import effective_parameters
from deltauq.curvature.noise_interval import NoiseRange, noise_range
from deltauq.curvature.solvers import make_solver
from deltauq.errors import ConvergenceWarning, InvalidInputError
from deltauq.likelihoods import CustomLoss, Gaussian
from deltauq.linalg import Eigenpairs, NormBound
from deltauq.report.words import number
from deltauq.runtime.steps import Steps

layers = keras.layers
F64 = {"dtype": "float64"}
EPS = float(np.finfo(np.float64).eps)

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:.* eigenpairs of the .* are kept of the"),
]


def gamma_of(matrix):
    """trace(A (A + I)^-1)."""
    return float(np.trace(matrix @ np.linalg.inv(matrix + np.eye(len(matrix)))))


def sketched(matrix, rank, seed=0):
    """Eigenpairs of a semidefinite matrix as a fit finds them, with the bound on what is left."""
    operator = SimpleNamespace(
        network=SimpleNamespace(dtype="float64"),
        steps=Steps(),
        shape=matrix.shape,
        positive_semidefinite=True,
        solver=None,
        matmat=lambda v, out=None: matrix @ v if out is None else np.copyto(out, matrix @ v),
        trace=lambda: float(np.trace(matrix)),
        sampled=lambda share, seed: None,
    )
    solver = make_solver(operator, rank, bounds=True, seed=seed, storage=None)
    return solver.certified(solver.solve(rank))


@pytest.mark.parametrize("decay", [wide(1.0), wide(1.5), 2.0])
def test_what_the_data_determine_lies_in_its_interval(decay):
    """Random matrices, from few and from many pairs; the interval closes with their number."""
    rng, size, most_rank = np.random.default_rng(3), 120, 90
    q = np.linalg.qr(rng.normal(size=(size, most_rank)))[0]
    matrix = (q * (60.0 * np.arange(1, most_rank + 1) ** -decay)) @ q.T
    truth, widths = gamma_of(matrix), []
    for rank in (4, 15, 40, 70):
        for seed in range(5):
            low, high = effective_parameters(sketched(matrix, rank, seed), most_rank, EPS)
            assert low <= truth <= high
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert decay < 2 or widths[-1] < 0.005 * truth


def pairs_of(values, vectors, matrix, bound):
    """Eigenpairs that leave a known rest."""
    rest = matrix - (vectors * values) @ vectors.T
    return Eigenpairs(
        values=np.asarray(values),
        vectors=vectors,
        residual_norms=np.linalg.norm(rest @ vectors, axis=0),
        trace=float(np.trace(matrix)),
        smallest=None,
        products=0,
        converged=True,
        left_out=NormBound(bound, 0.0, 0.0, 0),
    )


def test_the_ends_of_the_interval_are_attained():
    """All of the rest at its bound gives the lower end, all of it alike the upper one."""
    matrix = np.diag([8.0, 4.0, 0.3, 0.3, 0.3, 0.0])
    pairs = pairs_of([8.0, 4.0], np.eye(6)[:, :2], matrix, 0.3)
    found = effective_parameters(pairs, 5, EPS)
    np.testing.assert_allclose(found, gamma_of(matrix), rtol=1e-12)
    # Of a rest that could be spread over more directions, the upper end knows no better.
    assert effective_parameters(pairs, 6, EPS)[1] > 1.002 * gamma_of(matrix)


@pytest.mark.parametrize(
    ("value", "leaning", "share"), [(0.5, [0.3, 0.7, 0.0], 0.8), (100.0, [0.5, 0.5, 0.0], 0.95)]
)
def test_a_rest_that_leans_into_the_pairs_determines_less(value, leaning, share):
    """Sum f(mu) + t / (1 + delta) alone would be no lower end: this rest is at its bound."""
    vectors, leaning = np.eye(3)[:, :1], np.array(leaning)
    matrix = value * vectors @ vectors.T + np.outer(leaning, leaning)
    bound = float(leaning @ leaning)
    low, high = effective_parameters(pairs_of([value], vectors, matrix, bound), 3, EPS)
    truth = gamma_of(matrix)
    assert value / (1 + value) + bound / (1 + bound) > truth  # what it would be without the overlap
    assert low <= truth <= high
    assert low > share * truth


@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_of_a_hessian_every_eigenvalue_may_move_by_the_residual_term(beta):
    """Weyl's inequalities: those of the pairs both ways, those left out up from their bound."""
    values, left = np.array([5.0, 2.0]), 1
    pairs = replace(
        pairs_of(values, np.eye(3)[:, :2], np.diag([5.0, 2.0, -0.5]), beta),
        residual_norms=np.array([0.03, 0.04]),
        trace=None,
        smallest=-0.5,
    )
    doubt = np.sqrt(2.0) * 0.05
    low, high = effective_parameters(pairs, 3, EPS)
    least, most, rest = values - doubt, values + doubt, beta + doubt
    assert low == pytest.approx(np.sum(least / (1 + least)))
    most = np.sum(most / (1 + most)) + left * rest / (1 + rest)
    assert most <= high < most + left * doubt


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_trace_of_rounded_products_leaves_the_interval_open_for_its_rounding(sign):
    """By less than 32 epsilon of the trace, up or down."""
    matrix = np.diag([8.0, 4.0, 0.3, 0.3, 0.3])
    pairs, epsilon = pairs_of([8.0, 4.0], np.eye(5)[:, :2], matrix, 0.3), 1e-3
    rounded = replace(pairs, trace=pairs.trace * (1 + sign * 30 * epsilon))
    low, high = effective_parameters(rounded, 5, epsilon)
    assert low <= gamma_of(matrix) <= high


@pytest.mark.parametrize(
    ("power", "expected"), [(0, (1.0, 1.0)), (1, (0.9, 1.1)), (2, (0.81, 1.21))]
)
def test_a_standard_error_goes_with_the_root_of_the_noise_or_with_the_noise(power, expected):
    found = NoiseRange(low=0.81, high=1.21, factor=1.3, power=power)
    np.testing.assert_allclose(found.on_std, expected)
    assert found.width == pytest.approx(1 - expected[0] / expected[1])
    limits = np.array([[1.0, 2.0], [0.0, 0.0]])
    np.testing.assert_allclose(found.widen(limits), limits * expected)


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        ((20.0, 20.0), (1.0, 1.0, 100 / 80)),
        ((20.0, 40.0), (70 / 80, 70 / 60, 100 / 70)),
        ((20.0, 300.0), (0.5, np.inf, 100 / 40)),
        ((20.0, 99.95), (40.025 / 80, np.inf, 100 / 40.025)),
    ],
)
def test_the_noise_lies_between_those_of_both_ends(gamma, expected):
    found = noise_range(gamma, 100.0, power=1)
    np.testing.assert_allclose((found.low, found.high, found.factor), expected, rtol=1e-12)
    assert found.is_open == np.isinf(found.high)


def test_only_the_lower_end_says_that_nothing_is_left_for_the_noise():
    assert noise_range((99.95, 120.0), 100.0, power=1) is None
    assert noise_range((np.nan, 120.0), 100.0, power=1) is None


# A network with more parameters than observations.

RNG = np.random.default_rng(5)
N, C = 40, 2
X = RNG.normal(size=(N, 3))
Y = np.stack([np.sin(X[:, 0]) + 0.3 * RNG.normal(size=N), X[:, 1] + 0.3 * RNG.normal(size=N)], 1)


def network(n_outputs=C, units=20):
    keras.utils.set_random_seed(1)
    x = keras.Input((3,), **F64)
    z = layers.Dense(units, activation="tanh", **F64)(x)
    model = keras.Model(x, layers.Dense(n_outputs, **F64)(z))
    model.compile(loss="mse")
    return model


MODEL = network(1)  # P = 101
TRUTH = Eager(MODEL, X, Y[:, :1], squares(np.ones(1)), np.ones(N))


def dense(curvature, l2, x_new):
    """Noise and standard errors of all eigenpairs, in plain NumPy; one output."""
    logits, jacobian = TRUTH.jacobian()
    residual, rows = (Y[:, :1] - logits)[:, 0], jacobian[:, 0]
    noise = np.mean(residual**2)
    scores = rows * residual[:, None] / noise if curvature == "opg" else rows / np.sqrt(noise)
    rates = l2 / (2 * noise)  # Keras' cost is 2 s times the likelihood's
    gamma = gamma_of(scores.T @ scores / N / rates)
    factor = N / (N - gamma)
    scores = scores / factor if curvature == "opg" else scores / np.sqrt(factor)
    precision = scores.T @ scores + N * rates / factor * np.eye(rows.shape[1])
    new = Eager(MODEL, x_new, x_new, squares(np.ones(1)), np.ones(len(x_new))).jacobian()[1][:, 0]
    std = np.sqrt(np.einsum("ni,ij,nj->n", new, np.linalg.inv(precision), new))
    return noise * factor, std, gamma


def fit(curvature, rank, l2, model=MODEL, y=Y[:, :1], **options):
    options = {"l2": l2, "rank": rank, "progress": False, "batch_size": 16} | options
    return DeltaMethod(model, curvature, **options).fit(X, y)


NEW = RNG.normal(size=(25, 3))


@pytest.mark.parametrize("curvature", [wide("ggn"), "opg"])
@pytest.mark.parametrize(("l2", "rank"), [(0.1, 8), slow(0.02, 20), slow(0.02, 12)])
def test_low_rank_knows_noise_and_standard_errors_to_their_bounds(curvature, l2, rank):
    """Against dense algebra; the noise is inside too, and so are a new observation's errors."""
    noise, std, _ = dense(curvature, l2, NEW)
    np.testing.assert_allclose(fit(curvature, "full", l2).predict(NEW).std[:, 0], std, rtol=1e-8)
    dm = fit(curvature, rank, l2)
    found = dm.predict(NEW)
    assert found.certified
    for value, (low, high) in (
        (noise, found.noise_bounds),
        (std, found.std_bounds),
        (std, found.logit_std_bounds),
        (np.sqrt(std**2 + noise), found.observation_std_bounds),
    ):
        assert np.all((low[:, 0] <= value) & (value <= high[:, 0]))
        assert np.all(high < 1.7 * low)
    assert found.noise_bounds[0][0, 0] < found.noise[0, 0] < found.noise_bounds[1][0, 0]
    # What stands for the tail has no say in how many parameters the data determine.
    none, most = (fit(curvature, rank, l2, tail=tail).fitted_likelihood for tail in ("none", "l2"))
    np.testing.assert_allclose(none.noise, most.noise, rtol=1e-12)
    np.testing.assert_allclose(none.noise, dm.fitted_likelihood.noise, rtol=1e-2)  # another sketch


@pytest.mark.wide  # of more parameters: the test of the exact Hessian
@pytest.mark.parametrize("units", [None, 1])
def test_too_few_parameters_for_two_random_vectors_leave_what_is_certain(units):
    """The exact Hessian in low rank: gamma is sampled, but of one sample there is no spread."""
    keras.utils.set_random_seed(0)
    hidden = [] if units is None else [keras.layers.Dense(2 * units, "tanh", dtype="float64")]
    outputs = keras.layers.Dense(1, dtype="float64")
    model = keras.Sequential([keras.Input((3,), dtype="float64"), *hidden, outputs])
    model.compile(loss="mse")
    whole = fit("hessian", "full", 0.1, model).predict(NEW)
    low, high = fit("hessian", 2, 0.1, model).predict(NEW).noise_bounds
    assert np.all(np.isfinite(low))
    assert np.all((low <= whole.noise) & (whole.noise <= high))


def test_refine_and_the_rank_curve_hold_the_noise():
    _noise, std, _ = dense("opg", 0.02, NEW)
    dm = fit("opg", 10, 0.02)
    known = dm._fitted.covariance.noise
    with pytest.warns(ConvergenceWarning, match="noise leaves .* refine does not change that"):
        refined = dm.refine(NEW, rtol=1e-3)
    low, high = (end[:, 0] for end in refined.std_bounds)
    assert np.all((low <= std) & (std <= high))
    assert refined.certified
    assert np.median(1 - low / high) == pytest.approx(known.width, abs=2e-3)
    means = dm.predict_mean(NEW, groups=np.arange(len(NEW)))
    np.testing.assert_allclose(means.std_bounds, dm.predict(NEW).std_bounds, rtol=1e-6)
    curve = dm.rank_curve(NEW)
    own = dm.predict(NEW).std_bounds
    assert curve.widths[-1] == pytest.approx(np.median(1 - own[0] / own[1]), rel=1e-3)
    assert np.all(np.diff(curve.widths) < 1e-9)


@pytest.mark.wide  # of classes, beside the dense one: tests/curvature/test_posterior.py
def test_evidence_in_low_rank_holds_that_of_all_eigenpairs():
    for curvature in ("ggn", "opg"):
        full = fit(curvature, "full", 0.02).log_marginal_likelihood()
        found = fit(curvature, 16, 0.02).log_marginal_likelihood()
        assert full.low == pytest.approx(full.high)
        assert found.low <= full.value <= found.high
        assert found.low <= found.value <= found.high
        assert found.high - found.low < 5


@pytest.mark.wide  # bounds of the noise: the test of low rank
@pytest.mark.parametrize("curvature", ["ggn", "opg"])
def test_a_noise_without_an_upper_bound_is_said_not_refused(curvature, tmp_path):
    """Few pairs may leave as many directions open as there are observations."""
    l2 = 1e-4
    noise, std, gamma = dense(curvature, l2, NEW)
    assert gamma < N
    with pytest.warns(ConvergenceWarning, match="the noise has no upper bound"):
        dm = fit(curvature, 1, l2)
    (caveat,) = (each for each in dm.caveats if each.subject == "noise")
    assert re.search(r"noise has no upper bound.*larger rank.*noise=", caveat.text)
    found = dm.predict(NEW)
    assert np.all(np.isinf(found.std_bounds[1]))
    assert np.all(np.isinf(found.noise_bounds[1]))
    assert np.all(found.std_bounds[0][:, 0] <= std)
    assert np.all(found.noise_bounds[0][:, 0] <= noise)
    assert np.all(np.isfinite(found.std))
    assert np.all(np.isfinite(found.observation_std))
    assert dm.log_marginal_likelihood().low == -np.inf
    dm.save(tmp_path / "fit.delta", with_model=False)
    back = DeltaMethod.load(tmp_path / "fit.delta", MODEL).predict(NEW)
    np.testing.assert_array_equal(back.std_limits, found.std_limits)
    np.testing.assert_array_equal(back.noise_limits, found.noise_limits)
    dm.export(tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"](x=NEW)
    np.testing.assert_allclose(served["std_low"], found.std_bounds[0], rtol=1e-8)
    assert np.all(np.isinf(served["std_high"]))
    assert number(np.inf) == "\N{INFINITY}"


def test_a_fit_that_determines_everything_is_refused_at_any_rank():
    for rank in ("full", 60):
        with pytest.raises(InvalidInputError, match=r"parameters fit all.*at least so many"):
            fit("ggn", rank, 1e-10)


def test_the_exact_hessian_samples_what_the_data_determine():
    """Its trace is not known, so the noise is estimated, and nothing is certified."""
    full = fit("hessian", "full", 0.1, negative_curvature="project")
    assert full.predict(NEW).certified
    dm = fit("hessian", 25, 0.1)
    found = dm.predict(NEW)
    assert not found.certified
    low, high = found.noise_bounds
    assert np.all((low <= full.fitted_likelihood.noise) & (full.fitted_likelihood.noise <= high))
    np.testing.assert_allclose(dm.fitted_likelihood.noise, full.fitted_likelihood.noise, rtol=0.05)


@pytest.mark.wide  # losses of one's own: tests/acceptance/test_outcomes.py
def test_the_noise_does_not_scale_a_loss_that_does_not_hold_it():
    """A loss of one's own that is the Gaussian's has its standard errors, L2 included."""
    own = CustomLoss(
        lambda z, y: 0.5 * tf.reduce_sum((z - tf.cast(y, z.dtype)) ** 2, 1), Gaussian()
    )
    for rank in ("full", 12):
        given = fit("ggn", rank, 0.1, likelihood=Gaussian(noise=1.0)).predict(NEW)
        found = fit("ggn", rank, 0.05, likelihood=own)
        np.testing.assert_allclose(found.predict(NEW).std, given.std, rtol=1e-9)
        limits = found.predict(NEW).std_limits
        np.testing.assert_allclose(limits, given.std_limits, rtol=1e-9)


@pytest.mark.wide  # the growth of the rank: tests/delta/test_delta_method.py
def test_rank_auto_sees_what_the_noise_leaves_open():
    """Growth ends where noise and tail together leave less than rank_tol; P = 3,101 in float32."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 9)).astype("float32")
    y = (x[:, 0] + 0.5 * x[:, 1] ** 2 + rng.normal(size=200)).astype("float32")
    dense_layers = [layers.Dense(units, "tanh") for units in (50, 50)]
    model = keras.Sequential([keras.Input((9,)), *dense_layers, layers.Dense(1)])
    model.compile(loss="mse")
    l2 = 0.05
    rows = Eager(model, x, y, squares(np.ones(1)), np.ones(200)).jacobian()[1][:, 0].astype(float)
    noise = np.mean((y - model(x).numpy()[:, 0].astype(float)) ** 2)
    gram = rows @ rows.T / (200 * l2 / 2)
    gamma = gamma_of(gram)
    noise *= 200 / (200 - gamma)
    outside = gram @ np.linalg.inv(gram + np.eye(200)) @ gram
    std = np.sqrt(noise / 200 * 200 * np.diag(gram - outside))
    dm = DeltaMethod(model, "ggn", l2=l2, progress=False).fit(x, y)
    found = dm.predict(x)
    low, high = (end[:, 0] for end in found.std_bounds)
    assert dm.eigenpairs.rank < 200
    assert found.certified
    assert np.all((low <= std) & (std <= high))
    assert np.median(1 - low / high) <= 0.05
    np.testing.assert_allclose(dm.fitted_likelihood.noise, noise, rtol=0.02)


@pytest.mark.parametrize("curvature", ["ggn", "opg"])
def test_a_range_goes_by_sampled_parameters(curvature):
    """What the certain interval of gamma leaves open of the noise is wide; a range is to say less.

    The noise of all eigenpairs lies between, and so does the estimate.
    """
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 6))
    y = np.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:3] + 0.3 * rng.normal(size=(400, 1))
    model = keras.Sequential(
        [keras.Input((6,), **F64), layers.Dense(24, "tanh", **F64), layers.Dense(1, **F64)]
    )
    options = {"l2": 1e-4, "likelihood": "gaussian", "progress": False}
    full = DeltaMethod(model, curvature, rank="full", **options).fit(x, y)
    some = DeltaMethod(model, curvature, rank=60, route="sketch", **options).fit(x, y)
    certain = some.predict(x[:9]).band.residuals  # measured here, once
    low, high = certain.noise_on_std
    of_full, of_some = (dm.predict(x[:1]).noise[0] for dm in (full, some))
    power = {"ggn": 0.5, "opg": 1.0}[curvature]
    assert low <= min(1.0, (of_full / of_some) ** power)
    assert high >= max(1.0, (of_full / of_some) ** power)
    least, most = some._fitted.known.noise.on_std
    assert least <= low <= high <= most
    assert high / low - 1 <= 0.3 * (most / least - 1)
