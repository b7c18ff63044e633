"""Start the three pipelines on a stack with each orchestrator, as its users do, and wait until they have ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mlops_dagster.instance import prepare_instance
from mlops_dagster.stack.databricks.bundle import bundle_text
from mlops_dagster.stack.databricks.wheel import build_wheel
from mlops_dagster_tests.contracts import airflow as contracts_airflow
from mlops_dagster_tests.contracts import dagster_dev as contracts
from mlops_dagster_tests.contracts.bundle import jobs_of
from mlops_dagster_tests.swap_matrix.stacks import Stack

FOREST: Mapping[str, Any] = {"max_depth": 4, "n_estimators": 5, "min_samples_leaf": 5}
GRID: Mapping[str, Sequence[int]] = {"max_depth": [3, 4], "n_estimators": [3, 5]}
FOLDS = 2
JOBS: Mapping[str, Mapping[str, Any]] = {
    "build_model_pipeline": {"trained_model": {"config": FOREST}},
    "search_model_pipeline": {"grid_search_results": {"config": {"grid": GRID, "folds": FOLDS}}},
    "cluster_search_model_pipeline": {"spark_grid_search_results": {"config": {"grid": GRID, "folds": FOLDS}}},
}
BIN = Path(sys.executable).parent


def _call(command: Sequence[str], stack: Stack, **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("MLOPS_HOME", "DAGSTER_HOME")}
    done = subprocess.run(
        command,
        env={**environment, **stack.environment, **more},
        cwd=stack.home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shell(stack: Stack) -> None:
    """`mlops`, one command a pipeline."""
    forest = [f"--{name.replace('_', '-')}={value}" for name, value in FOREST.items()]
    grid = [f"--grid={name}={','.join(map(str, values))}" for name, values in GRID.items()]
    for command in (
        ["build-model", *forest],
        ["search-model", *grid, f"--folds={FOLDS}"],
        ["cluster-search-model", *grid, f"--folds={FOLDS}"],
    ):
        _call([str(BIN / "mlops"), command[0], "--symbol=ACME", *command[1:]], stack)


def dagster_cli(stack: Stack) -> None:
    """`dagster job execute`, one process a job."""
    prepare_instance(stack.deployment)
    for job, ops in JOBS.items():
        config = stack.home / f"{job}.yaml"
        config.write_text(yaml.safe_dump({"ops": json.loads(json.dumps(ops))}))
        command = [str(BIN / "dagster"), "job", "execute", "-m", "mlops_dagster.definitions", "-j", job]
        _call([*command, "-c", str(config), "--tags", '{"dagster/partition": "ACME"}'], stack)


def dagster_dev(stack: Stack) -> None:
    """The UI's own mutation, on a real `dagster dev`: its daemon takes the runs from the queue and starts them."""
    prepare_instance(stack.deployment)
    with contracts.dagster_dev(stack.home, env={**stack.environment, "MLOPS_HOME": str(stack.home)}) as dev:
        for job, ops in JOBS.items():
            run_id = dev.launch(job, json.loads(json.dumps(ops)), symbol="ACME")
            assert dev.ended(run_id) == "SUCCESS", (stack.home / "dev.log").read_text()


def databricks_job(stack: Stack) -> None:
    """The jobs of the bundle, created and started as Databricks' own command does it."""
    workspace = stack.workspace
    assert workspace is not None
    wheels = workspace.volumes / "main" / "mlops" / "data" / stack.name / "wheels"
    wheel = build_wheel(wheels)
    made = yaml.safe_load(bundle_text(stack.deployment, str(stack.file)))
    jobs = jobs_of(made, f"/Volumes/main/mlops/data/{stack.name}/wheels/{wheel.name}")
    search = {"symbol": "ACME", "grid": json.dumps(GRID), "folds": str(FOLDS)}
    forest = {"symbol": "ACME", **{name: str(value) for name, value in FOREST.items()}}
    for name in JOBS:
        job_id = workspace.call("POST", "/api/2.2/jobs/create", jobs[name])["job_id"]
        given = forest if name == "build_model_pipeline" else search
        body = {"job_id": job_id, "job_parameters": given}
        run_id = workspace.call("POST", "/api/2.2/jobs/run-now", body)["run_id"]
        run = workspace.ended(run_id, seconds=600)
        assert run["state"]["result_state"] == "SUCCESS", workspace.stderr(run_id)


def airflow(stack: Stack) -> None:
    """`airflow dags test`, one process a DAG, in Airflow's own environment."""
    home = stack.home / "airflow"
    more = contracts_airflow.airflow_environment(home)
    for command in contracts_airflow.commands_that_prepare(home):
        _call(command, stack, **more)
    if stack.workspace is not None:
        wheel = build_wheel(stack.workspace.volumes / "main" / "mlops" / "data" / stack.name / "wheels")
        bundle = stack.home / "databricks.yml"
        bundle.write_text(bundle_text(stack.deployment, str(stack.file)))
        host = stack.workspace.url.removeprefix("http://").split(":")
        connection = {"conn_type": "databricks", "schema": "http", "host": host[0], "port": int(host[1])}
        more |= {
            "AIRFLOW__MLOPS__RUN_ON": "databricks",
            "AIRFLOW__MLOPS__DATABRICKS_BUNDLE": str(bundle),
            "AIRFLOW__MLOPS__DATABRICKS_WHEEL": f"/Volumes/main/mlops/data/{stack.name}/wheels/{wheel.name}",
            "AIRFLOW__MLOPS__POLL_SECONDS": "1",
            "AIRFLOW_CONN_DATABRICKS_DEFAULT": json.dumps({**connection, "password": stack.workspace.token}),
        }
    search = {"symbol": "ACME", "grid": dict(GRID), "folds": FOLDS}
    for dag in JOBS:
        conf = {"symbol": "ACME", **FOREST} if dag == "build_model_pipeline" else search
        said = _call(
            [str(contracts_airflow.BIN / "airflow"), "dags", "test", dag, "--conf", json.dumps(conf)], stack, **more
        )
        assert "failed" not in said.splitlines()[-1], said


ORCHESTRATE: Mapping[str, Callable[[Stack], None]] = {
    "Dagster UI and daemon": dagster_dev,
    "Dagster CLI": dagster_cli,
    "Airflow": airflow,
    "Databricks job": databricks_job,
    "mlops shell": shell,
}
