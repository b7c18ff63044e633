"""Models a minute: a model of each of many series, by one run of many, by a run for each, and by a bare loop.

python -m benchmarks.many_models [series] [runs of one]

Each series has 250 rows and gets five shallow trees; all four steps of `build_model_pipeline`, SQLite, pictures of new
champions only. In turn: a bare joblib loop over the same functions in as many processes as there are cores, `mlops
build-model --all`, the same on a standalone Spark of two workers with a core each, Dagster's runs of fifty partitions,
Dagster's runs of one partition (a few of them, two at a time, as before there were runs of many), and Metaflow's
`foreach` and Airflow's mapped tasks over the same functions, two at a time, where they are installed. Wall time with
all that starts up, but for Airflow's scheduler and Spark's master and workers: of Airflow's tasks from the start of the
first to the end of the last; also the most memory that one of them used, its processes together, but for Spark's
executors.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import psutil

from benchmarks.warm_model import write_project
from mlops_dagster_tests.contracts import airflow
from mlops_dagster_tests.contracts.servers import eventually
from mlops_dagster_tests.contracts.spark_servers import spark_master, spark_worker

BIN = Path(sys.executable).parent
CHUNK = 50
FUNCTIONS = """
import sys
from mlops_dagster.session import Session
from mlops_dagster.spec.project import find_model
from mlops_dagster.spec.steps import pipelines_of
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.tracking import Origin

def build(series):
    model, made = find_model("sales"), {}
    with Session(Deployment(), model, Origin("benchmark", "1"), plots="champion") as session:
        for step in pipelines_of(model)[0].steps:
            made |= session.run(step.name, series, {}, inputs=made).outputs
"""
LOOP = """
from joblib import Parallel, cpu_count, delayed
Parallel(n_jobs=cpu_count())(delayed(build)(series) for series in sys.argv[1:])
"""
FLOW = """
from metaflow import FlowSpec, step

