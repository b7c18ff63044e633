"""However a Dagster run is started and however it ends, its MLflow run ends the same way: real Dagster, real MLflow.

One `dagster dev` with two code locations serves this module: the same assets once with our tracker, once with
dagster-mlflow's. Runs from a shell have a Dagster home of their own, without a daemon and so without sensors.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import dagster as dg
import pytest
from mlflow import MlflowClient

from mlops_dagster.instance import DAGSTER_YAML
from mlops_dagster.run_locks import hold, is_dead
from mlops_dagster.stack.open_runs import reap_abandoned_runs
from mlops_dagster.warm_runs import address_in
from mlops_dagster_tests.contracts.dagster_dev import DagsterDev, dagster_dev
from mlops_dagster_tests.contracts.servers import eventually

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dagster dev")]

CLIENTS = {"ours": "mlops", "theirs": "dagster-mlflow"}
WORKSPACE = "load_from:\n" + "".join(
    f"- python_module: {{module_name: mlops_dagster_tests.run_status_definitions, attribute: {location}, "
    f"location_name: {location}}}\n"
    for location in CLIENTS
)


def mlflow_runs(home, location, dagster_run_id):
    client = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name(f"{CLIENTS[location]}-stock_price")
    assert experiment is not None
    return client.search_runs([experiment.experiment_id], f"tags.orchestrator_run_id = '{dagster_run_id}'")


def statuses(home, location, dagster_run_id):
    """The MLflow statuses of a Dagster run, by what the run logged."""
    runs = mlflow_runs(home, location, dagster_run_id)
    return {tuple(sorted(run.data.params)): run.info.status for run in runs}


def pid_of(home, run_id, asset):
    """The process that has this asset's run open; waits for it."""
    return int(eventually((home / f"{run_id}-{asset}.pid").read_text))


class StatusDev(DagsterDev):
    """Launches the assets of `run_status_definitions`, and compares how their runs ended."""

    def launch(self, location, job, config, **selection):
        """As the UI does; with an asset selection it's what its button "Materialize" sends."""
        ops = {asset: {"config": {"how": how}} for asset, how in config.items()}
        symbol = None if "per_step" in job else "A"
        return super().launch(job, ops, symbol=symbol, location=location, **selection)

    def assert_ends(self, location, run_id, dagster_status, mlflow_statuses):
        assert self.ended(run_id) == dagster_status

        def settled():
            seen = statuses(self.home, location, run_id)
            assert seen == mlflow_statuses
            return True

        eventually(settled)


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    home = tmp_path_factory.mktemp("dev")
    (home / "dagster").mkdir()
    (home / "dagster" / "dagster.yaml").write_text(DAGSTER_YAML)
    (home / "workspace.yaml").write_text(WORKSPACE)
    (home / "deployment.yaml").touch()
    env = {"DAGSTER_HOME": str(home / "dagster"), "RUN_STATUS_HOME": str(home), "PYTHONPATH": str(Path.cwd())}
    env["MLOPS_DEPLOYMENT"] = str(home / "deployment.yaml")
    workspace = home / "workspace.yaml"
    with dagster_dev(home, workspace=workspace, env=env, kind=StatusDev, locations=len(CLIENTS)) as server:
        yield server


def launch_both(dev, job, config, **selection):
    """Launch a job in both locations; what takes long then takes as long once."""
    return {location: dev.launch(location, job, config, **selection) for location in CLIENTS}


# One MLflow run per step, or one per Dagster run, which then can't tell its steps apart.
def in_both(left, right, together):
    return {
        "ours": {("left_how",): left, ("right_how",): right},
        "theirs": {("left_how", "right_how"): together},
    }


@pytest.mark.parametrize(
    ("how", "dagster_status", "mlflow_status"), [("succeed", "SUCCESS", "FINISHED"), ("fail", "FAILURE", "FAILED")]
)
def test_materialize(dev, how, dagster_status, mlflow_status):
    runs = launch_both(dev, "__ASSET_JOB", {"alone": how}, assetSelection=[{"path": ["alone"]}])
    for location, run_id in runs.items():
        dev.assert_ends(location, run_id, dagster_status, {("alone_how",): mlflow_status})


@pytest.mark.parametrize("policy", ["SAFE_TERMINATE", "MARK_AS_CANCELED_IMMEDIATELY"])
def test_a_job_that_is_terminated(dev, policy):
    runs = launch_both(dev, "one_process", {"alone": "hang"})
    for location, run_id in runs.items():
        pid_of(dev.home, run_id, "alone")
        assert set(statuses(dev.home, location, run_id).values()) == {"RUNNING"}
        dev.terminate(run_id, policy)
    for location, run_id in runs.items():
        dev.assert_ends(location, run_id, "CANCELED", {("alone_how",): "KILLED"})


