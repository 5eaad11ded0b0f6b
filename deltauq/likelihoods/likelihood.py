"""The base class of likelihoods: the distribution of a label given the outputs of the network."""

from __future__ import annotations

import abc
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.errors import UnsupportedModelError
from deltauq.likelihoods.links import Link

__all__ = ["Array", "Likelihood", "Outcome"]

Array = npt.NDArray[Any]

#: What is predicted: one of several classes, several yes-or-no labels, numbers, counts. (The y of
#: an example is called its label, whatever it is.)
Outcome = Literal["classes", "labels", "quantities", "counts"]


class Likelihood(abc.ABC):
    """The distribution of a label y given the logits z of its input, as functions of z `[B, C]`.

    The loss is the negative log-likelihood of one example, in nats, whatever the training minimised
    a multiple of: `dispersion` says which one. "Logits" are the outputs of the network before the
    link function; of a regression its outputs themselves. A new likelihood is a subclass.
    """

    name: ClassVar[str]
    outcome: ClassVar[Outcome]
    #: The function that stands at the end of a model which gives means, not logits: see `links`.
    link: ClassVar[Link | None]
    #: The mean stays the same when all logits move alike.
    shift_invariant: ClassVar[bool] = False
    #: The loss's second derivative in the logits is positive semidefinite, whatever they are.
    convex: bool = True
    #: The second derivative is positive at every label, but for saturation, so that nothing need be
    #: measured; False has a fit measure it on the data (`curvature.flatness`).
    curved: bool = False
    #: Names of the classes in the order of the model's outputs, where they are known.
    classes: tuple[str, ...] | None = None
    #: Predictions that one input makes: positions of a sequence, pixels of an image.
    positions: int = 1
    #: Axes of the labels that count observations: inputs, and positions where there are some.
    observed_axes: int = 1

    @property
    def has_discrete_labels(self) -> bool:
        """Whether labels say which classes or labels are there; numbers and counts do not."""
        return self.outcome in ("classes", "labels")

    @property
    def is_one_distribution(self) -> bool:
        """Whether all outputs together give one distribution, as those of several classes do."""
        return self.outcome == "classes"

    def check_outputs(self, n_outputs: int) -> None:
        """Refuse a model whose number of outputs C does not go with this likelihood.

        Raises:
            InvalidInputError: the model has another number of outputs.
        """

    @abc.abstractmethod
    def check_labels(self, y: Array, n_outputs: int) -> Array:
        """Labels `[N, ...]` in the form that the other methods take, checked.

        Args:
            y: labels as the user has them.
            n_outputs: C.

        Raises:
            InvalidInputError: labels that do not go with this likelihood.
        """

    @abc.abstractmethod
    def loss(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Negative log-likelihood of each example in nats, `[B]`, or `[B, T]` at T positions."""

    @abc.abstractmethod
    def residual(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Gradient of the loss in the logits, d loss / d z, `[B, C]`."""

    @abc.abstractmethod
    def hessian_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """A factor F `[B, C, R]` of the loss's second derivative, F F^T = d^2 loss / d z^2.

        Its columns are the cotangents of an example's rows in the GGN, where `score_factor` has
        those of OPG as rows.

        R is static: see `n_rows`.
        """

    @abc.abstractmethod
    def mean(self, logits: tf.Tensor) -> tf.Tensor:
        """Mean of the label `[B, M]`: probabilities, or the numbers that are predicted."""

    @abc.abstractmethod
    def mean_jacobian(self, logits: tf.Tensor) -> tf.Tensor:
        """Derivative of the mean in the logits, d mean / d z, `[B, M, C]`."""

    @abc.abstractmethod
    def log_predictive(self, logits: Array, variance: Array, y: Array) -> Array:
        """Log of p(y) with normally distributed logits integrated out, `[B]`, in nats.

        Args:
            logits: means, as `shown_logits` gives them, `[B, M]`.
            variance: of the logits, `[B, M]`.
            y: labels.
        """

    def hessian_factor_times(
        self, logits: tf.Tensor, y: tf.Tensor, vectors: tf.Tensor
    ) -> tf.Tensor:
        """Products F V `[B, C, D]` with vectors V `[B, R, D]`, F as `hessian_factor` gives it."""
        return self.hessian_factor(logits, y) @ vectors

    def hessian_times(self, logits: Array, y: tf.Tensor, vectors: Array) -> Array:
        """Products of the loss's second derivative d^2 loss / d z^2 with vectors `[B, C, b]`."""
        factor = self.hessian_factor(tf.constant(logits), y).numpy()
        return np.asarray(factor @ (np.swapaxes(factor, 1, 2) @ vectors))

    def hessian_diagonal(self, logits: Array, y: tf.Tensor) -> Array:
        """Diagonal of the loss's second derivative d^2 loss / d z^2, `[B, C]`, float64."""
        factor = self.hessian_factor(tf.constant(logits), y).numpy()
        return np.asarray(np.sum(np.square(factor, dtype=np.float64), axis=2))

    def curvature_and_slope(self, logits: tf.Tensor, y: tf.Tensor) -> tuple[Array, Array]:
        """Size of the curvature in each output and the squared slope, `[B, C]` each, float64.

        Curvature is d^2 loss / dz^2, slope d loss / dz. Where an input makes several predictions,
        each of them is a row. `is_flat` judges what is given here.
        """
        slope = self.residual(logits, y).numpy().astype(np.float64)
        return self.hessian_diagonal(logits.numpy(), y), np.square(slope)

    def is_flat(self, curvature: Array, slope: Array, epsilon: float) -> Array:
        """Whether a curvature from `curvature_and_slope` is zero but for rounding, elementwise.

        Args:
            curvature: of the outputs, or summed over those that make one distribution.
            slope: the squared slope, likewise.
            epsilon: relative rounding of the logits.
        """
        return np.asarray(curvature <= 0)

    def score_factor(self, logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Gradients of the log-likelihood of which OPG is made, `[B, R, C]`, a row an observation.

        These are the scores of statistics; the `score` of a prediction is another thing.
        """
        return self.residual(logits, y)[:, None, :]

    @property
    def of_scores(self) -> Likelihood:
        """The likelihood whose curvature is the covariance of this one's gradients.

        This object itself, where the loss is the log-likelihood of the labels: then the inverse
        curvature is the covariance of the weights. Otherwise that is a sandwich, with the curvature
        of the likelihood returned for its meat.
        """
        return self

    @property
    def l2_in_scores(self) -> float:
        """What the L2 term counts beside the covariance of the gradients, as a factor from 0 to 1.

        1 where that covariance is the curvature itself.
        """
        return 1.0

    def check_convex(self, logits: tf.Tensor, y: tf.Tensor) -> None:
        """Refuse a loss that is not convex in the logits of an example; nothing by default.

        Raises:
            NotPositiveDefiniteError: the second derivative has a negative eigenvalue.
        """

    def dispersion(self, n_outputs: int) -> float:
        """The cost that was minimised, without L2, divided by the mean of `loss`.

        Keras takes the mean over several labels or outputs, a likelihood the sum. (The dispersion
        of a generalised linear model, by which counts vary more than theirs, is another thing.)
        """
        return 1.0

    @property
    def at_one_position(self) -> Likelihood:
        """The likelihood of one prediction, where an input makes several; else this object."""
        return self

    @property
    def needs_noise(self) -> bool:
        """Whether the noise of a regression is to be estimated before anything else is computed."""
        return False

    @property
    def scaled_by_noise(self) -> bool:
        """Whether the loss divides by a regression's noise: twice the noise halves its squares."""
        return False

    def with_noise(self, noise: Array) -> Likelihood:
        """A likelihood like this one with variances `[C]` for its noise; itself if it has none."""
        return self

    def noise_variance(self) -> Array:
        """Variance of an observation around its mean, `[C]`, where that is a number of its own.

        Raises:
            UnsupportedModelError: the likelihood is no regression.
        """
        raise UnsupportedModelError(
            f"the likelihood {self.name!r} has no noise apart from its mean",
            expected="a regression",
            received=repr(self),
        )

    def observation_variance(self, mean: Any) -> Any:
        """Variance of an observation around its mean, `[B, C]`; of a regression alone.

        A likelihood whose variance goes with the mean, as a Poisson distribution's does, has it
        here and no `noise_variance`.

        Args:
            mean: what is predicted `[B, C]`, an array or a tensor: the variance is of that kind.
        """
        return 0.0 * mean + self.noise_variance()

    def shown_logits(self, n_outputs: int) -> Array:
        """Matrix `[M, C]` that leads from the network's logits to those that a prediction shows."""
        return np.eye(n_outputs)

    def n_rows(self, n_outputs: int) -> int:
        """Number R of rows that an example has in the GGN: of columns of `hessian_factor`."""
        return n_outputs

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
