# Two commands for a newcomer: `make demo` and `make test`. Both set up everything they need below this folder.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export MLOPS_HOME ?= $(CURDIR)/.mlops
export DAGSTER_HOME ?= $(MLOPS_HOME)/dagster
# Where bytecode is off, every process compiles its imports again; that costs more than anything else here.
export PYTHONDONTWRITEBYTECODE :=
TEST_PROCESSES ?= 2

.PHONY: help setup demo ui databricks-standin airflow airflow-test reference test lint types doctest pytest matrix benchmark lock clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-18s  %s\n", $$1, $$2}'

setup: $(VENV)/.ready  ## Make the environment (.venv) from the lock

$(VENV)/.ready: requirements.lock setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else f"Python 3.10 to 3.13 is needed, this is {sys.version.split()[0]}: make PYTHON=python3.12 ...")'
	@echo "Setting up $(VENV) (a few minutes, once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q mlops_dagster mlops_dagster_tests
	@touch $@

demo: setup  ## On the bundled prices and with Dagster: build models, forecast with them, search a small grid; show it
	@$(BIN)/mlops init
	@echo 'ops: {price_forecast: {config: {catch_up: 60}}}' > $(MLOPS_HOME)/demo-forecast.yaml
	@for run in build_model_pipeline:GSPC build_model_pipeline:IXIC forecast_pipeline:GSPC forecast_pipeline:IXIC \
			search_model_pipeline:GSPC; do \
		job=$${run%:*}; symbol=$${run#*:}; echo "$$job, $$symbol ..."; \
		log=$(MLOPS_HOME)/demo-$$job-$$symbol.log; config=; \
		if [ $$job = forecast_pipeline ]; then config="-c $(MLOPS_HOME)/demo-forecast.yaml"; fi; \
		$(BIN)/mlops launch $$job --symbol $$symbol $$config > $$log 2>&1 || { tail -40 $$log; exit 1; }; \
	done
	@$(BIN)/mlops report
	@echo "See it: make ui, then open http://127.0.0.1:3000 (Dagster) and http://127.0.0.1:5000 (MLflow)"

ui: setup  ## Open Dagster and MLflow together
	@$(BIN)/mlops ui

databricks-standin: setup  ## Run a local stand-in for a Databricks workspace (options: STANDIN="--engine none ...")
	@$(BIN)/python -m mlops_dagster_tests.standin --root $(MLOPS_HOME)/standin $(STANDIN)

reference: setup  ## Write docs/reference.md anew from the code
	@$(BIN)/python docs/make_reference.py

airflow: setup  ## Start Airflow with the three pipelines as DAGs (it gets an environment of its own, Python 3.11 to 3.14)
	@$(MAKE) --no-print-directory -C airflow start PYTHON=$(PYTHON) MLOPS_BIN=$(abspath $(BIN)/mlops)

airflow-test: setup  ## Run Airflow's checks and tests
	@$(MAKE) --no-print-directory -C airflow test PYTHON=$(PYTHON) MLOPS_BIN=$(abspath $(BIN)/mlops)

test: setup lint types doctest pytest  ## Run every check and every test

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

doctest: setup
	$(BIN)/python -m pytest -q --doctest-modules mlops_dagster

pytest: setup
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadgroup

matrix: setup  ## Run the three pipelines on every combination of tools, compare, write docs/swap-matrix.md (an hour)
	@$(MAKE) --no-print-directory -C airflow setup PYTHON=$(PYTHON)
	$(BIN)/python -m mlops_dagster_tests.swap_matrix

benchmark: setup  ## Measure the grid search against its rivals, which get an environment of their own (an hour)
	@$(PYTHON) -m venv --clear .venv-benchmark
	@.venv-benchmark/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@.venv-benchmark/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@.venv-benchmark/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/rivals.txt
	.venv-benchmark/bin/python benchmarks/grid_search.py

lock:  ## Renew requirements.lock from setup.cfg (needs uv)
	uv pip compile setup.cfg --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-annotate \
		--no-header --no-strip-extras --all-extras --upgrade --quiet -o requirements.lock

clean:  ## Remove the environment and all local state
	rm -rf $(VENV) .venv-benchmark airflow/.venv airflow/.airflow $(MLOPS_HOME) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info
