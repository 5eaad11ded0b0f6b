"""`DeltaUncertainty` gives what `DeltaMethod` gives, where Keras users look for it."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
from marks import slow, wide

from deltauq import DeltaMethod, DeltaUncertainty
from deltauq.errors import InvalidInputError, TunedL2Warning, UnsupportedModelError


@pytest.fixture
def data():
    return make_data()


def make_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3)).astype("float32")
    return x[:90], np.argmax(x[:90] + rng.normal(size=(90, 3)), axis=1), x[90:]


def untrained():
    keras.utils.set_random_seed(0)
    l2 = {"kernel_regularizer": keras.regularizers.L2(0.02)}
    l2["bias_regularizer"] = l2["kernel_regularizer"]
    model = keras.Sequential(
        [
            keras.Input((3,), name="features"),
            keras.layers.Dense(4, "tanh", name="hidden", **l2),
            keras.layers.Dense(3, "softmax", name="iris.species-1", **l2),
        ]
    )
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy")
    return model


@functools.cache
def minimum():
    """After 100 steps, ten to an epoch, which take less time than as many epochs."""
    model = untrained()
    x, y, _ = make_data()
    model.fit(
        np.tile(x, (10, 1)), np.tile(y, 10), batch_size=90, epochs=10, shuffle=False, verbose=0
    )
    return model.get_weights()


def build():
    """Close to a minimum, so that a few epochs more stay there."""
    model = untrained()
    model.set_weights(minimum())
    model.optimizer.learning_rate = 1e-3
    return model


def train(model, data, *callbacks, epochs=4, **options):
    options = {"verbose": 0} | options
    return model.fit(
        data[0], data[1], batch_size=90, epochs=epochs, callbacks=list(callbacks), **options
    )


def test_it_is_the_delta_method_of_the_trained_model(data):
    x, y, x_val = data
    model = build()
    callback = DeltaUncertainty(x, y, x_val=x_val, curvature="ggn")
    history = train(model, data, callback)
    dm = DeltaMethod(model, "ggn", progress=False).fit(x, y)
    prediction = dm.predict(x_val)
    np.testing.assert_allclose(callback.delta_.predict(x_val).std, prediction.std, rtol=1e-5)
    low, high = prediction.std_bounds
    figures = [history.history[name] for name in ("val_mean_score", "val_std_width")]
    assert [len(each) for each in figures] == [4, 4]  # a frame takes lists of one length
    assert np.all(np.isnan(figures[0][:-1]))
    assert figures[0][-1] == pytest.approx(np.mean(prediction.score), rel=1e-5)
    assert figures[1][-1] == pytest.approx(np.median((high - low) / high), rel=1e-3, abs=1e-6)


def test_calibration_inputs_are_those_of_the_delta_method(data):
    x, y, x_val = data
    options = {"curvature": "ggn", "rank": 3, "route": "sketch"}
    model, callback = build(), DeltaUncertainty(x, y, calibration=x_val, **options)
    train(model, data, callback)
    dm = DeltaMethod(model, progress=False, **options).fit(x, y, calibration=x_val)
    found, expected = (each.predict(x_val) for each in (callback.delta_, dm))
    np.testing.assert_allclose(found.std, expected.std, rtol=1e-6)
    assert found.std_range().guaranteed
    assert str(found.std_range()) == str(expected.std_range())


@pytest.mark.wide  # the figures: the first test
def test_later_callbacks_find_the_figures_in_the_logs(data):
    seen = {}
    late = keras.callbacks.LambdaCallback(on_train_end=seen.update)
    history = train(build(), data, DeltaUncertainty(*data[:2], x_val=data[2]), late)
    assert seen["val_mean_score"] == history.history["val_mean_score"][-1]


# A callback is a fit with its arguments: the first test; weights of it: tests/data
@pytest.mark.wide
@pytest.mark.parametrize("name", ["sample_weight", slow("class_weight")])
def test_weights_count(data, name):
    """Those of samples, whole numbers, as so many rows; those of classes are importance."""
    x, y, _ = data
    weights = 1.0 + np.arange(90) % 3 if name == "sample_weight" else {0: 2.0}
    callback = DeltaUncertainty(x, y, **{name: weights})
    train(build(), data, callback, epochs=40, **{name: weights})
    found = callback.delta_.weighting, callback.delta_.n_examples
    assert found == (("counts", 180.0) if name == "sample_weight" else ("importance", 90.0))


def test_the_model_is_left_as_it_was_and_trains_on(data):
    x, y, x_val = data
    plain, watched = build(), build()
    callback = DeltaUncertainty(x, y, x_val=x_val)
    train(plain, data)
    train(watched, data, callback)
    assert set(vars(watched)) == set(vars(plain))
    for one, other in zip(plain.get_weights(), watched.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    first, before = callback.delta_, callback.delta_.predict(x_val)
    history = train(watched, data, callback, epochs=2)
    np.testing.assert_array_equal(first.predict(x_val).std, before.std)  # at its own weights
    assert np.any(callback.delta_.predict(x_val).std != before.std)
    assert len(history.history["val_mean_score"]) == 2


@pytest.mark.wide  # the weights at the end are those of the model: the first test
def test_it_follows_callbacks_that_restore_weights(data):
    x, y, x_val = data
    model = untrained()
    stopping = keras.callbacks.EarlyStopping("loss", patience=0, restore_best_weights=True)
    callback = DeltaUncertainty(x, y, x_val=x_val)
    train(model, data, stopping, callback, epochs=60)
    np.testing.assert_allclose(
        callback.delta_.predict(x_val).probabilities, model.predict(x_val, verbose=0), rtol=1e-5
    )


@pytest.mark.wide  # the figures of one training: test_later_callbacks
def test_one_history_over_two_trainings(data):
    """A history that the user keeps goes on; the figures stand at the end of each training."""
    model, kept = build(), keras.callbacks.History()
    callback = DeltaUncertainty(*data[:2], x_val=data[2])
    for _ in range(2):
        train(model, data, kept, callback, epochs=3)
    assert {len(values) for values in kept.history.values()} == {6}
    assert list(np.flatnonzero(np.isfinite(kept.history["val_mean_score"]))) == [2, 5]


@pytest.mark.parametrize(
    ("verbose", "of_fit", "says"),
    [
        (None, 0, False),
        wide(None, 2, True),
        wide(0, 2, False),
        wide(2, 0, True),
        wide(None, "auto", True),
    ],
)
def test_it_is_as_silent_as_asked(data, capsys, verbose, of_fit, says):
    callback = DeltaUncertainty(*data[:2], x_val=data[2], verbose=verbose, curvature="opg")
    train(build(), data, callback, verbose=of_fit)
    printed = capsys.readouterr().out
    assert ("opg: " in printed) == says
    assert ("val_mean_score: 0." in printed) == says


@pytest.mark.wide  # what is logged with some: the first test
def test_without_validation_inputs_there_is_nothing_to_log(data, capsys):
    callback = DeltaUncertainty(*data[:2])
    history = train(build(), data, callback, verbose=2)
    assert set(history.history) == {"loss"}
    assert callback.delta_.n_examples == 90
    assert " by dense - " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"curvatur": "ggn"}, TypeError, "curvatur"),
        ({"curvature": "fisher"}, InvalidInputError, "curvature='fisher' is not known"),
        ({"l2": {"*bias": 0.0}}, InvalidInputError, "no L2 rate.*hidden/bias"),
        ({"rank": 1000}, InvalidInputError, "rank is larger.*P = 31"),
        ({"layers": "output"}, InvalidInputError, "'output'"),
        (
            {"calibration": np.ones((2, 3)), "curvature": "hessian"},
            InvalidInputError,
            r"leave calibration=\.\.\. out",
        ),
    ],
    ids=["misspelt", "not known", "missing L2", "rank", "layers", "calibration"],
)
def test_what_the_end_would_refuse_is_refused_before_training(data, options, error, text):
    model = build()
    before = model.get_weights()
    with pytest.raises(error, match=text):
        train(model, data, DeltaUncertainty(*data[:2], **options))
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_so_is_what_only_the_optimizer_decays(data):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.AdamW(), "sparse_categorical_crossentropy")
    with pytest.raises(UnsupportedModelError, match="optimizer decayed weights"):
        train(model, data, DeltaUncertainty(*data[:2]))
    assert int(model.optimizer.iterations) == 0


@pytest.mark.wide  # each error of `fit` alone: tests/acceptance/test_errors.py
def test_a_model_that_its_first_batch_builds(data):
    model = keras.Sequential([keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy")
    with pytest.raises(InvalidInputError, match="curvature='fisher' is not known"):
        train(model, data, DeltaUncertainty(*data[:2], curvature="fisher"))
    assert not model.built
    with pytest.raises(InvalidInputError, match="no L2 rate"):
        train(model, data, DeltaUncertainty(*data[:2]))
    assert int(model.optimizer.iterations) == 1  # of 4 epochs of one batch
    callback = DeltaUncertainty(*data[:2], l2="tune")
    with pytest.warns(TunedL2Warning):
        train(model, data, callback, epochs=100)
    assert callback.delta_.n_examples == 90


@pytest.mark.parametrize("suffix", [wide(".keras"), slow(".h5")])
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras' own
def test_a_model_that_went_through_keras_saving_gives_the_same(data, tmp_path, suffix):
    """Its names do no harm; nor does wrapping it before."""
    x, y, x_val = data
    model = build()
    train(model, data)
    before = DeltaMethod(model, progress=False).fit(x, y).predict(x_val)
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.saving.load_model(tmp_path / f"model{suffix}")
    after = DeltaMethod(loaded, progress=False).fit(x, y).predict(x_val)
    np.testing.assert_array_equal(before.probabilities, after.probabilities)
    np.testing.assert_allclose(before.covariance, after.covariance, rtol=1e-6, atol=1e-12)
