"""Real trainings from end to end: data, Keras' own `fit`, `DeltaMethod`, held-out inputs.

Each test prints its figures and records them as properties: `pytest -s -m slow` shows a line each.
"""

from __future__ import annotations

import time

import datasets
import keras
import numpy as np
import pytest
import sklearn.datasets
from marks import slow, wide
from published_network import untrained
from sklearn.model_selection import train_test_split

from deltauq import DeltaMethod
from deltauq.evaluation.metrics import error_auroc

layers = keras.layers

# Mini-batches end near a minimum, not at one: the noise of the last steps is often more than half
# of the gradient's parts, and `fit` says so. How near is recorded as `ratio`.
pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")


class Study:
    """One training and what came of it; `figures` are printed and recorded at the end."""

    def __init__(self, name, record_property):
        self.figures = {"name": name}
        self._record_property = record_property

    def train(self, model, x, y, *, loss, epochs, batch_size=64, rate=3e-3, class_weight=None):
        """Train as Keras users do: Adam whose steps decay to nothing, so that it ends at rest."""
        steps = epochs * -(-len(y) // batch_size)
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
        model.compile(optimizer=keras.optimizers.Adam(schedule), loss=loss)
        started = time.perf_counter()
        model.fit(x, y, epochs=epochs, batch_size=batch_size, class_weight=class_weight, verbose=0)
        self.figures |= {"N": len(y), "train_s": time.perf_counter() - started}

    def predict(self, model, curvature, training, x, *, class_weight=None, **options):
        """Fit `DeltaMethod`, predict, and check what holds of every prediction."""
        dm = DeltaMethod(model, curvature, progress=False, **options)
        dm.fit(*training, class_weight=class_weight)
        started = time.perf_counter()
        prediction = dm.predict(x)
        seconds = time.perf_counter() - started
        low, high = prediction.std_bounds
        std = prediction.std
        assert np.all(np.isfinite(std))
        assert np.all(std > 0)
        assert np.all(low <= std)
        assert np.all(std <= high)
        self.figures |= {
            "P": dm.eigenpairs.n_params,
            "curvature": curvature,
            "rank": dm.eigenpairs.rank,
            "ratio": dm.stationarity.ratio,
            "median_std": np.median(std),
            "median_width": np.median((high - low) / high),
            "fit_s": dm.fit_seconds,
            "predict_s": seconds,
        }
        return prediction

    def judge(self, prediction, y, outputs):
        """Accuracy and AUROC of the score; the probabilities must be those of `model.predict`."""
        probabilities = prediction.probabilities[:, -outputs.shape[1] :]
        np.testing.assert_allclose(probabilities, outputs, rtol=1e-3, atol=1e-5)
        wrong = prediction.is_wrong(y)
        doubt = np.max(np.minimum(prediction.mean, 1 - prediction.mean), axis=1)
        self.figures |= {
            "accuracy": 1 - np.mean(wrong),
            "wrong": np.sum(wrong),
            "auroc": error_auroc(prediction.score, wrong),
            "auroc_of_p": error_auroc(doubt, wrong),
        }
        return self.figures["accuracy"], self.figures["auroc"]

    def report(self):
        """Print and record the figures."""
        written = {
            name: f"{value:.4g}" if isinstance(value, float) else str(value)
            for name, value in self.figures.items()
        }
        for name, value in written.items():
            self._record_property(name, value)
        print("", *(f"{name}={value}" for name, value in written.items()))


@pytest.fixture
def study(request, record_property):
    keras.utils.set_random_seed(0)
    study = Study(request.node.name, record_property)
    yield study
    study.report()


def decayed(rate, *parts):
    """Keyword arguments that put L2 on parts of a layer, by default kernel and bias."""
    parts = parts or ("kernel", "bias")
    return {f"{part}_regularizer": keras.regularizers.L2(rate) for part in parts}


def images(name, n_train, n_test):
    """Scaled images `[N, h, w, channels]` and class numbers: the first ones of each part."""
    arrays = datasets.load(name)
    parts = []
    for part, n in (("train", n_train), ("test", n_test)):
        x = arrays[f"x_{part}"][:n].astype("float32") / 255
        parts.append((x.reshape(n, *x.shape[1:3], -1), arrays[f"y_{part}"][:n].astype("int64")))
    return parts


@pytest.mark.slow
def test_lenet_on_mnist(study):
    (x, y), (x_test, y_test) = images("mnist.npz", 10_000, 2_000)
    model = untrained("softmax", **decayed(5e-3))
    study.train(model, x, y, loss="sparse_categorical_crossentropy", epochs=4)
    prediction = study.predict(model, "opg", (x, y), x_test, rank=100)
    accuracy, auroc = study.judge(prediction, y_test, model.predict(x_test, verbose=0))
    assert accuracy > 0.94
    assert auroc > 0.85


@pytest.mark.slow
def test_batch_normalised_network_on_fashion_mnist(study):
    (x, y), (x_test, y_test) = images("fashion_mnist.npz", 6_000, 2_000)
    l2, of_kernel = decayed(5e-3), decayed(5e-3, "kernel")
    of_norm = decayed(5e-3, "gamma", "beta")
    model = keras.Sequential([keras.Input((28, 28, 1))])
    for filters in (16, 32, 64):
        model.add(layers.Conv2D(filters, 3, padding="same", use_bias=False, **of_kernel))
        model.add(layers.BatchNormalization(momentum=0.9, **of_norm))
        model.add(layers.Activation("relu"))
        model.add(layers.MaxPooling2D(2))
    model.add(layers.Flatten())
    model.add(layers.Dense(10, **l2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    study.train(model, x, y, loss=loss, epochs=4)
    prediction = study.predict(model, "opg", (x, y), x_test, rank=200)
    outputs = keras.ops.softmax(model.predict(x_test, verbose=0)).numpy()
    accuracy, auroc = study.judge(prediction, y_test, outputs)
    assert accuracy > 0.83
    assert auroc > 0.75


def resnet20(rate):
    """He et al. 2016 for CIFAR-10: three stages of three blocks, 16, 32 and 64 filters."""
    of_norm = decayed(rate, "gamma", "beta")

    def convolved(x, filters, stride=1, size=3):
        x = layers.Conv2D(
            filters, size, strides=stride, padding="same", use_bias=False, **decayed(rate, "kernel")
        )(x)
        return layers.BatchNormalization(momentum=0.9, **of_norm)(x)

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(convolved(inputs, 16))
    for filters, first_stride in ((16, 1), (32, 2), (64, 2)):
        for stride in (first_stride, 1, 1):
            inner = layers.ReLU()(convolved(x, filters, stride))
            inner = convolved(inner, filters)
            if x.shape[-1] != filters:
                x = convolved(x, filters, stride, size=1)
            x = layers.ReLU()(layers.Add()([x, inner]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax", **decayed(rate))(x))


@pytest.mark.slow
def test_resnet20_on_cifar10(study):
    (x, y), (x_test, y_test) = images("cifar10.npz", 3_000, 200)
    model = resnet20(1e-3)
    study.train(model, x, y, loss="sparse_categorical_crossentropy", epochs=4)
    prediction = study.predict(model, "opg", (x, y), x_test, rank=50)
    # So short a training leaves half of the images wrong, and neither the score (AUROC 0.55 and
    # 0.57 were seen) nor the probabilities (0.47 and 0.61) tell which: only recorded.
    accuracy, _ = study.judge(prediction, y_test, model.predict(x_test, verbose=0))
    assert accuracy > 0.3


def adult():
    """Standardised numbers and codes of both parts, as a dict of inputs, with labels 0 and 1."""
    arrays = datasets.load("uci_adult.npz")
    names = arrays["categorical_names"].tolist()
    numbers = np.log1p(arrays["x_num_train"].astype("float64"))
    mean, std = numbers.mean(axis=0), numbers.std(axis=0)
    parts = []
    for part in ("train", "test"):
        scaled = (np.log1p(arrays[f"x_num_{part}"].astype("float64")) - mean) / std
        codes = arrays[f"x_cat_{part}"].astype("int32")
        x = {"numbers": scaled.astype("float32")}
        x |= {name: codes[:, i] for i, name in enumerate(names)}
        parts.append((x, arrays[f"y_{part}"]))
    return parts, {name: len(arrays[f"vocab_{name}"]) for name in names}


@pytest.mark.slow
def test_embeddings_on_adult(study):
    ((x, y), (x_test, y_test)), sizes = adult()
    inputs = {"numbers": keras.Input((6,), name="numbers")}
    columns = [inputs["numbers"]]
    for name, size in sizes.items():
        inputs[name] = keras.Input((), dtype="int32", name=name)
        dim = min(8, (size + 1) // 2)
        columns.append(layers.Embedding(size, dim, **decayed(1e-4, "embeddings"))(inputs[name]))
    h = layers.Concatenate()(columns)
    for units in (64, 32):
        h = layers.Dense(units, activation="gelu", **decayed(1e-4))(h)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid", **decayed(1e-4))(h))
    study.train(model, x, y, loss="binary_crossentropy", epochs=8, batch_size=256)
    prediction = study.predict(model, "ggn", (x, y), x_test)
    accuracy, auroc = study.judge(prediction, y_test, model.predict(x_test, verbose=0))
    assert accuracy > 0.84  # always saying no has 0.764
    assert auroc > 0.74


@pytest.mark.wide  # class weights: tests/data/test_batches.py; training: README.md
def test_class_weights_on_german_credit(study):
    arrays = datasets.load("uci_german_credit.npz")
    x = arrays["x_numeric24"].astype("float64")
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
    x, x_test, y, y_test = train_test_split(
        x, arrays["y"], test_size=300, random_state=0, stratify=arrays["y"]
    )
    model = keras.Sequential([keras.Input((24,))])
    for units in (16, 8):
        model.add(layers.Dense(units, activation="tanh", **decayed(5e-3)))
    model.add(layers.Dense(1, activation="sigmoid", **decayed(5e-3)))
    weights = {0: 1.0, 1: 7 / 3}
    options = {"loss": "binary_crossentropy", "class_weight": weights}
    study.train(model, x, y, epochs=10, batch_size=16, rate=1e-2, **options)
    prediction = study.predict(model, "hessian", (x, y), x_test, class_weight=weights)
    _, auroc = study.judge(prediction, y_test, model.predict(x_test, verbose=0))
    wrong = prediction.is_wrong(y_test)
    balanced = 1 - np.mean([np.mean(wrong[y_test == c]) for c in (0, 1)])
    study.figures["balanced_accuracy"] = balanced
    assert balanced > 0.67  # always saying "good" has 0.5
    assert auroc > 0.58  # these errors are hard to find: 1 - max p has 0.65


def sequences(n, seed):
    """Sentences of 4 to 16 tokens padded with 0; the label: does token 1 come before token 2?"""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, 16), "int32")
    y = rng.integers(0, 2, n)
    for row, label in zip(x, y, strict=True):
        length = rng.integers(4, 17)
        row[:length] = rng.integers(3, 20, length)
        first, second = sorted(rng.choice(length, 2, replace=False))
        row[[first, second]] = (1, 2) if label else (2, 1)
    return x, y


@pytest.mark.slow
def test_lstm_on_masked_sequences(study):
    (x, y), (x_test, y_test) = sequences(800, 1), sequences(1_000, 2)
    model = keras.Sequential(
        [
            keras.Input((16,), dtype="int32"),
            layers.Embedding(20, 8, mask_zero=True, **decayed(5e-4, "embeddings")),
            layers.LSTM(24, **decayed(5e-4, "kernel", "recurrent", "bias")),
            layers.Dense(1, activation="sigmoid", **decayed(5e-4)),
        ]
    )
    study.train(model, x, y, loss="binary_crossentropy", epochs=4, rate=1e-2)
    prediction = study.predict(model, "ggn", (x, y), x_test, rank=50)
    accuracy, auroc = study.judge(prediction, y_test, model.predict(x_test, verbose=0))
    assert accuracy > 0.8
    assert auroc > 0.7


class Positions(layers.Layer):
    """Adds a learned vector to each position."""

    def build(self, shape):
        self.vectors = self.add_weight(
            shape=shape[1:],
            initializer="random_normal",
            regularizer=keras.regularizers.L2(1e-4),
            name="vectors",
        )

    def call(self, x):
        return x + self.vectors


@pytest.mark.slow
def test_attention_on_sequences(study):
    (x, y), (x_test, y_test) = sequences(3_000, 1), sequences(1_000, 2)
    of_norm = decayed(3e-4, "gamma", "beta")
    inputs = keras.Input((16,), dtype="int32")
    h = layers.Embedding(
        20, 32, embeddings_initializer="random_normal", **decayed(3e-4, "embeddings")
    )(inputs)
    h = Positions()(h)
    attended = layers.MultiHeadAttention(4, 8, **decayed(3e-4))(h, h)
    h = layers.LayerNormalization(**of_norm)(layers.Add()([h, attended]))
    inner = layers.Dense(64, activation="gelu", **decayed(3e-4))(h)
    inner = layers.Dense(32, **decayed(3e-4))(inner)
    h = layers.LayerNormalization(**of_norm)(layers.Add()([h, inner]))
    h = layers.GlobalAveragePooling1D()(h)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax", **decayed(3e-4))(h))
    study.train(model, x, y, loss="sparse_categorical_crossentropy", epochs=8)
    prediction = study.predict(model, "ggn", (x, y), x_test, rank=200)
    accuracy, auroc = study.judge(prediction, y_test, model.predict(x_test, verbose=0))
    assert accuracy > 0.75
    assert auroc > 0.75


@pytest.mark.slow
def test_several_labels(study):
    x, y = sklearn.datasets.make_multilabel_classification(
        4_000, n_features=30, n_classes=6, n_labels=2, random_state=0
    )
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    x, x_test, y, y_test = train_test_split(x.astype("float32"), y, test_size=1_000, random_state=0)
    model = keras.Sequential(
        [
            keras.Input((30,)),
            layers.Dense(64, activation="gelu", **decayed(2e-4)),
            layers.Dense(6, activation="sigmoid", **decayed(2e-4)),
        ]
    )
    study.train(model, x, y, loss="binary_crossentropy", epochs=20)
    prediction = study.predict(model, "ggn", (x, y), x_test)
    accuracy, auroc = study.judge(prediction, y_test, model.predict(x_test, verbose=0))
    chance = np.mean(np.all(y_test == (y.mean(axis=0) > 0.5), axis=1))
    study.figures |= {
        "accuracy_of_a_label": np.mean(prediction.labels == y_test),
        "chance": chance,
    }
    assert accuracy > chance + 0.2  # all six labels right
    assert auroc > 0.72


def diabetes():
    x, y = sklearn.datasets.load_diabetes(return_X_y=True)
    return x / x.std(axis=0), y


def friedman():
    return sklearn.datasets.make_friedman1(3_000, noise=1.5, random_state=0)


@pytest.mark.parametrize(
    ("data", "rate", "r_squared"), [wide(diabetes, 2e-2, 0.35), slow(friedman, 1e-3, 0.8)]
)
def test_intervals_of_a_regression_cover(study, data, rate, r_squared):
    x, y = data()
    y = (y - y.mean()) / y.std()
    x, x_test, y, y_test = train_test_split(
        x.astype("float32"), y.astype("float32"), test_size=0.4, random_state=0
    )
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(32, activation="tanh", **decayed(rate)),
            layers.Dense(16, activation="tanh", **decayed(rate)),
            layers.Dense(1, **decayed(rate)),
        ]
    )
    study.train(model, x, y, loss="mse", epochs=60 if len(y) < 1_000 else 30, rate=1e-2)
    prediction = study.predict(model, "ggn", (x, y), x_test)
    np.testing.assert_allclose(prediction.mean, model.predict(x_test, verbose=0), atol=1e-5)
    explained = 1 - np.mean((prediction.mean[:, 0] - y_test) ** 2) / np.var(y_test)
    lower, upper = prediction.interval(0.95, of="observation")
    coverage = np.mean((lower[:, 0] <= y_test) & (y_test <= upper[:, 0]))
    study.figures |= {
        "r_squared": explained,
        "coverage": coverage,
        "noise": np.sqrt(np.median(prediction.noise)),
    }
    assert explained > r_squared
    assert 0.9 < coverage < 0.99
    of_mean = prediction.interval(0.95, of="mean")
    assert np.all(of_mean[1] - of_mean[0] < upper - lower)
