"""From a stated problem to the parameters' covariance: which eigenpairs, how many, how combined."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.curvature import CurvatureOperator
from deltauq.curvature.cost import DataCost, Stationarity
from deltauq.curvature.effective_parameters import Freedom
from deltauq.curvature.eigenpairs import (
    Rank,
    automatic_eigenpairs,
    eigenpairs,
    resolving,
    warn_beyond_precision,
)
from deltauq.curvature.parameter_covariance import (
    ParameterCovariance,
    dense_covariance,
    low_rank_covariance,
)
from deltauq.curvature.rank_curve import TailWidth
from deltauq.curvature.sandwich import sandwich_covariance
from deltauq.delta.problem import Problem
from deltauq.delta.settings import Settings
from deltauq.errors import ConvergenceWarning, InvalidInputError, warn
from deltauq.linalg import Eigenpairs, Ends, Storage
from deltauq.prediction.directions import SomeClasses, most_probable
from deltauq.prediction.result_memory import prediction_batch
from deltauq.runtime.memory import free_memory

__all__ = [
    "Fitted",
    "bread_and_meat",
    "calibration_inputs",
    "calibration_rows",
    "covariance_of",
    "freedom_of",
    "make_operator",
    "meat_pairs",
    "needs_meat",
    "solve",
    "weight_covariance",
    "with_meat",
]


#: What is left of the trace, in L2 rates and of the whole, that rounding or nothing explains.
_LEFT, _TRACE_ROUNDING = 0.01, 3e-6

#: Inputs on which `rank="auto"` measures what the tail leaves open.
_CALIBRATION = 64


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves behind.

    Attributes:
        problem: what was asked.
        settings: how.
        pairs: eigenpairs in the prior's metric.
        covariance: of the parameters.
        stationarity: of the cost at the weights.
        seconds: wall time.
        mean_weight: (1/N) sum_n c_n w_n, what the weights of the losses sum to; one without
            importance weights.
        measured: the data's part of the cost at the weights; None in a fit from a file.
        rounded: the eigenvectors were kept in fewer bits, so that what rests on them being those of
            the curvature itself is no longer certain.
    """

    problem: Problem
    settings: Settings
    pairs: Eigenpairs
    covariance: ParameterCovariance
    stationarity: Stationarity
    seconds: float
    mean_weight: float = 1.0
    measured: DataCost | None = None
    rounded: bool = False

    @property
    def eigenpairs(self) -> Eigenpairs:
        """Eigenpairs of A itself where all parameters have one rate, else in the prior's metric."""
        unit = self.problem.common_rate
        return self.pairs.rescaled(unit) if unit else self.pairs

    def require_unrounded_vectors(self, what: str) -> None:
        """Refuse a fit whose eigenvectors were kept in fewer bits.

        Raises:
            InvalidInputError: they were.
        """
        if self.rounded:
            raise InvalidInputError(
                f"{what} needs the eigenvectors as they were computed",
                expected="an artifact that was saved without vectors_dtype, or a new fit",
                received="eigenvectors that were kept in fewer bits",
            )

    def require_measured(self) -> DataCost:
        """The data's part of the cost; measured by a pass over the data where it is not at hand."""
        if self.measured is not None:
            return self.measured
        return self.problem.cost.measure(self.problem.network.params.numpy())

    @cached_property
    def vectors(self) -> npt.NDArray[Any]:
        """The covariance's vectors as predictions read them; as a rule not a copy."""
        return np.ascontiguousarray(self.covariance.vectors, self.problem.network.dtype)


def make_operator(problem: Problem, kind: type[CurvatureOperator]) -> CurvatureOperator:
    """A curvature in the prior's metric, in the form that is cheapest for the network."""
    data, plan = problem.require_data()
    options: dict[str, Any] = {
        "scale": problem.scale,
        "per_example": problem.per_example,
        "buffer_bytes": plan.buffer,
    }
    of_head = kind.of_linear_head()
    if of_head is not kind and problem.head is not None:
        kind, options["head"] = of_head, problem.head
    return kind(problem.network, problem.likelihood, data, **options)


def solve(problem: Problem, settings: Settings, storage: Storage) -> Eigenpairs:
    """The eigenpairs that were asked for; of a sandwich those of its slices."""
    return _eigenpairs(problem, settings, settings.kind.bread, storage)


