"""Predictions of a model whose output carries a mask: right where it counts, left out elsewhere.

The truth of the standard errors is a softmax regression over the valid steps in NumPy, at its
minimum, which `Masking` and `Dense` are for Keras.
"""

from __future__ import annotations

import csv
import io
import re

import keras
import numpy as np
import pytest
import rich.console
import scipy.special
import tensorflow as tf
from marks import slow, wide
from typer.testing import CliRunner

from deltauq import DeltaMethod, compare, diagnose, plots
from deltauq.cli import app
from deltauq.errors import InvalidInputError
from deltauq.estimators.callback import _figures
from deltauq.evaluation.comparison import Run
from deltauq.evaluation.metrics import error_auroc, risk_coverage
from deltauq.prediction import (
    MultiLabelPrediction,
    Prediction,
    RegressionPrediction,
    SomeClassesPrediction,
)
from deltauq.prediction.joint import JointPrediction
from deltauq.report import Study

#: Keras' own, when it saves a model, and when it loads one that was never trained.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in ("__array__ implementation", "Skipping variable loading")
]

N, T, F, C = 40, 6, 3, 3
RATE = 0.02

RNG = np.random.default_rng(0)
VALID = np.arange(T) < RNG.integers(0, T + 1, N)[:, None]  # some inputs are padding throughout
X = np.where(VALID[..., None], RNG.normal(size=(N, T, F)), 0).astype("float32")
Y = np.argmax(X + RNG.gumbel(size=X.shape), axis=2)
COUNTS = RNG.integers(1, 4, (N, T)).astype(float)

#: What padding may look like.
LABELS = np.where(VALID, Y, -1)


class Truth:
    """Softmax regression with L2 on all weights over the valid steps, each so many times.

    Keras divides by the number of those steps, this cost by the sum of their counts: the rate
    beside it is another.
    """

    def __init__(self, counts):
        self.h = np.concatenate([X[VALID], np.ones((VALID.sum(), 1))], axis=1).astype(float)
        self.counts, self.n = counts, counts.sum()
        self.rate = RATE * len(counts) / self.n
        self.weights = np.zeros((F + 1, C))
        for _ in range(30):  # Newton's method
            gradient = self.scores().T @ counts / self.n + self.rate * self.weights.ravel()
            self.weights -= np.linalg.solve(self.hessian(), gradient).reshape(F + 1, C)

    def probabilities(self):
        return scipy.special.softmax(self.h @ self.weights, axis=1)

    def scores(self):
        residuals = self.probabilities() - np.eye(C)[Y[VALID]]
        return np.einsum("ni,nc->nic", self.h, residuals).reshape(len(self.h), -1)

    def jacobian(self):
        p = self.probabilities()
        spread = np.einsum("nc,cd->ncd", p, np.eye(C)) - np.einsum("nc,nd->ncd", p, p)
        return np.einsum("ncd,ni->ncid", spread, self.h).reshape(len(p), C, -1)

    def hessian(self):
        z = np.einsum("ni,cd->ncid", self.h, np.eye(C)).reshape(len(self.h), C, -1)
        data = np.einsum("n,ncp,ncq->pq", self.counts, z, self.jacobian()) / self.n
        return data + self.rate * np.eye((F + 1) * C)

    def opg(self):
        scores = self.scores()
        data = np.einsum("n,np,nq->pq", self.counts, scores, scores) / self.n
        return data + self.rate * np.eye((F + 1) * C)

    def std(self, curvature):
        h, g = np.linalg.inv(self.hessian()), self.opg()
        inverse = {"opg": np.linalg.inv(g), "sandwich": h @ g @ h}.get(curvature, h)
        j = self.jacobian()
        return np.sqrt(np.einsum("ncp,pq,ncq->nc", j, inverse / self.n, j))


def model_at(weights):
    """Softmax regression in Keras, as if it had been trained."""
    l2 = keras.regularizers.L2(RATE / 2)
    last = layers.Dense(C, "softmax", kernel_regularizer=l2, bias_regularizer=l2)
    model = keras.Sequential([keras.Input((T, F)), layers.Masking(0.0), last])
    model.set_weights([weights[:-1], weights[-1]])
    model.compile(loss="sparse_categorical_crossentropy")
    return model


layers = keras.layers


@pytest.fixture(scope="module")
def truth():
    return Truth(np.ones(VALID.sum()))


@pytest.fixture(scope="module")
def method(truth):
    """In low rank, with bounds."""
    model = model_at(truth.weights)
    return DeltaMethod(model, "ggn", rank=8, batch_size=16, progress=False).fit(X, LABELS)


@pytest.fixture(scope="module")
def prediction(method):
    return method.predict(X)


