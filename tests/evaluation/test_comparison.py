"""`compare` runs what `DeltaMethod` runs, and its figures are those of other libraries."""

from __future__ import annotations

import io
import re

import keras
import numpy as np
import pytest
import rich.console
import scipy.stats
import sklearn.datasets
import sklearn.linear_model
import sklearn.metrics
import tiny_methods
from marks import wide
from tiny_methods import X, Y

from deltauq import DeltaClassifier, DeltaMethod, compare
from deltauq.errors import InvalidInputError
from deltauq.evaluation.metrics import agreement, error_auroc

RNG = np.random.default_rng(0)
NEW = np.random.default_rng(1).normal(size=(19, 4))


@pytest.fixture(scope="module")
def fitted():
    X, y = sklearn.datasets.load_wine(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    y = np.where(np.random.default_rng(0).uniform(size=len(y)) < 0.2, (y + 1) % 3, y)
    clf = DeltaClassifier(hidden_units=(6,), l2=1e-2, progress=False).fit(X[::2], y[::2])
    comparison = compare(
        clf.model_,
        X[::2],
        y[::2],
        X[1::2],
        y[1::2],
        curvatures=("hessian", "opg", "ggn"),
        progress=False,
    )
    return clf, X, y, comparison


def test_runs_are_those_of_delta_method(fitted):
    clf, X, y, comparison = fitted
    assert [run.curvature for run in comparison.runs] == ["hessian", "opg", "ggn"]
    alone = DeltaMethod(clf.model_, "opg", progress=False).fit(X[::2], y[::2]).predict(X[1::2])
    np.testing.assert_allclose(comparison["opg"].prediction.covariance, alone.covariance)


def test_the_table(fitted):
    _, _, y, comparison = fitted
    a, b = (comparison[c].prediction for c in ("hessian", "opg"))
    frame = comparison.to_frame()
    assert repr(comparison).startswith("Comparison(hessian: exact, ")
    assert len(repr(comparison)) < 400
    model = sklearn.linear_model.LinearRegression(fit_intercept=False)
    model.fit(a.std.reshape(-1, 1), b.std.ravel())
    assert frame.loc["opg", "slope"] == pytest.approx(model.coef_[0], rel=1e-12)
    assert frame.loc["opg", "r_squared"] == pytest.approx(
        model.score(a.std.reshape(-1, 1), b.std.ravel())
    )
    assert frame.loc["opg", "spearman"] == pytest.approx(
        scipy.stats.spearmanr(a.std.ravel(), b.std.ravel())[0]
    )
    assert frame.loc["opg", "median_ratio"] == pytest.approx(np.median(b.std) / np.median(a.std))
    wrong = b.labels != y[1::2]
    assert 0 < wrong.sum() < len(wrong)
    assert frame.loc["opg", "auroc"] == pytest.approx(sklearn.metrics.roc_auc_score(wrong, b.score))
    assert comparison.baseline_auroc() == pytest.approx(
        sklearn.metrics.roc_auc_score(wrong, 1 - a.probabilities.max(axis=1))
    )
    assert frame.loc["hessian", "slope"] == frame.loc["hessian", "r_squared"] == 1
    assert np.all(frame["seconds"] > 0)
    assert np.all(frame["kept_megabytes"] > 0)


def test_it_prints_as_a_table(fitted):
    console = rich.console.Console(width=160, record=True, file=io.StringIO())
    console.print(fitted[3])
    text = console.export_text()
    assert "hessian" in text
    assert "median ratio" in text
    known = text.partition("How far the standard errors are known:")[2]
    assert re.findall(r"(\w+): exact", known) == ["hessian", "opg", "ggn"]


def few(**options):
    """A comparison of few eigenpairs, on as many inputs as they are calibrated on."""
    options = {"curvatures": ("hessian", "ggn"), "rank": 5, "l2": 0.1, "progress": False} | options
    return compare(tiny_methods.network(), X, Y, NEW, **options)


def test_each_curvature_says_how_far_its_standard_errors_are_known():
    """Calibration inputs are for the curvatures whose tail is measured, as in `DeltaMethod`."""
    found = few(calibration=NEW)
    alone = DeltaMethod(tiny_methods.network(), "ggn", rank=5, l2=0.1, progress=False)
    expected = alone.fit(X, Y, calibration=NEW).predict(NEW)
    np.testing.assert_allclose(found["ggn"].prediction.std, expected.std, rtol=1e-10)
    hessian, ggn = found.to_frame()["certainty"]
    assert ggn == str(expected.std_range())
    assert re.fullmatch(r"within .* for 90 % of the inputs \(measured on 19\)", ggn)
    assert re.fullmatch(r"between .* of what is shown, typically, certified", hessian)
    assert few().rows()[1]["certainty"].endswith("certified")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"curvatures": ("hessian", "sandwich")}, r"'opg' or 'ggn' among the curvatures"),
        ({"tail": "midpoint"}, r"Expected: tail='auto'\. Received: tail='midpoint'\."),
        ({"bounds": False}, r"Expected: bounds=True\. Received: bounds=False\."),
    ],
)
def test_calibration_inputs_without_a_use_are_refused_before_a_fit(options, said, monkeypatch):
    monkeypatch.setattr(DeltaMethod, "fit", None)  # a call would be a TypeError
    with pytest.raises(InvalidInputError, match=said):
        few(calibration=NEW, **options)


