"""The one door from a result to its drawing or its page, which later rooms make.

Results know neither `plots` nor `report`: both draw what they are given, so they import the
results. The door looks them up when it is called, so that no circle is closed, and nothing that
draws is loaded before something is drawn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Shown"]


class Shown:
    """A result that `deltauq.plots` can draw, or `deltauq.report` can tell on a page.

    No other room is looked up by name in the package, but public names by `deltauq.__getattr__`.
    """

    __slots__ = ()

    def _draw(self, function: str, *args: Any, **options: Any) -> Axes:
        """The axes on which a function of `deltauq.plots`, given by name, has drawn this result."""
        draw = getattr(importlib.import_module("deltauq.plots"), function)
        return draw(self, *args, **options)

    def _page(self, make: str, **parts: Any) -> str:
        """The HTML of a `deltauq.report.Study`, by the name of the constructor that takes this."""
        study = importlib.import_module("deltauq.report").Study
        return str(getattr(study, make)(self, **parts).to_html())
