"""`mlops-task` as a process, with real messages in files, as Dagster Pipes has them on a volume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from dagster_pipes import encode_param
from databricks.sdk import WorkspaceClient
from databricks.sdk.service.jobs import SubmitTask

from mlops_dagster import session as here
from mlops_dagster.stack.databricks import runs
from mlops_dagster.stack.databricks.versions import versions
from mlops_dagster.stack.databricks.volumes import VolumeCopies
from mlops_dagster.stack.databricks.wheel import build_wheel
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.store import Store, store_of
from mlops_dagster.stack.tracking import Origin
from mlops_dagster.steps.report_pieces import IncompleteReport, RemoteFailure, from_pieces
from mlops_dagster_tests.conftest import mlflow_runs
from mlops_dagster_tests.contracts.servers import eventually
from mlops_dagster_tests.contracts.shipped import shipped
from mlops_dagster_tests.contracts.workspace import Workspace
from mlops_dagster_tests.standin.submitting import CLUSTER

# Each process takes seconds, most of it for imports and for Pipes' own pauses.
pytestmark = [pytest.mark.examples, pytest.mark.slow]

CONTEXT = {
    "asset_keys": ["prices/data"],
    "code_version_by_asset_key": {"prices/data": None},
    "provenance_by_asset_key": {"prices/data": None},
    "partition_key": "ACME",
    "partition_key_range": None,
    "partition_time_window": None,
    "run_id": "of dagster",
    "job_name": None,
    "retry_number": 0,
    "extras": {},
}
ORIGIN = {"orchestrator": "dagster", "run_id": "of dagster", "url": "http://127.0.0.1:3000/runs/x"}


class Session:
    """One call of the command, and what it sent."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        (folder / "messages").mkdir(parents=True)

    def request(self, step: str, **given: Any) -> dict[str, Any]:
        return {
            "step": f"stock_price/{step}",
            "symbol": "ACME",
            "given": {},
            "environment": self.environment,
            "secrets": [],
            "expected": versions(),
            "origin": ORIGIN,
            **given,
        }

    def command(
        self, request: dict[str, Any], *, by: str = "arguments", stdio: bool = False, at: str = "", **extras: Any
    ) -> tuple[list[str], dict[str, str]]:
        """Return the command and its environment; the session is given by arguments or by environment variables."""
        (self.folder / "context.json").write_text(json.dumps({**CONTEXT, "extras": extras}))
        parameters = {
            "DAGSTER_PIPES_CONTEXT": encode_param({"path": f"{at or self.folder}/context.json"}),
            "DAGSTER_PIPES_MESSAGES": encode_param(
                {"path": f"{at or self.folder}/messages", "include_stdio_in_messages": stdio}
            ),
        }
        command = [sys.executable, "-m", "mlops_dagster.task"]
        for name, value in request.items():
            command += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLOPS_", "DAGSTER_"))}
        if by == "environment":
            return command, {**environment, **parameters}
        for name, value in parameters.items():
            command += [f"--{name.lower().replace('_', '-')}", value]
        return command, environment

    def run(self, request: dict[str, Any], **more: Any) -> subprocess.CompletedProcess[str]:
        command, environment = self.command(request, **more)
        return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=self.folder, check=False)

    def messages(self) -> list[dict[str, Any]]:
        files = sorted((self.folder / "messages").glob("*.json"), key=lambda file: int(file.stem))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def payloads(self) -> Iterator[Any]:
        """Return what the host would be given: `from_pieces` takes it."""
        return (one["params"]["payload"] for one in self.messages() if one["method"] == "report_custom_message")

    def said(self, method: str, field: str) -> str:
        return "".join(one["params"][field] for one in self.messages() if one["method"] == method)


