"""From eigenpairs of the curvature to the covariance of the parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.curvature.calibrated_tail import TailByShare
from deltauq.curvature.noise_interval import NoiseRange
from deltauq.curvature.tails import (
    Tail,
    certified_spectra,
    measured_tail,
    tail_interval,
    tail_of,
)
from deltauq.errors import InvalidInputError, NotPositiveDefiniteError, NumericalError, check_choice
from deltauq.linalg import Eigenpairs, LowRank

__all__ = [
    "NegativeCurvature",
    "ParameterCovariance",
    "dense_covariance",
    "is_positive",
    "low_rank_covariance",
]

Array = npt.NDArray[Any]
NegativeCurvature = Literal["project", "keep", "raise"]

#: What to do where curvatures lie further apart than rounding resolves.
_SCALE = "; if sizes differ much, train with x / x.std(axis=0) and y / y.std(axis=0)"
_DOUBLE = (
    "; or build the model with dtype='float64' in Input and in every layer, and give it the "
    "weights: new.set_weights(model.get_weights())"
)


@dataclass(frozen=True)
class ParameterCovariance:
    """Covariance of the weights, Sigma = (1/N) D [U diag(d) U^T + t (I - U U^T)] D.

    The brackets hold the inverse of the precision in the prior's metric, where every parameter has
    the L2 rate one; D = diag(scale) = diag(lambda_j^-1/2) leads back.

    Attributes:
        vectors: U `[P, K]`, orthonormal.
        spectrum: d and t.
        scale: `[P]`.
        n_examples: N.
        bounds: of two matrices between which, in the semidefinite order, the covariance from all
            eigenpairs lies; None where that is not known.
        certified: that order is proven; otherwise the two are an estimate of how far it may lie.
        noise: how far the estimated noise of a regression is known, at which all this is; None
            where it was given, and of other likelihoods. `bounds` do not hold it: standard errors'
            bounds are widened by it.
        by_share: how t goes with the share of an input's variance that is outside U, where it was
            measured; None where it is the same for all.
    """

    vectors: Array
    spectrum: LowRank
    scale: Array
    n_examples: float
    bounds: tuple[LowRank, LowRank] | None = None
    certified: bool = True
    noise: NoiseRange | None = None
    by_share: TailByShare | None = None

    def with_noise(self, noise: NoiseRange | None) -> ParameterCovariance:
        """A copy whose noise is known to lie in a range."""
        certain = noise is None or noise.certified
        return replace(self, noise=noise, certified=self.certified and certain)

    def __post_init__(self) -> None:
        for spectrum in (self.spectrum, *(self.bounds or ())):
            if not (np.all(np.isfinite(spectrum.weights)) and np.isfinite(spectrum.tail)):
                raise NumericalError(
                    "the parameters' covariance is not finite",
                    expected="finite variances along every eigenvector, and outside them",
                    received=f"{np.count_nonzero(~np.isfinite(spectrum.weights))} of "
                    f"{spectrum.weights.size} are NaN or infinite, and {spectrum.tail:.3g} outside",
                    remedy="scale the inputs, raise l2, or build the model in float64",
                )

    def apart(self, along: Array, rest: Array, left: Array) -> tuple[Array, Array]:
        """Variances of some means inside U, and outside were t one, `[..., M]` each.

        Args:
            along: J D U `[..., C, K]`.
            rest: Q Q^T `[..., C, C]` with Q = J D (I - U U^T).
            left: how the means go with what moves along J, `[..., M, C]`.
        """
        inside = LowRank(self.spectrum.weights, 0.0).quadratic_form(along, np.zeros_like(rest))
        inside, outside = (
            np.einsum("...mc,...cd,...md->...m", left, form, left, optimize=True)
            for form in (inside, rest)
        )
        each = self.n_examples
        return np.maximum(inside, 0.0) / each, np.maximum(outside, 0.0) / each

    def project(self, along: Array, rest: Array, shares: Array | None = None) -> Array:
        """Covariance J Sigma J^T `[..., C, C]` of what moves along rows J.

        Args:
            along: J D U `[..., C, K]`, as `Linearization.sketch` gives it.
            rest: Q Q^T `[..., C, C]` with Q = J D (I - U U^T).
            shares: `mean_share` of every input `[...]`, by which t goes; where it is NaN, and
                for None, t is that of the spectrum.
        """
        if self.by_share is None or shares is None:
            return self.spectrum.quadratic_form(along, rest) / self.n_examples
        tails = np.where(np.isfinite(shares), self.by_share.at(shares), self.spectrum.tail)
        own = LowRank(self.spectrum.weights, 1.0)
        return own.quadratic_form(along, tails[..., None, None] * rest) / self.n_examples

    def project_bounds(self, along: Array, rest: Array) -> tuple[Array, Array] | None:
        """Covariances of rows J from both `bounds`, the smaller one first; None without bounds.

        Args:
            along: J D U `[..., C, K]`.
            rest: Q Q^T `[..., C, C]` with Q = J D (I - U U^T).
        """
        if self.bounds is None:
            return None
        low, high = (bound.quadratic_form(along, rest) for bound in self.bounds)
        return low / self.n_examples, high / self.n_examples

    def project_between(
        self, along: Array, rest: Array, shares: Array | None = None
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Covariance J Sigma J^T, and matrices in whose range that from all eigenpairs lies.

        The matrix itself belongs to the range where the bounds are no proof. None where no range is
        known.

        Args:
            along: J D U `[..., C, K]`.
            rest: Q Q^T `[..., C, C]` with Q = J D (I - U U^T).
            shares: as of `project`.
        """
        middle, outer = self.project(along, rest, shares), self.project_bounds(along, rest)
        if outer is None or self.certified:
            return middle, outer
        return middle, (*outer, middle)

    @property
    def largest_std(self) -> float:
        """The largest standard error of a row of length one in the prior's metric."""
        high = self.spectrum if self.bounds is None else self.bounds[1]
        return float(np.sqrt(high.largest / self.n_examples))

    def times(self, vector: Array) -> Array:
        """Multiply a vector `[P]` by Sigma, without the `[P, P]` matrix."""
        # D (U diag(d - t) U^T + t I) D v, the brackets of Sigma with t taken out of U's weights.
        scaled = self.scale * vector
        along = self.vectors.T @ scaled.astype(self.vectors.dtype)
        inside = self.vectors @ ((self.spectrum.weights - self.spectrum.tail) * along)
        return np.asarray(self.scale * (inside + self.spectrum.tail * scaled) / self.n_examples)

    def diagonal(self) -> Array:
        """Variances of the parameters `[P]`, float64."""
        weights = self.spectrum.weights - self.spectrum.tail
        squares = np.square(self.vectors, dtype=np.float64) @ weights + self.spectrum.tail
        return np.asarray(self.scale**2 * squares / self.n_examples)

    def to_linear_operator(self) -> tf.linalg.LinearOperator:
        """Wrap Sigma as a `tf.linalg.LinearOperator` `[P, P]` in the precision of the eigenvectors.

        That is float64 where all of them are known (rank="full"), else the network's.
        """
        dtype = self.vectors.dtype
        weights, tail = self.spectrum.weights, self.spectrum.tail
        root = self.scale[:, None] * self.vectors
        positive = bool(np.all(weights > 0)) or None
        if self.vectors.shape[0] == self.vectors.shape[1]:
            dense = (root * (weights / self.n_examples)) @ root.T
            return tf.linalg.LinearOperatorFullMatrix(
                tf.constant((dense + dense.T) / 2, dtype),
                is_self_adjoint=True,
                is_positive_definite=positive,
            )
        base = tf.linalg.LinearOperatorDiag(
            tf.constant(tail * self.scale**2 / self.n_examples, dtype)
        )
        return tf.linalg.LinearOperatorLowRankUpdate(
            base,
            u=tf.constant(root, dtype),
            diag_update=tf.constant((weights - tail) / self.n_examples, dtype),
            is_self_adjoint=True,
            is_positive_definite=positive if tail > 0 else None,
        )