def bread_and_meat(problem: Problem, settings: Settings) -> list[CurvatureOperator]:
    """The curvature, and where the covariance is a sandwich what is between its inverses.

    It is a sandwich where that was asked for; and where the cost that was minimised is not the
    log-likelihood of the labels, as the mean square of outputs with unequal noise is not. Between
    is then the same curvature of `Likelihood.of_scores`.
    """
    operators = [make_operator(problem, settings.kind.bread)]
    if needs_meat(problem, settings):
        scores = problem.with_likelihood(problem.likelihood.of_scores, problem.rates)
        operators.append(make_operator(scores, settings.kind.meat_or_bread))
    return operators


def needs_meat(problem: Problem, settings: Settings) -> bool:
    """Whether the covariance is more than the inverse of the curvature: bread, meat, bread.

    It is where a sandwich was asked for, and where the cost is not the log-likelihood of the labels
    (`Likelihood.of_scores`).
    """
    return settings.kind.is_sandwich or problem.likelihood.of_scores is not problem.likelihood


def meat_pairs(fitted: Fitted, storage: Storage) -> Eigenpairs | None:
    """Eigenpairs of what is between the slices of a sandwich; None where the covariance is none."""
    problem, settings, pairs = fitted.problem, fitted.settings, fitted.pairs
    if not needs_meat(problem, settings):
        return None
    rank: Rank = "full" if pairs.rank == pairs.n_params else pairs.rank
    scores = problem.with_likelihood(problem.likelihood.of_scores, problem.rates)
    return _eigenpairs(scores, settings, settings.kind.meat_or_bread, storage, rank)


def with_meat(fitted: Fitted, storage: Storage) -> Fitted:
    """A fit with the covariance of the weights, where that is more than an inverse."""
    meat = meat_pairs(fitted, storage)
    covariance = weight_covariance(fitted.problem, fitted.settings, fitted.pairs, meat, storage)
    return replace(fitted, covariance=covariance.with_noise(fitted.covariance.noise))


def weight_covariance(
    problem: Problem,
    settings: Settings,
    pairs: Eigenpairs,
    meat: Eigenpairs | None,
    storage: Storage | None = None,
    basis: npt.NDArray[Any] | None = None,
) -> ParameterCovariance:
    """Make the covariance of the weights from eigenpairs of a curvature and a sandwich's meat.

    Several of the same vectors may share a basis, as of `sandwich_covariance`.
    """
    bread = covariance_of(problem, settings, pairs)
    if meat is None:
        return bread
    penalised, share = problem.rates > 0, problem.likelihood.l2_in_scores
    if settings.kind.is_sandwich:
        kind = settings.meat
        return sandwich_covariance(
            bread, meat, penalised, meat=kind, l2_share=share, storage=storage, basis=basis
        )
    # The meat is treated as the slices are, so that outputs of equal noise leave their inverse.
    if np.all(penalised) and settings.negative_curvature != "keep":
        meat = replace(meat, values=np.maximum(meat.values, 0.0))
    rest = None
    if meat.rank < meat.n_params:
        tail = covariance_of(problem, settings, meat).spectrum.tail
        rest = 1.0 / tail - 1.0 if tail > 0 else 0.0
    return sandwich_covariance(
        bread, meat, penalised, l2_share=share, rest=rest, storage=storage, basis=basis
    )


def covariance_of(problem: Problem, settings: Settings, pairs: Eigenpairs) -> ParameterCovariance:
    """Make the covariance that is the inverse of the curvature plus L2, over N."""
    if not np.all(problem.rates > 0):
        return dense_covariance(
            pairs,
            problem.rates > 0,
            problem.scale,
            problem.data.n_examples,
            negative_curvature=settings.negative_curvature,
            epsilon=problem.epsilon,
        )
    return low_rank_covariance(
        pairs,
        problem.scale,
        problem.data.n_examples,
        tail=settings.tail,
        negative_curvature=settings.negative_curvature,
        epsilon=problem.epsilon,
    )


def freedom_of(problem: Problem, settings: Settings) -> Freedom:
    """What the noise of a regression is estimated from, beside eigenpairs of the bread."""
    return Freedom(
        problem.data.n_examples * len(problem.likelihood.noise_variance()),
        settings.kind.bread.most_rank(
            problem.likelihood, problem.n_outputs, problem.data.n_rows, len(problem.rates)
        ),
        _noise_power(problem, settings),
        problem.epsilon,
    )


def _noise_power(problem: Problem, settings: Settings) -> int:
    """How the parameters' covariance goes with the noise, see `NoiseRange`."""
    if not problem.likelihood.scaled_by_noise:
        return 0
    if not settings.l2_in_meat:
        return 0  # the scores' covariance between two inverses holds no noise of its own
    return settings.kind.noise_power


