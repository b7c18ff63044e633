"""Beginning to track: many processes at once, and everything that can be wrong before a run begins."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.utils import requirements_utils
from sklearn.cluster import Birch

from mlops_dagster.errors import MlopsError, ParameterError
from mlops_dagster.modeling.digest import model_digest
from mlops_dagster.modeling.estimators import make_estimator
from mlops_dagster.modeling.features import plain
from mlops_dagster.spec.functions import trusted_types
from mlops_dagster.stack.mlflow_connection import safe_uri, sqlite_file
from mlops_dagster.stack.registry import ModelRefused, Registry
from mlops_dagster.stack.tracking import MlflowTracker, Origin, TrackingError, reap_abandoned_runs
from mlops_dagster_tests.contracts.servers import free_port, mlflow_server
from mlops_dagster_tests.modeling.conftest import declare

ORIGIN = Origin("shell", "run-1")


@pytest.fixture
def tracker(tmp_path, empty_mlflow):
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return MlflowTracker("tests", f"sqlite:///{tmp_path}/mlflow.db", state_dir=tmp_path / "state")


def refused(tracker):
    """Return what the tracker says; the step's work must not begin."""
    with pytest.raises(TrackingError) as refusal, tracker.run("r", origin=ORIGIN, tags={}):
        pytest.fail("the training was begun")
    return str(refusal.value)


# ------------------------------------------------------------------------------------------- many processes at once

# Forked after the imports, which take much longer than the work: all processes meet the missing database at once.
EIGHT = """
import os, sys
from pathlib import Path
import mlflow.sklearn, pandas as pd, skops.io
import mlflow.store.tracking.sqlalchemy_store
from sklearn.ensemble import RandomForestRegressor
from mlops_dagster.stack.tracking import MlflowTracker, Origin

home = Path(sys.argv[1])
rows = pd.DataFrame({"x": [0.0, 1.0, 2.0]})

def one(number):
    model = RandomForestRegressor(n_estimators=2, random_state=0).fit(rows, rows["x"])
    tracker = MlflowTracker("together", f"sqlite:///{home}/mlflow/mlflow.db", state_dir=home / "state")
    with tracker.run(f"run-{number}", origin=Origin("shell", number), tags={"number": number}) as run:
        run.log_params({f"p{i}": i for i in range(10)})
        run.log_metrics({f"m{i}": i for i in range(10)})
        run.log_files({"plots/p.png": b"png"})
        run.log_model(model, input_example=rows, digest=number)

children = []
for number in range(8):
    children.append(os.fork())
    if children[-1] == 0:
        one(str(number))
        os._exit(0)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


@pytest.mark.slow
def test_eight_processes_at_once_on_a_fresh_state_directory(tmp_path):
    done = subprocess.run([sys.executable, "-c", EIGHT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "locked" not in done.stdout + done.stderr

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    experiments = client.search_experiments()
    assert sorted(experiment.name for experiment in experiments) == ["Default", "together"]
    (together,) = (experiment.experiment_id for experiment in experiments if experiment.name == "together")
    runs = client.search_runs([together])
    assert sorted(run.data.tags["number"] for run in runs) == [str(number) for number in range(8)]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.params == {f"p{i}": str(i) for i in range(10)}
        assert run.data.metrics == {f"m{i}": float(i) for i in range(10)}
        assert [file.path for file in client.list_artifacts(run.info.run_id, "plots")] == ["plots/p.png"]
    models = client.search_logged_models([together])
    assert sorted(model.tags["model_digest"] for model in models) == [str(number) for number in range(8)]
    assert {str(model.status) for model in models} == {"READY"}
    assert len({model.source_run_id for model in models}) == 8
    assert all(Path(model.artifact_location.removeprefix("file://"), "model.skops").exists() for model in models)
    # One schema, made under another name and then moved there: no second one is left lying about.
    assert sorted(path.name for path in (tmp_path / "mlflow").iterdir()) == ["artifacts", "mlflow.db", "mlflow.db.lock"]
    assert list((tmp_path / "state").glob("*")) == []


def test_a_process_that_is_killed_while_it_creates_the_schema_does_no_harm(tmp_path):
    code = """
