"""The ways out that errors of the package name, read from its syntax trees, and tests that go them.

An error with `remedy=` stands at a site, such as "data/weights.py:_checked", and its remedy is one
text or, behind a condition or a variable, one of several: each is a `Way`. A test goes it by

    with stumble("data/weights.py:_checked", ".ravel()"):
        fit(weight=column)
    assert ... fit(weight=column.ravel()) ...

where the words are some of the remedy's own. Which sites have no such test is in
tests/acceptance/remedies/test_none_is_missing.py.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self

import deltauq
from deltauq import errors

PACKAGE = Path(deltauq.__file__).parent
TESTS = Path(__file__).parents[1]

ERRORS = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.DeltaUQError)
}


class Maybe(str):
    """A piece of text that is left out where there is nothing to say."""

    __slots__ = ()


#: A text in pieces; None stands for what is filled in when the error is raised.
Text = tuple[str | None, ...]
UNKNOWN: list[Text] = [(None,)]

#: The classes and functions around a node, the innermost last.
Within = tuple[ast.FunctionDef | ast.ClassDef, ...]


@dataclass(frozen=True)
class Way:
    """One remedy of one error.

    Attributes:
        site: module and function in which the error is made; where that function is handed the
            remedy, the one that hands it.
        lines: of the call that makes the error, or hands the remedy, from and to.
        text: the remedy, in pieces.
        problem: of the same error, which tells it from another of this site with this remedy.
    """

    site: str
    lines: tuple[int, int]
    text: Text
    problem: Text

    def __str__(self) -> str:
        return f"{self.site}: {''.join('...' if piece is None else piece for piece in self.text)}"

    @property
    def is_known(self) -> bool:
        """Whether anything of the remedy is written in the source, where it could be followed."""
        return any(self.text)

    @property
    def room(self) -> str:
        """Of the package, or its module `errors`."""
        return re.split(r"[/.]", self.site)[0]

    def has(self, words: str) -> bool:
        """Whether the remedy has these words."""
        return any(words in piece for piece in self.text if piece is not None)

    def is_about(self, words: str) -> bool:
        """Whether the problem has these words."""
        return any(words in piece for piece in self.problem if piece is not None)

    def gives(self, remedy: str) -> bool:
        """Whether a remedy as the user reads it is this one."""
        return re.fullmatch("".join(map(_pattern, self.text)), remedy, re.DOTALL) is not None


def _pattern(piece: str | None) -> str:
    if piece is None:
        return ".*"
    return f"({re.escape(piece)})?" if isinstance(piece, Maybe) else re.escape(piece)


@cache
def ways() -> tuple[Way, ...]:
    """Every way out that an error of the package names."""
    return tuple(dict.fromkeys(way for module in modules() for way in module.ways()))


@cache
def modules() -> tuple[Module, ...]:
    return tuple(Module(path) for path in sorted(PACKAGE.rglob("*.py")))


@dataclass(frozen=True)
class Module:
    """A module of the package as a syntax tree in which names can be followed to texts."""

    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text())

    @property
    def name(self) -> str:
        return self.path.relative_to(PACKAGE).as_posix()

    def ways(self) -> Iterator[Way]:
        for call, within in calls(self.tree):
            remedy = argument(call, "remedy", None)
            if called(call) in ERRORS and remedy is not None:
                yield from self.ways_at(call, remedy, within)

    def ways_at(self, call: ast.Call, remedy: ast.expr, within: Within) -> Iterator[Way]:
        """The ways of an error that is made by a call, or of one to which the call hands them."""
        inner = within[-1] if within else None
        if isinstance(remedy, ast.Name) and isinstance(inner, ast.FunctionDef):
            names = [each.arg for each in inner.args.args]
            if remedy.id in names and not assigned(inner, remedy.id):
                handed = [
                    (value, handing, around)
                    for handing, around in calls(self.tree)
                    if called(handing) == inner.name
                    and (value := argument(handing, remedy.id, names.index(remedy.id)))
                ]
                for value, handing, around in handed:
                    yield from self.ways_at(handing, value, around)
                if handed:
                    return
        site = f"{self.name}:{'.'.join(node.name for node in within)}"
        lines = call.lineno, call.end_lineno or call.lineno
        for text in self.texts(remedy, functions(within)):
            yield Way(site, lines, text, written(call.args[0]))

    def texts(self, node: ast.expr, within: list[ast.FunctionDef]) -> list[Text]:
        """What an expression in nested functions may be, as far as it is written in the source."""
        match node:
            case ast.Constant(value=str(text)):
                return [(text,)]
            case ast.Constant(value=None):
                return []
            case ast.JoinedStr(values=values):
                return joined(self.texts(value, within) for value in values)
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                return self.texts(value, within)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return joined(self.texts(side, within) for side in (left, right))
            case ast.IfExp(body=body, orelse=ast.Constant(value="")):
                return [tuple(Maybe(p) if p else p for p in t) for t in self.texts(body, within)]
            case ast.IfExp(body=ast.Constant(value=""), orelse=orelse):
                return [tuple(Maybe(p) if p else p for p in t) for t in self.texts(orelse, within)]
            case ast.IfExp(body=body, orelse=orelse):
                return self.texts(body, within) + self.texts(orelse, within)
            case ast.Name(id=name):
                return self.named(name, within)
            case ast.Attribute(attr="remedy"):
                return self.fields()
            case ast.Call(func=ast.Attribute(value=value, attr="format")):
                return [unfilled(text) for text in self.texts(value, within)]
            case ast.Call(func=ast.Name(id=name)):
                return self.returned(name)
        return UNKNOWN

    def named(self, name: str, within: list[ast.FunctionDef]) -> list[Text]:
        """What a variable of a function, its argument, or a constant of a module may be."""
        for function in reversed(within):
            values = assigned(function, name)
            if values:
                return [text for value in values for text in self.texts(value, within)]
            names = [each.arg for each in function.args.args]
            if name in names:
                return self.passed(function.name, name, names.index(name))
        values = assigned(self.tree, name)
        if values:
            return [text for value in values for text in self.texts(value, [])]
        for source in (node for node in self.tree.body if isinstance(node, ast.ImportFrom)):
            if name in {alias.name for alias in source.names}:
                path = str(source.module).replace(".", "/").removeprefix("deltauq/") + ".py"
                for module in modules():
                    if module.name == path:
                        return module.named(name, [])
        return UNKNOWN

    def passed(self, function: str, name: str, position: int) -> list[Text]:
        """What calls in this module pass for an argument of one of its functions."""
        found = []
        for call, within in calls(self.tree):
            if called(call) == function:
                value = argument(call, name, position)
                found += self.texts(value, functions(within)) if value is not None else []
        return found or UNKNOWN

    def returned(self, name: str) -> list[Text]:
        """What a function of this module may return."""
        for function in ast.walk(self.tree):
            if isinstance(function, ast.FunctionDef) and function.name == name:
                values = [n.value for n in ast.walk(function) if isinstance(n, ast.Return)]
                return [text for v in values if v for text in self.texts(v, [function])]
        return UNKNOWN

    def fields(self) -> list[Text]:
        """What records of this module have as their `remedy`, wherever one is made."""
        found = []
        for record in (node for node in self.tree.body if isinstance(node, ast.ClassDef)):
            fields = [node for node in record.body if isinstance(node, ast.AnnAssign)]
            names = [ast.unparse(field.target) for field in fields]
            if "remedy" in names:
                place = names.index("remedy")
                default = fields[place].value
                found += self.texts(default, []) if default is not None else []
                for module in modules():
                    for call, within in calls(module.tree):
                        if called(call) == record.name:
                            value = argument(call, "remedy", place)
                            texts = module.texts(value, functions(within)) if value else []
                            found += texts
        return found or UNKNOWN


def functions(within: Within) -> list[ast.FunctionDef]:
    return [node for node in within if isinstance(node, ast.FunctionDef)]


def calls(tree: ast.AST, within: Within = ()) -> Iterator[tuple[ast.Call, Within]]:
    """Every call below a node, with the classes and functions that it stands in."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            yield node, within
        inner = (node,) if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else ()
        yield from calls(node, within + inner)


