"""`diagnose` finds what would make the numbers wrong."""

from __future__ import annotations

import io
import warnings
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf
from marks import wide
from rich.console import Console

import deltauq
from deltauq import DeltaMethod, diagnose
from deltauq.errors import InvalidInputError
from deltauq.evaluation import route_estimates

layers = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(240, 4))
Y = (X @ RNG.normal(size=(4, 3)) + RNG.gumbel(size=(240, 3))).argmax(axis=1)
SPARSE = keras.losses.SparseCategoricalCrossentropy


def l2():
    return keras.regularizers.L2(5e-3)


def dense(units, activation=None, *, bias=True, dtype="float64"):
    return layers.Dense(
        units,
        activation,
        dtype=dtype,
        kernel_regularizer=l2(),
        bias_regularizer=l2() if bias else None,
    )


def build(*middle, bias=True, dtype="float64", activation="tanh", n_classes=3):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4,), dtype=dtype),
            dense(6, activation, bias=bias, dtype=dtype),
            *middle,
            dense(n_classes, bias=bias, dtype=dtype),
        ]
    )


@cache
def stopped_early():
    """A model, its weights before it was diagnosed and after that, and what was found."""
    model = build()
    before = model.get_weights()
    found = diagnose(model, X, Y, polish=True)
    return model, before, model.get_weights(), found


@cache
def trained_weights():
    model, before, _, found = stopped_early()
    found.apply_polished()
    weights = model.get_weights()
    model.set_weights(before)
    return weights


def trained(**options):
    model = build(**options)
    model.set_weights(trained_weights())
    return model


def levels(diagnosis, subject):
    return {finding.level for finding in diagnosis.of(subject)}


def test_a_model_trained_to_the_end_passes():
    model = trained()
    model.compile(loss=SPARSE(from_logits=True))
    found = diagnose(model, X, Y)
    assert found.ok, [f for f in found.findings if f.level not in ("ok", "note")]
    assert {f.subject for f in found.findings} >= {
        "precision",
        "loss",
        "l2",
        "classes",
        "stationarity",
        "curvature",
    }
    assert found.advice.startswith("The model can be fitted as it is;")
    assert found.stationarity.ratio < 2e-3
    assert [rate.rate for rate in found.rates] == pytest.approx([0.01] * 4)
    assert "L2(l2=0.005)" in found.rates[0].source
    exact = np.linalg.eigvalsh(
        DeltaMethod(model, "hessian", rank="full", progress=False)
        .fit(X, Y)
        ._fitted.prior_pairs.values[:, None]
        * np.eye(51)
    )
    smallest, largest = found.eigenvalues
    assert largest == pytest.approx(0.01 * exact[-1], rel=0.01)
    assert smallest >= 0.01 * exact[0] - 1e-12


def test_a_model_stopped_early_is_flagged_and_polishing_mends_a_copy():
    model, before, after, found = stopped_early()
    assert levels(found, "stationarity") == {"warning", "note"}
    assert not found.ok
    assert found.polished.stationarity.ratio < 2e-3
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    found.apply_polished()
    again = diagnose(model, X, Y)
    assert levels(again, "stationarity") == {"ok"}
    with pytest.raises(InvalidInputError, match="polish=True"):
        again.apply_polished()


@pytest.mark.wide  # polishing that ends: the test before
def test_polishing_that_did_not_end_is_a_warning_and_takes_more_iterations():
    found = diagnose(build(), X, Y, polish=3)
    finding = found.of("stationarity")[-1]
    assert found.polished.iterations == 3
    assert finding.level == "warning"
    assert "not converged" in finding.what
    assert "polish=10_000" in finding.remedy


@pytest.mark.wide  # near: without L2, below; far: a model that stopped early, above
@pytest.mark.parametrize(("size", "level"), [(0.005, "note"), (0.5, "warning")])
def test_being_near_a_minimum_is_told_from_being_far(size, level):
    model = trained()
    model.set_weights([w + size * np.sign(w) for w in model.get_weights()])
    found = diagnose(model, X, Y)
    (finding,) = found.of("stationarity")
    assert finding.level == level
    assert f"by {found.stationarity.shift:.2g} of their standard errors" in finding.what


