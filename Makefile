# One command for each need; `make` alone lists them. Needs Python 3.11 to 3.13, git and make.

PYTHON ?= python3
CONFIG ?= configs/nano.py
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install --quiet
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo serve test check format docstrings coverage audit fuzz data train bench \
  bench-latency bench-serve bench-regression soak faults tables architecture structure golden \
  smoke ci hooks lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "mmllm needs Python 3.11 to 3.13; name one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The two stamps hold the installed sets: a second run does nothing.
$(VENV)/.runtime: requirements-runtime.lock pyproject.toml | $(BIN)/python
	@echo "Installing what the trained model needs into $(VENV) (about a minute) ..."
	@$(INSTALL) --require-hashes -r requirements-runtime.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.full: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing what training and the tests need into $(VENV) (a few minutes) ..."
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $(VENV)/.runtime $@

setup: $(VENV)/.full ## install everything that requirements.lock pins

demo: $(VENV)/.runtime ## caption, read, ask and search the sample pictures; writes demo.html
	@$(BIN)/mmllm demo --out demo.html

serve: setup ## answer over HTTP at http://127.0.0.1:8000, with a page, an API and metrics
	$(BIN)/mmllm serve

# Compiled in two thirds of the time; `make ci` runs the optimized programs.
test: setup ## the tests that take seconds
	XLA_FLAGS="--xla_backend_optimization_level=0 $(XLA_FLAGS)" $(PYTEST) -m "not slow"

check: setup docstrings ## formatting, lint, types, docstrings, insecure code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check
	$(BIN)/bandit --quiet --recursive mmllm --severity-level medium

docstrings: setup ## public names of mmllm with a docstring: at least 95 %
	$(BIN)/interrogate mmllm --fail-under 95 --ignore-init-method --ignore-magic \
	  --ignore-nested-functions --ignore-semiprivate --ignore-private

coverage: setup ## lines of mmllm that the tests run: at least 85 %
	$(PYTEST) -m "not slow" --cov=mmllm --cov-report=term:skip-covered --cov-fail-under=85

# Not a part of ci: it needs a server of advisories. Whatever it cannot look up is a failure.
audit: setup ## insecure code, and known vulnerabilities of what the lock pins (needs network)
	$(BIN)/bandit --quiet --recursive mmllm --severity-level medium
	@$(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements.lock || { \
	  echo "FAILED: a package is vulnerable, or could not be audited (see above): nothing is proved" >&2; exit 1; }

format: setup ## rewrite files as `make check` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

data: setup ## fetch the pinned packages and build every corpus
	$(BIN)/mmllm data build all

train: setup ## train CONFIG (configs/nano.py), going on where it stopped
	$(BIN)/python -m mmllm.train --config=$(CONFIG)

bench: setup ## score the shipped model on every held-out split
	$(BIN)/mmllm bench --out experiments/results/nano.json

bench-latency: setup ## the shipped LiteRT file beside float32 and int8, stage by stage
	$(BIN)/python -m experiments.artifact.latency $(BUNDLE)

bench-serve: setup ## the service under load, beside plain handlers (LITSERVE=PYTHON: and LitServe)
	$(BIN)/python -m experiments.serving.speed $(if $(LITSERVE),--litserve $(LITSERVE))

# By itself, and without run-time checks: beside other tests the ratios mean nothing.
bench-regression: setup ## what the service costs beside its yardsticks, against the baseline
	MMLLM_TYPECHECK=0 $(BIN)/python -m pytest tests/performance --benchmark-columns=min,median

soak: setup ## ten minutes of load: memory and latency over time
	$(BIN)/python -m experiments.serving.soak

faults: setup ## kill, hang, cut off, fill the disk: what failed, what was lost, how soon it recovered
	$(BIN)/python -m experiments.serving.faults

fuzz: setup ## 250,000 mutated pictures and texts into the decoders
	$(BIN)/python -m experiments.serving.fuzz

tables: setup ## rewrite the tables of README.md and PAPER.md from the results
	$(BIN)/python -m experiments.tables

architecture: setup ## draw docs/architecture.svg from the imports, and its page's walks
	$(BIN)/python -m experiments.architecture

structure: setup ## measure what a reader of this tree meets, beside the tree before the redesign
	$(BIN)/python -m experiments.structure after

golden: setup ## rewrite the golden files after an intended change; read the diff
	MMLLM_UPDATE_GOLDEN=1 $(BIN)/python -m pytest tests -k golden

smoke: setup ## a tiny training run end to end, then the demo
	@rm -rf build/smoke
	$(BIN)/python -m mmllm.train --config=configs/tiny.py --synthetic --workdir=build/smoke
	$(BIN)/mmllm demo --out build/smoke/demo.html

ci: check smoke bench-regression ## everything: check, smoke, and all tests with the slow ones
	$(PYTEST)

hooks: setup ## check each commit with the tools of the lock
	$(BIN)/pre-commit install

EXTRAS = jax train export serve dev
lock: ## resolve the locks anew (needs uv)
	@COMPILE="uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header" && \
	{ echo "# Everything that make setup installs, for Python 3.11 to 3.13. Rewrite it with: make lock"; \
	  $$COMPILE pyproject.toml $(EXTRAS:%=--extra %); } > requirements.lock.tmp && \
	{ echo "# The part of requirements.lock that make demo installs: what runs a trained model."; \
	  echo setuptools | $$COMPILE pyproject.toml - -c requirements.lock.tmp; } > requirements-runtime.lock.tmp && \
	{ echo "# The part of requirements.lock that deploy/Dockerfile installs: the HTTP service and the model."; \
	  echo setuptools | $$COMPILE pyproject.toml - --extra serve -c requirements.lock.tmp; } > requirements-serve.lock.tmp && \
	for lock in requirements requirements-runtime requirements-serve; do mv $$lock.lock.tmp $$lock.lock; done

clean: ## remove the environment and what commands wrote; the data cache stays
	rm -rf $(VENV) build dist report demo.html demo_files *.egg-info
