"""Columns of tables: what the file says of them, and how they become a model's inputs."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
from marks import wide
from typer.testing import CliRunner

from deltauq import DeltaMethod
from deltauq.cli import app
from deltauq.cli.tables import read_examples
from deltauq.errors import InvalidInputError

layers = keras.layers
RNG = np.random.default_rng(0)
N = 40

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # Keras saves a model
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
]

#: People by what a model takes of each on its own; the numbers are beyond those of float32.
PEOPLE = pd.DataFrame(
    {
        "age": RNG.normal(40, 9, N),
        "city": RNG.choice(["Oslo", "NA", "Bergen"], N),
        "account": RNG.choice([2**24, 2**24 + 1], N),
    }
)
RISK = RNG.integers(0, 2, N)
REVIEWS = pd.DataFrame({"review": RNG.choice(["good", "so bad", "007", "nan"], N)})


def run(*arguments, codes=(0,)):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code in codes, result.output
    return result.output


def of_people(named):
    """A model with an input for each column, in a dict or in a list."""
    age = keras.Input((1,), name="age")
    city = keras.Input((1,), name="city", dtype="string")
    account = keras.Input((1,), name="account", dtype="int64")
    known = layers.StringLookup(vocabulary=["Oslo", "NA"], output_mode="one_hot")(city)
    accounts = layers.IntegerLookup(vocabulary=[2**24, 2**24 + 1], output_mode="one_hot")(account)
    z = layers.Concatenate()([layers.Rescaling(0.02)(age), known, accounts])
    inputs = {"age": age, "city": city, "account": account} if named else [age, city, account]
    return keras.Model(inputs, layers.Dense(2, "softmax")(z))


def of_reviews():
    text = layers.TextVectorization(vocabulary=["good", "bad"], output_sequence_length=2)
    return keras.Sequential(
        [
            keras.Input((1,), dtype="string"),
            text,
            layers.Embedding(4, 2),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1, "sigmoid"),
        ]
    )


def fit(model, x):
    return DeltaMethod(model, "ggn", l2=0.1, progress=False).fit(x, RISK)


@pytest.mark.parametrize("named", [True, wide(False)], ids=["dict", "list"])
def test_a_frame_is_its_columns_where_the_model_takes_them_by_name(named):
    """In any order, and whole numbers stay whole although the model computes in float32."""
    model = of_people(named)
    arrays = {name: PEOPLE[name].to_numpy()[:, None] for name in PEOPLE}
    expected = fit(model, arrays if named else list(arrays.values()))
    std = expected.predict(arrays if named else list(arrays.values())).std
    for frame in (PEOPLE, PEOPLE[["city", "account", "age"]].astype({"account": "float64"})):
        fitted = fit(model, frame)
        np.testing.assert_allclose(fitted.predict(frame).std, std, rtol=1e-5)
        np.testing.assert_allclose(fitted.predict(PEOPLE).std, std, rtol=1e-5)
    assert len(np.unique(np.round(std[PEOPLE["city"] == "Oslo"] / std.max(), 4))) > 2


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (PEOPLE.assign(zip=1), r"not the inputs of the model.*leave out.*x\[\['account'"),
        (PEOPLE.drop(columns="age"), r"\['account', 'age', 'city'\].*add.*columns age"),
        (PEOPLE.assign(account=0.5), "whole numbers that int64 holds"),
        (PEOPLE.assign(city=1), "x does not hold text"),
        (PEOPLE.assign(age="old"), "does not hold numbers.*'old'"),
    ],
    ids=["more", "fewer", "fractions", "numbers for text", "text for numbers"],
)
def test_columns_that_are_not_those_inputs_are_refused(frame, message):
    with pytest.raises(InvalidInputError, match=message):
        fit(of_people(named=True), frame)


MODELS = {"people": (lambda: of_people(named=True), PEOPLE), "reviews": (of_reviews, REVIEWS)}


@pytest.mark.wide  # text in models: tests/acceptance/test_lookups.py; commands: test_commands.py
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_of_text_goes_through_every_command(kind, tmp_path):
    """With a column that it does not use, which is named."""
    make, table = MODELS[kind]
    model = make()
    loss = "sparse_categorical_crossentropy" if kind == "people" else "binary_crossentropy"
    model.compile("adam", loss)
    model.save(tmp_path / "m.keras")
    table.assign(risk=RISK).to_csv(tmp_path / "t.csv", index=False)
    data = (tmp_path / "t.csv", "--target", "risk")
    with_model = ("--model", tmp_path / "m.keras", "--l2", 0.1, "-o", tmp_path / "m.deltauq")
    run("diagnose", tmp_path / "m.keras", *data, "--l2", 0.1, codes=(0, 3))  # it is not trained
    run("fit", *data, *with_model, "--quiet")
    said = run("predict", tmp_path / "m.deltauq", tmp_path / "t.csv", "-o", tmp_path / "p.csv")
    assert "columns that the model does not use: risk" in " ".join(said.split())
    run("report", tmp_path / "m.deltauq", *data, "-o", tmp_path / "r.html")
    found = pd.read_csv(tmp_path / "p.csv")["se"]
    np.testing.assert_allclose(found, fit(model, table).predict(table).std[:, 0], rtol=1e-4)


@pytest.mark.wide  # names of classes: test_commands.py
def test_names_of_two_classes_of_one_sigmoid(tmp_path):
    """They stand for 0 and 1; the smoothing of the loss is read, and the artifact knows both."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, "sigmoid")])
    model.compile("sgd", keras.losses.BinaryCrossentropy(label_smoothing=0.2))
    model.save(tmp_path / "m.keras")
    table, truth = PEOPLE[["age"]].assign(height=RNG.normal(size=N)), ["neg", "pos"]
    table.assign(risk=np.array(truth)[RISK]).to_csv(tmp_path / "t.csv", index=False)
    data = (tmp_path / "t.csv", "--target", "risk")
    ways = ("fit", *data, "--model", tmp_path / "m.keras", "--l2", 0.1, "-o", tmp_path / "m")
    assert "for names of two classes pass --classes" in " ".join(run(*ways, codes=(1,)).split())
    run(*ways, "--classes", "neg,pos")
    run("predict", tmp_path / "m", *data, "-o", tmp_path / "p.csv")
    found = pd.read_csv(tmp_path / "p.csv")
    assert set(found["label"]) <= set(truth)
    assert found["true"].tolist() == np.array(truth)[RISK].tolist()
    likelihood = DeltaMethod.load(tmp_path / "m").fitted_likelihood
    assert (likelihood.classes, likelihood.label_smoothing) == (("neg", "pos"), 0.2)
    expected = fit(model, table.to_numpy()).predict(table.to_numpy()).std[:, 1]
    np.testing.assert_allclose(found["se_pos"], expected, rtol=1e-4)


