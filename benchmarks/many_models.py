"""Models a minute: a model of each of many series, by one run of many, by a run for each, and by a bare loop.

python -m benchmarks.many_models [series] [runs of one]

Each series has 250 rows and gets five shallow trees; all four steps of `build_model_pipeline`, SQLite, pictures of new
champions only. In turn: a bare joblib loop over the same functions in as many processes as there are cores, `mlops
build-model --all`, Dagster's runs of fifty partitions, and Dagster's runs of one partition (a few of them, two at a
time, as before there were runs of many). Wall time with all that starts up; also the most memory that one of them used,
its processes together.
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
from pathlib import Path

import psutil

from benchmarks.warm_model import write_project

BIN = Path(sys.executable).parent
CHUNK = 50
LOOP = """
import sys
from joblib import Parallel, cpu_count, delayed
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

Parallel(n_jobs=cpu_count())(delayed(build)(series) for series in sys.argv[1:])
"""


def run(command: Sequence[str], folder: Path, home: str) -> int:
    """Run a command, and return the most memory that it and all below it had at once, in MB."""
    env = {**os.environ, "MLOPS_HOME": str(folder / home), "DAGSTER_HOME": str(folder / home / "dagster")}
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
        for home in ("loop", "shell", "many", "one"):  # the databases are made before anything is measured
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
        say("a bare loop", count, began, run([sys.executable, "-c", LOOP, *series], folder, "loop"))
        began = time.monotonic()
        say(
            "mlops build-model --all",
            count,
            began,
            run([str(BIN / "mlops"), "build-model", "sales", "--all"], folder, "shell"),
        )
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
        for what in rates:
            each, loop = (rates[what] / rates[other] for other in ("Dagster, a run for each", "a bare loop"))
            print(f"{what:34} {each:5.1f} times a run for each, {100 * loop:4.0f} % of the bare loop")


if __name__ == "__main__":
    main()
