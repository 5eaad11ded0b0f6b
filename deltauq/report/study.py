"""`Study`: everything a report can show, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.comparison import Comparison, Run, labels_of
from deltauq.cost import Stationarity
from deltauq.errors import InvalidInputError
from deltauq.likelihoods import Categorical
from deltauq.plots.points import checked_truth, counted, output_names
from deltauq.prediction import (
    MultiLabelPrediction,
    Prediction,
    RegressionPrediction,
    class_numbers,
)
from deltauq.weights import Weighting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from deltauq.delta import DeltaMethod
    from deltauq.diagnosis import Diagnosis

__all__ = ["Study"]

Array = npt.NDArray[Any]

_TITLE = "Predictions with standard errors"


@dataclass(frozen=True)
class Study:
    """Everything a report shows; what is None is left out of it.

    Attributes:
        title: of the page.
        run: the predictions that the page is about, and the eigenpairs behind them.
        y: what the inputs are in truth: class numbers `[N]`, labels or numbers `[N, C]`.
        class_names: of the classes, labels or outputs `[C]`; None numbers them.
        images: of the inputs, `[N, h, w]` or `[N, h, w, 3]`; of classes only.
        feature: of a regression on one feature, its values `[N]`.
        n_train: training examples, or the sum of their counts.
        weighting: what their weights were taken for, as of `DeltaMethod`.
        stationarity: how nearly the cost's gradient vanishes at the weights.
        verdict: "stationary", "stopped at a kink" or "not converged", where training said so; None
            compares the gradient's ratio with `tolerance`, and its shift with one standard error.
        tolerance: of the gradient's ratio.
        l2: the L2 rate beside the mean loss; None where there is no single one.
        tail: what stands for the eigenpairs left out, as of `DeltaMethod`.
        negative_curvature: what was done with it, as of `DeltaMethod`.
        diagnosis: of the model on its training data.
        comparison: of several curvatures.
        rows: numbers of the predictions that are shown, out of all that were given `[N]`: those
            that are masked are left out here, in `run`, `y`, `images` and `feature` too.
        n_masked: how many were left out.
    """

    title: str = _TITLE
    run: Run | None = None
    y: Array | None = None
    class_names: Sequence[str] | None = None
    images: Array | None = None
    feature: Array | None = None
    n_train: float | None = None
    weighting: Weighting = "none"
    stationarity: Stationarity | None = None
    verdict: str | None = None
    tolerance: float = 0.02
    l2: float | None = None
    tail: str | None = None
    negative_curvature: str = "project"
    diagnosis: Diagnosis | None = None
    comparison: Comparison | None = None
    rows: Array = field(init=False, default_factory=lambda: np.arange(0))
    n_masked: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.run is None:
            return
        kinds = (Prediction, MultiLabelPrediction, RegressionPrediction)
        if not isinstance(self.run.prediction, kinds):
            raise InvalidInputError(
                "a report cannot tell this kind of prediction",
                expected="predictions of one of several classes, of several labels, or of numbers",
                received=repr(self.run.prediction),
                remedy="predict without classes=",
            )
        if np.all(self.prediction.masked):
            raise InvalidInputError(
                "there is nothing to report",
                expected="at least one input that is not masked",
                received=f"{len(self.prediction)} masked ones" if len(self.prediction) else "none",
            )
        self._leave_out_masked(self.run)
        output_names(self.class_names, self.prediction.logits.shape[1])
        if self.y is not None:
            checked_truth(self.prediction, self.y)
        if self.images is not None and not isinstance(self.prediction, Prediction):
            raise InvalidInputError(
                "images are shown beside the probabilities of classes",
                expected="predictions of one of several classes, or no images",
                received=repr(self.prediction),
            )

    def _leave_out_masked(self, run: Run) -> None:
        """Keep what is about predictions that are not masked."""
        everything = run.prediction
        columns = (self.y, self.images, self.feature)
        prediction, y, images, feature = counted(everything, *columns)
        changed = {
            "run": replace(run, prediction=prediction),
            "y": y,
            "images": images,
            "feature": feature,
            "rows": np.flatnonzero(~everything.masked),
            "n_masked": len(everything) - len(prediction),
        }
        for name, value in changed.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(
        cls,
        dm: DeltaMethod,
        x: Any,
        y: Any = None,
        *,
        title: str = _TITLE,
        class_names: Sequence[str] | None = None,
        images: Array | None = None,
        diagnosis: Diagnosis | None = None,
        comparison: Comparison | None = None,
    ) -> Study:
        """What a fitted or loaded `DeltaMethod` says of some inputs.

        Args:
            dm: fitted.
            x: the inputs, as `DeltaMethod.predict` takes them.
            y: what they are, as `DeltaMethod.fit` takes labels; or None.
            title: of the page.
            class_names: `[C]`; None takes the names the model was fitted with, or numbers.
            images: of the inputs, to be shown; `[N, h, w]` or `[N, h, w, 3]`.
            diagnosis: from `diagnose`.
            comparison: from `compare`, on any inputs.
        """
        if not hasattr(dm, "fitted_likelihood"):
            raise InvalidInputError(
                "Study.of is given something else than a method",
                expected="Study.of(dm, x, y) with a fitted DeltaMethod",
                received=repr(dm),
            )
        prediction, likelihood = dm.predict(x), dm.fitted_likelihood
        if class_names is None and isinstance(likelihood, Categorical):
            class_names = likelihood.classes
        truth = None if y is None else labels_of(y, prediction, dm)
        if truth is not None and isinstance(prediction, Prediction):
            truth = class_numbers(truth)
        rate = _common_rate(dm)
        return cls(
            title=title,
            run=Run(dm.curvature, prediction, dm.eigenpairs, dm.fit_seconds),
            y=truth,
            class_names=class_names,
            images=images,
            feature=_only_feature(x) if isinstance(prediction, RegressionPrediction) else None,
            n_train=dm.n_examples,
            weighting=dm.weighting,
            stationarity=dm.stationarity,
            l2=None if rate is None else rate / likelihood.dispersion(dm.n_outputs),
            tail=dm.tail,
            negative_curvature=dm.negative_curvature,
            diagnosis=diagnosis,
            comparison=comparison,
        )

    @classmethod
    def of_comparison(cls, comparison: Comparison, **parts: Any) -> Study:
        """A study of the inputs that curvatures were compared on, by their reference.

        Args:
            comparison: from `compare`.
            **parts: other attributes.
        """
        run, y = comparison.reference, comparison.y
        if y is not None and isinstance(run.prediction, Prediction):
            y = class_numbers(y)
        return cls(run=run, y=y, comparison=comparison, **parts)

    @property
    def prediction(self) -> Any:
        """The predictions, an `Estimate`."""
        return self.require_run().prediction

    def require_run(self) -> Run:
        """The run.

        Raises:
            InvalidInputError: there is none.
        """
        if self.run is None:
            raise InvalidInputError(
                "the study has no predictions", expected="one with a run", received="run=None"
            )
        return self.run

    @property
    def names(self) -> list[str]:
        """Of the classes, labels or outputs."""
        return output_names(self.class_names, self.prediction.logits.shape[1])

    @property
    def by_score(self) -> Array:
        """Numbers of the inputs, the most uncertain first."""
        return np.argsort(-self.prediction.score, kind="stable")

    def figures(self) -> dict[str, Figure]:
        """The report's figures in its order; the names serve as file names."""
        from deltauq.report.page import figures

        return figures(self)

    def to_html(self, figures: dict[str, Figure] | None = None) -> str:
        """The report as one HTML page that refers to nothing outside itself.

        Args:
            figures: by name, as from `figures`; None draws them.

        Raises:
            MissingDependencyError: without jinja2 or matplotlib.
        """
        from deltauq.report.page import to_html

        return to_html(self, figures)


def _common_rate(dm: DeltaMethod) -> float | None:
    """The one L2 rate of all variables; None where they have different ones."""
    rates = set(dm.l2_rates.values())
    return rates.pop() if len(rates) == 1 else None


def _only_feature(x: Any) -> Array | None:
    """The values of the one feature `[N]`; None where there are several, or no array."""
    if not hasattr(x, "shape"):
        return None
    values = np.asarray(x)
    one = values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)
    return values.ravel() if one and values.dtype.kind in "fiu" else None
