"""Ways out that errors of a fit, its files and its L2 rates name."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_methods import N, X, Y, fit, fitted, network
from ways import stumble

from deltauq import DeltaMethod, Network
from deltauq.curvature import GGN
from deltauq.curvature.calibrated_tail import TailByShare, TailInputs
from deltauq.curvature.tail_band import measure_residuals
from deltauq.delta import exact
from deltauq.delta.files import artifact, kept_rows
from deltauq.delta.memory_plan import AskedPairs, plan_memory
from deltauq.delta.routes import Work, choose_route
from deltauq.likelihoods import Categorical, CustomLoss, Gaussian
from deltauq.runtime import manifest
from deltauq.runtime.checkpoint import Checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:the weights are far from a minimum"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # Keras' `save`
    pytest.mark.filterwarnings("ignore:The L2 rate is"),
]

layers = keras.layers
OTHER = manifest.Work({}, {})
VALUES = X @ np.array([1.0, -2.0, 0.5, 0.0]) + np.random.default_rng(1).normal(size=N)


def same(found, expected, x=X):
    np.testing.assert_allclose(found.predict(x).std, expected.predict(x).std, rtol=1e-9)


# --- files --------------------------------------------------------------------------------------


@pytest.mark.wide
def test_a_directory_that_is_not_there(tmp_path):
    absent = tmp_path / "a"
    with stumble("delta/files/artifact.py:write", "create it first"):
        fitted().save(absent / "m.deltauq")
    with stumble("delta/files/saved_model.py:export_fit", "create it first"):
        fitted().export(absent / "1")
    absent.mkdir()
    fitted().save(absent / "m.deltauq")
    same(DeltaMethod.load(absent / "m.deltauq"), fitted())
    with stumble("delta/files/artifact.py:write", "name a file in one that exists"):
        fitted().save(absent / "m.deltauq" / "m.deltauq")
    fitted().save(absent / "n.deltauq")
    same(DeltaMethod.load(absent / "n.deltauq"), fitted())


@pytest.mark.wide
def test_an_export_to_a_place_that_is_taken(tmp_path):
    for name in "12":
        (tmp_path / name).mkdir()
    with stumble("delta/files/saved_model.py:export_fit", "another version's directory"):
        fitted().export(tmp_path / "1")
    shutil.rmtree(tmp_path / "1")
    for name in "13":
        fitted().export(tmp_path / name)
        served = tf.saved_model.load(str(tmp_path / name)).signatures["serving_default"]
        std = served(x=tf.constant(X))["std"]
        np.testing.assert_allclose(std, fitted().predict(X).std, rtol=1e-9)


def test_a_copy_that_is_damaged(tmp_path):
    fitted().save(tmp_path / "written")
    whole = (tmp_path / "written").read_bytes()
    (tmp_path / "copy").write_bytes(whole[:-9] + bytes(9))
    with stumble("delta/files/artifact.py:read", "copy it again from where it was written"):
        DeltaMethod.load(tmp_path / "copy")
    shutil.copy(tmp_path / "written", tmp_path / "copy")
    same(DeltaMethod.load(tmp_path / "copy"), fitted())


def test_a_file_of_a_newer_version(tmp_path, monkeypatch):
    fitted().save(tmp_path / "m")
    with monkeypatch.context() as older:
        older.setattr(artifact, "FORMAT", 1)
        with stumble("delta/files/artifact.py:_check_format", "upgrade deltauq"):
            DeltaMethod.load(tmp_path / "m")
    same(DeltaMethod.load(tmp_path / "m"), fitted())


class Module(tf.Module):
    def __init__(self):
        super().__init__()
        kernel = np.random.default_rng(0).normal(size=(4, 3))
        self.kernel = tf.Variable(kernel, dtype=tf.float64)

    def __call__(self, x):
        return x @ self.kernel


class Unsaved(layers.Layer):
    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, x):
        return self.function(x)

    def get_config(self):
        raise NotImplementedError("a function is no configuration")


@pytest.mark.wide
def test_models_that_are_not_put_into_the_file(tmp_path):
    site = "delta/files/fits.py:_model_bytes"
    module, model = Module(), network(Unsaved(tf.tanh, dtype="float64"))
    of_tensorflow, of_keras = fit(module, likelihood="categorical"), fit(model)
    with stumble(site, "only models of Keras"):
        of_tensorflow.save(tmp_path / "m")
    with stumble(site, "Keras cannot save"):
        of_keras.save(tmp_path / "m")
    for found in (of_tensorflow, of_keras):
        found.save(tmp_path / "m", with_model=False)
        same(DeltaMethod.load(tmp_path / "m", found.model), found)


@pytest.mark.wide  # recognised: tests/delta/files/test_fits.py
def test_a_model_that_was_trained_on(tmp_path):
    model = network()
    found, first = fit(model), model.get_weights()
    found.save(tmp_path / "before")
    model.layers[0].bias.assign([1.0, 0.0, 0.0])
    site = "delta/files/fits.py:_same_network"
    with stumble("delta/files/fits.py:_model_bytes", "call fit again"):
        found.save(tmp_path / "m")
    with stumble(site, "load(path) takes the model in the file"):
        DeltaMethod.load(tmp_path / "before", model)
    same(DeltaMethod.load(tmp_path / "before"), fitted())
    again = found.fit(X, Y)
    again.save(tmp_path / "m", with_model=False)
    same(DeltaMethod.load(tmp_path / "m", model), again)
    last = model.get_weights()
    model.set_weights(first)
    with stumble(site, "the weights that it had then"):
        DeltaMethod.load(tmp_path / "m", model)
    model.set_weights(last)
    same(DeltaMethod.load(tmp_path / "m", model), again)


def test_vectors_in_fewer_bits_of_a_singular_covariance(tmp_path):
    found = fitted(rank=3, tail="none")
    with stumble("delta/files/rounding.py:round_covariance", "save without vectors_dtype"):
        found.save(tmp_path / "m", vectors_dtype="float32")
    found.save(tmp_path / "m")
    same(DeltaMethod.load(tmp_path / "m"), found)


BY_ROWS = {"rank": "auto", "route": "gram"}


def exactly(dm, path, **options):
    """What was loaded, which must be exact and predict as what was saved."""
    dm.save(path, **options)
    loaded = DeltaMethod.load(path)
    assert loaded.is_exact
    same(loaded, dm)


def test_training_data_are_kept_of_a_fit_by_rows(tmp_path):
    by_pairs = fit(rank=3, route="sketch")
    with stumble("delta/files/kept_rows.py:_inverse_of", "or fit OPG or GGN with route='gram'"):
        by_pairs.save(tmp_path / "m", training_data=True)
    by_pairs.save(tmp_path / "m")
    same(DeltaMethod.load(tmp_path / "m"), by_pairs)
    exactly(fit(**BY_ROWS), tmp_path / "m", training_data=True)


def test_training_data_are_kept_where_the_noise_is_given(tmp_path):
    one = network(n_outputs=1)
    estimated = fit(one, y=VALUES, likelihood="gaussian", **BY_ROWS)
    with stumble("delta/files/kept_rows.py:_inverse_of", "a noise is estimated from eigenpairs"):
        estimated.save(tmp_path / "m", training_data=True)
    estimated.save(tmp_path / "m")
    same(DeltaMethod.load(tmp_path / "m"), estimated)
    given = fit(one, y=VALUES, likelihood=Gaussian(noise=1.0), **BY_ROWS)
    exactly(given, tmp_path / "m", training_data=True)


def test_a_dense_inverse_is_kept_without_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(exact, "EIGEN_LIMIT", 0)
    dense = fit(rank="auto", route="dense")
    with stumble("delta/files/kept_rows.py:_inverse_of", "all eigenpairs are kept"):
        dense.save(tmp_path / "m", training_data=True)
    exactly(dense, tmp_path / "m")


def test_training_data_that_no_file_holds(tmp_path):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)
    own = CustomLoss(lambda z, y: tf.nn.sparse_softmax_cross_entropy_with_logits(y, z))
    streamed, by_loss = fit(x=data, y=None, **BY_ROWS), fit(likelihood=own, **BY_ROWS)
    with stumble("delta/files/kept_rows.py:_as_given", "or fit with arrays: fit(x, y)"):
        streamed.save(tmp_path / "m", training_data=True)
    with stumble("delta/files/kept_rows.py:_as_given", "predictions need no loss"):
        by_loss.save(tmp_path / "m", training_data=True)
    for dm in (streamed, by_loss):
        dm.save(tmp_path / "m")
        loaded = DeltaMethod.load(tmp_path / "m")
        np.testing.assert_allclose(loaded.predict(X).std, dm.predict(X).std, rtol=2e-3)
    exactly(fit(**BY_ROWS), tmp_path / "m", training_data=True)


def test_vectors_in_fewer_bits_beside_training_data(tmp_path):
    dm = fit(**BY_ROWS)
    with stumble("delta/files/fits.py:save_fit", "leave one of them out"):
        dm.save(tmp_path / "m", training_data=True, vectors_dtype="float32")
    exactly(dm, tmp_path / "m", training_data=True)
    dm.save(tmp_path / "m", vectors_dtype="float32")
    assert DeltaMethod.load(tmp_path / "m").predict(X).std.shape == (N, 3)


def test_training_data_whose_rows_do_not_fit_where_they_are_loaded(tmp_path, monkeypatch):
    dm = fit(**BY_ROWS)
    dm.save(tmp_path / "m", training_data=True)
    with monkeypatch.context() as small:
        small.setattr(kept_rows, "free_memory", lambda limit: 100)
        with stumble("delta/files/kept_rows.py:unpack_rows", "load it where more memory is free"):
            DeltaMethod.load(tmp_path / "m")
        dm.save(tmp_path / "pairs")
        assert DeltaMethod.load(tmp_path / "pairs").predict(X).std.shape == (N, 3)
    same(DeltaMethod.load(tmp_path / "m"), dm)


class Times(layers.Layer):
    """A layer whose code is not in the file, only its name."""

    factor = 1.0

    def call(self, x):
        return self.factor * x


def test_a_layer_whose_code_was_changed(tmp_path, monkeypatch):
    dm = fit(network(Times(dtype="float64")), **BY_ROWS)
    dm.save(tmp_path / "m", training_data=True, with_model=False)
    with monkeypatch.context() as changed:
        changed.setattr(Times, "factor", 1.5)
        other = network(Times(dtype="float64"))
        with stumble("delta/files/kept_rows.py:unpack_rows", "import the code of the model"):
            DeltaMethod.load(tmp_path / "m", other)
    same(DeltaMethod.load(tmp_path / "m", network(Times(dtype="float64"))), dm)


def test_training_data_that_are_fewer_than_the_file_says(tmp_path):
    dm = fit(**BY_ROWS)
    dm.save(tmp_path / "m", training_data=True)
    arrays, facts = artifact.read(tmp_path / "m")
    arrays["training data/labels"] = arrays["training data/labels"][:-1]
    artifact.write(tmp_path / "other", arrays, facts)
    with stumble("delta/files/kept_rows.py:_check_sizes", "copy it again"):
        DeltaMethod.load(tmp_path / "other")
    shutil.copy(tmp_path / "m", tmp_path / "other")
    same(DeltaMethod.load(tmp_path / "other"), dm)


def test_a_loaded_method_without_its_data(tmp_path):
    fitted(rank=3).save(tmp_path / "m")
    loaded, expected = DeltaMethod.load(tmp_path / "m"), fitted(rank=3).rank_curve(X)
    with stumble("delta/problem.py:Problem.require_data", "attach(x, y)"):
        loaded.tune_l2(X, Y)
    with stumble("delta/problem.py:Problem.require_data", "rank_curve(x) takes other inputs"):
        loaded.rank_curve()
    np.testing.assert_allclose(loaded.rank_curve(X).widths, expected.widths, rtol=1e-6)
    loaded.attach(X, Y)
    np.testing.assert_allclose(loaded.rank_curve().widths, expected.widths, rtol=1e-6)


# --- checkpoints --------------------------------------------------------------------------------


def test_a_directory_that_is_not_for_a_checkpoint_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    site = "runtime/checkpoint.py:Checkpoint._make_directory"
    with stumble(site, "name a directory for this fit alone"):
        DeltaMethod(network(), progress=False).fit(X, Y, checkpoint=tmp_path)
    with stumble(site, "not a directory"):
        DeltaMethod(network(), progress=False).fit(X, Y, checkpoint=tmp_path / "thesis.tex")
    with stumble(site, "or change who may write there"):
        DeltaMethod(network(), progress=False).fit(X, Y, checkpoint=tmp_path / "thesis.tex" / "a")
    for place in ("mine", "deep/er"):
        method = DeltaMethod(network(), "ggn", l2=0.1, rank="full", progress=False)
        same(method.fit(X, Y, checkpoint=tmp_path / place), fitted())


def test_a_checkpoint_that_another_fit_is_using(tmp_path):
    method = DeltaMethod(network(), "ggn", l2=0.1, rank="full", progress=False)
    site = "runtime/one_at_a_time.py:DirectoryLock._in_use"
    with Checkpoint(tmp_path / "a").begin(OTHER), stumble(site, "wait for that fit to end"):
        method.fit(X, Y, checkpoint=tmp_path / "a")
    same(method.fit(X, Y, checkpoint=tmp_path / "a"), fitted())
    with Checkpoint(tmp_path / "a").begin(OTHER), stumble(site, "name another directory"):
        method.fit(X, Y, checkpoint=tmp_path / "a")
    same(method.fit(X, Y, checkpoint=tmp_path / "b"), fitted())


def test_a_checkpoint_where_nothing_can_be_written(tmp_path, monkeypatch):
    """As the system says of a directory that is another user's; to root it says no such thing."""
    made = Path.open

    def refused(path, mode="r", **options):
        if mode == "a+b":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return made(path, mode, **options)

    method = DeltaMethod(network(), "ggn", l2=0.1, rank="full", progress=False)
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.open", refused)
        with stumble("runtime/one_at_a_time.py:DirectoryLock.take", "change who may write there"):
            method.fit(X, Y, checkpoint=tmp_path)
    same(method.fit(X, Y, checkpoint=tmp_path), fitted())


