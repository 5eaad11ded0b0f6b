"""The command line does the whole job, and answers a mistake with what to do about it."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import datasets
import keras
import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import tensorflow as tf
from typer.testing import CliRunner

from deltauq import DeltaMethod, __version__
from deltauq.cli import app
from deltauq.cli.console import as_options
from deltauq.cli.opening import Opened, open_artifact
from deltauq.cli.tables import Examples
from deltauq.errors import InvalidInputError

#: Keras' own, when it saves a model.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "command-line.md"


def run(*arguments, code=0):
    """Standard output of a command; with what it said where it ended otherwise than it should."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.stdout


def words(text):
    return " ".join(text.split())


@pytest.mark.quick
def test_help_names_the_commands_each_with_an_example():
    shown = run("--help")
    for command in ("demo", "diagnose", "fit", "predict", "compare", "report"):
        assert command in shown
        told = words(run(command, "--help"))
        assert f"Example: deltauq {command}" in told
        assert "--quiet" in told


@pytest.mark.quick
def test_version():
    assert run("--version").strip() == f"deltauq {__version__}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Iris as tables and arrays, a Keras model, and artifacts of a network that `fit` trained."""
    folder = tmp_path_factory.mktemp("cli")
    iris = sklearn.datasets.load_iris(as_frame=True)
    frame = iris.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
    frame["where"] = np.where(np.arange(150) % 3 > 0, "field", "wood")
    frame["kind"] = iris.target_names[iris.target]
    frame.iloc[::2].to_csv(folder / "train.csv", index=False)
    frame.iloc[1::2].to_csv(folder / "test.csv", index=False)
    frame.iloc[1::2].to_parquet(folder / "test.parquet")
    x, y = iris.data.to_numpy("float32"), iris.target.to_numpy()
    np.savez(folder / "train.npz", x=x[::2], y=y[::2])
    l2 = {"kernel_regularizer": "l2", "bias_regularizer": "l2"}
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax", **l2)])
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy")
    ten = np.tile(x[::2], (10, 1)), np.tile(y[::2], 10)  # ten steps to an epoch take less time
    model.fit(*ten, batch_size=75, epochs=3, shuffle=False, verbose=0)
    model.save(folder / "early.keras")
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    plain.compile(loss="sparse_categorical_crossentropy")
    plain.save(folder / "plain.keras")
    early = ("diagnose", folder / "early.keras", folder / "train.npz")
    run(*early, "--polish", folder / "model.keras", code=3)
    options = ("--hidden-units", "3", "--l2", "0.03", "--quiet")
    run("fit", folder / "train.csv", "--target", "kind", "-o", folder / "m.deltauq", *options)
    return folder


def test_a_network_for_a_table_is_trained_and_its_predictions_are_named(folder, tmp_path):
    run(
        "predict",
        folder / "m.deltauq",
        folder / "test.csv",
        "--target",
        "kind",
        "-o",
        tmp_path / "p.csv",
    )
    frame = pd.read_csv(tmp_path / "p.csv")
    assert set(frame["label"]) == {"setosa", "versicolor", "virginica"}
    assert np.mean(frame["label"] == frame["true"]) > 0.9
    sums = frame[[f"probability_{name}" for name in ("setosa", "versicolor", "virginica")]].sum(
        axis=1
    )
    np.testing.assert_allclose(sums, 1.0)
    assert (frame["se"] > 0).all()
    assert (
        (frame["ci_lower"] < frame["probability"]) & (frame["probability"] < frame["ci_upper"])
    ).all()


def test_averages_have_columns_with_the_names_of_the_classes(folder):
    asked = ("predict", folder / "m.deltauq", folder / "test.csv", "--ignore", "kind")
    frame = pd.read_csv(io.StringIO(run(*asked, "--predictive", "probit")))
    plain, averaged = (
        frame[[f"{kind}_{name}" for name in ("setosa", "versicolor", "virginica")]].to_numpy()
        for kind in ("probability", "predictive")
    )
    np.testing.assert_allclose(averaged.sum(axis=1), 1.0)
    assert averaged.max(axis=1).mean() < plain.max(axis=1).mean()  # less sure
    assert frame.columns[:-3].tolist() == run(*asked).split("\n", 1)[0].split(",")


