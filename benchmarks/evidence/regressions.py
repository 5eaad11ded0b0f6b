"""Generalised linear models by statsmodels, and networks without hidden layer of their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import keras
import numpy as np
import sklearn.datasets

from deltauq import DeltaMethod
from evidence.carried import scaled
from evidence.checks import Array, Check, covariance, each

#: lambda where a softmax leaves a common shift of its weights open; elsewhere there is none.
LEAST_L2 = 1e-9


@dataclass(frozen=True)
class Regression:
    """A model of statsmodels and its data.

    Attributes:
        make: the model, of labels and a design matrix.
        likelihood: what it is called here.
        x: inputs.
        y: labels.
        options: of its fit.
        counts: how often each row is there `[N]`, statsmodels' `freq_weights`; None for once.
        importance: factors on the rows' losses `[N]`, its `var_weights`; None for 1.
    """

    make: Callable[..., Any]
    likelihood: str
    x: Array
    y: Array
    options: dict[str, Any] = field(default_factory=dict)
    counts: Array | None = None
    importance: Array | None = None

    @property
    def design(self) -> Array:
        """The inputs behind a column of ones."""
        return np.column_stack([np.ones(len(self.x)), self.x])

    @property
    def weights(self) -> dict[str, Array]:
        """The weights of rows by statsmodels' names, none where there are none."""
        named = {"freq_weights": self.counts, "var_weights": self.importance}
        return {name: each for name, each in named.items() if each is not None}

    @property
    def is_softmax(self) -> bool:
        """Whether every class has weights."""
        return self.likelihood == "categorical"

    def fitted(self, **options: Any) -> Any:
        """What statsmodels fits."""
        return self.make(self.y, self.design, **self.weights).fit(**self.options, **options)

    def network(self, params: Array) -> Any:
        """The network of statsmodels' parameters `[D + 1, C]`, intercept first."""
        shape = [keras.Input(self.x.shape[1:], dtype="float64")]
        model = keras.Sequential([*shape, keras.layers.Dense(params.shape[1], dtype="float64")])
        model.set_weights([params[1:], params[0]])
        return model

    @property
    def contrasts(self) -> Array:
        """What statsmodels' parameters are of our weights, `[Q, P]`, class by class.

        Those of a softmax are differences to class 0.
        """
        from_ones = np.roll(np.eye(self.x.shape[1] + 1), 1, axis=0)  # ours has the intercept last
        if not self.is_softmax:
            return from_ones
        classes = np.eye(int(self.y.max()) + 1)
        return np.vstack([np.kron(from_ones, row - classes[0]) for row in classes[1:]])


def statsmodels(case: Regression) -> Iterator[Check]:
    """Covariances of weights by Hessian, scores and both, and standard errors of means."""
    result = case.fitted()
    params = np.asarray(result.params).reshape(len(case.design.T), -1)
    whole = np.column_stack([np.zeros(len(params)), params]) if case.is_softmax else params
    model = case.network(whole)

    def fit(curvature: str, **options: Any) -> DeltaMethod:
        l2 = LEAST_L2 if case.is_softmax else 0.0
        method = DeltaMethod(
            model,
            curvature,
            rank="full",
            l2=l2,
            likelihood=case.likelihood,
            weights="importance" if case.counts is None else "counts",
            progress=False,
            **options,
        )
        return method.fit(case.x, case.y, *case.weights.values())

    def weights(method: DeltaMethod) -> Array:
        t = case.contrasts
        return np.asarray(t @ method.covariance.to_dense().numpy() @ t.T)

    by_hessian = fit("hessian")
    yield covariance("Hessian: weights", weights(by_hessian), np.asarray(result.cov_params()))
    yield covariance("GGN: weights", weights(fit("ggn")), np.asarray(result.cov_params()))
    if hasattr(result.model, "score_obs") and not case.weights:
        scores = result.model.score_obs(np.asarray(result.params).ravel("F"))
        yield covariance("OPG: weights", weights(fit("opg")), np.linalg.inv(scores.T @ scores))
    robust = np.asarray(case.fitted(cov_type="HC0").cov_params())
    yield covariance("Sandwich: weights", weights(fit("sandwich", meat="scores")), robust)
    if not case.is_softmax:
        std = result.get_prediction(case.design).se_mean
        yield each("Hessian: standard errors of means", by_hessian.predict(case.x).std[:, -1], std)


def _load(name: str, columns: list[int]) -> tuple[Array, Array]:
    x, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    return scaled(x[:, columns]), y


def _glm(family: str, y: Array, design: Array, **weights: Array) -> Any:
    import statsmodels.api as sm

    return sm.GLM(y, design, family=getattr(sm.families, family)(), **weights)


def mnlogit() -> Regression:
    """One of three classes."""
    import statsmodels.api as sm

    newton = {"disp": 0, "method": "newton", "tol": 1e-13}
    return Regression(sm.MNLogit, "categorical", *_load("wine", [1, 2, 3, 4]), newton)


def binomial() -> Regression:
    """Yes or no."""
    data = _load("breast_cancer", [1, 4, 8, 9])
    return Regression(
        partial(_glm, "Binomial"), "binary", *data, {"tol": 1e-14, "tol_criterion": "params"}
    )


def counted() -> Regression:
    """Yes or no, each row one to three times."""
    case = binomial()
    return replace(case, counts=np.random.default_rng(0).integers(1, 4, len(case.y)).astype(float))


def weighted() -> Regression:
    """Yes or no, with factors on the losses."""
    case = binomial()
    return replace(case, importance=np.random.default_rng(0).uniform(0.2, 2.0, len(case.y)))


def poisson() -> Regression:
    """Counts."""
    return Regression(
        partial(_glm, "Poisson"),
        "poisson",
        *_load("diabetes", [2, 3, 8]),
        {"tol": 1e-14, "tol_criterion": "params"},
    )


def least_squares() -> Regression:
    """Numbers, whose noise both packages estimate."""
    import statsmodels.api as sm

    return Regression(sm.OLS, "gaussian", *_load("diabetes", [2, 3, 8]))


#: By their names in tables.
REGRESSIONS: dict[str, Callable[[], Regression]] = {
    "MNLogit, wine": mnlogit,
    "GLM Binomial, breast cancer": binomial,
    "GLM Binomial, counts": counted,
    "GLM Binomial, importance": weighted,
    "GLM Poisson, diabetes": poisson,
    "OLS, diabetes": least_squares,
}