import os, signal, sys
import mlflow.store.db.utils as utils
from mlops_dagster.stack.tracking import MlflowTracker
def die(engine):
    os.kill(os.getpid(), signal.SIGKILL)
utils._upgrade_db = die   # the first tables exist now, the others don't
MlflowTracker("tests", f"sqlite:///{sys.argv[1]}/mlflow.db", state_dir=sys.argv[1]).connect()
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -9
    assert not (tmp_path / "mlflow.db").exists()
    tracker = MlflowTracker("tests", f"sqlite:///{tmp_path}/mlflow.db", state_dir=tmp_path / "state")
    with tracker.run("r", origin=ORIGIN, tags={}):
        pass


def test_artifacts_of_a_new_database_are_kept_beside_it(tmp_path):
    home = tmp_path / "a folder with ümlauts, spaces & 100 %"
    tracker = MlflowTracker("tests", f"sqlite:///{home}/mlflow.db", state_dir=tmp_path / "state")
    with tracker.run("r", origin=ORIGIN, tags={}) as run:
        run.log_files({"a.png": b"png"})
    assert (home / "artifacts" / run.run_id / "artifacts" / "a.png").read_bytes() == b"png"
    assert run.url is None


def test_the_artifact_location_is_the_one_given(tmp_path, empty_mlflow):
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    elsewhere = (tmp_path / "elsewhere").as_uri()
    tracker = MlflowTracker(
        "tests", f"sqlite:///{tmp_path}/mlflow.db", state_dir=tmp_path / "state", artifact_location=elsewhere
    )
    with tracker.run("r", origin=ORIGIN, tags={}) as run:
        run.log_files({"a.png": b"png"})
    assert (tmp_path / "elsewhere" / run.run_id / "artifacts" / "a.png").exists()


def test_types_of_ones_own_are_stored_if_the_declaration_trusts_them(tracker, tmp_path, monkeypatch):
    monkeypatch.setattr(requirements_utils, "_MODULES_TO_PACKAGES", None)  # as in a process that has just begun
    (tmp_path / "model.py").write_text(
        "from sklearn.base import BaseEstimator, TransformerMixin\n\n"
        "class Halves(TransformerMixin, BaseEstimator):\n"
        "    def fit(self, X, y=None):\n        self.seen_ = len(X)\n        return self\n\n"
        "    def transform(self, X):\n        return X / 2\n"
    )
    table = pd.DataFrame({"kind": ["a", None, "b"] * 4, "x": np.arange(12.0), "y": np.arange(12.0)})
    encode = {"class": "sklearn.preprocessing.OneHotEncoder"}
    steps = [["kind", encode, ["kind"]], ["x", {"class": ".model.Halves"}, ["x"]]]
    columns = {"class": "sklearn.compose.ColumnTransformer", "arguments": {"transformers": steps}}
    boosting = {"class": "sklearn.ensemble.GradientBoostingRegressor", "arguments": {"n_estimators": 2}}
    pipeline = {"class": "sklearn.pipeline.Pipeline", "arguments": {"steps": [["columns", columns], ["b", boosting]]}}
    declaration = declare(table, "y", estimator={**pipeline, "trusted": [".model.Halves"]}).at(tmp_path, "own")
    X = pd.DataFrame({name: plain(table[name]) for name in ("kind", "x")})
    model = make_estimator(declaration, {}).fit(X, table["y"])
    digest, trusted = model_digest(model), trusted_types(declaration)

    with tracker.run("r", origin=ORIGIN, tags={}) as run:
        with pytest.raises(ParameterError, match=r"Pipeline holds \.model\.Halves; if you trust them, add them to"):
            run.log_model(model, input_example=X.head(2), digest=digest)
        logged = run.log_model(model, input_example=X.head(2), digest=digest, trusted=trusted)
        tags = {"model_digest": digest, "model_file_sha256": logged.file_sha256}
        tracker.registry.register("ACME", logged, run.run_id, tags)
    with pytest.raises(ModelRefused, match=r"types that aren't trusted: \.model\.Halves"):
        tracker.registry.load("ACME", "1")
    loaded, version = tracker.registry.load("ACME", "1", trusted=trusted)
    assert np.array_equal(loaded.predict(X), model.predict(X))
    # What was trusted can be read there, but only the declaration is believed.
    assert version.tags["trusted_types"] == "mlops_dagster_models.own.model.Halves"
    assert requirements_utils._MODULES_TO_PACKAGES is None, "MLflow has read the files of every installed package"


