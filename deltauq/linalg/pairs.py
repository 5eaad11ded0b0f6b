"""Eigenpairs of a symmetric operator, and what is known about the rest of its spectrum."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from beartype import beartype
from jaxtyping import Float, jaxtyped

from deltauq.errors import NumericalError
from deltauq.linalg.largest import NormBound

__all__ = ["Eigenpairs", "MeasuredTail", "Spectrum"]


@dataclass(frozen=True)
class MeasuredTail:
    """What (A + u I)^-1 comes to outside leading eigenvectors of A, measured on some inputs.

    The form r (A + u I)^-1 r^T of a row r that is a along the vectors and b outside is taken for
    sum_k a_k^2 / (mu_k + u) + tau |b|^2 / u: tau is one where nothing that was left out has any
    curvature.

    Attributes:
        tau: measured on rows of all the inputs together.
        low: by Gauss quadrature, which grows with every step.
        high: by Gauss-Radau quadrature, which falls.
        shares: of the form at tau = 1, what lies outside: of each input `[n]`.
        rate: u.
        steps: products with A.
        exchangeable: the inputs were given, as such as will be predicted; otherwise they are
            training inputs, whose own curvature was left out.
    """

    tau: float
    low: float
    high: float
    shares: tuple[float, ...]
    rate: float
    steps: int
    exchangeable: bool

    @property
    def is_settled(self) -> bool:
        """Whether the steps sufficed: both rules come to about the same."""
        return bool(self.high <= UNSETTLED * self.low)

    def at_rate(self, rate: float) -> MeasuredTail:
        """The tail at another u, as if all that was left out had one curvature.

        tau = 1 / (1 + m / u) gives m, and m the new tau.
        """
        ratio = self.rate / rate
        tau, low, high = (t / (t + ratio * (1.0 - t)) for t in (self.tau, self.low, self.high))
        return replace(self, tau=tau, low=low, high=high, rate=rate)

    def rescaled(self, unit: float) -> MeasuredTail:
        """Multiply A and u by a number `unit` > 0, which leaves the tail as it is."""
        return replace(self, rate=self.rate * unit)


#: Ratio of the two rules above which the steps did not suffice.
UNSETTLED = 2.0


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class Eigenpairs:
    """Leading eigenpairs of a symmetric matrix A `[P, P]`, values descending.

    Attributes:
        values: mu `[K]`.
        vectors: orthonormal columns `[P, K]`.
        residual_norms: ||A u - mu u|| `[K]`, in the unit of the values; of a Nystrom
            approximation an upper bound of it, from `left_out` or, where that was not computed,
            from what is left of the trace.
        trace: of A, exact; None where it was not computed.
        smallest: the smallest eigenvalue found; None where A is positive semidefinite by its form.
        products: products of A with one vector that were spent, those with an estimate of A from
            some of the examples not counted.
        converged: every residual met the solver's rule.
        left_out: how large the eigenvalues of A - U diag(mu) U^T can be; of Lanczos pairs, those
            of A outside U. None where it was not computed.
        n_lowest: how many of the pairs, the last ones, are A's smallest; the others are its
            largest.
        tail: what the inverse comes to outside the vectors; None where it was not measured.
    """

    values: Float[np.ndarray, " K"]
    vectors: Float[np.ndarray, "P K"]
    residual_norms: Float[np.ndarray, " K"]
    trace: float | None
    smallest: float | None
    products: int
    converged: bool
    left_out: NormBound | None = None
    n_lowest: int = 0
    tail: MeasuredTail | None = None

    def __post_init__(self) -> None:
        others = [number for number in (self.trace, self.smallest) if number is not None]
        for name, numbers in (
            ("values", self.values),
            ("residual norms", self.residual_norms),
            ("trace or smallest eigenvalue", np.array(others)),
        ):
            if not np.all(np.isfinite(numbers)):
                raise NumericalError(
                    "the eigenpairs of the curvature are not finite",
                    expected=f"finite {name}",
                    received=f"{np.count_nonzero(~np.isfinite(numbers))} of {numbers.size} that "
                    "are NaN or infinite",
                    remedy="scale the inputs, raise l2, or compute in float64",
                )

    @property
    def rank(self) -> int:
        """Number of pairs K, in the letters of the documentation."""
        return len(self.values)

    @property
    def n_params(self) -> int:
        """Size P of the matrix that the pairs belong to, and of its eigenvectors."""
        return int(self.vectors.shape[0])

    @property
    def remainder(self) -> float | None:
        """What the pairs leave of the trace, trace(A) - sum(mu), clipped at zero from below.

        Of a semidefinite A it bounds every eigenvalue that is left; None without the trace.
        """
        return None if self.trace is None else max(0.0, self.trace - float(self.values.sum()))

    def rescaled(self, unit: float) -> Eigenpairs:
        """The pairs of A times a number `unit` > 0: the vectors stay, everything else scales."""
        return replace(
            self,
            values=self.values * unit,
            residual_norms=self.residual_norms * unit,
            trace=None if self.trace is None else self.trace * unit,
            smallest=None if self.smallest is None else self.smallest * unit,
            left_out=None if self.left_out is None else self.left_out.rescaled(unit),
            tail=None if self.tail is None else self.tail.rescaled(unit),
        )


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class Spectrum:
    """What is known of a semidefinite matrix A `[P, P]` all of which is there, but no eigenvectors.

    Its attributes are those of `Eigenpairs` as far as they need none.

    Attributes:
        values: all eigenvalues mu that are not zero, descending; None where they were not computed.
        n_params: P.
        trace: of A.
    """

    values: Float[np.ndarray, " n"] | None
    n_params: int
    trace: float

    smallest = None
    converged = True
    left_out = NormBound(0.0, 0.0, 0.0, 0)

    @property
    def rank(self) -> int:
        """Number P of all eigenvalues, none of which is left out."""
        return self.n_params
