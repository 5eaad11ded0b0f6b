"""What can be read of a fitted Delta method: its eigenpairs, its rates, how it was reached."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deltauq.curvature.cost import Stationarity
from deltauq.data.weights import Weighting
from deltauq.delta.caveats import Caveat
from deltauq.delta.fitted import Fitted
from deltauq.delta.routes import Route
from deltauq.delta.settings import Settings
from deltauq.errors import NotFittedError
from deltauq.likelihoods import Likelihood
from deltauq.linalg import Eigenpairs, Spectrum
from deltauq.runtime.threads import refuse_lost_runtime

__all__ = ["FitFacts"]


class FitFacts:
    """What a fit has found, as attributes; each raises `NotFittedError` where there is no fit."""

    _fitted: Fitted | None

    @property
    def eigenpairs(self) -> Eigenpairs:
        """Leading eigenpairs of the mean data curvature, the L2 rate not included.

        An exact fit forms them now, if nothing has asked for them before: all that are above a
        five-hundredth of the L2 rate, without the others of which no standard error grows by more
        than a thousandth.

        With one L2 rate the values are the curvature's own; with several they are those of
        L^-1/2 A L^-1/2, without a dimension.
        """
        return self._require_fitted("eigenpairs").eigenpairs

    @property
    def spectrum(self) -> Eigenpairs | Spectrum:
        """The eigenpairs where the fit has some; of an exact fit without them its eigenvalues.

        An exact route finds eigenpairs when something asks for them, which takes as long as the
        fit or longer. Eigenvalues alone take a fraction of it; more than 6,000 of them are left
        out here too, and `eigenpairs.values` has them.
        """
        return self._require_fitted("spectrum").spectrum

    @property
    def is_exact(self) -> bool:
        """Whether nothing of the curvature was left out: `route` says how it was reached.

        What a file keeps of a fit by the route "gram" are its eigenpairs, so that of a loaded one
        this is False, and its bounds a thousandth of a standard error wide; with
        `save(path, training_data=True)` it is exact.
        """
        return self._require_fitted("is_exact").is_exact

    @property
    def covariance(self) -> tf.linalg.LinearOperator:
        """Covariance of the flat parameters, `[P, P]`, in the model's variable order.

        It is float64 with rank="full" (and "auto" of few parameters), else of the model's
        precision.
        """
        return self._require_fitted("covariance").covariance.to_linear_operator()

    @property
    def stationarity(self) -> Stationarity:
        """How near the weights are to the cost's minimum: its gradient, and a step's `shift`."""
        return self._require_fitted("stationarity").stationarity

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        """What to know before these standard errors are believed, the gravest first; may be empty.

        `fit` warns once of all of them; each has its `text`, in full, and is kept by `save`.
        """
        return self._require_fitted("caveats").caveats

    @property
    def n_params(self) -> int:
        """Number P of uncertain parameters."""
        return self._require_fitted("n_params").problem.network.n_params

    @property
    def n_examples(self) -> float:
        """Number N of training examples, or the sum of their counts."""
        return self._require_fitted("n_examples").problem.data.n_examples

    @property
    def weighting(self) -> Weighting:
        """What the weights of the training examples were taken for."""
        return self._require_fitted("weighting").problem.data.weighting

    @property
    def l2_rates(self) -> dict[str, float]:
        """L2 rate lambda of every uncertain variable by its path, beside the cost minimised."""
        problem = self._require_fitted("l2_rates").problem
        return {
            parameter.path: float(problem.rates[parameter.start]) * problem.dispersion
            for parameter in problem.network.parameters
        }

    @property
    def opened_by(self) -> str | None:
        """Name and version of the Keras that opened the model's file; None where none was given."""
        return self._require_fitted("opened_by").problem.network.adapter.opened_by

    @property
    def columns(self) -> tuple[Any, ...] | None:
        """Column names of the pandas frame that `fit` was called with; None of other inputs."""
        return self._require_fitted("columns").problem.data.columns

    @property
    def input_spec(self) -> Any:
        """`tf.TensorSpec`s of the inputs, their first axis free, in the structure of x."""
        return self._require_fitted("input_spec").problem.input_spec

    @property
    def n_outputs(self) -> int:
        """Number C of outputs of the model, all positions together."""
        return self._require_fitted("n_outputs").problem.n_outputs

    @property
    def fitted_settings(self) -> Settings:
        """The settings that the covariance was made with, whatever was set since."""
        return self._require_fitted("fitted_settings").settings

    @property
    def fitted_likelihood(self) -> Likelihood:
        """The likelihood as it was understood, with a regression's noise as it was estimated."""
        return self._require_fitted("fitted_likelihood").problem.likelihood

    @property
    def fitted_route(self) -> Route | None:
        """How the curvature was reached, with its `why`; None of an older file, which has none."""
        return self._require_fitted("fitted_route").route

    @property
    def fit_seconds(self) -> float:
        """Wall time in seconds that `fit` took."""
        return self._require_fitted("fit_seconds").seconds

    def _require_fitted(self, what: str) -> Fitted:
        refuse_lost_runtime()
        if self._fitted is None:
            raise NotFittedError(
                f"{what} needs the curvature, and fit was not called (or failed)",
                expected="fit(x, y) on the training data first",
            )
        return self._fitted
