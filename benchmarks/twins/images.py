"""Twins of published models of images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from twin import Twin, draw, option, train, twin

from deltauq.likelihoods import Bernoulli, Binary, CustomLoss

layers = keras.layers
N = 96


def pictures(size: int = 8, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Images in [0, 1] with a bright quarter or none, `[N, size, size, channels]`, and which."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (N, size, size, channels)).astype("float32")
    where, half = rng.integers(0, 3, N), size // 2
    for image, place in zip(x, where, strict=True):
        rows = slice(0, half) if place == 0 else slice(half, None)
        image[rows, : half if place < 2 else None] *= 0.6
    return x, draw(rng, 2.0 * np.eye(3)[where])


def classifier(
    *body: Any, size: int = 8, channels: int = 1, end: str | None = "softmax"
) -> Callable[[], Any]:
    """A function that builds a Sequential model of three classes; layers are made by functions."""

    def build() -> Any:
        model = keras.Sequential(
            [keras.Input((size, size, channels)), *(make() for make in body), layers.Dense(3, end)]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=end is None)
        model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
        return model

    return build


def convolution(units: int, size: int = 3, **options: Any) -> Callable[[], Any]:
    return lambda: layers.Conv2D(units, size, **options)


@twin("MNIST, convolutions with BatchNorm and Dropout (Kaggle)")
def mnist() -> Twin:
    x, y = pictures()
    build = classifier(
        convolution(4, activation="relu"),
        layers.BatchNormalization,
        layers.MaxPooling2D,
        lambda: layers.Dropout(0.25),
        convolution(6, 2, activation="relu"),
        layers.BatchNormalization,
        layers.Flatten,
        lambda: layers.Dense(8, "relu"),
        lambda: layers.Dropout(0.5),
    )
    return Twin(train(build, x, y), x, y, build, "softmax")


@twin("LeNet-5, tanh and average pooling, one-hot labels")
def lenet() -> Twin:
    x, y = pictures()

    def build() -> Any:
        model = classifier(
            convolution(4, activation="tanh", padding="same"),
            lambda: layers.AveragePooling2D(2),
            convolution(8, activation="tanh"),
            layers.Flatten,
            lambda: layers.Dense(12, "tanh"),
        )()
        model.compile("sgd", "categorical_crossentropy")
        return model

    one_hot = keras.utils.to_categorical(y)
    return Twin(train(build, x, one_hot), x, one_hot, build, "softmax")


@twin("ResNet, blocks with BatchNorm and shortcuts (keras.applications)")
def resnet() -> Twin:
    x, y = pictures(8, 3)

    def build() -> Any:
        inputs = keras.Input((8, 8, 3))
        z = layers.Conv2D(6, 3, padding="same", use_bias=False)(inputs)
        for strides in (1, 2):
            shortcut = layers.Conv2D(6, 1, strides=strides)(z)
            z = layers.Conv2D(6, 3, strides, padding="same", use_bias=False)(z)
            z = layers.ReLU()(layers.BatchNormalization()(z))
            z = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same", use_bias=False)(z))
            z = layers.ReLU()(layers.Add()([z, shortcut]))
        model = keras.Model(inputs, layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(z)))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    return Twin(train(build, x, y), x, y, build, "softmax")


@twin("MobileNet, depthwise convolutions and ReLU6, augmentation inside")
def mobilenet() -> Twin:
    x, y = pictures(8, 3)
    build = classifier(
        lambda: layers.RandomFlip("horizontal"),
        lambda: layers.RandomRotation(0.1),
        lambda: layers.Rescaling(2.0, offset=-1.0),
        convolution(6, strides=2, padding="same", use_bias=False),
        layers.BatchNormalization,
        lambda: layers.ReLU(6.0),
        lambda: layers.DepthwiseConv2D(3, padding="same", use_bias=False),
        layers.BatchNormalization,
        lambda: layers.ReLU(6.0),
        convolution(8, 1, use_bias=False),
        layers.BatchNormalization,
        lambda: layers.ReLU(6.0),
        layers.GlobalAveragePooling2D,
        channels=3,
        end=None,
    )
    return Twin(train(build, x, y), x, y, build, "logits")


@twin("VGG, a frozen base and a trained head (transfer learning tutorial)")
def transfer() -> Twin:
    x, y = pictures(8, 3)

    def build() -> Any:
        base = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(8, 3, activation="relu"),
                layers.Conv2D(8, 3, activation="relu"),
                layers.MaxPooling2D(),
            ],
            name="vgg",
        )
        base.trainable = False
        inputs = keras.Input((8, 8, 3))
        z = layers.RandomFlip()(inputs)
        z = layers.GlobalAveragePooling2D()(base(z, training=False))
        model = keras.Model(inputs, layers.Dense(3)(layers.Dropout(0.2)(z)))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-2), loss)
        return model

    return Twin(train(build, x, y), x, y, build, "logits")


@twin("EfficientNet, squeeze and excitation with swish, label smoothing")
def efficientnet() -> Twin:
    x, y = pictures(8, 3)

    def build() -> Any:
        inputs = keras.Input((8, 8, 3))
        z = layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(
            layers.Rescaling(1 / 255)(inputs)
        )
        z = layers.Activation("swish")(layers.BatchNormalization()(z))
        z = layers.DepthwiseConv2D(3, padding="same", activation="swish")(z)
        squeezed = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(z))
        squeezed = layers.Conv2D(2, 1, activation="swish")(squeezed)
        z = layers.multiply([z, layers.Conv2D(8, 1, activation="sigmoid")(squeezed)])
        z = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(z))
        model = keras.Model(inputs, layers.Dense(3, "softmax")(z))
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
        model.compile("adam", loss)
        return model

    one_hot = keras.utils.to_categorical(y)
    return Twin(train(build, x * 255, one_hot), x * 255, one_hot)


@twin("Inception, parallel branches")
def inception() -> Twin:
    x, y = pictures()

    def build() -> Any:
        inputs = keras.Input((8, 8, 1))
        branches = [
            layers.Conv2D(3, 1, padding="same", activation="relu")(inputs),
            layers.Conv2D(3, 3, padding="same", activation="relu")(inputs),
            layers.Conv2D(3, 5, padding="same", activation="relu")(inputs),
            layers.Conv2D(3, 1, activation="relu")(
                layers.MaxPooling2D(3, strides=1, padding="same")(inputs)
            ),
        ]
        z = layers.GlobalMaxPooling2D()(layers.Concatenate()(branches))
        model = keras.Model(inputs, layers.Dense(3, "softmax")(layers.Dropout(0.4)(z)))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    return Twin(train(build, x, y), x, y, build, "softmax")


@twin("U-Net, classes of pixels (TensorFlow tutorial)")
def unet() -> Twin:
    x, _ = pictures()
    x = x[:16]
    y = (x > 0.4).astype("int32") + (x > 0.8)  # [N, h, w, 1], as the masks of the tutorial

    def build() -> Any:
        inputs = keras.Input((8, 8, 1))
        first = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
        deep = layers.Conv2D(6, 3, padding="same", activation="relu")(layers.MaxPooling2D()(first))
        up = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(deep)
        model = keras.Model(inputs, layers.Conv2D(3, 1)(layers.Concatenate()([up, first])))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), loss)
        return model

    return Twin(train(build, x, y), x, y)


@twin("Autoencoder of images, sigmoids and binary cross-entropy (keras.io)")
def autoencoder() -> Twin:
    x, _ = pictures()

    def build() -> Any:
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(4, 3, activation="relu", padding="same"),
                layers.MaxPooling2D(2, padding="same"),
                layers.Conv2DTranspose(4, 3, strides=2, activation="relu", padding="same"),
                layers.Conv2D(1, 3, activation="sigmoid", padding="same"),
            ]
        )
        model.compile("adam", "binary_crossentropy")
        return model

    shares = option(likelihood=Bernoulli())
    return Twin(train(build, x[:32], x[:32]), x[:32], x[:32], ways={"likelihood": shares})


@twin("Siamese towers, contrastive loss (keras.io)")
def siamese() -> Twin:
    x, y = pictures()
    pairs = [x[:-1], x[1:]]
    same = (y[:-1] == y[1:]).astype("float32")[:, None]

    def distance(towers: Any) -> Any:
        gap = keras.ops.sum(keras.ops.square(towers[0] - towers[1]), axis=1, keepdims=True)
        return keras.ops.sqrt(keras.ops.maximum(gap, 1e-7))

    def contrastive(y: Any, p: Any) -> Any:
        return keras.ops.mean((1 - y) * p**2 + y * keras.ops.maximum(1 - p, 0) ** 2)

    def build() -> Any:
        tower = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.BatchNormalization(),
                layers.Conv2D(4, 3, activation="tanh"),
                layers.AveragePooling2D(2),
                layers.Flatten(),
                layers.Dense(4, "tanh"),
            ]
        )
        ends = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
        z = layers.Lambda(distance, output_shape=(1,))([tower(end) for end in ends])
        z = layers.Dense(1, "sigmoid")(layers.BatchNormalization()(z))
        model = keras.Model(list(ends), z)
        model.compile("rmsprop", contrastive)
        return model

    def squares(z: Any, y: Any) -> Any:
        return tf.reduce_sum(
            (tf.sigmoid(z) - (1 - tf.cast(tf.reshape(y, [-1, 1]), z.dtype))) ** 2, 1
        )

    way = option(likelihood=CustomLoss(squares, Binary()), curvature="opg")
    return Twin(train(build, pairs, same), pairs, same, ways={"CustomLoss(": way})


@twin("A discriminator: spectral normalisation and Gaussian noise")
def spectral() -> Twin:
    x, y = pictures()
    build = classifier(
        lambda: layers.GaussianNoise(0.1),
        lambda: layers.SpectralNormalization(layers.Conv2D(4, 3, strides=2)),
        lambda: layers.LeakyReLU(negative_slope=0.2),
        layers.Flatten,
        lambda: layers.SpectralNormalization(layers.Dense(8)),
        lambda: layers.LeakyReLU(negative_slope=0.2),
    )
    return Twin(train(build, x, y), x, y, build, "softmax")


@twin("Mixed precision (TensorFlow guide)")
def mixed() -> Twin:
    x, y = pictures()

    def built(policy: str) -> Any:
        keras.config.set_dtype_policy(policy)
        try:
            model = classifier(
                convolution(4, activation="relu"), layers.Flatten, lambda: layers.Dense(8, "relu")
            )()
            half = keras.Sequential(
                [*model.layers[:-1], layers.Dense(3), layers.Activation("softmax", dtype="float32")]
            )
            half.build((None, 8, 8, 1))
            half.compile("adam", "sparse_categorical_crossentropy")
            return half
        finally:
            keras.config.set_dtype_policy("float32")

    def one_precision(twin: Twin) -> Twin:
        copy = built("float32")
        copy.set_weights(twin.model.get_weights())
        return replace(twin, model=copy)

    model = train(lambda: built("mixed_float16"), x, y)
    return Twin(model, x, y, ways={"copy the weights into the same model": one_precision})


def old_model(x: np.ndarray, y: np.ndarray) -> Any:
    """Of Keras 2."""
    tf_keras.utils.set_random_seed(0)
    kind = tf_keras.layers
    model = tf_keras.Sequential(
        [
            kind.InputLayer((8, 8, 1)),
            kind.Conv2D(4, 3, activation="relu", kernel_regularizer="l2"),
            kind.MaxPooling2D(),
            kind.Flatten(),
            kind.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=15, batch_size=16, verbose=0)
    return model


@twin("A .h5 file of Keras 2")
def old_file() -> Twin:
    x, y = pictures()
    path = Path(tempfile.mkdtemp()) / "model.h5"
    old_model(x, y).save(path)
    return Twin(path, x, y)


@twin("A SavedModel's folder of Keras 2")
def old_folder() -> Twin:
    x, y = pictures()
    path = Path(tempfile.mkdtemp()) / "saved"
    old_model(x, y).save(path, save_format="tf")
    return Twin(str(path), x, y)


@twin("A file of weights alone")
def weights_alone() -> Twin:
    x, y = pictures()
    build = classifier(convolution(4, activation="relu"), layers.GlobalAveragePooling2D)
    path = Path(tempfile.mkdtemp()) / "best.weights.h5"
    train(build, x, y).save_weights(path)

    def rebuilt(twin: Twin) -> Twin:
        model = build()
        model.load_weights(twin.model)
        return replace(twin, model=model)

    return Twin(path, x, y, build, "softmax", ways={"load_weights": rebuilt})
