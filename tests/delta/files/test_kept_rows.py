"""A file with the training data predicts to the bit as the fit by their rows did, and says so."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from marks import wide, wide_but
from saved_kinds import CLASSES, X, build, first, hidden, softmax, words_and_numbers

from deltauq import DeltaMethod
from deltauq.delta.files import artifact, kept_rows
from deltauq.errors import ArtifactError, InvalidInputError, MemoryLimitError
from deltauq.likelihoods import CustomLoss, Gaussian

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # Keras' `save`
    pytest.mark.filterwarnings("ignore:The L2 rate is"),
]

layers = keras.layers
RNG = np.random.default_rng(3)
WEIGHTS = RNG.uniform(0.5, 2.0, 40)
WORDS = np.array(["red", "green", "blue"])[CLASSES][:, None]


def by_rows(case, *weights, **options):
    model, x, y, own = case()
    options = own | {"rank": "auto", "route": "gram", "progress": False} | options
    return DeltaMethod(model, **options).fit(x, y, *weights), x


def frame():
    model, x, y, options = softmax()
    return model, pd.DataFrame(x, columns=list("abcd")), y, options


def words():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((1,), dtype="string")
    z = layers.Embedding(4, 3)(layers.StringLookup(vocabulary=["red", "green", "blue"])(inputs))
    model = keras.Model(inputs, layers.Softmax()(layers.Dense(3)(layers.Flatten()(z))))
    return model, WORDS, CLASSES, {"curvature": "ggn", "l2": 0.1}


def steps():
    keras.utils.set_random_seed(3)
    model = build(inputs=keras.Input((5, 2)), activation="softmax")
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(20, 5, 2)), rng.integers(0, 3, (20, 5))
    return model, x, y, {"curvature": "opg", "l2": 0.1}


def masked():
    _, x, y, options = steps()
    y = y.astype(float)
    x[::2, 3:], y[::2, 3:] = 0.0, np.nan
    model = build(layers.Masking(0.0), inputs=keras.Input((5, 2)), activation="softmax")
    return model, x, y, options


def known_noise():
    model = build(hidden(), units=2, loss="mse")
    y = RNG.normal(size=(40, 2))
    return model, X, y, {"curvature": "opg", "likelihood": Gaussian(noise=[0.5, 0.5])}


CASES = {
    "importance": lambda: by_rows(softmax, WEIGHTS, {0: 2.0, 2: 0.5}),
    "counts": lambda: by_rows(softmax, np.arange(40) % 3, curvature="opg"),
    "counts and classes": lambda: by_rows(softmax, np.arange(40) % 3, {1: 0.3}),
    "a rate that was tuned": lambda: by_rows(softmax, l2="tune"),
    "rates of their own": lambda: by_rows(softmax, l2={"*kernel": 0.1, "*bias": 0.3}),
    "frame": lambda: by_rows(frame),
    "text": lambda: by_rows(words),
    "several inputs": lambda: by_rows(words_and_numbers),
    "positions": lambda: by_rows(steps, WEIGHTS[:20]),
    "masked": lambda: by_rows(masked, RNG.uniform(size=(20, 5))),
    "numbers": lambda: by_rows(known_noise),
}

#: Cases of `make test`.
SHOWN = [
    *("importance", "counts and classes", "a rate that was tuned", "frame", "text"),
    *("positions", "masked"),
]


@pytest.mark.parametrize("name", wide_but(SHOWN, CASES))
def test_it_predicts_as_the_fit_does(name, tmp_path):
    """To the bit, but for a rate that rows were multiplied by after they were formed."""
    dm, x = CASES[name]()
    saved = dm.save(tmp_path / "m", training_data=True)
    loaded = DeltaMethod.load(tmp_path / "m")
    tolerance = 2e-5 if name == "a rate that was tuned" else 0.0
    few = first(x, 5)
    for ask in (
        lambda dm: dm.predict(few).covariance,
        lambda dm: np.stack(dm.predict(few).std_bounds),
        lambda dm: dm.predict_joint(few).covariance,
        lambda dm: dm.predict_mean(few).std,
        lambda dm: dm.refine(few).std,
    ):
        found, expected = ask(loaded), ask(dm)
        size = np.nanmax(np.abs(expected))
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * size)
    assert loaded.refine(few).data_passes == 0
    assert loaded.is_exact
    assert (loaded.route, loaded.route.why) == ("gram", "as asked")
    assert loaded.columns == dm.columns
    for fact in ("n_rows", "n_masked", "n_predictions", "total_weight", "weighting", "reading"):
        ours, theirs = (each._fitted.problem.data for each in (loaded, dm))
        assert getattr(ours, fact) == getattr(theirs, fact)
    assert saved.bytes == (tmp_path / "m").stat().st_size


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    dm, _ = by_rows(softmax)
    path = tmp_path_factory.mktemp("kept") / "m"
    return dm, path, dm.save(path, training_data=True)


def test_nothing_is_to_be_attached(kept, tmp_path):
    """What asks the training data themselves finds them, and what was loaded is saved again."""
    dm, path, _ = kept
    loaded = DeltaMethod.load(path)
    rows = dm.predict(X).std
    factors = [each.tune_l2().factor for each in (DeltaMethod.load(path), by_rows(softmax)[0])]
    np.testing.assert_allclose(*factors, rtol=1e-4)
    evidence = [float(each.log_marginal_likelihood()) for each in (loaded, dm)]
    np.testing.assert_allclose(*evidence, rtol=1e-6)
    np.testing.assert_allclose(loaded.rank_curve().widths, dm.rank_curve().widths, rtol=1e-4)
    loaded.attach(X[::-1], CLASSES[::-1])
    loaded.save(tmp_path / "again", training_data=True)
    np.testing.assert_array_equal(DeltaMethod.load(tmp_path / "again").predict(X).std, rows)
    loaded.save(tmp_path / "pairs")
    by_pairs = DeltaMethod.load(tmp_path / "pairs").predict(X)
    low, high = by_pairs.std_bounds
    assert np.all((low <= rows) & (rows <= high))


def test_it_says_that_it_holds_the_training_data(kept):
    dm, path, saved = kept
    assert saved.holds.startswith("the training data: all inputs, labels and weights")
    assert saved.vectors_dtype is None
    assert artifact.read(path)[1]["holds"] == saved.holds
    assert "its file holds the training data" in repr(DeltaMethod.load(path))
    assert "its file" not in repr(dm)


def test_an_ordinary_file_holds_no_more_than_it_did(kept, tmp_path):
    saved = kept[0].save(tmp_path / "m")
    assert saved.holds.startswith("a few rows like the first training inputs")
    assert not [name for name in artifact.read(tmp_path / "m")[0] if "training" in name]
    content = (tmp_path / "m").read_bytes()
    assert b'"deltauq.format":"2"' in content  # which earlier readers open
    assert b'"deltauq.format":"3"' in kept[1].read_bytes()
    assert "its file" not in repr(DeltaMethod.load(tmp_path / "m"))


def test_it_is_far_smaller_than_eigenvectors(tmp_path):
    def wide_network():
        model = build(hidden(600), activation="softmax")
        return model, X, CLASSES, {"curvature": "opg", "l2": 0.01}

    dm, _ = by_rows(wide_network)
    rows = dm.save(tmp_path / "rows", with_model=False, training_data=True)
    pairs = dm.save(tmp_path / "pairs", with_model=False)
    assert 20 * rows.bytes < pairs.bytes
    loaded = DeltaMethod.load(tmp_path / "rows", dm.model)
    np.testing.assert_array_equal(loaded.predict(X).std, dm.predict(X).std)


def test_a_damaged_file_is_refused(kept, tmp_path):
    content = bytearray(kept[1].read_bytes())
    content[-9] ^= 1
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        DeltaMethod.load(tmp_path / "m")


def _rewritten(path, to, change):
    """The same file with other arrays, and a checksum that is theirs."""
    arrays, facts = artifact.read(path)
    change(arrays, facts)
    artifact.write(to, arrays, facts)
    return to


def _of_others(arrays, facts):
    arrays["rows/factor"] = np.random.default_rng(0).permutation(arrays["rows/factor"])


def _one_row_other(arrays, facts):
    """One input is another one, and the sums by which data are known again are those of it."""
    arrays["training data/inputs/0"][3] *= 1.05
    x, y = arrays["training data/inputs/0"], arrays["training data/labels"]
    found, _ = by_rows(lambda: (softmax()[0], x, y, {"curvature": "ggn"}))
    facts["data"]["sums"] = found._fitted.problem.data.sums


@pytest.mark.parametrize("change", [_of_others, _one_row_other])
def test_a_factor_of_other_rows_is_refused(kept, tmp_path, change):
    path = _rewritten(kept[1], tmp_path / "m", change)
    with pytest.raises(ArtifactError, match="not those of its factor"):
        DeltaMethod.load(path)


def _shorter(name):
    def change(arrays, facts):
        arrays[name] = arrays[name][:-1]

    return change


@pytest.mark.parametrize(
    "change",
    [
        *map(_shorter, ["rows/factor", "training data/labels", "training data/inputs/0"]),
        lambda arrays, facts: facts["rows"].update(n_rows=10**9),
    ],
)
def test_sizes_are_checked_before_anything_is_made_of_them(kept, tmp_path, change):
    path = _rewritten(kept[1], tmp_path / "m", change)
    with pytest.raises(ArtifactError, match="not as many as it says"):
        DeltaMethod.load(path)


def test_a_factor_that_does_not_fit_is_refused_first(kept, monkeypatch):
    monkeypatch.setattr(kept_rows, "free_memory", lambda limit: 2**10)
    monkeypatch.setattr(kept_rows, "_unpacked", lambda *_: 1 / 0)
    with pytest.raises(MemoryLimitError, match=r"do not fit in memory here.*\[80, 80\]"):
        DeltaMethod.load(kept[1])


def stream():
    model, x, y, options = softmax()
    return model, tf.data.Dataset.from_tensor_slices((x, y)).batch(7), None, options


def own_loss():
    loss = CustomLoss(lambda z, y: tf.nn.sparse_softmax_cross_entropy_with_logits(y, z))
    return *softmax()[:3], {"curvature": "opg", "likelihood": loss}


def estimated_noise():
    return build(hidden(), loss="mse", units=1), X, X[:, 0], {"curvature": "ggn"}


@pytest.mark.parametrize(
    ("case", "options", "words"),
    [
        (softmax, {"route": "dense"}, "exact by dense"),
        wide(softmax, {"route": "sketch", "rank": 8}, "K = 8 of P = 43 by sketch"),
        (stream, {}, "a dataset, which is read anew"),
        (own_loss, {}, "a file holds no code"),
        (estimated_noise, {}, "a noise is estimated from eigenpairs"),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path, case, options, words):
    dm, _ = by_rows(case, **options)
    with pytest.raises(InvalidInputError, match=words):
        dm.save(tmp_path / "m", training_data=True)
    assert not list(tmp_path.iterdir())


def test_a_dense_inverse_needs_no_data(tmp_path, monkeypatch):
    monkeypatch.setattr("deltauq.delta.exact.EIGEN_LIMIT", 0)
    dm, _ = by_rows(softmax, route="dense")
    with pytest.raises(InvalidInputError, match="all eigenpairs are kept, and they are exact"):
        dm.save(tmp_path / "m", training_data=True)
    dm.save(tmp_path / "m")
    assert DeltaMethod.load(tmp_path / "m").is_exact


def test_a_word_is_no_yes_and_vectors_are_none(kept, tmp_path):
    with pytest.raises(InvalidInputError, match="training_data is neither True nor False"):
        kept[0].save(tmp_path / "m", training_data="no")
    with pytest.raises(InvalidInputError, match="of which training_data=True keeps none"):
        kept[0].save(tmp_path / "m", training_data=True, vectors_dtype="float16")
