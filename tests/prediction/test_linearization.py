"""What covariances need of a linear model's rows, against dense float64 matrices."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from deltauq.likelihoods import Categorical, Gaussian
from deltauq.network import Network
from deltauq.network.jacobians import PerExample, Workspace
from deltauq.prediction.linearization import Linearization, RowFunctions

N_IN, N_OUT = 6, 3
P = (N_IN + 1) * N_OUT


class Counted(Linearization):
    """Counts the inputs whose rows outside U are formed explicitly."""

    formed = []  # noqa: RUF012 - of every instance, emptied by `linear`

    @property
    def explicit(self):
        return sum(self.formed)

    def _outside(self, factors, along, vectors, workspace):
        self.formed.append(len(along))
        return super()._outside(factors, along, vectors, workspace)


@functools.cache
def dense_layer(dtype):
    """A network of one dense layer, and its rows."""
    network = Network(
        keras.Sequential(
            [keras.Input((N_IN,), dtype=dtype), keras.layers.Dense(N_OUT, dtype=dtype)]
        )
    )
    probe = np.random.default_rng(1).normal(size=(4, N_IN)).astype(dtype)
    return network, PerExample(network, probe)


def linear(likelihood, rates, dtype="float32"):
    """The layer linearised, with D = rate^-1/2 for the kernel and for the bias."""
    network, per_example = dense_layer(dtype)
    scale = np.repeat(np.asarray(rates, float) ** -0.5, [N_IN * N_OUT, N_OUT])
    spec = tf.TensorSpec([None, N_IN], dtype)
    Counted.formed.clear()
    return Counted(RowFunctions(network, spec, per_example), likelihood, scale), scale


def true_rows(x, scale, directions):
    """J D `[B, R, P]` along directions of the logits, float64: z = x W + b."""
    x = np.c_[x.astype(float), np.ones(len(x))]
    jacobian = np.einsum("bi,cd->bcid", x, np.eye(N_OUT)).reshape(len(x), N_OUT, P)
    return directions @ jacobian * scale


def nearly_inside(rows, share, rng, dtype="float32"):
    """Orthonormal U in which rows `[R, P]` lie but for a share of their squares."""
    q = np.linalg.qr(rows.T)[0]
    other = rng.normal(size=q.shape)
    other = np.linalg.qr(other - q @ (q.T @ other))[0]
    u = np.sqrt(1 - share) * q + np.sqrt(share) * other
    return np.ascontiguousarray(u, dtype)


def dense(rows, u):
    """(J D U, Q Q^T) with Q the rows less their part in U."""
    along = rows @ u.astype(float)
    rest = rows - along @ u.astype(float).T
    return along, rest @ np.swapaxes(rest, 1, 2)


@pytest.mark.parametrize("rates", [(1e-4, 1e-4), (25.0, 25.0), (1e-3, 4.0)])
def test_rows_well_outside_the_eigenvectors_need_no_explicit_path(rng, rates):
    """|row|^2 - |along|^2 is right there, for small and large L2 rates, and is what is taken."""
    linearization, scale = linear(Gaussian(), rates)
    x = rng.normal(size=(5, N_IN)).astype("float32")
    u = np.linalg.qr(rng.normal(size=(P, 4)))[0].astype("float32")
    rows = true_rows(x, scale, np.eye(N_OUT))
    np.testing.assert_allclose(linearization.rows(x).values, rows, rtol=1e-6, atol=1e-6)
    found = linearization.sketch(x, np.ascontiguousarray(u), Workspace("float32"))
    along, rest = dense(rows, u)
    size = np.abs(rest).max()
    assert linearization.explicit == 0
    np.testing.assert_allclose(found.along, along, atol=1e-6 * np.sqrt(size))
    np.testing.assert_allclose(found.rest, rest, rtol=1e-4, atol=1e-5 * size)


@pytest.mark.parametrize(("share", "explicit"), [(1e-2, 0), (1e-4, 1), (1e-6, 1)])
@pytest.mark.parametrize(
    ("rates", "size"), [((1e-2, 1e-2), 1.0), ((4.0, 0.09), 50.0), ((4.0, 4e4), 0.02)]
)
def test_rows_nearly_inside_the_eigenvectors_keep_what_is_outside(
    rng, rates, size, share, explicit
):
    """Of a difference float32 would leave epsilon / share: it is formed where that is above 1e-4.

    Only for the inputs that need it: the other one has its rows well outside.
    """
    linearization, scale = linear(Gaussian(), rates)
    x = (size * rng.normal(size=(2, N_IN))).astype("float32")
    rows = true_rows(x, scale, np.eye(N_OUT))
    u = nearly_inside(rows[0], share, rng)
    found = linearization.sketch(x, u, Workspace("float32"))
    assert linearization.explicit == explicit
    rest = dense(rows, u)[1]
    variances, true = (np.einsum("bii->bi", each) for each in (found.rest, rest))
    np.testing.assert_allclose(variances, true, rtol=2e-3)
    assert np.median(true[0] / np.einsum("bip,bip->bi", rows, rows)[0]) < 1.1 * share


def test_what_cancels_in_the_means_alone_is_formed_too(rng):
    """Outside U is the common direction of the logits, which moves no probability."""
    linearization, scale = linear(Categorical(), (0.05, 0.05))
    x = rng.normal(size=(2, N_IN)).astype("float32")
    rows = true_rows(x, scale, scipy.linalg.helmert(N_OUT, full=True))
    u = nearly_inside(rows[0, 1:], 1e-6, rng)
    found = linearization.sketch(x, u, Workspace("float32"))
    assert linearization.explicit == 1
    contrasts = np.einsum("bii->bi", found.rest)[:, 1:]
    np.testing.assert_allclose(contrasts, np.einsum("bii->bi", dense(rows, u)[1])[:, 1:], rtol=2e-3)


def test_in_float64_only_what_is_nearly_lost_is_formed(rng):
    linearization, scale = linear(Gaussian(), (0.01, 0.01), "float64")
    x = rng.normal(size=(1, N_IN))
    rows = true_rows(x, scale, np.eye(N_OUT))
    for share, explicit in ((1e-6, 0), (1e-14, 1)):
        linearization.formed.clear()
        u = nearly_inside(rows[0], share, rng, "float64")
        found = linearization.sketch(x, u, Workspace("float64"))
        assert linearization.explicit == explicit
        variances, true = (np.einsum("bii->bi", each) for each in (found.rest, dense(rows, u)[1]))
        np.testing.assert_allclose(variances, true, rtol=1e-5)


def test_other_rates_rescale_all_rows(rng):
    linearization, scale = linear(Gaussian(), (0.04, 9.0), "float64")
    x = rng.normal(size=(2, N_IN))
    found = linearization.rescaled(3.0).rows(x).values
    np.testing.assert_allclose(found, 3.0 * true_rows(x, scale, np.eye(N_OUT)))
    u = np.ascontiguousarray(np.linalg.qr(rng.normal(size=(P, 2)))[0])
    before, after = (
        each.sketch(x, u, Workspace("float64"))
        for each in (linearization, linearization.rescaled(3.0))
    )
    np.testing.assert_allclose(after.along, 3.0 * before.along)
    np.testing.assert_allclose(after.rest, 9.0 * before.rest)
