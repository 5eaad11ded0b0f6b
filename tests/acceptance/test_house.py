"""The house keeps its order: imports point one way, modules stay readable, importing is light."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deltauq

PACKAGE = Path(deltauq.__file__).parent
ROOT = Path(__file__).parents[2]

#: Rooms in the order in which data flow through them; a room imports only from rooms before it.
FLOORS = [
    "errors",
    "runtime",
    "likelihoods",
    "linalg",
    "data",
    "network",
    "curvature",
    "prediction",
    "delta",
    "evaluation",
    "estimators",
    "plots",
    "report",
    "cli",
]

#: Where modules are looked up by name: the package's public names, and the one door from a result
#: to what draws it. Optional packages are looked up by name where they are needed.
BY_NAME = {"__init__.py", "runtime/showing.py"}
OPTIONAL = {"errors.py", "prediction/tables.py", "cli/console.py"}

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    """The dotted name of a module; a room's `__init__` is the room."""
    parts = ("deltauq", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}
INNER = [name for name in MODULES if name.count(".")]


def imports(name):
    """Modules of the package that a module imports, in functions and for types too."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            assert node.level == 0
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def floor(name):
    """How high up the room of a module is; the command that runs the package is on top."""
    room = name.split(".")[1]
    return len(FLOORS) if room == "__main__" else FLOORS.index(room)


def test_the_top_of_the_package_holds_the_rooms_alone():
    entries = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.name[0] != "_"}
    assert entries - {"py.typed"} == set(FLOORS)
    assert len(FLOORS) <= 14


@pytest.mark.parametrize("name", INNER)
@pytest.mark.quick
def test_imports_point_back(name):
    """And a module of a room asks its neighbours, not the room's front that imports them all."""
    for other in imports(name):
        if other != "deltauq":
            assert floor(other) <= floor(name), f"{name} imports the later {other}"
            inside = MODULES[name].name != "__init__.py" and name.startswith(f"{other}.")
            assert not inside, f"{name} imports by way of {other}"


@pytest.mark.quick
def test_imports_run_in_no_circle():
    graph = {name: set(imports(name)) - {"deltauq"} for name in INNER}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_package_itself_is_asked_for_its_version_and_by_the_command_line_alone():
    for name in INNER:
        tree = ast.parse(MODULES[name].read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "deltauq":
                names = {alias.name for alias in node.names} - {n.split(".")[-1] for n in INNER}
                assert names <= {"__version__"} or floor(name) >= FLOORS.index("cli")


def test_modules_are_looked_up_by_name_at_one_door():
    asking = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if re.search(r"import_module|__import__", path.read_text())
    }
    assert asking == BY_NAME | OPTIONAL
    for relative in OPTIONAL:
        assert not re.search(r"import_module\(.*deltauq", (PACKAGE / relative).read_text())


def test_linalg_knows_no_network():
    words = re.compile(
        r"tensorflow|keras|\bmodel|network|\bOPG\b|\bGGN\b|vectors_dir", re.IGNORECASE
    )
    for path in (PACKAGE / "linalg").glob("*.py"):
        assert not words.findall(path.read_text()), path.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_are_not_long(path):
    assert len(path.read_text().splitlines()) <= 400


#: Openings that point at something else, or at a letter: the reader who comes from outside sees
#: neither. ruff turns the formula "p - y" into "P - y": probabilities are no parameters.
POINTING = re.compile(
    r"(That|Those|They|It|Its|Itself|As|Of|At|And|But|None|The (same|other|opposite))\b"
    r"|(?!A )[A-Z](?=\W)(?! [a-z]{3,}(?![a-z(]))"
)


def riddle(docstring):
    """What is wrong with the first line of a docstring; None where it is a sentence by itself."""
    first = (docstring or "").partition("\n")[0]
    words = re.findall(r"[A-Za-z][a-z'-]+", re.sub(r"`[^`]*`", " ", first))
    if not first.endswith("."):
        return "no whole sentence on its first line"
    if len(words) < 4:
        return "fewer than four words"
    return "points at something else" if POINTING.match(first) else None