def test_parquet_and_standard_output_give_the_same_table(folder):
    of_csv = run("predict", folder / "m.deltauq", folder / "test.csv", "--ignore", "kind")
    assert (
        run("predict", folder / "m.deltauq", folder / "test.parquet", "--ignore", "kind") == of_csv
    )
    records = json.loads(
        run("predict", folder / "m.deltauq", folder / "test.csv", "--ignore", "kind", "--json")
    )
    assert len(records) == len(of_csv.splitlines()) - 1 == 75
    assert records[0]["label"] in ("setosa", "versicolor", "virginica")


def test_columns_that_are_not_used_are_named(folder):
    result = CliRunner().invoke(
        app, ["predict", str(folder / "m.deltauq"), str(folder / "test.csv")]
    )
    assert "columns that the model does not use: kind" in words(result.stderr)
    assert "Note" not in result.stdout


def test_diagnose_takes_the_names_of_the_classes_as_it_advises(folder, tmp_path):
    """Labels that are names: the finding names the option, and with it all is well."""
    names = np.array(["setosa", "versicolor", "virginica"])
    with np.load(folder / "train.npz") as arrays:
        np.savez(tmp_path / "t.npz", x=arrays["x"], y=names[arrays["y"]])
    asked = ("diagnose", folder / "model.keras", tmp_path / "t.npz")
    assert "--classes" in words(run(*asked, code=3))
    run(*asked, "--classes", ",".join(names))


def test_an_artifact_with_the_training_data_says_so_and_predicts_exactly(folder, tmp_path):
    model, arrays, artifact = folder / "model.keras", folder / "train.npz", tmp_path / "a.deltauq"
    options = ("--model", model, "--output", artifact, "--training-data")
    facts = json.loads(run("fit", arrays, *options, "--route", "gram", "--json"))
    assert facts["holds"].startswith("the training data: all inputs")
    loaded = DeltaMethod.load(artifact)
    assert loaded.is_exact
    assert "its file holds the training data" in repr(loaded)
    result = CliRunner().invoke(app, ["fit", *map(str, (arrays, *options))])
    assert result.exit_code == 1
    assert "say --route gram too" in words(result.stderr)


def test_a_model_of_ones_own_from_arrays(folder, tmp_path):
    model, arrays, artifact = folder / "model.keras", folder / "train.npz", tmp_path / "a.deltauq"
    options = ("--model", model, "--curvature", "opg", "--json", "--classes", "a,b,c")
    facts = json.loads(run("fit", arrays, "--output", artifact, *options))
    assert facts["examples"] == 75
    assert facts["parameters"] == 15
    assert facts["opened_by"] == f"Keras {keras.__version__}"
    assert facts["l2"] == pytest.approx(0.02)  # Keras' "l2" is 0.01 * w^2
    records = json.loads(run("predict", artifact, arrays, "--json"))
    assert {record["label"] for record in records} == {"a", "b", "c"}
    assert [record["true"] for record in records[:3]] == [0, 0, 0]
    shown = run("compare", model, arrays, arrays, "--curvatures", "ggn,opg", "--rank", "full")
    assert "ggn" in shown
    assert "opg" in shown


def test_arrays_are_predicted_without_pandas(folder, tmp_path, monkeypatch):
    model, arrays, artifact = folder / "model.keras", folder / "train.npz", tmp_path / "a.deltauq"
    run("fit", arrays, "--model", model, "-o", artifact, "--quiet")
    monkeypatch.setitem(sys.modules, "pandas", None)
    records = json.loads(run("predict", artifact, arrays, "--json"))
    rows = list(csv.DictReader(io.StringIO(run("predict", artifact, arrays))))
    assert [{name: float(value) for name, value in row.items()} for row in rows] == records
    assert len(records) == 75


@pytest.mark.wide  # diagnose takes the names: the test of its advice
def test_a_diagnosis_names_the_classes(folder, tmp_path):
    frame = pd.read_csv(folder / "train.csv")
    frame[frame["kind"] != "setosa"].to_csv(tmp_path / "two.csv", index=False)
    found = run("diagnose", folder / "m.deltauq", tmp_path / "two.csv", "--target", "kind", code=3)
    assert "class setosa" in words(re.sub("[│┃]", "", found))


