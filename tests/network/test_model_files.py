"""Files are opened by the Keras that they are of, and what is no whole model says what it is."""

from __future__ import annotations

import pickle
import re
import shutil
import sys

import keras
import numpy as np
import old_files
import pytest
import tensorflow as tf
import tf_keras
from marks import wide, wide_but
from old_files import KINDS, X, Y, dense, saved
from ways import stumble

from deltauq import DeltaMethod, Network
from deltauq.errors import InvalidInputError, MissingDependencyError, UnsupportedModelError
from deltauq.likelihoods import Binary
from deltauq.network.adapters import adapt, files
from deltauq.network.adapters.file_contents import is_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    # Keras' own, when it saves a model.
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
]


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return old_files.write(tmp_path_factory.mktemp("old"))


def fit(model, x=X, **options):
    return DeltaMethod(model, "ggn", rank="full", progress=False, **options).fit(x, Y)


#: Of each package and format; the others are opened in the same ways.
OF_EACH_FORMAT = ["h5, loss as text", "SavedModel"]


@pytest.mark.parametrize("kind", wide_but(OF_EACH_FORMAT, KINDS))
def test_an_old_file_predicts_what_its_model_does(old, kind):
    """Outputs, L2 rates and likelihood are those of the model that the file was written from."""
    file = old[kind]
    adapter = adapt(file.path)
    assert adapter.opened_by.startswith(file.opened_by)
    output = file.model(file.x).numpy()
    np.testing.assert_allclose(np.asarray(adapter.model(file.x)), output, rtol=1e-5)
    found, truth = fit(file.path, file.x), fit(file.model, file.x)
    assert isinstance(found.fitted_likelihood, Binary)
    np.testing.assert_allclose(list(found.l2_rates.values()), list(truth.l2_rates.values()))
    std = truth.predict(file.x).std
    np.testing.assert_allclose(found.predict(file.x).std, std, rtol=1e-3)


def forbidden(needed_by):
    raise AssertionError(needed_by)


@pytest.mark.quick
@pytest.mark.parametrize("kind", [k for k, (*_, by) in KINDS.items() if by == "Keras 3"])
def test_keras_3_opens_what_it_can_alone(old, kind, monkeypatch):
    monkeypatch.setattr(files, "tf_keras", forbidden)
    adapt(old[kind].path)


@pytest.mark.quick
@pytest.mark.parametrize("kind", ["h5 with a recurrent layer", "SavedModel"])
def test_the_other_keras_is_asked_for_where_it_is_needed(old, kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(MissingDependencyError, match=r"of Keras 2.*tf_keras is not in.*pip ins"):
        adapt(old[kind].path)


def test_the_other_keras_is_not_tried_on_a_new_file(tmp_path, monkeypatch):
    """It would make another model of it, or none."""
    monkeypatch.setattr(files, "tf_keras", forbidden)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: 2 * x)])
    model.add(keras.layers.Dense(1))
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
        with pytest.raises(InvalidInputError, match=r"Keras 3\S+ says.*Lambda.* by keras\.saving"):
            adapt(tmp_path / name)
    keras.saving.save_model(model, tmp_path / "whole", zipped=False)
    with pytest.raises(InvalidInputError, match=r"at which Keras 3"):
        adapt(tmp_path / "whole")


