"""Runs whose process was killed: found by their lock, ended by whoever comes next."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import pytest

from mlops_dagster.stack.open_runs import Note, end_runs, leave, reap_abandoned_runs
from mlops_dagster.stack.tracking import MlflowTracker, Origin
from mlops_dagster_tests.contracts.servers import eventually, free_port

ORIGIN = Origin("shell", "run-1")


@pytest.fixture
def tracker(tmp_path, empty_mlflow):
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return MlflowTracker("tests", f"sqlite:///{tmp_path}/mlflow.db", state_dir=tmp_path / "state")


def status(tracker, run_id):
    return tracker.connect()[0].get_run(run_id).info.status


SLEEPER = """
import sys, time
from mlops_dagster.stack.tracking import MlflowTracker, Origin
tracker = MlflowTracker("tests", f"sqlite:///{sys.argv[1]}/mlflow.db", state_dir=sys.argv[1] + "/state")
with tracker.run("sleeper", origin=Origin("shell", "sleeper"), tags={}) as run:
    print(run.run_id, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def sleeper(tracker, tmp_path):
    """A process with an open run, and the run's id."""
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with process:
        yield process, process.stdout.readline().strip()
        process.kill()


def test_the_run_of_a_living_process_is_left_alone(tracker, sleeper):
    _, run_id = sleeper
    assert tracker.reap() == []
    with tracker.run("another", origin=ORIGIN, tags={}):
        pass
    assert status(tracker, run_id) == "RUNNING"


def test_the_run_of_a_killed_process_fails(tracker, sleeper):
    process, run_id = sleeper
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert status(tracker, run_id) == "RUNNING"  # MLflow itself never notices
    assert tracker.reap() == [run_id]
    assert status(tracker, run_id) == "FAILED"
    assert tracker.reap() == []
    assert list(tracker.state_dir.glob("*")) == []


def test_the_next_run_reaps(tracker, sleeper):
    process, run_id = sleeper
    process.send_signal(signal.SIGKILL)
    process.wait()
    with tracker.run("another", origin=ORIGIN, tags={}):
        assert status(tracker, run_id) == "FAILED"


def test_ctrl_c_is_a_kill(tracker, sleeper):
    process, run_id = sleeper
    process.send_signal(signal.SIGINT)
    process.wait()
    assert status(tracker, run_id) == "KILLED"


def test_killed_between_the_lock_and_the_run(tracker):
    """The lock comes first, so the run is found even if its id was never seen."""
    client, experiment_id = tracker.connect()
    leave(tracker.state_dir, Note(tracker.tracking_uri, "tests", "tags.process_token = 'abc'"))
    run = client.create_run(experiment_id, tags={"process_token": "abc"})
    bystander = client.create_run(experiment_id, tags={"process_token": "abcd"})
    assert tracker.reap() == [run.info.run_id]
    assert status(tracker, run.info.run_id) == "FAILED"
    assert status(tracker, bystander.info.run_id) == "RUNNING"


def test_killed_before_there_was_a_run(tracker):
    leave(tracker.state_dir, Note(tracker.tracking_uri, "tests", "tags.process_token = 'abc'"))
    assert tracker.reap() == []
    assert list(tracker.state_dir.glob("*")) == []


def test_killed_while_the_note_was_written(tracker):
    tracker.state_dir.mkdir()
    (tracker.state_dir / "abc.run").write_text('{"tracking_uri": "sqli')
    assert tracker.reap() == []
    assert list(tracker.state_dir.glob("*")) == []


def test_a_server_that_is_down_keeps_nobody_else_waiting(tracker):
    client, experiment_id = tracker.connect()
    run = client.create_run(experiment_id, tags={"process_token": "abc"})
    down = Note(f"http://127.0.0.1:{free_port()}", "tests", "tags.process_token = 'abc'")
    for note in (down, down, Note(tracker.tracking_uri, "tests", "tags.process_token = 'abc'"), down):
        leave(tracker.state_dir, note)
    assert tracker.reap() == [run.info.run_id]
    kept = [json.loads(path.read_text())["tracking_uri"] for path in tracker.state_dir.glob("*.run")]
    assert kept == [down.tracking_uri] * 3


def test_a_run_looks_after_its_own_server_only(tracker):
    leave(tracker.state_dir, Note(f"http://127.0.0.1:{free_port()}", "tests", "tags.process_token = 'abc'"))
    assert reap_abandoned_runs(tracker.state_dir, tracker.tracking_uri) == []
    assert len(list(tracker.state_dir.glob("*.run"))) == 1


def test_a_database_that_was_thrown_away_isnt_made_again(tracker, tmp_path):
    leave(tracker.state_dir, Note(tracker.tracking_uri, "tests", "tags.process_token = 'abc'"))
    (tmp_path / "mlflow.db").unlink()
    assert tracker.reap() == []
    assert tracker.settle("run-1", "FAILED") == []
    assert not (tmp_path / "mlflow.db").exists()
    assert list(tracker.state_dir.glob("*")) == []


def test_notes_are_private(tracker):
    """A database's URI may hold a password."""
    leave(tracker.state_dir, Note("postgresql://me:secret@db/mlflow", "tests", ""))
    (note,) = tracker.state_dir.glob("*.run")
    assert note.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("whole", [False, True], ids=["ours", "dagster-mlflow's"])
@pytest.mark.parametrize("verdict", [False, True], ids=["owner died", "verdict"])
@pytest.mark.parametrize("now", ["RUNNING", "FINISHED", "FAILED", "KILLED"])
@pytest.mark.parametrize("said", ["FINISHED", "FAILED", "KILLED"])
def test_which_status_is_right(tracker, whole, verdict, now, said):
    client, experiment_id = tracker.connect()
    run_id = client.create_run(experiment_id, tags={"dagster_run_id": "d"} if whole else {}).info.run_id
    if now != "RUNNING":
        client.set_terminated(run_id, now, end_time=1_700_000_000_000)
    end_runs(Note(tracker.tracking_uri, "tests", f"attributes.run_id = '{run_id}'", said, verdict=verdict))
    if now == "RUNNING" or (verdict and whole):
        expected = said
    elif verdict and (now, said) == ("FAILED", "KILLED"):
        expected = "KILLED"
    else:
        expected = now
    after = client.get_run(run_id).info
    assert after.status == expected
    if now != "RUNNING":
        assert after.end_time == 1_700_000_000_000  # it ended when it ended


def test_reapers_dont_trip_over_each_other(tracker):
    """Many processes begin at once after a crash, and each of them reaps."""
    client, experiment_id = tracker.connect()
    tokens = [f"token{number}" for number in range(5)]
    for token in tokens:
        client.create_run(experiment_id, tags={"process_token": token})
        leave(tracker.state_dir, Note(tracker.tracking_uri, "tests", f"tags.process_token = '{token}'"))
    code = "import sys; from pathlib import Path; from mlops_dagster.stack.open_runs import reap_abandoned_runs as r\n"
    code += "print(len(r(Path(sys.argv[1]))))"
    reapers = [
        subprocess.Popen([sys.executable, "-c", code, str(tracker.state_dir)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    counts = [int(reaper.communicate()[0]) for reaper in reapers]
    assert [reaper.returncode for reaper in reapers] == [0, 0, 0]
    assert sum(counts) == 5  # each run was ended once
    eventually(lambda: list(tracker.state_dir.glob("*")) == [])
    assert {run.info.status for run in client.search_runs([experiment_id])} == {"FAILED"}
