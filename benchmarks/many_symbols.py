"""A thousand symbols: what Dagster's pages, the schedules and sensors, and a backfill take with them.

python -m benchmarks.many_symbols [symbols] [backfilled]

A real `dagster dev` on a throw-away home, prices in small files of their own, one per symbol. What a page asks is asked
over GraphQL, as the page does. The backfill makes `prices` of that many symbols (60 if not given); the rate is its own.
"""

import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_dagster_tests.contracts.dagster_dev import DagsterDev
from mlops_dagster_tests.contracts.servers import eventually, free_port, running

REPOSITORY = {"repositoryLocationName": "mlops_dagster", "repositoryName": "__repository__"}
PARTITIONS = """{assetNodeOrError(assetKey: {path: ["prices"]}) {... on AssetNode {partitionKeys partitionStats {
    numMaterialized numPartitions} assetPartitionStatuses {__typename ... on DefaultPartitionStatuses {
    materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions}}}}}"""
GRAPH = """{assetNodes {id assetKey {path} groupName isPartitioned partitionStats {numMaterialized numPartitions
    numFailed numMaterializing} assetMaterializations(limit: 1) {timestamp} hasAssetChecks}}"""
ASSET = """{assetNodeOrError(assetKey: {path: ["prices"]}) {... on AssetNode {id description
    automationCondition {label expandedLabel} assetMaterializations(limit: 100) {partition timestamp metadataEntries
    {label}} partitionStats {numMaterialized numPartitions}}}}"""
CHECKS = """{assetNodeOrError(assetKey: {path: ["prices"]}) {... on AssetNode {assetChecksOrError {... on AssetChecks {
    checks {name executionForLatestMaterialization {status}}}}}}}"""
RUNS = """{runsOrError(limit: 25) {... on Runs {results {runId status tags {key value}}}}}"""


def main() -> None:
    symbols = [f"SYM{number:04d}" for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)]
    backfilled = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    home = Path(tempfile.mkdtemp(prefix="many_symbols_"))
    try:
        measure(home, symbols, backfilled)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def measure(home: Path, symbols: list[str], backfilled: int) -> None:
    write_prices(home / "inbox", symbols)
    env = {
        "MLOPS_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
        "MLOPS_SYMBOLS": json.dumps(symbols),
        "MLOPS_PRICES__SOURCE": "files",
        "MLOPS_PRICES__PATH": f"{home}/inbox/{{symbol}}.csv",
        "MLOPS_INBOX__PATH": str(home / "nothing yet"),
        "MLOPS_NOTIFY": "{}",
        "PYTHONPATH": str(Path.cwd()),
        "no_proxy": "*",
    }
    os.environ.update(env)
    os.environ.pop("MLOPS_DEPLOYMENT", None)
    from mlops_dagster.instance import prepare_instance
    from mlops_dagster.stack.deployment_files import load_deployment
    from mlops_dagster.stack.tracking import MlflowTracker

    MlflowTracker(**load_deployment().tracker_settings()).connect()
    said("making the instance and its partitions", timed(lambda: prepare_instance(load_deployment())))
    in_process(symbols)

    port = free_port()
    workspace = str(home / "dagster" / "workspace.yaml")
    command = ["-m", "dagster", "dev", "-w", workspace, "-h", "127.0.0.1", "-p", str(port)]
    began = time.perf_counter()
    with running(command, log=home / "dev.log", env=env):
        dev = DagsterDev(f"http://127.0.0.1:{port}", home)
        eventually(dev.has_loaded)
        said("dagster dev, until the code location is loaded", time.perf_counter() - began)
        pages(dev, "")
        backfill(dev, symbols[:backfilled], home)


def write_prices(folder: Path, symbols: list[str]) -> None:
    draws = np.random.default_rng(0)
    folder.mkdir(parents=True)
    days = pd.bdate_range("2022-01-03", periods=250).strftime("%Y-%m-%d")
    for symbol in symbols:
        close = 100 * np.exp(np.cumsum(draws.normal(0, 0.01, len(days))))
        frame = pd.DataFrame({"Date": days, "Open": close, "High": close, "Low": close, "Close": close})
        frame.assign(**{"Adj Close": close, "Volume": 1000}).to_csv(folder / f"{symbol}.csv", index=False)


