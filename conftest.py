"""Code blocks of the README and the docs run as tests."""

import pytest
from sybil import Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

#: Pages whose ```python blocks are run, one namespace a page.
PATTERNS = ["README.md", "docs/*.md", "docs/howto/*.md"]

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=PATTERNS,
).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Keras' `save` and tensorflow-probability use what others have deprecated, as users do."""
    for item in items:
        if isinstance(item, SybilItem):
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))
