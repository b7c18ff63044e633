"""What must not happen when a step runs on Databricks, by the step launcher and by Pipes: each test is one guard.

Faults are the stand-in's. One step, the prices' data, is enough for most: what is tested is the way there and back.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading

import dagster as dg
import pytest

from mlops_dagster.compute import submission
from mlops_dagster.definitions import definitions_of
from mlops_dagster_tests.contracts.databricks_stack import EXISTING
from mlops_dagster_tests.contracts.servers import eventually

pytestmark = [pytest.mark.examples, pytest.mark.slow, pytest.mark.xdist_group("databricks")]

both = pytest.mark.parametrize("kind", ["step-existing", "pipes-existing"])
# What both do by the same code, `compute/submission.py`, is seen on one of them.
step = pytest.mark.parametrize("kind", ["step-existing"])
pipes = pytest.mark.parametrize("kind", ["pipes-existing"])


STEP = "prices__data"


def prices(stack, **options):
    return stack.launch(only="prices/data", config=options.pop("config", {}), **options)


def runs_of(stack, launched=None):
    """The Databricks runs of a stack's last launch, the oldest first."""
    runs = [run for run in stack.workspace.runs() if run["run_name"].split()[0] == "mlops_dagster"]
    return [run for run in runs if launched is None or run["run_name"].endswith(launched.run_id)]


def states(runs):
    return [tuple(run["state"].get(name) for name in ("life_cycle_state", "result_state")) for run in runs]


def assert_failed(launched, *words):
    assert not launched.success
    assert launched.materializations == {}
    assert set(launched.failures) == {STEP}
    for word in words:
        assert word in launched.failures[STEP]


def staged(stack):
    """Everything below the staging folder but the wheels, which stay."""
    below = [
        stack.workspace.dbfs / "staging" / stack.name,
        stack.workspace.volumes / "main/mlops/data" / stack.name / "staging",
    ]
    return [path for folder in below for path in folder.rglob("*") if path.is_file() and path.suffix != ".whl"]


# ------------------------------------------------------------------------------------------------------ interrupts


@both
def test_an_interrupt_cancels_the_run_and_makes_nothing(kind, new_stack, ws):
    stack = new_stack(kind)
    ws.fault("pending")  # no cluster, until it is cancelled

    before = len(ws.runs())

    def interrupt():
        eventually(lambda: len(ws.runs()) > before, seconds=120)
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    launched = prices(stack)
    interrupting.join()
    assert not launched.success
    assert launched.materializations == {}
    assert not any(event.is_step_success for event in launched.events)
    assert states(ws.runs()[before:]) == [("TERMINATED", "CANCELED")]
    assert staged(stack) == []


@step
def test_a_cancel_that_is_ignored_is_repeated_until_the_run_is_over(kind, new_stack, ws, monkeypatch):
    stack = new_stack(kind)
    ws.fault("pending")
    ws.fault("cancel_ignored", seconds=3)
    # The deadline is ours: two seconds.
    monkeypatch.setattr(submission, "GRACE_SECONDS", 2 - stack.settings["databricks"]["timeout_seconds"])
    launched = prices(stack)
    assert_failed(launched, "timeout_seconds")
    assert states(runs_of(stack, launched))[0][0] == "TERMINATED"


# ------------------------------------------------------------------------------------------------ states of the run


@pytest.mark.parametrize(
    ("kind", "fault", "words"),
    [
        ("step-existing", {"kind": "skipped"}, "skipped"),
        ("pipes-existing", {"kind": "internal_error"}, "internal error"),
        ("step-existing", {"kind": "result", "result": "SUCCESS_WITH_FAILURES", "message": "one of two"}, "one of two"),
        # Seen at that moment, the run is TERMINATED or still TERMINATING.
        (
            "pipes-existing",
            {"kind": "kill", "seconds": 0.2},
            "/FAILED): the task failed: Task prices__data failed with message: The Python",
        ),
    ],
    ids=["skipped", "internal error", "another result", "killed"],
)
def test_whatever_isnt_success_is_a_failure(kind, fault, words, new_stack, ws):
    stack = new_stack(kind)
    ws.fault(**fault)
    launched = prices(stack)
    assert_failed(launched, words, ws.url)
    assert staged(stack) == []


@pipes
def test_terminating_without_a_result_isnt_the_end(kind, new_stack, ws):
    stack = new_stack(kind)
    ws.fault("terminating", seconds=1)
    launched = prices(stack)
    assert launched.success, launched.failures
    assert "TERMINATING" in launched.log


# ----------------------------------------------------------------------------------------------- never two live runs


@step
def test_a_lost_answer_makes_no_second_run(kind, new_stack, ws):
    stack = new_stack(kind)
    ws.fault("lost_answer", method="POST", path="*/jobs/runs/submit")
    launched = prices(stack)
    assert launched.success, launched.failures
    assert len(runs_of(stack, launched)) == 1


