"""What a checkpoint is of: the work, which must be the same, and what else was then as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deltauq.errors import CheckpointWarning, InvalidInputError, warn

__all__ = ["Work"]

#: How far numbers may differ that another processor, or another order of the data, rounds
#: otherwise.
_ROUNDING = 1e-6


class Work(NamedTuple):
    """A piece of work, by what tells it from others.

    Attributes:
        identity: what it is; other values are other work. Lists of numbers are compared up to
            rounding.
        surroundings: what may change the last digits of its results alone.
    """

    identity: Mapping[str, Any]
    surroundings: Mapping[str, Any]

    def check_same(self, recorded: Work, directory: Path, *, goes_on: bool) -> None:
        """Refuse a record of other work, and warn of one from other surroundings.

        Args:
            recorded: what the record is of.
            directory: where it is.
            goes_on: whether anything is in it.

        Raises:
            InvalidInputError: the identities differ.
        """
        differ = _differing(recorded.identity, self.identity)
        if differ:
            raise InvalidInputError(
                "the checkpoint is of another fit",
                expected=f"the same as in {directory}: {_told(differ, recorded.identity)}",
                received=_told(differ, self.identity),
                remedy=f"name another directory; or remove {directory}, if that fit is not to be "
                "gone on with",
            )
        differ = _differing(recorded.surroundings, self.surroundings)
        if differ and goes_on:
            warn(
                f"the fit goes on from the checkpoint in {directory} in other surroundings "
                f"({_told(differ, self.surroundings)}; it was begun with "
                f"{_told(differ, recorded.surroundings)}): the last digits of its results may "
                "differ from those of a fit that was not interrupted.",
                CheckpointWarning,
            )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the values that two mappings do not have in common."""
    names = dict.fromkeys((*one, *other))
    return [name for name in names if not _same(one.get(name), other.get(name))]


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same, lists of numbers up to rounding."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        try:
            first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
        except (TypeError, ValueError):
            return list(one) == list(other)
        return first.shape == second.shape and np.allclose(first, second, _ROUNDING, 0.0, True)
    return bool(one == other)


def _told(names: list[str], values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_shown(values.get(name))}" for name in names)


def _shown(value: Any) -> str:
    """A value as it is told: of a long one the beginning."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:20]}..."