@pytest.mark.parametrize("counts", [wide(None), COUNTS], ids=["once", "several times"])
@pytest.mark.parametrize("curvature", ["ggn", slow("opg"), slow("hessian"), wide("sandwich")])
def test_standard_errors_are_those_of_the_valid_steps(curvature, counts):
    truth = Truth(np.ones(VALID.sum()) if counts is None else counts[VALID])
    dm = DeltaMethod(model_at(truth.weights), curvature, rank="full", progress=False)
    dm.fit(X, LABELS, counts)
    assert dm.n_examples == truth.n
    assert dm.stationarity.is_minimum
    np.testing.assert_allclose(list(dm.l2_rates.values()), truth.rate, rtol=1e-6)
    found = dm.predict(X).unmasked
    np.testing.assert_allclose(found.std, truth.std(curvature), rtol=2e-4)


def test_in_low_rank_they_are_within_their_bounds(prediction, truth):
    std = truth.std("ggn")
    low, high = prediction.unmasked.std_bounds
    assert np.all((low <= std) & (std <= high))
    assert prediction.unmasked.certified


def test_a_prediction_says_which_rows_are_masked(prediction):
    np.testing.assert_array_equal(prediction.masked, ~VALID.ravel())
    assert len(prediction.unmasked) == VALID.sum()
    assert prediction.unmasked.unmasked is not None
    assert not np.any(prediction.unmasked.masked)
    np.testing.assert_array_equal(prediction[3:9].masked, prediction.masked[3:9])
    for one_a_row in (prediction.score, prediction.entropy, prediction.mutual_information):
        np.testing.assert_array_equal(np.isnan(one_a_row), prediction.masked)
    n_masked = np.sum(~VALID)
    assert repr(prediction).startswith(f"Prediction({N * T} inputs ({n_masked} masked), 3 classes")
    assert "nan" not in repr(prediction)


@pytest.mark.wide  # how many: the tests of the valid steps
def test_the_diagnosis_says_how_many_are_masked(method):
    found = diagnose(method.model, X, LABELS)
    (finding,) = found.of("mask")
    assert finding.level == "note"
    assert f"takes out {np.sum(~VALID)} of {N * T} predictions" in finding.what
    assert found.ok
    (classes,) = found.of("classes")
    assert f"of {VALID.sum()}" in classes.what  # padding is of no class
    assert found.stationarity.is_minimum


@pytest.mark.wide  # the step itself: tests/delta/test_minimum_distance.py
def test_a_step_to_the_minimum_is_measured_where_predictions_count():
    """Padding, all zeros, moves with the bias alone."""
    truth = Truth(np.ones(VALID.sum()))
    elsewhere = truth.weights + np.array([[0.0], [0.0], [0.0], [1.0]]) * [1.0, -1.0, 0.0]
    model = model_at(elsewhere)
    dm = DeltaMethod(model, "ggn", rank="full", progress=False)
    with pytest.warns(match="far from a minimum"):
        dm.fit(X, LABELS)
    truth.weights = elsewhere
    gradient = truth.scores().T @ truth.counts / truth.n + RATE * elsewhere.ravel()
    step = -np.linalg.solve(truth.hessian(), gradient)
    shift = np.abs(truth.jacobian() @ step) / truth.std("ggn")
    assert dm.stationarity.shift == pytest.approx(np.median(shift), rel=1e-3)
    beside = diagnose(model, X, LABELS).stationarity.shift
    assert beside == pytest.approx(np.median(shift), rel=0.3)  # on 32 inputs


def test_more_predictions_of_the_same_fit(method, prediction, truth, tmp_path):
    joint = method.predict_joint(X[:4])
    np.testing.assert_array_equal(joint.masked, prediction.masked[: 4 * T])
    counted = ~joint.masked
    mean = prediction.probabilities[: 4 * T][counted].mean(axis=0)
    np.testing.assert_allclose(joint.mean().probabilities[0], mean, rtol=1e-5)
    same = joint.mean(np.ones(4 * T))
    np.testing.assert_allclose(same.covariance, joint.mean().covariance)
    assert method.rank_curve(X).widths[-1] == pytest.approx(method.rank_curve().widths[-1], rel=0.5)
    with pytest.raises(InvalidInputError, match="all predictions of these inputs are masked"):
        method.rank_curve(np.zeros((2, T, F), "float32"))


