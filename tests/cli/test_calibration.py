"""`--calibration` is `calibration=` of `DeltaMethod.fit`, and files keep what it promises."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pandas as pd
import pytest
import tail_cases
from tail_cases import fit
from typer.testing import CliRunner

from deltauq import DeltaMethod
from deltauq.cli import app
from deltauq.cli.opening import open_artifact
from deltauq.cli.tables import read_examples

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # Keras saves a model
]

small = functools.cache(tail_cases.small)

COLUMNS = list("abcdefgh")
RATE, RANK = 1e-2, 60
FEW = ("--l2", RATE, "--rank", RANK, "--quiet")


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, its training data, and other inputs: as tables and as arrays."""
    folder, case = tmp_path_factory.mktemp("calibration"), small()
    case.model.save(folder / "model.keras")
    train = pd.DataFrame(case.x, columns=COLUMNS).assign(id=range(250), kind=case.y)
    train.to_csv(folder / "train.csv", index=False)
    new = pd.DataFrame(case.new, columns=COLUMNS)
    new[:39][COLUMNS[::-1]].to_csv(folder / "new.csv", index=False)
    new[39:].to_csv(folder / "test.csv", index=False)
    new[:39].assign(id=0, kind=0).to_csv(folder / "labelled.csv", index=False)
    new.drop(columns="b").to_csv(folder / "narrow.csv", index=False)
    np.savez(folder / "train.npz", x=case.x, y=case.y)
    np.savez(folder / "wide.npz", x=np.ones((5, 9), "float32"))
    return folder


def test_a_fit_is_that_of_delta_method_and_its_file_keeps_the_promise(folder, tmp_path):
    """Other inputs in a table of their own, in another order, without what is no input."""
    case, artifact, table = small(), tmp_path / "a.deltauq", tmp_path / "p.csv"
    expected = fit(case, "ggn", RATE, RANK, calibration=case.new[:39])
    given = expected.predict(case.new[:39])
    asked = ("fit", folder / "train.csv", "--target", "kind", "--ignore", "id", *FEW)
    files = ("--model", folder / "model.keras", "--calibration", folder / "new.csv")
    facts = json.loads(run(*asked, *files, "--route", "sketch", "-o", artifact, "--json"))
    assert facts["standard_errors"] == str(given.std_range())
    facts = json.loads(run("predict", artifact, folder / "test.csv", "-o", table, "--json"))
    new = expected.predict(case.new[39:])
    assert facts["standard_errors"] == str(new.std_range())
    assert re.fullmatch(r"within .* % of the inputs \(measured on 39\)", facts["standard_errors"])
    found = pd.read_csv(table)[[f"se_{c}" for c in range(4)]]
    np.testing.assert_allclose(found, new.std, rtol=1e-5)


def test_a_network_that_fit_trains_is_calibrated_on_encoded_columns(folder, tmp_path):
    """Columns of text become those of training, and labels are no inputs."""
    artifact, rng = tmp_path / "a.deltauq", np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(size=90), "where": ["wood", "field", "sea"] * 30})
    frame["kind"] = np.where(frame["size"] + rng.normal(size=90) > 0, "good", "bad")
    frame[:60].to_csv(tmp_path / "train.csv", index=False)
    frame[60:].to_csv(tmp_path / "new.csv", index=False)
    asked = ("fit", tmp_path / "train.csv", "--target", "kind", "--hidden-units", 3, "--l2", 0.03)
    few = ("--rank", 6, "--route", "sketch", "--quiet", "--json", "-o", artifact)
    facts = json.loads(run(*asked, *few, "--calibration", tmp_path / "new.csv"))
    loaded, opened = open_artifact(artifact)
    read = {"target": "kind", "needs_target": True}
    train, new = (read_examples(tmp_path / name, **read) for name in ("train.csv", "new.csv"))
    options = {"rank": 6, "route": "sketch", "progress": False}
    alone = DeltaMethod(opened.model, "ggn", **options, **opened.options)
    alone.fit(opened.inputs(train), opened.labels(train), calibration=opened.inputs(new))
    found, expected = (dm.predict(opened.inputs(new)) for dm in (loaded, alone))
    np.testing.assert_allclose(found.std, expected.std, rtol=1e-6)
    assert facts["standard_errors"] == expected.measure_certainty()


REFUSED = {
    "a curvature": (
        "--curvature hessian --calibration new.csv",
        r"Expected: --curvature opg or 'ggn'\. Received: --curvature hessian\. What to do: leave "
        r"--calibration \.\.\. out",
    ),
    "no file": ("--calibration no.csv", "in --calibration, the data file does not exist"),
    "a column": ("--calibration narrow.csv", r"in --calibration, the table lacks col.*\['b'\]"),
}


@pytest.mark.parametrize("mistake", REFUSED)
@pytest.mark.parametrize("model", [(), ("--model", "model.keras")], ids=["trained", "given"])
def test_a_mistake_is_answered_before_anything_is_trained(folder, monkeypatch, model, mistake):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("deltauq.cli.training.train", None)  # a call would be a TypeError
    options, said = REFUSED[mistake]
    asked = ("fit", "train.csv", "--target", "kind", "--ignore", "id", "-o", "o", *model)
    assert re.search(said, run(*asked, *options.split(), code=1))


def test_inputs_of_another_shape_are_said_to_be_those_of_calibration(folder, tmp_path):
    asked = ("fit", folder / "train.npz", "--model", folder / "model.keras", *FEW)
    told = run(*asked, "--calibration", folder / "wide.npz", "-o", tmp_path / "o", code=1)
    assert "in --calibration ..., x has another shape than the training data" in told


def test_a_comparison_says_how_far_each_curvature_is_known(folder):
    """Columns that the training data say are no inputs are none there either."""
    case = small()
    train, new = folder / "train.csv", folder / "labelled.csv"
    ignored = ("--target", "kind", "--ignore", "id", "--curvatures")
    asked = ("compare", folder / "model.keras", train, new, *ignored, "ggn,opg")
    files = (*FEW, "--calibration", new)
    rows = json.loads(run(*asked, *files, "--route", "sketch", "--json"))["curvatures"]
    for row in rows:
        dm = fit(case, row["curvature"], RATE, RANK, calibration=case.new[:39])
        assert row["certainty"] == str(dm.predict(case.new[:39]).std_range())
        assert "(measured on 39)" in row["certainty"]
    told = run(*asked[:-1], "hessian,sandwich", *files, code=1)
    assert "leave --calibration ... out, or compare one of them too" in told
