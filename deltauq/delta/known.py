"""What the covariance of the weights is known from: eigenpairs of the curvature, or all of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deltauq.curvature.calibrated_tail import TailByShare
from deltauq.curvature.exact_inverse import ExactInverse
from deltauq.curvature.noise_interval import NoiseRange
from deltauq.curvature.parameter_covariance import ParameterCovariance, low_rank_covariance
from deltauq.linalg import Eigenpairs, MeasuredTail, Storage
from deltauq.prediction.forms import Form, FormByInverse, FormByPairs
from deltauq.prediction.linearization import Linearization

__all__ = ["Known", "KnownByInverse", "KnownByPairs"]

Array = npt.NDArray[Any]


class Known(Protocol):
    """What the covariance of the weights is known from, in the prior's metric."""

    @property
    def pairs(self) -> Eigenpairs:
        """Eigenpairs of the curvature."""

    @property
    def covariance(self) -> ParameterCovariance:
        """The covariance as it is made of eigenpairs."""

    @property
    def noise(self) -> NoiseRange | None:
        """How far the estimated noise of a regression is known; None where it was given."""

    @property
    def tells_rounding(self) -> bool:
        """Whether every prediction's bounds tell what the rounding of large curvature costs it."""

    @property
    def tail(self) -> MeasuredTail | None:
        """What was measured of what the eigenpairs leave out; None where nothing was."""

    @property
    def by_share(self) -> TailByShare | None:
        """How the tail goes with an input's share outside the eigenvectors; None as above."""

    @property
    def learned(self) -> float | None:
        """What all eigenvalues sum to, at most; None where that is not known."""

    @property
    def by_pairs(self) -> KnownByPairs:
        """What is known from the pairs alone."""

    @property
    def is_exact(self) -> bool:
        """Whether standard errors are those of the whole curvature: none of it is left out."""

    def form(self, linearization: Linearization, count: int | None) -> Form:
        """What gives J Sigma J^T of so many inputs, None of a number that is not known."""


@dataclass(frozen=True)
class KnownByPairs:
    """Known from eigenpairs, and the covariance that was made of them."""

    pairs: Eigenpairs
    covariance: ParameterCovariance

    @property
    def noise(self) -> NoiseRange | None:
        """How far the noise is known, as the covariance has it."""
        return self.covariance.noise

    tells_rounding = False

    @property
    def by_pairs(self) -> KnownByPairs:
        """What is known from the pairs alone, which is all there is here."""
        return self

    @property
    def tail(self) -> MeasuredTail | None:
        """What was measured of the tail, as the eigenpairs have it."""
        return self.pairs.tail

    @property
    def by_share(self) -> TailByShare | None:
        """How the tail goes with the share outside, as the covariance has it."""
        return self.covariance.by_share

    @property
    def learned(self) -> float | None:
        """The sum of the values that are positive, and the most that can be left."""
        pairs = self.pairs
        if pairs.trace is None and pairs.left_out is None:
            return None
        most = pairs.n_params * pairs.left_out.bound if pairs.left_out else np.inf
        left = min(most, np.inf if pairs.remainder is None else pairs.remainder)
        return float(np.sum(np.maximum(pairs.values, 0.0))) + left

    @property
    def is_exact(self) -> bool:
        """Whether all P pairs are there."""
        return self.pairs.rank == self.pairs.n_params

    @cached_property
    def _in_precision(self) -> dict[str, Array]:
        """The covariance's vectors in C order, by the precision that networks read them in."""
        return {}

    def vectors(self, dtype: str) -> Array:
        """The covariance's vectors as predictions read them; as a rule not a copy.

        Args:
            dtype: the network's precision.
        """
        if dtype not in self._in_precision:
            self._in_precision[dtype] = np.ascontiguousarray(self.covariance.vectors, dtype)
        return self._in_precision[dtype]

    def form(self, linearization: Linearization, count: int | None) -> Form:
        """Ask the pairs, however many inputs there are."""
        vectors = self.vectors(linearization.network.dtype)
        return FormByPairs(linearization, self.covariance, vectors)


@dataclass(frozen=True)
class KnownByInverse:
    """Known from all of the curvature; pairs are formed when something asks for them.

    Attributes:
        inverse: of the curvature plus L2.
        scale: of the prior's metric `[P]`.
        storage: where eigenvectors live.
    """

    inverse: ExactInverse
    scale: Array
    storage: Storage

    noise = tail = by_share = None
    is_exact = True
    tells_rounding = True

    @cached_property
    def pairs(self) -> Eigenpairs:
        """The eigenpairs that any standard error shows."""
        return self.inverse.pairs(self.storage)

    @cached_property
    def covariance(self) -> ParameterCovariance:
        """The covariance that those pairs make, with bounds for what they leave."""
        return low_rank_covariance(self.pairs, self.scale, self.inverse.n_examples)

    @cached_property
    def by_pairs(self) -> KnownByPairs:
        """What is known from the pairs alone."""
        return KnownByPairs(self.pairs, self.covariance)

    @property
    def learned(self) -> float | None:
        """What all eigenvalues sum to, the trace."""
        return self.inverse.trace

    def at_rates_times(self, factor: float) -> KnownByInverse:
        """Multiply all L2 rates by a factor."""
        inverse = self.inverse.at_rates_times(factor)
        return replace(self, inverse=inverse, scale=self.scale * factor**-0.5)

    def form(self, linearization: Linearization, count: int | None) -> Form:
        """Ask the inverse itself for a few inputs, and pairs, with their bounds, for more."""
        if (np.inf if count is None else count) <= self.inverse.few_inputs:
            return FormByInverse(linearization, self.inverse)
        return self.by_pairs.form(linearization, count)
