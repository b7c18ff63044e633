"""A workspace without Spark for all of these tests, and scripts that run there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.service.jobs import SubmitTask

from mlops_dagster.stack.databricks.workspace import KINDS, connect
from mlops_dagster_tests.contracts.workspace import Workspace, workspace
from mlops_dagster_tests.standin.submitting import script_body


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with workspace(tmp_path_factory.mktemp("workspace")) as running:
        yield running


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["DATABRICKS_HOST", *(name for names in KINDS.values() for name in names)]:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ws(standin: Workspace) -> Iterator[Workspace]:
    """The workspace without anything of the test before."""
    standin.clear_faults()
    yield standin
    standin.clear_faults()
    for run in standin.runs():
        if run["state"]["life_cycle_state"] in ("PENDING", "RUNNING"):
            standin.call("POST", "/api/2.2/jobs/runs/cancel", {"run_id": run["run_id"]})


@pytest.fixture
def client(ws: Workspace, monkeypatch: pytest.MonkeyPatch, no_credentials: None) -> WorkspaceClient:
    """As the package connects."""
    for name, value in ws.environment.items():
        monkeypatch.setenv(name, value)
    return connect()


@pytest.fixture
def task(ws: Workspace) -> Callable[[str], dict[str, Any]]:
    """Return what `submit` takes to run a script."""

    return lambda script: {"tasks": [SubmitTask.from_dict(script_body(ws, script)["tasks"][0])]}
