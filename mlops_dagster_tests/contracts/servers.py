"""Real servers on the loopback interface, for tests: each is a process of its own, gone when the test is."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
# `running` starts Python; this becomes the command that it is given.
BECOME = ["-c", "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"]


def eventually(check: Callable[[], T], *, seconds: float = 240, pause: float = 0.2) -> T:
    """Call `check` until it returns something true, and return that. The last exception or value is shown if not."""
    deadline = time.monotonic() + seconds
    while True:
        problem: object
        try:
            if result := check():
                return result
            problem = result
        except Exception as error:  # noqa: BLE001 (whatever it is, it may be over at the next try)
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {seconds} seconds: {problem!r}")
        time.sleep(pause)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    # No proxy: the machine's own settings have no say about the loopback interface.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError), opener.open(url, timeout=5) as response:
        return bool(response.status == 200)
    return False


@contextlib.contextmanager
def running(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in its own process group, and end the whole group at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            # Airflow's tests, which run in an environment of their own, say where these servers are installed.
            [os.environ.get("MLOPS_TESTS_PYTHON", sys.executable), *command],
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
            cwd=log.parent,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            for stop in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, stop)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                    break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # children that outlive their parent


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run an MLflow server whose database and artifacts are in `folder`; yield its URL."""
    url = f"http://127.0.0.1:{port or (port := free_port())}"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/served"]
    log = folder / "server.log"
    with running(command, log=log, env={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}) as process:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return answers(f"{url}/health")

        eventually(ready)
        yield url
