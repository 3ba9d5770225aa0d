# Every target does its own set-up, once: `make run` on a fresh machine needs python, make and git.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
WEB := workbench/exports/web

.DEFAULT_GOAL := help
.PHONY: help install browser postgres prometheus run test soak lint lab lock references clean

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

browser: $(WEB)/node_modules/.package-lock.json ## install what proves exports for browsers, and runs the tests of pages
	command -v chromium >/dev/null || (apt-get update --quiet=2 && apt-get install --quiet=2 --yes chromium)

# Chromium and Node come from the system: here by Debian's or Ubuntu's packages, as root.
$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json
	command -v npm >/dev/null || (apt-get update --quiet=2 && apt-get install --quiet=2 --yes npm)
	npm ci --prefix $(WEB) --ignore-scripts --no-audit --no-fund

postgres:        ## install PostgreSQL, which the tests of the MLflow mirror start for themselves
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
		apt-get update --quiet=2 && apt-get install --quiet=2 --yes --no-install-recommends postgresql-common && \
		echo "create_main_cluster = false" >>/etc/postgresql-common/createcluster.conf && \
		apt-get install --quiet=2 --yes --no-install-recommends postgresql; }

# Debian's package starts a server of its own where there is systemd; the tests start theirs.
prometheus:      ## install Prometheus, which the tests let read the server's metrics and alert rules
	command -v promtool >/dev/null || { \
		apt-get update --quiet=2 && apt-get install --quiet=2 --yes --no-install-recommends prometheus && \
		if [ -d /run/systemd/system ]; then systemctl disable --now prometheus; fi; }

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
	rm -rf .venv $(WEB)/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find workbench tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
