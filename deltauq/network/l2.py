"""The L2 rate of every variable, read from Keras regularizers or given by the user."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.errors import InvalidInputError, UnsupportedModelError, is_number
from deltauq.network.adapters.adapter import WeightDecay
from deltauq.network.parameters import matches

__all__ = [
    "L2",
    "VariableRate",
    "check_l2",
    "complete_l2",
    "l2_rates",
    "l2_sources",
    "range_of",
    "refuse_other_terms",
    "refuse_weight_decay",
]

L2 = str | float | Mapping[str, float]


@dataclass(frozen=True)
class VariableRate:
    """The L2 rate of a variable, with where it comes from.

    Attributes:
        path: of the variable.
        rate: lambda; zero where there is none.
        source: "l2=...", a pattern of it, a Keras regularizer, or "nothing".
        read: whether it was read from a regularizer, of whichever Keras, and means what the loss
            makes of it.
    """

    path: str
    rate: float
    source: str
    read: bool = False


def range_of(rates: npt.ArrayLike) -> str:
    """Text for some rates: the only one, or the smallest and the largest."""
    low, high = (f"{rate:.3g}" for rate in (np.min(rates), np.max(rates)))
    return low if low == high else f"{low} to {high}"


def check_l2(l2: Any) -> None:
    """Refuse an `l2=` that is no word, rate or mapping to rates, whatever the model.

    Raises:
        InvalidInputError: it is none of these.
    """
    if isinstance(l2, str):
        if l2 not in ("auto", "tune"):
            raise _not_understood(l2)
        return
    for pattern in l2 if isinstance(l2, Mapping) else ():
        if not isinstance(pattern, str):
            raise InvalidInputError(
                "a pattern of l2 is no text",
                expected="names or glob patterns of layers or variables, each with a rate",
                received=reprlib.repr(pattern),
            )
    for rate in l2.values() if isinstance(l2, Mapping) else (l2,):
        _rate(rate)


def l2_rates(
    variables: Sequence[Any], l2: L2, *, read_scale: float = 1.0
) -> npt.NDArray[np.float64]:
    """Find the L2 rate lambda_j of every variable: the cost contains (lambda_j / 2) * sum w^2.

    Args:
        variables: Keras variables, each with `path` and `regularizer`.
        l2: "auto" reads the regularizers (`keras.regularizers.L2(a)` is a * sum w^2, so
            lambda = 2 a); a number holds for every variable; a mapping of glob patterns on
            variable paths (or on one part of them) to rates: the first that matches counts, and
            a variable that none matches keeps what its regularizer says.
        read_scale: factor on the rates that were read, not on those given: what Keras divides the
            losses of all rows by, over the N that our cost divides them by.

    Returns:
        `[len(variables)]`, zero where a variable has no L2.

    Raises:
        InvalidInputError: a negative or non-finite rate, or a pattern that matches nothing.
        UnsupportedModelError: a penalty that has no L2 rate (L1, orthogonal, custom).
    """
    if isinstance(l2, str):
        if l2 != "auto":
            raise _not_understood(l2)
        l2 = {}
    if not isinstance(l2, Mapping):
        return np.full(len(variables), _rate(l2))
    rates = {pattern: _rate(rate) for pattern, rate in l2.items()}
    for pattern in rates:
        if not any(matches(variable.path, pattern) for variable in variables):
            raise InvalidInputError(
                f"l2 has the pattern {pattern!r}, which matches no variable",
                expected="patterns on variable paths",
                received=f"paths {[variable.path for variable in variables]}",
            )
    return np.array([_given_or_read(variable, rates, read_scale) for variable in variables])


def l2_sources(
    variables: Sequence[Any], l2: L2, *, read_scale: float = 1.0
) -> tuple[VariableRate, ...]:
    """Find the rates of `l2_rates` with where they come from; raises the same errors."""
    rates = l2_rates(variables, l2, read_scale=read_scale)
    return tuple(
        VariableRate(variable.path, float(rate), *_source(variable, l2))
        for variable, rate in zip(variables, rates, strict=True)
    )


def _source(variable: Any, l2: L2) -> tuple[str, bool]:
    """Where a rate comes from, and whether that is a regularizer."""
    if isinstance(l2, Mapping):
        for pattern in l2:
            if matches(variable.path, pattern):
                return f"l2[{pattern!r}]", False
    elif not isinstance(l2, str):
        return f"l2={float(l2):g}", False
    penalty = getattr(variable, "regularizer", None)
    if penalty is None:
        return "nothing", False
    settings = ", ".join(f"{k}={float(v):.3g}" for k, v in penalty.get_config().items())
    package = type(penalty).__module__.split(".")[0]
    return f"{package}.regularizers.{type(penalty).__name__}({settings})", True


def complete_l2(variables: Sequence[Any]) -> L2:
    """Rates for all variables to start a search from: the model's own, or 1 where any lacks one."""
    return "auto" if np.all(l2_rates(variables, "auto") > 0) else 1.0


