# Needs Python 3.11 or newer, and make. Nothing is installed outside ./.venv.
#
#   make demo          two practices, a real Direct message and a forged one; runs until Ctrl-C
#   make demo ONCE=1   the same, ends by itself; exit 0 only when everything came out right
#   make install       .venv with .venv/bin/direct-gateway
#   make test          the quick suite        make test-slow  the slow runs, with real kills and clients
#   make test-all      both
#   make lint          ruff, mypy, the import rules           make check   lint and test
#   make bench         what it costs to open a message, to take mail in, to store much, to read it; 20 minutes
#   make clean         removes what these targets made
#
#   PYTHON=python3.12 chooses the interpreter; DIR=folder keeps the demo's files there;
#   PARALLEL= runs the quick suite in one process, SLOW_PARALLEL= the slow one;
#   ARGS=... goes to pytest (test, test-slow, test-all) or to the benchmarks (ARGS=--help shows them).

VENV := .venv
BIN := $(VENV)/bin
# Hundreds of processes are started by a test run; none of them is to compile everything anew.
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/pycache
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Files go to processes whole: what a module sets up once is set up once. They go in the order of their names, so that
# those with a few long tests (faults, interop, protocol) are not the last, when one process would wait for another.
# One process more than there are cores: for a third of their time the tests wait, for daemons, disks and clocks.
PARALLEL ?= -n $(shell echo $$(($$(nproc 2>/dev/null || echo 2) + 1))) --dist loadfile --no-loadscope-reorder
# The slow runs kill daemons and wait for them, two files at a time; what measures load has the machine for itself.
SLOW_PARALLEL ?= -n 2 --dist loadfile --no-loadscope-reorder
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install install-dev demo test test-slow test-all bench lint check format clean

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; name one with PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11; name another with PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "error: $(PYTHON) cannot make a virtual environment (on Debian: apt-get install python3-venv)" >&2; exit 2; }

$(RUN_STAMP): pyproject.toml | $(BIN)/python
	@echo "installing direct-gateway into $(VENV)"
	@$(PIP) install --editable .
	@touch $@

$(DEV_STAMP): pyproject.toml | $(RUN_STAMP)
	@echo "installing the development tools into $(VENV)"
	@$(PIP) install --editable '.[dev,hsm,postgresql,s3]'
	@touch $@

install: $(RUN_STAMP)

install-dev: $(RUN_STAMP) $(DEV_STAMP)

demo: $(RUN_STAMP)
	@exec $(BIN)/python -m gateway.cli.demo $(if $(filter 1 yes true,$(ONCE)),--once) $(if $(DIR),--dir '$(DIR)')

test: $(RUN_STAMP) $(DEV_STAMP)
	$(BIN)/python -m pytest -m 'not slow' $(PARALLEL) $(ARGS)

test-slow: $(RUN_STAMP) $(DEV_STAMP)
	$(BIN)/python -m pytest -m slow $(SLOW_PARALLEL) --ignore tests/load $(ARGS)
	$(BIN)/python -m pytest -m slow tests/load $(ARGS)

# One after the other, also under make -j: they would take each other's time.
test-all:
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-slow

bench: $(RUN_STAMP) $(DEV_STAMP)
	@exec $(BIN)/python -m tests.bench $(ARGS)

lint: $(RUN_STAMP) $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(RUN_STAMP) $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find gateway tests -name __pycache__ -type d -prune -exec rm -rf {} +
