"""Orthonormal columns kept in fewer bits, and what that costs a low-rank matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from deltauq.linalg.lowrank import LowRank
from deltauq.linalg.orthogonal import blocks, combine, inner_products

__all__ = ["nearest_orthonormal", "relative_range"]

Array = npt.NDArray[Any]


def nearest_orthonormal(v: Array) -> Array:
    """The orthonormal columns nearest to almost orthonormal ones, V (V^T V)^-1/2.

    Source: Loewdin 1950, "On the non-orthogonality problem"; they keep their order and their sign.

    Args:
        v: `[P, K]`.
    """
    # V^T V = Z diag(squares) Z^T, whose symmetric inverse root moves the columns least.
    squares, z = np.linalg.eigh(inner_products(v, v))
    return combine(v, (z / np.sqrt(squares)) @ z.T)


def relative_range(u: Array, v: Array, spectrum: LowRank) -> tuple[float, float]:
    """(least, most) of x^T S_V x / x^T S_U x over all x, S_U = U W U^T + t (I - U U^T).

    It says how far a low-rank matrix moves when its columns U are replaced by others V. Outside
    the span of U and V both are t. Inside it, with V = U C + Q R and Q orthogonal to U, they are
    small matrices in the basis (U, Q), of which only R^T R is needed:
    (V - U C)^T (V - U C), formed without the cancellation of I - C^T C.

    Args:
        u: orthonormal columns `[P, K]`.
        v: as many others, `[P, K]`.
        spectrum: W and t, both positive.
    """
    # C = U^T V, and R = (R^T R)^1/2 up to a rotation, which may be counted to Q.
    along = inner_products(u, v)
    squares, z = np.linalg.eigh(_rest_gram(u, v, along))
    outside = (z * np.sqrt(np.maximum(squares, 0.0))) @ z.T
    # In the basis (U, Q): S_U = t I + (W - t I) on U, S_V = t I + (C; R) (W - t I) (C; R)^T.
    weights = np.diag(spectrum.weights) if spectrum.weights.ndim == 1 else spectrum.weights
    k = len(weights)
    before = spectrum.tail * np.eye(2 * k)
    before[:k, :k] = weights
    columns = np.concatenate([along, outside])
    after = spectrum.tail * np.eye(2 * k)
    after += columns @ (weights - spectrum.tail * np.eye(k)) @ columns.T
    ratios = scipy.linalg.eigvalsh(after, before)
    return min(1.0, float(ratios[0])), max(1.0, float(ratios[-1]))


def _rest_gram(u: Array, v: Array, along: Array) -> Array:
    """(V - U C)^T (V - U C) in float64, summed block by block."""
    total = np.zeros((v.shape[1], v.shape[1]))
    for rows in blocks(len(v)):
        rest = v[rows].astype(np.float64) - u[rows].astype(np.float64) @ along
        total += rest.T @ rest
    return total
