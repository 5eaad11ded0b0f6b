"""The documentation is whole: every public name, every block run, every link, every figure."""

from __future__ import annotations

import importlib
import json
import pydoc
import re
import runpy
import subprocess
import sys
from inspect import isclass, ismodule, isroutine
from pathlib import Path

import keras
import nbclient
import nbformat
import numpy as np
import pytest
import render
import sklearn.datasets
import tensorflow as tf

import deltauq

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NOTEBOOK = DOCS / "tutorial.ipynb"

#: Modules whose names a reader may use.
MODULES = [
    "deltauq",
    *(f"deltauq.{name}" for name in deltauq.__all__ if ismodule(getattr(deltauq, name))),
]


def documented():
    """Everything that docs/api.md names, and what the modules that it names hold."""
    for path in re.findall(r"^::: (\S+)", (DOCS / "api.md").read_text(), re.MULTILINE):
        found = pydoc.locate(path)
        assert found is not None, f"docs/api.md documents {path}, which does not exist"
        yield from (getattr(found, n) for n in found.__all__) if ismodule(found) else [found]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_class_and_function_is_documented(module):
    public = importlib.import_module(module)
    known = {id(thing) for thing in documented()}
    for name in public.__all__:
        thing = getattr(public, name)
        if isclass(thing) or isroutine(thing):
            assert id(thing) in known, f"{module}.{name} is missing from docs/api.md"
            assert thing.__doc__, f"{module}.{name} has no docstring"


def test_the_modules_of_the_package_are_documented():
    text = (DOCS / "api.md").read_text()
    for module in MODULES[1:]:
        assert f"::: {module}\n" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_code_block_runs_as_a_test(page):
    """By its place, and by a fence that the collector reads."""
    patterns = runpy.run_path(str(ROOT / "conftest.py"))["PATTERNS"]
    assert any(page.relative_to(ROOT).match(pattern) for pattern in patterns)
    fences = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)
    assert set(fences) <= {"python", "console", "text", ""}
    assert len(fences) % 2 == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


#: Pages that say how good the method is, and what they say of it: a figure, a comparison.
CLAIMING = [
    ROOT / "README.md",
    *(DOCS / p for p in ("index.md", "for-me.md", "howto/curvature.md")),
]
CLAIM = re.compile(
    r"\d ?%|\btimes (?:as|those|the)\b|about twice|as good as|[Cc]lose to the|cheap|\b[Ss]low"
    r"|better|narrow|tighter|faster|same order|agree with|hold the|same numbers"
)


