"""What a page is made of: sections of blocks, each drawn by its own part of the template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Block",
    "Bullets",
    "Callout",
    "Column",
    "Facts",
    "Heading",
    "Picture",
    "Section",
    "Table",
    "Text",
]


class Block:
    """A piece of a section; `kind` names its template, `templates/blocks/KIND.html.j2`."""

    kind: ClassVar[str]


@dataclass(frozen=True)
class Heading(Block):
    """A heading within a section of the page."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Text(Block):
    """A paragraph; a quiet one is a note."""

    text: str
    quiet: bool = False
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Bullets(Block):
    """Points, each a word that stands out and what is said of it."""

    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Facts(Block):
    """Numbers on cards: label, value and a note each, any of the notes empty."""

    items: Sequence[tuple[str, str, str]]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Callout(Block):
    """A verdict: what is said first, what it means, and in small print what it rests on."""

    verdict: str
    meaning: str = ""
    note: str = ""
    kind: ClassVar[str] = "callout"


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, and what it holds: "numbers", "names" or "prose"."""

    title: str
    holds: str = "numbers"


@dataclass(frozen=True)
class Table(Block):
    """A table of cells already written out.

    Attributes:
        label: says what it is, for those who cannot see it.
        columns: in order; the first names the rows.
        rows: cells.
        marked: numbers of the rows that stand out.
    """

    label: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Picture(Block):
    """A plot on the page, drawn when the page is made.

    Attributes:
        name: unique on the page; serves as file name.
        caption: under it.
        alternative: what it shows, in words, for those who cannot see it.
        draw: draws it.
        size: "text" (as wide as a paragraph), "narrow" (two fit side by side), or "wide" (as wide
            as the page; on a narrow screen it is scrolled, not shrunk).
    """

    name: str
    caption: str
    alternative: str
    draw: Callable[[], Axes]
    size: str = "text"
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Section:
    """A titled part of the page."""

    title: str
    blocks: Sequence[Block]
