"""`Study`: a report on a fitted method, or on a comparison, and where its parts come from."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.delta.delta_method import DeltaMethod
from deltauq.errors import InvalidInputError
from deltauq.evaluation.comparison import Comparison, Run, labels_of, unit_of
from deltauq.evaluation.diagnosis import Diagnosis
from deltauq.report import page
from deltauq.report.contents import TITLE, ReportContents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Study"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Study(ReportContents):
    """Everything a report shows, and the report; what is None is left out of it.

    The attributes are those of `ReportContents`.
    """

    def __post_init__(self) -> None:
        if self.run is not None:
            story = page.story_of(self.run.prediction)
            if self.images is not None and not story.takes_images:
                raise InvalidInputError(
                    "images are shown beside the probabilities of classes",
                    expected="predictions of one of several classes, or no images",
                    received=repr(self.run.prediction),
                )
        super().__post_init__()

    @classmethod
    def of(
        cls,
        dm: DeltaMethod,
        x: Any,
        y: Any = None,
        *,
        title: str = TITLE,
        class_names: Sequence[str] | None = None,
        images: Array | None = None,
        diagnosis: Diagnosis | None = None,
        comparison: Comparison | None = None,
    ) -> Study:
        """Gather a study of what a fitted or loaded `DeltaMethod` says of some inputs.

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
        if not isinstance(dm, DeltaMethod):
            raise InvalidInputError(
                "Study.of is given something else than a method",
                expected="Study.of(dm, x, y) with a fitted DeltaMethod",
                received=repr(dm),
            )
        prediction, likelihood = dm.predict(x), dm.fitted_likelihood
        if class_names is None:
            class_names = likelihood.classes
        truth = None if y is None else labels_of(y, prediction, dm)
        rate, settings = _common_rate(dm), dm.fitted_settings
        return cls(
            title=title,
            run=Run.of(dm, prediction),
            unit=unit_of(dm),
            y=truth,
            class_names=class_names,
            images=images,
            feature=_only_feature(x, len(prediction)),
            n_train=dm.n_examples,
            weighting=dm.weighting,
            stationarity=dm.stationarity,
            l2=rate,
            spectrum_l2=None if rate is None else rate / likelihood.dispersion(dm.n_outputs),
            tail=settings.tail,
            negative_curvature=settings.negative_curvature,
            caveats=dm.caveats,
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
        known = {"run": comparison.reference, "y": comparison.y, "unit": comparison.unit}
        return cls(**known | parts, comparison=comparison)

    @classmethod
    def of_diagnosis(cls, diagnosis: Diagnosis, **parts: Any) -> Study:
        """A study of a model before a fit.

        Args:
            diagnosis: from `diagnose`.
            **parts: other attributes.
        """
        return cls(stationarity=diagnosis.stationarity, diagnosis=diagnosis, **parts)

    def figures(self) -> dict[str, Figure]:
        """The report's figures in its order; the names serve as file names."""
        return page.figures(self)

    def to_html(self, figures: dict[str, Figure] | None = None) -> str:
        """The report as one HTML page that refers to nothing outside itself.

        Args:
            figures: by name, as from `figures`; None draws them.

        Raises:
            InvalidInputError: other figures, such as a path: the page is what is returned.
            MissingDependencyError: without jinja2 or matplotlib.
        """
        drawn = figures.values() if isinstance(figures, Mapping) else [figures]
        if figures is not None and not all(hasattr(each, "savefig") for each in drawn):
            raise InvalidInputError(
                "to_html is given something else than figures",
                expected="figures by name, as study.figures() draws them, or None",
                received=reprlib.repr(figures),
                remedy="to write the page to a file, pathlib.Path(path).write_text("
                "study.to_html(), encoding='utf-8')",
            )
        return page.to_html(self, figures)


def _common_rate(dm: DeltaMethod) -> float | None:
    """The one L2 rate of all variables; None where they have different ones."""
    rates = set(dm.l2_rates.values())
    return rates.pop() if len(rates) == 1 else None


def _only_feature(x: Any, n_predictions: int) -> Array | None:
    """The values of the one feature `[N]`; None where there are several, or no array."""
    if not hasattr(x, "shape"):
        return None
    values = np.asarray(x)
    one = values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)
    one = one and len(values) == n_predictions
    return values.ravel() if one and values.dtype.kind in "fiu" else None
