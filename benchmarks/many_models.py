"""Models a minute: a model of each of many series, by one run of many, by a run for each, and by a bare loop.

python -m benchmarks.many_models [series] [runs of one]

Each series has 250 rows and gets five shallow trees; all four steps of `build_model_pipeline`, SQLite, pictures of new
champions only. In turn: a bare joblib loop over the same functions in as many processes as there are cores, `mlops
build-model --all`, the same on a local Spark, Dagster's runs of fifty partitions, Dagster's runs of one partition (a
few of them, two at a time, as before there were runs of many), and Metaflow's `foreach` over the same functions, two at
a time, if it is installed. Wall time with all that starts up; also the most memory that one of them used, its processes
together.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import psutil

from benchmarks.warm_model import write_project

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


def run(command: Sequence[str], folder: Path, home: str, **settings: str) -> int:
    """Run a command, and return the most memory that it and all below it had at once, in MB."""
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
    return most // 1_000_000


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
        for home in ("loop", "shell", "spark", "many", "one", "metaflow"):
            run([str(BIN / "mlops"), "init"], folder, home)
            run([str(BIN / "mlops"), "build-model", "sales", "--partition", series[0]], folder, home)
        add = "import dagster, sys; dagster.DagsterInstance.get().add_dynamic_partitions('sales_series', sys.argv[1:])"
        for home in ("many", "one"):
            run([sys.executable, "-c", add, *series], folder, home)

        rates: dict[str, float] = {}

        def say(what: str, models: int, began: float, memory: int) -> None:
            rates[what] = 60 * models / (time.monotonic() - began)
            print(f"{what:34} {rates[what]:7.1f} models a minute, {memory:,} MB at most ({models} models)", flush=True)

        began = time.monotonic()
        say("a bare loop", count, began, run([sys.executable, "-c", FUNCTIONS + LOOP, *series], folder, "loop"))
        everything = [str(BIN / "mlops"), "build-model", "sales", "--all"]
        began = time.monotonic()
        say("mlops build-model --all", count, began, run(everything, folder, "shell"))
        on_spark = {"MLOPS_SPARK__PARTITIONS": "true", "MLOPS_SPARK__MASTER": f"local[{os.cpu_count()}]"}
        began = time.monotonic()
        say("the same on Spark", count, began, run(everything, folder, "spark", **on_spark))
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
        for what in rates:
            each, loop = (rates[what] / rates[other] for other in ("Dagster, a run for each", "a bare loop"))
            print(f"{what:34} {each:5.1f} times a run for each, {100 * loop:4.0f} % of the bare loop")


if __name__ == "__main__":
    main()
