"""Model files of Keras and artifacts, opened with what they know of inputs and labels."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deltauq.cli.console import note
from deltauq.cli.encoding import encoded_like
from deltauq.cli.tables import Examples, names_in, numbers_as_floats, read_inputs, taken_from
from deltauq.errors import InvalidInputError, lying_in

if TYPE_CHECKING:
    from pandas import DataFrame

    from deltauq.delta.delta_method import DeltaMethod

__all__ = ["Opened", "as_names", "l2_rate", "open_artifact", "open_model", "whole_number_or_word"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Opened:
    """A model from a file, with the settings and the table columns that the file knows.

    Attributes:
        model: what `DeltaMethod` takes; None of one that is to be trained.
        options: arguments of `DeltaMethod` that the file gives.
        columns: of the table it was fitted to, or None.
        classes: names of the classes, or None.
        spec: of the inputs, where it is known.
    """

    model: Any
    options: dict[str, Any]
    columns: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    spec: Any = None

    def asked(
        self, *, l2: float | str = "auto", likelihood: str = "auto", weights: str = "auto"
    ) -> dict[str, Any]:
        """Arguments of `DeltaMethod` from the file, overruled by options that are not "auto"."""
        given = {"l2": l2, "likelihood": likelihood, "weights": weights}
        return self.options | {name: value for name, value in given.items() if value != "auto"}

    def with_classes(self, classes: str | None, likelihood: str) -> Opened:
        """A model whose likelihood knows the classes by their names, where names are given.

        Args:
            classes: names with commas between them, in the order of the model's outputs; or None.
            likelihood: that was asked for beside them.

        Raises:
            InvalidInputError: another likelihood than that of a softmax or of one sigmoid.
        """
        if classes is None:
            return self
        from deltauq.likelihoods import Binary, Categorical

        if likelihood not in ("auto", "categorical", "binary"):
            raise InvalidInputError(
                "--classes names the classes of a softmax, or the two of a sigmoid",
                expected="--likelihood auto, categorical or binary beside it",
                received=f"--likelihood {likelihood}",
            )
        names, (outputs, smoothing) = tuple(names_in(classes)), _looked_at(self.model)
        binary = likelihood == "binary" or (likelihood == "auto" and outputs == 1)
        kind: Any = Binary if binary else Categorical
        options = self.options | {"likelihood": kind(classes=names, label_smoothing=smoothing)}
        return replace(self, options=options, classes=names)

    def inputs(self, examples: Examples) -> Any:
        """Inputs as the model takes them; columns that it does not use are named in a note.

        Raises:
            InvalidInputError: the model takes no table, or the table does not fit.
        """
        if not examples.is_table:
            return examples.x
        table, unused = self._columns_of(examples.x)
        if unused:
            note(f"columns that the model does not use: {', '.join(map(str, unused))}")
        return table

    def _columns_of(self, table: DataFrame) -> tuple[DataFrame, list[str]]:
        """A table in the columns of the model's inputs, and the names of its others."""
        _refuse_tables(self.spec)
        if isinstance(self.spec, dict):
            found, unused = taken_from(table, tuple(self.spec))
            return numbers_as_floats(found), unused
        if self.columns is None:
            return numbers_as_floats(table), []
        if self.spec is None:
            found, unused = taken_from(table, self.columns)
            return numbers_as_floats(found), unused
        if self.spec.dtype == "string":
            found, unused = taken_from(table, self.columns)
            return found.astype(str), unused
        return encoded_like(table, self.columns)

    def calibration(
        self, path: Path | None, x: Any, *, inputs: str, others: Iterable[str | None]
    ) -> Any:
        """Inputs of the file that --calibration names, as the model takes them.

        Args:
            path: of the file; None gives None.
            x: the training inputs as the model takes them: of a table these columns are needed.
            inputs: as for `read_inputs`.
            others: as for `read_inputs`.

        Raises:
            InvalidInputError: a file that cannot be read, or that lacks columns.
        """
        if path is None:
            return None
        columns = self.columns or getattr(x, "columns", None)
        known = self if columns is None else replace(self, columns=tuple(columns))
        with lying_in("--calibration"):
            return known.inputs(read_inputs(path, inputs=inputs, others=others))

    def labels(self, examples: Examples) -> Array | None:
        """Labels as the likelihood takes them: text where that names the classes, or unchanged."""
        y = examples.y
        if y is None or self.classes is None or y.ndim > 1:
            return y
        names = as_names(y)
        named = y.dtype.kind not in "fiub" or set(names) <= set(self.classes)
        return names if named else y


