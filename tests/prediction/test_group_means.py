"""Means and contrasts over any number of inputs, against dense algebra in plain numpy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.special
import statsmodels.api as sm
import tensorflow as tf
from marks import slow, wide, wide_but

from deltauq import DeltaMethod
from deltauq.errors import InvalidInputError
from deltauq.likelihoods import CustomLoss, Gaussian

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # Keras saves a model
]

N, D = 60, 3
RNG = np.random.default_rng(4)
X = RNG.normal(size=(N, D))
NEW = RNG.normal(size=(37, D))
GROUPS = np.array(["control", "treated", "other"])[RNG.integers(0, 3, len(NEW))]
SIGNED = RNG.normal(size=len(NEW))
L2 = 0.1


def linear(n_outputs, activation=None, dtype="float64", shape=(D,)):
    """A network without a hidden layer, whose Jacobian is known."""
    model = keras.Sequential(
        [
            keras.Input(shape, dtype=dtype),
            keras.layers.Dense(n_outputs, activation=activation, dtype=dtype),
        ]
    )
    rng = np.random.default_rng(n_outputs)
    model.set_weights([0.5 * rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def logits_of(model, x):
    kernel, bias = model.get_weights()
    return x @ kernel + bias


def jacobian(x, n_outputs):
    """D z / d (kernel, bias) of z = x W + b, `[N, C, P]`, by its definition."""
    rows = np.zeros((len(x), n_outputs, (x.shape[1] + 1) * n_outputs))
    for c in range(n_outputs):
        rows[:, c, c : x.shape[1] * n_outputs : n_outputs] = x
        rows[:, c, x.shape[1] * n_outputs + c] = 1.0
    return rows


def softmax(z):
    p = scipy.special.softmax(z, axis=1)
    return p, np.einsum("nc,cd->ncd", p, np.eye(p.shape[1])) - p[:, :, None] * p[:, None, :]


def sigmoids(z):
    p = scipy.special.expit(z)
    return p, np.einsum("nc,cd->ncd", p * (1 - p), np.eye(p.shape[1]))


def one_sigmoid(z):
    """The two classes of one sigmoid."""
    p = scipy.special.expit(z[:, 0])
    slope = (p * (1 - p))[:, None, None] * np.array([[-1.0], [1.0]])
    return np.stack([1 - p, p], axis=1), slope


def numbers(z):
    return z, np.broadcast_to(np.eye(z.shape[1]), (*z.shape, z.shape[1]))


def bread(rows, curvature, rate=L2):
    """(1/N) inverse of the mean of J^T H J plus L2, H `[N, C, C]` of the loss in the logits."""
    mean = np.einsum("ncp,ncd,ndq->pq", rows, curvature, rows) / len(rows)
    return np.linalg.inv(mean + rate * np.eye(rows.shape[2])) / len(rows)


#: Outcome -> outputs, activation, labels, likelihood, link, curvature of the loss.
OUTCOMES = {
    "softmax": (3, None, RNG.integers(0, 3, N), "categorical", softmax),
    "one sigmoid": (1, "sigmoid", RNG.integers(0, 2, N), "binary", one_sigmoid),
    "labels": (3, "sigmoid", RNG.integers(0, 2, (N, 3)), "multilabel", sigmoids),
    "regression": (2, None, RNG.normal(size=(N, 2)), Gaussian(noise=[0.5, 1.5]), numbers),
    "custom": (
        3,
        None,
        RNG.integers(0, 3, N),
        CustomLoss(
            lambda z, y: 2 * tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=z)
        ),
        softmax,
    ),
}


def loss_curvature(outcome, z, dm):
    if outcome == "softmax":
        return softmax(z)[1]
    if outcome == "custom":
        return 2 * softmax(z)[1]
    if outcome == "regression":
        noise = dm.fitted_likelihood.noise_variance()
        return np.broadcast_to(np.diag(1 / noise), (len(z), 2, 2))
    return sigmoids(z)[1]


def minimised(outcome, dm):
    """The minimised loss over the negative log-likelihood: means over labels, squares of mse."""
    if outcome == "regression":
        return np.mean(dm.fitted_likelihood.noise_variance())  # 2 s / C with C = 2
    return 1 / 3 if outcome == "labels" else 1.0


@pytest.mark.parametrize("outcome", wide_but(["softmax", "labels", "regression"], OUTCOMES))
def test_the_mean_gradient_through_the_inverse_bread_is_the_covariance(outcome):
    """Means over groups, and sums with weights of both signs."""
    n_outputs, activation, y, likelihood, link = OUTCOMES[outcome]
    model = linear(n_outputs, activation)
    dm = DeltaMethod(
        model, "ggn", rank="full", l2=L2, likelihood=likelihood, batch_size=10, progress=False
    ).fit(X, y)
    curvature = loss_curvature(outcome, logits_of(model, X), dm)
    sigma = bread(jacobian(X, n_outputs), curvature, L2 / minimised(outcome, dm))
    p, slope = link(logits_of(model, NEW))
    moved = slope @ jacobian(NEW, n_outputs)
    names = np.unique(GROUPS)
    for weights in (None, SIGNED):
        found = dm.predict_mean(NEW, GROUPS, weights)
        given = np.ones(len(NEW)) if weights is None else weights
        shares = np.array([np.where(name == GROUPS, given, 0.0) for name in names])
        if weights is None:
            shares /= shares.sum(axis=1, keepdims=True)
        gradients = np.einsum("gn,ncp->gcp", shares, moved)
        truth = np.einsum("gcp,pq,hdq->gchd", gradients, sigma, gradients)
        assert found.groups.tolist() == names.tolist()
        assert found.n.tolist() == [np.count_nonzero(name == GROUPS) for name in names]
        np.testing.assert_allclose(found.mean, shares @ p, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(found.covariance, truth, rtol=1e-8, atol=1e-11 * truth.max())
        np.testing.assert_allclose(found.std, np.sqrt(np.einsum("gcgc->gc", truth)), rtol=1e-8)
        low, high = found.std_bounds
        assert np.all((low <= found.std) & (found.std <= high))


@pytest.mark.parametrize("by_position", [wide(False), True], ids=["groups [N]", "groups [N, T]"])
def test_all_predictions_of_an_input_are_in_its_group_or_each_in_its_own(by_position):
    """T = 4 positions share the weights: z_t = x_t W + b."""
    rng, t, c = np.random.default_rng(2), 4, 3
    model = linear(c, shape=(t, D))
    x, new = rng.normal(size=(30, t, D)), rng.normal(size=(9, t, D))
    y = rng.integers(0, c, (30, t))
    dm = DeltaMethod(model, "ggn", rank="full", l2=L2, likelihood="categorical", progress=False)
    dm.fit(x, y)
    groups = rng.integers(0, 2, (9, t) if by_position else 9)
    found = dm.predict_mean(new, groups)
    flat, rows = x.reshape(-1, D), jacobian(x.reshape(-1, D), c)
    covariance = bread(rows, softmax(logits_of(model, flat))[1])
    p, slope = softmax(logits_of(model, new.reshape(-1, D)))
    each = groups.ravel() if by_position else np.repeat(groups, t)
    shares = np.array([(each == g) / np.count_nonzero(each == g) for g in (0, 1)])
    gradients = np.einsum("gn,ncp->gcp", shares, slope @ jacobian(new.reshape(-1, D), c))
    truth = np.einsum("gcp,pq,hdq->gchd", gradients, covariance, gradients)
    assert found.n.sum() == 9 * t
    np.testing.assert_allclose(found.mean, shares @ p, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, truth, atol=1e-11 * truth.max())


def test_it_is_the_average_prediction_of_statsmodels():
    """GLM's `get_prediction(average=True)`, on a logistic regression without L2."""
    x = RNG.normal(size=(300, D))
    y = (RNG.random(300) < scipy.special.expit(x[:, 0] - 0.5)).astype(int)
    result = sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial()).fit(tol=1e-13)
    model = linear(1)
    model.set_weights([result.params[1:, None], result.params[:1]])
    dm = DeltaMethod(model, "ggn", rank="full", l2=1e-9, likelihood="binary", progress=False).fit(
        x, y
    )
    weights = RNG.normal(size=len(NEW))
    exog = sm.add_constant(NEW)
    for given, told in ((None, {}), (weights / len(NEW), {"agg_weights": weights})):
        expected = result.get_prediction(exog, which="mean", average=True, **told)
        found = dm.predict_mean(NEW, weights=given)
        np.testing.assert_allclose(found.mean[0, 1], expected.predicted, rtol=1e-6)
        np.testing.assert_allclose(found.std[0, 1], expected.se, rtol=1e-5)


