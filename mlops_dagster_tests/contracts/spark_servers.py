"""A real Spark cluster and a real Connect server on loopback, each of processes of its own, from the pip package."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyspark

from mlops_dagster.stack.spark_java import java_home
from mlops_dagster_tests.contracts.servers import BECOME, eventually, free_port, running

SPARK = Path(pyspark.__file__).parent
# Settings for machines that are busy with other tests.
PATIENT = {"connect_timeout": 120, "executor_timeout": 240}


def _spark(folder: Path, name: str, *command: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    environment = {
        "JAVA_HOME": str(java_home(folder)),
        "SPARK_HOME": str(SPARK),
        "SPARK_CONNECT_MODE": "0",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_WORKER_DIR": str(folder / "work"),
        "PYSPARK_PYTHON": sys.executable,
    }
    return running([*BECOME, *command], log=folder / f"{name}.log", env=environment)


@dataclass(frozen=True)
class Standalone:
    """A master, and what its own page says."""

    url: str
    page: str

    def state(self) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.page}/json/", timeout=5) as response:
            return json.load(response)


@contextlib.contextmanager
def spark_master(folder: Path) -> Iterator[Standalone]:
    """Run a standalone master without workers."""
    port, page = free_port(), free_port()
    command = ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--webui-port", str(page)]
    with _spark(folder, "master", str(SPARK / "bin" / "spark-class"), *command) as process:
        master = Standalone(f"spark://127.0.0.1:{port}", f"http://127.0.0.1:{page}")

        def ready() -> bool:
            assert process.poll() is None, (folder / "master.log").read_text()
            return bool(master.state()["status"] == "ALIVE")

        eventually(ready)
        yield master


@contextlib.contextmanager
def spark_worker(folder: Path, master: Standalone, name: str) -> Iterator[psutil.Process]:
    """Start a worker with one core; its executors are its children. The master's state says when it is there."""
    command = ["org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--cores", "1", "--memory", "1g"]
    command += ["--webui-port", str(free_port()), master.url]
    with _spark(folder, name, str(SPARK / "bin" / "spark-class"), *command) as process:
        yield psutil.Process(process.pid)


@contextlib.contextmanager
def spark_connect_server(folder: Path) -> Iterator[str]:
    """Run a Connect server on a local Spark with two cores; yield its URL.

    Spark's own script leaves the JVM running when it is killed; this becomes the JVM.
    """
    port = free_port()
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": port,
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.warehouse.dir": folder / "warehouse",
    }
    command = [str(SPARK / "bin" / "spark-submit"), "--master", "local[2,4]"]
    for name, value in settings.items():
        command += ["--conf", f"{name}={value}"]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
    log = folder / "connect.log"
    with _spark(folder, "connect", *command) as process:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return "Spark Connect server started" in log.read_text()

        eventually(ready)
        yield f"sc://127.0.0.1:{port}"


def kill_with_children(process: psutil.Process) -> Sequence[int]:
    """Kill a worker and its executors with -9, as a machine that loses power."""
    family = [process, *process.children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(member.pid, signal.SIGKILL)
    return [member.pid for member in family]