def test_a_checkpoint_of_another_fit(tmp_path):
    def broken_off(*_, **__):
        raise KeyError

    def fit_of(curvature, folder):
        method = DeltaMethod(network(), curvature, l2=0.1, rank="full", progress=False)
        return method.fit(X, Y, checkpoint=folder)

    def interrupted():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("deltauq.delta.solving.eigenpairs", broken_off)
            fit_of("opg", tmp_path / "a")

    with pytest.raises(KeyError):
        interrupted()
    with stumble("runtime/manifest.py:Work.check_same", "name another directory"):
        fit_of("ggn", tmp_path / "a")
    same(fit_of("ggn", tmp_path / "b"), fitted())
    shutil.rmtree(tmp_path / "a")
    same(fit_of("ggn", tmp_path / "a"), fitted())


# --- L2 rates -----------------------------------------------------------------------------------

HALF = {"*kernel": 0.1, "*bias": 0.0}


@pytest.mark.wide  # refused: tests/delta/test_caveats.py
def test_variables_without_a_rate():
    site = "delta/rates.py:_check_rates"
    with stumble(site, "pass l2='tune'"):
        fit(l2="auto", rank=3)
    tuned = fit(l2="tune", rank=3)
    rate = next(iter(tuned.l2_rates.values()))
    same(fit(l2=rate, rank=3), tuned)
    with stumble(site, "layers=... without those variables"):
        fit(l2=HALF, rank=3)
    kernel = fit(l2="auto", rank=3, layers=["kernel"], model=network(l2=0.1))
    same(fit(l2=0.1, rank=3, layers=["kernel"]), kernel)
    with stumble(site, "or rank='full'"):
        fit(network(n_outputs=1), y=Y > 0, l2=0.0, rank=3, likelihood="binary")
    exact = fit(network(n_outputs=1), y=Y > 0, l2=0.0, likelihood="binary")
    close = fit(network(n_outputs=1), y=Y > 0, l2=1e-9, likelihood="binary")
    np.testing.assert_allclose(exact.predict(X).std, close.predict(X).std, rtol=1e-5)


