"""Experiments of benchmarks/evidence run at a tiny size; their pages are what JSON renders to."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.special
from evidence import (
    advice,
    as_trained,
    baselines,
    calibration_of_averages,
    carried,
    checks,
    cross_checks,
    curvatures,
    frame,
    which_score,
)
from evidence.training import Recipe
from marks import wide_but

from deltauq.delta.settings import Settings
from deltauq.evaluation.metrics import error_auroc

TINY = Recipe("iris", hidden=(3,), l2=1e-2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Predictions of members are kept in a folder of the test."""
    for module in (baselines, frame):
        monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.mark.filterwarnings("ignore")  # those of the peers, of their own parts
@pytest.mark.parametrize("name", wide_but(["delta_bootstrap"], frame.EXPERIMENTS))
def test_an_experiment_gives_finite_rows_and_a_page(name):
    found = frame.conduct(name, "tiny")
    assert found["rows"]
    for row in found["rows"]:
        assert all(math.isfinite(v) for v in row.values() if isinstance(v, float)), row
    text = frame.page(name, found)
    assert all(
        f"\n## {t.title}\n" in text for t in frame.experiment(name).tables(found["rows"]) if t.rows
    )
    assert "nan" not in text.replace("nan ", "")


@pytest.mark.parametrize("name", frame.EXPERIMENTS)
def test_the_page_of_an_experiment_is_what_its_figures_render_to(name):
    path = frame.DOCS / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{name} was not published yet")
    assert path.with_suffix(".md").read_text() == frame.page(name, json.loads(path.read_text()))
    assert path.with_suffix(".svg").exists()


def test_the_page_of_settings_is_what_all_figures_render_to():
    assert (frame.DOCS / "settings.md").read_text() == advice.page(frame.figures())


def test_the_default_curvature_is_what_its_rule_asks_for():
    assert Settings().curvature == curvatures.default(frame.figures()["curvatures"])


def test_the_default_rank_is_what_its_rule_asks_for():
    ranks = [row for row in frame.figures()["curvatures"] if "auto off" in row]
    assert f'stays "{Settings().rank}"' in curvatures.rank_verdict(ranks)


def test_the_advice_is_what_the_figures_say():
    """It was written by hand: each row falls when a new run says something else."""
    found = frame.figures()
    of = {row["curvature"]: row for row in curvatures.judged(found["curvatures"])}
    to_hessian = {
        kind: list(curvatures._figures(found["curvatures"], kind, "to hessian").values())
        for kind in ("ggn", "opg")
    }
    assert all(0.8 < ratio < 1.25 for ratio in to_hessian["ggn"])  # close to the exact Hessian
    assert all(1.0 < ratio < 2.5 for ratio in to_hessian["opg"])  # up to about twice as large
    order = (r["Spearman to hessian"] for r in found["curvatures"] if "to hessian" in r)
    assert min(order) > 0.99  # the same order
    assert min(of, key=lambda kind: of[kind]["off"]) == "sandwich"
    assert of["ggn"]["times opg"] > 1  # the OPG is the cheapest
    assert of["hessian"]["at most"] > curvatures.MOST_TIMES_ONCE  # and not timed on larger ones
    scores = (advice.PLAIN, advice.ROOT, advice.AVERAGED, advice.OF_ENSEMBLE, advice.DIFFERENCE)
    errors = {score: advice._auroc(found, "errors", score) for score in scores}
    assert abs(errors[advice.PLAIN] - errors[advice.ROOT]) < 0.01  # as good as each other
    assert errors[advice.DIFFERENCE] < 0.7  # which says little of errors
    strange = {score: advice._auroc(found, "strange", score) for score in scores}
    assert max(strange, key=strange.get) == advice.DIFFERENCE
    assert which_score.verdict(found["which_score"]).startswith("By the rule `score` stays")
    counted = calibration_of_averages.judged(found["calibration_of_averages"])
    better = {name: of.better - of.worse for name, of in counted.items()}
    assert better["temperature"] > 0 >= max(better["probit (opg)"], better["probit (ggn)"])
    assert better["ensemble"] > 0 == counted["ensemble"].worse == counted["temperature"].worse
    assert min(r["Spearman"] for r in found["delta_bootstrap"]) > 0.8
    assert all(row["met"] for row in found["cross_checks"])


def test_parts_that_were_run_are_not_run_again(monkeypatch):
    runs = []
    compute = {"a part": lambda: [{"run": len(runs.append(1) or runs)}]}
    monkeypatch.setattr(frame.experiment("coverage"), "parts", lambda size: compute)
    first = frame.conduct("coverage", "tiny")
    assert frame.conduct("coverage", "tiny") == first
    assert len(runs) == 1
    assert frame.conduct("coverage", "small")["rows"] == [{"run": 2}]


def test_a_peer_that_is_not_installed_is_told_and_fails_nothing(monkeypatch):
    monkeypatch.setattr(cross_checks, "installed", lambda peer: None)
    found = frame.conduct("cross_checks", "tiny")
    assert [row["peer"] for row in found["rows"]] == list(cross_checks.PEERS)
    assert {row["quantity"] for row in found["rows"]} == {"not installed"}
    assert "not installed" in frame.page("cross_checks", found)


def test_a_peer_that_was_installed_meanwhile_is_asked(monkeypatch):
    parts = []
    for version in (None, "1.0"):
        monkeypatch.setattr(cross_checks, "installed", lambda peer, version=version: version)
        parts.append(set(cross_checks.parts("small")))
    assert parts[0].isdisjoint(parts[1])


