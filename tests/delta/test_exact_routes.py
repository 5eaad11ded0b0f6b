"""Exact routes give the covariance of all pairs: the Gram matrix of rows, and a dense matrix."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import reference
import sklearn.datasets
from marks import covering, slow, wide

from deltauq import DeltaMethod
from deltauq.curvature.exact_inverse import Enclosure
from deltauq.curvature.gram import GGN, OPG
from deltauq.curvature.held_rows import FormedRows, HeldFactors
from deltauq.curvature.row_layout import row_layout
from deltauq.curvature.rows_inverse import RowsInverse
from deltauq.curvature.training_rows import TrainingRows
from deltauq.delta import exact
from deltauq.delta.routes import Work, choose_route, route_costs
from deltauq.errors import InvalidInputError, MemoryLimitError
from deltauq.likelihoods import Categorical
from deltauq.linalg import factor_positive
from deltauq.network.jacobians import Rows

layers = keras.layers

# Random weights are far from a minimum of the cost; `fit` says so, and the algebra still holds.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:distutils Version classes"),  # tensorflow-probability
]


def relative(found, expected):
    return np.max(np.abs(found - expected)) / np.max(np.abs(expected))


def fit(case, curvature, route, **options):
    options = {"l2": 0.05, "weights": "counts", "batch_size": 4, "progress": False} | options
    dm = DeltaMethod(case.model, curvature, route=route, **options)
    return dm.fit(case.x, case.y, case.weight)


@pytest.fixture
def cholesky(monkeypatch):
    """Dense curvatures of any size are factored, not diagonalised."""
    monkeypatch.setattr(exact, "EIGEN_LIMIT", 0)


def test_the_eigenvalues_are_not_asked_for(get_case, cholesky):
    dm = fit(get_case("tanh"), "ggn", "dense")
    dm.predict(get_case("tanh").x)
    assert "pairs" not in vars(dm._fitted.known)


WAYS = {
    "gram-ggn": ("gram", "ggn"),
    "dense-ggn": ("dense", "ggn"),
    "gram-opg": ("gram", "opg"),
    "dense-opg": ("dense", "opg"),
}


@covering(name=["no_hidden", "tanh", "relu_conv", "joined"], way=WAYS)
def test_an_exact_route_equals_the_dense_reference(get_case, cholesky, name, way):
    """With an L2 rate of its own for every variable."""
    route, curvature = way
    case = get_case(name)
    paths = [variable.path for variable in case.model.trainable_variables]
    sizes = [int(np.prod(variable.shape)) for variable in case.model.trainable_variables]
    rates = dict(zip(paths, np.geomspace(0.02, 0.3, len(paths)), strict=True))
    dm = fit(case, curvature, route, l2=rates)
    sigma = reference.projected_parameter_covariance(
        getattr(case.truth, curvature), np.repeat(list(rates.values()), sizes), case.weight.sum()
    )
    prediction = dm.predict(case.x)
    logit = reference.logit_covariance(case.truth.jacobian, sigma)
    probability = reference.probability_covariance(
        case.truth.jacobian, case.truth.probabilities, sigma
    )
    assert dm.route == route
    assert relative(prediction.logit_covariance, logit) < 1e-9
    assert relative(prediction.covariance, probability) < 1e-9
    low, high = prediction.std_bounds
    assert np.all((low <= prediction.std) & (prediction.std <= high))
    assert relative(low, high) < 1e-9


@pytest.fixture(scope="module")
def trained():
    """A convolutional network with batch normalisation on digits, trained, P = 1,212."""
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x, y = x[:400].reshape(-1, 8, 8, 1) / 16.0, y[:400]
    model = network("float32")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ten = np.tile(x, (10, 1, 1, 1)), np.tile(y, 10)  # of an epoch's time most goes to its beginning
    model.fit(*ten, epochs=3, verbose=0)
    return model, x[:240], y[:240], x[240:256]


def network(dtype):
    keras.utils.set_random_seed(1)
    options = {"dtype": dtype}
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), dtype=dtype),
            layers.Conv2D(6, 3, activation="tanh", **options),
            layers.BatchNormalization(**options),
            layers.Flatten(**options),
            layers.Dense(5, activation="tanh", **options),
            layers.Dense(10, **options),
        ]
    )


def in_float64(model):
    double = network("float64")
    double.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    double.set_weights([w.astype(np.float64) for w in model.get_weights()])
    return double


@pytest.mark.parametrize(
    ("l2", "curvature"),
    [
        (1e-6, "opg"),
        (1e-4, "opg"),
        wide(1e-6, "ggn"),
        wide(1e-4, "ggn"),
        wide(1e-2, "ggn"),
        wide(1e-2, "opg"),
    ],
)
def test_bounds_of_float32_contain_what_float64_gives(trained, curvature, l2):
    """At training inputs too, of which the data leave least: there float32 is refused for 1e-6."""
    model, x, y, new = trained
    inputs = np.concatenate([new, x[:16]])
    options = {"l2": l2, "progress": False}
    dm = DeltaMethod(model, curvature, route="gram", **options).fit(x, y)
    truth = DeltaMethod(in_float64(model), curvature, route="dense", **options).fit(x, y)
    found, expected = dm.predict(inputs), truth.predict(inputs).std
    low, high = found.std_bounds
    assert np.all((low <= expected) & (expected <= high))
    assert np.max(np.abs(found.std / expected - 1)[: len(new)]) < 2e-5
    assert np.max(1 - low / high) < 5e-3
    assert dm._fitted.known.inverse.precision == ("float64" if l2 == 1e-6 else "float32")


def test_the_difference_form_would_be_wrong_where_the_enclosure_is_not(operator):
    """Of the training rows themselves next to nothing is left: (|j|^2 - b^T M^-1 b) / N cancels."""
    rows, n = TrainingRows(operator, 2**30), 240.0
    inverse = RowsInverse.of(rows, n, "float32").at_rates_times(1e-5)
    some = next(operator._row_blocks())[:16].copy()
    jacobians = 1e5**0.5 * some[:, None]
    truth = np.linalg.inv(some_gram(operator, 1e5) + n * np.eye(240))
    gram = some_gram(operator, 1e5)
    expected = np.diag(gram - gram @ truth @ gram)[:16] / n
    lefts = np.ones((16, 1, 1))
    assert not inverse.tells(jacobians, lefts)
    assert relative(inverse.in_double().enclose(jacobians, lefts).high[:, 0, 0], expected) < 1e-5
    b = 1e5**0.5 * rows.product(jacobians[:, 0].T.copy())
    lengths = np.vecdot(jacobians[:, 0], jacobians[:, 0]).astype(np.float64)
    difference = (lengths - np.sum(b * (truth @ b), axis=0)) / n
    assert np.max(np.abs(difference / expected - 1)) > 0.1


def some_gram(operator, factor):
    rows = np.concatenate([block.copy() for block in operator._row_blocks()]).astype(np.float64)
    return factor * rows @ rows.T


def test_an_enclosure_in_the_wrong_order_or_of_nan_is_not_believed():
    one, lefts = np.ones((3, 1, 1)), np.ones((3, 1, 1))
    high = one * np.array([1.0, 1.0, np.nan])[:, None, None]
    low = one * np.array([1.0 - 1e-5, 1.01, 1.0])[:, None, None]
    found = Enclosure(low, high, np.zeros((3, 1))).is_exact(lefts)
    assert found.tolist() == [True, False, False]


@pytest.fixture(scope="module")
def operator(trained):
    from deltauq import Batches, Network

    model, x, y, _ = trained
    net = Network(model)
    data = Batches(x, y, likelihood=Categorical(), n_outputs=10, dtype="float32", batch_size=64)
    scale = np.repeat([10.0, 3.0] * 4, [parameter.size for parameter in net.parameters])
    return OPG(net, Categorical(), data, scale=scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_all_rows_are_those_of_the_rows_formed(operator, dtype):
    rows = np.concatenate([block.copy() for block in operator._row_blocks()]).astype(np.float64)
    held = TrainingRows(operator, 2**30)
    tolerance = {"float32": 2e-6, "float64": 1e-6}[dtype]  # the rows themselves are float32
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(rows.shape[1], 7)).astype(dtype)
    coefficients = rng.normal(size=(rows.shape[0], 7)).astype(dtype)
    assert {type(part) for part in held._parts()} == {FormedRows, HeldFactors}
    assert relative(held.gram(dtype), rows @ rows.T) < tolerance
    assert relative(held.product(columns), rows @ columns) < tolerance
    assert relative(held.transposed(coefficients), rows.T @ coefficients) < tolerance
    assert held.passes == 1


def test_rows_that_do_not_fit_are_formed_some_columns_at_a_time(operator):
    """Of a third of the room, in four groups that cut through variables."""
    whole = TrainingRows(operator, 2**30)
    (together,) = whole._layout.groups
    n_columns = sum(columns.place.stop for columns in together)
    some = TrainingRows(operator, 240 * 4 * n_columns * 3 // 10)
    assert len(some._layout.groups) == 4
    assert any(columns.place.start for group in some._layout.groups for columns in group)
    for dtype in ("float32", "float64"):
        assert relative(some.gram(dtype), whole.gram(dtype)) < 2e-7
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(whole.n_params, 3))
    assert relative(some.product(columns), whole.product(columns)) < 1e-12
    assert whole.passes == 1
    assert some.passes > 3


@pytest.mark.parametrize(
    ("room", "widths"),
    [(960, [[8, 6, 4, 6]]), (800, [[8, 4], [2, 4, 6]]), (300, [[6], [2, 4], [2, 4], [6]])],
)
def test_groups_are_columns_that_fit_as_even_as_can_be(room, widths):
    """Of ten rows in float32."""
    factors = [Rows([np.zeros((2, size))]) for size in (8, 6, 4, 6)]
    layout = row_layout(factors, 10, 4, room)
    assert layout.as_factors == []
    found = [[some.place.stop - some.place.start for some in group] for group in layout.groups]
    assert found == widths
    with pytest.raises(MemoryLimitError, match="do not fit in memory"):
        row_layout(factors, 10, 4, 39)


def test_rows_of_steps_of_a_sequence_are_held_as_factors():
    """An inner product of T steps takes T^2 (I + O), fewer than I O here."""
    from deltauq import Batches, Network

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 2, 12)), rng.integers(0, 3, 30)
    steps = [keras.Input((2, 12)), layers.Dense(11, "tanh"), layers.Flatten(), layers.Dense(3)]
    net = Network(keras.Sequential(steps))
    data = Batches(x, y, likelihood=Categorical(), n_outputs=3, dtype="float32", batch_size=8)
    operator = GGN(net, Categorical(), data)
    held = TrainingRows(operator, 2**30)
    assert next(type(part) for part in held._parts()) is HeldFactors
    rows = np.concatenate([block.copy() for block in operator._row_blocks()]).astype(np.float64)
    assert relative(held.gram("float64"), rows @ rows.T) < 1e-6


@pytest.mark.parametrize("size", [5, 4_200, slow(16_000)])
def test_a_large_matrix_is_factored_block_by_block(size):
    """LAPACK's own factor of 16,000 rows crashes on two threads."""
    rng = np.random.default_rng(0)
    tall = rng.normal(size=(size, 20))
    matrix = tall @ tall.T + 3.0 * np.eye(size)
    root = np.tril(factor_positive(matrix.copy()))
    some = rng.normal(size=(size, 3))
    assert relative(root @ (root.T @ some), matrix @ some) < 1e-12
    with pytest.raises(np.linalg.LinAlgError):
        factor_positive(-matrix)