def test_where_no_variable_has_a_rate_there_is_none_to_leave_out():
    with stumble("delta/rates.py:_check_rates", "pass l2='tune'") as caught:
        fit(l2="auto", rank=3)
    assert "layers" not in caught.error.remedy
    assert fit(l2=0.1, rank=3).caveats == fitted(rank=3).caveats


@pytest.mark.wide
def test_tuning_rates_of_which_some_are_zero():
    free = fit(network(n_outputs=1), y=Y > 0, l2=HALF, likelihood="binary")
    words = "a rate for all variables"
    with stumble("delta/marginal_likelihood.py:tune_l2", words):
        free.tune_l2()
    with stumble("delta/marginal_likelihood.py:_spectrum", words):
        free.log_marginal_likelihood()
    options = {"y": Y > 0, "likelihood": "binary"}
    tuned = fit(network(n_outputs=1), l2="tune", **options)
    given = fit(network(n_outputs=1), **options)
    best = given.tune_l2()
    assert tuned.log_marginal_likelihood().value == pytest.approx(
        given.log_marginal_likelihood().value, rel=1e-6
    )
    assert next(iter(tuned.l2_rates.values())) == pytest.approx(best.rate, rel=1e-3)


@pytest.mark.wide  # refused: tests/curvature/test_posterior.py
def test_the_marginal_likelihood_of_a_sandwich():
    """Whatever it is asked for, by a fit too, in which there is no `tune_l2` to be called."""
    site = "delta/marginal_likelihood.py:_spectrum"
    with stumble(site, "ask another curvature of the same model"):
        fitted("sandwich").log_marginal_likelihood()
    assert np.isfinite(fitted().log_marginal_likelihood().value)
    with stumble(site, "the one that tune_l2() of the other finds"):
        fit(curvature="sandwich", l2="tune")
    rate = fit().tune_l2().rate
    assert np.all(fit(curvature="sandwich", l2=rate).predict(X).std > 0)
    with stumble(site, "held-out data to tune_l2"):
        fitted("sandwich").tune_l2()
    held_out = fit(curvature="sandwich", l2=1.0)
    rate = held_out.tune_l2(X, (Y + 1) % 3).rate
    same(held_out, fit(curvature="sandwich", l2=rate))


