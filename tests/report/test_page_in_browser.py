"""The report as a browser shows it: nothing amiss, offline, on a telephone, in the dark, on paper.

Skipped, with the reason, where Debian's chromium is not installed.
"""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import scipy.special
from browser import Browser, find_chromium

from deltauq.curvature.cost import Stationarity
from deltauq.evaluation.checks import Finding
from deltauq.evaluation.comparison import Comparison, Run
from deltauq.evaluation.diagnosis import Diagnosis
from deltauq.evaluation.sample_estimates import CostEstimate
from deltauq.linalg import Eigenpairs
from deltauq.network.l2 import VariableRate
from deltauq.prediction import MultiLabelPrediction, Prediction, RegressionPrediction
from deltauq.report import Study

N = 40
LONG = "a name of a class that goes on and on until it is longer than a line of the table"
UNBROKEN = "ClassNamesMayAlsoBeOneWordWithoutAnyPlaceToBreakIt" * 4

#: Widths of a telephone and of a desk's screen, in CSS pixels.
NARROW, WIDE = 400, 1400


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    find_chromium()
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def _parts(c, seed=0):
    rng = np.random.default_rng(seed)
    z, root = 2 * rng.normal(size=(N, c)), 0.3 * rng.normal(size=(N, c, c))
    cov = root @ np.swapaxes(root, 1, 2)
    limits = np.sqrt(np.einsum("ncc->nc", cov))[..., None] * [0.9, 1.1]
    return {"logits": z, "logit_covariance": cov, "std_limits": 0.1 * limits, "covariance": cov / 9}


def _run(prediction, curvature="opg"):
    pairs = Eigenpairs(np.array([3.0, 1.0]), np.eye(9, 2), np.zeros(2), None, -0.1, 1, True)
    return Run(curvature, prediction, pairs, 1.0)


def _classes():
    parts = _parts(12)
    prediction = Prediction(mean=scipy.special.softmax(parts["logits"], axis=1), **parts)
    runs = tuple(_run(prediction, name) for name in ("hessian", "opg", "ggn"))
    findings = (
        Finding("loss", "ok", "as compiled"),
        Finding("weight decay", "warning", f"weights of {UNBROKEN} decay", "it matters", "retrain"),
    )
    rates = (VariableRate(f"{UNBROKEN}/kernel", 0.1, "l2=0.1"),)
    return Study.of_comparison(
        Comparison(runs, np.arange(N) % 12),
        class_names=[LONG, UNBROKEN, *(f"class {i}" for i in range(10))],
        images=np.random.default_rng(0).random((N, 8, 8)),
        stationarity=Stationarity(0.5, 0.003, 0.3, 0.29, 10.0),
        n_train=1000,
        l2=0.1,
        diagnosis=Diagnosis(findings, rates, costs=(CostEstimate("opg", 9, 2**30, 3.0),)),
    )


def _labels():
    parts = _parts(3)
    prediction = MultiLabelPrediction(mean=scipy.special.expit(parts["logits"]), **parts)
    return Study("Labels", _run(prediction), np.ones((N, 3)), (LONG, UNBROKEN, "wet"))


def _numbers():
    parts = _parts(2)
    prediction = RegressionPrediction(mean=parts["logits"], noise=np.ones((N, 2)), **parts)
    return Study("Numbers", _run(prediction), prediction.mean + 1, (UNBROKEN, "weight"))


STUDIES = {"classes": _classes, "labels": _labels, "numbers": _numbers}


@pytest.fixture(scope="module", params=STUDIES)
def page(request, browser, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(STUDIES[request.param]().to_html(), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_it_opens_offline_without_a_complaint_and_fits_the_window(browser, page, width, dark):
    browser.open(page, width=width, dark=dark)
    assert browser.problems == []
    assert {url for url in browser.requests if not url.startswith("data:")} == {page.as_uri()}
    assert browser.run("innerWidth") == width
    assert browser.run("document.documentElement.scrollWidth") <= width
    shown = browser.run("[...document.images].map(i => [i.complete, i.naturalWidth, i.width])")
    assert shown
    assert all(complete and natural > 0 and width > 100 for complete, natural, width in shown)


def _luminance(colour):
    parts = np.array([float(part) for part in re.findall(r"[\d.]+", colour)[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(browser, page, dark):
    """Contrast as WCAG 2.1 asks of small text, 4.5 at least."""
    browser.open(page, width=WIDE, dark=dark)
    colours = browser.run(
        "[...document.querySelectorAll('p, li, dt, dd, td, th, h1, h2, h3, figcaption, footer')]"
        ".map(e => { let b = e; while (b && getComputedStyle(b).backgroundColor ==="
        " 'rgba(0, 0, 0, 0)') b = b.parentElement;"
        " return [getComputedStyle(e).color, getComputedStyle(b).backgroundColor]; })"
    )
    for text, behind in {tuple(pair) for pair in colours}:
        low, high = sorted((_luminance(text), _luminance(behind)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, behind)
        assert (_luminance(behind) < 0.1) == dark


def test_no_word_of_a_table_is_cut_within_its_cell(browser, page):
    for width in (NARROW, WIDE):
        browser.open(page, width=width)
        assert (
            browser.run(
                "[...document.querySelectorAll('td, th')]"
                ".filter(c => c.scrollWidth > c.clientWidth + 1).map(c => c.textContent)"
            )
            == []
        )


def test_on_paper_nothing_reaches_beyond_the_edge_and_ink_is_dark(browser, page):
    browser.open(page, width=718, dark=True, media="print")  # A4 within its margins
    beyond = browser.run(
        "[...document.querySelectorAll('table, img, p, dl')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
    )
    assert beyond == []
    assert browser.run("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    pdf = browser.print_to_pdf()
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")


def test_headings_come_in_order_and_pictures_have_words(browser, page):
    browser.open(page, width=WIDE)
    levels = browser.run("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert browser.run("[...document.images].every(i => i.alt.length > 20)")
    assert browser.run("document.documentElement.lang") == "en"


def test_the_driver_sees_a_complaint_a_request_and_an_overflow(browser, tmp_path):
    """What the tests above rely on is seen where it is there."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<p style='width: 3000px'>wide</p><img src='http://127.0.0.1:9/x.png'>"
        "<script>console.error('no'); throw Error('out');</script>"
    )
    browser.open(bad, width=WIDE)
    events = {event for event, _ in browser.problems}
    assert {
        "Runtime.exceptionThrown",
        "Runtime.consoleAPICalled",
        "Network.loadingFailed",
    } <= events
    assert "http://127.0.0.1:9/x.png" in browser.requests
    assert browser.run("document.documentElement.scrollWidth") == 3008


def test_without_chromium_the_reason_is_said(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match="chromium is not installed: apt-get install"):
        find_chromium()


def test_a_diagnosis_alone_fits_too(browser, tmp_path):
    path = tmp_path / "diagnosis.html"
    path.write_text(_classes().diagnosis.to_html(), encoding="utf-8")
    browser.open(path, width=NARROW)
    assert browser.problems == []
    assert browser.run("document.documentElement.scrollWidth") <= NARROW
