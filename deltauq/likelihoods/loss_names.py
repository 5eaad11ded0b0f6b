"""What losses are called: as Keras stores them, and as messages name them."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any

__all__ = ["function_in_words", "loss_in_words", "name_and_config", "only_loss"]

#: The module of Keras' own losses, as a model's file names it.
_OF_KERAS = "keras.losses"

#: What Python calls a lambda, and Keras one that it has written as bytecode.
_LAMBDA, _BYTECODE = "<lambda>", "__lambda__"

#: Settings of a loss that say nothing of what it is.
_SILENT = ("name", "dtype")


def only_loss(loss: Any) -> Any:
    """The loss of a model's one output, which Keras takes in a list or by the output's name too.

    Args:
        loss: as it was given to `compile`, or as Keras stores it; several stay together.
    """
    if isinstance(loss, (list, tuple)) and len(loss) == 1:
        return loss[0]
    if isinstance(loss, dict) and len(loss) == 1 and "class_name" not in loss:
        return next(iter(loss.values()))
    return loss


def name_and_config(loss: Any) -> tuple[str, dict[str, Any]]:
    """The snake-case name and the configuration of a loss as Keras stores it."""
    if isinstance(loss, dict) and "class_name" in loss:
        config = loss.get("config")
        if loss["class_name"] == "function":
            return str(config), {}
        if loss.get("module", _OF_KERAS) != _OF_KERAS:  # the user's own, whatever its name is
            return str(loss.get("registered_name") or loss["class_name"]) + "()", {}
        camel = str(loss["class_name"])
        name = "".join("_" + c.lower() if c.isupper() else c for c in camel).lstrip("_")
        return name, config if isinstance(config, dict) else {}
    return str(loss).lower(), {}  # Keras takes "MSE" too


def loss_in_words(loss: Any) -> str:
    """A loss as Keras stores it, in a message: without bytecode, and without what it is by default.

    Args:
        loss: a name, a loss as Keras writes it, or several in a list or a dict.
    """
    if isinstance(loss, dict) and "class_name" not in loss:
        return "{" + ", ".join(f"{key!r}: {loss_in_words(loss[key])}" for key in loss) + "}"
    if isinstance(loss, (list, tuple)):
        return "[" + ", ".join(map(loss_in_words, loss)) + "]"
    if not isinstance(loss, dict):
        return reprlib.repr(loss)
    kind, config = str(loss["class_name"]), loss.get("config")
    if kind == _BYTECODE or str(config).endswith(_LAMBDA):
        return "a lambda"
    if kind == "function":
        return repr(config)
    settings = config.items() if isinstance(config, dict) else ()
    shown = [f"{key}={loss_in_words(value)}" for key, value in settings if key not in _SILENT]
    return f"{kind}({', '.join(shown)})"


def function_in_words(function: Callable[..., Any]) -> str:
    """A function in a message: its name, and "a lambda" for one that has none."""
    name = getattr(function, "__name__", type(function).__name__)
    return "a lambda" if name == _LAMBDA else str(name)
