"""The bounds on every standard error hold, and are tight."""

from __future__ import annotations

import warnings
from functools import cache
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import sklearn.datasets
from marks import covering, slow, wide, wide_but

from deltauq import ConvergenceWarning, DeltaClassifier, DeltaMethod
from deltauq.curvature import solvers
from deltauq.curvature.eigenpairs import automatic_eigenpairs, eigenpairs
from deltauq.errors import InvalidInputError
from deltauq.estimators.networks import build_mlp
from deltauq.linalg import bound_largest_eigenvalue, bounding_largest_eigenvalue
from deltauq.runtime.steps import Steps

SIZE = 300

SPECTRA = {
    "flat": np.linspace(0.9, 1.0, SIZE),
    "decaying": 1.0 / np.arange(1, SIZE + 1) ** 2,
    "one apart": np.r_[1.0, np.full(SIZE - 1, 0.3)],
    "mostly zero": np.r_[1.0, 0.5, np.zeros(SIZE - 2)],
    "indefinite": np.linspace(-2.0, 1.0, SIZE),
}


def bound(values, seed, *, width=8, max_blocks=6, **options):
    """Of a diagonal operator, whose eigenvectors a random start does not see."""
    start = np.random.default_rng(seed).normal(size=(len(values), width))

    def matmat(vectors):
        return values[:, None] * vectors

    options = {"failure": 1e-6, "max_blocks": max_blocks} | options
    return bound_largest_eigenvalue(matmat, start, matmat(start), **options)


@covering(spectrum=list(SPECTRA), width=[1, 8, 16])
def test_largest_eigenvalues_are_bounded(spectrum, width):
    values = SPECTRA[spectrum]
    for seed in range(5):
        found = bound(values, seed, width=width)
        assert found.at_least <= np.max(values) * (1 + 1e-12)
        assert found.bound >= np.max(values) * (1 - 1e-12)
        assert found.products <= 6 * width


@pytest.mark.parametrize("spectrum", wide_but(["indefinite"], SPECTRA))
def test_six_blocks_leave_little_of_the_bound_open(spectrum):
    excess = [bound(SPECTRA[spectrum], seed, width=16).bound - 1.0 for seed in range(3)]
    assert np.median(excess) < 0.2


def test_the_bound_fails_at_most_as_often_as_it_says():
    """One eigenvector that counts: the hardest case, where only its part of the start is random.

    The largest Ritz value is the eigenvalue then, which is a bound that fails but for rounding.
    """
    values = np.r_[1.0, np.zeros(49)]
    fails = [
        bound(values, seed, width=8, max_blocks=2, failure=0.3, limit=1.5).bound < 1.0 + 1e-9
        for seed in range(300)
    ]
    assert 0.1 < np.mean(fails) <= 0.3 + 3 * np.sqrt(0.3 * 0.7 / 300)


@pytest.mark.parametrize("rank", [9, 13])
def test_a_krylov_space_that_ended_in_some_directions_says_what_the_others_do(rank):
    """Of 8 directions all but one, or all but five, end in the second block."""
    values = np.r_[np.linspace(1.0, 0.75, rank), np.zeros(110)]
    bounds = [bound(values, seed, max_blocks=2).bound for seed in range(5)]
    assert np.all(np.array(bounds) >= 1.0)
    assert np.median(bounds) < 2.0


class Diagonal:
    """A curvature that is diagonal, of too many parameters for the dense path."""

    def __init__(self, values, positive_semidefinite):
        self.values, self.positive_semidefinite = values, positive_semidefinite
        self.solver = None
        self.shape = (len(values),) * 2
        self.network = SimpleNamespace(dtype="float64")
        self.steps = Steps()

    def matmat(self, vectors, out=None):
        return np.multiply(self.values[:, None], vectors, out=out)

    def sampled(self, share, seed):
        return None

    def trace(self):
        return float(self.values.sum())


