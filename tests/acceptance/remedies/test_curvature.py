"""Ways out that errors of curvatures and their inverses name; others are in tests/curvature."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_methods import N, X, Y, fit, fitted, network
from ways import stumble

from deltauq.curvature import GGN
from deltauq.curvature.training_rows import TrainingRows
from deltauq.delta import exact
from deltauq.delta.solving import make_operator
from deltauq.likelihoods import CustomLoss, Gaussian

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:The L2 rate is"),
    pytest.mark.filterwarnings("ignore:distutils Version classes"),  # tensorflow-probability
]

layers = keras.layers
VALUES = X @ np.array([1.0, -2.0, 0.5, 0.0]) + np.random.default_rng(1).normal(size=N)


def same(found, expected):
    np.testing.assert_allclose(found.predict(X).std, expected.predict(X).std, rtol=1e-7)


def bent(**options):
    """A network whose exact Hessian has negative eigenvalues."""
    model = network(layers.Dense(5, "tanh", dtype="float64", name="first"), **options)
    model.set_weights([2 * weight for weight in model.get_weights()])
    return model


@pytest.mark.wide
def test_more_eigenpairs_than_there_are():
    with stumble("curvature/eigenpairs.py:check_rank", "pass rank='full'"):
        fit(rank=16)
    same(fit(rank="full"), fit(rank=15, bounds=False))


@pytest.mark.wide  # the bounds that it names: tests/curvature/test_bounds.py
def test_a_trace_that_is_not_known():
    with stumble("curvature/tails.py:tail_of", "pass tail='midpoint' or 'l2'"):
        fit(curvature="hessian", rank=5, tail="trace")
    exact = fitted("hessian").predict(X).std
    below, above = fit(curvature="hessian", rank=5, tail="midpoint").predict(X).std_bounds
    assert np.all((below <= exact) & (exact <= above))
    assert np.all(fit(curvature="hessian", rank=5, tail="l2").predict(X).std >= exact * (1 - 1e-9))


@pytest.mark.wide  # refused and kept: tests/delta/test_delta_method.py
def test_negative_curvature_that_is_kept():
    """Of rank one there is no other end; and it is kept where L2 outweighs it."""
    site = "curvature/parameter_covariance.py:_indefinite_covariance"
    model, keep = bent(), {"curvature": "hessian", "negative_curvature": "keep"}
    with stumble(site, "pass a larger rank"):
        fit(model, rank=1, l2=10.0, **keep)
    exact = fit(model, l2=10.0, **keep)
    some = fit(model, l2=10.0, rank=30, **keep)
    np.testing.assert_allclose(some.predict(X).std, exact.predict(X).std, rtol=0.05)
    assert fit(model, rank=1, l2=10.0, curvature="hessian").eigenpairs.rank == 1
    with stumble("curvature/parameter_covariance.py:_require_positive", "raise l2, train further"):
        fit(model, **keep)
    assert exact.eigenpairs.smallest < -0.1
    for curvature in ("hessian", "ggn", "opg"):
        assert np.all(fit(model, curvature=curvature).predict(X).std > 0)


@pytest.mark.wide  # refused and kept: tests/delta/test_delta_method.py
def test_negative_curvature_that_is_not_there_after_training():
    refused = {"curvature": "hessian", "negative_curvature": "raise"}
    site = "curvature/parameter_covariance.py:_require_no_negative"
    with stumble(site, "negative_curvature='project'"):
        fit(bent(), **refused)
    same(fit(**refused), fitted())  # as at a minimum, and in every convex cost
    projected = refused | {"negative_curvature": "project"}
    assert np.all(fit(bent(), **projected).predict(X).std > 0)


@pytest.mark.wide  # refused and kept: tests/delta/test_delta_method.py
def test_negative_curvature_beside_a_parameter_without_l2():
    """There is no metric to project in; kept, it is that of a flat prior's limit."""
    site = "curvature/parameter_covariance.py:_require_no_negative"
    options = {"y": Y > 0, "curvature": "hessian", "likelihood": "binary"}
    model, free = bent(n_outputs=1), {"*dense*/bias": 0.0, "*": 10.0}
    with stumble(site, "negative_curvature='keep' where L2 outweighs them"):
        fit(model, l2=free, **options)
    assert np.all(fit(model, l2=10.0, **options).predict(X).std > 0)
    kept, nearly = (
        fit(model, l2=rates, negative_curvature="keep", **options)
        for rates in (free, free | {"*dense*/bias": 1e-9})
    )
    np.testing.assert_allclose(kept.predict(X).std, nearly.predict(X).std, rtol=1e-5)


