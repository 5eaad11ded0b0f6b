"""Ways out that errors of the smaller rooms name: choices, packages, memory, disks, processes."""

from __future__ import annotations

import ast
import concurrent.futures
import contextlib
import multiprocessing
import sys
import tempfile
import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from full_disk import full_disk
from tiny_methods import N, X, Y, fit, fitted, network
from ways import argument, called, calls, modules, stumble

from deltauq import compare, plots
from deltauq.cli.console import out
from deltauq.errors import MemoryLimitError, optional
from deltauq.evaluation.metrics import error_auroc
from deltauq.evaluation.resampling import bootstrapped
from deltauq.likelihoods import Gaussian
from deltauq.linalg import Storage
from deltauq.network.graph import Compiled
from deltauq.report import Study
from deltauq.report.page import story_of
from deltauq.runtime import threads
from deltauq.runtime.memory import free_memory
from deltauq.runtime.threads import refuse_lost_runtime

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # Keras' `save`
]


def test_choices_that_are_nearly_right():
    for name, wrong in (("curvature", "GGN"), ("tail", "Midpoint"), ("meat", "score")):
        with stumble("errors.py:check_choice", "write ") as caught:
            fit(**{name: wrong})
        ((said, right),) = [caught.error.remedy.removeprefix("write ").split("=")]
        assert said == name
        assert np.all(fit(**{name: ast.literal_eval(right)}).predict(X).std > 0)


def test_figures_that_are_not_there_on_inputs_of_one_kind():
    score, wrong = np.arange(6.0), np.arange(6) > 3
    with stumble("evaluation/resampling.py:bootstrapped", "such as right and wrong ones"):
        bootstrapped(error_auroc, score[:4], wrong[:4], n_resamples=9)
    assert bootstrapped(error_auroc, score, wrong, n_resamples=9).value == 1.0


def test_calibration_inputs_that_no_curvature_has_a_use_for():
    options = {"rank": 5, "l2": 0.1, "progress": False}
    asked = partial(compare, network(), X, Y, X, calibration=X, **options)
    with stumble("evaluation/comparison.py:_measuring", "leave calibration=... out"):
        asked(curvatures=("hessian", "sandwich"))
    without = asked(curvatures=("hessian", "sandwich"), calibration=None)
    assert without.rows()[0]["certainty"].startswith("between")
    assert "measured on 12" in asked(curvatures=("hessian", "ggn"))["ggn"].certainty


def test_packages_that_are_not_installed(monkeypatch):
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pandas", None)
        with stumble("errors.py:optional", "pip install "):
            fitted().predict(X).to_frame()
    assert len(fitted().predict(X).to_frame()) == N
    assert optional("pandas", needed_by="tables need pandas").__name__ == "pandas"


def test_extras_have_the_packages_that_errors_say_they_have():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for module in modules():
        for call, _ in calls(module.tree):
            extra = argument(call, "extra", None)
            if called(call) == "optional" and extra is not None:
                name, package = (ast.literal_eval(each) for each in (extra, call.args[0]))
                asked = " ".join(extras[name])
                asked += " ".join(extras["plots"]) if "deltauq[plots]" in asked else ""
                assert package.split(".")[0] in asked, (module.name, package, name)


def test_limits_that_are_not_understood():
    with stumble("runtime/memory.py:_bytes", 'pass for example "8GiB", or None'):
        fit(memory_limit="8 parsecs")
    for limit in ("64GiB", None):
        assert free_memory(limit) > 2**20
        fit(memory_limit=limit)


def test_a_page_that_is_to_be_a_file(tmp_path):
    study, path = Study.of(fitted(), X[:5]), tmp_path / "report.html"
    with stumble("report/study.py:Study.to_html", "pathlib.Path(path).write_text("):
        study.to_html(str(path))
    path.write_text(study.to_html({}), encoding="utf-8")
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


def test_a_report_of_some_classes():
    with stumble("report/page.py:story_of", "predict without classes="):
        story_of(fitted().predict(X, classes="top2"))
    assert story_of(fitted().predict(X)).outcome == "classes"


@pytest.mark.wide
def test_a_disk_without_the_directory_or_the_room(tmp_path, monkeypatch):
    absent = tmp_path / "vectors"
    with stumble("linalg/storage.py:Storage.__init__", "create it, or pass None"):
        fit(rank=3, vectors_dir=absent)
    absent.mkdir()
    expected = fitted(rank=3).predict(X).std
    for directory in (absent, None):
        found = fit(rank=3, vectors_dir=directory).predict(X).std
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    with monkeypatch.context() as full:
        full.setattr(Storage, "free", 2000)
        with stumble("linalg/storage.py:Storage.empty", "ask for a smaller rank"):
            fit(rank=12, vectors_dir=absent)
        assert fit(rank=1, bounds=False, vectors_dir=absent).eigenpairs.rank == 1
    assert fit(rank=12, vectors_dir=absent).eigenpairs.rank > 1  # a larger one


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    """A disk without room, and a name that is taken by something else than a file."""
    full, other = tmp_path / "full", tmp_path / "other"
    for folder in (full, other):
        folder.mkdir()
    here, there = full / "m.deltauq", other / "m.deltauq"
    site = "runtime/whole_files.py:_refused"
    here.write_bytes(b"old")
    alone = {"with_model": False}
    for path in (here, there):
        with stumble(site, "make room there, or name a place on a larger disk"), full_disk(100):
            fitted().save(here, **alone)
        assert here.read_bytes() == b"old"  # as it was
        assert fitted().save(path, **alone).bytes > 100
        here.write_bytes(b"old")
    with stumble(site, "name another place, or change who may write there"):
        fitted().save(full, **alone)
    assert fitted().save(there, **alone).path == there
    for folder in (full, other):
        monkeypatch.setattr(tempfile, "tempdir", str(full))
        with stumble("runtime/whole_files.py:temporary_folder", "TMPDIR"), full_disk(100):
            fitted().save(there)
        monkeypatch.setattr(tempfile, "tempdir", None)  # another process
        monkeypatch.setenv("TMPDIR", str(folder))
        fitted().save(there)
        assert tempfile.gettempdir() == str(folder)


