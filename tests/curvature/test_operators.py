"""Curvature products equal the independent dense reference, whatever the batches."""

from __future__ import annotations

import cases
import keras
import numpy as np
import pytest
import scipy.sparse.linalg
import tensorflow as tf
from marks import covering, slow, wide, wide_but
from ways import stumble

from deltauq import curvature
from deltauq.curvature import gram
from deltauq.curvature.batch_rows import batch_rows, saves_products
from deltauq.curvature.cost import Cost
from deltauq.curvature.held_rows import FormedRows, HeldFactors
from deltauq.data import Batches
from deltauq.data.batch_reader import PassListener
from deltauq.errors import InvalidInputError
from deltauq.likelihoods import (
    AtPositions,
    Bernoulli,
    Binary,
    Categorical,
    CustomLoss,
    Gaussian,
)
from deltauq.network import Network
from deltauq.network.jacobians import Workspace

KINDS = {"hessian": curvature.Hessian, "opg": curvature.OPG, "ggn": curvature.GGN}


def build(case, kind, *, batch_size=4, dtype="float64", **options):
    data = case.batches(batch_size, dtype)
    return KINDS[kind](Network(case.model), "categorical", data, **options)


def relative(found, truth):
    return np.max(np.abs(found - truth)) / np.max(np.abs(truth))


@covering(name=cases.NAMES, kind=list(KINDS))
def test_products_equal_the_dense_reference(get_case, rng, name, kind):
    case = get_case(name)
    truth = getattr(case.truth, kind)
    operator = build(case, kind)
    v = rng.normal(size=(truth.shape[0], 11))
    assert relative(operator.matmat(v), truth @ v) < 1e-10
    assert relative(operator.matvec(v[:, 0]), truth @ v[:, 0]) < 1e-10
    assert relative(operator.to_dense(), truth) < 1e-10
    assert abs(operator.trace() - np.trace(truth)) < 1e-10 * np.abs(truth).sum()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["tanh", wide("relu_conv"), slow("no_hidden"), slow("joined")])
def test_float32_products_are_right_to_1e_3(get_case, rng, name, kind):
    case = get_case(name, "float32")
    truth = getattr(case.truth, kind)
    v = rng.normal(size=(truth.shape[0], 3))
    found = build(case, kind, dtype="float32").matmat(v)
    assert found.dtype == np.float64
    assert relative(found, truth @ v) < 1e-3


@covering(kind=["opg", "ggn", "hessian"], batch_size=[1, 3, 11, 64])
def test_the_batch_size_does_not_matter(get_case, rng, kind, batch_size):
    case = get_case("tanh")
    v = rng.normal(size=(case.truth.hessian.shape[0], 2))
    truth = getattr(case.truth, kind) @ v
    assert relative(build(case, kind, batch_size=batch_size).matmat(v), truth) < 1e-10


@pytest.mark.parametrize("kind", wide_but(["opg"], KINDS))
def test_integer_weights_equal_repeated_rows(get_case, kind):
    case = get_case("tanh")
    counts = np.array([2, 1, 3, 1, 1, 2, 1, 1, 4, 1, 1])
    common = {"likelihood": Categorical(), "n_outputs": 3, "dtype": "float64", "batch_size": 4}
    weighted = Batches(case.x, case.y, counts, **common)
    repeated = Batches(np.repeat(case.x, counts, axis=0), np.repeat(case.y, counts), **common)
    assert weighted.n_examples == repeated.n_examples == counts.sum()
    network = Network(case.model)
    first, second = (
        KINDS[kind](network, "categorical", d).to_dense() for d in (weighted, repeated)
    )
    np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", wide_but(["opg", "ggn"], KINDS))
def test_scale_enters_on_both_sides(get_case, rng, kind):
    case = get_case("joined")
    truth = getattr(case.truth, kind)
    scale = rng.uniform(0.5, 2.0, truth.shape[0])
    operator = build(case, kind, scale=scale)
    expected = scale[:, None] * truth * scale
    assert relative(operator.to_dense(), expected) < 1e-10
    assert relative(operator.matmat(np.eye(len(scale))), expected) < 1e-10
    assert operator.trace() == pytest.approx(np.trace(expected), rel=1e-10)