def test_new_files_may_have_any_name(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.save(tmp_path / "m.keras")
    shutil.copy(tmp_path / "m.keras", tmp_path / "m.h5")
    keras.saving.save_model(model, tmp_path / "folder", zipped=False)
    for name in ("m.h5", "folder"):
        opened = adapt(tmp_path / name).model
        np.testing.assert_array_equal(opened(X), model(X))


def test_a_function_that_means_something_else_in_keras_3_is_refused(tmp_path):
    model = dense(tf_keras.layers.Dense(3, "hard_sigmoid", **old_files.L2))
    for name in ("m.h5", "m.keras"):
        path = saved(model, tmp_path / name)
        with stumble("network/adapters/files.py:_refuse_changed_meaning", "what Keras 2 did"):
            adapt(path)
        opened = adapt(tf_keras.saving.load_model(path)).model
        np.testing.assert_array_equal(opened(X), model(X))


def test_and_is_what_it_was_where_the_other_keras_opens_it(tmp_path):
    model = old_files.recurrent(tf_keras.layers.LSTM, recurrent_activation="hard_sigmoid")
    adapter = adapt(saved(model, tmp_path / "m.h5"))
    x = old_files.SEQUENCES
    np.testing.assert_allclose(adapter.model(x), model(x), rtol=1e-6)


@pytest.mark.parametrize("name", ["m.h5", "m.keras", "folder"])
def test_no_code_in_a_file_is_run(tmp_path, name):
    code = tf_keras.layers.Lambda(
        lambda x: (
            (__import__("test_model_files_ran").append(1), x)[1]
            if "test_model_files_ran" in __import__("sys").modules
            else 2 * x
        )
    )
    path, ran = saved(dense(code), tmp_path / name), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "test_model_files_ran", ran)
        if name == "folder":
            refused = stumble("network/adapters/files.py:_refuse_revived", "the code of Lambda")
        else:
            refused = stumble("network/adapters/files.py:_open", "safe_mode=False for a Lambda")
        with refused as caught:
            adapt(path)
    assert "by tf_keras.saving.load_model" in caught.error.remedy
    assert not ran
    options = {} if name == "folder" else {"safe_mode": False}
    opened = adapt(tf_keras.saving.load_model(path, **options)).model
    np.testing.assert_allclose(opened(X), dense(code)(X), rtol=1e-6)


class Own(tf_keras.losses.Loss):
    def call(self, y, p):
        return tf.reduce_mean((y - p) ** 2, axis=-1)


class OwnOfKeras3(keras.losses.Loss):
    def call(self, y, p):
        return keras.ops.mean((y - p) ** 2, axis=-1)


@pytest.mark.parametrize("name", [wide("m.h5"), "m.keras", wide("m")])
def test_a_loss_of_the_users_own_is_known_by_name_only(tmp_path, name):
    path = saved(dense(loss=Own()), tmp_path / name)
    with pytest.raises(UnsupportedModelError, match=r"compiled with the loss Own\("):
        fit(path)
    fit(path, likelihood="binary")


