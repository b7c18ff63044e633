"""A step on Databricks as people see it: `dagster dev`, its launchpad, and its button that terminates a run."""

from __future__ import annotations

import dagster as dg
import pytest
from mlflow import MlflowClient

from mlops_dagster_tests.contracts.dagster_dev import dagster_dev
from mlops_dagster_tests.contracts.servers import eventually

pytestmark = [pytest.mark.examples, pytest.mark.slow, pytest.mark.xdist_group("databricks")]

# Takes minutes, if it isn't cancelled.
LONG = {"grid": {"n_estimators": [600, 700, 800, 900, 1000], "max_depth": [20, 30, 40, 50]}, "folds": 5}


def test_terminating_a_run_ends_what_it_does_on_databricks(new_stack, ws, mlflow_url):
    # The button interrupts the step; `test_databricks_guards.py` interrupts both kinds.
    stack = new_stack("pipes-existing")
    with stack.instance():
        pass
    before = len(ws.runs())
    with dagster_dev(stack.home, env=stack.environment) as dev:
        run_id = dev.launch(
            "search_model_pipeline", {"stock_price__grid_search_results": {"config": LONG}}, symbol="ACME"
        )
        client = MlflowClient(mlflow_url)

        def tracked():
            experiment = client.get_experiment_by_name(f"{stack.name}-stock_price")
            return experiment and client.search_runs([experiment.experiment_id])

        eventually(tracked, seconds=400)  # the search has begun
        (its,) = tracked()
        assert its.info.status == "RUNNING"
        dev.terminate(run_id)
        assert dev.ended(run_id) == "CANCELED"
        runs = ws.runs()[before:]
        assert [run["state"]["result_state"] for run in runs] == ["SUCCESS", "SUCCESS", "CANCELED"]
        assert ws.live_processes() == []
        eventually(lambda: client.get_run(its.info.run_id).info.status == "KILLED")
        with stack.instance() as instance:
            asset = dg.AssetKey(["stock_price", "grid_search_results"])
            assert instance.fetch_materializations(asset, limit=1).records == []
