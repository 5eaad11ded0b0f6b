"""How the covariances of chosen inputs' rows are enclosed, step by step.

Each step is a product with the curvature for all inputs that are not known well enough yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deltauq.curvature import CurvatureOperator
from deltauq.curvature.exact_inverse import rounding_of_rows
from deltauq.curvature.gram import Gram
from deltauq.delta.fitted import Fitted
from deltauq.errors import MemoryLimitError, NumericalError
from deltauq.linalg import (
    MOST_ROUNDING,
    Krylov,
    MatrixForms,
    NystromSketch,
    Whitening,
    bound_matrix_forms,
    combine,
    inner_products,
    project_out,
)
from deltauq.prediction.forms import ROUNDING, ROUNDING_OF_ROWS
from deltauq.runtime.memory import free_memory, gib

__all__ = ["Certain", "Estimated", "IsEnough", "Way", "by_products", "by_rows", "takes_rows"]

Array = npt.NDArray[Any]

#: Times that eigenvectors are in memory while they are made anew.
_COPIES = 3

#: Says of bounds `[b, C, C]` of some blocks, and their numbers, whether each is close enough.
IsEnough = Callable[[Array, Array, Array], Array]


class Way(Protocol):
    """Encloses X B X^T for rows X `[B, C, P]`, B what the covariance is of the curvature."""

    @property
    def certified(self) -> bool:
        """Whether the enclosure is proven; otherwise it is an estimate."""

    @property
    def rounding(self) -> float:
        """Relative rounding of a standard error."""

    def __call__(self, rows: Array, is_enough: IsEnough, max_steps: int) -> MatrixForms:
        """Enclose the forms of some rows, by so many steps at most."""

    def slack(self, rows: Array) -> Array | None:
        """What rounding may do to the standard error of each row beside that `[B, C]`."""


@dataclass(frozen=True)
class Certain:
    """Bounds of X (A + I)^-1 X^T in the prior's metric, for OPG and GGN, by a product a step.

    Attributes:
        operator: A.
        whitening: of A beside what the eigenpairs make of it.
        rounding: relative, of a standard error.
        slack: gives that of rows beside it.
    """

    operator: CurvatureOperator
    whitening: Whitening
    rounding: float
    slack: Callable[[Array], Array | None]
    certified = True

    def __call__(self, rows: Array, is_enough: IsEnough, max_steps: int) -> MatrixForms:
        """Enclose in the precision of the eigenvectors."""
        rows = rows.astype(self.whitening.vectors.dtype, copy=False)
        return bound_matrix_forms(
            self.whitening.times(self.operator.matmat),
            _each_row(self.whitening, rows),
            self.whitening.bounds,
            is_enough=is_enough,
            max_steps=max_steps,
        )


def _whitening(fitted: Fitted) -> Whitening:
    """The curvature beside the eigenpairs of a fit, in the network's precision."""
    pairs = fitted.prior_pairs
    return Whitening(pairs.vectors, pairs.values, ROUNDING[fitted.problem.network.dtype])


def takes_rows(fitted: Fitted, bread: CurvatureOperator, meat: Sequence[CurvatureOperator]) -> bool:
    """Whether rows are to be multiplied in float64, for float32 hides the L2 rate.

    Raises:
        NumericalError: it does, and there are no rows.
    """
    seen = _whitening(fitted)
    if seen.is_seen:
        return False
    if fitted.problem.network.dtype == "float32" and isinstance(bread, Gram) and not meat:
        return True
    raise _too_large(seen)


def by_products(fitted: Fitted, bread: CurvatureOperator) -> Certain:
    """Enclose by products in the network's precision."""
    rounding = ROUNDING[fitted.problem.network.dtype]
    return Certain(bread, _whitening(fitted), rounding, lambda rows: None)


def by_rows(fitted: Fitted, bread: CurvatureOperator) -> Certain:
    """Enclose by products of rows in float64; eigenpairs are made anew, to be below what these are.

    Raises:
        NumericalError: rounding as large as the L2 rate even so.
        MemoryLimitError: no room for eigenvectors in float64.
    """
    assert isinstance(bread, Gram)
    operator, pairs, n_examples = (
        bread.in_double(),
        fitted.prior_pairs,
        fitted.problem.data.n_examples,
    )
    storage = fitted.settings.storage()
    needed = _COPIES * pairs.vectors.size * np.dtype(np.float64).itemsize
    free = free_memory(fitted.settings.memory_limit) // 2  # the other half is for rows of inputs
    if storage.directory is None and needed > free:
        raise MemoryLimitError(
            "the eigenvectors in float64, which refine takes here, do not fit in memory",
            expected=f"at most {gib(free)}, half of what the limit or the machine leaves",
            received=f"{gib(needed)} for {pairs.rank:,} of them, {_COPIES} times",
            remedy="fit with a smaller rank, with vectors_dir=... on a disk, or with a larger "
            "memory_limit",
        )
    sketch = NystromSketch.along(operator.matmat, pairs.vectors, np.float64, storage)
    values, vectors, _ = sketch.eigenpairs(pairs.rank)
    whitening = Whitening(vectors, values[: pairs.rank], ROUNDING["float64"])
    if not whitening.is_seen:
        raise _too_large(whitening)
    rounding = ROUNDING_OF_ROWS[fitted.problem.network.dtype]
    return Certain(operator, whitening, rounding, lambda rows: rounding_of_rows(rows, n_examples))