@pytest.mark.wide
def test_the_marginal_likelihood_of_a_hessian_in_low_rank():
    """No pass gives its trace."""
    site = "delta/marginal_likelihood.py:_spectrum"
    with stumble(site, "pass curvature='ggn', or rank='full'"):
        fitted("hessian", rank=3).log_marginal_likelihood()
    whole = fitted("hessian").log_marginal_likelihood().value
    # Without a hidden layer the two curvatures of a softmax are one.
    assert whole == pytest.approx(fitted().log_marginal_likelihood().value, rel=1e-9)


@pytest.mark.wide  # held-out labels: tests/curvature/test_posterior.py
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_held_out_likelihood_without_a_maximum():
    site = "delta/marginal_likelihood.py:_maximum"
    model, options = network(n_outputs=1), {"likelihood": Gaussian(noise=1.0)}
    found, held_out = fit(model, y=VALUES, **options), model(X).numpy()[:, 0] + 1.2
    held_out[3] = 1e200
    with stumble(site, "labels that the model gives no probability"):
        found.tune_l2(X, held_out)
    best = found.tune_l2(X[held_out < 1e9], held_out[held_out < 1e9])
    assert np.all(np.isfinite(best.values))
    sure = fitted().predict(X).mean.argmax(axis=1)
    with stumble(site, "or let the training data choose: tune_l2()"):
        fit().tune_l2(X, sure)
    assert fit().tune_l2().rate > 0
    wrong = fitted().predict(X).mean.argmin(axis=1)
    with stumble(site, "give l2=... yourself"):
        fit().tune_l2(X, wrong)
    same(fit(l2=0.1), fitted())


