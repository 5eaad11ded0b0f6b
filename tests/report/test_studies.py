"""Reports of a user's own study: from a fitted `DeltaMethod`, of every kind of prediction."""

from __future__ import annotations

import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from marks import wide

from deltauq import DeltaMethod, compare, diagnose
from deltauq.delta import fitted as fits
from deltauq.errors import InvalidInputError, NotFittedError
from deltauq.evaluation.checks import Finding
from deltauq.evaluation.comparison import Run
from deltauq.evaluation.diagnosis import Diagnosis
from deltauq.evaluation.route_estimates import RouteEstimate
from deltauq.evaluation.sample_estimates import CostEstimate
from deltauq.likelihoods import Categorical, CustomLoss
from deltauq.linalg import Eigenpairs
from deltauq.network.l2 import VariableRate
from deltauq.prediction import (
    CountPrediction,
    MultiLabelPrediction,
    Prediction,
    RegressionPrediction,
)
from deltauq.report import Study
from deltauq.report.counts import OfCounts

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))

pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")


def _model(n_outputs, activation, loss, n_inputs=3):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((n_inputs,), dtype="float64"),
            keras.layers.Dense(
                n_outputs,
                activation,
                kernel_regularizer=keras.regularizers.L2(0.01),
                bias_regularizer=keras.regularizers.L2(0.01),
                dtype="float64",
            ),
        ]
    )
    model.compile(loss=loss)
    return model


def _fitted(*args, y, x=X, **options):
    return DeltaMethod(_model(*args), "ggn", progress=False, **options).fit(x, y)


def _text(html):
    body = re.sub(r"(?s)<style>.*?</style>", " ", html)
    return " ".join(re.sub(r"(?s)<[^>]*>", " ", body).split())


def _titles(html):
    return re.findall(r"<h2>(.*?)</h2>", html)


Y = RNG.integers(0, 3, 60)
SPARSE = (3, "softmax", "sparse_categorical_crossentropy")


@pytest.fixture(scope="module")
def classes():
    return _fitted(*SPARSE, y=Y, l2=0.02)


@pytest.mark.quick
def test_a_study_holds_what_the_method_says(classes):
    study = Study.of(classes, X[:20], Y[:20], title="Mine")
    expected = classes.predict(X[:20])
    np.testing.assert_array_equal(study.prediction.covariance, expected.covariance)
    assert study.run.curvature == "ggn"
    assert study.n_train == 60
    assert study.stationarity is classes.stationarity
    assert study.l2 == 0.02
    assert study.tail == "auto"
    html = study.to_html({})
    assert "<h1>Mine</h1>" in html
    wrong = int(np.sum(expected.labels != Y[:20]))
    assert f"Accuracy: {100 - 5 * wrong}.0 % ({wrong} of 20 wrong)." in _text(html)
    assert "The weights: far from a minimum." in _text(html)


def test_sections_without_material_are_left_out(classes):
    full = ["In short", "What was asked", "Is the model fit for it?", "What it found"]
    full += ["Which inputs to look at", "How sure are the numbers?"]
    study = Study.of(classes, X[:20])
    assert _titles(study.to_html({})) == full
    assert _titles(Study(run=study.run).to_html({})) == [t for t in full if "fit for it" not in t]
    assert set(study.figures()) == {"probability_against_error", "spectra"}


def test_labels_of_any_kind_count_alike(classes):
    texts = [
        _text(Study.of(classes, X[:20], y).to_html({}))
        for y in (Y[:20], np.eye(3)[Y[:20]], Y[:20, None])
    ]
    assert texts[0] == texts[1] == texts[2]


def test_one_sigmoid_is_a_study_of_two_classes():
    y = (RNG.uniform(size=60) < 0.5).astype(float)
    dm = _fitted(1, "sigmoid", "binary_crossentropy", y=y)
    study = Study.of(dm, X, y, class_names=("no", "yes"))
    accuracy = np.mean((dm.model.predict(X, verbose=0)[:, 0] > 0.5) == y)
    assert f"Accuracy {100 * accuracy:.1f} %" in _text(study.to_html({}))


@pytest.mark.wide  # pages of comparisons: test_page.py
def test_a_comparison_beside_another_curvature(classes):
    comparison = compare(
        classes.model, X, Y, X[:10], Y[:10], curvatures=("hessian", "opg"), progress=False
    )
    html = Study.of(classes, X[:20], Y[:20], comparison=comparison).to_html({})
    assert "The curvatures side by side" in _titles(html)
    assert "The curvature was taken in 3 ways. Where not said otherwise the" in _text(html)
    page = comparison.to_html("Two", class_names=list("abc"))
    assert "<h1>Two</h1>" in page
    assert page.count("<img") == 5


