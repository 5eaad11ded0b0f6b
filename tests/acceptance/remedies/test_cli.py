"""Ways out that errors of the commands name."""

from __future__ import annotations

import shlex

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tiny_methods import X, Y, fit, fitted, network
from typer.testing import CliRunner
from ways import stumble

from deltauq import DeltaMethod
from deltauq.cli import app
from deltauq.cli.encoding import encoded, encoded_like
from deltauq.cli.fitting import _check_checkpoint, _check_route
from deltauq.cli.opening import Opened, open_artifact
from deltauq.cli.output import check_output
from deltauq.cli.tables import Examples, read_examples
from deltauq.cli.training import _class_names, train

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # Keras' `save`
]

TABLE = pd.DataFrame(X, columns=list("abcd")).assign(where=np.array(["field", "wood"])[Y % 2])


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


@pytest.mark.wide
def test_a_model_for_an_artifact(tmp_path):
    """In a directory whose name has a space, as many have."""
    folder = tmp_path / "my models"
    folder.mkdir()
    model = network(l2=0.1)
    model.save(folder / "m.keras")
    np.savez(folder / "train.npz", x=X, y=Y)
    with stumble("cli/opening.py:open_artifact", "deltauq fit TRAINING_DATA --model ") as caught:
        open_artifact(folder / "m.keras")
    command = shlex.split(caught.error.remedy.replace("m.deltauq", f"'{folder}/m.deltauq'"))
    assert command[:2] == ["deltauq", "fit"]
    run(*[folder / "train.npz" if each == "TRAINING_DATA" else each for each in command[1:]])
    found = DeltaMethod.load(folder / "m.deltauq").predict(X).std
    np.testing.assert_allclose(found, fitted().predict(X).std)


def test_a_model_that_takes_no_table(tmp_path):
    image = Opened(None, {}, spec=tf.TensorSpec([None, 2, 2]))
    two = Opened(None, {}, spec={name: tf.TensorSpec([None, 2]) for name in "ab"})
    for opened in (image, two):
        with stumble("cli/opening.py:_refuse_tables", "write them with numpy.savez(path, x=...)"):
            opened.inputs(Examples(TABLE))
    path = tmp_path / "data.npz"
    np.savez(path, x=X.reshape(-1, 2, 2), a=X[:, :2], b=X[:, 2:])
    read = {"target": None, "needs_target": False}
    np.testing.assert_array_equal(image.inputs(read_examples(path, **read)), X.reshape(-1, 2, 2))
    found = two.inputs(read_examples(path, inputs="a,b", **read))
    np.testing.assert_array_equal(np.hstack([found["a"], found["b"]]), X)


def test_a_place_that_cannot_be_written(tmp_path):
    with stumble("cli/output.py:check_output", "create the directory first"):
        check_output(tmp_path / "a" / "m.deltauq")
    (tmp_path / "a").mkdir()
    assert check_output(tmp_path / "a" / "m.deltauq") == tmp_path / "a" / "m.deltauq"
    with stumble("cli/output.py:check_output", "name a file in it"):
        check_output(tmp_path / "a")
    fitted().save(check_output(tmp_path / "a" / "m.deltauq"))
    with stumble("cli/output.py:check_output", "or name another"):
        check_output(tmp_path / "a" / "m.deltauq" / "n.deltauq")
    assert check_output(tmp_path / "n.deltauq").name == "n.deltauq"


def test_training_data_beside_a_route_that_keeps_none(tmp_path):
    network(l2=0.1).save(tmp_path / "own.keras")
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    options = ("--model", tmp_path / "own.keras", "-o", tmp_path / "m", "--likelihood")
    asked = ("fit", tmp_path / "d.npz", *options, "categorical")
    with stumble("cli/fitting.py:_check_route", "say --route gram too"):
        _check_route("auto", training_data=True)
    run(*asked, "--training-data", "--route", "gram")
    found = DeltaMethod.load(tmp_path / "m").predict(X).std
    run(*asked)
    np.testing.assert_allclose(DeltaMethod.load(tmp_path / "m").predict(X).std, found)


