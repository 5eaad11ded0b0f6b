"""An upper bound of a symmetric operator's largest eigenvalue, from a few block products."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats

from deltauq.linalg.orthogonal import combine, inner_products, orthonormal_basis, project_out, split
from deltauq.linalg.passes import Asking, alone
from deltauq.linalg.projected import bordered

__all__ = ["NormBound", "bound_largest_eigenvalue", "bounding_largest_eigenvalue"]

Array = npt.NDArray[Any]

#: Ratio of neighbouring candidates for the bound.
_STEP = 1.01

#: The smallest candidate in units of the Ritz values, where all of them are negative.
_NEAR = 1e-6

#: The largest candidate, in units of the smallest: polynomials without roots there only grow.
_FAR = 1e2

#: Share of the operator's norm under which a direction of the Krylov space has ended.
_ENDED = 1e-12

#: What 1 / lambda_min must exceed the quantile by, for the gaps between candidates.
_MARGIN = 1.25


@dataclass(frozen=True)
class NormBound:
    """How large the largest eigenvalue of an operator can be, with the probability of being wrong.

    Attributes:
        bound: the eigenvalue is not above this, but for a probability of `failure`.
        at_least: the eigenvalue is not below this, which is certain.
        failure: probability over the random start that the bound is too small, or that any is of
            several bounds of which this is the last; 0 where the bound is certain.
        products: products with one vector that were spent.
    """

    bound: float
    at_least: float
    failure: float
    products: int

    def rescaled(self, unit: float) -> NormBound:
        """The bound of the operator times a number `unit` > 0."""
        return replace(self, bound=self.bound * unit, at_least=self.at_least * unit)


def bound_largest_eigenvalue(
    matmat: Callable[[Array], Array], start: Array, image: Array, **options: Any
) -> NormBound:
    """Bound the largest eigenvalue of a symmetric E, as `bounding_largest_eigenvalue`.

    Args:
        matmat: V `[P, b]` -> E V.
        start: Z.
        image: E Z.
        **options: the other arguments of that.
    """
    return alone(matmat, bounding_largest_eigenvalue(start, image, **options))


def bounding_largest_eigenvalue(
    start: Array,
    image: Array,
    *,
    failure: float,
    max_blocks: int,
    rounding: float = 0.0,
    limit: float = np.inf,
    is_enough: Callable[[float, float], bool] = lambda at_least, bound: False,
) -> Asking[NormBound]:
    """A number that the largest eigenvalue of a symmetric E exceeds with a small probability only.

    A Ritz value from the Krylov space of a random block Z is always too small. But for a unit
    eigenvector u the vector c = Z^T u is normal, N(0, I_b), and the orthonormal basis
    Q_j = sum_i E^i Z C_ij that block Lanczos builds has u^T Q_j = c^T F_j(lambda), with matrix
    polynomials F_j(x) = sum_i x^i C_ij that its recurrence gives. As u is a unit vector,

        c^T G(lambda) c <= 1,    G(x) = sum_j F_j(x) F_j(x)^T,

    so ||c||^2 <= 1 / lambda_min(G(lambda)): the matrix Christoffel function of Z's spectral
    measure. The chance that ||c||^2, a chi-square variable of b degrees, is under its `failure`
    quantile q is `failure`, for any number of steps and whatever E's spectrum. The bound is the
    largest x with lambda_min(G(x)) <= 1 / q.

    For Christoffel functions see Nevai 1986, J. Approx. Theory 48; for block Lanczos, Golub and
    Meurant 2010, Matrices, Moments and Quadrature, 4. Kuczynski and Wozniakowski 1992, SIAM J.
    Matrix Anal. Appl. 13, bound the same error before a run, for the worst spectrum; this bound
    reads the spectrum that the run has seen.

    Asks for products with E as `passes` has them.

    Args:
        start: Z `[P, b]`, independent standard normal entries, independent of E.
        image: E Z, known already.
        failure: probability that the bound may be too small, over the draw of Z.
        max_blocks: of the basis, that is products of E with blocks, `image` included.
        rounding: of a product with a unit vector; the bound includes it.
        limit: a certain bound, such as the trace of a semidefinite E.
        is_enough: whether to stop, from a certain lower bound and the upper bound so far.
    """
    quantile = float(scipy.stats.chi2.ppf(failure, start.shape[1]))
    # Z = Q_1 (Q_1^T Z), so F_1 = C_11 = (Q_1^T Z)^-1, and E Q_1 follows from E Z.
    width = start.shape[1]
    room = np.empty((len(start), min(max_blocks * width, len(start))), start.dtype)
    basis = room[:, :width]
    basis[:] = orthonormal_basis(start)
    inverse = np.linalg.inv(inner_products(basis, start))
    image = combine(image, inverse)
    recurrence = _Recurrence(inverse)
    bound, projected = limit, np.zeros((0, 0))
    for blocks in itertools.count(1):
        coefficients, rest = split(basis, image)
        projected = bordered(projected, coefficients)
        ritz = np.linalg.eigvalsh(projected)
        following = recurrence.extend(projected, basis, rest, rounding)
        at_least = max(0.0, float(ritz[-1]))
        low = max(at_least, _NEAR * float(np.max(np.abs(ritz))))
        bound = min(bound, _smallest_excluded(recurrence, low, limit, quantile) + rounding)
        chance = failure if bound < limit else 0.0
        found = NormBound(max(bound, at_least), at_least, chance, len(projected))
        full = not following.shape[1] or basis.shape[1] + following.shape[1] > len(basis)
        if full or blocks == max_blocks or is_enough(found.at_least, found.bound):
            break
        held = basis.shape[1] + following.shape[1]
        room[:, basis.shape[1] : held] = following
        basis = room[:, :held]
        image = np.asarray((yield following), basis.dtype)
    return found


class _Recurrence:
    """The recurrence of the polynomials F_j: E Q_j = Q_j-1 B_j-1^T + Q_j A_j + Q_j+1 B_j.

    Q_j+1 and B_j follow from E Q_j without another product. Where the Krylov space ends in some
    directions N, Q_j+1 is narrower than Q_j and B_j N = 0: then c^T W_j N vanishes at an
    eigenvalue, W_j = x F_j - F_j A_j - F_j-1 B_j-1^T, up to the rounding of E Q_j.

    Args:
        first: F_1 `[b, b]`.
    """

    def __init__(self, first: Array) -> None:
        self._first = first
        self._steps: list[_RecurrenceStep] = []

    def extend(self, projected: Array, basis: Array, rest: Array, rounding: float) -> Array:
        """Take in E Q_j, from Q^T E Q and what E Q_j has outside Q; return Q_j+1."""
        width = rest.shape[1]
        following = orthonormal_basis(rest)
        left, values, right = np.linalg.svd(inner_products(following, rest))
        floor = max(rounding, _ENDED * float(np.max(np.abs(projected))), np.finfo(float).tiny)
        going = values > floor
        following = combine(following, left[:, going])
        following = orthonormal_basis(project_out(basis, following))
        coupling = inner_products(following, rest)
        self._steps.append(
            _RecurrenceStep(
                diagonal=projected[-width:, -width:],
                coupling=coupling,
                inverse=np.linalg.pinv(coupling),
                ended=right[~going].T / floor,
            )
        )
        return following

    def smallest(self, x: Array) -> Array:
        """lambda_min(G) at some x `[n]`, from the singular values of all F_j side by side.

        Not from G itself: where directions have ended it is as large as 1 / rounding^2, and its
        smallest eigenvalue would drown in that.
        """
        x = x[:, None, None]
        f = self._first + 0.0 * x
        parts, before = [f], np.zeros_like(f)
        for step in self._steps:
            # The recurrence of the Q_j holds for the polynomials too, x in the place of E:
            # F_j+1 B_j = W_j = x F_j - F_j A_j - F_j-1 B_j-1^T.
            ahead = x * f - f @ step.diagonal - before
            before, f = f @ step.coupling.T, ahead @ step.inverse
            parts += [f, ahead @ step.ended]
        values = np.linalg.svd(np.concatenate(parts, axis=-1), compute_uv=False)
        return np.asarray(values[:, -1] ** 2)


@dataclass(frozen=True)
class _RecurrenceStep:
    """One step of the recurrence: A_j, B_j, its right inverse, and N divided by the rounding."""

    diagonal: Array
    coupling: Array
    inverse: Array
    ended: Array


def _smallest_excluded(recurrence: _Recurrence, low: float, limit: float, quantile: float) -> float:
    """The smallest candidate from which on all, up to the limit, are excluded; else the limit."""
    if not 0 < low < limit:
        return limit
    # x is excluded where lambda_min(G(x)) > 1 / q. From the far end down to the first that is not:
    # between Ritz values G may be large as well, and there it excludes nothing above.
    count = int(np.ceil(np.log(min(limit / low, _FAR)) / np.log(_STEP)))
    candidates = low * _STEP ** np.arange(count + 1)
    excluded = recurrence.smallest(candidates) > _MARGIN / quantile
    if not excluded[-1]:
        return limit
    first = 0 if excluded.all() else count + 1 - int(np.argmin(excluded[::-1]))
    return float(candidates[first])