def test_a_process_that_is_killed(dev):
    runs = launch_both(dev, "one_process", {"alone": "hang"})
    for run_id in runs.values():
        os.kill(pid_of(dev.home, run_id, "alone"), signal.SIGKILL)
    for location, run_id in runs.items():
        dev.assert_ends(location, run_id, "FAILURE", {("alone_how",): "FAILED"})
    # No code server sees this one die; the daemon finds out by itself.
    before = set(dev.home.glob("*-alone.pid"))
    process = execute(dev.home, "ours", "hang")
    run_id = run_id_of(dev.home, before)
    process.kill()
    process.communicate(timeout=300)
    dev.assert_ends("ours", run_id, "FAILURE", {("alone_how",): "FAILED"})


def server_of(pid):
    """The server that a run is a copy of."""
    server = int(re.search(r"PPid:\t(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1))
    assert b"warm_server" in Path(f"/proc/{server}/cmdline").read_bytes()
    return server


class Unwilling(threading.Thread):
    """A server that answers one launcher, and serves nobody."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path.unlink()
        with address_in(path.parent, path.stem) as address:
            self.socket.bind(address)
        self.socket.listen()
        self.start()

    def run(self):
        with self.socket, self.socket.accept()[0] as connection:
            connection.recv(1 << 20)
            connection.send(b"Not today.")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere runs start as Dagster's own do")
def test_runs_are_copies_of_a_server_and_need_it_no_more(dev):
    def launched(how):
        run_id = dev.launch("ours", "one_process", {"alone": how})
        return run_id, pid_of(dev.home, run_id, "alone")

    first, pid = launched("wait for the other")
    server = server_of(pid)
    os.kill(server, signal.SIGKILL)
    (dev.home / f"{first}-go").touch()
    dev.assert_ends("ours", first, "SUCCESS", {("alone_how",): "FINISHED"})
    # Its socket is still there. The next server notices that one of its copies dies.
    second, pid = launched("hang")
    after = server_of(pid)
    assert after != server
    os.kill(pid, signal.SIGKILL)
    dev.assert_ends("ours", second, "FAILURE", {("alone_how",): "FAILED"})
    # A run of what was changed is no copy of what was loaded before.
    (dev.home / "deployment.yaml").write_text("store: {root: elsewhere}")
    third, pid = launched("wait for the other")
    assert server_of(pid) != after
    (dev.home / f"{third}-go").touch()
    dev.assert_ends("ours", third, "SUCCESS", {("alone_how",): "FINISHED"})
    # What no server can do is done as ever, and said.
    for path in (dev.home / "dagster" / "run_workers").glob("*.socket"):
        Unwilling(path)
    fourth, pid = launched("succeed")
    dev.assert_ends("ours", fourth, "SUCCESS", {("alone_how",): "FINISHED"})
    assert "This run starts in a new process. Not today." in dev.messages(fourth)


def test_what_a_server_imports_starts_no_thread():
    """A copy has no thread but its own: whatever another one held in its hands would be held for good."""
    code = """
import importlib, os, threading
import mlops_dagster.definitions
from mlops_dagster.process_settings import FOR_STEPS
for name in FOR_STEPS:
    importlib.import_module(name)
if os.fork() == 0:
    os._exit(0)
os.wait()
print(threading.active_count(), *(open(f"/proc/self/task/{one}/comm").read() for one in os.listdir("/proc/self/task")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # OpenBLAS ends its threads before a fork; those that tidy up pyarrow's and deltalake's memory are made for it.
    assert [one for one in done.stdout.split() if one != "jemalloc_bg_thd"] == ["1", "python"]


def test_parallel_steps(dev):
    runs = launch_both(dev, "a_process_per_step", {"left": "succeed", "right": "succeed"})
    for location, expected in in_both("FINISHED", "FINISHED", "FINISHED").items():
        dev.assert_ends(location, runs[location], "SUCCESS", expected)


def test_a_step_that_is_killed_while_another_finishes(dev):
    runs = launch_both(dev, "a_process_per_step", {"left": "hang", "right": "wait for the other"})
    for run_id in runs.values():
        pid_of(dev.home, run_id, "right")
        os.kill(pid_of(dev.home, run_id, "left"), signal.SIGKILL)
        (dev.home / f"{run_id}-go").touch()
    for location, expected in in_both("FAILED", "FINISHED", "FAILED").items():
        dev.assert_ends(location, runs[location], "FAILURE", expected)


def test_parallel_steps_that_are_terminated(dev):
    runs = launch_both(dev, "a_process_per_step", {"left": "hang", "right": "hang"})
    for run_id in runs.values():
        pid_of(dev.home, run_id, "left")
        pid_of(dev.home, run_id, "right")
        dev.terminate(run_id)
    for location, expected in in_both("KILLED", "KILLED", "KILLED").items():
        dev.assert_ends(location, runs[location], "CANCELED", expected)


def test_backfills(dev):
    backfills = {}
    for location in CLIENTS:
        repository = {"repositoryLocationName": location, "repositoryName": "__repository__"}
        launched = dev.ask(
            "mutation($p: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $p) {__typename "
            "... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}",
            p={
                "selector": {"partitionSetName": "one_process_partition_set", "repositorySelector": repository},
                "partitionNames": ["A", "B"],
            },
        )
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        backfills[location] = launched["backfillId"]

    def run_ids(backfill_id):
        runs = dev.ask(
            "query($f: RunsFilter!) {runsOrError(filter: $f) {... on Runs {results {runId}}}}",
            f={"tags": [{"key": "dagster/backfill", "value": backfill_id}]},
        )["results"]
        return len(runs) == 2 and [run["runId"] for run in runs]

    for location, backfill_id in backfills.items():
        for run_id in eventually(lambda backfill_id=backfill_id: run_ids(backfill_id)):
            dev.assert_ends(location, run_id, "SUCCESS", {("alone_how",): "FINISHED"})


# ---------------------------------------------------------------------------------------- from a shell, no daemon


@pytest.fixture
def shell(tmp_path):
    """A folder for runs from a shell; no daemon and so no sensor is there to help."""
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text(DAGSTER_YAML)
    return tmp_path


def execute(home, location, how):
    """Start `dagster job execute` for an asset that behaves as told."""
    command = [sys.executable, "-m", "dagster", "job", "execute", "-j", "one_process", "-a", location]
    command += ["-m", "mlops_dagster_tests.run_status_definitions", "--tags", '{"dagster/partition": "A"}']
    (home / "config.yaml").write_text(json.dumps({"ops": {"alone": {"config": {"how": how}}}}))
    command += ["--config", str(home / "config.yaml")]
    return subprocess.Popen(
        command,
        env={**os.environ, "DAGSTER_HOME": str(home / "dagster"), "RUN_STATUS_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_id_of(home, before=()):
    (pid_file,) = eventually(lambda: set(home.glob("*-alone.pid")) - set(before))
    return pid_file.name.removesuffix("-alone.pid")


@pytest.mark.parametrize(("location", "how", "status"), [("ours", "succeed", "FINISHED"), ("theirs", "fail", "FAILED")])
def test_from_a_shell(shell, location, how, status):
    process = execute(shell, location, how)
    _, errors = process.communicate(timeout=300)
    assert (process.returncode == 0) == (how == "succeed"), errors
    assert statuses(shell, location, run_id_of(shell)) == {("alone_how",): status}


@pytest.mark.parametrize(
    ("location", "sent", "at_once", "reaped"),
    [("theirs", "SIGINT", "KILLED", "KILLED"), ("ours", "SIGKILL", "RUNNING", "FAILED")],
)
def test_from_a_shell_and_interrupted(shell, location, sent, at_once, reaped):
    process = execute(shell, location, "hang")
    run_id = run_id_of(shell)
    with dg.DagsterInstance.from_config(str(shell / "dagster")) as instance:
        assert not is_dead(instance, run_id)
        process.send_signal(signal.Signals[sent])
        process.communicate(timeout=300)
        assert statuses(shell, location, run_id) == {("alone_how",): at_once}
        reap_abandoned_runs(shell / "open_runs")
        assert statuses(shell, location, run_id) == {("alone_how",): reaped}
        assert is_dead(instance, run_id)
        if sent == "SIGKILL":
            # The machine was restarted; then somebody asks who shares the folder, from another machine.
            (lock,) = (shell / "dagster" / "run_workers").iterdir()
            restarted = lock.rename(lock.with_name(f"{run_id}@{platform.node()}@another-boot.lock"))
            assert is_dead(instance, run_id)
            elsewhere = restarted.rename(lock.with_name(f"{run_id}@elsewhere@another-boot.lock"))
            assert not is_dead(instance, run_id)
            elsewhere.rename(lock)
            instance.run_launcher.terminate(run_id)  # nobody has to wait for what can't answer
            assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.CANCELED
            hold(instance, "the next run").release()
            assert not lock.exists()