def test_a_route_is_taken_told_and_refused(folder, tmp_path, monkeypatch):
    arrays, model, artifact = folder / "train.npz", folder / "model.keras", tmp_path / "a.deltauq"
    fit = ("fit", arrays, "--model", model, "-o", artifact, "--quiet", "--route")
    facts = json.loads(run(*fit, "gram", "--json"))
    assert (facts["exact"], facts["route"], facts["eigenpairs"]) == (True, "gram (as asked)", 15)
    assert open_artifact(artifact)[0].route == "gram"
    facts = json.loads(run(*fit, "sketch", "--rank", "3", "--json"))
    assert (facts["exact"], facts["route"], facts["eigenpairs"]) == (False, "sketch (as asked)", 3)
    assert "pass --route dense, or 'auto'" in words(refused(*fit, "lanczos"))
    monkeypatch.setattr("deltauq.cli.training.train", None)  # a call would be a TypeError
    options = ("--target", "kind", "--route", "rows", "-o", tmp_path / "o")
    assert "route" in refused("fit", folder / "train.csv", *options)


# What they say of it: tests/delta/test_routes_told.py and tests/evaluation/test_diagnosis.py.
@pytest.mark.wide
def test_comparisons_and_diagnoses_tell_routes(folder):
    arrays, model = folder / "train.npz", folder / "model.keras"
    curvatures = ("--curvatures", "ggn,opg", "--json", "--quiet")
    compared = json.loads(run("compare", model, arrays, arrays, *curvatures, "--route", "gram"))
    assert [row["route"] for row in compared["curvatures"]] == ["gram", "gram"]
    routes = json.loads(run("diagnose", model, arrays, "--json"))["routes"]
    assert {each["route"] for each in routes if each["why"]} == {"dense"}


