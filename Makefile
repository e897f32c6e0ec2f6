.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.ready

help: ## list every command
	@[ -t 1 ] && [ -z "$$NO_COLOR" ] && on=$$'\033[36m' off=$$'\033[0m'; grep -hE '^[a-z][a-zA-Z0-9_%-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' -v on="$$on" -v off="$$off" '{printf "  %smake %-10s%s %s\n", on, $$1, off, $$2}'

$(STAMP): pyproject.toml scripts/bootstrap.sh
	@scripts/bootstrap.sh venv

setup: $(STAMP) ## virtual environment and package, nothing else

system: $(STAMP) ## the system packages that tests and benchmarks want (Debian-like, as root)
	@scripts/bootstrap.sh system

up: $(STAMP) ## build and start every app of compose/app-registry, serve them at http://NAME.localhost:8080
	@$(VENV)/bin/fairway up

test: $(STAMP) system ## every test that CI runs (unit, contract, integration, end to end)
	@$(PY) -m pytest -m "not slow"

unit: $(STAMP) ## the tests that need seconds
	@$(PY) -m pytest -q -m "not slow and not integration and not e2e" tests/unit tests/contract tests/repo

check: $(STAMP) ## ruff, mypy --strict, import-linter, the repository's own rules, go vet
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@for main in services/*/main.py; do $(VENV)/bin/mypy --no-error-summary $$main || exit 1; done
	@$(VENV)/bin/lint-imports
	@$(PY) -m pytest -q tests/repo

format: $(STAMP) ## rewrite the sources in the project's format
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

bench: $(STAMP) system ## every benchmark, beside its peers (long)
	@for b in up proxy concurrency jobs events; do $(PY) -m bench.$$b || exit 1; done

bench-%: $(STAMP) system ## one benchmark: up, proxy, concurrency, jobs, events
	@$(PY) -m bench.$*

soak: $(STAMP) system ## ten minutes of mixed load on the door with reloads, kills and restarts
	@$(PY) -m pytest -m slow tests/integration/proxy -k soak

crash: $(STAMP) system ## 1,000 SIGKILL cycles over every job store
	@FAIRWAY_CRASH_CYCLES=1000 $(PY) -m pytest -m "slow or integration" --timeout=0 tests/integration/crash

schema: $(STAMP) ## write the JSON Schema of the registry and the reference of the command line
	@$(PY) -m fairway.apps.schema > compose/app-registry.schema.json
	@page=$$($(PY) -m fairway.cli.reference) && printf '%s\n' "$$page" > docs/51-command-line.md

clean: ## remove the virtual environment, caches and .fairway
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .fairway

.PHONY: help setup system up test unit check format bench soak crash schema clean
