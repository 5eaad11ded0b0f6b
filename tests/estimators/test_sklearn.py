"""The estimators are scikit-learn's: its tools and its habits, on real data."""

from __future__ import annotations

import copy
import io
import pickle
import pickletools

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import sklearn.base
import sklearn.datasets
import sklearn.model_selection
import sklearn.preprocessing
from marks import slow, wide, wide_but
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny_estimators import classifier, regressor

from deltauq import DeltaMethod
from deltauq.errors import InvalidInputError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras' own, on saving


def data_of(name):
    """X as a frame with names, y as a column; classes by their names."""
    loaded = getattr(sklearn.datasets, f"load_{name}")(as_frame=True)
    X, y = loaded.data[::3], loaded.target[::3]
    names = getattr(loaded, "target_names", None)
    return X, y if names is None else y.map(lambda label: str(names[label]))


CASES = {
    "iris": classifier,
    "wine": classifier,
    "breast_cancer": classifier,
    "digits": classifier,
    "diabetes": regressor,
}


#: What is tried on others is this once more; regressions: test_regressor.py.
MAIN = {"wine": "wine", "diabetes": wide("diabetes")}


@pytest.fixture(params=[MAIN.get(name, slow(name)) for name in CASES])
def case(request):
    """An estimator behind a scaler, and real data for it."""
    return make_pipeline(StandardScaler(), CASES[request.param]()), *data_of(request.param)


@pytest.fixture(scope="module")
def iris():
    return data_of("iris")


def test_it_works_behind_a_scaler(case):
    pipeline, X, y = case
    train, held_out = np.arange(len(X)) % 4 > 0, np.arange(len(X)) % 4 == 0
    pipeline.fit(X[train], y[train])
    worst = 0.3 if sklearn.base.is_regressor(pipeline) else 0.7
    assert pipeline.score(X[held_out], y[held_out]) > worst
    assert pipeline[-1].verdict_ == "stationary"
    prediction = pipeline[-1].predict_uncertainty(pipeline[:-1].transform(X[held_out]))
    assert np.all(prediction.std > 0)


@pytest.mark.wide  # clones, folds and scores: test_check_estimator.py and the tests beside
def test_a_grid_is_searched(case):
    pipeline, X, y = case
    name = pipeline.steps[-1][0]
    search = GridSearchCV(pipeline, {f"{name}__l2": [0.1, 0.5]}, cv=2).fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert np.all(np.isfinite(scores))
    assert search.best_score_ > scores.min()
    assert np.all(search.predict(X) == search.best_estimator_.predict(X))


@pytest.mark.wide  # behind a scaler: the test before
@pytest.mark.parametrize("name", ["iris", slow("breast_cancer")])
def test_probabilities_are_predicted_across_folds(name):
    X, y = data_of(name)
    pipeline = make_pipeline(StandardScaler(), classifier())
    folds = sklearn.model_selection.StratifiedKFold(2)
    found = cross_val_predict(pipeline, X, y, cv=folds, method="predict_proba")
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-12)
    train, held_out = next(iter(folds.split(X, y)))
    alone = pipeline.fit(X.iloc[train], y.iloc[train]).predict_proba(X.iloc[held_out])
    np.testing.assert_allclose(found[held_out], alone, rtol=1e-9)


@pytest.mark.parametrize("estimator", [classifier(l2=0.3), regressor(l2=0.3)])
def test_a_clone_has_the_settings_and_nothing_else(estimator):
    twin = sklearn.base.clone(estimator)
    assert twin.get_params() == estimator.get_params()
    assert vars(twin) == vars(estimator)
    assert "l2=0.3" in repr(twin)


@pytest.mark.parametrize("build", [classifier, regressor])
def test_calibration_inputs_are_those_of_the_delta_method(build, iris):
    """The fit says of them what `DeltaMethod` does, and refuses them before any training."""
    X, new = iris[0].iloc[::2], iris[0].iloc[1::2]
    y = iris[1].iloc[::2] if build is classifier else X.iloc[:, :2]
    few = {"rank": 3, "route": "sketch", "bounds": True}
    fitted = build(**few).fit(X, y, calibration=new)
    dm, labels = fitted.delta_, y.to_numpy()
    labels = np.searchsorted(fitted.classes_, labels) if build is classifier else labels
    alone = DeltaMethod(dm.model, **dm.settings.as_arguments())
    expected = alone.fit(X, labels, calibration=new).predict(new)
    found = fitted.predict_uncertainty(new)
    np.testing.assert_allclose(found.std, expected.std, rtol=1e-10)
    assert str(found.std_range()) == str(expected.std_range())
    assert "measured on 25)" in str(found.std_range())


@pytest.mark.parametrize("build", [classifier, wide(regressor)])
@pytest.mark.parametrize(
    ("options", "columns", "said"),
    [
        ({"bounds": False}, 4, r"no use here.*leave calibration=\.\.\. out"),
        ({"bounds": True}, 3, r"calibration cannot be used.*3 features.*expecting 4"),
    ],
)
def test_calibration_inputs_are_refused_before_any_training(build, options, columns, said, iris):
    X, estimator = iris[0].to_numpy(), build(**options)
    estimator._train_adam = None  # a call would be a TypeError
    with pytest.raises(InvalidInputError, match=said):
        estimator.fit(X, np.arange(len(X)) % 3, calibration=X[:5, :columns])