class Many(FlowSpec):
    @step
    def start(self):
        self.series = open("series.txt").read().split()
        self.next(self.make, foreach="series")

    @step
    def make(self):
        from functions import build
        build(self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass

Many()
"""
# Run by Airflow's own Python; its DAG starts as soon as the scheduler sees it.
AIRFLOW = """
import sqlite3, sys, time
from datetime import datetime
from pathlib import Path
import start

home, dags, port = Path("airflow").resolve(), Path("dags").resolve(), int(sys.argv[1])
two = {"parallelism": "2", "max_active_tasks_per_dag": "2", "dags_folder": str(dags)}
start.prepare(home, port=port, command="mlops", core=two)
state, ends = None, []
with start.standalone(home, Path("airflow.log")):
    while state not in ("success", "failed"):
        time.sleep(1)
        with sqlite3.connect(f"file:{home}/airflow.db?mode=ro", uri=True) as database:
            state, = database.execute("SELECT state FROM dag_run").fetchone() or (None,)
            ends = database.execute("SELECT start_date, end_date FROM task_instance").fetchall()
assert state == "success"
first, last = (datetime.fromisoformat(at) for at in (min(one for one, _ in ends), max(one for _, one in ends)))
print("seconds", (last - first).total_seconds())
"""
DAG = """
import subprocess
from datetime import datetime, timedelta
from airflow.sdk import dag, task

@dag(schedule="@once", start_date=datetime(2024, 1, 1), is_paused_upon_creation=False)
def many():
    @task(retries=3, retry_delay=timedelta(seconds=1))  # its SQLite fails now and then
    def make(series: str) -> None:
        subprocess.run([{python!r}, "-c", {code!r}, series], cwd={folder!r}, check=True)

    make.expand(series={series!r})

many()
"""


def run(command: Sequence[str], folder: Path, home: str, **settings: str) -> int:
    """Run a command, and return the most memory that it and all below it had at once, in MB."""
    return watched(command, folder, home, **settings)[0]


def watched(command: Sequence[str], folder: Path, home: str, **settings: str) -> tuple[int, str]:
    """Run a command, and return that and what it printed."""
    homes = {"MLOPS_HOME": str(folder / home), "DAGSTER_HOME": str(folder / home / "dagster")}
    env = {**os.environ, **homes, **settings}
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    most = 0

    def watch() -> None:
        nonlocal most
        while process.poll() is None:
            try:
                family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                most = max(most, sum(one.memory_info().rss for one in family))
            except psutil.Error:
                pass
            time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()
    said = process.communicate()[0]
    if process.returncode:
        sys.exit(f"{' '.join(command)[:200]}\n{said[-3000:]}")
    return most // 1_000_000, said


def airflow_seconds(series: Sequence[str], folder: Path) -> tuple[float, int]:
    """Let Airflow map a task over series, two at a time; return its seconds, and the most memory in MB."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "dags").mkdir()
    code = FUNCTIONS + "build(sys.argv[1])"
    dag = DAG.format(python=sys.executable, code=code, folder=str(folder), series=[*series])
    (folder / "dags" / "many.py").write_text(dag)
    command = [str(airflow.BIN / "python"), "-c", AIRFLOW, str(port)]
    memory, said = watched(command, folder, "airflow_home", PYTHONPATH=str(airflow.PROJECT))
    return float(said.rpartition("seconds ")[2].split()[0]), memory


def dagster(tags: Mapping[str, str]) -> list[str]:
    job = ["job", "execute", "-m", "mlops_dagster.definitions", "-j", "sales_build_model_pipeline"]
    return [str(BIN / "dagster"), *job, "--tags", json.dumps(tags)]


def main() -> None:
    count, ones = (int(sys.argv[at]) if len(sys.argv) > at else given for at, given in ((1, 200), (2, 6)))
    series = [f"S{number:04d}" for number in range(count)]
    with tempfile.TemporaryDirectory(prefix="many_models_") as temporary:
        folder = Path(temporary)
        write_project(folder, series)
        # The databases are made before anything is measured.
        for home in ("loop", "shell", "spark", "many", "one", "metaflow", "airflow_home"):
            run([str(BIN / "mlops"), "init"], folder, home)
            run([str(BIN / "mlops"), "build-model", "sales", "--partition", series[0]], folder, home)
        add = "import dagster, sys; dagster.DagsterInstance.get().add_dynamic_partitions('sales_series', sys.argv[1:])"
        for home in ("many", "one"):
            run([sys.executable, "-c", add, *series], folder, home)

        rates: dict[str, float] = {}

        def say(what: str, models: int, began: float, memory: int, seconds: float | None = None) -> None:
            rates[what] = 60 * models / (seconds or time.monotonic() - began)
            print(f"{what:34} {rates[what]:7.1f} models a minute, {memory:,} MB at most ({models} models)", flush=True)

        began = time.monotonic()
        say("a bare loop", count, began, run([sys.executable, "-c", FUNCTIONS + LOOP, *series], folder, "loop"))
        everything = [str(BIN / "mlops"), "build-model", "sales", "--all"]
        began = time.monotonic()
        say("mlops build-model --all", count, began, run(everything, folder, "shell"))
        with ExitStack() as cluster:
            master = cluster.enter_context(spark_master(folder))
            for name in ("worker1", "worker2"):
                cluster.enter_context(spark_worker(folder, master, name))
            eventually(lambda: master.state()["aliveworkers"] == 2)
            on_spark = {"MLOPS_SPARK__PARTITIONS": "true", "MLOPS_SPARK__MASTER": master.url}
            began = time.monotonic()
            say("the same on a standalone Spark", count, began, run(everything, folder, "spark", **on_spark))
        began, memory = time.monotonic(), 0
        for first in range(0, count, CHUNK):
            some = series[first : first + CHUNK]
            ends = {"start": some[0], "end": some[-1]}
            tags = {f"dagster/asset_partition_range_{end}": one for end, one in ends.items()}
            memory = max(memory, run(dagster(tags), folder, "many"))
        say(f"Dagster, {CHUNK} partitions a run", count, began, memory)
        began = time.monotonic()
        with ThreadPoolExecutor(2) as two:
            done = list(two.map(lambda one: run(dagster({"dagster/partition": one}), folder, "one"), series[:ones]))
        say("Dagster, a run for each", ones, began, max(done))
        if find_spec("metaflow"):
            (folder / "functions.py").write_text(FUNCTIONS)
            (folder / "flow.py").write_text(FLOW)
            (folder / "series.txt").write_text("\n".join(series[: 4 * ones]))
            flow = [sys.executable, "flow.py", "--no-pylint", "run", "--max-workers", "2", "--max-num-splits", "9999"]
            began = time.monotonic()
            its = run(flow, folder, "metaflow", METAFLOW_DATASTORE_SYSROOT_LOCAL=str(folder / "flows"), USERNAME="one")
            say("Metaflow, foreach", min(count, 4 * ones), began, its)
        if (airflow.BIN / "airflow").exists():
            some = series[: 4 * ones]
            seconds, its = airflow_seconds(some, folder)
            say("Airflow, mapped tasks", len(some), began, its, seconds)
        for what in rates:
            each, loop = (rates[what] / rates[other] for other in ("Dagster, a run for each", "a bare loop"))
            print(f"{what:34} {each:5.1f} times a run for each, {100 * loop:4.0f} % of the bare loop")


if __name__ == "__main__":
    main()