@pytest.mark.parametrize("semidefinite", [True, slow(False)])
def test_several_certificates_fail_together_at_most_as_often_as_the_last_one_says(
    monkeypatch, semidefinite
):
    """rank='auto' looks at each bound before it takes the next: one false one may mislead it."""
    chances = []

    def recorded(*arguments, **options):
        chances.append(options["failure"])
        return bounding_largest_eigenvalue(*arguments, **options)

    monkeypatch.setattr(solvers, "bounding_largest_eigenvalue", recorded)
    values = 5.0 / np.arange(1.0, 3102.0)
    pairs, told = automatic_eigenpairs(
        Diagonal(values, semidefinite),
        lambda pairs: pairs.left_out is None or pairs.rank > 128,  # enough until it was looked at
        bounds=True,
    )
    assert told is None
    assert len(chances) == 3
    assert pairs.left_out.failure == solvers.FAILURE == 1e-6
    assert sum(chances) <= pairs.left_out.failure
    assert min(chances) > pairs.left_out.failure / 10  # none costs more than it has to
    rest = values[pairs.rank]
    assert rest <= pairs.left_out.bound < 3 * rest


def test_a_single_certificate_has_all_of_the_chance(monkeypatch):
    taken = []

    def recorded(*arguments, **options):
        taken.append(options["failure"])
        return bounding_largest_eigenvalue(*arguments, **options)

    monkeypatch.setattr(solvers, "bounding_largest_eigenvalue", recorded)
    pairs = eigenpairs(Diagonal(1.0 / np.arange(1.0, 501.0), True), 20, bounds=True)
    assert taken == [pairs.left_out.failure] == [1e-6]


def test_a_negative_operator_has_no_positive_eigenvalue_to_bound():
    found = bound(-np.linspace(1.0, 2.0, SIZE), 0)
    assert found.at_least == 0.0
    assert found.bound < 0.2


def test_a_certain_limit_is_never_exceeded_and_enough_is_enough():
    values = SPECTRA["decaying"]
    assert bound(values, 0, limit=1.01).bound <= 1.01
    early = bound(values, 0, is_enough=lambda at_least, found: found < 3 * at_least)
    assert early.products < 48
    assert early.bound < 3 * early.at_least


def test_rounding_of_the_products_is_added():
    """Products that came out too small by the rounding do not make the bound too small."""
    values, rounding = SPECTRA["flat"], 1e-5
    found = bound(values - rounding, 0, rounding=rounding)
    assert found.bound == pytest.approx(bound(values, 0).bound, abs=rounding / 10)
    assert found.at_least == pytest.approx(bound(values, 0).at_least - rounding)


def test_where_nothing_is_excluded_the_certain_limit_is_the_bound():
    """One column and one block say next to nothing at a failure of 1e-6."""
    found = bound(SPECTRA["flat"], 0, width=1, max_blocks=1, limit=1e4)
    assert (found.bound, found.failure) == (1e4, 0.0)
    assert bound(SPECTRA["flat"], 0, width=1, max_blocks=1).bound == np.inf
    assert bound(SPECTRA["flat"], 0, width=16, limit=1e4).failure == 1e-6


