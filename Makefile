# Needs Python 3.11 or later with pip, and a package index; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
TRIED := $(VENV)/torchvision
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

# On Linux pip's torch brings CUDA with it, several GB: with TORCH=cpu PyTorch's own build for CPUs comes first.
ifeq ($(TORCH),cpu)
TORCH_FIRST := $(PIP) torch --index-url https://download.pytorch.org/whl/cpu
endif

.PHONY: help demo docs test test-slow lint format checkpoint clean

help:
	@echo "make demo        draw a snowman and caption it (make demo TORCH=cpu: with a small torch, for CPUs alone)"
	@echo "make test        lint, types and tests: what a change is held to"
	@echo "make docs        the documentation as a site, in site/, and the man page docs/mmgen.1"
	@echo "make test-slow   the long trials: every window, kills at 100 moments, 100,000 paths"
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
	$(TORCH_FIRST)
	$(PIP) -e .
	@touch $@

# What the tests need. torchvision is for those that try mmgen beside it alone, so it lies where nothing else finds it.
$(DEVELOPED): $(INSTALLED)
	$(PIP) --quiet -e ".[dev]"
	$(PIP) --quiet --no-deps --upgrade --target $(TRIED) torchvision
	@touch $@

demo: $(INSTALLED)
	$(BIN)/mmgen draw "a snowman" -o snowman.png --force
	$(BIN)/mmgen caption snowman.png
	@echo "The picture is snowman.png. To use mmgen in this shell: source $(BIN)/activate"

# Two at a time: they are half waiting, for processes of their own.
test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not gpu and not network and not slow"

docs: $(DEVELOPED)
	$(BIN)/python -m tools.reference
	$(BIN)/mkdocs build --strict --quiet
	@echo "The site begins at site/index.html."

test-slow: lint
	$(BIN)/python -m pytest -m "slow and not gpu and not network"
	$(BIN)/python -m benchmarks.kill_batch
	$(BIN)/python -m benchmarks.kill_download
	$(BIN)/python -m benchmarks.many_paths
	$(BIN)/python -m benchmarks.windows
	$(BIN)/python -m benchmarks.moments --moments 50
	$(BIN)/python -m benchmarks.fuzz --seconds 300

lint: $(DEVELOPED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(DEVELOPED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

checkpoint: $(DEVELOPED)
	$(BIN)/python -m tools.demo.build

clean: # build/ stays: hours of training may lie there
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis snowman.png