@pytest.mark.wide  # refused: tests/curvature/test_posterior.py
def test_a_marginal_likelihood_that_rises_to_where_no_covariance_is():
    model = network(layers.Dense(5, "tanh", dtype="float64"))
    model.set_weights([2 * weight for weight in model.get_weights()])
    options = {"curvature": "hessian", "l2": 1.0}
    with stumble("delta/marginal_likelihood.py:_maximum", "or pass negative_curvature='project'"):
        fit(model, negative_curvature="keep", **options).tune_l2()
    tuned = fit(model, **options)
    rate = tuned.tune_l2().rate
    same(fit(model, curvature="hessian", l2=rate), tuned)


# --- noise --------------------------------------------------------------------------------------


@pytest.mark.wide  # refused: tests/delta/test_noise.py
def test_noise_that_cannot_be_estimated():
    wide = network(layers.Dense(8, "tanh", dtype="float64"), n_outputs=1)
    options = {"y": VALUES, "likelihood": "gaussian"}
    with stumble("delta/noise.py:with_unbiased_noise", "give the variance"):
        fit(wide, l2=1e-12, **options)
    more = fit(wide, l2=10.0, **options)
    noise = more.fitted_likelihood.noise
    same(fit(wide, y=VALUES, l2=10.0, likelihood=Gaussian(noise, pooled=True)), more)


def test_residuals_that_are_zero():
    model = network(n_outputs=1)
    exact = model(X).numpy()
    with stumble("delta/residual_noise.py:residual_noise", "Gaussian(noise=...)"):
        fit(model, y=exact, likelihood="gaussian")
    found = fit(model, y=exact, likelihood=Gaussian(noise=4.0)).predict(X).std[:, 0]
    design = np.column_stack([X, np.ones(N)])
    precision = design.T @ design / 4.0 + N * 0.1 / 8.0 * np.eye(5)  # beside the mean square
    truth = np.sqrt(np.diag(design @ np.linalg.inv(precision) @ design.T))
    np.testing.assert_allclose(found, truth, rtol=1e-9)


# --- memory, and refinement ---------------------------------------------------------------------


