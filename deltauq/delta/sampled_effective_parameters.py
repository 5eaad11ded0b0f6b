"""How many parameters the data determine, sampled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats

from deltauq.curvature import CurvatureOperator
from deltauq.curvature.stages import pass_seconds
from deltauq.delta.fitted import Fitted
from deltauq.delta.solving import make_operator
from deltauq.linalg import Krylov, bound_matrix_forms, project_out
from deltauq.runtime.stages import Stage

__all__ = ["sampled_effective_parameters", "sampling"]

Array = npt.NDArray[Any]

#: Random vectors, and products with each.
_PROBES, _STEPS = 8, 6

#: Probability of the interval, as far as the samples are normal.
_LEVEL = 0.99


def sampling(operator: CurvatureOperator) -> Stage:
    """The products that the parameters are counted by."""
    return Stage(
        "counting the parameters that the data determine",
        "what the noise of a regression is estimated from",
        seconds=(_STEPS + 1) * pass_seconds(operator, _PROBES),
        parts=(_STEPS + 1) * operator.data.n_rows,
    )


def sampled_effective_parameters(fitted: Fitted, unit: float = 1.0) -> tuple[float, float]:
    """Estimate an interval in which gamma = trace(A (A + I)^-1) lies as a rule; six products.

    Over the eigenpairs it is summed. Of the directions outside, U_, trace f(A) is the mean of
    z^T U_ f(A) U_^T z over random signs z (Hutchinson 1990), each form by Gauss quadrature from a
    few steps of block Lanczos (Golub and Meurant 2010, Matrices, Moments and Quadrature).

    Args:
        fitted: in low rank; of a sandwich its bread counts.
        unit: what the curvature is to be multiplied by.

    Returns:
        Its ends; all numbers where there are too few parameters for two random vectors.
    """
    pairs, settings = fitted.prior_pairs, fitted.settings
    operator = make_operator(fitted.problem, settings.kind.bread)
    operator.data.listener.stages.begin(sampling(operator))

    def share(values: Array) -> Array:
        values = unit * values
        kept = values if settings.negative_curvature == "keep" else np.maximum(values, 0.0)
        return np.asarray(kept / (1.0 + kept))

    def outside(vectors: Array) -> Array:
        image = operator.matmat(vectors).astype(vectors.dtype, copy=False)
        return project_out(pairs.vectors, image, overwrite=True)

    def forms(krylov: Krylov) -> tuple[Array, Array]:
        start = np.swapaxes(krylov.first, 1, 2)
        form = krylov.apply(share)[:, :, : start.shape[1]] @ start
        return form, form

    probes = min(_PROBES, pairs.n_params // (_STEPS + 1))
    if probes < 2:
        return -np.inf, np.inf  # of one sample there is no spread
    rng = np.random.default_rng([settings.seed, 2])
    signs = rng.choice([-1.0, 1.0], (pairs.n_params, probes)).astype(pairs.vectors.dtype)
    rows = np.ascontiguousarray(project_out(pairs.vectors, signs).T)[None]
    found = bound_matrix_forms(
        outside, rows, forms, is_enough=lambda low, *_: np.zeros(len(low), bool), max_steps=_STEPS
    )
    # The diagonal holds z^T U_ f(A) U_^T z of each probe; their mean and its t interval.
    samples = np.diag(found.low[0])
    inside = float(np.sum(share(pairs.values)))
    error = scipy.stats.t.ppf((1 + _LEVEL) / 2, probes - 1) * scipy.stats.sem(samples)
    middle = inside + float(np.mean(samples))
    return middle - float(error), middle + float(error)
