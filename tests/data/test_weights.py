"""Weights that are counts, and weights that are importance: N, bread, meat, noise and lambda."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import statsmodels.api as sm
import tensorflow as tf
from marks import covering, slow, wide

import deltauq
from deltauq import Batches, DeltaMethod, diagnose
from deltauq.data.weights import is_whole, loss_factors
from deltauq.delta.files import artifact
from deltauq.errors import InvalidInputError
from deltauq.likelihoods import Categorical
from deltauq.report import Study

layers = keras.layers
F64 = {"dtype": "float64"}

# Random weights are far from a minimum, and `fit` says so.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
]

N = 200
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3))
DESIGN = np.column_stack([X, np.ones(N)])
LABELS = (RNG.random(N) < 1 / (1 + np.exp(1 - X[:, 0]))).astype(int)
NUMBERS = X @ [1.0, -2.0, 0.5] + 3 + RNG.normal(size=N)
COUNTS = RNG.integers(1, 5, N)
IMPORTANCE = RNG.uniform(0.3, 3.0, N)
OF_CLASS = np.where(LABELS == 1, 4.0, 1.0)

#: How weights are given -> statsmodels' own names of them, and N.
KINDS = {
    "counts": ({"sample_weight": COUNTS}, {"freq_weights": COUNTS}, COUNTS.sum()),
    "importance": ({"sample_weight": IMPORTANCE}, {"var_weights": IMPORTANCE}, N),
    "classes": ({"class_weight": {1: 4.0}}, {"var_weights": OF_CLASS}, N),
    "counts and importance": (
        {"sample_weight": COUNTS, "class_weight": {1: 4.0}},
        {"freq_weights": COUNTS, "var_weights": OF_CLASS},
        COUNTS.sum(),
    ),
}


def one_layer(params, loss, **options):
    """A network without a hidden layer, at the maximum that statsmodels found."""
    model = keras.Sequential([keras.Input((3,), **F64), layers.Dense(1, **options, **F64)])
    model.compile(loss=loss)
    model.set_weights([params[:3, None], params[3:]])
    return model


def close(found, truth, rtol=1e-6):
    assert np.max(np.abs(found - truth)) <= rtol * np.max(np.abs(truth))


@covering(kind=list(KINDS), curvature=["ggn", "hessian", "sandwich"])
def test_a_logistic_regression_is_statsmodels(kind, curvature):
    """freq_weights are counts, var_weights importance; the sandwich with scores is HC0."""
    given, theirs, n_examples = KINDS[kind]
    glm = sm.GLM(LABELS, DESIGN, sm.families.Binomial(), **theirs)
    truth = glm.fit(cov_type="HC0" if curvature == "sandwich" else "nonrobust", tol=1e-12)
    model = one_layer(truth.params, "binary_crossentropy", activation="sigmoid")
    dm = DeltaMethod(model, curvature, rank="full", l2=1e-9, meat="scores", progress=False)
    dm.fit(X, LABELS, **given)
    close(dm.covariance.to_dense().numpy(), np.asarray(truth.cov_params()))
    p = truth.predict(DESIGN)
    logit_std = np.sqrt(np.einsum("ni,ij,nj->n", DESIGN, truth.cov_params(), DESIGN))
    np.testing.assert_allclose(dm.predict(X).std[:, 1], p * (1 - p) * logit_std, rtol=1e-6)
    assert dm.n_examples == n_examples
    assert dm.weighting == {"classes": "importance"}.get(kind, kind)


@covering(kind=["counts", "importance"], zeros=[False, True], curvature=["ggn", "sandwich"])
def test_a_linear_regression_is_statsmodels(kind, zeros, curvature):
    """Least squares by weights: the noise is sum w r^2 / (N - P), of the rows that have weight."""
    weight = np.where(np.arange(N) < 80 * zeros, 0, COUNTS if kind == "counts" else IMPORTANCE)
    rows = np.repeat(np.arange(N), weight if kind == "counts" else weight > 0)
    per_row = np.ones(len(rows)) if kind == "counts" else weight[rows]
    wls = sm.WLS(NUMBERS[rows], DESIGN[rows], weights=per_row)
    truth = wls.fit(cov_type="HC0" if curvature == "sandwich" else "nonrobust")
    model = one_layer(truth.params, "mse")
    dm = DeltaMethod(model, curvature, rank="full", meat="scores", progress=False)
    dm.fit(X, NUMBERS, weight)
    close(dm.covariance.to_dense().numpy(), truth.cov_params())
    close(dm.fitted_likelihood.noise_variance(), truth.scale)
    assert dm.n_examples == len(rows) == truth.nobs


def test_statsmodels_counts_rows_of_no_weight_and_r_and_we_do_not():
    """A row whose variance is infinite says nothing of the noise, and does not count."""
    rng = np.random.default_rng(1)
    weight = np.where(np.arange(N) < 80, 0.0, IMPORTANCE)
    scales = []
    for _ in range(200):
        noise = rng.normal(size=N) / np.sqrt(np.where(weight > 0, weight, 1e-4))
        result = sm.WLS(DESIGN.sum(axis=1) + noise, DESIGN, weights=weight).fit()
        scales.append(result.scale)
    assert np.mean(scales) == pytest.approx((120 - 4) / (N - 4), rel=0.05)  # the truth is 1


def dense(case, curvature, meat, kind, rate):
    """Sigma `[P, P]` from the sums of the plain reference."""
    w, truth, eye = case.weight, case.truth, np.eye(len(case.truth.opg))
    n = w.sum() if kind == "counts" else len(w)
    squares = w if kind == "counts" else w**2
    if curvature != "sandwich":
        return np.linalg.inv(getattr(truth, curvature) * w.sum() / n + rate * eye) / n
    bread = np.linalg.inv(truth.hessian * w.sum() / n + rate * eye)
    inner = (squares[:, None] * truth.gradients).T @ truth.gradients / n
    return bread @ (inner + rate * eye * (meat == "opg")) @ bread / n


@pytest.mark.parametrize("kind", ["counts", "importance"])
@pytest.mark.parametrize(
    ("curvature", "meat"),
    [
        ("opg", "opg"),
        wide("sandwich", "opg"),
        slow("ggn", "opg"),
        slow("hessian", "opg"),
        slow("sandwich", "scores"),
    ],
)
@pytest.mark.parametrize("name", ["no_hidden", slow("tanh"), slow("joined")])
def test_every_curvature_is_the_dense_one(get_case, name, curvature, meat, kind):
    """With a given rate, which stands beside (1/N) sum c w loss."""
    case = get_case(name)
    rate = 1.5 * abs(np.linalg.eigvalsh(case.truth.hessian)[0]) * case.weight.sum() / 11 + 0.1
    options = {"meat": meat, "weights": kind, "l2": rate, "rank": "full", "batch_size": 4}
    dm = DeltaMethod(case.model, curvature, negative_curvature="keep", progress=False, **options)
    dm.fit(case.x, case.y, case.weight)
    close(dm.covariance.to_dense().numpy(), dense(case, curvature, meat, kind, rate), 1e-8)


@pytest.mark.wide  # in full: the test before
def test_the_meat_in_low_rank_holds_the_squares_too(get_case):
    case = get_case("no_hidden")
    options = {"meat": "scores", "l2": 0.5, "progress": False}
    full, low = (
        DeltaMethod(case.model, "sandwich", rank=rank, **options).fit(case.x, case.y, case.weight)
        for rank in ("full", 12)
    )
    np.testing.assert_allclose(low.predict(case.x).std, full.predict(case.x).std, rtol=1e-6)


def sequences(shape):
    """A network with 4 predictions an input, labels, and weights of some shape."""
    keras.utils.set_random_seed(0)
    l2 = {"kernel_regularizer": keras.regularizers.L2(0.1), "bias_regularizer": "l2"}
    model = keras.Sequential([keras.Input((4, 2)), layers.Dense(3, **l2)])
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(6, 4, 2)).astype("float32"), rng.integers(0, 3, (6, 4))
    return model, x, y, rng.uniform(0.5, 2.0, shape).astype("float32")


@covering(
    reduction=["sum_over_batch_size", "mean_with_sample_weight"],
    shape=[(6, 1), (6, 4)],
    kind=["counts", "importance"],
)
def test_the_rate_that_is_read_is_that_of_the_cost_that_keras_minimised(reduction, shape, kind):
    """Our gradient is Keras' own, but for what Keras divides the losses by: so for every part."""
    model, x, y, weight = sequences(shape)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    model.compile(loss=loss)
    with tf.GradientTape() as tape:
        cost = model.compute_loss(x=x, y=y, y_pred=model(x), sample_weight=weight)
    theirs = np.concatenate([np.ravel(g) for g in tape.gradient(cost, model.trainable_variables)])
    options = {"weights": kind, "rank": "full", "progress": False}
    dm = DeltaMethod(model, "ggn", **options).fit(x, y, np.squeeze(weight))
    every = np.broadcast_to(weight, (6, 4)).astype("float64")
    n = every.sum() if kind == "counts" else 24
    assert dm.n_examples == pytest.approx(n)
    divisor = 24 if reduction == "sum_over_batch_size" else weight.sum()
    found = dm.stationarity
    assert found.gradient_norm == pytest.approx(np.linalg.norm(theirs) * divisor / n, rel=1e-5)
    assert found.cost == pytest.approx(float(cost) * divisor / n, rel=1e-5)