@pytest.mark.parametrize("rates", ["one", "of each variable", "of each entry"])
def test_rows_of_dense_layers_are_not_formed_for_products(get_case, rng, monkeypatch, rates):
    """One factor a (x) delta for all classes: products and trace are those of the rows."""
    case = get_case("tanh")
    operator = build(case, "ggn")
    scale = rng.uniform(0.5, 2.0, operator.shape[0])
    for parameter in operator.network.parameters:
        if rates != "of each entry":
            place = slice(parameter.start, parameter.stop)
            scale[place] = 2.0 if rates == "one" else scale[place.start]
    v = rng.normal(size=(len(scale), 5))
    unformed = build(case, "ggn", scale=scale)
    assert saves_products(next(unformed.row_factors()))
    products, trace = unformed.matmat(v), unformed.trace()
    monkeypatch.setattr(gram, "saves_products", lambda factors: False)
    formed = build(case, "ggn", scale=scale)
    assert relative(products, formed.matmat(v)) < 1e-13
    assert trace == pytest.approx(formed.trace(), rel=1e-13)
    assert relative(unformed.matmat(v), products) < 1e-13  # the trace is known now
    held = batch_rows(next(unformed.row_factors()), scale, Workspace("float64"))
    kinds = {type(part) for part in held.parts}
    assert kinds == {HeldFactors, FormedRows} - (
        {HeldFactors} if rates == "of each entry" else set()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_is_of_the_weights_that_the_network_has(get_case, rng, kind):
    operator = build(get_case("tanh"), kind)
    v = rng.normal(size=(operator.shape[0], 3))
    first = operator.matmat(v)
    weights = operator.network.params
    operator.network.params = 2 * weights
    other = operator.matmat(v)
    assert relative(other, first) > 0.1
    there = build(get_case("tanh"), kind)
    there.network.params = 2 * weights
    assert relative(other, there.matmat(v)) < 1e-12
    operator.network.params = weights
    np.testing.assert_array_equal(operator.matmat(v), first)


@pytest.mark.parametrize(("room", "read"), [(1.0, 1), (0.9, 3)])
def test_rows_that_fit_are_kept_for_the_next_product(get_case, rng, room, read):
    """In half of the buffer, bit for bit; who listens to passes hears of those that read nothing.

    Neither the curvature of other data nor products in another precision take what is kept.
    """
    heard: list[int] = []
    case = get_case("tanh", "float32")
    data = case.batches(4, "float32").with_listener(PassListener(on_batch=heard.append))
    ample = build(case, "ggn", dtype="float32")
    batches = [batch_rows(f, None, Workspace("float32")) for f in ample.row_factors()]
    buffer = round(2 * room * sum(rows.n_bytes for rows in batches))
    operator = curvature.GGN(Network(case.model), "categorical", data, buffer_bytes=buffer)
    reads = []
    row_factors = operator.row_factors
    operator.row_factors = lambda: reads.append(1) or row_factors()
    v = rng.normal(size=(operator.shape[0], 3)).astype("float32")
    products = [operator.matmat(v) for _ in range(3)]
    assert len(reads) == read
    assert heard == [4, 4, 3] * 3
    np.testing.assert_array_equal(products[1:], [products[0]] * 2)
    del operator.row_factors  # of this one alone
    some, others = operator.apart(*data.apart(3))
    together = some.matmat(v) + others.matmat(v)
    assert relative(together, products[0]) < 1e-6
    assert relative(operator.in_double().matmat(v), operator.to_dense() @ v) < 1e-7
    operator.forget()
    assert not operator._kept
    assert operator.matmat(v).tobytes() == products[0].tobytes()


def test_no_rows_have_to_be_formed_where_no_layer_has_a_bias(rng):
    keras.utils.set_random_seed(0)
    dense = [keras.layers.Dense(n, use_bias=False, dtype="float64") for n in (5, 3)]
    model = keras.Sequential([keras.Input((4,), dtype="float64"), *dense])
    x, y = rng.normal(size=(9, 4)), rng.integers(0, 3, 9)
    options = {"likelihood": Categorical(), "n_outputs": 3, "dtype": "float64", "batch_size": 4}
    operator = curvature.GGN(Network(model), "categorical", Batches(x, y, **options))
    held = batch_rows(next(operator.row_factors()), None, Workspace("float64"))
    assert [type(part) for part in held.parts] == [HeldFactors, HeldFactors]
    v = rng.normal(size=(operator.shape[0], 3))
    assert relative(operator.matmat(v), operator.to_dense() @ v) < 1e-13


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 3e-7)])
@pytest.mark.parametrize("scale", [0.125, 2.0])
def test_a_ggn_of_c_minus_1_rows_is_that_of_c_rows(rng, scale, dtype, tolerance):
    """Of a linear softmax whose logits have no rounding, up to 30 apart, labels soft and weighted.

    The other one by NumPy from the square root diag(r) - p r^T, r = sqrt(p), which is symmetric
    with the classes and has a row for each.
    """
    model = keras.Sequential([keras.Input((4,), dtype=dtype), keras.layers.Dense(5, dtype=dtype)])
    model.set_weights([scale * rng.integers(-4, 5, (4, 5)), scale * rng.integers(-4, 5, 5)])
    x, q, weight = rng.integers(-1, 2, (20, 4)), rng.dirichlet(np.ones(5), 20), np.arange(1, 21)
    likelihood = Categorical(label_smoothing=0.1)
    data = Batches(x, q, weight, likelihood=likelihood, n_outputs=5, dtype=dtype, batch_size=6)
    operator = curvature.GGN(Network(model), likelihood, data)
    kernel, bias = (values.astype(float) for values in model.get_weights())
    truth = np.zeros(operator.shape)
    for row, count in zip(x, weight, strict=True):
        p = np.exp(z := row @ kernel + bias) / np.exp(z).sum()
        factor = np.diag(np.sqrt(p)) - np.outer(p, np.sqrt(p))
        rows = factor.T @ np.kron(np.r_[row, 1.0], np.eye(5))
        truth += count * rows.T @ rows / weight.sum()
    assert operator.rows_per_example(likelihood, 5) == 4
    assert relative(operator.to_dense(), truth) < tolerance


