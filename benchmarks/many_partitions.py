"""How Dagster's pages and daemon bear a model with very many partitions: ten times as many, side by side.

python -m benchmarks.many_partitions [partitions]

A project with a model for each series of one table, first with a tenth of the partitions, then with all. Seconds of:
loading the definitions in a new process; from the first page until the daemon has added the partitions; what the pages
of all assets and of one asset ask for, with every partition materialized once (median of five); launching a backfill of
all of them, and until the daemon has made its first run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.warm_model import write_project
from mlops_dagster_tests.contracts.dagster_dev import DagsterDev
from mlops_dagster_tests.contracts.servers import eventually, free_port, running

LOAD = "from mlops_dagster.definitions import defs; defs.get_repository_def()"
REPORT = """
import dagster as dg
with dg.DagsterInstance.get() as instance:
    for one in instance.get_dynamic_partitions("sales_series"):
        instance.report_runless_asset_event(dg.AssetMaterialization(["sales", "trained_model"], partition=one))
"""
ASSETS = """{assetsOrError {... on AssetConnection {nodes {key {path} definition {
    partitionStats {numMaterialized numFailed numPartitions}}}}}}"""
ASSET = """{assetNodeOrError(assetKey: {path: ["sales", "trained_model"]}) {... on AssetNode {
    partitionStats {numMaterialized numFailed numPartitions} partitionKeysByDimension {partitionKeys}
    assetPartitionStatuses {... on DefaultPartitionStatuses {materializedPartitions failedPartitions}}}}}"""
COUNT = '{assetNodeOrError(assetKey: {path: ["sales", "data"]}) {... on AssetNode {partitionStats {numPartitions}}}}'
BACKFILL = """mutation($p: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $p) {__typename
    ... on LaunchBackfillSuccess {backfillId}}}"""
RUNS = "query($f: RunsFilter!) {runsOrError(filter: $f, limit: 1) {... on Runs {results {runId}}}}"


def seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def measure(series: int) -> dict[str, float]:
    found = {}
    with tempfile.TemporaryDirectory(prefix="many_partitions_") as temporary:
        folder, port, other = Path(temporary), free_port(), free_port()
        names = [f"S{number:05d}" for number in range(series)]
        write_project(folder, names, rows=3)
        homes = {"MLOPS_HOME": str(folder / "home"), "DAGSTER_HOME": str(folder / "home" / "dagster")}
        load = [sys.executable, "-c", LOAD]
        found["load"] = statistics.median(
            seconds(lambda: subprocess.run(load, cwd=folder, env={**os.environ, **homes}, check=True)) for _ in range(3)
        )
        ui = ["-m", "mlops_dagster.cli", "ui", "--port", str(port), "--mlflow-port", str(other)]
        with running(ui, log=folder / "ui.log", env=homes):
            dev = DagsterDev(f"http://127.0.0.1:{port}", folder)
            eventually(dev.has_loaded, seconds=300)
            began = time.monotonic()
            eventually(lambda: dev.ask(COUNT)["partitionStats"]["numPartitions"] == series, seconds=600)
            found["the partitions are there"] = time.monotonic() - began
            subprocess.run([sys.executable, "-c", REPORT], cwd=folder, env={**os.environ, **homes}, check=True)
            for name, query in (("the page of all assets", ASSETS), ("the page of an asset", ASSET)):
                found[name] = statistics.median(seconds(lambda query=query: dev.ask(query)) for _ in range(5))
            steps = ("data", "training_set", "trained_model", "champion_model")
            asked = {
                "assetSelection": [{"path": ["sales", step]} for step in steps],
                "partitionNames": names,
            }
            began = time.monotonic()
            backfill = dev.ask(BACKFILL, p=asked)["backfillId"]
            found["launching a backfill"] = time.monotonic() - began
            tags = {"tags": [{"key": "dagster/backfill", "value": backfill}]}
            eventually(lambda: dev.ask(RUNS, f=tags)["results"], seconds=600)
            found["until its first run"] = time.monotonic() - began
    return found


def main() -> None:
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    few, many = measure(most // 10), measure(most)
    print(f"{'':28} {most // 10:>9,} {most:>9,}   ratio")
    for name, value in few.items():
        print(f"{name:28} {value:9.2f} {many[name]:9.2f} {many[name] / value:7.1f}")


if __name__ == "__main__":
    main()
