"""The house keeps its order: imports point one way, modules stay readable, importing is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import deltauq

PACKAGE = Path(deltauq.__file__).parent

#: Rooms in the order in which data flow through them; a room imports only from rooms before it.
ORDER = [
    "errors",
    "choices",
    "files",
    "artifact",
    "progress",
    "workers",
    "machine",
    "tables",
    "linalg",
    "tracing",
    "gradients",
    "likelihoods",
    "arrays",
    "streams",
    "inputs",
    "weights",
    "checksums",
    "data",
    "record",
    "regularization",
    "adapters",
    "suitability",
    "parameters",
    "ends",
    "network",
    "masks",
    "probing",
    "understanding",
    "flatness",
    "audit",
    "jacobians",
    "directions",
    "linearization",
    "cost",
    "curvature",
    "solvers",
    "eigen",
    "memory",
    "noiserange",
    "covariance",
    "freedom",
    "rounding",
    "sandwich",
    "posterior",
    "prediction",
    "grouping",
    "means",
    "joint",
    "rankcurve",
    "problem",
    "fitting",
    "sampled",
    "noise",
    "evidence",
    "newton",
    "fit",
    "refinement",
    "answers",
    "saving",
    "serving",
    "delta",
    "training",
    "estimates",
    "checks",
    "diagnosis",
    "callback",
    "estimator",
    "classifier",
    "regressor",
    "metrics",
    "comparison",
    "plots",
    "report",
    "demo",
    "cli",
    "__main__",
]

#: Methods that hand a finished result to a later room, imported when they are called.
LATER_ON_CALL = {
    ("prediction", "plots"),
    ("comparison", "plots"),
    ("rankcurve", "plots"),
    ("comparison", "report"),
    ("diagnosis", "report"),
}

FILES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports(path):
    """(room, whether at module level) of every deltauq import in a file."""
    tree = ast.parse(path.read_text())
    inner = {
        node
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "deltauq" and len(parts) > 1 and not parts[1].startswith("__"):
                yield parts[1], node not in inner


def test_every_module_has_its_place():
    assert {room(path) for path in FILES} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_back(path):
    here = room(path)
    if here == "__init__":
        assert not [name for name, _ in imports(path) if name not in ORDER]
        return
    for name, at_module_level in imports(path):
        assert name in ORDER, f"{here} imports the unknown {name}"
        if at_module_level or (here, name) not in LATER_ON_CALL:
            assert ORDER.index(name) <= ORDER.index(here), f"{here} imports the later {name}"


def test_linalg_knows_no_network():
    for path in (PACKAGE / "linalg").glob("*.py"):
        text = path.read_text()
        assert "tensorflow" not in text
        assert "keras" not in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_are_not_long(path):
    assert len(path.read_text().splitlines()) <= 400


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
