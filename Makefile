# Everything a newcomer types. `make setup` needs Python 3.11-3.13, make and git, nothing else.
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CORES ?= 2
DATASET ?= msrvtt

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-all test lint docs format lock rehearsal

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## create .venv from the hashed lock file

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11, 3.12 or 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}: make setup PYTHON=/path/to/python3.12")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module: install it (Debian and Ubuntu: apt-get install python3-venv) and run make again" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(STAMP)

demo: $(STAMP)  ## run the paper's experiment on the embedded demo world (5 to 10 minutes on 2 cores)
	$(BIN)/snakemake demo --cores $(CORES)

demo-all: $(STAMP)  ## every table and figure of the paper on the demo world
	$(BIN)/snakemake demo_all --cores $(CORES)

rehearsal: $(STAMP)  ## the real path on a self-made cut: DATASET=msrvtt, lsmdc, activitynet or didemo
	$(BIN)/python -m tests.rehearsal --dataset $(DATASET) --cores $(CORES)

test: lint docs  ## lint, the manual, then all tests
	$(BIN)/python -m pytest

lint: $(STAMP)  ## ruff, mypy, snakefmt and snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

docs: $(STAMP)  ## the manual as a site in build/docs/html; a warning fails it
	$(BIN)/python -m sphinx -E -W -n -q --keep-going -d build/docs/doctrees docs build/docs/html

format: $(STAMP)  ## let the formatters rewrite the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

lock: $(STAMP)  ## renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra search --extra slurm --group dev --universal --generate-hashes --no-header --python-version 3.11 --quiet --output-file requirements.lock
