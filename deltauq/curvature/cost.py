"""The cost that the weights minimise, its gradient, and how far from a minimum they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.data.batches import Batch, Batches
from deltauq.data.faulty_rows import first_faulty
from deltauq.errors import NumericalError
from deltauq.likelihoods import Likelihood
from deltauq.network.graph import Compiled
from deltauq.network.network import Network, Parameter
from deltauq.runtime.steps import Steps

__all__ = ["MINIMUM", "Cost", "DataCost", "Stationarity", "least_loss", "per_parameter"]

Array = npt.NDArray[Any]

#: Gradient norm relative to its larger part up to which weights count as a minimum.
MINIMUM = 0.02


@dataclass(frozen=True)
class Stationarity:
    """How nearly the cost's gradient vanishes at the weights, as the Delta method needs.

    Attributes:
        cost: mean loss plus (1/2) sum_j lambda_j w_j^2.
        gradient_norm: Euclidean norm of the cost's gradient.
        data_norm: of its data part, the mean gradient of the loss.
        l2_norm: of its L2 part, lambda_j w_j.
        params_norm: of the weights.
        shift: how far a Newton step to the minimum would move the predictions of training inputs,
            in their standard errors: the median; None where it was not computed. Training by
            mini-batches leaves a gradient whose norm is no small part of anything, and yet moves
            the predictions little: this is the figure to look at.
        least_shift: the same with the shortest step that the eigenpairs leave possible, of which
            few tell little: with as much curvature in all other directions as there may be.
    """

    cost: float
    gradient_norm: float
    data_norm: float
    l2_norm: float
    params_norm: float
    shift: float | None = None
    least_shift: float | None = None

    @property
    def ratio(self) -> float:
        """Norm of the gradient relative to its larger part; the two parts cancel at a minimum.

        Without any L2 there is nothing to cancel: then |gradient| |weights| / cost, where the cost
        is positive, and otherwise (a density can exceed one) the nats |gradient| |weights|.
        """
        if self.l2_norm > 0 or self.params_norm == 0:
            larger = max(self.data_norm, self.l2_norm)
            return self.gradient_norm / larger if larger > 0 else 0.0
        return self.gradient_norm * self.params_norm / (self.cost if self.cost > 0 else 1.0)

    @property
    def is_minimum(self) -> bool:
        """Whether the gradient has all but vanished, by `ratio`."""
        return self.ratio <= MINIMUM

    @property
    def _least(self) -> float | None:
        return self.shift if self.least_shift is None else self.least_shift

    @property
    def is_far(self) -> bool:
        """Whether the weights are more than a standard error from the minimum.

        By the shortest step that is possible, as a long one may be that of a low rank; weights that
        are no minimum count as far where no step was computed.
        """
        return not self.is_minimum and (self._least is None or not self._least <= 1.0)

    @property
    def shift_range(self) -> str:
        """Text for `least_shift` to `shift`, or for one number where they are alike."""
        if self.shift is None:
            return "many"
        low, high = f"{self._least:.2g}", f"{self.shift:.2g}"
        return high if low == high else f"{low} to {high}"

    @property
    def is_near(self) -> bool:
        """Whether the weights are at the minimum, or within a standard error of it."""
        return self.is_minimum or (self.shift is not None and self.shift <= 1.0)


@dataclass(frozen=True)
class DataCost:
    """The mean loss of the training data at some weights, and its gradient: one pass over the data.

    What the cost is with other L2 rates, or with another noise of a regression, follows from it
    without another pass.

    Attributes:
        params: the weights w `[P]`, float64.
        loss: (1/N) sum_n c_n w_n loss_n.
        gradient: of the loss in the weights `[P]`, float64.
        weight: (1/N) sum_n c_n w_n; over all positions where an input makes several predictions.
    """

    params: Array
    loss: float
    gradient: Array
    weight: float

    def beside(self, rates: Array) -> tuple[Stationarity, Array]:
        """The cost with L2, how nearly its gradient vanishes, and the gradient `[P]`.

        Args:
            rates: lambda_j `[P]`.
        """
        l2_gradient = rates * self.params
        gradient = self.gradient + l2_gradient
        norms = [
            float(np.linalg.norm(vector))
            for vector in (gradient, self.gradient, l2_gradient, self.params)
        ]
        value = self.loss + 0.5 * float(l2_gradient @ self.params)
        return Stationarity(value, *norms), gradient

    def with_noise(self, factor: float, before: Likelihood, after: Likelihood) -> DataCost:
        """The cost at another noise of a regression, without a pass over the data.

        A loss r^2 / (2 v) + k(v) becomes r^2 / (2 f v) + k(f v).

        Args:
            factor: f, by which all variances grow.
            before: the likelihood of v.
            after: the likelihood of f v.
        """
        constants = [self.weight * least_loss(likelihood) for likelihood in (before, after)]
        loss = (self.loss - constants[0]) / factor + constants[1]
        return replace(self, loss=loss, gradient=self.gradient / factor)


def least_loss(likelihood: Likelihood) -> float:
    """The loss k(v) of a regression's prediction without an error, at a known noise v; a number."""
    exact = tf.zeros([1, likelihood.positions * len(likelihood.noise_variance())], tf.float64)
    return float(tf.reduce_mean(likelihood.loss(exact, exact)))


