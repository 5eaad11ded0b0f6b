"""Whoever asks a fit, its file, its pickle or its display is told by which route it went."""

from __future__ import annotations

import pickle
from contextlib import contextmanager

import numpy as np
import pytest
from tiny_methods import X, Y, fit, fitted, network

from deltauq import DeltaClassifier, DeltaMethod, DeltaUncertainty, compare
from deltauq.data import work
from deltauq.delta import exact
from deltauq.delta import fitted as fits
from deltauq.delta.files import artifact
from deltauq.linalg import Eigenpairs, Spectrum

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # Keras' `save`
    pytest.mark.filterwarnings("ignore:The L2 rate is"),
]

BY_ROWS = {"rank": "auto", "route": "gram"}


@pytest.fixture(scope="module")
def by_rows():
    return fit(**BY_ROWS)


@pytest.mark.quick
def test_an_exact_fit_says_so_and_forms_no_eigenpairs_for_it(by_rows):
    assert (by_rows.route, by_rows.route.why) == ("gram", "as asked")
    assert by_rows.fitted_route is by_rows.route
    assert by_rows.is_exact
    assert "N = 12, P = 15, exact by gram" in repr(by_rows)
    few = fitted(rank=3, route="auto")
    assert not few.is_exact
    assert "K = 3 of P = 15 by sketch" in repr(few)
    assert few.route.why == "rank=3 asks for leading eigenpairs"
    assert "pairs" not in vars(by_rows._fitted.known)


def test_eigenvalues_come_without_eigenvectors(by_rows, monkeypatch):
    found, expected = by_rows.spectrum, fitted()
    assert isinstance(found, Spectrum)
    assert found.rank == found.n_params == by_rows.n_params == 15
    np.testing.assert_allclose(found.values, expected.eigenpairs.values, atol=1e-12)
    assert found.trace == pytest.approx(expected.eigenpairs.trace, rel=1e-12)
    assert "pairs" not in vars(by_rows._fitted.known)
    assert isinstance(expected.spectrum, Eigenpairs)
    monkeypatch.setattr(fits, "EIGEN_LIMIT", 10)
    assert by_rows.spectrum.values is None


def test_eigenvalues_of_several_rates_are_in_their_metric():
    rates = {"l2": {"*kernel": 0.1, "*bias": 0.3}}
    found, expected = fit(**BY_ROWS, **rates).spectrum, fit(**rates).eigenpairs
    np.testing.assert_allclose(found.values, expected.values, atol=1e-12)


def test_a_file_keeps_the_route_and_the_standard_errors(by_rows, tmp_path):
    by_rows.save(tmp_path / "m")
    loaded = DeltaMethod.load(tmp_path / "m")
    assert (loaded.route, loaded.route.why) == ("gram", "as asked")
    assert (loaded.settings.route, loaded.fitted_settings.route) == ("gram", "gram")
    low, high = loaded.predict(X).std_bounds
    std = by_rows.predict(X).std
    assert np.all((low <= std) & (std <= high))
    np.testing.assert_allclose(low, high, rtol=1.5e-3)


def test_a_file_in_fewer_bits_is_exact_no_longer(tmp_path):
    fitted().save(tmp_path / "m", vectors_dtype="float32")
    loaded = DeltaMethod.load(tmp_path / "m")
    assert fitted().is_exact
    assert not loaded.is_exact
    assert "K = 15 of P = 15 by dense" in repr(loaded)


def test_a_file_that_does_not_know_of_routes_is_read(tmp_path):
    fitted().save(tmp_path / "m")
    arrays, facts = artifact.read(tmp_path / "m")
    for part in (facts, facts["options"], facts["settings"]):
        del part["route"]
    artifact.write(tmp_path / "old", arrays, facts)
    loaded = DeltaMethod.load(tmp_path / "old")
    assert loaded.fitted_route is None
    assert loaded.route == loaded.settings.route == "auto"
    assert "P = 15, exact" in repr(loaded)


def test_a_route_that_is_set_is_of_the_next_fit():
    dm = fit()
    dm.route = "gram"
    assert (dm.route, dm.settings.route) == ("dense", "gram")
    dm.rank = "auto"
    assert dm.fit(X, Y).route == "gram"


def test_estimators_and_the_callback_pass_a_route_on(capsys):
    options = {"curvature": "opg", "route": "gram"}
    clf = DeltaClassifier((), epochs=0, progress=False, **options).fit(X, Y)
    assert clf.delta_.route == "gram"
    assert pickle.loads(pickle.dumps(clf)).delta_.route == "gram"
    model = network()
    model.compile(loss="mse")
    callback = DeltaUncertainty(X, Y, l2=0.1, likelihood="categorical", **options)
    callback.set_params({"verbose": 2})
    callback.set_model(model)
    callback.on_train_end()
    assert capsys.readouterr().out.startswith("opg: exact by gram - ")


def test_a_comparison_says_the_route_of_every_run():
    options = {"l2": 0.1, "likelihood": "categorical", "progress": False}
    found = compare(network(), X, Y, X, curvatures=("ggn", "opg"), **options, **BY_ROWS)
    assert [run.route for run in found.runs] == ["gram", "gram"]
    assert repr(found).startswith("Comparison(ggn: exact, ")
    rows = found.rows()
    assert [(row["rank"], row["route"], row["kept_megabytes"]) for row in rows] == [
        (15, "gram", None)
    ] * 2
    np.testing.assert_allclose(
        found["ggn"].eigenpairs.values, fitted().eigenpairs.values, atol=1e-12
    )


@pytest.mark.parametrize("l2", [0.1, "tune"])
def test_the_display_is_told_the_route_before_it_is_gone(monkeypatch, l2):
    told = []

    class Shown:
        def advance(self, steps):
            told.append("examples")

        def describe(self, description, why=""):
            told.append((description, why))

        def note(self, text):
            raise AssertionError("there is no checkpoint to tell of")

    @contextmanager
    def bar(description, **options):
        told.append(description)
        yield Shown()

    monkeypatch.setattr(work, "progress_bar", bar)
    monkeypatch.setattr(exact, "AUTO_DENSE_LIMIT", 0)
    found = fit(rank="auto", route="auto", l2=l2)
    described = [told.index(each) for each in told if isinstance(each, tuple)]
    assert told[0] == "ggn: the cost"
    assert told[described[0]] == (f"ggn by {found.route}", found.route.why)
    assert found.route.why.startswith("exact: ")
    assert len(described) == 1
    assert "examples" in told[described[0] :]