@pytest.fixture
def session(home: Path, price_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.delenv("MLOPS_HOME")
    prices = {"source": "files", "path": str(price_file.parent / "{symbol}.csv")}
    environment = {"MLOPS_HOME": str(home), "MLOPS_DEPLOYMENT": "local", "MLOPS_DATA": json.dumps({"prices": prices})}
    return Session(tmp_path / "session", environment)


LOOK = """
import sys
from mlops_dagster.task import main
main(sys.argv[1:])
print(sorted(name for name in sys.modules if name in ("dagster", "dagster_databricks", "typer")))
"""


@pytest.mark.parametrize("by", ["arguments", "environment"])
def test_a_step_reports_home(session: Session, home: Path, by: str) -> None:
    """It imports neither Dagster nor anything else that a cluster needn't have."""
    command, environment = session.command(session.request("data"), by=by, stdio=by == "environment")
    command[1:3] = ["-c", LOOK]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=session.folder, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")
    report = from_pieces(session.payloads())
    table = store_of(Deployment(home=home), shipped("stock_price")).current("data", "ACME")
    assert (report.step, report.symbol, report.table) == ("data", "ACME", table)
    assert session.messages()[0]["method"] == "opened"
    assert session.messages()[-1] == {"__dagster_pipes_version": "0.1", "method": "closed", "params": {}}
    assert not list((session.folder / "messages").glob("*.part"))
    if by == "environment":
        assert "PipesDefaultLogWriterChannel" in done.stderr


@pytest.fixture
def tables(home: Path, price_file: Path) -> None:
    """What a model is trained on, made here."""
    deployment = Deployment(home=home, data={"prices": {"path": str(price_file.parent / "{symbol}.csv")}})
    with here.Session(deployment, shipped("stock_price"), Origin("shell", "here")) as opened:
        for step in ("data", "training_set"):
            opened.run(step, "ACME", {})


@pytest.mark.usefixtures("tables")
def test_a_model_with_its_plots_from_the_extras(session: Session, home: Path) -> None:
    request = session.request("trained_model", given={"n_estimators": 3, "max_depth": 4})
    done = session.run({}, **request)
    assert done.returncode == 0, done.stderr
    report = from_pieces(session.payloads())
    assert report.plots
    assert all(png.startswith(b"\x89PNG") for png in report.plots.values())
    (run,) = mlflow_runs(home)
    assert (run.info.run_id, run.info.status) == (report.mlflow_run_id, "FINISHED")
    assert "of dagster" in run.data.tags.values()
    assert "root_mean_squared_error" in session.said("log", "message")


def test_a_failure_brings_its_traceback_and_fails_the_process(session: Session) -> None:
    done = session.run(session.request("training_set"))
    assert done.returncode != 0
    assert "TableNotFound" in done.stderr
    with pytest.raises(RemoteFailure, match="there is no table 'data' of 'ACME'") as caught:
        from_pieces(session.payloads())
    assert (caught.value.type, caught.value.exit_status) == ("TableNotFound", 1)
    assert "in training_set" in caught.value.traceback
    assert "exception" in session.messages()[-1]["params"]


def test_a_bad_parameter_is_refused_before_any_work(session: Session, home: Path) -> None:
    done = session.run(session.request("trained_model", given={"max_depth": "80"}))
    assert done.returncode != 0
    with pytest.raises(RemoteFailure, match=r"max_depth='80' \(str\)") as caught:
        from_pieces(session.payloads())
    assert (caught.value.exit_status, caught.value.traceback) == (2, "")
    assert not mlflow_runs(home)


def test_other_versions_stop_it_before_any_work(session: Session, home: Path) -> None:
    done = session.run(session.request("data", expected={**versions(), "scikit-learn": "0.1"}))
    assert done.returncode != 0
    said = rf"scikit-learn is {version('scikit-learn')} there and 0\.1 here.*Nothing was done"
    with pytest.raises(RemoteFailure, match=said) as caught:
        from_pieces(session.payloads())
    assert caught.value.exit_status == 2
    assert not (home / "store").exists()


def test_secrets_are_not_for_here(session: Session) -> None:
    wanted = [{"name": "MLFLOW_TRACKING_TOKEN", "scope": "mlops", "key": "token"}]
    done = session.run(session.request("data", secrets=wanted))
    assert done.returncode != 0
    with pytest.raises(RemoteFailure, match="secrets of the workspace can be read on Databricks only") as caught:
        from_pieces(session.payloads())
    assert (caught.value.exit_status, caught.value.traceback) == (2, "")


def test_what_isnt_given_is_named(session: Session) -> None:
    done = session.run({"step": "stock_price/data"})
    assert done.returncode != 0
    with pytest.raises(RemoteFailure, match="--symbol, --origin isn't given"):
        from_pieces(session.payloads())


def test_without_pipes_it_says_what_to_call() -> None:
    command = [sys.executable, "-m", "mlops_dagster.task", "--step", "stock_price/data"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Without Dagster, call `mlops`" in done.stderr


@pytest.mark.usefixtures("tables")
def test_a_cancelled_run_ends_its_mlflow_run_as_killed(session: Session, home: Path) -> None:
    # So many trees that it can't be done before the signal comes.
    request = session.request("trained_model", given={"n_estimators": 10_000})
    command, environment = session.command(request)
    with subprocess.Popen(command, env=environment, cwd=session.folder, stderr=subprocess.PIPE) as process:
        eventually(lambda: process.poll() is not None or mlflow_runs(home))
        process.send_signal(signal.SIGTERM)
        process.wait(240)
    assert process.returncode == 143
    (run,) = mlflow_runs(home)
    assert run.info.status == "KILLED"
    with pytest.raises(RemoteFailure, match="the step was stopped") as caught:
        from_pieces(session.payloads())
    assert caught.value.exit_status == 143


@pytest.mark.xdist_group("stack_databricks")
def test_on_a_workspace_with_the_wheel_alone(ws: Workspace, client: WorkspaceClient, tmp_path: Path) -> None:
    """Uploaded, installed, called; a secret says where the store is; the table on the volume is read from here."""
    volume = "/Volumes/main/mlops/task"
    ws.set_secret("mlops", "place", f"{volume}/store")
    built = build_wheel(tmp_path)
    client.files.upload(f"{volume}/wheels/{built.name}", built.open("rb"), overwrite=True)
    environment = {"MLOPS_HOME": "/tmp/mlops_task", "MLOPS_DEPLOYMENT": "local", "MLOPS_INSIDE": "true"}
    session = Session(ws.root / volume.strip("/") / "session", environment)
    secrets = [{"name": "MLOPS_STORE__ROOT", "scope": "mlops", "key": "place"}]
    request = session.request("data", symbol="GSPC", secrets=secrets)
    parameters, _ = session.command({}, at=f"{volume}/session", **request)
    task = SubmitTask.from_dict(
        {
            "task_key": "data",
            "existing_cluster_id": CLUSTER,
            "libraries": [{"whl": f"{volume}/wheels/{built.name}"}],
            "python_wheel_task": {
                "package_name": "mlops_dagster",
                "entry_point": "mlops-task",
                "parameters": parameters[3:],
            },
        }
    )
    run_id = runs.submit(
        client, print, run_name="a task", idempotency_token=runs.idempotency_token(tmp_path), tasks=[task]
    )
    runs.wait_for(client, run_id, poll=0.5, deadline=240, log=print)
    report = from_pieces(session.payloads())
    outside = Store(f"{volume}/store/prices", volumes=VolumeCopies(lambda: client, tmp_path / "copies"))
    assert report.table == outside.read("data", "GSPC")[1]
    assert report.table.uri == f"{volume}/store/prices/data/GSPC"


def test_a_process_that_dies_leaves_an_incomplete_report(session: Session) -> None:
    command, environment = session.command(session.request("data"))
    with subprocess.Popen(command, env=environment, cwd=session.folder) as process:
        process.kill()
    with pytest.raises(IncompleteReport):
        from_pieces(session.payloads())
