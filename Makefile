# Everything a person or a machine does here is a target of this file. `make` alone lists them.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.made
LOCKS  := requirements/ingest.txt requirements/forwarder.txt requirements/dev.txt
KAFKA  := $(BIN)/python deploy/local/kafka.py

# Arguments for pytest: make test PYTEST_ARGS="-k cut"
PYTEST_ARGS ?=
# Arguments for the rounds of faults: make chaos CHAOS_ARGS="--rounds 20 --seed 7 --protocol consumer"
CHAOS_ARGS ?=
# Arguments for the benchmark: make bench BENCH_ARGS="--case v9 --no-peer"
BENCH_ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run kafka kafka-stop format lint type test chaos docs bench bench-parts bench-faults bench-quick profile lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with all that running, testing and benchmarking need

# The stamp is the promise that .venv holds what the lock and pyproject.toml say; it is made last.
$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old or missing: install Python 3.11 or newer, or name one: make PYTHON=python3.12 setup" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "no virtual environment could be made: on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV) (the first time takes a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	@touch $@

run: $(STAMP) ## Run it all: a local Kafka, both stages and generated flows; Ctrl-C ends it
	@$(BIN)/python -m deploy.local.run

kafka: $(STAMP) ## Start a local Kafka on localhost:9092 (KAFKA_PORT), and wait until it answers
	@$(KAFKA) start

kafka-stop: $(STAMP) ## Stop the Kafka that `make kafka` started
	@$(KAFKA) stop

format: $(STAMP) ## Format the code, and mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

lint: $(STAMP) ## Check style, format and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo

type: $(STAMP) ## Check the types
	@$(BIN)/mypy

test: $(STAMP) lint type ## Lint, types, then unit, property and integration tests on a real Kafka
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

docs: $(STAMP) ## Make the reference pages again from the schema and the settings
	@$(BIN)/python -m shared.reference --write

chaos: $(STAMP) ## Kill and stop things under load, 200 rounds, and see that nothing is lost or doubled (CHAOS_ARGS)
	@$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

bench: $(STAMP) ## Measure the speed (a quarter of an hour); results go to bench/results
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)
	@$(BIN)/python -m tests.bench.lake

bench-parts: $(STAMP) ## Measure compression, the spool, deduplication and aggregation, each alone
	@$(BIN)/python -m tests.bench.compression
	@$(BIN)/python -m tests.bench.spool
	@$(BIN)/python -m tests.bench.dedup
	@$(BIN)/python -m tests.bench.aggregation

bench-faults: $(STAMP) ## Measure what forged templates, a start of twenty instances, and outages of minutes do
	@$(BIN)/python -m tests.bench.poisoning
	@$(BIN)/python -m tests.bench.warm
	@$(BIN)/python -m tests.bench.outage

bench-quick: $(STAMP) ## Measure the speed roughly (seconds)
	@$(BIN)/python -m tests.bench --quick

profile: $(STAMP) ## Profile the loop of a worker, and print where its time goes
	@$(BIN)/python -m tests.bench.profile

# PIP_FIND_LINKS and the like are set aside, so that the locks depend on the public index alone;
# no address of it is written. `make lock UPGRADE=1` takes the newest versions.
lock: $(STAMP) ## Make requirements/*.txt again from pyproject.toml
	@for extra in dev ingest forwarder; do \
		env -u PIP_FIND_LINKS -u UV_FIND_LINKS $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
			--fork-strategy fewest --generate-hashes --no-emit-index-url --no-emit-find-links \
			--custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) \
			$$(test $$extra = dev || echo --constraints requirements/dev.txt) \
			--extra $$extra --output-file requirements/$$extra.txt pyproject.toml || exit 1; \
	done
	@if grep -nE '://|^ *-[fi] |--(extra-)?index|--find-links' $(LOCKS); then \
		echo "the locks above name a place: they must hold on every machine" >&2; exit 1; fi

clean: ## Remove .venv, the local Kafka's data, and caches (stop what runs first)
	@rm -rf $(VENV) .local lake build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
