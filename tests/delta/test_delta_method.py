"""`DeltaMethod` equals the delta method written out with dense matrices."""

from __future__ import annotations

import random
from types import SimpleNamespace

import cases
import keras
import numpy as np
import pytest
import reference
import sklearn.linear_model
import tensorflow as tf
from marks import covering, slow, wide, wide_but

from deltauq import ConvergenceWarning, DeltaMethod
from deltauq.curvature.eigenpairs import automatic_eigenpairs
from deltauq.errors import InvalidInputError, NotPositiveDefiniteError
from deltauq.linalg import Storage

CURVATURES = ("hessian", "opg", "ggn")
L2 = 0.05

# Random weights are far from a minimum of the cost; `fit` says so, and the algebra still holds.
pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")


def fit(case, curvature, **options):
    options = {"rank": "full", "l2": L2, "progress": False, "batch_size": 4} | options
    options = {"weights": "counts"} | options
    return DeltaMethod(case.model, curvature, **options).fit(case.x, case.y, case.weight)


def truth(case, curvature, rates=L2):
    """Logit and probability covariances, and Sigma, from the dense reference."""
    matrix = getattr(case.truth, curvature)
    rates = np.broadcast_to(rates, len(matrix)).astype(float)
    sigma = reference.projected_parameter_covariance(matrix, rates, case.weight.sum())
    logit = reference.logit_covariance(case.truth.jacobian, sigma)
    probability = reference.probability_covariance(
        case.truth.jacobian, case.truth.probabilities, sigma
    )
    return logit, probability, sigma


def relative(found, expected):
    return np.max(np.abs(found - expected)) / np.max(np.abs(expected))


@pytest.mark.filterwarnings("ignore:the exact Hessian shows no minimum")
@covering(name=cases.NAMES, curvature=CURVATURES)
def test_full_rank_equals_the_dense_reference(get_case, name, curvature):
    case = get_case(name)
    logit, probability, sigma = truth(case, curvature)
    dm = fit(case, curvature)
    prediction = dm.predict(case.x)
    assert relative(prediction.logits, case.truth.logits) < 1e-12
    assert relative(prediction.probabilities, case.truth.probabilities) < 1e-12
    assert relative(prediction.logit_covariance, logit) < 1e-8
    assert relative(prediction.covariance, probability) < 1e-8
    assert relative(dm.covariance.to_dense().numpy(), sigma) < 1e-8


@pytest.mark.parametrize("curvature", wide_but(["opg", "ggn"], CURVATURES))
@pytest.mark.parametrize("name", ["tanh", slow("no_hidden"), slow("relu_conv"), slow("joined")])
def test_float32_is_right_to_1e_3(get_case, name, curvature):
    case = get_case(name, "float32")
    logit, probability, _ = truth(case, curvature)
    prediction = fit(case, curvature).predict(case.x)
    assert relative(prediction.logit_covariance, logit) < 1e-3
    assert relative(prediction.covariance, probability) < 1e-3


@pytest.mark.wide  # of products: test_operators.py; of predictions: test_joint.py
@pytest.mark.parametrize("curvature", wide_but(["ggn"], CURVATURES))
@pytest.mark.parametrize("rank", [slow("full"), 12])
def test_the_batch_size_does_not_matter(get_case, curvature, rank):
    case = get_case("relu_conv")
    results = [
        fit(case, curvature, rank=rank, batch_size=b).predict(case.x).covariance for b in (4, 50)
    ]
    for result in results[1:]:
        assert relative(result, results[0]) < 1e-6


@pytest.mark.quick
def test_rows_of_the_probability_covariance_sum_to_zero(get_case):
    covariance = fit(get_case("joined"), "ggn").predict(get_case("joined").x).covariance
    assert np.max(np.abs(covariance.sum(axis=-1))) < 1e-15 * len(covariance)