def low_rank_covariance(
    pairs: Eigenpairs,
    scale: Array,
    n_examples: float,
    *,
    tail: Tail = "midpoint",
    negative_curvature: NegativeCurvature = "project",
    epsilon: float = float(np.finfo(np.float64).eps),
) -> ParameterCovariance:
    """Make the covariance of the weights from eigenpairs in the prior's metric.

    Args:
        pairs: of M = L^-1/2 A L^-1/2.
        scale: lambda_j^-1/2, `[P]`.
        n_examples: N.
        tail: what stands for the inverse eigenvalues that were not computed: "calibrated" what was
            measured (`Eigenpairs.tail`), where it was, and otherwise "midpoint", the middle of
            [1/(1 + rest), 1] with rest = min(mu_K, trace - sum mu); "auto" the same; "l2" 1 (that
            is 1/lambda, an upper bound), "trace" 1/(1 + the mean of what is left of the trace),
            "none" 0, for comparison only.
        negative_curvature: "project" sets negative eigenvalues to zero, "raise" refuses them,
            "keep" uses them (pairs of both ends needed, the tail then lies between the innermost).
        epsilon: relative rounding of the curvature, the network's machine epsilon.

    Raises:
        NotPositiveDefiniteError: negative curvature that must not be there, or that outweighs L2.
        InvalidInputError: "keep" without the lowest eigenpairs, "trace" without a trace.
    """
    check_choice("tail", tail, get_args(Tail))
    check_choice("negative_curvature", negative_curvature, get_args(NegativeCurvature))
    complete = pairs.rank == pairs.n_params
    if negative_curvature == "keep" and pairs.smallest is not None:
        return _indefinite_covariance(pairs, scale, n_examples, tail=tail, epsilon=epsilon)
    if negative_curvature == "raise":
        _require_no_negative(pairs, epsilon, "negative_curvature='project'")
    # The semidefinite matrix nearest to M in the Frobenius norm has its eigenvalues clipped at zero
    # (Higham 1988, "Computing a nearest symmetric positive semidefinite matrix"): in this metric,
    # as the projection does not commute with a change of metric.
    positive = pairs.values > 0
    keep = slice(None) if complete or np.all(positive) else positive
    values = np.maximum(pairs.values[keep], 0.0)
    # (M + I)^-1 = U diag(1 / (mu + 1)) U^T + t (I - U U^T), t for the inverses left out.
    spectrum = LowRank(1.0 / (values + 1.0), 0.0 if complete else tail_of(pairs, tail))
    bounds = (spectrum, spectrum) if complete else certified_spectra(pairs, values, epsilon)
    by_share = None if complete else measured_tail(pairs, tail)
    return ParameterCovariance(
        pairs.vectors[:, keep], spectrum, scale, n_examples, bounds, by_share=by_share
    )


