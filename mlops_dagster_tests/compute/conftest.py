"""What the tests of the computes share: one workspace without Spark, one MLflow, and a stack of each test's own."""

from __future__ import annotations

import re
import shutil

import pytest
from dagster._core.pipes import utils as pipes_utils

from mlops_dagster_tests.contracts.databricks_stack import stack_of
from mlops_dagster_tests.contracts.s3_server import s3_server
from mlops_dagster_tests.contracts.servers import mlflow_server
from mlops_dagster_tests.contracts.workspace import workspace


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory, empty_mlflow):
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(empty_mlflow, folder / "server.db")
    with mlflow_server(folder) as url:
        yield url


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def shared_workspace(tmp_path_factory):
    with workspace(tmp_path_factory.mktemp("workspace")) as running:
        yield running


@pytest.fixture
def ws(shared_workspace):
    yield shared_workspace
    shared_workspace.clear_faults()
    assert not shared_workspace.live_processes()


@pytest.fixture(autouse=True)
def last_words(monkeypatch):
    """Of a task that never said that it is done, Dagster awaits the last messages for ten seconds: here for one."""
    monkeypatch.setattr(pipes_utils, "WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 1)


@pytest.fixture
def new_stack(ws, mlflow_url, s3, tmp_path, price_file, monkeypatch, empty_dagster):
    """Make a stack of a kind; its credentials are in the environment."""

    def make(kind, workspace=ws):
        monkeypatch.delenv("MLOPS_HOME", raising=False)
        name = re.sub(r"\W+", "-", f"{tmp_path.name}-{kind}")
        stack = stack_of(kind, tmp_path / name, workspace, mlflow_url, price_file, s3)
        shutil.copytree(empty_dagster, stack.home / "dagster")
        for variable, value in {**stack.environment, **AWS}.items():
            monkeypatch.setenv(variable, value)
        return stack

    return make


AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret"}