@pytest.mark.parametrize("factor", [1 - 1e-3, 1 + 1e-3, np.nan])
def test_a_difference_beyond_the_limit_is_not_met(factor):
    """A small variance beside a large one too."""
    theirs = np.diag([1.0, 1e-8])
    ours = theirs * np.array([1.0, factor])
    assert not cross_checks.told(checks.covariance("weights", ours, theirs))["met"]
    assert cross_checks.told(checks.covariance("weights", theirs, theirs))["met"]
    with pytest.raises(ValueError, match="beside"):
        _ = checks.Check("weights", ours[0], theirs).apart


def test_weights_are_carried_to_channels_first():
    """Rows, columns and channels of a kernel, and of what a flattened image is multiplied by."""
    case = carried.convolutions()
    weights = case.model.get_weights()
    theirs = case.channels_first(weights)
    kernel, dense = weights[0], weights[4]
    image = np.random.default_rng(0).normal(size=(3, 3, 1))
    np.testing.assert_allclose(
        np.tensordot(theirs[0], image.transpose(2, 0, 1), 3), np.tensordot(image, kernel, 3)
    )
    flat = np.random.default_rng(1).normal(size=(2, 2, 4))
    np.testing.assert_allclose(theirs[4] @ flat.transpose(2, 0, 1).ravel(), flat.ravel() @ dense)


def test_areas_by_ranks_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    score, wrong = rng.uniform(size=60).round(1), rng.uniform(size=60) < 0.3
    assert which_score._auroc(score, wrong) == pytest.approx(error_auroc(score, wrong))
    assert which_score._auroc(score, np.zeros(60)) is None


def _fits(way, state="as left", spearman=0.9, shift=0.0, networks=5):
    """Rows of experiment 3, by both curvatures."""
    figures = {"Spearman": spearman, "ratio": 2.0, "gradient": 0.5, "shift": shift}
    rows = {"way": way, "state": state} | figures
    return [rows | {"curvature": kind} for kind in as_trained.KINDS for _ in range(networks)]


@pytest.mark.parametrize(
    ("shift", "spoilt_ways", "said"),
    [
        pytest.param(1.5, 3, "becomes 2", id="one standard error warns of what is well"),
        pytest.param(0.7, 3, "stays at one", id="one standard error divides them"),
        pytest.param(1.5, 2, "nothing is decided", id="spoilt fits of two ways"),
    ],
)
def test_the_threshold_of_the_caveat_follows_its_rule(shift, spoilt_ways, said):
    rows = _fits(as_trained.MINIMISED)
    for k in range(3):
        rows += _fits(f"well {k}", shift=shift)
    for k in range(spoilt_ways):
        rows += _fits(f"spoilt {k}", spearman=0.5, shift=3.0)
    rows += _fits("spoilt, polished", "polished", spearman=0.1)  # has no say
    assert said in as_trained.verdict(rows)


def test_the_rank_becomes_full_where_auto_is_off_by_more_than_its_tolerance():
    rows = [{"auto off": off} for off in (0.0, 0.06, 0.07)]
    assert 'becomes "full"' in curvatures.rank_verdict(rows)
    assert 'stays "auto"' in curvatures.rank_verdict(rows[:2])


@pytest.mark.parametrize("patience", wide_but([0], [0, 1]))
def test_a_network_of_a_recipe_is_the_same_every_time(patience):
    recipe = Recipe("iris", hidden=(3,), epochs=2, patience=patience)
    first, again = (recipe.train(0).get_weights()[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_rows_that_stop_the_training_do_not_train(monkeypatch):
    drawn = []

    def train(self, seed, rows):
        drawn.append(rows)
        return lambda x: np.zeros((len(x), 3))

    monkeypatch.setattr(Recipe, "train", train)
    recipe = Recipe("iris", hidden=(3,), epochs=1, patience=1)
    baselines.members(recipe, "bootstrap", 3)
    assert [len(rows) for rows in drawn] == 3 * [recipe.n_rows] == [72, 72, 72]
    assert np.max(drawn) == 71 < len(recipe.task.x)


def test_members_are_trained_once_and_then_read(cache, monkeypatch):
    first = baselines.members(TINY, "bootstrap", 2)["test"]
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setattr(Recipe, "train", None)  # nothing is trained any more
    again = baselines.members(TINY, "bootstrap", 2)["test"]
    np.testing.assert_array_equal(first.each, again.each)
    with pytest.raises(TypeError):
        baselines.members(TINY, "ensemble", 1)  # whose settings are others


def test_members_have_what_a_prediction_has():
    p = np.array([[[0.2, 0.8], [0.5, 0.5]], [[0.4, 0.6], [0.5, 0.5]]])
    found = baselines.Members(p, 0.0)
    np.testing.assert_allclose(found.probabilities, [[0.3, 0.7], [0.5, 0.5]])
    np.testing.assert_allclose(found.score, [np.sqrt(2 * 0.02), 0], atol=1e-12)
    assert found.mutual_information[0] > 0 == pytest.approx(found.mutual_information[1])


def test_the_temperature_of_logits_that_were_scaled_is_the_scale():
    rng = np.random.default_rng(0)
    z = 2 * rng.normal(size=(4000, 3))
    y = np.argmax(z + rng.gumbel(size=z.shape), axis=1)
    assert baselines.temperature(3 * z, y) == pytest.approx(3, rel=0.1)


def test_conformal_sets_hold_the_label_as_often_as_they_say():
    rng = np.random.default_rng(0)
    z = 2 * rng.normal(size=(4000, 3))
    y = np.argmax(z + rng.gumbel(size=z.shape), axis=1)
    p = scipy.special.softmax(3 * z, axis=1)  # overconfident
    sets = baselines.conformal_sets(p[:2000], y[:2000], p[2000:], 0.9)
    assert np.mean(sets[np.arange(2000), y[2000:]]) == pytest.approx(0.9, abs=0.02)
    assert baselines.conformal_sets(p[:5], y[:5], p[2000:], 0.9).all()