@pytest.mark.parametrize("tail", ["midpoint", slow("l2"), slow("trace")])
@pytest.mark.parametrize("curvature", ["opg", wide("ggn")])
def test_the_rank_of_the_data_is_enough(get_case, curvature, tail):
    """OPG of 11 examples has rank 11: with 11 pairs nothing is left, whatever the tail rule."""
    case = get_case("tanh")
    rank = 11 if curvature == "opg" else 33
    logit, probability, _ = truth(case, curvature)
    dm = fit(case, curvature, rank=rank, tail=tail)
    prediction = dm.predict(case.x)
    assert dm.eigenpairs.remainder < 1e-12 * dm.eigenpairs.trace
    assert relative(prediction.logit_covariance, logit) < 1e-8
    assert relative(prediction.covariance, probability) < 1e-8


@pytest.mark.parametrize("curvature", wide_but(["ggn"], CURVATURES))
def test_l2_tail_is_an_upper_bound_and_none_is_below(get_case, curvature):
    """With the tail at 1/lambda the covariance is too large by a semidefinite matrix."""
    case = get_case("tanh")
    logit = truth(case, curvature)[0]
    high = fit(case, curvature, rank=6, tail="l2").predict(case.x).logit_covariance
    none = fit(case, curvature, rank=6, tail="none").predict(case.x).logit_covariance
    middle = fit(case, curvature, rank=6).predict(case.x).logit_covariance
    floor = -1e-9 * np.max(logit)
    assert np.min(np.linalg.eigvalsh(high - logit)) > floor
    assert np.min(np.linalg.eigvalsh(high - middle)) > floor
    assert np.min(np.linalg.eigvalsh(middle - none)) > floor
    assert np.max(np.linalg.eigvalsh(high - none)) > 0.1 * np.max(logit)


@pytest.mark.parametrize("curvature", wide_but(["opg"], CURVATURES))
@pytest.mark.parametrize("rank", ["full", 20])
def test_several_rates_use_the_priors_metric(get_case, curvature, rank):
    """Weights and biases at different rates; low rank within its own tail interval."""
    case = get_case("tanh")
    rates = {"kernel": 0.03, "bias": 0.2}
    sizes = [(int(np.prod(v.shape)), rates[v.name]) for v in case.model.trainable_variables]
    per_parameter = np.concatenate([np.full(n, rate) for n, rate in sizes])
    logit = truth(case, curvature, per_parameter)[0]
    std = np.sqrt(np.einsum("ncc->nc", logit))
    found = fit(case, curvature, l2=rates, rank=rank).predict(case.x).logit_std
    assert relative(found, std) < (1e-8 if rank == "full" else 0.2)


@pytest.mark.quick
def test_reported_eigenvalues_are_the_curvatures_own(get_case):
    """With one rate they do not depend on it: the metric is taken out again."""
    case = get_case("tanh")
    values = np.linalg.eigvalsh(case.truth.ggn)[::-1][:5]
    for l2 in (0.01, 1.0):
        pairs = fit(case, "ggn", rank=5, l2=l2).eigenpairs
        np.testing.assert_allclose(pairs.values, values, rtol=1e-3)
        assert pairs.trace == pytest.approx(np.trace(case.truth.ggn), rel=1e-10)
        assert np.all(pairs.residual_norms < 0.05 * values[0])


@pytest.mark.filterwarnings("ignore:the exact Hessian shows no minimum")
def test_hessian_pairs_meet_the_residual_rule(get_case):
    case = get_case("tanh")
    pairs = fit(case, "hessian", rank=10, l2=L2).eigenpairs
    matrix = case.truth.hessian
    true = np.linalg.norm(matrix @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
    assert np.sqrt(2 * np.sum(true**2)) <= 0.1 * L2
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(matrix)[::-1][:10], atol=0.1 * L2)
    assert pairs.smallest < 0


