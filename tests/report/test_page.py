"""The report states the study's numbers, claims no more than they show, and needs no other file."""

from __future__ import annotations

import base64
import dataclasses
import re
import struct
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import scipy.special

from deltauq.curvature.cost import Stationarity
from deltauq.errors import InvalidInputError, MissingDependencyError
from deltauq.evaluation.comparison import Comparison, Run
from deltauq.linalg import Eigenpairs, NormBound
from deltauq.prediction import Prediction
from deltauq.report import Study, figures, to_html

N, C = 60, 4


def _prediction(scale=0.3, seed=0):
    rng = np.random.default_rng(seed)
    logits = 2 * np.random.default_rng(0).normal(size=(N, C))
    root = scale * rng.normal(size=(N, C, C))
    cov = root @ np.swapaxes(root, 1, 2)
    p = scipy.special.softmax(logits, axis=1)
    slope = p[:, :, None] * np.eye(C) - p[:, :, None] * p[:, None, :]
    return Prediction(logits, p, cov, slope @ cov @ slope)


def _pairs(values, smallest=None, n_params=1234):
    vectors = np.eye(n_params, len(values))
    return Eigenpairs(np.array(values), vectors, np.zeros(len(values)), None, smallest, 1, True)


def _study(**changes):
    runs = (
        Run("hessian", _prediction(), _pairs([4.0, 1.0, 0.1], smallest=-0.125), 12.34),
        Run("opg", _prediction(0.4, 1), _pairs([5.0, 2.0]), 1.5),
        Run("ggn", _prediction(0.3, 2), _pairs([4.0, 1.0]), 2.5),
    )
    y = runs[0].prediction.labels.copy()
    y[::7] = (y[::7] + 1) % C
    study = Study.of_comparison(
        Comparison(runs, y),
        title="Four kinds",
        stationarity=Stationarity(0.5, 0.003, 0.3, 0.29, 10.0),
        verdict="stationary",
        tolerance=0.02,
        l2=0.05,
        spectrum_l2=0.05,
        n_train=4321,
        class_names=("ant", "bee", "cat", "dog"),
    )
    return dataclasses.replace(study, **changes)


def _with_y(y):
    study = _study()
    return dataclasses.replace(study, y=y, comparison=Comparison(study.comparison.runs, y))


def _wrong_where(chosen):
    """A study in which exactly the chosen inputs are misclassified."""
    labels = _prediction().labels
    return _with_y(np.where(chosen, (labels + 1) % C, labels))


def _text(html):
    """What a reader sees, spaces collapsed."""
    body = re.sub(r"(?s)<style>.*?</style>", " ", html)
    return " ".join(re.sub(r"(?s)<[^>]*>", " ", body).split())


class _Page(HTMLParser):
    """Elements that must close, and every attribute of every element."""

    def __init__(self, html):
        super().__init__()
        self.open, self.attributes, self.unbalanced = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open.pop() != tag:
            self.unbalanced.append(tag)


def test_the_figures_come_in_order_and_the_galleries_only_with_images():
    found = ["probability_against_error", "risk_coverage", "reliability"]
    rest = ["hessian_against_opg", "hessian_against_ggn", "spectra"]
    assert list(figures(_study())) == [*found, *rest]
    images = np.random.default_rng(0).random((N, 4, 4))
    drawn = _study(images=images).figures()
    assert list(drawn) == [*found, "most_uncertain", "least_uncertain", *rest]
    order = np.argsort(-_prediction().score)
    for name, expected in (("most_uncertain", order[:6]), ("least_uncertain", order[::-1][:6])):
        cells = drawn[name].subfigs[0].subfigs
        shown = [ax.images[0].get_array() for cell in cells for ax in cell.axes if ax.images]
        np.testing.assert_array_equal(shown, images[expected])