@pytest.mark.quick
def test_hessian_of_a_linear_network_is_the_ggn(get_case):
    case = get_case("no_hidden")
    dense = [build(case, kind).to_dense() for kind in ("hessian", "ggn")]
    assert relative(*dense) < 1e-12


@pytest.mark.quick
def test_a_dense_matrix_is_added_up_by_blocks_of_columns(get_case, monkeypatch):
    """Of many columns one product crashes OpenBLAS; it is symmetric to the bit."""
    whole = build(get_case("tanh"), "opg").to_dense()
    monkeypatch.setattr("deltauq.curvature.gram._BLOCK_ROWS", 7)
    blocks = build(get_case("tanh"), "opg").to_dense()
    np.testing.assert_allclose(blocks, whole, rtol=1e-12, atol=1e-15 * np.max(whole))
    np.testing.assert_array_equal(blocks, blocks.T)


def test_opg_is_uncentred(get_case):
    """Away from a stationary point centring would change it: the mean gradient is not zero."""
    case = get_case("tanh")
    opg = build(case, "opg").to_dense()
    gradients, weight = case.truth.gradients, case.weight / case.weight.sum()
    mean = weight @ gradients
    centred = (gradients - mean).T * weight @ (gradients - mean)
    assert relative(opg, centred) > 1e-2
    assert relative(opg, (gradients.T * weight) @ gradients) < 1e-10


def test_scipy_finds_the_same_eigenvalues(get_case):
    case = get_case("tanh")
    operator = build(case, "hessian")
    found = scipy.sparse.linalg.eigsh(
        operator.to_scipy(), k=3, which="LA", return_eigenvectors=False
    )
    truth = np.linalg.eigvalsh(case.truth.hessian)[-3:]
    np.testing.assert_allclose(np.sort(found), truth, rtol=1e-8)


def test_hutchinson_covers_the_trace(get_case):
    case = get_case("tanh")
    estimate = build(case, "hessian").estimate_trace(n_probes=256, seed=1)
    truth = np.trace(case.truth.hessian)
    assert 0 < estimate.standard_error < abs(truth)
    assert abs(estimate.value - truth) < 4 * estimate.standard_error


def test_one_trace_per_signature(get_case, rng):
    """Batches of 4, 4 and 3 rows share a trace; the Hessian has one per width of its blocks."""
    case = get_case("tanh")
    opg, hessian = (build(case, kind, batch_size=4) for kind in ("opg", "hessian"))
    for _ in range(2):
        for operator in (opg, hessian):
            operator.matmat(rng.normal(size=(64, 10)))
    stages = hessian._product
    assert list(stages._second) == [8, 2]
    for function in (opg._compiled_factors, stages._first, *stages._second.values()):
        assert function._compiled.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    "kind", ["normalised convolution", wide("attention"), wide("lstm"), wide("silu")]
)
def test_hessian_products_equal_central_differences(rng, kind):
    """Of layers whose trace reads other variables, branches, loops, or waits for a gradient."""
    keras.utils.set_random_seed(0)
    network, x, y = Network(sequence_model(kind)), rng.normal(size=(9, 5, 3)), np.arange(9) % 3
    data = Batches(x, y, likelihood=Categorical(), n_outputs=3, dtype="float64", batch_size=4)
    cost = Cost(network, Categorical(), data, np.zeros(network.n_params))
    vector, step = rng.normal(size=network.n_params), 1e-5
    ahead, behind = (cost.evaluate(network.params + s * vector)[1] for s in (step, -step))
    truth = (ahead - behind) / (2 * step)
    assert relative(curvature.Hessian(network, "categorical", data).matvec(vector), truth) < 1e-6