def test_eigenpairs_that_do_not_fit():
    site = "delta/memory_plan.py:plan_memory"
    model = network(layers.Dense(2000, dtype="float64"))
    whole, last = Network(model), Network(model, layers="last")
    options = {"free": 2**28, "batch_size": 4}

    def plan(rank, of=whole, **changes):
        which = {name: changes.pop(name, False) for name in ("in_files", "bounds", "tail")}
        asked = AskedPairs((GGN,), Categorical(), 3, rank, **which)
        spec = tf.TensorSpec([None, 4], tf.float64)
        return plan_memory(of, spec, asked, **(options | changes))

    with stumble(site, "pass a smaller number as rank"):
        plan("full", free=2**40 // 2**8)
    with stumble(site, "keep the vectors in files with vectors_dir=..., "):
        plan(3000)
    with stumble(site, "leave the tail unmeasured with tail='midpoint' and no"):
        plan(400, bounds=True, tail=True)
    for found in (
        plan(100),
        plan(400, bounds=True),
        plan(3000, in_files=True),
        plan(1500, last),
        plan(3000, free=2**32),
    ):
        assert found.batch_size == 4
    with stumble(site, "a smaller batch_size or "):
        plan(1, batch_size=10**6)
    assert plan(1, batch_size=100).total <= 2**28


def test_the_ways_to_room_are_those_that_there_are():
    """Files hold no dense matrix, and no rank is smaller than one."""
    with stumble("delta/memory_plan.py:plan_memory", "pass a smaller number as rank") as caught:
        fit(memory_limit=1)
    assert "vectors_dir" not in caught.error.remedy
    assert "batch_size" not in caught.error.remedy
    with stumble("delta/memory_plan.py:plan_memory", "larger memory_limit") as caught:
        fit(rank=1, memory_limit=1, batch_size=5)
    assert "smaller number as rank" not in caught.error.remedy
    same(fit(memory_limit="64GiB"), fitted())


def hidden(dtype="float64"):
    return network(layers.Dense(5, "tanh", dtype=dtype), dtype=dtype)


@pytest.mark.filterwarnings("ignore:the exact Hessian shows no minimum")
@pytest.mark.filterwarnings("ignore:the largest curvature is")
def test_refining_beyond_the_precision():
    """Rows of a GGN are multiplied in float64 then; a Hessian has none."""
    options = {"l2": 1e-8, "rank": 20, "curvature": "hessian"}
    with stumble("delta/enclosing.py:_too_large", "build the model in float64"):
        fit(hidden("float32"), **options).refine(X[:2])
    for dtype, l2, curvature in (("float64", 1e-8, "ggn"), ("float32", 3.0, "hessian")):
        model, options = hidden(dtype), {"l2": l2, "curvature": curvature}
        refined = fit(model, rank=20, **options).refine(X[:2]).std
        np.testing.assert_allclose(refined, fit(model, **options).predict(X[:2]).std, rtol=0.02)


@pytest.mark.filterwarnings("ignore:the largest curvature is")
@pytest.mark.filterwarnings("ignore:1 of 1 inputs did not reach rtol")
def test_refining_in_float64_without_room(tmp_path, monkeypatch):
    model = network(layers.Dense(40, "tanh"), dtype="float32")  # P = 323
    truth = fit(model, l2=1e-7).predict(X[:1]).std

    def refined(max_passes=6, rank=20, **more):
        return fit(model, l2=1e-7, rank=rank, **more).refine(X[:1], max_passes=max_passes).std

    for module in ("answers", "enclosing"):
        free = f"deltauq.delta.{module}.free_memory"
        monkeypatch.setattr(free, lambda limit: 2**30 if limit else 200_000)

    with stumble("prediction/result_memory.py:_jacobian_bytes", "pass a smaller max_passes"):
        refined(max_passes=60)
    with stumble("delta/enclosing.py:by_rows", "with vectors_dir=... on a disk"):
        refined()
    for way in ({"rank": 8}, {"vectors_dir": tmp_path}, {"memory_limit": "99GiB"}):
        np.testing.assert_allclose(refined(**way), truth, rtol=0.05)


def test_refining_fewer_parameters_than_a_step_needs():
    with stumble("delta/refinement.py:refinement", "pass rank='full'"):
        fit(rank=1, layers=["bias"]).refine(X)
    low, high = fit(layers=["bias"]).refine(X).std_bounds
    np.testing.assert_allclose(low, high, rtol=1e-8)


@pytest.mark.filterwarnings("ignore:the exact Hessian shows no minimum")
@pytest.mark.filterwarnings("ignore:.* did not reach rtol")
def test_refining_a_sandwich_in_one_pass():
    model = hidden()
    sandwich = fit(model, curvature="sandwich", rank=20)
    with stumble("delta/refinement.py:refinement", ", or leave it out"):
        sandwich.refine(X[:2], max_passes=1)
    exact = fit(model, curvature="sandwich").predict(X[:2]).std
    for passes in (60, None):
        np.testing.assert_allclose(sandwich.refine(X[:2], max_passes=passes).std, exact, rtol=0.02)


# --- routes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "refused", "taken"),
    [
        ({"curvature": "hessian"}, "gram", "dense"),
        ({"curvature": "ggn"}, "lanczos", "dense"),
        ({"curvature": "ggn", "rank": 5}, "gram", "sketch"),
        ({"curvature": "hessian", "rank": 5}, "dense", "lanczos"),
        ({"curvature": "opg", "l2": {"*kernel": 0.1, "*bias": 0.0}, "y": Y % 2}, "gram", "dense"),
    ],
    ids=["no rows", "a sketch", "a rank", "another rank", "no rate"],
)
def test_a_route_that_a_fit_has_not(options, refused, taken):
    """The one that is named is taken, and so is "auto", to the same standard errors."""
    if "y" in options:  # a last bias that the data determine
        options = options | {"model": network(n_outputs=1), "likelihood": "binary"}
    with stumble("delta/exact.py:_forced", ", or 'auto'") as caught:
        fit(route=refused, **options)
    assert f"pass route={taken!r}" in caught.error.remedy
    named, automatic = (fit(route=route, **options) for route in (taken, "auto"))
    assert (named.route, automatic.route) == (taken, taken)
    same(named, automatic)