@pytest.fixture(scope="module")
def both(trained):
    """The same fit by rows and by all eigenpairs of a dense matrix."""
    model, x, y, _ = trained
    double = in_float64(model)
    return [
        DeltaMethod(double, "opg", l2=1e-3, route=route, progress=False).fit(x, y)
        for route in ("gram", "dense")
    ]


ANSWERS = {
    "classes": lambda dm, new: dm.predict(new, classes="top3").std,
    "many": lambda dm, new: dm.predict(np.concatenate([new] * 20)).std,
    "joint": lambda dm, new: dm.predict_joint(new).covariance,
    "mean": lambda dm, new: dm.predict_mean(new).std,
    "refine": lambda dm, new: dm.refine(new).std,
    "shift": lambda dm, new: np.array([dm.stationarity.shift]),
    "evidence": lambda dm, new: np.array([float(dm.log_marginal_likelihood())]),
    "posterior": lambda dm, new: dm.posterior().stddev().numpy(),
    "covariance": lambda dm, new: np.sqrt(dm.covariance.diag_part().numpy()),
}


@pytest.mark.parametrize("name", [wide(k) if k in ("many", "posterior") else k for k in ANSWERS])
def test_everything_can_be_asked_of_rows(both, trained, name):
    """Answers by pairs leave out what makes standard errors 0.1 % larger at most."""
    by_rows, by_pairs = (ANSWERS[name](dm, trained[3]) for dm in both)
    exact_answers = {"classes": 1e-9, "refine": 1e-9, "evidence": 1e-9, "shift": 0.1}
    np.testing.assert_allclose(
        by_rows, by_pairs, rtol=exact_answers.get(name, 2e-3), atol=1e-9 * np.max(np.abs(by_pairs))
    )


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_what_was_saved_predicts_by_eigenpairs_within_their_bounds(both, trained, tmp_path):
    by_rows, _ = both
    by_rows.save(tmp_path / "m.deltauq")
    loaded = DeltaMethod.load(tmp_path / "m.deltauq")
    low, high = loaded.predict(trained[3]).std_bounds
    exact_std = by_rows.predict(trained[3]).std
    assert np.all((low <= exact_std) & (exact_std <= high))
    assert np.max(1 - low / high) < 2e-3


