"""Start the pipelines on a stack with each orchestrator, as its users do, and wait until they have ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dagster as dg
import yaml

from mlops_dagster.instance import prepare_instance
from mlops_dagster.spec.project import find_model
from mlops_dagster.stack.databricks.bundle import bundle_text
from mlops_dagster.stack.databricks.wheel import build_wheel
from mlops_dagster_tests.contracts import airflow as contracts_airflow
from mlops_dagster_tests.contracts import dagster_dev as contracts
from mlops_dagster_tests.contracts.bundle import jobs_of
from mlops_dagster_tests.contracts.shipped import shipped
from mlops_dagster_tests.swap_matrix.cells import MANY
from mlops_dagster_tests.swap_matrix.stacks import SYMBOL, Stack

SEARCH: Mapping[str, Any] = {"grid": {"max_depth": [3, 4], "n_estimators": [3, 5]}, "folds": 2}
BUILD: Mapping[str, Any] = {"max_depth": 4, "n_estimators": 5, "min_samples_leaf": 5}
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


@dataclass(frozen=True)
class Launch:
    """A pipeline, and what its step that learns is given."""

    model: str
    pipeline: str
    step: str
    given: Mapping[str, Any]

    @property
    def symbol(self) -> dict[str, str]:
        return {"symbol": SYMBOL} if self.model == "stock_price" else {}

    @property
    def ops(self) -> dict[str, Any]:
        return {f"{self.model}__{self.step}": {"config": json.loads(json.dumps(self.given))}}


def launches_of(stack: Stack) -> list[Launch]:
    """Return what is run of both models; where there is a Spark, it searches."""
    search = "cluster_search_model_pipeline" if stack.has_spark else "search_model_pipeline"
    return [
        Launch(model, f"{prefix}{pipeline}", step, given)
        for model, prefix in (("stock_price", ""), ("churn", "churn_"))
        for pipeline, step, given in (
            ("build_model_pipeline", "trained_model", BUILD),
            (search, "grid_search_results", SEARCH),
        )
    ]


def shell(stack: Stack) -> None:
    """`mlops`, one command a pipeline."""
    for one in launches_of(stack):
        command = one.pipeline.removeprefix("churn_").removesuffix("_pipeline").replace("_", "-")
        values = {**one.symbol, **one.given}
        if "grid" in values:
            values["grid"] = json.dumps(values["grid"])
        options = (f"--{name.replace('_', '-')}={value}" for name, value in values.items())
        _call([str(BIN / "mlops"), command, one.model, *options], stack)


def dagster_cli(stack: Stack, tags: Mapping[str, str] = MappingProxyType({"dagster/partition": SYMBOL})) -> None:
    """`dagster job execute`, one process a job."""
    prepare_instance(stack.deployment)
    for one in launches_of(stack):
        config = stack.home / f"{one.pipeline}.yaml"
        config.write_text(yaml.safe_dump({"ops": one.ops}))
        command = [str(BIN / "dagster"), "job", "execute", "-m", "mlops_dagster.definitions", "-j", one.pipeline]
        partition = ["--tags", json.dumps(dict(tags))] if one.symbol else []
        _call([*command, "-c", str(config), *partition], stack)


def dagster_many(stack: Stack) -> None:
    """The same for two symbols, as the run of a backfill has them."""
    with dg.DagsterInstance.from_config(str(prepare_instance(stack.deployment))) as instance:
        symbols = instance.get_dynamic_partitions("prices_symbol")
    other = symbols[symbols.index(SYMBOL) + 1]
    shutil.copy(stack.prices / f"{SYMBOL}.csv", stack.prices / f"{other}.csv")
    ends = {"start": SYMBOL, "end": other}
    dagster_cli(stack, {f"dagster/asset_partition_range_{end}": symbol for end, symbol in ends.items()})


def dagster_dev(stack: Stack) -> None:
    """The UI's own mutation, on a real `dagster dev`: its daemon takes the runs from the queue and starts them."""
    prepare_instance(stack.deployment)
    with contracts.dagster_dev(stack.home, env={**stack.environment, "MLOPS_HOME": str(stack.home)}) as dev:
        for one in launches_of(stack):
            run_id = dev.launch(one.pipeline, one.ops, symbol=one.symbol.get("symbol"))
            assert dev.ended(run_id) == "SUCCESS", (stack.home / "dev.log").read_text()


