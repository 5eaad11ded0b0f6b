"""The plots show the numbers they are given: checked on what was drawn, not on pixels."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special

from deltauq import plots
from deltauq.curvature.rank_curve import RankCurve
from deltauq.errors import InvalidInputError, MissingDependencyError
from deltauq.evaluation.comparison import Comparison, Run
from deltauq.linalg import Eigenpairs
from deltauq.prediction import MultiLabelPrediction, Prediction, RegressionPrediction
from deltauq.report import Study


def _prediction(n=40, n_classes=4, scale=0.3, seed=0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, n_classes))
    root = scale * rng.normal(size=(n, n_classes, n_classes))
    cov = root @ np.swapaxes(root, 1, 2)
    p = scipy.special.softmax(logits, axis=1)
    slope = p[:, :, None] * np.eye(n_classes) - p[:, :, None] * p[:, None, :]
    return Prediction(logits, p, cov, slope @ cov @ slope)


def _regression(n=30, n_outputs=1, seed=0):
    rng = np.random.default_rng(seed)
    mean, var = rng.normal(size=(n, n_outputs)), 0.01 * rng.uniform(1, 4, (n, n_outputs))
    cov = var[:, :, None] * np.eye(n_outputs)
    return RegressionPrediction(mean, mean, cov, cov, noise=np.full((n, n_outputs), 0.04))


def _labels(n=40, n_labels=3, seed=0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, n_labels))
    p = scipy.special.expit(logits)
    cov = 0.1 * rng.uniform(1, 4, (n, n_labels))[:, :, None] * np.eye(n_labels)
    slope = p * (1 - p)
    return MultiLabelPrediction(logits, p, cov, cov * slope[:, :, None] ** 2)


class _Plane:
    """Class 0 where x > |y|, class 1 where y is positive, else class 2; surest far out."""

    def predict(self, x):
        logits = np.stack([x[:, 0], np.abs(x[:, 1]) * (x[:, 1] > 0), -x[:, 1]], axis=1)
        p = scipy.special.softmax(logits, axis=1)
        cov = np.broadcast_to(0.04 * np.eye(3), (len(x), 3, 3)).copy()
        slope = p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None, :]
        return Prediction(logits, p, cov, slope @ cov @ slope)


def _pairs(values, seed=0):
    values = np.asarray(values, float)
    rng = np.random.default_rng(seed)
    vectors = np.linalg.qr(rng.normal(size=(len(values) + 2, len(values))))[0]
    return Eigenpairs(values, vectors, np.zeros(len(values)), None, float(values[-1]), 1, True)


def _comparison(n=40, n_classes=4):
    runs = (
        Run("hessian", _prediction(n, n_classes), _pairs([3.0, 1.0]), 1.0),
        Run("opg", _prediction(n, n_classes, scale=0.4, seed=1), _pairs([3.0, 1.0]), 1.0),
    )
    return Comparison(runs)


def _legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def _gid(ax, gid):
    return [line for line in ax.lines if line.get_gid() == gid]


def _cells(ax):
    """The parts of a gallery."""
    return ax.figure.subfigs[-1].subfigs


@pytest.mark.quick
def test_wrong_predictions_are_counted_and_drawn_on_top_with_another_marker():
    prediction = _prediction()
    y = prediction.labels.copy()
    y[[3, 7, 11]] = (y[[3, 7, 11]] + 1) % 4
    ax = plots.probability_against_error(prediction, y)
    right, wrong = ax.collections
    assert _legend(ax) == ["right (37)", "wrong (3)"]
    c = prediction.labels[[3, 7, 11]]
    expected = np.column_stack(
        [prediction.probabilities[[3, 7, 11], c], prediction.std[[3, 7, 11], c]]
    )
    np.testing.assert_allclose(wrong.get_offsets(), expected)
    assert len(right.get_offsets()) == 37
    assert wrong.get_zorder() > right.get_zorder()
    shapes = [len(collection.get_paths()[0].vertices) for collection in (right, wrong)]
    assert shapes[0] != shapes[1]


@pytest.mark.quick
def test_without_labels_every_input_is_one_point():
    ax = plots.probability_against_error(_prediction())
    assert _legend(ax) == ["inputs (40)"]
    assert len(ax.collections[0].get_offsets()) == 40


def test_comparison_draws_the_line_that_its_legend_and_the_metrics_state():
    comparison = _comparison()
    ax = plots.comparison(comparison, "opg")
    fit = comparison.agreement("opg")
    assert f"slope {fit.slope:.3g}, R² = {fit.r_squared:.3g}" in _legend(ax)
    diagonal, line = ax.lines
    x, y = line.get_data()
    assert y[-1] / x[-1] == pytest.approx(fit.slope)
    np.testing.assert_array_equal(*diagonal.get_data())
    drawn = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(drawn[:, 0], comparison.reference.prediction.std.ravel())
    np.testing.assert_allclose(drawn[:, 1], comparison["opg"].prediction.std.ravel())
    assert ax.get_xlim()[1] == ax.get_ylim()[1] > drawn.max()


def test_many_points_are_thinned_the_same_way_every_time_and_the_slope_keeps_all():
    comparison = _comparison(n=1400)
    first, second = (plots.comparison(comparison, "opg") for _ in range(2))
    points = np.asarray(first.collections[0].get_offsets())
    assert len(points) == 5000
    np.testing.assert_array_equal(points, second.collections[0].get_offsets())
    assert "probabilities (5,000 of 5,600 drawn)" in _legend(first)
    fit = comparison.agreement("opg")
    assert first.lines[1].get_ydata()[-1] / first.get_xlim()[1] == pytest.approx(fit.slope)


def test_negative_eigenvalues_are_drawn_as_absolute_values_and_counted():
    ax = plots.spectrum(_pairs([4.0, 1.0, 0.2, -0.05, -0.3]), l2=0.1, label="hessian")
    (positive,) = _gid(ax, "deltauq.spectrum")
    (negative,) = _gid(ax, "deltauq.spectrum.negative")
    np.testing.assert_array_equal(positive.get_xydata(), [[1, 4.0], [2, 1.0], [3, 0.2]])
    np.testing.assert_array_equal(negative.get_xydata(), [[4, 0.05], [5, 0.3]])
    assert negative.get_marker() != positive.get_marker()
    assert _legend(ax) == ["L2 rate 0.1", "hessian", "hessian, negative: absolute value (2)"]
    assert ax.get_yscale() == "log"


def test_spectra_share_axes_with_different_line_styles_and_one_l2_line():
    ax = plots.spectrum(_pairs([4.0, 1.0, 0.2]), l2=0.1, label="hessian")
    assert plots.spectrum(_pairs([9.0, 2.0]), label="opg", ax=ax) is ax
    plots.spectrum(_pairs([3.0, 1e-3]), label="ggn", ax=ax)
    lines = _gid(ax, "deltauq.spectrum")
    for get in ("get_color", "get_linestyle", "get_marker"):
        assert len({getattr(line, get)() for line in lines}) == 3, get
    assert [line.get_ydata()[0] for line in _gid(ax, "deltauq.l2")] == [0.1]
    low, high = ax.get_ylim()
    assert low < 1e-3
    assert high > 9.0


@pytest.mark.parametrize(("l2", "floor"), [(0.1, 1e-4), (None, 4e-8)])
def test_values_that_are_zero_to_rounding_do_not_stretch_the_axis(l2, floor):
    ax = plots.spectrum(_pairs([4.0, 1.0, 1e-17, 0.0, -1e-17, -0.5]), l2=l2, label="h")
    assert ax.get_ylim()[0] == pytest.approx(floor)
    assert "h, negative: absolute value (1, and 1 below the axis)" in _legend(ax)


def test_an_empty_spectrum_can_be_drawn():
    empty = Eigenpairs(np.zeros(0), np.zeros((3, 0)), np.zeros(0), None, None, 1, True)
    plots.spectrum(empty).figure.draw_without_rendering()


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_whiskers_end_where_the_interval_does(level):
    prediction = _prediction()
    ax = plots.class_bars(prediction, 5, level=level)
    lower, upper = prediction.interval(level)
    (whiskers,) = ax.collections
    ends = np.array([segment[:, 0] for segment in whiskers.get_segments()])
    np.testing.assert_allclose(ends, np.column_stack([lower[5], upper[5]]), atol=1e-12)
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(widths, prediction.probabilities[5])


def test_the_true_class_is_named_and_set_in_bold():
    prediction = _prediction()
    y = np.full(40, 2)
    ax = plots.class_bars(prediction, 0, class_names=["ant", "bee", "cat", "dog"], y=y)
    labels = ax.get_yticklabels()
    assert [label.get_text() for label in labels] == ["ant", "bee", "cat (true)", "dog"]
    assert [label.get_fontweight() for label in labels] == ["normal", "normal", "bold", "normal"]
    edges = [bar.get_edgecolor()[3] > 0 for bar in ax.patches]
    assert edges == [False, False, True, False]


def test_of_many_classes_the_most_probable_and_the_true_one_are_shown():
    prediction = _prediction(n=3, n_classes=30)
    true = int(np.argmin(prediction.probabilities[1]))
    ax = plots.class_bars(prediction, 1, y=np.full(3, true))
    top = sorted({*np.argsort(-prediction.probabilities[1])[:10].tolist(), true})
    names = [label.get_text().removesuffix(" (true)") for label in ax.get_yticklabels()]
    assert names == [str(c) for c in top]


@pytest.mark.parametrize("shape", [(40, 5, 6), (40, 5, 6, 1), (40, 5, 6, 3)])
def test_gallery_pairs_each_image_with_its_bars_and_a_title(shape):
    prediction = _prediction()
    y = (prediction.labels + 1) % 4
    images = np.random.default_rng(0).normal(size=shape)
    ax = plots.gallery(prediction, images, [4, 9, 1], class_names=list("abcd"), y=y)
    ax.figure.draw_without_rendering()
    cells = _cells(ax)
    titles = [cell.get_suptitle() for cell in cells]
    c = prediction.labels[4]
    p, se = prediction.probabilities[4, c], prediction.std[4, c]
    assert titles[0] == (
        f"predicted {'abcd'[c]} (p = {p:.2f} ± {se:.2f}), true {'abcd'[(c + 1) % 4]}"
    )
    assert titles[3] == ""
    assert [len(cell.axes) for cell in cells] == [2, 2, 2, 0]
    shown = cells[0].axes[0].images[0]
    picture = np.asarray(shown.get_array())
    assert picture.shape == (5, 6, *((3,) if shape[3:] == (3,) else ()))
    if shape == (40, 5, 6):
        np.testing.assert_array_equal(picture, images[4])
        assert shown.get_clim() == (images.min(), images.max())
    if shape[3:] == (3,):
        assert 0 <= picture.min() < picture.max() <= 1


@pytest.mark.parametrize(("scale", "said"), [(1e-7, "less than 0.0001"), (1e3, "more than 0.5")])
def test_a_title_claims_no_error_of_zero_and_none_beyond_a_probability(scale, said):
    prediction = _prediction(n=2, scale=scale)
    ax = plots.gallery(prediction, np.ones((2, 2, 2)), [0])
    (title,) = (cell.get_suptitle() for cell in _cells(ax))
    assert f"± {said})" in title


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: plots.probability_against_error(p, [0, 1]), r"y does not fit.*\[40\].*\[2\]"),
        (lambda p: plots.class_bars(p, 40), "index names no input.*0 to 39.*40"),
        (lambda p: plots.class_bars(p, 0, class_names=["a"]), "class_names has the wrong length"),
        (lambda p: plots.gallery(p, np.ones((40, 2, 2)), []), "nothing to show"),
        (lambda p: plots.gallery(p, np.ones((39, 2, 2)), [0]), r"images do not.*\[39, 2, 2\]"),
        (lambda p: plots.gallery(p, np.ones((40, 2, 2, 2)), [0]), r"or \[40, h, w, 3\]"),
        (lambda p: plots.reliability(p, [0, 1]), r"y does not fit.*class numbers \[40\]"),
        (lambda p: plots.reliability(p, p.labels, n_bins=0), r"n_bins is not a whole number >= 1"),
        (lambda p: plots.risk_coverage(p, p.labels, score=[1.0]), r"score and wrong.*\[1\]"),
        (
            lambda p: plots.regression_band(_regression(), [1.0]),
            r"feature does not fit.*\[30\].*\[1\]",
        ),
        (lambda p: plots.mean_against_error(_regression(), output=1), r"names no output.*0 to 0"),
        (lambda p: plots.mean_against_error(_regression(), [1.0]), r"labels \[30, 1\]"),
        (lambda p: plots.decision_regions(_Plane(), np.ones((3, 4))), r"two features.*\[3, 4\]"),
        (
            lambda p: plots.decision_regions(_Plane(), np.eye(2), [0, 7]),
            r"y does not fit.*\[0, 7\]",
        ),
        (lambda p: plots.decision_regions(p, np.eye(2)), r"need predictions.*Prediction"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call(_prediction())


def test_given_axes_are_drawn_on_and_returned():
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(20, 15), layout="constrained")
    prediction, comparison, pairs = _prediction(), _comparison(), _pairs([2.0, 1.0])
    regression, y = _regression(), prediction.labels
    ax = figure.subplots(3, 4).ravel()
    assert plots.probability_against_error(prediction, ax=ax[0]) is ax[0]
    assert plots.comparison(comparison, "opg", ax=ax[1]) is ax[1]
    assert plots.spectrum(pairs, ax=ax[2]) is ax[2]
    assert plots.class_bars(prediction, 0, ax=ax[3]) is ax[3]
    assert plots.reliability(prediction, y, ax=ax[4]) is ax[4]
    assert plots.risk_coverage(prediction, y, ax=ax[5]) is ax[5]
    assert plots.mean_against_error(regression, ax=ax[6]) is ax[6]
    assert plots.regression_band(regression, np.arange(30.0), ax=ax[7]) is ax[7]
    assert plots.decision_regions(_Plane(), np.eye(2), ax=ax[8]) is ax[8]
    assert plots.gallery(prediction, np.ones((40, 3, 3)), [0, 1], ax=ax[9]) is ax[9]
    assert len(_cells(ax[9])[0].axes) == 2
    figure.draw_without_rendering()


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install matplotlib; .*\[plots\]"):
        plots.spectrum(_pairs([2.0, 1.0]))


def test_plots_load_neither_matplotlib_at_import_nor_pyplot_when_drawing():
    code = (
        "import sys, types, numpy as np; from deltauq import plots;"
        "assert 'matplotlib' not in sys.modules;"
        "plots.spectrum(types.SimpleNamespace(values=np.array([2.0, 1.0]), n_params=2));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_notebook_shows_what_is_drawn_but_not_the_figures_of_a_report(monkeypatch):
    from matplotlib import pyplot

    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    ax = plots.probability_against_error(_prediction())
    shown = [pyplot.figure(number) for number in pyplot.get_fignums()]
    assert ax.figure in shown
    pyplot.close(ax.figure)
    prediction = _prediction()
    run = Run(
        "ggn",
        prediction,
        Eigenpairs(np.ones(2), np.eye(9, 2), np.zeros(2), 2.0, None, 1, True),
        1.0,
    )
    assert Study(run=run, y=prediction.labels).figures()
    assert not pyplot.get_fignums()


def test_no_setting_of_matplotlib_changes():
    matplotlib = pytest.importorskip("matplotlib")
    before = dict(matplotlib.rcParams)
    plots.gallery(_prediction(), np.ones((40, 3, 3)), [0, 1]).figure.draw_without_rendering()
    plots.spectrum(SimpleNamespace(values=np.array([2.0, -1.0]), n_params=2))
    assert dict(matplotlib.rcParams) == before


def test_rank_curve_names_the_rank_that_is_enough():
    curve = RankCurve(np.array([1, 10, 100]), np.array([0.9, 0.2, 0.01]), certified=True)
    ax = curve.plot()
    line, wanted = ax.lines
    np.testing.assert_allclose(line.get_xydata(), [[1, 0.9], [10, 0.2], [100, 0.01]])
    assert line.get_label() == "median width, certified"
    assert wanted.get_label() == "5.0%, reached at K = 100"
    assert plots.rank_curve(curve, width=0.001, ax=ax) is ax
    assert ax.lines[-1].get_label() == "0.1%, not reached"


def test_reliability_draws_the_shares_that_came_true_bin_by_bin():
    prediction = _prediction(n=400)
    y = np.where(np.arange(400) % 3 == 0, (prediction.labels + 1) % 4, prediction.labels)
    ax = plots.reliability(prediction, y, n_bins=5)
    p, right = prediction.probabilities.max(axis=1), prediction.labels == y
    drawn = ax.lines[1].get_xydata()
    counts = {text.get_text() for text in ax.texts}
    expected = []
    for low, high in zip(np.linspace(0, 0.8, 5), np.linspace(0.2, 1, 5), strict=True):
        here = (p > low) & (p <= high)
        if here.any():
            expected.append([p[here].mean(), right[here].mean()])
            assert str(here.sum()) in counts
    np.testing.assert_allclose(drawn, expected)


def test_reliability_of_labels_asks_whether_each_is_there():
    prediction = _labels()
    y = np.random.default_rng(1).integers(0, 2, (40, 3))
    ax = plots.reliability(prediction, y, n_bins=1)
    (point,) = ax.lines[1].get_xydata()
    np.testing.assert_allclose(point, [prediction.mean.mean(), y.mean()])
    assert ax.get_ylabel() == "share that was there"


def test_risk_and_coverage_of_the_score_stand_beside_the_baseline_and_the_best():
    prediction = _prediction(n=30)
    y = prediction.labels.copy()
    y[::5] = (y[::5] + 1) % 4
    ax = plots.risk_coverage(prediction, y)
    wrong = prediction.labels != y
    unsure = 1 - prediction.probabilities.max(axis=1)
    for line, score in zip(ax.lines, (prediction.score, unsure, wrong), strict=True):
        risks = [wrong[np.argsort(score, kind="stable")[:k]].mean() for k in range(1, 31)]
        if score is wrong:
            risks = [max(0, k - 24) / k for k in range(1, 31)]
        np.testing.assert_allclose(line.get_ydata(), risks)
        assert line.get_label().endswith(f"area {np.mean(risks):.3g}")
    assert len({line.get_linestyle() for line in ax.lines}) == 3
    given = plots.risk_coverage(prediction, y, score=unsure)
    np.testing.assert_array_equal(given.lines[0].get_ydata(), ax.lines[1].get_ydata())
    assert len(plots.risk_coverage(_labels(), np.ones((40, 3))).lines) == 2


def test_labels_are_points_of_their_own():
    prediction = _labels()
    y = np.zeros((40, 3))
    ax = plots.probability_against_error(prediction, y)
    wrong = int(np.sum(prediction.labels))
    assert _legend(ax) == [f"right ({120 - wrong})", f"wrong ({wrong})"]


def test_the_band_is_the_interval_in_the_order_of_the_feature():
    prediction = _regression(n_outputs=2)
    feature = np.random.default_rng(2).permutation(30).astype(float)
    ax = plots.regression_band(prediction, feature, prediction.mean, output=1, level=0.8)
    order = np.argsort(feature)
    mean = ax.lines[-1].get_xydata()
    np.testing.assert_allclose(mean, np.column_stack([feature, prediction.mean[:, 1]])[order])
    for band, of in zip(ax.collections, ("observation", "mean"), strict=False):
        lower, upper = prediction.interval(0.8, of=of)
        box = band.get_paths()[0].get_extents()
        assert box.ymin == pytest.approx(lower[:, 1].min())
        assert box.ymax == pytest.approx(upper[:, 1].max())
    assert _legend(ax) == ["80 %, an observation", "80 %, the mean", "mean", "observed"]


def test_observations_outside_their_interval_are_counted():
    prediction = _regression()
    y = prediction.mean[:, 0].copy()
    y[:4] += 3 * prediction.observation_std[:4, 0]
    ax = plots.mean_against_error(prediction, y)
    assert _legend(ax) == ["observation within its 95 % interval (26)", "outside (4)"]
    np.testing.assert_allclose(ax.collections[1].get_offsets()[:, 1], prediction.std[:4, 0])


def test_regions_have_the_colour_of_their_class_and_fade_where_the_score_is_high():
    points = np.array([[-2.0, -2.0], [2.0, 2.0]])
    ax = plots.decision_regions(_Plane(), points, resolution=30)
    picture = np.asarray(ax.images[0].get_array())
    left, right, bottom, top = ax.images[0].get_extent()
    values = [np.linspace(-2.48, 2.48, 30)] * 2
    assert (left + right, bottom + top) == pytest.approx((0, 0))
    grid = np.stack(np.meshgrid(*values), axis=-1).reshape(-1, 2)
    prediction = _Plane().predict(grid)
    labels = prediction.labels.reshape(30, 30)
    for c in range(3):
        assert len(np.unique(picture[labels == c][:, :3], axis=0)) == 1
    opacity = picture[..., 3].ravel()
    order = np.argsort(prediction.score)
    assert np.all(np.diff(opacity[order]) <= 1e-9)
    assert opacity.max() > 10 * opacity.min()
    assert _legend(ax) == ["0", "1", "2", "score"]


def test_points_of_an_estimator_are_named_by_its_classes():
    class Estimator(_Plane):
        classes_ = np.array(["east", "north", "south"])
        predict_uncertainty = _Plane.predict

        def predict(self, x):
            raise AssertionError

    points = np.array([[-2.0, -2.0], [2.0, 2.0], [1.0, 0.0]])
    ax = plots.decision_regions(Estimator(), points, ["south", "north", "east"], resolution=12)
    assert _legend(ax) == ["east", "north", "south", "score"]
    markers = [c for c in ax.collections if len(c.get_offsets()) == 1]
    drawn = [np.asarray(c.get_offsets())[0] for c in markers[-3:]]
    np.testing.assert_array_equal(drawn, points[[2, 1, 0]])
    ax.figure.draw_without_rendering()


def test_a_long_name_keeps_both_ends():
    prediction = _prediction(n_classes=2)
    names = ["the northern long-tailed duck, female", "the northern long-tailed duck, male"]
    ax = plots.class_bars(prediction, 0, class_names=names)
    shown = [label.get_text() for label in ax.get_yticklabels()]
    assert shown == ["the northern…uck, female", "the northern…duck, male"]


def test_a_gallery_needs_the_place_of_a_subplot():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    with pytest.raises(InvalidInputError, match="need the place of a subplot"):
        plots.gallery(_prediction(), np.ones((40, 2, 2)), [0], ax=figure.add_axes((0, 0, 1, 1)))


def test_no_two_of_many_classes_look_alike():
    styles = [plots.regions._style(c) for c in range(42)]
    assert len({(colour, hatch) for colour, hatch, _ in styles}) == 42
    assert len({(colour, marker) for colour, _, marker in styles}) == 42
