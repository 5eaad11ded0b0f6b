"""A disk that fills up costs nobody a file: whatever the package writes is there whole or not."""

from __future__ import annotations

import contextlib
import importlib
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from full_disk import full_disk
from marks import wide
from matplotlib.figure import Figure
from tiny_estimators import classifier
from tiny_methods import N, X, Y, fit, fitted, network
from typer.testing import CliRunner

from deltauq import DeltaMethod
from deltauq.cli import app
from deltauq.cli.console import out
from deltauq.errors import MemoryLimitError, WriteError

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # Keras' `save`
]

#: Bytes that are free: fewer than anything that is written here takes.
ROOM = 100

#: Room for the model in an artifact, which Keras reads from a temporary file.
MODEL = 40_000


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Data, a model and an artifact."""
    folder = tmp_path_factory.mktemp("given")
    np.savez(folder / "data.npz", x=X, y=Y)
    np.savez(folder / "many.npz", x=np.tile(X, (30, 1)), y=np.tile(Y, 30))
    network(l2=0.1).save(folder / "m.keras")
    fitted().save(folder / "m.deltauq")
    return folder


def write_demo(folder):
    """What `deltauq demo` writes, of a study that was not made."""
    figure = Figure()  # none of pyplot's, which would stay open where the disk is full
    figure.subplots().plot(X)
    study = SimpleNamespace(
        figures=lambda: {"spectrum": figure},
        to_html=lambda figures: "<html>" * 200,
        prediction=fitted().predict(X),
        y=Y,
    )
    # By its module: `deltauq.cli.demo` is also the command, which the room's front imports.
    write = importlib.import_module("deltauq.cli.demo")._write
    write(folder, study, {"caveats": "none, " * 200}, np.arange(N))


def save_alone(folder):
    fitted().save(folder / "m.deltauq", with_model=False)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder to write to, and the one for temporary files."""
    temporary, to = tmp_path / "temporary", tmp_path / "to"
    temporary.mkdir()
    to.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    return to, temporary


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (save_alone, ["m.deltauq"]),
        (write_demo, ["predictions.csv", "report.html", "spectrum.png", "summary.json"]),
    ],
)
def test_a_full_disk_leaves_the_old_files(places, write, names):
    """And afterwards, with room, the same is written."""
    to, temporary = places
    for name in names:
        (to / name).write_bytes(b"old")
    match = f"({'|'.join(names)}) could not be written"
    with pytest.raises(WriteError, match=match), full_disk(ROOM):
        write(to)
    assert {path.read_bytes() for path in to.iterdir()} == {b"old"}
    assert names_in(to) == names
    assert not names_in(temporary)
    write(to)
    assert names_in(to) == names
    assert min(path.stat().st_size for path in to.iterdir()) > ROOM


PREDICT = "predict {given}/m.deltauq {given}/many.npz --output {to}/p.csv"
REPORT = "report {given}/m.deltauq {given}/many.npz --output {to}/r.html"
FIT = "fit {given}/data.npz --model {given}/m.keras --output {to}/f.deltauq"
POLISH = "diagnose {given}/m.keras {given}/data.npz --polish {to}/better.keras"
COMPARE = "compare {given}/m.keras {given}/data.npz {given}/data.npz --output {to}/c.csv"


@pytest.mark.parametrize(
    ("command", "what", "room"),
    [
        (PREDICT, "p.csv", MODEL),
        wide(REPORT, "r.html", MODEL),
        (POLISH, "better.keras", ROOM),
        wide(FIT, "a temporary file", ROOM),  # as which Keras saves the model
        wide(COMPARE, "c.csv", ROOM),
    ],
    ids=lambda value: str(value).split()[0],
)
def test_a_command_on_a_full_disk_leaves_the_old_file(given, places, command, what, room):
    to, temporary = places
    path = to / command.rpartition("/")[2]
    path.write_bytes(b"old")
    arguments = [*command.format(given=given, to=to).split(), "--quiet"]
    runner = CliRunner(env={"COLUMNS": "1000"})  # words stay whole
    with full_disk(room):
        result = runner.invoke(app, arguments)
    said = " ".join(result.stderr.split())
    assert result.exit_code == 1, result.output
    assert re.search(f"{what} could not be written.*File too large.*make room there", said)
    assert path.read_bytes() == b"old"
    assert names_in(to) == [path.name]
    assert not names_in(temporary)
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert names_in(to) == [path.name]
    assert path.stat().st_size > room


def test_the_room_that_an_artifact_needs_is_told_and_it_is_readable_then(tmp_path):
    path = tmp_path / "m.deltauq"
    with pytest.raises(WriteError, match=r"room for [\d,]+ bytes in") as told, full_disk(ROOM):
        fitted().save(path, with_model=False)
    needed = int(re.search(r"room for ([\d,]+)", told.value.expected)[1].replace(",", ""))
    saved = fitted().save(path, with_model=False)
    assert 0.5 * saved.bytes < needed <= saved.bytes  # the header beside, which is most here
    fitted().save(path)
    np.testing.assert_array_equal(DeltaMethod.load(path).predict(X).std, fitted().predict(X).std)


@pytest.mark.parametrize("room", [0, 3000])  # for nothing, and for a part of it
def test_an_export_is_there_whole_or_not(tmp_path, room):
    path = tmp_path / "served"
    match = r"served could not be written.*room for.*too large"
    with pytest.raises(WriteError, match=match), full_disk(room):
        fitted().export(path)
    assert not list(tmp_path.iterdir())
    fitted().export(path)
    assert list(tmp_path.iterdir()) == [path]
    found = tf.saved_model.load(str(path)).signatures["serving_default"](x=tf.constant(X))
    np.testing.assert_allclose(found["std"], fitted().predict(X).std, rtol=1e-6)


def test_a_pickle_of_an_estimator_says_where_room_is_missing(tmp_path, monkeypatch):
    clf = classifier().fit(X, Y)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(WriteError, match=rf"room in {tmp_path}.*TMPDIR"), full_disk(ROOM):
        pickle.dumps(clf)
    content = pickle.dumps(clf)
    with pytest.raises(WriteError, match=rf"room in {tmp_path}.*TMPDIR"), full_disk(ROOM):
        pickle.loads(content)
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(pickle.loads(content).predict_proba(X), clf.predict_proba(X))


def test_vectors_without_room_are_refused_before_they_are_mapped(tmp_path):
    """A mapped file whose disk fills up would kill the process."""
    match = r"disk of vectors_dir.*too large.*larger disk"
    with pytest.raises(MemoryLimitError, match=match), full_disk(ROOM):
        fit(rank=5, vectors_dir=tmp_path)
    assert not list(tmp_path.iterdir())
    found = fit(rank=5, vectors_dir=tmp_path)
    np.testing.assert_allclose(found.predict(X).std, fitted(rank=5).predict(X).std, rtol=1e-9)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["a table of text", ["something", "for people"]])
def test_standard_output_without_room_is_told(monkeypatch, content):
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has a file that is always full")
    full = open("/dev/full", "w")  # noqa: SIM115, closing it would raise too
    monkeypatch.setattr("sys.stdout", full)
    with pytest.raises(WriteError, match=r"standard output.*No space left on device.*make room"):
        out(content)
    monkeypatch.undo()
    with contextlib.suppress(OSError):
        full.close()