def test_negative_curvature_is_projected_kept_or_refused(get_case):
    case = get_case("tanh")
    smallest = np.linalg.eigvalsh(case.truth.hessian)[0]
    assert smallest < -L2
    with pytest.raises(NotPositiveDefiniteError, match=r"negative eigenvalues.*ggn"):
        fit(case, "hessian", negative_curvature="raise")
    with pytest.raises(NotPositiveDefiniteError, match=r"not positive definite.*raise l2"):
        fit(case, "hessian", negative_curvature="keep")
    enough = 2 * abs(smallest)
    kept = fit(case, "hessian", negative_curvature="keep", l2=enough)
    sigma = reference.parameter_covariance(
        case.truth.hessian, np.full(64, enough), case.weight.sum()
    )
    assert relative(kept.covariance.to_dense().numpy(), sigma) < 1e-8
    assert kept.eigenpairs.smallest == pytest.approx(smallest, rel=1e-8)
    with pytest.raises(InvalidInputError, match=r"both ends.*larger rank"):
        fit(case, "hessian", negative_curvature="keep", l2=enough, rank=2)


@pytest.mark.wide  # of matrices: tests/curvature/test_solvers.py; kept: the test before
def test_kept_negative_curvature_in_low_rank_takes_both_ends(get_case):
    case = get_case("tanh")
    values = np.linalg.eigvalsh(case.truth.hessian)
    l2 = 1.05 * abs(values[0])  # the smallest eigenvalues make the inverse
    truth = fit(case, "hessian", negative_curvature="keep", l2=l2).predict(case.x)
    dm = fit(case, "hessian", negative_curvature="keep", l2=l2, rank=40)
    pairs, found = dm.eigenpairs, dm.predict(case.x)
    assert pairs.n_lowest == 16
    both = np.r_[values[::-1][:24], values[:16][::-1]]
    np.testing.assert_allclose(pairs.values, both, atol=1e-3 * l2)
    np.testing.assert_allclose(found.std, truth.std, rtol=0.02)
    assert not found.certified
    low, high = found.std_bounds
    assert np.all((low <= found.std) & (found.std <= high))
    assert np.all((low <= truth.std) & (truth.std <= high))


@pytest.mark.parametrize("rank", [wide(3), 20, wide("full")])
def test_the_linear_operator_is_what_predictions_use(get_case, rank):
    case = get_case("tanh")
    dm = fit(case, "ggn", rank=rank)
    sigma = dm.covariance.to_dense().numpy()
    expected = reference.logit_covariance(case.truth.jacobian, sigma)
    assert relative(dm.predict(case.x).logit_covariance, expected) < 1e-10
    assert dm.covariance.log_abs_determinant().numpy() == pytest.approx(
        np.linalg.slogdet(sigma)[1], rel=1e-10
    )


def test_a_variable_without_l2_needs_the_dense_path(get_case):
    """Biases without L2: refused in low rank, right with rank='full' where A suffices."""
    case = get_case("no_hidden", "float64")
    rates = {"kernel": L2, "bias": 0.0}
    with pytest.raises(InvalidInputError, match=r"no L2 rate.*/bias.*l2=.*layers=.*rank='full'"):
        fit(case, "ggn", l2=rates, rank=5)
    # All logits may shift together: without L2 on the biases the softmax does not fix them.
    with pytest.raises(NotPositiveDefiniteError, match="not positive definite"):
        fit(case, "ggn", l2=rates)
    matrix = case.truth.opg[:12, :12]
    kernel_only = fit(case, "opg", l2=L2, layers=["*/kernel"])
    sigma = reference.parameter_covariance(matrix, np.full(12, L2), case.weight.sum())
    assert relative(kernel_only.covariance.to_dense().numpy(), sigma) < 1e-8


