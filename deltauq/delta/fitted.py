"""What a fit leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt

from deltauq.curvature.cost import DataCost, Stationarity
from deltauq.curvature.eigenpairs import EIGEN_LIMIT
from deltauq.curvature.parameter_covariance import ParameterCovariance
from deltauq.curvature.rows_inverse import RowsInverse
from deltauq.curvature.tail_band import ResidualsOnce
from deltauq.delta.caveats import Caveat
from deltauq.delta.known import Known, KnownByInverse, KnownByPairs
from deltauq.delta.problem import Problem
from deltauq.delta.routes import Route
from deltauq.delta.settings import Settings
from deltauq.errors import InvalidInputError
from deltauq.linalg import Eigenpairs, Spectrum
from deltauq.prediction.forms import Form

__all__ = ["Fitted"]


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves behind.

    Attributes:
        problem: what was asked.
        settings: how.
        known: what the parameters' covariance is known from.
        stationarity: of the cost at the weights.
        seconds: wall time.
        mean_weight: (1/N) sum_n c_n w_n, what the weights of the losses sum to; one without
            importance weights.
        measured: the data's part of the cost at the weights; None in a fit from a file.
        rounded: the eigenvectors were kept in fewer bits, so that what rests on them being those of
            the curvature itself is no longer certain.
        route: how the curvature was reached; None in a fit from a file that does not say.
        caveats: what to know before the standard errors are believed, the gravest first.
        data_in_file: the file that the fit was loaded from holds the training data.
        residuals: of the tails of single inputs, from when they are asked for.
    """

    problem: Problem
    settings: Settings
    known: Known
    stationarity: Stationarity
    seconds: float
    mean_weight: float = 1.0
    measured: DataCost | None = None
    rounded: bool = False
    caveats: tuple[Caveat, ...] = ()
    route: Route | None = None
    data_in_file: bool = False
    residuals: ResidualsOnce = field(default_factory=ResidualsOnce)

    @property
    def prior_pairs(self) -> Eigenpairs:
        """Eigenpairs in the prior's metric, where every parameter has the L2 rate one."""
        return self.known.pairs

    @property
    def covariance(self) -> ParameterCovariance:
        """Covariance of the parameters, as it is made of eigenpairs."""
        return self.known.covariance

    def with_pairs(self, pairs: Eigenpairs, covariance: ParameterCovariance) -> Fitted:
        """A fit that is known from eigenpairs, and the covariance that is made of them."""
        return replace(self, known=KnownByPairs(pairs, covariance), residuals=ResidualsOnce())

    def form(self, count: int | None = None) -> Form:
        """What gives J Sigma J^T of so many inputs, None of a number that is not known."""
        return self.known.form(self.problem.linearization, count)

    @property
    def eigenpairs(self) -> Eigenpairs:
        """Eigenpairs of A itself where all parameters have one rate, else in the prior's metric."""
        unit = self.problem.common_rate
        return self.prior_pairs.rescaled(unit) if unit else self.prior_pairs

    @property
    def spectrum(self) -> Eigenpairs | Spectrum:
        """`eigenpairs` where there are some; of a fit without them eigenvalues, if they are few."""
        known = self.known
        if not isinstance(known, KnownByInverse):
            return self.eigenpairs
        inverse, n_params = known.inverse, self.problem.network.n_params
        unit = self.problem.common_rate or 1.0
        size = inverse.rows.n_rows if isinstance(inverse, RowsInverse) else n_params
        values = inverse.spectrum[:n_params] * unit if size <= EIGEN_LIMIT else None
        return Spectrum(values, n_params, inverse.trace * unit)

    @property
    def is_exact(self) -> bool:
        """Whether nothing of the curvature was left out, nor rounded away with bits of vectors."""
        return self.known.is_exact and not self.rounded

    @property
    def in_short(self) -> str:
        """How much of the curvature there is, in a few words."""
        n_params = self.problem.network.n_params
        by = "" if self.route is None else f" by {self.route}"
        if self.is_exact:
            return f"P = {n_params}, exact{by}"
        return f"K = {self.prior_pairs.rank} of P = {n_params}{by}"

    def require_unrounded_vectors(self, what: str) -> None:
        """Refuse a fit whose eigenvectors were kept in fewer bits.

        Raises:
            InvalidInputError: they were.
        """
        if self.rounded:
            raise InvalidInputError(
                f"{what} needs the eigenvectors as they were computed",
                expected="an artifact that was saved without vectors_dtype, or a new fit",
                received="eigenvectors that were kept in fewer bits",
            )

    def require_measured(self) -> DataCost:
        """The data's part of the cost; measured by a pass over the data where it is not at hand."""
        if self.measured is not None:
            return self.measured
        return self.problem.cost.measure(self.problem.network.params.numpy())

    @property
    def vectors(self) -> npt.NDArray[Any]:
        """The covariance's vectors as predictions read them; as a rule not a copy."""
        return self.known.by_pairs.vectors(self.problem.network.dtype)
