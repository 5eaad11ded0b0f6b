"""Curvature of masked models against dense sums over what counts, from Keras' own losses.

The derivatives are those of `tf.GradientTape` through the model as Keras calls it; the sums and
inverses are NumPy's, in float64.
"""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from marks import slow, wide
from masked_models import Case, bidirectional, finished, recurrent, rows

from deltauq import DeltaMethod

layers = keras.layers

RATE = 1.0

#: Weights at random are no minimum.
pytestmark = pytest.mark.filterwarnings("ignore:the weights are far from a minimum")


def hidden():
    """One prediction an input, in float64, some inputs masked, with a hidden layer."""
    case = rows()
    keras.utils.set_random_seed(0)
    mask = case.model.layers[0]
    last = layers.Dense(3, "softmax")
    stack = [keras.Input((3,)), mask, layers.Dense(2, "tanh"), last]
    return Case(finished(keras.Sequential(stack)), case.x, case.y, case.valid)


def flat(gradients, variables, leading):
    """Jacobians of some variables side by side, `[..., P]`; a lookup's are not dense."""
    parts = [
        np.zeros((*leading, *v.shape)) if g is None else tf.convert_to_tensor(g).numpy()
        for g, v in zip(gradients, variables, strict=True)
    ]
    return np.concatenate([part.reshape(*leading, -1) for part in parts], axis=-1).astype(float)


def dense_truth(case, counts):
    """Parameter covariances by curvature, and the Jacobian of the means, of what counts."""
    model, variables = case.model, case.model.trainable_variables
    values = [variable.value for variable in variables]
    valid, n = case.valid.ravel(), counts[case.valid].sum()
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as outer:
        outer.watch(values)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(values)
            p = tf.reshape(model(case.x), [len(valid), -1])
            y = tf.constant(np.ravel(case.y))
            if p.shape[1] == 1:
                losses = keras.losses.binary_crossentropy(y[:, None], p)
            else:
                losses = keras.losses.sparse_categorical_crossentropy(y, p)
            weight = tf.constant(np.where(valid, counts.ravel(), 0) / n, tf.float32)
            cost = tf.reduce_sum(losses * weight)
        gradient = tf.concat(
            [tf.reshape(tf.convert_to_tensor(g), [-1]) for g in tape.gradient(cost, values)], 0
        )
    options = {"experimental_use_pfor": False}
    hessian = flat(outer.jacobian(gradient, values, **options), variables, gradient.shape)
    scores = flat(tape.jacobian(losses, values, **options), variables, losses.shape)[valid]
    j = flat(tape.jacobian(p, values, **options), variables, p.shape)[valid]
    p, times = p.numpy()[valid].astype(float), counts.ravel()[valid] / n
    if p.shape[1] == 1:
        ggn = np.einsum("n,ncp,nc,ncq->pq", times, j, 1 / (p * (1 - p)), j)
        j = np.concatenate([-j, j], axis=1)
    else:
        ggn = np.einsum("n,ncp,nc,ncq->pq", times, j, 1 / p, j)  # dp^T diag(1/p) dp = dz^T S dz
    opg = np.einsum("n,np,nq->pq", times, scores, scores)
    h, g, f = (each + RATE * np.eye(len(hessian)) for each in (hessian, opg, ggn))
    inverse = np.linalg.inv(h)
    sigmas = {
        "hessian": inverse,
        "opg": np.linalg.inv(g),
        "ggn": np.linalg.inv(f),
        "sandwich": inverse @ g @ inverse,
    }
    return {k: np.sqrt(np.einsum("ncp,pq,ncq->nc", j, s / n, j)) for k, s in sigmas.items()}


@functools.cache
def counted(make):
    """A case, how often each of its rows counts, and the truth of every curvature."""
    case = make()
    counts = np.random.default_rng(3).integers(1, 4, case.valid.shape).astype(float)
    return case, counts, dense_truth(case, counts)


@pytest.mark.parametrize("curvature", ["ggn", "opg", wide("hessian"), wide("sandwich")])
@pytest.mark.parametrize("make", [hidden, slow(recurrent), slow(bidirectional)])
def test_every_curvature_is_the_sum_over_what_counts(make, curvature):
    case, counts, truth = counted(make)
    options = {"negative_curvature": "keep", "l2": RATE, "rank": "full", "progress": False}
    dm = DeltaMethod(case.model, curvature, **options)
    found = dm.fit(case.x, case.y, counts).predict(case.x)
    np.testing.assert_array_equal(found.masked, ~case.valid.ravel())
    np.testing.assert_allclose(found.unmasked.std, truth[curvature], rtol=2e-3)


def steps(seed=0):
    rng = np.random.default_rng(seed)
    valid = np.arange(6) < rng.integers(0, 7, 30)[:, None]
    x = np.where(valid[..., None], rng.normal(size=(30, 6, 2)), 0).astype("float32")
    return x, valid, rng


@pytest.mark.parametrize("weighted", [wide(False), True])
def test_a_regression_over_positions_is_least_squares_over_the_valid_ones(weighted):
    """Masked observations have no noise either; their labels are not numbers."""
    x, valid, rng = steps()
    y = (x @ [1.0, -2.0] + 0.5 + rng.normal(size=valid.shape))[..., None]
    counts = rng.integers(1, 4, valid.shape).astype(float) if weighted else np.ones(valid.shape)
    h = np.concatenate([x[valid], np.ones((valid.sum(), 1))], axis=1).astype(float)
    c = counts[valid]
    gram = h.T @ (c[:, None] * h)
    weights = np.linalg.solve(gram, h.T @ (c * y[valid][:, 0]))
    model = keras.Sequential([keras.Input((6, 2)), layers.Masking(0.0), layers.Dense(1)])
    model.set_weights([weights[:2, None], weights[2:]])
    model.compile(loss="mse")
    dm = DeltaMethod(model, "ggn", rank="full", progress=False)
    y[~valid] = np.nan
    dm.fit(x, y, counts if weighted else None)
    residuals = y[valid][:, 0] - h @ weights
    noise = c @ residuals**2 / (c.sum() - 3)
    found = dm.predict(x).unmasked
    np.testing.assert_allclose(found.noise, noise, rtol=1e-4)
    std = np.sqrt(noise * np.einsum("ni,ij,nj->n", h, np.linalg.inv(gram), h))
    np.testing.assert_allclose(found.std[:, 0], std, rtol=1e-3)


def test_yes_or_no_at_every_step():
    x, valid, rng = steps()
    y = (rng.uniform(size=valid.shape) < scipy.special.expit(x.sum(axis=2))).astype(int)
    model = keras.Sequential([keras.Input((6, 2)), layers.Masking(0.0), layers.Dense(1, "sigmoid")])
    model.set_weights([np.array([[1.0], [0.5]]), np.array([0.2])])
    model.compile(loss="binary_crossentropy")
    dm = DeltaMethod(model, "ggn", rank="full", l2=0.1, progress=False)
    dm.fit(x, np.where(valid, y, 9)[..., None])
    h = np.concatenate([x[valid], np.ones((valid.sum(), 1))], axis=1).astype(float)
    p = scipy.special.expit(h @ [1.0, 0.5, 0.2])
    sigma = np.linalg.inv(h.T @ ((p * (1 - p))[:, None] * h) + 0.1 * len(h) * np.eye(3))
    std = p * (1 - p) * np.sqrt(np.einsum("ni,ij,nj->n", h, sigma, h))
    np.testing.assert_allclose(dm.predict(x).unmasked.std[:, 1], std, rtol=1e-4)
