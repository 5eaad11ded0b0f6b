"""Predictions of several labels for each input, each label there or not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import scipy.special
from beartype import beartype
from jaxtyping import jaxtyped

from deltauq.prediction.classes import VarianceSplit, interval_of
from deltauq.prediction.estimate import Array, Estimate
from deltauq.prediction.events import Events
from deltauq.prediction.predictive import SAMPLES, AveragedProbabilities, average_sigmoid

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MultiLabelPrediction"]


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class MultiLabelPrediction(Estimate):
    """Probabilities of C labels of N inputs, which need not sum to one, with their uncertainty."""

    outcome = "labels"
    mean_name = "probabilities"

    def __repr__(self) -> str:
        return f"MultiLabelPrediction({self._count}, {self.logits.shape[1]} labels)"

    @property
    def probabilities(self) -> Array:
        """Probability p of every label for every input `[N, C]`; rows need not sum to one."""
        return self.mean

    @property
    def labels(self) -> Array:
        """Whether each label is more probable than not `[N, C]`."""
        return np.asarray(self.logits > 0)

    def is_wrong(self, y: npt.ArrayLike) -> Array:
        """Whether any of an input's labels is predicted wrong `[N]`.

        Args:
            y: the labels, as `checked_truth` takes them.
        """
        return np.asarray(np.any(self.labels != (self.checked_truth(y) > 0.5), axis=1))

    def events(self, y: npt.ArrayLike | None = None) -> Events:
        """The labels as events, C an input side by side: each comes true where it is there.

        Args:
            y: the labels, as `checked_truth` takes them; None where they are not known.
        """
        happened = None if y is None else np.asarray(self.checked_truth(y) > 0.5).ravel()
        return Events(
            self.probabilities.ravel(),
            self.std.ravel(),
            happened,
            None if happened is None else np.asarray(self.labels.ravel() != happened),
            unit="label",
            subject="a label",
            predicate="there",
        )

    @cached_property
    def entropy(self) -> Array:
        """Entropy of the labels in nats, which are independent given the weights `[N]`.

        NaN where a prediction is masked, as is `mutual_information`.
        """
        return self._unless_masked(np.sum(self._entropies, axis=1))

    @property
    def _entropies(self) -> Array:
        """Entropy of each label by itself in nats `[N, C]`."""
        p, rest = self.mean, scipy.special.expit(-self.logits)
        return np.asarray(scipy.special.entr(p) + scipy.special.entr(rest))

    @cached_property
    def mutual_information(self) -> Array:
        """Information each label by itself would bring about the weights, summed, in nats `[N]`.

        To second order (1/2) sum_c Var(p_c) / (p_c (1 - p_c)), and of each label at most its
        entropy, as of `Prediction`.
        """
        spread = self.mean * scipy.special.expit(-self.logits)
        second_order = 0.5 * spread * self.logit_std**2
        return self._unless_masked(np.sum(np.minimum(second_order, self._entropies), axis=1))

    def predictive(
        self, method: str = "probit", *, samples: int = SAMPLES, seed: int = 0
    ) -> AveragedProbabilities:
        """Average each label's probability over the distribution of the logits, E sigmoid(z + e).

        e is normal with the covariance `logit_covariance` as it stands: where eigenpairs were left
        out, at the tail that `std` takes. `std_bounds` and `std_range` are not carried over.

        Args:
            method: "probit" is sigmoid(z / sqrt(1 + (pi / 8) Var z)) (MacKay 1992); "monte_carlo"
                draws.
            samples: of "monte_carlo", pairs of draws, as for `Prediction.predictive`.
            seed: of "monte_carlo".

        Returns:
            Probabilities `[N, C]`.

        Raises:
            InvalidInputError: a method that is none; "bridge", which is for one of several classes.
            NumericalError: a covariance that is no covariance.
        """
        return average_sigmoid(self.logits, self.logit_covariance, method, samples, seed)

    def variance_split(self) -> VarianceSplit:
        """Divide the variance of each label's indicator as `Prediction.variance_split` does."""
        total = self.mean * scipy.special.expit(-self.logits)
        return VarianceSplit(total, self.std**2, total - self.std**2)

    def interval(
        self, level: float = 0.95, method: Literal["logit", "normal"] = "logit"
    ) -> tuple[Array, Array]:
        """Intervals (lower, upper) of the labels' probabilities, each `[N, C]`.

        Args:
            level: in (0, 1).
            method: as for `Prediction.interval`.
        """
        return interval_of(self, self.logits, self.logit_std, level, method)

    def to_frame(self, level: float = 0.95, predictive: str | None = None) -> pd.DataFrame:
        """A table with one row an input.

        Columns: `score`, `entropy`, `mutual_information`, and `probability_c`, `se_c`,
        `ci_lower_c`, `ci_upper_c` of every label c, with `se_low_c` and `se_high_c` where there are
        `std_bounds`; with a method for `predictive`, such as "probit", then `predictive_c`, its
        average over the weights.
        """
        return super().to_frame(level, predictive)

    def _columns(self, level: float) -> dict[str, Array]:
        lower, upper = self.interval(level)
        columns = {
            "score": self.score,
            "entropy": self.entropy,
            "mutual_information": self.mutual_information,
        }
        for c in range(self.mean.shape[1]):
            columns[f"probability_{c}"], columns[f"se_{c}"] = self.mean[:, c], self.std[:, c]
            columns[f"ci_lower_{c}"], columns[f"ci_upper_{c}"] = lower[:, c], upper[:, c]
            if self.std_limits is not None:
                columns[f"se_low_{c}"], columns[f"se_high_{c}"] = self.std_limits[:, c].T
        return columns