CELLS = {
    "the text NA": ("Oslo\nNA\nnan\n", ["Oslo", "NA", "nan"]),
    "postal codes": ("01234\n99999\n10000\n", ["01234", "99999", "10000"]),
    "numbers": ("0\n10\n-3\n", [0, 10, -3]),
    "fractions": ("0.5\n1\n00\n", [0.5, 1.0, 0.0]),
    "truth": ("True\nFalse\nTrue\n", [True, False, True]),
}


@pytest.mark.parametrize("kind", CELLS)
def test_a_column_is_what_the_file_says(kind, tmp_path):
    text, expected = CELLS[kind]
    (tmp_path / "t.csv").write_text("value\n" + text)
    found = read_examples(tmp_path / "t.csv", target=None, needs_target=False).x["value"]
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("cells", "missing"),
    [("1\nNA\n3\n", 1), ("1.5\n\n", 0), ('"Oslo"\n""\n"NA"\n', 1)],
    ids=["NA among numbers", "no line", "nothing among text"],
)
def test_missing_values_are_still_counted(cells, missing, tmp_path):
    (tmp_path / "t.csv").write_text("value\n" + cells)
    found = read_examples(tmp_path / "t.csv", target=None, needs_target=False).x["value"]
    assert found.isna().sum() == missing