def as_names(y: Array) -> Array:
    """Labels as text, whole numbers without a point, so that 1.0 and 1 are one name."""
    if y.dtype.kind == "f" and np.all(y == np.round(y)):
        y = y.astype(np.int64)
    return y.astype(str)


def open_model(path: Path) -> Opened:
    """Open a model from Keras' file, or from an artifact that `deltauq fit` wrote."""
    from deltauq.delta.files.artifact import is_artifact

    return open_artifact(path)[1] if is_artifact(path) else Opened(str(path), {})


def open_artifact(path: Path) -> tuple[DeltaMethod, Opened]:
    """Open an artifact: its fitted `DeltaMethod`, and its model with what it knows of data.

    Raises:
        InvalidInputError: the file is a Keras model.
    """
    from deltauq.delta.delta_method import DeltaMethod
    from deltauq.network.adapters.file_contents import is_model

    if is_model(path):
        raise InvalidInputError(
            "this is a model, and an artifact is needed",
            expected="what `deltauq fit` wrote",
            received=path.name,
            remedy=f"deltauq fit TRAINING_DATA --model {shlex.quote(str(path))} --output m.deltauq",
        )
    method = DeltaMethod.load(path)
    method.progress = False
    # One that was tuned is not to be tuned again, for another curvature.
    l2 = method.l2_rates if method.l2 == "tune" else method.l2
    names = ("likelihood", "layers", "weights")
    options = {"l2": l2} | {name: getattr(method, name) for name in names}
    classes = method.fitted_likelihood.classes
    spec = method.input_spec
    return method, Opened(method.model, options, method.columns, classes, spec)


def _looked_at(model: Any) -> tuple[int | None, float]:
    """The outputs of a model, where it says how many, and the label smoothing of its loss."""
    from deltauq.likelihoods.loss_names import name_and_config, only_loss
    from deltauq.network.adapters import adapt

    adapter = adapt(model)
    shape = getattr(adapter.model, "output_shape", None)
    compilation = adapter.compilation
    compiled = compilation.get_compile_config() if compilation.compiled else {}
    _, settings = name_and_config(only_loss(compiled.get("loss")))
    outputs = shape[-1] if isinstance(shape, tuple) else None
    return outputs, float(settings.get("label_smoothing") or 0.0)


def _refuse_tables(spec: Any) -> None:
    """`InvalidInputError` where inputs of this spec are no columns; None may be any."""
    if spec is None or (hasattr(spec, "shape") and spec.shape.rank == 2):
        return
    if isinstance(spec, dict) and all(each.shape[1:].num_elements() == 1 for each in spec.values()):
        return  # a column for each input
    import tensorflow as tf

    shapes = tf.nest.map_structure(lambda leaf: ["N", *leaf.shape[1:]], spec)
    raise InvalidInputError(
        "the model takes no table",
        expected=f"arrays of shape {shapes} in a .npz file",
        received="a table",
        remedy="write them with numpy.savez(path, x=...); several by their names, which --inputs "
        "takes",
    )


def whole_number_or_word(option: str, text: str, words: tuple[str, ...]) -> int | str:
    """Parse an option that is a whole number >= 1 or one of some words.

    Raises:
        InvalidInputError: it is neither.
    """
    if text in words:
        return text
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise InvalidInputError(
        f"{option} is not understood",
        expected=f"a whole number >= 1, or one of {list(words)}",
        received=repr(text),
    )


def l2_rate(text: str) -> float | str:
    """Parse --l2, which is a number or "auto" or "tune".

    Raises:
        InvalidInputError: it is none of these.
    """
    if text in ("auto", "tune"):
        return text
    try:
        return float(text)
    except ValueError:
        raise InvalidInputError(
            "--l2 is not understood",
            expected="'auto', 'tune', or a number",
            received=repr(text),
        ) from None