def test_dense_path_without_any_l2():
    """A single output unit of freedom: contrasts are fixed by the data, no L2 anywhere."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)

    @keras.saving.register_keras_serializable("tests")
    class FirstLogitFixed(keras.layers.Layer):
        def call(self, z):
            return keras.ops.concatenate([keras.ops.zeros_like(z), z], axis=1)

    model = keras.Sequential(
        [
            keras.Input((2,), dtype="float64"),
            keras.layers.Dense(1, dtype="float64"),
            FirstLogitFixed(dtype="float64"),
        ]
    )
    truth = sklearn.linear_model.LogisticRegression(C=np.inf, tol=1e-12).fit(x, y)
    model.set_weights([truth.coef_.T, truth.intercept_])
    dm = DeltaMethod(model, "ggn", rank="full", progress=False).fit(x, y)
    p = dm.predict(x).probabilities[:, 1]
    design = np.column_stack([x, np.ones(200)])
    information = (design.T * (p * (1 - p))) @ design
    assert relative(dm.covariance.to_dense().numpy(), np.linalg.inv(information)) < 1e-10
    assert dm.stationarity.l2_norm == 0
    assert dm.stationarity.ratio < 1e-6  # at the maximum likelihood estimate


@pytest.mark.parametrize(
    "layers", [wide(["dense_a"]), "dense_?", wide(lambda variable: "dense_a" in variable.path)]
)
def test_layers_select_variables(layers):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="tanh", name="first"),
            keras.layers.Dense(2, name="dense_a"),
        ]
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.integers(0, 2, 30)
    dm = DeltaMethod(model, "ggn", l2=0.1, layers=layers, progress=False).fit(x, y)
    assert dm.eigenpairs.n_params == 4 * 2 + 2
    frozen = keras.models.clone_model(model)
    frozen.set_weights(model.get_weights())
    frozen.get_layer("first").trainable = False
    same = DeltaMethod(frozen, "ggn", l2=0.1, progress=False).fit(x, y)
    np.testing.assert_array_equal(dm.predict(x).covariance, same.predict(x).covariance)


def test_l2_is_read_from_the_regularizers(get_case):
    """keras.regularizers.L2(a) is a * sum w^2: lambda = 2 a."""
    case = get_case("tanh")
    regular = keras.models.clone_model(
        case.model,
        clone_function=lambda layer: (
            type(layer).from_config(
                layer.get_config()
                | {"kernel_regularizer": keras.regularizers.L2(0.04), "bias_regularizer": "l2"}
            )
            if isinstance(layer, keras.layers.Dense)
            else layer
        ),
    )
    regular.set_weights(case.model.get_weights())
    read = DeltaMethod(regular, "opg", rank="full", progress=False).fit(case.x, case.y)
    given = DeltaMethod(
        case.model, "opg", rank="full", l2={"kernel": 0.08, "bias": 0.02}, progress=False
    ).fit(case.x, case.y)
    np.testing.assert_allclose(
        read.predict(case.x).covariance, given.predict(case.x).covariance, rtol=1e-12
    )


@pytest.mark.wide  # datasets of every kind: tests/data/test_batches.py
def test_a_dataset_gives_what_arrays_give(get_case):
    case = get_case("joined")
    dataset = tf.data.Dataset.from_tensor_slices(((case.x[0], case.x[1]), case.y, case.weight))
    arrays = fit(case, "opg").predict(case.x)
    dm = DeltaMethod(case.model, "opg", rank="full", l2=L2, weights="counts", progress=False)
    streamed = dm.fit(dataset.batch(3)).predict(case.x)
    np.testing.assert_allclose(streamed.covariance, arrays.covariance, rtol=1e-10)
    assert dm.n_examples == pytest.approx(case.weight.sum())


@pytest.mark.filterwarnings("ignore:the exact Hessian shows no minimum")
def test_the_users_model_and_global_state_are_untouched(get_case):
    case = get_case("tanh", "float32")
    before = [w.copy() for w in case.model.get_weights()]
    attributes = set(vars(case.model))
    state, floatx = random.getstate(), keras.config.floatx()
    fit(case, "hessian", rank=5).predict(case.x)
    for old, new in zip(before, case.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert set(vars(case.model)) == attributes
    assert random.getstate() == state
    assert keras.config.floatx() == floatx


def test_later_training_does_not_change_a_fitted_object(get_case):
    case = get_case("tanh")
    model = keras.models.clone_model(case.model)
    model.set_weights(case.model.get_weights())
    dm = DeltaMethod(model, "ggn", rank=5, l2=L2, progress=False).fit(case.x, case.y)
    before = dm.predict(case.x)
    dm = DeltaMethod(model, "ggn", rank=5, l2=L2, progress=False).fit(case.x, case.y)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.evaluate(case.x, case.y, verbose=0)  # makes variables for the metrics
    model.set_weights([w + 1 for w in model.get_weights()])
    model.layers[0].trainable = False
    after = dm.predict(case.x)
    np.testing.assert_array_equal(before.logits, after.logits)
    np.testing.assert_array_equal(before.covariance, after.covariance)


@pytest.mark.parametrize("curvature", wide_but(["opg"], CURVATURES))
def test_the_seed_fixes_the_result(get_case, curvature):
    case = get_case("tanh")
    first, again = (fit(case, curvature, rank=8).predict(case.x).covariance for _ in range(2))
    np.testing.assert_allclose(first, again, rtol=1e-6)


def test_far_from_a_minimum_fit_warns(get_case):
    case = get_case("tanh")
    with pytest.warns(ConvergenceWarning, match=r"far from a minimum.*train further"):
        dm = fit(case, "opg")
    gradient = case.weight @ case.truth.gradients / case.weight.sum()
    w = np.concatenate([v.ravel() for v in case.model.get_weights()])
    assert dm.stationarity.data_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-10)
    assert dm.stationarity.l2_norm == pytest.approx(L2 * np.linalg.norm(w), rel=1e-10)
    assert dm.stationarity.gradient_norm == pytest.approx(
        np.linalg.norm(gradient + L2 * w), rel=1e-10
    )


def test_automatic_rank_closes_the_tail():
    """Beyond the dense path: what the tail leaves open falls under the tolerance."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 30)), rng.integers(0, 4, 300)
    model = keras.Sequential(
        [keras.Input((30,)), keras.layers.Dense(100, "tanh"), keras.layers.Dense(4)]
    )
    dm = DeltaMethod(model, "opg", l2=0.05, rank_tol=0.02, progress=False).fit(x, y)
    assert 64 <= dm.eigenpairs.rank < 3_504
    ends = [
        DeltaMethod(model, "opg", l2=0.05, rank=dm.eigenpairs.rank, tail=t, progress=False)
        .fit(x, y)
        .predict(x)
        .logit_std
        for t in ("l2", "midpoint")
    ]
    assert np.median((ends[0] - ends[1]) / ends[0]) <= 0.02