def sequence_model(kind):
    layers, options = keras.layers, {"dtype": "float64"}
    inputs = keras.Input((5, 3), **options)
    if kind == "silu":
        z = layers.Dense(4, "silu", **options)(layers.Flatten(**options)(inputs))
    elif kind == "lstm":
        z = layers.LSTM(4, **options)(inputs)
    elif kind == "attention":
        z = layers.Flatten(**options)(layers.MultiHeadAttention(2, 2, **options)(inputs, inputs))
    else:
        z = layers.Conv1D(4, 3, activation="tanh", **options)(inputs)
        z = layers.Flatten(**options)(layers.BatchNormalization(**options)(z))
    return keras.Model(inputs, layers.Dense(3, **options)(z))


@pytest.mark.wide  # that they are read once: tests/data/test_reads.py
def test_activations_are_kept_where_all_of_them_fit(get_case, rng):
    """With room for all, for a part or for none: the same products, and as much progress."""
    case, vectors = get_case("tanh"), rng.normal(size=(64, 3))
    found, states = [], []
    for room in (2**29, 2_000, 0):
        seen: list[int] = []
        data = case.batches().with_listener(PassListener(on_batch=seen.append))
        options = {"buffer_bytes": room}
        hessian = KINDS["hessian"](Network(case.model), "categorical", data, **options)
        seen.clear()
        found += [hessian.matmat(vectors), hessian.matmat(vectors)]
        assert sum(seen) == 2 * data.n_rows
        states.append(hessian.activations)
    assert states == ["kept", "formed", "formed"]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-12, atol=1e-14)


