"""The contents of a report: the predictions, and all that is known about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature.cost import MINIMUM, Stationarity
from deltauq.curvature.minimization import Verdict
from deltauq.data.weights import Weighting
from deltauq.delta.caveats import Caveat
from deltauq.errors import InvalidInputError
from deltauq.evaluation.comparison import Comparison, Run
from deltauq.plots.points import counted, output_names, refuse_other

if TYPE_CHECKING:
    from deltauq.evaluation.diagnosis import Diagnosis

__all__ = ["ReportContents"]

Array = npt.NDArray[Any]

TITLE = "Predictions with standard errors"

#: What objects of other rooms are known by.
_PARTS = {
    "run": ("prediction", "eigenpairs"),
    "diagnosis": ("findings", "advice"),
    "comparison": ("runs", "reference"),
}


@dataclass(frozen=True)
class ReportContents:
    """What a report is about, without the ways to gather it, which `Study` adds.

    It is apart so that the sections of a page need not import those. What is None is left out.

    Attributes:
        title: of the page.
        run: the predictions that the page is about, and the eigenpairs behind them.
        unit: what a prediction is of, in one word: an input, or a prediction where inputs make
            several.
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
        l2: the L2 rate as the user knows it, beside the loss that was minimised; None where there
            is no single one.
        spectrum_l2: the rate in the eigenvalues' unit, beside the mean negative log-likelihood.
        tail: what stands for the eigenpairs left out, as of `DeltaMethod`.
        negative_curvature: what was done with it, as of `DeltaMethod`.
        caveats: of the fit, as of `DeltaMethod`.
        diagnosis: of the model on its training data.
        comparison: of several curvatures.
        rows: numbers of the predictions that are shown, out of all that were given `[N]`: those
            that are masked are left out here, in `run`, `y`, `images` and `feature` too.
        n_masked: how many were left out.
    """

    title: str = TITLE
    run: Run | None = None
    unit: str = "input"
    y: Array | None = None
    class_names: Sequence[str] | None = None
    images: Array | None = None
    feature: Array | None = None
    n_train: float | None = None
    weighting: Weighting = "none"
    stationarity: Stationarity | None = None
    verdict: Verdict | None = None
    tolerance: float = MINIMUM
    l2: float | None = None
    spectrum_l2: float | None = None
    tail: str | None = None
    negative_curvature: str = "project"
    caveats: tuple[Caveat, ...] = ()
    diagnosis: Diagnosis | None = None
    comparison: Comparison | None = None
    rows: Array = field(init=False, default_factory=lambda: np.arange(0))
    n_masked: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if not isinstance(self.title, str):
            raise InvalidInputError(
                "title is no text", expected="the title of the page", received=repr(self.title)
            )
        for name, attributes in _PARTS.items():
            if getattr(self, name) is not None:
                refuse_other(name, getattr(self, name), *attributes)
        if self.run is None:
            return
        if np.all(self.prediction.masked):
            raise InvalidInputError(
                "there is nothing to report",
                expected="at least one input that is not masked",
                received=f"{len(self.prediction)} masked ones" if len(self.prediction) else "none",
            )
        self._leave_out_masked(self.run)
        output_names(self.class_names, self.prediction.logits.shape[1])

    def _leave_out_masked(self, run: Run) -> None:
        """Keep what is about predictions that are not masked."""
        everything = run.prediction
        columns = (self.y, self.images, self.feature)
        prediction, y, images, feature = counted(everything, *columns)
        changed = {
            "run": replace(run, prediction=prediction),
            "y": None if y is None else prediction.checked_truth(y),
            "images": images,
            "feature": feature,
            "rows": np.flatnonzero(~everything.masked),
            "n_masked": len(everything) - len(prediction),
        }
        for name, value in changed.items():
            object.__setattr__(self, name, value)

    @property
    def prediction(self) -> Any:
        """The predictions that the page is about, an `Estimate`."""
        return self.require_run().prediction

    def require_run(self) -> Run:
        """The run that the page is about, which a study of a diagnosis alone has not got.

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
        """Names of the classes, labels or outputs; their numbers where none were given."""
        return output_names(self.class_names, self.prediction.logits.shape[1])

    @property
    def by_score(self) -> Array:
        """Places in `prediction`, the most uncertain first; `rows` has their numbers."""
        return np.argsort(-self.prediction.score, kind="stable")
