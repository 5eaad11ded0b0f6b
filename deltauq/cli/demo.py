"""The main job on real data: train on digits, put error bars on held-out ones, report."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import sklearn.datasets
import sklearn.model_selection

from deltauq import report
from deltauq.cli.output import write_whole
from deltauq.estimators.classifier import DeltaClassifier
from deltauq.evaluation.comparison import Comparison, compare
from deltauq.prediction import Prediction
from deltauq.runtime.whole_files import written_whole

__all__ = ["run_demo"]

#: Hidden units, few enough parameters (2,410) for every curvature to be taken whole; and an L2 rate
#: with which the data determine every probability: no standard error is beyond what a probability
#: can have.
_HIDDEN, _L2 = (32,), 0.01


def run_demo(directory: Path, *, seed: int = 0, progress: bool = True) -> dict[str, Any]:
    """Train a classifier on scikit-learn's digits and write what it found.

    Writes `report.html`, `predictions.csv`, `summary.json` and the plots as PNG.

    Args:
        directory: made when it is missing; files of the same names are replaced.
        seed: of the split and the training.
        progress: show progress bars.

    Returns:
        The summary, as in `summary.json`.
    """
    digits = sklearn.datasets.load_digits()
    images = digits.images
    train, held_out = sklearn.model_selection.train_test_split(
        np.arange(len(images)), test_size=0.25, random_state=seed, stratify=digits.target
    )
    X, y = digits.data / 16.0, digits.target
    clf = DeltaClassifier(_HIDDEN, l2=_L2, random_state=seed, progress=progress)
    clf.fit(X[train], y[train])
    comparison = compare(
        clf.model_,
        X[train],
        y[train],
        X[held_out],
        y[held_out],
        curvatures=("hessian", "opg", "ggn"),
        l2=clf.l2,
        seed=seed,
        progress=progress,
    )
    study = report.Study.of_comparison(
        comparison,
        title="Handwritten digits with error bars",
        stationarity=clf.stationarity_,
        verdict=clf.verdict_,
        tolerance=clf.tol,
        l2=clf.l2,
        spectrum_l2=clf.l2,
        n_train=len(train),
        class_names=tuple(str(name) for name in digits.target_names),
        images=images[held_out],
    )
    summary = _summary(clf, comparison, y[held_out])
    _write(directory, study, summary, held_out)
    return summary


def _summary(clf: DeltaClassifier, comparison: Comparison, y: npt.NDArray[Any]) -> dict[str, Any]:
    """The figures of the demo as they stand in `summary.json`."""
    prediction = cast(Prediction, comparison.reference.prediction)
    return {
        "test_accuracy": float(np.mean(prediction.labels == y)),
        "n_train": int(clf.delta_.n_examples),
        "n_held_out": len(y),
        "n_params": comparison.reference.eigenpairs.n_params,
        "l2": clf.l2,
        "stationarity": asdict(clf.stationarity_)
        | {"ratio": clf.stationarity_.ratio, "verdict": clf.verdict_},
        "smallest_hessian_eigenvalue": comparison["hessian"].eigenpairs.smallest,
        "exact": all(run.is_exact for run in comparison.runs),
        "route": repr(comparison.reference.route),
        "auroc_of_one_minus_max_p": comparison.baseline_auroc(),
        "curvatures": comparison.rows(),
    }


def _write(
    directory: Path, study: report.Study, summary: dict[str, Any], rows: npt.NDArray[Any]
) -> None:
    """Write the page, the plots, the table and the summary to a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    figures = study.figures()
    for name, figure in figures.items():
        with written_whole(directory / f"{name}.png") as beside:
            figure.savefig(beside, dpi=150, bbox_inches="tight")
    write_whole(directory / "report.html", study.to_html(figures))
    frame = study.prediction.to_frame()
    frame.insert(0, "digit", rows)
    frame.insert(1, "true", study.y)
    write_whole(directory / "predictions.csv", frame.to_csv(index=False))
    write_whole(directory / "summary.json", json.dumps(summary, indent=2) + "\n")