@pytest.mark.wide  # the words: the next test
@pytest.mark.parametrize(
    ("of_disk", "why"),
    [
        (False, "the memory that is free holds no more; .*memory_limit.*vectors_dir.*fewer layers"),
        (True, "vectors_dir has no room for more; a larger disk or fewer layers"),
    ],
    ids=["memory", "disk"],
)
def test_automatic_rank_says_why_it_fails(of_disk, why, monkeypatch, tmp_path):
    if of_disk:
        monkeypatch.setattr(Storage, "free", property(lambda storage: 2**24))
    else:
        monkeypatch.setattr("deltauq.delta.solving.free_memory", lambda limit: 2**24)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 30)), rng.integers(0, 4, 400)
    model = keras.Sequential(
        [keras.Input((30,)), keras.layers.Dense(100, "tanh"), keras.layers.Dense(4)]
    )
    dm = DeltaMethod(
        model, "opg", l2=1e-4, vectors_dir=tmp_path if of_disk else None, progress=False
    )
    with pytest.warns(ConvergenceWarning, match=rf"stopped at \d+ eigenpairs.*rank_tol.*: {why}"):
        dm.fit(x, y)


@pytest.mark.parametrize(
    ("converged", "found", "semidefinite", "dtype", "why"),
    [
        (False, 3, False, "float32", "do not converge; curvature='ggn'"),
        (True, 3, True, "float32", "float32; a model in float64 or a larger l2 has more, a larger"),
        (True, 3, True, "float64", "rounding of float64; a larger l2 has more"),
        (True, 256, False, "float64", "a pass a pair; a larger rank as a number goes on"),
    ],
    ids=["Ritz pairs", "float32", "float64", "Hessian"],
)
def test_the_advice_fits_what_stopped_the_rank(
    monkeypatch, converged, found, semidefinite, dtype, why
):
    operator = SimpleNamespace(
        shape=(5_000, 5_000),
        network=SimpleNamespace(dtype=dtype),
        positive_semidefinite=semidefinite,
        solver=None,
    )
    solver = SimpleNamespace(
        solve=lambda rank: SimpleNamespace(converged=converged, rank=min(found, rank))
    )
    monkeypatch.setattr("deltauq.curvature.eigenpairs.make_solver", lambda *args, **options: solver)
    _, told = automatic_eigenpairs(operator, lambda pairs: False)
    assert why in told