def test_the_page_refers_to_nothing_outside_itself_and_closes_its_elements():
    whole = to_html(_study(images=np.ones((N, 4, 4))))
    page = _Page(whole)
    assert page.open == page.unbalanced == []
    references = [value for _, name, value in page.attributes if name in ("src", "href")]
    assert all(value.startswith("data:image/png;base64,") for value in references)
    html = re.sub(r"base64,[\w+/=]+", "", whole)
    for forbidden in ("http", "//", "<script", "<link", "@import", "url("):
        assert forbidden not in html, forbidden


@pytest.mark.wide  # its references and elements: the test before
def test_every_figure_is_embedded_as_png_with_a_text_of_its_own():
    study = _study(images=np.ones((N, 4, 4)))
    drawn = figures(study)
    page = _Page(to_html(study, drawn))
    sources = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    texts = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert len(sources) == len(drawn) == len(set(texts))
    assert all(len(text) > 20 for text in texts)
    widths = []
    for source in sources:
        png = base64.b64decode(source.partition(",")[2])
        assert png.startswith(b"\x89PNG")
        widths.append(struct.unpack(">I", png[16:20])[0])
    assert sorted(widths) == sorted(int(144 * f.get_figwidth()) for f in drawn.values())


def test_only_the_figures_given_are_shown():
    study = _study()
    drawn = figures(study)
    page = to_html(study, {"spectra": drawn["spectra"]})
    assert page.count("<img") == 1
    assert to_html(study, {}).count("<img") == 0


def test_a_title_and_class_names_are_escaped():
    study = _study(
        title="<script>alert(1)</script>", class_names=("<b>a</b>", "<b>b</b>", "<i>", "&")
    )
    html = to_html(study, {})
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert "<b>" not in html
    assert "<i>" not in html


def test_the_headline_figures_are_the_studys():
    text = _text(to_html(_study(), {}))
    assert "Accuracy 85.0 % 9 of 60 wrong" in text
    assert "Training examples 4,321" in text
    assert "Inputs 60" in text
    assert "Parameters 1,234" in text
    assert "Classes 4" in text
    assert "L2 rate 0.05" in text
    assert "L2 rate" not in _text(to_html(_study(l2=None), {})).split("The curvatures")[0]


@pytest.mark.parametrize(
    ("verdict", "meaning"),
    [
        ("stationary", "vanishes to the stated tolerance"),
        ("stopped at a kink", "read the standard errors as approximate"),
        ("not converged", "Read them as provisional"),
        ("near a minimum", "by less than their standard errors"),
        ("far from a minimum", "the L2 rate is not the one the weights were trained with"),
        ("something new", ""),
    ],
)
def test_the_verdict_is_stated_with_what_it_means(verdict, meaning):
    text = _text(to_html(_study(verdict=verdict), {}))
    assert f"The weights: {verdict}." in text
    assert meaning in text


@pytest.mark.parametrize(
    ("data_norm", "shifts", "verdict"),
    [
        (3e-4, (), "stationary"),
        (0.3, (0.2, 0.1), "near a minimum"),
        (0.3, (3.0, 2.0), "far from a minimum"),
        (0.3, (3.0, 0.1), "not at a minimum"),  # a low rank leaves it open
        (0.3, (), "not at a minimum"),  # a diagnosis leaves it to a fit
    ],
)
def test_without_a_verdict_the_gradient_and_the_step_give_one(data_norm, shifts, verdict):
    found = Stationarity(0.5, 0.5 * data_norm, data_norm, 0.29, 10.0, *shifts)
    text = _text(to_html(_study(verdict=None, stationarity=found), {}))
    assert f"The weights: {verdict}." in text


@pytest.mark.parametrize(("tolerance", "side"), [(0.02, "within"), (0.001, "above")])
def test_the_gradient_ratio_is_compared_with_the_tolerance(tolerance, side):
    text = _text(to_html(_study(tolerance=tolerance), {}))
    assert (
        f"What is left is 0.01 of the larger part, {side} the stated tolerance of {tolerance}."
        in text
    )