def test_what_skops_cannot_store_is_refused_before_anything_is_logged(tracker):
    model = Birch().fit([[0.0], [1.0], [2.0]])
    with (
        pytest.raises(MlopsError, match=r"Birch can't be stored: .* not supported yet\. Use another estimator"),
        tracker.run("r", origin=ORIGIN, tags={}) as run,
    ):
        run.log_model(model, input_example=pd.DataFrame({"x": [0.0]}), digest="d")


def test_two_runs_open_at_once_keep_apart(tracker):
    with (
        tracker.run("one", origin=ORIGIN, tags={}) as one,
        tracker.run("two", origin=ORIGIN, tags={}) as two,
    ):
        one.log_params({"who": "one"})
        two.log_params({"who": "two"})
        assert tracker.reap() == []  # both are alive, and so nobody's to end
    client, _ = tracker.connect()
    assert client.get_run(one.run_id).data.params == {"who": "one"}
    assert client.get_run(two.run_id).data.params == {"who": "two"}


def test_more_than_a_request_holds(tracker):
    with tracker.run("r", origin=ORIGIN, tags={}) as run:
        run.log_params({f"p{i}": i for i in range(250)})
        run.log_metrics({f"m{i}": i for i in range(2500)})
        run.set_tags({f"t{i}": i for i in range(250)})
    data = tracker.connect()[0].get_run(run.run_id).data
    assert (len(data.params), len(data.metrics)) == (250, 2500)
    assert sum(name.startswith("t") for name in data.tags) == 250


def test_a_verdict_from_outside_stands(tracker):
    """For example "mark as canceled" in Dagster, while the process goes on."""
    with tracker.run("r", origin=ORIGIN, tags={}) as run:
        tracker.settle(ORIGIN.run_id, "KILLED")
    assert tracker.connect()[0].get_run(run.run_id).info.status == "KILLED"


def test_a_training_that_finished_stays_finished_when_its_dagster_run_fails_later(tracker):
    with tracker.run("r", origin=ORIGIN, tags={}) as run:
        pass
    assert tracker.settle(ORIGIN.run_id, "FAILED") == []
    assert tracker.connect()[0].get_run(run.run_id).info.status == "FINISHED"


def test_an_attempt_that_was_given_up_counts_as_failed_and_is_told_apart(tracker):
    """A worker was killed, and its step went on and ended well while another attempt was begun."""
    tags = {"pipeline": "build_model_pipeline", "symbol": "ACME"}
    with tracker.run("ACME-honest", origin=Origin("airflow", "manual"), tags=tags) as first:
        pass
    with (
        tracker.run("ACME-honest", origin=Origin("airflow", "manual"), tags={**tags, "symbol": "OTHER"}) as other,
        tracker.run("ACME-honest", origin=Origin("airflow", "manual"), tags=tags) as still_running,
        tracker.run("ACME-honest", origin=Origin("airflow", "manual", attempt=2), tags=tags) as again,
    ):
        pass
    found = {run.info.run_id: run for run in tracker.connect()[0].search_runs([first.experiment_id])}
    status = {run_id: run.info.status for run_id, run in found.items()}
    assert (status[first.run_id], status[still_running.run_id]) == ("FAILED", "KILLED")
    assert (status[other.run_id], status[again.run_id]) == ("FINISHED", "FINISHED")
    assert found[again.run_id].data.tags["orchestrator_attempt"] == "2"
    # So does one of a run whose process was killed before it could say what it had made, when another goes on with it.
    with tracker.run("ACME-honest", origin=Origin("airflow", "resumed", resumes=["manual"]), tags=tags):
        pass
    status = {run.info.run_id: run.info.status for run in tracker.connect()[0].search_runs([first.experiment_id])}
    assert status[again.run_id] == "FAILED"
    assert sorted(status.values()) == ["FAILED", "FAILED", "FINISHED", "FINISHED", "KILLED"]


