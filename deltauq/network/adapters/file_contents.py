"""What is in a model file, told by its content: a name may say anything, and nothing is run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import h5py

from deltauq.errors import InvalidInputError

__all__ = ["FileContent", "as_compile_config", "is_model", "read_content"]

_WHOLE = "a model that Keras saved whole: a .keras or .h5 file, or the folder of a SavedModel"
_SAVE_AGAIN = "save the model again with model.save('model.keras'), or pass the model itself"

#: How a pickle of protocol 2 or later begins, and how the index of a TensorFlow checkpoint ends.
_PICKLE = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_INDEX_END = bytes.fromhex("57fb808b247547db")

#: What a SavedModel of Keras 2 calls its objects; files before TensorFlow 2.5 have no metadata.
_KERAS_2, _METADATA = b"_tf_keras_", "keras_metadata.pb"

#: What describes the model in Keras' own format.
_OF_MODEL = frozenset({"config.json", "metadata.json"})


@dataclass(frozen=True)
class FileContent:
    """A model as its file describes it, before any Keras has opened it.

    Attributes:
        suffix: which Keras asks for in the name of such a file; None for a folder.
        version: of the Keras that wrote it; empty where it is not told, which Keras 3 always does.
        config: of the model, as `get_config` gave it; None for a SavedModel.
        compiled: what the model was compiled with, as Keras wrote it; empty where it does not say.
        is_saved_model: whether it is TensorFlow's format, which Keras 3 does not open.
    """

    suffix: str | None
    version: str
    config: Any
    compiled: dict[str, Any]
    is_saved_model: bool = False

    @property
    def written_by(self) -> str:
        """The version of the Keras that wrote the file, or that it is an early one."""
        return self.version or "1 or 2"

    @property
    def is_old(self) -> bool:
        """Whether a Keras before version 3 wrote the file."""
        major = self.version.partition(".")[0]
        return not major.isdecimal() or int(major) < 3


def is_model(path: Path) -> bool:
    """Whether a path is a folder, an archive or an HDF5 file, as models are and no artifact is."""
    return path.is_dir() or (path.is_file() and (_is_zip(path) or h5py.is_hdf5(path)))


def read_content(path: Path) -> FileContent:
    """Read what a file says of its model, or say what the file is instead.

    Raises:
        InvalidInputError: no such file, a damaged one, or none with a whole model of Keras.
    """
    try:
        if path.is_dir():
            return _of_folder(path)
        if not path.is_file():
            _refuse_absent(path)
        if _is_zip(path):
            return _of_zip(path)
        if h5py.is_hdf5(path):
            return _of_hdf5(path)
    except InvalidInputError:
        raise
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        _refuse(
            "the model file cannot be read",
            f"{path.name}: {error}",
            f"copy it again from where it was written, or {_SAVE_AGAIN}",
        )
    return _refuse_other(path)


def as_compile_config(training: dict[str, Any]) -> dict[str, Any]:
    """Write what HDF5 files and SavedModels say of the training as Keras' own format says it."""
    return {"optimizer" if k == "optimizer_config" else k: v for k, v in training.items()}


def _is_zip(path: Path) -> bool:
    """Whether a file begins as an archive does; one that was cut off has no end."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _of_zip(path: Path) -> FileContent:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if not _OF_MODEL.issubset(names):
            _refuse(
                "the file is an archive without a model",
                f"{path.name}, with {names[:3]}",
                _SAVE_AGAIN,
            )
        return _of_keras(archive.read, ".keras")


def _of_keras(read: Callable[[str], str | bytes], suffix: str | None) -> FileContent:
    """The content of Keras' own format, which is an archive or the same files in a folder."""
    config, metadata = (json.loads(read(name)) for name in ("config.json", "metadata.json"))
    version = str(metadata.get("keras_version", ""))
    return FileContent(suffix, version, config, config.get("compile_config") or {})


def _of_hdf5(path: Path) -> FileContent:
    with h5py.File(path, "r") as file:
        held = {name: _text(file.attrs.get(name)) for name in ("model_config", "training_config")}
        version = _text(file.attrs.get("keras_version"))
    if not held["model_config"]:
        _refuse(
            "the file holds weights alone, and no model",
            path.name,
            "build the model in code with the Keras that wrote them, call "
            f"model.load_weights({str(path)!r}), then pass the model",
        )
    compiled = as_compile_config(json.loads(held["training_config"] or "{}"))
    return FileContent(".h5", version, json.loads(held["model_config"]), compiled)


def _text(value: Any) -> str:
    """An attribute of an HDF5 file, which is bytes or text; empty where it is not there."""
    return value.decode() if isinstance(value, bytes) else str(value or "")


def _of_folder(path: Path) -> FileContent:
    names = sorted(entry.name for entry in path.iterdir())
    if _OF_MODEL.issubset(names):
        return _of_keras(lambda name: (path / name).read_bytes(), None)
    if "saved_model.pb" in names:
        if _METADATA in names or _KERAS_2 in (path / "saved_model.pb").read_bytes():
            return FileContent(None, "", None, {}, is_saved_model=True)
        _refuse(
            "the SavedModel holds functions, and no model of Keras",
            path.name,
            "variables inside compiled functions cannot be replaced: save the model itself with "
            "model.save('model.keras') instead of exporting it; or build it in code, give it the "
            f"values of tf.saved_model.load({str(path)!r}).variables, and pass it",
        )
    for name in names:
        if name.endswith(".index"):
            _refuse_checkpoint(path / name)
    if not names:
        _refuse("the model folder is empty", path.name, _SAVE_AGAIN)
    return _refuse("the folder holds no model", f"{path.name}, with {names[:3]}", f"pass {_WHOLE}")


def _refuse_absent(path: Path) -> NoReturn:
    """Refuse a path of nothing, but it may be the beginning of a checkpoint's files."""
    if path.with_name(f"{path.name}.index").is_file():
        _refuse_checkpoint(path)
    raise InvalidInputError(
        "the model file does not exist",
        expected="the path of a .keras or .h5 file, or the model itself",
        received=str(path),
    )


def _refuse_other(path: Path) -> NoReturn:
    """Refuse a file in which no Keras writes models."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(16)
        file.seek(max(0, size - len(_INDEX_END)))
        end = file.read()
    if size == 0:
        _refuse("the model file is empty", path.name, _SAVE_AGAIN)
    if start.startswith(_PICKLE):
        _refuse(
            "the file is a pickle, which runs code when it is opened",
            path.name,
            "unpickle it yourself, if you trust where it comes from, and pass the model",
        )
    if end == _INDEX_END or path.with_name(f"{path.name.partition('.data-')[0]}.index").is_file():
        _refuse_checkpoint(path)
    _refuse(
        "the file is none in which Keras keeps a model",
        f"{path.name}, which begins with {start!r}",
        f"{_SAVE_AGAIN}; what deltauq saved is opened by DeltaMethod.load",
    )


def _refuse_checkpoint(path: Path) -> NoReturn:
    """Refuse a checkpoint of TensorFlow, of which a path is one of the files or their beginning."""
    prefix = str(path.with_name(path.name.removesuffix(".index").partition(".data-")[0]))
    _refuse(
        "a TensorFlow checkpoint holds weights alone, and no model",
        path.name,
        f"build the model in code, call model.load_weights({prefix!r}) of tf_keras, or restore "
        f"{prefix!r} by the tf.train.Checkpoint that wrote it, then pass the model",
    )


def _refuse(problem: str, received: str, remedy: str) -> NoReturn:
    raise InvalidInputError(problem, expected=_WHOLE, received=received, remedy=remedy)