def test_a_checkpoint_of_a_network_that_is_trained_anew(tmp_path):
    network(l2=0.1).save(tmp_path / "own.keras")
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    with stumble("cli/fitting.py:_check_checkpoint", "say --model too"):
        _check_checkpoint(tmp_path / "c", None)
    _check_checkpoint(None, None)
    options = ("--model", tmp_path / "own.keras", "-o", tmp_path / "m", "--likelihood")
    asked = ("fit", tmp_path / "d.npz", *options, "categorical")
    run(*asked, "--checkpoint", tmp_path / "c")
    assert not list((tmp_path / "c").iterdir())
    np.testing.assert_allclose(
        DeltaMethod.load(tmp_path / "m").predict(X).std, fitted().predict(X).std
    )


def test_values_that_are_missing_or_new():
    wide, _ = encoded(TABLE)
    holes, new = TABLE.copy(), TABLE.copy()
    holes.loc[3, "b"], new.loc[3, "where"] = np.nan, "desert"
    with stumble("cli/tables.py:refuse_missing", "fill them in or drop those rows before"):
        encoded_like(holes, list(wide))
    with stumble("cli/encoding.py:encoded_like", "drop those rows, or fit again"):
        encoded_like(new, list(wide))
    for rest in (holes.dropna(), new[new["where"] != "desert"]):
        pd.testing.assert_frame_equal(encoded_like(rest, list(wide))[0], wide.drop(index=3))
    imputed = encoded_like(holes.fillna({"b": 0.5}), list(wide))[0]
    assert imputed.loc[3, "b"] == 0.5
    again, _ = encoded(new)
    pd.testing.assert_frame_equal(encoded_like(new, list(again))[0], again)


SMALL = {"hidden_units": (2,), "l2": 0.1, "random_state": 0}


def trained(x, y, likelihood="auto"):
    return train(x, y, None, likelihood=likelihood, settings=SMALL)


@pytest.mark.wide
def test_what_no_network_is_trained_for_here(tmp_path):
    """A model of one's own takes it, by `--model`."""
    with stumble("cli/training.py:_features", "train your own model and pass --model"):
        trained({"a": X, "b": X}, Y)
    with stumble("cli/training.py:_class_names", "train your own model and pass --model"):
        trained(X, np.eye(3)[Y])
    network(l2=0.1).save(tmp_path / "own.keras")
    np.savez(tmp_path / "d.npz", x=X, y=np.eye(3)[Y])
    options = ("--model", tmp_path / "own.keras", "-o", tmp_path / "m", "--likelihood")
    run("fit", tmp_path / "d.npz", *options, "multilabel")
    found = DeltaMethod.load(tmp_path / "m").predict(X).std
    own = fit(network(l2=0.1), y=np.eye(3)[Y], likelihood="multilabel")
    np.testing.assert_allclose(found, own.predict(X).std)


@pytest.mark.wide  # labels that are refused: tests/cli/test_encoding.py
@pytest.mark.filterwarnings("ignore:.*converge")
@pytest.mark.filterwarnings("ignore:The least populated class")
def test_labels_that_look_like_numbers():
    """Names do not, however many; and of whole numbers the option says that they are classes."""
    x, y = np.random.default_rng(0).normal(size=(120, 2)), np.arange(120) % 60
    site = "cli/training.py:_class_names"
    with stumble(site, "pass --likelihood gaussian for a regression"):
        trained(x, y + 0.5)
    assert trained(x, y + 0.5, "gaussian").classes is None
    with stumble(site, "--likelihood categorical says that they are classes"):
        trained(x, y)
    assert len(trained(x, y, "categorical").classes) == 60
    names = np.char.add("kind ", y.astype(str))
    np.testing.assert_array_equal(_class_names(names, "auto"), names)


def test_a_table_of_free_text_alone(tmp_path):
    """Numbers that say something of the text are inputs where the text itself cannot be one."""
    reviews = pd.DataFrame(
        {"review": [f"film {i} is good" for i in range(30)], "liked": 15 * [0, 1]}
    )
    reviews.to_csv(tmp_path / "a.csv", index=False)
    asked = {"target": "liked", "needs_target": True, "inputs": "x", "weights": None}
    with stumble("cli/tables.py:_of_columns", "as columns of the table"):
        read_examples(tmp_path / "a.csv", ignore="review", **asked)
    longer = reviews.assign(length=reviews["review"].str.len(), words=4)
    longer.to_csv(tmp_path / "b.csv", index=False)
    found = read_examples(tmp_path / "b.csv", ignore="review", **asked)
    assert list(encoded(found.x)[0].columns) == ["length", "words"]