def _score_and_baseline():
    prediction = _prediction()
    return prediction.score, 1 - prediction.probabilities.max(axis=1)


def test_the_page_says_how_far_averaging_moves_probabilities():
    prediction = _prediction()
    moved = np.abs(prediction.predictive().probabilities - prediction.probabilities).max(axis=1)
    said = f"by up to {np.median(moved):.3g} for a typical input, and by {moved.max():.3g} at most"
    assert said in _text(to_html(_study(), {}))


def test_the_score_is_called_better_only_when_it_clearly_is():
    score, _ = _score_and_baseline()
    study = _wrong_where(score > np.quantile(score, 0.85))
    assert study.comparison.auroc("hessian") == 1
    assert study.comparison.baseline_auroc() < 0.98
    text = _text(to_html(study, {}))
    assert "The score finds the wrong predictions better here" in text
    assert "(9 wrong predictions out of 60)" in text


def test_the_score_is_called_lower_when_it_is():
    _, baseline = _score_and_baseline()
    study = _wrong_where(baseline > np.quantile(baseline, 0.85))
    lead = study.comparison.auroc("hessian") - 1
    assert lead < -0.02
    text = _text(to_html(study, {}))
    assert f"The score is lower by {-lead:.3f}" in text
    assert "better" not in text


def test_a_small_lead_is_called_as_good():
    """The one wrong prediction is an input that both rank high."""
    score, baseline = _score_and_baseline()
    both = np.minimum(np.argsort(np.argsort(score)), np.argsort(np.argsort(baseline)))
    study = _wrong_where(both == both.max())
    lead = study.comparison.auroc("hessian") - study.comparison.baseline_auroc()
    assert abs(lead) <= 0.02
    text = _text(to_html(study, {}))
    assert "The two are as good as each other" in text
    assert "finds the wrong predictions better" not in text


@pytest.mark.parametrize("seed", range(20))
def test_no_random_study_is_called_better_without_a_lead_above_two_hundredths(seed):
    study = _wrong_where(np.random.default_rng(seed).random(N) < 0.3)
    lead = study.comparison.auroc("hessian") - study.comparison.baseline_auroc()
    assert ("wrong predictions better here" in _text(to_html(study, {}))) == (lead > 0.02)


def test_the_two_aurocs_stand_side_by_side():
    study = _study()
    text = _text(to_html(study, {}))
    score, baseline = study.comparison.auroc("hessian"), study.comparison.baseline_auroc()
    assert (
        f"AUROC of the score, from the standard errors {score:.3f} "
        f"AUROC of 1 \N{MINUS SIGN} max p, from the probabilities alone {baseline:.3f}"
    ) in text


def test_without_labels_nothing_is_said_about_errors():
    text = _text(to_html(_with_y(None), figures(_with_y(None))))
    assert "AUROC of the score, from" not in text
    assert "Are the probabilities themselves right?" not in text
    assert "Accuracy" not in text
    assert "Among the wrong" not in text
    assert "True" not in text


def test_without_wrong_predictions_the_score_is_not_judged():
    text = _text(to_html(_with_y(_prediction().labels), {}))
    assert "All predictions are right, or all are wrong, so neither can be judged." in text
    assert "Accuracy 100.0 % 0 of 60 wrong" in text


def _rows(html, label):
    """Texts of the cells of a table's body, and its rows."""
    table = html[html.index(f'aria-label="{label}"') :]
    rows = table[table.index("<tbody>") : table.index("</tbody>")].split("</tr>")[:-1]
    return [[_text(cell) for cell in re.split(r"</t[hd]>", row)[:-1]] for row in rows], rows


