"""A fit as the content of an artifact, and an artifact's content as a fit."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq import __version__
from deltauq.curvature.cost import Stationarity, per_parameter
from deltauq.curvature.tail_band import Residuals, ResidualsOnce
from deltauq.data.batches import spec_of
from deltauq.data.record import DataRecord
from deltauq.delta.caveats import Caveat
from deltauq.delta.files import artifact
from deltauq.delta.files.kept_pairs import VECTORS, pack_pairs, round_vectors, unpack_pairs
from deltauq.delta.files.kept_rows import pack_rows, unpack_rows
from deltauq.delta.files.nests import pack_nest, unpack_nest
from deltauq.delta.fitted import Fitted
from deltauq.delta.routes import Route
from deltauq.delta.settings import Settings
from deltauq.delta.stating import recall_problem
from deltauq.errors import ArtifactError, InvalidInputError, what_it_says
from deltauq.likelihoods import likelihood_facts, likelihood_of
from deltauq.network.adapters import adapt
from deltauq.network.adapters.files import open_model, tf_keras
from deltauq.network.network import Network
from deltauq.runtime.whole_files import temporary_folder

__all__ = ["Saved", "load_fit", "save_fit"]

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

#: The arrays of an artifact by what they are; a model is opened by the Keras that wrote it.
_MODEL, _OLD_MODEL = "model.keras", "model.tf_keras"

#: The layouts of a fit by pairs, which earlier readers know too, and of one by rows.
_OF_PAIRS, _OF_ROWS = 2, 3

#: What a file says that it holds of the training data, without `training_data=True`.
_SOME_ROWS = (
    "a few rows like the first training inputs, and sums by which the data can be known again"
)


@dataclass(frozen=True)
class Saved:
    """What `DeltaMethod.save` has written, and what fewer bits cost.

    Attributes:
        path: the file.
        bytes: its size.
        vectors_dtype: the precision of the eigenvectors in it; None where it holds none.
        std_error: the largest relative change of any standard error, from eigenvectors in fewer
            bits than they were computed in; 0 where they are as they were.
        holds: what of the training data is in it, in words.
    """

    path: Path
    bytes: int
    vectors_dtype: str | None
    std_error: float
    holds: str


def save_fit(
    fitted: Fitted,
    path: Path,
    settings: Settings,
    *,
    with_model: bool,
    vectors_dtype: str | None,
    training_data: bool,
) -> Saved:
    """Write a fit to a file; see `DeltaMethod.save`.

    Args:
        fitted: the fit.
        path: the file.
        settings: of the method; the covariance may have been made with others.
        with_model: put the Keras model into the file.
        vectors_dtype: of the eigenvectors in the file; None for the network's.
        training_data: put the training data there, and the factor of their rows, in place of them.
    """
    if training_data and vectors_dtype is not None:
        raise InvalidInputError(
            "vectors_dtype is about eigenvectors, of which training_data=True keeps none",
            expected="one of the two",
            received=f"both, vectors_dtype={vectors_dtype!r}",
            remedy="leave one of them out",
        )
    network, measured = fitted.problem.network, fitted.residuals.found
    fingerprint = network.fingerprint()
    arrays: Arrays = {}
    if with_model:
        name = _MODEL if isinstance(network.model, keras.Model) else _OLD_MODEL
        arrays[name] = _model_bytes(network.model, fingerprint, network)
    error = 0.0
    if training_data:
        known = pack_rows(fitted, arrays)
    else:
        fitted, error = round_vectors(fitted, arrays, vectors_dtype)
        known = {"holds": _SOME_ROWS} | pack_pairs(fitted, arrays)
    facts = {
        "versions": {
            "deltauq": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        "fingerprint": fingerprint,
        "options": settings.of_method(),
        # With None for a setting that is not kept: readers of format 2 ask for it.
        "settings": fitted.settings.of_covariance() | {"memory_limit": None},
        "network": _network_facts(network),
        "rates": [float(fitted.problem.rates[p.start]) for p in network.parameters],
        "likelihood": likelihood_facts(fitted.problem.likelihood),
        "stationarity": asdict(fitted.stationarity),
        "seconds": fitted.seconds,
        "mean_weight": fitted.mean_weight,
        "rounded": fitted.rounded,
        "caveats": [asdict(caveat) for caveat in fitted.caveats],
        "route": None if fitted.route is None else [str(fitted.route), fitted.route.why],
        "residuals": None if measured is None else [list(each) for each in measured],
        "vectors_dtype": vectors_dtype,
        "data": _pack_data(fitted, arrays),
    }
    artifact.write(path, arrays, known | facts, layout=_OF_ROWS if training_data else _OF_PAIRS)
    dtype = None if training_data else str(arrays[VECTORS].dtype)
    return Saved(path, path.stat().st_size, dtype, error, known["holds"])


def load_fit(path: Path, model: Any) -> tuple[Any, Fitted, Settings]:
    """Read the model, the fit and the settings of the method from a file.

    Args:
        path: the file.
        model: the model that was wrapped; None for the one in the file.

    Raises:
        ArtifactError: a file that cannot be used, or another model.
    """
    arrays, facts = artifact.read(path)
    model = _embedded(arrays, path) if model is None else model
    network = _same_network(model, facts, holds_model=bool(arrays.keys() & {_MODEL, _OLD_MODEL}))
    probe = unpack_nest(facts["data"]["x"], arrays, "probe")
    probe = tf.nest.map_structure(tf.constant, probe)
    likelihood = likelihood_of(facts["likelihood"])
    problem = recall_problem(
        network,
        likelihood,
        _unpack_data(facts["data"], probe),
        per_parameter(network.parameters, np.array(facts["rates"])),
        probe,
    )
    settings = Settings(likelihood=likelihood, **_options(facts, network))
    of_covariance = replace(settings, **facts["settings"])
    holds_data, known = "rows" in facts, None
    if holds_data:
        problem, known = unpack_rows(facts, arrays, problem, of_covariance)
    fitted = Fitted(
        problem,
        of_covariance,
        known or unpack_pairs(facts, arrays, problem.scale, network.dtype),
        Stationarity(**facts["stationarity"]),
        facts["seconds"],
        facts.get("mean_weight", 1.0),  # earlier files did not say
        rounded=facts["rounded"],
        caveats=tuple(Caveat(**caveat) for caveat in facts.get("caveats", ())),
        route=Route(*facts["route"]) if facts.get("route") else None,  # nor of this
        data_in_file=holds_data,
        residuals=_unpack_residuals(facts.get("residuals")),
    )
    return network.model, fitted, settings


def _unpack_residuals(kept: list[list[float]] | None) -> ResidualsOnce:
    """What was measured of single inputs before the fit was saved, if anything was."""
    if kept is None:
        return ResidualsOnce()
    low, high, *noise = kept
    if not noise:  # an early file, which does not say what the noise leaves open
        return ResidualsOnce()
    least, most = noise[0]
    return ResidualsOnce(Residuals(np.array(low), np.array(high), (least, most)))


def _options(facts: Mapping[str, Any], network: Network) -> dict[str, Any]:
    """The settings that an artifact holds, by name; layers that a function chose by their paths."""
    options = {"weights": "counts"} | facts["options"]  # format 1 knew no others
    if options["layers"] is None and len(network.variables) < facts["network"]["n_trainable"]:
        options["layers"] = [parameter.path for parameter in network.parameters]
    return options


def _model_bytes(model: Any, fingerprint: str, network: Network) -> Array:
    """A `.keras` file of the model, which must be as it was when the curvature was computed."""
    old = sys.modules.get("tf_keras")  # it is loaded if the model is one of its
    package = old if old is not None and isinstance(model, old.Model) else keras
    if not isinstance(model, package.Model):
        raise InvalidInputError(
            "only models of Keras can be put into an artifact",
            expected="a keras.Model, or one of tf_keras",
            received=f"a {type(model).__module__}.{type(model).__qualname__}",
            remedy="save(path, with_model=False), and give the model to load(path, model)",
        )
    chosen = {id(_of_user(variable)) for variable in network.variables}
    now = Network(model, layers=lambda variable: id(variable) in chosen)
    if now.fingerprint() != fingerprint:
        raise InvalidInputError(
            "the model has other weights than when fit was called",
            expected="the weights that the curvature was computed at",
            received="a model that was trained further, or changed",
            remedy="call fit again, or save the artifact before training on",
        )
    with temporary_folder() as folder:
        path = folder / _MODEL  # that name makes both write their newest format
        try:
            package.saving.save_model(model, path)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise InvalidInputError(
                "Keras cannot save the model",
                expected=f"a model that {package.__name__}.saving.save_model takes",
                received=what_it_says(error),
                remedy="save(path, with_model=False), and give the model to load(path, model)",
            ) from error
        return np.fromfile(path, np.uint8)


def _embedded(arrays: Arrays, path: Path) -> Any:
    names = [name for name in (_MODEL, _OLD_MODEL) if name in arrays]
    if not names:
        raise ArtifactError(
            "the artifact holds no model",
            expected="load(path, model) with the model that was wrapped",
            received=f"{path.name}, saved with with_model=False",
        )
    package = keras if names == [_MODEL] else tf_keras("the artifact holds a model of tf_keras")
    with temporary_folder() as folder:
        file = folder / _MODEL
        arrays[names[0]].tofile(file)
        return open_model(file, package).model


def _network_facts(network: Network) -> dict[str, Any]:
    """Which of the trainable variables are uncertain, by their place: Keras renames layers."""
    chosen = {id(variable) for variable in network.variables}
    trainable = network.adapter.trainable
    return {
        "n_trainable": len(trainable),
        "uncertain": [k for k, variable in enumerate(trainable) if id(variable) in chosen],
    }


def _of_user(variable: Any) -> Any:
    """The variable of the user's model, which an adapter may have wrapped."""
    return getattr(variable, "variable", variable)


