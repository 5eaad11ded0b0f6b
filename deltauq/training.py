"""Training to a stationary point: Adam to get near, L-BFGS on the whole cost to get there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import scipy.optimize
import tensorflow as tf

from deltauq.cost import Cost, Stationarity
from deltauq.likelihoods import Likelihood
from deltauq.tracing import Compiled

__all__ = ["Polished", "Verdict", "build_mlp", "polish", "train_adam"]

Array = npt.NDArray[Any]
Verdict = Literal["stationary", "stopped at a kink", "not converged"]

#: A network with kinks has stalled when its cost fell by less than this share of itself in so many
#: iterations: L-BFGS zigzags across the kinks and may go on for ever.
_STALL_SHARE, _STALL_ITERATIONS = 1e-5, 200

#: L-BFGS runs: a run that ends in its line search starts again with an empty memory.
_RESTARTS = 4


@dataclass(frozen=True)
class Polished:
    """Where L-BFGS stopped.

    Attributes:
        params: `[P]`.
        stationarity: of the cost at `params`.
        verdict: "stationary" (gradient ratio within the tolerance), "stopped at a kink" (no more
            descent, and the network has kinks such as ReLU's: the gradient jumps there and cannot
            vanish), or "not converged" (out of iterations, or of precision).
        iterations: of L-BFGS.
    """

    params: Array
    stationarity: Stationarity
    verdict: Verdict
    iterations: int


def polish(
    cost: Cost,
    params: Array,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 5_000,
    kinks: tuple[str, ...] = (),
) -> Polished:
    """Minimise the cost by L-BFGS until its gradient is small relative to its parts.

    Args:
        cost: the function; one pass over the data per evaluation.
        params: where to start, `[P]`.
        tolerance: on `Stationarity.ratio`.
        max_iterations: over all restarts.
        kinks: operations of the network without a second derivative, from `Network.inspect`.

    Returns:
        The best point; never raises for a lack of convergence.
    """
    search = _Search(cost, tolerance, may_stall=bool(kinks))
    point, iterations, exhausted = np.asarray(params, np.float64), 0, False
    for _ in range(_RESTARTS):
        result = scipy.optimize.minimize(
            search.evaluate,
            point,
            jac=True,
            method="L-BFGS-B",
            callback=search.stop_when_done,
            options={
                "maxcor": 50,
                "maxiter": max_iterations - iterations,
                "maxfun": 20 * max_iterations,
                "ftol": 0.0,
                "gtol": 0.0,
            },
        )
        moved = bool(np.any(result.x != point))
        point, iterations = result.x, iterations + int(result.nit)
        exhausted = iterations >= max_iterations
        if search.ratio(point) <= tolerance or search.stalled or exhausted or not moved:
            break
    stationarity = cost.stationarity(point)
    verdict: Verdict = "not converged"
    if stationarity.ratio <= tolerance:
        verdict = "stationary"
    elif kinks and not exhausted:
        verdict = "stopped at a kink"
    return Polished(point, stationarity, verdict, iterations)


class _Search:
    """The cost as L-BFGS calls it, with the gradient's parts of the last point at hand."""

    def __init__(self, cost: Cost, tolerance: float, *, may_stall: bool) -> None:
        self._cost = cost
        self._tolerance = tolerance
        self._may_stall = may_stall
        self._values: list[float] = []
        self._point: Array = np.zeros(0)
        self._ratio = np.inf

    def evaluate(self, params: Array) -> tuple[float, Array]:
        found, gradient = self._cost.evaluate(params)
        self._point, self._ratio = params.copy(), found.ratio
        return found.cost, gradient

    def ratio(self, params: Array) -> float:
        if not np.array_equal(params, self._point):
            self.evaluate(params)
        return self._ratio

    @property
    def stalled(self) -> bool:
        if not self._may_stall or len(self._values) <= _STALL_ITERATIONS:
            return False
        before, now = self._values[-1 - _STALL_ITERATIONS], self._values[-1]
        return before - now < _STALL_SHARE * abs(now)

    def stop_when_done(self, intermediate_result: scipy.optimize.OptimizeResult) -> None:
        self._values.append(float(intermediate_result.fun))
        if self.stalled or self.ratio(intermediate_result.x) <= self._tolerance:
            raise StopIteration


def build_mlp(
    n_features: int,
    n_outputs: int,
    *,
    hidden_units: tuple[int, ...],
    activation: str,
    l2: float,
    dtype: str,
    seed: int,
) -> keras.Sequential:
    """A dense network with outputs `[B, C]` and the rate `l2` on every kernel and bias.

    The regularizers hold l2 / 2, because Keras' L2(a) is a * sum w^2.
    """
    widths = [*hidden_units, n_outputs]
    seeds = np.random.SeedSequence(seed).generate_state(len(widths))
    layers: list[keras.layers.Layer] = [keras.Input((n_features,), dtype=dtype)]
    for k, (width, layer_seed) in enumerate(zip(widths, seeds, strict=True)):
        layers.append(
            keras.layers.Dense(
                width,
                activation=activation if k < len(hidden_units) else None,
                kernel_initializer=keras.initializers.GlorotUniform(seed=int(layer_seed)),
                kernel_regularizer=keras.regularizers.L2(l2 / 2),
                bias_regularizer=keras.regularizers.L2(l2 / 2),
                dtype=dtype,
                name=f"hidden_{k}" if k < len(hidden_units) else "logits",
            )
        )
    return keras.Sequential(layers)


def train_adam(
    model: keras.Model,
    likelihood: Likelihood,
    x: Array,
    y: Array,
    factors: Array,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    on_epoch: Callable[[float], None],
) -> None:
    """Train a model by Adam on the likelihood's mean loss plus the model's regularizers.

    The mean is over rows, their losses times the factors `[N]`, which `weights.loss_factors` makes
    such that the cost is the one `Cost` has. Seeds are local: no global random state is touched.
    The loop is our own because `keras.Model.fit` cannot add a float32 loss to float64
    regularizers.
    """
    if epochs == 0:
        return
    optimizer = keras.optimizers.Adam(learning_rate)
    optimizer.build(model.trainable_variables)
    data = tf.data.Dataset.from_tensor_slices((x, y, factors))
    data = data.shuffle(len(x), seed=seed).batch(batch_size)

    def step(batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> None:
        inputs, labels, weights = batch
        with tf.GradientTape() as tape:
            losses = likelihood.loss(model(inputs, training=True), labels)
            cost = tf.reduce_mean(tf.cast(weights, losses.dtype) * losses)
            cost += tf.add_n(model.losses)
        gradients = tape.gradient(cost, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    compiled = Compiled(step, data.element_spec)
    for _ in range(epochs):
        for batch in data:
            compiled(batch)
        on_epoch(len(x))
