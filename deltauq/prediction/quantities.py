"""Predictions of numbers, as a regression makes them, and of new observations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from beartype import beartype
from jaxtyping import Float, jaxtyped

from deltauq.curvature.noise_interval import NoiseRange
from deltauq.errors import check_choice
from deltauq.likelihoods import Likelihood
from deltauq.prediction.classes import VarianceSplit
from deltauq.prediction.estimate import Array, Estimate, Moments, normal_quantile
from deltauq.prediction.predictive import PredictiveMoments, refuse_method

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RegressionPrediction"]


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class RegressionPrediction(Estimate):
    """Predicted numbers of N inputs with their epistemic uncertainty, and that of observations.

    Attributes:
        noise: variance of an observation around its mean `[N, C]`.
        noise_limits: between which the variance lies that all eigenpairs would give `[N, C, 2]`,
            the upper one infinite where it has no bound; None where it is known. Read them as
            `noise_bounds`.
    """

    outcome = "quantities"

    noise: Float[np.ndarray, "N C"] = field(kw_only=True)
    noise_limits: Float[np.ndarray, "N C 2"] | None = field(kw_only=True, default=None)

    @classmethod
    def of_moments(
        cls, likelihood: Likelihood, moments: Moments, masked: Array, noise: NoiseRange | None
    ) -> Self:
        """Make the prediction as `Estimate.of_moments`, with the variance of an observation."""
        variance = np.asarray(likelihood.observation_variance(moments[1]))
        ends = None if noise is None else np.array([noise.low, noise.high])
        limits = None if ends is None else variance[..., None] * ends
        return cls(*moments, noise=variance, noise_limits=limits, masked=masked)

    def __repr__(self) -> str:
        c = self.logits.shape[1]
        return f"RegressionPrediction({self._count}, {c} {'output' if c == 1 else 'outputs'})"

    @property
    def observation_std(self) -> Array:
        """Standard error of a new observation `[N, C]`, of its mean and the noise together."""
        return np.asarray(np.sqrt(self.std**2 + self.noise))

    @property
    def noise_bounds(self) -> tuple[Array, Array]:
        """Bounds (low, high), each `[N, C]`, of the noise variance that all eigenpairs would give.

        Both are the noise itself where it was given, or where nothing was left out.
        """
        if self.noise_limits is None:
            return self.noise, self.noise
        return self.noise_limits[..., 0], self.noise_limits[..., 1]

    @property
    def observation_std_bounds(self) -> tuple[Array, Array]:
        """Bounds (low, high) of `observation_std`, each `[N, C]`.

        They are made of `std_bounds` and `noise_bounds`.

        Raises:
            InvalidInputError: the curvature was computed without bounds.
        """
        low, high = (
            np.sqrt(std**2 + noise)
            for std, noise in zip(self.std_bounds, self.noise_bounds, strict=True)
        )
        return low, high

    def predictive(self, method: str = "exact") -> PredictiveMoments:
        """Mean and variance of a new observation, averaged over the distribution of the outputs.

        The mean is `mean`, as nothing is curved between outputs and means; the variance is that of
        the mean and the noise together, `std`^2 + `noise`.

        Args:
            method: "exact", which there is no other than.

        Raises:
            InvalidInputError: another method.
        """
        refuse_method(method)
        return PredictiveMoments(self.mean, self.std**2 + self.noise)

    def variance_split(self) -> VarianceSplit:
        """Divide a new observation's variance: epistemic from the weights, aleatoric the noise."""
        return VarianceSplit(self.std**2 + self.noise, self.std**2, self.noise)

    def interval(
        self, level: float = 0.95, of: Literal["mean", "observation"] = "mean"
    ) -> tuple[Array, Array]:
        """Normal intervals of the mean or of a new observation at a confidence level.

        Args:
            level: in (0, 1).
            of: "mean" (epistemic: where the regression lies) or "observation" (total: where a new
                observation lies).

        Returns:
            (lower, upper), each `[N, C]`.
        """
        check_choice("of", of, ("mean", "observation"))
        q = normal_quantile(level)
        std = self.std if of == "mean" else self.observation_std
        return self.mean - q * std, self.mean + q * std

    def to_frame(self, level: float = 0.95, predictive: str | None = None) -> pd.DataFrame:
        """A table with one row an input, in the manner of statsmodels' `summary_frame`.

        Columns of every output c: `mean_c`, `mean_se_c`, `mean_ci_lower_c`, `mean_ci_upper_c`,
        `obs_ci_lower_c`, `obs_ci_upper_c`, and `se_low_c`, `se_high_c` where there are
        `std_bounds`; with predictive="exact" then `predictive_mean_c` and `predictive_variance_c`;
        without `_c` where there is one output.
        """
        return super().to_frame(level, predictive)

    def _columns(self, level: float) -> dict[str, Array]:
        of_mean, of_observation = (self.interval(level, of) for of in ("mean", "observation"))
        columns = {}
        n_outputs = self.mean.shape[1]
        for c in range(n_outputs):
            end = "" if n_outputs == 1 else f"_{c}"
            columns[f"mean{end}"], columns[f"mean_se{end}"] = self.mean[:, c], self.std[:, c]
            for name, (lower, upper) in (("mean", of_mean), ("obs", of_observation)):
                columns[f"{name}_ci_lower{end}"] = lower[:, c]
                columns[f"{name}_ci_upper{end}"] = upper[:, c]
            if self.std_limits is not None:
                columns[f"se_low{end}"], columns[f"se_high{end}"] = self.std_limits[:, c].T
        return columns
