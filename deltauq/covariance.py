"""From eigenpairs of the curvature to the covariance of the parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.eigen import Eigenpairs
from deltauq.errors import InvalidInputError, NotPositiveDefiniteError
from deltauq.linalg import LowRank

__all__ = [
    "NegativeCurvature",
    "ParameterCovariance",
    "Tail",
    "check_choice",
    "dense_covariance",
    "low_rank_covariance",
    "tail_interval",
]

Array = npt.NDArray[Any]
Tail = Literal["midpoint", "l2", "trace", "none"]
NegativeCurvature = Literal["project", "keep", "raise"]


@dataclass(frozen=True)
class ParameterCovariance:
    """Sigma = (1/N) D [U diag(d) U^T + t (I - U U^T)] D, D = diag(scale).

    The brackets hold the inverse of the precision in the prior's metric, where every parameter has
    the L2 rate one; D = diag(lambda_j^-1/2) leads back.

    Attributes:
        vectors: U `[P, K]`, orthonormal.
        spectrum: d and t.
        scale: `[P]`.
        n_examples: N.
    """

    vectors: Array
    spectrum: LowRank
    scale: Array
    n_examples: float

    def project(self, along: Array, rest: Array) -> Array:
        """J Sigma J^T `[..., C, C]` from what `Linearization.sketch` gives of J D and U."""
        return self.spectrum.quadratic_form(along, rest) / self.n_examples

    def to_linear_operator(self) -> tf.linalg.LinearOperator:
        """Sigma as a `tf.linalg.LinearOperator` `[P, P]` in the network's precision."""
        dtype = self.vectors.dtype
        weights, tail = self.spectrum.weights, self.spectrum.tail
        root = self.scale[:, None] * self.vectors
        if self.vectors.shape[0] == self.vectors.shape[1]:
            dense = (root * (weights / self.n_examples)) @ root.T
            return tf.linalg.LinearOperatorFullMatrix(
                tf.constant((dense + dense.T) / 2, dtype),
                is_self_adjoint=True,
                is_positive_definite=True,
            )
        base = tf.linalg.LinearOperatorDiag(
            tf.constant(tail * self.scale**2 / self.n_examples, dtype)
        )
        return tf.linalg.LinearOperatorLowRankUpdate(
            base,
            u=tf.constant(root, dtype),
            diag_update=tf.constant((weights - tail) / self.n_examples, dtype),
            is_self_adjoint=True,
            is_positive_definite=tail > 0 or None,
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
    """The covariance from eigenpairs in the prior's metric.

    Args:
        pairs: of M = L^-1/2 A L^-1/2.
        scale: lambda_j^-1/2, `[P]`.
        n_examples: N.
        tail: what stands for the inverse eigenvalues that were not computed: "l2" 1 (that is
            1/lambda, an upper bound), "midpoint" the middle of [1/(1 + rest), 1] with
            rest = min(mu_K, trace - sum mu), "trace" 1/(1 + the mean of what is left of the trace),
            "none" 0, for comparison only.
        negative_curvature: "project" sets negative eigenvalues to zero, "raise" refuses them,
            "keep" uses them (all eigenpairs needed).
        epsilon: relative rounding of the curvature, the network's machine epsilon.

    Raises:
        NotPositiveDefiniteError: negative curvature that must not be there, or that outweighs L2.
        InvalidInputError: "keep" without all eigenpairs, "trace" without a trace.
    """
    check_choice("tail", tail, get_args(Tail))
    check_choice("negative_curvature", negative_curvature, get_args(NegativeCurvature))
    complete = pairs.rank == pairs.n_params
    if negative_curvature == "keep" and pairs.smallest is not None:
        if not complete:
            raise InvalidInputError(
                "negative_curvature='keep' needs both ends of the spectrum",
                expected="rank='full'",
                received=f"{pairs.rank} of {pairs.n_params} eigenpairs",
                remedy="pass rank='full', or negative_curvature='project'",
            )
        _require_positive(pairs.values + 1.0, epsilon)
        spectrum = LowRank(1.0 / (pairs.values + 1.0), 0.0)
        return ParameterCovariance(pairs.vectors, spectrum, scale, n_examples)
    if negative_curvature == "raise":
        _require_no_negative(pairs, epsilon, "negative_curvature='project'")
    positive = pairs.values > 0
    keep = slice(None) if complete or np.all(positive) else positive
    values = np.maximum(pairs.values[keep], 0.0)
    left_out = 0.0 if complete else _tail(pairs, tail)
    spectrum = LowRank(1.0 / (values + 1.0), left_out)
    return ParameterCovariance(pairs.vectors[:, keep], spectrum, scale, n_examples)


def dense_covariance(
    pairs: Eigenpairs,
    penalised: Array,
    scale: Array,
    n_examples: float,
    *,
    negative_curvature: NegativeCurvature,
    epsilon: float,
) -> ParameterCovariance:
    """The covariance where some parameters have no L2: A plus L2 must be positive definite.

    Args:
        pairs: all eigenpairs, in the metric where L2 is 1 or absent.
        penalised: whether a parameter has L2, `[P]`.
        scale: lambda_j^-1/2, and 1 where lambda_j = 0, `[P]`.
        n_examples: N.
        negative_curvature: "keep" uses it as it is; "raise" refuses it, and so does "project": the
            metric to project in needs L2 on every parameter.
        epsilon: relative rounding of the curvature, the network's machine epsilon.

    Raises:
        NotPositiveDefiniteError: otherwise.
    """
    check_choice("negative_curvature", negative_curvature, get_args(NegativeCurvature))
    if negative_curvature != "keep":
        _require_no_negative(
            pairs, epsilon, "negative_curvature='keep', or an L2 rate for every variable"
        )
    precision = (pairs.vectors * pairs.values) @ pairs.vectors.T
    precision[np.diag_indices_from(precision)] += penalised
    values, vectors = np.linalg.eigh(precision)
    _require_positive(values, epsilon)
    return ParameterCovariance(vectors, LowRank(1.0 / values, 0.0), scale, n_examples)


def tail_interval(pairs: Eigenpairs) -> tuple[float, float]:
    """[low, high] of the inverse eigenvalues that were left out, in the prior's metric.

    Left-out eigenvalues lie between 0 and rest = min(mu_K, trace - sum mu). This takes the computed
    pairs as exact.
    """
    bounds = [max(0.0, float(pairs.values[-1])) if pairs.rank else np.inf]
    if pairs.remainder is not None:
        bounds.append(pairs.remainder)
    return 1.0 / (1.0 + min(bounds)), 1.0


def check_choice(argument: str, value: Any, choices: tuple[str, ...]) -> None:
    """`InvalidInputError` unless the value is one of the choices."""
    if value not in choices:
        raise InvalidInputError(
            f"{argument}={value!r} is not known",
            expected=f"one of {list(choices)}",
            received=repr(value),
        )


def _tail(pairs: Eigenpairs, tail: Tail) -> float:
    if tail == "trace":
        if pairs.remainder is None:
            raise InvalidInputError(
                "tail='trace' needs a trace that is known",
                expected="curvature 'opg' or 'ggn', whose trace one pass gives exactly",
                received="the exact Hessian",
                remedy="pass tail='midpoint' or 'l2'",
            )
        return 1.0 / (1.0 + pairs.remainder / (pairs.n_params - pairs.rank))
    low, high = tail_interval(pairs)
    return {"midpoint": (low + high) / 2, "l2": high, "none": 0.0}[tail]


def _require_positive(values: Array, epsilon: float) -> None:
    rounding = 10 * np.sqrt(len(values)) * epsilon * float(np.max(np.abs(values)))
    if np.min(values) <= rounding:
        raise NotPositiveDefiniteError(
            "the curvature plus L2 is not positive definite, so it has no covariance",
            expected=f"eigenvalues above {rounding:.1g}, what rounding can tell from 0",
            received=f"a smallest eigenvalue of {np.min(values):.3g} (the largest is "
            f"{np.max(values):.3g}), in the metric where L2 is 1",
            remedy="give every variable an L2 rate (the last bias of a softmax without one is "
            "never determined by data), raise l2, train further, or leave the exact Hessian for "
            "'ggn' or 'opg'",
        )


def _require_no_negative(pairs: Eigenpairs, epsilon: float, other_remedy: str) -> None:
    smallest = pairs.smallest
    top = float(pairs.values[0]) if pairs.rank else 1.0
    if smallest is not None and smallest < -1e3 * epsilon * top:
        raise NotPositiveDefiniteError(
            "the data curvature has negative eigenvalues",
            expected="a smallest eigenvalue of 0 or more",
            received=f"{smallest:.3g} times the L2 rate (the largest is {top:.3g} times)",
            remedy=f"train further, use curvature='ggn' or 'opg', or {other_remedy}",
        )
