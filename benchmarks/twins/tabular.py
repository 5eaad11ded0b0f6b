"""Twins of published models of tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from twin import Twin, option, train, twin

from deltauq.likelihoods import Binary, CustomLoss, Gaussian

layers = keras.layers
N = 120


def table(columns: int = 5) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """A generator, features `[N, columns]`, and a signal `[N]` in them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, columns)).astype("float32")
    return rng, x, np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2]


def passengers() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns of text and of numbers, and who survived."""
    rng = np.random.default_rng(1)
    sex, port = rng.choice(["male", "female"], (N, 1)), rng.choice(["S", "C", "Q"], (N, 1))
    age, fare = rng.uniform(1, 80, (N, 1)), rng.lognormal(3, 1, (N, 1))
    chance = (sex == "female") * 1.5 - age / 40 + np.log(fare) / 3 - 0.5
    columns = {"sex": sex, "port": port, "age": age, "fare": fare}
    x = {name: c.astype("float32") if c.dtype.kind == "f" else c for name, c in columns.items()}
    return x, (chance[:, 0] + rng.logistic(size=N) > 0).astype("int64")


def encoded(x: dict[str, np.ndarray], mode: str = "one_hot") -> tuple[dict[str, Any], list[Any]]:
    """Inputs of the columns, and each of them encoded as the tutorials on structured data do."""
    inputs, features = {}, []
    for name, column in x.items():
        text = column.dtype.kind == "U"
        inputs[name] = keras.Input((1,), name=name, dtype="string" if text else None)
        if text:
            lookup = layers.StringLookup(vocabulary=sorted(set(column.ravel())), output_mode=mode)
        else:
            lookup = layers.Normalization(axis=None)
            lookup.adapt(column)
        features.append(lookup(inputs[name]))
    return inputs, features


@twin("Titanic, structured data from scratch (keras.io)")
def titanic() -> Twin:
    x, y = passengers()

    def build() -> Any:
        inputs, features = encoded(x)
        z = layers.Dense(16, "relu")(layers.concatenate(features))
        z = layers.Dense(1, "sigmoid")(layers.Dropout(0.5)(z))
        model = keras.Model(inputs, z)
        model.compile("rmsprop", "binary_crossentropy", metrics=["accuracy"])
        return model

    return Twin(train(build, x, y), x, y, build, "binary")


@twin("Census, wide and deep with embeddings (keras.io)")
def wide_and_deep() -> Twin:
    x, y = passengers()

    def build() -> Any:
        inputs, wide = encoded(x)
        deep = [wide[2], wide[3]]
        for name in ("sex", "port"):
            number = layers.StringLookup(vocabulary=sorted(set(x[name].ravel())))(inputs[name])
            deep.append(layers.Flatten()(layers.Embedding(4, 2)(number)))
        z = layers.concatenate(deep)
        for units in (12, 8):
            z = layers.Dropout(0.1)(
                layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(z)))
            )
        both = layers.concatenate([layers.BatchNormalization()(layers.concatenate(wide)), z])
        model = keras.Model(inputs, layers.Dense(2, "softmax")(both))
        loss = keras.losses.SparseCategoricalCrossentropy()
        model.compile(keras.optimizers.Adam(1e-3), loss)
        return model

    return Twin(train(build, x, y), x, y, build, "softmax")


@twin("Auto MPG, regression by mean absolute error (TensorFlow tutorial)")
def auto_mpg() -> Twin:
    rng, x, signal = table()
    y = 23 + 5 * signal + rng.normal(size=N)

    def absolute(z: Any, y: Any) -> Any:
        """|e| with its kink smoothed over a width of 0.5."""
        e = (tf.cast(tf.reshape(y, [-1]), z.dtype) - z[:, 0]) / 0.5
        return 0.5 * (tf.nn.softplus(e) + tf.nn.softplus(-e))

    def build() -> Any:
        scale = layers.Normalization(axis=-1)
        scale.adapt(x)
        model = keras.Sequential(
            [scale, layers.Dense(16, "relu"), layers.Dense(16, "relu"), layers.Dense(1)]
        )
        model.compile(keras.optimizers.Adam(0.01), "mean_absolute_error")
        return model

    smooth = option(likelihood=CustomLoss(absolute, Gaussian()))
    return Twin(train(build, x, y), x, y, ways={"CustomLoss(": smooth})


@twin("Boston housing, regression by mse and RMSprop (Chollet's book)")
def boston() -> Twin:
    rng, x, signal = table(8)
    y = (22 + 5 * signal + rng.normal(size=N)).astype("float32")

    def build() -> Any:
        model = keras.Sequential(
            [keras.Input((8,)), layers.Dense(16, "relu"), layers.Dense(16, "relu"), layers.Dense(1)]
        )
        model.compile("rmsprop", "mse", metrics=["mae"])
        return model

    return Twin(train(build, x, y, epochs=60), x, y, build, "regression")


@twin("Credit card fraud, class weights (keras.io)")
def fraud() -> Twin:
    rng, x, signal = table()
    y = (signal + rng.logistic(size=N) > 2.5).astype("uint8")[:, None]
    weights = {0: 1 / np.sum(y == 0), 1: 1 / np.sum(y == 1)}

    def build() -> Any:
        start = keras.initializers.Constant(np.log(y.mean() / (1 - y.mean())))
        model = keras.Sequential(
            [
                keras.Input((5,)),
                layers.Dense(16, "relu"),
                layers.Dense(16, "relu"),
                layers.Dropout(0.3),
                layers.Dense(1, "sigmoid", bias_initializer=start),
            ]
        )
        metrics = [keras.metrics.Precision(name="precision"), keras.metrics.AUC(name="prc")]
        model.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy", metrics=metrics)
        return model

    data = {"class_weight": weights}
    return Twin(train(build, x, y, **data), x, y, build, "binary", data)


@twin("Imbalanced labels, focal loss")
def focal() -> Twin:
    rng, x, signal = table()
    y = (signal + rng.logistic(size=N) > 2).astype("float32")

    def build() -> Any:
        model = keras.Sequential(
            [keras.Input((5,)), layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")]
        )
        model.compile("adam", keras.losses.BinaryFocalCrossentropy(gamma=2.0))
        return model

    def loss(z: Any, y: Any) -> Any:
        log_p = -tf.nn.softplus(tf.where(tf.reshape(y, [-1, 1]) > 0.5, -z, z))
        return tf.reduce_sum(-((1 - tf.exp(log_p)) ** 2) * log_p, axis=1)

    way = {"CustomLoss(": option(likelihood=CustomLoss(loss, Binary()), curvature="opg")}
    return Twin(train(build, x, y), x, y, ways=way)


@twin("Insurance claims, Poisson with exposure")
def claims() -> Twin:
    rng, x, signal = table()
    exposure = rng.uniform(0.3, 2, (N, 1)).astype("float32")
    y = rng.poisson(exposure[:, 0] * np.exp(0.5 * signal))

    def build() -> Any:
        features, offset = keras.Input((5,)), keras.Input((1,))
        z = layers.Dense(1)(layers.Dense(12, "tanh")(features))
        rate = layers.Activation("exponential")(layers.Add()([z, offset]))
        model = keras.Model([features, offset], rate)
        model.compile(keras.optimizers.Adam(0.01), "poisson")
        return model

    inputs = [x, np.log(exposure)]
    return Twin(train(build, inputs, y), inputs, y, build, "counts")


@twin("Quantile regression, pinball loss in a lambda")
def quantiles() -> Twin:
    rng, x, signal = table()
    y = (signal + rng.normal(size=N)).astype("float32")

    def pinball(tau: float, y: Any, z: Any) -> Any:
        e = y - z
        return keras.ops.mean(keras.ops.maximum(tau * e, (tau - 1) * e), axis=-1)

    def build() -> Any:
        model = keras.Sequential([keras.Input((5,)), layers.Dense(16, "relu"), layers.Dense(1)])
        model.compile("adam", lambda y, z: pinball(0.9, y, z))
        return model

    def smooth(z: Any, y: Any) -> Any:
        e = tf.cast(tf.reshape(y, [-1]), z.dtype) - z[:, 0]
        return 0.9 * e + 0.1 * tf.nn.softplus(-e / 0.1)

    likelihood = CustomLoss(smooth, Gaussian(noise=1.0))
    way = option(likelihood=likelihood, curvature="sandwich", meat="scores")
    return Twin(train(build, x, y), x, y, ways={"CustomLoss(": way})


@twin("MovieLens, embeddings of users and films (keras.io)")
def recommender() -> Twin:
    rng = np.random.default_rng(0)
    x = np.stack([rng.integers(0, 20, N * 2), rng.integers(0, 15, N * 2)], axis=1)
    taste, style = rng.normal(size=(20, 2)), rng.normal(size=(15, 2))
    stars = np.clip(np.round(3 + np.sum(taste[x[:, 0]] * style[x[:, 1]], axis=1)), 1, 5)
    y = (stars - 1) / 4

    @keras.saving.register_keras_serializable("twins")
    class Recommender(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            small = keras.regularizers.l2(1e-6)
            self.users = layers.Embedding(20, 4, embeddings_regularizer=small)
            self.films = layers.Embedding(15, 4, embeddings_regularizer=small)
            self.of_user, self.of_film = layers.Embedding(20, 1), layers.Embedding(15, 1)

        def call(self, inputs: Any) -> Any:
            user, film = inputs[:, 0], inputs[:, 1]
            match = keras.ops.sum(self.users(user) * self.films(film), axis=1, keepdims=True)
            return keras.ops.nn.sigmoid(match + self.of_user(user) + self.of_film(film))

    def build() -> Any:
        model = Recommender()
        model(x[:1])
        model.compile(keras.optimizers.Adam(1e-2), keras.losses.BinaryCrossentropy())
        return model

    rates = option(l2={"embedding_2*": 1e-3, "embedding_3*": 1e-3})
    return Twin(train(build, x, y), x, y, build, "binary", ways={"l2": rates})


@twin("A class and a number from one trunk, two losses")
def two_heads() -> Twin:
    rng, x, signal = table()
    price = (signal + 0.3 * rng.normal(size=N)).astype("float32")
    sold = (signal + rng.logistic(size=N) > 0).astype("float32")

    def build() -> Any:
        inputs = keras.Input((5,))
        z = layers.Dense(16, "relu")(inputs)
        heads = {
            "price": layers.Dense(1, name="price")(z),
            "sold": layers.Dense(1, "sigmoid", name="sold")(z),
        }
        model = keras.Model(inputs, heads)
        model.compile("adam", {"price": "mse", "sold": "binary_crossentropy"})
        return model

    def one(twin: Twin) -> Twin:
        part = keras.Model(twin.model.inputs, twin.model.output["sold"])
        return replace(twin, model=part, y=sold, options={**twin.options, "likelihood": "binary"})

    labels = {"price": price, "sold": sold}
    return Twin(train(build, x, labels), x, labels, ways={"several outputs": one})


@twin("Tags of posts, several labels (Kaggle)")
def tags() -> Twin:
    rng, x, _ = table(8)
    y = (x[:, :4] + rng.logistic(size=(N, 4)) > 0.5).astype("float32")

    def build() -> Any:
        model = keras.Sequential(
            [keras.Input((8,)), layers.Dense(16, "relu"), layers.Dense(4, "sigmoid")]
        )
        model.compile("adam", "binary_crossentropy", metrics=["binary_accuracy"])
        return model

    return Twin(train(build, x, y), x, y, build, "labels")


@twin("A custom train_step (keras.io guide)")
def own_step() -> Twin:
    rng, x, signal = table()
    y = (signal + 0.3 * rng.normal(size=N)).astype("float32")[:, None]

    class Custom(keras.Model):
        def train_step(self, data: Any) -> Any:
            x, y, *_ = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((y - self(x, training=True)) ** 2)
            variables = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            return {"loss": loss}

    def build() -> Any:
        inputs = keras.Input((5,))
        model = Custom(inputs, layers.Dense(1)(layers.Dense(16, "tanh")(inputs)))
        model.compile(keras.optimizers.Adam(0.01))
        return model

    keras.utils.set_random_seed(0)
    model = build()
    model.fit(x, y, epochs=12, batch_size=16, verbose=0)
    way = {"likelihood=": option(likelihood="gaussian")}
    return Twin(model, x, y, build, "regression", ways=way)


@twin("A wrapper for scikit-learn, with the model in model_")
def wrapped() -> Twin:
    rng, x, signal = table()
    y = np.digitize(signal + 0.5 * rng.normal(size=N), [-0.5, 0.5])

    class KerasClassifier:  # as that of scikeras
        def __init__(self, model: Any) -> None:
            self.model_ = model

    def build() -> Any:
        model = keras.Sequential(
            [keras.Input((5,)), layers.Dense(12, "relu"), layers.Dense(3, "softmax")]
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    inside = {"attribute 'model_'": lambda twin: replace(twin, model=twin.model.model_)}
    return Twin(KerasClassifier(train(build, x, y)), x, y, build, "softmax", ways=inside)


@twin("Logits, from_logits=True, sample weights (TensorFlow quickstart)")
def weighted_logits() -> Twin:
    rng, x, signal = table()
    y = np.digitize(signal + 0.5 * rng.normal(size=N), [-0.5, 0.5])
    data = {"sample_weight": rng.uniform(0.5, 2, N)}

    def build() -> Any:
        model = keras.Sequential(
            [keras.Input((5,)), layers.Dense(16, "relu"), layers.Dropout(0.2), layers.Dense(3)]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.AdamW(1e-2, weight_decay=1e-3), loss)
        return model

    return Twin(train(build, x, y, **data), x, y, build, "logits", data)


@twin("Mean and scale of a normal, own negative log-likelihood (TFP tutorial)")
def heteroscedastic() -> Twin:
    rng, x, signal = table()
    y = (signal + 0.3 * np.exp(0.5 * x[:, 3]) * rng.normal(size=N)).astype("float32")[:, None]

    def negloglik(y: Any, z: Any) -> Any:
        mean, log_scale = z[:, :1], z[:, 1:]
        return log_scale + 0.5 * ((y - mean) * keras.ops.exp(-log_scale)) ** 2

    def build() -> Any:
        model = keras.Sequential([keras.Input((5,)), layers.Dense(12, "tanh"), layers.Dense(2)])
        model.compile(keras.optimizers.Adam(0.01), negloglik)
        return model

    def loss(z: Any, y: Any) -> Any:
        y = tf.cast(y, z.dtype)
        return z[:, 1] + 0.5 * (y[:, 0] - z[:, 0]) ** 2 * tf.exp(-2 * z[:, 1])

    def way(twin: Twin) -> Twin:
        likelihood = CustomLoss(loss, Gaussian(noise=1.0))
        y = np.concatenate([twin.y, np.zeros_like(twin.y)], axis=1)  # a label for each output
        return option(likelihood=likelihood, curvature="opg")(replace(twin, y=y))

    return Twin(train(build, x, y, epochs=60), x, y, ways={"CustomLoss(": way})


@twin("Tabular transformer: attention over embedded columns (keras.io)")
def tab_transformer() -> Twin:
    x, y = passengers()

    def build() -> Any:
        inputs, features = encoded(x, "int")
        tokens = [layers.Embedding(5, 8)(features[k]) for k in (0, 1)]
        z = layers.concatenate(tokens, axis=1)
        attended = layers.MultiHeadAttention(2, 4, dropout=0.1)(z, z)
        z = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([z, attended]))
        z = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([z, layers.Dense(8, "gelu")(z)]))
        z = layers.concatenate([layers.Flatten()(z), *features[2:]])
        z = layers.Dense(1, "sigmoid")(layers.Dense(8, "selu")(layers.BatchNormalization()(z)))
        model = keras.Model(inputs, z)
        model.compile("adam", "binary_crossentropy")
        return model

    return Twin(train(build, x, y), x, y, build, "binary")