@step
def test_a_killed_workers_run_is_replaced_when_the_run_is_executed_again(kind, new_stack, ws):
    stack = new_stack(kind)
    with stack.instance():
        pass
    ws.fault("pending")
    code = (
        "import dagster as dg;"
        "from mlops_dagster.definitions import defs;"
        "from dagster._core.definitions.reconstruct import ReconstructableRepository as R;"
        "job = R.for_module('mlops_dagster.definitions', 'defs').get_reconstructable_job('build_model_pipeline');"
        "instance = dg.DagsterInstance.get();"
        "data = [dg.AssetKey(['prices', 'data'])];"
        "dg.execute_job(job, instance, tags={'dagster/partition': 'ACME'}, asset_selection=data)"
    )
    before = len(ws.runs())
    log = stack.home / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-c", code], stdout=output, stderr=output, env={**os.environ, **stack.environment}
        )
        try:
            eventually(lambda: ws.runs()[before]["state"]["life_cycle_state"] == "PENDING", seconds=120)
        except BaseException:
            print(log.read_text())
            raise
        finally:
            worker.kill()
            worker.wait()
    with stack.instance() as instance:
        (died,) = instance.get_runs()
        instance.report_run_failed(died)
    again = prices(stack, reexecution_options=dg.ReexecutionOptions(parent_run_id=died.run_id))
    assert again.success, again.failures
    left, its = ws.runs()[before:]
    assert left["run_name"] == its["run_name"]
    assert states([left, its]) == [("TERMINATED", "CANCELED"), ("TERMINATED", "SUCCESS")]
    assert left["end_time"] <= its["start_time"]
    assert staged(stack) == []


# ------------------------------------------------------------------------------------------- what the cluster says


@both
def test_a_failure_there_arrives_with_its_own_message_and_traceback(kind, new_stack, price_file, ws):
    stack = new_stack(kind)
    (ws.volumes / "main/mlops/data" / stack.name / "ACME.csv").write_text("Date,Open\nnever,1\n")
    launched = prices(stack)
    assert_failed(launched, "ContractError", "ACME.csv", "in load")
    assert staged(stack) == []


@step
def test_other_versions_there_are_refused_before_any_work(kind, new_stack, monkeypatch):
    stack = new_stack(kind)
    from mlops_dagster.compute import pipes, step_launcher

    for module in (pipes, step_launcher):
        its = module.versions
        monkeypatch.setattr(
            module,
            "versions",
            lambda *more, its=its, **of: {**its(*more, **of), "Python": "3.9", "scikit-learn": "0.24.0"},
        )
    launched = prices(stack)
    assert_failed(launched, "scikit-learn is", "0.24.0", "Python", "3.9")
    assert not (stack.workspace.volumes / "main/mlops/data" / stack.name / "store").exists()


# ---------------------------------------------------------------------------------------------- nothing is given away


@both
def test_no_secret_is_in_anything_that_is_kept_or_sent(kind, new_stack, ws):
    stack = new_stack(kind)
    kept = {}
    done = threading.Event()

    def copy_what_is_staged():
        while not done.wait(0.05):
            for path in staged(stack):
                with contextlib.suppress(OSError):
                    kept[path] = path.read_bytes()

    copying = threading.Thread(target=copy_what_is_staged)
    copying.start()
    try:
        launched = prices(stack)
    finally:
        done.set()
        copying.join()
    assert launched.success, launched.failures
    assert kept
    secrets = [ws.token, "test-secret"]
    texts = list(kept.values())
    texts += [path.read_bytes() for path in stack.home.rglob("*") if path.is_file()]
    texts += [json.dumps(ws.submitted()).encode(), launched.log.encode()]
    texts += [(ws.root / "requests.jsonl").read_bytes()]
    for secret in secrets:
        assert not any(secret.encode() in text for text in texts)
    # Nor anything of this machine's folders: the reference to the run goes without them.
    reference = [content for path, content in kept.items() if path.name == "step_run_ref.pkl"]
    assert not any(str(stack.home).encode() in content for content in reference)


@pipes
def test_a_retried_step_has_a_run_of_its_own_after_the_first_one_is_over(kind, new_stack, ws, monkeypatch):
    stack = new_stack(kind)

    def with_retries(deployment):
        plain = definitions_of(deployment)
        retried = dg.define_asset_job(
            "build_model_pipeline", selection=["prices/data"], op_retry_policy=dg.RetryPolicy(max_retries=1)
        )
        return dg.Definitions(plain.assets, jobs=[retried], resources=plain.resources, executor=plain.executor)

    monkeypatch.setattr("mlops_dagster.definitions.definitions_of", with_retries)
    ws.fault("kill", seconds=0.2)  # of the first run only
    launched = prices(stack)
    assert launched.success, launched.failures
    assert any(event.is_step_up_for_retry for event in launched.events)
    assert set(launched.materializations) == {"prices/data"}
    assert states(runs_of(stack, launched)) == [("TERMINATED", "FAILED"), ("TERMINATED", "SUCCESS")]
    first, second = sorted(runs_of(stack, launched), key=lambda run: run["start_time"])
    assert first["end_time"] <= second["start_time"]


