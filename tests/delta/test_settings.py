"""A setting of `DeltaMethod` is one fact: what takes it, checks it and keeps it agrees."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields, replace

import keras
import numpy as np
import pytest

from deltauq import DeltaClassifier, DeltaMethod, DeltaRegressor, DeltaUncertainty, compare
from deltauq.delta.files import artifact
from deltauq.delta.settings import Settings
from deltauq.errors import InvalidInputError, MemoryLimitError

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # of Keras, when it saves
]

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 4)).astype("float32"), RNG.integers(0, 3, 40)

#: Of every setting another value than the default, but for those that need a directory.
OTHERS = {
    "curvature": "opg",
    "rank": 7,
    "l2": 0.3,
    "likelihood": "categorical",
    "layers": "last",
    "tail": "l2",
    "rank_tol": 0.1,
    "negative_curvature": "raise",
    "meat": "scores",
    "weights": "importance",
    "bounds": False,
    "batch_size": 9,
    "memory_limit": "64GiB",
    "route": "sketch",
    "seed": 3,
    "progress": False,
}


def build():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.set_weights([np.zeros((4, 3)), np.zeros(3)])
    return model


def parameters(kind):
    return inspect.signature(kind).parameters


def test_the_constructor_takes_every_setting_with_its_default():
    taken = {name: p.default for name, p in parameters(DeltaMethod).items() if name != "model"}
    assert taken == {setting.name: setting.default for setting in fields(Settings)}
    assert OTHERS.keys() == taken.keys() - {"vectors_dir"}


@pytest.mark.parametrize("kind", [DeltaClassifier, DeltaRegressor])
def test_the_estimators_take_every_setting_that_is_not_the_networks_own(kind):
    taken, settings = parameters(kind), {s.name: s.default for s in fields(Settings)}
    own = {"likelihood", "layers", "seed"}  # known from the labels; all; `random_state`
    assert settings.keys() - taken.keys() == own
    others = {"l2", "curvature", "batch_size"}  # other defaults, and a batch size of Adam's
    for name in settings.keys() - own - others:
        assert taken[name].default == settings[name], name


@pytest.mark.parametrize("name", OTHERS)
def test_a_setting_is_an_attribute_that_can_be_read_and_set_again(name):
    given = DeltaMethod(build(), **{name: OTHERS[name]})
    assert getattr(given, name) == getattr(given.settings, name) == OTHERS[name]
    assert given.settings == replace(Settings(), **{name: OTHERS[name]})
    later = DeltaMethod(build())
    setattr(later, name, OTHERS[name])
    assert later.settings == given.settings != Settings()


WRONG = [
    ("curvature", "fisher"),
    ("rank", True),
    ("rank", "half"),
    ("rank", 2.0),
    ("l2", "none"),
    ("l2", True),
    ("tail", "middle"),
    ("rank_tol", 1.5),
    ("negative_curvature", "drop"),
    ("meat", "ggn"),
    ("weights", "frequency"),
    ("bounds", "no"),
    ("progress", 1),
    ("batch_size", 0),
    ("memory_limit", "8 gigs"),
    ("memory_limit", "1.2.3GiB"),
    ("memory_limit", "0GiB"),
    ("route", "rows"),
    ("seed", -1),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_setting_is_refused_when_it_is_given_and_before_it_is_used(name, value):
    text = {"l2": "(?i)l2"}.get(name, name)
    with pytest.raises(InvalidInputError, match=text):
        DeltaMethod(build(), **{name: value})
    method = DeltaMethod(build())
    setattr(method, name, value)
    with pytest.raises(InvalidInputError, match=text):
        method.fit(X, Y)


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        DeltaMethod(build()).settings.rank = 3


#: What format 2 of an artifact holds: of the method, and of the covariance.
OPTIONS = OTHERS.keys() - {"likelihood", "memory_limit"}
OF_COVARIANCE = OPTIONS - {"l2", "layers", "weights", "batch_size", "progress"}


def test_an_artifact_keeps_what_is_not_of_the_process(tmp_path):
    method = DeltaMethod(build(), **OTHERS, vectors_dir=tmp_path).fit(X, Y)
    method.rank, method.tail = 5, "trace"
    method.save(tmp_path / "m")
    _, facts = artifact.read(tmp_path / "m")
    assert facts["options"].keys() == OPTIONS
    assert facts["settings"].keys() == OF_COVARIANCE | {"memory_limit"}
    loaded = DeltaMethod.load(tmp_path / "m")
    assert loaded.memory_limit is loaded.vectors_dir is None
    kept = replace(method.settings, memory_limit=None, vectors_dir=None)
    assert replace(loaded.settings, likelihood="categorical") == kept
    of_fit = loaded._fitted.settings
    assert (of_fit.rank, of_fit.tail, of_fit.l2) == (7, "l2", 0.3)


def test_memory_limit_is_taken_wherever_a_curvature_is_computed():
    with pytest.raises(MemoryLimitError):
        compare(build(), X, Y, X, l2=0.1, likelihood="categorical", memory_limit="1MiB")
    with pytest.raises(MemoryLimitError):
        small(memory_limit="1MiB").fit(X, Y)
    model = build()
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callback = DeltaUncertainty(X, Y, l2=0.1, memory_limit="1MiB")
    with pytest.raises(MemoryLimitError):
        model.fit(X, Y, verbose=0, callbacks=[callback])


def small(**options):
    return DeltaClassifier(hidden_units=(), l2=0.1, epochs=0, progress=False, **options)


def test_an_estimator_refuses_a_wrong_setting_before_it_trains(monkeypatch):
    monkeypatch.setattr(DeltaClassifier, "_train_adam", None)  # a call would be a TypeError
    for name in ("tail", "memory_limit"):
        with pytest.raises(InvalidInputError, match=name):
            small(**{name: dict(WRONG)[name]}).fit(X, Y)


def test_a_pickled_estimator_keeps_its_limit(tmp_path):
    import pickle

    clf = small(memory_limit="64GiB", vectors_dir=tmp_path, rank=5, bounds=False).fit(X, Y)
    back = pickle.loads(pickle.dumps(clf))
    assert (back.delta_.memory_limit, back.delta_.vectors_dir) == ("64GiB", tmp_path)
    np.testing.assert_array_equal(back.predict_uncertainty(X).std, clf.predict_uncertainty(X).std)


def test_what_is_set_for_the_next_fit_leaves_this_one_alone():
    """Attached and refined, the covariance is that of the settings it was fitted with."""
    options = {"rank": "full", "l2": 0.1, "progress": False}
    dm = DeltaMethod(build(), "ggn", **options).fit(X, Y)
    expected = dm.predict(X[:5]).std
    dm.curvature, dm.rank, dm.tail = "hessian", 3, "none"
    dm.attach(X, Y)
    assert (dm.fitted_settings.curvature, dm.fitted_settings.rank) == ("ggn", "full")
    np.testing.assert_array_equal(dm.refine(X[:5]).std, expected)