def test_the_comparison_table_holds_the_rows_of_the_comparison():
    study = _study()
    printed, _ = _rows(to_html(study, {}), "Comparison of the curvatures")
    assert printed[0][0] == "exact Hessian (reference)"
    for row, cells in zip(study.comparison.rows()[1:], printed[1:], strict=True):
        assert cells[0] == row["curvature"].upper()
        assert int(cells[1]) == row["rank"]
        names = ("median_std", "slope", "r_squared", "spearman", "median_ratio", "auroc")
        values = [float(cell.replace("\N{MINUS SIGN}", "-")) for cell in cells[2:]]
        expected = [row[name] for name in (*names, "seconds", "kept_megabytes")]
        np.testing.assert_allclose(values[:6], expected[:6], rtol=5.1e-3)
        np.testing.assert_allclose(values[6:], expected[6:], atol=0.051)


@pytest.mark.parametrize("bounded", [False, True])
def test_the_table_of_inputs_lists_the_ten_highest_scores_with_their_intervals(bounded):
    study = _study()
    if bounded:
        study = _bounded(study)
    cells, rows = _rows(to_html(study, {}), "The most uncertain inputs")
    prediction, y = study.prediction, study.y
    lower, upper = prediction.interval(0.95)
    averaged = prediction.predictive("probit").probabilities
    order = np.argsort(-prediction.score)[:10]
    assert len(rows) == 10
    for i, row, found in zip(order, rows, cells, strict=True):
        c = prediction.labels[i]
        se = prediction.std[i, c]
        assert found == [
            str(i),
            study.class_names[c],
            study.class_names[y[i]],
            f"{prediction.probabilities[i, c]:.3f}",
            f"{averaged[i, c]:.3f}",
            f"{se:.3g}",
            *([f"{0.9 * se:.3g} and {se:.3g}"] if bounded else []),
            f"{lower[i, c]:.3f} to {upper[i, c]:.3f}",
            f"{prediction.score[i]:.3g}",
        ]
        assert ('class="marked"' in row) == (c != y[i])


def _bounded(study, width=0.1, failure=1e-6, certified=True):
    """Standard errors that are known to a relative width."""
    run = study.run
    prediction = run.prediction
    limits = np.stack([(1 - width) * prediction.std, prediction.std], axis=-1)
    bound = NormBound(bound=0.2, at_least=0.1, failure=failure, products=10)
    run = dataclasses.replace(
        run,
        prediction=dataclasses.replace(prediction, std_limits=limits, certified=certified),
        eigenpairs=dataclasses.replace(run.eigenpairs, left_out=bound),
    )
    return dataclasses.replace(study, run=run)


def test_the_width_of_the_bounds_and_their_failure_are_stated():
    text = _text(to_html(_bounded(_study(tail="midpoint")), {}))
    assert "Eigenpairs 3 of 1,234, the exact Hessian&#39;s Width 10 % of a" in text
    assert (
        "Kind of interval certified wrong with probability 1 \N{MULTIPLICATION SIGN} 10⁻⁶ at most"
        in text
    )
    assert "its width is 10 % of its upper end for a typical standard error" in text
    assert "the middle between what they could be" in text
    assert "More eigenpairs would narrow it" in text
    narrow = _text(to_html(_bounded(_study(), width=0.02), {}))
    assert "More eigenpairs" not in narrow
    assert "estimate" not in text.split("How sure are the numbers?")[1]


def test_a_certain_bound_is_told_from_a_probable_one_and_from_an_estimate():
    text = _text(to_html(_bounded(_study(), failure=0.0), {}))
    assert "certified true up to rounding" in text
    text = _text(to_html(_bounded(_study(), certified=False), {}))
    assert "Kind of interval estimate not a bound" in text
    assert "certified" not in text
    assert "mathematical bound" not in text


def test_standard_errors_without_bounds_claim_none():
    text = _text(to_html(_study(), {}))
    assert "how far the rest would move the standard errors is not known" in text
    assert "Kind of interval" not in text


