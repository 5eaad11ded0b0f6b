"""Which variables are uncertain, and where each stands in the flat parameter vector."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from deltauq.errors import InvalidInputError, what_it_says

__all__ = [
    "Layers",
    "Parameter",
    "is_last_keyword",
    "lay_out",
    "layer_of",
    "matches",
    "select",
]

Layers = str | Sequence[str] | Callable[[Any], bool] | None


@dataclass(frozen=True)
class Parameter:
    """Place and shape of one variable in the flat parameter vector: `params[start:stop]`."""

    path: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of the variable's entries."""
        return self.stop - self.start


def select(trainable: list[Any], layers: Layers) -> list[Any]:
    """Choose the variables that `layers` names, in the model's order.

    Raises:
        InvalidInputError: it names none.
    """
    if layers is None:
        chosen = trainable
    elif callable(layers):
        chosen = [v for v in trainable if _is_chosen(layers, v)]
    elif is_last_keyword(trainable, layers):
        last = layer_of(trainable[-1])
        chosen = [variable for variable in trainable if layer_of(variable) == last]
    else:
        patterns: list[Any] = [layers] if isinstance(layers, str) else _listed(layers)
        for pattern in patterns:
            if not isinstance(pattern, str) or not any(
                matches(variable.path, pattern) for variable in trainable
            ):
                raise InvalidInputError(
                    f"layers has the pattern {reprlib.repr(pattern)}, which matches no trainable "
                    "variable",
                    expected="names or glob patterns of layers or variables",
                    received=f"trainable variables {[variable.path for variable in trainable]}",
                )
        chosen = [v for v in trainable if any(matches(v.path, p) for p in patterns)]
    if not chosen:
        raise InvalidInputError(
            "no variable is left to be uncertain",
            expected="at least one trainable variable",
            received=f"layers={layers!r} on trainable variables {[v.path for v in trainable]}",
            remedy="select other layers, or set layer.trainable = True",
        )
    return chosen


def _is_chosen(layers: Callable[[Any], bool], variable: Any) -> bool:
    """What a function of the user's says of a variable."""
    try:
        return bool(layers(getattr(variable, "variable", variable)))
    except Exception as error:  # it may raise anything
        raise InvalidInputError(
            "layers fails for a variable",
            expected="a function of a variable that says whether it is uncertain",
            received=f"{type(error).__name__} for {variable.path!r}: {what_it_says(error)}",
        ) from error


def _listed(layers: Any) -> list[Any]:
    """The patterns that were given, or what was given in their place."""
    try:
        return list(layers)
    except TypeError:
        return [layers]


def is_last_keyword(trainable: list[Any], layers: Layers) -> bool:
    """Whether `layers` is the word "last", and no name of a layer or variable."""
    said = isinstance(layers, str) and layers == "last"
    return said and not any(matches(variable.path, "last") for variable in trainable)


def layer_of(variable: Any) -> str:
    """Path of the layer that a variable belongs to."""
    path: str = variable.path
    return path.rpartition("/")[0]


def lay_out(variables: Sequence[Any]) -> tuple[Parameter, ...]:
    """Lay variables out one after the other in a flat vector, and say where each stands."""
    parameters, start = [], 0
    for variable in variables:
        shape = tuple(int(n) for n in variable.shape)
        stop = start + int(np.prod(shape, dtype=int))
        parameters.append(Parameter(variable.path, shape, start, stop))
        start = stop
    return tuple(parameters)


def matches(path: str, pattern: str) -> bool:
    """Whether a glob matches a variable's path, or one of its parts (layer or variable name)."""
    return any(fnmatchcase(name, pattern) for name in (path, *path.split("/")))