def fit(weight=None, class_weight=None, *, x=X, y=LABELS, **options):
    model = one_layer(np.zeros(4), "binary_crossentropy", activation="sigmoid")
    options = {"l2": 0.1, "rank": "full", "progress": False, "batch_size": 64} | options
    return DeltaMethod(model, "ggn", **options).fit(x, y, weight, class_weight)


HALF_AT_THE_END = np.r_[np.ones(N - 1), 0.5]


@pytest.mark.parametrize(
    ("weight", "taken"),
    [
        wide(None, "none"),
        (COUNTS, "counts"),
        wide(COUNTS > 2, "counts"),
        wide(COUNTS.astype("float32"), "counts"),
        wide(np.full(N, 0.1) * 3 * 10, "counts"),
        wide(np.full(N, 3.0000001, "float32"), "counts"),
        wide(np.full(N, 3.0000001), "importance"),
        (HALF_AT_THE_END, "importance"),
        wide(np.full(N, 1e-17), "importance"),
    ],
)
@pytest.mark.filterwarnings("ignore:the data say next to nothing")  # of weights near zero
def test_whole_numbers_are_counts_and_others_importance(weight, taken):
    dm = fit(weight)
    n = {"counts": None if weight is None else np.sum(weight, dtype=float)}.get(taken, N)
    assert dm.weighting == taken
    assert dm.n_examples == pytest.approx(n, rel=1e-6)
    slices = tf.data.Dataset.from_tensor_slices
    parts = (X, LABELS) if weight is None else (X, LABELS, weight)
    streamed = fit(x=slices(parts).batch(64), y=None)  # the fraction may be in the last batch only
    assert (streamed.weighting, streamed.n_examples) == (taken, pytest.approx(n, rel=1e-6))
    np.testing.assert_allclose(streamed.predict(X).std, dm.predict(X).std, rtol=1e-6)


