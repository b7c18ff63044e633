"""A stand-in workspace as a test has it: a process of its own, and a view of what it was asked and did."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_dagster_tests.contracts.servers import answers, eventually, free_port, running
from mlops_dagster_tests.standin import processes

TOKEN = "standin-token-of-a-test"
CLIENT_SECRET = "standin-secret-of-a-test"


@dataclass(frozen=True)
class Workspace:
    """A workspace that runs. Its log of requests, its files and its runs outlive it."""

    url: str
    token: str
    root: Path
    process_id: int

    @property
    def volumes(self) -> Path:
        """What the API and the tasks call /Volumes."""
        return self.root / "Volumes"

    @property
    def dbfs(self) -> Path:
        """What the API calls dbfs:/ and the tasks /dbfs."""
        return self.root / "dbfs"

    @property
    def environment(self) -> dict[str, str]:
        return {"DATABRICKS_HOST": self.url, "DATABRICKS_TOKEN": self.token}

    def client(self) -> Any:
        """Return a `databricks.sdk.WorkspaceClient`."""
        from databricks.sdk import WorkspaceClient

        return WorkspaceClient(host=self.url, token=self.token, auth_type="pat")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make one call with plain HTTP; raise `urllib.error.HTTPError` for a refusal."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.loads(answer.read() or b"{}")

    def requests(self, path_contains: str | None = None) -> list[dict[str, Any]]:
        """Return the log: time, method, path, query, status, error_code, fault, user_agent, size; some bodies."""
        written = (self.root / "requests.jsonl").read_text().rpartition("\n")[0]  # the last line may be half there
        entries: list[dict[str, Any]] = [json.loads(line) for line in written.splitlines()]
        return [each for each in entries if path_contains is None or path_contains in each["path"]]

    def submitted(self) -> list[dict[str, Any]]:
        """Return the bodies of the `runs/submit` calls, refused ones too."""
        return [each["body"] for each in self.requests("/jobs/runs/submit")]

    def runs(self) -> list[dict[str, Any]]:
        """Return all runs as `runs/get` shows them, the oldest first."""
        found: list[dict[str, Any]] = []
        token = "0"
        while token:
            page = self.call("GET", f"/api/2.2/jobs/runs/list?expand_tasks=true&limit=25&page_token={token}")
            found += page["runs"]
            token = page.get("next_page_token", "")
        return found[::-1]

    def run(self, run_id: int) -> Any:
        return self.call("GET", f"/api/2.2/jobs/runs/get?run_id={run_id}")

    def ended(self, run_id: int, seconds: float = 240) -> Any:
        """Wait until the run has ended, and return it."""

        def over() -> Any:
            run = self.run(run_id)
            return run if run["state"]["life_cycle_state"] in ("TERMINATED", "SKIPPED", "INTERNAL_ERROR") else None

        return eventually(over, seconds=seconds)

    def fault(self, kind: str, **given: Any) -> None:
        """Set a fault: see `standin/faults.py` for the kinds and their fields."""
        self.call("POST", "/_standin/faults", {"kind": kind, **given})

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults with how often each was `used`."""
        found: list[dict[str, Any]] = self.call("GET", "/_standin/faults")["faults"]
        return found

    def clear_faults(self) -> None:
        self.call("DELETE", "/_standin/faults")

    def set_secret(self, scope: str, key: str, value: str) -> None:
        scopes = [each["name"] for each in self.call("GET", "/api/2.0/secrets/scopes/list")["scopes"]]
        if scope not in scopes:
            self.call("POST", "/api/2.0/secrets/scopes/create", {"scope": scope})
        self.call("POST", "/api/2.0/secrets/put", {"scope": scope, "key": key, "string_value": value})

    def stdout(self, run_id: int) -> str:
        """Return what a run's tasks printed."""
        return self._printed(run_id, "stdout")

    def stderr(self, run_id: int) -> str:
        return self._printed(run_id, "stderr")

    def _printed(self, run_id: int, name: str) -> str:
        files = sorted((self.root / "runs" / str(run_id)).glob(f"*/{name}"), key=lambda file: file.stat().st_mtime_ns)
        return "".join(file.read_text(errors="replace") for file in files)

    def live_processes(self) -> list[int]:
        """Return the ids of the processes of all tasks."""
        return processes.family(processes.mark(self.root / "runs"))


@contextlib.contextmanager
def workspace(
    folder: Path, *, engine: str = "none", isolated: bool = True, port: int | None = None, **options: Any
) -> Iterator[Workspace]:
    """Run a stand-in workspace with its state in `folder`.

    Options are those of `python -m mlops_dagster_tests.standin`, with underscores: `no_dbfs=True`,
    `cluster=["one", "two"]`, `kill_seconds=1`, `share=[tmp_path]`.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    options = {"pending_seconds": 0.05, "terminating_seconds": 0.05, "kill_seconds": 2, **options}
    command = ["-m", "mlops_dagster_tests.standin", "--root", str(folder), "--port", str(port)]
    command += [
        "--token",
        TOKEN,
        "--client-secret",
        CLIENT_SECRET,
        "--engine",
        engine,
        *(["--isolated"] if isolated else []),
    ]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            command.append(flag)
        elif value is not False:
            for each in value if isinstance(value, (list, tuple)) else [value]:
                command += [flag, str(each)]
    log = folder / "server.log"
    url = f"http://127.0.0.1:{port}"
    checkout = str(Path(__file__).parents[2])
    with running(command, log=log, env={"PYTHONPATH": checkout}) as process:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return answers(f"{url}/health")

        eventually(ready, pause=0.05)
        yield Workspace(url, TOKEN, folder, process.pid)
