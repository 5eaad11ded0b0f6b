"""What no call expects: values of every kind, inputs of every form, files with every damage."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import io
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import tensorflow as tf

__all__ = ["ANYTHING", "damaged", "inputs_like"]

Array = np.ndarray


class Odd:
    """An object of no use."""


def _raise(*arguments: Any, **options: Any) -> Any:
    raise ZeroDivisionError("asked too much")


#: Values for any argument, by a name; made anew, as some can be used once.
ANYTHING: dict[str, Callable[[], Any]] = {
    **{
        repr(value): lambda value=value: value
        for value in (
            *(None, True, False, 0, 1, 3, 7, -1, 10**30, -(10**30), 2**63, 0.5, 1.5, -0.0),
            *(float("nan"), float("inf"), -float("inf"), 1e308, 1e-320, 1 + 2j, "", "a", "auto"),
            *("full", "0.5", "top2", "\0", b"x", (), ..., NotImplemented, range(12), slice(0, 3)),
        )
    },
    "long text": lambda: "x" * 10_000,
    "an empty list": list,
    "numbers": lambda: [0, 1],
    "ragged numbers": lambda: [[1, 2], [3]],
    "a deep list": lambda: [[[[[1.0]]]]],
    "a mixed list": lambda: [1, "a", None],
    "an empty dict": dict,
    "a dict of text": lambda: {"a": 1},
    "a dict of numbers": lambda: {1: 2.0},
    "a dict of NaN": lambda: {float("nan"): 1},
    "a set": lambda: {1, 2},
    "a generator": lambda: (k for k in range(3)),
    "a deque": lambda: collections.deque([1, 2]),
    "an object": Odd,
    "a class": lambda: Odd,
    "a type": lambda: int,
    "a module": lambda: np,
    "an exception": lambda: ValueError("x"),
    "a function": lambda: lambda *arguments, **options: 1,
    "a function that fails": lambda: _raise,
    "a path": lambda: pathlib.Path("/nonexistent/x"),
    "a date": lambda: datetime.date(2020, 1, 1),
    "a decimal": lambda: decimal.Decimal("0.5"),
    "a decimal NaN": lambda: decimal.Decimal("NaN"),
    "a fraction": lambda: fractions.Fraction(1, 2),
    "bytes": lambda: bytearray(b"abc"),
    "a view": lambda: memoryview(b"abc"),
    "NumPy's NaN": lambda: np.float64("nan"),
    "NumPy's number": lambda: np.int64(2),
    "NumPy's truth": lambda: np.bool_(True),
    "NumPy's text": lambda: np.str_("ggn"),
    "a time": lambda: np.datetime64("2020-01-01"),
    "a span of time": lambda: np.timedelta64(1, "s"),
    "a scalar array": lambda: np.array(3),
    "an empty array": lambda: np.array([]),
    "an array of no rows": lambda: np.zeros((0, 4)),
    "an array of no columns": lambda: np.zeros((3, 0)),
    "an array of objects": lambda: np.array([Odd()]),
    "an array with None": lambda: np.array([None, 1.0]),
    "records": lambda: np.zeros(12, [("a", float), ("b", int)]),
    "a masked array": lambda: np.ma.masked_array([1.0, 2.0], [True, False]),
    "an empty frame": pd.DataFrame,
    "a column": lambda: pd.Series([1, 2, 3]),
    "no time": lambda: pd.NaT,
    "no value": lambda: pd.NA,
    "a tensor": lambda: tf.constant([1.0]),
    "a tensor of text": lambda: tf.constant(["a"]),
    "a ragged tensor": lambda: tf.ragged.constant([[1.0], [1.0, 2.0]]),
    "a variable": lambda: tf.Variable(1.0),
    "a sparse matrix": lambda: scipy.sparse.eye(4).tocsr(),
}


def inputs_like(x: Array, rng: np.random.Generator) -> tuple[str, Any, Array | None]:
    """Some of the rows of x in a form that may be malformed, and what the form means.

    Args:
        x: `[N, F]`, float64.
        rng: chooses.

    Returns:
        Its name, the form, and the float64 rows `[n, F]` that it can mean; None where it means none
        and must be refused.
    """
    rows = x[rng.permutation(len(x))[: rng.integers(1, len(x) + 1)]]
    row, column = int(rng.integers(len(rows))), int(rng.integers(x.shape[1]))
    spoilt = rows.copy()
    spoilt[row, column] = rng.choice([np.nan, np.inf, -np.inf])
    names = list("abcdefgh")[: x.shape[1]]
    tensors = tf.data.Dataset.from_tensor_slices
    forms: dict[str, tuple[Callable[[], Any], Array | None]] = {
        "as it is": (lambda: rows, rows),
        "in Fortran's order": (lambda: np.asfortranarray(rows), rows),
        "of the other byte order": (lambda: rows.astype(">f8"), rows),
        "in float16": (lambda: rows.astype("float16"), rows.astype("float16").astype(float)),
        "in long double": (lambda: rows.astype("longdouble"), rows),
        "as whole numbers": (lambda: (10 * rows).astype(int), (10 * rows).astype(int) * 1.0),
        "as small numbers": (lambda: (rows > 0).astype("uint8"), (rows > 0) * 1.0),
        "as truths": (lambda: rows > 0, (rows > 0) * 1.0),
        "as lists": (rows.tolist, rows),
        "as tuples": (lambda: tuple(map(tuple, rows)), rows),
        "as a tensor": (lambda: tf.constant(rows), rows),
        "as a frame": (lambda: pd.DataFrame(rows, columns=names), rows),
        "as a dataset": (lambda: tensors(rows).batch(5), rows),
        "as single examples": (lambda: tensors(rows), rows),
        "one row twice": (lambda: np.broadcast_to(rows[row], (2, x.shape[1])), rows[[row, row]]),
        "huge": (lambda: rows * 1e300, None if np.any(rows) else rows),
        "with NaN or infinity": (lambda: spoilt, None),
        "a frame with NaN or infinity": (lambda: pd.DataFrame(spoilt, columns=names), None),
        "as objects": (lambda: rows.astype(object), rows),
        "as text": (lambda: rows.astype(str), None),
        "with None": (lambda: np.where(spoilt == rows, rows, None), None),
        "complex": (lambda: rows + 1j, None),
        "times": (lambda: np.full(rows.shape, np.datetime64("2020-01-01")), None),
        "masked": (lambda: np.ma.masked_invalid(spoilt), None),
        "ragged": (
            lambda: [list(r[: 1 + k % 3]) for k, r in enumerate(np.tile(rows, (2, 1)))],
            None,
        ),
        "without rows": (lambda: rows[:0], None),
        "one row without its axis": (lambda: rows[row], None),
        "without a column": (lambda: rows[:, 1:], None),
        "with one more column": (lambda: np.hstack([rows, rows[:, :1]]), None),
        "with one more axis": (lambda: rows[:, :, None, None], None),
        "in a list of two": (lambda: [rows, rows], None),
        "in a dict": (lambda: {"another": rows, "one": rows}, None),
        "as a generator": (lambda: (r for r in rows), None),
        "sparse": (lambda: scipy.sparse.csr_matrix(rows), None),
        "a dataset with labels": (lambda: tensors((rows, np.zeros(len(rows)))).batch(3), None),
        "a dataset of no rows": (lambda: tensors(rows[:0]).batch(3), None),
        "a dataset without end": (lambda: tensors(rows).batch(3).repeat(), None),
        "records": (lambda: np.zeros(len(rows), [("a", float), ("b", float)]), None),
    }
    if rows.shape[0] == rows.shape[1]:
        forms["transposed"] = (lambda: rows.T, rows.T)
    else:
        forms["transposed"] = (lambda: rows.T, None)
    name = str(rng.choice(list(forms)))
    make, meaning = forms[name]
    return name, make(), meaning


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The content of a file after one of the things that happen to files."""
    place = int(rng.integers(len(content)))
    kind = rng.integers(7)
    if kind == 0:  # the copy stopped
        return content[:place]
    if kind == 1:  # a byte became another
        other = (content[place] + int(rng.integers(1, 256))) % 256
        return content[:place] + bytes([other]) + content[place + 1 :]
    if kind == 2:  # a block was not written
        end = min(len(content), place + 64)
        return content[:place] + bytes(end - place) + content[end:]
    if kind == 3:  # a block was lost
        return content[:place] + content[place + 64 :]
    if kind == 4:  # two files were appended
        return content + content
    if kind == 5:  # another file altogether
        saved = io.BytesIO()
        np.savez(saved, other=np.arange(3))
        return [b"", b"some text\n", saved.getvalue(), rng.bytes(500)][rng.integers(4)]
    return content[place:]  # the beginning was lost
