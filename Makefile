PYTHON ?= python3
BIN := .venv/bin
USE := .venv/.installed
DEV := .venv/.installed-dev
STYLE = $(BIN)/ruff check . && $(BIN)/ruff format --check .
TYPES = $(BIN)/mypy && $(BIN)/lint-imports
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo demo-real test test-all lint bench drill clean

## demo: set up, then find and steer through the heads of the embedded model
demo: $(USE)
	$(BIN)/real run

## demo-real: the same on a real model of 135 M parameters (fetched once, 93 MB) and the project's own questions
demo-real: $(USE)
	$(BIN)/real run deployments/experiments/smollm2.yaml

## test: set up, then lint and tests, with types and import contracts beside them, which speak last
test: WHICH = -m "not drill"
## test-all: the same with kills, clusters and servers of others (S3, Postgres, Ray, Dask)
test test-all: $(DEV)
	$(STYLE)
	@{ $(TYPES); } >.venv/types.txt 2>&1 & types=$$!; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder $(WHICH); tests=$$?; \
	wait $$types; types=$$?; cat .venv/types.txt; exit $$((tests | types))

lint: $(DEV)
	$(STYLE)
	$(TYPES)

## bench: speed and memory, as ratios to baselines measured in the same run; writes the table of the README and
## that of deployments/docs/measured.md (on idle cores; a part: .venv/bin/python -m tests.benchmarks tuning)
bench: $(DEV)
	$(BIN)/python -m tests.benchmarks --write

## drill: kill runs and stacks, run many at once, fill the disk, take the store away; what is lost
## (damaged files: .venv/bin/python -m tests.drill.damage)
drill: $(DEV)
	$(BIN)/python -m tests.drill $(DRILL)

clean:
	rm -rf .venv .real

.venv/bin/python:
	$(PYTHON) -m venv .venv

$(USE): pyproject.toml deployments/constraints.txt | .venv/bin/python
	@echo "installing what it needs into .venv: minutes, the first time"
	$(BIN)/pip install -q -c deployments/constraints.txt -e .
	touch $@

$(DEV): $(USE)
	$(BIN)/pip install -q -c deployments/constraints.txt -e ".[dev]"
	touch $@