@pytest.mark.wide  # a rate that was chosen: the test of its origin
def test_one_rate_is_read_from_the_fit_and_its_source_from_a_diagnosis():
    dm = _fitted(*SPARSE, y=Y)
    assert Study.of(dm, X[:5]).l2 == pytest.approx(0.02)
    found = diagnose(dm.model, X, Y)
    study = Study.of(dm, X[:5], diagnosis=found)
    assert study.l2 == pytest.approx(0.02)
    text = _text(study.to_html({}))
    assert "keras.regularizers.L2(l2=0.01)" in text
    assert "The diagnosis found 1 warning: a warning means that the numbers may be off." in text


def test_labels_have_their_own_figures_and_table():
    y = RNG.integers(0, 2, (60, 2))
    dm = _fitted(2, "sigmoid", "binary_crossentropy", y=y)
    study = Study.of(dm, X, y, class_names=("wet", "windy"))
    prediction = study.prediction
    assert isinstance(prediction, MultiLabelPrediction)
    right = prediction.labels == (y > 0)
    html = study.to_html()
    text = _text(html)
    assert f"Labels right {100 * right.mean():.2g} % {int((~right).sum())} wrong" in text
    assert f"Inputs right {100 * right.all(axis=1).mean():.2g} %" in text
    first = int(np.argmax(prediction.score))
    label = int(np.argmax(prediction.std[first]))
    there = "yes" if y[first, label] else "no"
    assert f"Score {first} {('wet', 'windy')[label]} {there}" in text
    assert "max p" not in text
    assert html.count("<img") == 4


def test_a_regression_tells_whether_its_intervals_hold():
    x = np.sort(RNG.uniform(-2, 2, (80, 1)), axis=0)
    y = 0.5 * x[:, 0] + 0.3 * RNG.normal(size=80)
    dm = _fitted(1, None, "mse", 1, y=y, x=x)
    study = Study.of(dm, x, y)
    prediction = study.prediction
    assert isinstance(prediction, RegressionPrediction)
    np.testing.assert_array_equal(study.feature, x[:, 0])
    html = study.to_html()
    text = _text(html)
    root = np.sqrt(np.mean((y - prediction.mean[:, 0]) ** 2))
    assert f"Error: {root:.3g} (root of the mean square)." in text
    lower, upper = prediction.interval(0.8, of="observation")
    held = np.mean((y >= lower[:, 0]) & (y <= upper[:, 0]))
    assert f"80 % {100 * held:.2g} %" in text
    assert html.count("<img") == 2
    assert Study.of(dm, x).to_html({}).count("<h3>Do the intervals hold?") == 0


def test_counts_tell_how_they_vary_beside_their_rates():
    """The page of counts: no noise, their dispersion, and intervals that hold at least as much."""
    y = RNG.poisson(np.exp(0.5 + 0.3 * X[:, 0]))
    study = Study.of(_fitted(1, "exponential", "poisson", y=y), X, y)
    prediction = study.prediction
    assert isinstance(prediction, CountPrediction)
    text = _text(study.to_html())
    errors = y - prediction.mean[:, 0]
    ratio = np.mean(errors**2 / prediction.observation_std[:, 0] ** 2)
    assert f"Dispersion {ratio:.3g} squared errors beside their variances" in text
    assert "at least the share" in text
    assert "Noise" not in text


def test_counts_are_whole_in_the_table():
    """Observed ones and the ends of their intervals, beside rates with their decimals."""
    y = RNG.poisson(np.exp(0.5 + 0.3 * X[:, 0]))
    study = Study.of(_fitted(1, "exponential", "poisson", y=y), X, y)
    table = OfCounts(study).uncertain(np.arange(4))
    cells = {column.title: [row[k] for row in table.rows] for k, column in enumerate(table.columns)}
    assert cells["Observed"] == [str(count) for count in y[:4]]
    assert all(re.fullmatch(r"\d+ to \d+", text) for text in cells["of an observation"])
    assert all("." in text for text in cells["Mean"])


@pytest.mark.parametrize(
    "l2", [wide(0.02), {"*kernel": 0.02, "*bias": 0.1}], ids=["one", "several"]
)
def test_a_rate_that_was_chosen_after_training_is_told(l2):
    dm = _fitted(*SPARSE, y=Y, l2=l2)
    assert "chosen after training" not in _text(Study.of(dm, X).to_html({}))
    origin = dm.tune_l2().origin
    text = _text(Study.of(dm, X).to_html({}))
    assert f"{origin}. The weights were trained with another" in text
    assert "that it might have come out otherwise is not in them" in text


