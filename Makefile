# Two commands do everything on a fresh machine: `make demo` and `make test`. Both start with `make setup`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_RUN ?= runs/demo
# Tests of one file stay in one process, which makes its fixtures once; each process computes on one core.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: setup demo test test-slow check lint types imports reference image clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is older or missing. Try: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "The venv module of $(PYTHON) is missing; install it first (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV) (PyTorch is large; this takes a few minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/compress demo --run $(DEMO_RUN)
	$(BIN)/compress verify $(DEMO_RUN)/student/model.onnx --data digits

test: setup
	$(PYTEST) -n $(WORKERS) --dist loadfile

test-slow: setup
	$(PYTEST) -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

reference: setup
	$(BIN)/python docs/generate.py

# Without a Docker engine: as root, with buildah and debootstrap. BASE=, TORCH_INDEX=, TARGETS= and IMAGE= choose.
image:
	@docker/build.sh

check: lint types imports test

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
