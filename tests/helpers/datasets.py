"""Data that are not part of the project: `$DELTAUQ_DATA`, else `../shared/data`, else skipped."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"


def load(name):
    """The arrays of one `.npz` file, or a skip that says what is missing."""
    path = Path(os.environ.get("DELTAUQ_DATA", _BESIDE)) / name
    if not path.exists():
        pytest.skip(f"{name} is not there: set DELTAUQ_DATA to the directory that holds it")
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays}


def german_credit_table():
    """The German credit data as their donors have them: numbers, codes as text, and the risk."""
    arrays = load("uci_german_credit.npz")
    table = pd.DataFrame(arrays["x_num"], columns=arrays["numeric_names"].tolist())
    for codes, name in zip(arrays["x_cat"].T, arrays["categorical_names"].tolist(), strict=True):
        table[name] = arrays[f"vocab_{name}"][codes]
    table["RISK"] = np.where(arrays["y"] == 1, "bad", "good")
    return table