SEVERAL = {"*kernel": 0.05, "*bias": 0.2}


@pytest.mark.parametrize(
    ("curvature", "rank", "l2"),
    [
        ("ggn", 10, SEVERAL),
        slow("opg", "full", 0.05),
        slow("opg", 10, SEVERAL),
        slow("sandwich", 10, 0.05),
        slow("hessian", 10, 0.05),
        slow("hessian", "full", SEVERAL),
    ],
)
def test_it_is_the_mean_of_predict_joint(get_case, curvature, rank, l2):
    case = get_case("tanh")
    dm = DeltaMethod(case.model, curvature, rank=rank, l2=l2, progress=False)
    dm.fit(case.x, case.y, case.weight)
    codes = np.arange(11) % 2
    shares = np.array([codes == 0, codes == 1], float)
    found, joint = dm.predict_mean(case.x, codes), dm.predict_joint(case.x).mean(shares)
    np.testing.assert_allclose(found.mean, joint.mean, rtol=1e-12)
    scale = np.abs(joint.covariance).max()
    np.testing.assert_allclose(found.covariance, joint.covariance, atol=1e-10 * scale)
    assert found.groups.tolist() == [0, 1]
    assert joint.n.tolist() == found.n.tolist() == [6, 5]


@pytest.mark.parametrize(
    ("curvature", "l2", "ranks"),
    [
        ("ggn", SEVERAL, [4]),
        wide("opg", 0.05, [4]),
        slow("ggn", 0.05, [2, 6, 12]),
        slow("opg", SEVERAL, [2, 6, 12]),
    ],
)
def test_dense_truth_of_every_contrast_lies_inside_its_bounds(get_case, curvature, l2, ranks):
    """Low rank against all eigenvalues: groups, differences, and sums of any signs."""
    case = get_case("tanh")
    rates = np.full(case.truth.jacobian.shape[2], 0.05)
    if isinstance(l2, dict):
        biases = [np.arange(20, 25), np.arange(45, 49), np.arange(61, 64)]
        rates[np.concatenate(biases)] = 0.2
    data = case.truth.ggn if curvature == "ggn" else case.truth.opg
    sigma = np.linalg.inv(data + np.diag(rates)) / case.weight.sum()
    p = case.truth.probabilities
    slope = np.einsum("bc,ce->bce", p, np.eye(3)) - p[:, :, None] * p[:, None, :]
    moved = slope @ case.truth.jacobian
    rng, width = np.random.default_rng(0), []
    for rank in ranks:
        options = {"l2": l2, "weights": "counts", "progress": False}
        dm = DeltaMethod(case.model, curvature, rank=rank, **options)
        dm.fit(case.x, case.y, case.weight)
        for _ in range(5):
            weights, groups = rng.normal(size=11), rng.integers(0, 3, 11)
            groups[:3] = [0, 1, 2]
            gradients = np.stack(
                [(weights * (groups == g)) @ moved.swapaxes(0, 1) for g in (0, 1, 2)]
            )
            found = dm.predict_mean(case.x, groups, weights)
            mixed = rng.normal(size=(4, 3))
            for some, coefficients in (
                (found, np.eye(3)),
                (found.difference(2, 0), np.array([[-1.0, 0.0, 1.0]])),
                (found.contrast(mixed), mixed),
                (found[1:], np.eye(3)[1:]),
            ):
                rows = np.einsum("hg,gcp->hcp", coefficients, gradients)
                truth = np.sqrt(np.einsum("hcp,pq,hcq->hc", rows, sigma, rows))
                low, high = some.std_bounds
                assert np.all(low <= truth)
                assert np.all(truth <= high)
                assert np.all((low <= some.std * (1 + 1e-9)) & (some.std <= high * (1 + 1e-9)))
                width.append(np.median((high - low) / high))
    assert found.certified
    assert max(width) > 0.05  # the bounds are put to the test
    assert min(width) < 0.9


