"""The networks and the data that the benchmarks share."""

from __future__ import annotations

import time

import keras
import numpy as np

from deltauq import Batches, Network
from deltauq.likelihoods import Categorical

layers = keras.layers


def mlp(x, y, *, units=(256, 128), l2=1e-3, epochs=30):
    """A tanh network of three layers, trained; inputs `[N, 784]`."""
    keras.utils.set_random_seed(0)
    rate = keras.regularizers.L2(l2 / 2)
    options = {"kernel_regularizer": rate, "bias_regularizer": rate}
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            *(layers.Dense(n, activation="tanh", **options) for n in units),
            layers.Dense(int(y.max()) + 1, **options),
        ]
    )
    steps = epochs * -(-len(x) // 128)  # to a rate of zero: the method needs a minimum
    decay = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(decay), loss)
    model.fit(x, y, batch_size=128, epochs=epochs, verbose=0)
    return model


def batches(x, y, batch_size):
    """The data as curvature operators take them."""
    return Batches(
        x, y, likelihood=Categorical(), n_outputs=10, dtype="float32", batch_size=batch_size
    )


def operator(kind, model, x, y, *, l2, batch_size, **options):
    """A curvature in the prior's metric."""
    network = Network(model)
    scale = np.full(network.n_params, l2**-0.5)
    return kind(network, "categorical", batches(x, y, batch_size), scale=scale, **options)


def beside(benchmark, ours, rivals, *, rounds=1, warmup=0):
    """Time deltauq and its rivals in turn, round by round, since a machine's speed drifts.

    Args:
        benchmark: the fixture.
        ours: what deltauq does.
        rivals: name -> what it is measured beside.
        rounds: of all of them; medians are kept.
        warmup: rounds that are not counted.

    Returns:
        What ours returned, and what each rival returned.
    """
    found, seconds = {}, {name: [] for name in rivals}

    def run_rivals():
        for name, rival in rivals.items():
            started = time.perf_counter()
            found[name] = rival()
            seconds[name].append(time.perf_counter() - started)

    own = benchmark.pedantic(ours, setup=run_rivals, rounds=rounds, warmup_rounds=warmup)
    times = np.array(benchmark.stats.stats.data)
    benchmark.extra_info["rivals"] = {
        name: {
            "seconds": float(np.median(theirs[warmup:])),
            "times deltauq": float(np.median(theirs[warmup:] / times)),
        }
        for name, theirs in seconds.items()
    }
    return own, found


def ratio(benchmark, rival):
    """How many times as long as deltauq a rival took, the median of the rounds."""
    return benchmark.extra_info["rivals"][rival]["times deltauq"]


def resnet18(n_classes=10):
    """The shape of ResNet-18 for 32 x 32 images: 11.2 million parameters, batch normalisation."""

    def convolve(x, filters, size, strides=1):
        x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(convolve(inputs, 64, 3))
    for stage, filters in enumerate((64, 128, 256, 512)):
        for block in range(2):
            strides = 2 if stage and not block else 1
            y = layers.ReLU()(convolve(x, filters, 3, strides))
            y = convolve(y, filters, 3)
            shortcut = convolve(x, filters, 1, strides) if strides > 1 else x
            x = layers.ReLU()(layers.Add()([y, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(n_classes)(x))
