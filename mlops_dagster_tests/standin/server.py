"""The workspace's HTTP: which call goes where, who may call, what is logged, which faults hit a request.

Standard library only, so that the server starts at once.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

from mlops_dagster.stack.same_site import why_foreign
from mlops_dagster_tests.standin import pages
from mlops_dagster_tests.standin.access import Access
from mlops_dagster_tests.standin.answers import Answer
from mlops_dagster_tests.standin.errors import ApiError, invalid, no_such_endpoint
from mlops_dagster_tests.standin.faults import Faults
from mlops_dagster_tests.standin.files import Files
from mlops_dagster_tests.standin.jobs import Jobs, list_runs
from mlops_dagster_tests.standin.runs import Runs
from mlops_dagster_tests.standin.settings import Settings
from mlops_dagster_tests.standin.states import Run
from mlops_dagster_tests.standin.views import output_view, run_view

_BODIES_KEPT = re.compile(r".*/jobs/(runs/submit|run-now|create|reset|runs/cancel)$|/api/2\.0/permissions/.*")


class Workspace:
    """Everything that the stand-in is made of."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.faults = Faults()
        self.files = Files(settings.root, self.faults, settings.dbfs)
        self.access = Access(settings)
        self.runs = Runs(settings, self.files, self.faults)
        self.jobs = Jobs(settings, self.runs)
        self._log = (settings.root / "requests.jsonl").open("a", buffering=1)
        self._log_lock = threading.Lock()

    def log(self, entry: Mapping[str, Any]) -> None:
        with self._log_lock:
            self._log.write(json.dumps(entry) + "\n")

    def answer(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Carry one request out, if no web page of another site has sent it."""
        if foreign := why_foreign({name.lower(): value for name, value in headers.items()}, "127.0.0.1"):
            raise ApiError(403, "PERMISSION_DENIED", foreign)
        if path.startswith("/oidc/"):
            return self.access.oidc(path, headers.get("Authorization"), body)
        if method == "GET" and (found := re.fullmatch(r"/jobs/\d+/runs/(\d+)(/\d+)?", path)):
            return Answer.html(pages.of_run(self.runs.get(found[1])))
        if method == "GET" and path == "/":
            return Answer.html(pages.home(self.settings, self.runs))
        if path == "/health":
            return Answer.json({"status": "ok"})
        self.access.check(headers.get("Authorization"))
        if found := re.fullmatch(r"/api/2\.0/fs/(files|directories)(/.*)", path):
            return self.files.volumes(method, found[1], found[2], query, body)
        arguments = {**query, **_json(body)}
        if found := re.fullmatch(r"/api/2\.0/dbfs/([\w-]+)", path):
            return Answer.json(self.files.dbfs(found[1], arguments))
        if found := re.fullmatch(r"/api/2\.[012]/jobs/(.+)", path):
            return Answer.json(self._jobs(method, found[1], path, arguments))
        if found := re.fullmatch(r"/api/2\.0/permissions/(\w+)/([\w-]+)", path):
            return Answer.json(self.access.permissions(method, found[1], found[2], arguments))
        if found := re.fullmatch(r"/api/2\.0/secrets/([\w/]+)", path):
            return Answer.json(self.access.secrets(found[1], arguments))
        if re.fullmatch(r"/api/2\.[01]/clusters/get", path):
            return Answer.json(self._cluster(arguments.get("cluster_id", "")))
        if path == "/api/2.0/preview/scim/v2/Me":
            return Answer.json({"id": "1", "userName": self.settings.user, "active": True})
        if path == "/_standin/faults":
            return self._faults(method, arguments)
        raise no_such_endpoint(method, path)

    def _jobs(self, method: str, operation: str, path: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        runs, jobs, settings = self.runs, self.jobs, self.settings

        def run() -> Run:
            return runs.get(_required(arguments, "run_id"))

        calls: dict[tuple[str, str], Callable[[], dict[str, Any] | int | None]] = {
            ("POST", "runs/submit"): lambda: runs.submit(arguments),
            ("GET", "runs/get"): lambda: run_view(settings, run()),
            ("GET", "runs/get-output"): lambda: output_view(settings, run(), int(arguments["run_id"])),
            ("GET", "runs/list"): lambda: list_runs(settings, runs, arguments),
            ("POST", "runs/cancel"): lambda: runs.cancel(run()),
            ("POST", "runs/cancel-all"): lambda: self._cancel_all(arguments),
            ("POST", "runs/delete"): lambda: runs.delete(run()),
            ("POST", "create"): lambda: jobs.create(arguments),
            ("GET", "get"): lambda: jobs.get(_required(arguments, "job_id")),
            ("GET", "list"): lambda: jobs.list(arguments),
            ("POST", "reset"): lambda: jobs.reset(arguments),
            ("POST", "update"): lambda: jobs.update(arguments),
            ("POST", "delete"): lambda: jobs.delete(_required(arguments, "job_id")),
            ("POST", "run-now"): lambda: jobs.run_now(arguments),
        }
        if (method, operation) not in calls:
            raise no_such_endpoint(method, path)
        answer = calls[method, operation]()
        return {"run_id": answer} if isinstance(answer, int) else answer or {}

    def _cancel_all(self, arguments: Mapping[str, Any]) -> None:
        job_id = _required(arguments, "job_id")
        for run in self.runs.all():
            if str(run.job_id) == str(job_id):
                self.runs.cancel(run)

    def _cluster(self, cluster_id: str) -> dict[str, Any]:
        for run in self.runs.all():
            for task in run.tasks:
                if task.cluster_id == cluster_id and task.task.get("new_cluster"):
                    state = "RUNNING" if run.active else "TERMINATED"
                    return {
                        **task.task["new_cluster"],
                        "cluster_id": cluster_id,
                        "state": state,
                        "cluster_source": "JOB",
                    }
        if cluster_id not in self.settings.clusters:
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"Cluster {cluster_id} does not exist")
        version = f"{self.settings.runtime_version}.x-scala2.13"
        return {"cluster_id": cluster_id, "cluster_name": cluster_id, "state": "RUNNING", "spark_version": version}

    def _faults(self, method: str, arguments: Mapping[str, Any]) -> Answer:
        if method == "POST":
            return Answer.json({"id": self.faults.add(arguments).id})
        if method == "DELETE":
            self.faults.clear()
        return Answer.json({"faults": self.faults.listed()})


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        raise ApiError(400, "MALFORMED_REQUEST", "Could not parse request object: the body is not JSON.") from None
    if not isinstance(found, dict):
        raise ApiError(400, "MALFORMED_REQUEST", "Could not parse request object: the body is no JSON object.")
    return found


def _required(arguments: Mapping[str, Any], name: str) -> Any:
    if arguments.get(name) is None:
        raise invalid(f"Missing required field: {name}")
    return arguments[name]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    workspace: ClassVar[Workspace]

    def log_message(self, *arguments: Any) -> None:
        """Leave the log to `requests.jsonl`."""

    def _handle(self) -> None:
        begun, workspace = time.time(), self.workspace
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), dict(parse_qsl(parts.query, keep_blank_values=True))
        plain_query = unquote(parts.query)
        body = self._body()

        def fault(kind: str) -> Any:
            return workspace.faults.for_request(kind, self.command, path, plain_query)

        code, injected, lost = None, None, False
        try:
            ours = path.startswith("/_standin/")
            if not ours and (delay := fault("delay")):
                injected = "delay"
                time.sleep(delay.seconds or 0)
            if not ours and (wrong := fault("status")):
                injected = "status"
                retry = {} if wrong.retry_after is None else {"Retry-After": f"{wrong.retry_after:g}"}
                raise ApiError(wrong.status, wrong.error_code, wrong.message, retry)
            lost = not ours and fault("lost_answer") is not None
            answer = workspace.answer(self.command, path, query, self.headers, body)  # type: ignore[arg-type]
        except ApiError as error:
            code = error.code
            said = {"error_code": error.code, "message": error.message}
            answer = Answer.json(said, error.status, error.headers)
        except Exception as error:  # noqa: BLE001 - the client is told, and the traceback goes to the log
            traceback.print_exc()
            code = "INTERNAL_ERROR"
            answer = Answer.json({"error_code": code, "message": f"The stand-in failed: {error!r}"}, 500)
        entry = {
            "time": round(begun, 3),
            "method": self.command,
            "path": path,
            "query": query,
            "status": answer.status,
            "error_code": code,
            "fault": "lost_answer" if lost else injected,
            "user_agent": self.headers.get("User-Agent", ""),
            "size": len(body),
            "milliseconds": round((time.time() - begun) * 1000, 1),
        }
        if self.command != "GET" and _BODIES_KEPT.fullmatch(path):
            entry["body"] = json.loads(body or b"{}") if code != "MALFORMED_REQUEST" else body.decode(errors="replace")
        workspace.log(entry)
        if lost:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(answer)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0].strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.type)
        self.send_header("Content-Length", str(len(answer.content)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _handle


class Server(ThreadingHTTPServer):
    """A thread per connection, none of which keeps the process alive."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(("127.0.0.1", workspace.settings.port), type("Bound", (Handler,), {"workspace": workspace}))
        self.workspace = workspace

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
