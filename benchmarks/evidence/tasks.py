"""Data that experiments train on: scikit-learn's, and those of `$DELTAUQ_DATA`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets
from sklearn.model_selection import train_test_split

Array = np.ndarray[Any, Any]

#: Where data files lie that are not part of the project.
FOLDER = Path(os.environ.get("DELTAUQ_DATA", Path(__file__).parents[3] / "shared" / "data"))

_SMALL = {
    "digits": sklearn.datasets.load_digits,
    "iris": sklearn.datasets.load_iris,
    "wine": sklearn.datasets.load_wine,
    "breast cancer": sklearn.datasets.load_breast_cancer,
}
#: Two digits side by side: a hundred classes.
PAIRS = "digit pairs"

_FILES = {
    "adult": "uci_adult.npz",
    "german credit": "uci_german_credit.npz",
    "mnist": "mnist.npz",
    "fashion": "fashion_mnist.npz",
    "notmnist": "notmnist_test.npz",
}


@dataclass(frozen=True)
class Task:
    """Inputs that a network can take, and class numbers: for training, and for a test."""

    x: Array
    y: Array
    x_test: Array
    y_test: Array

    @property
    def n_classes(self) -> int:
        """C, the classes that there are in training."""
        return int(self.y.max()) + 1


def present(name: str) -> bool:
    """Whether the data of a task are there."""
    return name in _SMALL or name == PAIRS or (FOLDER / _FILES[name]).exists()


@cache
def task(name: str, n_train: int, n_test: int, seed: int = 0) -> Task:
    """A task's data, drawn by a seed, at most so many rows of each kind, scaled by the training's.

    The data sets of scikit-learn and German credit are divided at random, the others as they are
    published; digits are divided before they are paired. Columns have mean 0 and standard deviation
    1 in training; pixels lie in [0, 1].
    """
    x, y, x_test, y_test = _divided(name, n_test, seed)
    rng = np.random.default_rng(seed)
    rows, tests = (rng.permutation(len(a))[:n] for a, n in ((y, n_train), (y_test, n_test)))
    x, x_test = x[rows].astype(np.float32), x_test[tests].astype(np.float32)
    if x.ndim == 2 and name not in ("digits", PAIRS):
        mean, std = x.mean(axis=0), x.std(axis=0)
        std[std == 0] = 1.0
        x, x_test = (x - mean) / std, (x_test - mean) / std
    return Task(x, y[rows].astype(np.int64), x_test, y_test[tests].astype(np.int64))


def _divided(name: str, n_test: int, seed: int) -> tuple[Array, Array, Array, Array]:
    if name in _SMALL:
        x, y = _SMALL[name](return_X_y=True)
        return _split(x / 16 if name == "digits" else x, y, seed)
    if name == PAIRS:
        x, y, x_test, y_test = _divided("digits", n_test, seed)
        rng = np.random.default_rng(seed)
        return *_paired(x, y, rng), *_paired(x_test, y_test, rng)
    with np.load(FOLDER / _FILES[name], allow_pickle=False) as arrays:
        if name == "german credit":
            return _split(arrays["x_numeric24"], arrays["y"], seed)
        if name == "adult":
            codes = [len(arrays[f"vocab_{c}"]) for c in arrays["categorical_names"]]
            parts = [
                np.hstack([arrays[f"x_num_{part}"], *_one_hot(arrays[f"x_cat_{part}"], codes)])
                for part in ("train", "test")
            ]
            return parts[0], arrays["y_train"], parts[1], arrays["y_test"]
        kinds = ("train", "test") if "x_train" in arrays else ("test", "test")
        images = [arrays[f"x_{kind}"][..., None] / np.float32(255) for kind in kinds]
        return images[0], arrays[f"y_{kinds[0]}"], images[1], arrays[f"y_{kinds[1]}"]


def _split(x: Array, y: Array, seed: int) -> tuple[Array, Array, Array, Array]:
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.4, random_state=seed, stratify=y)
    return x, y, x_test, y_test


def _paired(x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """5,000 pairs, drawn with repetition."""
    left, right = rng.integers(len(y), size=(2, 5000))
    return np.hstack([x[left], x[right]]), 10 * y[left] + y[right]


def _one_hot(columns: Array, sizes: list[int]) -> list[Array]:
    return [np.eye(size)[column] for column, size in zip(columns.T, sizes, strict=True)]