# ------------------------------------------------------------------------------------ what can be wrong beforehand


def test_no_server(tmp_path):
    port = free_port()
    message = refused(MlflowTracker("tests", f"http://me:secret@127.0.0.1:{port}", state_dir=tmp_path))
    assert f"mlflow_tracking_uri='http://127.0.0.1:{port}': no MLflow server answers" in message
    assert "mlops ui" in message
    assert "secret" not in message


class Web(http.server.BaseHTTPRequestHandler):
    """A server that isn't MLflow."""

    status, kind, body = 200, "text/html", b"<html>Dagster's UI answers any path with its page.</html>"

    def do_GET(self):
        self.send_response(self.status)
        self.send_header("Content-Type", self.kind)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        pass


class Guarded(Web):
    status = 401


class Ill(Web):
    status, kind, body = 500, "application/json", b'{"error_code": "INTERNAL_ERROR", "message": "disk full"}'


class IllInPlainText(Web):
    status, kind, body = 500, "text/plain", b"Internal Server Error"


class ProxyAlone(Web):
    status, body = 502, b"<html><h1>502 Bad Gateway</h1></html>"


@pytest.mark.parametrize(
    ("web", "complaint"),
    [
        (Web, "something answers (HTTP 200), but it isn't an MLflow server"),
        (Guarded, "the server refuses the credentials (HTTP 401). Set MLFLOW_TRACKING_USERNAME"),
        (Ill, "answers with an error of its own (HTTP 500: "),
        (IllInPlainText, "answers with an error of its own (HTTP 500: Internal Server Error). Try again"),
        (ProxyAlone, "answers with an error of its own (HTTP 502: 502 Bad Gateway). Try again"),
    ],
)
def test_not_a_server_of_ours(tmp_path, web, complaint):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        message = refused(MlflowTracker("tests", f"http://127.0.0.1:{server.server_port}", state_dir=tmp_path))
        server.shutdown()
    assert complaint in message


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns"])
def test_a_folder(tmp_path, uri):
    message = refused(MlflowTracker("tests", uri, state_dir=tmp_path))
    assert f"mlflow_tracking_uri='{uri}': MLflow 3 doesn't keep runs in a folder; give" in message


def test_a_relative_database(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(MlflowTracker("tests", "sqlite:///mlflow.db", state_dir=tmp_path / "state"))
    assert f"give the absolute path: sqlite:///{tmp_path}/mlflow.db." in message
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "mlflow.db").write_text("Date,Open,High\n" * 100)
    message = refused(MlflowTracker("tests", f"sqlite:///{tmp_path}/mlflow.db", state_dir=tmp_path))
    assert "the database can't be opened" in message
    assert "file is not a database" in message


def test_a_database_of_an_older_mlflow(tracker, tmp_path):
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'an older one'")
    assert "mlflow db upgrade" in refused(tracker)


def test_a_folder_that_cant_be_made(tmp_path):
    (tmp_path / "file").touch()
    message = refused(MlflowTracker("tests", f"sqlite:///{tmp_path}/file/mlflow.db", state_dir=tmp_path / "state"))
    assert "Make sure that the folder can be written to" in message