def called(call: ast.Call) -> str:
    """The last part of the name of what is called."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def argument(call: ast.Call, name: str, position: int | None) -> ast.expr | None:
    """The argument of a name or, without it, of a position; None where it is not given."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.args[position] if position is not None and position < len(call.args) else None


def assigned(tree: ast.AST, name: str) -> list[ast.expr]:
    """What is assigned to a name in the body of a function or a module."""
    nodes = tree.body if isinstance(tree, ast.Module) else ast.walk(tree)
    return [
        node.value
        for node in nodes
        if isinstance(node, ast.Assign) and name in [ast.unparse(t) for t in node.targets]
    ]


def joined(parts: Any) -> list[Text]:
    return [sum(combination, ()) for combination in itertools.product(*parts)]


def written(node: ast.expr) -> Text:
    """The pieces of a text that stand where it is used, whatever is filled in."""
    values = node.values if isinstance(node, ast.JoinedStr) else [node]
    return tuple(str(v.value) if isinstance(v, ast.Constant) else None for v in values)


def unfilled(text: Text) -> Text:
    """A text that is to be formatted, with None where it will be filled in."""
    pieces: list[str | None] = []
    for piece in text:
        for k, part in enumerate(re.split(r"\{\w*\}", piece or "")):
            pieces += [None, part] if k else [part]
    return tuple(pieces)