def test_no_route_at_all(monkeypatch):
    """All of a matrix that is too large to be formed, and that has no rows."""
    with monkeypatch.context() as small:
        small.setattr(exact, "DENSE_LIMIT", 10)
        with stumble("delta/exact.py:_forced", "pass rank='auto' and route='auto'"):
            fit(curvature="hessian", rank="full", route="dense")
    found = fit(curvature="hessian", rank="auto", route="auto")
    same(found, fitted("hessian"))


def test_a_route_without_room(monkeypatch):
    with monkeypatch.context() as small:
        small.setattr(exact, "free_memory", lambda limit: 2**10)
        with stumble("delta/exact.py:_refuse_without_room", "pass route='auto'"):
            fit(curvature="opg", rank="auto", route="gram")
        assert fit(curvature="opg", rank="auto", route="auto").route == "dense"
    assert fit(curvature="opg", rank="auto", route="gram", memory_limit="1000GiB").route == "gram"


def test_nothing_left_out_without_room():
    """On paper, for want of a machine that is just too small."""
    work = Work(10_000, 10_000, 15_000, 10, 15_000, 150_000_000)
    with stumble("delta/routes.py:choose_route", "pass a number as rank, rank='auto'"):
        choose_route(work, exact=True, free=2**31)
    assert choose_route(work, exact=False, free=2**31) == "sketch"
    assert choose_route(work, exact=True, free=2**35) in ("dense", "gram")
    fewer = replace(work, n_params=5_000, inner=5_000, held=50_000_000)
    assert choose_route(fewer, exact=True, free=2**31) in ("dense", "gram")


# --- the tail -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the exact Hessian shows no minimum")
def test_a_tail_that_cannot_be_measured():
    with stumble("delta/settings.py:Settings._check_calibrated", "pass tail='auto' or 'midpoint'"):
        fit(curvature="hessian", rank=5, tail="calibrated")
    model = network(layers.Dense(5, "tanh", dtype="float64"))
    fit(model, curvature="hessian", rank=5, tail="auto").refine(X[:2], rtol=0.5)
    with stumble("delta/settings.py:Settings._check_calibrated", "pass bounds=True"):
        fit(rank=5, tail="calibrated", bounds=False)
    calibrated = fit(rank=5, tail="calibrated")
    assert calibrated.eigenpairs.tail is not None
    assert fit(rank=5, tail="midpoint", bounds=False).eigenpairs.tail is None


def test_calibration_inputs_that_nothing_is_measured_on():
    model, options = network(), {"rank": 5, "l2": 0.05, "progress": False}
    middle = DeltaMethod(model, "ggn", tail="midpoint", **options)
    with stumble("delta/settings.py:Settings.check_calibration", "leave calibration=... out"):
        middle.fit(X, Y, calibration=X[:4])
    assert middle.fit(X, Y).eigenpairs.tail is None
    middle.tail = "auto"  # what differs
    assert middle.fit(X, Y, calibration=X[:4]).eigenpairs.tail.exchangeable


@pytest.mark.filterwarnings("ignore:the estimated noise leaves")
def test_calibration_inputs_of_a_loss_that_makes_a_sandwich():
    """Mean squares of outputs of unequal noise: the tail is estimated for chosen inputs."""
    model, y = network(n_outputs=2), np.random.default_rng(0).normal(size=(N, 2))
    model.compile(loss="mse")
    dm = DeltaMethod(model, "ggn", rank=5, l2=0.1, progress=False)
    with stumble("delta/solving.py:check_measurable", "leave calibration=... out"):
        dm.fit(X, y, calibration=X[:9])
    with stumble("delta/solving.py:check_measurable", "and tail='auto' as it is"):
        DeltaMethod(model, "ggn", rank=5, l2=0.1, tail="calibrated").fit(X, y)
    assert dm.fit(X, y).eigenpairs.tail is None
    refined, exact = dm.refine(X[:2]), DeltaMethod(model, "ggn", rank="full", l2=0.1).fit(X, y)
    np.testing.assert_allclose(refined.std, exact.predict(X[:2]).std, rtol=0.05)


def test_a_range_of_standard_errors():
    options = {"rank": 5, "l2": 0.1, "progress": False}
    few = DeltaMethod(network(), "ggn", **options).fit(X, Y, calibration=X[:9]).predict(X)
    with stumble("curvature/tail_band.py:TailBand.ends", "pass a smaller level"):
        few.std_range(0.9)
    assert few.std_range(0.8).n_inputs == 9
    more = np.random.default_rng(1).normal(size=(19, 4))  # as many as it names
    enough = DeltaMethod(network(), "ggn", **options).fit(X, Y, calibration=more)
    assert enough.predict(X).std_range(0.9).level == pytest.approx(0.9)
    hessian = fit(curvature="hessian", rank=5, negative_curvature="keep")
    with stumble("prediction/estimate.py:Estimate.std_range", "use std_bounds, or refine(x)"):
        hessian.predict(X).std_range()
    low, high = hessian.predict(X).std_bounds
    assert np.all(low <= high)


