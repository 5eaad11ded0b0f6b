"""The base of likelihoods that are another one but for some of their parts."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deltauq.likelihoods.likelihood import Array, Likelihood, Outcome
from deltauq.likelihoods.links import Link

__all__ = ["Wrapped"]


class Wrapped(Likelihood):
    """A likelihood that asks another one about labels, means and losses, until it answers itself.

    What is made of these (curvature and slope, products with the second derivative) is the base
    class', by what the subclass answers.

    Args:
        inner: the other likelihood.
    """

    def __init__(self, inner: Likelihood) -> None:
        self.inner = inner
        self.convex = inner.convex
        self.curved = inner.curved
        self.classes = inner.classes

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the inner likelihood, as `likelihood=` takes it."""
        return self.inner.name

    @property
    def outcome(self) -> Outcome:  # type: ignore[override]
        """What the inner likelihood predicts: "classes", "labels", "quantities" or "counts"."""
        return self.inner.outcome

    @property
    def link(self) -> Link | None:  # type: ignore[override]
        """The operation at the end of a model for the inner likelihood, or None."""
        return self.inner.link

    @property
    def shift_invariant(self) -> bool:  # type: ignore[override]
        """Whether the inner likelihood's mean stays when all logits move alike."""
        return self.inner.shift_invariant

    def check_outputs(self, n_outputs: int) -> None:
        """Refuse a number of outputs that the inner likelihood refuses."""
        self.inner.check_outputs(n_outputs)

    def check_labels(self, y: Array, n_outputs: int) -> Array:
        """Labels as the inner likelihood checks and takes them, `[N, ...]`."""
        return self.inner.check_labels(y, n_outputs)

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Negative log-likelihood of each example in nats by the inner likelihood, `[B]`."""
        return self.inner.loss(logits, y)

    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Gradient of the inner likelihood's loss in the logits, `[B, C]`."""
        return self.inner.residual(logits, y)

    def hessian_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Factor F `[B, C, R]` of the second derivative of the inner likelihood's loss."""
        return self.inner.hessian_factor(logits, y)

    def check_convex(self, logits: tf.Tensor, y: tf.Tensor) -> None:
        """Refuse a loss that the inner likelihood finds not convex in the logits."""
        self.inner.check_convex(logits, y)

    def mean(self, logits: tf.Tensor) -> tf.Tensor:
        """Mean of the label by the inner likelihood, `[B, M]`."""
        return self.inner.mean(logits)

    def mean_jacobian(self, logits: tf.Tensor) -> tf.Tensor:
        """Derivative of the inner likelihood's mean in the logits, `[B, M, C]`."""
        return self.inner.mean_jacobian(logits)

    def log_predictive(self, logits: Array, variance: Array, y: Array) -> Array:
        """Log of p(y) in nats by the inner likelihood, normal logits integrated out, `[B]`."""
        return self.inner.log_predictive(logits, variance, y)

    def dispersion(self, n_outputs: int) -> float:
        """Minimised cost over the mean of the inner likelihood's loss."""
        return self.inner.dispersion(n_outputs)

    @property
    def needs_noise(self) -> bool:
        """Whether the inner likelihood's noise is still to be estimated."""
        return self.inner.needs_noise

    @property
    def scaled_by_noise(self) -> bool:
        """Whether the inner likelihood's loss divides by the noise."""
        return self.inner.scaled_by_noise

    def noise_variance(self) -> Array:
        """Noise variances of the inner likelihood, `[C]`; it raises where it has none."""
        return self.inner.noise_variance()

    def observation_variance(self, mean: Any) -> Any:
        """Variances of observations by the inner likelihood, `[B, C]`."""
        return self.inner.observation_variance(mean)

    def shown_logits(self, n_outputs: int) -> Array:
        """The matrix `[M, C]` that makes the inner likelihood's shown logits from the network's."""
        return self.inner.shown_logits(n_outputs)

    def n_rows(self, n_outputs: int) -> int:
        """The number R of columns of the inner likelihood's `hessian_factor`."""
        return self.inner.n_rows(n_outputs)