def _bundle(stack: Stack) -> str:
    return bundle_text(stack.deployment, str(stack.file), [shipped("stock_price"), find_model("churn", stack.defs)])


def databricks_job(stack: Stack) -> None:
    """The jobs of the bundle, created and started as Databricks' own command does it."""
    workspace = stack.workspace
    assert workspace is not None
    wheels = workspace.volumes / "main" / "mlops" / "data" / stack.name / "wheels"
    wheel = build_wheel(wheels, defs=stack.defs)
    made = yaml.safe_load(_bundle(stack))
    jobs = jobs_of(made, f"/Volumes/main/mlops/data/{stack.name}/wheels/{wheel.name}")
    for one in launches_of(stack):
        job_id = workspace.call("POST", "/api/2.2/jobs/create", jobs[one.pipeline])["job_id"]
        texts = {name: json.dumps(value) for name, value in one.given.items()}
        body = {"job_id": job_id, "job_parameters": {**one.symbol, **texts}}
        run_id = workspace.call("POST", "/api/2.2/jobs/run-now", body)["run_id"]
        run = workspace.ended(run_id, seconds=600)
        said = f"{run['state']}\n{workspace.stdout(run_id)}\n{workspace.stderr(run_id)}"
        assert run["state"]["result_state"] == "SUCCESS", said


def airflow(stack: Stack) -> None:
    """`airflow dags test`, one process a DAG, in Airflow's own environment."""
    home = stack.home / "airflow"
    more = contracts_airflow.airflow_environment(home)
    for command in contracts_airflow.commands_that_prepare(home):
        _call(command, stack, **more)
    if stack.workspace is not None:
        wheels = stack.workspace.volumes / "main" / "mlops" / "data" / stack.name / "wheels"
        wheel = build_wheel(wheels, defs=stack.defs)
        bundle = stack.home / "databricks.yml"
        bundle.write_text(_bundle(stack))
        host = stack.workspace.url.removeprefix("http://").split(":")
        connection = {"conn_type": "databricks", "schema": "http", "host": host[0], "port": int(host[1])}
        more |= {
            "AIRFLOW__MLOPS__RUN_ON": "databricks",
            "AIRFLOW__MLOPS__DATABRICKS_BUNDLE": str(bundle),
            "AIRFLOW__MLOPS__DATABRICKS_WHEEL": f"/Volumes/main/mlops/data/{stack.name}/wheels/{wheel.name}",
            "AIRFLOW__MLOPS__POLL_SECONDS": "1",
            "AIRFLOW_CONN_DATABRICKS_DEFAULT": json.dumps({**connection, "password": stack.workspace.token}),
        }
    manifest = home / "manifest.json"
    manifest.write_text(_call([str(BIN / "mlops"), "manifest"], stack))
    more |= {"AIRFLOW__MLOPS__MANIFEST": str(manifest), "AIRFLOW__MLOPS__PROJECT": str(stack.home)}
    for one in launches_of(stack):
        test = ["dags", "test", one.pipeline, "--conf", json.dumps({**one.symbol, **one.given})]
        said = _call([str(contracts_airflow.BIN / "airflow"), *test], stack, **more)
        assert "failed" not in said.splitlines()[-1], said


ORCHESTRATE: Mapping[str, Callable[[Stack], None]] = {
    "Dagster UI and daemon": dagster_dev,
    "Dagster CLI": dagster_cli,
    MANY: dagster_many,
    "Airflow": airflow,
    "Databricks job": databricks_job,
    "mlops shell": shell,
}