def calibration_rows(
    problem: Problem, memory_limit: int | str | None, x: Any = None
) -> npt.NDArray[Any]:
    """Jacobians `[B, C, P]` of the means of `calibration_inputs`, in the prior's metric.

    Raises:
        InvalidInputError: inputs whose predictions are all masked.
    """
    rows = problem.linearization.rows(*calibration_inputs(problem, memory_limit, x))
    counted = ~rows.shown.masked
    if not np.any(counted):
        raise InvalidInputError(
            "there is nothing to measure on: all predictions of these inputs are masked",
            expected="inputs that are not padding throughout",
            received=f"{len(counted)} masked predictions",
        )
    values = rows.values if np.all(counted) else rows.values[counted]
    return np.asarray(rows.shown.slope[counted].astype(values.dtype) @ values)


def calibration_inputs(
    problem: Problem, memory_limit: int | str | None, x: Any = None
) -> tuple[Any, SomeClasses | None]:
    """Choose inputs to measure widths on, and of many classes which to look at.

    The first of the inputs given, or some of training.
    """
    free = free_memory(memory_limit)
    some_classes = most_probable(problem.likelihood, problem.n_outputs)
    n_rows = 2 * len(some_classes) if some_classes else problem.n_outputs
    count = prediction_batch(problem.network, problem.input_spec, n_rows, free=free)
    count = min(_CALIBRATION, count)
    x = problem.training_set.spread(count).x if x is None else x
    return tf.nest.map_structure(lambda leaf: tf.constant(leaf[:count]), x), some_classes


def _eigenpairs(
    problem: Problem,
    settings: Settings,
    kind: type[CurvatureOperator],
    storage: Storage,
    rank: Rank | None = None,
) -> Eigenpairs:
    """As many pairs as the settings ask for, or `rank` where another matrix has decided."""
    operator = make_operator(problem, kind)
    ends = "largest" if operator.positive_semidefinite else settings.ends
    rank = settings.rank if rank is None else rank
    if rank == "auto":
        pairs = _automatic_eigenpairs(problem, settings, operator, ends, storage)
    else:
        pairs = eigenpairs(
            operator,
            rank,
            ends=ends,
            bounds=settings.bounds,
            seed=settings.seed,
            storage=storage,
        )
        if not pairs.converged:
            warn(
                f"the {rank} eigenpairs of the {settings.curvature} did not all "
                f"converge: {pairs.rank} are good enough and are used, the rest belongs to the "
                "tail. Ask for a smaller rank, or use curvature='ggn'.",
                ConvergenceWarning,
            )
        if isinstance(settings.rank, int):
            _warn_if_cut(pairs, rank, settings, problem.network.dtype)
    warn_beyond_precision(pairs, problem.epsilon)
    return pairs


def _warn_if_cut(pairs: Eigenpairs, rank: Rank, settings: Settings, dtype: str) -> None:
    """Say when rounding, not the data, is why there are fewer pairs than were asked for."""
    if rank == "full" or pairs.rank == rank or not pairs.converged or pairs.trace is None:
        return
    left = pairs.remainder or 0.0
    if not left <= max(_LEFT, _TRACE_ROUNDING * pairs.trace):
        warn(
            f"{pairs.rank} eigenpairs of the {settings.curvature} are kept of the {rank} that "
            f"were asked for: the next ones drown in the rounding of {dtype}. What they leave, "
            f"{left:.2g} L2 rates of the trace, belongs to the tail and to the bounds: "
            f"{resolving(dtype)} keeps more.",
            ConvergenceWarning,
        )


def _automatic_eigenpairs(
    problem: Problem,
    settings: Settings,
    operator: CurvatureOperator,
    ends: Ends,
    storage: Storage,
) -> Eigenpairs:
    """Grow the rank until the tail leaves less than `rank_tol` of the standard errors open."""
    rows = calibration_rows(problem, settings.memory_limit)
    knows_noise = not problem.estimates_noise or not operator.positive_semidefinite
    freedom = None if knows_noise else freedom_of(problem, settings)
    width = TailWidth(rows, problem.epsilon, freedom)
    room = free_memory(settings.memory_limit) if storage.directory is None else storage.free
    pairs, why_no_more = automatic_eigenpairs(
        operator,
        lambda pairs: width(pairs) <= settings.rank_tol,
        ends=ends,
        bounds=settings.bounds,
        max_bytes=room // 2,
        seed=settings.seed,
        storage=storage,
    )
    if why_no_more is not None:
        warn(
            f"rank='auto' stopped at {pairs.rank} eigenpairs of the {settings.curvature}, which "
            f"leave {width(pairs):.1%} of the median standard error open, above "
            f"rank_tol={settings.rank_tol:.1%}: {why_no_more}.",
            ConvergenceWarning,
        )
    return pairs
