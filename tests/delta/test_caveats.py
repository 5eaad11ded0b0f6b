"""Caveats of a fit: each in one place, told once, kept in files and reports, and left by going on.

The model is one as people train them: Adam, early stopping, dropout, batch normalisation, no L2.
"""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

from deltauq import DeltaMethod, diagnose
from deltauq.delta.caveats import SUBJECTS, Caveat, in_order, tell
from deltauq.errors import ConvergenceWarning, CurvatureWarning, InvalidInputError, TunedL2Warning
from deltauq.report import Study

N = 1000

#: Keras, where it saves a model.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 6)).astype("float32")
    return x, (x[:, 0] + 0.7 * rng.normal(size=N) > 0).astype(int) + (x[:, 1] > 1)


@pytest.fixture(scope="module")
def model(data):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(16, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy")
    stop = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    model.fit(*data, validation_split=0.2, epochs=3, verbose=0, callbacks=[stop])
    return model


@pytest.fixture(scope="module")
def tuned(model, data):
    """The fit by the one call that the refusal names, and all the warnings of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        options = {"rank": 60, "l2": "tune", "tail": "midpoint", "progress": False}
        fitted = DeltaMethod(model, "ggn", **options).fit(*data)
    return fitted, caught


def test_the_refusal_names_the_one_call(model, data):
    with pytest.raises(InvalidInputError, match=r"no L2 rate.*pass l2='tune'.*`caveats`"):
        DeltaMethod(model, "ggn", rank=60, progress=False).fit(*data)


def test_one_warning_says_all_in_short(tuned):
    fitted, caught = tuned
    assert [each.subject for each in fitted.caveats] == ["minimum", "l2"]
    (warning,) = caught
    assert warning.category is ConvergenceWarning
    assert warning.filename == __file__
    for caveat in fitted.caveats:
        assert caveat.in_short in str(warning.message)
        assert len(caveat.text) > len(caveat.in_short)
    assert "`caveats`" in str(warning.message)
    assert "caveats: minimum, l2)" in repr(fitted)


def test_files_and_reports_have_them(tuned, data, tmp_path):
    fitted, _ = tuned
    fitted.save(tmp_path / "fit.deltauq")
    assert DeltaMethod.load(tmp_path / "fit.deltauq").caveats == fitted.caveats
    page = Study.of(fitted, data[0][:20]).to_html(figures={})
    for caveat in fitted.caveats:
        assert caveat.text[:60] in page


def test_another_rate_has_caveats_of_its_own(tuned, model, data):
    """What was said of the weights at the rates before is not said of these."""
    far, _ = tuned
    fitted = DeltaMethod(model, "ggn", rank=60, l2=1e3, tail="midpoint", progress=False)
    with pytest.warns(ConvergenceWarning, match="far from a minimum"):
        fitted.fit(*data)
    before, nothing = fitted.caveats
    assert (before.subject, nothing.subject) == ("minimum", "data")
    fitted.tune_l2()
    after, l2 = fitted.caveats
    assert (after.subject, l2.subject) == ("minimum", "l2")
    assert "is what the model was trained with" in before.text
    assert after.in_short == far.caveats[0].in_short != before.in_short
    assert "was chosen after training: train further" in after.text


@pytest.mark.wide  # polishing leads there: tests/evaluation/test_diagnosis.py
def test_the_way_out_leads_to_a_minimum(tuned, model, data):
    """The rate that was chosen, and the cost with it minimised: no caveat is left."""
    fitted, _ = tuned
    minimum = fitted.caveats[0]
    rate = next(iter(fitted.l2_rates.values()))
    assert f"l2={rate:.3g} and polish=True" in minimum.text
    before = model.get_weights()
    found = diagnose(model, *data, l2=rate, polish=True)
    assert found.advice.startswith("The model can be fitted as it is;")
    try:
        again = DeltaMethod(found.apply_polished(), "ggn", rank=60, l2=rate, progress=False)
        assert again.fit(*data).caveats == ()
    finally:
        model.set_weights(before)


@pytest.mark.wide  # advice where all is well, and where not: tests/evaluation/test_diagnosis.py
def test_a_diagnosis_gives_the_same_advice(model, data):
    found = diagnose(model, *data)
    assert "'tune'" in found.advice
    assert "`caveats`" in found.advice
    mistaken = diagnose(model, data[0], data[1] + 10)
    assert mistaken.advice.startswith("Mend the errors first")


def test_gravest_first_and_each_once():
    caveats = [Caveat("l2", "b", "B"), Caveat("minimum", "a", "A"), Caveat("l2", "b", "newer")]
    assert [str(each) for each in in_order(caveats)] == ["A", "newer"]
    assert in_order(caveats)[0].subject == next(iter(SUBJECTS))


def test_one_alone_is_told_in_full():
    with pytest.warns(TunedL2Warning, match="^in full$"):
        tell((Caveat("l2", "in short", "in full"),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell(())


@pytest.fixture(scope="module")
def saddle():
    """Zero weights: the cost's gradient vanishes with as many labels of each class, and no more."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 40)
    x = rng.normal(size=(120, 4)) + np.eye(3, 4)[y]
    layers = keras.layers
    inner = [layers.Dense(5, activation="tanh", dtype="float64"), layers.Dense(3, dtype="float64")]
    model = keras.Sequential([keras.Input((4,), dtype="float64"), *inner])
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, x, y


@pytest.mark.parametrize("options", [{"rank": "full"}, {"rank": 6}])
@pytest.mark.parametrize("curvature", ["hessian", "sandwich"])
def test_a_saddle_of_the_cost_is_told(saddle, curvature, options):
    """No gradient gives it away: an eigenvalue of the exact Hessian below minus L2 does."""
    model, x, y = saddle
    dm = DeltaMethod(model, curvature, l2=0.01, progress=False, **options)
    with pytest.warns(CurvatureWarning, match="shows no minimum of the cost"):
        dm.fit(x, y)
    (caveat,) = dm.caveats
    assert caveat.subject == "curvature"
    assert f"an eigenvalue of {dm.eigenpairs.smallest / 0.01:.3g} L2 rates" in caveat.in_short
    assert dm.eigenpairs.smallest < -0.01


@pytest.mark.parametrize(("curvature", "l2"), [("ggn", 0.01), ("opg", 0.01), ("hessian", 1.0)])
def test_its_remedies_leave_no_saddle(saddle, curvature, l2):
    model, x, y = saddle
    assert DeltaMethod(model, curvature, l2=l2, rank="full", progress=False).fit(x, y).caveats == ()