@pipes
def test_what_stays_behind_because_it_is_secret_is_said(kind, new_stack, ws, monkeypatch):
    stack = new_stack(kind)
    monkeypatch.setenv("MLOPS_TRACKING__ENV", '{"MLFLOW_TRACKING_PASSWORD": "hunter2-hunter2"}')
    ws.fault("skipped")  # that it is sent is all that counts here
    launched = prices(stack)
    assert "not sent to Databricks, as they hold secrets: tracking.env.MLFLOW_TRACKING_PASSWORD." in launched.log
    assert "hunter2" not in launched.log + json.dumps(ws.submitted())


@pipes
def test_permissions_that_cant_be_granted_cancel_the_run(kind, new_stack, ws):
    stack = new_stack(kind)
    stack.settings["databricks"]["permissions"] = {"job": {"CAN_VIEW": [{"group_name": "analysts"}]}}
    stack.write()
    ws.fault(
        "status",
        method="PATCH",
        path="*/permissions/jobs/*",
        status=403,
        error_code="PERMISSION_DENIED",
        message="no analysts",
    )
    ws.fault("pending")
    launched = prices(stack)
    assert_failed(launched, "databricks.permissions", "no analysts")
    assert states(runs_of(stack, launched)) == [("TERMINATED", "CANCELED")]

    ws.clear_faults()
    ws.fault("skipped")  # the run itself is of no interest any more
    prices(stack)
    granted = ws.requests("/permissions/jobs/")[-1]
    assert granted["body"]["access_control_list"] == [{"permission_level": "CAN_VIEW", "group_name": "analysts"}]


@step
def test_nothing_is_sent_if_any_step_of_the_run_has_bad_config(kind, new_stack, ws):
    stack = new_stack(kind)
    before = len(ws.submitted())
    launched = stack.launch(config={"stock_price__trained_model": {"config": {"n_estimators": 0}}})
    assert_failed(launched, "n_estimators=0")
    assert len(ws.submitted()) == before


# ------------------------------------------------------------------------------------------- the compute of one run


@pytest.mark.parametrize(
    ("kind", "compute", "words"),
    [
        ("pipes-new", {"num_workers": -1}, "resources.mlops_dagster_prices.config.num_workers=-1"),
        ("step-new", {"timeout_seconds": 5}, "resources.mlops_dagster_prices.config.timeout_seconds=5"),
        ("pipes-serverless", {"num_workers": 2}, "only a cluster that is made for the run"),
        ("pipes-new", {"num_workers": 2, "existing_cluster_id": EXISTING}, "give one of the two"),
        ("here", {"slots": 0}, "resources.mlops_dagster_prices.config.slots=0"),
        ("here", {"spark_conf": {"spark.master": "local"}}, "say it with the setting master"),
    ],
)
def test_a_bad_compute_is_refused_before_anything_is_sent(kind, compute, words, new_stack, ws):
    stack = new_stack(kind)
    before = len(ws.submitted())
    launched = prices(stack, compute=compute)
    assert not launched.success
    assert launched.materializations == {}
    assert words in " ".join(str(event.event_specific_data) for event in launched.events)
    assert len(ws.submitted()) == before


@pytest.mark.parametrize("kind", ["pipes-new"])
def test_a_run_may_choose_other_machines(kind, new_stack, ws):
    stack = new_stack(kind)
    chosen = {"num_workers": 3, "node_type_id": "m5.large", "spark_conf": {"spark.a": "b"}, "timeout_seconds": 77}
    ws.fault("skipped", times=3)  # what is asked for is all that counts here
    prices(stack, compute=chosen)
    body = ws.submitted()[-1]
    cluster = body["tasks"][0]["new_cluster"]
    assert (cluster["num_workers"], cluster["node_type_id"]) == (3, "m5.large")
    assert cluster["spark_conf"]["spark.a"] == "b"
    assert body["timeout_seconds"] == 77
    prices(stack, compute={"existing_cluster_id": EXISTING})
    assert ws.submitted()[-1]["tasks"][0]["existing_cluster_id"] == EXISTING
    # Nothing of it stays: the next run is as the deployment says.
    prices(stack)
    assert ws.submitted()[-1]["tasks"][0]["new_cluster"]["node_type_id"] == "i3.xlarge"


@pytest.mark.parametrize("kind", ["step-new", "here"])
def test_the_launchpad_explains_what_a_run_may_change_and_copies_nothing(kind, new_stack):
    definitions = definitions_of(new_stack(kind).deployment)
    fields = definitions.resources["mlops_dagster_stock_price"].config_schema.config_type.fields
    assert "slots" in fields or "num_workers" in fields
    for field in fields.values():
        assert "Default: as the deployment says." in field.description
        assert not field.is_required
        assert not field.default_provided