@pytest.fixture(scope="module")
def exact():
    return _fitted(*SPARSE, y=Y, l2=0.02, route="gram")


def test_an_exact_fit_says_by_which_route_and_forms_no_eigenpairs(exact):
    text = _text(Study.of(exact, X[:20], Y[:20]).to_html())
    said = "Nothing of the curvature was left out: the inner products of all its rows, one or more"
    assert text.count(said) == 2  # in short, and at length
    assert "Left out nothing of the GGN; route: gram" in text
    assert "All that the calculation leaves open is under 0.01 % of a standard error." in text
    assert "directions left out" not in text
    assert "The spectrum" in text
    assert "pairs" not in vars(exact._fitted.known)


def test_a_spectrum_that_is_too_long_to_be_taken_unasked_is_left_out(exact, monkeypatch):
    monkeypatch.setattr(fits, "EIGEN_LIMIT", 10)
    study = Study.of(exact, X[:20], Y[:20])
    assert "The spectrum" not in _text(study.to_html({}))
    assert "spectra" not in study.figures()


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of Keras, when it saves
def test_a_loaded_exact_fit_says_what_its_eigenpairs_leave(exact, tmp_path):
    exact.save(tmp_path / "m")
    text = _text(Study.of(DeltaMethod.load(tmp_path / "m"), X[:20]).to_html({}))
    assert "All of the curvature was at hand (the inner products" in text
    assert "lies in a known interval" in text
    assert "of 12, the GGN&#39;s; route: gram" in text


@pytest.mark.parametrize("path", ["page.html", pathlib.Path("page.html")], ids=["text", "path"])
def test_a_path_is_no_figures(path, classes, tmp_path):
    study, file = Study.of(classes, X[:4]), tmp_path / path
    with pytest.raises(InvalidInputError, match=r"something else than figures.*write_text\("):
        study.to_html(path)
    file.write_text(study.to_html({}), encoding="utf-8")
    assert "<html" in file.read_text(encoding="utf-8")


@pytest.mark.wide  # of one output: the test of a regression
def test_several_outputs_of_a_regression_have_a_picture_each():
    y = RNG.normal(size=(60, 2))
    study = Study.of(_fitted(2, None, "mse", y=y), X, y, class_names=("height", "weight"))
    assert list(study.figures()) == ["mean_and_error_0", "mean_and_error_1", "spectra"]
    text = _text(study.to_html())
    assert "Output: weight." in text
    assert "Outputs 2" in text
    assert "Least certain output" in text