def test_float32_in_float32_out(get_case, rng):
    """Large sketches stay in the network's precision; everything else is float64."""
    operator = build(get_case("tanh", "float32"), "opg", dtype="float32")
    v = rng.normal(size=(64, 3))
    assert operator.matmat(v).dtype == np.float64
    assert operator.matmat(v.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("draws", [wide(1), 3])
def test_drawn_rows_are_the_same_in_every_pass_and_batch(get_case, rng, draws):
    case = get_case("tanh")
    network, v = Network(case.model), rng.normal(size=(64, 4))
    first, again = (
        curvature.MonteCarloGGN(network, "categorical", case.batches(size), draws=draws, seed=5)
        for size in (4, 11)
    )
    found = first.matmat(v)
    np.testing.assert_array_equal(found, first.matmat(v))
    assert relative(again.matmat(v), found) < 1e-12
    assert first.trace() == pytest.approx(np.trace(first.to_dense()))
    other = curvature.MonteCarloGGN(network, "categorical", case.batches(), draws=draws, seed=6)
    assert relative(other.matmat(v), found) > 1e-3


def three_times(z, y):
    return 3 * tf.nn.sparse_softmax_cross_entropy_with_logits(y, z)


def narrow_focal(z, y):
    """Convex near the origin, and the negative log-likelihood of nothing."""
    return three_times(z, y) + 0.1 * tf.reduce_sum(z**4, axis=1)


#: Likelihood, outputs, labels of 7 examples, weights.
DRAWN = {
    "classes": (Categorical(), 3, lambda rng: rng.integers(0, 3, 7), None),
    "smoothed": (Categorical(label_smoothing=0.2), 3, lambda rng: rng.integers(0, 3, 7), None),
    "soft": (Categorical(), 3, lambda rng: rng.dirichlet(np.ones(3), 7), "weights"),
    "binary": (Binary(label_smoothing=0.1), 1, lambda rng: rng.integers(0, 2, 7), None),
    "labels": (Bernoulli(), 3, lambda rng: rng.integers(0, 2, (7, 3)), "weights"),
    "numbers": (Gaussian(noise=[0.5, 2.0]), 2, lambda rng: rng.normal(size=(7, 2)), None),
    "scaled": (CustomLoss(three_times), 3, lambda rng: rng.integers(0, 3, 7), None),
    "custom": (CustomLoss(narrow_focal), 3, lambda rng: rng.integers(0, 3, 7), "weights"),
    "positions": (
        AtPositions(Categorical(label_smoothing=0.1), (2,)),
        6,
        lambda rng: rng.integers(0, 3, (7, 2)),
        "positions",
    ),
}


@pytest.mark.parametrize("name", wide_but(["classes", "binary", "labels", "numbers"], DRAWN))
def test_the_mean_of_drawn_ggns_is_the_ggn(name):
    """Whatever the likelihood: entry by entry, within the sampling error of 60 seeds."""
    likelihood, n_outputs, labels, kind = DRAWN[name]
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 2)), labels(rng)
    weight = {"weights": rng.uniform(0, 3, 7), "positions": rng.uniform(0, 3, (7, 2))}.get(kind)
    layers = [keras.Input((2,), dtype="float64"), keras.layers.Dense(n_outputs, dtype="float64")]
    if kind == "positions":
        layers.append(keras.layers.Reshape((2, 3), dtype="float64"))
    network = Network(keras.Sequential(layers))
    options = {"likelihood": likelihood, "n_outputs": n_outputs, "dtype": "float64"}
    data = Batches(x, y, weight, batch_size=4, **options)
    truth = curvature.GGN(network, likelihood, data).to_dense()
    operator = curvature.MonteCarloGGN(network, likelihood, data, draws=2)
    drawn = []
    for seed in range(60):
        operator.seed = seed
        drawn.append(operator.to_dense())
    gap, error = np.mean(drawn, axis=0) - truth, np.std(drawn, axis=0, ddof=1) / np.sqrt(60)
    exact = error < 1e-12 * np.max(truth)  # such as the only column of a single output
    np.testing.assert_allclose(gap[exact], 0, atol=1e-12 * np.max(truth))
    assert np.all(np.abs(gap[~exact]) < 5 * error[~exact])
    traces = np.trace(drawn, axis1=1, axis2=2)
    spread = np.std(traces, ddof=1) / np.sqrt(60)
    assert abs(np.mean(traces) - np.trace(truth)) <= 4 * spread + 1e-12 * np.trace(truth)
    assert spread < 0.05 * np.trace(truth)


@pytest.mark.wide  # their mean, within its error: the test before
def test_many_drawn_rows_approach_the_ggn(get_case):
    """The mean over draws is the GGN, with an error that falls as one over their root."""
    case = get_case("tanh")
    network = Network(case.model)
    errors = []
    for draws in (1, 48):
        operator = curvature.MonteCarloGGN(network, "categorical", case.batches(), draws=draws)
        errors.append(relative(operator.to_dense(), case.truth.ggn))
    assert errors[1] < 0.2
    assert errors[1] < errors[0] / 2


def test_wrong_shapes_are_refused(get_case):
    case = get_case("tanh")
    with pytest.raises(InvalidInputError, match=r"vectors has the wrong shape.*P = 64.*\[3, 2\]"):
        build(case, "opg").matmat(np.ones((3, 2)))
    with pytest.raises(InvalidInputError, match="scale has the wrong shape"):
        build(case, "opg", scale=np.ones(3))
    with pytest.raises(InvalidInputError, match=r"draws is not understood.*>= 1.*0"):
        curvature.MonteCarloGGN(Network(case.model), "categorical", case.batches(), draws=0)


@pytest.mark.parametrize("kind", KINDS)
def test_products_into_an_array_of_the_caller(get_case, rng, kind):
    operator = build(get_case("tanh"), kind)
    v = rng.normal(size=(64, 3))
    out = np.full((64, 3), np.nan)
    operator.matmat(v)  # the Hessian keeps its activations: later products repeat to the bit
    assert operator.matmat(v, out=out) is out
    np.testing.assert_array_equal(out, operator.matmat(v))
    for wrong in (np.empty((3, 64)).T, np.empty((64, 2)), np.empty((64, 3), np.float32)):
        site = "curvature/operator.py:CurvatureOperator.matmat"
        with stumble(site, "pass np.empty(") as caught:
            operator.matmat(v, out=wrong)
        assert caught.error.remedy == "pass np.empty((64, 3), 'float64'), or None"
    for given in (np.empty((64, 3), "float64"), None):
        np.testing.assert_array_equal(operator.matmat(v, out=given), out)