def _indefinite_covariance(
    pairs: Eigenpairs, scale: Array, n_examples: float, *, tail: Tail, epsilon: float
) -> ParameterCovariance:
    """Make the covariance from pairs of both ends of an indefinite curvature, as they are."""
    complete = pairs.rank == pairs.n_params
    if not complete and not 0 < pairs.n_lowest < pairs.rank:
        raise InvalidInputError(
            "negative_curvature='keep' needs both ends of the spectrum",
            expected="three eigenpairs or more, some of them the smallest, or rank='full'",
            received=f"{pairs.rank} of {pairs.n_params} eigenpairs, {pairs.n_lowest} of them the "
            "smallest",
            remedy="pass a larger rank, or negative_curvature='project'",
        )
    _require_positive(
        pairs.values + 1.0,
        epsilon,
        "raise l2, train further, or use negative_curvature='project', curvature='ggn' or 'opg'",
    )
    weights = 1.0 / (pairs.values + 1.0)
    if complete:
        low, middle, high = 0.0, 0.0, 0.0
    else:
        (low, high), middle = tail_interval(pairs), tail_of(pairs, tail)
    return ParameterCovariance(
        pairs.vectors,
        LowRank(weights, middle),
        scale,
        n_examples,
        bounds=(LowRank(weights, low), LowRank(weights, high)),
        certified=complete,
    )


