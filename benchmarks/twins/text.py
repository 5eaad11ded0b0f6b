"""Twins of published models of text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
from twin import Twin, train, twin

layers = keras.layers
N, WORDS, LENGTH, FEW = 96, 24, 8, 6


def reviews() -> tuple[np.ndarray, np.ndarray]:
    """Word numbers `[N, T]`, zero behind the end of each text, and whether it was liked."""
    rng = np.random.default_rng(0)
    x = rng.integers(1, WORDS, (N, LENGTH))
    liked = np.sum((x % 3 == 0) * 1.0 - (x % 3 == 1), axis=1) + rng.logistic(size=N) > 0
    x[np.arange(LENGTH) >= rng.integers(3, LENGTH + 1, N)[:, None]] = 0
    return x.astype("int32"), liked.astype("int64")


def sentences() -> tuple[np.ndarray, np.ndarray]:
    """The same as strings `[N]`."""
    x, y = reviews()
    return np.array([" ".join(f"w{n}" for n in row if n) for row in x]), y


def vectorizer(**options: Any) -> Any:
    """As `adapt` leaves it."""
    words = [f"w{n}" for n in range(1, WORDS)]
    return layers.TextVectorization(vocabulary=words, **options)


@twin("IMDB, LSTM over an embedding with mask_zero (keras.io)")
def imdb() -> Twin:
    x, y = reviews()

    def build() -> Any:
        model = keras.Sequential(
            [
                keras.Input((LENGTH,), dtype="int32"),
                layers.Embedding(WORDS, 6, mask_zero=True),
                layers.LSTM(6),
                layers.Dense(1, "sigmoid"),
            ]
        )
        model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        return model

    return Twin(train(build, x, y), x, y, build, "binary")


@twin("Bidirectional RNN on text, logits (TensorFlow tutorial)")
def bidirectional() -> Twin:
    x, y = sentences()

    def build() -> Any:
        model = keras.Sequential(
            [
                keras.Input((), dtype="string"),
                vectorizer(),
                layers.Embedding(WORDS + 2, 6, mask_zero=True),
                layers.Bidirectional(layers.GRU(4)),
                layers.Dense(6, "relu"),
                layers.Dense(1),
            ]
        )
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
        return model

    return Twin(train(build, x, y), x, y, build, "binary logit")


@twin("Text CNN with TextVectorization inside (keras.io)")
def text_cnn() -> Twin:
    x, y = sentences()

    def build() -> Any:
        inputs = keras.Input((1,), dtype="string")
        z = layers.Embedding(WORDS + 2, 6)(vectorizer(output_sequence_length=LENGTH)(inputs))
        z = layers.Conv1D(8, 3, activation="relu", padding="valid")(layers.Dropout(0.5)(z))
        z = layers.Dense(8, "relu")(layers.GlobalMaxPooling1D()(z))
        model = keras.Model(inputs, layers.Dense(1, "sigmoid")(layers.Dropout(0.5)(z)))
        model.compile("adam", "binary_crossentropy")
        return model

    return Twin(train(build, x[:, None], y), x[:, None], y, build, "binary")


@keras.saving.register_keras_serializable("twins")
class TransformerBlock(layers.Layer):
    """As in the tutorial."""

    def __init__(self, width: int, heads: int, inner: int, **options: Any) -> None:
        super().__init__(**options)
        self.attention = layers.MultiHeadAttention(heads, width)
        self.inner = keras.Sequential([layers.Dense(inner, "relu"), layers.Dense(width)])
        self.first, self.second = layers.LayerNormalization(), layers.LayerNormalization()
        self.drop = layers.Dropout(0.1)

    def call(self, x: Any, training: Any = None) -> Any:
        """`[N, T, width]`."""
        z = self.first(x + self.drop(self.attention(x, x), training=training))
        return self.second(z + self.inner(z))


@keras.saving.register_keras_serializable("twins")
class TokenAndPosition(layers.Layer):
    """As in the tutorial."""

    def __init__(self, length: int, words: int, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.length = length
        self.tokens, self.places = layers.Embedding(words, width), layers.Embedding(length, width)

    def call(self, x: Any) -> Any:
        """`[N, T, width]`."""
        return self.tokens(x) + self.places(keras.ops.arange(0, self.length))


@twin("Transformer block for text classification (keras.io)")
def transformer() -> Twin:
    x, y = reviews()

    def build() -> Any:
        inputs = keras.Input((LENGTH,))
        z = TransformerBlock(6, 2, 8)(TokenAndPosition(LENGTH, WORDS, 6)(inputs))
        z = layers.Dropout(0.1)(layers.GlobalAveragePooling1D()(z))
        z = layers.Dense(2, "softmax")(layers.Dropout(0.1)(layers.Dense(8, "relu")(z)))
        model = keras.Model(inputs, z)
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    return Twin(train(build, x, y), x, y, build, "softmax")


@twin("A language model with tied embeddings, next words")
def tied() -> Twin:
    x, _ = reviews()
    x = np.minimum(x, FEW - 1)  # every word at every position is an output
    x, y = x[:24, :5], x[:24, 1:6]

    @keras.saving.register_keras_serializable("twins")
    class Tied(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.words = layers.Embedding(FEW, 6, mask_zero=True)
            self.memory = layers.GRU(6, return_sequences=True)

        def call(self, x: Any) -> Any:
            z = self.memory(self.words(x))
            return keras.ops.matmul(z, keras.ops.transpose(self.words.embeddings))

    def build() -> Any:
        model = Tied()
        model(x[:1])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        return model

    return Twin(train(build, x, y), x, y)


@twin("Characters, a stateful GRU (TensorFlow tutorial)")
def stateful() -> Twin:
    x, _ = reviews()
    x = np.minimum(x, FEW - 1)
    x, y = x[:32, :5], x[:32, 1:6]

    def built(**options: Any) -> Any:
        inputs = keras.Input(**options)
        z = layers.Embedding(FEW, 6)(inputs)
        z = layers.GRU(6, return_sequences=True, stateful="batch_shape" in options)(z)
        model = keras.Model(inputs, layers.Dense(FEW)(z))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        return model

    model = built(batch_shape=(16, 5))
    model.fit(x, y, batch_size=16, epochs=10, shuffle=False, verbose=0)

    def rebuilt(twin: Twin) -> Twin:
        new = built(shape=(5,))
        new.set_weights(twin.model.get_weights())
        return replace(twin, model=new)

    return Twin(model, x, y, ways={"without stateful=True": rebuilt})


@twin("LoRA on a trained classifier (keras.io)")
def lora() -> Twin:
    x, y = reviews()

    def build() -> Any:
        inputs = keras.Input((LENGTH,), dtype="int32")
        z = layers.GlobalAveragePooling1D()(layers.Embedding(WORDS, 8)(inputs))
        z = layers.Dense(8, "tanh", name="tuned")(z)
        model = keras.Model(inputs, layers.Dense(2, "softmax")(z))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    model = train(build, x, y)
    model.get_layer("tuned").enable_lora(2)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=5, verbose=0)

    def again() -> Any:
        with_lora = build()
        with_lora.get_layer("tuned").enable_lora(2)
        return with_lora

    return Twin(model, x, y, again, "softmax")


@twin("A fine-tuned encoder with dicts in and out (Hugging Face)")
def hugging_face() -> Twin:
    ids, y = reviews()
    x = {"input_ids": ids, "attention_mask": (ids > 0).astype("int32")}

    class ForSequenceClassification(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.words = layers.Embedding(WORDS, 6)
            self.attention = layers.MultiHeadAttention(2, 3)
            self.norm, self.head = layers.LayerNormalization(), layers.Dense(2)

        def call(self, x: Any, training: Any = None) -> Any:
            z, mask = self.words(x["input_ids"]), x["attention_mask"]
            attended = self.attention(z, z, attention_mask=keras.ops.cast(mask[:, None], "bool"))
            return {"logits": self.head(self.norm(z + attended)[:, 0])}

    def build() -> Any:
        model = ForSequenceClassification()
        model({name: part[:1] for name, part in x.items()})
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-3), loss={"logits": loss})
        return model

    keras.utils.set_random_seed(0)
    model = build()
    model.fit(x, {"logits": y}, epochs=10, verbose=0)

    class Logits(keras.Model):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def call(self, x: Any) -> Any:
            return self.inner(x)["logits"]

    def unpacked(twin: Twin) -> Twin:
        model = Logits(twin.model)
        model({name: part[:1] for name, part in x.items()})
        return replace(twin, model=model)

    return Twin(model, x, y, ways={"or a subclass": unpacked})
