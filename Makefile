# Everything runs from `.venv` and `contracts/node_modules`, both made by `setup`.
PYTHON ?= python3
VENV := .venv
PROVER := .venv-prove
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
FORGE := $(CURDIR)/contracts/node_modules/.bin/forge

.PHONY: setup demo test lint bench gas prove clean

setup: $(VENV)/.installed contracts/node_modules/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(f"Python {sys.version.split()[0]} is too old: 3.11 or later" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

contracts/node_modules/.installed: contracts/package-lock.json $(VENV)/.installed
	sh contracts/install.sh
	touch $@

demo: setup
	$(BIN)/touchstone demo $(ARGS)

test: setup
	$(BIN)/python contracts/generate_artifacts.py --check
	cd contracts && $(FORGE) test
	cd contracts && $(FORGE) snapshot --check --no-match-test 'testFuzz|invariant|python'
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd contracts && $(FORGE) fmt --check
	cd contracts && PATH="$(CURDIR)/contracts/node_modules/.bin:$$PATH" FOUNDRY_OUT=out-slither $(BIN)/slither .

bench: setup
	$(BIN)/touchstone bench job $(ARGS)
	$(BIN)/touchstone bench engine
	$(BIN)/touchstone bench market

gas: setup
	cd contracts && $(FORGE) snapshot --no-match-test 'testFuzz|invariant|python'
	cd contracts && $(FORGE) test --match-contract 'GasTest' -vv

# Halmos in an environment of its own: its solvers take 200 MB, and its pins are not ours.
$(PROVER)/.installed: $(VENV)/.installed
	$(PYTHON) -m venv $(PROVER)
	$(PROVER)/bin/python -m pip install -q --disable-pip-version-check halmos==0.3.3
	touch $@

prove: setup $(PROVER)/.installed
	cd contracts && PATH="$(CURDIR)/contracts/node_modules/.bin:$$PATH" FOUNDRY_PROFILE=prove \
		$(CURDIR)/$(PROVER)/bin/halmos --contract ArithmeticProofs --forge-build-out out-prove --loop 9

clean:
	rm -rf $(VENV) $(PROVER) contracts/node_modules contracts/out contracts/cache .touchstone
