"""Each schedule and sensor fires under the real daemon, and the queue and backfills do what they are for.

One `dagster dev` serves this module. Each test has symbols of its own. The sensors of MLflow's runs have a module of
their own, `test_mlflow_run_status.py`.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mlops_dagster.instance import prepare_instance
from mlops_dagster.session import Session
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.tracking import Origin
from mlops_dagster.steps import champion_of
from mlops_dagster_tests.automation.rows import reverting_prices
from mlops_dagster_tests.contracts.dagster_dev import LOCATION, DagsterDev, dagster_dev
from mlops_dagster_tests.contracts.servers import eventually
from mlops_dagster_tests.contracts.shipped import shipped

pytestmark = [pytest.mark.examples, pytest.mark.slow, pytest.mark.xdist_group("dagster dev")]

PREDICTIONS = ["stock_price", "predictions"]
EACH_MINUTE = {"cron": "* * * * *"}
REPOSITORY = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}
RUNS = """query($f: RunsFilter!) {runsOrError(filter: $f) {... on Runs {results {
    runId status jobName creationTime startTime endTime assetSelection {path} tags {key value}}}}}"""


class AutomatedDev(DagsterDev):
    """A `dagster dev` in which nearly everything happens by itself."""

    told = ()  # what the webhook got

    def runs(self, symbol, job=None, **tags):
        """The runs of a symbol, alone or as the first of many, the oldest first."""
        found = []
        for key in ("dagster/partition", "dagster/asset_partition_range_start"):
            wanted = {key: symbol, **tags}
            filters = {"tags": [{"key": key, "value": value} for key, value in wanted.items()]}
            if job:
                filters["pipelineName"] = job
            found += self.ask(RUNS, f=filters)["results"]
        return sorted(found, key=lambda run: run["creationTime"])

    def first_run(self, symbol, job=None, **tags):
        """Wait until such a run has ended; return it."""

        def ended():
            runs = self.runs(symbol, job, **tags)
            return bool(runs) and runs[0]["status"] in ("SUCCESS", "FAILURE", "CANCELED") and runs[0]

        return eventually(ended, seconds=400, pause=0.5)

    def first_run_by_condition(self, symbol):
        def ended():
            runs = [run for run in self.runs(symbol) if {"path": PREDICTIONS} in (run["assetSelection"] or [])]
            return bool(runs) and runs[0]["status"] in ("SUCCESS", "FAILURE") and runs[0]

        return eventually(ended, seconds=400, pause=0.5)

    def turn_on(self, kind, name):
        selector = {**REPOSITORY, f"{kind.lower()}Name": name}
        answer = self.ask(
            f"mutation($s: {kind}Selector!) {{start{kind}({kind.lower()}Selector: $s) {{__typename}}}}", s=selector
        )
        assert answer["__typename"] in ("Sensor", "ScheduleStateResult"), answer

    def turn_off(self, *names, kind="Sensor"):
        """What has been seen to work asks for no more runs, which would only keep the other tests waiting."""
        stop = "stopRunningSchedule" if kind == "Schedule" else "stopSensor"
        for name in names:
            found = self.ask(
                f"query($s: {kind}Selector!) "
                f"{{{kind.lower()}OrError({kind.lower()}Selector: $s) {{... on {kind} {{id}}}}}}",
                s={**REPOSITORY, f"{kind.lower()}Name": name},
            )
            answer = self.ask(f"mutation($id: String!) {{{stop}(id: $id) {{__typename}}}}", id=found["id"])
            assert answer["__typename"] in ("StopSensorMutationResult", "ScheduleStateResult"), answer

    def ticks(self, sensor):
        state = self.ask(
            "query($s: SensorSelector!) {sensorOrError(sensorSelector: $s) {... on Sensor {sensorState "
            "{ticks(limit: 200) {status skipReason runIds error {message}}}}}}",
            s={**REPOSITORY, "sensorName": sensor},
        )
        return state["sensorState"]["ticks"]

    def add_symbol(self, symbol):
        self.ask(
            "mutation($r: RepositorySelector!, $k: String!) {addDynamicPartition(repositorySelector: $r, "
            'partitionsDefName: "prices_symbol", partitionKey: $k) {__typename}}',
            r=REPOSITORY,
            k=symbol,
        )

    def symbols(self):
        return self.ask('{assetNodeOrError(assetKey: {path: ["prices", "data"]}) {... on AssetNode {partitionKeys}}}')[
            "partitionKeys"
        ]

    def has_symbol(self, symbol):
        """Wait until a symbol is a partition."""
        return eventually(lambda: symbol in self.symbols())


class Webhook(BaseHTTPRequestHandler):
    """Keeps what it gets."""

    def do_POST(self):
        self.server.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def make_champion(symbol, folder):
    """As `mlops build-model` and `mlops predict` do; with forecasts of days whose truth is known."""
    reverting_prices().to_csv(folder / f"{symbol}.csv", index=False)
    session = Session(load_deployment(), shipped("stock_price"), Origin("shell", "before"))
    steps = ("data", "training_set", "trained_model", "champion_model")
    for step, given in [*((one, {}) for one in steps), ("predictions", {"catch_up": 30})]:
        session.run(step, symbol, given)
    assert champion_of(symbol, session.store).version == "1"


@pytest.fixture(scope="module")
def dev(tmp_path_factory, empty_mlflow):
    home = tmp_path_factory.mktemp("automated")
    (home / "mlflow").mkdir()
    (home / "mlflow" / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    (home / "files").mkdir()
    (home / "inbox" / "prices").mkdir(parents=True)
    webhook = HTTPServer(("127.0.0.1", 0), Webhook)
    webhook.told = []
    threading.Thread(target=webhook.serve_forever, daemon=True).start()
    env = {
        "MLOPS_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
        "MLOPS_PARTITIONS": '{"prices": ["DUE"]}',
        "MLOPS_DATA": json.dumps({"prices": {"path": str(home / "files" / "{symbol}.csv")}}),
        # Due every minute: each does its work once, and says so from then on.
        "MLOPS_SCHEDULES": json.dumps({"predictions": EACH_MINUTE | {"default": "running"}, "search": EACH_MINUTE}),
        # The forecasts of these prices are good; here everything counts as poor.
        "MLOPS_RETRAIN": json.dumps({"skill_below": 0.99, "days_scored": 1}),
        "MLOPS_NOTIFY__WEBHOOK_URL": f"http://127.0.0.1:{webhook.server_port}/hunter2",
        "no_proxy": "*",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        patch.delenv("MLOPS_DEPLOYMENT", raising=False)
        prepare_instance(load_deployment())
        make_champion("DUE", home / "files")
    env["MLOPS_PARTITIONS"] = '{"prices": ["DUE", "LATE"]}'  # the instance doesn't have the second yet
    with dagster_dev(home, env={**env, "PYTHONPATH": str(Path.cwd())}, kind=AutomatedDev) as server:
        server.told = webhook.told
        yield server
    webhook.shutdown()


def deliver(dev, symbol, rows):
    """Put prices into the inbox as people should: written elsewhere, then renamed."""
    rows.to_csv(dev.home / f"{symbol}.part", index=False)
    (dev.home / f"{symbol}.part").rename(dev.home / "inbox" / "prices" / f"{symbol}.csv")


# The first: the schedules are due for every symbol that there is, and now it is one.
def test_the_schedules_and_what_follows_from_their_runs(dev):
    dev.turn_on("Sensor", "best_parameters_to_model")
    forecast = dev.first_run("DUE", "predict_pipeline", **{"dagster/schedule_name": "predictions"})
    assert forecast["status"] == "SUCCESS"
    assert "session" in {tag["key"] for tag in forecast["tags"]}
    # Its forecasts count as poor here.
    rebuilt = dev.first_run("DUE", "build_model_pipeline", **{"dagster/sensor_name": "poor_predictions"})
    assert rebuilt["status"] == "SUCCESS"
    assert {"path": ["prices", "data"]} not in rebuilt["assetSelection"]
    assert "is below 0.99" in {tag["key"]: tag["value"] for tag in rebuilt["tags"]}["built_because"]
    dev.turn_off("poor_predictions")
    eventually(
        lambda: any("From now on" in (tick["skipReason"] or "") for tick in dev.ticks("best_parameters_to_model"))
    )
    dev.turn_on("Schedule", "search")
    searched = dev.first_run("DUE", "search_model_pipeline", **{"dagster/schedule_name": "search"})
    assert searched["status"] == "SUCCESS"
    dev.turn_off("search", kind="Schedule")
    built = dev.first_run("DUE", "build_model_pipeline", search_run_id=searched["runId"])
    assert built["status"] == "SUCCESS"
    assert len(dev.runs("DUE", "predict_pipeline")) == 1  # however often it was due meanwhile
    dev.turn_off("predictions", kind="Schedule")
    dev.turn_off("best_parameters_to_model")


def test_prices_in_the_inbox_lead_to_a_model_then_to_forecasts(dev):
    rows = reverting_prices()
    (dev.home / "inbox" / "prices" / "not a symbol.csv").write_text("x")
    deliver(dev, "NEWCO", rows.head(699))
    built = dev.first_run("NEWCO", "build_model_pipeline")
    assert built["status"] == "SUCCESS"
    assert "NEWCO" in dev.symbols()
    # The champion is another one: the condition of predictions asks for both, in one run.
    remade = dev.first_run_by_condition("NEWCO")
    assert remade["status"] == "SUCCESS"
    assert sorted(key["path"] for key in remade["assetSelection"]) == [
        ["stock_price", "prediction_quality"],
        ["stock_price", "predictions"],
    ]
    deliver(dev, "NEWCO", rows)
    assert dev.first_run("NEWCO", "predict_pipeline")["status"] == "SUCCESS"
    # Nothing more follows from it, in particular no forecast by the condition.
    assert len(dev.runs("NEWCO")) == 3
    assert any("not a symbol.csv is ignored" in (tick["skipReason"] or "") for tick in dev.ticks("inbox"))
    assert not [tick for tick in dev.ticks("inbox") if tick["error"]]
    dev.turn_off("keep_predictions_current")


def test_bad_prices_fail_once_and_somebody_is_told(dev):
    rows = reverting_prices()
    bad = rows.copy()
    bad.loc[5, "Close"] = -1
    deliver(dev, "BADCO", bad)
    failed = dev.first_run("BADCO", "build_model_pipeline")
    assert failed["status"] == "FAILURE"
    (told,) = eventually(lambda: [one for one in dev.told if one["run_id"] == failed["runId"]])
    assert (told["job"], told["symbol"], told["step"]) == ("build_model_pipeline", "BADCO", "prices__data")
    assert "Close" in told["error"]
    assert told["dagster_url"].endswith(f"/runs/{failed['runId']}")
    (dev.home / "inbox" / "prices" / "BADCO.csv").touch()  # the same content
    eventually(lambda: any("same content" in (tick["skipReason"] or "") for tick in dev.ticks("inbox")))
    assert len(dev.runs("BADCO", "build_model_pipeline")) == 1
    deliver(dev, "BADCO", rows)
    eventually(lambda: len(dev.runs("BADCO", "build_model_pipeline")) == 2)
    assert "hunter2" not in (dev.home / "dev.log").read_text()


def test_symbols_of_the_deployment_become_partitions(dev):
    assert dev.has_symbol("LATE")


def test_one_symbol_waits_for_itself_and_not_for_another(dev):
    for symbol in ("TWICE", "OTHER"):
        reverting_prices().to_csv(dev.home / "files" / f"{symbol}.csv", index=False)
        dev.add_symbol(symbol)
    launched = [dev.launch("build_model_pipeline", symbol=symbol) for symbol in ("TWICE", "TWICE", "OTHER")]
    for run_id in launched:
        assert dev.ended(run_id) == "SUCCESS"
    first, second = dev.runs("TWICE", "build_model_pipeline")[:2]
    (other,) = dev.runs("OTHER", "build_model_pipeline")[:1]
    assert second["startTime"] >= first["endTime"]
    assert other["startTime"] < second["startTime"]  # launched last, it overtook the one that waited


def test_a_backfill_with_a_failing_symbol_and_the_failing_one_alone(dev):
    rows = reverting_prices()
    bad = rows.copy()
    bad.loc[5, "Close"] = -1
    for symbol, its in (("FILL1", rows), ("FILL2", bad), ("FILL3", rows)):
        its.to_csv(dev.home / "files" / f"{symbol}.csv", index=False)
        dev.add_symbol(symbol)
    backfill = dev.ask(
        "mutation($p: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $p) {__typename "
        "... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}",
        p={"assetSelection": [{"path": ["prices", "data"]}], "partitionNames": ["FILL1", "FILL2", "FILL3"]},
    )["backfillId"]

    eventually(lambda: backfill_status(dev, backfill) == "COMPLETED_FAILED")
    assert runs_of(dev, backfill) == [("FAILURE", {"FILL1", "FILL3"})]  # a run of all three
    there = dev.ask(
        """{assetNodeOrError(assetKey: {path: ["prices", "data"]}) {... on AssetNode {assetPartitionStatuses {
        ... on DefaultPartitionStatuses {materializedPartitions failedPartitions}}}}}"""
    )["assetPartitionStatuses"]
    ours = {"FILL1", "FILL2", "FILL3"}  # the search's schedule has asked for symbols without a file, too
    assert ours & set(there["materializedPartitions"]) == {"FILL1", "FILL3"}
    assert ours & set(there["failedPartitions"]) == {"FILL2"}
    rows.to_csv(dev.home / "files" / "FILL2.csv", index=False)
    # What the button "Re-execute > From failure" of the backfill's page sends.
    again = dev.ask(
        "mutation($p: ReexecutionParams) {reexecutePartitionBackfill(reexecutionParams: $p) {__typename "
        "... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}",
        p={"parentRunId": backfill, "strategy": "FROM_FAILURE"},
    )
    assert again["__typename"] == "LaunchBackfillSuccess", again
    eventually(lambda: backfill_status(dev, again["backfillId"]) == "COMPLETED_SUCCESS")
    assert runs_of(dev, again["backfillId"]) == [("SUCCESS", {"FILL2"})]


def runs_of(dev, backfill):
    """Of a backfill's runs the status, and the ends of the range of partitions that each is for."""
    found = dev.ask(RUNS, f={"tags": [{"key": "dagster/backfill", "value": backfill}]})["results"]
    ends = {"dagster/partition", "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"}
    return [(run["status"], {tag["value"] for tag in run["tags"] if tag["key"] in ends}) for run in found]


def backfill_status(dev, backfill):
    return dev.ask(
        "query($id: String!) {partitionBackfillOrError(backfillId: $id) {... on PartitionBackfill {status}}}",
        id=backfill,
    )["status"]
