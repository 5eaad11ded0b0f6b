"""What all predictions have in common: means with covariances, and bounds of their errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.stats
import tensorflow as tf
from beartype import beartype
from jaxtyping import Bool, Float, jaxtyped

from deltauq.curvature.noise_interval import NoiseRange
from deltauq.curvature.tail_band import TailBand
from deltauq.errors import InvalidInputError, NumericalError, check_share, optional
from deltauq.likelihoods import Likelihood
from deltauq.linalg import root_diagonal
from deltauq.prediction.given import chosen_inputs, refuse_unless, truth_of
from deltauq.prediction.predictive import Averaged
from deltauq.prediction.std_range import StdRange, exact, half_width, range_of_std
from deltauq.prediction.tables import notebook_table, terminal_table

if TYPE_CHECKING:
    import pandas as pd
    import rich.table
    from tensorflow_probability.python.distributions import Distribution

__all__ = ["NONE_MASKED", "Array", "Estimate", "Moments", "join", "normal_quantile"]

Array = npt.NDArray[Any]
Kind = TypeVar("Kind", bound="Estimate")

#: Logits, means, the covariances of both, and between what the standard errors of both lie.
Moments = tuple[Array, Array, Array, Array, Array | None, Array | None]

#: Stands for an array of False, as long as there are predictions.
NONE_MASKED = np.zeros(0, bool)

#: Inputs that a table in a notebook or terminal shows, and the level of their intervals.
_SHOWN, _LEVEL = 10, 0.95

#: Relative distance to the ends of `std_bounds` up to which these are a range at any level.
_KNOWN = 0.02

#: The same, up to which nothing to speak of was left out; and the level of a range in words.
_EXACT, _RANGE = 0.002, 0.9


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class Estimate:
    """Means of N predictions with their epistemic uncertainty.

    Attributes:
        logits: z `[N, C]`, the outputs of the network before the link function.
        mean: of the labels `[N, C]`: probabilities, or the numbers of a regression.
        logit_covariance: Cov(z) = J Sigma J^T `[N, C, C]`.
        covariance: of the means, S Cov(z) S^T `[N, C, C]` with S = d mean / d z.
        logit_std_limits: between which `logit_std` from all eigenpairs lies, `[N, C, 2]`; None
            where the curvature was computed without bounds.
        std_limits: the same of `std`; read them as `std_bounds`.
        certified: the limits are bounds; otherwise (sandwich, negative_curvature="keep", `refine`
            of an exact Hessian) they are an estimate of how far the standard errors may lie.
        data_passes: passes over the training data that these inputs took (`refine`).
        masked: predictions that the mask on the model's output takes out `[N]`, as it did in
            training: padding. Their means and standard errors are what the model gives; their
            scores are NaN, and tables, plots, reports and comparisons leave them out.
        shares_outside: of the variance of each input's means, what lies outside the eigenvectors
            were nothing curved there `[N]`; None where no tail was calibrated, as the next two.
        variance_outside: that of each mean `[N, C]`.
        band: of the fit, for `std_range`.
        unlike_calibration: inputs of whose variance another share lies outside the eigenvectors
            than of any input that the tail was calibrated on `[N]`: what `std` takes for it is
            extrapolated. False everywhere where nothing was calibrated.
    """

    #: The outcome of the likelihoods whose predictions have this form, by which a prediction finds
    #: its story in a report and its interval in a SavedModel; None for a form without likelihoods.
    outcome: ClassVar[str | None] = None
    #: What the means are called.
    mean_name: ClassVar[str] = "mean"

    logits: Float[np.ndarray, "N C"]
    mean: Float[np.ndarray, "N C"]
    logit_covariance: Float[np.ndarray, "N C C"]
    covariance: Float[np.ndarray, "N C C"]
    logit_std_limits: Float[np.ndarray, "N C 2"] | None = None
    std_limits: Float[np.ndarray, "N C 2"] | None = None
    certified: bool = True
    data_passes: int = 0
    masked: Bool[np.ndarray, " N"] = field(default_factory=lambda: NONE_MASKED, kw_only=True)
    unlike_calibration: Bool[np.ndarray, " N"] = field(
        default_factory=lambda: NONE_MASKED, kw_only=True
    )
    shares_outside: Float[np.ndarray, " N"] | None = field(default=None, kw_only=True, repr=False)
    variance_outside: Float[np.ndarray, "N C"] | None = field(
        default=None, kw_only=True, repr=False
    )
    band: TailBand | None = field(default=None, kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("masked", "unlike_calibration"):
            if getattr(self, name) is NONE_MASKED:
                object.__setattr__(self, name, np.zeros(len(self.logits), bool))

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, rows: slice | Array | list[int]) -> Self:
        """The prediction of some of the inputs, chosen by a slice, numbers or a mask.

        Raises:
            InvalidInputError: something else.
            IndexError: numbers beyond the inputs.
        """
        if not isinstance(rows, slice):
            rows = chosen_inputs(rows, len(self))
        return _each_column(lambda columns: columns[0][rows], self)

    @property
    def unmasked(self) -> Self:
        """The prediction without the inputs or positions that the model's mask takes out."""
        return self[~self.masked] if np.any(self.masked) else self

    @cached_property
    def std(self) -> Array:
        """Standard error of each mean, the root of its variance, `[N, C]`."""
        return root_diagonal(self.covariance)

    @cached_property
    def logit_std(self) -> Array:
        """Standard error of each logit, the root of its variance, `[N, C]`."""
        return root_diagonal(self.logit_covariance)

    @property
    def std_bounds(self) -> tuple[Array, Array]:
        """Bounds (low, high), each `[N, C]`, of the standard errors that all eigenpairs would give.

        OPG and GGN: with the probability that `eigenpairs.left_out` states. They are about what
        the low rank costs, not about the Delta method itself. Where `certified` is False they are
        an estimate.

        Raises:
            InvalidInputError: the curvature was computed without them.
        """
        return _unstacked(self.std_limits, "std_bounds")

    def std_range(self, level: float = 0.9) -> StdRange:
        """Between what `std` from all eigenpairs lies with a probability, inside `std_bounds`.

        Where few eigenpairs were kept, `std` rests on a tail that was calibrated on some inputs.
        How far single inputs lie from that is measured when it is first asked for, which takes as
        many passes over the training data as `refine` does, on every calibration input.

        Args:
            level: the probability that the range holds for all means of an input. It is promised
                for inputs that are exchangeable with those of `fit(..., calibration=x_new)`;
                measured on training inputs that were held out it is empirical.

        Raises:
            InvalidInputError: a level that so few calibration inputs cannot promise; a fit whose
                tail was not calibrated; a loaded method without its data (`attach`).
            NumericalError: rounding as large as the L2 rate.
        """
        check_share("level", level, example=0.9)
        low, high = self.std_bounds
        shares, outside = self.shares_outside, self.variance_outside
        if self.band is not None and shares is not None and outside is not None:
            limits = np.stack([low, high], axis=-1)
            return range_of_std(self.band, level, self.std, limits, shares, outside)
        typical = half_width(self.std, low, high)
        if self.certified and typical <= _KNOWN:
            return StdRange(low, high, 1.0, 0, True, typical)
        raise InvalidInputError(
            "std_range needs a tail that was calibrated",
            expected="curvature='opg' or 'ggn' with tail='auto', or a fit that is exact",
            received=f"standard errors that are known to {100 * typical:.2g} %, typically",
            remedy="use std_bounds, or refine(x)",
        )

    @property
    def certainty(self) -> str:
        """How far a typical standard error is known, in a few words.

        "exact"; or what `std_range` says, where it was asked for before; or how far the certified
        bounds lie.
        """
        if self.std_limits is None:
            return "without bounds"
        low, high = self.std_bounds
        typical = half_width(self.std, low, high)
        if self.certified and typical <= _EXACT:
            return exact(typical)
        if self.band is not None and self.band.is_known and (most := self.band.largest_level()):
            return str(self.std_range(min(_RANGE, most)))
        some = self.std > 0
        ends = [float(np.median(end[some] / self.std[some])) for end in (low, high)]
        kind = "certified" if self.certified else "estimated"
        return f"between {ends[0]:.2g} and {ends[1]:.2g} of what is shown, typically, {kind}"

    def measure_certainty(self) -> str:
        """Measure what `std_range` rests on, where a tail was calibrated, and say `certainty`.

        It takes the passes over the training data that `std_range` takes, once for all predictions
        of a fit, and `save` keeps what it found. Unlike `std_range` it asks for no level: of few
        calibration inputs it says the largest that they can promise, and where they can promise
        none, or leave nothing to measure, what the bounds say.

        Raises:
            InvalidInputError: a loaded method without what the tail was calibrated on.
        """
        if self.band is not None:
            with suppress(NumericalError):
                self.band.largest_level()  # which measures
        return self.certainty

    @property
    def logit_std_bounds(self) -> tuple[Array, Array]:
        """Bounds (low, high) of the logits' standard errors, as `std_bounds` of the means'."""
        return _unstacked(self.logit_std_limits, "logit_std_bounds")

    @cached_property
    def score(self) -> Array:
        """Uncertainty of each input in one number `[N]`: sqrt(trace of the means' covariance).

        NaN where a prediction is masked.
        """
        return self._unless_masked(np.sqrt(np.sum(self.std**2, axis=1)))

    def predictive(self, method: str) -> Averaged:
        """Average the means over the distribution of the logits; every form says by what methods.

        Args:
            method: by which it is done.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what its averages are")

    def to_frame(self, level: float = 0.95, predictive: str | None = None) -> pd.DataFrame:
        """A table with one row an input: the mean and the standard error of every output."""
        frames = optional("pandas", needed_by="to_frame() needs pandas", extra="report")
        return frames.DataFrame(self.to_dict(level, predictive))

    def to_dict(self, level: float = 0.95, predictive: str | None = None) -> dict[str, Array]:
        """The columns of `to_frame` by name, without pandas.

        Masked predictions have no row; where there are some, a column `row` says which of the
        predictions each row is about.
        """
        columns = self._columns(level)
        if predictive is not None:
            columns |= self.predictive(predictive).columns()
        if not np.any(self.masked):
            return columns
        each = len(next(iter(columns.values()))) // len(self)
        columns = {"row": np.repeat(np.arange(len(self)), each)} | columns
        return {name: values[np.repeat(~self.masked, each)] for name, values in columns.items()}

    def _columns(self, level: float) -> dict[str, Array]:
        """Columns of the table by name, for all predictions, masked ones included."""
        columns = {}
        for c in range(self.mean.shape[1]):
            columns[f"mean_{c}"], columns[f"se_{c}"] = self.mean[:, c], self.std[:, c]
        return columns

    def _repr_html_(self) -> str | None:
        """The first inputs as a table in a notebook; their text without pandas."""
        return notebook_table(self._caption, lambda: self._first.to_frame())

    def __rich__(self) -> rich.table.Table:
        """The first inputs as a table in a terminal: `rich.print(prediction)`."""
        return terminal_table(self._caption, self._first.to_dict(_LEVEL))

    @property
    def _first(self) -> Self:
        """As many of the first predictions as it takes for so many rows of a table."""
        rows = np.flatnonzero(~self.masked)[:_SHOWN]
        return self[: int(rows[-1]) + 1] if len(rows) else self

    @property
    def _caption(self) -> str:
        """Title of a table that shows the first predictions."""
        many = np.count_nonzero(~self.masked) > _SHOWN
        return f"{self!r}, the first {_SHOWN}" if many else repr(self)

    @property
    def _count(self) -> str:
        """How many predictions there are, in words."""
        n_masked = int(np.count_nonzero(self.masked))
        return f"{len(self)} inputs" + (f" ({n_masked} masked)" if n_masked else "")

    def _unless_masked(self, values: Array) -> Array:
        """One number a prediction, NaN for those that are masked."""
        return np.where(self.masked, np.nan, values)

    @classmethod
    def of_moments(
        cls, likelihood: Likelihood, moments: Moments, masked: Array, noise: NoiseRange | None
    ) -> Self:
        """Make the prediction of a likelihood from logits, means and their covariances.

        Args:
            likelihood: whose outcome is that of the class.
            moments: the first six fields.
            masked: predictions that the mask on the model's output takes out `[N]`.
            noise: how far the estimated noise of a regression is known; None elsewhere.
        """
        del likelihood, noise
        return cls(*moments, masked=masked)

    def checked_truth(self, y: npt.ArrayLike) -> Array:
        """Labels in the form that the prediction has: class numbers `[N]`, otherwise `[N, C]`.

        Args:
            y: `[N]`, `[N, 1]` or `[N, C]`; of classes, one-hot rows will do.

        Raises:
            InvalidInputError: they do not fit the prediction.
        """
        n, n_outputs = self.logits.shape
        truth = truth_of(y, self.masked)
        truth = truth[:, None] if truth.shape == (n,) and n_outputs == 1 else truth
        refuse_unless(truth.shape == (n, n_outputs), f"labels [{n}, {n_outputs}]", truth)
        return truth

    def is_wrong(self, y: npt.ArrayLike) -> Array | None:
        """Whether each input was misclassified `[N]`; None where nothing is classified.

        Args:
            y: labels, as `checked_truth` takes them.
        """
        return None

    @property
    def least_confidence(self) -> Array | None:
        """The score 1 - max p `[N]`, which needs no standard errors; None where there is no such p.

        It is what a score from standard errors has to be better than.
        """
        return None

    def distribution(self) -> Distribution:
        """The normal distribution of the logits, `tfp.distributions`, batch `[N]`, event `[C]`.

        The link function of its samples gives samples of the means.
        """
        import tensorflow_probability as tfp

        values, vectors = np.linalg.eigh(self.logit_covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        return tfp.distributions.MultivariateNormalLinearOperator(
            loc=tf.constant(self.logits), scale=tf.linalg.LinearOperatorFullMatrix(root)
        )


def join(parts: Sequence[Kind]) -> Kind:
    """Put predictions of several batches of inputs together to one, in their order."""
    return _each_column(np.concatenate, *parts)


def normal_quantile(level: float) -> float:
    """The q for which a standard normal lies in -q to q with a given probability.

    Args:
        level: the probability, in (0, 1).

    Raises:
        InvalidInputError: the level is not between 0 and 1.
    """
    return float(scipy.stats.norm.ppf(0.5 + check_share("level", level, example=0.95) / 2))


def _each_column(function: Callable[[list[Array]], Array], *parts: Kind) -> Kind:
    """Make one prediction of some, column by column; what is not a column is that of the first."""
    columns: dict[str, Any] = {}
    for name in (each.name for each in fields(parts[0])):
        column = [getattr(part, name) for part in parts]
        columns[name] = function(column) if isinstance(column[0], np.ndarray) else column[0]
    return type(parts[0])(**columns)


def _unstacked(limits: Array | None, name: str) -> tuple[Array, Array]:
    """Limits `[..., 2]` as (low, high), or `InvalidInputError` where there are none."""
    if limits is None:
        raise InvalidInputError(
            f"{name} needs a bound on what the eigenpairs leave out",
            expected="a curvature that was fitted with bounds",
            received="one fitted with bounds=False",
            remedy="pass bounds=True (the default) and fit again; it takes a few more passes over "
            "the data",
        )
    return limits[..., 0], limits[..., 1]