def test_each_curvature_says_how_far_its_standard_errors_are_known():
    study = _study()
    limits = np.repeat(_prediction().std[..., None], 2, axis=2)
    runs = [
        dataclasses.replace(run, prediction=dataclasses.replace(run.prediction, std_limits=found))
        for run, found in zip(
            study.comparison.runs, (limits, limits * [0.5, 2.0], None), strict=True
        )
    ]
    study = _study(comparison=Comparison(tuple(runs), study.comparison.y))
    told = _text(to_html(study, {})).partition("How far the standard errors are known")[2]
    assert "exact Hessian: exact to rounding. OPG: between" in told
    assert f"OPG: {runs[1].certainty}. GGN: without bounds." in told


def test_all_eigenpairs_leave_nothing_out():
    study = _study()
    run = dataclasses.replace(study.run, eigenpairs=_pairs([3.0, 2.0, 1.0], n_params=3))
    text = _text(to_html(dataclasses.replace(study, run=run, tail="midpoint"), {}))
    assert "Nothing of the curvature was left out." in text
    assert "directions left out" not in text


def _with_smallest(smallest):
    study = _study()
    runs = list(study.comparison.runs)
    runs[0] = dataclasses.replace(runs[0], eigenpairs=_pairs([4.0, 1.0], smallest=smallest))
    comparison = Comparison(tuple(runs), study.comparison.y)
    return dataclasses.replace(study, run=runs[0], comparison=comparison)


def test_negative_curvature_is_reported_with_its_size():
    text = _text(to_html(_with_smallest(-0.125), {}))
    assert (
        "The exact Hessian of the data is not positive definite at these weights: its smallest "
        "eigenvalue found is \N{MINUS SIGN}0.125, where the largest is 4 and the L2 rate 0.05. "
        "Negative data curvature was set to zero"
    ) in text
    kept = dataclasses.replace(_with_smallest(-0.125), negative_curvature="keep")
    assert "It was used as it is." in _text(to_html(kept, {}))


@pytest.mark.parametrize("smallest", [None, 0.0, 0.3])
def test_no_negative_curvature_is_reported_where_there_is_none(smallest):
    text = _text(to_html(_with_smallest(smallest), {}))
    assert "positive definite" not in text
    assert "negative curvature" not in text


def test_rounding_is_not_reported_as_negative_curvature():
    text = _text(to_html(_with_smallest(-1e-15), {}))
    assert "is zero to rounding" in text
    assert "not positive definite" not in text


def test_only_the_curvatures_compared_are_explained():
    study = _study()
    two = dataclasses.replace(
        study, comparison=Comparison(study.comparison.runs[:2], study.comparison.y)
    )
    text = _text(to_html(two, {}))
    assert "The curvature was taken in 2 ways" in text
    assert "OPG, outer products of gradients" in text
    assert "GGN" not in text
    one = dataclasses.replace(study, comparison=None)
    text = _text(to_html(one, {}))
    assert "The curvature is the exact Hessian: the full second derivative" in text
    assert "side by side" not in text


def test_class_names_that_do_not_fit_are_refused():
    with pytest.raises(InvalidInputError, match=r"class_names.*4 names.*Received: 2"):
        _study(class_names=("a", "b"))


def test_y_that_does_not_fit_is_refused():
    with pytest.raises(InvalidInputError, match=r"y does not fit.*class numbers \[60\].*\[3\]"):
        _study(y=np.zeros(3, int))


def test_a_study_of_nothing_is_refused():
    with pytest.raises(InvalidInputError, match=r"there is nothing to report.*with a run"):
        Study().to_html()
    with pytest.raises(InvalidInputError, match="the study has no predictions"):
        _ = Study().prediction
    run = _study().run
    with pytest.raises(InvalidInputError, match=r"nothing to report.*at least one input"):
        Study(run=dataclasses.replace(run, prediction=run.prediction[:0]))


def test_without_jinja2_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install jinja2; .*\[report\]"):
        to_html(_study(), {})
