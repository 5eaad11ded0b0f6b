"""The networks of `reference.py` as Keras models, with seeded weights and data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import reference

from deltauq.data import Batches
from deltauq.likelihoods import Categorical

layers = keras.layers


@dataclass(frozen=True)
class Case:
    """A Keras model, data of N = 11 examples, and the dense truth."""

    name: str
    model: keras.Model
    x: Any
    y: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]
    truth: reference.Reference

    def batches(self, batch_size: int = 4, dtype: str = "float64") -> Batches:
        """The data as `Batches`; 11 is not divisible by most sizes."""
        return Batches(
            self.x,
            self.y,
            self.weight,
            weights="counts",
            likelihood=Categorical(),
            n_outputs=3,
            dtype=dtype,
            batch_size=batch_size,
        )


def case(name: str, dtype: str = "float64", *, weighted: bool = True) -> Case:
    """One of the four networks, at random weights."""
    network = reference.NETWORKS[name]
    rng = np.random.default_rng(7)
    weights = 0.6 * rng.normal(size=network.n_params)
    x = tuple(rng.normal(size=(11, *shape)) for shape in network.input_shapes)
    y = rng.integers(0, 3, 11)
    weight = rng.uniform(0.2, 2.0, 11) if weighted else np.ones(11)
    model = _BUILDERS[name](dtype)
    sizes = np.cumsum([int(np.prod(shape)) for shape in network.shapes])
    parts = np.split(weights, sizes[:-1])
    model.set_weights([p.reshape(s) for p, s in zip(parts, network.shapes, strict=True)])
    truth = reference.dense_reference(network, weights, x, y, weight)
    return Case(name, model, x[0] if len(x) == 1 else list(x), y, weight, truth)


def _no_hidden(dtype: str) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,), dtype=dtype),
            layers.Dense(3, activation="softmax", dtype=dtype),
        ]
    )


def _tanh(dtype: str) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,), dtype=dtype),
            layers.Dense(5, activation="tanh", dtype=dtype),
            layers.Dense(4, activation="tanh", dtype=dtype),
            layers.Dense(3, dtype=dtype),
        ]
    )


def _relu_conv(dtype: str) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((5, 5, 2), dtype=dtype),
            layers.Conv2D(3, 3, strides=2, padding="same", activation="relu", dtype=dtype),
            layers.Flatten(dtype=dtype),
            layers.Dense(4, activation="relu", dtype=dtype),
            layers.Dense(3, dtype=dtype),
        ]
    )


def _joined(dtype: str) -> keras.Model:
    a, b = keras.Input((3,), dtype=dtype), keras.Input((2,), dtype=dtype)
    branches = [
        layers.Dense(4, activation="tanh", dtype=dtype)(a),
        layers.Dense(3, activation="tanh", dtype=dtype)(b),
    ]
    joined = layers.Concatenate(dtype=dtype)(branches)
    return keras.Model([a, b], layers.Dense(3, activation="softmax", dtype=dtype)(joined))


_BUILDERS = {"no_hidden": _no_hidden, "tanh": _tanh, "relu_conv": _relu_conv, "joined": _joined}

NAMES = list(_BUILDERS)