def test_every_whole_number_of_a_dtype_is_whole_and_no_half_is():
    for dtype in ("float16", "float32", "float64"):
        halves = np.arange(0.5, 250)
        assert is_whole(np.arange(250).astype(dtype))
        assert not any(is_whole(np.array([half], dtype)) for half in halves)
    assert is_whole(np.arange(5))


@pytest.mark.parametrize(
    ("weight", "asked", "taken", "n"),
    [
        wide(COUNTS, "importance", "importance", N),
        (IMPORTANCE, "counts", "counts", IMPORTANCE.sum()),
        wide(HALF_AT_THE_END, "counts", "counts", N - 0.5),
    ],
)
def test_the_user_has_the_last_word(weight, asked, taken, n):
    dm = fit(weight, weights=asked)
    assert (dm.weighting, dm.n_examples) == (taken, pytest.approx(n))


@pytest.mark.parametrize("kind", [wide("counts"), "importance"])
def test_a_row_of_no_weight_is_no_row(kind):
    weight = np.where(X[:, 1] > 0.5, 0, COUNTS if kind == "counts" else IMPORTANCE)
    kept = weight > 0
    every, few = fit(weight), fit(weight[kept], x=X[kept], y=LABELS[kept])
    assert every.weighting == few.weighting == kind
    assert every.n_examples == pytest.approx(few.n_examples)
    np.testing.assert_allclose(every.predict(X).std, few.predict(X).std, rtol=1e-9)


