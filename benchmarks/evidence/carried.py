"""Small networks in float64, and the same weights in the layouts of torch and JAX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import sklearn.datasets
import tensorflow as tf

from deltauq import Batches, DeltaMethod, Network
from deltauq.likelihoods import Categorical, Gaussian, Likelihood
from evidence.training import Minimizer

Array = np.ndarray[Any, Any]
layers = keras.layers

#: Variance of the noise of the regression.
NOISE = 0.1

#: lambda on every parameter, beside Keras' loss.
L2 = 1e-2

#: Inputs to train on and to predict, at most.
N_TRAIN, N_NEW = 300, 20


@dataclass(frozen=True)
class Carried:
    """A network at a minimum of its cost, with its data.

    Attributes:
        model: the network, in float64.
        likelihood: of its labels.
        x: training inputs; images have their channels last.
        y: labels.
        x_new: inputs to predict.
    """

    model: Any
    likelihood: Likelihood
    x: Array
    y: Array
    x_new: Array

    @property
    def n_outputs(self) -> int:
        """C."""
        return int(self.model.output_shape[1])

    @property
    def is_regression(self) -> bool:
        """Whether the labels are numbers."""
        return isinstance(self.likelihood, Gaussian)

    @property
    def prior_precision(self) -> float:
        """Of every weight, beside a sum of negative log-likelihoods: N lambda over the dispersion.

        The dispersion is what Keras' loss is in units of the negative log-likelihood.
        """
        return len(self.x) * L2 / self.likelihood.dispersion(self.n_outputs)

    @cached_property
    def network(self) -> Network:
        """The network as a function of its flat weights."""
        return Network(self.model)

    @cached_property
    def data(self) -> Batches:
        """The training set, in batches of which the last one is smaller."""
        return Batches(
            self.x,
            self.y,
            likelihood=self.likelihood,
            n_outputs=self.n_outputs,
            dtype="float64",
            batch_size=64,
        )

    def fit(self, curvature: str, **options: Any) -> DeltaMethod:
        """A fit that leaves nothing of the curvature out."""
        method = DeltaMethod(
            self.model,
            curvature,
            rank="full",
            l2=L2,
            likelihood=self.likelihood,
            progress=False,
            **options,
        )
        return method.fit(self.x, self.y)

    def in_torch(self) -> tuple[Any, Array]:
        """The network in torch, and the place in ours of every weight of its flat ones, `[P]`.

        Its images have their channels first.
        """
        import torch

        body: list[Any] = []
        for layer in self.model.layers:
            if isinstance(layer, layers.Flatten):
                body.append(torch.nn.Flatten())
            elif isinstance(layer, layers.Conv2D):
                channels = layer.kernel.shape[2]
                body.append(
                    torch.nn.Conv2d(channels, layer.filters, layer.kernel_size, layer.strides)
                )
            else:
                body.append(torch.nn.Linear(*layer.kernel.shape))
            if getattr(layer, "activation", None) is keras.activations.tanh:
                body.append(torch.nn.Tanh())
        network = torch.nn.Sequential(*body).to(torch.float64)
        weights = self.model.get_weights()
        with torch.no_grad():
            for theirs, ours in zip(
                network.parameters(), self.channels_first(weights), strict=True
            ):
                theirs.copy_(torch.from_numpy(ours))
        ends = np.cumsum([w.size for w in weights])
        places = np.split(np.arange(ends[-1]), ends[:-1])
        shaped = [p.reshape(w.shape) for p, w in zip(places, weights, strict=True)]
        return network, np.concatenate([p.ravel() for p in self.channels_first(shaped)])

    def channels_first(self, weights: list[Array]) -> list[Array]:
        """Arrays of the shapes of the weights in the layout of torch."""
        found, left = [], iter(weights)
        image: tuple[int, ...] | None = None
        for layer in self.model.layers:
            if isinstance(layer, layers.Flatten):
                image = layer.input.shape[1:]
                continue
            kernel = next(left)
            if kernel.ndim == 4:
                kernel = kernel.transpose(3, 2, 0, 1)
            else:
                if image is not None:
                    kernel = kernel.reshape(*image, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
                    image = None
                kernel = kernel.T
            found += [np.ascontiguousarray(kernel), next(left)]
        return found

    def in_jax(self) -> tuple[Callable[..., Any], list[Any]]:
        """The network as a function of one `input` and `params` in JAX, and its weights as ours."""
        import jax.numpy as jnp
        from jax.lax import conv_general_dilated

        def function(input: Any, params: list[Any]) -> Any:
            z, left = input, iter(params)
            for layer in self.model.layers:
                if isinstance(layer, layers.Flatten):
                    z = z.ravel()
                    continue
                kernel = next(left)
                if kernel.ndim == 4:
                    order = ("NHWC", "HWIO", "NHWC")
                    z = conv_general_dilated(
                        z[None], kernel, layer.strides, "VALID", None, None, order
                    )[0]
                else:
                    z = z @ kernel
                z = z + next(left)
                z = jnp.tanh(z) if layer.activation is keras.activations.tanh else z
            return z

        return function, [jnp.asarray(w) for w in self.model.get_weights()]


def _trained(body: list[Any], likelihood: Likelihood, x: Array, y: Array) -> Carried:
    """A network of some layers at a minimum of its cost."""
    order = np.random.default_rng(0).permutation(len(x))
    cut = min(N_TRAIN, len(x) - N_NEW)
    train, new = order[:cut], order[cut : cut + N_NEW]
    model = keras.Sequential([keras.Input(x.shape[1:], dtype="float64"), *body])
    squares = lambda z, t: tf.reduce_mean((z - t) ** 2, axis=1)  # noqa: E731
    loss = squares if isinstance(likelihood, Gaussian) else None
    Minimizer(model, L2, loss).to_minimum(x[train], y[train])
    return Carried(model, likelihood, x[train], y[train], x[new])


def scaled(x: Array) -> Array:
    """Columns with mean 0 and standard deviation 1."""
    return (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-3)


def _dense(units: int, activation: str | None = None) -> Any:
    return layers.Dense(units, activation, dtype="float64")


def _convolution(filters: int, size: int, stride: int) -> Any:
    return layers.Conv2D(filters, size, stride, activation="tanh", dtype="float64")


def softmax() -> Carried:
    """A softmax without hidden layer."""
    x, y = sklearn.datasets.load_iris(return_X_y=True)
    return _trained([_dense(3)], Categorical(), scaled(x), y)


def perceptron() -> Carried:
    """A softmax behind a layer of eight tanh units."""
    x, y = sklearn.datasets.load_wine(return_X_y=True)
    return _trained([_dense(8, "tanh"), _dense(3)], Categorical(), scaled(x), y)


def convolutions() -> Carried:
    """A softmax behind two convolutions, of three channels and of four."""
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    flat = layers.Flatten(dtype="float64")
    body = [_convolution(3, 3, 2), _convolution(4, 2, 1), flat, _dense(10)]
    return _trained(body, Categorical(), x.reshape(-1, 8, 8, 1) / 16, y)


def regression() -> Carried:
    """Two numbers behind a layer of four tanh units."""
    x = scaled(sklearn.datasets.load_iris(return_X_y=True)[0])
    return _trained([_dense(4, "tanh"), _dense(2)], Gaussian(noise=NOISE), x[:, :2], x[:, 2:])


#: By their names in tables.
CARRIED: dict[str, Callable[[], Carried]] = {
    "softmax, iris": softmax,
    "8 tanh units, wine": perceptron,
    "2 convolutions, digits": convolutions,
    "regression, 4 tanh units, iris": regression,
}