def refused(*arguments):
    """What a command says where it refuses."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 1, result.output
    return result.stderr


def test_a_curvature_is_refused_before_a_network_is_trained(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("deltauq.cli.training.train", None)  # a call would be a TypeError
    options = ("--target", "kind", "--curvature", "GGN", "-o", tmp_path / "o")
    run("fit", folder / "train.csv", *options, code=1)


def test_a_tuned_rate_is_not_tuned_again_for_another_curvature(folder, tmp_path):
    artifact, options = tmp_path / "t.deltauq", ("--l2", "tune", "--quiet", "--json")
    model = folder / "model.keras"
    said = run("fit", folder / "train.npz", "--model", model, "-o", artifact, *options)
    chosen = "was chosen after training by the marginal likelihood of the training data"
    assert chosen in json.loads(said)["caveats"][-1]
    method, opened = open_artifact(artifact)
    assert opened.asked()["l2"] == method.l2_rates
    assert len(set(method.l2_rates.values())) == 1


@pytest.mark.wide  # exit of three: the names that diagnose advises
def test_a_diagnosis_that_finds_something_exits_with_three_and_polishing_mends_it(folder):
    found = {
        name: json.loads(run("diagnose", folder / name, folder / "train.npz", "--json", code=code))
        for name, code in (("early.keras", 3), ("model.keras", 0))
    }
    run("diagnose", folder / "model.keras", folder / "train.npz", "--quiet")
    assert [found[name]["ok"] for name in found] == [False, True]
    (finding,) = (f for f in found["early.keras"]["findings"] if f["subject"] == "stationarity")
    assert finding["level"] == "warning"
    assert finding["remedy"].startswith("--polish FILE, train further")


@pytest.mark.parametrize(
    ("python", "told"),
    [
        ("pass l2='tune' or rank=..., now", "pass --l2 tune or --rank ..., now"),
        ("rank=5.", "--rank 5."),
        ("Categorical(label_smoothing=0.1)", "Categorical(label_smoothing=0.1)"),
        ("give likelihood=Categorical(classes=[...]), or", "give --classes ..., or"),
        ("with reduction='sum' and training=True.", "with reduction='sum' and training=True."),
        ("save without training_data=True; or", "save without --training-data; or"),
        ("pass layers=....", "pass layers=.... (In Python: layers, of deltauq.DeltaMethod.)"),
        (
            "likelihood=deltauq.likelihoods.Gaussian(noise=...), or",
            "likelihood=deltauq.likelihoods.Gaussian(noise=...), or. (In Python: likelihood, of "
            "deltauq.DeltaMethod.)",
        ),
    ],
)
def test_advice_is_in_the_words_of_the_commands(python, told):
    assert as_options(python) == told


def test_a_model_of_images_says_which_file_holds_them():
    opened = Opened(None, {}, spec=tf.TensorSpec([None, 8, 8, 1]))
    with pytest.raises(InvalidInputError, match=r"no table.*\['N', 8, 8, 1\] in a \.npz"):
        opened.inputs(Examples(pd.DataFrame({"a": [1.0]})))


@pytest.mark.wide  # a network for a table: of classes above; regressions: tests/estimators
def test_a_regression(tmp_path):
    diabetes = sklearn.datasets.load_diabetes(as_frame=True)
    diabetes.frame.to_csv(tmp_path / "d.csv", index=False)
    artifact, options = tmp_path / "d.deltauq", ("--target", "target", "--likelihood", "gaussian")
    options = (*options, "--hidden-units", "3", "--l2", "0.1")
    facts = json.loads(run("fit", tmp_path / "d.csv", "-o", artifact, *options, "--json"))
    assert facts["training_r2"] > 0.4
    frame = pd.read_json(
        io.StringIO(
            run(
                *("predict", artifact, tmp_path / "d.csv", "--target", "target"),
                *("--predictive", "exact", "--json"),
            )
        )
    )
    wrong = CliRunner().invoke(
        app, ["predict", str(artifact), str(tmp_path / "d.csv"), "--predictive", "probit"]
    )
    assert "leave it out, or write --predictive exact" in words(wrong.stderr)
    inside = (frame["obs_ci_lower"] < frame["true"]) & (frame["true"] < frame["obs_ci_upper"])
    assert 0.9 < inside.mean() < 0.99
    reach = (frame["obs_ci_upper"] - frame["obs_ci_lower"]) / 2
    np.testing.assert_allclose(reach, 1.959964 * np.sqrt(frame["predictive_variance"]), rtol=1e-6)


#: Commands with a mistake, and what is said of it.
MISTAKES = {
    "no such data": ("fit {no.csv} --target kind -o {o.deltauq}", r"data file does not exist"),
    "no such model": ("fit {train.npz} --model {no.keras} -o {o}", r"model file does not exist"),
    "no such artifact": ("predict {no.deltauq} {test.csv}", r"artifact does not exist"),
    "no target": ("fit {train.csv} -o {o}", r"--target with one of the columns.*'kind'"),
    "another target": ("fit {train.csv} --target colour -o {o}", r"no columns \['colour'\].*kind"),
    "an unknown kind": ("fit {notes.txt} --target kind -o {o}", r"kind that is not known.*\.csv"),
    "an empty table": ("fit {empty.csv} --target kind -o {o}", r"cannot be read.*No columns"),
    "no npz": ("fit {broken.npz} -o {o}", r"cannot be read"),
    "another array": ("fit {train.npz} --inputs images -o {o}", r"no arrays \['images'\].*'x'"),
    "missing values": ("fit {gaps.csv} --target kind -o {o}", r"missing values by column.*width"),
    "a missing column": ("predict {m.deltauq} {narrow.csv}", r"lacks columns.*petal_width"),
    "an unseen value": ("predict {m.deltauq} {desert.csv}", r"'where' holds values.*desert"),
    "text for numbers": ("predict {m.deltauq} {words.csv}", r"held numbers in training"),
    "numbers as classes": (
        "fit {train.csv} --target sepal_length -o {o}",
        r"like numbers.*gaussian",
    ),
    "a model for an artifact": ("predict {model.keras} {train.npz}", r"artifact is needed.*fit"),
    "a damaged artifact": ("predict {damaged.deltauq} {test.csv}", r"is damaged"),
    "a curvature": ("fit {train.npz} --model {model.keras} --curvature fisher -o {o}", r"fisher"),
    "a curvature in capitals": (
        "fit {train.npz} --model {model.keras} --curvature GGN -o {o}",
        r"write --curvature ggn",
    ),
    "a model without L2": (
        "fit {train.npz} --model {plain.keras} -o {o}",
        r"no L2 rate.*pass --l2 tune.*or --l2 \.\.\., the rate to assume; or --rank full",
    ),
    "a rank": ("fit {train.csv} --target kind --rank all -o {o}", r"--rank is not understood"),
    "an L2 rate": ("fit {train.csv} --target kind --l2 much -o {o}", r"--l2 is not understood"),
    "no directory": ("fit {train.csv} --target kind -o {no/o}", r"--output cannot be written"),
    "another output": ("report {m.deltauq} {test.csv} -o {r.pdf}", r"ends with \.html"),
    "an average": (
        "predict {m.deltauq} {test.csv} --predictive probt",
        r"--predictive probt is not known.*write --predictive probit",
    ),
    "a level": ("predict {m.deltauq} {test.csv} --level 95", r"level is not between 0 and 1"),
    "one curvature": (
        "compare {model.keras} {train.npz} {train.npz} --curvatures opg",
        r"two or more different names",
    ),
    "text labels of a model": (
        "fit {train.csv} --model {model.keras} --target kind --ignore where -o {o}",
        r"class numbers.*for names pass --classes \.\.\.,",
    ),
    "a likelihood": (
        "fit {train.npz} --model {model.keras} --likelihood cauchy -o {o}",
        "cauchy",
    ),
    "another width": (
        "fit {wide.npz} --model {model.keras} -o {o}",
        r"cannot be called on x",
    ),
}


@pytest.fixture(scope="module")
def mistaken(folder):
    """Files that are not as they should be, beside the others."""
    frame = pd.read_csv(folder / "test.csv")
    (folder / "notes.txt").write_text("notes")
    (folder / "empty.csv").write_text("")
    (folder / "broken.npz").write_bytes(b"PK")
    frame.assign(**{"sepal_width": [None, *frame["sepal_width"][1:]]}).to_csv(folder / "gaps.csv")
    frame.drop(columns="petal_width").to_csv(folder / "narrow.csv")
    frame.assign(where="desert").to_csv(folder / "desert.csv")
    frame.assign(**{"petal_width": "wide"}).to_csv(folder / "words.csv")
    np.savez(folder / "wide.npz", x=np.ones((9, 7), "float32"), y=np.arange(9) % 3)
    content = (folder / "m.deltauq").read_bytes()
    (folder / "damaged.deltauq").write_bytes(content[:-9] + b"x" + content[-8:])
    return folder


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_a_paragraph(mistaken, mistake):
    command, said = MISTAKES[mistake]
    before = {path: path.stat().st_mtime for path in mistaken.iterdir()}
    arguments = [
        str(mistaken / part[1:-1]) if part.startswith("{") else part
        for part in re.findall(r"\{[^}]*\}|\S+", command)
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert re.search(said, words(result.stderr)), result.stderr
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr
    assert {path: path.stat().st_mtime for path in mistaken.iterdir()} == before


@pytest.mark.parametrize(
    "arguments",
    [("fit",), ("fits",), ("fit", "--seed", "x", "d.csv"), ("predict", "--no-such-option")],
)
def test_a_command_that_is_not_understood_exits_with_two(arguments):
    assert "Traceback" not in run(*arguments, code=2)


# as are the pages of docs/; its commands on less: the tests before, and report: test_old_files.py
@pytest.mark.wide
def test_the_pages_script_goes_from_credit_tables_to_a_report(tmp_path, monkeypatch):
    """docs/howto/command-line.md, as it stands there, without a line of Python."""
    credit = datasets.german_credit_table()
    credit.iloc[:750].to_csv(tmp_path / "train.csv", index=False)
    credit.iloc[750:].to_csv(tmp_path / "test.csv", index=False)
    monkeypatch.chdir(tmp_path)
    script = PAGE.read_text().split("```console\n")[1].split("```")[0]
    commands = [shlex.split(line.removeprefix("$ deltauq ")) for line in script.splitlines()]
    assert [command[0] for command in commands] == [
        "fit",
        "diagnose",
        "predict",
        "compare",
        "report",
    ]
    for command in commands:
        run(*command)
    frame = pd.read_csv("predictions.csv")
    assert np.mean(frame["label"] == frame["true"]) > 0.7
    page = Path("report.html").read_text()
    assert "credit" in page
    assert "bad" in page


@pytest.mark.wide  # a process of its own; what the commands say: the tests before
def test_a_terminal_sees_no_messages_of_tensorflow(folder):
    """In a process of its own: what TensorFlow writes comes from below Python."""
    result = subprocess.run(
        [sys.executable, "-m", "deltauq", "predict", folder / "m.deltauq", folder / "test.csv"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert words(result.stderr) == "Note: columns that the model does not use: kind"
    assert result.stdout.startswith("label,")


def test_errors_without_a_kind_of_their_own_are_answered_too(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise InvalidInputError("x is empty", expected="rows", remedy="pass [some] rows")

    # By its module: `deltauq.cli.demo` is also the command, which the room's front imports.
    monkeypatch.setattr(importlib.import_module("deltauq.cli.demo"), "run_demo", fail)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 1
    assert "x is empty. Expected: rows. What to do: pass [some] rows." in words(result.stderr)
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "--output" in result.output


@pytest.mark.slow
def test_the_demo(tmp_path):
    shown = run("demo", "--output", tmp_path / "out", "--quiet")
    assert "The standard errors are exact: nothing of any curvature was left out" in words(shown)
    assert "Nothing of the curvature was left out" in (tmp_path / "out/report.html").read_text()
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