@pytest.mark.wide
def test_parameters_that_the_data_do_not_determine():
    free = {"*kernel": 0.1, "*bias": 0.0}
    site = "curvature/parameter_covariance.py:_require_positive"
    with stumble(site, "they never determine the last bias"):
        fit(l2=free)
    same(fit(l2=free | {"*bias": 0.1}), fitted())
    tuned = fit(l2="tune")
    same(fit(l2=next(iter(tuned.l2_rates.values()))), tuned)


@pytest.mark.wide  # the other densities: tests/curvature/test_posterior.py
def test_a_density_of_a_singular_covariance():
    site = "curvature/posterior.py:RootOperator.__init__"
    with stumble(site, "pass another tail than 'none'"):
        fitted(rank=3, tail="none").posterior()
    for method in (fitted(rank=3), fitted("sandwich", rank=3, meat="opg")):
        assert np.isfinite(method.posterior().log_prob(method.posterior().mean()))
    with stumble(site, "or meat='opg' with curvature='sandwich'"):
        fitted("sandwich", meat="scores").posterior()
    exact = fitted("sandwich").posterior()
    sigma = fitted("sandwich").covariance.to_dense().numpy()
    determinant = np.linalg.slogdet(2 * np.pi * sigma)[1]
    assert float(exact.log_prob(exact.mean())) == pytest.approx(-determinant / 2, rel=1e-6)


def unbiased():
    return keras.Sequential(
        [keras.Input((4,), dtype="float64"), layers.Dense(1, use_bias=False, dtype="float64")]
    )


@pytest.mark.wide
@pytest.mark.filterwarnings("ignore:divide by zero encountered")
@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.filterwarnings("ignore:the data say next to nothing")
def test_variances_that_overflow():
    tiny, options = 1e-156, {"y": VALUES, "likelihood": Gaussian(noise=1.0)}
    site = "curvature/parameter_covariance.py:ParameterCovariance.__post_init__"
    with stumble(site, "scale the inputs"):
        fit(unbiased(), X * tiny, l2=0.0, **options)
    scaled = fit(unbiased(), X * tiny / tiny, l2=0.0, **options).predict(X).std[:, 0]
    hat = np.einsum("np,pq,nq->n", X, np.linalg.inv(X.T @ X), X)
    np.testing.assert_allclose(scaled, np.sqrt(hat), rtol=1e-9)
    prior = fit(unbiased(), X * tiny, l2=0.1, **options).covariance.to_dense()
    np.testing.assert_allclose(prior, np.eye(4) / (N * 0.1 / 2), atol=1e-9)  # beside mean squares


def power(e):
    return tf.pow(tf.abs(e), 1.5)


def rounded_power(e):
    return tf.pow(tf.square(e) + 1e-4, 0.75)


def exponential(e):
    return tf.exp(30 * e)


@pytest.mark.wide  # refused: tests/curvature/test_flatness.py
@pytest.mark.filterwarnings("ignore:the loss has a slope and no curvature")
@pytest.mark.filterwarnings("ignore:the largest curvature is")
def test_a_loss_whose_derivatives_are_not_finite():
    """A root away from zero, labels in another unit, or more exponents."""
    site = "curvature/flatness.py:_check_finite"

    def of(function, dtype="float32", labels=VALUES):
        def loss(z, y):
            return function(z[:, 0] - tf.cast(tf.reshape(y, [-1]), z.dtype))

        model = network(n_outputs=1, dtype=dtype)
        labels = np.where(np.arange(N) == 3, model(X).numpy()[:, 0], labels)
        return fit(model, y=labels, likelihood=CustomLoss(loss, Gaussian(noise=1.0)))

    with stumble(site, "powers in it away from zero"):
        of(power)
    assert np.all(of(rounded_power).predict(X).std > 0)
    with stumble(site, "scale the labels"):
        of(exponential)
    for found in (of(exponential, "float64"), of(exponential, labels=VALUES / 10)):
        assert np.all(found.predict(X).std > 0)


