# Everything a newcomer needs: `make demo` and `make test`. Both set up their own virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARALLEL := -n auto --dist worksteal
PROCESSOR_TESTS := tests/kernels tests/parity tests/planning/test_machine.py
ABILITIES := packed-float32,packed-bfloat16,int8,int4,bfloat16
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

# Kept in every environment: each of the suite's processes would compile our files again.
export PYTHONDONTWRITEBYTECODE :=

QUICK := tests/parity tests/model tests/inference tests/checkpoint tests/test_nano.py tests/training/data \
  $(addprefix tests/training/test_,lora.py checkpoints.py packing.py recipe.py run.py)
OLDEST := .venv-oldest
NEWEST := .venv-newest
CITIZENSHIP := tests/citizenship

.PHONY: demo test test-citizenship test-lowered test-slow test-oldest test-newest lint types budgets clean

demo: $(VENV)/.demo  ## the small model answers questions about the pictures in examples/
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev  ## the whole test suite but its slow part and what the next target has, one process a core
	$(BIN)/python -m pytest $(PARALLEL) --ignore=$(CITIZENSHIP)

test-citizenship: $(VENV)/.dev  ## transformers' own tests of models and processors, of the version that is installed
	$(BIN)/python $(CITIZENSHIP)/fetch_mixins.py
	CI=true $(BIN)/python -m pytest $(PARALLEL) $(CITIZENSHIP)

test-lowered: $(VENV)/.dev  ## what depends on a processor, as on one without AVX512, and as on one with nothing
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(BIN)/python -m pytest $(PARALLEL) $(PROCESSOR_TESTS) tests/inference
	ATEN_CPU_CAPABILITY=default FLASHSLOTH_WITHOUT=$(ABILITIES) $(BIN)/python -m pytest $(PARALLEL) $(PROCESSOR_TESTS)

test-slow: $(VENV)/.dev  ## the slow part: true widths, minutes
	$(BIN)/python -m pytest -m slow

test-oldest: $(OLDEST)/.made  ## loading, parity, answering, training with the oldest libraries that are allowed
	$(OLDEST)/bin/python -m pytest $(PARALLEL) $(QUICK)

test-newest: $(NEWEST)/.made  ## the same on the newest Python there is here
	$(NEWEST)/bin/python -m pytest $(PARALLEL) $(QUICK)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

types: $(VENV)/.dev
	$(BIN)/mypy

budgets: $(VENV)/.demo  ## import and --help are quick, and need no optional extra
	$(BIN)/python tests/import_everything.py
	$(BIN)/python tests/budgets.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "FlashSloth needs Python 3.11 or newer, found " + sys.version.split()[0] + ": try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .[dev]
	@touch $(VENV)/.demo $@

$(OLDEST)/.made: constraints-oldest.txt $(VENV)/.dev
	$(BIN)/python tests/second_environment.py $(OLDEST)
	$(BIN)/python -m pip --disable-pip-version-check --python $(OLDEST)/bin/python install --quiet -r constraints-oldest.txt
	@touch $@

$(NEWEST)/.made: constraints.txt pyproject.toml
	python=$$(sh tests/newest_python.sh) && "$$python" -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip --disable-pip-version-check install --quiet --no-compile -c constraints.txt -e .[dev]
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(NEWEST) build dist .pytest_cache .mypy_cache .ruff_cache