def _many_classes(n_classes=1000):
    logits = 3 * RNG.normal(size=(4, n_classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    cov = np.broadcast_to(0.01 * np.eye(n_classes), (4, n_classes, n_classes)).copy()
    slope = p[:, :, None] * np.eye(n_classes) - p[:, :, None] * p[:, None, :]
    pairs = Eigenpairs(np.ones(2), np.eye(9, 2), np.zeros(2), None, None, 1, True)
    prediction = Prediction(logits, p, cov, 0.01 * slope @ slope)
    return Run("opg", prediction, pairs, 1.0)


@pytest.mark.wide  # pages of few classes: the tests before
def test_many_classes_do_not_make_a_long_page():
    study = Study(run=_many_classes(), y=np.arange(4), images=np.ones((4, 3, 3)))
    html = re.sub(r"base64,[\w+/=]+", "", study.to_html())
    assert len(html) < 30_000
    assert "Classes 1,000" in _text(html)


def _diagnosis(n_variables=300):
    findings = (
        Finding("precision", "ok", "float64 throughout"),
        Finding("loss", "note", "not compiled", "it must be that of training", "check it"),
        Finding("l2", "warning", "no variable has an <L2> rate", "unbounded", "pass l2='tune'"),
        Finding("model", "error", "float16", "deltauq needs more", "use float32"),
    )
    rates = tuple(VariableRate(f"layer_{i}/kernel", 0.02, "L2(0.01)") for i in range(n_variables))
    routes = (
        RouteEstimate("opg", "dense", 400.0, 40.0, 2**34, is_exact=True),
        RouteEstimate("opg", "sketch", 60.2, 0.1, 2**29, is_exact=False, std_width=0.4),
        RouteEstimate("opg", "gram", 9.7, 12.0, 2**30, is_exact=True, why="exact: it is small"),
    )
    costs = (CostEstimate("opg", 100, 2**30, 90.4),)
    return Diagnosis(findings, rates, costs=costs, routes=routes)


@pytest.mark.quick
def test_a_diagnosis_is_a_page_with_the_gravest_first():
    html = _diagnosis().to_html()
    text = _text(html)
    assert _titles(html) == ["Is the model fit for it?"]
    assert "found 1 error and 1 warning: an error means that there can be no" in text
    order = [text.index(level) for level in ("✗ error", "! warning", "note not", "✓ in order")]
    assert order == sorted(order)
    assert "no variable has an &lt;L2&gt; rate unbounded pass l2=&#39;tune&#39;" in text
    assert "layer_0/kernel, layer_1/kernel, layer_2/kernel and 297 more 0.02 L2(0.01)" in text
    assert "What 100 eigenpairs would take" in text
    assert "OPG 1.00 GiB 90 s" in text
    assert "OPG sketch 0.50 GiB 60 s under 1 s at most about 40% (an estimate)" in text
    assert "OPG dense 16.00 GiB 400 s 40 s exact " in text
    assert "OPG gram 1.00 GiB 10 s 12 s exact; 0.1% beyond 256 inputs" in text
    assert "OPG: gram (exact: it is small)." in text
    assert html.count('class="marked"') == 3


def test_a_diagnosis_without_trouble_says_so():
    found = Diagnosis((Finding("precision", "ok", "float64 throughout"),))
    assert "found nothing that would make the numbers wrong" in _text(found.to_html())


def test_some_classes_of_many_are_refused(classes):
    some = classes.predict(X[:4], classes="top2")
    with pytest.raises(InvalidInputError, match=r"cannot tell this kind.*without classes="):
        Study(run=Run("ggn", some, classes.eigenpairs, 1.0))


def test_images_of_a_regression_are_refused():
    y = RNG.normal(size=60)
    with pytest.raises(InvalidInputError, match=r"images are shown beside the probabilities"):
        Study.of(_fitted(1, None, "mse", y=y), X, images=np.ones((60, 2, 2)))


def test_labels_of_another_number_are_refused(classes):
    with pytest.raises(InvalidInputError, match=r"y_eval has the wrong shape"):
        Study.of(classes, X[:4], Y[:5])


def test_a_method_that_is_not_fitted_says_so():
    dm = DeltaMethod(_model(3, "softmax", "sparse_categorical_crossentropy"))
    with pytest.raises(NotFittedError, match="fit"):
        Study.of(dm, X)


def test_the_rate_is_the_users_and_the_settings_those_of_the_fit():
    """Beside two outputs' mean square and its estimated noise, lambda is not the likelihood's."""
    y = np.random.default_rng(0).normal(size=(len(X), 2))
    dm = _fitted(2, None, "mse", y=y, l2=0.02)
    dm.tail, dm.curvature = "none", "hessian"
    study = Study.of(dm, X, y)
    assert study.l2 == 0.02
    dispersion = dm.fitted_likelihood.dispersion(2)
    assert study.spectrum_l2 == pytest.approx(0.02 / dispersion)
    assert abs(dispersion - 1) > 0.1
    assert (study.tail, study.require_run().curvature) == ("auto", "ggn")
    assert "L2 rate 0.02 the cost holds" in _text(study.to_html({}))


def test_a_study_of_something_else_is_refused():
    with pytest.raises(InvalidInputError, match=r"something else than a method.*DeltaMethod"):
        Study.of(X, Y)


@pytest.mark.wide  # pages of comparisons: test_page.py
def test_a_comparison_counts_predictions_where_inputs_make_several():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2, 3)), keras.layers.Dense(2, "softmax")])
    model.compile(loss="sparse_categorical_crossentropy")
    data = X.reshape(30, 2, 3), np.tile([0, 1], (30, 1))
    options = {"l2": 0.1, "progress": False}
    found = compare(model, *data, data[0][:5], curvatures=("ggn", "opg"), **options)
    assert Study.of_comparison(found).unit == "prediction"
    assert Study.of_comparison(found, unit="token").unit == "token"


def test_names_of_classes_are_known_through_a_loss_of_ones_own():
    def cross_entropy(z, y):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(y, "int32"), z)

    likelihood = CustomLoss(cross_entropy, Categorical(classes=["low", "middle", "high"]))
    fitted = _fitted(3, None, None, y=np.arange(60) % 3, likelihood=likelihood, l2=0.1)
    assert "middle" in _text(Study.of(fitted, X[:10]).to_html({}))
