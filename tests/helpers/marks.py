"""Parameters that run in `make test-all` only: variations of what `make test` proves."""

import pytest


def slow(*values, **options):
    """A `pytest.param` that is marked slow."""
    return pytest.param(*values, marks=pytest.mark.slow, **options)