class Cost:
    """The cost (1/N) sum_n c_n w_n loss_n + (1/2) sum_j lambda_j w_j^2 of flat parameters.

    Args:
        network: the network.
        likelihood: gives the loss.
        data: the training set.
        rates: lambda_j per parameter `[P]`.
        steps: of which `measure` is one; None computes it.
    """

    def __init__(
        self,
        network: Network,
        likelihood: Likelihood,
        data: Batches,
        rates: Array,
        steps: Steps | None = None,
    ) -> None:
        self._data = data
        self._rates = rates
        self._steps = steps or Steps()
        self._dtype = network.dtype

        def batch_sum(params: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
            params = tf.identity(params)
            logits = network.logits(network.unflatten(params), batch.x)
            losses, weight = likelihood.loss(logits, batch.y), batch.weight
            gradient = tf.gradients(losses, params, grad_ys=weight)[0]
            return tf.reduce_sum(weight * losses), gradient

        spec = tf.TensorSpec([network.n_params], network.dtype)
        self._batch_sum = Compiled(batch_sum, spec, data.spec)

    def evaluate(self, params: Array) -> tuple[Stationarity, Array]:
        """Evaluate the cost with the norms of its gradient, and the gradient; one pass.

        Args:
            params: the point, `[P]`.

        Returns:
            The cost and norms, and the gradient `[P]`, float64.
        """
        return self._measured(params).beside(self._rates)

    def stationarity(self, params: Array) -> Stationarity:
        """Norms of the cost's gradient and of its parts at a point `[P]`; one pass over the data.

        Raises:
            NumericalError: the loss or its gradient is not finite.
        """
        return self.measure(params).beside(self._rates)[0]

    def measure(self, params: Array) -> DataCost:
        """Measure the data's part of the cost at a point `[P]`, finite or refused; one pass.

        Raises:
            NumericalError: the loss or its gradient is not finite.
        """
        point = np.asarray(params, np.float64)
        numbers, gradient = np.empty(2), np.empty(len(self._rates))

        def measure() -> None:
            found = self._measured(params)
            numbers[:] = found.loss, found.weight
            gradient[:] = found.gradient

        self._steps.kept("the cost", (point,), (numbers, gradient), measure)
        measured = DataCost(point, float(numbers[0]), gradient, float(numbers[1]))
        found, _ = measured.beside(self._rates)
        if not np.isfinite([found.cost, found.gradient_norm]).all():
            raise NumericalError(
                "the loss is not finite on the training data",
                expected="a finite cost and gradient at the model's weights",
                received=f"cost {found.cost}, gradient norm {found.gradient_norm}"
                + self._first_fault(measured.params),
                remedy="look for overflow in the model: unscaled inputs, exp or log layers, "
                "diverged weights",
            )
        return measured

    def _first_fault(self, params: Array) -> str:
        """Where the loss or its gradient is not finite, as the end of a sentence."""

        def is_finite(rows: Batches) -> bool:
            part = self._measured(params, rows)
            return bool(np.isfinite(part.loss) and np.all(np.isfinite(part.gradient)))

        where = first_faulty(self._data, is_finite)
        return f"; first at {where}" if where else ""

    def _measured(self, params: Array, data: Batches | None = None) -> DataCost:
        """The data's part of the cost; of some of the data, divided by the N of all."""
        point = tf.constant(np.asarray(params, self._dtype))
        loss, weight, gradient = 0.0, 0.0, np.zeros(len(self._rates))
        for batch in self._data if data is None else data:
            batch_loss, batch_gradient = self._batch_sum(point, batch)
            loss += float(batch_loss)
            weight += float(np.sum(batch.weight.numpy(), dtype=np.float64))
            gradient += batch_gradient.numpy()
        n = self._data.n_examples
        return DataCost(np.asarray(params, np.float64), loss / n, gradient / n, weight / n)


def per_parameter(parameters: Sequence[Parameter], rates: Array) -> Array:
    """Spread rates `[n]` of variables over all entries of each, `[P]`."""
    return np.repeat(rates, [parameter.size for parameter in parameters])