def _same_network(model: Any, facts: Mapping[str, Any], *, holds_model: bool) -> Network:
    """The model with the same variables uncertain, if it is the one the artifact is about."""
    trainable, known = adapt(model).trainable, facts["network"]
    if len(trainable) == known["n_trainable"]:
        chosen = {id(_of_user(trainable[k])) for k in known["uncertain"]}
        network = Network(model, layers=lambda variable: id(variable) in chosen)
        if network.fingerprint() == facts["fingerprint"]:
            return network
    raise ArtifactError(
        "the model is not the one that the artifact is about",
        expected="the model as it was when fit was called: the same architecture, weights and "
        "frozen layers",
        received="other values or numbers of variables",
        remedy="load(path) takes the model in the file"
        if holds_model
        else "give it the weights that it had then, for the file holds no model; or fit again",
    )


def _pack_data(fitted: Fitted, arrays: Arrays) -> dict[str, Any]:
    """What is remembered of the training data, and rows like its first ones as a probe."""
    data = fitted.problem.record
    probe = pack_nest(fitted.problem.per_example.probe, arrays, "probe")
    named = data.columns is not None and all(isinstance(name, str) for name in data.columns)
    return {
        "n_rows": data.n_rows,
        "n_examples": data.n_examples,
        "weighting": data.weighting,
        "columns": list(data.columns or ()) if named else None,
        "sums": data.sums,
        "x": probe,
    }


def _unpack_data(facts: Mapping[str, Any], probe: Any) -> DataRecord:
    return DataRecord(
        n_rows=facts["n_rows"],
        n_examples=facts["n_examples"],
        weighting=facts.get("weighting", "counts"),  # format 1 knew no others
        input_spec=spec_of(probe),
        columns=None if facts["columns"] is None else tuple(facts["columns"]),
        sums=np.array(facts["sums"]),
    )