@pytest.mark.filterwarnings("ignore:The L2 rate is")
@pytest.mark.parametrize("curvature", ["opg", wide("ggn")])
def test_rates_are_chosen_from_the_same_rows(trained, curvature):
    """No second pass: the spectrum is that of the Gram matrix at any rate."""
    model, x, y, new = trained
    double = in_float64(model)
    found, expected = (
        DeltaMethod(double, curvature, l2="tune", route=route, progress=False).fit(x, y)
        for route in ("gram", "dense")
    )
    np.testing.assert_allclose(
        list(found.l2_rates.values()), list(expected.l2_rates.values()), rtol=1e-5
    )
    np.testing.assert_allclose(found.predict(new).std, expected.predict(new).std, rtol=1e-4)
    assert found._fitted.known.inverse.rows.passes == 1
    found.tune_l2()
    expected.tune_l2()
    np.testing.assert_allclose(found.predict(new).std, expected.predict(new).std, rtol=1e-4)


def test_the_noise_of_a_regression_is_that_of_the_dense_route():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    y = np.sin(x[:, 0]) + 0.2 * rng.normal(size=120)
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="float64"),
            layers.Dense(30, "tanh", dtype="float64"),
            layers.Dense(1, dtype="float64"),
        ]
    )
    model.compile("adam", "mse")
    model.fit(np.tile(x, (10, 1)), np.tile(y, 10), epochs=4, verbose=0)
    fits = [
        DeltaMethod(model, "ggn", l2=1e-2, route=route, progress=False).fit(x, y)
        for route in ("gram", "dense")
    ]
    noises = [dm.fitted_likelihood.noise_variance() for dm in fits]
    np.testing.assert_allclose(*noises, rtol=1e-4)
    np.testing.assert_allclose(*(dm.predict(x[:9]).std for dm in fits), rtol=2e-3)


