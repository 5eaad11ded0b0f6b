"""Expensive steps of long work, as they are asked for whether or not their results are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

__all__ = ["Steps"]

Array = npt.NDArray[Any]


class Steps:
    """Expensive steps of some work; here none of them is kept, and each is computed."""

    def kept(
        self,
        what: str,
        given: Sequence[Array],
        results: Sequence[Array],
        compute: Callable[[], object],
    ) -> bool:
        """Have the results of a step filled in: computed, or as they were computed before.

        Args:
            what: which step it is, in a few words.
            given: what the results depend on, beside the work itself and results of earlier steps;
                some of it will do where that tells it from others.
            results: arrays to be filled, of one axis at least.
            compute: fills them.

        Returns:
            Whether they were computed.
        """
        del what, given, results
        compute()
        return True

    def mark(self, array: Array) -> Array:
        """What tells an array from others in `given`: itself here, where nothing is recorded.

        Args:
            array: one that many steps depend on, and that stays as it is.
        """
        return array
