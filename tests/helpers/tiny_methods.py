"""Fits of a second or less, for tests that ask little of them: twelve rows, three classes."""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import numpy as np

from deltauq import DeltaMethod

__all__ = ["N", "X", "Y", "fit", "fitted", "network"]

N = 12
X = np.random.default_rng(0).normal(size=(N, 4))
Y = np.arange(N) % 3


def network(*middle: Any, n_outputs: int = 3, dtype: str = "float64", l2: float = 0.0) -> Any:
    """A dense layer behind some others, with the same weights every time."""
    keras.utils.set_random_seed(0)
    penalty = keras.regularizers.L2(l2 / 2) if l2 else None
    head = keras.layers.Dense(
        n_outputs, kernel_regularizer=penalty, bias_regularizer=penalty, dtype=dtype
    )
    return keras.Sequential([keras.Input((4,), dtype=dtype), *middle, head])


def fit(
    model: Any = None, x: Any = X, y: Any = Y, curvature: str = "ggn", **options: Any
) -> DeltaMethod:
    """Fit an L2 rate of 0.1 and all eigenpairs, where the options do not say otherwise."""
    options = {"l2": 0.1, "rank": "full", "progress": False} | options
    model = network() if model is None else model
    return DeltaMethod(model, curvature, **options).fit(x, y)


@cache
def fitted(curvature: str = "ggn", **options: Any) -> DeltaMethod:
    """`fit` of the plain network, once; for tests that leave it as it is."""
    return fit(curvature=curvature, **options)
