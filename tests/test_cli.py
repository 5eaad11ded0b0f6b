"""The command line does the main job."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from deltauq import __version__
from deltauq.cli import app
from deltauq.errors import InvalidInputError


def test_help_names_the_commands():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "demo" in result.output
    assert "Example" in CliRunner().invoke(app, ["demo", "--help"]).output


def test_version():
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"deltauq {__version__}"


def test_a_users_mistake_is_a_paragraph_and_not_a_traceback(monkeypatch):
    def fail(*args, **kwargs):
        raise InvalidInputError("x is empty", expected="rows", remedy="pass [some] rows")

    monkeypatch.setattr("deltauq.demo.run_demo", fail)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 1
    assert "x is empty. Expected: rows. What to do: pass [some] rows." in " ".join(
        result.output.split()
    )
    assert "Traceback" not in result.output


def test_an_unwritable_directory_is_a_users_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "is a file" in result.output


@pytest.mark.slow
def test_the_demo(tmp_path):
    result = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "out"), "--quiet"])
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["test_accuracy"] >= 0.96
    assert summary["stationarity"]["verdict"] == "stationary"
    assert [row["curvature"] for row in summary["curvatures"]] == ["hessian", "opg", "ggn"]
    assert 1.2 < summary["curvatures"][1]["slope"] < 3
    assert 0.9 < summary["curvatures"][2]["slope"] < 1.2
    frame = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert len(frame) == summary["n_held_out"] == 450
    assert (frame["label"] == frame["true"]).mean() == summary["test_accuracy"]
    assert ((frame["ci_lower"] >= 0) & (frame["ci_upper"] <= 1)).all()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "spectra.png", "most_uncertain.png", "hessian_against_opg.png"} <= names