def public_definitions(node, within=""):
    """A module, class or function with all public ones inside it, by their names."""
    yield within, node
    if not isinstance(node, ast.FunctionDef):
        for child in node.body:
            is_definition = isinstance(child, (ast.FunctionDef, ast.ClassDef))
            if is_definition and not child.name.startswith("_"):
                yield from public_definitions(child, f"{within}.{child.name}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_docstrings_open_with_a_sentence_that_stands_alone(path):
    found = public_definitions(ast.parse(path.read_text()))
    riddles = {
        name or "the module": (riddle(docstring), docstring)
        for name, node in found
        if riddle(docstring := ast.get_docstring(node))
    }
    assert not riddles


@pytest.mark.parametrize(
    "docstring",
    [
        None,
        "They are not.",
        "The opposite.",
        "That of the other one.",
        "The same for each number of leading pairs.",
        "As the other one, but for the mask.",
        "P `[N, C]`.",
        "P - y, the gradient of the loss `[B, C]`.",
        "S `[P, P]` with S S^T = Sigma, products and solutions of which take O(P K).",
        "K.",
        "All of it.",
        "Of so many.",
        "It is what the model was trained to minimise.",
        "How sure are the standard errors themselves?",
    ],
)
def test_riddles_are_no_docstrings(docstring):
    assert riddle(docstring)


@pytest.mark.parametrize(
    "docstring",
    [
        "Probability p of every class for every input `[N, C]`; rows sum to one.",
        "A table with one row an input.",
        "T predictions of one likelihood for every input.",
        "L2 rate of every variable by its path.",
    ],
)
def test_sentences_are_docstrings(docstring):
    assert riddle(docstring) is None


@pytest.mark.quick
def test_the_map_of_the_house_names_every_room_and_module():
    """CONTRIBUTING.md's map, room by room, beside the tree."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)(?:\.py|/)` \| (.*) \|$", text, re.MULTILINE))
    assert list(rows) == FLOORS
    for room in FLOORS[1:]:
        there = {entry.name.removesuffix(".py") for entry in (PACKAGE / room).iterdir()}
        there = {name for name in there if name[0] != "_"}
        assert set(re.findall(r"`(\w+)`", rows[room])) == there, room


@pytest.mark.quick
def test_the_tests_mirror_the_rooms():
    rooms = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    rooms -= {"__pycache__", "helpers", "acceptance"}
    assert rooms == set(FLOORS) - {"errors"}


def test_every_room_has_quick_tests():
    """What `make test-quick` runs."""
    for room in FLOORS[1:]:
        tests = (ROOT / "tests" / room).rglob("test_*.py")
        assert any("@pytest.mark.quick" in path.read_text() for path in tests), room


@pytest.mark.parametrize("name", deltauq.__all__)
def test_every_public_name_is_there(name):
    assert getattr(deltauq, name) is not None
    assert name in dir(deltauq)


def test_a_name_that_is_not_public_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'Laplace'"):
        _ = deltauq.Laplace


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, deltauq; heavy = {'tensorflow', 'keras', 'tensorflow_probability', 'typer', "
        "'matplotlib', 'sklearn', 'pandas'}; found = heavy & set(sys.modules); "
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.wide  # a process; what a module imports: the tests of the syntax trees
def test_a_model_of_keras_loads_no_other_keras_nor_probability_nor_plots():
    """Beyond what `import tensorflow` itself loads."""
    code = (
        "import sys, tensorflow; before = set(sys.modules); import deltauq; deltauq.DeltaMethod; "
        "deltauq.compare; import keras; "
        "m = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]); "
        "deltauq.Network(m); new = set(sys.modules) - before; "
        "bad = {'tensorflow_probability', 'typer', 'matplotlib', 'jinja2'} & new; "
        "bad |= {'tf_keras'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
