"""A running Airflow: runs that are triggered over REST and in the shell, here and on a stand-in workspace."""

import json
import os
import signal
import subprocess
import sys

import pytest
from mlops_dagster_tests.contracts.servers import eventually

import start
from tests.servers import steps_of, submitted, tracked

MODEL = {"max_depth": 4, "n_estimators": 10, "min_samples_leaf": 5}
GRID = {"max_depth": [2, 4], "n_estimators": [2, 4], "min_samples_leaf": [5]}
SAME = (
    *("data_version", "metrics", "model_digest", "parameters", "leaks", "promoted", "outcome"),
    *("best_parameters", "best_candidates", "candidates", "scoring", "cv"),
)


# ---------------------------------------------------------------------------------------------------------- locally


def made_alike(run, said):
    """Each task of a run has made what `mlops` has said, and has read what the run's earlier ones made."""
    made, handed_on = {}, {}
    for step, its in said.items():
        made[step] = run.facts(step)
        for name in SAME:
            assert made[step].get(name) == its.get(name), (step, name)
        assert made[step]["table"]["rows"] == its["table"]["rows"]
        if step in ("data", "training_set", "trained_model"):
            assert made[step]["table"]["digest"] == its["table"]["digest"]
        assert "columns" not in made[step]["table"]
        assert made[step]["run_id"] == run.run_id
        handed_on |= made[step]["outputs"]
        assert made[step]["inputs"].items() <= handed_on.items()
    return made


def test_the_pipelines_are_ready_and_show_their_docs(airflow):
    for name in ("build_model_pipeline", "churn_search_model_pipeline"):
        said = airflow.call(f"/dags/{name}/details")[1]
        assert said["is_paused"] is False
        assert f"airflow dags trigger {name}" in said["doc_md"]
    assert {name: one["value"] for name, one in said["params"].items() if one["value"] is not None} == {}


def test_a_model_is_what_the_command_makes(airflow, mlflow, mlops):
    # Between two of its tasks another run writes the same table.
    run = airflow.trigger("build_model_pipeline", {"symbol": "ACME", **MODEL}, "rival")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in MODEL.items()]
    said = json.loads(mlops("build-model", "stock_price", "--symbol=ACME", *options, "--json"))["symbols"]["ACME"]
    assert run.ended() == "success"
    model = made_alike(run, said)["trained_model"]
    assert run.xcom("trained_model", "model_digest") == model["model_digest"]
    assert run.link("trained_model") == run.xcom("trained_model", "mlflow_url") == model["mlflow_url"]
    assert f"root_mean_squared_error {model['metrics']['root_mean_squared_error']}, " in run.xcom(
        "trained_model", "metrics"
    )
    (found,) = tracked(mlflow, run.run_id)
    assert found["info"]["run_id"] == model["mlflow_run_id"]
    tags = {tag["key"]: tag["value"] for tag in found["data"]["tags"]}
    assert tags["orchestrator"] == "airflow"
    assert tags["orchestrator_url"].endswith("/dags/build_model_pipeline/runs/rival")


@pytest.fixture(scope="module")
def search(mlops):
    """What `mlops` says of a search."""
    said = mlops("search-model", "stock_price", "--symbol=ACME", f"--grid={json.dumps(GRID)}", "--json")
    return json.loads(said)["symbols"]["ACME"]


def test_a_model_of_a_project_is_what_the_command_makes(airflow, mlops, standin):
    dags = ("churn_build_model_pipeline", "churn_build_model_pipeline_on_databricks")
    runs = [airflow.trigger(dag, {"n_estimators": 10, "allow_leaks": False}) for dag in dags]
    said = json.loads(mlops("build-model", "churn", "--n-estimators=10", "--json"))["symbols"]["all"]
    for run in runs:
        assert run.ended() == "success"
        assert made_alike(run, said)["champion_model"]["promoted"]
    assert steps_of(standin, runs[1].run_id) == list(said)


def test_a_bad_parameter_is_refused_by_rest_and_by_the_shell(airflow):
    path = "/dags/build_model_pipeline/dagRuns"
    status, said = airflow.call(path, "POST", {"logical_date": None, "conf": {"max_depth": "80"}})
    assert status == 400
    assert "max_depth: '80' is not of type" in said["detail"]

    command = [sys.executable, "-m", "airflow", "dags", "trigger", "churn_build_model_pipeline"]
    command += ["--conf", '{"n_estimators": 0}']
    environment = start.environment(airflow.home)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode != 0
    assert "0 is less than the minimum of 1" in done.stdout + done.stderr
    # What a schema can't refuse fails at once, before any work.
    run = airflow.trigger("churn_build_model_pipeline", {"n_estimator": 5})
    assert run.ended() == "failed"
    assert run.task("data")["try_number"] == 1
    said = json.dumps(run.get("/taskInstances/data/logs/1?full_content=true")["content"])  # as the page shows it
    assert "n_estimator=5 (int): churn_build_model_pipeline has no such parameter" in said


