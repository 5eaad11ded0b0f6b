"""Runs the code of a page when the documentation is built, and shows the figures under it.

A page with `figures: true` in its front matter is run block by block in one namespace, as the tests
run it. Where the last line of a block is a matplotlib figure or axes, it is shown under the block,
as in a notebook. The pictures are part of the page: no file is written, and none is kept in git.
"""

from __future__ import annotations

import ast
import base64
import io
import re
from typing import Any

__all__ = ["on_page_markdown", "with_figures"]

_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """MkDocs' hook: the page as it is, or with its figures."""
    return with_figures(markdown) if page.meta.get("figures") else markdown


def with_figures(markdown: str) -> str:
    """The text with a picture under every block whose last line is a figure or axes."""
    namespace: dict[str, Any] = {"__name__": "page"}

    def run(block: re.Match[str]) -> str:
        shown = _run(block["code"], namespace)
        return block[0] if shown is None else f"{block[0]}\n\n{_picture(shown)}\n"

    return _BLOCK.sub(run, markdown)


def _run(code: str, namespace: dict[str, Any]) -> Any:
    """The figure that a block's last line is; None where it is something else."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<page>", "exec"), namespace)
    if last is None:
        return None
    value = eval(compile(ast.Expression(last.value), "<page>", "eval"), namespace)
    root = getattr(value, "get_figure", lambda root: value)(root=True)
    return root if hasattr(root, "savefig") else None


def _picture(figure: Any) -> str:
    """A figure as HTML that needs no other file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    source = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img alt="What the code above draws" src="data:image/svg+xml;base64,{source}"></p>'