def refuse_other_terms(layers: Sequence[str]) -> None:
    """Refuse terms of the cost that no L2 rate stands for, such as activity regularizers.

    For l2="auto" alone: rates that are given say that the user knows.

    Args:
        layers: names of the layers that add them.

    Raises:
        UnsupportedModelError: there are such layers.
    """
    if layers:
        raise UnsupportedModelError(
            "the cost has terms that are neither the loss nor a penalty on weights",
            expected="the loss, and keras.regularizers.L2 on weights",
            received=f"add_loss or an activity regularizer in the layers {list(layers)}",
            remedy="their curvature is left out: to accept that, give the L2 rates by l2=...; or "
            "train without them",
        )


def refuse_weight_decay(decay: WeightDecay | None, rates: npt.NDArray[np.float64], l2: L2) -> None:
    """Refuse a model of which only the optimizer's weight decay held some weights back.

    Args:
        decay: of the optimizer that trained the model.
        rates: one a variable.
        l2: anything but "auto" says what rate to assume.

    Raises:
        UnsupportedModelError: the optimizer decays weights that have no L2 rate.
    """
    if decay and l2 == "auto" and np.any(rates == 0):
        raise UnsupportedModelError(
            "the optimizer decayed weights that have no L2 penalty in the cost",
            expected="an L2 rate of the cost, such as keras.regularizers.L2 gives",
            received=f"{decay.optimizer} with weight_decay={decay.rate:g}, from which "
            "no rate can be read",
            remedy="give the rate to assume by l2=..., let l2='tune' choose one, or train with "
            "keras.regularizers.L2 instead",
        )


def _given_or_read(variable: Any, rates: Mapping[str, float], read_scale: float) -> float:
    for pattern, rate in rates.items():
        if matches(variable.path, pattern):
            return rate
    return read_scale * _read(variable)


def _read(variable: Any) -> float:
    penalty = getattr(variable, "regularizer", None)
    if penalty is None:
        return 0.0
    # A class of the user's own may compute anything, one that inherits from L2 too.
    kind = type(penalty).__name__ if type(penalty) in _understood() else None
    l1 = float(getattr(penalty, "l1", 0.0))
    if l1 == 0.0 and kind in ("L2", "L1L2"):
        return _rate(2.0 * float(penalty.l2))
    if l1 == 0.0 and kind == "L1":
        return 0.0
    raise UnsupportedModelError(
        f"the penalty on {variable.path!r} is not an L2 penalty",
        expected="keras.regularizers.L2, or none",
        received=f"{type(penalty).__name__}({_settings(penalty)})",
        remedy="an L1 or custom penalty has no Hessian of the form lambda * I; give the rate to "
        "use instead by l2=..., or leave the variable out with layers=...",
    )


def _understood() -> list[type]:
    """The regularizers of every Keras that is loaded."""
    loaded = [sys.modules[name] for name in ("keras", "tf_keras") if name in sys.modules]
    return [
        kind
        for package in loaded
        for kind in (
            package.regularizers.L1,
            package.regularizers.L2,
            package.regularizers.L1L2,
        )
    ]


def _settings(penalty: Any) -> Any:
    """Those of a regularizer; a function has none, nor does every class of a user's own."""
    try:
        return penalty.get_config()
    except (AttributeError, NotImplementedError):
        return "..."


def _not_understood(l2: str) -> InvalidInputError:
    return InvalidInputError(
        f"l2={l2!r} is not understood",
        expected="'auto', 'tune', a number, or a mapping of glob patterns to numbers",
        received=repr(l2),
    )


def _rate(value: Any) -> float:
    rate = float(value) if is_number(value) else float("nan")
    if not np.isfinite(rate) or rate < 0:
        raise InvalidInputError(
            "an L2 rate is not a finite number >= 0",
            expected="lambda >= 0, where the cost contains (lambda / 2) * sum w^2",
            received=reprlib.repr(value),
        )
    return rate
