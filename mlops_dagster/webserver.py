"""Dagster as `mlops ui` serves it: what `dagster dev` starts, with a guard in front of the webserver.

Dagster's webserver answers whoever asks, by any name, and takes a mutation even from a link: every page that its user
has open could launch runs. `dagster dev` has no place for a guard, so its three parts are put together here: code
servers, the daemon, and the webserver, in one group of processes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import uvicorn
import yaml
from dagster._cli.proxy_server_manager import ProxyServerManager
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.interrupts import setup_interrupt_handlers
from dagster._utils.log import configure_loggers
from dagster_webserver.app import create_app_from_workspace_process_context
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from mlops_dagster.stack.same_site import why_foreign

# The variable that hands the password on: an argument could be read by every user of the machine.
TOKEN = "MLOPS_UI_TOKEN"  # noqa: S105 (its name)
# What a page may send to another site without asking that site first.
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")


class Guard:
    """ASGI middleware: the site's own pages and the user's own programs pass, other web pages don't.

    Parameters
    ----------
    listens_on : str
        The address that it listens on.
    token : str, optional
        The password that browsers then ask for (with any user name), and that programs send as bearer token.
    """

    def __init__(self, app: Any, listens_on: str, token: str | None = None) -> None:
        self._app, self._listens_on, self._token = app, listens_on, token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request or a websocket on, or refuse it."""
        refusal = self._refuse(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": bytes(refusal.body).decode()[:100]})
        else:
            await refusal(scope, receive, send)

    def _refuse(self, scope: Any) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        if why := why_foreign(headers, self._listens_on):
            return PlainTextResponse(f"{why}\n", 403)
        if self._token is not None and not _knows(headers.get("authorization", ""), self._token):
            asked = {"WWW-Authenticate": 'Basic realm="mlops ui"'}
            return PlainTextResponse(f"Give the password of mlops ui ({TOKEN}), with any user name.\n", 401, asked)
        if scope["type"] == "http" and scope["path"].endswith("/graphql"):
            if scope["method"] == "GET" and "text/html" not in headers.get("accept", ""):
                return PlainTextResponse("GraphQL is asked by POST here, with JSON.\n", 405, {"Allow": "POST"})
            kind = headers.get("content-type", "").split(";")[0].strip().lower()
            if scope["method"] == "POST" and kind in _FORMS:
                return PlainTextResponse(f"Content-Type {kind}: send JSON, as application/json.\n", 415)
        return None


def _knows(authorization: str, token: str) -> bool:
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.encode(), token.encode())


def serve(host: str, port: int, workspace: str, token: str | None = None) -> None:
    """Serve Dagster until a signal comes."""
    os.environ["DAGSTER_IS_DEV_CLI"] = "1"  # a code location that fails to load says so without Dagster's own frames
    setup_interrupt_handlers()
    configure_loggers(formatter="colored", log_level="INFO")
    with dg.DagsterInstance.get() as instance, _code_servers(instance, workspace) as served, _daemon(served):
        instance.optimize_for_webserver(statement_timeout=15_000, pool_recycle=3600, max_overflow=20)
        target = WorkspaceFileTarget([served])
        with WorkspaceProcessContext(instance, workspace_load_target=target, version=dg.__version__) as context:
            app = create_app_from_workspace_process_context(context, live_data_poll_rate=2000)
            uvicorn.run(Guard(app, host, token), host=host, port=port, log_level="warning", timeout_graceful_shutdown=2)


@contextmanager
def _code_servers(instance: dg.DagsterInstance, workspace: str) -> Iterator[str]:
    """Start the code servers that webserver and daemon share; return a workspace file that points to them."""
    target = WorkspaceFileTarget([workspace])
    with ProxyServerManager(instance, target, "WARNING") as servers, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "workspace.yaml"
        file.write_text(yaml.safe_dump({"load_from": list(servers.get_code_server_specs())}))
        yield str(file)


@contextmanager
def _daemon(workspace: str) -> Iterator[None]:
    """Run the daemon; should it end by itself, this process ends too."""
    command = [sys.executable, "-m", "dagster._daemon", "run", "-w", workspace]
    # It inherits the lock on the home, as this process has.
    process = subprocess.Popen(command, close_fds=False)  # noqa: S603 (our own command)
    wanted = threading.Event()

    def end_with_it() -> None:
        process.wait()
        if not wanted.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_it, daemon=True).start()
    try:
        yield
    finally:
        wanted.set()
        process.terminate()
        process.wait()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3], os.environ.get(TOKEN))
