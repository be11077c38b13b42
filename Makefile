# make demo | test | lint | bench | clean. Everything is installed into .venv on first use; PYTHON=... chooses the interpreter.
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?= -n auto --maxprocesses 4
CANDIDATES := $(or $(PYTHON),python3.11 python3.12 python3)
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'

.PHONY: help demo test lint bench clean libraries

help:
	@echo "make demo   register the built-in example; results in demo/"
	@echo "make test   run the tests; choose some with PYTEST_ARGS=\"-k geometry\""
	@echo "make lint   ruff, mypy and the import contracts"
	@echo "make bench  measure time and memory, write docs/benchmarks.md; choose some with BENCH_ARGS=\"--only layers\""
	@echo "make clean  remove caches, build products and demo results; .venv stays"

demo: libraries $(STAMP)
	$(BIN)/python Testing/desktop/demo.py --out demo
	@echo "Results are in $(CURDIR)/demo"

test: libraries $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python Testing/benchmarks/run.py $(BENCH_ARGS)

# Before the minutes of installing: the system libraries that drawing without a screen needs, or how to get them.
libraries:
	@for python in $(CANDIDATES); do \
	    if $$python $(NEW_ENOUGH) 2>/dev/null; then exec $$python Testing/desktop/check_libraries.py; fi; \
	done

clean:
	rm -rf build dist demo .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache PDDRegistration/*.egg-info
	find PDDRegistration Testing -name __pycache__ -type d -prune -exec rm -rf {} +

# An interpreter counts when it runs: a version manager may leave a python3.12 that only prints an error.
$(STAMP): requirements-dev.txt pyproject.toml
	@$(BIN)/python $(NEW_ENOUGH) 2>/dev/null && exit 0; \
	for python in $(CANDIDATES); do \
	    if $$python $(NEW_ENOUGH) 2>/dev/null; then $$python -m venv --clear $(VENV); exit $$?; fi; \
	done; \
	echo "No Python 3.11 or newer among: $(CANDIDATES). Install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
	exit 1
	@echo "Installing PyTorch, Slicer's core, Qt and the other requirements into $(VENV); the first time takes a few minutes"
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -e .
	$(BIN)/python -m pip check
	@touch $@
