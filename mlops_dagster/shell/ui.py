"""`mlops ui`: Dagster and MLflow together, for as long as this command runs.

Both write to a log file. A small process that outlives this one ends all that was started, however this one ends: it
waits for the end of a pipe, which even kill -9 closes. Each child inherits the lock on the home, so that whoever finds
it taken knows that something still runs there.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from mlops_dagster.errors import MlopsError, needs
from mlops_dagster.shell.output import (
    DeploymentName,
    handle_errors,
    open_tracker,
    out,
    progress,
    refuse_taken_port,
    url_of,
)

# Ends groups of processes, politely first, when whoever named them is gone. It gets their numbers as lines.
ENDER = """
import os, signal, sys, time
groups = [int(line) for line in sys.stdin]
for sent in (signal.SIGTERM, signal.SIGKILL):
    for group in groups:
        try:
            os.killpg(group, sent)
        except OSError:
            pass
    for _ in range(150):
        alive = []
        for group in groups:
            try:
                os.killpg(group, 0)
                alive.append(group)
            except OSError:
                pass
        if not alive:
            sys.exit()
        time.sleep(0.1)
"""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_AN_ERROR = re.compile(r"\b(ERROR|CRITICAL)\b")
_NOT_REACHED = re.compile(r"Dependencies for step .* Not executing")


def ui(
    port: Annotated[int, typer.Option(help="Dagster's port.", min=1, max=65535)] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="MLflow's port.", min=1, max=65535)] = 5000,
    host: Annotated[
        str,
        typer.Option(
            help="The address that Dagster listens on. If other machines can reach it, it asks for a password: the "
            "one in MLOPS_UI_TOKEN, or a new one that is shown. MLflow, which has none, stays on this machine."
        ),
    ] = "127.0.0.1",
    deployment: DeploymentName = None,
) -> None:
    """Open Dagster and MLflow together. Stop both with Ctrl-C.

    Only their own pages and your programs are answered, no other web page that is open in your browser.
    """
    with handle_errors(as_json=False):
        from mlops_dagster.spec.project import MAKE_ONE, model_names
        from mlops_dagster.stack.deployment_files import load_deployment

        settings = load_deployment(deployment)
        if not model_names():
            progress.print(f"No model is declared yet, so Dagster will show none. {MAKE_ONE}.", markup=False)
        settings.home.mkdir(parents=True, exist_ok=True)
        with _only_one(settings.home, url_of(host, port)) as lock:
            # A server, or Databricks, has a UI of its own; a database needs ours.
            own_mlflow = not str(settings.tracking.mlflow_tracking_uri).startswith(("http", "databricks"))
            # Dagster would silently take another port, and every link from MLflow would lead nowhere.
            refuse_taken_port("port", host, port)
            if own_mlflow:
                refuse_taken_port("mlflow_port", "127.0.0.1", mlflow_port)
            with progress.status("Making the state folder ready"):
                open_tracker(settings).connect()
                dagster_home = prepare_dagster(settings)
            if deployment:
                os.environ["MLOPS_DEPLOYMENT"] = deployment  # for the processes that load it again
            served = _Served(settings, dagster_home, host, port, mlflow_port if own_mlflow else None)
            served.run(lock)


def prepare_dagster(settings: Any) -> Path:
    """Make Dagster's home ready; say so where Dagster isn't installed."""
    try:
        from mlops_dagster.instance import prepare_instance
    except ModuleNotFoundError as error:
        raise MlopsError(needs("this command", error)) from None
    return prepare_instance(settings)


class _Served:
    """What is started, with what, and where it answers."""

    def __init__(self, settings: Any, dagster_home: Path, host: str, port: int, mlflow_port: int | None) -> None:
        self.dagster_url = url_of(host, port)
        self.mlflow_url = settings.tracking.mlflow_tracking_uri if mlflow_port is None else None
        self.token = None if _is_loopback(host) else os.environ.get("MLOPS_UI_TOKEN") or secrets.token_urlsafe(18)
        self.log = settings.home / "ui.log"
        self.stopping = False
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(dagster_home),
            "MLOPS_HOME": str(settings.home),
            "MLOPS_DAGSTER_URL": self.dagster_url,
            # The server's job runners are for GenAI; without them it starts in half the time, with fewer processes.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        environment.pop("MLOPS_UI_TOKEN", None)
        self.commands: dict[str, tuple[list[str], dict[str, str]]] = {}
        self.addresses = [(host, port)]
        if mlflow_port is not None:
            self.mlflow_url = environment["MLOPS_TRACKING__UI_URL"] = f"http://127.0.0.1:{mlflow_port}"
            server = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow_port), "--workers", "1"]
            # Every user of the machine can read arguments, and a database's URI may hold its password.
            for_mlflow = {**environment, "MLFLOW_BACKEND_STORE_URI": str(settings.tracking.mlflow_tracking_uri)}
            if settings.tracking.artifact_location:
                for_mlflow["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = settings.tracking.artifact_location
            self.commands["MLflow"] = (server, for_mlflow)
            self.addresses.append(("127.0.0.1", mlflow_port))
        webserver = ["mlops_dagster.webserver", host, str(port), str(dagster_home / "workspace.yaml")]
        ours = {**environment, "MLOPS_UI_TOKEN": self.token} if self.token else environment
        self.commands["Dagster"] = (webserver, ours)

    def run(self, lock: int) -> None:
        """Start both, say where they are, and wait for Ctrl-C."""
        # It may be read by its owner alone: what runs print may be anything.
        os.close(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        with _ender() as end:
            processes = {}
            for name, (command, environment) in self.commands.items():
                # Each gets a session of its own, so that whatever it has started can be ended with it.
                processes[name] = process = subprocess.Popen(  # noqa: S603 (our own commands)
                    [sys.executable, "-m", *command],
                    env=environment,
                    start_new_session=True,
                    pass_fds=[lock],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    encoding="utf-8",
                    errors="replace",
                )
                end(process)
                threading.Thread(target=self._keep, args=(process.stdout,), daemon=True).start()
            try:
                with progress.status("Starting Dagster and MLflow"):
                    for address in self.addresses:
                        while not _answers(address):
                            self._check(processes)
                            time.sleep(0.2)
                self._say_where()
                while True:
                    self._check(processes)
                    time.sleep(0.5)
            except KeyboardInterrupt:
                self.stopping = True  # what each part says about the others' end is for the log alone
                progress.print("Stopping ...")

    def _keep(self, output: IO[str]) -> None:
        """Write what a server prints to the log; errors are shown as well."""
        with self.log.open("a", encoding="utf-8", buffering=1) as log:
            for line, shown in _errors(_COLOURS.sub("", line) for line in output):
                log.write(line)
                if shown and not self.stopping:
                    progress.print(line.rstrip(), markup=False)

    def _say_where(self) -> None:
        from mlops_dagster.stack.tracking import MODEL_TRAINING

        out.print(f"What they log: {self.log}", markup=False)
        if self.token:
            out.print(f"Dagster asks for a password, with any user name: {self.token}", markup=False)
        # MLflow's first page is that for language models.
        experiments = f"/#/experiments?{MODEL_TRAINING}" if str(self.mlflow_url).startswith("http") else ""
        out.print(
            f"Dagster  {self.dagster_url}\nMLflow   {self.mlflow_url}{experiments}\nStop both with Ctrl-C.",
            markup=False,
        )

    def _check(self, processes: dict[str, Any]) -> None:
        for name, process in processes.items():
            if process.poll() is not None:
                time.sleep(0.5)  # its last words are on their way to the log
                last = "".join(self.log.read_text(errors="replace").splitlines(keepends=True)[-15:])
                progress.print(last, markup=False)
                raise MlopsError(f"{name} stopped; the lines above say why, and all is in {self.log}.")


def _errors(lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Tell of each line whether it is an error of its own, or the reason that follows it.

    >>> log = [
    ...     "ERROR - data - STEP_FAILURE - Execution of step failed.",
    ...     "",
    ...     "Failure: path='GSPC.csv': there is no such file.",
    ...     "Stack Trace:",
    ...     "ERROR - training_set - Dependencies for step training_set failed: ['data']. Not executing.",
    ... ]
    >>> [line.partition(":")[0] for line, shown in _errors(log) if shown]
    ['ERROR - data - STEP_FAILURE - Execution of step failed.', 'Failure']
    """
    reason = False
    for line in lines:
        error = bool(_AN_ERROR.search(line)) and not _NOT_REACHED.search(line)
        yield line, error or (reason and bool(line.strip()))
        reason = "STEP_FAILURE" in line or (reason and not line.strip())


