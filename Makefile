# Two commands on a fresh machine: `make quickstart` and `make test`. Both make .venv themselves.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INSTALLED := .venv/installed
FOR_TESTS := .venv/installed-for-tests

.PHONY: quickstart test lint clean
.DELETE_ON_ERROR:

quickstart: $(INSTALLED)
	$(BIN)/replay-sweep study=quickstart

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile

lint: $(FOR_TESTS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv outputs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch first and pinned: resolved later, it may bring gigabytes of what is not needed
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "replay-sweeps needs Python 3.11 or later; set it with: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) -e .
	touch $(INSTALLED)

$(FOR_TESTS): $(INSTALLED)
	$(PIP) -e '.[dev,joblib,slurm,ray]'
	touch $(FOR_TESTS)