def test_a_step_that_is_stopped_stops(airflow, mlflow):
    # As the form has it: what is left empty is null, and an empty object for the grid.
    conf = {"symbol": "ACME", "preset": "article", "folds": 20, "horizon": None, "grid": {}}
    run = airflow.trigger("search_model_pipeline", conf)
    eventually(lambda: tracked(mlflow, run.run_id))
    run.set_state("grid_search_results", "failed")
    assert run.ended() == "failed"
    (found,) = eventually(lambda: [one for one in tracked(mlflow, run.run_id) if one["info"]["status"] != "RUNNING"])
    assert found["info"]["status"] == "KILLED"


# ------------------------------------------------------------------------------------------ on a stand-in workspace


@pytest.fixture(scope="module")
def searched(airflow, standin):
    """A search whose last run the triggerer has lost sight of; if Airflow loses it more often, so much the better."""
    standin.fault("pending", run_name="grid_search_results ACME*", seconds=15)
    run = airflow.trigger("search_model_pipeline_on_databricks", {"symbol": "ACME", "grid": GRID})
    run.in_state("grid_search_results", "deferred")
    standin.fault("status", method="GET", path="*/runs/get", status=400, times=1)
    assert run.ended() == "success", run.log("grid_search_results")
    return run


def test_a_search_that_airflow_loses_sight_of_is_found_again(searched, standin, search):
    found = made_alike(searched, search)["grid_search_results"]
    assert searched.task("grid_search_results")["try_number"] > 1
    assert searched.xcom("grid_search_results", "run_id") == found["databricks_run_id"]
    assert steps_of(standin, searched.run_id) == ["data", "training_set", "grid_search_results"]
    (task,) = submitted(standin, searched.run_id)[-1]["tasks"]
    assert "named_parameters" not in task["python_wheel_task"]
    assert task["environment_key"]
    # The long one gave its worker back while it waited.
    assert "Pausing task as DEFERRED" in searched.log("grid_search_results")
    assert "DEFERRED" not in searched.log("training_set")


def test_a_task_that_is_cleared_is_done_again(searched, airflow, standin):
    run, before = searched, searched.facts("grid_search_results")
    steps = steps_of(standin, run.run_id)
    airflow.clear(run, "training_set", "grid_search_results")
    assert run.ended() == "success"
    assert steps_of(standin, run.run_id) == [*steps, "training_set", "grid_search_results"]
    after = run.facts("grid_search_results")
    # Each reads what its own run has made, a task that is done again what was made anew.
    orders = submitted(standin, run.run_id)[-1]["tasks"][0]["python_wheel_task"]["parameters"]
    made = {**run.facts("data")["outputs"], **run.facts("training_set")["outputs"]}
    assert f"--inputs={json.dumps(made)}" in orders
    assert after["inputs"] == run.facts("training_set")["outputs"]
    assert after["databricks_run_id"] != before["databricks_run_id"]
    assert after["best_parameters"] == before["best_parameters"]


def test_a_failure_says_why(airflow, standin):
    run = airflow.trigger("build_model_pipeline_on_databricks", {"symbol": "NOWHERE"})
    assert run.ended() == "failed"
    assert run.task("data")["try_number"] == 1  # there would be no such file the next time either
    assert "data: SourceError: " in run.log("data")
    assert "NOWHERE.csv" in run.log("data")
    assert len(submitted(standin, run.run_id)) == 1


def test_a_task_that_is_stopped_cancels_its_run(airflow, standin):
    standin.fault("pending", run_name="data STOPPED*")
    run = airflow.trigger("search_model_pipeline_on_databricks", {"symbol": "STOPPED"})
    (sent,) = eventually(lambda: [one for one in standin.runs() if run.run_id in one["run_name"]])
    run.in_state("data", "running")
    run.set_state("data", "failed")
    assert standin.ended(sent["run_id"])["state"]["result_state"] == "CANCELED"
    assert run.ended() == "failed"


def test_a_worker_that_is_killed_finds_its_run_again(airflow, standin):
    standin.fault("pending", run_name="data ACME*", seconds=20)
    run = airflow.trigger("build_model_pipeline_on_databricks", {"symbol": "ACME", **MODEL})
    eventually(lambda: "in run state" in run.log("data"))  # by then it has noted which run is its own
    os.kill(run.task("data")["pid"], signal.SIGKILL)
    data = run.in_state("data", "success")
    assert data["try_number"] > 1
    assert run.facts("data")["table"]["rows"] == 400
    assert steps_of(standin, run.run_id).count("data") == 1
    run.set_state("training_set", "failed")
