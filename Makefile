# Every target makes .venv itself when it is missing. PYTHON chooses the interpreter (>= 3.11).
PYTHON ?= python3
BIN := .venv/bin
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help demo test test-quick test-wide test-all lint docs bench evidence evidence-full clean

help:
	@echo "make demo        train on digits, compare curvatures, write deltauq-demo/report.html"
	@echo "make test        every claim on some of its cases, in a few minutes"
	@echo "make test-quick  a test or two of every room, in a minute or so"
	@echo "make test-wide   further cases of what make test shows, in a quarter of an hour"
	@echo "make test-all    all tests (full data sets, long computations)"
	@echo "make lint        ruff and mypy, as pre-commit runs them"
	@echo "make docs        build the documentation into site/"
	@echo "make bench       benchmarks"
	@echo "make evidence    experiments of docs/evidence at small sizes (evidence-full: as published)"
	@echo "make clean       remove .venv and everything built"

.venv/report: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[report]"
	touch $@

.venv/dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: .venv/report
	$(BIN)/deltauq demo --output deltauq-demo

# Two workers, and BLAS on one thread in each: threads that wait for those of the other one are a
# fifth of the time. A file to a worker, in the order of collection: by number of tests, as xdist
# would have it, the long tests of test_fuzz.py come last and leave the other worker idle.
PYTEST_BY_TWO := OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: .venv/dev
	$(PYTEST_BY_TWO) -m "not slow and not wide"

test-wide: .venv/dev
	$(PYTEST_BY_TWO) -m wide

test-quick: .venv/dev
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m quick tests

test-all: .venv/dev
	$(BIN)/python -m pytest

lint: .venv/dev
	$(BIN)/pre-commit run --all-files

docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The peers of benchmarks and cross-checks are large: `make bench` and `make evidence` install them.
.venv/bench: .venv/dev
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	touch $@

bench: .venv/bench
	$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-json=benchmarks/raw.json
	$(BIN)/python benchmarks/render.py benchmarks/raw.json

# Experiments: what was run is kept in benchmarks/evidence/cache, and a run that was stopped goes on.
EVIDENCE := PYTHONPATH=benchmarks OPENBLAS_NUM_THREADS=1 DELTAUQ_EVIDENCE_JOBS=2 $(BIN)/python -m evidence

evidence: .venv/bench
	$(EVIDENCE) small

evidence-full: .venv/bench
	$(EVIDENCE) full

clean:
	rm -rf benchmarks/evidence/cache .venv site deltauq-demo .mypy_cache .ruff_cache .pytest_cache .benchmarks
