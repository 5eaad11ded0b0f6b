"""Results in notebooks and terminals: the numbers of `to_frame`, and text where pandas is not."""

from __future__ import annotations

import io
import re
import sys

import numpy as np
import pandas as pd
import pytest
import rich.console
import scipy.special

from deltauq.evaluation.checks import Finding
from deltauq.evaluation.comparison import Comparison, Run
from deltauq.evaluation.diagnosis import Diagnosis
from deltauq.linalg import Eigenpairs
from deltauq.prediction import (
    Estimate,
    MultiLabelPrediction,
    Prediction,
    RegressionPrediction,
    SomeClassesPrediction,
)
from deltauq.prediction.tables import cell


def _parts(n, c):
    rng = np.random.default_rng(0)
    z, root = rng.normal(size=(n, c)), rng.normal(size=(n, c, c))
    cov = root @ np.swapaxes(root, 1, 2)
    return z, scipy.special.softmax(z, axis=1), cov, 0.1 * cov


def _make(kind, n=25, c=30):
    parts = _parts(n, c)
    if kind is RegressionPrediction:
        return kind(*parts, noise=np.ones((n, c)))
    if kind is SomeClassesPrediction:
        numbers = np.tile(np.arange(c), (n, 1))
        return kind(*parts, classes=numbers, log_odds=parts[0], log_odds_std=parts[0] ** 2)
    return kind(*parts)


KINDS = [Prediction, RegressionPrediction, MultiLabelPrediction, SomeClassesPrediction, Estimate]


def _table(html):
    """Titles of the columns, the index among them, and the cells of the rows."""
    head, body = re.search(r"(?s)<thead>(.*)</thead>\s*<tbody>(.*)</tbody>", html).groups()
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in body.split("</tr>")[:-1]]
    return re.findall(r"<th>(.*?)</th>", head.split("</tr>")[0]), rows


def _printed(thing):
    console = rich.console.Console(width=200, record=True, file=io.StringIO())
    console.print(thing)
    return console.export_text()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_notebook_shows_the_first_rows_of_the_frame(kind):
    prediction = _make(kind)
    titles, rows = _table(prediction._repr_html_())
    frame = prediction[:10].to_frame()
    assert len(titles) <= 16
    for name in list(frame)[:4]:
        values = [float(row[titles.index(name)]) for row in rows[:5]]
        np.testing.assert_allclose(values, frame[name].iloc[:5], rtol=6e-4)
    assert "the first 10" in prediction._repr_html_()
    assert "the first 10" not in prediction[:10]._repr_html_()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_terminal_shows_the_same_numbers(kind):
    prediction = _make(kind, c=2)
    text, frame = _printed(prediction), prediction[:10].to_frame()
    for name in list(frame)[:4]:
        assert name.replace("_", " ") in text
        assert f"{frame[name].iloc[0]:.4g}" in text
    assert "more columns" not in _printed(_make(SomeClassesPrediction, c=2))
    assert "more columns" in _printed(_make(Prediction))


def _comparison():
    pairs = Eigenpairs(np.ones(2), np.eye(3, 2), np.zeros(2), None, None, 1, True)
    prediction = _make(Prediction, c=3)
    return Comparison((Run("hessian", prediction, pairs, 1.0), Run("opg", prediction, pairs, 2.0)))


def test_a_comparison_is_a_table():
    comparison = _comparison()
    titles, rows = _table(comparison._repr_html_())
    assert [row[titles.index("seconds")] for row in rows[-2:]] == ["1", "2"]
    assert [row[0] for row in rows[-2:]] == ["hessian", "opg"]
    assert "Standard errors against curvature='hessian'" in _printed(comparison)
    assert "hessian&#x27;" in comparison._repr_html_()


def test_a_finding_is_not_cut_and_its_signs_are_escaped():
    words = "a finding that is longer than the fifty letters that pandas shows of a <cell>"
    html = Diagnosis((Finding("loss", "note", words),))._repr_html_()
    assert words.replace("<cell>", "&lt;cell&gt;") in html
    assert pd.get_option("display.max_colwidth") == 50


@pytest.mark.parametrize(
    "thing",
    [_make(Prediction), _comparison(), Diagnosis((Finding("loss", "ok", "as compiled"),))],
    ids=lambda thing: type(thing).__name__,
)
def test_without_pandas_a_notebook_falls_back_on_the_text(thing, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert thing._repr_html_() is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (np.float32(0.123456), "0.1235"),
        (1.5e-7, "1.5e-07"),
        (np.int64(12345), "12345"),
        (True, "True"),
        ("opg", "opg"),
    ],
)
def test_cells(value, text):
    assert cell(value) == text
