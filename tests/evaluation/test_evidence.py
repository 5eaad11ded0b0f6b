"""Experiments of benchmarks/evidence run at a tiny size; their pages are what JSON renders to."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.special
from evidence import baselines, frame, which_score
from evidence.training import Recipe
from marks import wide_but

from deltauq.evaluation.metrics import error_auroc

TINY = Recipe("iris", hidden=(3,), l2=1e-2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Predictions of members are kept in a folder of the test."""
    for module in (baselines, frame):
        monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


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


def test_parts_that_were_run_are_not_run_again(monkeypatch):
    runs = []
    compute = {"a part": lambda: [{"run": len(runs.append(1) or runs)}]}
    monkeypatch.setattr(frame.experiment("coverage"), "parts", lambda size: compute)
    first = frame.conduct("coverage", "tiny")
    assert frame.conduct("coverage", "tiny") == first
    assert len(runs) == 1
    assert frame.conduct("coverage", "small")["rows"] == [{"run": 2}]


def test_areas_by_ranks_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    score, wrong = rng.uniform(size=60).round(1), rng.uniform(size=60) < 0.3
    assert which_score._auroc(score, wrong) == pytest.approx(error_auroc(score, wrong))
    assert which_score._auroc(score, np.zeros(60)) is None


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
