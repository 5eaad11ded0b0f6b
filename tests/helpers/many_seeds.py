"""A check of many seeds that hypothesis draws, the same ones at every run."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st


def try_seeds(examples, check):
    """Call a check with so many seeds; hypothesis shows what it notes of one that fails.

    What fails is small as it is: shrinking it would take many minutes.
    """
    drawn = settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    drawn(given(st.integers(0, 2**32 - 1))(check))()