@pytest.mark.wide  # those of a fit: tests/delta/test_minimum_distance.py
def test_the_examples_that_are_looked_at_are_spread_over_sorted_data():
    """2,400 rows, sorted by class: the first 1,024 have one or two classes only."""
    x, y = np.repeat(X, 10, axis=0), np.repeat(Y, 10)
    order = np.argsort(y, kind="stable")
    mixed, ordered = diagnose(trained(), x, y), diagnose(trained(), x[order], y[order])
    assert mixed.eigenvalues[1] == pytest.approx(ordered.eigenvalues[1], rel=0.05)


@pytest.mark.wide  # what is said without L2: the test after this one
def test_without_l2_nothing_is_said_of_parts_that_cancel():
    (finding,) = diagnose(trained(), X, Y, l2=0.0).of("stationarity")
    assert finding.level == "note"  # that there is no L2 is a warning, and fit refuses it
    assert "parts" not in finding.what
    assert "far" not in finding.remedy


@pytest.mark.wide  # the distance itself: tests/delta/test_minimum_distance.py
@pytest.mark.parametrize(
    ("loss", "size", "level"),
    [
        ("mse", 0.08, "note"),
        wide("mse", 1.0, "warning"),
        wide("binary_crossentropy", 0.08, "note"),
        wide("binary_crossentropy", 1.0, "warning"),
    ],
)
def test_without_l2_the_distance_to_a_minimum_is_that_of_a_fit(size, level, loss):
    """Gradients of a cost without L2 look large beside nothing; in standard errors they are not."""
    logits = X @ [[1.0], [-0.5], [0.25], [2.0]]
    noisy = logits + RNG.logistic(size=(240, 1))
    binary = loss == "binary_crossentropy"
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="float64"),
            layers.Dense(1, "sigmoid" if binary else None, dtype="float64"),
        ]
    )
    model.compile("sgd", loss)
    y = np.where(noisy > 0, 1, 0) if binary else noisy
    diagnose(model, X, y, polish=True).apply_polished()
    model.set_weights([w + size * np.sign(w) for w in model.get_weights()])
    found = diagnose(model, X, y)
    fitted = DeltaMethod(model, "ggn", rank="full", progress=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        shift = fitted.fit(X, y).stationarity.shift
    (finding,) = found.of("stationarity")
    assert not found.stationarity.is_minimum
    assert found.stationarity.shift == pytest.approx(shift, rel=0.5)  # of other inputs
    assert finding.level == level
    assert any("far from a minimum" in str(w.message) for w in said) == (level == "warning")


@pytest.mark.quick
def test_weight_decay_is_not_l2():
    model = trained()
    model.compile(keras.optimizers.AdamW(weight_decay=0.01), loss=SPARSE(from_logits=True))
    (finding,) = diagnose(model, X, Y).of("weight decay")
    assert finding.level == "warning"
    assert "weight_decay=0.01" in finding.what


@pytest.mark.parametrize("regularizer", [None, wide("l2")])
def test_rates_that_fit_is_to_choose_are_a_note(regularizer):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    for variable in model.trainable_variables if regularizer else []:
        variable.regularizer = keras.regularizers.L2(0.005)
    model.compile(loss="sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    found = diagnose(model, rng.normal(size=(40, 4)), rng.integers(0, 3, 40), l2="tune")
    (finding,) = (f for f in found.findings if f.subject == "l2")
    assert finding.level == "note"
    assert ("rate (0.01)" if regularizer else "no variable") in finding.what
    assert "l2='tune'" in finding.why


def test_missing_l2_on_biases_is_named():
    found = diagnose(trained(bias=False), X, Y)
    (finding,) = found.of("l2")
    assert finding.level == "warning"
    assert "'tune'" in found.advice
    assert "bias" in finding.what
    assert "kernel" not in finding.what
    (finding,) = diagnose(trained(bias=False), X, Y, l2={"*bias": 1e-3}).of("l2")
    assert finding.level == "ok"


def test_dropout_left_random_is_an_error():
    class AlwaysOn(layers.Dropout):
        def call(self, inputs, training=None):
            return super().call(inputs, training=True)

    found = diagnose(build(AlwaysOn(0.5, dtype="float64")), X, Y)
    assert "error" in levels(found, "model")
    (finding,) = found.of("model")
    assert "seed_generator" in finding.what
    assert "dropout called with training=True" in finding.remedy
    assert levels(found, "randomness") == {"note"}


def test_dropout_that_is_switched_off_is_a_note():
    found = diagnose(build(layers.Dropout(0.5, dtype="float64")), X, Y)
    assert levels(found, "randomness") == {"note"}
    assert not found.of("model")


@pytest.mark.wide  # a note too: the test of dropout
def test_batch_normalisation_is_a_note():
    found = diagnose(build(layers.BatchNormalization(dtype="float64")), X, Y)
    assert levels(found, "normalisation") == {"note"}


@pytest.mark.parametrize(
    ("loss", "level"),
    [
        (SPARSE(from_logits=False), "error"),
        wide(SPARSE(from_logits=True), "ok"),
        wide("mae", "error"),
    ],
    ids=["of probabilities", "of logits", "not known"],
)
def test_a_wrong_loss_is_an_error(loss, level):
    model = trained()
    model.compile(loss=loss)
    found = diagnose(model, X, Y)
    assert levels(found, "loss") == {level}
    assert found.advice.startswith("Mend the errors first") == (level == "error")


def test_labels_are_not_blamed_for_a_loss_that_is_not_known():
    """What goes on is a guess by the last operation, here classes, which these labels are not."""
    model = trained()
    model.compile(loss="mae")
    found = diagnose(model, X, X[:, :3] + 0.5)
    assert [f.subject for f in found.findings if f.level == "error"] == ["loss"]
    (finding,) = found.of("loss")
    assert finding.what.count("'mae'") == 1


@pytest.mark.wide  # of models that are not compiled: the fits of most tests
def test_a_model_compiled_without_a_loss_is_not_called_as_compiled():
    """As one with a `train_step` of its own is: the likelihood is by the last operation."""
    model = trained()
    model.compile("adam")
    (finding,) = diagnose(model, X, Y).of("loss")
    assert finding.level == "note"
    assert "no compiled loss; understood as Categorical()" in finding.what
    one = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    one.compile("adam")
    (finding,) = diagnose(one, X, Y).of("loss")
    assert "a model without a compiled loss" in finding.what


def test_a_class_absent_from_the_data_is_named():
    some = Y != 1
    (finding,) = diagnose(trained(), X[some], Y[some]).of("classes")
    assert finding.level == "warning"
    assert "class 1 out of 3" in finding.what


def test_float16_weights_are_an_error():
    found = diagnose(build(dtype="float16"), X.astype("float16"), Y)
    assert levels(found, "model") == {"error"}
    assert "float16" in found.of("model")[0].what


def test_labels_that_cannot_be_used_are_an_error_and_nothing_is_raised():
    assert "error" in levels(diagnose(trained(), X, Y + 5), "data")
    assert "error" in levels(diagnose(trained(), np.full_like(X, np.nan), Y), "data")
    assert "error" in levels(diagnose(object(), X, Y), "model")


@pytest.mark.wide  # datasets are read and weighted alike: tests/data/test_batches.py
def test_datasets_and_weights():
    data = tf.data.Dataset.from_tensor_slices((X, Y, np.full(240, 2.0))).batch(50)
    found = diagnose(trained(), data)
    assert found.rates[0].rate == pytest.approx(0.005)  # Keras divides by rows, the cost by weights
    assert found.stationarity is not None


def test_costs_and_tables_are_readable():
    found = diagnose(trained(), X, Y, rank=20)
    assert [cost.curvature for cost in found.costs] == ["opg", "ggn", "hessian"]
    assert all(0 < cost.n_bytes < 2**30 and 0 < cost.seconds < 60 for cost in found.costs)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(found)
    text = console.export_text()
    for words in ("why it matters", "keras.regularizers.L2", "20 eigenpairs", "stationarity"):
        assert words in text
    assert list(found.to_frame().columns) == ["subject", "level", "what", "why", "remedy"]


def test_it_is_a_public_name():
    assert deltauq.diagnose is diagnose
    assert isinstance(stopped_early()[-1], deltauq.Diagnosis)


def test_what_every_route_would_take_and_which_is_taken():
    """As a fit then says; of few parameters a dense matrix, whatever the others take."""
    found = diagnose(trained(), X, Y)
    assert {(each.curvature, each.route) for each in found.routes} == {
        *((name, route) for name in ("opg", "ggn") for route in ("dense", "sketch", "gram")),
        *(("hessian", route) for route in ("dense", "lanczos")),
    }
    assert [each.route for each in found.taken_routes] == ["dense"] * 3
    fit = DeltaMethod(trained(), "ggn", likelihood="categorical", progress=False).fit(X, Y)
    assert {each.why for each in found.taken_routes} == {fit.route.why}
    widths = {each.route: each.width for each in found.routes}
    assert widths["dense"] == "exact to 1 in 1,000,000,000"  # the model is float64
    assert widths["gram"] == "exact to 1 in 1,000,000,000; 0.1% beyond 256 inputs"
    assert widths["sketch"] == "under 1% (an estimate)"  # 600 pairs of fewer parameters
    assert widths["lanczos"] == "unknown before the fit"
    assert {each.route for each in found.routes if not each.is_exact} == {"sketch", "lanczos"}
    assert all(each.seconds >= 0 and each.n_bytes > 0 for each in found.routes)


@pytest.mark.parametrize("rank", [10, 30])
def test_bounds_of_a_sketch_are_no_wider_than_was_estimated(rank, monkeypatch):
    """The estimate is of the most, from the trace alone: loose, and above what a fit finds."""
    monkeypatch.setattr(route_estimates, "ROUTE_RANK", rank)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(40, "tanh"), layers.Dense(3)])
    model.compile(loss=SPARSE(from_logits=True))
    options = {"l2": 1e-2, "likelihood": "categorical"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # far from a minimum
        for each in diagnose(model, X, Y, **options).routes:
            if each.route == "sketch":
                fit = DeltaMethod(model, each.curvature, rank=rank, progress=False, **options)
                low, high = fit.fit(X, Y).predict(X).std_bounds
                width = np.max(1 - low / high)
                assert 0.0 < width <= each.std_width < 1.0
                assert each.width == f"at most about {each.std_width:.0%} (an estimate)"


def test_the_width_of_a_sketch_is_unknown_without_l2():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model.compile(loss=SPARSE(from_logits=True))
    found = diagnose(model, X, Y)
    widths = {each.width for each in found.routes if not each.is_exact}
    assert widths == {"unknown before the fit"}


def test_routes_of_many_parameters_are_those_of_a_fit():
    """Without L2 in the model too: a fit asks for some, and then has the route."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(450, "tanh"), layers.Dense(3)])
    model.compile(loss=SPARSE(from_logits=True))
    found = diagnose(model, X[:60], Y[:60])
    (opg,) = (each for each in found.taken_routes if each.curvature == "opg")
    assert opg.width == "exact to 1 in 10,000; 0.1% beyond 256 inputs"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # far from a minimum
        fit = DeltaMethod(model, "opg", l2=0.1, progress=False).fit(X[:60], Y[:60])
    assert (opg.route, opg.why) == (fit.route, fit.route.why)
    assert opg.route == "gram"
    assert "P = 3,603 parameters" in opg.why
    shown = io.StringIO()
    Console(file=shown, width=120).print(found)
    assert "What each route would take" in shown.getvalue()
    assert f"opg: where no route is asked for, gram ({opg.why})." in " ".join(
        shown.getvalue().split()
    )


def test_rows_of_too_many_classes_are_not_counted(monkeypatch):
    monkeypatch.setattr(route_estimates, "_COUNTED", len(X))
    found = diagnose(trained(), X, Y)
    assert {each.curvature for each in found.routes} == {"opg", "hessian"}