def in_process(symbols: list[str]) -> None:
    """Time one tick each of what looks at every symbol, where all of them have something to do."""
    import datetime as dt

    import dagster as dg

    from mlops_dagster.price_schedules import schedules_of
    from mlops_dagster.sensors.price_inbox import price_inbox
    from mlops_dagster.stack.deployment_files import load_deployment
    from mlops_dagster.stack.store import store_of

    deployment = load_deployment()
    store = store_of(deployment)
    said(
        "writing two tables of each symbol, as a build does",
        timed(lambda: [write_tables(store, symbol) for symbol in symbols]),
    )
    deployment.inbox.path = f"{deployment.home}/inbox"
    resources = {"deployment": deployment, "store": store}
    with dg.DagsterInstance.from_config(str(deployment.home / "dagster")) as instance:
        now = dt.datetime(2024, 7, 2, 22, 30, tzinfo=dt.timezone.utc)
        for schedule in schedules_of(deployment):
            context = dg.build_schedule_context(instance, scheduled_execution_time=now, resources=resources)
            asked: list[object] = []
            seconds = timed(lambda: asked.extend(schedule(context)))  # noqa: B023 called at once
            said(f"one tick of {schedule.name}, {len(asked)} runs asked for", seconds)
        cursor = None
        for what in ("files seen first", "files read, runs asked for", "nothing new"):
            context = dg.build_sensor_context(instance, cursor=cursor, resources=resources)
            answers: list[dg.SensorResult] = []
            seconds = timed(lambda: answers.append(price_inbox(context)))  # noqa: B023
            cursor = answers[0].cursor
            said(f"one tick of price_inbox: {what}", seconds)
        said_bytes = len(cursor or "") / 1024
        print(f"  its cursor: {said_bytes:.0f} KiB")
        conditions(instance, symbols)


def write_tables(store: object, symbol: str) -> None:
    store.write("prices", symbol, pd.DataFrame({"AdjClose": [1.0]}), metadata={"origin": "x"})  # type: ignore[attr-defined]
    store.write("champion_model", symbol, pd.DataFrame({"champion": ["1"]}))  # type: ignore[attr-defined]


def conditions(instance: object, symbols: list[str]) -> None:
    import dagster as dg

    from mlops_dagster.definitions import defs

    selection = dg.AssetSelection.assets("price_forecast", "forecast_quality")
    cursor, requested = None, 0
    ephemeral = dg.DagsterInstance.ephemeral()
    ephemeral.add_dynamic_partitions("symbol", symbols)
    for what in ("first", "nothing new", "every champion is new", "asked for already"):
        if what == "every champion is new":
            for symbol in symbols:
                for asset, metadata in (("prices", {}), ("champion_model", {"champion": "1"})):
                    made = dg.AssetMaterialization(
                        asset, partition=symbol, metadata=metadata, tags={"dagster/data_version": "1"}
                    )
                    ephemeral.report_runless_asset_event(made)
        began = time.perf_counter()
        result = dg.evaluate_automation_conditions(
            defs=defs, instance=ephemeral, cursor=cursor, asset_selection=selection
        )
        cursor, requested = result.cursor, result.total_requested
        said(f"one tick of keep_forecasts_current: {what}, {requested} asked for", time.perf_counter() - began)


def pages(dev: DagsterDev, when: str) -> None:
    asked = {"partitions": PARTITIONS, "asset graph": GRAPH, "asset page": ASSET, "its checks": CHECKS, "runs": RUNS}
    for name, query in asked.items():
        times = [timed(lambda: dev.ask(query)) for _ in range(5)]  # noqa: B023
        said(f"{name}{when}, median of 5 (max {max(times):.2f})", statistics.median(times))


def backfill(dev: DagsterDev, symbols: list[str], home: Path) -> None:
    launched = []
    seconds = timed(
        lambda: launched.append(
            dev.ask(
                "mutation($p: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $p) {__typename "
                "... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}",
                p={"assetSelection": [{"path": ["prices"]}], "partitionNames": symbols},
            )
        )
    )
    said(f"launching a backfill of {len(symbols)} symbols", seconds)
    began, count = time.perf_counter(), 0
    query = (
        "query($id: String!) {partitionBackfillOrError(backfillId: $id) "
        "{... on PartitionBackfill {status runs {status}}}}"
    )
    latencies = []
    shown = False
    while True:
        with contextlib.suppress(OSError):
            state: list[dict] = []  # type: ignore[type-arg]
            latencies.append(timed(lambda: state.append(dev.ask(query, id=launched[0]["backfillId"]))))  # noqa: B023
            count = sum(run["status"] == "SUCCESS" for run in state[0]["runs"])
            if count >= len(symbols) / 3 and not shown:
                shown = True
                pages(dev, " during the backfill")
            if state[0]["status"].startswith(("COMPLETED", "FAILED", "CANCELED")):
                break
        time.sleep(1)
    spent = time.perf_counter() - began
    print(f"{state[0]['status']}: {count} of {len(symbols)} symbols, {60 * count / spent:.0f} a minute")
    said("the backfill's page meanwhile, median", statistics.median(latencies))


def timed(do: object) -> float:
    began = time.perf_counter()
    do()  # type: ignore[operator]
    return time.perf_counter() - began


def said(what: str, seconds: float) -> None:
    print(f"{seconds:8.2f} s  {what}", flush=True)


if __name__ == "__main__":
    main()
