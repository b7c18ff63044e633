"""Start the pipelines on a stack with each orchestrator, as its users do, and wait until they have ended."""

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

SEARCH: Mapping[str, Any] = {"grid": {"max_depth": [3, 4], "n_estimators": [3, 5]}, "folds": 2}
# Of each pipeline the step that learns, and what it is given.
PRICES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "build_model_pipeline": ("trained_model", {"max_depth": 4, "n_estimators": 5, "min_samples_leaf": 5}),
    "search_model_pipeline": ("grid_search_results", SEARCH),
    "cluster_search_model_pipeline": ("spark_grid_search_results", SEARCH),
}
CHURN: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "churn_build_model_pipeline": ("trained_model", {"max_depth": 4, "n_estimators": 5}),
    "churn_search_model_pipeline": ("grid_search_results", SEARCH),
}


def pipelines_on(stack: Stack) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """Return what runs on a stack: the pipelines of prices, and those of the declared model where it has one."""
    return {**PRICES, **CHURN} if stack.declares else PRICES


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
    for pipeline, (_, given) in pipelines_on(stack).items():
        command = pipeline.removeprefix("churn_").removesuffix("_pipeline").replace("_", "-")
        of = ["churn"] if pipeline in CHURN else ["--symbol=ACME"]
        values = {**given, "grid": json.dumps(given["grid"])} if "grid" in given else given
        _call(
            [str(BIN / "mlops"), command, *of, *(f"--{_option(name)}={value}" for name, value in values.items())], stack
        )


def _option(name: str) -> str:
    return name.replace("_", "-")


def _ops(pipeline: str, step: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return {f"churn__{step}" if pipeline in CHURN else step: {"config": json.loads(json.dumps(given))}}


def dagster_cli(stack: Stack) -> None:
    """`dagster job execute`, one process a job."""
    prepare_instance(stack.deployment)
    for job, (step, given) in pipelines_on(stack).items():
        config = stack.home / f"{job}.yaml"
        config.write_text(yaml.safe_dump({"ops": _ops(job, step, given)}))
        command = [str(BIN / "dagster"), "job", "execute", "-m", "mlops_dagster.definitions", "-j", job]
        tags = [] if job in CHURN else ["--tags", '{"dagster/partition": "ACME"}']
        _call([*command, "-c", str(config), *tags], stack)


def dagster_dev(stack: Stack) -> None:
    """The UI's own mutation, on a real `dagster dev`: its daemon takes the runs from the queue and starts them."""
    prepare_instance(stack.deployment)
    with contracts.dagster_dev(stack.home, env={**stack.environment, "MLOPS_HOME": str(stack.home)}) as dev:
        for job, (step, given) in pipelines_on(stack).items():
            run_id = dev.launch(job, _ops(job, step, given), symbol=None if job in CHURN else "ACME")
            assert dev.ended(run_id) == "SUCCESS", (stack.home / "dev.log").read_text()


def databricks_job(stack: Stack) -> None:
    """The jobs of the bundle, created and started as Databricks' own command does it."""
    workspace = stack.workspace
    assert workspace is not None
    wheels = workspace.volumes / "main" / "mlops" / "data" / stack.name / "wheels"
    wheel = build_wheel(wheels)
    made = yaml.safe_load(bundle_text(stack.deployment, str(stack.file)))
    jobs = jobs_of(made, f"/Volumes/main/mlops/data/{stack.name}/wheels/{wheel.name}")
    for name, (_, given) in pipelines_on(stack).items():
        job_id = workspace.call("POST", "/api/2.2/jobs/create", jobs[name])["job_id"]
        body = {
            "job_id": job_id,
            "job_parameters": {"symbol": "ACME", **{one: json.dumps(given[one]) for one in given}},
        }
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
    if stack.declares:
        manifest = home / "manifest.json"
        manifest.write_text(_call([str(BIN / "mlops"), "manifest"], stack))
        more |= {"AIRFLOW__MLOPS__MANIFEST": str(manifest), "AIRFLOW__MLOPS__PROJECT": str(stack.home)}
    for dag, (_, given) in pipelines_on(stack).items():
        conf = json.dumps(given if dag in CHURN else {"symbol": "ACME", **given})
        said = _call([str(contracts_airflow.BIN / "airflow"), "dags", "test", dag, "--conf", conf], stack, **more)
        assert "failed" not in said.splitlines()[-1], said


ORCHESTRATE: Mapping[str, Callable[[Stack], None]] = {
    "Dagster UI and daemon": dagster_dev,
    "Dagster CLI": dagster_cli,
    "Airflow": airflow,
    "Databricks job": databricks_job,
    "mlops shell": shell,
}