def test_a_range_beside_curvature_that_drowns_l2():
    """Rounding beside L2 is what the model's precision and the rate make of it."""
    rows = np.eye(4)[None]
    inputs = TailInputs(lambda: [rows], None, 1e-4, 0)
    by_share = TailByShare(0.1, 0.0, (0.1, 0.9))
    vectors = np.eye(4)[:, :1].astype("float32")
    site = "curvature/tail_band.py:measure_residuals"
    with stumble(site, "scale the inputs"):
        measure_residuals(inputs, lambda v: v, vectors, np.array([1e8]), by_share)
    found = measure_residuals(inputs, lambda v: v, vectors.astype(float), np.array([1e8]), by_share)
    assert np.all(found.low <= found.high)


def test_a_tail_beside_a_dataset():
    """Its order may change: what is left out in one pass need not be in the next."""
    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(N, seed=1).batch(5)
    options = {"rank": 5, "l2": 0.1, "progress": False}
    site = "delta/calibration.py:tail_inputs"
    with stumble(site, "pass calibration=x_new"):
        DeltaMethod(network(), "ggn", tail="calibrated", **options).fit(data)
    given = DeltaMethod(network(), "ggn", tail="calibrated", **options)
    assert given.fit(data, calibration=X[:9]).eigenpairs.tail.exchangeable
    assert DeltaMethod(network(), "ggn", tail="calibrated", **options).fit(X, Y).eigenpairs.tail
    with stumble(site, "tail='auto'"):
        DeltaMethod(network(), "ggn", tail="calibrated", **options).fit(data)
    assert DeltaMethod(network(), "ggn", **options).fit(data).eigenpairs.tail is None


def test_a_tail_of_a_curvature_that_is_no_sum_over_examples(monkeypatch):
    """One that is drawn, as `MonteCarloGGN` is, goes by the order of all rows."""
    monkeypatch.setattr(GGN, "has_parts", False)
    options = {"rank": 5, "l2": 0.1, "progress": False}
    drawn = DeltaMethod(network(), "ggn", tail="calibrated", **options)
    with stumble("delta/calibration.py:tail_inputs", "pass calibration=x_new") as caught:
        drawn.fit(X, Y)
    assert "draws go by the order" in str(caught.error)
    assert drawn.fit(X, Y, calibration=X[:9]).eigenpairs.tail.exchangeable
    automatic = DeltaMethod(network(), "ggn", **options).fit(X, Y)
    assert automatic.eigenpairs.tail is None
    assert not any(caveat.subject == "tail" for caveat in automatic.caveats)


def test_a_tail_of_one_example():
    """Were it held out, no curvature would be left; bounds without a tail hold the truth."""
    options = {"rank": 1, "l2": 0.1, "progress": False}
    for curvature in ("opg", "ggn"):
        one = DeltaMethod(network(), curvature, tail="calibrated", **options)
        with stumble("delta/calibration.py:tail_inputs", "pass calibration=x_new") as caught:
            one.fit(X[:1], Y[:1])
        assert "one example" in str(caught.error)
        assert one.fit(X[:1], Y[:1], calibration=X[:9]).predict(X).std.shape == (N, 3)
        low, high = (
            DeltaMethod(network(), curvature, **options)
            .fit(X[:4], Y[:4], sample_weight=np.eye(4)[0])
            .predict(X)
            .std_bounds
        )
        truth = fit(None, X[:1], Y[:1], curvature).predict(X).std
        assert np.all((low <= truth * (1 + 1e-9)) & (truth <= high * (1 + 1e-9)))


def test_a_range_of_a_fit_whose_calibration_inputs_are_gone(tmp_path):
    options = {"rank": 5, "l2": 0.1, "progress": False}
    fitted = DeltaMethod(network(), "ggn", **options).fit(X, Y, calibration=X[:9])
    fitted.save(tmp_path / "m.deltauq")
    with stumble("delta/tail_band.py:_measured", "call std_range() of a prediction once before"):
        DeltaMethod.load(tmp_path / "m.deltauq").predict(X).std_range(0.8)
    low, _ = fitted.predict(X).std_range(0.8)
    fitted.save(tmp_path / "m.deltauq")
    loaded = DeltaMethod.load(tmp_path / "m.deltauq").predict(X)
    np.testing.assert_allclose(loaded.std_range(0.8).low, low)