def sections(text):
    """The text under every heading, by the heading's anchor; under "" all of it."""
    found = {"": text}
    for heading, body in re.findall(r"^#+ (.*)\n((?:(?!#+ ).*\n?)*)", text, re.MULTILINE):
        found[re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")] = body
    return found


def linked(page, text):
    """What links between pages lead to: the text, or None where there is no such heading."""
    for path, anchor in re.findall(r"\]\(([^)\s#]+\.md)#?([^)]*)\)", text):
        if anchor.startswith("deltauq."):  # made from docstrings when the documentation is built
            continue
        yield f"{path}#{anchor}", sections((page.parent / path).read_text()).get(anchor)


@pytest.mark.parametrize("page", CLAIMING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_headings(page):
    """Those of other pages are checked when the documentation is built."""
    for target, text in linked(page, page.read_text()):
        assert text is not None, f"{page.name} links to {target}"


@pytest.mark.parametrize("page", CLAIMING, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_claim_points_to_a_table(page):
    """In the same paragraph, item or row; what others say or ask stands in quotes."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for block in re.split(r"\n\s*\n|\n(?=- |\d\. |\| )", text):
        if CLAIM.search(re.sub(r'"[^"]*"', "", block)):
            shown = [text for _, text in linked(page, block)]
            assert any(text and re.search(r"^\| ?---", text, re.MULTILINE) for text in shown), (
                f"{page.name} says without a table: {block}"
            )


def test_the_benchmark_page_is_what_its_figures_render_to():
    summary = json.loads((DOCS / "benchmarks.json").read_text())
    assert (DOCS / "benchmarks.md").read_text() == render.page(summary)


def figures_hook():
    """What puts figures under the code blocks of a page when the documentation is built."""
    return runpy.run_path(str(DOCS / "hooks" / "figures.py"))


def test_axes_and_figures_are_shown_under_their_blocks_and_nothing_else():
    blocks = (
        "from matplotlib.figure import Figure\n\nax = Figure().add_subplot()",
        "ax.plot([1, 2])",
        "ax",
        "ax.figure",
        "len(ax.lines)",
    )
    page = "\n".join(f"Text.\n\n```python\n{block}\n```\n" for block in blocks)
    found = figures_hook()["with_figures"](page)
    parts = found.split("Text.")[1:]
    assert [part.count("data:image/svg+xml") for part in parts] == [0, 0, 1, 1, 0]
    assert re.sub(r"\n\n<p>.*?</p>\n", "", found) == page


def test_an_error_in_a_block_stops_the_building():
    with pytest.raises(ZeroDivisionError):
        figures_hook()["with_figures"]("```python\n1 / 0\n```\n")


def test_only_pages_that_ask_for_it_are_run():
    page = type("Page", (), {"meta": {}})
    text = "```python\n1 / 0\n```\n"
    assert figures_hook()["on_page_markdown"](text, page=page) == text


def test_examples_of_docstrings_are_fenced():
    fenced = runpy.run_path(str(DOCS / "hooks" / "doctests.py"))["fenced"]
    text = "One line.\n\n>>> x = f(\n...     1\n... )\n>>> x\n2\n\nMore."
    shown = "One line.\n\n```pycon\n>>> x = f(\n...     1\n... )\n>>> x\n2\n```\n\nMore."
    assert fenced(text) == shown
    assert fenced("No example.") == "No example."


def test_the_notebook_is_kept_without_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.slow
def test_the_notebook_runs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 3


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "api" / "index.html").read_text()
    for module in MODULES[1:]:
        public = importlib.import_module(module)
        for name in public.__all__:
            if isclass(getattr(public, name)):
                assert f'id="{module}.{name}"' in api
    gallery = (tmp_path / "gallery" / "index.html").read_text()
    assert gallery.count("data:image/svg+xml") >= 12


def network(kind):
    layers = keras.layers
    rate = {"dense": 0.01, "convolutional": 0.001}[kind]
    decay = keras.regularizers.L2(rate / 2)
    options = {"kernel_regularizer": decay, "bias_regularizer": decay}
    inner = {
        "dense": [layers.Dense(32, activation="tanh", **options)],
        "convolutional": [
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(16, 3, activation="tanh", **options),
            layers.Conv2D(16, 3, activation="tanh", **options),
            layers.Flatten(),
        ],
    }
    return keras.Sequential([keras.Input((64,)), *inner[kind], layers.Dense(10, **options)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "convolutional"])
def test_the_widths_that_the_page_on_bounds_states(kind):
    """Its table, line by line; one and a half percentage points or a tenth either way."""
    table = re.search(
        rf"\| {kind}, P = ([\d,]+).*\| OPG \|(.*)\|\n.*\| GGN \|(.*)\|",
        (DOCS / "howto" / "bounds.md").read_text(),
    )
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    keras.utils.set_random_seed(0)
    model = network(kind)
    steps = 1_000
    schedule = keras.optimizers.schedules.CosineDecay(0.02, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(schedule), loss=loss)
    model.fit(tf.data.Dataset.from_tensors((x, y)).repeat(steps), shuffle=False, verbose=0)
    assert model.count_params() == int(table[1].replace(",", ""))
    for curvature, cells in (("opg", table[2]), ("ggn", table[3])):
        for rank, cell in zip((50, 100, 200, 400), cells.split("|"), strict=True):
            if not cell.strip():
                continue
            dm = deltauq.DeltaMethod(model, curvature, rank=rank, progress=False).fit(x, y)
            low, high = dm.predict(x[:200]).std_bounds
            width = float(np.median((high - low) / high))
            print(f"{kind} {curvature} {rank}: {width:.1%}, ratio {dm.stationarity.ratio:.2g}")
            assert width == pytest.approx(float(cell.strip(" %")) / 100, abs=0.015, rel=0.1)