def test_so_is_one_in_an_h5_of_keras_3(tmp_path):
    """Keras opens it without a word as a model that was compiled with no loss at all."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile("adam", OwnOfKeras3())
    model.save(tmp_path / "m.h5")
    with pytest.raises(UnsupportedModelError, match=r"compiled with the loss OwnOfKeras3\("):
        fit(tmp_path / "m.h5")


@pytest.mark.parametrize("name", ["m.h5", wide("m.keras"), wide("m")])
def test_a_loss_object_keeps_its_settings(tmp_path, name):
    loss = tf_keras.losses.BinaryCrossentropy(label_smoothing=0.25)
    path = saved(dense(loss=loss), tmp_path / name)
    assert repr(fit(path).fitted_likelihood) == "Binary(label_smoothing=0.25)"
    summed = tf_keras.losses.BinaryCrossentropy(reduction="sum")
    path = saved(dense(loss=summed), tmp_path / f"summed_{name}")
    with pytest.raises(UnsupportedModelError, match="summed over the batch"):
        fit(path)


@pytest.mark.parametrize("name", [wide("m.h5"), "m.keras", wide("m")])
def test_weight_decay_is_seen_although_the_optimizer_is_not_loaded(tmp_path, name):
    model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(1, "sigmoid")])
    model.compile(tf_keras.optimizers.AdamW(weight_decay=0.5), tf_keras.losses.BinaryCrossentropy())
    path = saved(model, tmp_path / name)
    with pytest.raises(UnsupportedModelError, match=r"AdamW with weight_decay=0\.5"):
        fit(path)
    model.compile(tf_keras.optimizers.AdamW(weight_decay=0.5), Own())
    path = saved(model, tmp_path / f"own_{name}")
    with pytest.raises(UnsupportedModelError, match=r"AdamW with weight_decay=0\.5"):
        fit(path, likelihood="binary")


class Subclassed(tf_keras.Model):
    def __init__(self):
        super().__init__()
        self.head = tf_keras.layers.Dense(1, "sigmoid")

    def call(self, inputs, training=False):
        return self.head(inputs)


class Module(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = tf.Variable(tf.ones([4, 1]))

    @tf.function(input_signature=[tf.TensorSpec([None, 4])])
    def __call__(self, x):
        return x @ self.w


def pickled(path):
    path.write_bytes(pickle.dumps({"weights": X}))


def cut(name):
    def write(path):
        content = saved(dense(), path.with_name(name)).read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return write


def weights(name, then=""):
    """Weights alone under one name; what is given is a file beside it."""

    def write(path):
        dense().save_weights(path.with_name(name))
        return path.with_name(name + then)

    return write


def unbuilt(path):
    model = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    with pytest.warns(UserWarning, match="not yet been built"):
        model.save(path)


def weights_of_keras_3(path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.save_weights(path.with_suffix(".weights.h5"))
    return path.with_suffix(".weights.h5")


def checkpoint_folder(path):
    dense().save_weights(path / "inside")


def exported(path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.export(path, verbose=False)


def other_folder(path):
    path.mkdir()
    (path / "notes.txt").write_text("notes")


def broken_folder(path):
    path.mkdir()
    for name in ("config.json", "metadata.json"):
        (path / name).write_text("{")


#: What people have in place of a model: how it comes about, and what is said of it.
MISTAKEN = {
    "w.h5": (weights("w.h5"), r"weights alone.*model\.load_weights\('\S+w\.h5'\)"),
    "3": (weights_of_keras_3, r"weights alone.*model\.load_weights\('\S+3\.weights\.h5'\)"),
    "c": (weights("c"), r"checkpoint holds weights alone.*load_weights\('\S+/c'\) of tf_keras"),
    "i": (weights("i", ".index"), r"checkpoint.*load_weights\('\S+/i'\)"),
    "d": (weights("d", ".data-00000-of-00001"), r"checkpoint.*load_weights\('\S+/d'\)"),
    "checkpoints": (checkpoint_folder, r"checkpoint.*load_weights\('\S+checkpoints/inside'\)"),
    "m.pkl": (pickled, "a pickle, which runs code.*unpickle it yourself"),
    "m.txt": (lambda path: path.write_text("a text"), "none in which Keras .* b'a text'"),
    "empty.keras": (lambda path: path.write_bytes(b""), r"model file is empty.*model\.save\("),
    "cut.keras": (cut("whole.keras"), "cannot be read.*copy it again from"),
    "cut.h5": (cut("whole.h5"), "cannot be read.*copy it again from"),
    "x.npz": (lambda path: np.savez(path, x=X), r"archive without a model.*x\.npy"),
    "nothing": (lambda path: path.mkdir(), r"model folder is empty.*model\.save\("),
    "other": (other_folder, r"folder holds no model.*notes\.txt.*pass a model that Keras saved"),
    "broken": (broken_folder, "cannot be read.*copy it again from"),
    "export": (exported, r"SavedModel holds functions.*model\.save\('model\.keras'\) instead"),
    "module": (lambda path: tf.saved_model.save(Module(), path), "SavedModel holds functions"),
    "subclassed": (
        lambda path: saved(old_files.compiled(Subclassed(), X), path),
        r"only functions are left.*'subclassed.*load_model, with custom_objects",
    ),
    "gone.keras": (lambda path: None, "model file does not exist"),
}


@pytest.mark.parametrize("name", MISTAKEN)
def test_what_is_no_whole_model_says_what_it_is(tmp_path, name):
    write, said = MISTAKEN[name]
    path = tmp_path / name
    given = write(path)
    path = given if isinstance(given, type(path)) else path
    with pytest.raises(InvalidInputError) as caught:
        adapt(path)
    assert re.search(said, str(caught.value)), caught.value


@pytest.mark.parametrize("name", ["w.h5", "c", "i", "d"])
def test_the_remedy_for_weights_alone_is_right(tmp_path, name):
    path = MISTAKEN[name][0](tmp_path / name)
    words = "call model.load_weights("
    if name == "w.h5":
        stumbling = stumble("network/adapters/file_contents.py:_of_hdf5", words)
    else:
        stumbling = stumble("network/adapters/file_contents.py:_refuse_checkpoint", words)
    with stumbling as caught:
        adapt(path)
    model = dense()
    for variable in model.trainable_variables:
        variable.assign(variable * 0)
    found = re.search(r"load_weights\('(\S+)'\)", caught.error.remedy)[1]
    model.load_weights(found)
    np.testing.assert_array_equal(adapt(model).model(X), dense()(X))
    if name != "w.h5":  # and by TensorFlow itself
        for variable in model.trainable_variables:
            variable.assign(variable * 0)
        tf.train.Checkpoint(model).restore(found).expect_partial()
        np.testing.assert_array_equal(adapt(model).model(X), dense()(X))


KERAS_3 = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])


def saved_again(path):
    KERAS_3.save(path / "model.keras")
    np.testing.assert_array_equal(adapt(path / "model.keras").model(X), KERAS_3(X))
    assert adapt(KERAS_3).model is KERAS_3
    return True


def test_what_is_no_whole_model_is_saved_again_or_passed_itself(tmp_path):
    path = tmp_path / "m"
    whole = saved(dense(), tmp_path / "whole.keras")
    cut("whole.keras")(path)
    with stumble("network/adapters/file_contents.py:read_content", "copy it again"):
        adapt(path)
    shutil.copy(saved(dense(), whole), path)
    np.testing.assert_array_equal(adapt(path).model(X), dense()(X))
    assert saved_again(tmp_path)
    np.savez(tmp_path / "x.npz", x=X)
    with stumble("network/adapters/file_contents.py:_of_zip", "save the model again"):
        adapt(tmp_path / "x.npz")
    assert saved_again(tmp_path)
    (tmp_path / "nothing").mkdir()
    with stumble("network/adapters/file_contents.py:_of_folder", "save the model again"):
        adapt(tmp_path / "nothing")
    assert saved_again(tmp_path)
    other_folder(tmp_path / "other")
    with stumble("network/adapters/file_contents.py:_of_folder", "that Keras saved whole"):
        adapt(tmp_path / "other")
    assert saved_again(tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    with stumble("network/adapters/file_contents.py:_refuse_other", "the model file is empty"):
        adapt(tmp_path / "empty")
    assert saved_again(tmp_path)
    (tmp_path / "pickle").write_bytes(pickle.dumps(KERAS_3))
    with stumble("network/adapters/file_contents.py:_refuse_other", "unpickle it yourself"):
        adapt(tmp_path / "pickle")
    opened = pickle.loads((tmp_path / "pickle").read_bytes())
    np.testing.assert_array_equal(adapt(opened).model(X), KERAS_3(X))


def test_what_deltauq_saved_is_no_model(tmp_path):
    labels, path = np.arange(len(X)) % 2, tmp_path / "m"
    options = {"likelihood": "binary", "l2": 0.1, "rank": "full", "progress": False}
    method = DeltaMethod(KERAS_3, "opg", bounds=False, **options).fit(X, labels)
    method.save(path)
    with stumble("network/adapters/file_contents.py:_refuse_other", "opened by DeltaMethod.load"):
        adapt(path)
    loaded = DeltaMethod.load(path)
    np.testing.assert_allclose(loaded.predict(X).std, method.predict(X).std, rtol=1e-6)


@pytest.mark.wide  # that of weights alone: the test beside
def test_the_remedies_for_functions_alone_are_right(tmp_path):
    """Saved itself; or built in code, with the values of the variables that were exported."""
    KERAS_3.export(tmp_path / "export", verbose=False)
    words = "variables inside compiled functions cannot be replaced"
    with stumble("network/adapters/file_contents.py:_of_folder", words):
        adapt(tmp_path / "export")
    assert saved_again(tmp_path)
    new = keras.models.clone_model(KERAS_3)
    values = tf.saved_model.load(str(tmp_path / "export")).variables
    new.set_weights([value.numpy() for value in values])
    np.testing.assert_array_equal(adapt(new).model(X), KERAS_3(X))


@pytest.mark.wide  # models that are not built: test_models.py
def test_a_model_that_was_saved_too_early_is_built_first(tmp_path):
    unbuilt(tmp_path / "m.keras")
    with stumble("network/adapters/files.py:_refuse_unbuilt", "train the model, and then save it"):
        adapt(tmp_path / "m.keras")
    model = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(X, X[:, :1], verbose=0)
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(adapt(tmp_path / "m.keras").model(X), model(X))


def test_the_remedy_for_a_class_of_ones_own_is_right(tmp_path):
    model = old_files.compiled(Subclassed(), X)
    path = saved(model, tmp_path / "m")
    with stumble("network/adapters/files.py:_refuse_revived", "with custom_objects=..."):
        adapt(path)
    opened = tf_keras.saving.load_model(path, custom_objects={"Subclassed": Subclassed})
    network = Network(opened)
    assert network.n_params == 5
    np.testing.assert_array_equal(opened(X), model(X))


def test_models_are_told_from_other_files(old, tmp_path):
    (tmp_path / "notes").write_text("notes")
    assert all(is_model(file.path) for file in old.values())
    assert not is_model(tmp_path / "notes")
    assert not is_model(tmp_path / "nothing")