def test_means_over_groups_have_no_padding(method, prediction):
    groups = np.broadcast_to(np.arange(T) % 2, (N, T))
    found = method.predict_mean(X, groups)
    joint = method.predict_joint(X)
    shares = np.stack([groups.ravel() == g for g in (0, 1)]).astype(float)
    np.testing.assert_array_equal(found.n, [VALID[:, 0::2].sum(), VALID[:, 1::2].sum()])
    np.testing.assert_allclose(found.mean, joint.mean(shares).mean, rtol=1e-5)
    np.testing.assert_allclose(found.std, joint.mean(shares).std, rtol=1e-4)
    weights = RNG.normal(size=(N, T))
    weighted = method.predict_mean(X, weights=weights)
    sums = (weights.ravel() * VALID.ravel()) @ prediction.probabilities
    np.testing.assert_allclose(weighted.mean[0], sums, rtol=1e-4)
    with pytest.raises(InvalidInputError, match="groups of masked predictions alone"):
        method.predict_mean(X, np.where(VALID, "valid", "padding"))


@pytest.mark.wide  # saved fits: tests/delta/files/test_fits.py
def test_a_saved_fit_masks_and_knows_its_data_again(method, prediction, tmp_path):
    method.save(tmp_path / "m.deltauq")
    loaded = DeltaMethod.load(tmp_path / "m.deltauq")
    again = loaded.predict(X)
    np.testing.assert_array_equal(again.masked, prediction.masked)
    np.testing.assert_allclose(again.std, prediction.std, rtol=1e-5)
    loaded.attach(X[::-1], LABELS[::-1])
    assert loaded.rank_curve().widths[-1] == pytest.approx(method.rank_curve().widths[-1], rel=0.5)
    table = tmp_path / "table.npz"
    np.savez(table, x=X, y=LABELS)
    out = tmp_path / "out.csv"
    said = CliRunner().invoke(
        app,
        ["predict", str(tmp_path / "m.deltauq"), str(table), "-o", str(out), "--json", "--quiet"],
    )
    assert said.exit_code == 0, said.output
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [int(row["row"]) for row in rows] == np.flatnonzero(VALID).tolist()
    np.testing.assert_allclose(
        [float(row["score"]) for row in rows], prediction.unmasked.score, rtol=1e-5
    )
    assert f'"masked": {np.sum(~VALID)}' in said.output
    assert f'"inputs": {VALID.sum()}' in said.output