def test_a_class_of_no_weight_is_left_out_of_counts_too():
    dm = fit(COUNTS, {0: 0.0})
    assert dm.n_examples == COUNTS[LABELS == 1].sum()


def test_what_weights_may_be_is_checked():
    text = r"weights='frequency' is not known.*'auto', 'counts', 'importance'"
    with pytest.raises(InvalidInputError, match=text):
        fit(weights="frequency")
    with pytest.raises(InvalidInputError, match="weights='count'"):
        deltauq.DeltaClassifier(weights="count").fit(X, LABELS)


@pytest.mark.wide  # what is taken: the tests before
def test_fit_diagnose_and_the_report_say_what_was_taken():
    dm = fit(IMPORTANCE)
    assert re.search(r"N = 200 \(weights: importance\), K = 4", repr(dm))
    assert "weights" not in repr(fit())
    page = Study.of(dm, X[:5]).to_html()
    assert "weights are factors on their losses, not counts" in page
    for given, text in (
        ({"sample_weight": IMPORTANCE}, "taken as importance: N is 200, of 200 rows"),
        ({"class_weight": {0: 0.0}}, f"taken as importance: N is {LABELS.sum()}, of 200 rows"),
        (
            {"sample_weight": COUNTS, "class_weight": {1: 2.0}},
            f"taken as counts and importance: N is {COUNTS.sum()}, of 200 rows",
        ),
    ):
        (finding,) = diagnose(dm.model, X, LABELS, **given, l2=0.1).of("weights")
        assert (finding.what, finding.level) == (text, "note")


@pytest.mark.wide  # artifacts and attach: tests/delta/files/test_fits.py
def test_an_artifact_keeps_what_weights_are_and_attach_checks_it(tmp_path):
    before = fit(COUNTS, {1: 2.0})
    before.save(tmp_path / "m")
    after = DeltaMethod.load(tmp_path / "m")
    assert (after.weighting, after.n_examples) == (before.weighting, before.n_examples)
    after.attach(X, LABELS, COUNTS, {1: 2.0})
    product = COUNTS * np.where(LABELS == 1, 2, 1)
    after = DeltaMethod.load(tmp_path / "m")
    text = (
        "weights of these training data are something else.*weights: counts and importance, "
        rf"N = {COUNTS.sum()}.*weights: counts, N = {product.sum()}.*class_weight as fit had them"
    )
    with pytest.raises(InvalidInputError, match=f"(?s){text}"):
        after.attach(X, LABELS, product)
    importance = fit(COUNTS, weights="importance")
    importance.save(tmp_path / "m")
    after = DeltaMethod.load(tmp_path / "m")
    assert after.weights == "importance"
    after.attach(X, LABELS, COUNTS)
    after = DeltaMethod.load(tmp_path / "m")
    after.weights = "counts"
    with pytest.raises(InvalidInputError, match=r"weights: importance, N = 200.*weights: counts"):
        after.attach(X, LABELS, COUNTS)


