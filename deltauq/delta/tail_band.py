"""The band of a fit's tail, measured when it is first asked for."""

from __future__ import annotations

from functools import partial

from deltauq.curvature.eigenpairs import eigenpairs
from deltauq.curvature.tail_band import COPIES, Residuals, TailBand, measure_residuals
from deltauq.delta.calibration import tail_inputs
from deltauq.delta.fitted import Fitted
from deltauq.delta.sampled_effective_parameters import sampled_effective_parameters
from deltauq.delta.solving import freedom_of, make_operator
from deltauq.errors import InvalidInputError

__all__ = ["band_of"]


def band_of(fitted: Fitted) -> TailBand | None:
    """The band of a fit whose tail was calibrated; None of another one."""
    by_share, tail = fitted.known.by_share, fitted.known.tail
    if by_share is None or tail is None:
        return None
    return TailBand(by_share, tail.exchangeable, partial(_measured, fitted), fitted.residuals)


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
    found = measure_residuals(inputs, operator.matmat, pairs.vectors, pairs.values, known.by_share)
    return found._replace(noise_on_std=_noise_on_std(fitted))


def _noise_on_std(fitted: Fitted) -> tuple[float, float]:
    """Where the noise of a regression leaves standard errors, by the number of parameters sampled.

    What is certain of that number is far wider, as it goes by no more than the trace that the pairs
    leave out.
    """
    noise = fitted.known.noise
    if noise is None:
        return 1.0, 1.0
    freedom = freedom_of(fitted.problem, fitted.settings)
    unit = noise.factor if freedom.power == 2 else 1.0  # of scores, that hold the noise twice
    gamma = sampled_effective_parameters(fitted, unit)
    return noise.sampled(gamma, freedom.n_observations).on_std
