"""Networks as experiments train them: to a minimum, or as people leave them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
import scipy.optimize
import tensorflow as tf

from deltauq import Network
from evidence.tasks import Task, task

Array = np.ndarray[Any, Any]
layers = keras.layers


@dataclass(frozen=True)
class Recipe:
    """What determines a trained network, its seed aside.

    Attributes:
        data: name of the task.
        n_train: rows to train on, at most.
        n_test: rows to predict, at most.
        hidden: units of its hidden layers; images pass two small convolutions before.
        activation: of the hidden layers.
        l2: lambda on every parameter; the cost is mean cross-entropy + (l2 / 2) |w|^2.
        dropout: rate before the last layer.
        epochs: of Adam, by batches of 64 and a rate of 1e-3 that falls to zero; 0 minimises the
            cost by L-BFGS, to a gradient of 1e-5.
        batch_norm: batch normalisation after every hidden layer.
        patience: epochs without a smaller loss on the last fifth of the rows, which train nothing
            then, after which Adam stops and takes the best weights; its rate is 1e-2 throughout.
            0: all rows train, for all epochs.
    """

    data: str
    n_train: int = 1000
    n_test: int = 1000
    hidden: tuple[int, ...] = (16,)
    activation: str = "tanh"
    l2: float = 1e-3
    dropout: float = 0.0
    epochs: int = 0
    batch_norm: bool = False
    patience: int = 0

    @property
    def task(self) -> Task:
        """The data."""
        return task(self.data, self.n_train, self.n_test)

    @property
    def n_rows(self) -> int:
        """How many rows train: all, or the first four fifths."""
        n = len(self.task.x)
        return n - n // 5 if self.patience else n

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that a trained network depends on but its seed."""
        return asdict(self)

    def build(self, seed: int) -> keras.Model:
        """The network with random weights."""
        keras.utils.set_random_seed(seed)
        rate = keras.regularizers.L2(self.l2 / 2) if self.l2 else None
        both = {"kernel_regularizer": rate, "bias_regularizer": rate}
        body: list[Any] = [keras.Input(self.task.x.shape[1:])]
        if self.task.x.ndim == 4:
            options = both | {"activation": self.activation}
            body += [layers.Conv2D(filters, 3, 2, **options) for filters in (4, 8)]
            body.append(layers.Flatten())
        for units in self.hidden:
            body.append(layers.Dense(units, **both))
            body += [layers.BatchNormalization()] if self.batch_norm else []
            body.append(layers.Activation(self.activation))
        body += [layers.Dropout(self.dropout)] if self.dropout else []
        model = keras.Sequential([*body, layers.Dense(self.task.n_classes, **both)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-3), loss)
        return model

    def train(self, seed: int, rows: Array | None = None, start: list[Array] | None = None) -> Any:
        """A trained network.

        Args:
            seed: of the weights that it starts from, and of the order of batches.
            rows: of those that train, with repetitions in a bootstrap; None for all.
            start: weights to start from in place of random ones.
        """
        model, data = self.build(seed), self.task
        if start is not None:
            model.set_weights(start)
        rows = np.arange(self.n_rows) if rows is None else rows
        x, y = data.x[rows], data.y[rows]
        if self.epochs and self.patience:
            model.optimizer.learning_rate = 1e-2
            held_out = data.x[self.n_rows :], data.y[self.n_rows :]
            stop = keras.callbacks.EarlyStopping(patience=self.patience, restore_best_weights=True)
            options: dict[str, Any] = {"epochs": self.epochs, "callbacks": [stop], "verbose": 0}
            model.fit(x, y, batch_size=64, validation_data=held_out, **options)
        elif self.epochs:
            steps = self.epochs * -(-len(x) // 64)
            model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
            model.compile(model.optimizer, model.loss)
            # All epochs are one to Keras, whose own beginning and end cost more than small ones.
            batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed).batch(64)
            model.fit(batches.repeat(self.epochs), shuffle=False, verbose=0)
        else:
            Minimizer(model, self.l2).to_minimum(x, y)
        return model


class Minimizer:
    """The cost of a model's weights on changing data, traced once, and its minimum by L-BFGS.

    Args:
        model: whose weights are taken and set.
        l2: lambda on every trainable parameter.
        loss: of logits and labels, `[B]`; None for cross-entropy with class numbers.
    """

    def __init__(
        self, model: keras.Model, l2: float, loss: Callable[..., tf.Tensor] | None = None
    ) -> None:
        self.model = model
        self.network = Network(model)
        of_example = loss or (
            lambda z, y: tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=z)
        )

        @tf.function(reduce_retracing=True)
        def value_and_gradient(params: tf.Tensor, x: tf.Tensor, y: tf.Tensor, w: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(params)
                z = self.network.logits(self.network.unflatten(params), x)
                data = tf.reduce_sum(w * of_example(z, y)) / tf.reduce_sum(w)
                cost = data + l2 / 2 * tf.reduce_sum(params**2)
            return cost, tape.gradient(cost, params)

        self._value_and_gradient = value_and_gradient

    def to_minimum(
        self, x: Array, y: Array, weight: Array | None = None, start: Array | None = None
    ) -> Array:
        """Minimise the cost, put the weights into the model, and give them, `[P]`."""
        dtype = self.network.dtype
        w = np.ones(len(x)) if weight is None else weight
        given = [tf.constant(x, dtype), tf.constant(y), tf.constant(w, dtype)]

        def of(params: Array) -> tuple[float, Array]:
            value, gradient = self._value_and_gradient(tf.constant(params, dtype), *given)
            return float(value), gradient.numpy().astype(np.float64)

        first = self.network.params.numpy() if start is None else start
        tolerance = 1e-9 if dtype == "float64" else 1e-6
        found = scipy.optimize.minimize(
            of,
            first.astype(np.float64),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 2000, "maxfun": 4000, "gtol": tolerance, "ftol": 0, "maxcor": 30},
        ).x
        pieces = self.network.unflatten(tf.constant(found, dtype))
        for variable, piece in zip(self.network.variables, pieces, strict=True):
            variable.assign(piece)
        return found