def _too_large(whitening: Whitening) -> NumericalError:
    """Say that rounding hides the L2 rate."""
    return NumericalError(
        "the curvature is too large for refine in this precision",
        expected=f"rounding under {MOST_ROUNDING:g} of the L2 rate",
        received=f"{whitening.rounding:.2g} of it",
        remedy="scale the inputs, raise l2, or build the model in float64",
    )


class Estimated:
    """Estimates of X B X^T where the Hessian A is not semidefinite, or of X B (G + I) B X^T.

    B = f(A) with f(mu) = 1 / (1 + mu), or of the projected mu. Along the eigenpairs B is known;
    block Lanczos in A, from what the rows have outside, adds X B Q^T for its basis Q. The interval
    is what the last two steps changed, on both sides: no bound, as another step may change more.
    (One is too few: a step that meets negative curvature alone changes nothing where it is
    projected.)

    Args:
        fitted: the Hessian or a sandwich.
        operator: A.
        meat: G, for a sandwich.
    """

    certified = False

    def __init__(
        self, fitted: Fitted, operator: CurvatureOperator, meat: Sequence[CurvatureOperator]
    ) -> None:
        self.rounding = ROUNDING[fitted.problem.network.dtype]
        self._operator, self._meat = operator, meat
        self._vectors, self._values = fitted.prior_pairs.vectors, fitted.prior_pairs.values
        self._settings = fitted.settings
        self._l2_share = fitted.problem.likelihood.l2_in_scores

    def slack(self, rows: Array) -> Array | None:
        """Leave estimates as they are, for they have no bounds to widen."""
        return None

    def __call__(self, rows: Array, is_enough: IsEnough, max_steps: int) -> MatrixForms:
        """Estimate with a product with A a step, and one with G."""
        along = _each_row(partial(inner_products, self._vectors), rows)
        outside = _each_row(partial(project_out, self._vectors), rows)
        rule = self._sandwiches if self._meat else self._inverses
        return bound_matrix_forms(
            self._matmat, outside, partial(rule, along), is_enough=is_enough, max_steps=max_steps
        )

    def _matmat(self, vectors: Array) -> Array:
        image = self._operator.matmat(vectors).astype(vectors.dtype, copy=False)
        return project_out(self._vectors, image, overwrite=True)

    def _inverse(self, values: Array) -> Array:
        kept = self._settings.negative_curvature == "keep"
        return np.asarray(1.0 / (1.0 + (values if kept else np.maximum(values, 0.0))))

    def _inverses(self, along: Array, krylov: Krylov) -> tuple[Array, Array]:
        # X = (X U) U^T + R: (X U) f(mu) (X U)^T of the pairs, and R f(A) R^T by quadrature.
        known = along[krylov.numbers]
        inside = (known * self._inverse(self._values)) @ np.swapaxes(known, 1, 2)
        start = np.swapaxes(krylov.first, 1, 2)
        return _around(inside + c[:, :, : start.shape[1]] @ start for c in self._last(krylov))

    def _sandwiches(self, along: Array, krylov: Krylov) -> tuple[Array, Array]:
        # Y = X B first, from the pairs and the basis, then Y (G + c I) Y^T with a product with G.
        known = along[krylov.numbers] * self._inverse(self._values)
        inside = _each_row(partial(combine, self._vectors), known)
        slices = inside + krylov.combine(self._last(krylov))
        image = _each_row(self._meat[0].matmat, slices)
        if self._settings.l2_in_meat:
            image += self._l2_share * slices
        return _around(_forms(y, gy) for y, gy in zip(slices, image, strict=True))

    def _last(self, krylov: Krylov) -> Array:
        """X B Q^T from all steps, from one less and from two less, `[3, b, C, k C]`."""
        return np.stack([krylov.apply(self._inverse, drop=drop) for drop in range(3)])


def _forms(y: Array, gy: Array) -> Array:
    """Y (G Y^T) summed in float64, of rows `[b, C, P]` each."""
    return np.stack([inner_products(one.T, image.T) for one, image in zip(y, gy, strict=True)])


def _around(estimates: Iterable[Array]) -> tuple[Array, Array]:
    """E - D and E + D for the first of some estimates, D what changed from each to the next."""
    forms = [(form + np.swapaxes(form, 1, 2)) / 2 for form in estimates]
    values, vectors = np.linalg.eigh(np.subtract(forms[:-1], forms[1:]))
    changes = (vectors * np.abs(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    change = np.sum(changes, axis=0)
    return forms[0] - change, forms[0] + change


def _each_row(function: Callable[[Array], Array], rows: Array) -> Array:
    """A function of columns `[P, m]` -> `[Q, m]` applied to rows `[..., P]` -> `[..., Q]`."""
    columns = np.ascontiguousarray(rows.reshape(-1, rows.shape[-1]).T)
    return function(columns).T.reshape(*rows.shape[:-1], -1)
