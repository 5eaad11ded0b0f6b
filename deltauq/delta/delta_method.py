"""`DeltaMethod`: wrap a trained classifier, get its predictions with standard errors."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from deltauq.curvature.eigenpairs import Rank
from deltauq.curvature.parameter_covariance import NegativeCurvature
from deltauq.curvature.registry import Curvature
from deltauq.curvature.sandwich import Meat
from deltauq.curvature.tails import Tail
from deltauq.data.batch_reader import PassListener
from deltauq.data.training import TrainingData
from deltauq.data.weights import WeightKind
from deltauq.data.work import at_work
from deltauq.delta.answers import Answers
from deltauq.delta.caveats import tell
from deltauq.delta.files.fits import Saved, load_fit, save_fit
from deltauq.delta.files.saved_model import export_fit
from deltauq.delta.fitted import Fitted
from deltauq.delta.resuming import going_on
from deltauq.delta.routes import RouteName
from deltauq.delta.solving import check_measurable
from deltauq.delta.stating import attach_data, state_problem
from deltauq.delta.steps import fit_problem
from deltauq.errors import check_flag, check_path, lying_in
from deltauq.likelihoods import Likelihood
from deltauq.network.l2 import L2
from deltauq.network.network import Layers, Network
from deltauq.runtime.checkpoint import Checkpoint
from deltauq.runtime.faults import faults_told
from deltauq.runtime.threads import refuse_lost_runtime

__all__ = ["DeltaMethod"]


class DeltaMethod(Answers):
    """Epistemic uncertainty of a trained model by the Delta method.

    The model is linearised in its parameters, and their covariance, the inverse of the cost's
    curvature over N, is pushed through. Nothing is trained and the model is not changed.

    Args:
        model: a built Keras 3 model, a `tf_keras` model, a `tf.Module` with a call (which has no L2
            to be read), or the path of a file of Keras 3 or 2 (`.keras`, HDF5, or a SavedModel's
            folder); with one output `[B, C]` or `[B, T, C]`.
        curvature: "ggn" (Gauss-Newton: the Fisher information, close to the exact second
            derivative), "opg" (outer products of gradients: the cheapest of large networks;
            standard errors often larger than the exact ones), "hessian"
            (exact second derivative: slowest, and not positive semidefinite in general) or
            "sandwich" (inverse Hessian, OPG, inverse Hessian: for a model that need not be true).
        rank: eigenpairs kept: a number; "full" (nothing is left out, by the cheapest exact route);
            or "auto" (nothing is left out up to P = 3,000, and beyond where `route` finds that
            worth what it costs; else grows until the part of the standard errors that the tail
            leaves open is under `rank_tol`).
        l2: "auto" (from the Keras regularizers), one rate, or `{glob: rate}`; the cost contains
            (lambda / 2) * sum w^2 beside Keras' loss, a mean over labels or outputs where there are
            several. "tune" chooses a rate by marginal likelihood, after training:
            for models without L2; `caveats` says what that means.
        likelihood: "auto" (read from the compiled loss, label smoothing included, and checked
            against the model's last operation); "categorical" (one of several classes),
            "binary" (one sigmoid), "multilabel" (several), "gaussian" (a regression, its noise
            estimated), "poisson" (counts); a `Likelihood`; or a loss function of logits and labels,
            see `deltauq.likelihoods.CustomLoss`.
        layers: which variables are uncertain: None (all trainable), names or glob patterns, "last"
            (the layer of the model's last variable, which must make its outputs), or a callable
            on variables.
        tail: what stands for the inverse eigenvalues not computed: "auto" ("calibrated" for OPG and
            GGN with bounds: measured on a few inputs; else "midpoint"), "l2", "trace" or "none";
            see `deltauq.curvature.parameter_covariance.low_rank_covariance`.
        rank_tol: relative width for rank="auto".
        negative_curvature: "project" (the Hessian's negative eigenvalues become zero), "raise"
            (refuse them) or "keep" (use them, from both ends of the spectrum).
        meat: of the sandwich: "opg" with the L2 term, as in the paper, or "scores" without it.
        weights: what sample weights are: "counts" (a weight of 2 is the row twice; N is their sum),
            "importance" (a factor on the row's loss, as the weights of classes are; N is the number
            of rows that have any), or "auto": counts where all of them are whole numbers. The
            attribute `weighting` says what they were taken for.
        bounds: bound what the eigenpairs leave out, so that every standard error comes with an
            interval for its own approximation error (`Prediction.std_bounds`); takes up to five
            more passes over the data.
        batch_size: rows a step of `fit`, `predict` and `predict_mean`; None chooses it from the
            model's size. `refine` and `predict_joint` take as many as memory has room for.
        memory_limit: of the whole process, bytes or text such as "8GiB"; None uses a safe share of
            what is free. Batches and buffers are chosen to stay under it, and `fit` refuses a rank
            that cannot.
        vectors_dir: a directory on a large disk: the eigenvectors and the solver's other vectors of
            length P then live there, in files that are mapped into memory and vanish with the
            object. Slower; for a rank times P beyond memory. None keeps them in memory.
        route: "auto" (the cheapest route that leaves nothing out, where it takes at most three
            times as long as a sketch of 600 eigenpairs; for a rank that is a number, eigenpairs),
            or one by name: "dense" (the curvature itself), "gram" (inner products of all its rows:
            OPG and GGN of few examples), "sketch" or "lanczos" (leading eigenpairs). Once there is
            a fit, the attribute says which one was taken, and its `why` for what reason;
            `settings.route` is what was asked for.
        seed: of the random start of the eigenvalue solvers.
        progress: show a progress bar for work over a second: the stages of a fit, what each is for,
            and how long all of them may take yet, "at most" where that is a bound. Where standard
            error is no terminal it is a line now and then, the first after half a minute.

    Attributes:
        is_exact: whether nothing of the curvature was left out.
        eigenpairs: of the mean data curvature, an `Eigenpairs`; an exact fit forms them when they
            are asked for. `spectrum` has the eigenvalues alone.
        covariance: of the parameters, a `tf.linalg.LinearOperator` `[P, P]`.
        caveats: what to know before the standard errors are believed, in one place, each with its
            `subject`, `in_short` and `text`.
        stationarity: how nearly the cost's gradient vanishes at the weights.
        n_examples: N, the training examples: the sum of their counts, where those are weights,
            without what is masked.
        weighting: what the weights were taken for: "none", "counts", "importance", or "counts and
            importance" (of samples, and of classes).
        fit_seconds: wall time of `fit`.

    Raises:
        InvalidInputError: a curvature, tail or other choice that there is none of.

    Source: G. K. Nilsen et al., arXiv 1912.00832 and 2107.01606.

    >>> from sklearn.datasets import load_iris
    >>> from deltauq import DeltaClassifier
    >>> x, y = load_iris(return_X_y=True)
    >>> model = DeltaClassifier(hidden_units=(4,), l2=0.1, progress=False).fit(x, y).model_
    >>> dm = DeltaMethod(model, curvature="ggn", progress=False).fit(x, y)
    >>> dm.predict(x[:2]).std.shape
    (2, 3)
    """

    def __init__(
        self,
        model: Any,
        curvature: Curvature = "ggn",
        *,
        rank: Rank = "auto",
        l2: L2 = "auto",
        likelihood: str | Likelihood = "auto",
        layers: Layers = None,
        tail: Tail = "auto",
        rank_tol: float = 0.05,
        negative_curvature: NegativeCurvature = "project",
        meat: Meat = "opg",
        weights: WeightKind = "auto",
        bounds: bool = True,
        batch_size: int | None = None,
        memory_limit: int | str | None = None,
        vectors_dir: str | Path | None = None,
        route: RouteName = "auto",
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        self._fitted: Fitted | None = None
        self.model = model
        self.curvature = curvature
        self.rank = rank
        self.l2 = l2
        self.likelihood = likelihood
        self.layers = layers
        self.tail = tail
        self.rank_tol = rank_tol
        self.negative_curvature = negative_curvature
        self.meat = meat
        self.weights = weights
        self.bounds = bounds
        self.batch_size = batch_size
        self.memory_limit = memory_limit
        self.vectors_dir = vectors_dir
        self.route = route
        self.seed = seed
        self.progress = progress
        _ = self.settings  # which check themselves

    @property
    def route(self) -> str:
        """The route as it was asked for, and of a fit the one that was taken, with its `why`."""
        taken = None if self._fitted is None else self._fitted.route
        return vars(self)["route"] if taken is None else taken

    @route.setter
    def route(self, route: RouteName) -> None:
        """Ask for a route of the next fit."""
        vars(self)["route"] = route

    def __repr__(self) -> str:
        name = getattr(self.model, "name", None) or str(self.model)
        fit = "not fitted"
        if self._fitted is not None:
            weighted = "" if self.weighting == "none" else f" (weights: {self.weighting})"
            fit = f"N = {self.n_examples:g}{weighted}, {self._fitted.in_short}"
            if self._fitted.data_in_file:
                fit += "; its file holds the training data"
            if self.caveats:
                fit += f"; caveats: {', '.join(each.subject for each in self.caveats)}"
        return f"DeltaMethod({name}, {self.curvature}: {fit})"

    @faults_told("fitting")
    def fit(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        *,
        calibration: Any = None,
        checkpoint: str | Path | None = None,
    ) -> DeltaMethod:
        """Compute the curvature on the training data and the parameters' covariance.

        Args:
            x: the training inputs: an array, tensor or list `[N, ...]`, a pandas frame, a list or
                dict of arrays for several inputs; or a finite `tf.data.Dataset`, batched or not,
                or `keras.utils.PyDataset`, of `(x, y)` or `(x, y, weight)`. A dataset is read
                several times, and must yield the same examples each time.
            y: labels `[N]`, in any of these forms; None beside a dataset. What the mask on the
                model's output takes out is left out here as it is in Keras' losses; its labels may
                be anything.
            sample_weight: `[N]`; counts or importance, as `weights` says. A weight of zero leaves
                the row out.
            class_weight: `{class number: weight}`, as Keras' `fit` takes it: multiplies the
                importance of that class's examples; classes that are left out have one.
            calibration: inputs such as will be predicted, without labels, that were not trained on:
                what few eigenpairs leave out is measured on them (32 or more will do), and
                `Prediction.std_range` promises its level for inputs like them. None takes one in
                twenty of the training inputs, 32 at most; of a dataset, whose order may change,
                none, and the middle of what is possible stands for the tail. Not read where nothing
                is left out.
            checkpoint: a directory that is this fit's alone, made where it is missing: what takes
                long is written there while the fit goes on. After an interruption, or the end of
                the process, the same call goes on from there, and comes to what an undisturbed fit
                would have. A fit that is done leaves the directory empty.

        Returns:
            self.

        Raises:
            InvalidInputError: data or arguments that cannot be used; a checkpoint of another fit.
            WriteError: the disk of the checkpoint is full; what is there is whole.
            UnsupportedModelError: a model, loss or penalty that cannot be used.
            NotPositiveDefiniteError: no covariance exists under the asked treatment of negative
                curvature.
        """
        started = time.monotonic()
        self._fitted = None
        settings, training = self.settings, TrainingData(x, y, sample_weight, class_weight)
        if calibration is not None:
            settings.check_calibration()
        storage, record = settings.storage(), None if checkpoint is None else Checkpoint(checkpoint)
        problem = state_problem(Network(self.model, layers=settings.layers), training, settings)
        if calibration is not None or settings.tail == "calibrated":
            check_measurable(problem, settings)
        if calibration is not None:
            with lying_in("calibration=..."):
                problem = replace(problem, calibration=self._inputs(calibration, problem))
        name = settings.curvature
        with (
            at_work(f"{name}: the cost", enabled=settings.progress) as (shown, listener),
            going_on(record, problem.at_work(listener), settings, shown.note) as steps,
        ):
            fitted = fit_problem(
                problem.at_work(listener, steps),
                settings,
                storage,
                tell_route=lambda route: shown.describe(f"{name} by {route}", route.why),
            )
        problem = fitted.problem.at_work(PassListener())  # the display is closed
        self._fitted = replace(fitted, problem=problem, seconds=time.monotonic() - started)
        tell(fitted.caveats)
        return self

    @faults_told("saving")
    def save(
        self,
        path: str | Path,
        *,
        with_model: bool = True,
        vectors_dtype: str | None = None,
        training_data: bool = False,
    ) -> Saved:
        """Write everything that predictions need to one file, an artifact.

        An older file of that name stays whole until the new one is. The file is in the safetensors
        format, holds no code, and has a checksum. Beside weights and eigenvectors it holds a few
        rows like the first training inputs, noise added or mixed, on which derivatives are checked
        when it is loaded, and sums by which the training data can be known again; with
        `training_data=True` it holds the training data themselves.

        Args:
            path: of the file, such as "m.deltauq".
            with_model: put the model into the file, in Keras' own format; otherwise `load` needs
                it, and knows it by a hash of its weights.
            vectors_dtype: "float16" or "bfloat16" for eigenvectors in half the bytes, "float32" for
                those of a float64 model; None keeps them as they are. Bounds are widened for what
                it costs, which the result says.
            training_data: of a fit by the route "gram", keep all training data (inputs, labels and
                weights, for anyone who has the file) and a factor `[n, n]` of its n rows in place
                of eigenvectors. The file is far smaller where P is much above n, and what is loaded
                predicts as the fit does, exact, with nothing to `attach`. `load` takes a pass over
                the data.

        Returns:
            What was written.

        Raises:
            NotFittedError: before `fit`.
            InvalidInputError: a model that Keras cannot save, or whose weights have changed;
                `training_data=True` of a fit that is not by rows, of a dataset or a custom loss.
            WriteError: the disk is full, or the place cannot be written to. What stood there before
                is as it was.
        """
        fitted = self._require_fitted("save")
        check_flag("training_data", training_data)
        check_flag("with_model", with_model)
        return save_fit(
            fitted,
            check_path("path", path),
            self.settings,
            with_model=with_model,
            vectors_dtype=vectors_dtype,
            training_data=training_data,
        )

    @classmethod
    @faults_told("loading")
    def load(cls, path: str | Path, model: Any = None) -> Self:
        """Load what `save` wrote, ready to predict.

        Args:
            path: of the file.
            model: the model that was wrapped, with the weights it had; None for the one in the
                file. Code of your own in it (subclasses, registered functions) must be imported.

        Raises:
            ArtifactError: no such file, a damaged or newer one, another model, or training data
                whose rows are no longer what they were.
            MemoryLimitError: training data in the file whose rows do not fit.
        """
        refuse_lost_runtime()
        model, fitted, settings = load_fit(check_path("path", path), model)
        method = cls(model, **settings.as_arguments())
        method._fitted = fitted
        return method

    @faults_told("exporting")
    def export(
        self, path: str | Path, *, level: float = 0.95, batch_size: int | None = None
    ) -> None:
        """Write a SavedModel that predicts with standard errors where there is TensorFlow alone.

        The signature "serving_default" gives `probabilities` `[B, C]` (of numbers and counts
        `mean`), `std`, `std_low`, `std_high`, `lower` and `upper` of the interval, and `score`
        `[B]`, in float64; `masked` `[B]`, where the score is NaN; of probabilities `predictive`,
        their averages as `predictive("probit")` of the prediction has them; of a regression
        `observation_lower` and `observation_upper` too, of counts `observation_std` in their place:
        their quantiles are not TensorFlow's. The signature "mean" gives the first of them, at the
        cost of the model itself. The input is named `x`, several are named as in their dict, or
        `x_0`, `x_1`, ... A call holds `[B, C, P]` numbers.

        Args:
            path: a directory that does not exist yet.
            level: of the intervals.
            batch_size: B; None for any.

        Raises:
            NotFittedError: before `fit`.
            InvalidInputError: a directory that exists, a level outside (0, 1).
            WriteError: the disk is full, or the place cannot be written to; nothing is left there.
        """
        fitted = self._require_fitted("export")
        export_fit(fitted, check_path("path", path), level=level, batch_size=batch_size)

    @faults_told("attaching the data")
    def attach(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None
    ) -> Self:
        """Give the training data back to a loaded method, for `refine` and other further passes.

        A method that has its data takes them in this form from then on.

        Args:
            x: as `fit` had it, and so the others; the order of the examples does not matter.
            y: labels.
            sample_weight: weights.
            class_weight: weights of classes.

        Returns:
            self.

        Raises:
            InvalidInputError: other data than those, or weights that mean something else.
        """
        fitted = self._require_fitted("attach")
        training = TrainingData(x, y, sample_weight, class_weight)
        settings = replace(self.settings, **fitted.settings.of_covariance())
        self._fitted = replace(fitted, problem=attach_data(fitted.problem, training, settings))
        return self
