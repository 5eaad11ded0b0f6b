"""Keras models in files, opened by the Keras that they are of, although a loss may be unknown."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from deltauq.errors import InvalidInputError, optional, what_it_says
from deltauq.network.adapters.adapter import WeightDecay, with_explicit_reduction
from deltauq.network.adapters.file_contents import FileContent, as_compile_config, read_content
from deltauq.runtime.whole_files import temporary_folder

__all__ = ["Compilation", "ModelFile", "open_model", "tf_keras"]

#: Where `tf_keras` makes classes for objects of a SavedModel that it has only the functions of.
_REVIVED = "tf_keras.src.saving.legacy.saved_model"

#: A function of Keras 2, 0.2 x + 0.5 between 0 and 1, that is x / 6 + 0.5 in Keras 3.
_HARD_SIGMOID = re.compile(r'"(\w*activation|config)": "hard_sigmoid"')


class Compilation:
    """What a file says that its model was compiled with, where Keras could not load it.

    Args:
        config: as Keras writes it, the optimizer's configuration included; empty where nothing is
            known, which leaves the loss without a name.

    Attributes:
        compiled: whether it was compiled.
    """

    compiled = True

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def get_compile_config(self) -> dict[str, Any]:
        """The configuration as Keras wrote it to the file; a loss of the user's own is a name."""
        loss = self._config.get("loss") or "that its file holds"
        return self._config | {"loss": with_explicit_reduction(loss)}

    @property
    def weight_decay(self) -> WeightDecay | None:
        """The weight decay of the optimizer, or None."""
        optimizer = self._config.get("optimizer")
        if not isinstance(optimizer, dict) or not optimizer.get("config", {}).get("weight_decay"):
            return None
        name = str(optimizer["class_name"]).rpartition(">")[2]
        return WeightDecay(name, float(optimizer["config"]["weight_decay"]))


@dataclass(frozen=True)
class ModelFile:
    """A model out of a file, and what only its file says of it.

    Attributes:
        model: of Keras 3 or of `tf_keras`.
        opened_by: the name and version of that Keras.
        compilation: where Keras could not load it; None where the model says it itself.
    """

    model: Any
    opened_by: str
    compilation: Compilation | None = None


def open_model(path: str | Path, package: Any = None) -> ModelFile:
    """Open a model that Keras saved whole, of whatever age and whatever the file is called.

    Keras 3 is tried first. What it cannot open is opened by `tf_keras` if a Keras before version 3
    wrote it. A file whose loss, metric or optimizer cannot be loaded is opened without them: its
    loss is then known by what the file says of it. No code that a file holds is run.

    Args:
        path: of a `.keras` or HDF5 file, or of the folder of a SavedModel, by their content.
        package: the Keras that is to open it; None finds out.

    Raises:
        InvalidInputError: no such file, none with a whole model, or none that Keras can open.
        MissingDependencyError: `tf_keras` is needed, and is not installed.
    """
    path = Path(path)
    content = read_content(path)
    if package is not None:
        return _open(package, path, content)
    if content.is_saved_model:
        return _open(tf_keras(f"{path.name} is a SavedModel of Keras 2"), path, content)
    try:
        found = _open(keras, path, content)
    except InvalidInputError:
        if not content.is_old:
            raise
        needed_by = f"{path.name} is of Keras {content.written_by}, and Keras 3 cannot open it"
        return _open(tf_keras(needed_by), path, content)
    _refuse_changed_meaning(path, content)
    return found


def tf_keras(needed_by: str) -> Any:
    """Import the Keras before version 3, for a model that is of it.

    Raises:
        MissingDependencyError: it is not installed.
    """
    return optional("tf_keras", needed_by=needed_by)


@contextmanager
def _named(path: Path, suffix: str | None) -> Iterator[Path]:
    """The path of a file under a name with this suffix, by which Keras tells what is in it."""
    if suffix is None or path.suffix == suffix:
        yield path
        return
    with temporary_folder() as folder:
        beside = folder / f"model{suffix}"
        try:
            beside.symlink_to(path.absolute())
        except OSError:  # not everyone may make one on Windows
            shutil.copy(path, beside)
        yield beside


def _open(package: Any, path: Path, content: FileContent) -> ModelFile:
    """Open a file by one Keras, and find what the model was compiled with."""
    by = f"{'Keras' if package is keras else package.__name__} {package.__version__}"
    with _named(path, content.suffix) as file:
        try:
            model, with_loss = _load(package, file), True
        except Exception as error:  # code of the user's own may be called, and raise anything
            try:
                model, with_loss = _load(package, file, compile=False), False
            except Exception as second:
                raise InvalidInputError(
                    "the model file cannot be opened",
                    expected="a model that Keras opens by itself",
                    received=f"{path.name}, at which {by} says: {what_it_says(second)}",
                    remedy=f"open it yourself by {package.__name__}.saving.load_model, with "
                    "custom_objects=... for code of your own, and safe_mode=False for a Lambda "
                    "layer if you trust it; and pass the model",
                ) from error
    _refuse_unbuilt(model, path)
    _refuse_revived(model, path)
    compiled = content.compiled or _compiled_in_folder(model)
    # Keras 3 leaves out, without a word, a loss object of an HDF5 file that it does not know.
    left_out = compiled.get("loss") and getattr(model, "loss", None) is None
    return ModelFile(model, by, Compilation(compiled) if left_out or not with_loss else None)


def _load(package: Any, file: Path, **options: Any) -> Any:
    """Load a model; code in the file is not run, and what is left of its training is not needed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
        if package is keras:
            return keras.saving.load_model(file, **options)
        # Its loaders of HDF5 files and folders would run a Lambda layer's code unasked.
        with package.src.saving.serialization_lib.SafeModeScope(True):
            return package.saving.load_model(file, **options)


def _compiled_in_folder(model: Any) -> dict[str, Any]:
    """What a model out of a SavedModel was compiled with; empty where it does not say."""
    metadata = getattr(model, "_serialized_attributes", {}).get("metadata", {})
    return as_compile_config(metadata.get("training_config") or {})


def _refuse_unbuilt(model: Any, path: Path) -> None:
    """Refuse a model whose variables were not made yet when it was saved."""
    if not model.built or not model.variables:
        raise InvalidInputError(
            "the model was saved before it was built",
            expected="a trained model whose weights are in its file",
            received=f"{model.name!r} in {path.name}, without weights",
            remedy="train the model, and then save it",
        )


def _refuse_revived(model: Any, path: Path) -> None:
    """Refuse a SavedModel in which some layers are only functions, whose code is not at hand."""
    revived = [
        layer.name
        for layer in model._flatten_layers()
        if type(layer).__module__.startswith(_REVIVED)
    ]
    if revived:
        raise InvalidInputError(
            "the SavedModel has layers of which only functions are left",
            expected="layers of Keras, or of classes that are registered with it",
            received=f"{revived} in {path.name}",
            remedy="open it yourself by tf_keras.saving.load_model, with custom_objects=... for "
            "their classes (it runs the code of Lambda layers), and pass the model",
        )


def _refuse_changed_meaning(path: Path, content: FileContent) -> None:
    """Refuse an old file that Keras 3 opens as another function than was trained."""
    if content.is_old and _HARD_SIGMOID.search(json.dumps(content.config)):
        raise InvalidInputError(
            "the model's hard_sigmoid is another function in Keras 3 than in Keras 2",
            expected="a model that computes what it computed when it was trained",
            received=f"{path.name}, which Keras {content.written_by} wrote",
            remedy="open it by tf_keras.saving.load_model, which computes what Keras 2 did, and "
            "pass the model",
        )
