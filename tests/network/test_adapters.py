"""A `tf_keras` model and a `tf.Module` give what eager tapes on the model itself give."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from marks import slow, wide, wide_but

from deltauq import DeltaMethod, curvature
from deltauq.curvature.cost import Cost
from deltauq.data import Batches
from deltauq.likelihoods import Categorical
from deltauq.network import Network
from deltauq.network.jacobians import PerExample, evaluated, stacked
from deltauq.network.probe_rows import POOL, probe_rows

# Random weights are far from a minimum, and `fit` says so.
pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")

layers = tf_keras.layers
PRECISION = {"dtype": "float64"}
N, L2 = 7, 0.3


def shared_and_normalised():
    """A layer called twice, batch normalisation with moving averages, a softmax at the end."""
    x = tf_keras.Input((4,), **PRECISION)
    twice = layers.Dense(4, "tanh", **PRECISION)
    z = layers.BatchNormalization(**PRECISION)(twice(twice(x)))
    return tf_keras.Model(x, layers.Dense(3, "softmax", **PRECISION)(z)), (4,)


def convolutional():
    return sequential(
        layers.Conv2D(3, 3, strides=2, padding="same", activation="swish", **PRECISION),
        layers.MaxPooling2D(2, padding="same", **PRECISION),
        layers.Flatten(**PRECISION),
        shape=(5, 5, 2),
    )


def grouped():
    convolution = layers.Conv2D(4, 2, groups=2, activation="tanh", **PRECISION)
    return sequential(convolution, layers.Flatten(**PRECISION), shape=(3, 3, 2))


def lstm(recurrent_dropout=0.2):
    """A loop that reads its weights; without recurrent dropout they are handed to a function."""
    dropout = {"dropout": 0.2, "recurrent_dropout": recurrent_dropout}
    return sequential(layers.LSTM(2, **dropout, **PRECISION), shape=(2, 2))


def lstm_as_a_function():
    return lstm(recurrent_dropout=0.0)


def embedded():
    mean = layers.GlobalAveragePooling1D(**PRECISION)
    return sequential(layers.Embedding(7, 3, **PRECISION), mean, shape=(4,), dtype="int32")


def sequential(*middle, shape, dtype="float64"):
    end = layers.Dense(3, **PRECISION)
    return tf_keras.Sequential([tf_keras.Input(shape, dtype=dtype), *middle, end]), shape


class Subclassed(tf_keras.Model):
    """Own weights, control flow in Python, and a call that was compiled by its author."""

    def __init__(self):
        super().__init__(**PRECISION)
        self.gain = self.add_weight("gain", (3,), **PRECISION)
        self.head = layers.Dense(3, **PRECISION)

    @tf.function
    def call(self, x, training=None):
        for _ in tf.range(2):
            x = x + tf.tanh(self.head(x) * self.gain)
        if training:
            x += 1.0
        return x


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 3)))
    return model, (3,)


class Recurrent(tf.Module):
    """A loop over steps whose weights are read in the loop, outside of it and twice."""

    def __init__(self):
        super().__init__()
        self.w = {name: variable(*shape) for name, shape in SHAPES.items()}
        self.frozen = variable(3, trainable=False)
        self.calls = tf.Variable(0)

    @tf.function
    def __call__(self, x, training=True):
        if training:
            self.calls.assign_add(1)
        state = tf.zeros([tf.shape(x)[0], 3], tf.float64)
        for t in tf.range(tf.shape(x)[1]):
            step = tf.matmul(x[:, t], self.w["in"]) + tf.matmul(state, self.w["out"])
            state = tf.tanh(step) * tf.nn.silu(self.w["gain"]) + self.frozen
        return self.head(state)

    @tf.function
    def head(self, state):
        return tf.einsum("bi,ij->bj", state, self.w["out"])


SHAPES = {"in": (2, 3), "out": (3, 3), "gain": (3,)}


def recurrent():
    return Recurrent(), (4, 2)


class Table(tf.Module):
    """Rows of a variable, taken in two ways, and a branch on the data; never compiled."""

    def __init__(self):
        super().__init__()
        self.rows, self.head = variable(7, 3), [variable(3, 3), variable(3)]

    def __call__(self, numbers):
        taken = tf.nn.embedding_lookup(self.rows, numbers[:, 0])
        taken *= tf.gather_nd(self.rows, numbers[:, 1:2])
        if tf.reduce_all(numbers < 0):
            taken = -taken
        kernel, bias = self.head
        return tf.tanh(taken) @ kernel + bias + kernel[0]


def table():
    return Table(), (2,)


def variable(*shape, trainable=True):
    values = np.random.default_rng(sum(shape)).normal(size=shape)
    return tf.Variable(values, trainable=trainable)


KINDS = [
    shared_and_normalised,
    convolutional,
    grouped,
    lstm,
    lstm_as_a_function,
    embedded,
    subclassed,
    recurrent,
    table,
]


@dataclass(frozen=True)
class Case:
    """A model with data, and its derivatives by tapes on its own variables."""

    model: object
    x: np.ndarray
    y: np.ndarray
    jacobian: np.ndarray  # [N, C, P]
    hessian: np.ndarray  # [P, P], of the mean loss
    probabilities: np.ndarray  # [N, C]

    @property
    def spread(self):
        p = self.probabilities
        return np.einsum("ni,ij->nij", p, np.eye(3)) - np.einsum("ni,nj->nij", p, p)

    @property
    def ggn(self):
        return np.einsum("nip,nij,njq->pq", self.jacobian, self.spread, self.jacobian) / N

    @property
    def opg(self):
        residual = self.probabilities - np.eye(3)[self.y]
        rows = np.einsum("ni,nip->np", residual, self.jacobian)
        return rows.T @ rows / N

    def batches(self):
        return Batches(
            self.x,
            self.y,
            likelihood=Categorical(),
            n_outputs=3,
            dtype="float64",
            batch_size=4,
        )


@cache
def case(make):
    tf_keras.utils.set_random_seed(0)
    model, shape = make()
    rng = np.random.default_rng(1)
    for v in model.variables:  # moving averages that are not their start, biases that are not zero
        if v.dtype.is_floating:
            v.assign(rng.uniform(0.3, 1.0, v.shape) * rng.choice([-1, 1], v.shape))
            v.assign(tf.abs(v) if "variance" in v.name else v)
    integers = make in (embedded, table)
    x = rng.integers(0, 7, (N, *shape)) if integers else rng.normal(size=(N, *shape))
    x, y = x.astype("int32") if integers else x, rng.integers(0, 3, N)
    own = [v for v in model.trainable_variables if v.dtype.is_floating]
    with tf.GradientTape(persistent=True) as outer:
        with tf.GradientTape() as inner:
            logits = log_probabilities(model, x)
            loss = -tf.reduce_mean(tf.gather(logits, y, batch_dims=1))
        gradient = flat(inner.gradient(loss, own))
    jacobian, hessian = (
        np.concatenate([np.reshape(p, (*t.shape, -1)) for p in jacobians(outer, t, own)], -1)
        for t in (logits, gradient)
    )
    return Case(model, x, y, jacobian, hessian, np.exp(logits))


def jacobians(tape, target, sources):
    found = tape.jacobian(target, sources, experimental_use_pfor=False)
    return [
        np.zeros((*target.shape, *s.shape)) if j is None else tf.convert_to_tensor(j).numpy()
        for j, s in zip(found, sources, strict=True)
    ]


def log_probabilities(model, x):
    output = model(x) if isinstance(model, Table) else model(x, training=False)
    sums_to_one = np.allclose(tf.reduce_sum(output, 1), 1) and np.all(output >= 0)
    return tf.math.log(output) if sums_to_one else tf.nn.log_softmax(output)


def flat(parts):
    return tf.concat([tf.reshape(tf.convert_to_tensor(part), [-1]) for part in parts], 0)


def close(found, truth, tolerance=1e-8):
    np.testing.assert_allclose(found, truth, rtol=tolerance, atol=tolerance * np.max(np.abs(truth)))


def heavy(make):
    """Loops take seconds to trace; two of them are variations of the third."""
    return slow(make) if make in (lstm, lstm_as_a_function) else make


@pytest.fixture(
    params=wide_but([embedded, table], map(heavy, KINDS)),
    ids=lambda make: make.__name__,
)
def kind(request):
    return case(request.param)


def bits(model):
    return [v.numpy().tobytes() for v in model.variables]


def test_rows_and_curvatures_equal_tapes_on_the_model_itself(kind):
    """J of every example, OPG and products of the exact Hessian; batches of 4 and 3 rows."""
    before = bits(kind.model)
    network, data = Network(kind.model), kind.batches()
    per_example = PerExample(network, probe_rows(network, data.head(POOL)))
    identity = tf.eye(3, batch_shape=[1], dtype=tf.float64)

    def traced(params, x):
        eye = tf.tile(identity, [tf.shape(x)[0], 1, 1])
        return per_example.factors(params, x, lambda _: tf.ensure_shape(eye, [None, 3, 3]))[0]

    spec = [
        tf.TensorSpec([network.n_params], "float64"),
        tf.TensorSpec([None, *kind.x.shape[1:]], kind.x.dtype),
    ]
    factors = tf.function(traced, input_signature=spec, autograph=False)(network.params, kind.x)
    rows = stacked(evaluated(factors))
    centred = rows - np.einsum("nj,njp->np", kind.probabilities, rows)[:, None]
    close(centred, kind.jacobian)
    opg = curvature.OPG(network, "categorical", data, per_example=per_example)
    close(opg.to_dense(), kind.opg)
    vectors = np.random.default_rng(2).normal(size=(network.n_params, 2))
    hessian = curvature.Hessian(network, "categorical", data)
    close(hessian.matmat(vectors), kind.hessian @ vectors)
    assert bits(kind.model) == before


@pytest.mark.parametrize(
    "kind",
    wide_but([embedded], [heavy(k) for k in KINDS if k is not lstm]),
    indirect=True,
)
def test_full_rank_predictions_equal_the_dense_formula(kind):
    """The GGN too; nothing of the model is changed."""
    before = bits(kind.model)
    dm = DeltaMethod(kind.model, "ggn", rank="full", l2=L2, progress=False).fit(kind.x, kind.y)
    found = dm.predict(kind.x)
    sigma = np.linalg.inv(kind.ggn + L2 * np.eye(len(kind.ggn))) / N
    s_j = kind.spread @ kind.jacobian
    close((dm.eigenpairs.vectors * dm.eigenpairs.values) @ dm.eigenpairs.vectors.T, kind.ggn)
    close(found.probabilities, kind.probabilities)
    close(found.covariance, s_j @ sigma @ s_j.swapaxes(1, 2))
    assert bits(kind.model) == before
    if hasattr(kind.model, "calls"):
        assert kind.model.calls.numpy() == 0


@pytest.mark.parametrize("make", [slow(lstm), wide(recurrent)], ids=lambda make: make.__name__)
def test_hessian_products_equal_central_differences(make, rng):
    """Of loops that read the variables."""
    kind = case(make)
    network, data = Network(kind.model), kind.batches()
    cost = Cost(network, Categorical(), data, np.zeros(network.n_params))
    vector, step = rng.normal(size=network.n_params), 1e-5
    ahead, behind = (cost.evaluate(network.params + s * vector)[1] for s in (step, -step))
    truth = (ahead - behind) / (2 * step)
    close(curvature.Hessian(network, "categorical", data).matvec(vector), truth, 1e-6)


def mlp(package):
    options = {"kernel_regularizer": package.regularizers.L2(0.125), **PRECISION}
    return package.Sequential(
        [
            package.Input((4,), **PRECISION),
            package.layers.Dense(5, "tanh", name="hidden", **options),
            package.layers.Dense(
                3,
                "softmax",
                name="head",
                bias_regularizer=package.regularizers.L2(2**-6),
                **options,
            ),
        ]
    )


def test_the_same_network_of_both_keras_gives_the_same(rng):
    """Rates read from the regularizers, a compiled loss, and variables chosen by pattern."""
    x, y = rng.normal(size=(20, 4)), rng.integers(0, 3, 20)
    weights = [rng.normal(size=s) for s in ((4, 5), (5,), (5, 3), (3,))]
    found = []
    for package in (keras, tf_keras):
        model = mlp(package)
        model.set_weights(weights)
        model.compile("adam", loss=package.losses.SparseCategoricalCrossentropy())
        dm = DeltaMethod(model, "opg", layers=["head", "kernel"], rank=10, progress=False)
        found.append(dm.fit(x, y))
    ours, theirs = found
    assert ours.n_examples == theirs.n_examples == 20
    close(ours.eigenpairs.values, theirs.eigenpairs.values)
    close(ours.predict(x).std, theirs.predict(x).std)
    rates = [dm._fitted.problem.rates for dm in found]
    np.testing.assert_array_equal(*rates)
    assert sorted(set(rates[0])) == [2**-5, 0.25]


def test_variables_of_a_module_are_named_by_its_attributes():
    network = Network(Recurrent(), layers="w/*")
    assert [p.path for p in network.parameters] == ["w/gain", "w/in", "w/out"]
    module = Table()
    assert [p.path for p in Network(module).parameters] == ["head/0", "head/1", "rows"]
    chosen = Network(module, layers=lambda v: v is module.rows)
    assert [p.path for p in chosen.parameters] == ["rows"]


@pytest.mark.wide  # nothing of a model changes: the tests before
def test_the_models_own_functions_stay_as_they_were():
    """A function compiled by the user is not traced again, nor does it see our tensors."""
    module = Recurrent()
    x = tf.constant(np.random.default_rng(0).normal(size=(3, 4, 2)))
    before = module(x, training=False)
    compiled = type(module).__dict__["__call__"].__get__(module, type(module))
    traces = compiled.experimental_get_tracing_count()
    DeltaMethod(module, "opg", rank=3, l2=1.0, progress=False).fit(x, [0, 1, 2])
    assert compiled.experimental_get_tracing_count() == traces
    for v in module.trainable_variables:
        v.assign(v + v)
    assert not np.allclose(module(x, training=False), before)
