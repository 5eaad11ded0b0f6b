"""`DeltaClassifier` trains to a stationary point and behaves as scikit-learn users expect."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.base
import sklearn.datasets
import sklearn.exceptions
import sklearn.linear_model
import sklearn.model_selection
import sklearn.pipeline
import sklearn.preprocessing
from marks import slow, wide

from deltauq import ConvergenceWarning, DeltaClassifier, DeltaMethod
from deltauq.evaluation.metrics import error_auroc


def small(**options):
    options = {"hidden_units": (8,), "l2": 1e-2, "epochs": 10, "progress": False} | options
    return DeltaClassifier(**options)


@pytest.fixture(scope="module")
def iris():
    X, y = sklearn.datasets.load_iris(return_X_y=True)
    return sklearn.preprocessing.scale(X), y


def test_without_hidden_units_it_is_logistic_regression(iris):
    """scikit-learn minimises sum loss + ||w||^2 / (2 C) without the intercept's penalty."""
    X, y = iris
    X = X - X.mean(axis=0)
    clf = small(hidden_units=(), l2=1e-2, tol=1e-6).fit(X, y)
    column = np.column_stack([X, np.ones(len(X))])  # a penalised intercept is one more column
    truth = sklearn.linear_model.LogisticRegression(
        C=1 / (1e-2 * len(X)), fit_intercept=False, tol=1e-10, max_iter=10_000
    ).fit(column, y)
    np.testing.assert_allclose(clf.predict_proba(X), truth.predict_proba(column), atol=1e-5)


@pytest.mark.wide  # the verdict: test_it_works_behind_a_scaler
@pytest.mark.parametrize("activation", ["tanh", slow("softplus"), wide("gelu")])
def test_smooth_activations_reach_a_stationary_point(iris, activation):
    clf = small(activation=activation, tol=1e-4).fit(*iris)
    assert clf.verdict_ == "stationary"
    assert clf.stationarity_.ratio <= 1e-4
    assert clf.delta_.stationarity.ratio == pytest.approx(clf.stationarity_.ratio, rel=1e-3)


@pytest.mark.wide  # other verdicts: of smooth activations, and of too few iterations
@pytest.mark.filterwarnings("ignore:the weights are far")
def test_relu_says_that_it_stopped_at_a_kink():
    X, y = sklearn.datasets.load_digits(return_X_y=True)
    clf = small(hidden_units=(16,), activation="relu", tol=1e-4, rank=20).fit(X[:300] / 16, y[:300])
    assert clf.verdict_ == "stopped at a kink"
    assert 1e-4 < clf.stationarity_.ratio < 1
    assert clf.score(X[:300] / 16, y[:300]) > 0.95


@pytest.mark.filterwarnings("ignore:the weights are far")
def test_too_few_iterations_warn_with_the_figure(iris):
    with pytest.warns(ConvergenceWarning, match=r"did not converge: after 3 iterations.*max_iter"):
        clf = small(max_iter=3).fit(*iris)
    assert clf.verdict_ == "not converged"


def test_it_speaks_scikit_learn(iris):
    X, y = iris
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    clf = small()
    assert sklearn.base.clone(clf).get_params() == clf.get_params()
    assert clf.fit(X, names) is clf
    assert list(clf.classes_) == ["setosa", "versicolor", "virginica"]
    assert set(clf.predict(X)) <= set(names)
    assert clf.score(X, names) > 0.9
    assert clf.n_features_in_ == 4
    prediction = clf.predict_uncertainty(X)
    np.testing.assert_allclose(prediction.probabilities, clf.predict_proba(X), rtol=1e-10)
    np.testing.assert_array_equal(clf.classes_[prediction.labels], clf.predict(X))


@pytest.mark.quick
def test_it_wraps_the_same_delta_method(iris):
    X, y = iris
    clf = small(curvature="ggn", rank="full").fit(X, y)
    dm = DeltaMethod(clf.model_, "ggn", rank="full", progress=False).fit(X, y)  # l2 is read
    np.testing.assert_allclose(
        clf.predict_uncertainty(X).covariance, dm.predict(X).covariance, rtol=1e-10
    )


@pytest.mark.wide  # fits that repeat: check_fit_idempotent of scikit-learn
def test_the_seed_fixes_everything(iris):
    first, again = (small().fit(*iris).predict_uncertainty(iris[0]) for _ in range(2))
    np.testing.assert_allclose(first.probabilities, again.probabilities, rtol=1e-10)
    np.testing.assert_allclose(first.covariance, again.covariance, rtol=1e-6)
    other = small(random_state=1).fit(*iris).predict_uncertainty(iris[0])
    assert np.max(np.abs(other.probabilities - first.probabilities)) > 1e-6


def test_it_must_be_fitted(iris):
    with pytest.raises(sklearn.exceptions.NotFittedError):
        small().predict(iris[0])


@pytest.mark.slow
def test_digits_over_five_seeds(capsys):
    """The score finds errors about as well as 1 - max p; covariances are semidefinite."""
    X, y = sklearn.datasets.load_digits(return_X_y=True)
    scores, baselines = [], []
    for seed in range(5):
        x_train, x_test, y_train, y_test = sklearn.model_selection.train_test_split(
            X / 16, y, test_size=0.25, random_state=seed, stratify=y
        )
        clf = DeltaClassifier(rank=128, random_state=seed, progress=False).fit(x_train, y_train)
        prediction = clf.predict_uncertainty(x_test)
        wrong = prediction.labels != y_test
        assert clf.verdict_ == "stationary"
        assert np.mean(~wrong) >= 0.96
        scores.append(error_auroc(prediction.score, wrong))
        baselines.append(error_auroc(1 - prediction.probabilities.max(axis=1), wrong))
        scale = np.max(prediction.covariance)
        assert np.max(np.abs(prediction.covariance.sum(axis=2))) < 1e-12 * scale
        for covariance in (prediction.covariance, prediction.logit_covariance):
            smallest = np.linalg.eigvalsh(covariance)[:, 0]
            assert np.min(smallest) > -1e-9 * np.max(covariance)
    with capsys.disabled():
        print(
            f"\nAUROC for misclassified digits, mean of 5 seeds: score {np.mean(scores):.3f}, "
            f"1 - max p {np.mean(baselines):.3f}"
        )
    assert np.mean(scores) >= 0.93
