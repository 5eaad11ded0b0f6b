"""Shared fixtures: seeds are fixed, and cases are built once."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

from functools import cache

import before_tensorflow  # noqa: F401
import cases
import numpy as np
import pytest


@pytest.fixture(scope="session")
def get_case():
    """A cached `cases.case`."""
    return cache(cases.case)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
