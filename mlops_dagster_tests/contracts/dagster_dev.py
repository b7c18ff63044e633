"""A real `dagster dev`, and what tests ask of it, over the interface that its UI uses."""

import json
import re
import urllib.request
from contextlib import contextmanager

from mlops_dagster_tests.contracts.servers import answers, eventually, free_port, running

LOCATION = "mlops_dagster"
LAUNCH = """mutation($p: ExecutionParams!) {launchRun(executionParams: $p) {__typename
    ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}
    ... on RunConfigValidationInvalid {errors {message}}}}"""
ENDED = ("SUCCESS", "FAILURE", "CANCELED")


class DagsterDev:
    """The GraphQL interface of a running `dagster dev`."""

    def __init__(self, url, home, pid=None):
        self.url, self.home, self.pid = url, home, pid

    def ask(self, query, **variables):
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        (data,) = answer["data"].values()
        return data

    def launch(self, job, ops=None, *, symbol=None, location=LOCATION, **selection):
        """Launch a job as the launchpad does, and return the run's id."""
        tags = [] if symbol is None else [{"key": "dagster/partition", "value": symbol}]
        selector = {"repositoryLocationName": location, "repositoryName": "__repository__", "jobName": job}
        launched = self.ask(
            LAUNCH,
            p={
                "selector": {**selector, **selection},
                "mode": "default",
                "runConfigData": {"ops": ops or {}},
                "executionMetadata": {"tags": tags},
            },
        )
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def terminate(self, run_id, policy="SAFE_TERMINATE"):
        answer = self.ask(
            "mutation($id: String!, $policy: TerminateRunPolicy!) "
            "{terminateRun(runId: $id, terminatePolicy: $policy) {__typename}}",
            id=run_id,
            policy=policy,
        )
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def status(self, run_id):
        return self.ask("query($id: ID!) {runOrError(runId: $id) {... on Run {status}}}", id=run_id)["status"]

    def ended(self, run_id):
        """Wait until a run has ended, and return its status."""
        return eventually(lambda: (status := self.status(run_id)) in ENDED and status, seconds=400, pause=0.5)

    def messages(self, run_id):
        """Return what the events of a run say."""
        query = (
            "query($id: ID!) {logsForRun(runId: $id) {... on EventConnection {events {... on MessageEvent {message}}}}}"
        )
        return [event.get("message", "") for event in self.ask(query, id=run_id)["events"]]

    def pid_of(self, run_id):
        """Return the process of a run that has begun."""
        messages = " ".join(self.messages(run_id))
        return int(re.search(r"pid: (\d+)", messages).group(1))

    def has_loaded(self, locations=1):
        """Whether the UI answers and every code location is loaded."""
        loaded = "{workspaceOrError {... on Workspace {locationEntries {loadStatus}}}}"
        return (
            answers(f"{self.url}/server_info")
            and [entry["loadStatus"] for entry in self.ask(loaded)["locationEntries"]] == ["LOADED"] * locations
        )


@contextmanager
def dagster_dev(home, *, workspace=None, env=None, kind=DagsterDev, locations=1, port=None):
    """Run `dagster dev` on a workspace (not given: that below `home`) until the block ends; it has loaded by then."""
    port = port or free_port()
    file = str(workspace or home / "dagster" / "workspace.yaml")
    command = ["-m", "dagster", "dev", "-w", file, "-h", "127.0.0.1", "-p", str(port)]
    log = home / "dev.log"
    with running(command, log=log, env=env) as process:
        server = kind(f"http://127.0.0.1:{port}", home, process.pid)

        def ready():
            assert process.poll() is None, log.read_text()
            return server.has_loaded(locations)

        eventually(ready)
        yield server
