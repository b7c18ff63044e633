"""A running Airflow as its REST API shows it, and what the tests ask of the other servers."""

import json
import urllib.error
import urllib.request

from mlops_dagster_tests.contracts.servers import eventually


def call(url, method="GET", body=None, token=None):
    """Return status and content."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


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
        return eventually(lambda: (state := self.get()["state"]) in ("success", "failed") and state, seconds=400)

    def task(self, name):
        return self.get(f"/taskInstances/{name}")

    def in_state(self, name, *states):
        return eventually(lambda: (task := self.task(name))["state"] in states and task, seconds=400)

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


def submitted(standin, name):
    """Return the bodies of `runs/submit` whose run name contains this."""
    return [body for body in standin.submitted() if name in body["run_name"]]


def steps_of(standin, name):
    """Return the steps that were submitted, in their order."""
    return [body["tasks"][0]["task_key"] for body in submitted(standin, name)]


def tracked(mlflow, run_id):
    """Return MLflow's runs of an orchestrator's run."""
    experiments = call(f"{mlflow}/api/2.0/mlflow/experiments/search", "POST", {"max_results": 100})[1]["experiments"]
    wanted = {
        "experiment_ids": [each["experiment_id"] for each in experiments],
        "filter": f"tags.orchestrator_run_id = '{run_id}'",
    }
    return call(f"{mlflow}/api/2.0/mlflow/runs/search", "POST", wanted)[1].get("runs", [])
