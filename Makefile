# One door: people and CI type the same targets. Everything lives in .venv and .build; `make clean` removes both.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
endif
JOBS ?= 2
MINUTES ?= 5
CREWS ?= 2
SEED ?=

.DEFAULT_GOAL := help
.PHONY: help run test test-all test-matrix test-windows soak check format bench bench-long docs clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; say which one: make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "No venv module here. On Debian: apt install python3-venv"; rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

run: $(VENV)/.installed  ## the product doing its job: the crew of four on a fresh copy of examples/alerts
	$(BIN)/python examples/run_alerts.py

test: $(VENV)/.installed  ## the tests, without the slow ones (under four minutes on two cores)
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow"

test-all: $(VENV)/.installed  ## the slow tests too: whole runs, kills, real packages
	$(BIN)/python -m pytest -n $(JOBS) -m slow

test-matrix:  ## the tests, and the events' slow ones, with the other supported Pythons that this machine has (.venv-3.x)
	@usual=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for version in 3.11 3.12 3.13 3.14; do \
	  test $$version != $$usual || { echo "Python $$version: what \`make test\` runs"; continue; }; \
	  for python in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python ""; do \
	    test -z "$$python" || ! "$$python" -c "" 2>/dev/null || break; \
	  done; \
	  test -n "$$python" || { echo "Python $$version: not on this machine"; continue; }; \
	  echo "Python $$version: $$python"; \
	  $(MAKE) --no-print-directory test VENV=.venv-$$version PYTHON="$$python" || exit 1; \
	  .venv-$$version/bin/python -m pytest -n $(JOBS) -m slow tests/ipc tests/chaos/test_exactness.py || exit 1; \
	done

soak: $(VENV)/.installed  ## kill and stop processes of running crews at random, then look: make soak MINUTES=60 SEED=1 CREWS=2
	$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES) --crews $(CREWS) $(if $(SEED),--seed $(SEED))

test-windows: $(VENV)/.installed  ## the tests with a Windows Python under Wine, and a service's whole life (Linux)
	$(BIN)/python -m tests.windows.wine test

check: $(VENV)/.installed  ## ruff and mypy, strict, for three systems; the two protocol models, walked through whole
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 supervisor actors ipc docs_store tests/windows
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin supervisor actors ipc docs_store
	$(BIN)/python tests/models/event_protocol.py & models=$$!; \
	  $(BIN)/python tests/models/documents_protocol.py && wait $$models

format: $(VENV)/.installed  ## what ruff can put right by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group bench
	-$(BIN)/python -m pip install --quiet --group bench-native
	@touch $@

bench: $(VENV)/.bench  ## measure, beside peers in the same run, against the goals; writes benchmarks/results.json
	$(BIN)/python -m benchmarks

bench-long: $(VENV)/.bench  ## ten million events through the journal: still linear, memory still flat?
	$(BIN)/python -m benchmarks --long

docs: $(VENV)/.installed  ## check that the documentation is true: links, commands, examples
	$(BIN)/python -m pytest -q tests/docs

clean:  ## remove what these targets made
	rm -rf $(VENV) .venv-3.* .build build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
