"""Models of Keras 2 go through the commands as those of Keras 3 do."""

from __future__ import annotations

import json

import numpy as np
import old_files
import pandas as pd
import pytest
from old_files import KINDS
from typer.testing import CliRunner

from deltauq.cli import app

pytestmark = [
    pytest.mark.wide,  # files: tests/network/test_model_files.py; commands: test_commands.py
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    # Keras' own, when it saves a model.
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    for name, x in (("rows", old_files.X), ("sequences", old_files.SEQUENCES)):
        np.savez(folder / f"{name}.npz", x=x, y=old_files.Y)
    return folder


@pytest.fixture(scope="module")
def old(folder):
    return old_files.write(folder)


def run(*arguments, codes=(0,)):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code in codes, result.output
    return result.stdout


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if make is old_files.recurrent else ())
        for kind, (make, *_) in KINDS.items()
    ],
)
def test_a_diagnosis_says_by_which_keras_the_model_was_opened(folder, old, kind):
    data = folder / ("sequences.npz" if old[kind].x.ndim == 3 else "rows.npz")
    found = json.loads(run("diagnose", old[kind].path, data, "--json", codes=(0, 3)))["findings"]
    (opened,) = (finding for finding in found if finding["subject"] == "model")
    assert opened["level"] == "ok"
    assert opened["what"].startswith(f"opened by {old[kind].opened_by}")
    assert not [finding for finding in found if finding["level"] == "error"]


@pytest.mark.parametrize("kind", ["h5, loss as an object", "SavedModel", "h5 with operations"])
def test_from_an_old_file_to_a_report(folder, old, kind, tmp_path):
    """The artifact holds the model, of whichever Keras it is."""
    data, artifact = folder / "rows.npz", tmp_path / "m.deltauq"
    options = ("--rank", "full", "--quiet", "--json")
    facts = json.loads(run("fit", data, "--model", old[kind].path, "-o", artifact, *options))
    assert facts["l2"] == pytest.approx(0.02)  # Keras' "l2" is 0.01 * w^2
    run("predict", artifact, data, "-o", tmp_path / "p.csv", "--quiet")
    frame = pd.read_csv(tmp_path / "p.csv")
    truth = old[kind].model(old_files.X).numpy()[:, 0]
    np.testing.assert_allclose(frame["probability_1"], truth, rtol=1e-4)
    assert (frame["se"] > 0).all()
    page = tmp_path / "r.html"
    run("report", artifact, data, "--training", data, "-o", page, "--quiet")
    assert "as compiled" in page.read_text() or "as given" in page.read_text()


def test_a_folder_is_no_artifact(folder, old):
    path = old["SavedModel"].path
    result = CliRunner().invoke(app, ["predict", str(path), str(folder / "rows.npz")])
    assert result.exit_code == 1
    assert "this is a model, and an artifact is needed" in " ".join(result.stderr.split())