def test_a_deleted_experiment(tracker):
    client, experiment_id = tracker.connect()
    client.delete_experiment(experiment_id)
    message = refused(tracker)
    assert "experiment_name='tests': this experiment was deleted" in message
    assert f"mlflow experiments restore --experiment-id {experiment_id}" in message


def test_a_parent_that_doesnt_exist(tracker):
    tracker.parent_run_id = "0" * 32
    assert "0" * 32 in refused(tracker)
    assert list(tracker.state_dir.glob("*")) == []


def test_a_parameter_that_changes_its_value(tracker):
    with tracker.run("r", origin=ORIGIN, tags={}) as run:
        run.log_params({"max_depth": 80})
        with pytest.raises(TrackingError, match=f"logging parameters of run {run.run_id} failed.*max_depth"):
            run.log_params({"max_depth": 7})


# -------------------------------------------------------------------------------------------- a server that goes away


@pytest.mark.slow
def test_a_server_that_dies_during_the_training(tmp_path):
    port = free_port()
    tracker = MlflowTracker("tests", f"http://127.0.0.1:{port}", state_dir=tmp_path / "state")
    server = contextlib.ExitStack()
    server.enter_context(mlflow_server(tmp_path / "server", port))

    def train():
        server.close()
        raise ValueError("what went wrong first")  # and not the server's absence

    with pytest.raises(ValueError, match="what went wrong first"), tracker.run("r", origin=ORIGIN, tags={}) as run:
        train()
    with pytest.raises(TrackingError):
        tracker.settle(ORIGIN.run_id, "KILLED")
    assert tracker.reap() == []
    assert len(list(tracker.state_dir.glob("*.run"))) == 2  # both are for later

    with mlflow_server(tmp_path / "server", port):
        client, _ = tracker.connect()
        assert client.get_run(run.run_id).info.status == "RUNNING"
        assert set(reap_abandoned_runs(tracker.state_dir)) == {run.run_id}
        assert client.get_run(run.run_id).info.status == "KILLED"
    assert list(tracker.state_dir.glob("*")) == []


# ----------------------------------------------------------------------------------------------------- small things


@pytest.mark.parametrize(
    ("uri", "safe"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("postgresql://me:p@ss@db/mlflow", "postgresql://db/mlflow"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("databricks://profile", "databricks://profile"),
    ],
)
def test_uris_are_shown_without_passwords(uri, safe):
    assert safe_uri(uri) == safe


def test_which_file_an_sqlite_uri_means():
    assert str(sqlite_file("sqlite:////srv/mlflow.db?timeout=5")) == "/srv/mlflow.db"
    assert str(sqlite_file("sqlite+pysqlite:////srv/mlflow.db")) == "/srv/mlflow.db"
    assert sqlite_file("postgresql:///mlflow") is None


def test_loading_the_tracker_is_cheap():
    code = (
        "import sys, mlops_dagster.stack.tracking as tracking; from pathlib import Path\n"
        "tracking.MlflowTracker('e', 'http://127.0.0.1:9', state_dir='nowhere').reap()\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'mlflow', 'sklearn', 'pandas', 'numpy', 'sqlalchemy', 'dagster', 'skops'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(("given", "result"), [(None, "true"), ("false", "false")])
def test_mlflow_sends_usage_data_only_if_the_user_says_so(monkeypatch, given, result):
    """In whatever process: every one of ours imports the package before MLflow."""
    name = "MLFLOW_DISABLE_TELEMETRY"
    monkeypatch.delenv(name, raising=False)
    if given is not None:
        monkeypatch.setenv(name, given)
    code = f"import os, mlops_dagster; print(os.environ[{name!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{result}\n"


def test_symbols_that_differ_in_case_are_two_models_in_unity_catalog():
    names = {
        Registry("databricks", "main.ml.{symbol}").name_of(one).lower() for one in ("GSPC", "gspc", "Gspc", "^GSPC")
    }
    assert len(names) == 4
