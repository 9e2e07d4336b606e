# `make` lists the targets. They need Python 3.11 or newer and the package index, nothing else.
#
#   make figures PYTHON=python3.12     another interpreter than python3
#   make test ARGS="-k cutoff"         more arguments for pytest, paperlib run or jupyter lab
#
# On Linux pip's default torch brings its CUDA libraries, gigabytes of them. Where the index that PyTorch's
# installation page names for CPU wheels is in PIP_EXTRA_INDEX_URL, pip takes the CPU build of the same version.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
RUNS := $(addprefix figures/,smoke quick reference paper custom)
BOOK := .venv/.installed-book
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] && echo --allow-root)
# one more than cores: tests that kill, restart or wait leave theirs free meanwhile
WORKERS := $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 4 ? n + 1 : 4)))
CACHES := .pytest_cache .ruff_cache .mypy_cache .hypothesis

# Where nothing compiled is kept, each of the hundred processes of `make test` compiles the package anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install figures instruments paper reference test test-fast lint check book wheel lab clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

install: $(INSTALLED) ## .venv with the locked versions; the other targets make it where it is missing

figures: $(INSTALLED) ## every figure of 00 to 09 with quick settings, always computed, into figures/quick/
	$(BIN)/paperlib run --profile quick --force --at-once 2 figures $(ARGS)

instruments: $(INSTALLED) ## the figures of the instruments' notebooks, 10 and on, with quick settings
	$(BIN)/paperlib run --profile quick --force --at-once 2 instruments $(ARGS)

paper: $(INSTALLED) ## every figure with the published settings (months on two cores); finished points are reused
	$(BIN)/paperlib run --profile paper figures $(ARGS)

reference: $(INSTALLED) ## canonical figures and committed notebooks, drawn anew from data/reference/
	$(BIN)/paperlib run --profile reference --force --save $(ARGS)

test: $(INSTALLED) ## all tests but those that need a GPU or download data
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-fast: $(INSTALLED) ## the tests that take no more than about a second each and kill nothing
	$(BIN)/python -m pytest -m "not gpu and not network and not slow and not faults" \
		-n $(WORKERS) --dist worksteal $(ARGS)

lint: $(INSTALLED) ## formatting, lint, types and which room imports which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy paperlib
	$(BIN)/lint-imports --no-cache

check: lint test ## lint, then test

book: $(BOOK) ## the committed notebooks, their figures and the API as a site for reading, into book/_build/
	$(BIN)/python -m sphinx -q -W --keep-going -E -b html book book/_build/html $(ARGS)
	@echo "open book/_build/html/index.html"

wheel: $(INSTALLED) ## wheel and source archive into dist/; the wheel is tried in a clean environment elsewhere
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	PYTHON="$(PYTHON)" .ci/try-wheel dist/*.whl

lab: $(INSTALLED) ## JupyterLab on your own copies of the notebooks, in lab/; on this machine only, with its token
	@mkdir -p lab
	@for file in notebooks/*.ipynb; do \
		copy="lab/$$(basename "$$file")"; [ -e "$$copy" ] || cp "$$file" "$$copy"; \
	done
	@echo "lab/ holds your copies of the notebooks; delete one to have it anew"
	$(BIN)/jupyter lab $(AS_ROOT) --ServerApp.ip=127.0.0.1 --ServerApp.root_dir="$(CURDIR)" \
		--LabApp.default_url=/lab/tree/lab $(ARGS)

clean: ## remove caches, figures of runs, finished points (data/points/), the book and dist/; .venv and lab/ stay
	@for path in $(RUNS) data/points book/_build book/_pages dist $(CACHES); do \
		if [ -e "$$path" ]; then echo "removing $$path ($$(du -sh "$$path" | cut -f1))"; rm -rf "$$path"; fi; \
	done
	@find . -name .venv -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

$(BOOK): $(INSTALLED) requirements-book.lock
	$(BIN)/python -m pip install -r requirements-book.lock
	@touch $@

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) must be Python 3.11 or newer, got: $$($(PYTHON) --version 2>&1);" \
			"name another one, e.g.: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@