@pytest.mark.parametrize("size", [1e1, 1e4])
def test_float32_does_not_cancel(size):
    """Unscaled inputs: nearly all of J lies inside the eigenvectors, and the rest must survive.

    Where float32 cannot resolve L2 beside the largest curvature at all, `fit` says so.
    """
    rng = np.random.default_rng(0)
    x = np.c_[size * rng.normal(size=200) / 4 + size, rng.normal(size=(200, 3))].astype("float32")
    y = rng.integers(0, 3, 200)
    weights = [rng.normal(size=(4, 3)) / (4 * size), np.zeros(3)]
    found = []
    for dtype in ("float32", "float64"):
        model = keras.Sequential(
            [keras.Input((4,), dtype=dtype), keras.layers.Dense(3, dtype=dtype)]
        )
        model.set_weights(weights)
        dm = DeltaMethod(model, "ggn", l2=0.01, rank=8, bounds=False, progress=False)
        if size > 1e3 and dtype == "float32":
            with pytest.warns(ConvergenceWarning, match="times the L2 rate"):
                dm.fit(x, y)
            assert "Scale the inputs" in dm.caveats[-1].text
            return
        found.append(dm.fit(x, y).predict(x[:40]).std)
    assert np.all(found[0] > 0)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


@pytest.mark.wide  # of one rate for all: the test of negative curvature
def test_partly_penalised_models_heed_negative_curvature(get_case):
    case = get_case("tanh")
    rates = {"kernel": 2.0, "bias": 2.0, "*dense*/bias": 2.0}
    first_bias = case.model.layers[0].bias.path
    for mode in ("raise", "project"):
        with pytest.raises(NotPositiveDefiniteError, match=r"negative eigenvalues.*metric.*'keep'"):
            fit(case, "hessian", l2={first_bias: 0.0} | rates, negative_curvature=mode)
    with pytest.raises(InvalidInputError, match="negative_curvature='drop'"):
        fit(case, "ggn", l2={first_bias: 0.0} | rates, negative_curvature="drop")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_softmax_bias_without_l2_is_never_determined(get_case, dtype):
    case = get_case("no_hidden", dtype)
    for curvature in ("opg", "ggn"):
        with pytest.raises(NotPositiveDefiniteError, match="last bias of a softmax"):
            fit(case, curvature, l2={"kernel": L2, "bias": 0.0})


def test_rates_read_and_given_scale_alike_with_weights(get_case):
    """Keras divides weighted losses by the rows; rates that were read follow, however asked."""
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, kernel_regularizer="l2", bias_regularizer="l2")]
    )
    case = get_case("no_hidden")
    common = {"rank": "full", "progress": False}
    weight = np.full(11, 10.0)
    read = DeltaMethod(model, "ggn", **common).fit(case.x, case.y, weight)
    mapped = DeltaMethod(model, "ggn", l2={}, **common).fit(case.x, case.y, weight)
    given = DeltaMethod(model, "ggn", l2=0.002, **common).fit(case.x, case.y, weight)
    for dm in (mapped, given):
        np.testing.assert_allclose(dm.predict(case.x).std, read.predict(case.x).std, rtol=1e-5)
