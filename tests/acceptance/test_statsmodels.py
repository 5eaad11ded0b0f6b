"""Networks without a hidden layer are logistic regressions: statsmodels is the truth.

Softmax weights are only determined up to a common shift, so contrasts w_c - w_0 are compared. The
network is trained by the package itself, from zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import pytest
import sklearn.datasets
import statsmodels.api as sm

from deltauq import Batches, DeltaMethod, Network
from deltauq.curvature.cost import Cost
from deltauq.curvature.minimization import polish
from deltauq.likelihoods import Categorical

L2 = 1e-6


@dataclass(frozen=True)
class Regression:
    """A statsmodels fit and the same regression as a trained softmax network."""

    result: object
    model: keras.Model
    x: np.ndarray
    y: np.ndarray

    @property
    def n_classes(self):
        return self.model.output_shape[1]

    def contrasts(self):
        """[(C-1) (D+1), P]: w_c - w_0, class by class, intercept first, as statsmodels orders."""
        n_features, c = self.x.shape[1], self.n_classes
        rows = []
        for k in range(1, c):
            for feature in (-1, *range(n_features)):
                row = np.zeros((n_features + 1) * c)
                base = n_features * c if feature < 0 else feature * c
                row[base + k], row[base] = 1.0, -1.0
                rows.append(row)
        return np.array(rows)

    def fit(self, curvature):
        dm = DeltaMethod(self.model, curvature, rank="full", l2=L2, progress=False)
        return dm.fit(self.x, self.y)

    def parameter_covariance(self, curvature):
        t = self.contrasts()
        return t @ self.fit(curvature).covariance.to_dense().numpy() @ t.T


@pytest.fixture(scope="module", params=["Logit", "MNLogit"])
def regression(request):
    if request.param == "Logit":
        x, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
        x = x[:, [1, 4, 8, 9]]
    else:
        x, y = sklearn.datasets.load_wine(return_X_y=True)
        x = x[:, [1, 2, 3, 4]]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    family = getattr(sm, request.param)
    result = family(y, sm.add_constant(x)).fit(disp=0, method="newton", tol=1e-12)
    n_classes = int(y.max()) + 1
    model = keras.Sequential(
        [keras.Input((4,), dtype="float64"), keras.layers.Dense(n_classes, dtype="float64")]
    )
    model.set_weights([np.zeros((4, n_classes)), np.zeros(n_classes)])
    _train(model, x, y)
    return Regression(result, model, x, y)


def _train(model, x, y):
    network = Network(model)
    data = Batches(x, y, likelihood=Categorical(), n_outputs=model.output_shape[1], dtype="float64")
    cost = Cost(network, Categorical(), data, np.full(network.n_params, L2))
    polished = polish(cost, network.params.numpy(), tolerance=1e-2)
    kernel = np.split(polished.params, [4 * model.output_shape[1]])
    model.set_weights([kernel[0].reshape(4, -1), kernel[1]])


def params(result):
    return np.asarray(result.params).ravel("F")


def test_training_finds_the_maximum_likelihood_estimate(regression):
    weights = np.concatenate([w.ravel() for w in regression.model.get_weights()])
    np.testing.assert_allclose(
        regression.contrasts() @ weights, params(regression.result), rtol=1e-3, atol=1e-3
    )


def test_hessian_standard_errors(regression):
    found = np.sqrt(np.diag(regression.parameter_covariance("hessian")))
    truth = np.sqrt(np.diag(np.asarray(regression.result.cov_params())))
    np.testing.assert_allclose(found, truth, rtol=1e-3)


def test_hessian_covariances(regression):
    truth = np.asarray(regression.result.cov_params())
    found = regression.parameter_covariance("hessian")
    assert np.max(np.abs(found - truth)) < 1e-3 * np.max(np.abs(truth))


def test_opg_standard_errors(regression):
    """The inverse of the summed outer products of statsmodels' scores."""
    scores = regression.result.model.score_obs(params(regression.result))
    truth = np.sqrt(np.diag(np.linalg.inv(scores.T @ scores)))
    found = np.sqrt(np.diag(regression.parameter_covariance("opg")))
    np.testing.assert_allclose(found, truth, rtol=1e-3)


def test_standard_errors_of_probabilities(regression):
    """`Logit.get_prediction().se`; for MNLogit the delta method written out from cov_params()."""
    prediction = regression.fit("hessian").predict(regression.x)
    design = sm.add_constant(regression.x)
    if regression.n_classes == 2:
        truth = regression.result.get_prediction(design).se
        np.testing.assert_allclose(prediction.std[:, 1], truth, rtol=1e-3)
    p = np.asarray(regression.result.predict(design)).reshape(len(design), -1)
    p = np.column_stack([1 - p, p]) if regression.n_classes == 2 else p
    sigma = np.asarray(regression.result.cov_params())
    for n, row in enumerate(design):
        slope = np.diag(p[n]) - np.outer(p[n], p[n])
        jacobian = np.kron(slope[:, 1:], row)
        truth = np.sqrt(np.diag(jacobian @ sigma @ jacobian.T))
        np.testing.assert_allclose(prediction.std[n], truth, rtol=1e-3)


@pytest.mark.parametrize("meat", ["opg", "scores"])
def test_sandwich_is_huber_and_whites(regression, meat):
    """`cov_type="HC0"`; an L2 rate of 1e-6 hardly adds to the meat."""
    design = sm.add_constant(regression.x)
    robust = type(regression.result.model)(regression.y, design).fit(
        disp=0, method="newton", tol=1e-12, cov_type="HC0"
    )
    truth = np.asarray(robust.cov_params())
    dm = DeltaMethod(
        regression.model, "sandwich", rank="full", l2=L2, meat=meat, progress=False
    ).fit(regression.x, regression.y)
    t = regression.contrasts()
    found = t @ dm.covariance.to_dense().numpy() @ t.T
    tolerance = 1e-3 if meat == "scores" else 1e-2
    assert np.max(np.abs(found - truth)) < tolerance * np.max(np.abs(truth))
    np.testing.assert_allclose(np.sqrt(np.diag(found)), np.sqrt(np.diag(truth)), rtol=tolerance)