def test_an_export_says_what_is_masked(method, prediction, tmp_path):
    method.export(tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    found = served(x=tf.constant(X))
    np.testing.assert_array_equal(found["masked"], prediction.masked)
    np.testing.assert_allclose(found["score"], prediction.score, rtol=1e-4)
    np.testing.assert_allclose(found["std"], prediction.std, rtol=1e-4)


@pytest.mark.wide  # nor are labels of training: every fit of this file
def test_held_out_labels_of_padding_are_not_looked_at(truth):
    some = RNG.uniform(size=Y.shape) < 0.3
    y = np.where(some, RNG.integers(0, C, Y.shape), Y)
    dm = DeltaMethod(model_at(truth.weights), "ggn", rank="full", progress=False).fit(X, LABELS)
    tuned = dm.tune_l2(X, np.where(VALID, y, 7))
    dm.fit(X, LABELS)
    np.testing.assert_allclose(dm.tune_l2(X, y, VALID * 1.0).values, tuned.values)


@pytest.mark.wide  # a report too: the test of the report
def test_a_comparison_is_of_what_counts(method):
    found = compare(
        method.model, X, LABELS, X, LABELS, curvatures=("ggn", "opg"), rank="full", progress=False
    )
    ggn, opg = (run.prediction.unmasked for run in found.runs)
    wrong = ggn.labels != Y[VALID]
    assert found.auroc("ggn") == error_auroc(ggn.score, wrong)
    assert found.baseline_auroc() == error_auroc(1 - ggn.probabilities.max(axis=1), wrong)
    ratio = np.median(opg.std) / np.median(ggn.std)
    assert found.agreement("opg").median_ratio == pytest.approx(ratio)
    assert found.rows()[0]["median_std"] == pytest.approx(np.median(ggn.std))
    points = found.plot("opg").collections[0].get_offsets()
    assert len(points) == VALID.sum() * C


# Results with some rows masked, without a model.

MASKED = np.arange(30) % 3 == 1


def of_classes():
    rng = np.random.default_rng(0)
    logits, root = rng.normal(size=(30, C)), 0.3 * rng.normal(size=(30, C, C))
    p = scipy.special.softmax(logits, axis=1)
    cov = root @ np.swapaxes(root, 1, 2)
    slope = p[:, :, None] * np.eye(C) - p[:, :, None] * p[:, None, :]
    return {"logits": logits, "mean": p, "logit_covariance": cov, "covariance": slope @ cov @ slope}


def of_numbers():
    parts = of_classes()
    return parts | {"mean": parts["logits"], "covariance": parts["logit_covariance"]}


KINDS = {
    "classes": lambda **masked: Prediction(**of_classes(), **masked),
    "labels": lambda **masked: MultiLabelPrediction(
        **of_classes() | {"mean": scipy.special.expit(of_classes()["logits"])}, **masked
    ),
    "numbers": lambda **masked: RegressionPrediction(
        **of_numbers(), noise=np.ones((30, C)), **masked
    ),
    "some classes": lambda **masked: SomeClassesPrediction(
        **of_classes(),
        classes=np.tile(np.arange(C), (30, 1)),
        log_odds=of_classes()["logits"],
        log_odds_std=np.ones((30, C)),
        **masked,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_tables_leave_out_what_is_masked(kind):
    prediction, everything = KINDS[kind](masked=MASKED), KINDS[kind]()
    assert not np.any(everything.masked)
    assert "row" not in everything.to_dict()
    table, of_all = prediction.to_dict(), everything.to_dict()
    each = C if kind == "some classes" else 1
    kept = np.repeat(~MASKED, each)
    np.testing.assert_array_equal(table.pop("row"), np.repeat(np.arange(30), each)[kept])
    assert list(table) == list(of_all)
    for name, values in table.items():
        np.testing.assert_array_equal(values, of_all[name][kept])
    assert len(prediction.to_frame()) == kept.sum()
    assert "30 inputs (10 masked)" in repr(prediction)
    screen = rich.console.Console(width=400, file=io.StringIO())
    screen.print(prediction)
    lines = screen.file.getvalue().splitlines()
    shown = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    rows = np.repeat(np.flatnonzero(~MASKED)[:10], each)
    assert shown == [str(row) for row in rows]


def drawn(axes):
    return sum(len(points.get_offsets()) for points in axes.collections)


def test_plots_leave_out_what_is_masked():
    classes, labels, numbers = (KINDS[k](masked=MASKED) for k in ("classes", "labels", "numbers"))
    y = np.where(MASKED, -1, np.arange(30) % C)
    assert drawn(plots.probability_against_error(classes)) == 20
    assert drawn(plots.probability_against_error(classes, y)) == 20
    assert drawn(plots.probability_against_error(labels)) == 20 * C
    assert drawn(plots.mean_against_error(numbers, classes.mean)) == 20
    band = plots.regression_band(numbers, np.arange(30.0), y=numbers.mean)
    assert len(band.lines[-1].get_xdata()) == 20
    reference = classes.unmasked
    for draw in (plots.reliability, plots.risk_coverage):
        ours, theirs = draw(classes, y), draw(reference, y[~MASKED])
        for line, other in zip(ours.lines, theirs.lines, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), other.get_ydata())
    by_score = plots.risk_coverage(classes, y, score=np.where(MASKED, np.nan, np.arange(30.0)))
    assert len(by_score.lines[0].get_xdata()) == 20


def test_a_report_is_about_what_counts(method):
    prediction = KINDS["classes"](masked=MASKED)
    y = np.where(MASKED, -1, np.arange(30) % C)
    study = Study(run=Run("ggn", prediction, method.eigenpairs, 1.0), y=y)
    assert len(study.prediction) == len(study.y) == 20
    assert study.n_masked == 10
    page = study.to_html()
    assert "10 more are masked" in page
    most = np.flatnonzero(~MASKED)[np.argmax(prediction.unmasked.score)]
    assert re.search(rf"<tbody>\s*<tr[^>]*>\s*<t[dh][^>]*>{most}<", page)
    assert f"Numbers {most}, " in page
    nothing = KINDS["classes"](masked=np.ones(30, bool))
    with pytest.raises(InvalidInputError, match=r"not masked.*30 masked ones"):
        Study(run=Run("ggn", nothing, method.eigenpairs, 1.0))


def test_figures_of_a_callback_are_of_what_counts():
    prediction = KINDS["classes"](masked=MASKED)
    assert _figures(prediction) == _figures(prediction.unmasked)


@pytest.mark.parametrize("metric", [error_auroc, risk_coverage])
def test_a_metric_refuses_scores_of_padding(metric):
    prediction = KINDS["classes"](masked=MASKED)
    with pytest.raises(InvalidInputError, match=r"score holds NaN.*10 of 30.*prediction.unmasked"):
        metric(prediction.score, np.arange(30) % 2)


def test_groups_of_a_joint_prediction_have_no_padding():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(8, 8))
    cov = (root @ root.T).reshape(4, 2, 4, 2)
    values = rng.normal(size=(4, 2))
    joint = JointPrediction(values, values, cov, cov, masked=np.array([True, False, False, False]))
    found = joint.mean(np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
    np.testing.assert_allclose(found.probabilities[0], values[1])
    np.testing.assert_allclose(found.probabilities[1], values[1:].mean(axis=0))
    with pytest.raises(InvalidInputError, match="a group has no inputs"):
        joint.mean(np.array([1.0, 0.0, 0.0, 0.0]))