@pytest.mark.parametrize(
    ("curvature", "options"),
    [
        slow("sandwich", {"rank": 8}),
        # without a tail the estimate lies under both limits
        ("hessian", {"rank": 8, "negative_curvature": "keep", "tail": "none"}),
    ],
)
def test_limits_that_are_no_proof_contain_the_estimate(get_case, curvature, options):
    case = get_case("tanh")
    dm = DeltaMethod(case.model, curvature, l2=2.0, progress=False, **options)
    found = dm.fit(case.x, case.y, case.weight).predict_mean(case.x, np.arange(11) % 3)
    assert not found.certified
    low, high = found.std_bounds
    assert np.all((low <= found.std) & (found.std <= high))


@pytest.mark.wide  # datasets are predicted alike: tests/data/test_batches.py
def test_datasets_and_batches_of_any_size_give_the_same(get_case):
    case = get_case("joined")
    dm = DeltaMethod(case.model, "ggn", rank=8, l2=0.05, progress=False)
    dm.fit(case.x, case.y, case.weight)
    groups, weights = [5, 5, 7, 7, 7, 5, 5, 7, 5, 7, 7], np.linspace(-1, 2, 11)
    whole = dm.predict_mean(case.x, groups, weights)
    dataset = tf.data.Dataset.from_tensor_slices(tuple(case.x))
    inputs = dataset.map(lambda a, b: [a, b])
    dm.batch_size = 4
    for x in (case.x, dataset.batch(3).map(lambda a, b: [a, b]), inputs):
        found = dm.predict_mean(x, groups, weights)
        np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(found.covariance, whole.covariance, rtol=1e-10, atol=1e-16)
        np.testing.assert_allclose(found.std_bounds, whole.std_bounds, rtol=1e-8)
    with pytest.raises(InvalidInputError, match=r"groups has the wrong length.*11.*9"):
        dm.predict_mean(dataset.batch(3).map(lambda a, b: [a, b]), groups[:9])
    with pytest.raises(InvalidInputError, match=r"weights has the wrong length.*11.*12"):
        dm.predict_mean(dataset.batch(3).map(lambda a, b: [a, b]), weights=np.ones(12))


