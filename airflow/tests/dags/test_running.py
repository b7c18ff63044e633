"""A running Airflow: runs that are triggered over REST and in the shell, here and on a stand-in workspace."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import start
from tests.conftest import HOME, MLOPS, ROOT
from tests.servers import TOKEN, Airflow, Run, eventually, free_port, mlflow_server, workspace

DEPLOYMENT = """
compute: databricks_pipes
store: {{root: /Volumes/main/mlops/mlops/store}}
tracking: {{mlflow_tracking_uri: '{mlflow}', experiment_name: mine}}
prices: {{source: files, path: '/Volumes/main/mlops/mlops/inbox/{{symbol}}.csv'}}
databricks:
  host: {host}
  cluster: {{serverless: {{}}}}
  staging: /Volumes/main/mlops/mlops/staging
"""
# The same DAGs once more, under another name and on Databricks, so that one Airflow has both.
ON_DATABRICKS = """import os
from datetime import timedelta
from include.step_tasks import DEFAULTS, dag_of
os.environ["AIRFLOW__MLOPS__RUN_ON"] = "databricks"
for name in {names}:
    options = {{"dag_id": name + "_on_databricks", "default_args": {{**DEFAULTS, "retry_delay": timedelta(seconds=1)}}}}
    globals()[name] = dag_of(name, **options)
