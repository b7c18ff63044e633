# Two commands for a newcomer: `make demo` and `make test`. Both set up everything they need below this folder.
# The folder's path may hold spaces and whatever a shell or make reads as its own: recipes name files relative to it, or
# by a variable of the shell ("$$MLOPS_HOME"), which neither splits nor expands what is in it.
PYTHON ?= python3
# Set up with --clear and removed by `clean`, so it isn't for the environment to say which folder that is.
VENV := .venv
BIN := $(VENV)/bin
ifndef MLOPS_HOME
export MLOPS_HOME := $(CURDIR)/.mlops
endif
export DAGSTER_HOME ?= $(value MLOPS_HOME)/dagster
# Where bytecode is off, every process compiles its imports again; that costs more than anything else here.
export PYTHONDONTWRITEBYTECODE :=
TEST_PROCESSES ?= 2

.PHONY: help setup demo ui databricks-standin airflow airflow-test reference test lint types doctest pytest matrix benchmark lock clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-18s  %s\n", $$1, $$2}'

# pip starts commands by a first line that names .venv/bin/python: as it is, between "" if there is a space, or to a
# shell without quotes if it is long. Not every path can be said so.
define COMMANDS_CAN_START
import os, sys
path = os.getcwd()
of_a_shell = "\t\n" if len(os.fsencode(path)) < 100 else "\t\n\"$$`'\\&;()<>|*?[]#~!"
strange = [repr(one) for one in ("\n\"$$`\\" if " " in path else of_a_shell) if one in path]
also = " and a space" if " " in path else ""
sys.exit(f"{path}: no command that pip installs would start here, since the path has {' '.join(strange)}{also}; move the checkout." if strange else 0)
endef
export COMMANDS_CAN_START

setup: $(VENV)/.ready  ## Make the environment (.venv) from the lock

$(VENV)/.ready: requirements.lock setup.cfg
	@"$(PYTHON)" -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else f"Python 3.10 to 3.13 is needed, this is {sys.version.split()[0]}: make PYTHON=python3.12 ...")'
	@"$(PYTHON)" -c "$$COMMANDS_CAN_START"
	@echo "Setting up $(VENV) (a few minutes, once)"
	@"$(PYTHON)" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true  # pip compiles on one core; some packages hold files of Python 2
	@$(BIN)/python -m compileall -q mlops_dagster mlops_dagster_tests
	@touch $@

demo: setup  ## On the bundled prices and with Dagster: build models, predict with them, search a small grid; show it
	@$(BIN)/mlops init
	@echo 'ops: {stock_price__predictions: {config: {catch_up: 60}}}' > "$$MLOPS_HOME/demo-predict.yaml"
	@for run in build_model_pipeline:GSPC build_model_pipeline:IXIC predict_pipeline:GSPC predict_pipeline:IXIC \
			search_model_pipeline:GSPC; do \
		job=$${run%:*}; symbol=$${run#*:}; echo "$$job, $$symbol ..."; \
		log="$$MLOPS_HOME/demo-$$job-$$symbol.log"; set --; \
		if [ $$job = predict_pipeline ]; then set -- -c "$$MLOPS_HOME/demo-predict.yaml"; fi; \
		$(BIN)/mlops launch $$job --symbol $$symbol "$$@" > "$$log" 2>&1 || { tail -40 "$$log"; exit 1; }; \
	done
	@$(BIN)/mlops report
	@echo "See it: make ui, then open the addresses of Dagster and MLflow that it prints"

ui: setup  ## Open Dagster and MLflow together
	@$(BIN)/mlops ui

databricks-standin: setup  ## Run a local stand-in for a Databricks workspace (options: STANDIN="--engine none ...")
	@$(BIN)/python -m mlops_dagster_tests.standin --root "$$MLOPS_HOME/standin" $(STANDIN)

reference: setup  ## Write docs/reference.md anew from the code
	@$(BIN)/python docs/make_reference.py

airflow: setup  ## Start Airflow with the pipelines as DAGs (it gets an environment of its own, Python 3.11 to 3.14)
	@MLOPS_BIN="$$PWD/$(BIN)/mlops" $(MAKE) --no-print-directory -C airflow start

airflow-test: setup  ## Run Airflow's checks and tests
	@MLOPS_BIN="$$PWD/$(BIN)/mlops" $(MAKE) --no-print-directory -C airflow test

test: setup lint types doctest pytest  ## Run every check and every test

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

doctest: setup
	$(BIN)/python -m pytest -q --doctest-modules mlops_dagster --ignore mlops_dagster/examples

pytest: setup
	@$(BIN)/python -m mlops_dagster_tests.contracts.spark_archive
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadgroup

matrix: setup  ## Run the pipelines on every combination of tools, compare, write docs/swap-matrix.md (an hour)
	@$(MAKE) --no-print-directory -C airflow setup
	$(BIN)/python -m mlops_dagster_tests.swap_matrix

benchmark: setup  ## Measure the grid search against its rivals, which get an environment of their own (an hour and a half)
	@"$(PYTHON)" -m venv --clear .venv-benchmark
	@.venv-benchmark/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@.venv-benchmark/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@.venv-benchmark/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/rivals.txt
	.venv-benchmark/bin/python benchmarks/grid_search.py
	.venv-benchmark/bin/python benchmarks/search_families.py

lock:  ## Renew requirements.lock from setup.cfg (needs uv)
	uv pip compile setup.cfg --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-annotate \
		--no-header --no-strip-extras --all-extras --upgrade --quiet -o requirements.lock

# Only what was made here, by its name below this folder; a home elsewhere may be anybody's.
clean:  ## Remove the environments and the local state (.mlops; a MLOPS_HOME elsewhere stays)
	rm -rf .venv .venv-benchmark airflow/.venv airflow/.airflow .mlops .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build mlops_dagster.egg-info
	@[ "$$MLOPS_HOME" -ef .mlops ] || [ ! -e "$$MLOPS_HOME" ] || printf 'MLOPS_HOME stays: %s\n' "$$MLOPS_HOME"