def test_rows_without_room():
    options = {"rank": "auto", "route": "gram"}
    operator = make_operator(fitted()._fitted.problem, GGN, in_rows=True)
    with stumble("curvature/row_layout.py:row_layout", "pass route='sketch'"):
        TrainingRows(operator, 10)
    rows = TrainingRows(operator, 1_000)  # with more memory
    assert rows.gram("float64").shape == (rows.n_rows, rows.n_rows)
    sketched = fit(**options | {"route": "sketch", "rank": 14}).predict(X)
    low, high = sketched.std_bounds
    std = fit(**options).predict(X).std
    assert np.all((low <= std) & (std <= high))


def test_rows_that_are_formed_in_parts_from_a_dataset_in_another_order():
    """What belongs together would come from different examples: no number would be right."""

    def in_parts(data):
        by_rows = fit(x=data, y=None, rank=3, route="sketch")
        operator = make_operator(by_rows._fitted.problem, GGN, in_rows=True)
        rows = TrainingRows(operator, 200)
        assert len(rows._layout.groups) > 1
        return by_rows, rows.gram("float64")

    still = tf.data.Dataset.from_tensor_slices((X, Y))
    with stumble("curvature/training_rows.py:TrainingRows._check_order", "or pass route='sketch'"):
        in_parts(still.shuffle(N, seed=1).batch(5))
    by_pairs, gram = in_parts(still.batch(5))
    operator = make_operator(fitted()._fitted.problem, GGN, in_rows=True)
    np.testing.assert_allclose(gram, TrainingRows(operator, 2**20).gram("float64"), atol=1e-9)
    shuffled = fit(x=still.shuffle(N, seed=1).batch(5), y=None, rank=3, route="sketch")
    np.testing.assert_allclose(shuffled.predict(X).std, by_pairs.predict(X).std, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
def test_rows_whose_squares_overflow():
    options = {"rank": "auto", "route": "gram", "curvature": "opg"}
    single, factor = network(dtype="float32"), 1e22
    with stumble("curvature/training_rows.py:TrainingRows.gram", "scale the inputs"):
        fit(single, X * factor, **options)
    assert np.all(fit(single, X, **options).predict(X).std > 0)
    some, y = X[:3] * factor, Y[:3]  # of more, the curvature drowns L2 where the data determine all
    assert np.all(fit(network(), some, y, **options).predict(some).logit_std > 0)


@pytest.mark.parametrize("route", ["gram", "dense"])
def test_an_l2_rate_that_drowns_in_the_curvature(route, monkeypatch):
    """Every row is there twice, and all are 1e44 times as long as the L2 rate lets them be."""
    monkeypatch.setattr(exact, "EIGEN_LIMIT", 1)  # as for many parameters
    options = {"rank": "auto", "route": route, "curvature": "opg"}
    huge, y = np.tile(X, (2, 1)) * 1e22, np.tile(Y, 2)
    with stumble("curvature/plus_l2.py:MatrixPlusL2.root", "scale the inputs as for training"):
        fit(network(), huge, y, **options).predict(X)
    for x, l2 in ((huge / 1e22, 0.1), (huge, 1e44)):
        assert np.all(fit(network(), x, y, l2=l2, **options).predict(x).logit_std > 0)
    options |= {"rank": 5, "route": "sketch"}
    with stumble("curvature/plus_l2.py:MatrixPlusL2.root", "pass route='sketch'"):
        fit(network(), huge, y, rank="auto", route=route, curvature="opg").predict(X)
    assert np.all(fit(network(), huge, y, **options).predict(huge).logit_std > 0)
