"""The Sandwich covariance (1/N) B^-1 G B^-1 in low rank, from two sets of eigenpairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from deltauq.curvature.parameter_covariance import ParameterCovariance
from deltauq.errors import check_choice
from deltauq.linalg import Eigenpairs, LowRank, Storage, combine, inner_products, orthonormal_basis

__all__ = ["Meat", "common_basis", "sandwich_covariance"]

Array = npt.NDArray[Any]
Meat = Literal["opg", "scores"]


def sandwich_covariance(
    bread: ParameterCovariance,
    pairs: Eigenpairs,
    penalised: Array,
    *,
    meat: Meat = "opg",
    l2_share: float = 1.0,
    rest: float | None = None,
    storage: Storage | None = None,
    basis: Array | None = None,
) -> ParameterCovariance:
    """Make the covariance of the weights where the model need not be true.

    With B the bread in the prior's metric and V diag(g) V^T + r (I - V V^T) + c I the meat, B times
    meat times B is low rank plus a multiple of the identity in a basis W of U and V together. It is
    formed there in float64 and brought to eigen form. r is the mean of what the eigenpairs left of
    the meat's trace. Squares do not keep the semidefinite order, so what comes from the ends of the
    bread's and the meat's intervals is an estimate of how far the sandwich may lie, no bound; from
    all eigenpairs it is exact.

    Args:
        bread: the covariance from the bread alone.
        pairs: of the meat without L2, in the prior's metric.
        penalised: whether a parameter has L2, `[P]`.
        meat: "opg" includes the L2 term (c = 1), as in the paper (Nilsen et al., arXiv 1912.00832);
            "scores" leaves it out (c = 0): the covariance of Huber (1967) and White (1982).
        l2_share: what c is times; `Likelihood.l2_in_scores`.
        rest: r, where it is not to be that mean.
        storage: where the basis lives.
        basis: W, where several sandwiches of the same eigenvectors share it: then the covariance is
            left as W's matrix, without eigen form and bounds.
    """
    check_choice("meat", meat, get_args(Meat))
    shared = basis
    basis = common_basis(bread.vectors, pairs.vectors, storage) if shared is None else shared
    size, complete = len(basis), basis.shape[0] == basis.shape[1]
    of_bread, of_meat = (inner_products(basis, u) for u in (bread.vectors, pairs.vectors))
    share = l2_share if meat == "opg" else 0.0
    if np.all(penalised):
        l2: Array = share * np.eye(basis.shape[1])
    else:
        l2 = share * (basis.T @ (penalised[:, None] * basis))

    def sandwiched(spectrum: LowRank, rest: float) -> LowRank:
        """The sandwich in the basis, for a spectrum of the bread and a tail of the meat."""
        # Inside W the matrices W^T B W and W^T (meat) W multiply as the whole ones do, because both
        # leave W's span to itself; outside W both are multiples of the identity, t^2 (r + c).
        outer = _core(spectrum.weights, spectrum.tail, of_bread)
        inner = _core(pairs.values, rest, of_meat) + l2
        tail = 0.0 if complete else spectrum.tail**2 * (rest + share)
        return LowRank(outer @ inner @ outer, tail)

    left = max(0.0, pairs.remainder or 0.0)
    mean = left / max(1, size - pairs.rank) if rest is None else rest
    middle = sandwiched(bread.spectrum, mean)
    if shared is not None:
        return replace(bread, vectors=shared, spectrum=middle, bounds=None, certified=False)
    values, vectors = np.linalg.eigh(middle.weights)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    spectrum, bounds = LowRank(values, middle.tail), None
    exact = bread.vectors.shape[1] == size == pairs.rank
    if exact:
        bounds = (spectrum, spectrum)
    elif bread.bounds is not None:
        bound = None if pairs.left_out is None else pairs.left_out.bound
        most = min((end for end in (pairs.remainder, bound) if end is not None), default=0.0)
        ends = [sandwiched(end, rest) for end, rest in zip(bread.bounds, (0.0, most), strict=True)]
        low, high = (LowRank(vectors.T @ end.weights @ vectors, end.tail) for end in ends)
        bounds = (low, high)
    return replace(
        bread,
        vectors=combine(basis, vectors),
        spectrum=spectrum,
        bounds=bounds,
        certified=bread.certified and exact,
    )


def common_basis(u: Array, v: Array, storage: Storage | None = None) -> Array:
    """Orthonormal columns that span those of U and V; all there are where that would be more."""
    if u.shape[0] == u.shape[1]:
        return u
    if u.shape[1] + v.shape[1] >= len(u):
        return np.eye(len(u), dtype=u.dtype)
    both = (storage or Storage()).empty((len(u), u.shape[1] + v.shape[1]), u.dtype)
    np.concatenate([u, v], axis=1, out=both)
    return orthonormal_basis(both, overwrite=True)


def _core(weights: Array, tail: float, along: Array) -> Array:
    """U diag(w) U^T + t (I - U U^T) in a basis where U's columns are `along`."""
    core = (along * (weights - tail)) @ along.T
    core[np.diag_indices_from(core)] += tail
    return np.asarray(core)
