"""The example DAG against a real `dagster dev`: Airflow keeps the schedule, Dagster does the work."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.conftest import HOME, MLOPS
from tests.servers import call, eventually, free_port, served

MODEL = {"max_depth": 4, "n_estimators": 10, "min_samples_leaf": 5}


@pytest.fixture(scope="module")
def dagster(inbox, mlops):
    """The address of a `dagster dev`, with one symbol."""
    home, port = HOME / "dagster", free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {"DAGSTER_HOME": str(home / "dagster"), "MLOPS_SYMBOLS": '["ACME"]'}
    mlops("init", home=home, **settings)
    command = [str(Path(MLOPS).with_name("dagster")), "dev", "-w", str(home / "dagster" / "workspace.yaml")]
    command += ["-h", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, **settings, "MLOPS_HOME": str(home), "PYTHONPATH": ""}
    with served(command, home / "dev.log", f"{url}/server_info", env=environment, stop=signal.SIGINT):
        yield url


def ask(url, query, **variables):
    status, said = call(f"{url}/graphql", "POST", {"query": query, "variables": variables})
    assert status == 200, said
    return said["data"]


@pytest.fixture
def run(database, bag, dagster, monkeypatch):
    """Run the DAG to its end."""
    where = {"conn_type": "http", "host": "127.0.0.1", "port": int(dagster.rpartition(":")[2])}
    monkeypatch.setenv("AIRFLOW_CONN_DAGSTER_DEFAULT", json.dumps(where))
    loaded = "{workspaceOrError {... on Workspace {locationEntries {loadStatus}}}}"
    eventually(lambda: "LOADED" in json.dumps(ask(dagster, loaded)))

    def until_its_end(config):
        conf = {"job": "build_model_pipeline", "symbol": "ACME", "run_config": config}
        made = bag.dags["dagster_job"].test(run_conf=conf)
        (task,) = made.get_task_instances()
        return made, task

    return until_its_end


def test_dagster_makes_the_same_model(run, dagster, mlops):
    made, task = run({"ops": {"trained_model": {"config": MODEL}}})
    assert made.state == "success"
    said = task.xcom_pull(task_ids="dagster_run")
    assert said["url"] == f"{dagster}/runs/{said['run_id']}"
    query = "query($id: ID!) {runOrError(runId: $id) {... on Run {status tags {key value}}}}"
    there = ask(dagster, query, id=said["run_id"])["runOrError"]
    tags = {tag["key"]: tag["value"] for tag in there["tags"]}
    assert (there["status"], tags["dagster/partition"]) == ("SUCCESS", "ACME")
    assert tags["airflow/run_id"] == made.run_id
    options = [f"--{name.replace('_', '-')}={value}" for name, value in MODEL.items()]
    mlops("build-model", "--symbol=ACME", *options, home=HOME / "beside-dagster")
    for side in ("dagster", "beside-dagster"):
        (HOME / f"{side}.yaml").write_text(json.dumps({"home": str(HOME / side), "prices": {"source": "files"}}))
    sides = (str(HOME / "dagster.yaml"), str(HOME / "beside-dagster.yaml"))
    compared = mlops("parity", *sides, "--symbol=ACME", home=None, check=False)
    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert "trained_model: the same" in compared.stdout


def test_a_run_that_fails_says_why(run, capfd):
    made, _ = run({"ops": {"trained_model": {"config": {**MODEL, "n_estimators": 0}}}})
    assert made.state == "failed"
    said = "".join(capfd.readouterr())
    assert "Dagster's run ended with FAILURE" in said
    assert "n_estimators=0 (int): give an integer from 1 to 10000" in said


def test_what_dagster_refuses_is_no_run(run, capfd):
    made, _ = run({"ops": {"trained_model": {"config": {"max_depht": 4}}}})
    assert made.state == "failed"
    assert "Dagster refused build_model_pipeline" in "".join(capfd.readouterr())