WORKS = {
    "few examples": (Work(4_000, 4_000, 42_122, 10, 42_122, 4_000 * 42_122), "gram"),
    "dense layers": (Work(4_000, 4_000, 235_146, 10, 1_700, 4_000 * 1_700), "gram"),
    "many examples": (Work(60_000, 60_000, 93_322, 10, 56_000, 60_000 * 56_000), "sketch"),
    "few parameters": (Work(60_000, 60_000, 4_000, 10, 4_000, 60_000 * 4_000), "dense"),
    "large": (Work(50_000, 50_000, 11_000_000, 10, 11_000_000, 50_000 * 11_000_000), "sketch"),
}


@pytest.mark.parametrize("name", WORKS)
def test_the_route_is_the_cheapest_exact_one_where_it_is_worth_it(name):
    work, expected = WORKS[name]
    route = choose_route(work, exact=False, free=16 * 2**30)
    assert route == expected
    costs = route_costs(work)
    assert all(cost.seconds > 0 and cost.n_bytes > 0 for cost in costs.values())
    if expected != "sketch":
        assert choose_route(work, exact=False, free=2**20) == "sketch"
        with pytest.raises(MemoryLimitError, match="no route that leaves nothing out"):
            choose_route(work, exact=True, free=2**20)


@pytest.mark.parametrize(
    ("curvature", "options", "words"),
    [
        ("hessian", {"route": "gram"}, "Hessian is not"),
        ("hessian", {"route": "sketch"}, "does not find eigenpairs"),
        ("opg", {"route": "lanczos"}, "does not find eigenpairs"),
        ("opg", {"route": "gram", "rank": 5}, "rank=5 asks"),
        ("opg", {"route": "sketch", "rank": "full"}, "leaves eigenpairs out"),
        ("sandwich", {"route": "gram"}, "Hessian is not"),
    ],
)
def test_a_route_that_cannot_be_taken_is_refused(get_case, curvature, options, words):
    with pytest.raises(InvalidInputError, match=words):
        fit(get_case("tanh"), curvature, **options)


@pytest.mark.filterwarnings("ignore:the exact Hessian shows no minimum")
def test_the_rank_decides_where_no_route_is_forced(get_case):
    assert fit(get_case("tanh"), "opg", "auto", rank=5).route == "sketch"
    assert fit(get_case("tanh"), "hessian", "auto", rank=5).route == "lanczos"
    assert fit(get_case("tanh"), "hessian", "auto").route == "dense"


def test_rounding_that_outweighs_the_data_is_seen(operator):
    """A Gram matrix that is not even positive definite beside N tells nothing."""
    rows = TrainingRows(operator, 2**30)
    inverse = RowsInverse.of(rows, 240.0, "float32").at_rates_times(1e-14)
    jacobians = np.ones((1, 1, rows.n_params), np.float32)
    assert not inverse.tells(jacobians, np.ones((1, 1, 1)))
    assert inverse.in_double().precision == "float64"
