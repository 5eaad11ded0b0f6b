"""Arguments that are a word or a number: what cannot be one is refused by the argument's name."""

from __future__ import annotations

import difflib
import numbers
import reprlib
from typing import Any

from deltauq.errors import InvalidInputError

__all__ = ["check_choice", "check_count", "check_share"]


def check_choice(argument: str, value: Any, choices: tuple[str, ...]) -> None:
    """`InvalidInputError` unless the value is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        alike = difflib.get_close_matches(str(value).lower(), choices, n=1)
        raise InvalidInputError(
            f"{argument}={reprlib.repr(value)} is not known",
            expected=f"one of {list(choices)}",
            received=reprlib.repr(value),
            remedy=f"write {argument}={alike[0]!r}" if alike else None,
        )


def check_count(argument: str, value: Any, *, at_least: int = 1, or_else: str = "") -> int:
    """The value as a whole number, or `InvalidInputError`.

    Args:
        argument: its name.
        value: any integer; True is none.
        at_least: the smallest that is taken.
        or_else: what else the argument takes, as in ", or None".
    """
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < at_least:
        raise InvalidInputError(
            f"{argument} is not a whole number >= {at_least}",
            expected=f"a whole number >= {at_least}{or_else}",
            received=reprlib.repr(value),
        )
    return int(value)


def check_share(argument: str, value: Any, *, example: float) -> float:
    """The value as a number between 0 and 1, without these, or `InvalidInputError`."""
    if not isinstance(value, numbers.Real) or not 0 < float(value) < 1:
        raise InvalidInputError(
            f"{argument} is not between 0 and 1",
            expected=f"a number between 0 and 1, such as {example:g}",
            received=reprlib.repr(value),
        )
    return float(value)