@cache
def digits(activation, units, seed=0):
    """A network trained on 500 digits, nearly to the end, and 200 others: bounds hold anywhere."""
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    classifier = DeltaClassifier(
        (units,),
        activation,
        l2=1e-3 if activation == "tanh" else 1e-2,
        rank=1,
        bounds=False,
        epochs=10,
        max_iter=100,
        random_state=seed,
        progress=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(x[:500] / 16, y[:500])
    return classifier.model_, x[:500] / 16, y[:500], x[500:700] / 16


@cache
def truth(activation, units, seed, curvature, rates=None):
    """Standard errors of logits and of probabilities from all eigenpairs."""
    model, x, y, others = digits(activation, units, seed)
    options = {"l2": dict(rates)} if rates else {}
    dm = DeltaMethod(model, curvature, rank="full", progress=False, **options).fit(x, y)
    prediction = dm.predict(others)
    return prediction.logit_std, prediction.std


def contained(prediction, true_stds):
    pairs = zip((prediction.logit_std_bounds, prediction.std_bounds), true_stds, strict=True)
    return all(np.all(low <= std) and np.all(std <= high) for (low, high), std in pairs)


def width(prediction):
    low, high = prediction.std_bounds
    return float(np.median((high - low) / high))


@pytest.mark.parametrize("activation", ["tanh", slow("relu")])
@pytest.mark.parametrize("curvature", ["opg", wide("ggn"), wide("hessian")])
@pytest.mark.parametrize(("rank", "tail"), [(20, "l2"), slow(100, "midpoint")])
@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_all_standard_errors_lie_between_their_bounds(curvature, activation, rank, tail):
    model, x, y, others = digits(activation, 8)
    dm = DeltaMethod(model, curvature, rank=rank, tail=tail, progress=False).fit(x, y)
    prediction = dm.predict(others)
    assert contained(prediction, truth(activation, 8, 0, curvature))
    for (low, high), std in (
        (prediction.std_bounds, prediction.std),
        (prediction.logit_std_bounds, prediction.logit_std),
    ):
        assert np.all(low <= std)
        assert np.all(std <= high)
    assert 0 < width(prediction) < 1


@pytest.mark.parametrize("curvature", ["opg", wide("ggn"), wide("hessian")])
@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_float32(curvature):
    """The bounds of a float32 network contain the truth of the same one in float64."""
    model, x, y, others = digits("tanh", 8)
    single = build_mlp(
        64, 10, hidden_units=(8,), activation="tanh", l2=1e-3, dtype="float32", seed=0
    )
    single.set_weights(model.get_weights())
    dm = DeltaMethod(single, curvature, rank=60, progress=False).fit(x, y)
    assert contained(dm.predict(others), truth("tanh", 8, 0, curvature))


@pytest.mark.wide  # the widths of blocks: test_largest_eigenvalues_are_bounded
def test_few_parameters():
    """Blocks as wide as the whole space."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 1)), np.arange(60) % 2
    model = build_mlp(1, 2, hidden_units=(), activation="tanh", l2=0.1, dtype="float64", seed=0)
    for curvature in ("opg", "ggn", "hessian"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found, full = (
                DeltaMethod(model, curvature, rank=rank, progress=False).fit(x, y).predict(x)
                for rank in (2, "full")
            )
        assert contained(found, (full.logit_std, full.std))


@pytest.mark.parametrize("passes", [1, wide(3)])
@pytest.mark.parametrize("curvature", ["opg", wide("ggn")])
@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_any_number_of_passes(curvature, passes, monkeypatch):
    """A sketch that has not converged bounds as well as one that has."""
    monkeypatch.setattr("deltauq.curvature.solvers.PASSES", passes)
    model, x, y, others = digits("tanh", 8)
    dm = DeltaMethod(model, curvature, rank=60, progress=False).fit(x, y)
    assert contained(dm.predict(others), truth("tanh", 8, 0, curvature))


@pytest.mark.wide  # in the priors' metric: tests/prediction/test_group_means.py
@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_several_rates():
    rates = {"*kernel": 1e-3, "*bias": 1e-2}
    model, x, y, others = digits("tanh", 8)
    prediction = (
        DeltaMethod(model, "ggn", rank=50, l2=rates, progress=False).fit(x, y).predict(others)
    )
    assert contained(prediction, truth("tanh", 8, 0, "ggn", tuple(rates.items())))


@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_without_bounds_they_are_refused_with_the_remedy():
    model, x, y, others = digits("tanh", 8)
    prediction = DeltaMethod(model, rank=10, bounds=False, progress=False).fit(x, y).predict(others)
    with pytest.raises(InvalidInputError, match="bounds=True"):
        _ = prediction.std_bounds


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("curvature", ["opg", "ggn", "hessian"])
@pytest.mark.filterwarnings("ignore")
def test_containment_over_ranks_and_seeds(curvature, activation, seed, monkeypatch):
    model, x, y, others = digits(activation, 32, seed)
    for rank in (20, 100, 400):
        monkeypatch.setattr("deltauq.curvature.solvers.PASSES", 1 + (seed + rank // 20) % 3)
        dm = DeltaMethod(model, curvature, rank=rank, seed=seed, progress=False).fit(x, y)
        prediction = dm.predict(others)
        assert contained(prediction, truth(activation, 32, seed, curvature))
        print(f"{curvature} {activation} K = {rank}: width {width(prediction):.2%}")


@pytest.mark.parametrize("curvature", ["opg", wide("ggn"), slow("hessian")])
@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_the_rank_curve_ends_at_the_width_and_bounds_it_for_fewer(curvature):
    """Bounds of the leading k of K pairs hold, so they are no narrower than those of a fit of k."""
    model, x, y, others = digits("tanh", 8)
    dm = DeltaMethod(model, curvature, rank=100, progress=False).fit(x, y)
    curve = dm.rank_curve(others[:64])
    assert curve.certified
    assert curve.ranks[-1] == 100
    assert curve.widths[-1] == pytest.approx(width(dm.predict(others[:64])), rel=0.02)
    assert np.all(np.diff(curve.widths) < 0.01)
    fewer = int(curve.ranks[np.searchsorted(curve.ranks, 40)])
    own = DeltaMethod(model, curvature, rank=fewer, progress=False).fit(x, y)
    assert curve.widths[curve.ranks == fewer][0] > 0.9 * width(own.predict(others[:64]))
    assert curve.smallest(2.0) == 1
    assert curve.smallest(0.0) is None


@pytest.mark.parametrize("curvature", [slow("opg"), wide("ggn")])
@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_automatic_rank_keeps_its_promise_on_other_inputs(curvature, monkeypatch):
    model, x, y, others = digits("tanh", 16)
    dm = DeltaMethod(model, curvature, route="sketch", progress=False).fit(x, y)
    prediction = dm.predict(others)
    assert dm.eigenpairs.rank < dm.eigenpairs.n_params / 2
    assert width(prediction) < 0.05
    assert contained(prediction, truth("tanh", 16, 0, curvature))


@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_automatic_rank_stops_where_float32_holds_no_more_pairs(monkeypatch):
    # Ten inputs with curvatures of 1e5 L2 rates; the other directions are under their rounding.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 400)) * np.where(np.arange(400) < 10, 2000.0, 1.0)
    model = keras.Sequential([keras.Input((400,)), keras.layers.Dense(3)])
    model.layers[0].kernel.assign(np.zeros((400, 3)))
    options = {"l2": 5.0, "likelihood": "categorical", "route": "sketch", "progress": False}
    dm = DeltaMethod(model, "ggn", bounds=False, **options)
    with pytest.warns(ConvergenceWarning, match="drown in the rounding of float32"):
        dm.fit(x.astype("float32"), rng.integers(0, 3, 300))
    assert dm.eigenpairs.rank < 64
    assert dm.eigenpairs.products < 2 * 64 + 30
    dm.rank = 200
    with pytest.warns(ConvergenceWarning, match=r"are kept of the 200 .* rounding of float32"):
        dm.fit(x.astype("float32"), rng.integers(0, 3, 300))


@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
def test_data_of_low_rank_are_no_reason_for_a_warning():
    """Ten examples have an OPG of rank ten, in float32 too."""
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(3)])
    x, y = rng.normal(size=(10, 40)).astype("float32"), rng.integers(0, 3, 10)
    dm = DeltaMethod(model, "opg", rank=30, l2=0.1, progress=False).fit(x, y)
    assert dm.eigenpairs.rank == 10
