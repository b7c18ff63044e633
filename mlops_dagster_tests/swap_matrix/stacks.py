"""The stack of a cell: its deployment file, and the servers that it needs, each started once and only if needed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.environment import changed_environment
from mlops_dagster_tests.contracts.databricks_stack import CLUSTERS, VOLUME
from mlops_dagster_tests.contracts.s3_server import S3, s3_server
from mlops_dagster_tests.contracts.servers import eventually, mlflow_server
from mlops_dagster_tests.contracts.shipped import EXAMPLES
from mlops_dagster_tests.contracts.spark_servers import PATIENT, spark_connect_server, spark_master, spark_worker
from mlops_dagster_tests.contracts.workspace import Workspace, workspace
from mlops_dagster_tests.swap_matrix.cells import MANY, Cell

SYMBOL = "GSPC"
AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret"}


class Servers:
    """Everything that a cell may need, started when it is first asked for."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self.folder = folder
        self._opened = opened

    def _folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder

    @cached_property
    def mlflow(self) -> str:
        return self._opened.enter_context(mlflow_server(self._folder("mlflow")))

    @cached_property
    def s3(self) -> S3:
        return self._opened.enter_context(s3_server(self._folder("s3")))

    @cached_property
    def standalone(self) -> str:
        folder = self._folder("standalone")
        master = self._opened.enter_context(spark_master(folder))
        with changed_environment(AWS):  # executors open an S3 with what their own environment says
            for name in ("one", "two"):
                self._opened.enter_context(spark_worker(folder, master, name))
        eventually(lambda: len(master.state()["workers"]) == 2)
        return master.url

    @cached_property
    def connect(self) -> str:
        with changed_environment(AWS):
            return self._opened.enter_context(spark_connect_server(self._folder("connect")))

    @cached_property
    def databricks(self) -> Workspace:
        return self._opened.enter_context(workspace(self._folder("workspace"), engine="classic"))


@dataclass(frozen=True)
class Stack:
    """A cell's deployment.

    Parameters
    ----------
    name : str
        Of its experiment, its folder on the volume and its registered models.
    home : Path
        Its state here.
    environment : mapping
        What a process needs to work with it.
    prices : Path
        The folder that holds the symbols' files.
    """

    name: str
    home: Path
    environment: Mapping[str, str]
    has_spark: bool
    prices: Path
    workspace: Workspace | None = None

    @property
    def defs(self) -> Path:
        """Where its project declares the model `churn`, beside those that ship."""
        return self.home / "defs"

    @property
    def file(self) -> Path:
        return self.home / "deployment.yaml"

    @property
    def deployment(self) -> Deployment:
        return load_deployment(str(self.file))


def make_stack(cell: Cell, servers: Servers, prices: Path) -> Stack:
    """Write the deployment of a cell."""
    name = re.sub(r"\W+", "-", str(cell)).lower()
    home = servers.folder / name
    home.mkdir()
    environment = {"MLOPS_DEPLOYMENT": str(home / "deployment.yaml"), "DAGSTER_HOME": str(home / "dagster"), **AWS}
    settings: dict[str, Any] = {
        "home": str(home),
        "spark": dict(PATIENT),
        "data": {"prices": {"source": "files", "path": str(prices.parent / "{symbol}.csv")}},
        "tracking": {"experiment_name": name, "registered_model": f"{name}.{{symbol}}"},
    }
    if cell.tracking == "MLflow server":
        settings["tracking"] |= {"mlflow_tracking_uri": servers.mlflow, "ui_url": servers.mlflow}
    if cell.storage == "S3":
        options = {key: value for key, value in servers.s3.storage_options.items() if "key" not in key}
        settings["store"] = {"root": f"s3://{servers.s3.new_bucket()}/mlops", "storage_options": options}
    if cell.compute == "Spark standalone":
        settings["spark"] = {"master": servers.standalone, **PATIENT, "partitions": cell.orchestrator == MANY}
    if cell.compute == "Spark Connect":
        settings["spark"] = {"master": servers.connect, **PATIENT, "partitions": cell.orchestrator == MANY}
    if cell.on_databricks:
        environment |= servers.databricks.environment
        settings |= _on_databricks(cell, name, servers, prices, settings)
    shutil.copytree(EXAMPLES / "breast_cancer", home / "defs" / "churn")
    (home / "deployment.yaml").write_text(yaml.safe_dump(settings))
    there = servers.databricks if cell.on_databricks else None
    folder = prices.parent if there is None else there.volumes / "main" / "mlops" / "data" / name
    return Stack(name, home, environment, cell.compute != "local", folder, there)


def _on_databricks(
    cell: Cell, name: str, servers: Servers, prices: Path, settings: Mapping[str, Any]
) -> dict[str, Any]:
    there = servers.databricks
    shared = there.volumes / "main" / "mlops" / "data" / name
    shared.mkdir(parents=True)
    (shared / prices.name).write_bytes(prices.read_bytes())
    by_step = cell.compute == "step launcher"
    databricks: dict[str, Any] = {
        "host": there.url,
        "auth": "token",
        "cluster": CLUSTERS["new" if by_step else "serverless"],
        "staging": f"/staging/{name}" if by_step else f"{VOLUME}/{name}/staging",
        "poll_seconds": 0.2,
        "timeout_seconds": 600,
    }
    if cell.storage == "S3":
        for variable, value in AWS.items():
            there.set_secret("mlops", variable, value)
        databricks["secrets"] = [{"name": variable, "scope": "mlops", "key": variable} for variable in AWS]
    said: dict[str, Any] = {
        "compute": "databricks_step" if by_step else "databricks_pipes",
        "databricks": databricks,
        "spark": {"master": "active"},
        "data": {"prices": {"source": "files", "path": f"{VOLUME}/{name}/{{symbol}}.csv"}},
    }
    if cell.storage == "volume":
        said["store"] = {"root": f"{VOLUME}/{name}/store"}
    return said
