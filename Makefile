# `make demo` and `make test` set up everything they need in .venv; Python 3.10 or newer and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test clean
demo: $(VENV)/.core
	$(BIN)/sgseg demo --out demo

test: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/pytest

# By its pip, for a venv whose making failed half-way has a python already.
$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "pip>=21.3"

# The instrument alone: no torch.
$(VENV)/.core: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --editable '.[train,pretrained,dicom,metrics,serve,dev]'
	touch $@

clean:
	rm -rf $(VENV) demo
