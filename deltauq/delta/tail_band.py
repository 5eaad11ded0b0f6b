"""The band of a fit's tail, measured when it is first asked for."""

from __future__ import annotations

from functools import partial

from deltauq.curvature.eigenpairs import eigenpairs
from deltauq.curvature.tail_band import COPIES, Residuals, TailBand, measure_residuals
from deltauq.delta.calibration import tail_inputs
from deltauq.delta.fitted import Fitted
from deltauq.delta.solving import make_operator
from deltauq.errors import InvalidInputError

__all__ = ["band_of"]


def band_of(fitted: Fitted) -> TailBand | None:
    """The band of a fit whose tail was calibrated; None of another one."""
    by_share, tail = fitted.known.by_share, fitted.known.tail
    if by_share is None or tail is None:
        return None
    noise = fitted.known.noise
    return TailBand(
        by_share,
        tail.exchangeable,
        partial(_measured, fitted),
        fitted.residuals,
        noise_on_std=(1.0, 1.0) if noise is None else noise.on_std,
    )


def _measured(fitted: Fitted) -> Residuals:
    """Measure the residuals; inputs that were held out need a sketch without them first."""
    problem, settings, known = fitted.problem, fitted.settings, fitted.known
    if known.tail is not None and known.tail.exchangeable and problem.calibration is None:
        raise InvalidInputError(
            "the inputs that the tail was calibrated on are not at hand",
            expected="the fit that was given calibration=..., in the process that made it",
            received="a loaded method, or one that was given its training data anew",
            remedy="call std_range() of a prediction once before save, or before an estimator is "
            "pickled: the file keeps what it takes",
        )
    inputs = tail_inputs(problem, settings, copies=COPIES)
    operator, pairs = make_operator(problem, settings.kind.bread), known.pairs
    if inputs.held_out is not None:
        operator, _ = operator.apart(*inputs.held_out)
        pairs = eigenpairs(operator, pairs.rank, seed=settings.seed, storage=settings.storage())
    assert known.by_share is not None
    return measure_residuals(inputs, operator.matmat, pairs.vectors, pairs.values, known.by_share)