@pytest.fixture(scope="module")
def narrow():
    """A regression in float32 whose weights are certain but for the prior."""
    model = linear(1, dtype="float32")
    x, y = X.astype("float32"), RNG.normal(size=N)
    return DeltaMethod(
        model, "ggn", rank="full", l2=0.01, likelihood="gaussian", progress=False
    ).fit(x, y)


@pytest.mark.wide  # sums of few terms: the tests before
def test_many_terms_lose_no_digits(narrow):
    """50,000 rows of float32, all alike: their sum is that of one, exactly so many times."""
    row = np.array([[0.1, 0.7, -0.3]], np.float32)
    many = narrow.predict_mean(np.repeat(row, 50_000, axis=0))
    one = narrow.predict(row)
    np.testing.assert_allclose(many.std, one.std, rtol=2e-6)
    np.testing.assert_allclose(many.std_bounds, one.std_bounds, rtol=1e-3)
    total = narrow.predict_mean(np.repeat(row, 50_000, axis=0), weights=np.ones(50_000))
    np.testing.assert_allclose(total.std, 50_000 * one.std, rtol=2e-6)


@pytest.mark.parametrize("size", [1e-60, 1e60])
def test_weights_of_any_size_are_used_as_they_are(narrow, size):
    x = NEW.astype("float32")
    plain = narrow.predict_mean(x, weights=SIGNED)
    found = narrow.predict_mean(x, weights=size * SIGNED)
    np.testing.assert_allclose(found.mean / size, plain.mean, rtol=1e-12)
    np.testing.assert_allclose(found.std / size, plain.std, rtol=1e-6)


def test_what_cancels_in_float32_stays_inside_the_bounds():
    """Two groups of nearly the same inputs: their difference is 1e-5 of either gradient."""
    rng = np.random.default_rng(1)
    x = np.tile(NEW, (4, 1)).astype("float32")
    moved = (x + 1e-5 * rng.normal(size=x.shape)).astype("float32")
    y = RNG.integers(0, 3, N)
    found = []
    for dtype in ("float32", "float64"):
        model = linear(3, dtype=dtype)
        dm = DeltaMethod(
            model, "ggn", rank="full", l2=0.01, likelihood="categorical", progress=False
        ).fit(X.astype(dtype), y)
        both = np.concatenate([x, moved]).astype(dtype)
        groups = np.arange(len(both)) >= len(x)
        found.append(dm.predict_mean(both, groups).difference(True, False))
    low, high = found[0].std_bounds
    assert np.all((low <= found[1].std) & (found[1].std <= high))
    assert np.all(found[1].std < 1e-3 * dm.predict(X).std.max())


