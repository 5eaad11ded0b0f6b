"""Code blocks of the README and the docs run as tests."""

import gc
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from sybil import Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

#: Pages whose ```python blocks are run, one namespace a page.
PATTERNS = ["README.md", "docs/*.md", "docs/howto/*.md", "docs/evidence/*.md"]


def _enter(namespace: dict[str, Any]) -> None:
    """A page writes its files into a directory of its own."""
    namespace["_directory"] = tempfile.TemporaryDirectory()
    namespace["_home"] = Path.cwd()
    os.chdir(namespace["_directory"].name)


def _leave(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_home"])
    namespace["_directory"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=PATTERNS,
    setup=_enter,
    teardown=_leave,
).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Keras' `save` and tensorflow-probability use what others have deprecated, as users do."""
    for item in items:
        if isinstance(item, SybilItem):
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))
            if item.path.name == "gallery.md":  # which `make docs` runs too
                item.add_marker("slow")
            elif item.path.name != "README.md":  # of the pages it alone runs in `make test`
                item.add_marker("wide")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Weights and batches that a test leaves to chance are the same in every run."""
    import keras  # after tests/conftest.py told TensorFlow to be silent

    keras.utils.set_random_seed(0)


def pytest_collection_finish() -> None:
    """Look for garbage less often: every trace makes so much that it took a seventh of the time."""
    gc.freeze()  # what was imported stays
    gc.set_threshold(50_000, 20, 20)
