"""A task's process: its folder, its environment, its libraries, how it starts and how it is ended."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_dagster_tests.contracts.spark_archive import archive_options
from mlops_dagster_tests.standin.files import Files
from mlops_dagster_tests.standin.settings import CHECKOUT, Settings

CLUSTER = Path(__file__).parent / "cluster"
MARK = "DATABRICKS_STANDIN_TASK"  # in the environment of each of a task's processes
HIDDEN_PACKAGES = ("mlops_dagster", "mlops_dagster_tests")


class StartError(Exception):
    """The task can't start; the run says why."""


@dataclass(frozen=True)
class Order:
    """What one process has to do, placeholders resolved."""

    folder: Path
    kind: str
    definition: Mapping[str, Any]
    parameters: Sequence[str]
    engine: str
    cluster_id: str
    libraries: Sequence[str]
    spark_conf: Mapping[str, str]
    environment: Mapping[str, str]
    mounts: Sequence[str]  # of dbfs and Volumes, what this compute has


def mark(folder: Path) -> str:
    """Return what marks the processes of a task, or of every task below a folder."""
    return f"{folder}/"


@functools.cache
def unshare() -> list[str] | None:
    """Return the command that gives a process mounts of its own, or None where that is forbidden."""
    found = shutil.which("unshare")
    if found is None:
        return None
    for flags in ("-m", "-rm") if os.geteuid() == 0 else ("-rm",):
        asked = subprocess.run([found, flags, "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True)
        if asked.returncode == 0:
            return [found, flags]
    return None


def start(settings: Settings, files: Files, order: Order) -> subprocess.Popen[bytes]:
    """Start the process that an order asks for; raise StartError if its file or a library isn't there."""
    folder = order.folder
    for name in ("home", "site", "tmp", "root", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    namespace = settings.mapping == "namespace"
    task = {
        "kind": order.kind,
        "parameters": list(order.parameters),
        "engine": order.engine,
        "cluster_id": order.cluster_id,
        "spark_conf": dict(order.spark_conf),
        "mapping": settings.mapping,
        "mounts": list(order.mounts),
        "root": str(settings.root),
        "error_file": str(folder / "error.json"),
        "hidden_packages": list(HIDDEN_PACKAGES) if settings.isolated else [],
        "hidden_from": sorted({os.path.realpath(each) for each in _local_places()}),
    }
    if order.kind == "spark_python_task":
        task["python_file"] = _visible(files, order, namespace)
    else:
        task["package_name"] = order.definition["package_name"]
        task["entry_point"] = order.definition["entry_point"]
    for wheel in order.libraries:
        _install(order, files.local(wheel), wheel)
    shutil.copytree(CLUSTER, folder / "cluster", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "cluster" / "task.json").write_text(json.dumps(task, indent=1))
    command = [settings.python, str(folder / "cluster" / "standin_task.py")]
    if namespace:
        command = [*_namespace(settings, folder, order.mounts), *command]
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=_environment(settings, order),
            cwd=folder / "work",
            start_new_session=True,
        )


def _local_places() -> list[str]:
    return [str(CHECKOUT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]


def _visible(files: Files, order: Order, namespace: bool) -> str:
    """Return where the task sees its Python file."""
    path = order.definition["python_file"]
    ours = path.startswith(("dbfs:", "/Volumes/"))
    local = files.local(path) if ours else Path(path.removeprefix("file:"))
    if not local.is_file() or not _reachable(order, path):
        raise StartError(f"Cannot read the python file {path}. Please check driver logs for more details.")
    return f"/{local.relative_to(files.root)}" if ours and namespace else str(local)


def _reachable(order: Order, path: str) -> bool:
    plain = path.removeprefix("dbfs:")
    wanted = "Volumes" if plain.startswith("/Volumes/") else "dbfs" if plain != path else None
    return wanted is None or wanted in order.mounts


def _install(order: Order, wheel: Path, named: str) -> None:
    problem = None
    if not wheel.is_file() or not _reachable(order, named):
        problem = f"{named} does not exist"
    elif not re.fullmatch(r"[^-]+-[^-]+(-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl", wheel.name):
        problem = f"{wheel.name} is not a valid wheel filename"
    else:
        try:
            with zipfile.ZipFile(wheel) as archive:
                if not any(re.fullmatch(r"[^/]+\.dist-info/WHEEL", name) for name in archive.namelist()):
                    problem = f"{wheel.name} has no .dist-info/WHEEL"
                else:
                    archive.extractall(order.folder / "site")
        except zipfile.BadZipFile:
            problem = f"{wheel.name} is not a zip file"
    if problem is not None:
        raise StartError(
            f'Library installation failed for library due to user error for whl: "{named}". Error messages: {problem}.'
        )


def _environment(settings: Settings, order: Order) -> dict[str, str]:
    given = dict(order.environment)
    folder = order.folder
    path = [str(folder / "cluster"), str(folder / "site"), *filter(None, [given.pop("PYTHONPATH", "")])]
    binaries = [str(Path(settings.python).parent), "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]
    environment = {
        "PATH": ":".join([*binaries, "/sbin", "/bin"]),
        "HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
        "TZ": "Etc/UTC",
        "DATABRICKS_RUNTIME_VERSION": settings.runtime_version,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": settings.python,
        "PYTHONPATH": ":".join(path),
        "PYTHONUNBUFFERED": "1",
        MARK: mark(folder),
        **given,
    }
    if order.engine != "none":
        environment |= {"JAVA_HOME": java_home(settings.root), **archive_options()}
    return environment


@functools.cache
def java_home(root: Path) -> str:
    from mlops_dagster.stack import spark_java

    folder = root / "java"
    folder.mkdir(exist_ok=True)
    return str(spark_java.java_home(folder))


def _namespace(settings: Settings, folder: Path, mounts: Sequence[str]) -> list[str]:
    command = unshare()
    if command is None:
        raise StartError("A namespace was asked for, and this machine gives none: use --map patch.")
    hidden = [*settings.hide]
    shared = [settings.root, Path(settings.python).parents[1], Path(sys.base_prefix), *settings.share]
    private = ""
    if settings.isolated:
        hidden += [CHECKOUT / name for name in HIDDEN_PACKAGES]
        private = str(folder / "tmp")
    return [
        *command,
        "/bin/bash",
        str(folder / "cluster" / "namespace.sh"),
        str(folder / "root"),
        str(settings.root),
        ":".join(mounts),
        private,
        ":".join(map(str, hidden)),
        ":".join(map(str, shared)),
    ]


def family(prefix: str) -> list[int]:
    """Return the processes whose environment carries this mark, or one that begins with it."""
    wanted = f"{MARK}={prefix}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(each.startswith(wanted) for each in (entry / "environ").read_bytes().split(b"\0")):
                found.append(int(entry.name))
    return found


def end(process: subprocess.Popen[bytes], folder: Path, grace: float) -> None:
    """End a task's process, and every process that came from it: TERM, then KILL after the grace."""
    deadline = time.monotonic() + grace
    _send(signal.SIGTERM, process, folder)
    while time.monotonic() < deadline and (process.poll() is None or family(mark(folder))):
        time.sleep(0.05)
    kill(process, folder)


def kill(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill a task's processes at once."""
    _send(signal.SIGKILL, process, folder)
    process.wait()


def _send(number: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
    for pid in family(mark(folder)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
