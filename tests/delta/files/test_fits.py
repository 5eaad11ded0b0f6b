"""`load` gives back to the bit what `save` wrote, in any process, for its own model only."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from marks import asked_for, slow, wide, wide_but
from saved_kinds import (
    CASES,
    CLASSES,
    FIELDS,
    X,
    build,
    first,
    fit,
    hidden,
    regression,
    same,
    softmax,
)

from deltauq import DeltaMethod
from deltauq.errors import ArtifactError, InvalidInputError, NotFittedError, UnsupportedModelError
from deltauq.likelihoods import Categorical, CustomLoss
from deltauq.linalg import LowRank, nearest_orthonormal, relative_range

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far"),
    pytest.mark.filterwarnings("ignore:the 8 eigenpairs"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
]


layers = keras.layers

_PREDICT = """
import pickle, sys
import numpy as np
import deltauq
for name, x in pickle.load(open(sys.argv[1], "rb")).items():
    prediction = deltauq.DeltaMethod.load(f"{sys.argv[2]}/{name}").predict(x)
    np.savez(f"{sys.argv[2]}/{name}.npz", **{f: getattr(prediction, f) for f in sys.argv[3:]})
"""


#: Cases of `make test`.
SHOWN = ["softmax", "words and numbers"]


@pytest.fixture(scope="module")
def saved(request, tmp_path_factory):
    """Every case that is asked for: fitted, saved, and predicted by one fresh process."""
    import pickle

    directory = tmp_path_factory.mktemp("artifacts")
    methods, inputs = {}, {}
    for name in asked_for(request, "name"):
        methods[name], x, _ = fit(CASES[name])
        methods[name].save(directory / name)
        inputs[name] = first(x)
    (directory / "inputs").write_bytes(pickle.dumps(inputs))
    fields = [name for name in FIELDS if "limits" not in name]
    subprocess.run(
        [sys.executable, "-c", _PREDICT, str(directory / "inputs"), str(directory), *fields],
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
    )
    return directory, methods, inputs


@pytest.mark.parametrize("name", wide_but(SHOWN, CASES))
def test_a_fresh_process_predicts_the_same_bits(saved, name):
    directory, methods, inputs = saved
    here = methods[name].predict(inputs[name])
    with np.load(directory / f"{name}.npz") as there:
        for field in there.files:
            np.testing.assert_array_equal(there[field], getattr(here, field), field)


@pytest.mark.parametrize("name", wide_but(SHOWN, CASES))
def test_all_that_needs_no_data_is_the_same_after_loading(saved, name):
    directory, methods, inputs = saved
    before, x = methods[name], inputs[name]
    after = DeltaMethod.load(directory / name)
    same(before.predict(x), after.predict(x))
    np.testing.assert_array_equal(
        before.predict_joint(first(x, 3)).covariance, after.predict_joint(first(x, 3)).covariance
    )
    assert before.stationarity == after.stationarity
    assert before.n_examples == after.n_examples
    assert [*before.l2_rates.values()] == [*after.l2_rates.values()]
    assert before.columns == after.columns
    assert repr(before) == repr(after)
    assert repr(before.fitted_likelihood) == repr(after.fitted_likelihood)
    assert before.eigenpairs.left_out == after.eigenpairs.left_out
    np.testing.assert_array_equal(before.eigenpairs.vectors, after.eigenpairs.vectors)
    if name in ("softmax", "regression"):
        assert before.log_marginal_likelihood() == after.log_marginal_likelihood()


@pytest.mark.filterwarnings("ignore:1 of 2 inputs did not reach")
@pytest.mark.parametrize("name", wide_but(["softmax", "words and numbers"], SHOWN))
def test_with_its_data_a_loaded_method_refines_as_before(saved, name):
    directory, methods, inputs = saved
    after, x = DeltaMethod.load(directory / name), first(inputs[name], 2)
    with pytest.raises(InvalidInputError, match=r"needs the training data.*attach\(x, y\)"):
        after.refine(x, rtol=0.5)
    for what in (after.tune_l2, after.rank_curve) if name == "softmax" else ():
        with pytest.raises(InvalidInputError, match="needs the training data"):
            what()
    _, all_x, y, _ = CASES[name]()
    after.attach(tf.nest.map_structure(lambda leaf: leaf[::-1], all_x), y[::-1])
    expected, found = methods[name].refine(x, rtol=0.5), after.refine(x, rtol=0.5)
    np.testing.assert_allclose(found.std, expected.std, rtol=1e-3)


def test_other_data_are_not_attached(saved):
    method = DeltaMethod.load(saved[0] / "softmax")
    with pytest.raises(InvalidInputError, match=r"not the training data.*40 examples.*30 examples"):
        method.attach(X[:30], CLASSES[:30])
    with pytest.raises(InvalidInputError, match="40 examples, other values"):
        method.attach(X, (CLASSES + 1) % 3)


def test_a_method_that_has_its_data_takes_no_others(saved):
    """Nor weights that mean something else; the same in another form it takes, and uses."""
    method, x, y = fit(softmax)
    had = method.refine(x[:2], rtol=0.5)
    with pytest.raises(InvalidInputError, match=r"not the training data.*40 examples.*30 examples"):
        method.attach(x[:30], y[:30])
    with pytest.raises(InvalidInputError, match="40 examples, other values"):
        method.attach(x, (y + 1) % 3)
    with pytest.raises(InvalidInputError, match="not the training data"):
        method.attach(x, y, np.full(40, 2))
    before = method._fitted.problem.data
    np.testing.assert_array_equal(method.refine(x[:2], rtol=0.5).std, had.std)  # as it was
    method.attach(tf.data.Dataset.from_tensor_slices((x[::-1], y[::-1])).batch(7))
    assert method._fitted.problem.data is not before
    np.testing.assert_allclose(method.refine(x[:2], rtol=0.5).std, had.std, rtol=1e-3)


def test_loaded_methods_can_be_saved_and_fitted_again(saved, tmp_path):
    directory, methods, _ = saved
    again = DeltaMethod.load(directory / "softmax")
    again.save(tmp_path / "again")
    same(methods["softmax"].predict(X), DeltaMethod.load(tmp_path / "again").predict(X))
    again.fit(X, CLASSES)
    same(methods["softmax"].predict(X), again.predict(X))


def test_variables_that_a_function_chose_are_known_again(tmp_path):
    method, x, y = fit(lambda: softmax(layers=lambda variable: "kernel" in variable.path))
    method.save(tmp_path / "m")
    loaded = DeltaMethod.load(tmp_path / "m")
    assert loaded.eigenpairs.n_params == 4 * 5 + 5 * 3
    same(method.predict(x), loaded.predict(x))
    same(method.predict(x), loaded.fit(x, y).predict(x))


def test_a_model_kept_elsewhere_is_known_by_its_weights(tmp_path):
    method, x, _ = fit(softmax)
    with_model = method.save(tmp_path / "with")
    without = method.save(tmp_path / "without", with_model=False)
    assert without.bytes < with_model.bytes
    with pytest.raises(ArtifactError, match=r"holds no model.*load\(path, model\)"):
        DeltaMethod.load(tmp_path / "without")
    same(method.predict(x), DeltaMethod.load(tmp_path / "without", softmax()[0]).predict(x))
    other, *_ = softmax()
    other.layers[0].bias.assign(np.full(5, 1e-6))
    for wrong in (other, build(hidden(6), activation="softmax"), regression()[0]):
        with pytest.raises(ArtifactError, match="not the one that the artifact is about"):
            DeltaMethod.load(tmp_path / "with", wrong)


def test_a_model_that_was_trained_on_is_not_saved_for_the_one_that_was_fitted(tmp_path):
    method, *_ = fit(softmax)
    method.model.layers[0].bias.assign_add(np.full(5, 0.1))
    with pytest.raises(InvalidInputError, match="other weights than when fit was called"):
        method.save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


class Module(tf.Module):
    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.w = tf.Variable(rng.normal(size=(4, 3)), dtype=tf.float32)

    def __call__(self, x):
        return x @ self.w


def legacy():
    tf_keras.utils.set_random_seed(0)
    return tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3)])


def test_other_models_stay_elsewhere(tmp_path):
    options = {"rank": 5, "l2": 0.1, "likelihood": "categorical"}
    method, x, _ = fit((Module(), X, CLASSES, options))
    with pytest.raises(InvalidInputError, match=r"only models of Keras.*with_model=False"):
        method.save(tmp_path / "m")
    method.save(tmp_path / "m", with_model=False)
    same(method.predict(x), DeltaMethod.load(tmp_path / "m", Module()).predict(x))


@pytest.mark.parametrize("layers", [None, wide(["kernel"])])
def test_an_artifact_holds_a_model_of_the_keras_that_it_is_of(tmp_path, layers):
    """Keras 3 could open this one too, and is not asked."""
    options = {"rank": 5, "l2": 0.1, "likelihood": "categorical", "layers": layers}
    model = legacy()
    method, x, _ = fit((model, X, CLASSES, options))
    method.save(tmp_path / "m")
    loaded = DeltaMethod.load(tmp_path / "m")
    assert isinstance(loaded.model, tf_keras.Model)
    same(method.predict(x), loaded.predict(x))
    method.save(tmp_path / "m", with_model=False)
    same(method.predict(x), DeltaMethod.load(tmp_path / "m", model).predict(x))
    model.layers[-1].bias.assign_add([1.0, 0.0, 0.0])
    with pytest.raises(InvalidInputError, match="the model has other weights"):
        method.save(tmp_path / "m")


def test_a_custom_loss_predicts_without_its_function(tmp_path):
    loss = CustomLoss(lambda z, y: tf.nn.sparse_softmax_cross_entropy_with_logits(y, z))
    method, x, y = fit(lambda: softmax(curvature="opg", likelihood=loss))
    method.save(tmp_path / "m")
    loaded = DeltaMethod.load(tmp_path / "m")
    same(method.predict(x), loaded.predict(x))
    with pytest.raises(InvalidInputError, match="custom loss is not in the file"):
        loaded.attach(x, y)


def test_a_likelihood_of_the_users_own_is_refused(tmp_path):
    class Mine(Categorical):
        pass

    method, *_ = fit(lambda: softmax(likelihood=Mine()))
    with pytest.raises(UnsupportedModelError, match="likelihood cannot be written"):
        method.save(tmp_path / "m")


def test_before_fit_there_is_nothing_to_save(tmp_path):
    method = DeltaMethod(softmax()[0])
    assert "not fitted" in repr(method)
    with pytest.raises(NotFittedError, match="save needs the curvature"):
        method.save(tmp_path / "m")


def test_a_damaged_file_does_not_load(saved, tmp_path):
    content = bytearray((saved[0] / "softmax").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        DeltaMethod.load(tmp_path / "m")


@pytest.mark.parametrize(
    ("curvature", "dtype"),
    [
        ("ggn", "float16"),
        wide("sandwich", "bfloat16"),
        slow("opg", "bfloat16"),
        slow("ggn", "bfloat16"),
        slow("hessian", "float16"),
        slow("hessian", "bfloat16"),
    ],
)
def test_vectors_in_fewer_bits_change_standard_errors_by_no_more_than_is_said(
    tmp_path, curvature, dtype
):
    method, x, _ = fit(lambda: softmax(curvature=curvature, rank=20))
    whole = method.save(tmp_path / "whole", with_model=False)
    small = method.save(tmp_path / "small", with_model=False, vectors_dtype=dtype)
    assert whole.std_error == 0 < small.std_error < 0.05
    assert small.bytes < whole.bytes
    loaded = DeltaMethod.load(tmp_path / "small", method.model)
    before, after = method.predict(x), loaded.predict(x)
    for ours, theirs in ((after.std, before.std), (after.logit_std, before.logit_std)):
        gap = np.abs(ours - theirs) / theirs
        assert 1e-7 < gap.max() <= small.std_error + 1e-5
    (low, high), (old_low, old_high) = after.std_bounds, before.std_bounds
    if before.certified:
        assert np.all(low <= old_low * (1 + 1e-5))
        assert np.all(high >= old_high * (1 - 1e-5))
    for what in (lambda: loaded.refine(x[:2]), loaded.tune_l2):
        with pytest.raises(InvalidInputError, match="eigenvectors as they were computed"):
            what()


def test_rounding_has_no_bound_where_a_variance_is_zero(tmp_path):
    method, *_ = fit(lambda: softmax(tail="none"))
    with pytest.raises(InvalidInputError, match="no bound on what it costs"):
        method.save(tmp_path / "m", vectors_dtype="float16")
    with pytest.raises(InvalidInputError, match="vectors_dtype='float8'"):
        method.save(tmp_path / "m", vectors_dtype="float8")


@pytest.mark.parametrize("tail", [1.0, 0.3])
def test_the_range_is_that_of_the_dense_matrices(rng, tail):
    u = np.linalg.qr(rng.normal(size=(30, 6)))[0]
    v = nearest_orthonormal(u + 1e-2 * rng.normal(size=u.shape))
    np.testing.assert_allclose(v.T @ v, np.eye(6), atol=1e-12)
    spectrum = LowRank(np.geomspace(1e-3, 0.9, 6), tail)

    def dense(w):
        return (w * (spectrum.weights - tail)) @ w.T + tail * np.eye(30)

    ratios = np.linalg.eigvals(np.linalg.solve(dense(u), dense(v))).real
    np.testing.assert_allclose(relative_range(u, v, spectrum), (ratios.min(), ratios.max()))
