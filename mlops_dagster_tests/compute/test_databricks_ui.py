"""A step on Databricks as people see it: `dagster dev`, its launchpad, and its button that terminates a run."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient

from mlops_dagster_tests.contracts.dagster_dev import DagsterDev
from mlops_dagster_tests.contracts.servers import eventually, free_port, running

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("databricks")]

# Takes minutes, if it isn't cancelled.
LONG = {"grid": {"n_estimators": [600, 700, 800, 900, 1000], "max_depth": [20, 30, 40, 50]}, "folds": 5}


@pytest.mark.parametrize("kind", ["pipes-existing", "step-existing"])
def test_terminating_a_run_ends_what_it_does_on_databricks(kind, new_stack, ws, mlflow_url):
    stack = new_stack(kind)
    with stack.instance():
        pass
    (stack.home / "workspace.yaml").write_text("load_from: [{python_module: mlops_dagster.definitions}]\n")
    port = free_port()
    command = ["-m", "dagster", "dev", "--port", str(port), "--workspace", str(stack.home / "workspace.yaml")]
    dev = DagsterDev(f"http://127.0.0.1:{port}", stack.home)
    before = len(ws.runs())
    with running(command, log=stack.home / "dev.log", env=stack.environment) as process:

        def ready():
            assert process.poll() is None, (stack.home / "dev.log").read_text()
            return dev.has_loaded()

        eventually(ready)
        repository = "{repositoriesOrError {... on RepositoryConnection {nodes {name location {name}}}}}"
        (node,) = dev.ask(repository)["nodes"]
        launched = dev.ask(
            "mutation($p: ExecutionParams!) {launchRun(executionParams: $p) {__typename "
            "... on LaunchRunSuccess {run {runId}} ... on PythonError {message}"
            "... on RunConfigValidationInvalid {errors {message}}}}",
            p={
                "selector": {
                    "repositoryLocationName": node["location"]["name"],
                    "repositoryName": node["name"],
                    "jobName": "search_model_pipeline",
                },
                "mode": "default",
                "runConfigData": {"ops": {"grid_search_results": {"config": LONG}}},
                "executionMetadata": {"tags": [{"key": "dagster/partition", "value": "ACME"}]},
            },
        )
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id = launched["run"]["runId"]
        client = MlflowClient(mlflow_url)

        def tracked():
            experiment = client.get_experiment_by_name(stack.name)
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
            asset = next(key for key in instance.all_asset_keys() if key.to_user_string() == "grid_search_results")
            assert instance.fetch_materializations(asset, limit=1).records == []
