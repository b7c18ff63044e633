"""What comes back from Databricks has to arrive as a whole, or the step has failed: messages and events."""

import json
import random
import zipfile
from datetime import datetime, timezone

import dagster as dg
import pytest

from mlops_dagster.compute.pipes import Pipes
from mlops_dagster.stack.store import TableVersion
from mlops_dagster.steps import StepReport
from mlops_dagster.steps.report_pieces import to_pieces
from mlops_dagster_tests.contracts.databricks_stack import EXISTING, VOLUME, Launched
from mlops_dagster_tests.contracts.shipped import shipped

pytestmark = [pytest.mark.examples, pytest.mark.slow, pytest.mark.xdist_group("databricks")]

ROWS = [{"Date": "2020-01-01T00:00:00"}]
MADE_AT = datetime(2020, 1, 1, tzinfo=timezone.utc)

# Says what it finds in a file, and ends as it is told.
SCRIPT = """
import json, os, sys, time
from dagster_pipes import (PipesCliArgsParamsLoader, PipesUnityCatalogVolumesContextLoader,
                           PipesUnityCatalogVolumesMessageWriter, open_dagster_pipes)
messages, how = json.load(open(sys.argv[1])), sys.argv[2]
with open_dagster_pipes(params_loader=PipesCliArgsParamsLoader(),
                        context_loader=PipesUnityCatalogVolumesContextLoader(),
                        message_writer=PipesUnityCatalogVolumesMessageWriter(interval=0)) as pipes:
    print("printed by the script")
    pipes.log.info("logged by the script")
    for message in messages:
        pipes.report_custom_message(message)
    if how == "vanish":
        time.sleep(4)  # until what was said is written
        os._exit(0)
"""


class Scripted(Pipes):
    """Pipes whose task is a script, which says what a test wants."""

    how = "close"

    def _task(self, wheel, arguments):
        parameters = [f"{VOLUME}/{self.name}/messages.json", self.how]
        task = {"python_file": f"{VOLUME}/{self.name}/script.py", "parameters": parameters}
        return {"spark_python_task": task, "existing_cluster_id": EXISTING}, {}


@pytest.fixture
def scripted(new_stack, ws):
    """Run an asset whose task says these messages; return what Dagster has of it."""
    stack = new_stack("pipes-existing")
    folder = ws.volumes / "main/mlops/data" / stack.name

    def run(messages, how="close"):
        (folder / "script.py").write_text(SCRIPT)
        (folder / "messages.json").write_text(json.dumps(messages))
        pipes = Scripted(stack.deployment, shipped("stock_price"))
        pipes.name, pipes.how = stack.name, how

        @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["ACME"]), code_version="1")
        def made(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
            return pipes.run(context, "training_set", {})

        with stack.instance() as instance:
            result = dg.materialize([made], partition_key="ACME", instance=instance, raise_on_error=False)
            return Launched(result.run_id, list(instance.all_logs(result.run_id)))

    return run


def report(megabytes=0.0):
    table = TableVersion("training_set", "ACME", 3, "digest", 400, {"symbol": "ACME"}, "/somewhere", MADE_AT)
    # Noise, which can't be compressed.
    plots = {"noise": random.Random(1).randbytes(int(megabytes * 2**20))} if megabytes else {}
    said = {"metrics": {"rmse": 0.5}, "plots": plots, "model": "stock_price"}
    return StepReport("training_set", "ACME", "a-data-version", table, {"Date": "datetime64"}, ROWS, facts={}, **said)


def test_a_report_of_three_megabytes_arrives(scripted, capfd):
    launched = scripted(list(to_pieces(report(3))))
    assert launched.success, launched.failures
    made = launched.materializations["made"]
    assert made["rmse"] == 0.5
    assert len(made["noise"]) > 4_000_000  # in Base64
    assert "logged by the script" in launched.log
    assert "printed by the script" in capfd.readouterr().out


def test_a_missing_piece_fails_the_step(scripted):
    pieces = list(to_pieces(report(1)))
    assert len(pieces) > 2
    launched = scripted(pieces[:1] + pieces[2:])
    assert launched.materializations == {}
    assert "didn't arrive as a whole" in launched.failures["made"]


def test_a_task_that_says_nothing_fails_the_step(scripted):
    launched = scripted([])
    assert launched.materializations == {}
    assert "didn't arrive as a whole" in launched.failures["made"]


def test_a_missing_last_word_is_no_failure_if_the_report_is_there(scripted):
    assert scripted(list(to_pieces(report())), how="vanish").success


@pytest.mark.parametrize(("times", "success"), [(1, True), (1000, False)])
def test_messages_that_are_cut_are_read_again_and_never_taken_for_all(times, success, scripted, ws):
    ws.fault("truncate", path="*/messages/*.json", size=900, times=times)
    launched = scripted(list(to_pieces(report(0.2))))
    assert launched.success == success, launched.failures
    assert ("made" in launched.materializations) == success


# ------------------------------------------------------------------------------------------------ the step launcher


@pytest.mark.parametrize(("times", "success"), [(1, True), (1000, False)])
def test_events_that_are_cut_are_read_again_and_never_taken_for_all(times, success, new_stack, ws):
    stack = new_stack("step-existing")
    ws.fault("truncate", path="*events.pkl*", size=60, times=times)
    launched = stack.launch(only="prices/data", config={})
    assert launched.success == success, launched.failures
    if not success:
        assert launched.materializations == {}
        assert "never said how it ended" in launched.failures["prices__data"]
        assert "damaged" in launched.failures["prices__data"]


@pytest.mark.parametrize("kind", ["step-existing", "pipes-existing"])
def test_success_without_a_word_from_the_step_is_a_failure(kind, new_stack, ws):
    stack = new_stack(kind)
    ws.fault("kill", seconds=0.1)
    ws.fault("result", result="SUCCESS")
    launched = stack.launch(only="prices/data", config={})
    assert not launched.success
    assert launched.materializations == {}
    assert ws.url in launched.failures["prices__data"]


def test_the_code_that_travels_is_the_wheels_and_nothing_else(new_stack, ws):
    stack = new_stack("step-existing")
    ws.fault("pending", seconds=3)
    found = {}

    class Stop(Exception):
        pass

    from mlops_dagster.compute import step_launcher

    its = step_launcher.StepLauncher._upload_artifacts

    def upload(self, log, step_run_ref, run_id, step_key):
        its(self, log, step_run_ref, run_id, step_key)
        with zipfile.ZipFile(ws.dbfs / "staging" / stack.name / run_id / step_key / "code.zip") as code:
            found.update(dict.fromkeys(code.namelist()))
        raise Stop

    step_launcher.StepLauncher._upload_artifacts = upload
    try:
        stack.launch(only="prices/data", config={})
    finally:
        step_launcher.StepLauncher._upload_artifacts = its
    assert {"mlops_dagster/definitions.py", "mlops_dagster/examples/prices/defs/prices/GSPC.csv"} <= found.keys()
    folders = {name.split("/")[0] for name in found}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"mlops_dagster"}
    # The models that ship are declared in YAML, and so is what `mlops new` proposes; nobody's deployments travel.
    assert not [name for name in found if name.endswith((".pyc", ".env")) or "tests" in name]
    others = {name for name in found if name.endswith(".yaml") and "/examples/" not in name}
    assert others == {"mlops_dagster/modeling/proposed_estimators.yaml"}