def test_memory_that_runs_out(monkeypatch):
    """Here it holds less than a hundred rows at a time."""
    rows, y, called = np.tile(X, (10, 1)), np.arange(10 * N) % 3, Compiled.__call__

    def hungry(compiled, *arguments):
        if any(leaf.shape == (10 * N, 4) for leaf in tf.nest.flatten(arguments)):
            raise MemoryError
        return called(compiled, *arguments)

    expected = fit(x=rows, y=y).predict(X).std
    with monkeypatch.context() as little:
        little.setattr(Compiled, "__call__", hungry)
        with stumble("runtime/faults.py:faults_told", "pass a smaller batch_size or rank"):
            fit(x=rows, y=y)
        found = fit(x=rows, y=y, batch_size=50).predict(X)
    np.testing.assert_allclose(found.std, expected, rtol=1e-9)
    with pytest.raises(MemoryLimitError, match="do not fit in memory"):  # before any work
        fit(rank=3, memory_limit="1 KB")


class Positive(keras.layers.Layer):
    """A layer that takes no negative numbers."""

    def call(self, x):
        tf.debugging.assert_non_negative(x)
        return tf.identity(x)


def test_a_row_at_which_the_model_fails():
    rows = np.tile(np.abs(X) + 50.0, (10, 1))  # noise leaves rows like these positive
    model, y = network(Positive(dtype="float64")), np.arange(10 * N) % 3
    rows[95, 0] = -1.0
    with stumble("runtime/faults.py:faults_told", "call the model on those rows") as caught:
        fit(model, rows, y)
    assert "rows 0 to 119" in caught.error.received
    with pytest.raises(tf.errors.InvalidArgumentError):
        model(rows)
    mended, kept = np.abs(rows), np.arange(len(rows)) != 95
    assert np.all(fit(model, mended, y).predict(X[:3] ** 2).std > 0)
    assert np.all(fit(model, rows[kept], y[kept]).predict(X[:3] ** 2).std > 0)


def test_standard_output_that_takes_no_more(monkeypatch, capsys):
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has a file that is always full")
    full = open("/dev/full", "w")  # noqa: SIM115, closing it raises too
    with monkeypatch.context() as without:
        without.setattr("sys.stdout", full)
        with stumble("cli/console.py:out", "let it lead to another place"):
            out("a table")
    with contextlib.suppress(OSError):
        full.close()
    out("a table")
    assert capsys.readouterr().out == "a table"


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_eigenpairs_that_overflow():
    """Their residuals are beyond float64; scaled inputs leave the predictions what they are."""
    model, unit = network(n_outputs=1), Gaussian(noise=1.0)
    huge = X * 1e90
    with stumble("linalg/pairs.py:Eigenpairs.__post_init__", "scale the inputs"):
        fit(model, huge, model(huge).numpy(), likelihood=unit)
    scaled = fit(model, huge / 1e90, model(X).numpy(), likelihood=unit).predict(X).std
    same = fit(model, X, model(X).numpy(), likelihood=unit).predict(X).std
    np.testing.assert_allclose(scaled, same, rtol=1e-9)


def _sum_in_a_child(size):
    """In a process of its own: a number that TensorFlow computed there."""
    refuse_lost_runtime()
    return float(tf.reduce_sum(tf.ones(size)))


@pytest.mark.wide  # a fork itself: tests/runtime/test_threads.py
def test_a_process_that_was_forked(monkeypatch):
    """tests/runtime forks one that is told so; here it is told without a fork."""
    site = "runtime/threads.py:refuse_lost_runtime"
    with monkeypatch.context() as forked:
        forked.setattr(threads._workers, "lost_runtime", True)
        with stumble(site, "start processes by multiprocessing.get_context('spawn')"):
            fitted().predict(X)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        assert pool.submit(_sum_in_a_child, 3).result(timeout=120) == 3.0


def test_a_spectrum_without_values():
    """Of an exact fit with too many to be taken unasked."""
    exact = fit(rank="auto", route="gram")
    unknown = replace(exact.spectrum, values=None)
    with stumble("plots/spectra.py:spectrum", "pass dm.eigenpairs"):
        plots.spectrum(unknown)
    assert plots.spectrum(exact.eigenpairs).lines
