"""Airflow on this machine, for trying it out: one folder of state, the four processes, and how to trigger a run.

Standard library only.
"""

from __future__ import annotations

import base64
import configparser
import ctypes
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")
# What `airflow standalone` starts, but without its servers of logs, which listen on every address of the machine. The
# pages read the log files themselves.
COMMANDS = (("api-server",), ("scheduler", "--skip-serve-logs"), ("triggerer", "--skip-serve-logs"), ("dag-processor",))


def prepare(home: Path, *, port: int, command: str, **more: Mapping[str, str]) -> None:
    """Write the configuration of a local Airflow; what was drawn or changed there before stays.

    Parameters
    ----------
    home : Path
        What ``AIRFLOW_HOME`` has to be.
    port : int
        Of the browser's pages and the REST API.
    command : str
        The command `mlops` that local tasks run.
    **more
        Further options, by section.
    """
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)  # Airflow lets everybody read the password, its database and its logs
    file = home / "airflow.cfg"
    url = f"http://127.0.0.1:{port}"
    drawn: dict[str, dict[str, str]] = {
        "core": {
            "load_examples": "False",
            "parallelism": "4",  # a process each
            "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        },
        "api": {"host": "127.0.0.1", "secret_key": secrets.token_hex(32)},
        "api_auth": {"jwt_secret": secrets.token_hex(32)},
    }
    asked: dict[str, dict[str, str]] = {
        "core": {"dags_folder": str(PROJECT / "dags"), "execution_api_server_url": f"{url}/execution/"},
        "api": {"port": str(port), "base_url": url},
        "mlops": {"command": command},
    }
    config = configparser.ConfigParser(interpolation=None)
    config.read_dict(drawn)
    config.read(file)
    config.read_dict(asked)
    config.read_dict(more)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as written:
        config.write(written)


def environment(home: Path) -> dict[str, str]:
    """Return what every `airflow` command of this home needs of its environment."""
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    return {**os.environ, "AIRFLOW_HOME": str(home), "PYTHONPATH": str(PROJECT), "PATH": path}


@contextmanager
def standalone(home: Path, log: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run Airflow's processes and, at the end, stop them with all that they have started."""
    with log.open("ab") as output:
        how: dict[str, Any] = {
            "env": environment(home),
            "stdin": subprocess.DEVNULL,
            "stdout": output,
            "stderr": subprocess.STDOUT,
        }
        airflow = str(BIN / "airflow")
        subprocess.run([airflow, "db", "migrate"], check=True, **how)  # noqa: S603 - our own command
        processes = [
            subprocess.Popen([airflow, *command], start_new_session=True, preexec_fn=_die_with_parent, **how)  # noqa: S603
            for command in COMMANDS
        ]
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        until = time.monotonic() + 10
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0, until - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _die_with_parent() -> None:
    """End when the one who started it is killed, which can't stop anything any more (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def healthy(url: str) -> bool:
    """Whether every component says that it is well."""
    try:
        said = _ask(f"{url}/api/v2/monitor/health")
    except (OSError, ValueError):
        return False
    return all(said[name]["status"] == "healthy" for name in COMPONENTS)


def token_of(url: str, home: Path) -> str:
    """Return a token for the REST API."""
    token: str = _ask(f"{url}/auth/token", {"username": "admin", "password": password_of(home)})["access_token"]
    return token


def ready(url: str, home: Path) -> bool:
    """Whether every component is well and the DAGs are there, which are read only after that."""
    if not healthy(url):
        return False
    there = {dag["relative_fileloc"] for dag in _ask(f"{url}/api/v2/dags?limit=100", token=token_of(url, home))["dags"]}
    return {file.name for file in (PROJECT / "dags").glob("*.py")} <= there


def password_of(home: Path) -> str:
    """Return the password of the user admin, which Airflow drew when it first started."""
    passwords: dict[str, str] = json.loads((home / "simple_auth_manager_passwords.json.generated").read_text())
    return passwords["admin"]


def _ask(url: str, body: dict[str, str] | None = None, token: str = "") -> Any:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers)  # noqa: S310 - ours
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return json.load(answer)


BANNER = """
Airflow   {url}   user: admin   password: {password}
MLflow    in another shell: make ui   (tasks have a link into it, which opens then)

Trigger a run in the browser (Dags / build_model_pipeline / Trigger), in another shell:

  export AIRFLOW_HOME={home} PYTHONPATH={project}
  {airflow} dags trigger build_model_pipeline --conf '{{"max_depth": 80, "n_estimators": 100}}'

or over the REST API:

  TOKEN=$(curl -s -X POST {url}/auth/token -H 'Content-Type: application/json' \\
    -d '{{"username": "admin", "password": "{password}"}}' | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
  curl -X POST {url}/api/v2/dags/build_model_pipeline/dagRuns \\
    -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
    -d '{{"logical_date": null, "conf": {{"max_depth": 80, "n_estimators": 100}}}}'

Stop it with Ctrl-C. What it says is in {log}
"""


def main() -> None:
    """Start Airflow, say how to use it, and stop it with Ctrl-C."""
    home = Path(os.environ.get("AIRFLOW_HOME") or PROJECT / ".airflow").resolve()
    port = int(os.environ.get("AIRFLOW_PORT") or 8080)
    url, log = f"http://127.0.0.1:{port}", home / "standalone.log"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            sys.exit(f"{url} can't be listened on ({error}). Stop what is there, or: make airflow AIRFLOW_PORT=8081")
    command = os.environ.get("MLOPS_BIN") or "mlops"
    project, manifest = os.environ.get("AIRFLOW__MLOPS__PROJECT") or str(PROJECT.parent), home / "manifest.json"
    prepare(home, port=port, command=command, mlops={"project": project, "manifest": str(manifest)})
    with manifest.open("wb") as file:
        made = subprocess.run([command, "manifest"], cwd=project, stdout=file, check=False)  # noqa: S603 - our own
    if made.returncode:
        sys.exit(made.returncode)  # it has said why
    # Started in the background by a shell, it would ignore Ctrl-C, and so would Airflow.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"Starting Airflow (about a minute); its log: {log}", flush=True)
    with standalone(home, log) as processes:
        try:
            while not ready(url, home):
                if any(process.poll() is not None for process in processes):
                    sys.exit(f"Airflow stopped while it started; {log} says why.")
                time.sleep(1)
            paths = {"home": home, "project": PROJECT, "airflow": BIN / "airflow"}
            pasted = {name: shlex.quote(str(path)) for name, path in paths.items()}
            print(BANNER.format(url=url, password=password_of(home), log=log, **pasted), flush=True)
            while all(process.poll() is None for process in processes):
                time.sleep(1)
            sys.exit(f"Airflow stopped; {log} says why.")
        except KeyboardInterrupt:
            print("Stopping ...", flush=True)


if __name__ == "__main__":
    main()