def dense_covariance(
    pairs: Eigenpairs,
    penalised: Array,
    scale: Array,
    n_examples: float,
    *,
    negative_curvature: NegativeCurvature,
    epsilon: float,
) -> ParameterCovariance:
    """Make the covariance where some parameters have no L2, and all eigenpairs are known.

    A plus L2 must be positive definite then.

    Args:
        pairs: all eigenpairs, in the metric where L2 is 1 or absent.
        penalised: whether a parameter has L2, `[P]`.
        scale: lambda_j^-1/2, and 1 where lambda_j = 0, `[P]`.
        n_examples: N.
        negative_curvature: "keep" uses it as it is; "raise" refuses it, and so does "project": the
            metric to project in needs L2 on every parameter.
        epsilon: relative rounding of the curvature, the network's machine epsilon.

    Raises:
        NotPositiveDefiniteError: A plus L2 has an eigenvalue that is zero or negative, or A a
            negative one that is not kept.
    """
    check_choice("negative_curvature", negative_curvature, get_args(NegativeCurvature))
    if negative_curvature != "keep":
        outweighed = "negative_curvature='keep' where L2 outweighs them"
        _require_no_negative(pairs, epsilon, f"give every variable an L2 rate, or {outweighed}")
    # A + L in a metric where L is 1 or 0: not a shift of A's eigenvalues, so once more an
    # eigenproblem.
    precision = (pairs.vectors * pairs.values) @ pairs.vectors.T
    precision[np.diag_indices_from(precision)] += penalised
    values, vectors = np.linalg.eigh(precision)
    _require_positive(
        values,
        epsilon,
        "give every variable an L2 rate: l2='tune' chooses one from the training data, l2=... "
        "takes the rate to assume. Without L2 the data must determine every parameter, and they "
        "never determine the last bias of a softmax",
    )
    spectrum = LowRank(1.0 / values, 0.0)
    return ParameterCovariance(vectors, spectrum, scale, n_examples, (spectrum, spectrum))


def is_positive(values: Array, epsilon: float) -> bool:
    """Whether eigenvalues are all above what rounding can tell from 0; False where one is NaN."""
    return bool(np.min(values) > _smallest_told(values, epsilon))


def _smallest_told(values: Array, epsilon: float) -> float:
    """The smallest eigenvalue that rounding can tell from 0, beside the largest of some."""
    return 10 * np.sqrt(len(values)) * epsilon * float(np.max(np.abs(values)))


def _require_positive(values: Array, epsilon: float, remedy: str) -> None:
    """Refuse eigenvalues of the precision that are not above what rounding can tell from 0."""
    rounding = _smallest_told(values, epsilon)
    if not is_positive(values, epsilon):
        scaling = _SCALE + (_DOUBLE if epsilon > np.finfo(np.float64).eps else "")
        raise NotPositiveDefiniteError(
            "the curvature plus L2 is not positive definite, so it has no covariance",
            expected=f"eigenvalues above {rounding:.1g}, what rounding can tell from 0",
            received=f"a smallest eigenvalue of {np.min(values):.3g} (the largest is "
            f"{np.max(values):.3g}), in the metric where L2 is 1",
            remedy=remedy + (scaling if np.min(values) > -rounding else ""),
        )


def _require_no_negative(pairs: Eigenpairs, epsilon: float, other_remedy: str) -> None:
    """Refuse a data curvature with negative eigenvalues beyond rounding."""
    smallest = pairs.smallest
    top = float(pairs.values[0]) if pairs.rank else 1.0
    if smallest is not None and not smallest >= -1e3 * epsilon * top:
        raise NotPositiveDefiniteError(
            "the data curvature has negative eigenvalues",
            expected="a smallest eigenvalue of 0 or more",
            received=f"{smallest:.3g} (the largest is {top:.3g}), in the metric where L2 is 1",
            remedy=f"train further, use curvature='ggn' or 'opg', or {other_remedy}",
        )
