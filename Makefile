# Two commands do all the set-up: `make demo` and `make test`. Both make the environment in .venv when it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.run-installed
DEV_STAMP := $(VENV)/.dev-installed
DOCS_STAMP := $(VENV)/.docs-installed
# A process per core, at most four (each holds torch and models: 2 GB), with one thread each: processes that have two
# threads each keep each other waiting. Parts of files go to whoever is free; `make test WORKERS=` runs in one process.
WORKERS := -n logical --maxprocesses 4 --dist worksteal
PYTEST = $(if $(WORKERS),OMP_NUM_THREADS=1 )$(BIN)/python -m pytest $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help demo serve test fast check lint docs wheel clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(RUN_STAMP)  ## decide the sample listings, and write a page to open
	$(BIN)/ecom-rag demo

serve: $(RUN_STAMP)  ## serve the sample bank, with a page on which to review what was not decided
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[serve]"
	$(BIN)/ecom-rag demo --serve

test: $(DEV_STAMP)  ## all tests; no network, no GPU
	$(PYTEST)

fast: $(DEV_STAMP)  ## the tests that take a moment, without whole commands and trainings
	$(PYTEST) -q -m "not slow"

lint: $(DEV_STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini tests benchmarks examples docs rag_scripts

check: lint test  ## everything that must pass before a commit

docs: $(DOCS_STAMP)  ## the documentation site in build/site, in English and Chinese
	DOCS_LANGUAGE=en $(BIN)/sphinx-build -q -W -b html -d build/doctrees/en docs build/site/en
	DOCS_LANGUAGE=zh_CN $(BIN)/sphinx-build -q -W -b html -d build/doctrees/zh docs build/site/zh
	cp docs/static/languages.html build/site/index.html
	@echo "open build/site/index.html"

wheel: $(RUN_STAMP)  ## build the wheel in dist, install it into a fresh environment and run the demo from there
	rm -rf dist build/wheel && mkdir -p build/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	build/wheel/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	cd build/wheel && venv/bin/ecom-rag demo

# torch first and alone: its version comes from constraints.txt, and a CPU build that pip knows of is taken.
$(RUN_STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(DEV_STAMP): $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

$(DOCS_STAMP): $(DEV_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

clean:  ## remove the environment and everything that was built
	rm -rf $(VENV) build dist demo_output .pytest_cache .mypy_cache .ruff_cache
