"""What a twin of a published model is, how it is trained, and where all of them are registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["TWINS", "Twin", "draw", "option", "train", "twin"]

#: Rows of a step of training.
BATCH = 24

#: Name -> a function that makes and trains the twin.
TWINS: dict[str, Callable[[], Twin]] = {}


@dataclass(frozen=True)
class Twin:
    """A small model like one that people publish, trained a little on made-up data of its kind.

    Attributes:
        model: as its owner would hand it over: a model, a file, or what wraps one.
        x: training inputs.
        y: labels.
        build: makes the same model without training; for a dense truth in float64. None for none.
        outcome: name of `agreement.OUTCOMES` that its outputs are; None where there is no truth.
        data: further arguments of `fit`.
        options: of `DeltaMethod`, known to its owner beforehand.
        ways: words of a refusal -> how its way out is taken, a function of the twin.
    """

    model: Any
    x: Any
    y: Any
    build: Callable[[], Any] | None = None
    outcome: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    ways: Mapping[str, Callable[[Twin], Twin]] = field(default_factory=dict)


def twin(name: str) -> Callable[[Callable[[], Twin]], Callable[[], Twin]]:
    """Register a function that makes a twin of a published model of this name."""

    def register(make: Callable[[], Twin]) -> Callable[[], Twin]:
        TWINS[name] = make
        return make

    return register


def option(**given: Any) -> Callable[[Twin], Twin]:
    """A way out that is one more option of `DeltaMethod`."""
    return lambda twin: replace(twin, options={**twin.options, **given})


def train(
    build: Callable[[], Any],
    x: Any,
    y: Any,
    *,
    epochs: int = 12,
    **fit: Any,
) -> Any:
    """Build a model that compiles itself, and train it by mini-batches with early stopping.

    Text goes in by a `tf.data.Dataset`, without validation: Keras takes no arrays of it.
    """
    keras.utils.set_random_seed(0)
    model = build()
    options = {"epochs": epochs, "verbose": 0, **fit}
    if any(leaf.dtype.kind == "U" for leaf in tf.nest.flatten(x)):
        model.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH), **options)
        return model
    stop = keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
    model.fit(x, y, batch_size=BATCH, validation_split=0.2, callbacks=[stop], **options)
    return model


def draw(rng: np.random.Generator, score: np.ndarray) -> np.ndarray:
    """Class numbers `[N]` for scores `[N, C]`, with noise, so that no class is certain."""
    return np.argmax(score + rng.gumbel(size=score.shape), axis=1)