def test_columns_of_frames_are_known_by_name(iris):
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), classifier()).set_output(transform="pandas")
    clf = pipeline.fit(X, y)[-1]
    assert list(clf.feature_names_in_) == list(X.columns)
    scaled = pipeline[:-1].transform(X)
    assert isinstance(scaled, pd.DataFrame)
    np.testing.assert_allclose(
        clf.predict_uncertainty(scaled).probabilities, pipeline.predict_proba(X), rtol=1e-10
    )
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict_uncertainty(scaled[scaled.columns[::-1]])


def test_labels_may_be_names(iris):
    clf = make_pipeline(StandardScaler(), classifier()).fit(*iris)
    assert list(clf.classes_) == ["setosa", "versicolor", "virginica"]
    assert set(clf.predict(iris[0])) == set(clf.classes_)


@pytest.mark.parametrize("build", [classifier, wide(regressor)])
def test_weights_are_routed_through_a_pipeline(build, iris):
    X = iris[0]
    y = iris[1] if build is classifier else X.iloc[:, 0]
    weight = np.random.default_rng(0).integers(0, 3, len(X))
    with sklearn.config_context(enable_metadata_routing=True):
        routed = Pipeline(
            [
                ("scale", StandardScaler().set_fit_request(sample_weight=False)),
                ("net", build().set_fit_request(sample_weight=True)),
            ]
        ).fit(X, y, sample_weight=weight)
    by_step = make_pipeline(StandardScaler(), build())
    by_step.fit(X, y, **{f"{by_step.steps[-1][0]}__sample_weight": weight})
    assert routed[-1].delta_.n_examples == weight.sum()
    outputs = "predict_proba" if build is classifier else "predict"
    np.testing.assert_allclose(getattr(routed, outputs)(X), getattr(by_step, outputs)(X), rtol=1e-9)


# --- Pickling: through the file of `DeltaMethod.save`. ---


def _through_joblib(fitted):
    buffer = io.BytesIO()
    joblib.dump(fitted, buffer)
    buffer.seek(0)
    return joblib.load(buffer)


WAYS = {
    "pickle": lambda fitted: pickle.loads(pickle.dumps(fitted)),
    "joblib": _through_joblib,
    "deepcopy": copy.deepcopy,
}


@pytest.fixture(scope="module", params=[classifier, wide(regressor)])
def fitted(request, iris):
    X, y = iris
    target = X.iloc[:, :2] if request.param is regressor else y
    return request.param(rank=10, bounds=True).fit(X, target)


@pytest.mark.parametrize("way", wide_but(["pickle"], WAYS))
def test_a_fitted_estimator_is_pickled(fitted, iris, way):
    X, _ = iris
    back = WAYS[way](fitted)
    assert vars(back).keys() == vars(fitted).keys()
    assert back.stationarity_ == fitted.stationarity_
    assert back.model_ is back.delta_.model
    assert back.model_ is not fitted.model_
    before, after = fitted.predict_uncertainty(X), back.predict_uncertainty(X)
    np.testing.assert_array_equal(fitted.predict(X), back.predict(X))
    np.testing.assert_array_equal(before.mean, after.mean)
    np.testing.assert_array_equal(before.covariance, after.covariance)
    np.testing.assert_array_equal(before.std_bounds, after.std_bounds)
    assert back.predict(X.iloc[:1]) == pytest.approx(fitted.predict(X.iloc[:1]))


def test_a_pickle_twice_through_is_the_same(fitted, iris):
    once = WAYS["pickle"](fitted)
    twice = WAYS["pickle"](once)
    np.testing.assert_array_equal(
        once.predict_uncertainty(iris[0]).std, twice.predict_uncertainty(iris[0]).std
    )


def test_no_object_of_tensorflow_or_keras_is_in_a_pickle(fitted):
    modules = {
        str(argument).split()[0].split(".")[0]
        for operation, argument, _ in pickletools.genops(pickle.dumps(fitted, protocol=2))
        if operation.name == "GLOBAL"
    }
    assert "deltauq" in modules
    assert modules <= {"deltauq", "numpy", "_codecs", "copy_reg", "copyreg", "__builtin__"}


def test_an_unfitted_estimator_is_pickled():
    assert pickle.loads(pickle.dumps(classifier())).get_params() == classifier().get_params()


@pytest.mark.slow
def test_two_processes_fit_as_one_does(iris):
    """Estimators go to the processes and come back fitted."""
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), classifier())
    alone, together = (
        cross_validate(pipeline, X, y, cv=2, n_jobs=n_jobs, return_estimator=True)
        for n_jobs in (None, 2)
    )
    np.testing.assert_array_equal(alone["test_score"], together["test_score"])
    for one, other in zip(alone["estimator"], together["estimator"], strict=True):
        np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-9)