def test_groups_may_be_numbers_text_or_columns(narrow):
    pandas = pytest.importorskip("pandas")
    x = NEW.astype("float32")
    expected = narrow.predict_mean(x, GROUPS)
    for groups in (
        list(GROUPS),
        pandas.Series(GROUPS),
        pandas.Categorical(GROUPS),
        GROUPS.astype(object),
        tf.constant(GROUPS),
    ):
        found = narrow.predict_mean(x, groups)
        assert found.groups.tolist() == ["control", "other", "treated"]
        np.testing.assert_array_equal(found.covariance, expected.covariance)
    assert narrow.predict_mean(x, GROUPS == "other").groups.tolist() == [False, True]
    assert narrow.predict_mean(x).groups.tolist() == ["all"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": np.zeros(3)}, r"groups has the wrong length.*37 rows.*3 rows"),
        ({"weights": np.ones(3)}, r"weights has the wrong length.*37 rows.*3 rows"),
        ({"groups": np.full(37, np.nan)}, r"groups holds NaN"),
        ({"groups": [None] * 37}, r"groups are neither numbers nor text.*astype\(str\)"),
        ({"groups": np.zeros((37, 2))}, r"groups have another shape.*\[N\].*\[37, 2\]"),
        ({"weights": np.ones((37, 2))}, r"weights have another shape.*\[37, 2\]"),
        ({"weights": 1.0}, r"weights have another shape.*\[\]"),
        ({"weights": np.full(37, np.inf)}, r"weights holds NaN or infinity"),
        ({"weights": list("a" * 37)}, r"weights does not hold numbers"),
    ],
)
def test_groups_and_weights_are_checked(narrow, options, message):
    with pytest.raises(InvalidInputError, match=message):
        narrow.predict_mean(NEW.astype("float32"), **options)


def test_contrasts_are_checked(narrow):
    found = narrow.predict_mean(NEW.astype("float32"), GROUPS)
    with pytest.raises(InvalidInputError, match=r"no such group.*'control'.*'nobody'"):
        found.difference("nobody", "other")
    with pytest.raises(InvalidInputError, match=r"coefficients of a contrast.*\[3\].*\[2\]"):
        found.contrast([1, -1])
    with pytest.raises(InvalidInputError, match="coefficients holds NaN"):
        found.contrast([1, -1, np.nan])
    joint = narrow.predict_joint(NEW[:3].astype("float32"))
    with pytest.raises(InvalidInputError, match=r"std_bounds of a mean.*predict_mean"):
        _ = joint.mean().std_bounds


def test_tables_and_text(narrow):
    pytest.importorskip("pandas")
    found = narrow.predict_mean(NEW.astype("float32"), GROUPS)
    assert repr(found) == "GroupMean(3 groups, 37 predictions, 1 output)"
    frame = found.to_frame(level=0.9)
    assert list(frame) == [
        *("group", "n", "output", "mean", "se", "ci_lower", "ci_upper", "se_low", "se_high")
    ]
    assert frame["group"].tolist() == ["control", "other", "treated"]
    width = (frame["ci_upper"] - frame["ci_lower"]) / frame["se"]
    np.testing.assert_allclose(width, 2 * 1.6448536269514722)
    assert "treated" in found._repr_html_()
    assert found.__rich__().row_count == 3
    difference = found.difference("treated", "control")
    assert difference.groups.tolist() == ["treated - control"]
    assert difference.n.tolist() == [np.count_nonzero(GROUPS != "other")]
    np.testing.assert_allclose(difference.mean, found.mean[2] - found.mean[0][None])
    assert len(narrow.predict_joint(NEW[:3].astype("float32")).mean().to_frame()) == 1


def test_an_artifact_answers_as_the_fit_did(narrow, tmp_path):
    x = NEW.astype("float32")
    narrow.save(tmp_path / "m.deltauq")
    loaded = DeltaMethod.load(tmp_path / "m.deltauq")
    before, after = (dm.predict_mean(x, GROUPS) for dm in (narrow, loaded))
    np.testing.assert_allclose(after.covariance, before.covariance, rtol=1e-5)
    np.testing.assert_allclose(after.std_bounds, before.std_bounds, rtol=1e-5)
