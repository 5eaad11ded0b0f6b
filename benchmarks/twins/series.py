"""Twins of published models of time series."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from twin import Twin, draw, train, twin

layers = keras.layers


def windows(steps: int = 12, ahead: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Windows `[N, T, 1]` of a noisy wave, and what follows each, `[N, ahead]`."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(120) / 5) + 0.2 * rng.normal(size=120)
    view = np.lib.stride_tricks.sliding_window_view(wave.astype("float32"), steps + ahead)
    return view[:, :steps, None].copy(), view[:, steps:].copy()


@twin("Weather windows, Conv1D and LSTM (TensorFlow tutorial)")
def weather() -> Twin:
    x, y = windows()

    def build() -> Any:
        model = keras.Sequential(
            [
                keras.Input((12, 1)),
                layers.Conv1D(4, 3, activation="relu", padding="causal"),
                layers.LSTM(6),
                layers.Dense(1),
            ]
        )
        model.compile("adam", "mean_squared_error", metrics=["mean_absolute_error"])
        return model

    return Twin(train(build, x, y), x, y, build, "regression")


@twin("Several steps ahead at once, Reshape at the end (TensorFlow tutorial)")
def several_steps() -> Twin:
    x, y = windows(12, 4)
    y = y[..., None]  # [N, steps, features]

    def build() -> Any:
        model = keras.Sequential(
            [
                keras.Input((12, 1)),
                layers.LSTM(6, return_sequences=False),
                layers.Dense(4, kernel_initializer="zeros"),
                layers.Reshape([4, 1]),
            ]
        )
        model.compile("adam", keras.losses.MeanSquaredError())
        return model

    return Twin(train(build, x, y), x, y)


@twin("LSTM autoencoder of sequences, RepeatVector and TimeDistributed")
def sequences_again() -> Twin:
    x, _ = windows(6)

    def build() -> Any:
        model = keras.Sequential(
            [
                keras.Input((6, 1)),
                layers.LSTM(5),
                layers.RepeatVector(6),
                layers.LSTM(5, return_sequences=True),
                layers.TimeDistributed(layers.Dense(1)),
            ]
        )
        model.compile("adam", "mse")
        return model

    return Twin(train(build, x, x), x, x)


@twin("Classes of time series, fully convolutional (keras.io)")
def ford() -> Twin:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(128, 16, 1)).astype("float32")
    y = draw(rng, np.stack([x[:, :, 0].mean(1) * 6, np.zeros(128)], axis=1))

    def build() -> Any:
        inputs = keras.Input((16, 1))
        z = inputs
        for _ in range(2):
            z = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(6, 3, padding="same")(z)))
        z = layers.Dense(2, "softmax")(layers.GlobalAveragePooling1D()(z))
        model = keras.Model(inputs, z)
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    return Twin(train(build, x, y), x, y, build, "softmax")


@twin("Masked sequences, a label for every step (named entities)")
def entities() -> Twin:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6, 3)).astype("float32")
    y = np.argmax(x + rng.gumbel(size=x.shape), axis=2)
    padding = np.arange(6) >= rng.integers(2, 7, 40)[:, None]
    x[padding], y[padding] = 0, 0

    def build() -> Any:
        model = keras.Sequential(
            [
                keras.Input((6, 3)),
                layers.Masking(),
                layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
                layers.TimeDistributed(layers.Dense(3, "softmax")),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    return Twin(train(build, x, y), x, y)
