# Needs Python 3.11 or later with pip, and a package index; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test lint format checkpoint clean

help:
	@echo "make demo        draw a snowman and caption it"
	@echo "make test        lint, types and tests"
	@echo "make lint        lint and types alone"
	@echo "make format      put the code in shape"
	@echo "make checkpoint  train the built-in model again (about six hours on two cores)"
	@echo "make clean       remove the environment and what the tools left behind"

# Made anew whenever what it was made from has changed.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: mmgen needs Python 3.11 or later" >&2; echo "hint: make PYTHON=python3.11" >&2; exit 1; }
	@echo "making $(VENV) with what pyproject.toml and constraints.txt ask for: some minutes"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(INSTALLED)
	$(BIN)/mmgen draw "a snowman" -o snowman.png --force
	$(BIN)/mmgen caption snowman.png

test: lint
	$(BIN)/python -m pytest -m "not gpu and not network"

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

checkpoint: $(INSTALLED)
	$(BIN)/python -m tools.demo.build

clean: # build/ stays: hours of training may lie there
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis snowman.png