def test_it_plots(fitted):
    ax = fitted[3].plot("opg")
    assert "opg" in ax.get_ylabel().lower()


def test_other_curvatures_are_refused(fitted):
    with pytest.raises(InvalidInputError, match=r"'kron' was not compared.*hessian"):
        fitted[3]["kron"]


def test_without_labels_there_is_no_auroc(fitted):
    clf, X, y, _ = fitted
    comparison = compare(
        clf.model_, X[::2], y[::2], X[:5], curvatures=("opg", "ggn"), progress=False
    )
    assert comparison.auroc("opg") is None
    assert comparison.baseline_auroc() is None


def test_auroc_needs_both_right_and_wrong():
    assert error_auroc(np.arange(3.0), np.zeros(3, bool)) is None
    assert error_auroc(np.arange(3.0), np.ones(3, bool)) is None
    assert error_auroc(np.arange(4.0), np.array([0, 0, 1, 1])) == 1.0


def test_agreement_needs_one_shape():
    with pytest.raises(InvalidInputError, match="different shapes"):
        agreement(np.ones(3), np.ones(4))


def test_keras_is_not_left_changed():
    assert keras.config.floatx() == "float32"


@pytest.mark.filterwarnings("ignore:the weights are far from a minimum")
@pytest.mark.parametrize(
    ("outputs", "activation", "loss", "y", "aurocs"),
    [
        wide((1,), "sigmoid", "binary_crossentropy", RNG.integers(0, 2, 30), True),
        wide((3,), "sigmoid", "binary_crossentropy", RNG.integers(0, 2, (30, 3)), True),
        ((2,), None, "mse", RNG.normal(size=(30, 2)), False),
        wide(
            (2, 3), "softmax", "sparse_categorical_crossentropy", RNG.integers(0, 3, (30, 2)), True
        ),
    ],
)
def test_every_kind_of_label_is_compared(outputs, activation, loss, y, aurocs):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(int(np.prod(outputs)), kernel_regularizer="l2", bias_regularizer="l2"),
            layers.Reshape(outputs),
            layers.Activation(activation),
        ]
    )
    model.compile(loss=loss)
    x = RNG.normal(size=(30, 4)).astype("float32")
    found = compare(model, x, y, x, y, curvatures=("ggn", "opg"), progress=False)
    assert found.agreement("ggn").slope == pytest.approx(1.0)
    assert (found.auroc("opg") is not None) == aurocs
