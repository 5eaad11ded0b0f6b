"""Keras models in files, opened although their loss may be nowhere to be found."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras

from deltauq.errors import InvalidInputError

__all__ = ["Compilation", "open_model"]


class Compilation:
    """What a file says that its model was compiled with, where Keras could not load it.

    Attributes:
        compiled: whether it was compiled.
    """

    compiled = True

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def get_compile_config(self) -> dict[str, Any]:
        """The configuration as Keras wrote it to the file, in which the loss has only its name."""
        return self._config


def open_model(path: str | Path) -> tuple[Any, Compilation | None]:
    """Open a `.keras` or `.h5` file: the model, and its compilation where only the file has it.

    A file whose loss, metric or optimizer cannot be loaded is opened without them: its loss is then
    known by name only, so that the likelihood must be given.

    Raises:
        InvalidInputError: no such file, or none that Keras can open.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInputError(
            "the model file does not exist",
            expected="the path of a .keras or .h5 file, or the model itself",
            received=str(path),
        )
    try:
        model = keras.saving.load_model(path)
    except (TypeError, ValueError, KeyError, AttributeError, OSError) as error:
        model = _without_loss(path, error)
        return model, Compilation(_compile_config(path))
    return model, None


def _without_loss(path: Path, error: Exception) -> Any:
    """Open a file without its loss, metrics and optimizer, after the error that they gave."""
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as second:
        raise InvalidInputError(
            "the model file cannot be opened",
            expected="a model that keras.saving.load_model opens",
            received=f"{path.name}, at which Keras says: {second}",
            remedy="open it yourself, with custom_objects=..., and pass the model",
        ) from error


def _compile_config(path: Path) -> dict[str, Any]:
    """What the file says of the loss; a configuration without one where it says nothing."""
    found = None
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = json.loads(archive.read("config.json")).get("compile_config")
    return found if found and found.get("loss") else {"loss": "that its file holds"}
