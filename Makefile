# Every target does its own set-up, once: `make run` on a fresh machine needs python, make and git.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install browser run test soak lint lab lock references clean

help:            ## list the targets
	@grep -E '^[a-z]+: .*##|^[a-z]+: *##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(INSTALLED) ## make .venv from requirements.lock

# uv itself is in the lock too: pip checks its hash, then uv checks all the others.
$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock >.venv/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement .venv/uv.txt
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	$(BIN)/workbench kernel install
	@touch $@

browser:         ## install the Chromium that the tests use; Debian or Ubuntu, as root
	command -v chromium >/dev/null || (apt-get update --quiet=2 && apt-get install --quiet=2 --yes chromium)

run: $(INSTALLED) ## train, export and verify the digits notebook with its large parameters
	$(BIN)/workbench run notebooks/digits.ipynb -f params/digits.yaml

test: $(INSTALLED) ## all tests but the soak tests
	$(BIN)/pytest

soak: $(INSTALLED) ## the long tests
	$(BIN)/pytest -m soak

lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: $(INSTALLED) ## JupyterLab on the notebooks, on loopback with a token
	$(BIN)/workbench lab

lock: $(INSTALLED) ## compile requirements.lock from pyproject.toml, for all Pythons and platforms
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras \
		--no-header --no-annotate pyproject.toml --output-file requirements.lock

references: $(INSTALLED) ## run the notebooks and store the outputs that the tests compare with
	$(BIN)/python tests/update_references.py

clean:           ## remove .venv and caches; outputs/ stays
	[ ! -x $(BIN)/workbench ] || $(BIN)/workbench kernel stop
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find workbench tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