"""
THREE = ("build_model_pipeline", "search_model_pipeline", "cluster_search_model_pipeline")
PYTHON = str(Path(MLOPS).with_name("python"))
GRID = {"max_depth": [2, 4], "n_estimators": [2, 4], "min_samples_leaf": [5]}


@pytest.fixture(scope="module")
def standin(inbox):
    with workspace(PYTHON, ROOT.parent, HOME / "workspace") as made:
        shutil.copytree(inbox, made.root / "Volumes" / "main" / "mlops" / "mlops" / "inbox")
        yield made


@pytest.fixture(scope="module")
def mlflow():
    with mlflow_server(PYTHON, HOME / "mlflow") as server:
        yield server


@pytest.fixture(scope="module")
def airflow(database, standin, mlflow, mlops):
    home, port = HOME / "running", free_port()
    before = dict(os.environ)
    home.mkdir()
    shutil.copy(database, home / "airflow.db")
    dags = home / "dags"
    dags.mkdir()
    for file in (ROOT / "dags").glob("*_pipeline.py"):
        shutil.copy(file, dags)
    (dags / "on_databricks.py").write_text(ON_DATABRICKS.format(names=THREE))
    deployment = home / "databricks.yaml"
    deployment.write_text(DEPLOYMENT.format(mlflow=mlflow.url, host=standin.url))
    for name in [name for name in before if name.startswith(("AIRFLOW__", "MLOPS_PRICES__"))]:
        del os.environ[name]
    mlops("databricks-bundle", "--deployment", str(deployment), "--output", str(home / "bundle.yml"))
    wheels = standin.root / "Volumes" / "main" / "mlops" / "mlops" / "wheels"
    code = "import sys; from pathlib import Path; from mlops_dagster.stack.databricks.wheel import build_wheel"
    code += "; print(build_wheel(Path(sys.argv[1])).name)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    wheel = subprocess.run(
        [PYTHON, "-c", code, str(wheels)], capture_output=True, text=True, env=environment, check=True
    ).stdout.strip()
    start.prepare(
        home,
        port=port,
        command=MLOPS,
        core={"dags_folder": str(dags)},
        dag_processor={"min_file_process_interval": "600"},
        mlops={
            "databricks_bundle": str(home / "bundle.yml"),
            "databricks_wheel": f"/Volumes/main/mlops/mlops/wheels/{wheel}",
            "poll_seconds": "1",
        },
    )
    host, _, its_port = standin.url.partition("://")[2].partition(":")
    connection = {"conn_type": "databricks", "schema": "http", "host": host, "port": int(its_port), "password": TOKEN}
    os.environ.update(
        AIRFLOW_CONN_DATABRICKS_DEFAULT=json.dumps(connection),
        MLOPS_HOME=str(home / "mlops"),
        MLOPS_TRACKING__MLFLOW_TRACKING_URI=mlflow.url,
        MLOPS_PRICES__SOURCE="files",
        MLOPS_PRICES__PATH=before["MLOPS_PRICES__PATH"],
    )
    url = f"http://127.0.0.1:{port}"
    try:
        with start.standalone(home, home / "standalone.log") as processes:

            def there():
                assert all(process.poll() is None for process in processes), (home / "standalone.log").read_text()[
                    -5000:
                ]
                if not start.healthy(url):
                    return False
                made = Airflow(url, start.token_of(url, home), home)
                found = made.call("/dags")[1]["dags"]
                return made if len(found) == 6 else False

            yield eventually(there, pause=1)
    finally:
        os.environ.clear()
        os.environ.update(before)


# ---------------------------------------------------------------------------------------------------------- locally


def test_the_three_are_ready_and_show_their_docs(airflow):
    for name in THREE:
        said = airflow.call(f"/dags/{name}/details")[1]
        assert said["is_paused"] is False
        assert f"airflow dags trigger {name}" in said["doc_md"]
        assert said["params"]["symbol"]["value"] == "GSPC"


def test_the_articles_call_builds_a_model(airflow, mlflow):
    run = airflow.trigger("build_model_pipeline", {"symbol": "ACME", "max_depth": 80, "n_estimators": 10})
    assert run.ended() == "success"
    model = run.facts("trained_model")
    assert (model["parameters"]["max_depth"], model["parameters"]["n_estimators"]) == (80, 10)
    assert len(model["model_digest"]) == 64
    assert model["metrics"]["rmse"] > 0
    assert run.xcom("trained_model", "model_digest") == model["model_digest"]
    assert run.link("trained_model") == run.xcom("trained_model", "mlflow_url") == model["mlflow_url"]
    assert f"rmse {model['metrics']['rmse']}, " in run.xcom("trained_model", "metrics")
    assert run.facts("champion_model")["model_digest"] == model["model_digest"]
    (tracked,) = mlflow.runs(run.run_id)
    assert tracked["info"]["run_id"] == model["mlflow_run_id"]
    tags = {tag["key"]: tag["value"] for tag in tracked["data"]["tags"]}
    assert tags["orchestrator"] == "airflow"
    assert tags["orchestrator_run_id"] == run.run_id
    assert run.run_id.replace(":", "%3A").replace("+", "%2B") in tags["orchestrator_url"]


def test_a_bad_parameter_is_refused_by_rest_and_by_the_shell(airflow):
    path = "/dags/build_model_pipeline/dagRuns"
    status, said = airflow.call(path, "POST", {"logical_date": None, "conf": {"max_depth": "80"}})
    assert status == 400
    assert "max_depth: '80' is not of type" in said["detail"]
    command = [sys.executable, "-m", "airflow", "dags", "trigger", "build_model_pipeline", "--conf"]
    environment = start.environment(airflow.home)
    done = subprocess.run(
        [*command, '{"n_estimators": 0}'], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode != 0
    assert "0 is less than the minimum of 1" in done.stdout + done.stderr
    # What a schema can't refuse fails at once, before any work.
    done = subprocess.run(
        [*command, '{"n_estimator": 5}', "--run-id", "misspelt"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = Run(airflow, f"{path}/misspelt", "misspelt")
    assert run.ended() == "failed"
    assert "n_estimator=5 (int): build_model_pipeline has no such parameter" in run.log("prices")
    assert run.task("prices")["try_number"] == 1


def test_a_step_that_is_stopped_stops(airflow, mlflow):
    # As the form has it: what is left empty is null, and an empty object for the grid.
    conf = {"symbol": "ACME", "preset": "article", "folds": 20, "horizon": None, "grid": {}}
    run = airflow.trigger("search_model_pipeline", conf)
    eventually(lambda: mlflow.runs(run.run_id))
    run.set_state("grid_search_results", "failed")
    assert run.ended() == "failed"
    (tracked,) = eventually(lambda: [one for one in mlflow.runs(run.run_id) if one["info"]["status"] != "RUNNING"])
    assert tracked["info"]["status"] == "KILLED"


# ------------------------------------------------------------------------------------------ on a stand-in workspace


def test_a_pipeline_runs_on_databricks(airflow, standin):
    run = airflow.trigger("search_model_pipeline_on_databricks", {"symbol": "ACME", "grid": GRID})
    assert run.ended() == "success", run.log("prices")
    found = run.facts("grid_search_results")
    assert found["candidates"] == 4
    assert found["metrics"]["best_score"] < 0
    assert standin.steps(run.run_id) == ["prices", "training_set", "grid_search_results"]
    (task,) = standin.submitted(run.run_id)[-1]["tasks"]
    assert "named_parameters" not in task["python_wheel_task"]
    assert task["environment_key"]
    # The long one gave its worker back while it waited.
    assert "Pausing task as DEFERRED" in run.log("grid_search_results")
    assert "DEFERRED" not in run.log("training_set")


def test_a_search_that_airflow_loses_sight_of_is_found_again(airflow, standin):
    standin.fault("pending", run_name="grid_search_results ACME*", seconds=15)
    run = airflow.trigger("search_model_pipeline_on_databricks", {"symbol": "ACME", "grid": GRID})
    run.in_state("grid_search_results", "deferred")
    standin.fault("status", method="GET", path="*/runs/get", status=400, times=1)  # the triggerer gives up
    assert run.ended() == "success"
    assert run.task("grid_search_results")["try_number"] > 1
    assert run.facts("grid_search_results")["candidates"] == 4
    assert run.xcom("grid_search_results", "run_id") == run.facts("grid_search_results")["databricks_run_id"]
    assert standin.steps(run.run_id) == ["prices", "training_set", "grid_search_results"]


def test_a_task_that_is_cleared_is_done_again(airflow, standin):
    run = airflow.trigger("search_model_pipeline_on_databricks", {"symbol": "ACME", "grid": GRID})
    assert run.ended() == "success"
    before = run.facts("grid_search_results")
    airflow.clear(run, "training_set", "grid_search_results")
    assert run.ended() == "success"
    again = ["training_set", "grid_search_results"]
    assert standin.steps(run.run_id) == ["prices", *again, *again]
    after = run.facts("grid_search_results")
    # Each reads what its own run has made, a task that is done again what was made anew.
    orders = [body["tasks"][0]["python_wheel_task"]["parameters"] for body in standin.submitted(run.run_id)]
    assert (
        f"--inputs={json.dumps({**run.facts('prices')['outputs'], **run.facts('training_set')['outputs']})}"
        in orders[-1]
    )
    assert after["inputs"] == run.facts("training_set")["outputs"]
    assert after["databricks_run_id"] != before["databricks_run_id"]
    assert after["best_parameters"] == before["best_parameters"]


def test_a_failure_says_why(airflow, standin):
    run = airflow.trigger("build_model_pipeline_on_databricks", {"symbol": "NOWHERE"})
    assert run.ended() == "failed"
    assert run.task("prices")["try_number"] == 1  # there would be no such file the next time either
    assert "prices: PriceSourceError: " in run.log("prices")
    assert "NOWHERE.csv" in run.log("prices")
    assert len(standin.submitted(run.run_id)) == 1


def test_a_task_that_is_stopped_cancels_its_run(airflow, standin):
    standin.fault("pending", run_name="prices STOPPED*")
    run = airflow.trigger("search_model_pipeline_on_databricks", {"symbol": "STOPPED"})
    (sent,) = eventually(lambda: standin.runs(run.run_id))
    run.in_state("prices", "running")
    run.set_state("prices", "failed")
    state = "/api/2.2/jobs/runs/get?run_id=" + str(sent["run_id"])
    eventually(lambda: standin.call(state)["state"].get("result_state") == "CANCELED")
    assert run.ended() == "failed"


def test_a_worker_that_is_killed_finds_its_run_again(airflow, standin):
    standin.fault("pending", run_name="prices ACME*", seconds=20)
    run = airflow.trigger("build_model_pipeline_on_databricks", {"symbol": "ACME", "max_depth": 4, "n_estimators": 5})
    eventually(lambda: standin.submitted(run.run_id))
    eventually(lambda: "in run state" in run.log("prices"))  # by then it has noted which run is its own
    os.kill(run.task("prices")["pid"], signal.SIGKILL)
    prices = run.in_state("prices", "success")
    assert prices["try_number"] == 2
    assert run.facts("prices")["table"]["rows"] == 400
    assert standin.steps(run.run_id).count("prices") == 1
    run.set_state("training_set", "failed")