def found(site: str, words: str) -> Way:
    """The way of a site whose remedy, or else whose problem, has these words; the shortest one."""
    here = [way for way in ways() if way.site == site]
    named = [way for way in here if way.has(words)] or [way for way in here if way.is_about(words)]
    named.sort(key=lambda way: len(str(way)))
    texts = "\n".join(map(str, here)) or "no error with a remedy is made there"
    assert named, f"{site} has no {words!r}:\n{texts}"
    twins = [way for way in named if way.text == named[0].text]
    assert len(twins) == 1, f"{site} has {words!r} in {len(twins)} errors: say words of the problem"
    return named[0]


@dataclass
class stumble:  # noqa: N801, a word of the tests, read like `raises`
    """Expect the error of a site, raised there, that names the way out with these words.

    Args:
        site: module and function, such as "data/weights.py:_checked".
        words: of the remedy; or of the problem, where two errors of the site have one remedy.
    """

    site: str
    words: str

    def __enter__(self) -> Self:
        self.error: errors.DeltaUQError | None = None
        self._stacks: dict[int, list[tuple[str, int]]] = {}
        self._init = errors.DeltaUQError.__init__

        def noted(error: errors.DeltaUQError, *args: Any, **options: Any) -> None:
            self._stacks[id(error)] = list(_lines_of_the_package())
            self._init(error, *args, **options)

        errors.DeltaUQError.__init__ = noted  # type: ignore[method-assign]
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        errors.DeltaUQError.__init__ = self._init  # type: ignore[method-assign]
        way = found(self.site, self.words)
        assert error is not None, f"nothing was raised; expected {way}"
        if not isinstance(error, errors.DeltaUQError):
            return False
        stack = self._stacks[id(error)]
        made = any(
            way.site.startswith(f"{name}:") and way.lines[0] <= line <= way.lines[1]
            for name, line in stack
        )
        assert made, f"made at {stack[0]}, and not as {way}: {error}"
        assert way.gives(error.remedy or ""), f"not as {way}: {error}"
        self.error = error
        return True


def _lines_of_the_package() -> Iterator[tuple[str, int]]:
    """Modules of the package and lines in them at which the call stands that we are in."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            yield path.relative_to(PACKAGE).as_posix(), frame.f_lineno
        frame = frame.f_back


@dataclass(frozen=True)
class Row:
    """A test that goes a way out.

    Attributes:
        test: file and function.
        site: as for `stumble`.
        words: as for `stumble`.
        runs: whether it is a test of every day, neither slow nor skipped.
    """

    test: str
    site: str
    words: str
    runs: bool


@cache
def rows() -> tuple[Row, ...]:
    """All calls of `stumble` in the tests."""
    return tuple(row for path in sorted(TESTS.rglob("test_*.py")) for row in _rows_of(path))


def _rows_of(path: Path) -> Iterator[Row]:
    module = ast.parse(path.read_text())
    for node in module.body:
        name = getattr(node, "name", "")
        marks = " ".join(ast.unparse(each) for each in getattr(node, "decorator_list", []))
        runs = name.startswith("test_") and not re.search(r"mark\.(slow|skip|xfail)", marks)
        for call, _ in calls(ast.Module([node], [])):
            if called(call) == "stumble":
                site, words = (_literal(each, node, module) for each in call.args)
                yield Row(f"{path.relative_to(TESTS).as_posix()}::{name}", site, words, runs)


def _literal(node: ast.expr, *scopes: ast.AST) -> str:
    """A text, or what a name is assigned to in a test or in its module."""
    if isinstance(node, ast.Name):
        values = [value for scope in scopes for value in assigned(scope, node.id)]
        assert values, f"stumble({node.id}, ...): write the text, or assign it to that name"
        node = values[0]
    return str(ast.literal_eval(node))
