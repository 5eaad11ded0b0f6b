"""Several curvatures of one model side by side on the same inputs."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.curvature.registry import CURVATURES, Curvature, names_where
from deltauq.data.arrays import as_labels
from deltauq.data.training import TrainingData
from deltauq.delta.delta_method import DeltaMethod
from deltauq.delta.routes import Route
from deltauq.delta.settings import Settings
from deltauq.errors import InvalidInputError, optional
from deltauq.evaluation.metrics import Agreement, agreement, error_auroc
from deltauq.linalg import Eigenpairs, Spectrum
from deltauq.prediction import Estimate
from deltauq.prediction.tables import notebook_table, terminal_table
from deltauq.runtime.showing import Shown

if TYPE_CHECKING:
    import pandas as pd
    import rich.console
    from matplotlib.axes import Axes

__all__ = ["Comparison", "Run", "compare", "labels_of", "unit_of"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Run:
    """Results of one curvature in a comparison: predictions, eigenvalues and time.

    Attributes:
        curvature: its name.
        prediction: on the evaluation inputs, an `Estimate` of the likelihood's kind.
        eigenpairs: of the data curvature; of an exact fit that took none a `Spectrum`, its
            eigenvalues alone.
        fit_seconds: wall time of the fit.
        route: how the curvature was reached, with its `why`; None where that is not known.
    """

    curvature: str
    prediction: Estimate
    eigenpairs: Eigenpairs | Spectrum
    fit_seconds: float
    route: Route | None = None

    @classmethod
    def of(cls, dm: DeltaMethod, prediction: Estimate) -> Run:
        """The run of a fitted method, with its predictions of some inputs."""
        curvature = dm.fitted_settings.curvature
        return cls(curvature, prediction, dm.spectrum, dm.fit_seconds, dm.fitted_route)

    def __repr__(self) -> str:
        kept = "exact" if self.is_exact else f"K = {self.eigenpairs.rank}"
        return f"{self.curvature}: {kept}, {self.prediction!r}"

    @property
    def is_exact(self) -> bool:
        """Whether nothing of the curvature was left out."""
        return self.eigenpairs.rank == self.eigenpairs.n_params

    @property
    def certainty(self) -> str:
        """How far a typical standard error is known, in a few words, as `Estimate.certainty`."""
        return self.prediction.unmasked.certainty

    @property
    def kept_bytes(self) -> int | None:
        """Bytes of memory that the eigenvectors take once the fit is done; None without any."""
        pairs = self.eigenpairs
        return int(pairs.vectors.nbytes) if isinstance(pairs, Eigenpairs) else None


@dataclass(frozen=True)
class Comparison(Shown):
    """Curvatures compared on the same inputs; the first is the reference.

    Attributes:
        runs: one per curvature, the reference first.
        y: labels of the evaluation inputs, class numbers `[N]` as a rule; or None. What is masked
            stays out of all figures.
        unit: what a prediction is of: "input", or "prediction" where an input makes several.
    """

    runs: tuple[Run, ...]
    y: Array | None = None
    unit: str = "input"

    def __repr__(self) -> str:
        return f"Comparison({', '.join(map(repr, self.runs))})"

    def __getitem__(self, curvature: str) -> Run:
        """The run of one curvature."""
        for run in self.runs:
            if isinstance(curvature, str) and run.curvature == curvature:
                return run
        raise InvalidInputError(
            f"{reprlib.repr(curvature)} was not compared",
            expected=f"one of {[run.curvature for run in self.runs]}",
            received=reprlib.repr(curvature),
        )

    @property
    def reference(self) -> Run:
        """The run that all others are compared with, which is the first."""
        return self.runs[0]

    def agreement(self, curvature: str) -> Agreement:
        """Measure how a curvature's standard errors of the means follow the reference's."""
        runs = (self.reference, self[curvature])
        return agreement(*(run.prediction.unmasked.std for run in runs))

    def auroc(self, curvature: str) -> float | None:
        """AUROC of a curvature's score for misclassification; None without labels or errors."""
        prediction = self[curvature].prediction
        wrong = None if self.y is None else prediction.is_wrong(self.y)
        return None if wrong is None else _auroc(prediction, prediction.score, wrong)

    def baseline_auroc(self) -> float | None:
        """AUROC of 1 - max p, which needs no curvature at all; None where there are no classes."""
        prediction = self.reference.prediction
        unsure = prediction.least_confidence
        if self.y is None or unsure is None:
            return None
        wrong = prediction.is_wrong(self.y)
        return None if wrong is None else _auroc(prediction, unsure, wrong)

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table of figures, one dictionary per curvature."""
        table = []
        for run in self.runs:
            fit, kept = self.agreement(run.curvature), run.kept_bytes
            table.append(
                {
                    "curvature": run.curvature,
                    "rank": run.eigenpairs.rank,
                    "median_std": float(np.median(run.prediction.unmasked.std)),
                    "slope": fit.slope,
                    "r_squared": fit.r_squared,
                    "spearman": fit.spearman,
                    "median_ratio": fit.median_ratio,
                    "auroc": self.auroc(run.curvature),
                    "seconds": run.fit_seconds,
                    "kept_megabytes": None if kept is None else kept / 2**20,
                    "route": None if run.route is None else str(run.route),
                    "certainty": run.certainty,
                }
            )
        return table

    def to_frame(self) -> pd.DataFrame:
        """The table as a pandas frame, indexed by curvature."""
        frames = optional("pandas", needed_by="to_frame() needs pandas", extra="report")
        return frames.DataFrame(self.rows()).set_index("curvature")

    def _repr_html_(self) -> str | None:
        """The table in a notebook; the text without pandas."""
        return notebook_table(self._caption, self.to_frame)

    def __rich__(self) -> rich.console.Group:
        """The table for a terminal, and a line on each curvature: `rich.print(comparison)`."""
        from rich.console import Group
        from rich.text import Text

        rows = self.rows()
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != "certainty"}
        lines = [f"{row['curvature']}: {row['certainty']}" for row in rows]
        known = "\n  ".join(["How far the standard errors are known:", *lines])
        return Group(terminal_table(self._caption, columns), Text(known))

    @property
    def _caption(self) -> str:
        return f"Standard errors against curvature={self.reference.curvature!r}"

    def plot(self, curvature: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw one curvature's standard errors against the reference's, one point a probability.

        Args:
            curvature: its name; None takes the last one.
            ax: matplotlib axes; None makes a figure.
        """
        last = self.runs[-1].curvature
        return self._draw("comparison", last if curvature is None else curvature, ax=ax)

    def to_html(self, title: str = "Curvatures compared", **parts: Any) -> str:
        """A report on the reference's predictions and on the comparison, as one HTML page.

        Args:
            title: of the page.
            **parts: other attributes of `deltauq.report.Study`: class_names, images, ...
        """
        return self._page("of_comparison", title=title, **parts)