def test_weights_of_an_older_artifact_are_counts(tmp_path):
    """Format 1 knew neither the option nor the kind, and had one sum less."""
    fit(IMPORTANCE, weights="counts").save(tmp_path / "m")
    arrays, facts = artifact.read(tmp_path / "m")
    del facts["options"]["weights"], facts["data"]["weighting"], facts["data"]["sums"][-1]
    artifact.write(tmp_path / "m", arrays, facts)
    old = DeltaMethod.load(tmp_path / "m")
    assert (old.weights, old.weighting) == ("counts", "counts")
    old.attach(X, LABELS, IMPORTANCE)
    old = DeltaMethod.load(tmp_path / "m")
    with pytest.raises(InvalidInputError, match="not the training data"):
        old.attach(X, LABELS, IMPORTANCE[::-1])


@pytest.mark.parametrize("epochs", [0, slow(20)])
def test_an_estimator_trains_to_the_cost_that_its_weights_mean(epochs):
    """The softmax regression's gradient vanishes, in plain numpy."""
    options = {"hidden_units": (), "l2": 0.05, "tol": 1e-6, "epochs": epochs, "progress": False}
    for weight, asked, n in (
        (IMPORTANCE, "auto", N),
        (COUNTS, "importance", N),
    ):
        clf = deltauq.DeltaClassifier(weights=asked, **options).fit(X, LABELS, weight)
        parameters = np.vstack(clf.model_.get_weights())
        residuals = clf.predict_proba(X) - np.eye(2)[LABELS]
        gradient = DESIGN.T @ (weight[:, None] * residuals) / n + 0.05 * parameters
        assert np.linalg.norm(gradient) < 1e-5 * np.linalg.norm(0.05 * parameters)
        assert clf.delta_.n_examples == pytest.approx(n)
        assert clf.delta_.stationarity.ratio < 1e-5


def test_the_factors_of_adam_have_the_cost_for_their_mean():
    losses = RNG.random(N)
    for weight, asked, n in ((IMPORTANCE, "auto", N), (COUNTS, "auto", COUNTS.sum())):
        found = np.mean(loss_factors(weight, N, asked) * losses)
        assert found == pytest.approx(weight @ losses / n)
    np.testing.assert_array_equal(loss_factors(None, N, "auto"), np.ones(N))


def test_a_regressor_estimates_its_noise_by_importance():
    options = {"hidden_units": (), "l2": 1e-7, "tol": 1e-1, "epochs": 0, "progress": False}
    reg = deltauq.DeltaRegressor(**options).fit(X, NUMBERS, IMPORTANCE)
    truth = sm.WLS(NUMBERS, DESIGN, weights=IMPORTANCE).fit().get_prediction(DESIGN[:9])
    found = reg.predict_uncertainty(X[:9])
    np.testing.assert_allclose(found.std[:, 0], truth.se_mean, rtol=1e-4)


@pytest.mark.wide  # a comparison is its fits: tests/evaluation/test_comparison.py
def test_compare_takes_weights():
    model = fit().model
    options = {"rank": "full", "l2": 0.1, "progress": False, "curvatures": ("ggn", "opg")}
    found = deltauq.compare(model, X, LABELS, X, sample_weight=IMPORTANCE, **options)
    alone = fit(IMPORTANCE).predict(X)
    np.testing.assert_allclose(found.reference.prediction.std, alone.std, rtol=1e-9)
    found = deltauq.compare(model, X, LABELS, X, class_weight={1: 3.0}, **options)
    alone = fit(class_weight={1: 3.0}).predict(X)
    np.testing.assert_allclose(found.reference.prediction.std, alone.std, rtol=1e-9)


def test_some_rows_of_a_training_set_keep_their_weights():
    options = {"likelihood": Categorical(), "n_outputs": 2, "dtype": "float64"}
    data = Batches(X, LABELS, IMPORTANCE, {1: 2.0}, **options)
    some = data.sample(50)
    chosen = np.linspace(0, N - 1, 50).astype(int)
    weight = np.concatenate([batch.weight for batch in some])
    np.testing.assert_array_equal(weight, (IMPORTANCE * np.where(LABELS == 1, 2, 1))[chosen])
    assert (some.n_rows, some.n_examples) == (50, 50)
    assert data.n_examples == N
