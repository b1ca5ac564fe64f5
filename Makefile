# Everything a newcomer types. `make demo` and `make test` set up what they need.
SHELL := /bin/sh
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
PY := $(VENV)/bin/python
UV := $(shell command -v uv 2>/dev/null || echo $(VENV)/bin/uv)
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
TRAIN := .venv-train
TRAINED := out/training

.PHONY: model model-eval help setup demo test test-fast clients llama-cpp-python check format bench lock docs pictures clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or later is needed, $(PYTHON) is older" >&2; \
	    echo "hint: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@command -v uv >/dev/null 2>&1 || test -x $(VENV)/bin/uv || \
	  $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(UV) pip install --quiet --python $(PY) --no-deps --require-hashes -r requirements-dev.lock
	$(UV) pip install --quiet --python $(PY) --no-deps --editable .
	@# Compiled once here, the proxy starts in half the time; a few files in packages are for other Pythons.
	@$(PY) -m compileall -q -j 0 $(VENV)/lib >/dev/null || true
	@touch $(READY)

setup: $(READY) ## Make the environment in .venv from the locked requirements

demo: $(READY) ## Gateway on the built-in model, a budgeted key, the tool-order experiment, a report
	@exec $(VENV)/bin/toolkit demo

test: $(READY) ## Every test
	$(PY) -m pytest

test-fast: $(READY) ## The tests that take less than ten seconds each
	$(PY) -m pytest -m "not slow"

clients: ## The real Claude Code, OpenCode and MCP Inspector that some tests drive (needs npm)
	cd tests/gateway/clients && npm install --no-package-lock --no-audit --no-fund

llama-cpp-python: $(READY) ## The extra engine, built from source into .venv (needs a C++ compiler; some minutes)
	$(UV) pip install --python $(PY) --no-deps --require-hashes \
	  --build-constraints requirements-llama-cpp-python.lock -r requirements-llama-cpp-python.lock

check: $(READY) ## Format, lint, types, import contract
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

format: $(READY) ## Format and fix what can be fixed
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: $(READY) ## The measurements behind the figures in the docs
	$(PY) -m benchmarks

docs: $(READY) ## Rewrite the generated pages (command reference)
	$(PY) -m docs.generate

pictures: $(READY) ## Redraw the terminal pictures of the clients' pages (needs tmux and make clients)
	$(PY) -m docs.pictures

lock: ## Lock the newest versions that fit pyproject.toml, with hashes
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command "make lock" --extra postgres pyproject.toml --output-file requirements.lock
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command "make lock" --extra postgres --group dev --constraint requirements.lock pyproject.toml --output-file requirements-dev.lock
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command "make lock" --constraint requirements-dev.lock requirements-llama-cpp-python.in \
	  --output-file requirements-llama-cpp-python.lock
	echo uv | $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command "make lock" - --output-file requirements-uv.lock

$(TRAIN)/.ready: requirements-train.lock
	@test -x $(TRAIN)/bin/python || $(PYTHON) -m venv $(TRAIN)
	$(TRAIN)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-train.lock
	@touch $@

model: $(TRAIN)/.ready ## Train the built-in model from scratch, both variants (most of an hour on two cores)
	$(TRAIN)/bin/python -m training.train --out $(TRAINED)
	$(TRAIN)/bin/python -m training.train --out $(TRAINED)-settled --start $(TRAINED)/model.pt --steps 160 --rate 4e-4
	$(TRAIN)/bin/python -m training.train --out $(TRAINED)-skewed --start $(TRAINED)-settled/model.pt --skew 0.5 --steps 160 --rate 4e-4
	$(TRAIN)/bin/python -m training.export_gguf $(TRAINED)-settled/model.pt gateway/models/builtin/toolkit-tiny-q8_0.gguf
	$(TRAIN)/bin/python -m training.export_gguf $(TRAINED)-skewed/model.pt gateway/models/builtin/toolkit-tiny-skewed-q8_0.gguf --name toolkit-tiny-skewed

model-eval: $(TRAIN)/.ready ## Measure the built-in model: the table of its card (add ARGS=--write to write the card)
	$(TRAIN)/bin/python -m training.evaluate $(ARGS)

clean: ## Remove the environment and what was built
	rm -rf $(VENV) dist out .mypy_cache .pytest_cache .ruff_cache