def unit_of(dm: DeltaMethod) -> str:
    """What a prediction is of, in one word: an input, or a prediction where inputs make several."""
    return "input" if dm.fitted_likelihood.positions == 1 else "prediction"


def compare(
    model: Any,
    x: Any,
    y: Any,
    x_eval: Any,
    y_eval: Any = None,
    *,
    sample_weight: Any = None,
    class_weight: Any = None,
    calibration: Any = None,
    curvatures: Sequence[Curvature] = ("hessian", "opg"),
    **options: Any,
) -> Comparison:
    """Fit several curvatures to one model and predict the same inputs with each.

    Args:
        model: as for `DeltaMethod`.
        x: the training inputs, `[N, ...]` or a dataset.
        y: class numbers `[N]`, or None with a dataset.
        x_eval: the inputs to predict.
        y_eval: their class numbers, for the AUROC of the score for misclassification; or None.
        sample_weight: of the training inputs, as `DeltaMethod.fit` takes them.
        class_weight: as `DeltaMethod.fit` takes them.
        calibration: inputs such as will be predicted, that were not trained on, as
            `DeltaMethod.fit` takes them. The tails of those curvatures that can be measured are
            measured on them (of OPG and GGN), and the table's `certainty` is promised for inputs
            like them; that takes further passes over the data.
        curvatures: names, the reference first.
        **options: as for `DeltaMethod`: rank, l2, tail, ...

    Returns:
        A `Comparison`.

    Raises:
        InvalidInputError: curvatures that there are none of, or fewer than two; calibration inputs
            that none of them has a use for; and what `DeltaMethod` refuses.
    """
    given: Any = curvatures
    if isinstance(given, np.ndarray):
        given = given.tolist()
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    names: list[Any] = list(given) if listed else []
    known = all(isinstance(name, str) and name in CURVATURES for name in names)
    if not known or len(names) < 2 or len(set(names)) < len(names):
        raise InvalidInputError(
            "curvatures cannot be compared",
            expected=f"two or more different names out of {list(CURVATURES)}",
            received=reprlib.repr(curvatures),
        )
    training = TrainingData(x, y, sample_weight, class_weight)
    settings = {name: DeltaMethod(model, name, **options).settings for name in names}
    measuring = [] if calibration is None else _measuring(settings)
    inputs = dict.fromkeys(measuring, calibration)
    runs = []
    for name in names:
        dm = DeltaMethod(model, name, **options).fit(*training, calibration=inputs.get(name))
        prediction = dm.predict(x_eval)
        if name in inputs:
            prediction.measure_certainty()
        labels = None if y_eval is None else labels_of(y_eval, prediction, dm)
        runs.append(Run.of(dm, prediction))
    return Comparison(tuple(runs), labels, unit_of(dm))


def _measuring(settings: Mapping[str, Settings]) -> list[str]:
    """Curvatures whose tail is measured on calibration inputs; refused where there is none."""
    possible = {name: each for name, each in settings.items() if each.kind.semidefinite}
    if not possible:
        raise InvalidInputError(
            "calibration inputs have no use here: no tail is measured on them",
            expected=f"{names_where(lambda kind: kind.semidefinite, 'or')} among the curvatures",
            received=repr(list(settings)),
            remedy="leave calibration=... out, or compare one of them too",
        )
    for each in possible.values():
        each.check_calibration()
    return list(possible)


def _auroc(prediction: Estimate, score: Array, wrong: Array) -> float | None:
    """Of the predictions that are not masked."""
    return error_auroc(score[~prediction.masked], wrong[~prediction.masked])


def labels_of(y_eval: Any, prediction: Estimate, dm: DeltaMethod) -> Array:
    """Labels of evaluation inputs as the likelihood's `check_labels` gives them, one a prediction.

    Raises:
        InvalidInputError: they are none of the likelihood, or of another number.
    """
    n_inputs = len(prediction)
    likelihood = dm.fitted_likelihood
    labels = likelihood.check_labels(as_labels(y_eval, counted=~prediction.masked), dm.n_outputs)
    labels = labels.reshape(-1, *labels.shape[likelihood.observed_axes :])  # one a prediction
    if len(labels) != n_inputs:
        raise InvalidInputError(
            "y_eval has the wrong shape",
            expected=f"labels of {n_inputs} predictions, one for every row of x_eval",
            received=f"labels of {len(labels)}",
        )
    return labels
