"""Servers of the tests: a running Airflow as its REST API shows it, and a stand-in for a Databricks workspace."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

TOKEN = "standin-token-of-a-test"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(question, seconds=400, pause=0.5):
    """Ask until the answer is true, and return it. The time is for machines that hang, not a promise."""
    until = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < until, "it never became true"
        time.sleep(pause)
    return answer


def call(url, method="GET", body=None, token=None):
    """Return status and content."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with _opener().open(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def _opener():
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Airflow:
    """A running Airflow."""

    def __init__(self, url, token, home):
        self.url, self.token, self.home = url, token, home

    def call(self, path, method="GET", body=None):
        """Ask Airflow; again while its SQLite, which takes one writer at a time, is busy."""

        def answer():
            status, said = call(f"{self.url}/api/v2{path}", method, body, self.token)
            return None if status == 500 and "Database error" in str(said) else (status, said)

        return eventually(answer, seconds=60)

    def trigger(self, dag, conf, run_id=None):
        body = {"logical_date": None, "conf": conf, "dag_run_id": run_id}
        status, said = self.call(f"/dags/{dag}/dagRuns", "POST", body)
        assert status == 200, said
        return Run(self, f"/dags/{dag}/dagRuns/{said['dag_run_id']}", said["dag_run_id"])

    def clear(self, run, *tasks):
        dag, run_id = run.path.split("/")[2], run.run_id
        body = {"dag_run_id": run_id, "task_ids": tasks, "only_failed": False, "dry_run": False}
        status, said = self.call(f"/dags/{dag}/clearTaskInstances", "POST", body)
        assert status == 200, said
        eventually(lambda: run.get()["state"] in ("queued", "running"))


class Run:
    """One run of a DAG."""

    def __init__(self, airflow, path, run_id):
        self.airflow, self.path, self.run_id = airflow, path, run_id

    def get(self, path=""):
        status, said = self.airflow.call(self.path.replace("+", "%2B") + path)
        assert status == 200, said
        return said

    def ended(self):
        return eventually(lambda: (state := self.get()["state"]) in ("success", "failed") and state)

    def task(self, name):
        return self.get(f"/taskInstances/{name}")

    def in_state(self, name, *states):
        return eventually(lambda: (task := self.task(name))["state"] in states and task)

    def facts(self, name):
        return self.xcom(name, "return_value")

    def xcom(self, name, key):
        return self.get(f"/taskInstances/{name}/xcomEntries/{key}?deserialize=true")["value"]

    def link(self, name):
        return self.get(f"/taskInstances/{name}/links")["extra_links"]["MLflow"]

    def log(self, name):
        """Return what all tries have said: Airflow has been seen to count one more (apache/airflow#72716)."""
        files = (self.airflow.home / "logs").glob(f"dag_id=*/run_id={self.run_id}/task_id={name}/*")
        return "".join(file.read_text() for file in sorted(files))

    def set_state(self, name, state):
        path = f"{self.path.replace('+', '%2B')}/taskInstances/{name}"
        status, said = self.airflow.call(path, "PATCH", {"new_state": state})
        assert status == 200, said


class Workspace:
    """A stand-in workspace: see docs/databricks_standin.md of the parent project."""

    def __init__(self, url, root):
        self.url, self.root = url, root

    def call(self, path, method="GET", body=None):
        status, said = call(f"{self.url}{path}", method, body, TOKEN)
        assert status == 200, said
        return said

    def submitted(self, name):
        """Return the bodies of `runs/submit` whose run name contains this."""
        written = (self.root / "requests.jsonl").read_text().rpartition("\n")[0]
        entries = [json.loads(line) for line in written.splitlines()]
        bodies = [entry["body"] for entry in entries if entry["path"].endswith("/jobs/runs/submit")]
        return [body for body in bodies if name in body["run_name"]]

    def steps(self, name):
        """Return the steps that were submitted, in their order."""
        return [body["tasks"][0]["task_key"] for body in self.submitted(name)]

    def runs(self, name):
        found = self.call("/api/2.2/jobs/runs/list?expand_tasks=true&limit=25")["runs"]
        return [run for run in found if name in run["run_name"]]

    def fault(self, kind, **given):
        self.call("/_standin/faults", "POST", {"kind": kind, **given})


class Mlflow:
    """An MLflow server."""

    def __init__(self, url):
        self.url = url

    def call(self, path, body):
        return call(f"{self.url}/api/2.0/mlflow/{path}", "POST", body)[1]

    def runs(self, run_id):
        """Return the runs of an orchestrator's run."""
        experiments = self.call("experiments/search", {"max_results": 100})["experiments"]
        wanted = {
            "experiment_ids": [each["experiment_id"] for each in experiments],
            "filter": f"tags.orchestrator_run_id = '{run_id}'",
        }
        return self.call("runs/search", wanted).get("runs", [])


@contextmanager
def served(command, log, url, stop=signal.SIGTERM, **options):
    """Run a server until the end of the context, from when `url` answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
    try:

        def answers():
            assert process.poll() is None, log.read_text()
            try:
                with _opener().open(url, timeout=10) as answer:
                    return answer.status == 200
            except OSError:
                return False

        eventually(answers)
        yield
    finally:
        process.send_signal(stop)
        process.wait(timeout=60)


@contextmanager
def workspace(python, checkout, root):
    root.mkdir()
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [python, "-m", "mlops_dagster_tests.standin", "--root", str(root), "--port", str(port)]
    command += ["--token", TOKEN, "--engine", "none", "--pending-seconds", "0.05", "--terminating-seconds", "0.05"]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    with served(command, root / "server.log", f"{url}/health", env=environment, cwd=checkout):
        yield Workspace(url, Path(root))


@contextmanager
def mlflow_server(python, folder):
    folder.mkdir()
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/served"]
    environment = {**os.environ, "PYTHONPATH": "", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with served(command, folder / "server.log", f"{url}/health", env=environment):
        yield Mlflow(url)
