"""A likelihood that is another one but for some of its parts."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deltauq.likelihoods.likelihood import Array, Likelihood

__all__ = ["Wrapped"]


class Wrapped(Likelihood):
    """Everything is asked of another likelihood, unless a subclass answers itself.

    Args:
        inner: the other likelihood.
    """

    def __init__(self, inner: Likelihood) -> None:
        self.inner = inner
        self.convex = inner.convex
        self.curved = inner.curved

    @property
    def name(self) -> str:  # type: ignore[override]
        """That of the other one."""
        return self.inner.name

    @property
    def outcome(self) -> Any:  # type: ignore[override]
        """That of the other one."""
        return self.inner.outcome

    @property
    def link(self) -> Any:  # type: ignore[override]
        """That of the other one."""
        return self.inner.link

    @property
    def shift_invariant(self) -> bool:  # type: ignore[override]
        """That of the other one."""
        return self.inner.shift_invariant

    def check_outputs(self, n_outputs: int) -> None:
        """As the other one."""
        self.inner.check_outputs(n_outputs)

    def check_labels(self, y: Array, n_outputs: int) -> Array:
        """As the other one."""
        return self.inner.check_labels(y, n_outputs)

    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """That of the other one."""
        return self.inner.loss(logits, y)

    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """That of the other one."""
        return self.inner.residual(logits, y)

    def hessian_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """That of the other one."""
        return self.inner.hessian_factor(logits, y)

    def check_convex(self, logits: tf.Tensor, y: tf.Tensor) -> None:
        """As the other one."""
        self.inner.check_convex(logits, y)

    def mean(self, logits: tf.Tensor) -> tf.Tensor:
        """That of the other one."""
        return self.inner.mean(logits)

    def mean_jacobian(self, logits: tf.Tensor) -> tf.Tensor:
        """That of the other one."""
        return self.inner.mean_jacobian(logits)

    def log_predictive(self, logits: Array, variance: Array, y: Array) -> Array:
        """That of the other one."""
        return self.inner.log_predictive(logits, variance, y)

    def dispersion(self, n_outputs: int) -> float:
        """That of the other one."""
        return self.inner.dispersion(n_outputs)

    @property
    def needs_noise(self) -> bool:
        """As the other one."""
        return self.inner.needs_noise

    @property
    def scaled_by_noise(self) -> bool:
        """As the other one."""
        return self.inner.scaled_by_noise

    def noise_variance(self) -> Array:
        """That of the other one."""
        return self.inner.noise_variance()

    def shown_logits(self, n_outputs: int) -> Array:
        """As the other one."""
        return self.inner.shown_logits(n_outputs)

    def n_rows(self, n_outputs: int) -> int:
        """Those of the other one."""
        return self.inner.n_rows(n_outputs)