@contextmanager
def _ender() -> Iterator[Any]:
    """Start the process that ends the others; yield what names one to it. At the end all are ended."""
    ender = subprocess.Popen(  # noqa: S603 (our own command)
        [sys.executable, "-S", "-E", "-c", ENDER], stdin=subprocess.PIPE, text=True, start_new_session=True
    )
    named: list[subprocess.Popen[str]] = []

    def end(process: subprocess.Popen[str]) -> None:
        ender.stdin.write(f"{process.pid}\n")  # type: ignore[union-attr]
        ender.stdin.flush()  # type: ignore[union-attr]
        named.append(process)

    try:
        yield end
    finally:
        ender.stdin.close()  # type: ignore[union-attr]
        for process in [*named, ender]:
            process.wait()


@contextmanager
def _only_one(home: Path, url: str) -> Iterator[int]:
    """Keep the home's lock, which the processes that are started inherit; refuse a home that has its own already."""
    path = home / "ui.lock"
    with path.open("a+") as stream:
        deadline = time.monotonic() + 20
        while not _taken(stream):
            stream.seek(0)
            pid, _, there = stream.read().strip().partition(" ")
            holders = _who_has_open(path)
            if pid in holders or (not holders and pid and _lives(int(pid))):
                raise MlopsError(
                    f"{home} has an mlops ui already: {there} (process {pid}). Use that, or stop it with Ctrl-C; two "
                    "would run every schedule and sensor twice."
                )
            if time.monotonic() > deadline:
                cure = f"kill -9 {' '.join(holders)}" if holders else f"lsof {path} names them, kill -9 ends them"
                raise MlopsError(
                    f"{home}: processes of an mlops ui that was killed still run. End them ({cure}) and start again."
                )
            with progress.status("Waiting until an mlops ui that was killed has ended"):
                time.sleep(0.5)
        stream.truncate(0)
        stream.write(f"{os.getpid()} {url}")
        stream.flush()
        yield stream.fileno()


def _taken(stream: IO[str]) -> bool:
    import fcntl  # not on Windows, where all but this command works

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _who_has_open(path: Path) -> list[str]:
    """Return the other processes that have a file open, where Linux says so."""
    found = set()
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if fd.samefile(path):
                found.add(fd.parts[2])
    return sorted(found - {str(os.getpid())}, key=int)


def _lives(pid: int) -> bool:
    with suppress(OSError):
        os.kill(pid, 0)
        return True
    return False


def _answers(address: tuple[str, int]) -> bool:
    with suppress(OSError), socket.create_connection(address, timeout=1):
        return True
    return False


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
