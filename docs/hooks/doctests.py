"""Shows the examples of docstrings as code; Griffe takes them for text outside of a section."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["FencedDoctests", "fenced"]

_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class FencedDoctests(griffe.Extension):
    """Puts fences around every example before a docstring is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Griffe's hook for everything that can have a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """The text with fences around lines from `>>>` to the next empty one."""
    return _EXAMPLE.sub(lambda example: f"```pycon\n{example[0]}\n```", text)
