"""Tables as they are found: what is taken for a category, a number or a column, and what is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from ways import stumble

from deltauq.cli.encoding import encoded, encoded_like
from deltauq.cli.tables import read_examples
from deltauq.cli.training import train
from deltauq.errors import InvalidInputError

N = 60
NUMBERS = np.linspace(1000, 9000, N).round().astype(int)
DAYS = pd.date_range("2021-01-30", periods=N).strftime("%Y-%m-%d")


def column(values):
    """A table with a column of text beside one of numbers."""
    return pd.DataFrame({"size": np.arange(N), "text": list(values)})


#: Text that is no category -> what is said of it, and what to do.
NO_CATEGORIES = {
    "names": ([f"Ann O'Neil {n}" for n in range(N)], r"60 different.*such as \"Ann.*--ignore text"),
    "ids": ([f"C{n:05d}" for n in range(N)], r"60 different values in 60 rows.*--ignore text"),
    "codes": ([f"0{n}" for n in NUMBERS], r"60 different values.*--ignore text"),
    "dates": (DAYS, r"such as '2021-01-30'.*--ignore text"),
    "thousands": ([f"{n:,}" for n in NUMBERS], r"numbers as text, such as '1,000'.*write the num"),
    "decimal commas": (
        [f"{n / 100}".replace(".", ",") for n in NUMBERS],
        r"such as '10,0'.*1234\.5",
    ),
    "shares": ([f"{n / 100} %" for n in NUMBERS], r"numbers as text.*write the numbers of text"),
    "units": ([f"{n}kg" for n in NUMBERS], r"numbers as text.*write the numbers of text"),
    "money": ([f"-$ {n:,}" for n in NUMBERS], r"numbers as text.*write the numbers of text"),
    "gaps": (
        ["?", "n/a", *map(str, NUMBERS[2:])],
        r"numbers as text, beside \['\?', 'n/a'\].*leave the place empty",
    ),
}


@pytest.mark.parametrize("kind", NO_CATEGORIES)
def test_text_that_is_no_category_is_refused(kind):
    """A network would learn the rows by heart, and no new row could be predicted."""
    values, said = NO_CATEGORIES[kind]
    with pytest.raises(InvalidInputError, match=said):
        encoded(column(values))


CATEGORIES = {
    "many names, each in many rows": [f"city {n % 25}" for n in range(N)],
    "few numbers and more": ["0", "1", "2", "3+"] * (N // 4),
    "every row another one, of few rows": [f"{n % 20}" for n in range(N)],
}


@pytest.mark.parametrize("kind", CATEGORIES)
def test_categories_are_taken(kind):
    values = CATEGORIES[kind]
    table, text = encoded(column(values))
    assert text == ["text"]
    assert table.shape == (N, 1 + len(set(values)))
    again, unused = encoded_like(column(values)[::-1], list(table.columns))
    assert unused == []
    pd.testing.assert_frame_equal(again, table[::-1])


def test_of_many_known_values_a_few_are_named():
    table, _ = encoded(column([f"city {n % 25:02d}" for n in range(N)]))
    with pytest.raises(InvalidInputError, match=r"'city 09'\] and 15 more.*\['Rome'\]"):
        encoded_like(column(["Rome"] * N), list(table.columns))


#: Files that pandas would make other columns of than people see.
FILES = {
    "semicolons": ("Alter;Miete\n7,70;276,20\n", r"separated by ';'.*sep=';', decimal=','"),
    "tabs": ("age\tprice\n7\t8\n", r"separated by '\\t'"),
    "commas in every number": ("size,price\n1,234,5\n2,345,6\n", r"header.*put a value.*in quotes"),
    "commas in one number": ("size,price\n1,2\n2,345,6\n", r"(?s)line 3.*put a value.*in quotes"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_other_columns_is_refused(kind, tmp_path):
    text, said = FILES[kind]
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(InvalidInputError, match=said):
        read_examples(tmp_path / "d.csv", target="price", needs_target=True)


def test_a_comma_behind_every_row_is_no_column(tmp_path):
    """As some programs write it."""
    (tmp_path / "d.csv").write_text("size,kind,price\n01,a,2,\n3,b,4,\n")
    found = read_examples(tmp_path / "d.csv", target="price", needs_target=True)
    assert (found.x.to_numpy().tolist(), found.y.tolist()) == ([["01", "a"], ["3", "b"]], [2, 4])


def read(path, target="price"):
    return read_examples(path, target=target, needs_target=True)


def test_semicolons_are_written_anew(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("Alter;Miete\n7,70;276,20\n")
    with stumble("cli/tables.py:_check_separator", "sep="):
        read(path, "Miete")
    pd.read_csv(path, sep=";", decimal=",").to_csv(path, index=False)
    found = read(path, "Miete")
    assert (found.x["Alter"].item(), found.y.item()) == (7.7, 276.2)


def test_commas_in_values_are_put_in_quotes(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("who,price\nSmith, Jr.,5\nBell,6\n")
    with stumble("cli/tables.py:_read_csv", "put a value that has a comma in quotes"):
        read(path)
    path.write_text('who,price\n"Smith, Jr.",5\nBell,6\n')
    assert read(path).x["who"].tolist() == ["Smith, Jr.", "Bell"]


def test_a_file_is_saved_in_utf_8(tmp_path):
    path = tmp_path / "d.csv"
    path.write_bytes("Fläche,price\n1,2\n".encode("cp1252"))
    with stumble("cli/tables.py:_read_csv", "save it in UTF-8"):
        read(path)
    path.write_text(path.read_text("cp1252"), "utf-8")
    assert list(read(path).x) == ["Fläche"]


def test_numbers_are_written_as_such_and_names_are_left_out():
    table = column(f"{n:,}" for n in NUMBERS).assign(day=DAYS)
    with stumble("cli/encoding.py:_refuse_no_categories", "leave out names"):
        encoded(table)
    numbers = table.assign(text=table["text"].str.replace(",", "").astype(float))
    wide, text = encoded(numbers.drop(columns="day"))
    assert (list(wide), text) == (["size", "text"], [])


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "d.csv").write_text("age,price\n1,2\n", encoding="utf-8-sig")
    assert list(read(tmp_path / "d.csv").x) == ["age"]


#: Labels -> the likelihood that is asked for, and what is said of them.
LABELS = {
    "money": ([f"${n:,}" for n in NUMBERS], "gaussian", r"labels are text.*such as '\$1,000'"),
    "money, as classes": ([f"${n:,}" for n in NUMBERS], "auto", r"such as '\$1,000'.*1234\.5"),
    "too few rows": (["a", "b"], "auto", r"2 rows, at which it says.*give the rate, such as l2="),
    "one class": (["a"] * N, "auto", r"cross-validation.*give the rate, such as l2="),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_no_network_can_be_trained_on(kind):
    labels, likelihood, said = LABELS[kind]
    x = np.arange(len(labels), dtype="float64")[:, None]
    with pytest.raises(InvalidInputError, match=said):
        train(x, np.array(labels), None, likelihood=likelihood, settings={"hidden_units": (2,)})


@pytest.mark.wide  # the errors: the tests before
def test_labels_are_written_as_numbers_and_a_rate_stands_for_cross_validation():
    x, settings = np.arange(6.0)[:, None], {"hidden_units": (1,), "random_state": 0}
    money, prices = np.array([f"${n:,}" for n in NUMBERS[:6]]), NUMBERS[:6].astype(float)
    with stumble("cli/training.py:_numbers", "write them so"):
        train(x, money, None, likelihood="gaussian", settings=settings | {"l2": 0.1})
    with stumble("cli/training.py:_best_l2", "give the rate"):
        train(x[:2], prices[:2], None, likelihood="gaussian", settings=settings)
    found = train(x, prices, None, likelihood="gaussian", settings=settings | {"l2": 0.1})
    assert (found.classes, found.l2) == (None, 0.1)
